"""Requests of a download on Ray: actors send them, and write the pictures into the shared folder.

The process of the command keeps the limits of every host, robots.txt and the catalogue, so they
hold for all workers together, also when one ends. Rows and paths travel, never pixels, and those of
several requests together, because a call of Ray takes longer than a request. Needs the extra
`cluster`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from platform import node
from typing import Any

from artclf.base.errors import StepError
from artclf.base.progress import show_line
from artclf.base.remembered import Remembered
from artclf.cluster.connecting import Head, connection
from artclf.cluster.workers import MOST_FAILED_STARTS, SECONDS_TO_LOOK, marked, no_start, see
from artclf.data.client import Client, Question, Reply
from artclf.data.fetch import at_once
from artclf.data.intake import Failure

DEATHS = 3  # of workers that had a request under way, before its URL is taken for the cause
REST = 1  # seconds at least that a host is left alone before it is asked again by another worker
SPARE_SECONDS = 30  # beyond those of a request, before its worker counts as hanging
MOST_HOMES = 100_000  # hosts whose worker is remembered
PATIENCE = 30  # seconds without any worker, where others could not write

Answer = Reply | Exception
MakeClient = Callable[[Client], "ClientOnWorkers"]


@contextmanager
def sent_by_workers(
    data: Path, address: str | None = None, cores: int | None = None
) -> Iterator[MakeClient]:
    """A context manager that connects to a Ray cluster, as `connecting.connection` does, and gives
    the `engine` of `fetch_lists(..., data)`.
    """
    with connection(address, cores) as head:
        yield partial(ClientOnWorkers, head, data)


class Sender:
    """What runs in each of Ray's actors: a client, with its own event loop."""

    async def start(self, client: Client, mark: Path) -> str:
        """Get ready to send the requests of `client`; return the name of this machine. Raises
        StepError where the worker does not see the file `mark`.
        """
        see(mark)
        self.client = client
        self.tasks: set[asyncio.Task] = set()
        self.done: asyncio.Queue[tuple[int, Answer]] = asyncio.Queue()
        await client.__aenter__()
        return node()

    async def ask(self, questions: list[tuple[int, Question]]):
        """Begin to ask numbered questions. `answers` tells what becomes of them."""
        for number, question in questions:
            task = asyncio.create_task(self._ask(number, question))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _ask(self, number: int, question: Question):
        try:
            answer: Answer = await self.client.ask(question, at_once)
        except Exception as error:  # noqa: BLE001 (it is raised in the process of the command)
            answer = error
        self.done.put_nowait((number, answer))

    async def answers(self) -> list[tuple[int, Answer]]:
        """The numbers of questions, at least one, and what `Client.ask` returned or raised for each:
        those whose answers came since the last call.
        """
        answers = [await self.done.get()]
        while not self.done.empty():
            answers.append(self.done.get_nowait())
        return answers


