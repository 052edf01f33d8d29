"""Comparison: which pictures show the same, whole or in part, and which show several others.

Reads pictures; stores descriptions and compared pairs in `DATA/duplicates.db`, which may be deleted
at any time, and descriptions by workers as `data.descriptions` says. Module `duplicates` says what
follows for the catalogue.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid
onto the other by the points that they share, is light and dark in the same places.
"""

import shutil
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from artclf.base.errors import StepError
from artclf.base.processes import FOR_WORKERS, MapJobs, in_chunks
from artclf.base.progress import progress_bar
from artclf.data import descriptions, shared_candidates
from artclf.data.candidates import by_hash, by_words
from artclf.data.groups import components
from artclf.data.matching import (
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
PICTURES_IN_SHARD = 128  # a worker describes them in a few seconds
PAIRS_IN_CHUNK = 64
PAIRS_AT_A_TIME = 10_000  # so that few of many are in memory as texts


Pair = tuple[str, str, bool]  # two pictures, a < b, and whether one is mirrored


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


def compare(data, files: dict[str, Path], map_jobs: MapJobs | None = None) -> Comparison:
    """Compare the pictures in `files`, named by the SHA-256 of their bytes, the largest first.

    Descriptions and compared pairs are stored in `DATA/duplicates.db`. With `map_jobs` its workers
    describe and compare, and see `data` under the same path; shards hold the descriptions.
    """
    from threadpoolctl import threadpool_limits

    names = sorted(files)
    rank = {name: number for number, name in enumerate(files)}
    with (
        closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db,
        threadpool_limits(1, "blas"),
    ):
        store = Store(db, files) if map_jobs is None else SharedStore(db, files, data, map_jobs)
        store.describe_new()
        hashes = store.hashes()
        phashes = {name: hashes[name] for name in names}
        pairs = store.candidates(phashes)
        kinds = store.kinds_of(chain(pairs, store.pairs_found_before()), len(pairs))
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
    joining = {}
    for picture, others in neighbours.items():
        pairs = [pair_of(picture, other) for other in others]
        joined = combinations(sorted(others), 2)
        # a picture that others are joined by shows them side by side only if a part of it is one
        if "detail" in {kinds[pair] for pair in pairs} and any(
            pair not in kinds for pair in joined
        ):
            joining[picture] = others
    shown_by = store.shown_side_by_side(joining)
    return {
        picture: sorted(shown_by[picture], key=rank.__getitem__)
        for picture in joining
        if len(shown_by[picture]) > 1
    }


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


class Matcher:
    """Compares pictures by their descriptions and luminances, which the functions `description` and
    `luminance` give of a picture.
    """

    def __init__(
        self,
        description: Callable[[Any], Description],
        luminance: Callable[[Any], np.ndarray],
    ):
        self.description = description
        self.luminance = luminance

    def kind(self, a, b, mirrored: bool) -> str:
        """The kind of a pair, '' where the two don't show one picture."""
        return self.kind_of_described(a, b, mirrored, (self.description(a), self.description(b)))

    def kind_of_described(
        self, a, b, mirrored: bool, of_both: tuple[Description, Description]
    ) -> str:
        for affine in candidate_maps(*of_both, mirrored):
            kind = kind_of_copy(self.luminance(a), self.luminance(b), affine)
            if kind:
                return kind
        return ""

    def shown_side_by_side(self, picture, others: list) -> list:
        """Those of `others` that `picture` shows beside another of them."""
        rectangles = {}
        for other in others:
            rectangle = self._rectangle(other, picture)
            if rectangle is not None and stands_out(self.luminance(picture), rectangle):
                rectangles[other] = rectangle
        shown = set()
        for one, other in combinations(rectangles, 2):
            if overlap(rectangles[one], rectangles[other]) < MAX_OVERLAP:
                shown |= {one, other}
        return list(shown)

    def _rectangle(self, inner, outer) -> np.ndarray | None:
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
        self.matcher = Matcher(self.description, self.luminance)
        db.execute("DROP TABLE IF EXISTS seen")  # an earlier version's descriptions
        descriptions.create_table(db)
        db.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (version TEXT, a TEXT, b TEXT, "
            "mirrored INTEGER, kind TEXT, PRIMARY KEY (version, a, b, mirrored))"
        )

    def describe_new(self):
        """Describe the pictures that have no description yet."""
        new = self._not_in(self.hashes())
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(new), 64), desc="describe"):
                batch = new[start : start + 64]
                described = pool.map(self._describe, batch)
                descriptions.write(self.db, zip(batch, described, strict=True))

    def _not_in(self, hashes: dict[str, str | None]) -> list[str]:
        """The names of the pictures that `hashes` lacks, in order. Raises FileNotFoundError where
        the file of one of them is gone.
        """
        new = sorted(self.files.keys() - hashes.keys())
        for name in new:
            if not self.files[name].exists():
                raise FileNotFoundError(f"{self.files[name]} is gone: run `artclf clean` first")
        return new

    def hashes(self) -> dict[str, str | None]:
        """The `phash` of each picture that is described."""
        return descriptions.hashes(self.db)

    def _describe(self, name: str) -> Description:
        return describe_file(self.files[name])

    def _read_description(self, name: str) -> Description:
        return descriptions.read(self.db, name)

    def _read_luminance(self, name: str) -> np.ndarray:
        return read_luminance(self.files[name])

    def candidates(self, phashes: dict[str, str | None]) -> Collection[Pair]:
        """The pairs that are worth comparing of the pictures in `phashes`, which is in order."""
        names = list(phashes)
        found = by_hash(list(phashes.values()))
        found |= by_words(len(names), lambda i: self.description(names[i]).descriptors)
        return [(names[i], names[j], mirrored) for i, j, mirrored in sorted(found)]

    def pairs_found_before(self) -> set[Pair]:
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

    def kinds_of(self, pairs: Iterable[Pair], total: int = 0) -> dict[tuple[str, str], str]:
        """The kind of each pair (a, b, mirrored) that shows one picture, plain before mirrored.

        `pairs`, about `total`, are taken as they are compared; those that are stored may stand
        there twice.
        """
        found = {}
        with progress_bar(desc="compare", total=total or None) as bar:

            def new_pairs() -> Iterator[Pair]:
                for pair in pairs:
                    kind = self._stored_kind(pair)
                    if kind is None:
                        yield pair
                        continue
                    bar.update()
                    if kind:
                        found[pair] = kind

            for compared in self._compare_all(new_pairs()):
                rows = [(VERDICT_VERSION, *pair, kind) for pair, kind in compared]
                with self.db:  # a transaction
                    self.db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
                found.update((pair, kind) for pair, kind in compared if kind)
                bar.update(len(compared))
        kinds: dict[tuple[str, str], str] = {}
        for a, b, mirrored in sorted(found):
            kinds.setdefault((a, b), found[a, b, mirrored])
        return kinds

    def _stored_kind(self, pair: Pair) -> str | None:
        row = self.db.execute(
            "SELECT kind FROM verdicts WHERE (version, a, b, mirrored) = (?, ?, ?, ?)",
            (VERDICT_VERSION, *pair),
        ).fetchone()
        return row[0] if row else None

    def _compare_all(self, pairs: Iterable[Pair]) -> Iterator[list[tuple[Pair, str]]]:
        """The kinds of pairs that are compared in threads: lists of (pair, kind)."""
        with ThreadPoolExecutor() as pool:
            for batch in in_chunks(pairs, 256):
                # descriptions are read here, because SQLite's connection belongs to this thread
                of_both = [(self.description(a), self.description(b)) for a, b, _ in batch]
                yield list(zip(batch, pool.map(self._compare, batch, of_both), strict=True))

    def _compare(self, pair: Pair, of_both: tuple[Description, Description]) -> str:
        return self.matcher.kind_of_described(*pair, of_both)

    def shown_side_by_side(self, joining: dict[str, list[str]]) -> dict[str, list[str]]:
        """Those of the pictures that each one joins that it shows beside another of them."""
        return {
            picture: self.matcher.shown_side_by_side(picture, others)
            for picture, others in joining.items()
        }


