"""Galleries: folders of the user's own pictures, with or without a manifest of facts.

The forms of such a folder are `LAYOUTS`. What was left out, and how the folder was read, is said in
`Reading.notes`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from artclf.base.errors import InputError
from artclf.data.classes import NO_CLASS, UNLABELLED, in_order
from artclf.data.filenames import facts_of_names
from artclf.data.formats import EXTENSIONS, IMAGE_SUFFIXES
from artclf.data.manifests import LABEL, NAMES, Manifest, match, read_manifest

# how the folders of a picture are read
LAYOUTS = {
    "class": "FOLDER/<class>/, folders below it are no classes",
    "part-class": "FOLDER/train/<class>/, FOLDER/valid/<class>/, FOLDER/test/<class>/",
    "class-part": "FOLDER/<class>/train/, FOLDER/<class>/valid/, FOLDER/<class>/test/",
    "nearest": "the class is the folder in which a picture lies, however deep",
    UNLABELLED: "no folder is a class: the pictures wait for a label",
}
PART_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
SHOWN = 2  # examples in a note

Folders = tuple[str, ...]  # the folders of a picture, from FOLDER down


@dataclass
class Reading:
    """What a folder holds.

    `pictures` are dicts with `file` (Path), `period`, and where they are known `split` and other
    facts. `notes` are sentences for the reader. `unreadable` are folders, relative to FOLDER, that
    could not be looked into.
    """

    pictures: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def read_gallery(
    folder,
    manifest=None,
    label_column: str | None = None,
    layout: str | None = None,
    file_names: bool = True,
) -> Reading:
    """The pictures of a folder, their classes, parts and facts.

    The class is the first folder below FOLDER, or the column `label_column` of the manifest. Where
    the folders below FOLDER are those of parts, such as `train` and `valid`, they become the fact
    `split`, and the class is the next folder. `layout` (of `LAYOUTS`) says that the folders are to
    be read otherwise. Facts come from a manifest (see `manifests`): the one that is named, else
    those in the folder, in the folders of parts, or in the folder above it. With `file_names`,
    names such as `vincent-van-gogh_the-night-cafe-1888.jpg` tell what the manifest does not, where
    most of the names are of this form. Hidden folders and files are left out.

    Raises FileNotFoundError for a missing folder or manifest, InputError for folders that can be
    read in two ways, a manifest that does not fit, and a gallery without pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"--layout is {layout!r}: take one of {', '.join(LAYOUTS)}")
    if layout == UNLABELLED and label_column:
        raise InputError(
            f"--label-column names labels, --layout {UNLABELLED} says that there are none"
        )
    found = _Files(folder)
    reading = Reading(unreadable=found.unreadable)
    manifests = _named(manifest) if manifest else find_manifests(folder)
    if label_column and not manifests:
        raise FileNotFoundError(f"--label-column needs a manifest.csv in {folder}")
    tables = [read_manifest(path, _has_picture_suffix) for path in manifests]
    if label_column is None and layout is None and tables:
        label_column = _column_of_labels(tables, reading.notes)
    facts_of = _facts_of(folder, found.pictures, tables, label_column, manifest, reading.notes)
    names = [file.relative_to(folder) for file in found.pictures]
    if file_names:
        _add_facts_of_names(found.pictures, names, facts_of, reading.notes)
    read_folders = _reader_of_folders(folder, names, layout, label_column, reading.notes)
    without_class = []
    for file, name in zip(found.pictures, names, strict=True):
        facts = facts_of.get(file, {})
        period, split = read_folders(name.parts[:-1])
        if label_column:
            period = facts.get("period")
        if not period:
            without_class.append(name.as_posix())
            continue
        facts = {"split": split, **facts} if split else facts
        reading.pictures.append({**facts, "file": file, "period": period})
    if without_class and not label_column:
        reading.notes.append(
            f"{folder}: {len(without_class)} pictures lie in no folder of a class and are left out, "
            f"such as {_examples(without_class)}"
        )
    reading.notes += found.notes(manifests)
    waiting = sum(picture["period"] == UNLABELLED for picture in reading.pictures)
    if waiting and layout != UNLABELLED:
        reading.notes.append(f"{folder}: {waiting} pictures are {UNLABELLED}: {NO_CLASS}")
    if not reading.pictures:
        raise InputError("; ".join([_no_pictures(folder, tables), *reading.notes]))
    return reading


def _no_pictures(folder: Path, tables: list[Manifest]) -> str:
    text = f"no pictures of a known class in {folder}: put them in {folder}/<class>/, or name the "
    text += "column of a manifest with --label-column; for pictures without labels, say "
    text += f"--layout {UNLABELLED}"
    for table in tables:
        text += f"; {table.path} has {', '.join(table.columns)}"
    return text


