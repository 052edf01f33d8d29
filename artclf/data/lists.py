"""URL lists: the CSV files `urls_<class>.csv` of a folder, read row by row, and added to by a
search.
"""

import csv
import io
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import unquote_plus

from artclf.base.errors import InputError
from artclf.base.files import check_on_this_machine, make_folder
from artclf.data.catalogue import FACTS
from artclf.data.classes import in_order

# the header of a list that a search begins
LIST_COLUMNS = ["url", "title", "artist", "year", "licence", "source_page", "query", "page"]
SEPARATORS = (",", ";", "\t", "|")
END_OF_FILE = "\0"  # follows the last line, so that a quote that isn't closed is noticed
# byte order marks, and the encodings that begin with them; spreadsheets write the last two
ENCODINGS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
WITHOUT_SCHEME = re.compile(r"(?://)?[\w-]+(?:\.[\w-]+)+(?::\d+)?/", re.ASCII)
WITH_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://|(?:data|file|blob):", re.IGNORECASE)
QUOTED_CELL = re.compile(r'[,;]\s*".*"$')  # at the end of a line that begins with a URL
AMPERSAND = re.compile(r"&(?:amp|#38|#x26);", re.IGNORECASE)


@dataclass(frozen=True)
class ListForm:
    """How a URL list is written: its encoding, its columns, what separates their cells.

    The column with the URLs is called `url` here; `url_column` is its name in the file. Without a
    `separator`, every line is a URL, whole. `has_header` says whether a line names the columns; an
    empty list has no columns.
    """

    encoding: str
    columns: list[str]
    separator: str | None = None
    has_header: bool = False
    url_column: str = "url"


def find_lists(folder) -> dict[str, Path]:
    """The URL lists of a folder: class name -> path, in the order of classes (`urls_10-impressionism.csv`:
    `10-impressionism`).

    Raises FileNotFoundError where the folder holds none, InputError where two would be one class.
    """
    lists: dict[str, Path] = {}
    for path in sorted(Path(folder).glob("urls_*.csv")):
        name = class_name(path.stem.removeprefix("urls_"))
        if not name or not path.is_file():
            continue
        if name in lists:
            raise InputError(
                f"{lists[name]} and {path.name} would be one class, {name}: rename one of them, or "
                "put all of their lines in one"
            )
        lists[name] = path
    if not lists:
        raise FileNotFoundError(
            f"no urls_*.csv in {folder}: name a folder of URL lists with --lists"
        )
    return {name: lists[name] for name in in_order(lists)}


def check_lists(lists: dict[str, Path]):
    """Warn of each list that holds no URL. Raises InputError where all are empty, and what
    `read_list` raises on the beginning of a list.
    """
    empty = [path for path in lists.values() if next(read_list(path), None) is None]
    names = ", ".join(str(path) for path in empty)
    if len(empty) == len(lists):
        raise InputError(f"no URL in {names}: write one a line, or find some with `artclf search`")
    if empty:
        warnings.warn(f"no URL in {names}: these classes get no pictures", stacklevel=2)


def read_list(path) -> Iterator[dict]:
    """The rows of a URL list, each a dict with `url` and any of the columns in `FACTS`.

    A list without a header has a URL a line, whole, whatever is in it. With a header, columns are
    read by name; commas, semicolons, tabs or `|` separate them. A header without `url` is fine where a
    single column holds URLs (`source_page` apart): that one is taken, and a UserWarning says so.
    Comments (`#`), blank lines, quotes and any line ending are fine, and so is UTF-16 with a byte
    order mark. URLs are given as `readable_url` reads them. Raises InputError, which names what was
    found, for a file that is none of this.
    """
    form = _form(path)
    if form.url_column != "url":
        warnings.warn(
            f"{path} has no column url: the URLs are read from its column {form.url_column!r}",
            stacklevel=2,
        )
    yield from _rows(path, form)


