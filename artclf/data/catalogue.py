"""The catalogue: one SQLite table that records what is known of every image of a data set.

Reads and writes `DATA/catalogue.db`. Notebooks read it with `read_catalogue(DATA)`.
"""

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from artclf.base.errors import InputError
from artclf.base.files import can_not_be_written, make_folder
from artclf.data import conditions, packs

FACTS = {
    "title": "TEXT",
    "artist": "TEXT",
    "year": "TEXT",
    "licence": "TEXT",
    "source": "TEXT",
    "source_page": "TEXT",
    "split": "TEXT",  # a split of the user's own: train, valid or test
}
COLUMNS = {
    "url": "TEXT NOT NULL",
    "period": "TEXT NOT NULL",
    "file": "TEXT",
    "status": "TEXT NOT NULL DEFAULT 'pending'",
    "reason": "TEXT",
    "http_status": "INTEGER",
    "tries": "INTEGER NOT NULL DEFAULT 0",
    "bytes": "INTEGER",
    "sha256": "TEXT",
    "width": "INTEGER",
    "height": "INTEGER",
    "format": "TEXT",
    "phash": "TEXT",
    "dup_group": "TEXT",
    **FACTS,
    "clean_status": "TEXT",
    "clean_reason": "TEXT",
    "clean_sha256": "TEXT",
    "review": "TEXT",
    "doubt": "REAL",
    "likelier": "TEXT",
    "likelier_probability": "REAL",
    "outlier": "REAL",  # 0 to 1
}


