"""Folders that can't be written, such as Kaggle's inputs and a museum's share: reading needs no
writing.
"""

import os
import shutil
import sqlite3
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import artclf
from artclf import interpret, train
from artclf.data import cleaning, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.suggestions import Suggestions
from artclf.model.store import Store

SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


@pytest.fixture
def shared_folder():
    """A folder that everybody on this machine may enter: pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def only_to_read(*folders: Path):
    """Nothing can be written to `folders` inside; root, who always can, is somebody else meanwhile."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture
def data(drawn, shared_folder) -> Path:
    stores = shutil.ignore_patterns("features.db", "pixels.db", "gallery")
    return shutil.copytree(drawn, shared_folder / "data", ignore=stores)


@pytest.fixture
def out(export, shared_folder) -> Path:
    ignored = shutil.ignore_patterns("models", "plots")
    return shutil.copytree(export, shared_folder / "export", ignore=ignored)


@pytest.fixture
def writable(shared_folder) -> Path:
    folder = shared_folder / "writable"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def content(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_catalogue_is_read_and_nothing_is_written(data):
    expected = read_catalogue(data)
    before = content(data)
    with only_to_read(data):
        pd.testing.assert_frame_equal(read_catalogue(data), expected)
        assert cleaning.max_size_of(data) == 500
        with pytest.raises(PermissionError, match=r"catalogue\.db can't be written"):
            Catalogue(data)
    assert content(data) == before


def test_what_a_killed_writer_left_beside_the_catalogue_is_read_too(data, shared_folder):
    writer = sqlite3.connect(data / "catalogue.db")
    writer.execute("UPDATE images SET title = 'written last'")
    writer.commit()  # to the file catalogue.db-wal, until the writer closes
    copied = shared_folder / "copied"
    copied.mkdir()
    for name in ("catalogue.db", "catalogue.db-wal"):
        shutil.copy(data / name, copied)
    with only_to_read(copied):
        assert set(read_catalogue(copied).title) == {"written last"}
    writer.close()


def test_a_catalogue_of_an_earlier_version_gets_its_columns(shared_folder):
    folder = shared_folder / "old"
    folder.mkdir()
    with sqlite3.connect(folder / "catalogue.db") as old:
        old.execute("CREATE TABLE images (url TEXT, period TEXT, PRIMARY KEY (url, period))")
        old.execute("INSERT INTO images VALUES ('u', 'p')")
    old.close()
    with only_to_read(folder):
        table = read_catalogue(folder)
    assert table.url.tolist() == ["u"] and "outlier" in table


def test_nothing_is_collected_into_a_folder_that_cannot_be_written(data):
    with only_to_read(data), pytest.raises(PermissionError, match="can't be written"):
        Suggestions(data, 3, 10**6)
    data.joinpath("raw").chmod(0o555)
    with only_to_read(data / "raw"), pytest.raises(PermissionError, match="can't be written"):
        Suggestions(data, 3, 10**6)


def test_parts_are_cut_and_a_line_says_that_they_are_not_noted(data, capsys):
    expected = splits.items(data, seed=7)
    with only_to_read(data):
        pd.testing.assert_frame_equal(splits.items(data, seed=7), expected)
        splits.record(data, expected, "grouped 70,15,15 seed 7")
    assert "not noted in the catalogue" in capsys.readouterr().out


@pytest.mark.slow
def test_predictions_and_a_report_come_from_folders_that_cannot_be_written(data, out, writable):
    files = sorted((data / "clean").rglob("*.jpg"))[:3]
    expected = artclf.load(out).predict(files)
    interpret.write(out, data, folder=writable / "before")
    with only_to_read(data, out):
        assert artclf.load(out).predict(files).equals(expected)
        found = interpret.write(out, data, folder=writable / "after")
        with pytest.raises(PermissionError, match=r"can't be written .*: name another folder"):
            interpret.write(out, data)
    assert Path(found["report"]).parent == writable / "after" and len(found["plots"]) > 3
    assert not (out / "plots").exists()
    before = (writable / "before/report.html").read_text(encoding="utf-8")
    after = (writable / "after/report.html").read_text(encoding="utf-8")
    assert after.count("<svg") == before.count("<svg") and abs(len(after) - len(before)) < 2000


@pytest.mark.slow
@pytest.mark.parametrize("has_cache", [False, True])
def test_a_network_learns_from_a_folder_that_cannot_be_written(
    data, writable, has_cache, monkeypatch, capsys
):
    whole = train.fit(shutil.copytree(data, writable / "own"), writable / "expected", 1, 1, **SMALL)
    expected = whole.model.state_dict()
    monkeypatch.delenv("ARTCLF_CACHE", raising=False)
    cache = writable / "cache"
    if has_cache:
        monkeypatch.setenv("ARTCLF_CACHE", str(cache))
    before = content(data)
    capsys.readouterr()
    with only_to_read(data):
        learn = train.fit(data, writable / "out", 1, 1, **SMALL)
    assert content(data) == before
    assert all((value == expected[name]).all() for name, value in learn.model.state_dict().items())
    said = capsys.readouterr().out
    assert ("features.db can't be written" in said) != has_cache
    assert ("--cache or ARTCLF_CACHE" in said) != has_cache
    if has_cache:
        assert Store(cache / "features.db").keys() and Store(cache / "pixels.db").keys()
        assert str(cache / "features.db") in said


def test_stored_features_are_read_from_a_folder_that_cannot_be_written(shared_folder, capsys):
    file = shared_folder / "stores" / "features.db"
    Store(file).write("key", {"a": b"1"})
    with only_to_read(file.parent):
        store = Store(file)
        assert store.read("key", ["a", "b"]) == {"a": b"1"} and store.keys() == ["key"]
        store.write("key", {"b": b"2"})
        store.write("key", {"c": b"2"})
        missing = Store(file.with_name("none.db"))
        assert missing.read("key", ["a"]) == {} and missing.keys() == []
    assert capsys.readouterr().out.count("can't be written") == 1
    assert Store(file).read("key", ["a", "b"]) == {"a": b"1"}
