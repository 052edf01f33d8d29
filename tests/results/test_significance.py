"""Intervals and tests of significance, against scikit-learn, statsmodels and counting."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from artclf.results import evaluation, significance


def test_intervals_are_percentiles_of_the_figures_on_drawn_groups():
    rng = np.random.default_rng(1)
    run = pd.DataFrame(
        {"part": "test", "seed": 1, "period": rng.choice(["01-a", "02-b", "05-c"], 90)}
    )
    run["predicted"] = np.where(
        rng.random(90) < 0.6, run.period, rng.choice(["01-a", "02-b", "05-c"], 90)
    )
    units = pd.Series(rng.choice(list("abcdefghij"), 90))
    draws = significance.bootstrap(run, units, 150)
    own = []
    for _ in range(150):  # row by row, and scikit-learn's figures
        drawn = pd.concat(
            [run[units == unit] for unit in rng.choice(units.unique(), units.nunique())]
        )
        own.append(
            (
                accuracy_score(drawn.period, drawn.predicted),
                f1_score(drawn.period, drawn.predicted, average="macro"),
            )
        )
    for name, values in zip(("accuracy", "macro_f1"), np.transpose(own), strict=True):
        for share in (0.025, 0.5, 0.975):
            assert draws[name].quantile(share) == pytest.approx(
                np.quantile(values, share), abs=0.05
            )
    assert significance.bootstrap(run, units, 10).equals(significance.bootstrap(run, units, 10))


def test_the_figures_of_a_matrix_are_those_of_interpret():
    run = pd.DataFrame(
        {
            "part": "test",
            "period": ["01-a"] * 5 + ["03-b"] * 4 + ["09-c"] * 2,
            "predicted": ["01-a"] * 3 + ["03-b"] * 5 + ["09-c", "01-a", "01-a"],
        }
    )
    scores = run.assign(**{f"p_{name}": 0.0 for name in ("01-a", "03-b", "09-c", "10-none")})
    matrix, place = evaluation.confusion(scores).to_numpy(), np.array([1, 3, 9, 10])
    expected = evaluation.metrics(scores)["test"]
    for name, value in significance._figures(matrix, np.abs(place[:, None] - place)).items():
        assert value == pytest.approx(expected[name]), name


def test_units_are_painters_then_copies_then_pictures():
    rows = pd.DataFrame(
        {
            "file": [f"{i}.jpg" for i in range(40)],
            "dup_group": "",
            "artist": [f"Anna {chr(97 + i % 12) * 4}" for i in range(40)],
        }
    )
    groups, word = significance.units(rows)
    assert word == "painters" and groups.nunique() == 12 and groups[0] == groups[12] != groups[1]
    rows.loc[0, "artist"], rows.loc[24, "artist"] = "", "Aaaa, Anna"
    groups, word = significance.units(rows)
    assert (
        groups.nunique() == 13
        and groups[24] == groups[12] != groups[0]
        and "pictures of unknown ones" in word
    )
    copies, word = significance.units(
        rows.assign(artist="", dup_group=[f"g{i // 2}" for i in range(40)])
    )
    assert word == "groups of copies" and copies.nunique() == 20 and copies[0] == copies[1]
    for unknown in (rows.assign(artist="", dup_group=""), rows[["file"]]):
        alone, word = significance.units(unknown)
        assert word == "pictures" and alone.nunique() == 40
    alone, word = significance.units(rows.assign(artist="Claude Monet"))
    assert "the intervals are too narrow" in word and alone.nunique() == 40


def test_the_interval_of_an_accuracy_is_about_that_of_a_normal_distribution():
    run = pd.DataFrame({"part": "test", "period": "a", "predicted": ["a"] * 140 + ["b"] * 60})
    low, high = significance.interval(significance.bootstrap(run, pd.Series(range(200)), 2000)).loc[
        "accuracy"
    ]
    wide = 1.96 * np.sqrt(0.7 * 0.3 / 200)
    assert (low, high) == pytest.approx((0.7 - wide, 0.7 + wide), abs=0.01)


@pytest.mark.parametrize(
    "both, one, other, none", [(5, 9, 2, 4), (0, 3, 3, 0), (0, 12, 0, 1), (3, 0, 0, 2)]
)
def test_mcnemar_agrees_with_statsmodels(both, one, other, none):
    first = [True] * (both + one) + [False] * (other + none)
    second = [True] * both + [False] * one + [True] * other + [False] * none
    found = significance.mcnemar(first, second)
    expected = mcnemar([[both, one], [other, none]], exact=True).pvalue
    assert (found["only_one"], found["only_other"]) == (one, other)
    assert found["p"] == pytest.approx(expected if one + other else 1)


def test_holm_agrees_with_statsmodels():
    for p in (
        [0.04, 0.001, 0.03, 0.9, 0.02],
        [0.5],
        [0.01, 0.01, 0.01],
        np.random.default_rng(0).random(17) ** 3,
    ):
        assert significance.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
