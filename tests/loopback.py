"""Servers on 127.0.0.1: one that answers as it is told to, badly too, and remembers what it was
asked; JupyterLab.
"""

import io
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import numpy as np
from PIL import Image


def picture(seed: int = 0, format: str = "JPEG", size=(96, 80)) -> bytes:
    """The bytes of a drawn picture."""
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8
    )
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(stream, format)
    return stream.getvalue()


def answer(
    body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str
) -> bytes:
    """A whole HTTP answer; `length` lies about that of the body."""
    headers = {
        "Content-Length": len(body) if length is None else length,
        "Connection": "close",
        **headers,
    }
    lines = [
        f"HTTP/1.1 {status}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server(ThreadingTCPServer):
    """`routes` maps a path, as it was sent, to an answer, a list of answers (one a request) or a
    function that gets the socket and may return an answer. Everything else is answered by
    `default`. `requests` lists what was asked, as pairs of host and path.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, **routes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = {f"/{path}": route for path, route in routes.items()}
        self.default = answer(status="404 Not Found")
        self.port, self.url = self.server_address[1], f"http://127.0.0.1:{self.server_address[1]}"
        self.requests, self.heads, self.lock = [], [], threading.Lock()
        self.under_way, self.most = Counter(), Counter()  # per host, and over all as `None`

    def __enter__(self):
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *exc):
        self.shutdown()
        self.server_close()

    def asked(self, path: str) -> int:
        """How often `path` was asked for."""
        return sum(path == asked for _, asked in self.requests)

    def reply(self, path: str):
        with self.lock:
            route = self.routes.get(path, self.default)
            return (
                (route.pop(0) if len(route) > 1 else route[0]) if isinstance(route, list) else route
            )


class _Handler(BaseRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            received = self.request.recv(65536)
            head += received
            if received and head[0] != 0x16:
                continue
            self.request.sendall(b"no TLS here\r\n")
            return
        lines = head.decode("latin-1").split("\r\n")
        path = lines[0].split(" ")[1]
        host = next(line for line in lines if line.startswith("Host:")).split(":")[1].strip()
        with self.server.lock:
            self.server.requests.append((host, path))
            self.server.heads.append(head.decode("latin-1"))
            for key in (host, None):
                self.server.under_way[key] += 1
                self.server.most[key] = max(self.server.most[key], self.server.under_way[key])
        try:
            route = self.server.reply(path)
            content = route(self.request) if callable(route) else route
        except OSError:
            content = self.request.close()  # the client hung up, as it should on what never ends
        finally:  # before the last byte is sent, for with that the client may ask for more
            with self.server.lock:
                for key in (host, None):
                    self.server.under_way[key] -= 1
        if isinstance(content, bytes):
            with suppress(OSError):
                self.request.sendall(content)


def resolve_tests_to_loopback(monkeypatch):
    """Let every name that ends in `.test` lead to 127.0.0.1; all other names are unknown."""
    known = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if isinstance(host, bytes):
            host = host.decode()
        if host.endswith(".test"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        if host[:1].isdecimal() or host == "localhost":
            return known(host, port, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@contextmanager
def jupyterlab(notebook: Path):
    """The address of a JupyterLab that serves the folder of `notebook`; its settings are in there,
    too.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = {
        f"JUPYTER_{name}_DIR": str(notebook.parent / ".jupyter" / name)
        for name in ("CONFIG", "RUNTIME", "DATA")
    }
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            f"--port={port}",
            "--IdentityProvider.token=test",
            "--ServerApp.port_retries=0",
            "--LabApp.extension_manager=readonly",  # the default asks the package index
            "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            f"--ServerApp.root_dir={notebook.parent}",
        ],
        env={**os.environ, **home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token=test", server)
        yield f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token=test"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(address, server, seconds=60):
    end = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < end:
        try:
            return urllib.request.urlopen(address, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise RuntimeError("JupyterLab did not start")


def run_first_cell(tab, output: str):
    """Run the first cell of the notebook in JupyterLab until what it shows, a CSS selector, is
    there.
    """
    from playwright.sync_api import TimeoutError as NothingYet

    tab.set_default_timeout(90_000)
    shown = tab.locator(f".jp-OutputArea-output {output}").first
    cell, asked = (
        tab.locator(".jp-Notebook .jp-CodeCell").first,
        tab.locator(".jp-Dialog .jp-mod-accept"),
    )
    for turn in range(
        36
    ):  # JupyterLab may lose a cell that is run while it connects to its kernel, and show it as run
        with suppress(NothingYet):
            if asked.count():
                asked.first.click(timeout=5_000)  # a slow start makes it ask for the kernel
            if turn % 9 == 0 or "*" not in cell.locator(".jp-InputPrompt").inner_text(
                timeout=5_000
            ):
                cell.locator(".cm-content").click(timeout=5_000)
                tab.keyboard.press("Control+Enter")
            shown.wait_for(timeout=5_000)
        if shown.count():
            return
    raise RuntimeError(f"the cell showed no {output}")
