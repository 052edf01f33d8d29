"""The server on a socket of loopback: bodies of all kinds and speeds, limits on what arrives, a
graceful stop.
"""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from made_pictures import encoded
from made_served import Brightness

from artclf.base.errors import StepError
from artclf.server.app import Options, create_app
from artclf.server.limits import Limits
from artclf.server.metrics import Metrics
from artclf.server.running import Server
from artclf.server.security import Security
from artclf.server.served import Current, Served, Settings

DARK = encoded(np.zeros((20, 30, 3), np.uint8))


@contextmanager
def running(tmp_path, limits=None, classifier=None, proxy=None):
    """A server on a free port of loopback, and the thread that it runs in."""
    limits = limits or Limits(rate=0)
    metrics = Metrics()
    current = Current(lambda: Served(tmp_path, Settings(), classifier=classifier or Brightness()))
    app = create_app(current, metrics, Options(limits, Security()))
    server = Server(app, limits, Security(), 0, proxy)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server, thread
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def connected(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(server, request: bytes) -> tuple[int, dict]:
    """The status and the JSON of the answer to raw bytes."""
    with connected(server) as sock:
        sock.sendall(request)
        return read(sock)


def read(sock) -> tuple[int, dict]:
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    content = answer.read()
    assert answer.headers["Content-Security-Policy"]
    return answer.status, json.loads(content)


def head(*lines: str, path="/api/predict") -> bytes:
    first = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: image/png"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


def whole(body: bytes) -> bytes:
    return head(f"Content-Length: {len(body)}") + body


def test_bodies_in_one_piece_in_chunks_and_several_on_a_connection(tmp_path):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (DARK[:9], DARK[9:]))
    with running(tmp_path) as (server, _):
        assert ask(server, head("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")[0] == 200
        assert ask(server, head("Content-Length: 0"))[0] == 400
        assert ask(server, head())[0] == 411
        with connected(server) as sock:
            for _ in range(3):
                sock.sendall(whole(DARK))
                status, content = read(sock)
                assert status == 200 and content["results"][0]["predicted"] == "01-early"


def test_what_is_no_http_is_refused_in_json(tmp_path):
    with running(tmp_path) as (server, _):
        for request, expected in (
            (b"nonsense\r\n\r\n", 400),
            (head("Content-Length: x"), 400),
            (head("Content-Length: -1"), 400),
            (head("Transfer-Encoding: gzip"), 501),
            (head("Transfer-Encoding: chunked") + b"zz\r\n", 400),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
        ):
            status, content = ask(server, request)
            assert status == expected and content["error"], request[:60]
        assert ask(server, whole(DARK))[0] == 200


def test_a_body_that_is_too_large_is_read_and_refused(tmp_path):
    """A client that looks at the answer after it has sent everything sees it, too."""
    limits = Limits(rate=0, max_bytes=10_000)
    with running(tmp_path, limits) as (server, _):
        status, content = ask(server, whole(bytes(100_000)))
        assert status == 413 and content["error"]
        status, _ = ask(server, head("Content-Length: 99999999999"))  # nothing is waited for
        assert status == 413
        with connected(server) as sock:
            sock.sendall(head("Content-Length: 100000", "Expect: 100-continue"))
            assert read(sock)[0] == 413
        endless = b"2710\r\n" + bytes(10_000) + b"\r\n"
        assert ask(server, head("Transfer-Encoding: chunked") + 3 * endless)[0] == 413


def test_a_request_that_never_ends_is_408_and_keeps_nobody_waiting(tmp_path):
    limits = Limits(rate=0, seconds=0.5)
    with running(tmp_path, limits) as (server, _):
        slow = [connected(server) for _ in range(20)]
        for sock in slow:
            sock.sendall(head("Content-Length: 1000"))
        assert ask(server, whole(DARK))[0] == 200
        time.sleep(0.7)
        for sock in slow:
            sock.sendall(b"x")
            assert read(sock)[0] == 408
            sock.close()
        with connected(server) as sock:
            sock.sendall(b"GET / HTT")
            time.sleep(0.7)
            sock.sendall(b"P")
            assert read(sock)[0] == 408


def test_requests_that_arrive_hold_a_limited_number_of_bytes(tmp_path):
    limits = Limits(rate=0, reading_bytes=50_000)
    with running(tmp_path, limits) as (server, _):
        first, second = connected(server), connected(server)
        first.sendall(head("Content-Length: 90000") + bytes(40_000))
        time.sleep(0.2)
        assert server.bytes_held() == 40_000
        second.sendall(head("Content-Length: 90000") + bytes(30_000))
        status, content = read(second)
        assert status == 503 and "come back" in content["error"]
        first.close()
        second.close()
        for _ in range(50):
            if not server.bytes_held():
                break
            time.sleep(0.02)
        assert ask(server, whole(DARK))[0] == 200


def test_uploads_are_not_written_to_the_disk(tmp_path, monkeypatch):
    import tempfile

    def fail(*args, **kwargs):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    large = DARK + bytes(3_000_000)  # bytes after a PNG are no part of it
    with running(tmp_path) as (server, _):
        assert ask(server, whole(large))[0] == 200


class Waiting(Brightness):
    def __init__(self):
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_asked = threading.Event()

    def answer(self, pixels):
        self.is_asked.set()
        assert self.may_go.wait(20)
        return super().answer(pixels)


def test_a_stop_answers_what_is_under_way_and_takes_nothing_new(tmp_path):
    classifier = Waiting()
    with running(tmp_path, classifier=classifier) as (server, thread):
        classifier.may_go.clear()
        classifier.is_asked.clear()
        idle, asking, arriving = (connected(server) for _ in range(3))
        asking.sendall(whole(DARK))
        arriving.sendall(whole(DARK)[:-5])
        assert classifier.is_asked.wait(10)
        server.stop()
        for _ in range(100):
            try:
                connected(server).close()
            except OSError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("it takes new connections")
        assert idle.recv(1) == b""  # closed
        assert thread.is_alive()
        classifier.may_go.set()
        assert read(asking)[0] == 200
        arriving.sendall(whole(DARK)[-5:])
        assert read(arriving)[0] == 200
        thread.join(10)
        assert not thread.is_alive()


def test_clients_behind_a_proxy_are_told_apart_and_others_cannot_pretend(tmp_path):
    limits = Limits(rate=0.01, burst=16)

    def statuses(server, name):
        wanted = whole(DARK).replace(b"\r\n", b"\r\nX-Forwarded-For: %s\r\n" % name, 1)
        return [ask(server, wanted)[0] for _ in range(17)]

    with running(tmp_path, limits, proxy="127.0.0.1") as (server, _):
        assert (
            statuses(server, b"192.0.2.1") == statuses(server, b"192.0.2.2") == [200] * 16 + [429]
        )
    with running(tmp_path, limits) as (server, _):
        assert statuses(server, b"192.0.2.1")[-1] == 429
        assert set(statuses(server, b"192.0.2.2")) == {429}


def test_an_address_that_is_taken_is_said(tmp_path):
    with running(tmp_path) as (server, _):
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(StepError, match="can't listen.*--port"):
            Server(None, Limits(), Security(), port)
