"""Fetch: the bytes of the picture behind a URL, or the reason in words why there is none.

Holds the limits of each host, obeys robots.txt, and follows redirects; the requests are those of a
`client`. Which URLs are fetched, in which order and how often: `downloads`.
"""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

from protego import Protego
from yarl import URL

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data.client import Client, Question, Response, parse_url
from artclf.data.intake import Failure, Fetched, probe
from artclf.data.pictures import MAX_PIXELS

HOMEPAGE = "https://github.com/artclf/artclf"
MAX_REDIRECTS = 10
ROBOTS_BYTES = 1 << 20  # of a robots.txt that are read
ROBOTS_HOSTS = 1000  # whose rules are remembered
LONGEST_CRAWL_DELAY = 120  # seconds; a host that asks for more is not fetched from


class Rules:
    """What a host's robots.txt asks of artclf, by RFC 9309 and its Crawl-delay (seconds)."""

    def __init__(self, text: str):
        self.paths = Protego.parse(text)
        self.crawl_delay = self.paths.crawl_delay("artclf") or 0
        self.turn = asyncio.Lock()
        self.open_at = 0.0  # when the host may be asked again

    @asynccontextmanager
    async def next_request(self):
        """Wait until the host may be asked: with a Crawl-delay for one thing at a time, and so long
        after the last one.
        """
        if not self.crawl_delay:
            yield
            return
        async with self.turn:
            await asyncio.sleep(max(0, self.open_at - monotonic()))
            try:
                yield
            finally:
                self.open_at = monotonic() + self.crawl_delay


NO_RULES = Rules("")


def as_it_is(thing):
    """The thing that was given."""
    return thing


def at_once():
    """Do nothing before a request."""


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
        # host -> its semaphore, for as long as a request holds it or waits for it
        self._requests_to = WeakValueDictionary()
        self._rules: dict[URL, asyncio.Task] = {}  # origin -> the task that reads its robots.txt
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self._client.__aexit__(*exc)

    async def __call__(
        self,
        url: str,
        keep: Callable[[Fetched], Any] = as_it_is,
        before: Callable[[], None] = at_once,
    ) -> Any:
        """What `keep` returns of the picture. It is called where the bytes are: with an engine in a
        worker, so it must be small when it is pickled. `before` is called here when `url` is about
        to be asked for, after all waits for a turn.
        """
        use = partial(_picture_of, max_pixels=self.max_pixels, keep=keep)
        return await self._get(parse_url(url), self.max_bytes, self.robots, use, before)

    async def _get(
        self,
        url: URL,
        max_bytes: int,
        robots: bool,
        use: Callable[[Response], Any],
        before: Callable[[], None] = at_once,
    ):
        """What `use` returns of the last response, after following redirects."""
        seconds_left = self.deadline
        for _ in range(MAX_REDIRECTS + 1):
            rules = await self._ask_robots(url) if robots else NO_RULES
            host = (url.raw_host or "").lower()
            requests_to_host = self._requests_to.setdefault(host, asyncio.Semaphore(self.per_host))
            async with rules.next_request(), requests_to_host:
                question = Question(url, seconds_left, max_bytes, robots, use, rules.crawl_delay)
                reply = await self._client.ask(question, before)
            if reply.location is None:
                return reply.result
            before = at_once
            seconds_left -= reply.seconds
            url = parse_url(reply.location, url)
        raise Failure("too many redirects", reply.status)

    async def _ask_robots(self, url: URL) -> Rules:
        """The rules of the host of `url`. Raises `Failure` where its robots.txt forbids `url`."""
        origin = url.origin()
        if origin not in self._rules:
            if len(self._rules) >= ROBOTS_HOSTS:
                oldest = next(iter(self._rules))
                del self._rules[oldest]
            self._rules[origin] = asyncio.create_task(self._read_robots(origin))
        rules = await asyncio.shield(self._rules[origin])  # others wait for the same task
        if isinstance(rules, Failure):
            self._rules.pop(origin, None)
            raise rules
        if not rules.paths.can_fetch(str(url), "artclf"):
            raise Failure("disallowed by robots.txt")
        if rules.crawl_delay > LONGEST_CRAWL_DELAY:
            raise Failure(f"robots.txt: Crawl-delay over {LONGEST_CRAWL_DELAY} s")
        return rules

    async def _read_robots(self, origin: URL) -> Rules | Failure:
        """The rules of a host by RFC 9309: without a file there are no rules; where the server
        fails, its rules are unknown, and nothing may be fetched.
        """
        try:
            file = origin.with_path("/robots.txt")
            response = await self._get(file, ROBOTS_BYTES, robots=False, use=as_it_is)
        except Failure as failure:
            if not failure.retry:
                return NO_RULES
            if failure.http_status:
                failure.reason = f"robots.txt: {failure.reason}"
            return failure
        return Rules(response.body.decode("utf-8", "replace"))


def _picture_of(response: Response, max_pixels: int, keep: Callable[[Fetched], Any]) -> Any:
    """What `keep` returns of the picture in a response. Raises Failure where it is none."""
    try:
        kind, width, height = probe(response.body, response.content_type, max_pixels)
    except Failure as failure:
        failure.http_status = response.status
        raise
    return keep(Fetched(response.body, response.status, kind, width, height))
