"""Downloads: fetch all pending URLs of the catalogue, from many hosts at a time.

Reads URL lists; writes `DATA/raw/` and the catalogue by `intake`. Step `download` calls it.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from artclf.data import patience
from artclf.data.catalogue import Catalogue
from artclf.data.fetch import Fetcher
from artclf.data.intake import Failure, Fetched, Intake, failed_columns, write_picture
from artclf.data.lists import read_list
from artclf.data.pace import HostPace, Pace

LONGEST_WAIT = 120  # seconds; a host that wants more patience is not asked again in this run
HOSTS = 64  # hosts that are fetched from at a time, for each process that sends requests
MOST_HOSTS = 2048  # at a time, of all processes; each needs memory here
SPARE_WORKERS = 6  # per host, beside those with requests: each may wait to retry a row
NO_LIMIT = 1 << 62  # rows

Keep = Callable[[Fetched], dict]  # keeps a picture, and returns its columns of the catalogue


@dataclass
class Download(Intake):
    """One run of the step: the pictures of URL lists, from many hosts at a time.

    A row is tried at most `max_tries` times, the second time after about `backoff` seconds, each
    further time after twice the wait; the times when its host asks for patience (see `Host`) don't
    count. `total` is the number of rows to fetch; `pace` knows how fast their hosts give them.
    """

    max_tries: int = 1
    backoff: float = 0
    total: int = 0
    pace: Pace = field(default_factory=Pace)

    async def fetch(
        self,
        lists: dict[str, Path],
        fetcher: Fetcher,
        max_per_period: int | None,
        retry_failed: bool,
    ):
        """Add the rows of the lists to the catalogue, and fetch all that are pending.

        Each host has a queue and some workers. A worker takes the next row when it is done with
        one. So neither a slow host nor one that waits for another try keeps the others waiting, and
        no more rows than workers are in memory.
        """
        with Catalogue(self.data) as catalogue:
            catalogue.add(_rows_of_lists(lists, max_per_period))
            patience.drop_expired(catalogue)
            self.total = _fill_queues(catalogue, max_per_period, retry_failed)
            self.pace.start(self.total)
            workers = fetcher.per_host + SPARE_WORKERS
            hosts = self._hosts(catalogue, fetcher, workers)
            try:
                async with fetcher, asyncio.TaskGroup() as group:
                    for _ in range(workers * min(HOSTS * fetcher.size, MOST_HOSTS)):
                        group.create_task(self._work(catalogue, hosts))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors

    def _hosts(self, catalogue: Catalogue, fetcher: Fetcher, workers: int) -> Iterator["Host"]:
        """Each host that the table `hosts` names, once for each of its workers."""
        last = 0
        while True:
            # row by row: an open cursor would keep SQLite from ever shortening its log
            row = catalogue.db.execute(
                "SELECT rowid, host, number FROM hosts WHERE rowid > ? ORDER BY rowid LIMIT 1",
                (last,),
            ).fetchone()
            if row is None:
                return
            last, name, number = row
            pace = self.pace.host(name, number)
            host = Host(catalogue, name, fetcher, pace, self.max_tries, self.backoff)
            for _ in range(workers):
                yield host

    async def _work(self, catalogue: Catalogue, hosts: Iterator["Host"]):
        """Fetch from one host until no row is left, then from the next."""
        for host in hosts:
            row = host.take()
            while row is not None:
                outcome = await self._outcome(row, host)
                self.record(catalogue, row, outcome)
                self.pace.note(host.pace)
                row = host.take()

    async def _outcome(self, row: dict, host: "Host") -> dict:
        """The columns of the catalogue for a row, after as many attempts as make sense."""
        # as a worker of a cluster, which has another working folder, takes it
        keep = partial(write_picture, self.data.absolute(), self.tmp, row["url"], row["period"])
        for attempt in range(1, self.max_tries + 1):
            try:
                columns = await host.fetch(row, keep)
                return {**columns, "tries": row["tries"]}
            except Failure as error:
                failure = error
            if not failure.retry or failure.wants_patience or attempt == self.max_tries:
                break
            await asyncio.sleep(self.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        return {**failed_columns(failure), "tries": row["tries"]}


def _rows_of_lists(lists: dict[str, Path], max_per_period: int | None) -> Iterator[dict]:
    for period, path in lists.items():
        for row in islice(read_list(path), max_per_period):
            yield {"source": host_of(row["url"]), **row, "period": period}


def _fill_queues(catalogue: Catalogue, max_per_period: int | None, retry_failed: bool) -> int:
    """Write what to fetch to two temporary tables, and return the number of rows.

    `queue` has the rows, those with fewest tries first, else by their rank in the lists; `hosts`
    has their hosts, those with most rows first.
    """
    db = catalogue.db
    db.create_function("host", 1, host_of, deterministic=True)
    db.execute("CREATE TEMP TABLE queue (id INTEGER, host TEXT)")
    db.execute(
        """
        INSERT INTO queue
        SELECT id, host(url)
        FROM (
            SELECT rowid AS id, url, status, tries,
                row_number() OVER (PARTITION BY period ORDER BY rowid) AS rank
            FROM images
            WHERE url NOT LIKE 'import:%' AND url NOT LIKE 'upload:%'
        )
        WHERE rank <= ? AND (status = 'pending' OR (status = 'failed' AND ?))
        ORDER BY tries, rank
        """,
        (max_per_period or NO_LIMIT, retry_failed),
    )
    db.execute("CREATE INDEX temp.by_host ON queue (host)")
    db.execute(
        """
        CREATE TEMP TABLE hosts AS
        SELECT host, count(*) AS number FROM queue GROUP BY host ORDER BY number DESC
        """
    )
    return db.execute("SELECT count(*) FROM queue").fetchone()[0]


class Closed(Exception):
    """The host asks for patience since a request waits for its turn."""


class Host:
    """The rows of one host that wait to be fetched, and the patience that it asks for.

    A host asks for patience by http 429, or by http 5xx with Retry-After. It gets that with all of
    its rows: nobody asks it before the time is over, and from then on one row is asked for at a
    time. A host that answers nothing else gets twice the wait the second time, three times the wait
    the third time and so on, `LONGEST_WAIT` seconds in all; then it is given up, and what is left
    of its rows fails without being asked for. What it asked an earlier run for holds, too.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        name: str,
        fetcher: Fetcher,
        pace: HostPace,
        max_tries: int,
        backoff: float,
    ):
        self.catalogue = catalogue
        self.name = name
        self.fetcher = fetcher
        self.pace = pace
        self.max_tries = max_tries
        self.backoff = backoff
        self.last = 0  # rowid of the row that was taken last
        self.places = asyncio.Semaphore(fetcher.per_host)  # until it asks for patience
        self.turn = asyncio.Lock()  # of the one row that is asked for, from then on
        self.is_patient = False
        self.closed_at = 0.0  # when it last asked for patience
        self.open_at = 0.0  # when it may be asked again
        self.given_up: str | None = None  # the reason
        self.last_status: int | None = None
        self.answers = 0  # the number of times that it did not ask for patience
        self._note_answer()
        self._heed_earlier_run()

    def take(self) -> dict | None:
        """The next row of the catalogue; None at the end."""
        row = self.catalogue.db.execute(
            "SELECT rowid, id FROM queue WHERE host = ? AND rowid > ? ORDER BY rowid LIMIT 1",
            (self.name, self.last),
        ).fetchone()
        if row is None:
            return None
        self.last, rowid = row
        return self.catalogue.select("rowid = ?", (rowid,))[0]

    async def fetch(self, row: dict, keep: Keep) -> dict:
        """What `keep` returns of the picture of a row; counts every request in its `tries`. Raises
        Failure.
        """
        async with self.places:
            if not self.is_patient:
                try:
                    return await self._ask(row, keep, self.open_at)
                except Closed:
                    pass  # it goes on below, as all rows from now on
                except Failure as refusal:
                    if not refusal.wants_patience:
                        raise
        answers_before = None
        while True:
            async with self.turn:
                for _ in range(self.max_tries):
                    try:
                        return await self._ask_when_open(row, keep)
                    except Failure as error:
                        failure = error
                    if not failure.wants_patience:
                        raise failure
            # Other rows have their turn now. If the host answers those, this row is to blame.
            if answers_before is not None and self.answers > answers_before:
                raise failure
            answers_before = self.answers

    async def _ask_when_open(self, row: dict, keep: Keep) -> dict:
        """What `fetch` returns, when the host may be asked again. Raises Failure."""
        while not self.given_up:
            open_at = self.open_at
            await asyncio.sleep(max(0, open_at - monotonic()))
            with suppress(Closed):
                return await self._ask(row, keep, open_at)
        raise Failure(self.given_up, self.last_status)

    async def _ask(self, row: dict, keep: Keep, open_at: float) -> dict:
        """What `fetch` returns; notes whether the host asks for patience. Raises Failure, and Closed
        where the host is no longer open since `open_at` when the request is about to be sent.
        """
        asked_at = monotonic()
        row["tries"] += 1

        def before():
            nonlocal asked_at
            asked_at = monotonic()
            if self.open_at != open_at:
                raise Closed

        try:
            columns = await self.fetcher(row["url"], keep, before)
        except Closed:
            row["tries"] -= 1
            raise
        except Failure as failure:
            if failure.wants_patience:
                self._close(failure, asked_at)
            else:
                self._note_answer()
            raise
        self._note_answer()
        return columns

    def _heed_earlier_run(self):
        """Leave the host alone for as long as it asked a run before."""
        seconds = patience.seconds_left(self.catalogue, self.name)
        self.is_patient = seconds > 0
        self.open_at = monotonic() + seconds
        if seconds > LONGEST_WAIT:
            self.given_up = f"asked for patience before, try again in over {LONGEST_WAIT} s"

    def _note_answer(self):
        """The next refusal is a first one again."""
        self.answers += 1
        self.refusals = 0
        self.patience_left = LONGEST_WAIT

    def _close(self, failure: Failure, asked_at: float):
        """Nobody asks the host for as long as it wants; or never again, where it wants too much."""
        now = monotonic()
        wanted = failure.retry_after or 0
        self.is_patient = True
        self.last_status = failure.http_status
        if asked_at < self.closed_at:  # it was under way when the host closed
            self.open_at = max(self.open_at, now + wanted)
            patience.keep(self.catalogue, self.name, self.open_at - now)
            return
        self.refusals += 1
        wait = max(wanted, self.backoff) * self.refusals
        self.closed_at = now
        self.open_at = now + wait
        self.patience_left -= wait
        patience.keep(self.catalogue, self.name, wait)
        if wanted > LONGEST_WAIT:
            self.given_up = f"{failure.reason}, try again in over {LONGEST_WAIT} s"
        elif self.patience_left < 0:
            self.given_up = f"{failure.reason} again and again, try later"


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