class Catalogue:
    """The table `images` of `DATA/catalogue.db`, with key `(url, period)`; a context manager.

    Every call is one transaction: a process killed at any moment leaves a whole catalogue behind.
    One process writes at a time; others may read. A catalogue that is opened `to_read` alone may
    lie in a folder that can't be written; without that, such a folder raises PermissionError.
    Raises FileNotFoundError where there is nothing to read, InputError where the file is damaged,
    and for a pack.
    """

    def __init__(self, data, to_read: bool = False):
        packs.check_is_none(data)
        self.path = Path(data) / "catalogue.db"
        if to_read:
            require(data)
        try:
            self._connect(data, to_read)
        except sqlite3.DatabaseError as error:
            self.close()
            self._raise_if_damaged(error)
            raise

    def _connect(self, data, to_read: bool):
        try:
            make_folder(self.path.parent)
            self._open(sqlite3.connect(self.path, timeout=30, isolation_level=None))
        except (OSError, sqlite3.OperationalError) as error:
            if not can_not_be_written(error):
                raise
            if not to_read:
                raise PermissionError(
                    f"{self.path} can't be written ({error}): copy {data} to a folder of your own"
                ) from error
            self._open(_copy_in_memory(self.path))

    def _open(self, db: sqlite3.Connection):
        """Use `db`, after adding the tables and columns that it lacks."""
        self.db = db
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self.db.execute(f"CREATE TABLE IF NOT EXISTS images ({columns}, PRIMARY KEY (url, period))")
        existing = {row["name"] for row in self.db.execute("PRAGMA table_info(images)")}
        for name in COLUMNS.keys() - existing:  # a catalogue that an earlier version made
            self.db.execute(f"ALTER TABLE images ADD COLUMN {name} {COLUMNS[name]}")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS settings (step TEXT PRIMARY KEY, value TEXT NOT NULL)"
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()
        self._raise_if_damaged(error)

    def _raise_if_damaged(self, error: BaseException | None):
        """Raise InputError where `error` is SQLite's on a file that is no database, or half of one;
        pandas wraps it.
        """
        if sqlite3.DatabaseError not in (type(error), type(getattr(error, "__cause__", None))):
            return  # those of its subclasses have other reasons
        data = self.path.parent
        raise InputError(
            f"{self.path} is damaged ({error}): move it away, take the pictures in again by "
            f"`artclf download --lists FOLDER --data {data}` or `artclf import FOLDER --data "
            f"{data}`, then run `artclf clean --data {data}`; an exported review.csv brings your "
            "decisions back"
        ) from error

    def close(self):
        self.db.close()

    @contextmanager
    def transaction(self):
        """All the writes inside happen, or none."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def add(self, rows: Iterable[dict]) -> int:
        """Insert the `(url, period)` that are new and return their number; rows that exist
        only gain facts that they lacked.

        `rows` may be a generator of any length; facts are the columns in `FACTS`. A new `split`
        replaces the old one.
        """
        names = ["url", "period", *FACTS]
        changes = ["split = COALESCE(excluded.split, split)"]
        for name in FACTS:
            if name != "split":
                changes.append(f"{name} = COALESCE({name}, excluded.{name})")
        sql = f"""
            INSERT INTO images ({", ".join(names)})
            VALUES ({", ".join("?" * len(names))})
            ON CONFLICT (url, period) DO UPDATE SET {", ".join(changes)}
        """
        before = self.count()
        with self.transaction() as db:
            db.executemany(sql, ([row.get(name) or None for name in names] for row in rows))
        return self.count() - before

    def insert(self, row: dict):
        """Insert a new row with all its columns at once. Raises sqlite3.IntegrityError where its
        `(url, period)` is there.
        """
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO images ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                list(row.values()),
            )

    def update(self, rows: Iterable[dict]):
        """Set columns of existing rows, all in one transaction. Each row has `url`, `period` and
        what to set.
        """
        with self.transaction() as db:
            for row in rows:
                names = [name for name in row if name not in ("url", "period")]
                assignments = ", ".join(f"{name} = ?" for name in names)
                values = [row[name] for name in names]
                db.execute(
                    f"UPDATE images SET {assignments} WHERE url = ? AND period = ?",
                    (*values, row["url"], row["period"]),
                )

    def select(self, where: str = "1", args=()) -> list[dict]:
        """The rows for which `where` holds, in the order they were added."""
        rows = self.db.execute(f"SELECT * FROM images WHERE {where} ORDER BY rowid", args)
        return [dict(row) for row in rows]

    def periods(self) -> set[str]:
        """The classes that images are listed under, and those that they were moved to."""
        rows = self.db.execute("SELECT DISTINCT period, review FROM images").fetchall()
        return {row["period"] for row in rows} | {label(dict(row)) for row in rows}

    def kinds(self, table: str = "images") -> dict[str, str]:
        """The columns of a table with their kinds: TEXT, INTEGER or REAL."""
        return {row["name"]: row["type"] for row in self.db.execute(f"PRAGMA table_info({table})")}

    def setting(self, step: str) -> str | None:
        """The settings that a step last ran with; None where it never ran."""
        row = self.db.execute("SELECT value FROM settings WHERE step = ?", (step,)).fetchone()
        return row[0] if row else None

    def set_setting(self, step: str, value: str):
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (step, value))

    def count(self, where: str = "1", args=()) -> int:
        return self.db.execute(f"SELECT count(*) FROM images WHERE {where}", args).fetchone()[0]


def _copy_in_memory(file: Path) -> sqlite3.Connection:
    """The database in `file`, with what a writer that was killed has left beside it, in memory:
    SQLite itself reads no such database without writing beside it.
    """
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with TemporaryDirectory() as folder:
        for part in (file, file.with_name(f"{file.name}-wal")):
            if part.exists():
                shutil.copyfile(part, Path(folder) / part.name)
        with closing(sqlite3.connect(Path(folder) / file.name)) as copy:
            copy.backup(memory)
    return memory


def read_catalogue(
    data, columns: Iterable[str] | None = None, where: Iterable[tuple] | None = None
):
    """What is known of the images of a data set: a pandas DataFrame, one row per image, in the order
    they were added.

    `data` is a folder, or a pack (`artclf data pack`) in a folder or at an address such as
    `s3://bucket/name`. `columns` names those to read, all by default. `where` is a list of
    conditions (column, operator, value), which all hold for the rows that are read:
    `[("period", "in", ["05-baroque", "06-rococo"]), ("review", "!=", None)]`. Operators are ==, !=,
    <, <=, >, >=, in and not in; texts are compared by their letters' code points. As in SQL, an
    unknown value fulfils `("column", "==", None)` alone.

    Raises FileNotFoundError where there is no catalogue yet, InputError for columns and conditions
    that make no sense, and for a pack that isn't whole.
    """
    if packs.is_pack(data):
        return _frame_of_pack(packs.read(data, columns, where))
    import pandas as pd

    with Catalogue(data, to_read=True) as catalogue:
        kinds = catalogue.kinds()
        names = conditions.check_columns(columns, kinds) or list(kinds)
        held, values = conditions.as_sql(conditions.checked(where, kinds))
        listed = ", ".join(map(conditions.quoted, names))
        return pd.read_sql_query(
            f"SELECT {listed} FROM images WHERE {held} ORDER BY rowid",
            catalogue.db,
            params=values,
            # with missing values: unknown is not 0
            dtype={name: "Int64" for name in names if kinds[name] == "INTEGER"},
        )


def read_setting(data, step: str) -> str | None:
    """The settings that a step last ran with on a data set, a folder or a pack; None where it never
    ran. Raises as `read_catalogue` does.
    """
    if packs.is_pack(data):
        return packs.read_setting(data, step)
    with Catalogue(data, to_read=True) as catalogue:
        return catalogue.setting(step)


def _frame_of_pack(table):
    """The DataFrame of a pyarrow Table, with the types that the same rows of SQLite have."""
    import pyarrow as pa

    frame = table.to_pandas(types_mapper={pa.int64(): _whole_numbers()}.get)
    for name in frame:
        if frame[name].isna().all() and frame[name].dtype != "Int64":
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def _whole_numbers():
    """The type of pandas for whole numbers of which some are unknown."""
    import pandas as pd

    return pd.Int64Dtype()


def require(data) -> Path:
    """The folder `data`; FileNotFoundError, which says what to do, where it has no catalogue,
    InputError for a pack.
    """
    packs.check_is_none(data)
    file = Path(data) / "catalogue.db"
    if not file.exists() or file.stat().st_size == 0:
        raise FileNotFoundError(
            f"no catalogue in {data}: run `artclf download --lists FOLDER --data {data}` or "
            f"`artclf import FOLDER --data {data}` first"
        )
    return Path(data)


def label(row: dict) -> str:
    """The class that an image is used under: its period, or the one that a review moved it to
    (`move:<period>`).
    """
    review = row.get("review")
    if isinstance(review, str) and review.startswith("move:"):
        return review.removeprefix("move:")
    return row["period"]


def label_of_copy(row: dict, first: dict) -> str | None:
    """The class that an image is used under, None where a review dropped it, given that `first` is
    the copy of it that stays.

    A decision is about what a picture shows: that on `first` holds for undecided copies of its
    period, too.
    """
    follows = not row["review"] and row["period"] == first["period"]
    decided = first if follows else row
    return None if decided["review"] == "drop" else label(decided)


def clean_path(row: dict) -> str:
    """The path of an image's clean copy, relative to the data folder."""
    return f"clean/{label(row)}/{Path(row['file']).stem}.jpg"
