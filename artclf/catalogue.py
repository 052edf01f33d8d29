"""The catalogue: one SQLite table that records what is known of every image of a data set.

Reads URL lists (`urls_*.csv`) and folders of pictures; writes `DATA/catalogue.db`. Notebooks look at it with
`read_catalogue(DATA)`.
"""
import csv
import io
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

FACTS = {"title": "TEXT", "artist": "TEXT", "year": "TEXT", "licence": "TEXT", "source": "TEXT", "source_page": "TEXT",
         "split": "TEXT"}  # a split of the user's own: train, valid or test
COLUMNS = {
    "url": "TEXT NOT NULL", "period": "TEXT NOT NULL", "file": "TEXT",
    "status": "TEXT NOT NULL DEFAULT 'pending'", "reason": "TEXT", "http_status": "INTEGER",
    "tries": "INTEGER NOT NULL DEFAULT 0", "bytes": "INTEGER", "sha256": "TEXT",
    "width": "INTEGER", "height": "INTEGER", "format": "TEXT", "phash": "TEXT", "dup_group": "TEXT",
    **FACTS,
    "clean_status": "TEXT", "clean_reason": "TEXT", "clean_sha256": "TEXT",
    "split_random": "TEXT", "split_grouped": "TEXT", "split_artist": "TEXT", "review": "TEXT",
    "doubt": "REAL", "likelier": "TEXT", "likelier_probability": "REAL", "outlier": "REAL",  # 0 to 1
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class Catalogue:
    """The table `images` of `DATA/catalogue.db`, with key `(url, period)`; a context manager.

    Every call is one transaction: a process killed at any moment leaves a whole catalogue behind. One process writes
    at a time; others may read.
    """

    def __init__(self, data):
        self.path = Path(data) / "catalogue.db"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        self.db.execute(f"CREATE TABLE IF NOT EXISTS images ({columns}, PRIMARY KEY (url, period))")
        known = {row["name"] for row in self.db.execute("PRAGMA table_info(images)")}
        for name in COLUMNS.keys() - known:  # a catalogue that an earlier version made
            self.db.execute(f"ALTER TABLE images ADD COLUMN {name} {COLUMNS[name]}")
        self.db.execute("CREATE TABLE IF NOT EXISTS settings (step TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def __enter__(self): return self
    def __exit__(self, *exc): self.close()
    def close(self): self.db.close()

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
        """Insert the `(url, period)` that are new and return their number; known rows only gain facts they lacked.

        `rows` may be a generator of any length; facts are the columns in `FACTS`. A new `split` replaces the old one.
        """
        before = self.count()
        facts = ", ".join(f"{name} = COALESCE({name}, excluded.{name})" for name in FACTS if name != "split")
        names = ["url", "period", *FACTS]
        sql = (f"INSERT INTO images ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "
               f"ON CONFLICT (url, period) DO UPDATE SET {facts}, split = COALESCE(excluded.split, split)")
        with self.transaction() as db:
            db.executemany(sql, ([row.get(name) or None for name in names] for row in rows))
        return self.count() - before

    def update(self, rows: Iterable[dict]):
        """Set columns of existing rows, all in one transaction. Each row has `url`, `period` and what to set."""
        with self.transaction() as db:
            for row in rows:
                values = {k: v for k, v in row.items() if k not in ("url", "period")}
                db.execute(f"UPDATE images SET {', '.join(f'{k} = ?' for k in values)} WHERE url = ? AND period = ?",
                           (*values.values(), row["url"], row["period"]))

    def select(self, where: str = "1", args=()) -> list[dict]:
        """The rows for which `where` holds, in the order they were added."""
        return [dict(row) for row in self.db.execute(f"SELECT * FROM images WHERE {where} ORDER BY rowid", args)]

    def setting(self, step: str) -> str | None:
        """The settings that a step last ran with."""
        row = self.db.execute("SELECT value FROM settings WHERE step = ?", (step,)).fetchone()
        return row and row[0]

    def set_setting(self, step: str, value: str):
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (step, value))

    def count(self, where: str = "1", args=()) -> int:
        return self.db.execute(f"SELECT count(*) FROM images WHERE {where}", args).fetchone()[0]


def read_catalogue(data):
    """Everything known of every image of the data set in folder `data`: a pandas DataFrame, a row an image.

    Raises FileNotFoundError where there is no catalogue yet.
    """
    import pandas as pd
    require(data)
    with Catalogue(data) as cat:
        whole = dict.fromkeys(("http_status", "tries", "bytes", "width", "height"), "Int64")  # unknown is not 0
        return pd.read_sql_query("SELECT * FROM images ORDER BY rowid", cat.db, dtype=whole)


def require(data) -> Path:
    """The folder `data`; FileNotFoundError, which says what to do, where it has no catalogue."""
    if not (Path(data) / "catalogue.db").exists():
        raise FileNotFoundError(f"no catalogue in {data}: run `artclf download --data {data}` or "
                                f"`artclf import FOLDER --data {data}` first")
    return Path(data)


def find_lists(folder) -> dict[str, Path]:
    """The URL lists of a folder: class name -> path, in sorted order (`urls_10-impressionism.csv`: `10-impressionism`).

    Raises FileNotFoundError where the folder holds none.
    """
    found = {name: p for p in sorted(Path(folder).glob("urls_*.csv"))
             if p.is_file() and (name := class_name(p.stem.removeprefix("urls_")))}
    if not found: raise FileNotFoundError(f"no urls_*.csv in {folder}: name a folder of URL lists with --lists")
    return found


def read_list(path) -> Iterator[dict]:
    """The rows of a URL list, each a dict with `url` and any of the columns in `FACTS`.

    With a header that has a column `url`, its columns are read by name; without one, the first column is the URL.
    Comments (`#`), blank lines, quotes, a byte order mark and any line ending are fine. Raises ValueError for a file
    that isn't UTF-8 or has a quote that isn't closed.
    """
    header = None
    for cells in _csv_rows(path):
        if header is None:
            names = [cell.lower() for cell in cells]
            header = names if "url" in names else ["url"]
            if "url" in names: continue
        row = {k: v for k, v in zip(header, cells, strict=False) if v and (k == "url" or k in FACTS)}
        if "url" in row: yield row


def _csv_rows(path) -> Iterator[list[str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            for line in file:
                if not line.strip() or line.lstrip().startswith("#"): continue
                lines = chain([line], file, ["\0"])  # the lines after the first are read inside quotes only
                cells = next(csv.reader(lines, skipinitialspace=True))
                if "\0" in cells[-1]: raise csv.Error("it ends inside an open quote")
                yield [cell.strip() for cell in cells]
        except UnicodeDecodeError as e:
            raise ValueError(f"{path} is not UTF-8: save it as UTF-8") from e
        except csv.Error as e:
            raise ValueError(f"{path} is not CSV: {e}") from e


def find_manifest(folder) -> Path | None:
    """The `manifest.csv` of a gallery folder: in it, or in the folder above it; None where there is none."""
    places = (Path(folder) / "manifest.csv", Path(folder).resolve().parent / "manifest.csv")
    return next((place for place in places if place.is_file()), None)


def read_gallery(folder, manifest=None, label_column: str | None = None) -> Iterator[dict]:
    """The pictures of one's own folder: dicts with `file` (Path), `period` and the facts of the manifest.

    The class is the folder a picture lies in, or the manifest's `label_column`. The manifest's column `file` is a path
    relative to it; a manifest that is found beside or above `folder` is used unasked. Hidden folders are passed over.
    Raises FileNotFoundError for a missing folder or manifest, ValueError for a missing column or a gallery without
    pictures.
    """
    folder = Path(folder)
    if not folder.is_dir(): raise FileNotFoundError(f"{folder} is not a folder")
    manifest = Path(manifest) if manifest else find_manifest(folder)
    known = _read_manifest(manifest, label_column) if manifest else {}
    if label_column and not manifest: raise FileNotFoundError(f"--label-column needs a manifest.csv in {folder}")
    found = 0
    for file in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        inside = file.relative_to(folder).parts
        facts = known.get(file.resolve(), {})
        period = facts.get("period") if label_column else (inside[-2] if len(inside) > 1 else None)
        if not period or any(part.startswith(".") for part in inside): continue
        found += 1
        yield {**facts, "file": file, "period": period}
    if not found:
        raise ValueError(f"no pictures of a known class in {folder}: put them in {folder}/<class>/, or name the column "
                         "of a manifest with --label-column")


def _read_manifest(path: Path, label_column: str | None) -> dict[Path, dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="", skipinitialspace=True)
        try:
            columns, rows = reader.fieldnames or [], list(reader)
        except (UnicodeDecodeError, csv.Error) as e:
            raise ValueError(f"{path} is not CSV in UTF-8: {e}") from e
    for column in filter(None, ("file", label_column)):
        if column not in columns: raise ValueError(f"{path} has no column {column!r}")
    return {(path.parent / row["file"]).resolve():
            {**{k: row[k] for k in FACTS if row.get(k)},
             **({"period": class_name(row[label_column])} if label_column else {})} for row in rows}


def label(row: dict) -> str:
    """The class that an image is used under: its period, or the one that a review moved it to (`move:<period>`)."""
    review = row.get("review")
    return review.removeprefix("move:") if isinstance(review, str) and review.startswith("move:") else row["period"]


def clean_path(row: dict) -> str:
    """The path of an image's clean copy, relative to the data folder."""
    return f"clean/{label(row)}/{Path(row['file']).stem}.jpg"


def class_name(label: str) -> str:
    """`label` as a folder name: without path separators, leading dots or control characters."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", label.strip()).lstrip(".")


def progress(items=None, total: int | None = None, desc: str = ""):
    """A tqdm bar over `items` on standard error; in a notebook one line that is updated in place, elsewhere silent."""
    from tqdm import tqdm
    try:
        in_notebook = get_ipython().__class__.__name__ == "ZMQInteractiveShell"
    except NameError:
        in_notebook = False
    if not in_notebook: return tqdm(items, total=total, desc=desc, file=sys.stderr, disable=None)
    from IPython.display import display

    class NotebookBar(tqdm):
        """tqdm, drawn as plain text into one output of the cell."""
        handle = None

        def display(self, msg=None, pos=None):
            line = {"text/plain": msg if msg is not None else str(self)}
            if self.handle: self.handle.update(line, raw=True)
            elif line["text/plain"]: self.handle = display(line, raw=True, display_id=True)

    return NotebookBar(items, total=total, desc=desc, file=io.StringIO(), ncols=80, mininterval=0.5)
