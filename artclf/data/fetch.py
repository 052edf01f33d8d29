"""Fetch: the bytes of the picture behind a URL, or the reason in words why there is none.

Handles redirects, time-outs, wrong content types, oversized answers, robots.txt and addresses that
are not public. Which URLs are fetched, in which order and how often: `downloads`.
"""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address, ip_network
from time import monotonic
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

import aiohttp
from protego import Protego
from yarl import URL

from artclf import __version__
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data.intake import Failure, Fetched, probe
from artclf.data.pictures import MAX_PIXELS

HOMEPAGE = "https://github.com/artclf/artclf"
MAX_REDIRECTS = 10
ROBOTS_BYTES = 1 << 20  # of a robots.txt that are read
ROBOTS_HOSTS = 1000  # whose rules are remembered
LONGEST_CRAWL_DELAY = 120  # seconds; a host that asks for more is not fetched from
GLOBAL_V6 = ip_network("2000::/3")
NAT64 = ip_network("64:ff9b::/96")
# an agent before a colon, and its rules; rules with a colon of their own name no agent
ROBOTS_TAG = re.compile(r"(?:\s*(?!max-|unavailable)([\w-]+)\s*:)?(.*)", re.DOTALL)
# the characters of a URL that stay as they are
SECOND_URL = re.compile(r"\s(?:https?:)?//", re.IGNORECASE)
URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"
# errors on the network: the reason in words, and whether another try makes sense; the first that
# fits counts
REASONS = (
    (TimeoutError, "timed out", True),
    (aiohttp.ClientConnectorDNSError, "cannot resolve host", True),
    (aiohttp.ClientSSLError, "no secure connection", False),
    (aiohttp.ClientConnectorError, "cannot connect", True),
    (aiohttp.ClientPayloadError, "truncated", True),
    (aiohttp.ServerDisconnectedError, "connection lost", True),
    (OSError, "connection lost", True),
    (ValueError, "invalid URL", False),
)


