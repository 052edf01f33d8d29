"""Leaks and shortcuts: figures that agree with scikit-learn's, folds that no group crosses,
levelled sources.
"""

import hashlib
import shutil
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from artclf import download
from artclf.data import cleaning, levels, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.lab import leaks
from artclf.model import features, folds

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
FAST = {"folds": 3, "seeds": (1, 2), "resamples": 50}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A function that makes a data set of rows of the catalogue; its pictures are only made-up
    features.

    A feature vector says a little of the period, more of the painter, and all but all of the
    picture (`look`).
    """
    rng, known, seen = np.random.default_rng(5), {}, {}

    def vector(name, scale):
        return known.setdefault(name, rng.normal(size=120) * scale)

    def make(rows):
        with Catalogue(tmp_path) as cat:
            cat.add({"url": f"u:{i}", **row} for i, row in enumerate(rows))
            for i, row in enumerate(rows):
                sha = hashlib.sha256(str(i).encode()).hexdigest()
                seen[sha] = (
                    vector(row["period"], 0.2)
                    + vector(row.get("artist"), 2.0) * bool(row.get("artist"))
                    + vector(row.get("look", i), 1.0)
                    + rng.normal(size=120) * 0.01
                )
                cat.update(
                    [
                        {
                            "url": f"u:{i}",
                            "period": row["period"],
                            "status": "ok",
                            "file": f"raw/p/{i}.jpg",
                            "sha256": sha,
                            "clean_sha256": sha,
                            "clean_status": "ok",
                            "width": 100,
                            "height": 80,
                            "bytes": int(rng.integers(900, 1100)),
                            **{
                                k: v
                                for k, v in row.items()
                                if k not in ("artist", "source", "look")
                            },
                        }
                    ]
                )
        return tmp_path

    monkeypatch.setattr(
        features, "extract", lambda data, rows: np.array([seen[sha] for sha in rows.clean_sha256])
    )
    return make


def painted(periods=("01-a", "02-b", "04-c"), painters=4, each=4) -> list[dict]:
    return [
        {"period": period, "artist": f"{period[3:]}. Hand{n} of{period[3:]}"}
        for period in periods
        for n in range(painters)
        for _ in range(each)
    ]


# The splits


def test_figures_are_those_of_scikit_learn_on_its_own_out_of_fold_predictions(dataset):
    data = dataset(painted())
    table = leaks.compare(data, **FAST)
    rows = leaks.images(data, ["artist"], 3)
    x, place = features.extract(data, rows), rows.period.str[:2].astype(int)
    for name, groups in (("random", rows.index.astype(str)), ("artist", rows.by_artist)):
        cuts = [StratifiedGroupKFold(3, shuffle=True, random_state=seed) for seed in FAST["seeds"]]
        found = np.concatenate(
            [cross_val_predict(leaks.HEAD, x, rows.period, groups=groups, cv=cut) for cut in cuts]
        )
        given = np.tile(rows.period, 2)
        assert table.accuracy[name] == pytest.approx(accuracy_score(given, found))
        assert table.macro_f1[name] == pytest.approx(f1_score(given, found, average="macro"))
        gaps = np.abs(np.tile(place, 2) - pd.Series(found).str[:2].astype(int))
        assert table.distance[name] == pytest.approx(gaps.mean())


def test_a_painter_on_both_sides_helps_and_the_difference_is_paired(dataset):
    table = leaks.compare(dataset(painted(painters=8)), **FAST)
    gain = table.loc["grouped - artist"]
    assert table.accuracy["grouped"] > table.accuracy["artist"] + 0.1 and gain.accuracy_low > 0
    assert gain.accuracy == pytest.approx(table.accuracy["grouped"] - table.accuracy["artist"])
    assert gain.groups == 24 and table.groups["random"] == 96
    assert table.loc["random - grouped", "accuracy":].eq(0).all()  # there are no copies


def test_no_group_crosses_folds_and_every_image_is_tested_once_a_seed(dataset):
    groups = ["both" if i in (3, 4) else f"g{i // 2}" for i in range(60)]  # one of two painters
    data = dataset(
        [
            {**row, "dup_group": group}
            for row, group in zip(painted(painters=5), groups, strict=True)
        ]
    )
    for name, columns in (("grouped", ["dup_group"]), ("artist", ["dup_group", "artist"])):
        rows = leaks.images(data, [name], 3)
        run = folds.prediction_table(
            leaks.HEAD, features.extract(data, rows), rows.period, rows[f"by_{name}"], 3, (1, 2, 3)
        )
        assert (
            run.groupby("seed").image.agg(list).map(lambda images: images == list(range(60)))
        ).all()
        for column in columns:
            units = [run.seed, rows[column].to_numpy()[run.image]]
            assert (run.fold.groupby(units).nunique() == 1).all()
        assert run.groupby("seed").fold.nunique().eq(3).all()


def test_without_painters_the_artist_split_says_so_and_is_the_grouped_one(dataset):
    data = dataset([{**row, "artist": None} for row in painted()])
    with pytest.warns(UserWarning, match="no painter is known .* column `artist`"):
        table = leaks.compare(data, **FAST)
    figures = ["accuracy", "accuracy_low", "macro_f1", "distance"]
    assert table.loc["artist", figures].equals(table.loc["grouped", figures])
    assert table.loc["grouped - artist", figures].eq(0).all()


def test_periods_that_are_one_group_are_left_out_of_every_split(dataset):
    data = dataset(painted() + [{"period": "09-one", "artist": "Only Hand"}] * 6)
    with pytest.warns(UserWarning, match="left out: 09-one.*one group"):
        table = leaks.compare(data, **FAST)
    assert table.images.eq(48).all() and table.periods.eq(3).all()


def test_two_images_in_a_period_are_measured_and_named(dataset):
    data = dataset(painted() + [{"period": "09-two", "artist": f"Hand{n} Else"} for n in range(2)])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = leaks.compare(data, **FAST)
    assert [str(w.message) for w in said if issubclass(w.category, UserWarning)] == [
        "fewer than 3 groups in 09-two: some folds test none of their images, "
        "and figures say little of them"
    ]
    assert table.images.eq(50).all() and table.periods.eq(4).all()


def test_two_periods_of_two_images_and_too_few_periods(dataset, tmp_path):
    data = dataset(
        [
            {"period": period, "artist": f"Hand{n} Of{period[3:]}"}
            for period in ("01-a", "02-b")
            for n in range(2)
        ]
    )
    with pytest.warns(UserWarning, match="fewer than 3 groups"):
        assert leaks.compare(data, **FAST).images.eq(4).all()
    with Catalogue(data) as cat:
        cat.update([{"url": f"u:{i}", "period": "01-a", "artist": "One Hand"} for i in range(2)])
    with (
        pytest.warns(UserWarning, match="left out: 01-a"),
        pytest.raises(ValueError, match="fewer than two periods"),
    ):
        leaks.compare(data, **FAST)


def test_copies_that_were_set_aside_come_back_to_measure_them(dataset):
    rows = [{**row, "look": i, "artist": None} for i, row in enumerate(painted(each=6))]
    aside = {"clean_status": "duplicate", "clean_reason": "near-duplicate (same picture)"}
    copies = [{**row, **aside, "dup_group": f"g{i}"} for i, row in enumerate(rows)]
    data = dataset([{**row, "dup_group": f"g{i}"} for i, row in enumerate(rows)] + copies)
    splits = ("random", "grouped")
    without = leaks.compare(data, splits, **FAST)
    table = leaks.compare(data, splits, with_duplicates=True, **FAST)
    assert without.images.eq(72).all() and table.images.eq(144).all()
    assert table.groups["grouped"] == 72 and table.loc["random - grouped"].accuracy_low > 0.1


@pytest.mark.slow
def test_the_drawn_canvases_give_a_whole_table(drawn):
    table = leaks.compare(drawn, folds=2, seeds=(1,), resamples=20)
    assert list(table.index) == [
        "random",
        "grouped",
        "artist",
        "random - grouped",
        "grouped - artist",
    ]
    assert (
        table.notna().all(axis=None)
        and table.accuracy["random"] > 0.4
        and table.images.eq(40).all()
    )
    text = leaks.readable(table)
    assert text.loc["random", "accuracy"].startswith(f"{table.accuracy['random']:.3f} [")


# The shortcuts


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Path:
    """Three periods of noise, one of which has larger pictures."""
    data, rng = tmp_path_factory.mktemp("uneven"), np.random.default_rng(3)
    for period, size in (("01-a", (90, 90)), ("02-b", (150, 100)), ("03-c", (90, 90))):
        (data / "gallery" / period).mkdir(parents=True)
        for n in range(12):
            noise = rng.integers(0, 256, (10, 10, 3), np.uint8)
            Image.fromarray(noise).resize(size).save(data / "gallery" / period / f"{n}.png")
    lines = [
        f"{path.relative_to(data / 'gallery')},Noise {path.stem},Painter {path.stem}"
        for path in sorted(data.rglob("*.png"))
    ]
    (data / "gallery/manifest.csv").write_text("\n".join(["file,title,artist", *lines]))
    download.import_folder(data / "gallery", data)
    cleaning.normalise(data, workers=1)
    return data


@pytest.fixture(scope="module")
def level(uneven, tmp_path_factory) -> Path:
    with Catalogue(uneven) as cat:
        cat.update([{**key(cat.select()[0]), "dup_group": "g1"}])
    before = state(uneven)
    out = levels.level_sources(uneven, tmp_path_factory.mktemp("level") / "data", 64, workers=1)
    assert state(uneven) == before
    return out


def key(row) -> dict:
    return {name: row[name] for name in ("url", "period")}


def state(data):
    """All that a data folder holds: its pictures' bytes and its rows."""
    files = {
        path: path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.suffix in (".jpg", ".png")
    }
    return files, read_catalogue(data).to_csv()