class Place(NamedTuple):
    """Where a worker finds the picture `name`, and the shard with its description."""

    name: str
    file: Path
    shard: Path


@lru_cache(DESCRIPTIONS_IN_MEMORY // 8)
def _description_at(place: Place) -> Description:
    with descriptions.open_shard(place.shard) as db:
        return descriptions.read(db, place.name)


@lru_cache(LUMINANCES_IN_MEMORY)
def _luminance_at(place: Place) -> np.ndarray:
    return read_luminance(place.file)


ON_WORKER = Matcher(_description_at, _luminance_at)


def _kind_on_worker(pair: tuple[Place, Place, bool]) -> str:
    return ON_WORKER.kind(*pair)


def _shown_on_worker(joining: tuple[Place, list[Place]]) -> list[str]:
    return [place.name for place in ON_WORKER.shown_side_by_side(*joining)]


def _use_one_thread():
    """A worker has one core."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")


class _Pairs(Collection):
    """Pairs of pictures by the `numbers` of `shared_candidates.numbers_of`: 8 bytes a pair."""

    def __init__(self, names: list[str], numbers: np.ndarray):
        self.names = names
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, pair) -> bool:
        return any(pair == other for other in self)

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self.numbers), PAIRS_AT_A_TIME):
            some = self.numbers[start : start + PAIRS_AT_A_TIME]
            for i, j, mirrored in shared_candidates.pairs_of(some, len(self.names)).tolist():
                yield self.names[i], self.names[j], bool(mirrored)


class SharedStore(Store):
    """A store whose pictures the workers of `map_jobs` describe and compare; all of them see the
    folder `data`, and read descriptions from the shards in it.
    """

    def __init__(
        self, db: sqlite3.Connection, files: dict[str, Path], data: Path, map_jobs: MapJobs
    ):
        super().__init__(db, {name: file.absolute() for name, file in files.items()})
        self.data = Path(data).absolute()
        self.map_jobs = map_jobs
        self.hash_of: dict[str, str | None] = {}
        self.shard_of: dict[str, Path] = {}
        for shard in descriptions.shards(self.data):
            with descriptions.open_shard(shard) as shard_db:
                self._add_shard(shard, descriptions.hashes(shard_db))

    def _add_shard(self, shard: Path, hashes: dict[str, str | None]):
        self.hash_of.update(hashes)
        self.shard_of.update(dict.fromkeys(hashes, shard))

    def hashes(self) -> dict[str, str | None]:
        return self.hash_of

    def describe_new(self):
        self._write_shards_of_described()
        shards = [
            descriptions.Shard(self._new_shard(names), {name: self.files[name] for name in names})
            for names in in_chunks(self._not_in(self.hash_of), PICTURES_IN_SHARD)
        ]
        number = sum(len(shard.files) for shard in shards)
        with progress_bar(desc="describe", total=number) as bar:
            for chunk in self._map(descriptions.describe_shard, shards, 1):
                for shard, hashes in chunk:
                    if hashes is None:
                        raise StepError(
                            f"workers end when they describe {next(iter(shard.files.values()))} or "
                            f"one of the {len(shard.files) - 1} pictures after it: give them more memory, "
                            "or start fewer on a machine"
                        )
                    self._add_shard(shard.path, hashes)
                    bar.update(len(hashes))

    def _write_shards_of_described(self):
        """Write what a run without workers described to shards."""
        described = super().hashes().keys() & self.files.keys() - self.hash_of.keys()
        for names in in_chunks(sorted(described), PICTURES_IN_SHARD):
            of_each = {name: descriptions.read(self.db, name) for name in names}
            shard = self._new_shard(names)
            descriptions.write_shard(shard, of_each.items())
            self._add_shard(shard, {name: found.hash for name, found in of_each.items()})

    def _new_shard(self, names: list[str]) -> Path:
        # no other shard has that picture
        return self.data / descriptions.FOLDER / f"{names[0]}.db"

    def _map(self, function: Callable, jobs: Iterable, chunk_size: int) -> Iterator[list[tuple]]:
        return self.map_jobs(function, jobs, chunk_size=chunk_size, initializer=_use_one_thread)

    def candidates(self, phashes: dict[str, str | None]) -> Collection[Pair]:
        names = list(phashes)
        places = [self._place(name) for name in names]
        files = self.data / f"{FOR_WORKERS}{uuid4().hex}"
        try:
            found = shared_candidates.find(
                list(phashes.values()), places, _description_at, files, self._map
            )
        finally:
            shutil.rmtree(files, ignore_errors=True)  # workers may still have some open
        return _Pairs(names, found)

    def _read_description(self, name: str) -> Description:
        return _description_at(self._place(name))

    def _place(self, name: str) -> Place:
        return Place(name, self.files[name], self.shard_of[name])

    def _compare_all(self, pairs: Iterable[Pair]) -> Iterator[list[tuple[Pair, str]]]:
        jobs = ((self._place(a), self._place(b), mirrored) for a, b, mirrored in pairs)
        without_kind = []
        for chunk in self._map(_kind_on_worker, jobs, PAIRS_IN_CHUNK):
            compared = []
            for (a, b, mirrored), kind in chunk:
                if kind is None:
                    without_kind.append(f"{a.file} and {b.file}")
                else:
                    compared.append(((a.name, b.name, mirrored), kind))
            yield compared
        if without_kind:
            print(
                f"{len(without_kind)} pairs count as different until the next run, such as "
                f"{without_kind[0]}: workers end when they compare them",
                file=sys.stderr,
            )

    def shown_side_by_side(self, joining: dict[str, list[str]]) -> dict[str, list[str]]:
        jobs = (
            (self._place(picture), [self._place(other) for other in others])
            for picture, others in joining.items()
        )
        shown_by: dict[str, list[str]] = {}
        for chunk in self._map(_shown_on_worker, jobs, 1):
            for (place, _), shown in chunk:
                if shown is None:
                    print(
                        f"{place.file} counts as no collage until the next run: workers end when they "
                        "compare it",
                        file=sys.stderr,
                    )
                shown_by[place.name] = shown or []
        return shown_by
