"""Files that are written whole or not at all."""

import hashlib
import json

import pytest

from artclf.base.files import replace_whole, sha256_of, write_json


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