class _Files:
    """The files of a folder and of those below it, sorted: `pictures`, and what is left out.

    Links to folders are followed, but none twice.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.pictures: list[Path] = []
        self.unreadable: list[str] = []
        self.broken_links: list[str] = []
        self.without_suffix: list[str] = []
        self.others: list[str] = []
        self.seen = {folder.resolve()}
        for place, folders, names in os.walk(folder, onerror=self._note_error, followlinks=True):
            here = Path(place)
            folders[:] = [name for name in sorted(folders) if self._is_new(here / name)]
            for name in names:
                if not name.startswith("."):
                    self._take(here / name)
        self.pictures.sort()

    def notes(self, manifests: Iterable[Path]) -> list[str]:
        """What was left out, and what was taken without a suffix."""
        described = {path.resolve() for path in manifests}
        others = [name for name in self.others if (self.folder / name).resolve() not in described]
        suffixes = Counter(PurePosixPath(name).suffix.lower() for name in others)
        kinds = ", ".join(f"{suffix or 'none'} ({n})" for suffix, n in suffixes.most_common())
        sentences = (
            (self.unreadable, "folders can't be read and are left out"),
            (self.broken_links, "links lead nowhere and are left out"),
            (self.without_suffix, "pictures have no suffix and are taken"),
            (others, f"files are left out, since they are no pictures, by suffix {kinds}"),
        )
        notes = []
        for names, sentence in sentences:
            if names:
                notes.append(f"{self.folder}: {len(names)} {sentence}, such as {_examples(names)}")
        return notes

    def _is_new(self, folder: Path) -> bool:
        target = folder.resolve()
        if folder.name.startswith(".") or folder.name == "__MACOSX" or target in self.seen:
            return False
        self.seen.add(target)
        return True

    def _take(self, file: Path):
        if not file.exists():
            self.broken_links.append(self._name(file))
        elif _has_picture_suffix(file.name):
            self.pictures.append(file)
        elif not file.suffix and _is_picture(file):
            self.without_suffix.append(self._name(file))
            self.pictures.append(file)
        else:
            self.others.append(self._name(file))

    def _note_error(self, error: OSError):
        self.unreadable.append(self._name(Path(error.filename)))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _has_picture_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _is_picture(file: Path) -> bool:
    """Whether the header of a file is that of a picture."""
    try:
        with Image.open(file) as image:
            return image.format in EXTENSIONS
    except Exception:  # noqa: BLE001  (a plugin may raise anything on bytes made by a stranger)
        return False


def _named(manifest) -> list[Path]:
    path = Path(manifest)
    if not path.is_file():
        raise FileNotFoundError(f"no manifest {path}: name a CSV or JSON Lines file")
    return [path]


def find_manifests(folder: Path) -> list[Path]:
    """The manifest of a gallery folder: the one in it, else those in its folders of parts, else a
    `manifest.csv` above it; nothing where there is none.
    """
    for name in NAMES:
        if (folder / name).is_file():
            return [folder / name]
    in_parts = []
    for path in sorted(folder.glob("*/m*")):
        if path.name in NAMES and _part(path.parent.name):
            in_parts.append(path)
    above = folder.resolve().parent / NAMES[0]
    return in_parts or [path for path in [above] if path.is_file()]


def _column_of_labels(tables: list[Manifest], notes: list[str]) -> str | None:
    """The column `label` where the manifests hold paths and labels and nothing else."""
    if not all(table.tells_only_labels for table in tables):
        return None
    notes.append(
        f"{tables[0].path} holds paths and labels: the class is its column {LABEL!r} "
        "(--layout class takes the folders)"
    )
    return LABEL


def _facts_of(folder, files, tables, label_column, named, notes) -> dict[Path, dict]:
    """The facts of each picture from all `tables`."""
    facts: dict[Path, dict] = {}
    label_column = label_column and label_column.strip().lower()
    for table in tables:
        # a manifest above the folder may be that of other folders
        is_of_folder = bool(named or label_column) or table.path.is_relative_to(folder)
        matches = match(table, folder, files, label_column, must_match=is_of_folder)
        facts.update(matches.facts)
        notes += matches.notes
    return facts


def _add_facts_of_names(files, names, facts_of: dict[Path, dict], notes: list[str]):
    """Add what the names of the files tell, and the manifest does not."""
    number = 0
    example = None
    for file, name, told in zip(files, names, facts_of_names(names), strict=True):
        known = facts_of.get(file, {})
        if told.keys() - known.keys():
            number += 1
            example = example or (name, told)
            facts_of[file] = {**told, **known}
    if example:
        name, told = example
        notes.append(
            f"artist, title and year of {number} pictures are read from their names: {name} is "
            f"{' / '.join(told.values())} (--no-file-names leaves them unread)"
        )


def _part(name: str) -> str | None:
    """The part that a folder of this name holds; None where it is no name of a part."""
    return PART_NAMES.get(name.lower())


def _reader_of_folders(
    folder: Path, names: list[Path], layout: str | None, label_column: str | None, notes: list[str]
) -> Callable[[Folders], tuple[str | None, str | None]]:
    """A function that gives the class and the part of a picture, None where there is none, from its
    folders.
    """
    folders = [name.parts[:-1] for name in names]
    if layout is None:
        layout = _layout(folder, names, folders, bool(label_column))
    elif "part" in layout:
        _check_parts(folder, folders, layout)
    read = READERS[layout]
    found = [read(each) for each in folders]
    if "part" in layout:
        parts = Counter(part for _, part in found if part)
        counts = ", ".join(f"{part} {parts[part]}" for part in dict.fromkeys(PART_NAMES.values()))
        notes.append(
            f"{folder}: its folders are parts ({counts}): they become the column `split`, which "
            "`artclf train` takes (--layout class takes them for classes)"
        )
    deeper = sum(len(each) > (2 if "part" in layout else 1) for each in folders)
    if deeper and layout not in ("nearest", UNLABELLED) and not label_column:
        notes.append(
            f"{folder}: {deeper} pictures lie in folders below those of the classes, which are "
            f"{', '.join(in_order({period for period, _ in found if period})[:8])} "
            "(--layout nearest takes the folder in which a picture lies)"
        )
    return read


def _check_parts(folder: Path, folders: list[Folders], layout: str):
    level = layout.split("-").index("part")
    wrong = in_order(
        {each[level] for each in folders if len(each) > level and not _part(each[level])}
    )
    if wrong:
        raise InputError(
            f"{folder}: --layout {layout} finds a folder {wrong[0]}, which is no part: parts are "
            f"{', '.join(PART_NAMES)}"
        )


def _layout(folder: Path, names: list[Path], folders: list[Folders], has_labels: bool) -> str:
    """How the folders are to be read. Raises InputError where there are two ways."""
    tops = {each[0] for each in folders if each}
    part_tops = {top for top in tops if _part(top)}
    if has_labels:
        return "part-class" if tops and part_tops == tops else "class"
    has_classes_in_parts = any(len(each) > 1 and each[0] in part_tops for each in folders)
    if has_classes_in_parts and part_tops != tops:
        classes = {each[1] for each in folders if len(each) > 1 and each[0] in part_tops}
        raise InputError(
            f"{folder} can be read in two ways: parts {_listed(part_tops)} with the classes "
            f"{_listed(classes)} beside {_listed(tops - part_tops)}, or the classes "
            f"{_listed(tops)}. Say --layout class for the second, or import a folder that holds the "
            "parts alone"
        )
    if has_classes_in_parts:
        _check_depths(folder, names, folders, 1)
        return "part-class"
    seconds = {each[1] for each in folders if len(each) > 1}
    if seconds and all(map(_part, seconds)) and all(len(each) != 1 for each in folders):
        return "class-part"
    _check_depths(folder, names, folders, 0)
    return "class"


def _check_depths(folder: Path, names: list[Path], folders: list[Folders], level: int):
    """Raise InputError where some pictures lie in the folder of a class, and others in folders below
    it, or where a single folder holds all others; `level` is that of the class.
    """
    in_class = [name for name in names if len(name.parts) == level + 2]
    below = [name for name in names if len(name.parts) > level + 2]
    if not below:
        return
    first = Counter(each[level] for each in folders if len(each) > level)
    nearest = Counter(each[-1] for each in folders if len(each) > level)
    readings = (
        f"--layout class for the classes {_counted(first)}, or --layout nearest for "
        f"{_counted(nearest)}"
    )
    if level:
        readings = f"--layout part-class for the classes {_counted(first)}, or move pictures"
    if in_class:
        raise InputError(
            f"{folder} has pictures in the folders of classes and in folders below them, such as "
            f"{in_class[0].as_posix()} and {below[0].as_posix()}. Say {readings}"
        )
    if len(first) == 1 and not level:
        [only] = first
        raise InputError(
            f"{folder} holds the single folder {only}, and folders in it. Name {folder / only}, or "
            f"say {readings}"
        )


def _counted(classes: Counter) -> str:
    return ", ".join(f"{name} ({classes[name]})" for name in in_order(classes)[:8])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(in_order(names)[:8])


def _examples(names: Iterable[str]) -> str:
    return " and ".join(list(names)[:SHOWN])


def _class_alone(folders: Folders) -> tuple[str | None, str | None]:
    return (folders[0] if folders else None), None


def _part_and_class(folders: Folders) -> tuple[str | None, str | None]:
    part = _part(folders[0]) if folders else None
    return (folders[1] if len(folders) > 1 else None), part


def _class_and_part(folders: Folders) -> tuple[str | None, str | None]:
    part = _part(folders[1]) if len(folders) > 1 else None
    return (folders[0] if folders else None), part


def _nearest(folders: Folders) -> tuple[str | None, str | None]:
    return (folders[-1] if folders else None), None


def _unlabelled(folders: Folders) -> tuple[str | None, str | None]:
    return UNLABELLED, None


READERS = {
    "class": _class_alone,
    "part-class": _part_and_class,
    "class-part": _class_and_part,
    "nearest": _nearest,
    UNLABELLED: _unlabelled,
}
