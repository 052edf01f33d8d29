"""The store: bytes by key and image in a SQLite file, which may be deleted at any time."""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager
from pathlib import Path

LIMIT = (
    float(os.environ.get("ARTCLF_CACHE_GB", 10)) * 1e9
)  # bytes that each of the two files may take


class Store:
    """Bytes by key and picture in a SQLite file that never grows beyond `LIMIT`.

    Safe in several threads and processes, whole after a kill. When full, keys go that this object
    has not used, the longest unused first.
    """

    def __init__(self, file: Path):
        self.file, self._told, self._used = file, False, set()
        with self._open() as db:
            db.executescript(
                "CREATE TABLE IF NOT EXISTS kept (key TEXT, image TEXT, value BLOB, PRIMARY KEY (key, "
                "image)); CREATE TABLE IF NOT EXISTS used (key TEXT PRIMARY KEY, at REAL);"
            )

    def read(self, key: str, images: Sequence[str]) -> dict[str, bytes]:
        """What is kept of `images` under `key`."""
        found = {}
        with self._open() as db:
            for start in range(0, len(images), 500):  # SQLite takes 999 parameters at least
                some = list(images[start : start + 500])
                marks = ",".join("?" * len(some))
                found |= db.execute(
                    f"SELECT image, value FROM kept WHERE key = ? AND image IN ({marks})",
                    (key, *some),
                )
            if found and key not in self._used:
                self._use(db, key)
        return found

    def write(self, key: str, values: dict[str, bytes]):
        """Keep `values`, unless there is no room even without all that may go, which is said
        once.
        """
        if not values:
            return
        with self._open() as db:
            if self._make_room(db, key, sum(map(len, values.values()))):
                db.executemany(
                    "INSERT OR REPLACE INTO kept VALUES (?, ?, ?)",
                    ((key, *v) for v in values.items()),
                )
                self._use(db, key)
            else:
                self._tell()

    def _make_room(self, db, key: str, wanted: int) -> bool:
        over, going = self._size(db) + wanted - LIMIT, []
        sizes = (
            db.execute(
                "SELECT key, sum(length(value)) FROM kept JOIN used USING (key) WHERE key NOT LIKE "
                "'settings %' GROUP BY key ORDER BY at"
            )
            if over > 0
            else ()
        )
        for other, size in sizes:
            if over > 0 and other not in self._used | {key}:
                going.append((other,))
                over -= size
        if over > 0:
            return False
        for table in ("kept", "used"):
            db.executemany(f"DELETE FROM {table} WHERE key = ?", going)
        return True

    def _use(self, db, key: str):
        db.execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (key, time.time()))
        self._used.add(key)

    def _tell(self):
        if not self._told:
            print(
                f"{self.file} is full ({LIMIT / 1e9:.0f} GB): the rest is computed anew each time. For more room, "
                "set ARTCLF_CACHE_GB."
            )
        self._told = True

    @contextmanager
    def _open(self):
        with closing(sqlite3.connect(self.file, timeout=60)) as db, db:
            db.execute(
                "PRAGMA synchronous = OFF"
            )  # whole after a kill; after a power cut it may have to be deleted
            yield db

    @staticmethod
    def _size(db) -> int:
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size
