"""Patience: until when hosts asked to be left alone, in this run and, after its end, in the next.

Reads and writes the table `patience` of the catalogue, whose times are seconds since 1970.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic, time

from artclf.base.remembered import Remembered
from artclf.data.catalogue import Catalogue
from artclf.data.intake import Failure

NAME = "patience"
TABLE = f"CREATE TABLE IF NOT EXISTS {NAME} (host TEXT PRIMARY KEY, open_at REAL NOT NULL)"
LONGEST = 86400  # seconds; a host that asks for more is asked again after a day
LONGEST_WAIT = 120  # seconds; a host that wants more patience is not asked again in this run
REMEMBERED_HOSTS = 4096  # the table knows the others that are closed


def drop_expired(catalogue: Catalogue):
    """Forget what is over, and what a clock that was wrong has noted; makes the table."""
    now = time()
    catalogue.db.execute(TABLE)
    catalogue.db.execute(
        f"DELETE FROM {NAME} WHERE open_at NOT BETWEEN ? AND ?", (now, now + LONGEST)
    )


def keep(catalogue: Catalogue, host: str, seconds: float):
    """Note that `host` asks to be left alone for so many seconds from now on."""
    open_at = time() + min(seconds, LONGEST)
    catalogue.db.execute(f"INSERT OR REPLACE INTO {NAME} VALUES (?, ?)", (host, open_at))


def seconds_left(catalogue: Catalogue, host: str) -> float:
    """For how many seconds `host` is still to be left alone."""
    row = catalogue.db.execute(f"SELECT open_at FROM {NAME} WHERE host = ?", (host,)).fetchone()
    return max(0.0, row["open_at"] - time()) if row else 0.0


class Patience:
    """The patience that a host asks for by http 429, or by http 5xx with Retry-After.

    Nobody asks it before the time is over, and from then on one row is asked for at a time. A host
    that answers nothing else gets twice the wait the second time, three times the wait the third
    time and so on, `LONGEST_WAIT` seconds in all; then it is given up. `backoff` is the wait in
    seconds of one that names none. What it asked an earlier run for holds, too.
    """

    def __init__(self, catalogue: Catalogue, backoff: float, host: str):
        self.catalogue = catalogue
        self.backoff = backoff
        self.host = host
        self.turn = asyncio.Lock()  # of the one row that is asked for
        self.closed_at = 0.0  # when it last asked for patience
        self.given_up: str | None = None  # the reason
        self.last_status: int | None = None
        self.answers = 0  # the number of times that it did not ask for patience
        self.note_answer()
        seconds = seconds_left(catalogue, host)
        self.is_asked_for = seconds > 0
        self.open_at = monotonic() + seconds  # when it may be asked again
        if seconds > LONGEST_WAIT:
            self.given_up = f"asked for patience before, try again in over {LONGEST_WAIT} s"

    def failure(self) -> Failure:
        """That of a row whose host is given up."""
        return Failure(self.given_up or "", self.last_status)

    async def until_open(self):
        """Wait until the host may be asked again."""
        await asyncio.sleep(max(0, self.open_at - monotonic()))

    def note_answer(self):
        """The next refusal is a first one again."""
        self.answers += 1
        self.refusals = 0
        self.patience_left = LONGEST_WAIT

    def close(self, failure: Failure, asked_at: float):
        """Nobody asks the host for as long as it wants; or never again, where it wants too much."""
        now = monotonic()
        wanted = failure.retry_after or 0
        self.is_asked_for = True
        self.last_status = failure.http_status
        if asked_at < self.closed_at:  # it was under way when the host closed
            self.open_at = max(self.open_at, now + wanted)
            keep(self.catalogue, self.host, self.open_at - now)
            return
        self.refusals += 1
        wait = max(wanted, self.backoff) * self.refusals
        self.closed_at = now
        self.open_at = now + wait
        self.patience_left -= wait
        keep(self.catalogue, self.host, wait)
        if wanted > LONGEST_WAIT:
            self.given_up = f"{failure.reason}, try again in over {LONGEST_WAIT} s"
        elif self.patience_left < 0:
            self.given_up = f"{failure.reason} again and again, try later"


class Closed(Exception):
    """The host of `patience` asks for it, so that a request was not sent."""

    def __init__(self, patience: Patience):
        super().__init__(patience.host)
        self.patience = patience


class Refused(Closed):
    """The host of `patience` asked for it by `failure`, when a request was sent."""

    def __init__(self, patience: Patience, failure: Failure):
        super().__init__(patience)
        self.failure = failure


Patiences = Remembered[str, Patience]


def patience_of_hosts(catalogue: Catalogue, backoff: float) -> Patiences:
    """The patience of each host that is asked in this run, by its name."""
    return Remembered(partial(Patience, catalogue, backoff), REMEMBERED_HOSTS)


class Attempt:
    """The requests for one row, which keep to the patience of each host on the way.

    The row is one of the host of `home`, which is asked if it has not closed since it was to be open
    at `open_at`. Other hosts are not asked when they are closed. Where they have ever asked for
    patience they are only asked if the row `may_pass`, because from then on one row is asked for at
    a time.
    """

    def __init__(self, patiences: Patiences, home: Patience, may_pass: bool):
        self.patiences = patiences
        self.home = home
        self.open_at = home.open_at
        self.may_pass = may_pass
        self.answered: set[Patience] = set()

    @contextmanager
    def turn(self, host: str) -> Iterator:
        """The turn of a request to `host`, as `fetch.Fetcher` wants it. Raises Closed, and
        Refused.
        """
        with self.patiences.using(host) as patience:
            asked_at = monotonic()

            def before():
                nonlocal asked_at
                asked_at = monotonic()
                self._check(patience)

            self._check(patience)
            try:
                yield before
            except Failure as failure:
                if failure.wants_patience:
                    self.answered.discard(patience)
                    patience.close(failure, asked_at)
                    raise Refused(patience, failure) from failure
                self.answered.add(patience)
                raise
            self.answered.add(patience)

    def _check(self, patience: Patience):
        """Raise Closed where the host may not be asked now."""
        if patience is self.home:
            is_closed = patience.open_at != self.open_at
        elif self.may_pass:
            is_closed = patience.given_up is not None or patience.open_at > monotonic()
        else:
            is_closed = patience.is_asked_for
        if is_closed:
            raise Closed(patience)

    def end(self):
        """Note which hosts answered. A redirect before a refusal of the same host is no answer."""
        for patience in self.answered:
            patience.note_answer()