class _Worker:
    """A started actor as the process of the command sees it."""

    def __init__(self, actor, machine: str, total: int):
        self.actor = actor  # the handle that Ray gives of a `Sender`
        self.machine = machine
        self.places = asyncio.Semaphore(total)  # of the requests under way
        self.questions = 0  # under way, and those that wait for a place
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[Answer | None]] = {}  # that are waited for
        self._unsent: list[tuple[int, Question]] = []
        self._is_asked = asyncio.Event()  # something is unsent

    async def answer(self, question: Question) -> Answer | None:
        """The answer to a question; None where the worker ends before."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self._unsent.append((number, question))
        self._is_asked.set()
        try:
            return await self._answers[number]
        finally:
            del self._answers[number]

    async def run(self):
        """Send questions and receive answers until the actor ends."""
        from ray.exceptions import RayError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send())
                group.create_task(self._receive())
        except* RayError:
            self.settle_all(None)

    async def _send(self):
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            questions, self._unsent = self._unsent, []
            await self.actor.ask.remote(questions)

    async def _receive(self):
        while True:
            for number, answer in await self.actor.answers.remote():
                self._settle(number, answer)

    def settle_all(self, answer: Answer | None):
        """Answer all questions that are waited for."""
        for number in self._answers:
            self._settle(number, answer)

    def _settle(self, number: int, answer: Answer | None):
        waiting = self._answers.get(number)
        if waiting and not waiting.done():  # it may have timed out
            waiting.set_result(answer)


@dataclass
class _Home:
    """The worker that a host is asked by, once there is one."""

    worker: _Worker | None = None


class ClientOnWorkers:
    """Asks as a `Client` does, with one such client in each of the workers, one a core.

    The questions to a host go to one worker as long as that lives. When another one starts, a host
    may move to that as soon as no question to it is under way. A worker that ends or hangs is
    replaced, and what it had under way is asked again by another one. A worker that can't write
    gets no further questions, while those under way come to their end.
    """

    def __init__(self, head: Head, data: Path, client: Client):
        import ray

        self.head = head
        self.client = client
        self.data = data
        self.size = head.size()
        self._new_actor = ray.remote(num_cpus=1)(Sender).remote

    async def __aenter__(self):
        self._actors: set = set()  # those that start, too
        self._ready: list[_Worker] = []
        # of each host; in use while a question is under way
        self._homes: Remembered[str, _Home] = Remembered(lambda host: _Home(), MOST_HOMES)
        self._changed = asyncio.Event()  # a worker is ready, or there will be none
        self._suspects = asyncio.Lock()  # of the question that may be what ends its workers
        self._starting = 0  # workers
        self._error: Exception | None = None  # why no further worker starts
        self._write_error: OSError | None = None  # of the worker that was set aside last
        self._tasks: set[asyncio.Task] = set()
        self._marking = ExitStack()
        self._mark = self._marking.enter_context(marked(self.data))
        for _ in range(self.size):
            self._in_background(self._start_worker())
        self._in_background(self._watch())
        return self

    async def __aexit__(self, *exc):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for actor in self._actors:
            self.head.end(actor)
        self._marking.close()

    async def ask(self, question: Question, before: Callable[[], None]) -> Reply:
        """What became of a question; `before` is called each time before it is sent to a worker.
        Raises Failure, what `before` raises, StepError where no worker starts or the cluster is
        gone, OSError where none can write.
        """
        host = (question.url.raw_host or "").lower()
        deaths = 0
        while deaths < DEATHS:
            # so that a question that ends its workers takes no other one with it twice
            async with self._suspects if deaths == DEATHS - 1 else nullcontext():
                answer = await self._ask_once(host, question, before)
                if isinstance(answer, Reply):
                    return answer
                if isinstance(answer, Exception) and not isinstance(answer, OSError):
                    raise answer
                deaths += answer is None
                await asyncio.sleep(max(REST, question.pause))
        raise Failure(f"ended {DEATHS} workers of the cluster")

    async def _ask_once(
        self, host: str, question: Question, before: Callable[[], None]
    ) -> Answer | None:
        """What the worker of `host` answers; None where it ended."""
        async with self._place(host) as worker:
            before()
            try:
                async with asyncio.timeout(question.seconds + SPARE_SECONDS):
                    answer = await worker.answer(question)
            except TimeoutError:
                self._replace(worker)
                return None
        if isinstance(answer, OSError):
            self._set_aside(worker, answer)
        return answer

    @asynccontextmanager
    async def _place(self, host: str) -> AsyncIterator[_Worker]:
        """A place for a request, at the worker of `host`."""
        while True:
            worker = await self._worker_of(host)
            worker.questions += 1
            try:
                async with worker.places:
                    # it may have ended meanwhile, or the host may have moved to a new one
                    if worker is await self._worker_of(host):
                        with self._homes.using(host):
                            yield worker
                        return
            finally:
                worker.questions -= 1

    async def _worker_of(self, host: str) -> _Worker:
        """The worker that asks `host`, by default the one with fewest questions, when there is one."""
        while not self._ready:
            if self._error:
                raise self._error
            if self._write_error and not self._starting:
                raise self._write_error
            self._changed.clear()
            if self._write_error is None:
                await self._changed.wait()
                continue
            try:
                await asyncio.wait_for(self._changed.wait(), PATIENCE)
            except TimeoutError:
                raise self._write_error from None
        with self._homes.using(host) as home:
            if home.worker not in self._ready:
                home.worker = min(self._ready, key=lambda worker: worker.questions)
            return home.worker

    async def _start_worker(self):
        """Start a worker; whoever waits for one looks again in the end."""
        self._starting += 1
        try:
            await self._start_until_ready()
        finally:
            self._starting -= 1
            self._changed.set()

    async def _start_until_ready(self):
        """Start a worker, several times where it ends as it starts."""
        from ray.exceptions import RayError, RayTaskError

        for failed in range(1, MOST_FAILED_STARTS + 1):
            actor = self._new_actor()
            self._actors.add(actor)
            try:
                machine = await actor.start.remote(self.client, self._mark)
            except RayTaskError as error:
                self._give_up(error.cause)
                return
            except RayError as error:
                self._actors.discard(actor)
                if failed == MOST_FAILED_STARTS:
                    self._give_up(no_start(error))
                    return
                await asyncio.sleep(failed * REST)
            else:
                worker = _Worker(actor, machine, self.client.total)
                self._ready.append(worker)
                self._homes.outdate()  # so that it gets its share of the hosts
                self._in_background(self._attend(worker))
                return

    async def _attend(self, worker: _Worker):
        """Let a worker answer questions, and replace it when it ends."""
        await worker.run()
        self._replace(worker)

    def _give_up(self, error: Exception):
        """Go on with the workers that are ready; the run ends by `error` where none is left."""
        self._error = error
        if self._ready:
            show_line(f"A worker of the Ray cluster does not start: {error}")

    def _replace(self, worker: _Worker):
        """Another worker in place of one that has ended or hangs."""
        if worker in self._ready:
            self._ready.remove(worker)
            self._actors.discard(worker.actor)
            self.head.end(worker.actor)
            self._in_background(self._start_worker())

    def _set_aside(self, worker: _Worker, error: OSError):
        """Ask a worker that can't write nothing more. It keeps its core, so that no other one starts
        there.
        """
        self._write_error = error
        if worker in self._ready:
            self._ready.remove(worker)
            show_line(f"No more requests from {worker.machine}: {error}")

    async def _watch(self):
        """Start workers on machines that join the cluster, and say where there is no worker, until
        the cluster is gone.
        """
        while True:
            await asyncio.sleep(SECONDS_TO_LOOK)
            try:
                self.head.check()
            except StepError as error:
                self._end(error)
                return
            if not self._ready:
                show_line("Waiting for a free worker of the Ray cluster.")
            for _ in range(self.head.size() - len(self._actors)):
                self._in_background(self._start_worker())

    def _end(self, error: StepError):
        """Answer all questions, also those to come, with `error`."""
        self._error = error
        for worker in self._ready:
            worker.settle_all(error)
        self._ready.clear()
        self._changed.set()

    def _in_background(self, work: Coroutine[Any, Any, None]):
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
