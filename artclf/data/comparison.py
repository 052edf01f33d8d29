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
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np

from artclf.base.errors import StepError
from artclf.base.processes import FOR_WORKERS, MapJobs, in_chunks, size_of_jobs
from artclf.base.progress import progress_bar
from artclf.data import descriptions, shared_candidates
from artclf.data.candidates import by_hash, by_words
from artclf.data.groups import fewer_pairs, groups_of_numbers
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
from artclf.data.numbered import (
    AT_A_TIME,
    KINDS,
    Hashes,
    Kinds,
    Pair,
    Pictures,
    each_pair,
    numbers_of,
)

DESCRIPTIONS_IN_MEMORY = 4000  # of about 50 kB
LUMINANCES_IN_MEMORY = 500  # of 100 kB
MAX_OVERLAP = 0.3  # of the smaller of two pictures that are shown side by side
PICTURES_IN_SHARD = 128  # a worker describes them in a few seconds
SMALLEST_SHARD = 16
PAIRS_IN_CHUNK = 64
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


def _collages(kinds: Kinds, store: "Store") -> dict[int, list[int]]:
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
    kinds: Kinds, collages: Collection[int], store: "Store"
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

    The files of `pictures` are in the folder `data`. The latest descriptions and luminances stay in
    memory.
    """

    def __init__(self, db: sqlite3.Connection, pictures: Pictures, data):
        self.db = db
        self.pictures = pictures
        self.data = Path(data).absolute()
        self.hashes = Hashes(len(pictures))
        self.description = lru_cache(DESCRIPTIONS_IN_MEMORY)(self._read_description)
        self.luminance = lru_cache(LUMINANCES_IN_MEMORY)(self._read_luminance)
        self.matcher = Matcher(self.description, self.luminance)
        db.execute("DROP TABLE IF EXISTS seen")  # an earlier version's descriptions
        descriptions.create_table(db)
        db.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (version TEXT, a TEXT, b TEXT, "
            "mirrored INTEGER, kind TEXT, PRIMARY KEY (version, a, b, mirrored))"
        )
        for rows in in_chunks(descriptions.hashes(db), AT_A_TIME):
            self.hashes.put(pictures.find([name for name, _ in rows]), [code for _, code in rows])

    def file(self, picture: int) -> Path:
        return self.data / self.pictures.file(picture)

    def describe_new(self):
        """Describe the pictures that have no description yet."""
        new = self._new()
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(new), 64), desc="describe"):
                batch = new[start : start + 64]
                described = list(pool.map(describe_file, map(self.file, batch)))
                names = map(self.pictures.name, batch)
                descriptions.write(self.db, zip(names, described, strict=True))
                self.hashes.put(batch, [description.hash for description in described])

    def _new(self) -> np.ndarray:
        """The pictures that are not described. Raises FileNotFoundError where the file of one of
        them is gone.
        """
        new = np.flatnonzero(~self.hashes.is_described)
        for picture in new.tolist():
            if not self.file(picture).exists():
                raise FileNotFoundError(f"{self.file(picture)} is gone: run `artclf clean` first")
        return new

    def _read_description(self, picture: int) -> Description:
        return descriptions.read(self.db, self.pictures.name(picture))

    def _read_luminance(self, picture: int) -> np.ndarray:
        return read_luminance(self.file(picture))

    def candidates(self) -> np.ndarray:
        """The pairs that are worth comparing, as `numbers_of` writes them."""
        number = len(self.pictures)
        found = by_hash([self.hashes.text(picture) for picture in range(number)])
        found |= by_words(number, lambda picture: self.description(picture).descriptors)
        return numbers_of(np.array(sorted(found), int).reshape(-1, 3), number)

    def pairs_found_before(self) -> np.ndarray:
        """The pairs that showed one picture in earlier runs: new pictures may have taken their
        places among the candidates.
        """
        rows = self.db.execute(
            "SELECT a, b, mirrored FROM verdicts WHERE version = ? AND kind != ''",
            (VERDICT_VERSION,),
        )
        found = [np.empty(0, int)]
        for chunk in in_chunks(rows, AT_A_TIME):
            first, second, mirrored = zip(*chunk, strict=True)
            pairs = np.stack([self.pictures.find(first), self.pictures.find(second), mirrored], 1)
            is_here = (pairs >= 0).all(axis=1)
            found.append(numbers_of(pairs[is_here], len(self.pictures)))
        return np.concatenate(found)

    def kinds_of(self, *pairs: np.ndarray) -> Kinds:
        """The kind of each pair that shows one picture, plain before mirrored. `numbers_of` wrote
        `pairs`; only those that are stored may stand there twice.
        """
        number = len(self.pictures)
        found = array("q")  # pairs and kinds as `Kinds.of` takes them: 32 bytes a pair
        with progress_bar(desc="compare", total=sum(map(len, pairs))) as bar:

            def note(pair: Pair, kind: str):
                if kind:
                    found.extend([*pair, KINDS.index(kind)])

            def new_pairs() -> Iterator[Pair]:
                for pair in chain.from_iterable(each_pair(some, number) for some in pairs):
                    kind = self._stored_kind(pair)
                    if kind is None:
                        yield pair
                    else:
                        note(pair, kind)
                        bar.update()

            for compared in self._compare_all(new_pairs()):
                rows = [(*self._verdict_key(pair), kind) for pair, kind in compared]
                with self.db:  # a transaction
                    self.db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
                for pair, kind in compared:
                    note(pair, kind)
                bar.update(len(compared))
        return Kinds.of(np.array(found).reshape(-1, 4), number)

    def _stored_kind(self, pair: Pair) -> str | None:
        row = self.db.execute(
            "SELECT kind FROM verdicts WHERE (version, a, b, mirrored) = (?, ?, ?, ?)",
            self._verdict_key(pair),
        ).fetchone()
        return row[0] if row else None

    def _verdict_key(self, pair: Pair) -> tuple:
        first, second, mirrored = pair
        return VERDICT_VERSION, self.pictures.name(first), self.pictures.name(second), mirrored

    def _compare_all(self, pairs: Iterable[Pair]) -> Iterator[list[tuple[Pair, str]]]:
        """The kinds of pairs that are compared in threads: lists of (pair, kind)."""
        with ThreadPoolExecutor() as pool:
            for batch in in_chunks(pairs, 256):
                # descriptions are read here, because SQLite's connection belongs to this thread
                of_both = [(self.description(a), self.description(b)) for a, b, _ in batch]
                yield list(zip(batch, pool.map(self._compare, batch, of_both), strict=True))

    def _compare(self, pair: Pair, of_both: tuple[Description, Description]) -> str:
        return self.matcher.kind_of_described(*pair, of_both)

    def shown_side_by_side(self, joining: Iterable[tuple[int, list[int]]]) -> dict[int, list[int]]:
        """Those of the pictures that each one joins that it shows beside another of them."""
        return {
            picture: self.matcher.shown_side_by_side(picture, others) for picture, others in joining
        }

    def groups(self, pairs: np.ndarray) -> np.ndarray:
        """The least of the pictures that `pairs`, (n, 2), join to each: (pictures,)."""
        return groups_of_numbers(pairs, len(self.pictures))


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


def _kind_on_worker(job: tuple[Pair, Place, Place]) -> str:
    (_, _, mirrored), a, b = job
    return ON_WORKER.kind(a, b, mirrored)


def _shown_on_worker(job: tuple[int, Place, dict[Place, int]]) -> list[int]:
    _, place, number_of = job
    return [number_of[other] for other in ON_WORKER.shown_side_by_side(place, list(number_of))]


def _use_one_thread():
    """A worker has one core."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1, "blas")


