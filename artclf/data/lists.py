"""URL lists: the CSV files `urls_<class>.csv` of a folder, read row by row, and added to by a
search.
"""

import csv
import io
import os
import re
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import unquote_plus

from artclf.base.errors import InputError
from artclf.data.catalogue import FACTS
from artclf.data.classes import in_order

# the header of a list that a search begins
LIST_COLUMNS = ["url", "title", "artist", "year", "licence", "source_page", "query", "page"]
END_OF_FILE = "\0"  # follows the last line, so that a quote that isn't closed is noticed


def find_lists(folder) -> dict[str, Path]:
    """The URL lists of a folder: class name -> path, in the order of classes (`urls_10-impressionism.csv`:
    `10-impressionism`).

    Raises FileNotFoundError where the folder holds none.
    """
    lists = {}
    for path in sorted(Path(folder).glob("urls_*.csv")):
        name = class_name(path.stem.removeprefix("urls_"))
        if name and path.is_file():
            lists[name] = path
    if not lists:
        raise FileNotFoundError(
            f"no urls_*.csv in {folder}: name a folder of URL lists with --lists"
        )
    return {name: lists[name] for name in in_order(lists)}


def read_list(path) -> Iterator[dict]:
    """The rows of a URL list, each a dict with `url` and any of the columns in `FACTS`.

    With a header that has a column `url`, its columns are read by name; without one, the first
    column is the URL. Comments (`#`), blank lines, quotes, a byte order mark and any line ending
    are fine. Raises InputError for a file that isn't UTF-8 or has a quote that isn't closed.
    """
    columns = None
    for cells in _csv_rows(path):
        if columns is None:
            names = [cell.lower() for cell in cells]
            if "url" in names:
                columns = names
                continue
            columns = ["url"]
        row = {}
        for name, value in zip(columns, cells, strict=False):
            if value and (name == "url" or name in FACTS):
                row[name] = value
        if "url" in row:
            yield row


def _csv_rows(path) -> Iterator[list[str]]:
    """The cells of each row, without blank lines and comments."""
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            for line in file:
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                # the reader takes the lines after the first only inside quotes
                lines = chain([line], file, [END_OF_FILE])
                cells = next(csv.reader(lines, skipinitialspace=True))
                if END_OF_FILE in cells[-1]:
                    raise csv.Error("it ends inside an open quote")
                yield [cell.strip() for cell in cells]
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: save it as UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{path} is not CSV: {error}") from error


def class_name(label: str) -> str:
    """`label` as a folder name: without path separators, leading dots or control characters."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", label.strip()).lstrip(".")


def list_path(lists, period: str) -> Path:
    """The URL list of a period in the folder `lists`.

    Raises InputError for what can't be the name of a folder.
    """
    if not period or class_name(period) != period:
        raise InputError(
            f"{period!r} can't be a period: it names a folder, as 10-impressionism does"
        )
    return Path(lists) / f"urls_{period}.csv"


def url_key(url: str) -> str:
    """Equal for URLs that differ only in scheme, case of the host, fragment or percent-encoding."""
    without_fragment = url.partition("#")[0]
    without_scheme = without_fragment.split("://", 1)[-1]
    host, slash, rest = without_scheme.partition("/")
    return unquote_plus(host.lower() + slash + rest)


def new_rows(rows, known_keys: set[str]) -> list[dict]:
    """The rows whose URL is not among `known_keys` (of `url_key`), each once."""
    by_key: dict[str, dict] = {}
    for row in rows:
        by_key.setdefault(url_key(row["url"]), row)
    return [row for key, row in by_key.items() if key not in known_keys]


def append(path, rows: list[dict]) -> int:
    """Add those of `rows` to the URL list `path` whose URL it lacks; return their number.

    What the list holds stays byte for byte. A header's columns are filled by name; a list without a
    header gains bare URLs; a new one gets the header `LIST_COLUMNS`. Where there is no column
    `query`, a comment names query and page. The list is replaced in one step. Raises InputError for
    a list whose end is inside an open quote.
    """
    path = Path(path).resolve()  # a link stays a link
    listed = [row["url"] for row in read_list(path)] if path.exists() else []
    added = new_rows(rows, {url_key(url) for url in listed})
    if not added:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # two searches may run at a time
    try:
        part.write_bytes(_extended(path, added))
        if len(list(read_list(part))) != len(listed) + len(added):
            raise InputError(f"{path} ends inside an open quote: close it, then search again")
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(added)


def _extended(path: Path, rows: list[dict]) -> bytes:
    """The bytes of the list with `rows` at its end, in its own line endings and columns."""
    old = path.read_bytes() if path.exists() else b""
    columns = _columns(path) if old else []
    match = re.search(rb"\r\n?|\n", old)
    line_end = match[0].decode() if match else "\n"
    stream = io.StringIO(newline="")
    if old and not old.endswith((b"\n", b"\r")):
        stream.write(line_end)
    writer = csv.writer(stream, lineterminator=line_end)
    if not columns:
        columns = LIST_COLUMNS
        writer.writerow(columns)
    elif "query" not in columns:
        stream.write(f"# {rows[0]['query']}, page {rows[0]['page']}{line_end}")
    for row in rows:
        writer.writerow([row.get(name, "") for name in columns])
    return old + stream.getvalue().encode("utf-8", "replace")


def _columns(path: Path) -> list[str]:
    """The columns of a list: `["url"]` where it has no header, nothing where it has no row."""
    for cells in _csv_rows(path):
        names = [cell.lower() for cell in cells]
        return names if "url" in names else ["url"]
    return []
