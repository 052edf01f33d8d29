"""What a download on Ray loses, fetches twice or asks too early, when workers, nodes and the command are killed.

    python benchmarks/faults.py [--urls 20000] [--only "a worker is killed"]
    python benchmarks/faults.py --rates 3 [--urls 2000 20000] [--cores 2] [--save FILE]

Servers of this process answer on many addresses of 127.0.0.0/8, each of them a host: plain ones, slow
ones, those with a Crawl-delay, those that ask for patience by http 429, those that redirect to such
ones, also for their robots.txt, and with answers that are cut or fail once. They count requests at a
time and the pauses between them. Two nodes (`ray.cluster_utils.Cluster`) do the download for each
fault. With `--rates`, plain hosts tell instead how many pictures a second they give to the command
alone and to one with a worker on Ray for each of `--cores`, in so many rounds for each number of URLs,
and how much memory these processes take near the end; the rates of the last number are saved. Needs the
extra `cluster`.
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
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
from reckon import save

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("plain", "slow", "redirecting", "patient", "delaying", "failing")
CRAWL_DELAY = 0.2  # seconds
RETRY_AFTER = 1  # seconds, which a patient host asks for
REQUESTS_BEFORE_PATIENCE = 12
SLOW = 0.3  # seconds of an answer
QUICK = 0.02
PER_HOST = 2  # requests at a time, the default
ON_ITS_WAY = (
    0.5  # seconds that a request may take to the host, or a refusal back, on a busy machine
)
TOTAL = 32  # requests under way of a worker
OBJECT_STORE = 2**27  # bytes of a node
RULES = "/rules.txt"  # to which the robots.txt of a redirecting host leads
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
    refusals: int = 0
    under_way_then: int = 0  # requests that came since it refuses, and may have been on their way
    too_early: list[float] = field(default_factory=list)  # seconds of others since the refusal


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
        self.most = 0  # requests at a time, over all hosts

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

    def base(self, number: int) -> str:
        """The address of a host as URLs begin with it."""
        return f"http://{self.addresses[number % len(self.addresses)]}:{self.port}"

    def url(self, number: int, picture: int) -> str:
        return f"{self.base(number)}/{picture}.jpg"

    def of(self, url: str) -> Host:
        """The host that a URL names."""
        return self.hosts[url.split("/")[2].partition(":")[0]]

    def forget(self):
        """Begin anew: nothing was asked."""
        self.most = 0
        for address, host in self.hosts.items():
            self.hosts[address] = Host(host.kind)

    def broken_limits(self) -> list[str]:
        """In words, where more than `PER_HOST` requests were under way at a host, or one came too
        early.
        """
        broken = []
        for address, host in self.hosts.items():
            if host.most > PER_HOST:
                broken.append(f"{address}: {host.most} requests at a time")
            if host.kind == "delaying" and host.shortest_pause < CRAWL_DELAY:
                broken.append(f"{address}: a pause of {host.shortest_pause:.3f} s")
            if host.too_early:
                broken.append(f"{address}: asked {host.too_early} s after its Retry-After")
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
        self.most = max(self.most, sum(host.under_way for host in self.hosts.values()))
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
        here = self.addresses.index(request.host.partition(":")[0])
        if path == "/robots.txt":
            if host.kind == "redirecting":
                raise web.HTTPFound(f"{self.base(here + 1)}{RULES}")
            if host.kind != "delaying":
                return web.Response(status=404)
            rules = f"User-agent: *\nCrawl-delay: {CRAWL_DELAY}\nDisallow: /{FORBIDDEN}\n"
            return web.Response(text=rules)
        now = time.monotonic()
        if host.kind == "patient":
            if now < host.is_refusing_until:
                since = now - (host.is_refusing_until - RETRY_AFTER)
                host.under_way_then += 1
                if since > ON_ITS_WAY or host.under_way_then >= PER_HOST:
                    host.too_early.append(round(since, 3))
                host.refusals += 1
                return web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER)})
            host.since_patience += 1
            if host.since_patience > REQUESTS_BEFORE_PATIENCE:
                host.since_patience = 0
                host.under_way_then = 0
                host.is_refusing_until = now + RETRY_AFTER
                host.refusals += 1
                return web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER)})
        if path == RULES:
            return web.Response(status=404)
        number = int(path.strip("/").partition(".")[0])
        if host.kind == "redirecting" and not path.startswith("//"):
            turn = number // len(self.addresses) % 2  # to a patient host, then to a delaying one
            raise web.HTTPFound(f"{self.base(here + 1 + turn)}/{path}")
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


def kill_node(cluster, node):
    """Kill all processes of a node at once, as its end would."""
    raylet = raylet_of(node)
    processes = [raylet, *raylet.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)
    cluster.remove_node(node, allow_graceful=False)


def raylet_of(node) -> psutil.Process:
    """The process of Ray that starts a node's workers."""
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def senders(node) -> list[int]:
    """The processes of a node's workers that send requests."""
    raylet = raylet_of(node)
    return [
        child.pid
        for child in raylet.children()
        if child.is_running() and "Sender" in " ".join(child.cmdline())
    ]