@pytest.fixture
def seen(monkeypatch):
    """Features that tell the periods, but for some noise."""

    def extract(data, rows):
        rng = np.random.default_rng(0)
        return pd.get_dummies(rows.period).to_numpy(float) * 3 + rng.normal(
            size=(len(rows), rows.period.nunique())
        )

    monkeypatch.setattr(features, "extract", extract)


@pytest.mark.slow
def test_a_size_that_tells_the_period_is_warned_of_and_a_level_gallery_is_not(uneven, level, seen):
    table = leaks.shortcuts(uneven, level, **FAST)
    said, rows = leaks.warning(table), table.set_index("sees")
    assert (
        "Warning: width, height and file size alone" in said
        and f"{rows.macro_f1[leaks.SIZES]:.2f}" in said
    )
    assert rows.macro_f1[leaks.SIZES] > 0.6 > 0.5 > rows.macro_f1[f"{leaks.SIZES}, levelled"]
    assert rows.macro_f1[leaks.FEATURES] == rows.macro_f1[f"{leaks.FEATURES}, levelled"] > 0.9
    assert list(rows.images) == [36] * 5 and set(rows.pictures) == {"all"}
    assert rows.accuracy[leaks.FREQUENT] == pytest.approx(1 / 3)
    assert leaks.warning(leaks.shortcuts(level, **FAST)) == ""


