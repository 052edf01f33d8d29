"""Comparison: what is described and compared, once, and what is stored of it."""

import sqlite3
from itertools import combinations

import numpy as np
import pytest

from artclf.data import comparison, descriptions, matcher, verdicts
from artclf.data.matching import Description
from artclf.data.numbered import Pictures, numbers_of, pairs_of


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A maker of stores on one database, whose pictures, in order, are files that hold numbers."""
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

    for function in (read_luminance, describe_file):
        monkeypatch.setattr(verdicts, function.__name__, function)
    for function in (candidate_maps, kind_of_copy):
        monkeypatch.setattr(matcher, function.__name__, function)
    databases = []

    def make(*numbers):
        for number in numbers:
            (tmp_path / str(number)).write_text(str(number))
        pictures = Pictures.of((f"image {number}", str(number)) for number in numbers)
        databases.append(sqlite3.connect(tmp_path / "duplicates.db"))
        return verdicts.Store(databases[-1], pictures, tmp_path), calls

    yield make
    for database in databases:
        database.close()


def points_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.full((number, 2), number, np.float32)
    return points, np.full((number, 128), number, np.uint8)


def numbers(store, *pairs) -> np.ndarray:
    """Pairs of a store's pictures, as its functions take them."""
    return numbers_of(np.array(pairs), len(store.pictures))


def named(store, kinds) -> dict:
    """Kinds by the names of pictures."""
    name = store.pictures.name
    return {
        (name(picture), name(other)): kind
        for picture in range(len(store.pictures))
        for other, kind in kinds.starting_with(picture)
    }


def test_a_picture_is_described_once(store):
    first, calls = store(1, 2)
    first.describe_new()
    second, _ = store(1, 2, 5)
    second.describe_new()
    assert sorted(calls) == [("describe", number) for number in (1, 2, 5)]
    for picture, number in enumerate((1, 2, 5)):
        assert second.hashes.text(picture) == f"{number:016x}"
        description = second.description(picture)
        points, descriptors = points_of(number)
        assert description.hash == f"{number:016x}"
        assert np.array_equal(description.points, points)
        assert np.array_equal(description.descriptors, descriptors)
        assert description.points.dtype == np.float32 and description.descriptors.dtype == np.uint8


