"""What a download on Ray loses, fetches twice or asks too early, when workers, nodes and the command are killed.

    python benchmarks/faults.py [--urls 20000] [--only "a worker is killed"]

Servers of this process answer on many addresses of 127.0.0.0/8, each of them a host: plain ones, slow
ones, those with a Crawl-delay, those that ask for patience by http 429, those that redirect to others,
and with answers that are cut or fail once. They count requests at a time and the pauses between them.
Two nodes (`ray.cluster_utils.Cluster`) do the download for each fault. Needs the extra `cluster`.
"""

import argparse
import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("plain", "slow", "redirecting", "patient", "delaying", "failing")
CRAWL_DELAY = 0.2  # seconds
RETRY_AFTER = 1  # seconds, which a patient host asks for
REQUESTS_BEFORE_PATIENCE = 40
SLOW = 0.3  # seconds of an answer
QUICK = 0.02
OBJECT_STORE = 2**27  # bytes of a node
FORBIDDEN = 3  # the first digit of pictures that a robots.txt disallows
DOWNLOAD = "from artclf.cli import main; main()"


@dataclass
class Host:
    """What a host was asked; times in seconds of the monotonic clock."""

    kind: str
    under_way: int = 0
    most: int = 0  # requests at a time
    asked: Counter = field(default_factory=Counter)  # by path
    given: Counter = field(default_factory=Counter)  # pictures that were sent whole
    last_end: float = 0
    shortest_pause: float = float("inf")  # between two requests
    is_refusing_until: float = 0
    since_patience: int = 0
    too_early: int = 0  # requests before the time was over that the host had asked for


class Hosts:
    """A context manager: `number` hosts on addresses of their own, all with one port.

    `url(host, i)` is the URL of picture `i`; a host's kind is that of its number in `KINDS`, in
    turn.
    """

    def __init__(self, number: int, kinds=KINDS):
        self.addresses = [f"127.1.{i // 200}.{i % 200 + 1}" for i in range(number)]
        self.hosts = {
            address: Host(kinds[i % len(kinds)]) for i, address in enumerate(self.addresses)
        }
        self.picture = drawn()

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.open())
        return self

    def __exit__(self, *exc):
        self.run(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def open(self):
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        # a request of a client that was killed is over
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self.runner.setup()
        first = web.TCPSite(self.runner, self.addresses[0], 0)
        await first.start()
        self.port = self.runner.addresses[0][1]
        for address in self.addresses[1:]:
            await web.TCPSite(self.runner, address, self.port).start()

    def url(self, number: int, picture: int) -> str:
        return f"http://{self.addresses[number]}:{self.port}/{picture}.jpg"

    def of(self, url: str) -> Host:
        """The host that a URL names."""
        return self.hosts[url.split("/")[2].partition(":")[0]]

    def forget(self):
        """Begin anew: nothing was asked."""
        for address, host in self.hosts.items():
            self.hosts[address] = Host(host.kind)

    def broken_limits(self, per_host: int) -> list[str]:
        """In words, where more than `per_host` requests were under way at a host, or a request came
        too early.
        """
        broken = []
        for address, host in self.hosts.items():
            if host.most > per_host:
                broken.append(f"{address}: {host.most} requests at a time")
            if host.kind == "delaying" and host.shortest_pause < CRAWL_DELAY:
                broken.append(f"{address}: a pause of {host.shortest_pause:.3f} s")
            if host.too_early:
                broken.append(f"{address}: {host.too_early} requests in spite of Retry-After")
        return broken

    def fetched_again(self) -> int:
        """How many pictures were sent whole once more than needed."""
        given = [number for host in self.hosts.values() for number in host.given.values()]
        return sum(given) - len(given)

    def given(self) -> int:
        """How many pictures were sent whole."""
        return sum(host.given.total() for host in self.hosts.values())

    def body(self, path: str) -> bytes:
        """The picture of a path: a drawn one, and its name after the end."""
        return self.picture + path.encode()

    async def answer(self, request):
        host = self.hosts[request.host.partition(":")[0]]
        path = request.path
        now = time.monotonic()
        host.under_way += 1
        host.most = max(host.most, host.under_way)
        host.asked[path] += 1
        if host.last_end and path != "/robots.txt":
            host.shortest_pause = min(host.shortest_pause, now - host.last_end)
        try:
            return await self.answer_of(host, path, request)
        finally:
            host.under_way -= 1
            if path != "/robots.txt":
                host.last_end = time.monotonic()

    async def answer_of(self, host: Host, path: str, request):
        from aiohttp import web

        await asyncio.sleep(SLOW if host.kind == "slow" else QUICK)
        if path == "/robots.txt":
            if host.kind != "delaying":
                return web.Response(status=404)
            rules = f"User-agent: *\nCrawl-delay: {CRAWL_DELAY}\nDisallow: /{FORBIDDEN}\n"
            return web.Response(text=rules)
        now = time.monotonic()
        if host.kind == "patient":
            if now < host.is_refusing_until:
                # those under way when it began to refuse ask no second time
                host.too_early += now - (host.is_refusing_until - RETRY_AFTER) > 2 * QUICK + 0.1
                return web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER)})
            host.since_patience += 1
            if host.since_patience > REQUESTS_BEFORE_PATIENCE:
                host.since_patience = 0
                host.is_refusing_until = now + RETRY_AFTER
                return web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER)})
        number = int(path.strip("/").partition(".")[0])
        if host.kind == "redirecting" and not path.startswith("//"):
            here = self.addresses.index(request.host.partition(":")[0])
            there = self.addresses[(here + 2) % len(self.addresses)]
            raise web.HTTPFound(f"http://{there}:{self.port}/{path}")
        if host.kind == "failing" and host.asked[path] == 1:
            if number % 2:
                return web.Response(status=503)
            return await self.cut(request, self.body(path))
        if number % 50 == 7:
            return web.Response(status=404)
        response = web.Response(body=self.body(path), content_type="image/jpeg")
        await response.prepare(request)
        await response.write_eof()
        host.given[path] += 1
        return response

    async def cut(self, request, body: bytes):
        """Half of a body, with the length of all."""
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        request.transport.close()
        return response


def drawn() -> bytes:
    """The bytes of a small picture."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 80), "white")
    ImageDraw.Draw(image).ellipse((10, 10, 70, 60), fill="teal")
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return stream.getvalue()


@contextmanager
def nodes(cores: list[int], **options):
    """A cluster of nodes on this machine, with so many cores each; `options` are Ray's of a node."""
    from ray.cluster_utils import Cluster

    common = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, **options}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores[0], **common})
    try:
        for number in cores[1:]:
            cluster.add_node(num_cpus=number, object_store_memory=OBJECT_STORE, **options)
        yield cluster
    finally:
        cluster.shutdown()


def senders(node) -> list[int]:
    """The processes of a node's workers that send requests."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [
        child.pid
        for child in raylet.children()
        if child.is_running() and "Sender" in " ".join(child.cmdline())
    ]
