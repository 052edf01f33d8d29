"""Near-duplicates: what becomes of a group, what is written, and what is compared."""

import sqlite3

import numpy as np
import pytest

from artclf.data import duplicates
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.duplicates import Comparison, SetAside, judge
from artclf.data.matching import Description

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
    compared = []
    kinds = {("x", "y"): "same", ("x", "z"): "detail"}
    hashes = {"x": "1" * 16, "y": None, "z": "3" * 16, "single": "4" * 16}

    def compare(folder, files):
        compared.append((folder, files))
        return Comparison(hashes, kinds, {"x": "x", "y": "x", "z": "x"}, {})

    monkeypatch.setattr(duplicates, "compare", compare)
    found = duplicates.mark(str(data))
    names = {"x": "a", "single": "a", "y": "a", "z": "b"}
    files = {name: data / "clean" / period / f"{name}.jpg" for name, period in names.items()}
    assert compared == [(str(data), files)]
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
    monkeypatch.setattr(duplicates, "compare", lambda *_: Comparison(hashes, {}, {}, {}))
    assert duplicates.mark(data).empty
    table = read_catalogue(data)
    assert table.dup_group.isna().all() and table.clean_status.tolist().count("ok") == 4
    assert table.clean_reason.dropna().tolist() == ["truncated"]