@pytest.mark.slow
def test_the_source_with_most_images_is_measured_apart(dataset):
    rows = [
        {**row, "source": ("web", "museum", None)[i % 4 % 3]}
        for i, row in enumerate(painted(each=8))
    ]
    data = dataset(rows)
    table = leaks.shortcuts(data, **FAST)
    assert (
        list(table.pictures) == ["all"] * 3 + ["only web"] * 3
        and list(table.images) == [96] * 3 + [48] * 3
    )
    assert set(leaks.shortcuts(data, source="unknown", **FAST).images) == {96, 24}
    with pytest.raises(ValueError, match="no image of source 'X': there are museum, unknown, web"):
        leaks.shortcuts(data, source="X", **FAST)


def test_one_source_alone_is_not_measured_twice(dataset):
    assert (
        len(leaks.shortcuts(dataset([{**row, "source": "web"} for row in painted()]), **FAST)) == 3
    )


def test_plots_show_each_row_with_its_interval(dataset):
    import matplotlib.pyplot as plt

    data = dataset(painted())
    table, other = leaks.compare(data, **FAST), leaks.shortcuts(data, **FAST)
    _, ax = plt.subplots()
    assert leaks.plot_compare(table, ax, ["distance"]) is ax.figure
    assert [label.get_text() for label in ax.get_yticklabels()] == ["random", "grouped", "artist"]
    assert list(ax.lines[0].get_xdata()) == list(table.distance[:3])
    [axes] = leaks.plot_shortcuts(other).axes
    assert axes.get_yticklabels()[1].get_text() == f"{leaks.SIZES}\n(all pictures)"
    assert [(a, b) for (a, _), (b, _) in axes.collections[0].get_segments()] == [
        pytest.approx(pair) for pair in zip(other.macro_f1_low, other.macro_f1_high, strict=True)
    ]
    plt.close(ax.figure)


