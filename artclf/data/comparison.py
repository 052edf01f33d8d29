"""Comparison: which pictures show the same, whole or in part, and which show several others.

Candidates come from a perceptual hash and from visual words, and module `matcher` compares them.
Module `verdicts` stores what was found, `shared_verdicts` lets workers find it. Module `duplicates`
says what follows for the catalogue.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artclf.base.processes import MapJobs
from artclf.data.numbered import (
    KINDS,
    Hashes,
    Kinds,
    Pictures,
    numbers_of,
)
from artclf.data.shared_verdicts import SharedStore
from artclf.data.verdicts import Store

DETAIL = KINDS.index("detail")


class Named(NamedTuple):
    """What `compare` found of some pictures, by their names.

    `kinds` has the kind of every pair that shows the same: same, mirror, or detail (one covers less
    than about half of the other). Pairs are sorted, and within: (a, b) with a < b. `kept` has the
    picture that each picture is a copy of, itself where it is none; `collages` the pictures that a
    collage shows.
    """

    kinds: dict[tuple[str, str], str]
    kept: dict[str, str]
    collages: dict[str, list[str]]


class Comparison(NamedTuple):
    """What `compare` found of `pictures`, by their numbers: `groups` has the least of those that
    pairs join to each, (pictures,); the others are as `Named` says.
    """

    pictures: Pictures
    hashes: Hashes
    kinds: Kinds
    groups: np.ndarray
    kept: np.ndarray
    collages: dict[int, list[int]]

    def named(self, pictures: Iterable[int]) -> Named:
        """What was found of `pictures`, which are in order and have all that pairs join to them."""
        name = self.pictures.name
        kinds, kept, collages = {}, {}, {}
        for picture in pictures:
            for other, kind in self.kinds.starting_with(picture):
                kinds[name(picture), name(other)] = kind
            kept[name(picture)] = name(self.kept[picture])
            if picture in self.collages:
                collages[name(picture)] = [name(shown) for shown in self.collages[picture]]
        return Named(kinds, kept, collages)


def compare(data, pictures: Pictures, map_jobs: MapJobs | None = None) -> Comparison:
    """Compare the pictures of the folder `data`.

    Descriptions and compared pairs are stored in `DATA/duplicates.db`. With `map_jobs` its workers
    describe and compare, and see `data` under the same path; shards hold the descriptions.
    """
    from threadpoolctl import threadpool_limits

    with (
        closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db,
        threadpool_limits(1, "blas"),
    ):
        store = (
            Store(db, pictures, data)
            if map_jobs is None
            else SharedStore(db, pictures, data, map_jobs)
        )
        store.describe_new()
        kinds = store.kinds_of(store.candidates(), store.pairs_found_before())
        collages = _collages(kinds, store)
        kept, kinds = _kept_pictures(kinds, collages, store)
        groups = store.groups(kinds.ends)
    return Comparison(pictures, store.hashes, kinds, groups, kept, collages)


def _collages(kinds: Kinds, store: Store) -> dict[int, list[int]]:
    """The pictures that show at least two others side by side, and those that each shows, the
    largest first.
    """
    shown_by = store.shown_side_by_side(_joining(kinds))
    rank = store.pictures.rank
    return {
        picture: sorted(shown, key=rank.__getitem__)
        for picture, shown in shown_by.items()
        if len(shown) > 1
    }


def _joining(kinds: Kinds) -> Iterator[tuple[int, list[int]]]:
    """The pictures that may show others side by side, and all that each is a pair with: a part of
    it is one of these, and two of them are no pair.
    """
    first, second = np.concatenate([kinds.ends, kinds.ends[:, ::-1]]).T
    order = np.lexsort([second, first])
    first, second = first[order], second[order]
    for picture in np.unique(kinds.ends[kinds.codes == DETAIL]):
        start, end = np.searchsorted(first, [picture, picture + 1])
        others = second[start:end]
        if not _all_are_pairs(others, kinds):
            yield int(picture), others.tolist()


def _all_are_pairs(pictures: np.ndarray, kinds: Kinds) -> bool:
    """Whether each of `pictures`, which are in order, is a pair with each other one."""
    for place, picture in enumerate(pictures):
        others = pictures[place + 1 :]
        if not kinds.have(np.stack([np.full_like(others, picture), others], axis=1)).all():
            return False
    return True


def _kept_pictures(
    kinds: Kinds, collages: Collection[int], store: Store
) -> tuple[np.ndarray, Kinds]:
    """The picture that each picture but collages is a copy of: the largest that shows the same, or
    itself, (pictures,). And `kinds` with further ones: a picture that stays is compared with all
    that pairs join to it.
    """
    rank = store.pictures.rank
    ends = kinds.ends[~np.isin(kinds.ends, list(collages)).any(axis=1)]
    groups = store.groups(ends)
    kept = np.arange(len(store.pictures))
    others = np.unique(ends)
    others = others[np.lexsort([rank[others], groups[others]])]
    while len(others):
        # the largest of a group stays; what shows another picture than that is left to the next round
        _, first, group = np.unique(groups[others], return_index=True, return_inverse=True)
        largest = others[first][group]
        kept[others] = largest
        pairs = np.sort(np.stack([largest, others], axis=1), axis=1)
        is_new = (largest != others) & ~kinds.have(pairs)
        both_ways = [np.insert(pairs[is_new], 2, mirrored, axis=1) for mirrored in (0, 1)]
        new = numbers_of(np.concatenate(both_ways), kinds.number)
        kinds = kinds.with_more(store.kinds_of(np.sort(new)))
        others = others[(largest != others) & ~kinds.have(pairs)]
    return kept, kinds


def pair_of(one: str, other: str) -> tuple[str, str]:
    """Two pictures as a key of `Named.kinds`."""
    return (one, other) if one < other else (other, one)
