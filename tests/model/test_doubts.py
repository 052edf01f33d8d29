"""Doubtful labels and outliers: wrong labels come first, no picture vouches for itself, and what is
said of too few.
"""

import importlib.util
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from artclf.data.catalogue import Catalogue, clean_path, read_catalogue
from artclf.model import doubts, features

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks/labels.py"
PERIODS = "01-early", "05-baroque", "14-cubism"


def cloud(periods, seed=0, dim=100, spread=0.8):
    """Features of pictures, not negative, that lie around a centre for each period."""
    rng, names = np.random.default_rng(seed), sorted(set(periods))
    centres = np.random.default_rng(9).uniform(1, 4, (len(names), dim))
    return np.maximum(
        centres[[names.index(p) for p in periods]] + rng.normal(0, spread, (len(periods), dim)), 0
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A function that fills a catalogue: given periods, the true ones and further columns; it
    returns the folder.

    A picture's features are made up: they depend on the true period only.
    """

    def fill(given, true=None, **columns):
        seen = dict(zip([f"{i:04}" for i in range(len(given))], cloud(true or given), strict=True))
        rows = [
            {
                "url": f"http://a.example/{i}",
                "period": p,
                "file": f"raw/{p}/{i:04}.png",
                "status": "ok",
                "sha256": f"{i:04}",
                "clean_sha256": f"{i:04}",
                "clean_status": "ok",
                **{name: values[i] for name, values in columns.items()},
            }
            for i, p in enumerate(given)
        ]
        with Catalogue(tmp_path) as cat:
            cat.add(rows)
            cat.update(rows)
        monkeypatch.setattr(
            features,
            "extract",
            lambda data, rows, *_, **__: np.stack([seen[n] for n in rows.sha256]),
        )
        return tmp_path

    return fill


@pytest.fixture
def flipped(data_set):
    """A data set of 90 pictures, and which of its labels are wrong."""
    true = [PERIODS[i % 3] for i in range(90)]
    wrong = [4, 17, 33, 50, 71, 88]
    given = [
        PERIODS[(i + 1 + i % 2) % 3] if i in wrong else period for i, period in enumerate(true)
    ]
    return data_set(given, true), [f"{i:04}" for i in wrong], dict(enumerate(true))


def stems(table) -> list[str]:
    return [Path(file).stem for file in table.file]


# Doubtful labels


def test_wrong_labels_come_first_with_the_right_one_as_the_likelier(flipped):
    data, wrong, true = flipped
    ranked = doubts.mark(data)
    assert (
        len(ranked) == 90
        and ranked.doubt.is_monotonic_decreasing
        and ranked.doubt.between(0, 1).all()
    )
    first = ranked.head(len(wrong))
    assert sorted(stems(first)) == wrong
    assert first.likelier.tolist() == [true[int(stem)] for stem in stems(first)]
    assert (first.likelier_probability > 0.5).all() and (
        first.doubt >= first.likelier_probability
    ).all()
    assert (
        ranked.tail(60).likelier.isna().all() and ranked.tail(60).likelier_probability.isna().all()
    )


def test_the_catalogue_says_what_the_list_says_and_a_second_run_changes_nothing(flipped):
    data, wrong, _ = flipped
    ranked = doubts.mark(data)
    before = read_catalogue(data)
    found = ranked.assign(sha256=stems(ranked)).set_index("sha256").loc[before.sha256]
    for column in doubts.NUMBERS:
        np.testing.assert_allclose(before[column].astype(float), found[column].astype(float))
    assert before.likelier.fillna("").tolist() == found.likelier.fillna("").tolist()
    assert doubts.mark(data).equals(ranked) and read_catalogue(data).equals(before)
    reasons = doubts.flagged(data).set_index("sha256").reasons
    doubted = reasons[reasons.str.startswith("doubtful label (")]
    assert len(doubted) == 4 and set(doubted.index) < set(wrong)  # 5% of 90


def test_the_doubt_is_one_minus_the_probability_of_the_label(flipped):
    data, _, _ = flipped
    ranked = doubts.mark(data)
    table = read_catalogue(data).sort_values("clean_sha256")
    x, y = features.extract(data, table), np.unique(table.period, return_inverse=True)[1]
    chances = doubts.probabilities(x, y, table.clean_sha256.to_numpy())
    np.testing.assert_allclose(chances.sum(1), 1)
    given = chances[np.arange(90), y]
    order = np.argsort(given)
    assert stems(ranked) == table.sha256.to_numpy()[order].tolist()
    np.testing.assert_allclose(ranked.doubt, 1 - given[order])


def test_ranks_agree_with_cleanlabs_own(flipped):
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab is only compared with")
    from cleanlab.filter import find_label_issues

    data, wrong, _ = flipped
    ranked = doubts.mark(data)
    table = read_catalogue(data).sort_values("clean_sha256")
    x, y = features.extract(data, table), np.unique(table.period, return_inverse=True)[1]
    chances = doubts.probabilities(x, y, table.clean_sha256.to_numpy())
    order = np.argsort(rank.get_label_quality_scores(y, chances))
    assert stems(ranked) == table.sha256.to_numpy()[order].tolist()
    picked = find_label_issues(y, chances, n_jobs=1)
    assert set(table.sha256[picked]) <= set(wrong)


def test_a_pictures_probabilities_come_from_the_other_folds(flipped):
    """Each fold again with scikit-learn: heads fitted, by hand, on the others, their weights out of
    fold as well.
    """
    data, _, _ = flipped
    table = read_catalogue(data)
    x, y = features.extract(data, table), np.unique(table.period, return_inverse=True)[1]
    groups, cut = (
        np.arange(90),
        lambda seed: StratifiedGroupKFold(5, shuffle=True, random_state=seed),
    )
    expected = np.zeros((90, 3))
    for train, test in cut(42).split(x, y, groups):
        believed = np.zeros(len(train))
        for a, b in cut(43).split(x[train], y[train], groups[train]):
            believed[b] = by_hand(x[train][a], y[train][a], x[train][b])[range(len(b)), y[train][b]]
        for period in range(3):
            believed[y[train] == period] /= believed[y[train] == period].mean()
        expected[test] = by_hand(x[train], y[train], x[test], believed)
    np.testing.assert_allclose(doubts.probabilities(x, y, groups, 42), expected, atol=1e-6)


def by_hand(x, y, new, weights=None):
    mean, sd = x.mean(0), x.std(0)
    head = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(
        (x - mean) / sd, y, weights
    )
    return head.predict_proba((new - mean) / sd)


def test_a_pictures_own_label_does_not_change_its_probabilities(monkeypatch):
    """With folds that stay, a picture's label says nothing of it, not even by way of the
    weights.
    """
    y = np.arange(60) % 3
    x = cloud(y.tolist())

    def folds(n):
        return [
            (np.flatnonzero(np.arange(n) % 5 != i), np.flatnonzero(np.arange(n) % 5 == i))
            for i in range(5)
        ]

    monkeypatch.setattr(StratifiedGroupKFold, "split", lambda self, x, y, groups: folds(len(y)))
    before = doubts.probabilities(x, y, np.arange(60))
    for i in (0, 7, 31):
        other = np.where(np.arange(60) == i, (y + 1) % 3, y)
        after = doubts.probabilities(x, other, np.arange(60))
        np.testing.assert_allclose(after[i], before[i], atol=1e-9)
        assert not np.allclose(after, before, atol=1e-4)


def test_a_duplicate_does_not_vouch_for_a_wrong_label(data_set):
    """Eight copies of one picture under a wrong label: alone each is believed, as a group all are
    doubted.
    """
    true = [PERIODS[i % 3] for i in range(60)] + [PERIODS[0]] * 8
    given = true[:60] + [PERIODS[2]] * 8
    doubt = {}
    for name, group in (("alone", None), ("group", "g1")):
        data = data_set(given, true, dup_group=[None] * 60 + [group] * 8)
        x, table = features.extract(data, read_catalogue(data)), read_catalogue(data)
        x[60:] = x[60]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                features, "extract", lambda data, rows, *_, x=x, **__: x[rows.sha256.astype(int)]
            )
            ranked = doubts.mark(data)
        doubt[name] = ranked.set_index(np.array(stems(ranked))).doubt[table.sha256[60:]].mean()
    assert doubt["group"] > 0.9 and doubt["alone"] < doubt["group"] - 0.2


# Outliers


def test_pictures_that_are_not_paintings_are_outliers(drawn, tmp_path, monkeypatch):
    """Drawn pages of text and maps among canvases, seen by a stand-in for a network: textures at
    three scales.
    """

    def textures(data, rows, *_, mirror=False):
        return np.stack([texture(Path(data) / clean_path(row)) for row in rows.to_dict("records")])

    data = shutil.copytree(drawn, tmp_path / "data")
    table = read_catalogue(data)
    replaced = table.iloc[[3, 20, 33]]
    spec = importlib.util.spec_from_file_location("benchmark_of_labels", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for number, row in enumerate(replaced.to_dict("records")):
        benchmark.stranger("page", number).save(data / clean_path(row))
    monkeypatch.setattr(features, "extract", textures)
    ranked = doubts.mark(data).sort_values("outlier", ascending=False)
    pages = {clean_path(row) for row in replaced.to_dict("records")}
    assert set(ranked.file.head(3)) == pages and ranked.outlier.between(0, 1).all()
    shown = doubts.flagged(data)
    assert {
        clean_path(row) for row in shown[shown.reasons.str.contains("outlier")].to_dict("records")
    } >= pages


def texture(file) -> np.ndarray:
    with Image.open(file) as im:
        grey = np.asarray(im.convert("L").resize((96, 96)), float) / 255
    maps = [
        np.abs(np.diff(grey[::step, ::step], axis=axis)) for step in (1, 2, 4) for axis in (0, 1)
    ]
    return np.array(
        [value for m in maps for value in (m.mean(), (m > 0.05).mean(), (m > 0.3).mean())]
    )


def test_the_outlier_score_is_the_distance_to_the_nearest_tenth():
    x = cloud([0] * 60 + [1] * 41, seed=3)
    distances, _ = (
        NearestNeighbors(n_neighbors=101, metric="cosine").fit(x**0.25).kneighbors(x**0.25)
    )
    np.testing.assert_allclose(
        doubts.outliers(x), distances[:, 10], atol=1e-7
    )  # the 11th of 101, itself the first


def test_strangers_that_come_together_are_outliers_too():
    x = np.concatenate([cloud([0] * 400, spread=0.2), cloud([0] * 12, spread=0.2)[:, ::-1]])
    assert set(np.argsort(-doubts.outliers(x))[:12]) == set(range(400, 412))


def test_of_many_pictures_some_stand_for_all():
    x = cloud([0] * 2990, dim=100, spread=0.2)
    x = np.concatenate([x, x[:10, ::-1]])
    assert set(np.argsort(-doubts.outliers(x))[:10]) == set(range(2990, 3000))


# What is flagged, and too few pictures


def test_everything_to_review_is_flagged_with_its_reasons_the_worst_first(flipped):
    data, wrong, _ = flipped
    aside = {
        "0000": ("conflict", "same picture under another period (x)"),
        "0001": ("flagged", "of one colour"),
        "0002": ("duplicate", "near-duplicate (mirror, raw/x/1.png)"),
        "0003": ("duplicate", "same picture twice"),
        "0005": ("conflict", "near-duplicate under another period (x)"),
        "0006": ("rejected", "truncated"),
    }
    table = read_catalogue(data).set_index("sha256")
    with Catalogue(data) as cat:
        cat.update(
            {
                "url": table.url[n],
                "period": table.period[n],
                "clean_status": status,
                "clean_reason": reason,
            }
            for n, (status, reason) in aside.items()
        )
    worst = stems(doubts.mark(data))[0]
    with Catalogue(data) as cat:
        for n, review in (("0008", "drop"), (worst, "keep")):
            cat.update([{"url": table.url[n], "period": table.period[n], "review": review}])
    shown = doubts.flagged(data)
    assert (
        set(read_catalogue(data)) | {"reasons"} == set(shown) and not shown.url.duplicated().any()
    )
    kinds = shown.set_index("sha256").reasons
    assert kinds.index[:2].tolist() == ["0000", "0005"] and kinds["0005"].startswith(
        "near-duplicate under"
    )
    assert kinds.index[2] == worst and kinds.index[-2:].tolist() == ["0002", "0008"]
    assert kinds["0001"].endswith("of one colour") and kinds["0008"] == "decided (drop)"
    assert not {"0003", "0006"} & set(kinds.index)


def test_decisions_count_and_what_is_no_longer_usable_is_cleared(flipped):
    data, wrong, true = flipped
    doubts.mark(data)
    table = read_catalogue(data).set_index("sha256")
    moved, dropped = wrong[:2]
    with Catalogue(data) as cat:
        for n, review in ((moved, f"move:{true[int(moved)]}"), (dropped, "drop")):
            cat.update([{"url": table.url[n], "period": table.period[n], "review": review}])
    ranked = doubts.mark(data).assign(stem=stems).set_index("stem")
    after = read_catalogue(data).set_index("sha256")
    assert (
        ranked.period[moved] == true[int(moved)] and after.doubt[moved] == ranked.doubt[moved] < 0.5
    )
    assert dropped not in ranked.index and after.loc[dropped, doubts.COLUMNS].isna().all()
    assert len(ranked) == 89 and after.doubt.notna().sum() == 89


def test_a_period_of_one_picture_is_left_out_and_named(data_set):
    data = data_set(
        [*PERIODS * 6, "17-dadaism", "18-pop-art", "18-pop-art"],
        dup_group=[None] * 19 + ["same", "same"],
    )
    with pytest.warns(UserWarning, match="the labels of 17-dadaism, 18-pop-art are not checked"):
        ranked = doubts.mark(data)
    unknown = ranked[ranked.doubt.isna()]
    assert (
        sorted(unknown.period) == ["17-dadaism", "18-pop-art", "18-pop-art"]
        and unknown.likelier.isna().all()
    )
    assert ranked.outlier.notna().all() and len(ranked) == 21 and ranked.tail(3).equals(unknown)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_periods_with_fewer_pictures_than_folds_are_checked(data_set, number):
    data = data_set([*PERIODS * 8, *["17-dadaism"] * number])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranked = doubts.mark(data)
    assert ranked.doubt.notna().all() and len(ranked) == 24 + number


def test_two_pictures_in_each_of_two_periods(data_set):
    ranked = doubts.mark(data_set([*PERIODS[:2] * 2]))
    assert len(ranked) == 4 and ranked.outlier.notna().all()


@pytest.mark.parametrize(
    "given", [["01-early"] * 5, ["01-early"], ["01-early", "05-baroque", "05-baroque"]]
)
def test_too_little_to_compare_leaves_the_outliers(data_set, given):
    data = data_set(given)
    with pytest.warns(UserWarning, match="no label is checked: that takes two periods"):
        ranked = doubts.mark(data)
    assert ranked.doubt.isna().all() and ranked.outlier.notna().all() and len(ranked) == len(given)
    assert read_catalogue(data).outlier.notna().all()


def test_without_clean_pictures_it_says_so(data_set, tmp_path):
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        doubts.mark(tmp_path / "nowhere")
    data = data_set(
        PERIODS,
        clean_status=["rejected", "conflict", None],
        clean_reason=["small", "two periods", None],
    )
    with pytest.raises(ValueError, match="run `artclf clean"):
        doubts.mark(data)
    assert doubts.flagged(data).reasons.tolist() == ["two periods"]
