"""The catalogue: what goes in comes out, in whole transactions, also when a writer is killed."""

import sqlite3
import subprocess
import sys
import time

import pytest

from artclf.data import catalogue
from artclf.data.catalogue import Catalogue, clean_path, label, read_catalogue

A, B = "http://a.example/1.jpg?x=%20&y=1", "http://b.example/2.jpg"


def test_the_key_is_url_and_period_and_known_rows_only_gain_what_they_lack(tmp_path):
    with Catalogue(tmp_path) as cat:
        assert (
            cat.add([{"url": A, "period": "x", "title": "first"}, {"url": A, "period": "y"}]) == 2
        )
        assert (
            cat.add(
                [
                    {"url": A, "period": "x", "title": "second", "artist": "me", "file": "no fact"},
                    {"url": A, "period": "y", "title": ""},
                    {"url": B, "period": "x"},
                ]
            )
            == 1
        )
        rows = cat.select()
    assert [(row["url"], row["period"], row["title"], row["artist"]) for row in rows] == [
        (A, "x", "first", "me"),
        (A, "y", None, None),
        (B, "x", None, None),
    ]
    assert {(row["status"], row["tries"], row["file"]) for row in rows} == {("pending", 0, None)}


def test_a_new_split_of_ones_own_replaces_the_old_one_and_none_leaves_it(tmp_path):
    with Catalogue(tmp_path) as cat:
        for part in ("train", "test", "", None):
            cat.add([{"url": A, "period": "x", "split": part}])
        assert cat.select()[0]["split"] == "test"


def test_an_error_undoes_its_transaction_whole(tmp_path):
    def broken():
        yield {"url": B, "period": "x"}
        raise RuntimeError("the list ended")

    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x"}])
        with pytest.raises(RuntimeError, match="the list ended"):
            cat.add(broken())
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            cat.update(
                [
                    {"url": A, "period": "x", "reason": "set"},
                    {"url": A, "period": "x", "nonsense": 1},
                ]
            )
        assert [(row["url"], row["reason"]) for row in cat.select()] == [(A, None)]
        cat.update([{"url": A, "period": "x", "reason": "the next one works"}])
        assert cat.count("reason = ?", ["the next one works"]) == 1


def test_values_are_never_sql(tmp_path):
    evil = "x'); DROP TABLE images; --"
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": evil, "period": evil, "title": evil}])
        cat.update([{"url": evil, "period": evil, "reason": evil}])
        [row] = cat.select()
    assert [row[name] for name in ("url", "period", "title", "reason")] == [evil] * 4


def test_settings_are_kept_per_step(tmp_path):
    with Catalogue(tmp_path) as cat:
        assert cat.setting("clean") is None
        for value in ("a", "b"):
            cat.set_setting("clean", value)
    with Catalogue(tmp_path) as cat:
        assert cat.setting("clean") == "b" and cat.setting("train") is None


WRITER = """
import sys
from artclf.data.catalogue import Catalogue
with Catalogue(sys.argv[1]) as cat:
    for batch in range(10 ** 6):
        cat.add({"url": f"{batch}/{i}", "period": "x"} for i in range(100))
        print(batch, flush=True)
"""


@pytest.mark.parametrize("after", [0, 3])
def test_a_writer_that_is_killed_leaves_whole_transactions(tmp_path, after):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    for _ in range(after + 1):
        last = int(writer.stdout.readline())
    time.sleep(0.01)
    writer.kill()
    rest = [int(line) for line in writer.communicate()[0].split()]
    with Catalogue(tmp_path) as cat:
        written = cat.count()
        assert cat.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert cat.add([{"url": "after", "period": "x"}]) == 1
    assert written % 100 == 0
    assert written >= 100 * (max([last, *rest]) + 1)


def test_one_may_read_while_another_writes(tmp_path):
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x"}])
        with cat.transaction() as db:
            db.execute("DELETE FROM images")
            assert len(read_catalogue(tmp_path)) == 1
    assert len(read_catalogue(tmp_path)) == 0


def test_the_data_frame_has_every_column_in_the_order_of_rows(tmp_path):
    with Catalogue(tmp_path) as cat:
        cat.add({"url": f"{i}", "period": "x", "year": "1900"} for i in range(12))
    table = read_catalogue(tmp_path)
    assert list(table.columns) == list(catalogue.COLUMNS)
    assert table.url.tolist() == [f"{i}" for i in range(12)] and set(table.year) == {"1900"}


