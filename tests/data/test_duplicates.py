"""Near-duplicates: what becomes of a group, and what is written."""

import numpy as np
import pytest

from artclf.data import duplicates
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.comparison import Comparison
from artclf.data.duplicates import SetAside, judge
from artclf.data.numbered import KINDS, Hashes, Kinds

# Judgements


def image(name: str, size: int = 100, **columns) -> dict:
    """A row of the catalogue; its clean copy has the SHA-256 `name`."""
    return {
        "url": f"http://a.example/{name}",
        "period": "a",
        "file": f"raw/a/{name}.png",
        "sha256": f"{name}-raw",
        "clean_sha256": name,
        "width": size,
        "height": 10,
        "bytes": 5,
        "clean_status": "ok",
        "clean_reason": "",
        "review": "",
        **columns,
    }


def judgements(group: list[dict], kinds: dict) -> list[tuple]:
    """The status, reason and facts that each row gets, by its name."""
    judged = judge(group, kinds)
    indices = [group.index(judgement.row) for judgement in judged]
    assert indices == sorted(indices)
    return {j.row["clean_sha256"]: (j.status, j.reason, j.set_aside) for j in judged}


STAYS = ("ok", None, None)


def duplicate(kind: str, kept: str, periods=("a",), flag: str = "") -> tuple:
    facts = SetAside(kind, kept, list(periods))
    return "duplicate", f"near-duplicate of {kept} ({kind}){flag}", facts


def conflict(kind: str, others: str, periods=("a", "b"), flag: str = "") -> tuple:
    reason = f"near-duplicate under another period ({others}){flag}"
    return "conflict", reason, SetAside(kind, None, list(periods))


def test_of_a_group_the_largest_stays():
    group = [image("x", 99), image("y", 101), image("z", 100)]
    kinds = {("x", "y"): "same", ("y", "z"): "mirror"}
    assert judgements(group, kinds) == {
        "x": duplicate("same", "raw/a/y.png"),
        "y": STAYS,
        "z": duplicate("mirror", "raw/a/y.png"),
    }


@pytest.mark.parametrize(
    "larger", [{"width": 101}, {"height": 11}, {"bytes": 6}, {"sha256": "zzz"}]
)
def test_size_is_the_area_then_the_bytes_then_the_hash(larger):
    smaller = {"sha256": "~" if "sha256" not in larger else "a", "bytes": 9}
    if "bytes" in larger or "sha256" in larger:
        smaller["bytes"] = 5
    group = [image("x", **{**smaller, "width": 100}), image("y", **{"width": 100, **larger})]
    assert judgements(group, {("x", "y"): "same"})["y"] == STAYS


def test_the_area_counts_not_a_side():
    group = [image("x", width=90, height=20), image("y", width=150, height=10)]
    assert judgements(group, {("x", "y"): "same"})["x"] == STAYS


def test_an_image_that_a_third_joins_has_the_kind_of_its_first_pair():
    group = [image("x"), image("y"), image("z", 200)]
    kinds = {("w", "z"): "same", ("x", "y"): "detail", ("y", "z"): "mirror"}
    assert judgements(group, kinds)["x"] == duplicate("detail", "raw/a/z.png")


def test_under_two_periods_all_are_set_aside():
    group = [image("x", 200), image("y", period="b"), image("z", period="c")]
    kinds = {("x", "y"): "same", ("x", "z"): "detail"}
    periods = ("a", "b", "c")
    assert judgements(group, kinds) == {
        "x": conflict("same", "b, c", periods),
        "y": conflict("same", "a, c", periods),
        "z": conflict("detail", "a, b", periods),
    }


def test_a_move_in_the_review_changes_the_period():
    group = [image("x", 200), image("y", period="b", review="move:a")]
    assert judgements(group, {("x", "y"): "same"}) == {
        "x": STAYS,
        "y": duplicate("same", "raw/a/x.png"),
    }
    group = [image("x", 200), image("y", review="move:b")]
    assert judgements(group, {("x", "y"): "same"})["x"] == conflict("same", "b")


