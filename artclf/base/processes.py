"""Work in parallel: in processes that may die, and in threads that keep ahead of the one who
asks.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process

from artclf.base.errors import StepError


def map_in_processes(fn: Callable, jobs: Iterable, workers: int, size: int = 16) -> Iterator[list]:
    """Lists of up to `size` pairs of job and `fn(job)`, in any order, computed by `workers`
    processes.

    When a process dies, the jobs under way are done again in processes of their own; the result of
    a job that kills its own is None. Raises RuntimeError where no process starts at all.
    """
    jobs = iter(jobs)
    chunks, under_way, pool = iter(lambda: list(islice(jobs, size)), []), {}, process_pool(workers)
    try:
        while True:
            under_way |= {
                pool.submit(_map, fn, chunk): chunk
                for chunk in islice(chunks, 2 * workers - len(under_way))
            }
            if not under_way:
                return
            ready = next(iter(wait(under_way, return_when=FIRST_COMPLETED).done))
            try:
                results = ready.result()
            except BrokenProcessPool:
                pool = process_pool(workers)
                for chunk in under_way.values():
                    yield list(zip(chunk, _alone(fn, chunk), strict=True))
                under_way = {}
            else:
                yield list(zip(under_way.pop(ready), results, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to their parent and end with it; spawned, for a fork of torch's
    threads may hang.
    """
    return ProcessPoolExecutor(
        min(workers, 61), get_context("spawn"), _follow_parent
    )  # Windows waits for 61


def _follow_parent():  # a worker would wait forever for a parent that was killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _map(fn: Callable, jobs: list) -> list:
    return [fn(job) for job in jobs]


def _alone(fn: Callable, jobs: list) -> list:
    with process_pool(1) as pool:
        try:
            pool.submit(int).result()
        except BrokenProcessPool as e:
            raise StepError(
                "no process starts: a script calls this under `if __name__ == '__main__':`"
            ) from e
        try:
            return pool.submit(_map, fn, jobs).result()
        except BrokenProcessPool:
            middle = len(jobs) // 2
    return [*_alone(fn, jobs[:middle]), *_alone(fn, jobs[middle:])] if middle else [None]


def prefetch(
    function: Callable, items: Sequence, batch_size: int = 64
) -> Iterator[tuple[int, list]]:
    """Pairs of a place and `function` of the `batch_size` items from there; threads work on the
    next meanwhile.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        coming = []
        for start in range(0, len(items) + batch_size, batch_size):
            now, coming = (
                coming,
                [pool.submit(function, item) for item in items[start : start + batch_size]],
            )
            if now:
                yield start - batch_size, [future.result() for future in now]
