"""Security: whom the server answers, and what browsers may do with its pages."""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from artclf.base.errors import SettingError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
WILDCARDS = ("0.0.0.0", "::", "")
SHORTEST_TOKEN = 16
FOR_OPERATORS = ("/api/reload", "/metrics")
# a name or an IP address, and a port
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d+)?")
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:\d+)?")


@dataclass(frozen=True)
class Security:
    """Who may ask: `bind` is the address that the server listens on, `hosts` are further names of
    it, `token` is what /api asks for ('' for nothing), `cors` are the origins whose pages may ask,
    `frames` those whose pages may frame the page. With `is_public`, everybody may ask without the
    token, and it is for /api/reload and /metrics alone; the command line doesn't offer that.

    Raises SettingError for an address that others reach without a token, a short token, and an
    origin that is none.
    """

    bind: str = "127.0.0.1"
    hosts: Sequence[str] = ()
    token: str = ""
    cors: Sequence[str] = ()
    frames: Sequence[str] = ()
    is_public: bool = False

    def __post_init__(self):
        if not self.token and not self.is_public and not is_loopback(self.bind):
            raise SettingError(
                f"others reach this server on {self.bind}: give it a token, by ARTCLF_TOKEN in the "
                "environment or --token"
            )
        if self.token and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise SettingError(f"the token must have {SHORTEST_TOKEN} ASCII characters or more")
        for origin in (*self.cors, *self.frames):
            if not ORIGIN.fullmatch(origin):
                raise SettingError(f"{origin!r} is no origin, such as https://example.org")

    def knows_host(self, header: str) -> bool:
        """Whether a `Host` header names this server: a page of another name that leads here (DNS
        rebinding) gets no answer.
        """
        found = HOST.fullmatch(header.strip().lower())
        known = {*LOOPBACK, *(host.lower() for host in self.hosts)}
        if self.bind not in WILDCARDS:
            known.add(f"[{self.bind}]" if ":" in self.bind else self.bind.lower())
        return found is not None and found[1].removesuffix(".") in known

    def needs_token(self, path: str) -> bool:
        """Whether a request for `path`, which isn't the page, must show the token."""
        return bool(self.token) and (not self.is_public or path in FOR_OPERATORS)

    def knows_token(self, authorization: str) -> bool:
        """Whether an `Authorization` header holds the token, compared in constant time."""
        scheme, _, given = authorization.partition(" ")
        is_same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        return bool(self.token) and scheme.lower() == "bearer" and is_same

    def knows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` (of a request to `host`) may ask: this server's own, one of
        `cors`, and what is no page.
        """
        if not origin or origin in self.cors:
            return True
        return urlsplit(origin).netloc.lower() == host.lower()

    def headers(self) -> dict[str, str]:
        """The headers of every answer."""
        ancestors = " ".join(self.frames) or "'none'"
        policy = [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "form-action 'none'",
            "base-uri 'none'",
            f"frame-ancestors {ancestors}",
        ]
        headers = {
            "Content-Security-Policy": "; ".join(policy),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
        }
        if not self.frames:
            headers["X-Frame-Options"] = "DENY"
        return headers

    def cors_headers(self, origin: str) -> dict[str, str]:
        """The headers by which a page of `origin` may read an answer; none for other origins."""
        if not self.cors:
            return {}
        headers = {"Vary": "Origin"}
        if origin in self.cors:
            headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Headers": "Authorization, Content-Type",
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Expose-Headers": "Retry-After",
                "Access-Control-Max-Age": "600",
            }
        return headers


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`."""
    if address.lower() == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