class Run:
    """A download of `urls` URLs from `hosts` by the command, on the nodes of a cluster; without one
    by the command alone.
    """

    def __init__(self, hosts: Hosts, cluster, urls: int, folder: Path):
        self.hosts = hosts
        self.cluster = cluster
        self.urls = urls
        self.data = folder / "data"
        number = len(hosts.addresses)
        lines = ["url", *(hosts.url(i % number, i) for i in range(urls))]
        (folder / "urls_all.csv").write_text("\n".join(lines) + "\n")
        self.arguments = ["download", "--lists", folder, "--data", self.data, "--allow-private"]
        self.arguments += ["--total", str(TOTAL)]
        if cluster is not None:
            self.arguments += ["--engine", "ray", "--address", cluster.address]
        self.under_way = 0  # requests of the workers that were killed, at most
        self.start()

    def start(self):
        self.command = subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, *self.arguments], stdout=subprocess.DEVNULL
        )

    def wait_for_share(self, share: float):
        """Wait until so much of the pictures was sent."""
        while self.hosts.given() < share * self.urls:
            if self.command.poll() is not None:
                raise RuntimeError(f"the command ended with code {self.command.returncode}")
            time.sleep(0.05)

    def note_killed(self, workers: int):
        self.under_way += TOTAL * workers

    def row(self) -> dict:
        """What came of it: numbers of rows, and of what must not be."""
        from artclf.data.catalogue import read_catalogue

        rows = read_catalogue(self.data)
        ok = rows[rows.status == "ok"]
        files = {path.relative_to(self.data).as_posix() for path in self.data.glob("raw/*/*")}
        damaged = 0
        for row in ok.itertuples():
            file = self.data / row.file
            name = row.url.rpartition("/")[2].encode()
            damaged += not file.exists() or not file.read_bytes().endswith(b"/" + name)
        expected = {"http 404", "disallowed by robots.txt"}
        lost = (rows.status == "pending") | (rows.reason.notna() & ~rows.reason.isin(expected))
        return {
            "pictures": len(ok),
            "lost": int(lost.sum()) + self.urls - len(rows),
            "files damaged": damaged,
            "files too many": len(files - set(ok.file)),
            "fetched again": self.hosts.fetched_again(),
            "of at most": self.under_way,
            "refusals": sum(host.refusals for host in self.hosts.hosts.values()),
            "limits broken": len(self.hosts.broken_limits()),
        }


def no_fault(run: Run):
    run.wait_for_share(0.9)
    [worker] = map(psutil.Process, senders(run.cluster.head_node))
    print(f"A worker takes {megabytes_of(worker):.0f} MB", flush=True)


def kill_a_worker(run: Run):
    run.wait_for_share(0.3)
    os.kill(senders(run.cluster.head_node)[0], signal.SIGKILL)
    run.note_killed(1)


def kill_a_node(run: Run):
    run.wait_for_share(0.3)
    node = run.cluster.worker_nodes.copy().pop()
    run.note_killed(len(senders(node)))
    kill_node(run.cluster, node)
    run.wait_for_share(0.6)
    run.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)


def kill_the_command(run: Run):
    run.wait_for_share(0.4)
    run.command.kill()
    run.command.wait()
    run.note_killed(2)
    run.start()


def fill_a_disk(run: Run):
    """The worker of one node can't write files of more than 1,000 bytes, less than a picture."""
    run.wait_for_share(0.3)
    [pid] = senders(run.cluster.head_node)
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (1000, 1000))
    run.note_killed(1)


