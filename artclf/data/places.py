"""Places: folders on this machine, and addresses such as `s3://`, `gs://` and `hf://`, by fsspec.

A file is whole or absent: in a folder it is moved to its place when it is whole, and an object
store shows no object before its upload has ended.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from artclf.base.errors import InputError, StepError
from artclf.base.extras import require
from artclf.base.files import replace_whole
from artclf.base.locks import locked

OPTIONS = {"use_listings_cache": False}  # what another process writes is to be seen
# of each kind of address: the package that fsspec needs, and what names the credentials
STORES = {
    "s3": ("s3fs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
    "gs": ("gcsfs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "hf": ("huggingface_hub", "HF_TOKEN"),
}
REFUSALS = (401, 403)  # the codes of answers of HTTP
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # longer than the letter of a drive
ONE_SLASH = re.compile(ADDRESS.pattern + "/(?!/)", re.IGNORECASE)


def is_address(place) -> bool:
    """Whether `place` is a text such as `s3://bucket/name`, not a folder."""
    return isinstance(place, str) and "://" in place and ADDRESS.match(place) is not None


class Place:
    """Files by their names in a folder, or at an address that fsspec knows.

    Raises InputError for an address of a kind that fsspec doesn't know or with one slash, ImportError, which names
    the package, where its kind needs one that is missing; methods raise what the system says of a
    folder, and StepError, which names the address, for all that a store answers.
    """

    def __init__(self, address: str | Path):
        require("pack", "fsspec", "pyarrow")
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.name = str(address).rstrip("/\\") or str(address)
        self.folder: Path | None = None
        if is_address(address):
            try:
                filesystem, root = url_to_fs(address, **OPTIONS)
            except ValueError as error:
                raise InputError(f"{address} can't be used: {error}") from error
            except ImportError as error:
                raise ImportError(_what_to_install(str(address), error)) from error
            self.root = root.rstrip("/")
        elif ONE_SLASH.match(str(address)):
            raise InputError(f"{address} has one slash: an address has two, as s3://bucket/name")
        else:
            filesystem = LocalFileSystem()
            self.root = Path(address).absolute().as_posix()
        if isinstance(filesystem, LocalFileSystem):
            self.folder = Path(self.root)

    @property
    def filesystem(self) -> Any:
        """What fsspec reads and writes this place with; it keeps one in each process, for a process
        that was forked, such as a loader's, can't use that of another one.
        """
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem() if self.folder else url_to_fs(self.name, **OPTIONS)[0]

    def path(self, name: str) -> str:
        """The path of a file as `filesystem` takes it."""
        return f"{self.root}/{name}"

    def address(self, name: str) -> str:
        """The path or address of a file as messages name it."""
        return f"{self.name}/{name}"

    def lock(self):
        """A context manager that keeps other processes of this machine from writing to a folder; an
        address has no lock.
        """
        return locked(self.folder) if self.folder else nullcontext()

    def names(self) -> list[str]:
        """The names of the files and folders in it, without hidden ones."""
        with self.errors_of(""):
            try:
                found = self.filesystem.ls(self.root, detail=False)
            except FileNotFoundError:
                return []
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if not name.startswith("."))

    def size(self, name: str) -> int | None:
        """The bytes of a file, None where there is none."""
        with self.errors_of(name):
            try:
                return self.filesystem.info(self.path(name))["size"]
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """What is in a small file, None where there is none."""
        with self.errors_of(name):
            try:
                return self.filesystem.cat_file(self.path(name))
            except FileNotFoundError:
                return None

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of a file from byte `start` on, fewer where it ends before. Raises
        FileNotFoundError where there is none.
        """
        with self.errors_of(name):
            return self.filesystem.cat_file(self.path(name), start=start, end=start + length)

    def write(self, name: str, write: Callable[[Path], object]) -> int:
        """Call `write` with a path on this machine; what it writes there becomes the file `name`.
        Returns its bytes.
        """
        if self.folder:
            replace_whole(self.folder / name, write)
            return (self.folder / name).stat().st_size
        with tempfile.TemporaryDirectory() as temporary:
            whole = Path(temporary) / name
            write(whole)
            with self.errors_of(name):
                self.filesystem.put_file(str(whole), self.path(name))
            return whole.stat().st_size

    @contextmanager
    def local(self, name: str, temporary: Path) -> Iterator[Path]:
        """A context manager that gives a path on this machine with a file's content: in a folder
        itself, else a copy in the folder `temporary`. Raises FileNotFoundError where there is none.
        """
        if self.folder:
            yield self.folder / name
            return
        copy = temporary / name
        with self.errors_of(name):
            self.filesystem.get_file(self.path(name), str(copy))
        try:
            yield copy
        finally:
            copy.unlink()

    @contextmanager
    def errors_of(self, name: str) -> Iterator[None]:
        """A context manager in which the errors of the packages behind an address, of whatever kind
        they are, become StepError, which names the file.
        """
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError as error:
            if self.folder:
                raise
            raise FileNotFoundError(f"{self.address(name)} isn't there ({error})") from error
        except Exception as error:
            if self.folder:
                raise
            reason = f"{type(error).__name__}: {error}"
            raise StepError(
                f"{self.address(name)}: {reason}{_what_to_set(self.name, error)}"
            ) from error


def _what_to_install(address: str, error: ImportError) -> str:
    """What to say where the package for an address is missing."""
    kind = address.partition(":")[0].lower()
    if kind not in STORES:
        return f"{address}: {error}"
    package, _ = STORES[kind]
    return (
        f"{address} needs the package {package}: run pip install {package} in the environment of "
        f"artclf ({error})"
    )


def _what_to_set(address: str, error: Exception) -> str:
    """What to say after an error where a store refuses: which variables name the credentials."""
    kind = address.partition(":")[0].lower()
    is_refusal = (
        isinstance(error, PermissionError)
        or "Credentials" in type(error).__name__
        or getattr(error, "code", None) in REFUSALS
    )
    if kind not in STORES or not is_refusal:
        return ""
    _, variables = STORES[kind]
    return f"; set {variables}, of an account that may use this address"
