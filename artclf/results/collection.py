"""Collections: the pictures of a folder as the network of an export sees them, to be searched by style
and content. No network needs to have learned from them.

Reads pictures, or the clean ones of a data set with its catalogue; writes a folder in
`EXPORT/.collections/`, or in the folder `ARTCLF_CACHE`, which may be deleted at any time:
`pictures.db` (the files, with size, time and SHA-256), `content.f32` and `style.f32` (a description
of each picture, in the order in which they came), and the files of `index`.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from artclf.answers import inputs
from artclf.answers.inputs import Named
from artclf.base.errors import InputError
from artclf.base.files import read_json, sha256_of, write_json
from artclf.base.locks import locked
from artclf.base.progress import progress_bar
from artclf.data.pictures import MISSING, NO_MEMORY, UNREADABLE, Rejected
from artclf.data.splits import usable
from artclf.results import embeddings, retrieval
from artclf.results.facts import FACTS, facts_of, matching
from artclf.results.index import Index

PICTURES_AT_ONCE = 256  # that a run which is killed loses at most
BATCH = 16
MAY_PASS = (MISSING, NO_MEMORY, UNREADABLE)  # reasons for which a picture is tried again next time
SELECTIONS = 8  # by period, painter and years, that are kept in memory
FEW = 100_000  # pictures: among fewer, all are compared, whatever the index
TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    file BLOB PRIMARY KEY, bytes INTEGER, modified INTEGER, sha256 BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_sha256 ON pictures (sha256);
CREATE TABLE IF NOT EXISTS described (place INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS unreadable (sha256 BLOB PRIMARY KEY, reason TEXT) WITHOUT ROWID;
CREATE TEMP TABLE present (
    file BLOB PRIMARY KEY, bytes INTEGER, modified INTEGER
) WITHOUT ROWID;
"""


