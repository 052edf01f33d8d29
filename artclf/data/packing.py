"""Packing: a data set becomes a pack, in a folder or at an address.

Reads `DATA/catalogue.db` and the pictures; writes what module `packs` describes. The files follow
from DATA and the settings alone, byte for byte, so a run that was killed goes on: a shard that is
there with the rows that it should have is not written again.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.base.progress import progress_bar
from artclf.data import aliases, imports, packs, patience, review, splits
from artclf.data.catalogue import COLUMNS, Catalogue, clean_path, require
from artclf.data.conditions import quoted
from artclf.data.packs import CLEAN, INDEX, MEGABYTES_OF_SHARD, MEMBER, RAW, Index, shard_name
from artclf.data.places import Place

MEGABYTE = 10**6
ROWS = 10_000  # of a shard at most: they are in memory together


class Table(NamedTuple):
    """A table of the catalogue besides `images`: what makes it in SQL, and the order of its rows."""

    create: str
    order: str


TABLES = {
    "settings": Table("", "rowid"),  # every catalogue has it
    "imports": Table(imports.TABLE, "rowid"),
    "decisions": Table(review.DECISIONS, "rowid"),
    "cuts": Table(splits.CUTS, "cut, file"),
}


def pack(data, target, clean: bool = False, shard_size: float = MEGABYTES_OF_SHARD) -> dict:
    """Pack the data set in folder `data` into `target`, a folder or an address; return the numbers of
    `rows`, `pictures` and `shards`, how many shards this run has `written`, and how many pictures
    are `missing`.

    The pack has all of the catalogue, `artists.csv`, and the raw pictures or, with `clean`, the
    clean copies instead. A shard has at most `shard_size` MB of pictures, where not a single one is
    larger, and 10,000 rows. A picture that isn't there is missing, and its row is packed; one that
    isn't what the catalogue knows is an error.

    Where `target` holds the same data set already, only shards whose rows have changed are written.
    Raises FileNotFoundError without a catalogue, InputError where `target` holds something else or
    was packed with other settings, StepError where another process packs into the same folder,
    ImportError where a package is missing.
    """
    settings.check(shard_size=shard_size)
    data = require(data)
    place = Place(target)
    if place.folder and (place.folder / "catalogue.db").exists():
        raise InputError(f"{target} is a data set itself: name another folder for the pack")
    if place.folder and place.folder.resolve().is_relative_to(data.resolve()):
        raise InputError(
            f"{target} lies in the data set {data}: name a folder outside for the pack"
        )
    wanted = CLEAN if clean else RAW
    with Catalogue(data, to_read=True) as catalogue, place.lock():
        catalogue.db.execute("BEGIN")  # one state of all tables, whatever other processes write
        pictures = _Pictures(data, catalogue, wanted)
        pictures.check_any()
        writer = _Writer(data, place, Index(wanted, float(shard_size)))
        with progress_bar(total=catalogue.count(), desc="pack") as bar:
            for shard in _shards(pictures.rows(), shard_size * MEGABYTE):
                writer.add(shard, pictures.schema)
                bar.update(len(shard))
        writer.finish(catalogue)
    return {
        "rows": writer.index.rows,
        "pictures": writer.index.pictures,
        "missing": pictures.missing,
        "shards": len(writer.index.shards),
        "written": writer.written,
    }


def picture_of(row: dict, wanted: str) -> tuple[str, str | None]:
    """The path of a row's RAW picture or CLEAN copy, relative to DATA, and its SHA-256 as the
    catalogue has it. Raises InputError for a path that leads out of the folders of the classes.
    """
    raw, copy = row["file"], clean_path(row)
    for path, top in ((raw, RAW), (copy, CLEAN)):
        parts = PurePosixPath(path).parts
        is_inside = len(parts) == 3 and parts[0] == top and ".." not in parts
        if not is_inside or "/".join(parts) != path or "\\" in path or "\0" in path:
            raise InputError(
                f"the row of {row['url']} has the file {path!r}, outside {top}/<class>/"
            )
    return (raw, row["sha256"]) if wanted == RAW else (copy, row["clean_sha256"])


class _Pictures:
    """The rows of a catalogue with what is packed of them: RAW or CLEAN pictures."""

    def __init__(self, data: Path, catalogue: Catalogue, wanted: str):
        self.data, self.db, self.wanted = data, catalogue.db, wanted
        kinds = catalogue.kinds()
        known = [name for name in COLUMNS if name in kinds]
        self.columns = [*known, *sorted(kinds.keys() - COLUMNS.keys())]
        self.schema = packs.schema_of({**{name: kinds[name] for name in self.columns}, **MEMBER})
        self.missing = 0

    def check_any(self):
        """Raise InputError where there is nothing to pack."""
        if not any(row["pack_member"] for row in self.rows()):
            step = "clean" if self.wanted == CLEAN else "download"
            raise InputError(f"{self.data} has no {self.wanted} pictures: run `artclf {step}`")

    def rows(self) -> Iterator[dict]:
        """The rows in the order they were added, with the columns `packs.MEMBER`."""
        self.missing = 0
        names = ", ".join(map(quoted, self.columns))
        for found in self.db.execute(f"SELECT {names} FROM images ORDER BY rowid"):
            row = dict(found)
            yield {**row, **self._member(row)}

    def _member(self, row: dict) -> dict:
        """The columns `packs.MEMBER` of a row: None where it has no picture."""
        member: dict = dict.fromkeys(MEMBER)
        if row["file"] is None:
            return member
        name, sha256 = picture_of(row, self.wanted)
        if sha256 is None:
            return member
        try:
            size = (self.data / name).stat().st_size
        except FileNotFoundError:
            self.missing += 1
            return member
        return {"pack_member": name, "pack_bytes": size, "pack_sha256": sha256}


class _Writer:
    """Writes to a place what isn't there already, and notes in `index` what is there."""

    def __init__(self, data: Path, place: Place, index: Index):
        self.data, self.place, self.index = data, place, index
        self.old = packs.read_index(place)
        if self.old is None:
            _check_empty(place)
        self.is_marked = False  # as not whole
        self.written = 0
        if self.old and (self.old.kind, self.old.megabytes) != (index.kind, index.megabytes):
            raise InputError(
                f"{place.name} was packed with other settings, {self.old.kind} pictures and shards "
                f"of {self.old.megabytes:g} MB: take these, or name another place"
            )

    def add(self, rows: list[dict], schema):
        """Write the next shard: its tar file, then its Parquet file, with which it counts."""
        name = shard_name(len(self.index.shards))
        table = _table(rows, schema)
        old = packs.read_shard(self.place, name)
        if old:
            self._check_same_pictures(old.table, table, name)
        has_tar = old is not None and old.tar_size == old.tar_bytes
        if old and has_tar and packs.members(old.table) == packs.members(table):
            tar_bytes = old.tar_bytes
        else:
            tar_bytes = self._write(f"{name}.tar", partial(_write_tar, self.data, rows))
        content = packs.parquet_of(table, tar_bytes)
        if not old or old.content != content:
            self._write(f"{name}.parquet", lambda path: path.write_bytes(content))
            self.written += 1
        sha256 = hashlib.sha256(content).hexdigest()
        self.index.shards.append(
            {"rows": len(rows), "sha256": sha256, "rows_sha256": packs.rows_sha256(table)}
        )
        self.index.rows += len(rows)
        self.index.pictures += sum(row["pack_member"] is not None for row in rows)

    def finish(self, catalogue: Catalogue):
        """Write the other tables and files, then the index, with which the pack is whole."""
        following = shard_name(len(self.index.shards))
        if self.place.size(f"{following}.parquet") is not None:
            self._refuse(following)
        for table in _other_tables(catalogue):
            with TemporaryDirectory() as temporary:
                file = Path(temporary) / packs.table_file(table)
                _write_table(catalogue, table, file)
                self._add_file(file)
        if (self.data / aliases.FILE).exists():
            self._add_file(self.data / aliases.FILE)
        self.index.complete = True
        if self.is_marked or self.old != self.index:
            self._write_index(self.index)

    def _write_index(self, index: Index):
        content = index.as_text().encode()
        self.place.write(INDEX, lambda path: path.write_bytes(content))

    def _add_file(self, file: Path):
        sha256 = sha256_of(file)
        is_there = self.place.size(file.name) == file.stat().st_size
        if not (self.old and is_there and self.old.files.get(file.name) == sha256):
            self._write(file.name, partial(shutil.copyfile, file))
        self.index.files[file.name] = sha256

    def _write(self, name: str, write) -> int:
        """Write a file, and return its bytes. From the first one on, the pack isn't whole until its
        end.
        """
        if not self.is_marked:
            self._write_index(Index(self.index.kind, self.index.megabytes))
            self.is_marked = True
        return self.place.write(name, write)

    def _check_same_pictures(self, old, new, name: str):
        """Raise InputError where a shard that is there is of other rows than those with which the new
        one begins: nobody's pack is overwritten by another one.
        """
        keys = ["url", "period"]
        if not {*keys, *MEMBER} <= set(old.column_names):
            self._refuse(name)
        if not old.select(keys).equals(new.select(keys).slice(0, old.num_rows)):
            self._refuse(name)

    def _refuse(self, name: str):
        raise InputError(
            f"{self.place.address(name)}.parquet is of other pictures than {self.data} has: name "
            "another place, or empty this one"
        )