# Levelled sources


def test_levelled_pictures_are_alike_and_keep_what_is_known_of_them(uneven, level):
    before, after = (
        read_catalogue(data).sort_values("url").reset_index(drop=True) for data in (uneven, level)
    )
    same = ["url", "period", "title", "artist", "source", "year", "dup_group"]
    assert after[same].equals(before[same]) and "g1" in set(after.dup_group)
    assert set(zip(after.width, after.height, after.format, strict=True)) == {(64, 64, "JPEG")}
    assert after.clean_status.eq("ok").all() and after.bytes.lt(before.bytes).any()
    tables = {
        tuple(map(tuple, Image.open(level / file).quantization.values())) for file in after.file
    }
    assert len(tables) == 1
    for file in [*level.glob("raw/*/*"), *level.glob("clean/*/*")]:
        assert Image.open(file).size == (64, 64)


def test_a_second_run_does_nothing(uneven, level):
    before = state(level), [path.stat().st_mtime_ns for path in sorted(level.rglob("*.jpg"))]
    levels.level_sources(uneven, level, 64, workers=1)
    assert (
        state(level),
        [path.stat().st_mtime_ns for path in sorted(level.rglob("*.jpg"))],
    ) == before


def test_what_the_source_no_longer_uses_is_dropped(uneven, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(uneven, source)
    out = levels.level_sources(source, tmp_path / "level", 64, workers=1)
    rows = splits.usable(source)
    with Catalogue(source) as cat:
        for row, review in ((rows.iloc[0], "drop"), (rows.iloc[1], f"move:{rows.period.iloc[-1]}")):
            cat.update([{"url": row.url, "period": row.listed, "review": review}])
    cleaning.normalise(source, workers=1)
    levels.level_sources(source, out, 64, workers=1)
    here, there = (
        splits.usable(folder).set_index("url").period.to_dict() for folder in (source, out)
    )
    assert here == there and len(here) == len(rows) - 1


def test_what_the_folder_holds_is_never_mixed(uneven, level):
    with pytest.raises(ValueError, match="64 px, quality 75: name another"):
        levels.level_sources(uneven, level, 80)
    with pytest.raises(ValueError, match="holds another data set"):
        levels.level_sources(uneven, uneven)


def test_a_gallery_folder_is_levelled_too_and_a_bad_file_gets_its_reason(uneven, tmp_path):
    shutil.copytree(uneven / "gallery", tmp_path / "gallery")
    body = (tmp_path / "gallery/01-a/0.png").read_bytes()
    (tmp_path / "gallery/01-a/cut.png").write_bytes(body[: len(body) // 2])
    (tmp_path / "gallery/01-a/page.jpg").write_text("<html>")
    levels.level_sources(tmp_path / "gallery", tmp_path / "out", 64, workers=1)
    table = read_catalogue(tmp_path / "out")
    assert (
        table.clean_status.value_counts().to_dict() == {"ok": 36, "rejected": 1}
        and len(table) == 38
    )
    assert set(table.url[table.clean_status == "ok"]) == set(read_catalogue(uneven).url)
    assert table.artist.notna().sum() == 36 and table.reason.notna().sum() == 1


@pytest.mark.slow
def test_the_notebook_runs_on_drawn_canvases(drawn, tmp_path):
    import nbformat

    from artclf import run

    copy = run.execute(
        ROOT / "notebooks/experiments/17_leaks.ipynb",
        tmp_path / "copy.ipynb",
        {"DATA": str(drawn), "LEVELLED": str(tmp_path / "level"), "FOLDS": 2, "SEEDS": (1,)},
    )
    outputs = [
        out
        for cell in nbformat.read(copy, 4).cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    text = " ".join(
        str(out.get("data", {}).get("text/plain", "")) + out.get("text", "") for out in outputs
    )
    assert "grouped - artist" in text and leaks.SIZES in text and "levelled" in text
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 3
