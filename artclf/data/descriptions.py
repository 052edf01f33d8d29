"""Descriptions of pictures in SQLite files: in `DATA/duplicates.db`, or in shards.

A shard is a file in `DATA/descriptions/` that a worker writes whole, and that is only read from
then on. All of them may be deleted at any time.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artclf.base.files import replace_whole
from artclf.data.matching import DESCRIPTION_VERSION, Description, describe_file

FOLDER = "descriptions"  # in DATA


class Shard(NamedTuple):
    """A shard to write, and the files of its pictures by name."""

    path: Path
    files: dict[str, Path]


def create_table(db: sqlite3.Connection):
    db.execute(
        "CREATE TABLE IF NOT EXISTS descriptions (version TEXT, image TEXT, hash TEXT, "
        "points BLOB, descriptors BLOB, PRIMARY KEY (version, image))"
    )


def write(db: sqlite3.Connection, descriptions: Iterable[tuple[str, Description]]):
    """Write the descriptions of pictures, (name, description), in one transaction."""
    with db:
        db.executemany(
            "INSERT OR REPLACE INTO descriptions VALUES (?, ?, ?, ?, ?)",
            (
                (
                    DESCRIPTION_VERSION,
                    name,
                    description.hash,
                    description.points.tobytes(),
                    description.descriptors.tobytes(),
                )
                for name, description in descriptions
            ),
        )


def read(db: sqlite3.Connection, name: str) -> Description:
    """The description of the picture `name`, which the file has."""
    [(phash, points, descriptors)] = db.execute(
        "SELECT hash, points, descriptors FROM descriptions WHERE version = ? AND image = ?",
        (DESCRIPTION_VERSION, name),
    )
    return Description(
        phash,
        np.frombuffer(points, np.float32).reshape(-1, 2),
        np.frombuffer(descriptors, np.uint8).reshape(-1, 128),
    )


def hashes(db: sqlite3.Connection) -> Iterator[tuple[str, str | None]]:
    """The name and `phash` of each picture that the file describes."""
    return db.execute(
        "SELECT image, hash FROM descriptions WHERE version = ?", (DESCRIPTION_VERSION,)
    )


def describe_shard(shard: Shard) -> dict[str, str | None]:
    """Describe the pictures of a shard and write it; the `phash` of each picture."""
    described = {name: describe_file(file) for name, file in shard.files.items()}
    write_shard(shard.path, described.items())
    return {name: description.hash for name, description in described.items()}


def write_shard(path: Path, descriptions: Iterable[tuple[str, Description]]):
    """Write a shard, whole or not at all, and without SQLite's locks, which some shared folders
    lack.
    """
    with closing(sqlite3.connect(":memory:")) as db:
        create_table(db)
        write(db, descriptions)
        content = db.serialize()
    replace_whole(path, lambda part: part.write_bytes(content))


@contextmanager
def open_shard(path: Path) -> Iterator[sqlite3.Connection]:
    """A shard, open to read, without locks, too."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as db:
        yield db


def shards(data) -> list[Path]:
    """The shards in `data`."""
    return sorted((Path(data) / FOLDER).glob("*.db"))
