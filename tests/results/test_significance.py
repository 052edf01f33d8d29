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


@pytest.mark.parametrize("seeds", [False, True])
def test_a_draw_weighs_the_pictures_of_a_unit_as_often_as_it_is_drawn(seeds):
    rng = np.random.default_rng(3)
    names = ["01-a", "03-b", "09-c"]
    run = pd.DataFrame({"period": rng.choice(names, 30), "predicted": rng.choice(names, 30)})
    run["part"] = "test"
    for name in names:
        run[f"p_{name}"] = (run.predicted == name).astype(float)
    if seeds:
        run["seed"] = rng.integers(3, size=30)
    units = pd.Series(rng.choice(list("abcde"), 30))
    factors = [units, run.seed] if seeds else [units]
    draws = significance.bootstrap(run, units, 20)
    rng = np.random.default_rng(0)
    for drawn in draws.to_dict("records"):
        weights = np.ones(30, int)
        for factor in factors:
            values = factor.unique()  # in the order in which they occur
            chosen = values[rng.integers(len(values), size=len(values))]
            weights *= [(chosen == value).sum() for value in factor]
        expected = evaluation.metrics(run.loc[run.index.repeat(weights)])["test"]
        assert list(drawn) == list(significance.FIGURES)
        for name, value in drawn.items():
            assert value == pytest.approx(expected[name]), name


def test_a_class_that_is_given_once_and_never_predicted_counts_in_macro_f1():
    matrix = np.array([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
    figures = significance._figures(matrix, np.abs(np.subtract.outer([1, 2, 4], [1, 2, 4])))
    assert figures["macro_f1"] == pytest.approx((6 / 7 + 0) / 2)
    assert figures["accuracy"] == 0.75 and figures["distance"] == 0.25


def test_figures_have_names_for_people():
    assert significance.FIGURES == {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "distance": "mean distance in periods",
    }


def test_an_interval_is_the_middle_95_percent():
    draws = pd.DataFrame({"accuracy": np.arange(1001.0), "distance": np.arange(1001.0) * 2})
    expected = pd.DataFrame(
        {"low": [25.0, 50.0], "high": [975.0, 1950.0]}, index=["accuracy", "distance"]
    )
    pd.testing.assert_frame_equal(significance.interval(draws), expected)


@pytest.mark.parametrize("number", [9, 10])
def test_with_fewer_than_ten_painters_each_picture_is_a_unit(number):
    painters = [f"Anna {chr(97 + index % number) * 4}" for index in range(30)]
    rows = pd.DataFrame({"file": [f"{index}.jpg" for index in range(30)], "artist": painters})
    groups, word = significance.units(rows)
    if number == 10:
        assert (groups.nunique(), word) == (10, "painters")
    else:
        assert groups.tolist() == rows.file.tolist()
        assert word == "pictures, as if no two had one painter: the intervals are too narrow"


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
        and word == "painters, or pictures of unknown ones"
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
