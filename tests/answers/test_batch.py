"""Answers for many pictures in one file: lists, failures, runs that were killed, memory."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_pictures import encoded, noise

from artclf.answers import batch, inputs
from artclf.answers.classifier import Predictor
from artclf.base.errors import InputError, StepError
from artclf.base.processes import map_here

CONFIG = {"vocab": ["01-red", "NA", "03, blue"], "temperature": 1.0, "size": 8, "resize": "squish"}


class Means(Predictor):
    """A network without weights: its logits are the means of the colours."""

    n_features = 3

    def _forward(self, pixels):
        means = pixels.mean((2, 3), dtype=np.float32)
        return means / 10, means


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(batch, "BATCH_SIZE", 4)
    monkeypatch.setattr(batch, "PART_SIZE", 8)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of 22 pictures in three folders, a file that is none, and a link that leads
    nowhere.
    """
    folder = tmp_path / "pictures"
    for number in range(22):
        file = folder / f"{number % 3}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(noise(12, 10, seed=number) // (1 + number % 4)))
    (folder / "1" / "broken.jpg").write_text("<html>")
    (folder / "2" / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "notes.txt").touch()
    return folder


def read(file) -> pd.DataFrame:
    return pd.read_csv(file, keep_default_na=False, na_values={"probability": ""})


def test_a_row_for_every_picture_with_what_predict_answers(pictures, tmp_path, small_parts):
    file = tmp_path / "out.csv"
    classifier = Means(CONFIG)
    done = batch.save(classifier, [str(pictures)], file)
    assert done == {"pictures": 24, "errors": 2, "file": str(file)}
    table = read(file)
    assert list(table) == ["image", "predicted", "probability", "error", "p_01-red", "p_NA"] + [
        "p_03, blue"
    ]
    expected = classifier.predict(str(pictures), k=3)
    in_order = sorted(path for path in pictures.glob("*/*"))
    assert table.image.tolist() == expected.image.tolist() == [str(path) for path in in_order]
    assert table.predicted.tolist() == [name or "" for name in expected.predicted]
    assert table.error.tolist() == expected.error.tolist()
    errors = table[table.error != ""].set_index("image").error
    assert errors.to_dict() == {
        str(pictures / "1/broken.jpg"): "not an image",
        str(pictures / "2/gone.jpg"): "file is missing",
    }
    for row, top in zip(table.to_dict("records"), expected.top, strict=True):
        found = {name: row[f"p_{name}"] for name, _ in top}
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            dict(top), abs=1e-6
        )
    assert not Path(f"{file}.parts").exists()


def test_unsure_answers_are_said_in_words_and_artists_are_named(pictures, tmp_path):
    class Two(Means):
        def _forward(self, pixels):
            logits, features = super()._forward(pixels)
            return np.concatenate([logits, logits[:, :2]], 1), features

    classifier = Two({**CONFIG, "artists": ["A", "B"]})
    batch.save(classifier, [str(pictures)], tmp_path / "out.csv", min_probability=0.9)
    table = read(tmp_path / "out.csv")
    expected = classifier.predict(str(pictures), min_probability=0.9)
    assert table.answer.tolist() == expected.answer.tolist()
    assert (table.answer.str.startswith("not sure") & (table.predicted == "")).any()
    assert table.artist.tolist() == [name or "" for name in expected.artist]


def test_parquet_holds_the_same_rows(pictures, tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(batch, "PARTS_IN_GROUP", 2)
    for name in ("out.csv", "out.parquet"):
        batch.save(Means(CONFIG), [str(pictures)], tmp_path / name)
    table = pd.read_parquet(tmp_path / "out.parquet")
    expected = read(tmp_path / "out.csv")
    assert list(table) == list(expected)
    assert table.predicted.isna().sum() == 2
    assert table.predicted.fillna("").tolist() == expected.predicted.tolist()
    assert table.image.tolist() == expected.image.tolist()
    numbers = [name for name in table if name.startswith("p") and name != "predicted"]
    found = expected[numbers].replace("", np.nan).astype(float)
    np.testing.assert_allclose(table[numbers], found, atol=1e-7)
    assert set(table[numbers].dtypes) == {np.dtype("f4")}


def test_lists_name_pictures_from_their_folder(pictures, tmp_path):
    lines = ["pictures/0/000.png", "", str(pictures / "1/001.png"), "pictures/2", "absent.png"]
    (tmp_path / "some.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    (tmp_path / "some.csv").write_text(
        'note,file\n"a\nb",pictures/0/003.png\n,\nx,http://a.example/x.jpg\n', encoding="utf-8"
    )
    found = list(batch.pictures_in([str(tmp_path / "some.txt"), str(tmp_path / "some.csv")]))
    names = [str(path) for path in sorted((pictures / "2").iterdir())]
    assert [picture.name for picture in found] == [
        str(pictures / "0/000.png"),
        str(pictures / "1/001.png"),
        *names,
        str(tmp_path / "absent.png"),
        str(pictures / "0/003.png"),
        f"{tmp_path / 'some.csv'}, line 4",
        "http://a.example/x.jpg",
    ]
    assert "column file is empty" in str(found[-2].picture)


@pytest.mark.parametrize(
    ("text", "said"), [("a,b\n1,2\n", "columns a, b"), ("", "columns none"), ('file\n"x', "CSV")]
)
def test_a_list_that_is_none_is_named(tmp_path, text, said):
    if said == "CSV":
        text += "y" * 200_000
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"list\.csv .*{said}"):
        list(batch.pictures_in([str(tmp_path / "list.csv")]))