def test_a_copy_without_a_label_makes_no_conflict_and_never_stays_for_one_with_a_label():
    group = [image("x", 100), image("y", 200, period="unlabelled")]
    assert judgements(group, {("x", "y"): "same"}) == {
        "x": STAYS,
        "y": duplicate("same", "raw/a/x.png"),
    }
    alone = [image(name, size, period="unlabelled") for name, size in (("x", 100), ("y", 200))]
    assert judgements(alone, {("x", "y"): "same"}) == {
        "x": duplicate("same", "raw/a/y.png", ["unlabelled"]),
        "y": STAYS,
    }
    group = [image("x", 100), image("y", 200, period="unlabelled", review="move:b")]
    assert judgements(group, {("x", "y"): "same"})["x"] == conflict("same", "b")


def dropped(kind: str, kept: str) -> tuple:
    reason = f"near-duplicate of {kept} ({kind}, dropped by review)"
    return "duplicate", reason, SetAside(kind, None, ["a"])


def test_copies_go_with_the_largest_where_a_review_drops_it():
    kinds = {("x", "y"): "same", ("x", "z"): "mirror"}
    group = [image("x", 200, review="drop"), image("y"), image("z", 50)]
    of_x = "raw/a/x.png"
    assert judgements(group, kinds) == {
        "x": STAYS,
        "y": dropped("same", of_x),
        "z": dropped("mirror", of_x),
    }
    group[2]["review"] = "keep"  # a person wants this one
    assert judgements(group, kinds) == {"x": STAYS, "y": dropped("same", of_x), "z": STAYS}


def test_dropping_a_smaller_copy_changes_nothing_for_the_others():
    kinds = {("x", "y"): "same", ("x", "z"): "same"}
    group = [image("x", 200), image("y", review="drop"), image("z", 50)]
    expected = {"x": STAYS, "y": STAYS, "z": duplicate("same", "raw/a/x.png")}
    assert judgements(group, kinds) == expected


def test_dropping_a_picture_under_one_period_settles_a_conflict():
    kinds = {("x", "y"): "same", ("x", "z"): "same"}
    group = [image("x", 200, review="drop"), image("y", period="b"), image("z")]
    expected = {"x": STAYS, "y": STAYS, "z": dropped("same", "raw/a/x.png")}
    assert judgements(group, kinds) == expected
    assert judgements([image("x", review="keep"), image("y", 50)], kinds)["x"] == STAYS


def test_copies_go_along_where_the_largest_is_moved():
    kinds = {("x", "y"): "same", ("x", "z"): "same"}
    group = [image("x", 200, review="move:b"), image("y"), image("z", period="b")]
    assert judgements(group, kinds) == {
        "x": STAYS,
        "y": duplicate("same", "raw/a/x.png", ["b"]),
        "z": duplicate("same", "raw/a/x.png", ["b"]),
    }


def test_exact_duplicates_are_left_to_cleaning_but_their_periods_count():
    exact = {"clean_status": "duplicate", "clean_reason": "same picture twice (raw/a/x.png)"}
    group = [image("x"), image("x", 200, file="raw/a/x2.png", **exact)]
    assert judgements(group, {}) == {"x": STAYS}
    group = [image("x"), image("y", 50), image("x", 200, period="b", **exact)]
    assert judgements(group, {("x", "y"): "same"}) == {
        "x": conflict("same", "b"),
        "y": conflict("same", "b"),
    }


def test_one_picture_listed_twice_is_left_to_cleaning():
    group = [image("x"), image("x", period="b", file="raw/b/x.png")]
    assert [judgement.status for judgement in judge(group, {})] == ["ok", "ok"]


def test_what_was_set_aside_comes_back_with_its_flag():
    reason = "near-duplicate of raw/a/w.png (same)"
    group = [image("x", clean_status="duplicate", clean_reason=reason)]
    assert judgements(group, {}) == {"x": STAYS}
    group[0]["clean_reason"] += "; flagged: of one colour"
    assert judgements(group, {}) == {"x": ("flagged", "of one colour", None)}