def test_no_catalogue_is_an_error_and_makes_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf download"):
        read_catalogue(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_columns_and_their_types(tmp_path):
    with Catalogue(tmp_path) as cat:
        columns = cat.db.execute("PRAGMA table_info(images)").fetchall()
    types = {column["name"]: column["type"] for column in columns}
    numbers = {
        **dict.fromkeys(("http_status", "tries", "bytes", "width", "height"), "INTEGER"),
        **dict.fromkeys(("doubt", "likelier_probability", "outlier"), "REAL"),
    }
    names = """url period file status reason http_status tries bytes sha256 width height format
        phash dup_group title artist year licence source source_page split clean_status
        clean_reason clean_sha256 review doubt likelier
        likelier_probability outlier"""
    assert types == {name: numbers.get(name, "TEXT") for name in names.split()}
    assert [column["name"] for column in columns if column["pk"]] == ["url", "period"]
    required = [column["name"] for column in columns if column["notnull"]]
    assert required == ["url", "period", "status", "tries"]


def test_a_catalogue_of_an_earlier_version_gains_the_columns_it_lacks(tmp_path):
    old = sqlite3.connect(tmp_path / "catalogue.db")
    old.execute(
        "CREATE TABLE images (url TEXT, period TEXT, status TEXT, tries INTEGER, "
        "PRIMARY KEY (url, period))"
    )
    old.execute("INSERT INTO images VALUES (?, 'x', 'ok', 3)", (A,))
    old.commit()
    old.close()
    with Catalogue(tmp_path) as cat:
        columns = cat.db.execute("PRAGMA table_info(images)").fetchall()
        cat.update([{"url": A, "period": "x", "width": 5, "outlier": 0.5}])
        [row] = cat.select()
    types = {column["name"]: column["type"] for column in columns}
    assert types.keys() == catalogue.COLUMNS.keys()
    assert (types["width"], types["outlier"], types["title"]) == ("INTEGER", "REAL", "TEXT")
    assert (row["status"], row["tries"], row["width"], row["outlier"]) == ("ok", 3, 5, 0.5)
    assert row["title"] is None


def test_every_fact_is_added_and_no_other_column(tmp_path):
    facts = {
        "title": "The Kiss",
        "artist": "Klimt",
        "year": "1908",
        "licence": "CC0",
        "source": "Belvedere",
        "source_page": "http://a.example/kiss",
        "split": "train",
    }
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x", **facts, "status": "ok", "review": "drop"}])
        [row] = cat.select()
    filled = {name: value for name, value in row.items() if value is not None}
    assert filled == {"url": A, "period": "x", **facts, "status": "pending", "tries": 0}


def test_an_update_sets_its_row_alone(tmp_path):
    keys = [(A, "x"), (A, "y"), (B, "x")]
    with Catalogue(tmp_path) as cat:
        cat.add({"url": url, "period": period} for url, period in keys)
        cat.update([{"url": A, "period": "x", "reason": "this one", "tries": 2}])
        rows = cat.select()
        assert (cat.count(), cat.count("period = ?", ("x",))) == (3, 2)
        assert [row["url"] for row in cat.select("period = ?", ("x",))] == [A, B]
    assert [(row["url"], row["period"]) for row in rows] == keys
    assert [(row["reason"], row["tries"]) for row in rows] == [
        ("this one", 2),
        (None, 0),
        (None, 0),
    ]


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ("move:11-cubism", "11-cubism"),
        ("move:move:x", "move:x"),
        ("drop", "10-fauvism"),
        ("remove:x", "10-fauvism"),
        ("", "10-fauvism"),
        (None, "10-fauvism"),
        (float("nan"), "10-fauvism"),  # as pandas reads a missing value
    ],
)
def test_a_review_may_move_an_image_to_another_class(review, expected):
    row = {"period": "10-fauvism", "file": "raw/10-fauvism/0123.x.png", "review": review}
    assert label(row) == expected
    assert clean_path(row) == f"clean/{expected}/0123.x.jpg"


def test_a_row_without_a_review_has_its_period():
    assert label({"period": "x"}) == "x"


def test_a_missing_catalogue_is_named_with_the_commands_that_make_one(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        catalogue.require(tmp_path)
    assert str(error.value) == (
        f"no catalogue in {tmp_path}: run `artclf download --lists FOLDER --data {tmp_path}` or "
        f"`artclf import FOLDER --data {tmp_path}` first"
    )
    Catalogue(tmp_path).close()
    assert catalogue.require(str(tmp_path)) == tmp_path


def test_numbers_that_are_unknown_are_missing_in_the_data_frame(tmp_path):
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x"}])
        cat.update([{"url": A, "period": "x", "width": 640}])
    table = read_catalogue(tmp_path)
    for name in ("http_status", "tries", "bytes", "width", "height"):
        assert str(table[name].dtype) == "Int64"
    assert (table.width[0], table.tries[0]) == (640, 0)
    assert table[["http_status", "bytes", "height"]].isna().all(axis=None)