class SharedStore(Store):
    """A store whose pictures the workers of `map_jobs` describe and compare; all of them see the
    folder `data`, and read descriptions from the shards in it.
    """

    def __init__(self, db: sqlite3.Connection, pictures: Pictures, data, map_jobs: MapJobs):
        super().__init__(db, pictures, data)
        self.map_jobs = map_jobs
        self.shards: list[Path] = []
        self.shard_of = np.full(len(pictures), -1, np.int32)  # places in `shards`
        for shard in descriptions.shards(self.data):
            with descriptions.open_shard(shard) as shard_db:
                self._add_shard(shard, dict(descriptions.hashes(shard_db)))

    def _add_shard(self, shard: Path, hashes: dict[str, str | None]):
        numbers = self.pictures.find(list(hashes))
        self.hashes.put(numbers, hashes.values())
        self.shard_of[numbers[numbers >= 0]] = len(self.shards)
        self.shards.append(shard)

    def describe_new(self):
        self._write_shards_of_described()
        new = self._new()
        with progress_bar(desc="describe", total=len(new)) as bar:
            for chunk in self._map(descriptions.describe_shard, self._new_shards(new), 1):
                for shard, hashes in chunk:
                    if hashes is None:
                        raise StepError(
                            f"workers end when they describe {next(iter(shard.files.values()))} or "
                            f"one of the {len(shard.files) - 1} pictures after it: give them more memory, "
                            "or start fewer on a machine"
                        )
                    self._add_shard(shard.path, hashes)
                    bar.update(len(hashes))

    def _new_shards(self, pictures: np.ndarray) -> Iterator[descriptions.Shard]:
        size = size_of_jobs(len(pictures), SMALLEST_SHARD, PICTURES_IN_SHARD)
        for chunk in in_chunks(pictures, size):
            files = {self.pictures.name(picture): self.file(picture) for picture in chunk}
            yield descriptions.Shard(self._new_shard(list(files)), files)

    def _write_shards_of_described(self):
        """Write what a run without workers described to shards."""
        described = np.flatnonzero(self.hashes.is_described & (self.shard_of < 0))
        for chunk in in_chunks(described, PICTURES_IN_SHARD):
            names = [self.pictures.name(picture) for picture in chunk]
            of_each = {name: descriptions.read(self.db, name) for name in names}
            shard = self._new_shard(names)
            descriptions.write_shard(shard, of_each.items())
            self._add_shard(shard, {name: found.hash for name, found in of_each.items()})

    def _new_shard(self, names: list[str]) -> Path:
        # no other shard has that picture
        return self.data / descriptions.FOLDER / f"{names[0]}.db"

    def _map(self, function: Callable, jobs: Iterable, chunk_size: int) -> Iterator[list[tuple]]:
        return self.map_jobs(function, jobs, chunk_size=chunk_size, initializer=_use_one_thread)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A context manager that gives the path of a folder for files that workers share."""
        folder = self.data / f"{FOR_WORKERS}{uuid4().hex}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # workers may still have some open

    def candidates(self) -> np.ndarray:
        with self._folder() as folder:
            return shared_candidates.find(
                self.hashes, self._place, _description_at, folder, self._map
            )

    def groups(self, pairs: np.ndarray) -> np.ndarray:
        with self._folder() as folder:
            return super().groups(fewer_pairs(pairs, folder, self._map))

    def _read_description(self, picture: int) -> Description:
        return _description_at(self._place(picture))

    def _place(self, picture: int) -> Place:
        shard = self.shards[self.shard_of[picture]]
        return Place(self.pictures.name(picture), self.file(picture), shard)

    def _compare_all(self, pairs: Iterable[Pair]) -> Iterator[list[tuple[Pair, str]]]:
        jobs = ((pair, self._place(pair[0]), self._place(pair[1])) for pair in pairs)
        without_kind = []
        for chunk in self._map(_kind_on_worker, jobs, PAIRS_IN_CHUNK):
            compared = []
            for (pair, a, b), kind in chunk:
                if kind is None:
                    without_kind.append(f"{a.file} and {b.file}")
                else:
                    compared.append((pair, kind))
            yield compared
        if without_kind:
            print(
                f"{len(without_kind)} pairs count as different until the next run, such as "
                f"{without_kind[0]}: workers end when they compare them",
                file=sys.stderr,
            )

    def shown_side_by_side(self, joining: Iterable[tuple[int, list[int]]]) -> dict[int, list[int]]:
        jobs = (
            (picture, self._place(picture), {self._place(other): other for other in others})
            for picture, others in joining
        )
        shown_by: dict[int, list[int]] = {}
        for chunk in self._map(_shown_on_worker, jobs, 1):
            for (picture, place, _), shown in chunk:
                if shown is None:
                    print(
                        f"{place.file} counts as no collage until the next run: workers end when they "
                        "compare it",
                        file=sys.stderr,
                    )
                shown_by[picture] = shown or []
        return shown_by
