"""Running: the application under waitress, with a graceful stop.

Bodies stay in memory, within limits on how many bytes are held at once and on how long a request
may take to arrive. What the HTTP parser refuses is answered in JSON, too.
"""

import json
import socket
import threading
import time
from functools import partial

from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server
from waitress.task import ErrorTask
from waitress.utilities import Error, RequestEntityTooLarge

from artclf.base.errors import StepError
from artclf.server.limits import Limits
from artclf.server.security import Security

IDLE = 30  # seconds after which a silent connection is closed
GRACE = 30  # seconds that requests under way have when the server stops
SPARE_THREADS = 4  # which refuse, and tell of the server's health, when the queue is full
DRAINED = 8  # times the largest request: so much of a larger one is read before it is refused


class RequestTimeout(Error):
    """The answer to a request that takes too long to arrive."""

    code = 408
    reason = "Request Timeout"


class HoldsTooMuch(Error):
    """The answer where too many bytes of requests are in memory."""

    code = 503
    reason = "Service Unavailable"


class Parser(HTTPRequestParser):
    """Waitress' parser of a request, with limits of ours."""

    def __init__(self, adj, server: "Server"):
        super().__init__(adj)
        self._server = server
        self._started = time.monotonic()
        self._to_discard = 0  # bytes of a body that is too large

    def received(self, data: bytes) -> int:
        """How many bytes of `data` belong to this request."""
        if self._to_discard:
            consumed = min(len(data), self._to_discard)
            self._to_discard -= consumed
            self.completed = not self._to_discard
        else:
            consumed = super().received(data)
            self._drain_if_too_large()
            if self.error is not None:
                self.expect_continue = False  # waitress would ask for the body all the same
        if not self.completed:
            limits = self._server.limits
            if time.monotonic() - self._started > limits.seconds:
                self._refuse(RequestTimeout(f"it took over {limits.seconds:g} s to arrive"))
            elif self._server.bytes_held() > limits.reading_bytes:
                self._refuse(HoldsTooMuch("too many requests are arriving: come back"))
        return consumed

    def _drain_if_too_large(self):
        """Read the body of a request that is too large and keep none of it: clients look at an
        answer only after they have sent all.
        """
        is_too_large = isinstance(self.error, RequestEntityTooLarge) and not self.chunked
        most = DRAINED * self.adj.max_request_body_size
        if is_too_large and not self.expect_continue and self.content_length <= most:
            self._to_discard = self.content_length
            self.completed = False

    def _refuse(self, error: Error):
        if not self.headers_finished:
            self.parse_header(b"GET / HTTP/1.0\r\n")  # as waitress does
        self.error = error
        self.completed = True
        self._to_discard = 0


class JsonErrorTask(ErrorTask):
    """An answer by the HTTP parser, in JSON."""

    def execute(self):
        """Write the answer."""
        error = self.request.error
        body = json.dumps({"error": f"{error.reason.lower()}: {error.body}"}).encode()
        self.status = f"{error.code} {error.reason}"
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        headers |= self.channel.server.security.headers()
        if error.code == 503:
            headers["Retry-After"] = "5"
        self.response_headers.extend(headers.items())
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection."""

    error_task_class = JsonErrorTask

    def __init__(self, server, sock, addr, adj, map=None):
        super().__init__(server, sock, addr, adj, map=map)
        self.parser_class = partial(Parser, server=server.owner)

    @property
    def is_busy(self) -> bool:
        """Whether a request is arriving or being answered."""
        return bool(self.requests or self.request is not None or self.total_outbufs_len)

    @property
    def bytes_held(self) -> int:
        """Bytes of requests that are in memory."""
        arriving = [self.request] if self.request is not None else []
        return sum(request.body_bytes_received for request in [*self.requests, *arriving])


class Server:
    """`app` on `bind`:`port` (0: any free port), where it listens from now on; `url` is its
    address.

    `proxy` is the address of a proxy whose `X-Forwarded-For` names the clients. Raises StepError
    where it can't listen there.
    """

    def __init__(
        self, app: Flask, limits: Limits, security: Security, port: int, proxy: str | None = None
    ):
        self.limits = limits
        self._is_stopping = threading.Event()
        self._has_ended = threading.Event()
        trusted = {}
        if proxy is not None:
            trusted = {
                "trusted_proxy": proxy,
                "trusted_proxy_headers": {"x-forwarded-for", "x-forwarded-proto"},
            }
        self._server = create_server(
            app,
            sockets=[_listening(security.bind, port)],
            threads=limits.queue + SPARE_THREADS,
            connection_limit=limits.connections,
            channel_timeout=IDLE,
            cleanup_interval=5,
            recv_bytes=1 << 16,
            max_request_body_size=limits.request_bytes + 1,
            max_request_header_size=16 << 10,
            # more than any body or answer has, so that waitress writes none to the disk
            inbuf_overflow=2 * limits.request_bytes,
            outbuf_overflow=2 * limits.request_bytes,
            asyncore_use_poll=True,
            clear_untrusted_proxy_headers=True,
            ident=None,
            **trusted,
        )
        self._server.owner = self
        self._server.security = security
        self._server.channel_class = Channel
        host = "127.0.0.1" if security.bind in ("0.0.0.0", "::", "") else security.bind
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.effective_port}"

    def bytes_held(self) -> int:
        """Bytes of requests that are in memory, over all connections."""
        return sum(channel.bytes_held for channel in list(self._server.active_channels.values()))

    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._is_stopping.is_set()

    def run(self):
        """Answer requests until `stop`; then answer those under way, and return."""
        try:
            while not self.is_stopping():
                self._turn(seconds=1)
            wasyncore.dispatcher.close(self._server)  # no new connections; the trigger stays
            end = time.monotonic() + GRACE
            while self._close_idle_channels() and time.monotonic() < end:
                self._turn(seconds=0.1)
        finally:
            self._server.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._server._map)
            self._has_ended.set()

    def stop(self):
        """Let `run` end; may be called from a signal handler and from any thread."""
        self._is_stopping.set()
        if not self._has_ended.is_set():
            self._server.pull_trigger()

    def _turn(self, seconds: float):
        wasyncore.loop(timeout=seconds, map=self._server._map, use_poll=True, count=1)

    def _close_idle_channels(self) -> bool:
        """Close the connections without a request; whether any other is there."""
        channels = list(self._server.active_channels.values())
        for channel in channels:
            if not channel.is_busy:
                channel.will_close = True
        return any(channel.is_busy for channel in channels)


def _listening(bind: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((bind, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise StepError(
            f"can't listen on {bind}:{port} ({error}): name another --port or --bind"
        ) from error
    return listening
