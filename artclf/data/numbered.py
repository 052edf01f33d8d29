"""Pictures by number, and what is known of them and of pairs: NumPy arrays, a few bytes for each.

The number of a picture is its place in the order of names, which are the SHA-256 of their bytes.
Of millions, Python's own texts and tuples would take kilobytes a picture.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from artclf.base.processes import in_chunks

NAME = "S64"  # the hexadecimal digits of a SHA-256
KINDS = ("", "same", "mirror", "detail")  # of pairs; '' where they show nothing in common
AT_A_TIME = 10_000  # so many of many are in memory as texts or tuples

Pair = tuple[int, int, bool]  # two pictures, the lower number first, and whether one is mirrored


class Pictures(NamedTuple):
    """Pictures in order. `names` and `files`, relative to DATA, are bytes of a fixed width; `rank`
    is lower for a larger picture; `is_repeated` says of which there are several.
    """

    names: np.ndarray
    files: np.ndarray
    rank: np.ndarray
    is_repeated: np.ndarray

    @classmethod
    def of(cls, largest_first: Iterable[tuple[str, str]]):
        """The pictures with these names and files. Of one that stands there several times the first
        file counts.
        """
        names_of_chunks = [np.empty(0, NAME)]
        files_of_chunks = [np.empty(0, "S1")]
        for chunk in in_chunks(largest_first, AT_A_TIME):
            names_of_chunks.append(_as_names([name for name, _ in chunk]))
            files_of_chunks.append(np.array([file.encode() for _, file in chunk]))
        names, first, counts = np.unique(
            np.concatenate(names_of_chunks), return_index=True, return_counts=True
        )
        return cls(names, np.concatenate(files_of_chunks)[first], first, counts > 1)

    def __len__(self) -> int:
        return len(self.names)

    def name(self, picture: int) -> str:
        return self.names[picture].decode()

    def file(self, picture: int) -> str:
        """The path of a picture, relative to DATA."""
        return self.files[picture].decode()

    def number(self, name: str) -> int:
        """The number of the picture `name`. Raises KeyError where it isn't here."""
        number = int(self.find([name])[0])
        if number < 0:
            raise KeyError(name)
        return number

    def find(self, names: Sequence[str]) -> np.ndarray:
        """The numbers of the pictures with these names, -1 for those that aren't here."""
        wanted = _as_names(names)
        places = np.searchsorted(self.names, wanted)
        is_here = np.searchsorted(self.names, wanted, "right") > places
        return np.where(is_here, places, -1)


def _as_names(names: Sequence[str]) -> np.ndarray:
    return np.array([name.encode() for name in names], NAME)


class Hashes:
    """The `phash` of each of `number` pictures: `codes`, uint64, where `has_hash`; those that aren't
    described yet, and those of nearly one colour, have none.
    """

    def __init__(self, number: int):
        self.codes = np.zeros(number, np.uint64)
        self.has_hash = np.zeros(number, bool)
        self.is_described = np.zeros(number, bool)

    def put(self, pictures: np.ndarray, hashes: Iterable[str | None]):
        """Note the hashes of `pictures` that are described; -1 stands for one that is left out."""
        for picture, code in zip(pictures.tolist(), hashes, strict=True):
            if picture >= 0:
                self.is_described[picture] = True
                self.has_hash[picture] = code is not None
                self.codes[picture] = int(code or "0", 16)

    def text(self, picture: int) -> str | None:
        """The hash of a picture as 16 hexadecimal digits."""
        return f"{self.codes[picture]:016x}" if self.has_hash[picture] else None


def numbers_of(pairs: np.ndarray, number: int) -> np.ndarray:
    """Pairs (first, second, mirrored) of `number` pictures, (n, 3), as one number each: in memory a
    pair takes 8 bytes.
    """
    first, second, mirrored = pairs.T
    return (first * number + second) * 2 + mirrored


def pairs_of(numbers: np.ndarray, number: int) -> np.ndarray:
    """The pairs that `numbers_of` wrote as numbers: (n, 3)."""
    both, mirrored = np.divmod(numbers, 2)
    first, second = np.divmod(both, number)
    return np.stack([first, second, mirrored], axis=1)


def each_pair(numbers: np.ndarray, number: int) -> Iterator[Pair]:
    """The pairs that `numbers_of` wrote as numbers, one after the other."""
    for start in range(0, len(numbers), AT_A_TIME):
        pairs = pairs_of(numbers[start : start + AT_A_TIME], number)
        for first, second, mirrored in pairs.tolist():
            yield first, second, bool(mirrored)


class Kinds(NamedTuple):
    """The kind of each pair of `number` pictures that shows the same, in the order of pairs.

    `plain` has the pairs as `numbers_of` writes them, halved: without whether one is mirrored.
    `codes` are places in KINDS, uint8.
    """

    number: int
    plain: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray, number: int):
        """The kinds of pairs that are `found`: (first, second, mirrored, place in KINDS), (n, 4). Of
        a pair that is there both ways, the plain one counts.
        """
        numbers = numbers_of(found[:, :3], number)
        order = numbers.argsort()
        plain, first = np.unique(numbers[order] // 2, return_index=True)
        return cls(number, plain, found[order[first], 3].astype(np.uint8))

    def with_more(self, more: "Kinds") -> "Kinds":
        """These kinds and those of further pairs."""
        plain = np.concatenate([self.plain, more.plain])
        order = plain.argsort()
        return Kinds(self.number, plain[order], np.concatenate([self.codes, more.codes])[order])

    @property
    def ends(self) -> np.ndarray:
        """The two pictures of each pair, the lower number first: (pairs, 2)."""
        return np.stack(np.divmod(self.plain, self.number), axis=1)

    def have(self, ends: np.ndarray) -> np.ndarray:
        """Which of some pairs, (n, 2), the lower number first, are here: (n,)."""
        wanted = ends[:, 0] * self.number + ends[:, 1]
        places = np.searchsorted(self.plain, wanted)
        return np.searchsorted(self.plain, wanted, "right") > places

    def starting_with(self, picture: int) -> Iterator[tuple[int, str]]:
        """The pictures of a higher number that `picture` is a pair with, and the kinds."""
        first = picture * self.number
        own = slice(*np.searchsorted(self.plain, [first, first + self.number]))
        for plain, code in zip(self.plain[own].tolist(), self.codes[own].tolist(), strict=True):
            yield plain - first, KINDS[code]