def _check_empty(place: Place):
    """Raise InputError where there is something in it, which would lie in the pack; shards without
    their index are a pack that goes on.
    """
    names = place.names()
    if names and f"{shard_name(0)}.parquet" not in names:
        raise InputError(f"{place.name} has {names[0]} in it: name a new folder or address")


def _shards(rows: Iterable[dict], most_bytes: float) -> Iterator[list[dict]]:
    """The rows of one shard after the other."""
    shard: list[dict] = []
    total = 0
    for row in rows:
        size = row["pack_bytes"] or 0
        if shard and (total + size > most_bytes or len(shard) == ROWS):
            yield shard
            shard, total = [], 0
        shard.append(row)
        total += size
    if shard:
        yield shard


def _table(rows: list[dict], schema):
    """A pyarrow Table. Raises InputError for a value that isn't of the kind of its column."""
    import pyarrow as pa

    try:
        return pa.Table.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"the catalogue has a value of another kind than its column: {error}"
        ) from error


def _write_tar(data: Path, rows: list[dict], path: Path):
    """Write the pictures of `rows`. Raises InputError for one that isn't what its row says."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
        for row in rows:
            name = row["pack_member"]
            if name is None:
                continue
            content = (data / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != row["pack_sha256"]:
                raise InputError(
                    f"{data / name} is not the picture that the catalogue knows, its SHA-256 differs: "
                    "bring that back, or remove the file, and its row is packed without a picture"
                )
            tar.addfile(packs.tar_member(name, len(content)), BytesIO(content))


def _other_tables(catalogue: Catalogue) -> list[str]:
    """The names of all tables but `images`, and but what hosts asked of this machine. Raises
    InputError for one that isn't known.
    """
    found = catalogue.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    names = sorted({row["name"] for row in found} - {"images", patience.NAME})
    for name in names:
        if name not in TABLES and not name.startswith("sqlite_"):
            raise InputError(
                f"{catalogue.path} has a table {name!r}, which this version of artclf doesn't know: "
                "update artclf, or remove the table"
            )
    return [name for name in names if name in TABLES]


def _write_table(catalogue: Catalogue, name: str, file: Path):
    """Write a table of the catalogue to a Parquet file; its rows don't fill the memory."""
    from pyarrow.parquet import ParquetWriter

    schema = packs.schema_of(catalogue.kinds(name))
    rows = catalogue.db.execute(f"SELECT * FROM {name} ORDER BY {TABLES[name].order}")
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while group := [dict(row) for row in islice(rows, ROWS)]:
            writer.write_table(_table(group, schema))
