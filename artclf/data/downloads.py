"""Downloads: fetch all pending URLs of the catalogue, from many hosts at a time.

Reads URL lists; writes `DATA/raw/` and the catalogue by `intake`. Step `download` calls it.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from artclf.data.catalogue import Catalogue
from artclf.data.fetch import Fetcher
from artclf.data.intake import Failure, Intake, failed_columns
from artclf.data.lists import read_list

LONGEST_WAIT = 120  # seconds; a server that asks for more is not tried again in this run
HOSTS = 64  # hosts that are fetched from at a time
SPARE_WORKERS = 6  # per host, beside those with requests: each may wait to retry a row
NO_LIMIT = 1 << 62  # rows


@dataclass
class Download(Intake):
    """One run of the step: the pictures of URL lists, from many hosts at a time.

    A row is tried at most `max_tries` times, the second time after about `backoff` seconds, each
    further time after twice the wait. `total` is the number of rows to fetch.
    """

    max_tries: int = 1
    backoff: float = 0
    total: int = 0

    async def fetch(
        self,
        lists: dict[str, Path],
        fetcher: Fetcher,
        max_per_period: int | None,
        retry_failed: bool,
    ):
        """Add the rows of the lists to the catalogue, and fetch all that are pending.

        Each host has a queue and some workers. A worker takes the next row when it is done with
        one. So neither a slow host nor one whose rows wait for another try keeps the others
        waiting, and no more rows than workers are in memory.
        """
        with Catalogue(self.data) as catalogue:
            catalogue.add(_rows_of_lists(lists, max_per_period))
            self.total = _fill_queues(catalogue, max_per_period, retry_failed)
            workers = fetcher.per_host + SPARE_WORKERS
            queues = _queues(catalogue, workers)
            try:
                async with fetcher, asyncio.TaskGroup() as group:
                    for _ in range(HOSTS * workers):
                        group.create_task(self._work(catalogue, queues, fetcher))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors

    async def _work(self, catalogue: Catalogue, queues: Iterator["HostQueue"], fetcher: Fetcher):
        """Fetch from one host until no row is left, then from the next."""
        for queue in queues:
            row = queue.take()
            while row is not None:
                outcome = await self._outcome(row, fetcher)
                self.record(catalogue, row, outcome)
                row = queue.take()

    async def _outcome(self, row: dict, fetcher: Fetcher) -> dict:
        """The columns of the catalogue for a row, after as many attempts as make sense."""
        for attempt in range(1, self.max_tries + 1):
            tries = row["tries"] + attempt  # with those of earlier runs
            try:
                picture = await fetcher(row["url"])
                return {**self.write_picture(row, picture), "tries": tries}
            except Failure as error:
                failure = error
            if not failure.retry or attempt == self.max_tries:
                break
            asked_to_wait = failure.retry_after or 0
            if asked_to_wait > LONGEST_WAIT:
                reason = f"{failure.reason}, try again in over {LONGEST_WAIT} s"
                failure = Failure(reason, failure.http_status)
                break
            pause = self.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(pause, asked_to_wait))
        return {**failed_columns(failure), "tries": tries}


def _rows_of_lists(lists: dict[str, Path], max_per_period: int | None) -> Iterator[dict]:
    for period, path in lists.items():
        for row in islice(read_list(path), max_per_period):
            yield {"source": host_of(row["url"]), **row, "period": period}


def _fill_queues(catalogue: Catalogue, max_per_period: int | None, retry_failed: bool) -> int:
    """Write what to fetch to two temporary tables, and return the number of rows.

    `queue` has the rows, by their rank in the lists; `hosts` has their hosts, those with most rows
    first.
    """
    db = catalogue.db
    db.create_function("host", 1, host_of, deterministic=True)
    db.execute("CREATE TEMP TABLE queue (id INTEGER, host TEXT)")
    db.execute(
        """
        INSERT INTO queue
        SELECT id, host(url)
        FROM (
            SELECT rowid AS id, url, status,
                row_number() OVER (PARTITION BY period ORDER BY rowid) AS rank
            FROM images
            WHERE url NOT LIKE 'import:%'
        )
        WHERE rank <= ? AND (status = 'pending' OR (status = 'failed' AND ?))
        ORDER BY rank
        """,
        (max_per_period or NO_LIMIT, retry_failed),
    )
    db.execute("CREATE INDEX temp.by_host ON queue (host)")
    db.execute(
        "CREATE TEMP TABLE hosts AS SELECT host FROM queue GROUP BY host ORDER BY count(*) DESC"
    )
    return db.execute("SELECT count(*) FROM queue").fetchone()[0]


def _queues(catalogue: Catalogue, workers: int) -> Iterator["HostQueue"]:
    """The queue of each host, once for each of its workers."""
    last = 0
    while True:
        # row by row: an open cursor would keep SQLite from ever shortening its log
        row = catalogue.db.execute(
            "SELECT rowid, host FROM hosts WHERE rowid > ? ORDER BY rowid LIMIT 1", (last,)
        ).fetchone()
        if row is None:
            return
        last, host = row
        queue = HostQueue(catalogue, host)
        for _ in range(workers):
            yield queue


class HostQueue:
    """The rows of one host that wait to be fetched, read from the table `queue` one by one."""

    def __init__(self, catalogue: Catalogue, host: str):
        self.catalogue = catalogue
        self.host = host
        self.last = 0  # rowid of the row that was taken last

    def take(self) -> dict | None:
        """The next row of the catalogue; None at the end."""
        row = self.catalogue.db.execute(
            "SELECT rowid, id FROM queue WHERE host = ? AND rowid > ? ORDER BY rowid LIMIT 1",
            (self.host, self.last),
        ).fetchone()
        if row is None:
            return None
        self.last, rowid = row
        return self.catalogue.select("rowid = ?", (rowid,))[0]


def host_of(url: str) -> str:
    """The host that a URL names, or ''."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def run_in_thread(main: Callable, show: Callable[[], None]):
    """Run the coroutine `main()` in a thread of its own, and call `show` now and then.

    In a thread, because a notebook's own has a running loop. Ctrl-C cancels the coroutine and waits
    for its end.
    """
    started: Future = Future()

    async def run():
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        await main()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(run()))
        try:
            while wait([running], timeout=0.2).not_done:
                show()
        except BaseException:
            loop, task = started.result()
            with suppress(RuntimeError):  # the coroutine may be done by now, and its loop closed
                loop.call_soon_threadsafe(task.cancel)
            raise
        running.result()
        show()
