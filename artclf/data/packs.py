"""Packs: a data set as shards, tar files of pictures with a Parquet file beside each.

    pack.json               settings, and the hash of every Parquet file; it is written last
    images-000000.tar       pictures as WebDataset has them, named as in DATA
    images-000000.parquet   the catalogue's rows of these pictures, and those without a picture
    table-cuts.parquet      the catalogue's other tables
    artists.csv             where DATA has one

This module knows the form and reads what is in packs; `packing` writes them, `unpacking` makes data
sets of them.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from artclf.base.errors import InputError
from artclf.base.files import check_on_this_machine
from artclf.base.machine import cache_folder
from artclf.data import conditions
from artclf.data.places import Place, is_address

FORMAT = 1
INDEX = "pack.json"
MEGABYTES_OF_SHARD = 256.0
RAW = "raw"
CLEAN = "clean"
# in the metadata of a shard's Parquet file: the bytes of its tar file, and the SHA-256 of its rows
TAR_BYTES = b"artclf.tar_bytes"
ROWS_SHA256 = b"artclf.rows_sha256"
# columns of the Parquet files that the catalogue hasn't: the picture's name in the tar file, null
# where it has none, its bytes and their SHA-256
MEMBER = {"pack_member": "TEXT", "pack_bytes": "INTEGER", "pack_sha256": "TEXT"}
ANEW = "run `artclf data pack` again, which writes only that, then try again"
AGAIN = f"remove it there and {ANEW}"
READERS = 16  # at a time, of what is known of each Parquet file


@dataclass
class Index:
    """What `pack.json` says of a pack: the `kind` of its pictures, RAW or CLEAN, and the `megabytes`
    of a shard; whether it is `complete`, and then its rows, pictures, shards in order (each a dict of
    `rows`, the `sha256` of its Parquet file, and, in packs of today, the `rows_sha256` of its rows)
    and other files with their SHA-256.
    """

    kind: str
    megabytes: float
    complete: bool = False
    rows: int = 0
    pictures: int = 0
    shards: list[dict] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def as_text(self) -> str:
        return json.dumps(asdict(self), indent=1)


def shard_name(number: int) -> str:
    """The name of a shard's files, without their suffix."""
    return f"images-{number:06}"


def table_file(table: str) -> str:
    """The name of the file with a table of the catalogue besides `images`."""
    return f"table-{table}.parquet"


def is_pack(place) -> bool:
    """Whether `place` is an address, or a folder with a pack, and no data set."""
    if is_address(place):
        return True
    index = Path(place) / INDEX
    is_data_set = (Path(place) / "catalogue.db").exists()
    return index.is_file() and not is_data_set and not _is_of_another_program(index)


def _is_of_another_program(index: Path) -> bool:
    """Whether a `pack.json` is whole and names no format, as ours do."""
    try:
        noted = json.loads(index.read_bytes())
    except ValueError:  # one of ours that is damaged: `read_index` says so
        return False
    return not (isinstance(noted, dict) and "format" in noted)


def check_is_none(folder):
    """Raise SettingError for an address, InputError for a folder with a pack: where a data set, or
    any other folder that is written to, must be.
    """
    check_on_this_machine(folder)
    if is_pack(folder):
        raise InputError(
            f"{folder} is a pack, which only `artclf train` and `artclf predict` read as it is: "
            f"`artclf data unpack {folder} FOLDER` makes a data set of it"
        )


def read_index(place: Place) -> Index | None:
    """What `pack.json` says, None where there is none. Raises InputError for one that is damaged or
    of a later version.
    """
    content = place.read(INDEX)
    if content is None:
        return None
    try:
        noted = json.loads(content)
        if noted["format"] != FORMAT:
            raise InputError(f"{place.name} was packed by another version of artclf: update artclf")
        index = Index(**{column.name: noted[column.name] for column in fields(Index)})
        _check_kinds(index)
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{place.address(INDEX)} is no index of a pack ({error}): {AGAIN}"
        ) from error
    return index


def _check_kinds(index: Index):
    """Raise TypeError where a value of an index is of another kind than it should be."""
    kinds = {
        "kind": str,
        "megabytes": int | float,
        "complete": bool,
        "rows": int,
        "pictures": int,
        "shards": list,
        "files": dict,
    }
    for name, kind in kinds.items():
        value = getattr(index, name)
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {value!r}")
    for shard in index.shards:
        if not isinstance(shard, dict):
            raise TypeError(f"a shard is {shard!r}")
        if not isinstance(shard.get("rows"), int) or not isinstance(shard.get("sha256"), str):
            raise TypeError(f"a shard is {shard!r}")


