"""Intake: what a picture's header says, the file in `raw/`, the row of the catalogue, the counts."""

import hashlib
import sqlite3

import pytest
from loopback import picture

from artclf.data.catalogue import Catalogue
from artclf.data.formats import EXTENSIONS
from artclf.data.intake import Arrival, Failure, Fetched, Intake, failed_columns, probe, take_in

URL = "http://a.example/1.jpg"
STEM = hashlib.sha1(URL.encode()).hexdigest()[:16]


def new_intake(tmp_path) -> Intake:
    """An intake whose folder `tmp` is there, and a catalogue with one row."""
    (tmp_path / "tmp").mkdir()
    with Catalogue(tmp_path) as catalogue:
        catalogue.add([{"url": URL, "period": "x"}])
    return Intake(tmp_path)


def test_a_failure_holds_what_the_catalogue_needs():
    failure = Failure("http 503", 503, True, 7.0)
    assert (str(failure), failure.reason) == ("http 503", "http 503")
    assert (failure.http_status, failure.retry, failure.retry_after) == (503, True, 7.0)
    assert failed_columns(failure) == {
        "status": "failed",
        "reason": "http 503",
        "http_status": 503,
    }
    failure = Failure("invalid URL")
    assert (failure.http_status, failure.retry, failure.retry_after) == (None, False, None)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_the_header_tells_format_and_size(name):
    assert probe(picture(1, name)) == (name, 96, 80)


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"", "image/png", "empty"),
        (b"<html>", "", "text/html"),
        (b" \n<!DOCTYPE HTML>", "image/png", "text/html"),
        (b" " * 200 + b"<html>", "", "unknown bytes"),
        (b" " * 194 + b"<html>", "", "text/html"),
        (b"GIF", "image/gif", "unreadable image/gif"),
        (b"GIF", "a/image/gif", "a/image/gif"),
        (b"GIF", "", "unknown bytes"),
        (b"GIF", "\r\n", "unknown bytes"),
        (b"GIF", "te\x00xt", "text"),
        (b"GIF", "t" * 41, "t" * 40),
    ],
)
def test_bytes_that_are_no_picture_are_described(body, content_type, reason):
    with pytest.raises(Failure) as failure:
        probe(body, content_type)
    assert failure.value.reason == f"not an image: {reason}"
    assert not failure.value.retry


def test_the_limit_of_pixels_is_the_last_size_that_is_allowed():
    assert probe(picture(1, "PNG"), max_pixels=96 * 80) == ("PNG", 96, 80)
    with pytest.raises(Failure, match="^too many pixels$"):
        probe(picture(1, "PNG"), max_pixels=96 * 80 - 1)


@pytest.mark.parametrize(
    ("kind", "extension"),
    [
        ("JPEG", "jpg"),
        ("MPO", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
        ("AVIF", "avif"),
        ("JPEG2000", "jp2"),
    ],
)
def test_a_picture_is_placed_by_its_url_and_format(tmp_path, kind, extension):
    intake = new_intake(tmp_path)
    outcome = intake.write_picture({"url": URL, "period": "x"}, Fetched(b"pixels", 200, kind, 3, 4))
    assert outcome == {
        "status": "ok",
        "reason": None,
        "http_status": 200,
        "bytes": 6,
        "sha256": hashlib.sha256(b"pixels").hexdigest(),
        "width": 3,
        "height": 4,
        "format": kind,
        "file": f"raw/x/{STEM}.{extension}",
    }
    assert (tmp_path / outcome["file"]).read_bytes() == b"pixels"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert len(EXTENSIONS) == 9


def test_rows_and_counts_of_what_was_taken_in(tmp_path):
    intake = new_intake(tmp_path)
    files = {"good": picture(1, "PNG"), "bad": b"no picture", "worse": b"nor this", "none": b""}
    with Catalogue(tmp_path) as catalogue:
        catalogue.add({"url": name, "period": "y"} for name in files)
        for name, body in files.items():
            (tmp_path / name).write_bytes(body)
            arrival = Arrival(name, "y", tmp_path / name)
            intake.record(catalogue, arrival._asdict(), take_in(tmp_path, intake.tmp, arrival))
        rows = catalogue.select("period = 'y'")
    assert [(row["url"], row["status"], row["reason"]) for row in rows] == [
        ("good", "ok", None),
        ("bad", "failed", "not an image: unknown bytes"),
        ("worse", "failed", "not an image: unknown bytes"),
        ("none", "failed", "not an image: empty"),
    ]
    assert (rows[0]["format"], rows[0]["width"], rows[0]["http_status"]) == ("PNG", 96, None)
    assert (intake.ok, intake.failed) == (1, 3)
    summary = intake.summary()
    assert list(summary.columns) == ["period", "ok", "failed", "skipped", "reasons"]
    assert summary.to_dict("records") == [
        {"period": "x", "ok": 0, "failed": 0, "skipped": 1, "reasons": {}},
        {
            "period": "y",
            "ok": 1,
            "failed": 3,
            "skipped": 0,
            "reasons": {"not an image: unknown bytes": 2, "not an image: empty": 1},
        },
    ]


def test_an_empty_data_set_has_an_empty_summary(tmp_path):
    summary = Intake(tmp_path).summary()
    assert summary.empty
    assert list(summary.columns) == ["period", "ok", "failed", "skipped", "reasons"]


def test_the_folder_for_halves_is_empty_at_the_beginning_and_gone_at_the_end(tmp_path):
    intake = Intake(tmp_path / "data")
    half = tmp_path / "data" / "tmp" / "half.jpg"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    with intake.writing():
        assert list(half.parent.iterdir()) == []
    assert not half.parent.exists()
    with pytest.raises(KeyboardInterrupt), intake.writing():
        raise KeyboardInterrupt
    assert not half.parent.exists()


@pytest.mark.parametrize("error", [OSError("disk full"), sqlite3.OperationalError("disk full")])
def test_where_the_disk_fails_the_error_says_what_to_do(tmp_path, error):
    with pytest.raises(OSError) as raised, Intake(tmp_path).writing():
        raise error
    assert str(raised.value) == (
        f"disk full: make sure that there is room in {tmp_path} and that it may be written, "
        "then start again; what is done stays done"
    )
    assert raised.value.__cause__ is error
    assert not (tmp_path / "tmp").exists()
