"""Comparison: which pictures show the same, whole or in part, and which show several others.

Reads pictures; stores descriptions and compared pairs in `DATA/duplicates.db`, which may be deleted
at any time. Module `duplicates` says what follows for the catalogue.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid
onto the other by the points that they share, is light and dark in the same places.
"""

import sqlite3
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artclf.base.progress import progress_bar
from artclf.data.candidates import by_hash, by_words
from artclf.data.groups import components
from artclf.data.matching import (
    DESCRIPTION_VERSION,
    VERDICT_VERSION,
    Description,
    candidate_maps,
    describe_file,
    kind_of_copy,
    overlap,
    read_luminance,
    rectangle_of,
    stands_out,
)

DESCRIPTIONS_IN_MEMORY = 4000  # of about 50 kB
LUMINANCES_IN_MEMORY = 500  # of 100 kB
MAX_OVERLAP = 0.3  # of the smaller of two pictures that are shown side by side


class Comparison(NamedTuple):
    """What `compare` found. Pictures are named by the SHA-256 of their bytes.

    `phashes` has the perceptual hash of every picture, `kinds` the kind of every pair that shows
    the same: same, mirror, or detail (one covers less than about half of the other). Pairs are
    sorted within: (a, b) with a < b. `kept` has the picture that every picture is a copy of, itself
    where it is none; `collages` the pictures that a collage shows.
    """

    phashes: dict[str, str | None]
    kinds: dict[tuple[str, str], str]
    kept: dict[str, str]
    collages: dict[str, list[str]]


def compare(data, files: dict[str, Path]) -> Comparison:
    """Compare the pictures in `files`, named by the SHA-256 of their bytes, the largest first.

    Descriptions and compared pairs are stored in `DATA/duplicates.db`.
    """
    from threadpoolctl import threadpool_limits

    names = sorted(files)
    rank = {name: number for number, name in enumerate(files)}
    with (
        closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db,
        threadpool_limits(1, "blas"),
    ):
        store = Store(db, files)
        store.describe_new()
        phashes = {name: store.description(name).hash for name in names}
        candidates = by_hash(list(phashes.values()))
        candidates |= by_words(len(names), lambda i: store.description(names[i]).descriptors)
        pairs = {(names[i], names[j], mirrored) for i, j, mirrored in candidates}
        kinds = store.kinds_of(sorted(pairs | store.pairs_found_before()))
        collages = _collages(kinds, rank, store)
        kept = _kept_pictures(kinds, collages, rank, store)
    return Comparison(phashes, kinds, kept, collages)


def _collages(
    kinds: dict[tuple[str, str], str], rank: dict[str, int], store: "Store"
) -> dict[str, list[str]]:
    """The pictures that show at least two others side by side, and those that each shows, by
    `rank`.
    """
    neighbours: dict[str, list[str]] = defaultdict(list)
    for a, b in kinds:
        neighbours[a].append(b)
        neighbours[b].append(a)
    collages = {}
    for picture, others in neighbours.items():
        pairs = [pair_of(picture, other) for other in others]
        joined = combinations(sorted(others), 2)
        # a picture that others are joined by shows them side by side only if a part of it is one
        if "detail" in {kinds[pair] for pair in pairs} and any(
            pair not in kinds for pair in joined
        ):
            shown = _shown_side_by_side(picture, others, store)
            if len(shown) > 1:
                collages[picture] = sorted(shown, key=rank.__getitem__)
    return collages


def _shown_side_by_side(picture: str, others: list[str], store: "Store") -> list[str]:
    """Those of `others` that `picture` shows beside another of them."""
    rectangles = {}
    for other in others:
        rectangle = store.rectangle(other, picture)
        if rectangle is not None and stands_out(store.luminance(picture), rectangle):
            rectangles[other] = rectangle
    shown = set()
    for one, other in combinations(rectangles, 2):
        if overlap(rectangles[one], rectangles[other]) < MAX_OVERLAP:
            shown |= {one, other}
    return list(shown)


def _kept_pictures(
    kinds: dict[tuple[str, str], str],
    collages: dict[str, list[str]],
    rank: dict[str, int],
    store: "Store",
) -> dict[str, str]:
    """The picture that each picture in `kinds`, but no collage, is a copy of: the largest that
    shows the same, or itself.

    Compares each picture that stays with all that pairs join to it, and adds what it finds to
    `kinds`.
    """
    joined = components(pair for pair in kinds if collages.keys().isdisjoint(pair))
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(joined, key=rank.__getitem__):
        members[joined[name]].append(name)
    kept = {}
    groups = list(members.values())
    while groups:
        new = [pair_of(first, name) for first, *others in groups for name in others]
        new = [pair for pair in new if pair not in kinds]
        kinds |= store.kinds_of(
            sorted((a, b, mirrored) for a, b in new for mirrored in (False, True))
        )
        remaining = []
        for first, *others in groups:
            kept[first] = first
            copies = [name for name in others if pair_of(first, name) in kinds]
            kept.update(dict.fromkeys(copies, first))
            remaining.append([name for name in others if name not in copies])
        groups = [group for group in remaining if group]
    return kept


def pair_of(one: str, other: str) -> tuple[str, str]:
    """Two pictures as a key of `Comparison.kinds`."""
    return (one, other) if one < other else (other, one)


