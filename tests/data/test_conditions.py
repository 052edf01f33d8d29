"""Conditions: SQLite and pyarrow find the rows that plain Python finds."""

import operator
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import made_packs

import artclf
from artclf.base.errors import InputError
from artclf.data import packing

COMPARISONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EQUALITY = ("==", "!=")
LISTS = {"in": lambda one, many: one in many, "not in": lambda one, many: one not in many}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return made_packs.make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def pack(data, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("pack")
    packing.pack(data, target, shard_size=0.005)
    return target


def expected(rows: pd.DataFrame, where) -> list[str]:
    """The URLs of the rows that fulfil `where`, by Python's own operators."""
    found = []
    for _, row in rows.iterrows():
        holds = True
        for column, name, value in where:
            known = not pd.isna(row[column])
            if value is None:
                holds &= known == (name == "!=")
            else:
                holds &= known and (COMPARISONS | LISTS)[name](row[column], value)
        if holds:
            found.append(row["url"])
    return found


def test_rows_of_both_are_those_that_python_finds(data, pack):
    rows = artclf.read_catalogue(data)
    values = {
        "artist": ["Ma\u0308ler 1", "Mä", "' OR 1=1 --"],
        "period": ["06-rokoko & älter"],
        "width": [np.int64(607), -(2**63)],
        "height": [2**40 + 5],
        "doubt": [float(rows.doubt.dropna().iloc[0]), 1],
        "licence": ["x"],  # of which no row knows one
    }
    asked = []
    for column, some in values.items():
        operators = EQUALITY if isinstance(some[0], str) else COMPARISONS
        asked += [[(column, name, value)] for name in operators for value in some]
    asked += [[(c, name, some)] for c in values for name in LISTS for some in (values[c], [])]
    asked += [[(c, name, None)] for c in values for name in ("==", "!=")]
    asked += [[("width", ">", 603), ("period", "==", "10")], [], [["url", "!=", ""]]]
    for where in asked:
        wanted = expected(rows, where)
        for place in (data, pack):
            assert artclf.read_catalogue(place, ["url"], where).url.tolist() == wanted, where
    assert artclf.read_catalogue(data, ["url"], iter([("width", "in", {605, 607})])).shape[0] == 2


@pytest.mark.parametrize(
    "where, problem",
    [
        ([("nothing", "==", 1)], "no column 'nothing'"),
        ([('url" OR 1=1 --', "==", "a")], "no column"),
        ([("pack_member", "==", "a")], None),
        ([("url", "LIKE", "a")], "the operators are"),
        ([("url", "= '' OR url =", "a")], "the operators are"),
        ([("url", "==", 5)], "take a text"),
        ([("url", "==", "\ud800")], "take a text"),
        ([("year", ">", "1885")], "year holds texts"),
        ([("year", "<=", 1885)], "year holds texts"),
        ([("width", "==", "5")], "take a whole number"),
        ([("width", "==", 5.5)], "take a whole number"),
        ([("width", "==", True)], "take a whole number"),
        ([("width", "<", 2**63)], "take a whole number"),
        ([("doubt", "<", float("nan"))], "take a number"),
        ([("doubt", "<", "a")], "take a number"),
        ([("doubt", "<", None)], "take a number"),
        ([("width", "in", [1, None])], "take a whole number"),
        ([("url", "in", "abc")], "take a list"),
        ([("width", "in", 5)], "take a list"),
        ([("width", "==")], "a condition is"),
        (["url"], "a condition is"),
        ({"url": "a"}, "take a list of"),
        ("url = 1", "take a list of"),
        ([("width", "in", range(30_001))], "more than 30000 values"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(data, pack, where, problem):
    for place in (data, pack):
        if problem is None and place == pack:  # a column that only packs have
            assert artclf.read_catalogue(place, ["url"], where).empty
            continue
        with pytest.raises(InputError, match=problem or "no column"):
            artclf.read_catalogue(place, where=where)


@pytest.mark.parametrize(
    "columns, problem",
    [
        (["url", "nothing"], "no column 'nothing'"),
        (["url) FROM images; --"], "no column"),
        ("url", "take a list"),
        ([], "name at least one"),
        (["url", "url"], "none twice"),
        ([5], "no column 5"),
    ],
)
def test_columns_that_make_no_sense_are_refused(data, pack, columns, problem):
    for place in (data, pack):
        with pytest.raises(InputError, match=problem):
            artclf.read_catalogue(place, columns)


def test_columns_come_in_the_order_asked_for_with_the_same_types(data, pack):
    for columns in (None, ["width", "url", "licence", "doubt"]):
        for where in (None, [("width", "!=", None)], [("url", "==", "none")]):
            found = artclf.read_catalogue(pack, columns, where)
            pd.testing.assert_frame_equal(found, artclf.read_catalogue(data, columns, where))
    assert columns == found.columns.tolist()
