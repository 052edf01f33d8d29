"""Manifests: tables of facts on the pictures of a folder, which name each by its path.

Reads `manifest.csv`, Hugging Face's `metadata.csv` and `metadata.jsonl`, and tables of paths and
labels without a header, such as WikiArt's. The column of paths is one of `FILE_COLUMNS`.
"""

import codecs
import csv
import io
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from artclf.base.errors import InputError
from artclf.data.catalogue import FACTS
from artclf.data.lists import class_name

FILE_COLUMNS = ("file", "file_name", "filename", "path", "image")
NAMES = ("manifest.csv", "metadata.csv", "metadata.jsonl")
LABEL = "label"
SHOWN = 2  # examples of what doesn't match


@dataclass
class Manifest:
    """A table: its `path`, the names of its `columns`, the one of paths, and its `rows`, dicts of
    texts.
    """

    path: Path
    columns: list[str]
    file_column: str
    rows: list[dict[str, str]]

    @property
    def tells_only_labels(self) -> bool:
        return set(self.columns) == {self.file_column, LABEL}


@dataclass
class Matches:
    """What manifests say of the pictures of a folder: the facts by picture, and `notes` for the
    reader.

    `period` is among the facts where a column of labels was named and the label isn't blank.
    """

    facts: dict[Path, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_manifest(path: Path, is_picture) -> Manifest:
    """The table in `path`: CSV with commas, semicolons or tabs, or a JSON object a line (`.jsonl`).

    `is_picture` says of a name whether it is that of a picture, to tell a table without a header.
    Raises FileNotFoundError, and InputError for what is no such table.
    """
    text = _text(path)
    is_json = path.suffix.lower() == ".jsonl"
    rows = _json_rows(path, text) if is_json else _csv_rows(path, text, is_picture)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in FILE_COLUMNS:
        if name in columns:
            return Manifest(path, columns, name, rows)
    found = f"it has {', '.join(columns[:8])}" if columns else "it has no rows"
    raise InputError(
        f"{path} has no column 'file' with the paths of the pictures (nor "
        f"{', '.join(FILE_COLUMNS[1:])}): {found}"
    )


def match(
    manifest: Manifest,
    folder: Path,
    files: list[Path],
    label_column: str | None,
    must_match: bool = True,
) -> Matches:
    """What `manifest` says of `files`, the pictures in `folder`.

    A path is relative to the manifest, else to the folder; its suffix may be missing, and so may
    its folders where a name is that of one picture alone. Raises InputError where the column of
    labels is missing, and with `must_match` where no row names a picture.
    """
    if label_column and label_column not in manifest.columns:
        raise InputError(
            f"{manifest.path} has no column {label_column!r}: it has {', '.join(manifest.columns)}"
        )
    if label_column:
        _check_labels(manifest, label_column)
    found = Matches()
    finder = _Finder(manifest.path, folder, files)
    unmatched = []
    blank = []
    for row in manifest.rows:
        name = row.get(manifest.file_column, "")
        picture = finder.find(name)
        if picture is None:
            if not finder.is_elsewhere(name):
                unmatched.append(name)
            continue
        facts = {fact: row[fact] for fact in FACTS if row.get(fact)}
        if label_column:
            facts["period"] = class_name(row.get(label_column, ""))
            if not facts["period"]:
                blank.append(name)
        found.facts[picture] = facts
    if must_match and not found.facts and unmatched:
        raise InputError(
            f"{manifest.path} has {len(manifest.rows)} rows, and none names a picture in {folder}: "
            f"it names {_examples(unmatched)}, the pictures are "
            f"{_examples(finder.names)}; correct its column {manifest.file_column!r}"
        )
    found.notes = _notes(manifest, folder, finder, unmatched, blank, label_column)
    return found


def _check_labels(manifest: Manifest, label_column: str):
    """Raise InputError for two labels that would be one class."""
    label_of: dict[str, str] = {}
    for row in manifest.rows:
        label = row.get(label_column, "").strip()
        period = class_name(label)
        first_label = label_of.setdefault(period, label)
        if period and first_label != label:
            raise InputError(
                f"{manifest.path}: the labels {first_label!r} and {label!r} would be one class, "
                f"{period}: rename one of them"
            )


def _notes(manifest, folder, finder, unmatched, blank, label_column) -> list[str]:
    matched = len(finder.matched)
    note = f"{manifest.path}: {matched} of {len(manifest.rows)} rows name a picture in {folder}"
    if unmatched:
        note += f"; {len(unmatched)} name none, such as {_examples(unmatched)}"
    notes = [note]
    if finder.by_less:
        notes.append(
            f"{manifest.path}: {len(finder.by_less)} of them name it without its suffix or folder, "
            f"such as {_examples(finder.by_less)}"
        )
    without_row = [name for name in finder.names if name not in finder.matched]
    if without_row:
        notes.append(
            f"{manifest.path}: {len(without_row)} pictures have no row, such as "
            f"{_examples(without_row)}" + ("; they are left out" if label_column else "")
        )
    if blank:
        notes.append(
            f"{manifest.path}: the column {label_column!r} is blank for {len(blank)} pictures, such "
            f"as {_examples(blank)}; they are left out"
        )
    return notes


class _Finder:
    """Finds the picture that a name of a manifest means."""

    def __init__(self, manifest: Path, folder: Path, files: list[Path]):
        self.bases = [str(manifest.resolve().parent), str(folder.resolve())]
        self.folder = str(folder.resolve())
        self.names = [file.relative_to(folder).as_posix() for file in files]
        self.matched: set[str] = set()  # names of pictures
        self.by_less: list[str] = []  # names in the manifest that lack a suffix or a folder
        self.exact: dict[str, int] = {}
        self.without_suffix: dict[str, list[int]] = {}
        self.without_folder: dict[str, list[int]] = {}
        self.files = files
        for place, name in enumerate(self.names):
            path = os.path.join(self.folder, name)  # noqa: PTH118  (thousands of rows: pathlib is slow)
            self.exact[path] = place
            self.without_suffix.setdefault(os.path.splitext(path)[0], []).append(place)  # noqa: PTH122
            base = os.path.basename(name)  # noqa: PTH119
            for short in {base, os.path.splitext(base)[0]}:  # noqa: PTH122
                self.without_folder.setdefault(short, []).append(place)

    def find(self, name: str) -> Path | None:
        """The picture, or None where no picture, or more than one, can be meant."""
        name = name.strip()
        if not name:
            return None
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            paths = [os.path.normpath(os.path.join(base, spelling)) for base in self.bases]  # noqa: PTH118
            for path in paths:
                if path in self.exact:
                    return self._take(self.exact[path])
            candidates = [self.without_suffix.get(path, []) for path in paths]
            candidates.append(self.without_folder.get(spelling, []))
            for places in candidates:
                if len(places) == 1:
                    self.by_less.append(name)
                    return self._take(places[0])
        return None

    def _take(self, place: int) -> Path:
        self.matched.add(self.names[place])
        return self.files[place]

    def is_elsewhere(self, name: str) -> bool:
        """Whether a name is that of a file in another folder, as in a manifest of several."""
        path = Path(os.path.normpath(os.path.join(self.bases[0], name.strip())))  # noqa: PTH118
        return not path.is_relative_to(self.folder) and path.is_file()


def _examples(names: Iterable[str]) -> str:
    names = list(names)[:SHOWN]
    return " and ".join(name if name.strip() else "nothing" for name in names)


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 as spreadsheets save it."""
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not CSV in UTF-8: {error}") from error


def _json_rows(path: Path, text: str) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}, line {number} is no JSON object with a column 'file_name'")
        simple = {k: v for k, v in content.items() if isinstance(v, str | int | float)}
        rows.append({name.strip().lower(): str(value) for name, value in simple.items()})
    return rows


def _csv_rows(path: Path, text: str, is_picture) -> list[dict[str, str]]:
    first_line = text.lstrip("\r\n").splitlines()[:1]
    delimiter = max(",;\t", key="".join(first_line).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [cells for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error
    if not lines:
        return []
    header = [cell.strip().lower() for cell in lines[0]]
    if not set(header) & set(FILE_COLUMNS) and len(header) == 2 and is_picture(header[0]):
        header = [FILE_COLUMNS[0], LABEL]
    else:
        lines = lines[1:]
    if not lines:
        return [dict.fromkeys(header, "")]
    return [{name: _cell(cells, place) for place, name in enumerate(header)} for cells in lines]


def _cell(cells: list[str], place: int) -> str:
    return cells[place].strip() if place < len(cells) else ""
