"""The same as `verdicts`, by workers: their descriptions are in the shards of `data.descriptions`."""

import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np

from artclf.base.errors import StepError
from artclf.base.processes import FOR_WORKERS, MapJobs, in_chunks, size_of_jobs
from artclf.base.progress import progress_bar
from artclf.data import descriptions, shared_candidates
from artclf.data.groups import fewer_pairs
from artclf.data.matcher import Matcher
from artclf.data.matching import (
    Description,
    read_luminance,
)
from artclf.data.numbered import (
    Pair,
    Pictures,
)
from artclf.data.verdicts import DESCRIPTIONS_IN_MEMORY, LUMINANCES_IN_MEMORY, Store

PICTURES_IN_SHARD = 128  # a worker describes them in a few seconds
SMALLEST_SHARD = 16
PAIRS_IN_CHUNK = 64


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
