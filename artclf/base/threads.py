"""Work in threads: the next batch is computed while the caller uses this one."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor


def prefetch(
    function: Callable, items: Sequence, batch_size: int = 64
) -> Iterator[tuple[int, list]]:
    """For each batch of `items` a pair: the place of its first item, and `function` of every item.

    Threads compute the next batch while the caller works with this one.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:

        def submit_batch(start: int) -> list[Future]:
            return [pool.submit(function, item) for item in items[start : start + batch_size]]

        next_batch = submit_batch(0)
        for start in range(0, len(items), batch_size):
            batch = next_batch
            next_batch = submit_batch(start + batch_size)
            yield start, [future.result() for future in batch]