def test_descriptions_are_written_in_batches(store, monkeypatch):
    full, calls = store(*range(70))
    monkeypatch.setattr(
        verdicts,
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
    pairs = numbers(first, (0, 1, False))
    kinds = {("image 1", "image 2"): "same"}
    assert named(first, first.kinds_of(pairs)) == kinds
    assert calls == [
        ("maps", "1", "2", False),
        ("luminance", "1"),
        ("luminance", "2"),
        ("kind", 1, 2, "wrong map"),
        ("kind", 1, 2, "good map"),
    ]
    second, _ = store(1, 2)
    calls.clear()
    assert named(second, second.kinds_of(pairs)) == kinds and calls == []


def test_pairs_that_show_nothing_in_common_are_remembered_and_left_out(store):
    new, calls = store(1, 4, 5)
    new.describe_new()
    pairs = numbers(new, (0, 1, False), (0, 2, False))
    assert not len(new.kinds_of(pairs).codes)
    assert ("maps", "1", "5", False) in calls
    calls.clear()
    assert not len(new.kinds_of(pairs).codes) and calls == []
    assert not len(new.pairs_found_before())


def test_of_a_pair_the_first_kind_counts(store):
    new, calls = store(1, 3)
    new.describe_new()
    pairs = numbers(new, (0, 1, False), (0, 1, True))
    pair = ("image 1", "image 3")
    assert named(new, new.kinds_of(pairs)) == {pair: "mirror"}
    assert [call for call in calls if call[0] == "maps"] == [
        ("maps", "1", "3", False),
        ("maps", "1", "3", True),
    ]
    new.db.execute("UPDATE verdicts SET kind = 'detail' WHERE mirrored")
    assert named(new, new.kinds_of(pairs)) == {pair: "mirror"}
    assert named(new, new.kinds_of(pairs[::-1])) == {pair: "mirror"}
    assert named(new, new.kinds_of(pairs[1:], pairs[1:])) == {pair: "detail"}


def test_pairs_of_earlier_runs_are_known_while_both_pictures_are_there(store):
    first, _ = store(1, 2, 3)
    first.describe_new()
    first.kinds_of(numbers(first, (0, 1, False), (0, 2, True)))
    found = pairs_of(first.pairs_found_before(), 3).tolist()
    assert sorted(found) == [[0, 1, False], [0, 2, True]]
    for there, expected in (((0, 1, 2), [[1, 2, 0]]), ((2, 3), []), ((2,), [])):
        later, _ = store(*there)
        assert pairs_of(later.pairs_found_before(), len(there)).tolist() == expected


def test_kinds_are_written_in_batches(store, monkeypatch):
    new, _ = store(*range(24))
    new.describe_new()
    pairs = [(*pair, False) for pair in combinations(range(24), 2)]  # 276
    monkeypatch.setattr(new, "_compare", lambda pair, _: "same" if pair != pairs[-1] else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        new.kinds_of(numbers(new, *pairs))
    assert new.db.execute("SELECT count(*) FROM verdicts").fetchone() == (256,)


def test_other_versions_are_not_taken(store, monkeypatch):
    first, calls = store(1, 2)
    first.describe_new()
    pairs = numbers(first, (0, 1, False))
    first.kinds_of(pairs)
    calls.clear()
    monkeypatch.setattr(verdicts, "VERDICT_VERSION", "other")
    assert not len(first.pairs_found_before())
    first.kinds_of(pairs)
    assert len([call for call in calls if call[0] == "kind"]) == 2
    monkeypatch.setattr(descriptions, "DESCRIPTION_VERSION", "other")
    second, _ = store(1, 2)
    second.describe_new()
    assert len([call for call in calls if call[0] == "describe"]) == 2


def test_candidates_of_both_kinds_and_pairs_of_earlier_runs_are_compared(
    tmp_path, store, monkeypatch
):
    _, calls = store(1, 2, 3, 4)
    pictures = Pictures.of((f"image {number}", str(number)) for number in (4, 3, 2, 1))

    def by_hash(hashes):
        assert hashes == [f"{number:016x}" for number in (1, 2, 3, 4)]
        return {(0, 1, False)}

    def by_words(number, descriptors):
        assert number == 4 and descriptors(2).tolist() == points_of(3)[1].tolist()
        return {(0, 2, True), (1, 3, False)}

    monkeypatch.setattr(verdicts, "by_hash", by_hash)
    monkeypatch.setattr(verdicts, "by_words", by_words)
    result = comparison.compare(tmp_path, pictures)
    found = result.named(range(4))
    kinds = {("image 1", "image 2"): "same", ("image 1", "image 3"): "mirror"}
    assert found.kinds == kinds and list(found.kinds) == list(kinds)
    hashes = [result.hashes.text(picture) for picture in range(4)]
    assert hashes == [f"{number:016x}" for number in (1, 2, 3, 4)]
    assert [call[1:] for call in calls if call[0] == "maps"] == [
        ("1", "2", False),
        ("1", "3", True),
        ("2", "4", False),
        ("2", "3", False),  # 1 joins 3, the largest of its group, and 2: are they copies, too?
        ("2", "3", True),
    ]
    kept = {1: 3, 2: 2, 3: 3, 4: 4}
    assert found.kept == {f"image {one}": f"image {other}" for one, other in kept.items()}
    assert result.groups.tolist() == [0, 0, 0, 3]
    monkeypatch.setattr(verdicts, "by_hash", lambda hashes: set())
    monkeypatch.setattr(verdicts, "by_words", lambda number, descriptors: set())
    again = comparison.compare(tmp_path, pictures)
    assert again.named(range(4)) == found and again.groups.tolist() == [0, 0, 0, 3]
