"""Limits: how much strangers may ask of the server, and who has to wait.

Nothing here knows of HTTP: `app` turns a refusal into its status.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from artclf.base import settings
from artclf.base.errors import SettingError

CLIENTS = 10_000  # whose buckets are remembered


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how many are taken.

    `max_bytes` and `max_pixels` are of a picture, `pictures` and `request_bytes` of a request. A
    client may send `rate` pictures a second (0: any number), and `burst` at once after a pause.
    `queue` pictures may be under way; `seconds` is the time that a request may take to arrive, and
    that an answer may take. Where pictures are collected, `suggestions` of at most
    `suggestion_bytes` in all may wait for a person's decision.
    """

    max_bytes: int = 16 << 20
    max_pixels: int = 50_000_000
    pictures: int = 16
    rate: float = 4
    burst: int = 64
    queue: int = 64
    seconds: float = 60
    connections: int = 200
    reading_bytes: int = 256 << 20
    suggestions: int = 1000
    suggestion_bytes: int = 1 << 30

    def __post_init__(self):
        settings.check(
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            pictures=self.pictures,
            rate=self.rate,
            queue=self.queue,
            deadline=self.seconds,
            suggestions=self.suggestions,
        )
        if self.burst < self.pictures:
            raise SettingError(f"burst is {self.burst}: take at least {self.pictures}, a request's")

    @property
    def request_bytes(self) -> int:
        """The bytes of a whole request: two pictures of the largest size, or more small ones."""
        return 2 * self.max_bytes


class Busy(Exception):
    """Too many pictures are under way. `seconds` is when to come back."""

    def __init__(self, seconds: float):
        super().__init__("the queue is full")
        self.seconds = seconds


class Queue:
    """Counts the pictures under way, at most `size`."""

    def __init__(self, size: int):
        self.size = size
        self.under_way = 0
        self._lock = threading.Lock()

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Places for `count` pictures while the `with` block lasts. Raises Busy where so many are
        not free, but a request alone in the queue always gets in.
        """
        with self._lock:
            if self.under_way and self.under_way + count > self.size:
                raise Busy(1)
            self.under_way += count
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= count


class Buckets:
    """A token bucket for each client: `rate` tokens a second flow in, `burst` is what it holds.

    Of the clients that came last `CLIENTS` are remembered, an IPv6 network of 64 bits as one.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        # client -> its tokens, and when it had them
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, tokens: int = 1) -> float:
        """Take `tokens` of a client's, and return 0; or, where it has fewer, take none and return
        the seconds after which it will have them.
        """
        if not self.rate:
            return 0.0
        key = _network_of(client)
        with self._lock:
            now = self._clock()
            held, before = self._buckets.pop(key, (float(self.burst), now))
            held = min(self.burst, held + self.rate * (now - before))
            missing = tokens - held
            self._buckets[key] = (held if missing > 0 else held - tokens, now)
            if len(self._buckets) > CLIENTS:
                self._buckets.popitem(last=False)
        return max(0.0, missing / self.rate)


def _network_of(client: str) -> str:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:  # the client of a proxy that names none
        return client
    if address.version == 4 or address.ipv4_mapped:
        return str(address)
    return str(ip_network((address, 64), strict=False))