def test_names_of_any_bytes_are_written(tmp_path):
    folder = os.fsencode(tmp_path)
    names = [b"a\xff.png", "ü\n.png".encode()]
    for name in names:
        (Path(os.fsdecode(folder)) / os.fsdecode(name)).write_bytes(encoded(noise(9, 9)))
    batch.save(Means(CONFIG), [str(tmp_path)], tmp_path / "out.csv")
    table = read(tmp_path / "out.csv")
    assert table.error.tolist() == ["", ""]
    assert [Path(name).name for name in table.image] == ["a\\udcff.png", "ü\n.png"]


def test_pipes_and_links_to_folders_are_left_out(tmp_path, pictures):
    os.mkfifo(pictures / "0" / "pipe.jpg")
    (pictures / "0" / "again.jpg").symlink_to(pictures / "0")
    assert len(list(inputs.stream(str(pictures)))) == 24


def test_a_folder_that_cannot_be_read_is_a_row(pictures, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "1":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = dict(inputs.stream(str(pictures)))
    assert len(found) == 24 - 8 + 1
    assert str(found[str(pictures / "1")]) == "the folder can't be read (Permission denied)"


def test_what_is_there_is_not_computed_again(pictures, tmp_path, small_parts):
    class Counting(Means):
        def __init__(self, most: int):
            super().__init__(CONFIG)
            self.most, self.seen = most, 0

        def _forward(self, pixels):
            self.seen += len(pixels)
            if self.seen > self.most:
                raise KeyboardInterrupt
            return super()._forward(pixels)

    file, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    batch.save(Counting(99), [str(pictures)], whole)
    for most in (0, 3, 11, 11):
        with pytest.raises(KeyboardInterrupt):
            batch.save(Counting(most), [str(pictures)], file)
        assert not file.exists()
    parts = sorted(Path(f"{file}.parts").glob("*.csv"))
    assert [len(read(part)) for part in parts] == [8, 8]
    last = Counting(99)
    batch.save(last, [str(pictures)], file)
    assert file.read_bytes() == whole.read_bytes()
    assert 0 < last.seen <= 8


def test_a_list_that_changed_meanwhile_is_answered_as_it_is_now(pictures, tmp_path, small_parts):
    class Stops(Means):
        left = 17

        def _forward(self, pixels):
            self.left -= len(pixels)
            if self.left < 0:
                raise KeyboardInterrupt
            return super()._forward(pixels)

    file, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    with pytest.raises(KeyboardInterrupt):
        batch.save(Stops(CONFIG), [str(pictures)], file)
    (pictures / "1" / "0000.png").write_bytes(encoded(noise(9, 9)))
    assert len(list(Path(f"{file}.parts").glob("*.csv"))) == 2
    batch.save(Means(CONFIG), [str(pictures)], whole)
    # `Means` and `Stops` are told apart
    with pytest.raises(InputError, match="by another network or with other settings"):
        batch.save(Means(CONFIG), [str(pictures)], file)
    Stops.left = 99
    assert batch.save(Stops(CONFIG), [str(pictures)], file)["pictures"] == 25
    assert file.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("changes", [{"temperature": 2.0}, {"hashes": {"a": "b"}}])
def test_parts_by_another_network_are_refused(pictures, tmp_path, changes):
    file = tmp_path / "out.csv"
    parts = Path(f"{file}.parts")
    batch._claim(parts, Means(CONFIG), None)
    batch._part(parts, 0).write_text("image\nanother.png\n")
    for classifier, least in ((Means({**CONFIG, **changes}), None), (Means(CONFIG), 0.5)):
        with pytest.raises(InputError, match="remove that folder to begin anew"):
            batch.save(classifier, [str(pictures)], file, least)
    assert batch.save(Means(CONFIG), [str(pictures)], file)["pictures"] == 24


def test_two_runs_do_not_write_one_file(pictures, tmp_path):
    held = (
        "import sys, time; from artclf.base.locks import hold; lock = hold(sys.argv[1]); print(1, flush=True);"
        "time.sleep(60)"
    )
    parts = tmp_path / "out.csv.parts"
    other = subprocess.Popen([sys.executable, "-c", held, parts], stdout=subprocess.PIPE)
    other.stdout.readline()
    try:
        with pytest.raises(StepError, match="another run"):
            batch.save(Means(CONFIG), [str(pictures)], tmp_path / "out.csv")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_a_run_without_answers_leaves_nothing(pictures, tmp_path):
    class Fails(Means):
        def _forward(self, pixels):
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        batch.save(Fails(CONFIG), [str(pictures)], tmp_path / "out" / "answers.csv")
    assert not list((tmp_path / "out").iterdir())


def test_files_of_other_kinds_and_no_pictures_are_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for name in ("out.txt", "out", "folder.csv"):
        with pytest.raises(InputError, match=r"name a file that ends in \.csv or \.parquet"):
            batch.save(Means(CONFIG), ["a.png"], tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture found in .*empty"):
        batch.save(Means(CONFIG), [str(tmp_path / "empty")], tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "folder.csv"]


# Workers, here in this process


def test_workers_answer_as_this_process_does(pictures, tmp_path, small_parts):
    classifier = Means(CONFIG)
    batch.save(classifier, [str(pictures)], tmp_path / "here.csv")
    load = partial(Means, CONFIG)
    done = batch.save(classifier, [str(pictures)], tmp_path / "there.csv", None, map_here, load)
    assert done["errors"] == 2  # also of the link, which leads nowhere for all of them
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


@pytest.mark.parametrize("changes", [{"temperature": 2.0}, {"hashes": {"a": "b"}}])
def test_a_worker_with_another_export_under_the_same_path_ends_the_run(pictures, tmp_path, changes):
    file = tmp_path / "out.csv"
    load = partial(Means, {**CONFIG, **changes})
    with pytest.raises(StepError, match="a worker finds another export than this machine"):
        batch.save(Means(CONFIG), [str(pictures)], file, None, map_here, load)
    assert not file.exists()


def test_a_worker_that_does_not_see_the_pictures_ends_the_run(pictures, tmp_path):
    def map_elsewhere(function, jobs, **options):
        for job in jobs:
            elsewhere = pictures.rename(tmp_path / "elsewhere")
            result = function(job)
            elsewhere.rename(pictures)
            yield [(job, result)]

    file = tmp_path / "out.csv"
    load = partial(Means, CONFIG)
    with pytest.raises(StepError, match=r"a worker does not see .*000\.png: all machines"):
        batch.save(Means(CONFIG), [str(pictures)], file, None, map_elsewhere, load)
    assert not file.exists()


RUN = """
import sys, time
sys.path[:0] = sys.argv[4:]
from artclf.answers import batch
from test_batch import CONFIG, Means
batch.BATCH_SIZE, batch.PART_SIZE = 4, 8
class Slow(Means):
    def _forward(self, pixels):
        time.sleep(float(sys.argv[3]))
        return super()._forward(pixels)
batch.save(Slow(CONFIG), [sys.argv[1]], sys.argv[2])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_killed_run_goes_on_to_the_same_file(pictures, tmp_path, kind):
    here = Path(__file__).parent
    folders = [str(here), str(here.parent)]

    def start(file, seconds):
        command = [sys.executable, "-c", RUN, pictures, tmp_path / file, str(seconds), *folders]
        return subprocess.Popen(command)

    assert start(f"whole.{kind}", 0).wait() == 0
    parts = tmp_path / f"out.{kind}.parts"
    process = start(f"out.{kind}", 0.3)
    while process.poll() is None and not (parts / "000000.csv").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / f"out.{kind}").exists()
    assert [len(read(part)) for part in sorted(parts.glob("0*.csv"))] == [8]
    assert start(f"out.{kind}", 0).wait() == 0
    assert (tmp_path / f"out.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert not parts.exists()
