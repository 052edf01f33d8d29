"""Pictures and pairs by number: what goes in comes out."""

import hashlib

import numpy as np
import pytest

from artclf.data import numbered
from artclf.data.numbered import KINDS, Hashes, Kinds, Pictures, each_pair, numbers_of, pairs_of


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.mark.parametrize("at_a_time", [3, 10_000])
def test_pictures_are_in_the_order_of_their_names(monkeypatch, at_a_time):
    monkeypatch.setattr(numbered, "AT_A_TIME", at_a_time)
    largest_first = [(sha256(number), f"clean/früh/{10**number}.jpg") for number in range(8)]
    pictures = Pictures.of([*largest_first, (sha256(3), "clean/of the same bytes.jpg")])
    file_of = dict(largest_first)
    names = sorted(file_of)
    assert len(pictures) == 8 and [pictures.name(i) for i in range(8)] == names
    assert [pictures.file(i) for i in range(8)] == [file_of[name] for name in names]
    assert [names[i] for i in pictures.rank.argsort()] == list(file_of)
    assert [names[i] for i in np.flatnonzero(pictures.is_repeated)] == [sha256(3)]
    assert pictures.find([names[5], sha256(9), names[0], "z"]).tolist() == [5, -1, 0, -1]
    assert (pictures.number(names[0]), pictures.number(names[7])) == (0, 7)
    with pytest.raises(KeyError, match=sha256(9)):
        pictures.number(sha256(9))


def test_without_pictures_none_is_found():
    pictures = Pictures.of([])
    assert len(pictures) == 0 and pictures.find([]).tolist() == []
    assert pictures.find([sha256(1)]).tolist() == [-1]


def test_a_picture_of_one_colour_is_described_and_has_no_hash():
    hashes = Hashes(4)
    hashes.put(np.array([3, -1, 1, 0]), ["f" * 16, "7" * 16, None, "0" * 16])
    assert [hashes.text(i) for i in range(4)] == ["0" * 16, None, None, "f" * 16]
    assert hashes.is_described.tolist() == [True, True, False, True]
    assert hashes.codes[hashes.has_hash].tolist() == [0, 2**64 - 1]


def test_a_pair_is_a_number_and_back(monkeypatch):
    number = 100_000_000
    pairs = np.array([[0, 1, 0], [5, number - 1, 1], [number - 2, number - 1, 1]])
    numbers = numbers_of(pairs, number)
    assert numbers.dtype == np.int64 and (np.diff(numbers) > 0).all()
    assert (pairs_of(numbers, number) == pairs).all()
    monkeypatch.setattr(numbered, "AT_A_TIME", 2)
    assert [list(pair) for pair in each_pair(numbers, number)] == pairs.tolist()


def test_kinds_are_in_order_and_a_plain_one_comes_before_that_in_the_mirror():
    same, mirror, detail = (KINDS.index(kind) for kind in ("same", "mirror", "detail"))
    found = [(2, 3, 1, mirror), (0, 4, 1, mirror), (2, 3, 0, detail), (0, 4, 1, mirror)]
    kinds = Kinds.of(np.array(found), 5)
    assert kinds.ends.tolist() == [[0, 4], [2, 3]]
    more = Kinds.of(np.array([(2, 4, 0, same), (0, 1, 0, same)]), 5)
    kinds = kinds.with_more(more)
    assert kinds.ends.tolist() == [[0, 1], [0, 4], [2, 3], [2, 4]]
    assert [list(kinds.starting_with(picture)) for picture in range(5)] == [
        [(1, "same"), (4, "mirror")],
        [],
        [(3, "detail"), (4, "same")],
        [],
        [],
    ]
    asked = np.array([[2, 4], [1, 4], [0, 1], [3, 4], [2, 3]])
    assert kinds.have(asked).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize("number", [0, 1, 7])
def test_without_pairs_there_is_no_kind(number):
    kinds = Kinds.of(np.empty((0, 4), int), number)
    assert kinds.ends.shape == (0, 2) and kinds.have(np.empty((0, 2), int)).shape == (0,)
    assert not kinds.have(np.array([[0, 1]])).any() and not list(kinds.starting_with(0))
