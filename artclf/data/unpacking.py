"""Unpacking: a pack, in a folder or at an address, becomes a data set.

Reads what module `packs` describes; writes `DATA/raw/` or `DATA/clean/`, `DATA/artists.csv` and
`DATA/catalogue.db`. The catalogue comes last, so that no step takes half a data set for a whole one:
until then it is in `DATA/unpacking/`, from where a run that was killed goes on.
"""

import shutil
import sqlite3
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path

from artclf.base.errors import InputError
from artclf.base.files import make_folder, replace_whole, sha256_of, write_text
from artclf.base.locks import locked
from artclf.base.progress import progress_bar
from artclf.data import aliases, packs
from artclf.data.catalogue import Catalogue
from artclf.data.conditions import quoted
from artclf.data.packing import ROWS, TABLES, picture_of
from artclf.data.packs import AGAIN, ANEW, MEMBER, Index, shard_name
from artclf.data.places import Place

WORK = "unpacking"  # the folder in DATA
NEEDED = {"url", "period", "file", "sha256", "clean_sha256", "review", *MEMBER}  # columns


def unpack(source, data) -> dict:
    """Make a data set in the folder `data` of the pack in `source`, a folder or an address; return
    the numbers of `rows`, `pictures` and `shards`.

    The catalogue has the same rows, and each picture the same bytes, as when they were packed: all
    hashes are checked. A shard is unpacked whole or not at all, and memory doesn't grow with their
    number. Raises FileNotFoundError where there is no pack, InputError for a pack that isn't whole or
    is damaged, which names the file, and for a folder `data` that isn't empty; StepError where
    another process writes to it; ImportError where a package is missing.
    """
    place = Place(source)
    index = packs.require_complete(place)
    known = [aliases.FILE, *map(packs.table_file, TABLES)]
    for name in index.files:
        if name not in known:
            raise InputError(f"{place.name} has a file {name!r}, which is unknown: update artclf")
    data = Path(data)
    with locked(data):
        _check_empty(data)
        work = data / WORK
        with Catalogue(work) as catalogue:
            done = _claim(index, catalogue, data)
            with progress_bar(total=len(index.shards), desc="unpack") as bar:
                bar.update(done)
                for number in range(done, len(index.shards)):
                    _unpack_shard(place, index, number, catalogue, data)
                    bar.update()
            _unpack_other_files(place, index, catalogue, data)
        (work / "catalogue.db").replace(data / "catalogue.db")
        shutil.rmtree(work)
    return {"rows": index.rows, "pictures": index.pictures, "shards": len(index.shards)}


def _check_empty(data: Path):
    """Raise InputError where `data` holds anything that no unfinished run of `unpack` has left."""
    is_whole = (data / "catalogue.db").exists()  # also where a run was killed right after that
    if (data / WORK).is_dir() and not is_whole:
        return
    for path in data.iterdir():
        if not path.name.startswith("."):
            raise InputError(f"{data} has {path.name} in it: name a new folder for the data set")


def _claim(index: Index, catalogue: Catalogue, data: Path) -> int:
    """Note which pack `data` is unpacked from; the number of shards that are unpacked already.

    Raises InputError where these are of another pack.
    """
    note = data / WORK / packs.INDEX
    if not note.exists():
        write_text(note, index.as_text())
    if note.read_text(encoding="utf-8") != index.as_text():
        raise InputError(
            f"{data} holds a part of another pack, or of what this one was before: remove {data}, or "
            "name a new folder"
        )
    rows = catalogue.count()
    ends = list(accumulate(shard["rows"] for shard in index.shards))
    return bisect_right(ends, rows)


def _unpack_shard(place: Place, index: Index, number: int, catalogue: Catalogue, data: Path):
    """Put the pictures of a shard into their places, then its rows into the catalogue."""
    work = data / WORK
    name = shard_name(number)
    parquet = f"{name}.parquet"
    with _whole_file(place, parquet, index.shards[number]["sha256"], work) as file:
        table = packs.parse(file.read_bytes(), place.address(parquet))
    rows = table.to_pylist()
    members = _checked_members(rows, index.kind, place.address(parquet))
    pictures = work / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)  # of a run that was killed
    pictures.mkdir()
    try:
        files = _pictures_in(place, f"{name}.tar", members, pictures)
        for member, file in zip(members, files, strict=True):
            target = data / member["pack_member"]
            make_folder(target.parent)
            file.replace(target)
    finally:
        shutil.rmtree(pictures)
    kinds = packs.kinds_of(table.drop_columns(list(MEMBER)).schema)
    _add_columns(catalogue, kinds)
    with catalogue.transaction() as db:
        _insert(db, "images", list(kinds), rows)


