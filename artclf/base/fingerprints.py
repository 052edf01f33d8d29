"""Fingerprints: whether anything has changed that a result depends on."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

IGNORED = (".lock", ".db-shm", ".pyc")  # endings of files that say nothing of what is in a folder


def fingerprint(settings: dict, folders: Iterable[Path], without: Path) -> str:
    """The SHA-256 of `settings`, of the versions of all that is installed, and of the names, sizes
    and times of all files in `folders` but those in the folder `without`.

    A folder may be missing. `settings` is what JSON can hold.
    """
    versions = sorted(f"{package.name} {package.version}" for package in distributions())
    files = [_files(folder, without) for folder in folders]
    content = json.dumps([settings, versions, files], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _files(folder: Path, without: Path) -> list[tuple[str, int, int]]:
    found = []
    for file in sorted(folder.rglob("*")):
        if without in file.parents or file.name.endswith(IGNORED) or not file.is_file():
            continue
        status = file.stat()
        if status.st_size or not file.name.endswith("-wal"):  # SQLite may leave an empty log
            found.append((file.as_posix(), status.st_size, status.st_mtime_ns))
    return found
