"""Galleries: folders of the user's own pictures, `FOLDER/<class>/*.jpg`, with or without a manifest
of facts.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from artclf.base.errors import InputError
from artclf.data.catalogue import FACTS
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.data.lists import class_name


def find_manifest(folder) -> Path | None:
    """The `manifest.csv` of a gallery folder: in it, or in the folder above it; None where there is
    none.
    """
    folder = Path(folder)
    for place in (folder, folder.resolve().parent):
        manifest = place / "manifest.csv"
        if manifest.is_file():
            return manifest
    return None


def read_gallery(folder, manifest=None, label_column: str | None = None) -> Iterator[dict]:
    """The pictures of a folder: dicts with `file` (Path), `period` and the facts of the manifest.

    The class is the folder in which a picture lies, or the manifest's `label_column`. The
    manifest's column `file` is a path relative to it; where no manifest is named, one beside or
    above `folder` is used. Hidden folders are left out. Raises FileNotFoundError for a missing
    folder or manifest, InputError for a missing column or a gallery without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    manifest = Path(manifest) if manifest else find_manifest(folder)
    if label_column and not manifest:
        raise FileNotFoundError(f"--label-column needs a manifest.csv in {folder}")
    facts_of = _read_manifest(manifest, label_column) if manifest else {}
    is_empty = True
    for file in _picture_files(folder):
        facts = facts_of.get(file.resolve(), {})
        period = facts.get("period") if label_column else _folder_of(file, folder)
        if period:
            is_empty = False
            yield {**facts, "file": file, "period": period}
    if is_empty:
        raise InputError(
            f"no pictures of a known class in {folder}: put them in {folder}/<class>/, or name the "
            "column of a manifest with --label-column"
        )


def _picture_files(folder: Path) -> list[Path]:
    """The picture files in `folder` and below, sorted; hidden folders and files are left out."""
    files = []
    for file in folder.rglob("*"):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and not is_hidden:
            files.append(file)
    return sorted(files)


def _folder_of(file: Path, folder: Path) -> str | None:
    """The name of the folder in which `file` lies; None for `folder` itself."""
    return None if file.parent == folder else file.parent.name


def _read_manifest(path: Path, label_column: str | None) -> dict[Path, dict]:
    """The facts of each picture, by its resolved path; `period` is from `label_column`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="", skipinitialspace=True)
        try:
            columns = reader.fieldnames or []
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} is not CSV in UTF-8: {error}") from error
    for column in ("file", label_column):
        if column and column not in columns:
            raise InputError(f"{path} has no column {column!r}")
    facts_of = {}
    label_of: dict[str, str] = {}  # class -> its label in the manifest
    for row in rows:
        facts = {name: row[name] for name in FACTS if row.get(name)}
        if label_column:
            label = row[label_column].strip()
            facts["period"] = class_name(label)
            first_label = label_of.setdefault(facts["period"], label)
            if facts["period"] and first_label != label:
                raise InputError(
                    f"{path}: the labels {first_label!r} and {label!r} would be one class, "
                    f"{facts['period']}: rename one of them"
                )
        facts_of[(path.parent / row["file"]).resolve()] = facts
    return facts_of
