"""The store: bytes by key and image in a SQLite file, which may be deleted at any time.

Stores lie in the data folder, or in the folder that the environment variable `ARTCLF_CACHE` names;
those of a pack, to which nothing is written, in the user's folder for caches.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from artclf.base.files import can_not_be_written, make_folder
from artclf.base.settings import from_environment
from artclf.data import packs

LIMIT = from_environment("ARTCLF_CACHE_GB", 10) * 1e9  # bytes that a store's file may take
MOST_PARAMETERS = 500  # every SQLite takes 999 in a query
TABLES = """
CREATE TABLE IF NOT EXISTS entries (key TEXT, image TEXT, value BLOB, PRIMARY KEY (key, image));
CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, last_used REAL);
PRAGMA user_version = 1;
"""  # the last line is written each time, so that it shows whether the file can be


def store_file(data, name: str) -> Path:
    """The file of a store of the data set in folder `data`, or of a pack.

    Stores hold pictures by the SHA-256 of their bytes, so all data sets may share a folder
    `ARTCLF_CACHE`, and all packs share one.
    """
    return Path(os.environ.get("ARTCLF_CACHE") or packs.working_folder(data)) / name


class Store:
    """Bytes by key and picture in a SQLite file that never grows beyond `LIMIT`.

    Safe in several threads and processes, and whole after a kill. When it is full, keys that this
    object has not used are removed, the one unused for longest first. Where the file can't be
    written, what is in it is read, and nothing is stored.
    """

    def __init__(self, file: Path):
        self.file = file
        self._used_keys: set[str] = set()
        self._said: set[str] = set()
        self._is_writable = True
        try:
            make_folder(file.parent)
            with self._open() as db:
                db.executescript(TABLES)
        except (OSError, sqlite3.OperationalError) as error:
            if not can_not_be_written(error):
                raise
            self._is_writable = False

    def read(self, key: str, images: Sequence[str]) -> dict[str, bytes]:
        """The bytes stored for `images` under `key`, by image; what isn't stored is left out."""
        return dict(self._select("image, value", key, images))

    def stored(self, key: str, images: Sequence[str]) -> set[str]:
        """Those of `images` for which there are bytes under `key`, which are not read."""
        return {image for (image,) in self._select("image", key, images)}

    def _select(self, columns: str, key: str, images: Sequence[str]) -> list[tuple]:
        found: list[tuple] = []
        if self._is_missing():
            return found
        with self._open() as db:
            for start in range(0, len(images), MOST_PARAMETERS):
                some = images[start : start + MOST_PARAMETERS]
                marks = ",".join("?" * len(some))
                query = f"SELECT {columns} FROM entries WHERE key = ? AND image IN ({marks})"
                found += db.execute(query, (key, *some))
            if found and key not in self._used_keys and self._is_writable:
                self._note_use(db, key)
        return found

    def write(self, key: str, values: dict[str, bytes]):
        """Store `values`; where there is no room for them, say so once and store nothing."""
        if not values:
            return
        if not self._is_writable:
            self._say_once(
                f"{self.file} can't be written: what is computed is computed again each time. "
                "To keep it, name another folder by --cache or ARTCLF_CACHE."
            )
            return
        number_of_bytes = sum(len(value) for value in values.values())
        with self._open() as db:
            if not self._make_room(db, key, number_of_bytes):
                self._say_once(
                    f"{self.file} is full ({LIMIT / 1e9:.0f} GB): the rest is computed again each "
                    "time. For more room, set ARTCLF_CACHE_GB."
                )
                return
            rows = [(key, image, value) for image, value in values.items()]
            db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            self._note_use(db, key)

    def keys(self) -> list[str]:
        """All keys that something is stored under."""
        if self._is_missing():
            return []
        with self._open() as db:
            return [key for (key,) in db.execute("SELECT key FROM keys")]

    def _make_room(self, db, key: str, number_of_bytes: int) -> bool:
        """Remove keys until there is room for so many bytes; whether there is."""
        too_many = self._size(db) + number_of_bytes - LIMIT
        if too_many <= 0:
            return True
        sizes = db.execute(
            "SELECT key, sum(length(value)) FROM entries JOIN keys USING (key) "
            "GROUP BY key ORDER BY last_used"
        )
        removed = []
        for other, size in sizes:
            if too_many > 0 and other != key and other not in self._used_keys:
                removed.append((other,))
                too_many -= size
        if too_many > 0:
            return False
        db.executemany("DELETE FROM entries WHERE key = ?", removed)
        db.executemany("DELETE FROM keys WHERE key = ?", removed)
        return True

    def _note_use(self, db, key: str):
        db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", (key, time.time()))
        self._used_keys.add(key)

    def _say_once(self, text: str):
        if text not in self._said:
            print(text)
        self._said.add(text)

    def _is_missing(self) -> bool:
        """Whether there is no file, and none can be made."""
        return not self._is_writable and not self.file.exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        mode = "rwc" if self._is_writable else "ro"
        address = f"{self.file.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, timeout=60, uri=True)) as db, db:
            # whole after a kill; after a power cut it may have to be deleted
            db.execute("PRAGMA synchronous = OFF")
            yield db

    @staticmethod
    def _size(db) -> int:
        """The bytes in use."""
        pages, free_pages, bytes_a_page = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free_pages) * bytes_a_page
