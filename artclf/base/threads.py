"""Work in threads: the next batch is computed while the caller uses this one."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice


def prefetch(
    function: Callable, items: Iterable, batch_size: int = 64
) -> Iterator[tuple[int, list]]:
    """For each batch of `items` a pair: the place of its first item, and `function` of every item.

    Threads compute the next batch while the caller works with this one; no more items than these
    are taken from an iterator.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:

        def submit_batch() -> list[Future]:
            return [pool.submit(function, item) for item in islice(remaining, batch_size)]

        start = 0
        batch = submit_batch()
        while batch:
            next_batch = submit_batch()
            yield start, [future.result() for future in batch]
            start += len(batch)
            batch = next_batch