def require_complete(place: Place) -> Index:
    """What `pack.json` says of a whole pack. Raises FileNotFoundError where there is none,
    InputError where packing it has not ended.
    """
    index = read_index(place)
    if index is None:
        raise FileNotFoundError(
            f"{place.name} holds no pack: it has no {INDEX}; `artclf data pack DATA {place.name}` "
            "makes one"
        )
    if not index.complete:
        raise InputError(
            f"{place.name} is not whole: packing it has not ended; run `artclf data pack` again, "
            "which goes on"
        )
    rows = sum(shard["rows"] for shard in index.shards)
    if rows != index.rows:
        raise InputError(
            f"{place.address(INDEX)} lists shards of {rows} rows, and {index.rows} were packed: {AGAIN}"
        )
    return index


def read(address, columns: Iterable[str] | None = None, where: Iterable[tuple] | None = None):
    """Rows of a packed catalogue, a pyarrow Table; reads only the columns and row groups that are asked
    for. Without `columns` it has those of the catalogue.

    Raises FileNotFoundError where there is no pack, InputError for one that isn't whole, hasn't the
    rows that its index says, or is asked for a column or condition that makes no sense.
    """
    place = Place(address)
    index = require_complete(place)
    with place.errors_of("*.parquet"):
        return _rows(place, index, columns, where)


def _rows(place: Place, index: Index, columns: Iterable[str] | None, where: Iterable[tuple] | None):
    import pyarrow as pa

    try:
        dataset = _checked_dataset(place, index)
        names = conditions.check_columns(columns, dataset.schema.names)
        asked = conditions.checked(where, kinds_of(dataset.schema))
        return dataset.to_table(
            columns=names or [name for name in dataset.schema.names if name not in MEMBER],
            filter=conditions.as_filter(asked, dataset.schema),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"a shard of {place.name} is damaged ({error}): {AGAIN}") from error


def _checked_dataset(place: Place, index: Index):
    """The pyarrow Dataset of the shards' Parquet files. Raises InputError where one is gone or hasn't
    the rows that the index says: the end of each file tells, where its metadata is.
    """
    import pyarrow.dataset as ds

    names = [f"{shard_name(number)}.parquet" for number in range(len(index.shards))]
    addresses = [place.address(name) for name in names]
    try:
        paths = [place.path(name) for name in names]
        dataset = ds.dataset(paths, format="parquet", filesystem=place.filesystem)
    except FileNotFoundError as error:
        gone = next(name for name in names if place.size(name) is None)
        raise InputError(f"{place.address(gone)} is gone: {ANEW}") from error
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(_metadata_of, dataset.get_fragments())
        for address, noted, metadata in zip(addresses, index.shards, found, strict=True):
            _check_rows(address, noted, metadata)
    return dataset


def _metadata_of(fragment):
    """What pyarrow reads at the end of a Parquet file, None where there is no such file."""
    try:
        return fragment.metadata
    except FileNotFoundError:
        return None


def _check_rows(address: str, noted: dict, metadata):
    """Raise InputError where the Parquet file at `address` isn't that of the shard which the index
    has `noted`.
    """
    if metadata is None:
        raise InputError(f"{address} is gone: {ANEW}")
    if metadata.num_rows != noted["rows"]:
        raise InputError(
            f"{address} has {metadata.num_rows} rows, and {noted['rows']} were packed: {AGAIN}"
        )
    if "rows_sha256" in noted:  # packs of earlier versions have none
        sha256 = (metadata.metadata or {}).get(ROWS_SHA256, b"").decode()
        if sha256 != noted["rows_sha256"]:
            raise InputError(f"{address} has other rows than were packed: {AGAIN}")


def working_folder(data) -> Path:
    """The folder on this machine for what steps keep of `data` beside its pictures: that of the data
    set, or, for a pack, to which nothing is written, `machine.cache_folder`. The workers of a cluster
    must see it.
    """
    return cache_folder() if is_pack(data) else Path(data)


def read_setting(address, step: str) -> str | None:
    """The settings that a step last ran with on the data set that was packed; None where it never
    ran. Raises as `read` does.
    """
    place = Place(address)
    require_complete(place)
    name = table_file("settings")
    content = place.read(name)
    if content is None:
        raise InputError(f"{place.address(name)} is gone: {ANEW}")
    rows = parse(content, place.address(name)).to_pylist()
    return next((row["value"] for row in rows if row["step"] == step), None)


@dataclass(frozen=True)
class PackedPicture:
    """A picture in a pack: `file` is its path in DATA. It lies in the file `tar` from byte `start` on.

    `pictures.open_rgb`, Pillow and fastai open it as they open a file. Pickled, it is a few texts.
    """

    place: Place
    file: str
    tar: str
    start: int
    size: int  # bytes
    sha256: str

    @property
    def parent(self) -> PurePosixPath:
        """The folder of the class, as a path in DATA."""
        return PurePosixPath(self.file).parent

    def __str__(self) -> str:
        return self.place.address(self.file)

    def exists(self) -> bool:
        """Whether its tar file is there."""
        return self.place.size(self.tar) is not None

    def read(self) -> bytes:
        """The bytes of the picture, of which alone those are read. Raises FileNotFoundError where the
        tar file is gone, InputError where it is damaged, StepError where the store doesn't answer.
        """
        content = self.place.read_part(self.tar, self.start, self.size)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(
                f"{self.place.address(self.tar)} is damaged, the SHA-256 of {self.file} differs"
            )
        return content


