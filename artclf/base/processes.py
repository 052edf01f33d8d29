"""Work in processes: a job that kills its process, as a decoder may, costs only itself."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Protocol

from artclf.base.errors import StepError

MOST_WORKERS = 61  # Windows cannot wait for more processes
JOBS_WANTED = 64  # so that workers, which take them one by one, end at about the same time
FOR_WORKERS = "for-workers-"  # how files in DATA begin that workers of one run read


# A way to do jobs: a function, the jobs, and how many of them go to a worker together
Workers = Callable[[Callable, Iterable, int], Iterator[list[tuple]]]


class MapJobs(Protocol):
    """A way to do jobs, such as `map_in_processes` or the workers of a cluster: lists of pairs
    (job, result), in any order, with few jobs under way at a time.

    The result of a job that ends its worker each time is None; an exception in a job is raised.
    `function` and jobs are sent to the workers, so they hold paths and settings, not pictures.
    """

    def __call__(
        self,
        function: Callable,
        jobs: Iterable,
        workers: int | None = None,
        chunk_size: int = 16,
        initializer: Callable | None = None,
    ) -> Iterator[list[tuple]]: ...


def map_here(
    function: Callable,
    jobs: Iterable,
    workers: int | None = None,
    chunk_size: int = 16,
    initializer: Callable | None = None,
) -> Iterator[list[tuple]]:
    """A `MapJobs` that does one job at a time, in order, in this process."""
    for job in jobs:
        yield [(job, function(job))]


def map_in_processes(
    function: Callable,
    jobs: Iterable,
    workers: int | None = None,
    chunk_size: int = 16,
    initializer: Callable | None = None,
) -> Iterator[list[tuple]]:
    """Lists of up to `chunk_size` pairs (job, result), in any order; each result is
    `function(job)`, computed by one of `workers` processes (one a core).

    When a process dies, the jobs under way are done again, one at a time; the result of a job that
    kills its process again is None. `initializer` is called first in every process. Raises
    StepError where no process starts at all.
    """
    workers = workers or os.cpu_count() or 1
    chunks = in_chunks(jobs, chunk_size)
    pool = process_pool(workers, initializer)
    under_way: dict[Future, list] = {}
    try:
        while True:
            for chunk in islice(chunks, 2 * workers - len(under_way)):
                under_way[_submit(pool, function, chunk)] = chunk
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            future = done.pop()
            if isinstance(future.exception(), BrokenProcessPool):
                # The pool and all chunks under way are lost, and any of their jobs may be to blame.
                yield from _map_one_by_one(function, under_way.values(), initializer)
                under_way = {}
                pool = process_pool(workers, initializer)
            else:
                chunk = under_way.pop(future)
                yield list(zip(chunk, future.result(), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def process_pool(workers: int, initializer: Callable | None = None) -> ProcessPoolExecutor:
    """Up to `workers` processes that leave Ctrl-C to their parent and end when it ends.

    They are spawned: a process that is forked from one with threads, such as torch's, may hang.
    """
    return ProcessPoolExecutor(
        min(workers, MOST_WORKERS), get_context("spawn"), _start_worker, (initializer,)
    )


def _start_worker(initializer: Callable | None):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


def _end_with_parent():
    """A worker whose parent was killed would wait for its next job for ever."""
    parent_process().join()
    os._exit(1)


def check_result(result, doing: str):
    """The `result` of a job. Raises StepError where there is none: the job ended its workers."""
    if result is None:
        raise StepError(
            f"workers end when they {doing}: give them more memory, or start fewer on a machine"
        )
    return result


def size_of_jobs(number: int, least: int, most: int) -> int:
    """How many of `number` pictures a job has: fewer than `most` where these made too few jobs."""
    return max(least, min(most, number // JOBS_WANTED))


def in_chunks(jobs: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` jobs, the last with those that remain."""
    jobs = iter(jobs)
    while chunk := list(islice(jobs, size)):
        yield chunk


def _map(function: Callable, jobs: list) -> list:
    return [function(job) for job in jobs]


def _submit(pool: ProcessPoolExecutor, function: Callable, chunk: list) -> Future:
    """The future of a chunk's results; one that has failed where the pool is broken already."""
    try:
        return pool.submit(_map, function, chunk)
    except BrokenProcessPool as error:
        future = Future()
        future.set_exception(error)
        return future


def _map_one_by_one(
    function: Callable, chunks: Iterable[list], initializer: Callable | None
) -> Iterator[list[tuple]]:
    """The pairs (job, result) of each chunk; the result is None for a job that kills its
    process.
    """
    pool = _one_process(initializer)
    try:
        for chunk in chunks:
            pairs = []
            for job in chunk:
                try:
                    result = pool.submit(function, job).result()
                except BrokenProcessPool:
                    result = None
                    pool = _one_process(initializer)
                pairs.append((job, result))
            yield pairs
    finally:
        pool.shutdown(cancel_futures=True)


def _one_process(initializer: Callable | None) -> ProcessPoolExecutor:
    """A pool of one process that has started. Raises StepError where it doesn't start."""
    pool = process_pool(1, initializer)
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise StepError(
            "no process starts: a script calls this under `if __name__ == '__main__':`"
        ) from error
    return pool