class Store:
    """Descriptions of pictures, and the kinds of compared pairs (table `verdicts`, '' for a pair
    that shows nothing in common), in the SQLite file `db`.

    Pictures are named as in `files`. The latest descriptions and luminances stay in memory.
    """

    def __init__(self, db: sqlite3.Connection, files: dict[str, Path]):
        self.db = db
        self.files = files
        self.description = lru_cache(DESCRIPTIONS_IN_MEMORY)(self._read_description)
        self.luminance = lru_cache(LUMINANCES_IN_MEMORY)(self._read_luminance)
        db.execute("DROP TABLE IF EXISTS seen")  # an earlier version's descriptions
        db.execute(
            "CREATE TABLE IF NOT EXISTS descriptions (version TEXT, image TEXT, hash TEXT, "
            "points BLOB, descriptors BLOB, PRIMARY KEY (version, image))"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (version TEXT, a TEXT, b TEXT, "
            "mirrored INTEGER, kind TEXT, PRIMARY KEY (version, a, b, mirrored))"
        )

    def describe_new(self):
        """Describe the pictures that have no description yet."""
        described = self.db.execute(
            "SELECT image FROM descriptions WHERE version = ?", (DESCRIPTION_VERSION,)
        )
        new = sorted(self.files.keys() - {name for (name,) in described})
        for name in new:
            if not self.files[name].exists():
                raise FileNotFoundError(f"{self.files[name]} is gone: run `artclf clean` first")
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(new), 64), desc="describe"):
                batch = new[start : start + 64]
                descriptions = pool.map(self._describe, batch)
                with self.db:  # a transaction
                    for name, description in zip(batch, descriptions, strict=True):
                        self._write_description(name, description)

    def _describe(self, name: str) -> Description:
        return describe_file(self.files[name])

    def _write_description(self, name: str, description: Description):
        points = description.points.tobytes()
        descriptors = description.descriptors.tobytes()
        self.db.execute(
            "INSERT OR REPLACE INTO descriptions VALUES (?, ?, ?, ?, ?)",
            (DESCRIPTION_VERSION, name, description.hash, points, descriptors),
        )

    def _read_description(self, name: str) -> Description:
        [(phash, points, descriptors)] = self.db.execute(
            "SELECT hash, points, descriptors FROM descriptions WHERE version = ? AND image = ?",
            (DESCRIPTION_VERSION, name),
        )
        return Description(
            phash,
            np.frombuffer(points, np.float32).reshape(-1, 2),
            np.frombuffer(descriptors, np.uint8).reshape(-1, 128),
        )

    def _read_luminance(self, name: str) -> np.ndarray:
        return read_luminance(self.files[name])

    def pairs_found_before(self) -> set[tuple[str, str, bool]]:
        """The pairs that showed one picture in earlier runs: new pictures may have taken their
        places among the candidates.
        """
        rows = self.db.execute(
            "SELECT a, b, mirrored FROM verdicts WHERE version = ? AND kind != ''",
            (VERDICT_VERSION,),
        )
        return {
            (a, b, bool(mirrored)) for a, b, mirrored in rows if a in self.files and b in self.files
        }

    def kinds_of(self, pairs: list[tuple[str, str, bool]]) -> dict[tuple[str, str], str]:
        """The kind of each pair (a, b, mirrored) that shows one picture, plain before mirrored."""
        kinds: dict[tuple[str, str], str] = {}
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(pairs), 256), desc="compare"):
                batch = pairs[start : start + 256]
                for (a, b, _), kind in zip(batch, self._kinds_of_batch(batch, pool), strict=True):
                    if kind:
                        kinds.setdefault((a, b), kind)
        return kinds

    def _kinds_of_batch(self, batch: list[tuple[str, str, bool]], pool) -> list[str]:
        """The kind of each pair, '' where the two don't show one picture; new ones are compared in
        threads, and stored.
        """
        kinds = {pair: self._stored_kind(pair) for pair in batch}
        new = [pair for pair, kind in kinds.items() if kind is None]
        # descriptions are read here, because SQLite's connection belongs to this thread
        descriptions = [(self.description(a), self.description(b)) for a, b, _ in new]
        kinds.update(zip(new, pool.map(self._compare, new, descriptions), strict=True))
        with self.db:  # a transaction
            rows = [(VERDICT_VERSION, *pair, kinds[pair]) for pair in new]
            self.db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
        return [kinds[pair] or "" for pair in batch]

    def _stored_kind(self, pair: tuple[str, str, bool]) -> str | None:
        row = self.db.execute(
            "SELECT kind FROM verdicts WHERE (version, a, b, mirrored) = (?, ?, ?, ?)",
            (VERDICT_VERSION, *pair),
        ).fetchone()
        return row[0] if row else None

    def _compare(
        self, pair: tuple[str, str, bool], descriptions: tuple[Description, Description]
    ) -> str:
        a, b, mirrored = pair
        for affine in candidate_maps(*descriptions, mirrored):
            kind = kind_of_copy(self.luminance(a), self.luminance(b), affine)
            if kind:
                return kind
        return ""

    def rectangle(self, inner: str, outer: str) -> np.ndarray | None:
        """Where picture `outer` shows `inner`, a smaller one (see `rectangle_of`); None where it
        doesn't.
        """
        a, b = self.luminance(inner), self.luminance(outer)
        for mirrored in (False, True):
            maps = candidate_maps(self.description(inner), self.description(outer), mirrored)
            for affine in maps:
                is_smaller = abs(np.linalg.det(affine[:, :2])) < 1
                if is_smaller and kind_of_copy(a, b, affine):
                    return rectangle_of(affine)
        return None
