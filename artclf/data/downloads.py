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

from artclf.data.catalogue import Catalogue
from artclf.data.fetch import MOST_HOSTS, Fetcher
from artclf.data.intake import Failure, Fetched, Intake, failed_columns, write_picture
from artclf.data.lists import read_list
from artclf.data.pace import HostPace, Pace
from artclf.data.patience import (
    Attempt,
    Closed,
    Patience,
    Patiences,
    Refused,
    drop_expired,
    patience_of_hosts,
)
from artclf.data.queues import Queues, host_of

HOSTS = 64  # hosts that are fetched from at a time, for each process that sends requests
MOST_MOVES = 10  # of a row, which hosts on its way refuse in turn
SPARE_WORKERS = 6  # per host, beside those with requests: each may wait to retry a row

Keep = Callable[[Fetched], dict]  # keeps a picture, and returns its columns of the catalogue


@dataclass
class Download(Intake):
    """One run of the step: the pictures of URL lists, from many hosts at a time.

    A row is tried at most `max_tries` times, the second time after about `backoff` seconds, each
    further time after twice the wait; the times when a host asks for patience (see `Host`) don't
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
            drop_expired(catalogue)
            queues = Queues(catalogue, max_per_period, retry_failed)
            self.total = queues.total
            self.pace.start(self.total)
            try:
                async with fetcher, asyncio.TaskGroup() as group:
                    workers = _Workers(self, catalogue, queues, fetcher, group)
                    workers.start(workers.most)
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors

    async def outcome(self, row: dict, host: "Host") -> dict:
        """The columns of the catalogue for a row, after as many attempts as make sense. Raises
        Closed as `Host.fetch` does; what failed before is in the row's `failures`.
        """
        # as a worker of a cluster, which has another working folder, takes it
        keep = partial(write_picture, self.data.absolute(), self.tmp, row["url"], row["period"])
        while True:
            try:
                columns = await host.fetch(row, keep)
                return {**columns, "tries": row["tries"]}
            except Failure as error:
                failure = error
            row["failures"] += 1
            if not failure.retry or failure.wants_patience or row["failures"] >= self.max_tries:
                return {**failed_columns(failure), "tries": row["tries"]}
            wait = self.backoff * 2 ** (row["failures"] - 1)
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))


def _rows_of_lists(lists: dict[str, Path], max_per_period: int | None) -> Iterator[dict]:
    for period, path in lists.items():
        for row in islice(read_list(path), max_per_period):
            yield {"source": host_of(row["url"]), **row, "period": period}


class _Workers:
    """What fetches the rows of all hosts: some workers for each of so many hosts at a time."""

    def __init__(
        self,
        run: Download,
        catalogue: Catalogue,
        queues: Queues,
        fetcher: Fetcher,
        group: asyncio.TaskGroup,
    ):
        self.run = run
        self.catalogue = catalogue
        self.queues = queues
        self.fetcher = fetcher
        self.group = group
        self.patiences = patience_of_hosts(catalogue, run.backoff)
        self.a_host = fetcher.per_host + SPARE_WORKERS  # workers
        self.most = self.a_host * min(HOSTS * fetcher.size, MOST_HOSTS)
        self.number = 0
        self.hosts: dict[str, Host] = {}  # that have workers
        self.lacking: list[Host] = []  # hosts, each once for every further worker that it may have

    def start(self, number: int):
        """Let so many workers begin, as far as there is room for them."""
        for _ in range(min(number, self.most - self.number)):
            self.number += 1
            self.group.create_task(self._work())

    async def _work(self):
        """Fetch from one host until no row is left, then from the next."""
        while (host := self._next_host()) is not None:
            host.workers += 1
            with self.patiences.using(host.patience.host):
                await self._work_at(host)
            host.workers -= 1
            self.lacking = [other for other in self.lacking if other is not host]  # no row is left
            if not host.workers:
                del self.hosts[host.patience.host]
        self.number -= 1

    def _next_host(self) -> "Host | None":
        """The host that a free worker fetches from; None at the end."""
        if not self.lacking:
            found = self.queues.next_host()
            if found is None:
                return None
            name, number = found
            pace = self.run.pace.host(name, number)
            with self.patiences.using(name) as patience:
                host = Host(self.patiences, patience, self.fetcher, pace, self.run.max_tries)
            self.hosts[name] = host
            self.lacking = [host] * self.a_host
        return self.lacking.pop()

    async def _work_at(self, host: "Host"):
        """Fetch the rows of a host until none is left."""
        while (row := self.queues.take(host.patience.host)) is not None:
            try:
                outcome = await self.run.outcome(row, host)
            except Closed as closed:
                self._move(row, host, closed.patience.host)
            else:
                self.run.record(self.catalogue, row, outcome)
                self.run.pace.note(host.pace)

    def _move(self, row: dict, host: "Host", name: str):
        """Let a row of `host` wait as the rows of the host `name` do, to which it leads."""
        self.queues.move(row, name)
        new_host = self.hosts.get(name)
        self.run.pace.move(host.pace, new_host.pace if new_host else None)
        if new_host is None:
            self.queues.add_host(name)
            self.start(self.a_host)
        elif new_host.workers + self.lacking.count(new_host) < self.a_host:
            self.lacking.append(new_host)
            self.start(1)


class Host:
    """How the rows of one host are fetched: few at a time, and with the patience that it asks for.

    It gets that with all of its rows (see `Patience`); where it is given up, what is left of them
    fails without being asked for. A redirect, also that of a robots.txt, may lead a row to another
    host that asks for patience. Then the row moves to the queue of that host, so that it keeps no
    row of this host waiting, and begins anew there. A row that has moved waits where it is for others
    that are closed, and moves only to one that refuses it.
    """

    def __init__(
        self,
        patiences: Patiences,
        patience: Patience,
        fetcher: Fetcher,
        pace: HostPace,
        max_tries: int,
    ):
        self.patiences = patiences
        self.patience = patience
        self.fetcher = fetcher
        self.pace = pace
        self.max_tries = max_tries
        self.workers = 0
        self.places = asyncio.Semaphore(fetcher.per_host)  # until it asks for patience

    async def fetch(self, row: dict, keep: Keep) -> dict:
        """What `keep` returns of the picture of a row; counts every request in its `tries`. Raises
        Failure, and Closed where the row should move to another host.
        """
        while True:
            try:
                return await self._fetch(row, keep)
            except Closed as error:
                closed = error
            if closed.patience.given_up:
                raise closed.patience.failure()
            if not row["moves"]:
                raise closed
            if isinstance(closed, Refused):
                raise closed if row["moves"] < MOST_MOVES else closed.failure
            await closed.patience.until_open()

    async def _fetch(self, row: dict, keep: Keep) -> dict:
        """What `fetch` returns. Raises Failure, and Closed where another host asks for patience."""
        async with self.places:
            if not self.patience.is_asked_for:
                try:
                    return await self._ask(row, keep, self._attempt(row))
                except Closed as closed:
                    if closed.patience is not self.patience:
                        raise
                    # it goes on below, as all rows from now on
        answers_before = None
        while True:
            async with self.patience.turn:
                for _ in range(self.max_tries):
                    try:
                        return await self._ask_when_open(row, keep)
                    except Refused as refused:
                        if refused.patience is not self.patience:
                            raise
                        failure = refused.failure
            # Other rows have their turn now. If the host answers those, this row is to blame.
            if answers_before is not None and self.patience.answers > answers_before:
                raise failure
            answers_before = self.patience.answers

    async def _ask_when_open(self, row: dict, keep: Keep) -> dict:
        """What `fetch` returns, when the host may be asked again. Raises Failure, Refused, and
        Closed of another host.
        """
        while not self.patience.given_up:
            attempt = self._attempt(row)
            await self.patience.until_open()
            try:
                return await self._ask(row, keep, attempt)
            except Refused:
                raise
            except Closed as closed:
                if closed.patience is not self.patience:
                    raise
        raise self.patience.failure()

    def _attempt(self, row: dict) -> Attempt:
        return Attempt(self.patiences, self.patience, may_pass=row["moves"] > 0)

    async def _ask(self, row: dict, keep: Keep, attempt: Attempt) -> dict:
        """What `fetch` returns. Raises Failure, and Closed or Refused of any host on the way."""
        row["tries"] += 1
        try:
            return await self.fetcher(row["url"], keep, attempt.turn)
        except Refused:
            raise
        except Closed:
            row["tries"] -= 1
            raise
        finally:
            attempt.end()


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
