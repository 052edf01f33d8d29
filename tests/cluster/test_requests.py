"""Downloads on the workers of Ray: the same rows and bytes as from this machine; the limits of hosts
hold for all workers together, also when workers, nodes or the command are killed.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from yarl import URL

from artclf.base.errors import StepError
from artclf.cluster import requests
from artclf.cluster.connecting import connection
from artclf.cluster.requests import ClientOnWorkers, sent_by_workers
from artclf.data.catalogue import read_catalogue
from artclf.data.client import Client, Question, Reply
from artclf.data.fetch import at_once
from artclf.data.intake import Failure
from artclf.download import fetch_lists

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAUSE = 0.31  # seconds that a host wants
TOTAL = 8  # requests under way of a worker


@pytest.fixture(scope="module")
def faults():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import faults

        yield faults


@pytest.fixture(scope="module")
def cluster(request, quick_start, faults):
    """Two nodes with a core each; this process is connected to the first."""
    ray.cloudpickle.register_pickle_by_value(request.module)
    with faults.nodes([1, 1]) as cluster, connection(cluster.address) as head:
        cluster.head = head
        yield cluster


@pytest.fixture
def one_worker(cluster, monkeypatch):
    monkeypatch.setattr(cluster.head, "size", lambda: 1)


@pytest.fixture
def hosts(faults, monkeypatch):
    monkeypatch.setattr(faults, "CRAWL_DELAY", 0.1)
    monkeypatch.setattr(faults, "REQUESTS_BEFORE_PATIENCE", 6)
    with faults.Hosts(12) as hosts:
        yield hosts


def lists_of(hosts, folder: Path, pictures: int) -> Path:
    lists = folder / "lists"
    lists.mkdir()
    number = len(hosts.addresses)
    for period in ("one", "two"):
        urls = [hosts.url(i % number, i) for i in range(number * pictures)]
        half = urls[::2] if period == "one" else urls[1::2]
        (lists / f"urls_{period}.csv").write_text("\n".join(["url", *half]) + "\n")
    return lists


def run(lists: Path, data: Path, **options):
    options = {"allow_private": True, "backoff": 0.05, "total": TOTAL, **options}
    return fetch_lists(lists, data, **options)


def check(hosts, data: Path, most_again: int):
    """All pictures are there once, each host was treated as it wants, and at most `most_again`
    pictures were fetched again.
    """
    rows = read_catalogue(data)
    assert set(rows.status) <= {"ok", "failed"}
    assert set(rows.reason.dropna()) <= {"http 404", "disallowed by robots.txt"}
    files = {path.relative_to(data).as_posix() for path in data.glob("raw/*/*")}
    assert files == set(rows.file.dropna()) and not (data / "tmp").exists()
    for row in rows[rows.status == "ok"].itertuples():
        assert (data / row.file).read_bytes().startswith(hosts.picture)
    assert hosts.broken_limits() == []
    assert hosts.fetched_again() <= most_again


def in_a_thread(coroutine):
    """What a coroutine returns: the browser of other tests has a running loop in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def length(response) -> int:
    return len(response.body)


def test_rows_and_bytes_are_those_of_this_machine(cluster, hosts, tmp_path, monkeypatch):
    lists = lists_of(hosts, tmp_path, 8)
    folders = [tmp_path / "here", tmp_path / "there"]
    summary = run(lists, folders[0])
    hosts.forget()
    monkeypatch.setattr(Client, "ask", None)  # this process sends nothing more
    with sent_by_workers(folders[1]) as engine:
        assert run(lists, folders[1], engine=engine).equals(summary)
    here, there = map(read_catalogue, folders)
    assert here.drop(columns="tries").equals(there.drop(columns="tries"))
    # some rows of redirecting hosts lead to patient ones
    is_sure = ~here.url.map(lambda url: hosts.of(url).kind in ("patient", "redirecting"))
    assert here.tries[is_sure].equals(there.tries[is_sure])
    assert here.tries[is_sure].max() == 2 and set(here.http_status.dropna()) == {200, 404}
    for file in here.file.dropna():
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    check(hosts, folders[1], most_again=0)
    assert hosts.most <= 2 * TOTAL  # of two workers


class Handle:
    """What `_Worker` uses of an actor: it answers each question by its URL, two at a time, the last
    first.
    """

    def __init__(self):
        self.calls = []
        self.asked = asyncio.Queue()
        self.ask = SimpleNamespace(remote=self._ask)
        self.answers = SimpleNamespace(remote=self._answers)

    async def _ask(self, questions):
        self.calls.append(len(questions))
        for numbered in reversed(questions):
            self.asked.put_nowait(numbered)

    async def _answers(self):
        both = [await self.asked.get(), await self.asked.get()]
        return [(number, Reply(200, 0, result=question.url)) for number, question in both]


def test_questions_travel_together_and_get_their_own_answers():
    handle = Handle()
    urls = [URL(f"http://museum.example/{i}.jpg") for i in range(8)]

    async def main():
        worker = requests._Worker(handle, "machine", TOTAL)
        running = asyncio.create_task(worker.run())
        questions = [Question(url, 5, 10**6, False, length) for url in urls]
        replies = await asyncio.gather(*map(worker.answer, questions))
        running.cancel()
        return [reply.result for reply in replies]

    assert in_a_thread(main()) == urls
    assert handle.calls == [8]


# Workers, nodes and the command end


