"""Files that are written whole or not at all, and their hashes."""

import errno
import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from artclf.base.errors import InputError, SettingError

# in a folder whose files are replaced together: what is being written, and what counts already
UNFINISHED = ".new.part"
NEW = ".new"
# how an address begins, also one that went through a Path, which drops a slash
ADDRESS = re.compile(r"[a-z][a-z0-9+.:-]+:[/\\]+", re.IGNORECASE)


def check_on_this_machine(place):
    """Raise SettingError where `place`, a path or text, is an address such as `s3://bucket/name`."""
    address = ADDRESS.match(str(place))
    if address:
        kind, rest = address[0].rstrip("/\\"), str(place)[address.end() :].replace("\\", "/")
        raise SettingError(
            f"{kind}//{rest} is an address, and this must be a folder or file of this machine; "
            "`artclf data unpack ADDRESS FOLDER` makes a data set of a pack"
        )


def make_folder(folder: Path):
    """Make a folder, and those above it, where they aren't there. Raises SettingError for an address,
    of which `mkdir` would make a folder `s3:`.
    """
    check_on_this_machine(folder)
    folder.mkdir(parents=True, exist_ok=True)


def replace_whole(file: Path, write: Callable[[Path], object]):
    """Call `write` with the path of a file beside `file`, then put that in the place of `file`.

    A reader never sees half of it, and where `write` fails `file` stays as it was. Makes the folder
    if needed. Raises PermissionError where nothing can be written there.
    """
    part = file.with_name(f".{file.name}.part")
    with _writing_to(file.parent):
        make_folder(file.parent)
        part.touch()
    write(part)
    part.replace(file)


def replace_with_array(file: Path, array):
    """Write a NumPy array as a .npy file, as `replace_whole` does."""
    import numpy as np

    def write(part: Path):
        with part.open("wb") as stream:
            np.save(stream, array)

    replace_whole(file, write)


@contextmanager
def replace_together(folder: Path) -> Iterator[Path]:
    """A context manager that gives an empty folder to write files to; at its end all of them take
    their places in `folder`, or, where it fails, none.

    Killed at any moment, all are new or all are old to whoever calls `finish_replacing` before
    reading. Raises PermissionError where nothing can be written.
    """
    finish_replacing(folder)
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    with _writing_to(folder):
        make_folder(folder)
        unfinished.mkdir()
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    unfinished.rename(folder / NEW)  # from here on the new files count
    finish_replacing(folder)


def finish_replacing(folder: Path):
    """Move the files of a `replace_together` that was killed between its moves.

    Raises PermissionError where that is needed and `folder` can't be written.
    """
    new = folder / NEW
    if not new.is_dir():
        return
    with _writing_to(folder), suppress(FileNotFoundError):  # another process moves them, too
        for file in sorted(new.iterdir()):
            with suppress(FileNotFoundError):
                file.replace(folder / file.name)
        new.rmdir()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """An error that says that `folder` can't be written becomes a PermissionError in words."""
    try:
        yield
    except OSError as error:
        if not can_not_be_written(error):
            raise
        raise PermissionError(
            f"{folder} can't be written ({error.strerror}): name another folder"
        ) from error


def read_json(file: Path) -> dict:
    """The JSON object in `file`; an empty one where there is no such file.

    Raises InputError where the file holds no JSON object.
    """
    finish_replacing(file.parent)
    if not file.exists():
        return {}
    again = f"run `artclf train --out {file.parent}` again"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}): {again}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no settings: {again}")
    return content


def write_text(file: Path, text: str):
    """Write `text` to `file` in UTF-8, whole or not at all."""
    replace_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


def write_csv(file: Path, table, index: bool = False):
    """Write a DataFrame to `file` as CSV in UTF-8, whole or not at all; its index only if asked."""
    replace_whole(file, lambda part: table.to_csv(part, index=index, encoding="utf-8"))


def write_figure(file: Path, figure):
    """Write a figure of matplotlib to `file`, in the format of its extension, whole or not at all."""
    kind = file.suffix.removeprefix(".")
    replace_whole(file, lambda part: figure.savefig(part, format=kind, dpi=150))


def write_json(file: Path, content: dict):
    """Write `content` to `file` as JSON in UTF-8, whole or not at all."""
    write_text(file, json.dumps(content, indent=1))


def can_not_be_written(error: OSError | sqlite3.OperationalError) -> bool:
    """Whether an error says that a file or its folder may be read, but not written."""
    if isinstance(error, OSError):
        return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    kind = error.sqlite_errorcode & 0xFF
    return kind in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
