"""Few labels: curves, strategies that choose what they say, and the notebook."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from artclf.base.errors import InputError, SettingError
from artclf.lab import few_labels
from artclf.results.recipe import DEFAULTS

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["01-a", "02-b", "03-c"]
PICTURES = {"01-a": 60, "02-b": 30, "03-c": 10}


@pytest.fixture(scope="module")
def pool():
    """A hundred pictures in clouds that overlap, of three periods, the last of which is rare."""
    rng = np.random.default_rng(0)
    periods = np.repeat(list(PICTURES), list(PICTURES.values()))
    middles = {name: rng.normal(size=8) * 1.2 for name in CLASSES}
    x = np.array([middles[name] for name in periods]) + rng.normal(size=(100, 8))
    part = np.where(
        np.arange(100) % 3 == 0, "test", np.where(np.arange(100) % 7 == 0, "valid", "train")
    )
    images = pd.DataFrame(
        {"period": periods, "part": part, "file": [f"{i}.jpg" for i in range(100)]}
    )
    return few_labels.Pool(images, x.astype(np.float32), x, CLASSES)


def test_a_score_is_that_of_scikit_learns_logistic_regression(pool):
    labelled = few_labels.some_of_each(pool, 5, seed=2)
    y = pool.periods[labelled]
    weight = len(y) * DEFAULTS.ridge  # C is the inverse of the penalty on the sum of the losses
    model = LogisticRegression(C=1 / weight, class_weight="balanced", tol=1e-8, max_iter=5000)
    model.fit(pool.x[labelled], y)
    probabilities = few_labels.answers(pool, labelled, pool.tests)
    assert probabilities == pytest.approx(model.predict_proba(pool.x[pool.tests]), abs=2e-3)
    given, found = pool.periods[pool.tests], model.predict(pool.x[pool.tests])
    assert few_labels.score(pool, labelled) == {
        "accuracy": pytest.approx(accuracy_score(given, found)),
        "macro_f1": pytest.approx(f1_score(given, found, average="macro")),
    }


def test_periods_without_a_label_are_never_answered(pool):
    first = np.flatnonzero(pool.images.period == "02-b")[:1]
    only_one = few_labels.answers(pool, first, pool.tests)
    assert (only_one == [0, 1, 0]).all()
    two = np.flatnonzero(pool.images.period != "01-a")
    assert (few_labels.answers(pool, two, pool.tests)[:, 0] == 0).all()


def test_a_curve_rises_and_takes_as_many_of_each_period_as_it_says(pool):
    curve = few_labels.learning_curve(pool, (1, 4, None), seeds=(1, 2, 3))
    means = curve.groupby("labels").accuracy.mean()
    assert list(means.index) == [3, 12, len(pool.candidates)] and means.is_monotonic_increasing
    labelled = few_labels.some_of_each(pool, 4, seed=1)
    assert pd.Series(pool.periods[labelled]).value_counts().tolist() == [4, 4, 4]
    assert len(few_labels.some_of_each(pool, 20)) == 20 + 20 + 6  # all that there are of the last
    assert set(pool.images.part.iloc[labelled]) <= {"train", "valid"}
    assert sorted(labelled) != sorted(few_labels.some_of_each(pool, 4, seed=2))


def test_strategies_choose_what_they_say(pool):
    labelled = few_labels.some_of_each(pool, 3, seed=1)
    places = np.setdiff1d(pool.candidates, labelled)
    p = few_labels.answers(pool, labelled, places)
    chosen = {
        name: few_labels.next_to_label(pool, labelled, 4, name) for name in few_labels.STRATEGIES
    }
    for found in chosen.values():
        assert len(set(found)) == 4 and not set(found) & {*labelled, *pool.tests}
    two = -np.sort(-p, axis=1)
    assert list(chosen["margin"]) == list(places[np.argsort(two[:, 0] - two[:, 1])[:4]])
    entropy = -(p * np.log(p)).sum(1)
    assert list(chosen["entropy"]) == list(places[np.argsort(-entropy)[:4]])
    known = list(labelled)
    for place in chosen["coverage"]:
        nearest = cdist(pool.points[places], pool.points[known]).min(1)
        assert place == places[nearest.argmax()]
        known.append(place)
    shortlist = places[np.argsort(two[:, 0] - two[:, 1])[: 4 * few_labels.SHORTLIST]]
    assert set(chosen["margin and coverage"]) <= set(shortlist)
    assert set(chosen["margin and coverage"]) != set(chosen["margin"])
    with pytest.raises(SettingError, match="strategy"):
        few_labels.next_to_label(pool, labelled, 4, "magic")


def test_all_strategies_begin_alike_and_the_summary_is_of_the_differences(pool):
    table = few_labels.compare(pool, ("random", "margin"), 6, 5, 3, seeds=(1, 2))
    assert table.groupby("strategy").labels.unique().map(list).tolist() == [[6, 11, 16, 21]] * 2
    starts = table[table.labels == 6].set_index(["seed", "strategy"]).macro_f1.unstack()
    assert (starts.margin == starts.random).all()
    found = few_labels.summary(table)
    later = table[table.labels > 6].groupby(["strategy", "seed"]).macro_f1.mean().unstack(0)
    gains = later.margin - later.random
    assert found.loc["margin", ["macro_f1_above", "lowest", "highest"]].tolist() == pytest.approx(
        [gains.mean(), gains.min(), gains.max()]
    )
    assert found.seeds_above.margin == (gains > 0).sum() and found.macro_f1_above.random == 0
    assert found.labels_for_the_same.random <= 21
    axes = few_labels.plot_lines(table, "strategy").axes[0]
    assert [line.get_label() for line in axes.lines] == ["random", "margin"]
    assert axes.lines[1].get_ydata()[0] == pytest.approx(starts.margin.mean())


def test_a_pool_ends_when_all_have_a_label(pool):
    table = few_labels.compare(pool, ("margin and coverage",), 60, 5, 4, seeds=(1,))
    assert table.labels.tolist() == [60, 65, 66]
    assert len(few_labels.next_to_label(pool, pool.candidates, 3)) == 0


def test_thinning_leaves_few_of_train_and_valid_and_all_of_test(pool):
    table = few_labels.thinned(pool.images, 5, seed=1)
    counts = table.groupby(["part", "period"]).size().unstack(0)
    assert counts.train.tolist() == [5, 5, 4]  # all that there are of the last
    assert (counts.valid.dropna() == 1).all()
    assert counts.test.sum() == len(pool.tests)
    assert table.file.tolist() == [f for f in pool.images.file if f in set(table.file)]
    with pytest.raises(InputError, match="no setting"):
        few_labels.configuration(labels=3)


@pytest.mark.slow
def test_the_notebook_runs(drawn, tmp_path):
    import nbformat

    from artclf import run

    copy = run.execute(
        ROOT / "notebooks/experiments/20_few_labels.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(drawn),
            "OUT": str(tmp_path / "out"),
            "ARCH": "efficientnet_lite0",
            "SIZE": 64,
            "NUMBERS": (1, 2),
            "SEEDS": (1, 2),
            "FINE_TUNED": (2,),
            "FINE_TUNING_SEEDS": (1,),
            "EPOCHS": 1,
            "UNFROZEN_EPOCHS": 1,
            "START": 6,
            "STEP": 4,
            "ROUNDS": 2,
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [item for cell in book.cells if cell.cell_type == "code" for item in cell.outputs]
    texts = " ".join(str(item.get("data", {}).get("text/plain", "")) for item in outputs)
    assert few_labels.FINE_TUNED in texts and "margin and coverage" in texts
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 4
    assert not any(item.get("name") == "stderr" for item in outputs)
    [kept] = (tmp_path / "out/runs").iterdir()
    predictions = pd.read_csv(kept / "predictions.csv")
    assert set(predictions.part) == {"test"}