def _pictures_in(place: Place, tar: str, members: list[dict], folder: Path) -> list[Path]:
    """Write the pictures of a shard to files in `folder`, and return these. Raises InputError where
    the tar file is gone or damaged.
    """
    try:
        with place.local(tar, folder) as archive:
            return _extract(archive, members, folder)
    except FileNotFoundError as error:
        raise InputError(f"{place.address(tar)} is gone: {ANEW}") from error
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise InputError(f"{place.address(tar)} is damaged ({error}): {AGAIN}") from error


def _checked_members(rows: list[dict], kind: str, address: str) -> list[dict]:
    """The rows that have a picture. Raises InputError where a path leads out of DATA, or where a
    picture isn't the one that the catalogue knows.
    """
    members = []
    for row in rows:
        if NEEDED - row.keys():
            raise InputError(f"{address} has no columns {', '.join(sorted(NEEDED - row.keys()))}")
        known = picture_of(row, kind) if row["file"] is not None else None
        if row["pack_member"] is None:
            continue
        if known != (row["pack_member"], row["pack_sha256"]):
            raise InputError(f"{address} has for {row['url']} another picture than its row says")
        members.append(row)
    return members


def _extract(archive: Path, members: list[dict], folder: Path) -> list[Path]:
    """Write the pictures in a tar file to files in `folder`, and return these.

    Raises TarError where the archive doesn't hold exactly the `members`, in their order and with
    their hashes.
    """
    files = []
    with tarfile.open(archive, "r:", encoding="utf-8") as tar:
        for number, expected in enumerate(members):
            member = tar.next()
            name = expected["pack_member"]
            if member is None:
                raise tarfile.ReadError(f"it ends before {name}")
            tarfile.data_filter(member, str(folder))  # raises for a path or link that leads out
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or (member.name, member.size) != (name, expected["pack_bytes"]):
                raise tarfile.ReadError(f"it has {member.name!r} where {name} should be")
            file = folder / str(number)
            with file.open("wb") as target:
                shutil.copyfileobj(content, target)
            if sha256_of(file) != expected["pack_sha256"]:
                raise tarfile.ReadError(f"the SHA-256 of {name} differs")
            files.append(file)
        if (member := tar.next()) is not None:
            raise tarfile.ReadError(f"it has {member.name!r}, which the Parquet file doesn't name")
    return files


def _unpack_other_files(place: Place, index: Index, catalogue: Catalogue, data: Path):
    """Put the other tables into the catalogue, and `artists.csv` into its place."""
    for table in TABLES:
        name = packs.table_file(table)
        if name in index.files:
            with _whole_file(place, name, index.files[name], data / WORK) as file:
                _fill_table(catalogue, table, file)
    if aliases.FILE in index.files:
        sha256 = index.files[aliases.FILE]
        with _whole_file(place, aliases.FILE, sha256, data / WORK) as file:
            replace_whole(data / aliases.FILE, partial(shutil.copyfile, file))


@contextmanager
def _whole_file(place: Place, name: str, sha256: str, temporary: Path) -> Iterator[Path]:
    """A context manager that gives the path of a file of the pack. Raises InputError where it isn't
    what the index says.
    """
    try:
        with place.local(name, temporary) as file:
            if sha256_of(file) != sha256:
                raise InputError(f"{place.address(name)} is damaged: {AGAIN}")
            yield file
    except FileNotFoundError as error:
        raise InputError(f"{place.address(name)} is gone: {ANEW}") from error


def _fill_table(catalogue: Catalogue, name: str, file: Path):
    """Make a table of the catalogue from a Parquet file, all of it or nothing."""
    from pyarrow.parquet import ParquetFile

    with catalogue.transaction() as db, ParquetFile(file) as source:
        db.execute(TABLES[name].create)
        db.execute(f"DELETE FROM {name}")  # of a run that was killed
        for batch in source.iter_batches(ROWS):
            _insert(db, name, batch.schema.names, batch.to_pylist())


def _add_columns(catalogue: Catalogue, kinds: dict[str, str]):
    """Add columns that the catalogue's table `images` lacks: a user's own."""
    existing = catalogue.kinds()
    for name, kind in kinds.items():
        if name not in existing:
            catalogue.db.execute(f"ALTER TABLE images ADD COLUMN {quoted(name)} {kind}")


def _insert(db: sqlite3.Connection, table: str, names: Iterable[str], rows: list[dict]):
    listed = ", ".join(map(quoted, names))
    marks = ", ".join("?" for _ in names)
    values = ([row[name] for name in names] for row in rows)
    db.executemany(f"INSERT INTO {table} ({listed}) VALUES ({marks})", values)
