"""Fetch: the bytes of the picture behind a URL, or the reason in words why there is none.

Holds the limits of each host, obeys robots.txt, and follows redirects; the requests are those of a
`client`. Which URLs are fetched, in which order and how often: `downloads`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from protego import Protego
from yarl import URL

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.remembered import Remembered
from artclf.data.client import Client, Question, Response, parse_url
from artclf.data.intake import Failure, Fetched, probe
from artclf.data.patience import Closed
from artclf.data.pictures import MAX_PIXELS

HOMEPAGE = "https://github.com/artclf/artclf"
MAX_REDIRECTS = 10
ROBOTS_BYTES = 1 << 20  # of a robots.txt that are read
MOST_HOSTS = 2048  # that a download fetches from at a time; each needs memory
REMEMBERED_HOSTS = 2 * MOST_HOSTS  # with those that they redirect to
LONGEST_CRAWL_DELAY = 120  # seconds; a host that asks for more is not fetched from

Before = Callable[[], None]  # is called when a request is about to be sent, and may raise
Turn = Callable[[str], AbstractContextManager[Before]]


class Limits:
    """What holds for the requests to one host: how many at a time, and the Crawl-delay of its
    robots.txt (seconds).
    """

    def __init__(self, per_host: int):
        self.places = asyncio.Semaphore(per_host)
        self.crawl_delay = 0.0
        self.turn = asyncio.Lock()  # of the one request, where there is a Crawl-delay
        self.open_at = 0.0  # when the host may be asked again

    @asynccontextmanager
    async def place(self):
        """Wait until the host may be asked: with a Crawl-delay for one thing at a time, and so long
        after the last one.
        """
        if not self.crawl_delay:
            async with self.places:
                yield
            return
        async with self.turn:
            await asyncio.sleep(max(0, self.open_at - monotonic()))
            async with self.places:
                is_asked = True
                try:
                    yield
                except Closed:
                    is_asked = False
                    raise
                finally:
                    if is_asked:
                        self.open_at = monotonic() + self.crawl_delay

    def is_pausing(self) -> bool:
        """Whether the Crawl-delay after the last request is not over."""
        return self.open_at > monotonic()


class Rules:
    """What a robots.txt asks of artclf, by RFC 9309 and its Crawl-delay (seconds)."""

    def __init__(self, text: str):
        self.paths = Protego.parse(text)
        self.crawl_delay = self.paths.crawl_delay("artclf") or 0


NO_RULES = Rules("")


@dataclass
class Origin:
    """A scheme, host and port, with the task that reads its robots.txt."""

    reading: asyncio.Task | None = None


def as_it_is(thing):
    """The thing that was given."""
    return thing


def at_once():
    """Do nothing before a request."""


@contextmanager
def any_time(host: str) -> Iterator[Before]:
    """The turn of a request to a host that needs no further patience than its limits."""
    yield at_once


@dataclass
class Fetcher:
    """An async context manager; `await fetcher(url)` returns `Fetched` or raises `Failure`.

    At most `per_host` requests to one host and `total` over all are under way. An image may take
    `deadline` seconds, with redirects but without waiting for its turn, and have at most
    `max_bytes` and `max_pixels` (Pillow's own limit, 178 million, also applies). `contact` is a
    page or mail address for the User-Agent. `robots=False` ignores robots.txt, its Crawl-delay, too,
    and `X-Robots-Tag: noai, noimageai`. Addresses that are not on the public internet are refused, but for
    `allowed_address`, an IP address with its port such as `127.0.0.1:8000`; `allow_private` allows
    all of them.

    This process sends the requests, or the workers of a cluster do: `engine` makes of a `Client`
    what asks in its place. All limits are held here, for all workers together; `total` is that of
    each worker.
    """

    contact: str = HOMEPAGE
    per_host: int = 2
    total: int = 32
    deadline: float = 60
    max_bytes: int = 32 << 20
    max_pixels: int = MAX_PIXELS
    robots: bool = True
    allow_private: bool = False
    allowed_address: str | None = None
    engine: Callable[[Client], Any] | None = None

    def __post_init__(self):
        if not self.contact.isprintable():
            raise InputError(f"the contact {self.contact!r} must be one printable line")
        settings.check(
            per_host=self.per_host,
            total=self.total,
            deadline=self.deadline,
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
        )
        client = Client(
            self.contact, self.total, self.deadline, self.allow_private, self.allowed_address
        )
        self._client = self.engine(client) if self.engine else client

    @property
    def size(self) -> int:
        """The number of processes that send requests."""
        return self._client.size

    async def __aenter__(self):
        self._limits: Remembered[str, Limits] = Remembered(
            lambda host: Limits(self.per_host), REMEMBERED_HOSTS, Limits.is_pausing
        )
        self._origins: Remembered[URL, Origin] = Remembered(
            lambda origin: Origin(), REMEMBERED_HOSTS
        )
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self._client.__aexit__(*exc)

    async def __call__(
        self,
        url: str,
        keep: Callable[[Fetched], Any] = as_it_is,
        turn: Turn = any_time,
    ) -> Any:
        """What `keep` returns of the picture. It is called where the bytes are: with an engine in a
        worker, so it must be small when it is pickled.

        `turn(host)` is around each request, also around those for redirects and robots.txt, and sees
        what they raise. It gives a function that is called here when the request is about to be sent,
        after all waits for a place. Both may raise `Closed`, which this raises, too.
        """
        use = partial(_picture_of, max_pixels=self.max_pixels, keep=keep)
        return await self._get(parse_url(url), self.max_bytes, self.robots, use, turn)

    async def _get(
        self,
        url: URL,
        max_bytes: int,
        robots: bool,
        use: Callable[[Response], Any],
        turn: Turn,
    ):
        """What `use` returns of the last response, after following redirects."""
        seconds_left = self.deadline
        for _ in range(MAX_REDIRECTS + 1):
            host = (url.raw_host or "").lower()
            with self._limits.using(host) as limits, self._origins.using(url.origin()) as origin:
                if robots:
                    rules = await self._ask_robots(url, origin, turn)
                    # http and https of a host may ask for different ones
                    limits.crawl_delay = max(limits.crawl_delay, rules.crawl_delay)
                with turn(host) as before:
                    async with limits.place():
                        pause = limits.crawl_delay
                        question = Question(url, seconds_left, max_bytes, robots, use, pause)
                        reply = await self._client.ask(question, before)
            if reply.location is None:
                return reply.result
            seconds_left -= reply.seconds
            url = parse_url(reply.location, url)
        raise Failure("too many redirects", reply.status)

    async def _ask_robots(self, url: URL, origin: Origin, turn: Turn) -> Rules:
        """The rules of the host of `url`. Raises `Failure` where its robots.txt forbids `url`, and
        `Closed` where it can't be read now.
        """
        if origin.reading is None:
            origin.reading = asyncio.create_task(self._read_robots(url.origin(), turn))
        reading = origin.reading
        rules = await asyncio.shield(reading)  # others wait for the same task
        if isinstance(rules, Exception):
            if origin.reading is reading:
                origin.reading = None  # it is read again for the next request
            raise rules
        if not rules.paths.can_fetch(str(url), "artclf"):
            raise Failure("disallowed by robots.txt")
        if rules.crawl_delay > LONGEST_CRAWL_DELAY:
            raise Failure(f"robots.txt: Crawl-delay over {LONGEST_CRAWL_DELAY} s")
        return rules

    async def _read_robots(self, origin: URL, turn: Turn) -> Rules | Failure | Closed:
        """The rules of a host by RFC 9309: without a file there are no rules; where the server
        fails, its rules are unknown, and nothing may be fetched.
        """
        file = origin.with_path("/robots.txt")
        try:
            response = await self._get(
                file, ROBOTS_BYTES, robots=False, use=as_it_is, turn=partial(_turn_of_robots, turn)
            )
        except Closed as closed:
            return closed
        except Failure as failure:
            return failure if failure.retry else NO_RULES
        return Rules(response.body.decode("utf-8", "replace"))


@contextmanager
def _turn_of_robots(turn: Turn, host: str) -> Iterator[Before]:
    """The turn of a request for a robots.txt, whose failures name it."""
    with turn(host) as before:
        try:
            yield before
        except Failure as failure:
            if failure.http_status:
                failure.reason = f"robots.txt: {failure.reason}"
            raise


def _picture_of(response: Response, max_pixels: int, keep: Callable[[Fetched], Any]) -> Any:
    """What `keep` returns of the picture in a response. Raises Failure where it is none."""
    try:
        kind, width, height = probe(response.body, response.content_type, max_pixels)
    except Failure as failure:
        failure.http_status = response.status
        raise
    return keep(Fetched(response.body, response.status, kind, width, height))
