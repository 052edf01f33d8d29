"""Verdicts: which pictures are described and compared, each once, in this process.

Reads pictures; stores descriptions and the kinds of compared pairs in `DATA/duplicates.db`, which
may be deleted at any time.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from artclf.base.processes import in_chunks
from artclf.base.progress import progress_bar
from artclf.data import descriptions
from artclf.data.candidates import by_hash, by_words
from artclf.data.groups import groups_of_numbers
from artclf.data.matcher import Matcher
from artclf.data.matching import (
    VERDICT_VERSION,
    Description,
    describe_file,
    read_luminance,
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
