"""Client: a single request to a server, and what became of it.

Handles time-outs, wrong content types, oversized answers and addresses that are not public. Whether
and when a server may be asked, and where its redirects lead: `fetch`.
"""

import asyncio
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address, ip_network
from time import monotonic
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
from yarl import URL

from artclf import __version__
from artclf.data.intake import Failure

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


@dataclass(frozen=True)
class Response:
    """What a server sent with status 200, whole."""

    body: bytes
    status: int
    content_type: str


@dataclass(frozen=True)
class Question:
    """A request for `url`, which may take `seconds` and bring at most `max_bytes`.

    `use` is called with the `Response`. With `heeds_tags`, a response is refused whose
    `X-Robots-Tag` says noai or noimageai, also one that redirects. The host wants a `pause` of so
    many seconds before it is asked again.
    """

    url: URL
    seconds: float
    max_bytes: int
    heeds_tags: bool
    use: Callable[[Response], Any]
    pause: float = 0


@dataclass(frozen=True)
class Reply:
    """What became of a question: the `result` of its `use`, or the `location` that the server sends
    on to. It took `seconds`.
    """

    status: int
    seconds: float
    location: str | None = None
    result: Any = None


class BlockedAddress(OSError):
    """An address that strangers' URLs must not lead to."""


@dataclass
class Client:
    """An async context manager; `await client.ask(question, before)` gives a `Reply` or raises
    `Failure`.

    At most `total` requests are under way. `contact` is for the User-Agent. A connection is made
    within `deadline` seconds, to an address on the public internet or to `allowed_address`;
    with `allow_private` to any.
    """

    contact: str
    total: int
    deadline: float
    allow_private: bool = False
    allowed_address: str | None = None

    size = 1  # processes that send requests

    async def __aenter__(self):
        # Looking up a name blocks a thread, and a few dead hosts would fill asyncio's own pool.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(self.total))
        self._places = asyncio.Semaphore(self.total)
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

    async def ask(self, question: Question, before: Callable[[], None]) -> Reply:
        """What became of a question, whose time starts when it has one of the `total` places;
        `before` is called then. Raises Failure, and what `before` and `question.use` raise.
        """
        async with self._places:
            before()
            started = monotonic()
            try:
                async with asyncio.timeout(question.seconds):
                    answer = await self._request(question)
            except Failure:
                raise
            except Exception as error:
                raise _failure_of(error) from error
            seconds = monotonic() - started
            if isinstance(answer, Reply):
                return replace(answer, seconds=seconds)
            return Reply(answer.status, seconds, result=question.use(answer))

    def _checked_socket(self, address_info) -> socket.socket:
        """A socket for an address that is public or the allowed one; aiohttp calls this before each
        connection, with the address that it will connect to. Raises BlockedAddress for any other.
        """
        family, kind, protocol, _, (address, port, *_) = address_info
        if not is_public(address) and f"{address}:{port}" != self.allowed_address:
            raise BlockedAddress("blocked address")
        return socket.socket(family, kind, protocol)

    async def _request(self, question: Question) -> Response | Reply:
        """The response to one request, or a reply where it redirects."""
        async with self._session.get(question.url, allow_redirects=False) as response:
            status = response.status
            leads_on = 300 < status < 400 and "Location" in response.headers
            if status != 200 and not leads_on:
                may_pass = status == 429 or status >= 500
                raise Failure(f"http {status}", status, may_pass, _retry_after(response))
            if question.heeds_tags and _forbids(response):
                raise Failure("disallowed by X-Robots-Tag", status)
            if leads_on:
                return Reply(status, 0, response.headers["Location"])
            if (response.content_length or 0) > question.max_bytes:
                raise Failure("too large", status)
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > question.max_bytes:
                    raise Failure("too large", status)
            return Response(bytes(body), status, response.content_type)


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