def let_a_node_join(run: Run):
    run.wait_for_share(0.2)
    node = run.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
    run.wait_for_share(0.9)
    seconds = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in senders(node)]
    print(f"The worker of the node that joined took {seconds} s of a core")
    run.command.wait()
    run.cluster.remove_node(node)


def slow_a_node_down(run: Run):
    """The worker of one node is stopped for nine tenths of each second."""
    run.wait_for_share(0.2)
    [worker] = map(psutil.Process, senders(run.cluster.head_node))
    with suppress(psutil.NoSuchProcess):  # at the end
        while run.command.poll() is None:
            worker.suspend()
            time.sleep(0.9)
            worker.resume()
            time.sleep(0.1)


FAULTS = {
    "none": no_fault,
    "a worker is killed": kill_a_worker,
    "a node is killed, and one joins": kill_a_node,
    "the command is killed, and runs again": kill_the_command,
    "a worker's disk is full": fill_a_disk,
    "a node joins late": let_a_node_join,
    "a node is slow": slow_a_node_down,
}


class Rate(NamedTuple):
    """Pictures a second that plain hosts give, those for each second of the processor that the
    command takes, and the MB near the end, of the command and of each worker.
    """

    pictures: float
    for_processor: float
    command: float
    workers: list[float]


def rate(urls: int, cluster) -> Rate:
    with Hosts(64, kinds=("plain",)) as hosts, TemporaryDirectory() as folder:
        run = Run(hosts, cluster, urls, Path(folder))
        run.wait_for_share(0.1)
        command = psutil.Process(run.command.pid)
        started, processor, first = time.perf_counter(), processor_of(command), hosts.given()
        run.wait_for_share(0.9)
        seconds, pictures = time.perf_counter() - started, hosts.given() - first
        processor = processor_of(command) - processor
        workers = senders(cluster.head_node) if cluster else []
        megabytes = [megabytes_of(psutil.Process(pid)) for pid in workers]
        found = Rate(pictures / seconds, pictures / processor, megabytes_of(command), megabytes)
        if run.command.wait():
            raise RuntimeError(f"the command ended with code {run.command.returncode}")
        return found


def processor_of(process: psutil.Process) -> float:
    """Seconds of the processor."""
    times = process.cpu_times()
    return times.user + times.system


def megabytes_of(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def compare_rates(numbers_of_urls: list[int], rounds: int, cores: int, file: Path | None):
    with nodes([cores]) as cluster:
        for urls in numbers_of_urls:
            here, on_ray = [], []
            for _ in range(rounds):
                here.append(rate(urls, None))
                show("here", urls, here[-1])
                on_ray.append(rate(urls, cluster))
                show("on Ray", urls, on_ray[-1])
            local, ray = (median(found.pictures for found in rates) for rates in (here, on_ray))
            print(f"{urls} URLs: {local:.0f} here, {ray:.0f} on Ray ({ray / local - 1:+.0%})")
    if file:
        driver = median(found.for_processor for found in on_ray)
        save(file, {"download": {"a_core": ray / cores, "driver": driver}})


def show(place: str, urls: int, found: Rate):
    line = f"{urls} URLs, {place}: {found.pictures:.0f} pictures a second, the command takes "
    line += f"{found.command:.0f} MB"
    for megabytes in found.workers:
        line += f", a worker {megabytes:.0f} MB"
    print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--urls", type=int, nargs="+", default=[20_000])
    parser.add_argument("--hosts", type=int, default=240)
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--rates", type=int, default=0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    if args.rates:
        compare_rates(args.urls, args.rates, args.cores, args.save)
        return
    if len(args.urls) > 1:
        parser.error("several numbers of --urls go with --rates")
    [urls] = args.urls
    with Hosts(args.hosts) as hosts, nodes([1, 1]) as cluster:
        for name in args.only:
            hosts.forget()
            started = time.perf_counter()
            with TemporaryDirectory() as folder:
                run = Run(hosts, cluster, urls, Path(folder))
                FAULTS[name](run)
                if run.command.wait():
                    raise RuntimeError(f"the command ended with code {run.command.returncode}")
                seconds = time.perf_counter() - started
                print(f"{name}: {seconds:.0f} s, {run.row()}", flush=True)
                for line in hosts.broken_limits():
                    print(line, flush=True)


if __name__ == "__main__":
    main()