class Download:
    """A download in a thread, with what it raised."""

    def __init__(self, *args, **options):
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, args=args, kwargs=options)
        self.thread.start()

    def _run(self, *args, **options):
        try:
            run(*args, **options)
        except Exception as error:  # noqa: BLE001 (it is raised by `wait`)
            self.error = error

    def wait(self):
        self.thread.join()
        if self.error:
            raise self.error


def wait_until(hosts, given: int):
    end = time.monotonic() + 60
    while hosts.given() < given:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_worker_and_a_killed_node_cost_only_what_was_under_way(
    cluster, faults, hosts, tmp_path, capfd
):
    lists = lists_of(hosts, tmp_path, 14)
    data = tmp_path / "data"
    with sent_by_workers(data) as engine:
        download = Download(lists, data, engine=engine)
        wait_until(hosts, 40)
        [pid] = faults.senders(cluster.head_node)
        os.kill(pid, signal.SIGKILL)
        wait_until(hosts, 80)
        faults.kill_node(cluster, cluster.worker_nodes.copy().pop())
        download.wait()
    check(hosts, data, most_again=2 * TOTAL)
    cluster.add_node(num_cpus=1)
    assert not faults.senders(cluster.head_node)


def test_after_a_kill_of_the_command_the_next_run_goes_on(cluster, hosts, tmp_path):
    lists = lists_of(hosts, tmp_path, 10)
    data = tmp_path / "data"
    arguments = ["download", "--lists", lists, "--data", data, "--total", str(TOTAL)]
    arguments += ["--allow-private", "--engine", "ray", "--address", cluster.address]
    program = "from artclf.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as command:
        wait_until(hosts, 50)
        command.kill()
    with sent_by_workers(data) as engine:
        run(lists, data, engine=engine)
    check(hosts, data, most_again=2 * TOTAL)


# Workers that do harm or fail


class EndsItsWorker:
    def __call__(self, response):
        os._exit(1)


class FailsInOneWorker:
    """Raises OSError in the first worker that uses it, whose process is in the file `pid`."""

    def __init__(self, pid: Path):
        self.pid = pid

    def __call__(self, response):
        try:
            with self.pid.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            if self.pid.read_text() != str(os.getpid()):
                return os.getpid()
        raise OSError(28, "No space left on device")


class HangsOnce:
    def __init__(self, file: Path):
        self.file = file

    def __call__(self, response):
        if not self.file.exists():
            self.file.touch()
            time.sleep(600)
        return "awake"


def ask(cluster, hosts, data: Path, *uses, before=at_once):
    """What becomes of a question for each of `uses`, asked at the same time: the first of a quick
    host, the others of a slow one.
    """

    async def main():
        client = ClientOnWorkers(cluster.head, data, Client("me", TOTAL, 5, allow_private=True))
        async with client:
            questions = [
                Question(URL(hosts.url(min(i, 1), i)), 5, 10**6, False, use, PAUSE)
                for i, use in enumerate(uses)
            ]
            asking = [client.ask(question, before) for question in questions]
            answers = await asyncio.gather(*asking, return_exceptions=True)
        return [answer.result if isinstance(answer, Reply) else answer for answer in answers]

    return in_a_thread(main())


@pytest.mark.usefixtures("one_worker")
def test_a_url_that_ends_its_workers_fails_and_takes_no_other_with_it(
    cluster, hosts, tmp_path, monkeypatch
):
    monkeypatch.setattr(requests, "REST", 0)
    bad, *good = ask(cluster, hosts, tmp_path, EndsItsWorker(), *[length] * 6)
    assert isinstance(bad, Failure) and bad.reason == "ended 3 workers of the cluster"
    assert good == [len(hosts.picture) + len("/1.jpg")] * 6


def test_a_worker_that_cannot_write_is_asked_nothing_more(
    cluster, hosts, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(requests, "REST", 0)
    slept = []
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: slept.append(seconds) or sleep(seconds))
    [pid] = ask(cluster, hosts, tmp_path, FailsInOneWorker(tmp_path / "pid"))
    assert pid != int((tmp_path / "pid").read_text())
    assert PAUSE in slept  # the other worker keeps it, too
    [line] = [line for line in capfd.readouterr().err.splitlines() if "No more requests" in line]
    assert "No space left on device" in line


def no_room(response):
    raise OSError(28, "No space left on device")


@pytest.mark.usefixtures("one_worker")
def test_where_no_worker_can_write_the_download_ends(cluster, hosts, tmp_path, monkeypatch):
    started = time.monotonic()
    [error] = ask(cluster, hosts, tmp_path, no_room)
    assert isinstance(error, OSError) and error.errno == 28
    assert time.monotonic() - started < requests.PATIENCE  # no worker starts that it may wait for


@pytest.mark.usefixtures("one_worker")
def test_a_worker_that_hangs_is_replaced(cluster, hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "SPARE_SECONDS", 3)
    assert ask(cluster, hosts, tmp_path, HangsOnce(tmp_path / "hung")) == ["awake"]


@pytest.mark.usefixtures("one_worker")
def test_workers_that_do_not_see_the_folder_are_named(cluster, hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "marked", lambda data: nullcontext(data / "none" / "mark"))
    [error] = ask(cluster, hosts, tmp_path, length)
    assert isinstance(error, StepError) and "does not see the folder" in str(error)


def refuse():
    raise Failure("closed")


@pytest.mark.usefixtures("one_worker")
def test_a_request_is_not_sent_where_its_host_has_closed_meanwhile(cluster, hosts, tmp_path):
    [error] = ask(cluster, hosts, tmp_path, length, before=refuse)
    assert isinstance(error, Failure) and error.reason == "closed"
    assert not hosts.of(hosts.url(0, 0)).asked