def pictures(address) -> Iterator[PackedPicture]:
    """The pictures of a pack in the order of its shards; the rows of one shard are in memory at a
    time.

    Raises as `read` does, and InputError where a shard is damaged or gone.
    """
    place = Place(address)
    index = require_complete(place)
    for number, noted in enumerate(index.shards):
        name = shard_name(number)
        shard = read_shard(place, name)
        if shard is None or hashlib.sha256(shard.content).hexdigest() != noted["sha256"]:
            raise InputError(f"{place.address(name)}.parquet is damaged or gone: {AGAIN}")
        if shard.tar_size != shard.tar_bytes:
            raise InputError(f"{place.address(name)}.tar is damaged or gone: {AGAIN}")
        yield from _pictures_of(place, f"{name}.tar", members(shard.table))


def _pictures_of(place: Place, tar: str, rows: list[dict]) -> Iterator[PackedPicture]:
    """The pictures in a tar file, given the rows of all its members."""
    end = 0
    for row in rows:
        file, size = row["pack_member"], row["pack_bytes"]
        start = end + len(tar_header(file, size))
        yield PackedPicture(place, file, tar, start, size, row["pack_sha256"])
        end = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def tar_member(name: str, size: int) -> tarfile.TarInfo:
    """A member of a shard's tar file, of no user and no time."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def tar_header(name: str, size: int) -> bytes:
    """What stands before the bytes of a member of a shard's tar file."""
    return tar_member(name, size).tobuf(tarfile.GNU_FORMAT, "utf-8")


def schema_of(kinds: Mapping[str, str]):
    """The pyarrow Schema for columns of SQLite, by their kinds TEXT, INTEGER and REAL."""
    import pyarrow as pa

    types = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64()}
    for name, kind in kinds.items():
        if kind not in types:
            raise InputError(
                f"the column {name} is {kind or 'of no kind'}: only {', '.join(types)} do"
            )
    return pa.schema([(name, types[kind]) for name, kind in kinds.items()])


def kinds_of(schema) -> dict[str, str]:
    """The kinds TEXT, INTEGER and REAL of the columns of a pyarrow Schema."""
    import pyarrow as pa

    kinds = {pa.string(): "TEXT", pa.int64(): "INTEGER", pa.float64(): "REAL"}
    try:
        return {column.name: kinds[column.type] for column in schema}
    except KeyError as error:
        raise InputError(f"a column of the pack has the type {error}, which none has") from error


@dataclass(frozen=True)
class Shard:
    """A shard that is there: the `content` of its Parquet file, the same as a pyarrow `table`, the
    bytes that its tar file should have and those that it has, None where there is none.
    """

    content: bytes
    table: Any
    tar_bytes: int
    tar_size: int | None


def read_shard(place: Place, name: str) -> Shard | None:
    """The shard `name`, None where it isn't there: a tar file without its Parquet file is none.

    Raises InputError for a Parquet file that is damaged.
    """
    content = place.read(f"{name}.parquet")
    if content is None:
        return None
    table = parse(content, place.address(f"{name}.parquet"))
    try:
        tar_bytes = int((table.schema.metadata or {})[TAR_BYTES])
    except (KeyError, ValueError) as error:
        raise InputError(f"{place.address(name)}.parquet is of no shard") from error
    return Shard(content, table, tar_bytes, place.size(f"{name}.tar"))


def parse(content: bytes, address: str):
    """The pyarrow Table in a Parquet file. Raises InputError for one that is damaged."""
    import pyarrow as pa
    from pyarrow.parquet import read_table

    try:
        return read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{address} is damaged: {error}") from error


def members(table) -> list[dict]:
    """The rows of the tar file that belongs to the Table of a shard: columns `MEMBER`."""
    rows = table.select(list(MEMBER)).to_pylist()
    return [row for row in rows if row["pack_member"] is not None]


def parquet_of(table, tar_bytes: int) -> bytes:
    """The Parquet file of a shard whose tar file has so many bytes."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    metadata = {TAR_BYTES: str(tar_bytes), ROWS_SHA256: rows_sha256(table)}
    stream = pa.BufferOutputStream()
    write_table(table.replace_schema_metadata(metadata), stream, compression="zstd")
    return stream.getvalue().to_pybytes()


def rows_sha256(table) -> str:
    """The SHA-256 of the rows of a pyarrow Table."""
    return hashlib.sha256(json.dumps(table.to_pylist()).encode()).hexdigest()