class Collection:
    """The pictures in `folder` and in those below it, described by `classifier`, which is that of the
    export folder `out`.

    Where `folder` is a data set, they are its clean pictures, with what its catalogue knows. Making
    the object describes what is new or changed, by size, time and bytes, and forgets what is gone; a
    run that was killed goes on where it was. What was described by another network is described
    anew. `count` is the number of pictures, `unreadable` says why the others can't be read, by
    file. Raises InputError where there is no picture, and what `embeddings.read_all` does;
    StepError while another process describes the same folder.
    """

    def __init__(self, folder, classifier, out):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder} is no folder: name one with pictures")
        self._classifier = classifier
        self.describe = retrieval.Describer(embeddings.read_all(out), out)
        self.kept = _kept_in(Path(out)) / _name(self.folder, Path(out), classifier)
        self._facts, self._periods = _known(self.folder)
        self.unreadable: dict[str, str] = {}
        with locked(self.kept):
            self._forget_other_network(out)
            with self._open() as db:
                self._update(db)
        with self._open() as db:
            self._described = db.execute("SELECT count(*) FROM described").fetchone()[0]
            [self.count] = db.execute(
                "SELECT count(*) FROM pictures WHERE sha256 IN (SELECT sha256 FROM described)"
            ).fetchone()
            self._alive = self._places(db)
        problem = ""
        if self.unreadable:
            file, reason = min(self.unreadable.items())
            problem = f"{len(self.unreadable)} can't be read, such as {file} ({reason})"
        if not self.count:
            raise InputError(f"no picture in {folder} can be searched{problem and f': {problem}'}")
        if problem:
            print(f"Of the pictures in {folder}, {problem}")
        self.descriptions = {kind: self._mapped(kind) for kind in self.describe.sizes}
        self._indices: dict[str, Index] = {}
        self._selected = lru_cache(SELECTIONS)(self._select)

    def nearest(
        self,
        features: np.ndarray,
        count: int,
        period: str = "",
        painter: str = "",
        years: str = "",
        by=retrieval.CONTENT,
        index: bool = False,
    ) -> list[dict]:
        """The `count` pictures most similar to one of these `features` (features,), as
        `Neighbours.nearest` gives them, with `file` relative to the folder.

        With `index`, those that an index finds: not all of them are compared where there are more
        than `FEW`. Raises as `Neighbours.nearest`, and InputError where the folder is no data set
        and a period, painter or years are asked for.
        """
        share = retrieval.style_share(by)
        self.describe.check(share)
        query = {kind: row for kind, [row] in self.describe(features[None]).items()}
        files, rows = self._selected(period, painter, years)
        if index and (self._described if rows is None else len(rows)) > FEW:
            rows = self._candidates(query, share, count, rows)
        places, similarities = retrieval.nearest(query, self.descriptions, share, count, rows)
        found: list[dict] = []
        with self._open() as db:
            for place, similarity in zip(places.tolist(), similarities.tolist(), strict=True):
                for file in self._files_at(db, place):
                    if files is None or file in files:
                        found.append(self._row(file, similarity))
        return found[:count]

    def has(self, period: str = "", painter: str = "", years: str = "") -> bool:
        """Whether there is a picture of this period, painter and these years."""
        _, rows = self._selected(period, painter, years)
        return rows is None or len(rows) > 0

    def _row(self, file: str, similarity: float) -> dict:
        facts = self._facts.get(file, dict.fromkeys(FACTS, ""))
        period = self._periods.get(file, "")
        return {"file": file, "period": period, "similarity": round(similarity, 4), **facts}

    def _select(
        self, period: str, painter: str, years: str
    ) -> tuple[set[str] | None, np.ndarray | None]:
        """The files that are asked for, and the places of their descriptions; None for all."""
        if not (period or painter or years):
            return None, self._alive
        if not self._periods:
            raise InputError(
                f"{self.folder} is no data set, so periods, painters and years of its pictures are "
                "not known: take it in by `artclf import` and `artclf clean`, and search that"
            )
        files = list(self._periods)
        facts = [self._facts.get(file, {}) for file in files]
        are_wanted = matching(
            list(self._periods.values()),
            [known.get("artist", "") for known in facts],
            [known.get("year", "") for known in facts],
            period,
            painter,
            years,
        )
        wanted = set(np.array(files, dtype=object)[are_wanted])
        return wanted, self._places_of(wanted)

    def _candidates(self, query, share: float, count: int, rows: np.ndarray | None) -> np.ndarray:
        wanted = None
        if rows is not None:
            wanted = np.zeros(self._described, dtype=bool)
            wanted[rows] = True
        found = []
        for kind in retrieval.weights(share):
            if kind not in self._indices:
                with locked(self.kept):
                    vectors = self.descriptions[kind]
                    self._indices[kind] = Index(self.kept, kind, vectors, self._digest)
            found.append(self._indices[kind].candidates(query[kind], wanted, count))
        return np.unique(np.concatenate(found))

    def _digest(self, count: int) -> str:
        """A hash of the pictures that the first `count` descriptions were made of, and of the
        network.
        """
        content = hashlib.sha256(read_json(self.kept / "settings.json")["network"].encode())
        with self._open() as db:
            query = "SELECT sha256 FROM described WHERE place < ? ORDER BY place"
            for (sha256,) in db.execute(query, (count,)):
                content.update(sha256)
        return content.hexdigest()

    # What is on disk

    def _forget_other_network(self, out):
        """Remove what another network has described."""
        config = json.dumps(self._classifier.config, sort_keys=True, default=str)
        made_by = f"{config} {sha256_of(Path(out) / embeddings.NAME)}"
        network = hashlib.sha256(made_by.encode()).hexdigest()
        noted = read_json(self.kept / "settings.json")
        if noted.get("network") == network:
            return
        if noted:
            print(f"{self.folder} was described by another network: describing it anew")
        for name in ("pictures.db", *(f"{kind}.f32" for kind in self.describe.sizes)):
            (self.kept / name).unlink(missing_ok=True)
        write_json(
            self.kept / "settings.json",
            {"network": network, "folder": str(self.folder.resolve())},
        )

    def _update(self, db: sqlite3.Connection):
        """Bring what is on disk up to what is in the folder."""
        db.executemany("INSERT OR REPLACE INTO present VALUES (?, ?, ?)", self._listed())
        db.execute("DELETE FROM pictures WHERE file NOT IN (SELECT file FROM present)")
        db.commit()
        changed = db.execute(
            "SELECT present.* FROM present LEFT JOIN pictures USING (file) WHERE pictures.file IS NULL "
            "OR pictures.bytes != present.bytes OR pictures.modified != present.modified"
        ).fetchall()
        with progress_bar(desc=f"pictures of {self.folder.name}", total=len(changed)) as bar:
            for start in range(0, len(changed), PICTURES_AT_ONCE):
                part = changed[start : start + PICTURES_AT_ONCE]
                self._take_in(db, part)
                bar.update(len(part))
        query = "SELECT file, reason FROM pictures JOIN unreadable USING (sha256)"
        for file, reason in db.execute(query).fetchall():
            self.unreadable[os.fsdecode(file)] = reason
        passing = " OR ".join(["reason LIKE ?"] * len(MAY_PASS))
        again = f"SELECT sha256 FROM unreadable WHERE {passing}"
        reasons = [f"{reason}%" for reason in MAY_PASS]
        db.execute(f"DELETE FROM pictures WHERE sha256 IN ({again})", reasons)
        db.execute(f"DELETE FROM unreadable WHERE {passing}", reasons)
        db.commit()

    def _listed(self) -> Iterator[tuple[bytes, int, int]]:
        """Name, size and time of each picture in the folder; those that can't be looked at are
        `unreadable`.
        """
        for name, place in self._paths():
            if isinstance(place, Rejected):
                self.unreadable[name] = str(place)
                continue
            try:
                status = place.stat()
            except OSError as error:
                self.unreadable[name] = f"can't be read ({error.strerror})"
                continue
            yield os.fsencode(name), status.st_size, status.st_mtime_ns

    def _paths(self) -> Iterator[tuple[str, Path | Rejected]]:
        """The name of each picture, relative to the folder, and its path."""
        if self._periods:
            for file in self._periods:
                yield file, self.folder / file
            return
        for place, picture in inputs.stream(self.folder):
            if isinstance(picture, Rejected):
                yield place, picture
            elif isinstance(picture, Path):
                yield picture.relative_to(self.folder).as_posix(), picture

    def _take_in(self, db: sqlite3.Connection, changed: Sequence[tuple[bytes, int, int]]):
        """Note files, and describe those whose bytes are new."""
        rows = []
        paths: dict[bytes, Path] = {}
        for file, size, modified in changed:
            path = self.folder / os.fsdecode(file)
            try:
                sha256 = bytes.fromhex(sha256_of(path))
            except OSError as error:
                self.unreadable[os.fsdecode(file)] = f"can't be read ({error.strerror})"
                continue
            rows.append((file, size, modified, sha256))
            if not _is_known(db, sha256):
                paths.setdefault(sha256, path)
        named = [Named(str(path), path) for path in paths.values()]
        if named:
            _, features, errors = self._classifier.probabilities_and_features(named, BATCH)
            reasons = dict(zip(paths, errors, strict=True))
            readable = [sha256 for sha256, error in reasons.items() if not error]
            self._append(db, readable, features[[not error for error in errors]])
            unreadable = {sha256: error for sha256, error in reasons.items() if error}
            db.executemany("INSERT INTO unreadable VALUES (?, ?)", unreadable.items())
        db.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?)", rows)
        db.commit()

    def _append(self, db: sqlite3.Connection, hashes: list[bytes], features: np.ndarray):
        """Write descriptions behind those that are noted; what a killed run left there goes."""
        [count] = db.execute("SELECT count(*) FROM described").fetchone()
        for kind, vectors in self.describe(features).items():
            with self._file(kind).open("ab") as stream:
                stream.truncate(count * vectors.shape[1] * vectors.itemsize)
                stream.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        db.executemany("INSERT INTO described VALUES (?, ?)", enumerate(hashes, count))

    def _mapped(self, kind: str) -> np.ndarray:
        """The descriptions of a kind, float32 (pictures, size), which the system reads as needed."""
        shape = (self._described, self.describe.sizes[kind])
        if not all(shape):
            return np.zeros(shape, np.float32)
        return np.memmap(self._file(kind), np.float32, "r", shape=shape)

    def _file(self, kind: str) -> Path:
        return self.kept / f"{kind}.f32"

    def _places(self, db: sqlite3.Connection) -> np.ndarray | None:
        """Where the descriptions of pictures that are still there are; None where all are."""
        query = (
            "SELECT place FROM described WHERE sha256 IN (SELECT sha256 FROM pictures) "
            "ORDER BY place"
        )
        places = np.array([place for (place,) in db.execute(query)], dtype=int)
        return None if len(places) == self._described else places

    def _places_of(self, files: Iterable[str]) -> np.ndarray:
        """Where the descriptions of `files` are, in ascending order."""
        wanted = set(map(os.fsencode, files))
        query = "SELECT file, place FROM pictures JOIN described USING (sha256)"
        with self._open() as db:
            places = {place for file, place in db.execute(query) if file in wanted}
        return np.array(sorted(places), dtype=int)

    def _files_at(self, db: sqlite3.Connection, place: int) -> list[str]:
        """The files of the description at `place`, all of the same bytes, by name."""
        query = (
            "SELECT file FROM pictures JOIN described USING (sha256) WHERE place = ? ORDER BY file"
        )
        return [os.fsdecode(file) for (file,) in db.execute(query, (place,))]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.kept / "pictures.db", timeout=60)) as db:
            db.execute("PRAGMA synchronous = OFF")  # whole after a kill
            db.executescript(TABLES)
            yield db


def _is_known(db: sqlite3.Connection, sha256: bytes) -> bool:
    """Whether a picture of these bytes is described, or known to be unreadable."""
    query = (
        "SELECT 1 FROM described WHERE sha256 = ?1 UNION SELECT 1 FROM unreadable WHERE sha256 = ?1"
    )
    return db.execute(query, (sha256,)).fetchone() is not None


def _known(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """What the catalogue in `folder` knows of each clean picture, and the period of each; both empty
    where there is no catalogue.
    """
    if not (folder / "catalogue.db").exists():
        return {}, {}
    rows = usable(folder)
    return facts_of(folder), dict(rows[["file", "period"]].itertuples(index=False, name=None))


def _kept_in(out: Path) -> Path:
    return Path(os.environ.get("ARTCLF_CACHE") or out) / ".collections"


def _name(folder: Path, out: Path, classifier) -> str:
    """The name under which a folder is kept: another one for each export, and for what computes."""
    described = f"{folder.resolve()} {out.resolve()} {type(classifier).__name__} {classifier.file}"
    return f"{folder.resolve().name}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
