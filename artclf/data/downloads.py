"""Downloads: fetch all pending URLs of the catalogue, from many hosts at a time.

Reads URL lists; by `intake` it writes `DATA/raw/` and the catalogue. Step `download` calls it.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from urllib.parse import urlsplit

from artclf.data.catalogue import Catalogue
from artclf.data.fetch import Fetcher
from artclf.data.intake import Failure, Intake, failed_columns
from artclf.data.lists import read_list

LONGEST_WAIT = 120  # seconds; a server that asks for more gets no other try in this run
HOSTS = 64  # hosts that are in turn at a time
SPARE = 6  # rows of each host that may await another try, beside those under way


@dataclass
class Download(Intake):
    """One run of the step: the pictures of URL lists, from many hosts at a time."""

    tries: int = 1
    backoff: float = 0
    total: int = 0

    async def fetch(
        self,
        lists: dict[str, Path],
        fetcher: Fetcher,
        max_per_period: int | None,
        retry_failed: bool,
    ):
        """Add the rows of the lists and fetch all that is pending, from all hosts in turn.

        Each host has some lanes, tasks that take its next row one after the other, so that neither
        a slow host nor one whose rows await another try keeps the others waiting, and no more rows
        than lanes are in memory.
        """
        with Catalogue(self.data) as cat:
            cat.add(
                {"source": _host(row["url"]), **row, "period": period}
                for period, path in lists.items()
                for row in islice(read_list(path), max_per_period)
            )
            self._queue(cat, max_per_period, retry_failed)
            lanes = fetcher.per_host + SPARE
            hosts = _walk(cat, "SELECT rowid, host FROM hosts WHERE 1")
            rows = (rows for host in hosts for rows in repeat(_rows(cat, host), lanes))
            try:
                async with fetcher, asyncio.TaskGroup() as group:
                    for _ in range(HOSTS * lanes):
                        group.create_task(self._lane(cat, rows, fetcher))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors

    def _queue(self, cat: Catalogue, max_per_period: int | None, retry_failed: bool):
        """Write down in tables on disk what to fetch, by rank in the lists, and the hosts, the
        busiest first.
        """
        cat.db.create_function("host", 1, _host, deterministic=True)
        cat.db.execute("CREATE TEMP TABLE queue (id INTEGER, host TEXT)")
        cat.db.execute(
            "INSERT INTO queue SELECT id, host(url) FROM (SELECT rowid AS id, url, status,"
            " row_number() OVER (PARTITION BY period ORDER BY rowid) AS rank FROM images WHERE url NOT LIKE 'import:%')"
            " WHERE rank <= ? AND status IN ('pending', ?) ORDER BY rank",
            (max_per_period or 1 << 62, "failed" if retry_failed else "pending"),
        )
        cat.db.execute("CREATE INDEX temp.by_host ON queue (host)")
        cat.db.execute(
            "CREATE TEMP TABLE hosts AS SELECT host FROM queue GROUP BY host ORDER BY count(*) DESC"
        )
        self.total = cat.db.execute("SELECT count(*) FROM queue").fetchone()[0]

    async def _lane(self, cat: Catalogue, hosts: Iterator[Iterator[dict]], fetch: Fetcher):
        for rows in hosts:
            for row in rows:
                self.record(cat, row, await self._outcome(row, fetch))

    async def _outcome(self, row: dict, fetch: Fetcher) -> dict:
        """What there is to say of a row in the end: fetch it, again and again if that makes
        sense.
        """
        for tries in range(1, self.tries + 1):
            try:
                picture = await fetch(row["url"])
                return {**self.place(row, picture), "tries": row["tries"] + tries}
            except Failure as error:
                failure = error
            if not failure.retry or tries == self.tries:
                break
            if (failure.retry_after or 0) > LONGEST_WAIT:
                failure = Failure(
                    f"{failure.reason}, try again in over {LONGEST_WAIT} s", failure.http_status
                )
                break
            pause = self.backoff * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(pause, failure.retry_after or 0))
        return {**failed_columns(failure), "tries": row["tries"] + tries}


def _rows(cat: Catalogue, host: str) -> Iterator[dict]:
    """The rows to fetch from a host."""
    for rowid in _walk(cat, "SELECT rowid, id FROM queue WHERE host = ?", host):
        yield cat.select("rowid = ?", (rowid,))[0]


def _walk(cat: Catalogue, query: str, *args) -> Iterator:
    """The second column of a query, row by row; an open cursor would keep SQLite from ever
    shortening its log.
    """
    last = 0
    while found := cat.db.execute(
        f"{query} AND rowid > ? ORDER BY rowid LIMIT 1", (*args, last)
    ).fetchone():
        last, value = found
        yield value


def _host(url: str) -> str:
    """The host that a URL names, or nothing."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def run_in_thread(main: Callable, show: Callable[[], None]):
    """Run the coroutine `main()` in a thread of its own, a notebook's having a loop that runs, and
    call `show` now and then. Ctrl-C cancels the coroutine and waits for its end.
    """
    started = Future()

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
            loop.call_soon_threadsafe(task.cancel)
            raise
        running.result()
        show()
