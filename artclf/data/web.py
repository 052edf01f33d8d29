"""Web: pictures by their URL, for code that waits for them, with the fetcher of step download.

Asks the network and writes nothing.
"""

import asyncio
import threading

from artclf.base.extras import require
from artclf.data.intake import Failure
from artclf.data.pictures import Rejected


class WebPictures:
    """A context manager; `read(url)` gives the bytes of a picture, in any thread.

    All requests share one `fetch.Fetcher`, which keeps to its limits and to robots.txt, and goes to
    public addresses only. It runs in a thread of its own, because a notebook has an event loop that
    is busy; the thread starts with the first URL. `settings` are the fetcher's.
    """

    def __init__(self, **settings):
        self._settings = settings
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._loop is None:
            return
        self._run(self._fetcher.__aexit__(*exc))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def read(self, url: str) -> bytes:
        """The bytes of the picture behind `url`. Raises Rejected, which says why there is none."""
        try:
            require("train", "aiohttp", "protego", "yarl")
        except ImportError as error:
            raise Rejected(str(error)) from error
        with self._lock:
            if self._loop is None:
                self._start()
        try:
            return self._run(self._fetcher(url)).body
        except Failure as failure:
            raise Rejected(failure.reason) from failure

    def _start(self):
        from artclf.data.fetch import Fetcher

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._fetcher = Fetcher(**self._settings)
        self._run(self._fetcher.__aenter__())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