def test_a_flag_is_kept_in_the_reason():
    flagged = {"clean_status": "flagged", "clean_reason": "of one colour"}
    group = [image("x", 200, **flagged), image("y", **flagged)]
    kinds = {("x", "y"): "same"}
    flag = "; flagged: of one colour"
    expected = {
        "x": ("flagged", "of one colour", None),
        "y": duplicate("same", "raw/a/x.png", flag=flag),
    }
    assert judgements(group, kinds) == expected
    group[1].update(clean_status=expected["y"][0], clean_reason=expected["y"][1])
    assert judgements(group, kinds) == expected
    group[1].update(period="b")
    assert judgements(group, kinds)["y"] == conflict("same", "a", flag=flag)


# What is written


@pytest.fixture
def catalogue(tmp_path):
    """A data folder whose catalogue holds rows of `image`, and one that was rejected."""

    def fill(*rows):
        rejected = {"clean_status": "rejected", "clean_reason": "truncated"}
        new = image("new", clean_status=None, clean_sha256=None)
        with Catalogue(tmp_path) as cat:
            every = [*rows, image("broken", **rejected), new]
            cat.add({"url": row["url"], "period": row["period"]} for row in every)
            cat.update({name: value or None for name, value in row.items()} for row in every)
        return tmp_path

    return fill


def test_the_judgements_are_in_the_catalogue_and_in_the_table(catalogue, monkeypatch):
    data = catalogue(
        image("x", 200),
        image("single"),
        image("y", sha256="0123456789abcdef-and-more"),
        image("z", period="b", url="http://a.example/x"),
    )
    hashes = Hashes(4)
    hashes.put(np.arange(4), ["4" * 16, "1" * 16, None, "3" * 16])
    pairs = [(1, 2, 0, KINDS.index("same")), (1, 3, 0, KINDS.index("detail"))]
    kinds = Kinds.of(np.array(pairs), 4)

    def compare(folder, pictures, map_jobs):
        assert folder == str(data) and map_jobs is None
        names = {"single": "a", "x": "a", "y": "a", "z": "b"}
        assert [pictures.name(i) for i in range(4)] == list(names)
        files = [f"clean/{period}/{name}.jpg" for name, period in names.items()]
        assert [pictures.file(i) for i in range(4)] == files
        assert pictures.rank.argsort().tolist() == [1, 3, 0, 2]
        return Comparison(
            pictures, hashes, kinds, np.array([0, 1, 1, 1]), np.array([0, 1, 1, 1]), {}
        )

    monkeypatch.setattr(duplicates, "compare", compare)
    found = duplicates.mark(str(data))
    group = "0123456789abcdef"
    assert found.columns.tolist() == ["dup_group", "file", "kind", "kept", "periods"]
    assert found.to_numpy().tolist() == [
        [group, "raw/a/x.png", "same", None, "a, b"],
        [group, "raw/a/y.png", "same", None, "a, b"],
        [group, "raw/a/z.png", "detail", None, "a, b"],
    ]
    columns = ["clean_status", "phash", "dup_group"]
    table = read_catalogue(data).set_index("clean_sha256")[columns].astype(object)
    table = table.where(table.notna(), None)
    assert table[table.index.notna()].to_numpy().tolist() == [
        ["conflict", "1" * 16, group],
        ["ok", "4" * 16, None],
        ["conflict", None, group],
        ["conflict", "3" * 16, group],
        ["rejected", None, None],
    ]
    apart = Kinds.of(np.empty((0, 4), int), 4)

    def find_nothing(folder, pictures, map_jobs):
        return Comparison(pictures, hashes, apart, np.arange(4), np.arange(4), {})

    monkeypatch.setattr(duplicates, "compare", find_nothing)
    assert duplicates.mark(data).empty
    table = read_catalogue(data)
    assert table.dup_group.isna().all() and table.clean_status.tolist().count("ok") == 4
    assert table.clean_reason.dropna().tolist() == ["truncated"]