def readable_url(text: str) -> str:
    """`text` as a URL: without `<` and `>` around it, with `&` for the `&amp;` of web pages, and
    with `http://` where a host comes first (`www.example.org/1.jpg`).
    """
    url = text.strip()
    if url.startswith("<") and url.endswith(">"):
        url = url[1:-1].strip()
    url = AMPERSAND.sub("&", url)
    if WITHOUT_SCHEME.match(url):
        url = "http://" + url.removeprefix("//")
    return url


def _is_url(text: str) -> bool:
    """Whether `text` begins as a URL does, of whatever scheme."""
    return WITH_SCHEME.match(readable_url(text)) is not None


def _form(path) -> ListForm:
    """How the list at `path` is written. Raises InputError where that can't be said."""
    encoding = _encoding(path)
    first_line = next(_records(path, encoding), None)
    if first_line is None:
        return ListForm(encoding, [])
    line, _, _ = first_line
    if _is_url(line.strip().removeprefix('"')):
        return ListForm(encoding, ["url"])
    return _form_of_table(path, encoding)


def _form_of_table(path, encoding: str) -> ListForm:
    """The form of a list whose first line begins with no URL."""
    headers = {}
    for separator in SEPARATORS:
        headers[separator] = next(_cells(path, encoding, separator))
    if any(_is_url(cell) for cells in headers.values() for cell in cells):
        raise InputError(
            f"{path} has several columns and no header: begin it with a line that names them, one "
            "of them url"
        )
    named_url = [key for key, cells in headers.items() if "url" in _lower(cells)]
    # the separator that splits the header into most cells; of equal ones the first
    separator = max(named_url or headers, key=lambda key: len(headers[key]))
    header = headers[separator]
    columns = _lower(header)
    number = columns.index("url") if named_url else _url_column(path, encoding, separator, header)
    if columns.count("url") > 1:
        raise InputError(f"{path} has several columns url: keep the one with the pictures")
    columns[number] = "url"
    only_column = len(columns) == 1
    return ListForm(
        encoding,
        columns,
        separator=None if only_column else separator,
        has_header=True,
        url_column="url" if named_url else header[number],
    )


def _url_column(path, encoding: str, separator: str, header: list[str]) -> int:
    """The place of the one column that holds URLs of pictures. Raises InputError where there are
    several, or none.
    """
    filled: Counter[int] = Counter()
    urls: Counter[int] = Counter()
    rows = _cells(path, encoding, separator)
    next(rows)
    for cells in rows:
        for number, cell in enumerate(cells[: len(header)]):
            filled[number] += bool(cell)
            urls[number] += _is_url(cell)
    found = []
    for number, name in enumerate(header):
        if 2 * urls[number] > filled[number] and name.lower() not in FACTS:
            found.append(number)
    if len(found) == 1:
        return found[0]
    problem = "no column url, and none that holds URLs"
    if found:
        names = ", ".join(header[number] for number in found)
        problem = f"no column url, and several that hold URLs ({names})"
    raise InputError(
        f"{path} has {problem}: its columns are {', '.join(header)}; name the one with the URLs of "
        "the pictures url"
    )


def _lower(cells: list[str]) -> list[str]:
    return [cell.lower() for cell in cells]


def _rows(path, form: ListForm) -> Iterator[dict]:
    """The rows of a list of that form: dicts with `url` and any of the columns in `FACTS`."""
    records = _whole_lines(path, form) if form.separator is None else _table_rows(path, form)
    for cells in records:
        row = {}
        for name, value in zip(form.columns, cells, strict=False):
            if value and (name == "url" or name in FACTS):
                row[name] = value
        if "url" in row:
            row["url"] = readable_url(row["url"])
            yield row


def _whole_lines(path, form: ListForm) -> Iterator[list[str]]:
    """The URL of each line: all of it, without quotes around it and separators after it."""
    records = _records(path, form.encoding)
    if form.has_header:
        next(records)
    for line, number, _ in records:
        text = line.strip().rstrip(",;").rstrip()
        cells = _parse(path, iter([text]), number, ",") if text.startswith('"') else [text]
        if len(cells) > 1 or "\t" in text or QUOTED_CELL.search(text):
            raise InputError(
                f"{path}, line {number}, has several columns, and no header names them: begin the "
                "file with a line such as url,title"
            )
        yield cells