# Comparing


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A maker of stores on one database, whose pictures are files that hold a number."""
    calls = []

    def read_luminance(file):
        calls.append(("luminance", file.name))
        return int(file.read_text())

    def describe_file(file):
        number = int(file.read_text())
        calls.append(("describe", number))
        return Description(f"{number:016x}", *points_of(number))

    def candidate_maps(a, b, mirrored):
        calls.append(("maps", a.hash[-1], b.hash[-1], mirrored))
        return ["wrong map", "good map"] if a.points.sum() <= b.points.sum() else []

    def kind_of_copy(a, b, affine):
        calls.append(("kind", a, b, affine))
        return {2: "same", 3: "mirror"}.get(a * b, "") if affine == "good map" else ""

    for function in (read_luminance, describe_file, candidate_maps, kind_of_copy):
        monkeypatch.setattr(duplicates, function.__name__, function)
    databases = []

    def make(*numbers):
        files = {f"image {number}": tmp_path / str(number) for number in numbers}
        for number, file in zip(numbers, files.values(), strict=True):
            file.write_text(str(number))
        databases.append(sqlite3.connect(tmp_path / "duplicates.db"))
        return duplicates._Store(databases[-1], files), calls

    yield make
    for database in databases:
        database.close()


def points_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.full((number, 2), number, np.float32)
    return points, np.full((number, 128), number, np.uint8)


def test_a_picture_is_described_once(store):
    first, calls = store(1, 2)
    first.describe_new()
    second, _ = store(1, 2, 5)
    second.describe_new()
    assert sorted(calls) == [("describe", number) for number in (1, 2, 5)]
    for number in (1, 2, 5):
        description = second.description(f"image {number}")
        points, descriptors = points_of(number)
        assert description.hash == f"{number:016x}"
        assert np.array_equal(description.points, points)
        assert np.array_equal(description.descriptors, descriptors)
        assert description.points.dtype == np.float32 and description.descriptors.dtype == np.uint8


def test_descriptions_are_written_in_batches(store, monkeypatch):
    full, calls = store(*range(70))
    monkeypatch.setattr(
        duplicates,
        "describe_file",
        lambda file: Description(None, *points_of(1)) if int(file.name) < 69 else 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        full.describe_new()
    [(number,)] = full.db.execute("SELECT count(*) FROM descriptions")
    assert number == 64


def test_a_picture_that_is_gone_is_an_error_before_any_work(store, tmp_path):
    new, calls = store(1, 2)
    (tmp_path / "2").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 is gone: run `artclf clean` first"):
        new.describe_new()
    assert calls == []


def test_a_pair_is_compared_once_and_takes_the_first_map_that_fits(store):
    first, calls = store(1, 2)
    first.describe_new()
    calls.clear()
    pairs = [("image 1", "image 2", False)]
    assert first.kinds_of(pairs) == {("image 1", "image 2"): "same"}
    assert calls == [
        ("maps", "1", "2", False),
        ("luminance", "1"),
        ("luminance", "2"),
        ("kind", 1, 2, "wrong map"),
        ("kind", 1, 2, "good map"),
    ]
    second, _ = store(1, 2)
    calls.clear()
    assert second.kinds_of(pairs) == {("image 1", "image 2"): "same"} and calls == []


def test_pairs_that_show_nothing_in_common_are_remembered_and_left_out(store):
    new, calls = store(1, 4, 3)
    new.describe_new()
    pairs = [("image 1", "image 4", False), ("image 3", "image 1", False)]
    assert new.kinds_of(pairs) == {}
    calls.clear()
    assert new.kinds_of(pairs) == {} and calls == []
    assert new.pairs_found_before() == set()


def test_of_a_pair_the_first_kind_counts(store):
    new, calls = store(1, 3)
    new.describe_new()
    pairs = [("image 1", "image 3", mirrored) for mirrored in (False, True)]
    assert new.kinds_of(pairs) == {("image 1", "image 3"): "mirror"}
    assert [call for call in calls if call[0] == "maps"] == [
        ("maps", "1", "3", False),
        ("maps", "1", "3", True),
    ]
    new.db.execute("UPDATE verdicts SET kind = 'detail' WHERE mirrored")
    assert new.kinds_of(pairs) == {("image 1", "image 3"): "mirror"}
    assert new.kinds_of(pairs[::-1]) == {("image 1", "image 3"): "detail"}


def test_pairs_of_earlier_runs_are_known_while_both_pictures_are_there(store):
    first, _ = store(1, 2, 3)
    first.describe_new()
    first.kinds_of([("image 1", "image 2", False), ("image 1", "image 3", True)])
    assert first.pairs_found_before() == {
        ("image 1", "image 2", False),
        ("image 1", "image 3", True),
    }
    for numbers in ((1, 2), (2, 3), (2,)):
        later, _ = store(*numbers)
        expected = {("image 1", "image 2", False)} if numbers == (1, 2) else set()
        assert later.pairs_found_before() == expected


def test_kinds_are_written_in_batches(store, monkeypatch):
    new, _ = store(1, 2)
    new.describe_new()

    def compare(pair, descriptions):
        return "same" if pair[2] < 299 else 1 / 0

    monkeypatch.setattr(new, "_compare", compare)
    with pytest.raises(ZeroDivisionError):
        new.kinds_of([("image 1", "image 2", number) for number in range(300)])
    assert new.db.execute("SELECT count(*) FROM verdicts").fetchone() == (256,)


def test_other_versions_are_not_taken(store, monkeypatch):
    first, calls = store(1, 2)
    first.describe_new()
    first.kinds_of([("image 1", "image 2", False)])
    calls.clear()
    monkeypatch.setattr(duplicates, "VERDICT_VERSION", "other")
    assert first.pairs_found_before() == set()
    first.kinds_of([("image 1", "image 2", False)])
    assert len([call for call in calls if call[0] == "kind"]) == 2
    monkeypatch.setattr(duplicates, "DESCRIPTION_VERSION", "other")
    first.describe_new()
    assert len([call for call in calls if call[0] == "describe"]) == 2


def test_candidates_of_both_kinds_and_pairs_of_earlier_runs_are_compared(
    tmp_path, store, monkeypatch
):
    _, calls = store(1, 2, 3, 4)
    files = {f"image {number}": tmp_path / str(number) for number in (4, 3, 2, 1)}

    def by_hash(hashes):
        assert hashes == [f"{number:016x}" for number in (1, 2, 3, 4)]
        return {(0, 1, False)}

    def by_words(number, descriptors):
        assert number == 4 and descriptors(2).tolist() == points_of(3)[1].tolist()
        return {(0, 2, True), (1, 3, False)}

    monkeypatch.setattr(duplicates, "by_hash", by_hash)
    monkeypatch.setattr(duplicates, "by_words", by_words)
    result = duplicates.compare(tmp_path, files)
    kinds = {("image 1", "image 2"): "same", ("image 1", "image 3"): "mirror"}
    assert result.kinds == kinds and list(result.kinds) == list(kinds)
    assert result.phashes == {f"image {number}": f"{number:016x}" for number in (1, 2, 3, 4)}
    assert [call[1:] for call in calls if call[0] == "maps"] == [
        ("1", "2", False),
        ("1", "3", True),
        ("2", "4", False),
        ("2", "3", False),  # 1 joins 3, the largest of its group, and 2: are they copies, too?
        ("2", "3", True),
    ]
    assert result.kept == {"image 3": "image 3", "image 1": "image 3", "image 2": "image 2"}
    monkeypatch.setattr(duplicates, "by_hash", lambda hashes: set())
    monkeypatch.setattr(duplicates, "by_words", lambda number, descriptors: set())
    assert duplicates.compare(tmp_path, files) == result
