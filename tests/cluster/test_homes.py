"""Which worker asks a host: one at a time, and those that come later are used, too. The workers are
of this process; Ray's are in `test_requests`.
"""

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from yarl import URL

from artclf.cluster import requests
from artclf.cluster.requests import ClientOnWorkers
from artclf.data.client import Client, Question, Reply
from artclf.data.fetch import as_it_is, at_once

ray = pytest.importorskip("ray")
TOTAL = 4  # requests under way of a worker
PATIENCE = 5  # seconds for what should come soon


class Network:
    """What the clients of all workers ask: each request ends when its host is `let`."""

    def __init__(self):
        self.asked: dict[str, list] = defaultdict(
            list
        )  # host -> the workers that asked it, in turn
        self.may_end: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.most_at_a_time: dict[str, int] = defaultdict(int)  # workers, by host
        self.under_way: dict[str, list] = defaultdict(list)

    def let(self, *hosts: str):
        for host in hosts:
            self.may_end[host].set()

    async def ask(self, worker, question: Question) -> Reply:
        host = question.url.host
        self.asked[host].append(worker)
        self.under_way[host].append(worker)
        workers = len(set(self.under_way[host]))
        self.most_at_a_time[host] = max(self.most_at_a_time[host], workers)
        await self.may_end[host].wait()
        self.under_way[host].remove(worker)
        return Reply(200, 0, result=host)


class Actor(requests.Sender):
    """A `Sender` as Ray's handle of it is called, whose client asks a `Network`."""

    def __init__(self, network: Network):
        for name in ("start", "ask", "answers"):
            setattr(self, name, SimpleNamespace(remote=getattr(super(), name)))
        self.network = network

    async def _ask(self, number: int, question: Question):
        self.done.put_nowait((number, await self.network.ask(self, question)))


class Workers(ClientOnWorkers):
    """A client on workers of this process, as many as `cores`; `ask(host)` begins a question."""

    def __init__(self, data, network: Network):
        super().__init__(self.head, data, Client("me", TOTAL, 5, allow_private=True))
        self.network = network
        self._new_actor = lambda: Actor(network)

    def begin(self, host: str) -> asyncio.Task:
        question = Question(URL(f"http://{host}/"), 5, 100, False, as_it_is)
        return asyncio.create_task(self.ask(question, at_once))

    async def until_asked(self, host: str, times: int = 1):
        async with asyncio.timeout(PATIENCE):
            while len(self.network.asked[host]) < times:
                await asyncio.sleep(0.001)

    async def until_ready(self, number: int):
        async with asyncio.timeout(PATIENCE):
            while len(self._ready) < number:
                await asyncio.sleep(0.001)


@pytest.fixture
def cores(monkeypatch):
    """The number of cores of the cluster, in a list."""
    number = [1]
    head = SimpleNamespace(size=lambda: number[0], end=lambda actor: None, check=lambda: None)
    monkeypatch.setattr(Workers, "head", head, raising=False)
    monkeypatch.setattr(requests, "SECONDS_TO_LOOK", 0.02)
    return number


def in_a_thread(coroutine):
    """What a coroutine returns: the browser of other tests has a running loop in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_a_host_is_asked_by_one_worker_and_hosts_share_the_workers(cores, tmp_path):
    cores[0] = 2
    network = Network()
    hosts = [f"h{i}.example" for i in range(4)]

    async def main():
        async with Workers(tmp_path, network) as workers:
            await workers.until_ready(2)
            first = [workers.begin(host) for host in hosts]
            for host in hosts:
                await workers.until_asked(host)
            network.let(*hosts)
            await asyncio.gather(*first)
            for _ in range(3):
                await asyncio.gather(*(workers.begin(host) for host in hosts * 2))

    in_a_thread(main())
    assert [len(network.asked[host]) for host in hosts] == [7] * 4
    assert all(len(set(network.asked[host])) == 1 for host in hosts)
    assert len({network.asked[host][0] for host in hosts}) == 2


def test_a_host_moves_to_a_worker_that_joins_when_no_request_is_under_way(cores, tmp_path):
    network = Network()

    async def main():
        async with Workers(tmp_path, network) as workers:
            busy = [workers.begin("busy.example") for _ in range(2)]
            await workers.until_asked("busy.example", 2)
            cores[0] = 2
            await workers.until_ready(2)
            old, new = (worker.actor for worker in workers._ready)
            third = workers.begin("busy.example")
            await workers.until_asked("busy.example", 3)
            other = workers.begin("other.example")  # it has most room at the new worker
            await workers.until_asked("other.example")
            assert network.asked == {"busy.example": [old] * 3, "other.example": [new]}
            network.let("busy.example")
            await asyncio.gather(*busy, third)
            network.let("other.example")
            await other
            held = workers.begin("held.example")  # by the old worker
            await workers.until_asked("held.example")
            assert network.asked["held.example"] == [old]
            await workers.begin("busy.example")
            assert network.asked["busy.example"] == [old] * 3 + [new]
            network.let("held.example")
            await held

    in_a_thread(main())


def test_questions_that_wait_for_a_place_go_to_a_worker_that_joins(cores, tmp_path):
    network = Network()
    hosts = [f"h{i}.example" for i in range(4 * TOTAL)]

    async def main():
        async with Workers(tmp_path, network) as workers:
            questions = [workers.begin(host) for host in hosts]
            for host in hosts[:TOTAL]:
                await workers.until_asked(host)
            cores[0] = 2
            await workers.until_ready(2)
            network.let(*hosts)
            await asyncio.gather(*questions)

    in_a_thread(main())
    assert len({worker for asked in network.asked.values() for worker in asked}) == 2
    assert set(network.most_at_a_time.values()) == {1}


def test_all_cores_that_join_get_a_worker(cores, tmp_path):
    network = Network()

    async def main():
        async with Workers(tmp_path, network) as workers:
            await workers.until_ready(1)
            cores[0] = 3
            await workers.until_ready(3)
            hosts = [f"h{i}.example" for i in range(3)]
            questions = [workers.begin(host) for host in hosts]
            for host in hosts:
                await workers.until_asked(host)
            network.let(*hosts)
            await asyncio.gather(*questions)

    in_a_thread(main())
    assert len({worker for asked in network.asked.values() for worker in asked}) == 3
