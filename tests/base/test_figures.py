"""Figures: how numbers are written for people."""

import numpy as np
import pytest

from artclf.base.figures import figure, p_value, percent


@pytest.mark.parametrize(
    "value, text",
    [
        (0.82351, "0.824"),
        (np.float32(0.5), "0.500"),
        (12, "12"),
        (np.int64(3), "3"),
        (True, "True"),
        (None, "–"),
        (float("nan"), "–"),
        ("05-baroque", "05-baroque"),
        ([1.23456], "[1.23456]"),
    ],
)
def test_a_number_has_three_decimals_and_a_whole_one_none(value, text):
    assert figure(value) == text


def test_shares_are_percentages_with_one_decimal():
    assert [percent(value) for value in (0.8236, 1, None, float("nan"))] == [
        "82.4%",
        "100.0%",
        "–",
        "–",
    ]


def test_small_p_values_are_below_a_limit():
    assert [p_value(value) for value in (0.25, 0.001, 0.0009)] == ["0.250", "0.001", "< 0.001"]
