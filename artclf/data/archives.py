"""Archives: a zip or tar file of pictures, unpacked into a folder for as long as it is read.

Nothing is written outside that folder, links and devices that lead out of it are refused, and so
is what would take more room than was allowed.
"""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from artclf.base.errors import InputError
from artclf.base.locks import locked

GIGABYTE = 10**9
MAX_GIGABYTES = 50.0  # that an archive may unpack to, unless asked otherwise
MAX_MEMBERS = 5_000_000
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)


@contextmanager
def as_folder(source, data, max_gigabytes: float = MAX_GIGABYTES) -> Iterator[Path]:
    """The folder of pictures in `source` while the `with` block lasts: itself, or what a zip or tar
    file unpacks to, in `DATA/unpacked`.

    Where everything in an archive lies in one folder that holds folders, that is the folder.
    Raises FileNotFoundError where nothing is there, InputError for a file that is no archive, is
    broken, has a member that leads out of the folder, or unpacks to more than `max_gigabytes`.
    """
    source = existing(source)
    if source.is_dir():
        yield source
        return
    with locked(data):
        place = Path(data) / "unpacked"
        shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
        place.mkdir()
        try:
            _unpack(source, place, max_gigabytes)
            yield _innermost(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def existing(source) -> Path:
    """The path of a folder or file. Raises FileNotFoundError where there is none."""
    path = Path(source)
    if not (path.is_file() or path.is_dir()):
        raise FileNotFoundError(f"{path} is not a folder, nor a zip or tar file")
    return path


def name_of(source) -> str:
    """The name of a folder, or that of an archive without its suffix: `pictures.tar.gz` is
    `pictures`.
    """
    path = Path(source).resolve()
    if path.is_dir():
        return path.name
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def _unpack(archive: Path, place: Path, max_gigabytes: float):
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, place, max_gigabytes)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, place, max_gigabytes)
        else:
            raise InputError(f"{archive} is neither a folder nor a zip or tar file")
    except BROKEN as error:
        raise InputError(f"{archive} can't be unpacked: {error}") from error


def _unpack_zip(archive: Path, place: Path, max_gigabytes: float):
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        names = ((member.filename, member.file_size) for member in members)
        _check(archive, names, place, max_gigabytes)
        # zipfile reads no more of a member than the size that it declares
        file.extractall(place)


def _unpack_tar(archive: Path, place: Path, max_gigabytes: float):
    with tarfile.open(archive) as file:
        # a generator: a bomb is refused before its end is reached
        _check(archive, ((member.name, member.size) for member in file), place, max_gigabytes)
        file.extractall(place, filter="data")


def _check(archive: Path, members: Iterable[tuple], place: Path, max_gigabytes: float):
    """Raise InputError for a member, name and size in bytes, that leads out of the folder, and
    where all of them take too much room.
    """
    room = min(max_gigabytes * GIGABYTE, shutil.disk_usage(place).free)
    total = 0
    for number, (name, size) in enumerate(members, start=1):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[:1]:
            raise InputError(f"{archive} has {name!r}, which leads out of its folder: not unpacked")
        total += size
        if total > room:
            raise InputError(
                f"{archive} unpacks to more than {room / GIGABYTE:.3g} GB: allow more with "
                "--max-unpacked GB, or make room on the disk"
            )
        if number > MAX_MEMBERS:
            raise InputError(f"{archive} has more than {MAX_MEMBERS} files: unpack it yourself")


def _innermost(place: Path) -> Path:
    """The folder in `place` that holds the folders: archives often have one around everything."""
    while True:
        visible = [path for path in place.iterdir() if not _is_ignored(path)]
        if len(visible) != 1 or not visible[0].is_dir():
            return place
        if not any(path.is_dir() and not _is_ignored(path) for path in visible[0].iterdir()):
            return place
        place = visible[0]


def _is_ignored(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"
