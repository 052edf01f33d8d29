"""Files that are written whole or not at all."""

import hashlib
import json

import pytest

from artclf.base.files import (
    finish_replacing,
    replace_together,
    replace_whole,
    sha256_of,
    write_json,
)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    file = tmp_path / "new" / "page.html"
    for text in ("first", "second"):
        replace_whole(file, lambda part, text=text: part.write_text(text))
        assert file.read_text() == text
    assert list(file.parent.iterdir()) == [file]


def test_where_writing_fails_the_old_file_stays(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("old")

    def fail(part):
        part.write_text("hal")
        raise OSError("disk is full")

    with pytest.raises(OSError, match="full"):
        replace_whole(file, fail)
    assert file.read_text() == "old"


def test_json_comes_back_as_it_was_written(tmp_path):
    content = {"periods": ["rokoko", "impressionnisme é"], "size": 224}
    write_json(tmp_path / "config.json", content)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == content


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"artclf")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"artclf").hexdigest()


def texts(folder) -> dict:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def write_both(folder, text):
    with replace_together(folder) as new:
        (new / "a").write_text(text)
        (new / "b").write_text(text)


def test_files_are_replaced_together_and_others_stay(tmp_path):
    folder = tmp_path / "new"
    for text in ("first", "second"):
        write_both(folder, text)
        assert texts(folder) == {"a": text, "b": text}
    (folder / "other").write_text("other")
    write_both(folder, "third")
    assert texts(folder) == {"a": "third", "b": "third", "other": "other"}
    assert len(list(folder.iterdir())) == 3


def test_where_writing_together_fails_the_old_files_stay(tmp_path):
    write_both(tmp_path, "old")
    with pytest.raises(OSError, match="full"), replace_together(tmp_path) as new:
        (new / "a").write_text("new")
        raise OSError("disk is full")
    assert texts(tmp_path) == {"a": "old", "b": "old"} and len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_process_left_is_finished_or_forgotten(tmp_path):
    write_both(tmp_path, "old")
    unfinished = tmp_path / ".new.part"
    unfinished.mkdir()
    (unfinished / "a").write_text("killed while writing")
    finish_replacing(tmp_path)
    assert texts(tmp_path) == {"a": "old", "b": "old"}
    write_both(tmp_path, "newer")
    assert texts(tmp_path) == {"a": "newer", "b": "newer"} and not unfinished.exists()
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new" / "b").write_text("killed while moving")
    finish_replacing(tmp_path)
    assert texts(tmp_path) == {"a": "newer", "b": "killed while moving"}
    finish_replacing(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
