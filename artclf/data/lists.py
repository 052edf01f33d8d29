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


def find_lists(folder) -> dict[str, Path]:
    """The URL lists of a folder: class name -> path, in sorted order (`urls_10-impressionism.csv`:
    `10-impressionism`).

    Raises FileNotFoundError where the folder holds none.
    """
    found = {
        name: p
        for p in sorted(Path(folder).glob("urls_*.csv"))
        if p.is_file() and (name := class_name(p.stem.removeprefix("urls_")))
    }
    if not found:
        raise FileNotFoundError(
            f"no urls_*.csv in {folder}: name a folder of URL lists with --lists"
        )
    return found


def read_list(path) -> Iterator[dict]:
    """The rows of a URL list, each a dict with `url` and any of the columns in `FACTS`.

    With a header that has a column `url`, its columns are read by name; without one, the first
    column is the URL. Comments (`#`), blank lines, quotes, a byte order mark and any line ending
    are fine. Raises ValueError for a file that isn't UTF-8 or has a quote that isn't closed.
    """
    header = None
    for cells in _csv_rows(path):
        if header is None:
            names = [cell.lower() for cell in cells]
            header = names if "url" in names else ["url"]
            if "url" in names:
                continue
        row = {
            k: v for k, v in zip(header, cells, strict=False) if v and (k == "url" or k in FACTS)
        }
        if "url" in row:
            yield row


def _csv_rows(path) -> Iterator[list[str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            for line in file:
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                lines = chain(
                    [line], file, ["\0"]
                )  # the lines after the first are read inside quotes only
                cells = next(csv.reader(lines, skipinitialspace=True))
                if "\0" in cells[-1]:
                    raise csv.Error("it ends inside an open quote")
                yield [cell.strip() for cell in cells]
        except UnicodeDecodeError as e:
            raise InputError(f"{path} is not UTF-8: save it as UTF-8") from e
        except csv.Error as e:
            raise InputError(f"{path} is not CSV: {e}") from e


def class_name(label: str) -> str:
    """`label` as a folder name: without path separators, leading dots or control characters."""
    return re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "_", label.strip()).lstrip(".")


LIST_COLUMNS = ["url", "title", "artist", "year", "licence", "source_page", "query", "page"]


def unseen(rows, seen: set[str]) -> Iterator[dict]:
    """The rows whose URL is not among the keys `seen`, each once."""
    found = {}
    for row in rows:
        found.setdefault(url_key(row["url"]), row)
    return (row for key, row in found.items() if key not in seen)


def url_key(url: str) -> str:
    """Equal for URLs that differ in scheme, case of the host, fragment or percent-encoding only."""
    host, slash, rest = url.partition("#")[0].split("://", 1)[-1].partition("/")
    return unquote_plus(host.lower() + slash + rest)


def list_path(lists, period: str) -> Path:
    """The URL list of a period in the folder `lists`. Raises ValueError for what can't be the name
    of a folder.
    """
    if not period or class_name(period) != period:
        raise InputError(
            f"{period!r} can't be a period: it names a folder, as 10-impressionism does"
        )
    return Path(lists) / f"urls_{period}.csv"


def append(path, rows: list[dict]) -> int:
    """The number of `rows` added to the URL list `path`: those whose URL it lacks. What it holds
    stays byte for byte.

    A header's columns are filled by name; a list without a header gains bare URLs; a new one gets
    the header `LIST_COLUMNS`. Where there is no column `query`, a comment names query and page. The
    list is replaced in one step. Raises ValueError for a list whose end is inside an open quote.
    """
    path = Path(path).resolve()  # a link stays a link
    listed = [row["url"] for row in read_list(path)] if path.exists() else []
    new = list(unseen(rows, {url_key(url) for url in listed}))
    if not new:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(_extended(path, new))
        if sum(1 for _ in read_list(part)) != len(listed) + len(new):
            raise InputError(f"{path} ends inside an open quote: close it, then search again")
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(new)


def _extended(path: Path, rows: list[dict]) -> bytes:
    old = path.read_bytes() if path.exists() else b""
    header = _header(path) if old else []
    end = re.search(rb"\r\n?|\n", old)
    end = end[0].decode() if end else "\n"
    out = io.StringIO(newline="")
    if old and not old.endswith((b"\n", b"\r")):
        out.write(end)
    writer = csv.writer(out, lineterminator=end)
    if not header:
        writer.writerow(LIST_COLUMNS)
    elif "query" not in header:
        out.write(f"# {rows[0]['query']}, page {rows[0]['page']}{end}")
    writer.writerows([row.get(name, "") for name in header or LIST_COLUMNS] for row in rows)
    return old + out.getvalue().encode("utf-8", "replace")


def _header(path: Path) -> list[str]:
    """The columns of a list: `["url"]` where it has no header, nothing where it has no row."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = (line for line in file if line.strip() and not line.lstrip().startswith("#"))
        names = [
            cell.strip().lower() for cell in next(csv.reader(lines, skipinitialspace=True), [])
        ]
    return names if "url" in names or not names else ["url"]
