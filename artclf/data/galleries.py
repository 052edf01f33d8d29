"""Galleries: folders of pictures of one's own, `FOLDER/<class>/*.jpg`, with or without a manifest
of facts.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from artclf.base.errors import InputError
from artclf.data.catalogue import FACTS
from artclf.data.lists import class_name

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def find_manifest(folder) -> Path | None:
    """The `manifest.csv` of a gallery folder: in it, or in the folder above it; None where there is
    none.
    """
    places = (Path(folder) / "manifest.csv", Path(folder).resolve().parent / "manifest.csv")
    return next((place for place in places if place.is_file()), None)


def read_gallery(folder, manifest=None, label_column: str | None = None) -> Iterator[dict]:
    """The pictures of one's own folder: dicts with `file` (Path), `period` and the facts of the
    manifest.

    The class is the folder a picture lies in, or the manifest's `label_column`. The manifest's
    column `file` is a path relative to it; a manifest that is found beside or above `folder` is
    used unasked. Hidden folders are passed over. Raises FileNotFoundError for a missing folder or
    manifest, ValueError for a missing column or a gallery without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    manifest = Path(manifest) if manifest else find_manifest(folder)
    known = _read_manifest(manifest, label_column) if manifest else {}
    if label_column and not manifest:
        raise FileNotFoundError(f"--label-column needs a manifest.csv in {folder}")
    found = 0
    for file in sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
    ):
        inside = file.relative_to(folder).parts
        facts = known.get(file.resolve(), {})
        period = facts.get("period") if label_column else (inside[-2] if len(inside) > 1 else None)
        if not period or any(part.startswith(".") for part in inside):
            continue
        found += 1
        yield {**facts, "file": file, "period": period}
    if not found:
        raise InputError(
            f"no pictures of a known class in {folder}: put them in {folder}/<class>/, or name the column "
            "of a manifest with --label-column"
        )


def _read_manifest(path: Path, label_column: str | None) -> dict[Path, dict]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="", skipinitialspace=True)
        try:
            columns, rows = reader.fieldnames or [], list(reader)
        except (UnicodeDecodeError, csv.Error) as e:
            raise InputError(f"{path} is not CSV in UTF-8: {e}") from e
    for column in filter(None, ("file", label_column)):
        if column not in columns:
            raise InputError(f"{path} has no column {column!r}")
    return {
        (path.parent / row["file"]).resolve(): {
            **{k: row[k] for k in FACTS if row.get(k)},
            **({"period": class_name(row[label_column])} if label_column else {}),
        }
        for row in rows
    }
