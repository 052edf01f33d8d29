"""The ranges of settings."""

import numpy as np
import pytest

from artclf.base.errors import SettingError
from artclf.base.settings import (
    RANGES,
    Range,
    check,
    check_choice,
    check_parts,
    from_environment,
)


@pytest.mark.parametrize("value", [2, 5, np.int64(3)])
def test_both_ends_of_a_range_are_in_it(value):
    assert value in Range(2, 5)


@pytest.mark.parametrize("value", [1, 6, -3, 2.0, np.float64(3), "3", None, True, float("nan")])
def test_what_is_no_whole_number_of_a_range_is_not_in_it(value):
    assert value not in Range(1.5, 5)


@pytest.mark.parametrize(
    "value, is_in",
    [(0.5, True), (1, True), (np.float32(0.1), True), (0, False), (float("nan"), False)]
    + [(float("inf"), False), (-0.1, False), ("0.5", False), (1.01, False)],
)
def test_a_range_of_numbers_may_lack_an_end(value, is_in):
    assert (value in Range(0, 1, is_whole=False, without=(0,))) == is_in


def test_the_message_names_setting_value_and_range():
    with pytest.raises(SettingError, match="^epochs is -1: take a whole number from 1 to 10000$"):
        check(lr=1e-3, epochs=-1)
    with pytest.raises(SettingError, match="^lr is nan: take a number from 0 to 10, but not 0$"):
        check(lr=float("nan"))
    with pytest.raises(SettingError, match="^hue is 'x': take one of red, green$"):
        check_choice("hue", "x", ("red", "green"))
    check(epochs=1, lr=10)
    check_choice("hue", "red", ("red", "green"))


@pytest.mark.parametrize(
    "parts",
    [(70, 30), (0, 50, 50), (70, -1, 31), (70, float("nan"), 15), (1, 1, float("inf")), 70, "abc"],
)
def test_parts_are_three_shares(parts):
    with pytest.raises(SettingError, match="three shares of train, valid and test"):
        check_parts(parts)
    check_parts((70, 0, 30))
    check_parts([0.7, 0.15, 0.15])


def test_a_number_from_the_environment(monkeypatch):
    monkeypatch.delenv("ARTCLF_CACHE_GB", raising=False)
    assert from_environment("ARTCLF_CACHE_GB", 10) == 10
    monkeypatch.setenv("ARTCLF_CACHE_GB", "2.5")
    assert from_environment("ARTCLF_CACHE_GB", 10) == 2.5
    for text in ("many", "", "nan", "-1"):
        monkeypatch.setenv("ARTCLF_CACHE_GB", text)
        with pytest.raises(SettingError, match=r"^ARTCLF_CACHE_GB is .*: take a number from 0 to"):
            from_environment("ARTCLF_CACHE_GB", 10)


def test_seeds_are_those_that_numpy_takes():
    np.random.RandomState(RANGES["seed"].highest)
    with pytest.raises(ValueError):
        np.random.RandomState(RANGES["seed"].highest + 1)


def test_every_range_holds_its_ends():
    for allowed in RANGES.values():
        ends = {allowed.lowest, allowed.highest} - set(allowed.without)
        assert all(end in allowed for end in ends)