class BlockedAddress(OSError):
    """An address that strangers' URLs must not lead to."""


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

    async def __aenter__(self):
        # Looking up a name blocks a thread, and a few dead hosts would fill asyncio's own pool.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self.total))
        self._all_requests = asyncio.Semaphore(self.total)
        # host -> its semaphore, for as long as a request holds it or waits for it
        self._requests_to = WeakValueDictionary()
        self._rules: dict[URL, asyncio.Task] = {}  # origin -> the task that reads its robots.txt
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=5,
                socket_factory=None if self.allow_private else self._checked_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 18,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(15, self.deadline)),
            headers={
                "User-Agent": f"artclf/{__version__} (+{self.contact})",
                "Accept-Encoding": "identity",
                "Accept": "image/jpeg, image/png, image/*;q=0.9, */*;q=0.1",
            },
        )
        return self

    async def __aexit__(self, *exc):
        await self._session.close()

    async def __call__(self, url: str) -> Fetched:
        response, body = await self._get(parse_url(url), self.max_bytes, self.robots)
        try:
            kind, width, height = probe(body, response.content_type, self.max_pixels)
        except Failure as failure:
            failure.http_status = response.status
            raise
        return Fetched(body, response.status, kind, width, height)

    async def _get(self, url: URL, max_bytes: int, robots: bool):
        """The last response and its body, after following redirects."""
        seconds_left = self.deadline
        for _ in range(MAX_REDIRECTS + 1):
            turn = (await self._ask_robots(url)).next_request() if robots else nullcontext()
            host = (url.raw_host or "").lower()
            requests_to_host = self._requests_to.setdefault(host, asyncio.Semaphore(self.per_host))
            async with turn, requests_to_host, self._all_requests:
                started = monotonic()
                try:
                    async with asyncio.timeout(seconds_left):
                        response, body = await self._request(url, max_bytes, robots)
                except Failure:
                    raise
                except Exception as error:
                    raise _failure_of(error) from error
                seconds_left -= monotonic() - started
            if body is not None:
                return response, body
            url = parse_url(response.headers["Location"], url)
        raise Failure("too many redirects", response.status)

    def _checked_socket(self, address_info) -> socket.socket:
        """A socket for an address that is public or the allowed one; aiohttp calls this before each
        connection, with the address that it will connect to. Raises BlockedAddress for any other.
        """
        family, kind, protocol, _, (address, port, *_) = address_info
        if not is_public(address) and f"{address}:{port}" != self.allowed_address:
            raise BlockedAddress("blocked address")
        return socket.socket(family, kind, protocol)

    async def _request(self, url: URL, max_bytes: int, robots: bool):
        """The response to one request, with its body, or with None in its place where it
        redirects.
        """
        async with self._session.get(url, allow_redirects=False) as response:
            status = response.status
            if 300 < status < 400 and "Location" in response.headers:
                return response, None
            if status != 200:
                may_pass = status == 429 or status >= 500
                raise Failure(f"http {status}", status, may_pass, _retry_after(response))
            if robots and _forbids(response):
                raise Failure("disallowed by X-Robots-Tag", status)
            if (response.content_length or 0) > max_bytes:
                raise Failure("too large", status)
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise Failure("too large", status)
            return response, bytes(body)

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
            _, body = await self._get(origin.with_path("/robots.txt"), ROBOTS_BYTES, robots=False)
        except Failure as failure:
            if not failure.retry:
                return Rules("")
            if failure.http_status:
                failure.reason = f"robots.txt: {failure.reason}"
            return failure
        return Rules(body.decode("utf-8", "replace"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also one that carries an IPv4 address
    inside.
    """
    ip = ip_address(address.partition("%")[0])
    if ip.version == 6 and ip in NAT64:
        ip = ip_address(int(ip) & 0xFFFFFFFF)
    elif ip.version == 6:
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip.version == 6 and ip not in GLOBAL_V6:
        return False
    return ip.is_global and not ip.is_multicast


def parse_url(text: str, base: URL | None = None) -> URL:
    """`text` as a URL, relative to `base`.

    Percent-encoding and query stay as they are; only characters that no URL may hold are encoded.
    Raises `Failure` where it is no URL of a web page, or several.
    """
    if SECOND_URL.search(text.strip()):
        raise Failure("several URLs in one line")
    try:
        encoded = quote(text.strip(), safe=URL_CHARACTERS, errors="surrogateescape")
        url = URL(encoded, encoded=True)
        host = unquote(url.raw_host or "")
        if not host.isascii():
            url = url.with_host(host)
        if base:
            url = base.join(url)
    except ValueError as error:
        raise Failure("invalid URL") from error
    if url.scheme not in ("http", "https", ""):
        raise Failure(f"unsupported scheme: {url.scheme[:20]}")
    if not url.scheme or not url.raw_host:
        raise Failure("invalid URL")
    return url


def _failure_of(error: Exception) -> Failure:
    """What went wrong on the network, in words."""
    if isinstance(getattr(error, "os_error", None), BlockedAddress):
        return Failure("blocked address")
    for kind, reason, retry in REASONS:
        if isinstance(error, kind):
            return Failure(reason, retry=retry)
    return Failure(f"invalid answer: {type(error).__name__}")


def _retry_after(response) -> float | None:
    """The seconds that a server asks to wait, given as a number or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        wait = parsedate_to_datetime(value) - datetime.now(UTC)
    except (ValueError, TypeError):  # nonsense, or a date without a time zone: as if not sent
        return None
    return max(0.0, wait.total_seconds())


def _forbids(response) -> bool:
    """Whether `X-Robots-Tag` says noai or noimageai, to everybody or to artclf."""
    for value in response.headers.getall("X-Robots-Tag", ()):
        [(agent, text)] = ROBOTS_TAG.findall(value.lower())[:1]
        rules = {rule.strip() for rule in text.split(",")}
        if agent in ("", "artclf") and rules & {"noai", "noimageai"}:
            return True
    return False
