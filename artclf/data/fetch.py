"""One URL in; the bytes of a picture out, or in plain words why there is none.

Whatever a server may do to a visitor is dealt with here. Which URLs, in which order and how often:
`artclf.download`.
"""

import asyncio
import re
import socket
from concurrent.futures import ThreadPoolExecutor
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
from artclf.base.errors import InputError
from artclf.data.intake import Failure, Fetched, probe

HOMEPAGE = "https://github.com/artclf/artclf"


MAX_REDIRECTS = 10


ROBOTS_BYTES, ROBOTS_HOSTS = 1 << 20, 1000


GLOBAL_V6, NAT64 = ip_network("2000::/3"), ip_network("64:ff9b::/96")


class BlockedAddress(OSError):
    """An address that strangers' URLs must not lead to."""


@dataclass
class Fetcher:
    """An async context manager; `await fetcher(url)` gives `Fetched` or raises `Failure`.

    At most `per_host` requests to one host and `total` over all are under way. An image may take
    `deadline` seconds, redirects included and waiting for its turn not, have `max_bytes` and
    `max_pixels` (Pillow's own limit, 178 million, stays in force). `contact` is a page or mail
    address for the User-Agent. `robots=False` ignores robots.txt and `X-Robots-Tag: noai,
    noimageai`; `allow_private` allows addresses that are not on the public internet.
    """

    contact: str = HOMEPAGE
    per_host: int = 2
    total: int = 32
    deadline: float = 60
    max_bytes: int = 32 << 20
    max_pixels: int = 100_000_000
    robots: bool = True
    allow_private: bool = False

    def __post_init__(self):
        if not self.contact.isprintable():
            raise InputError(f"the contact {self.contact!r} must be one printable line")
        if min(self.per_host, self.total) < 1:
            raise InputError("per_host and total must be at least 1")

    async def __aenter__(self):
        # Looking up a name blocks a thread, and asyncio's own pool is small enough for a few dead hosts to fill.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self.total))
        self._slots = asyncio.Semaphore(self.total)
        self._seats = (
            WeakValueDictionary()
        )  # host -> its semaphore, for as long as somebody holds or awaits it
        self._rules = {}  # origin -> the task that reads its robots.txt
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=5,
                socket_factory=None if self.allow_private else _public_socket,
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
        response, body = await self._get(_url(url), self.max_bytes, self.robots)
        try:
            return Fetched(
                body, response.status, *probe(body, response.content_type, self.max_pixels)
            )
        except Failure as failure:
            failure.http_status = response.status
            raise

    async def _get(self, url: URL, max_bytes: int, robots: bool):
        """The last response and its body, after following redirects."""
        left = self.deadline
        for _ in range(MAX_REDIRECTS + 1):
            if robots:
                await self._ask_robots(url)
            seat = self._seats.setdefault(url.raw_host.lower(), asyncio.Semaphore(self.per_host))
            async with seat, self._slots:
                start = monotonic()
                try:
                    async with asyncio.timeout(left):
                        response, body = await self._request(url, max_bytes, robots)
                except Failure:
                    raise
                except Exception as error:
                    raise _in_plain_words(error) from error
                left -= monotonic() - start
            if body is not None:
                return response, body
            url = _url(response.headers["Location"], url)
        raise Failure("too many redirects", response.status)

    async def _request(self, url: URL, max_bytes: int, robots: bool):
        """The response to one request, with its body, or with None in its place where it
        redirects.
        """
        async with self._session.get(url, allow_redirects=False) as response:
            status, body = response.status, bytearray()
            if 300 < status < 400 and "Location" in response.headers:
                return response, None
            if status != 200:
                raise Failure(
                    f"http {status}", status, status == 429 or status >= 500, _retry_after(response)
                )
            if robots and _forbids(response):
                raise Failure("disallowed by X-Robots-Tag", status)
            if (response.content_length or 0) > max_bytes:
                raise Failure("too large", status)
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise Failure("too large", status)
            return response, bytes(body)

    async def _ask_robots(self, url: URL):
        origin = url.origin()
        if origin not in self._rules:
            if len(self._rules) >= ROBOTS_HOSTS:
                del self._rules[next(iter(self._rules))]
            self._rules[origin] = asyncio.create_task(self._read_robots(origin))
        rules = await asyncio.shield(self._rules[origin])  # others wait for the same task
        if isinstance(rules, Failure):
            self._rules.pop(origin, None)
            raise rules
        if not rules.can_fetch(str(url), "artclf"):
            raise Failure("disallowed by robots.txt")

    async def _read_robots(self, origin: URL) -> Protego | Failure:
        """The rules of a host, as RFC 9309 has it: no file, no rules; a server that fails may mean
        to forbid.
        """
        try:
            _, body = await self._get(origin.with_path("/robots.txt"), ROBOTS_BYTES, robots=False)
        except Failure as failure:
            if not failure.retry:
                return Protego.parse("")
            if failure.http_status:
                failure.reason = f"robots.txt: {failure.reason}"
            return failure
        return Protego.parse(body.decode("utf-8", "replace"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also one that carries an IPv4 address
    inside.
    """
    ip = ip_address(address.partition("%")[0])
    if ip.version == 6:
        ip = (
            ip_address(int(ip) & 0xFFFFFFFF)
            if ip in NAT64
            else ip.ipv4_mapped or ip.sixtofour or ip
        )
    return ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in GLOBAL_V6)


def _public_socket(address_info) -> socket.socket:
    """What aiohttp calls before each connection, with the very address that it will connect to."""
    family, kind, protocol, _, address = address_info
    if not is_public(address[0]):
        raise BlockedAddress("blocked address")
    return socket.socket(family, kind, protocol)


def _url(text: str, base: URL | None = None) -> URL:
    """`text` as a URL: percent-encoding and query stay as they are, only what no URL may hold is
    encoded.
    """
    try:
        url = URL(
            quote(text.strip(), safe="!#$%&'()*+,/:;=?@[]~", errors="surrogateescape"), encoded=True
        )
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


def _in_plain_words(error: Exception) -> Failure:
    """What went wrong on the network; connections that fail are worth another try."""
    if isinstance(getattr(error, "os_error", None), BlockedAddress):
        return Failure("blocked address")
    for kinds, reason, retry in (
        (TimeoutError, "timed out", True),
        (aiohttp.ClientConnectorDNSError, "cannot resolve host", True),
        (aiohttp.ClientSSLError, "no secure connection", False),
        (aiohttp.ClientConnectorError, "cannot connect", True),
        (aiohttp.ClientPayloadError, "truncated", True),
        ((aiohttp.ServerDisconnectedError, OSError), "connection lost", True),
        (ValueError, "invalid URL", False),
    ):
        if isinstance(error, kinds):
            return Failure(reason, retry=retry)
    return Failure(f"invalid answer: {type(error).__name__}")


def _retry_after(response) -> float | None:
    """The seconds that a server asks to wait, given as a number or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (
        ValueError,
        TypeError,
    ):  # nonsense, or a date without a time zone: as if it had not been sent
        return None


def _forbids(response) -> bool:
    """Whether `X-Robots-Tag` says noai or noimageai, to everybody or to artclf."""
    for value in response.headers.getall("X-Robots-Tag", ()):
        agent, rules = re.match(
            r"(?:\s*(?!max-|unavailable)([\w-]+)\s*:)?(.*)", value.lower(), re.DOTALL
        ).groups()
        rules = {rule.strip() for rule in rules.split(",")}
        if agent in (None, "artclf") and rules & {"noai", "noimageai"}:
            return True
    return False