def _table_rows(path, form: ListForm) -> Iterator[list[str]]:
    """The cells of each row after the header. Raises InputError for more cells than columns: a cell
    was cut where it holds the separator.
    """
    separator = str(form.separator)
    rows = _cells(path, form.encoding, separator)
    next(rows)
    for cells in rows:
        if any(cells[len(form.columns) :]):
            raise InputError(
                f"{path} has {len(form.columns)} columns, and a row of {len(cells)} cells, "
                f"{separator.join(cells)[:100]}: put cells that hold a {separator!r} in quotes"
            )
        yield cells


def _cells(path, encoding: str, separator: str) -> Iterator[list[str]]:
    """The cells of each row, the header's, too, without blank lines and comments."""
    for line, number, lines in _records(path, encoding):
        # the reader takes the lines after the first only inside quotes
        yield _parse(path, chain([line], lines), number, separator)


def _parse(path, lines: Iterator[str], number: int, separator: str) -> list[str]:
    """The cells of the row that begins with the first of `lines`, line `number` of the file."""
    reader = csv.reader(
        chain(lines, [END_OF_FILE]), delimiter=separator, skipinitialspace=separator != "\t"
    )
    try:
        cells = next(reader)
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: line {number}: {error}") from error
    if END_OF_FILE in cells[-1]:
        raise InputError(
            f"{path} is not CSV: it ends inside an open quote, which begins in line {number}"
        )
    return [cell.strip() for cell in cells]


def _records(path, encoding: str) -> Iterator[tuple[str, int, Iterator[str]]]:
    """Each line that is neither blank nor a comment, its number, and the lines after it."""
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        with Path(path).open(encoding=encoding, newline="") as file:
            for line in file:
                number += 1
                if "\0" in line:
                    raise InputError(
                        f"{path} holds a NUL byte in line {number}: it is damaged, or in another "
                        "encoding; save it as UTF-8"
                    )
                yield line.removeprefix("\ufeff") if number == 1 else line

    rest = lines()
    try:
        for line in rest:
            text = line.strip()
            if text and not text.startswith(("#", "sep=")):  # Excel's own line on separators
                yield line, number, rest
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: save it as UTF-8") from error


def _encoding(path) -> str:
    with Path(path).open("rb") as file:
        beginning = file.read(3)
    for mark, encoding in ENCODINGS.items():
        if beginning.startswith(mark):
            return encoding
    return "utf-8"


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
    a list that can't be read.
    """
    check_on_this_machine(path)
    path = Path(path).resolve()  # a link stays a link
    listed = [row["url"] for row in _rows(path, _form(path))] if path.exists() else []
    added = new_rows(rows, {url_key(url) for url in listed})
    if not added:
        return 0
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # two searches may run at a time
    try:
        part.write_bytes(_extended(path, added))
        if len(list(_rows(part, _form(part)))) != len(listed) + len(added):
            raise InputError(f"{path} can't be added to: what is added would not be read again")
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return len(added)


def _extended(path: Path, rows: list[dict]) -> bytes:
    """The bytes of the list with `rows` at its end, in its own encoding, line endings and
    columns.
    """
    old = path.read_bytes() if path.exists() else b""
    form = _form(path) if old else ListForm("utf-8", [])
    text = old.decode(form.encoding)
    match = re.search(r"\r\n?|\n", text)
    line_end = match[0] if match else "\n"
    stream = io.StringIO(newline="")
    if text and not text.endswith(("\n", "\r")):
        stream.write(line_end)
    writer = csv.writer(stream, delimiter=form.separator or ",", lineterminator=line_end)
    columns = form.columns
    if not columns:
        columns = LIST_COLUMNS
        writer.writerow(columns)
    elif "query" not in columns:
        stream.write(f"# {rows[0]['query']}, page {rows[0]['page']}{line_end}")
    for row in rows:
        writer.writerow([row.get(name, "") for name in columns])
    return old + stream.getvalue().encode(form.encoding, "replace")
