"""Batching: pictures of several clients in one forward pass."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue

import numpy as np

LARGEST = 8  # pictures in a batch: larger ones are not faster, and take more memory

Answer = tuple[np.ndarray, ...]  # a row of each array that the network gives


class Batcher:
    """Computes what is submitted in batches: all that is there when the network is free, at most
    `largest`.

    Nobody waits for a batch to fill: alone, a picture is computed at once. `compute` gets pixels,
    uint8 (images, 3, size, size), and returns arrays with a row for each image. `on_batch` is told
    the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[np.ndarray], Answer],
        largest: int = LARGEST,
        on_batch: Callable[[int], None] = lambda size: None,
    ):
        self.compute = compute
        self.largest = largest
        self.on_batch = on_batch
        self._waiting: SimpleQueue[tuple[np.ndarray, Future] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def submit(self, pixels: np.ndarray) -> "Future[Answer]":
        """The answer for one picture, uint8 (3, size, size), once it is there. After `close` it is
        computed at once, alone.
        """
        future: Future[Answer] = Future()
        with self._lock:
            if not self._is_closed:
                self._waiting.put((pixels, future))
                return future
        self._answer([(pixels, future)])
        return future

    def close(self):
        """Answer what was submitted, then end the thread."""
        with self._lock:
            self._is_closed = True
            self._waiting.put(None)
        self._thread.join()

    def _run(self):
        is_open = True
        while is_open:
            batch = [self._waiting.get()]
            while len(batch) < self.largest:
                try:
                    batch.append(self._waiting.get_nowait())
                except Empty:
                    break
            is_open = None not in batch
            submitted = [item for item in batch if item is not None]
            if submitted:
                self._answer(submitted)

    def _answer(self, batch: list[tuple[np.ndarray, Future]]):
        pixels = np.stack([picture for picture, _ in batch])
        try:
            arrays = self.compute(pixels)
        except Exception as error:  # noqa: BLE001 (whoever waits for the answer gets it)
            for _, future in batch:
                future.set_exception(error)
            return
        self.on_batch(len(batch))
        for place, (_, future) in enumerate(batch):
            future.set_result(tuple(array[place] for array in arrays))
