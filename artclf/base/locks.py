"""Locks: one run at a time writes to a folder. Reading needs none.

The system holds a lock for a process, and takes it back when the process ends, however it ends. The
file `.lock` that stays behind means nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from artclf.base.errors import StepError
from artclf.base.files import make_folder


@contextmanager
def locked(folder) -> Iterator[None]:
    """Keep other processes from writing to `folder` while the `with` block lasts; makes the folder.

    Blocks of one process may lie in each other. Raises StepError at once where another process
    holds the folder.
    """
    lock = hold(folder)
    try:
        yield
    finally:
        lock.release()


def hold(folder) -> FileLock:
    """The lock of `folder`, held until its `release()` or the end of this process; else as
    `locked`.
    """
    folder = Path(folder)
    make_folder(folder)
    # one lock for all of a process: a cell that is run again after Ctrl-C doesn't wait for itself
    lock = FileLock(folder.resolve() / ".lock", is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StepError(
            f"another run is writing to {folder}: wait until it ends, or name another folder"
        ) from error
    return lock
