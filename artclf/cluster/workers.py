"""Workers on Ray: actors, one a core or GPU, that do the jobs of a step.

A step gives a function and jobs, both small: paths, hashes and settings. The workers see the folder
of the data set under the same path as the caller, who alone writes to catalogue and stores.
Needs the extra `cluster`.

Pictures may crash a decoder, so a worker that ends is replaced, and the job that ends each of its
workers is found and given up. Ray has no pool that does this (tried with Ray 2.60): `ActorPool` raises
at the first worker that ends, and `map_batches` of `ray.data` tries such a job again for ever.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from platform import node
from time import monotonic
from typing import Any
from uuid import uuid4

from artclf.base.errors import StepError
from artclf.base.files import replace_whole
from artclf.base.processes import MapJobs, in_chunks
from artclf.cluster.connecting import Head, connection

CHUNKS_AT_A_TIME = 2  # of a worker: the one that it works on, and the next
TRIES_ALONE = 2  # of a job that was under way when its worker ended
MOST_FAILED_STARTS = 5  # one after the other, before a run gives up
SECONDS_TO_LOOK = 10  # after which it is looked whether machines have joined the cluster


@contextmanager
def connected(
    address: str | None = None,
    folder: Path | None = None,
    on_gpus: bool = False,
    cores: int | None = None,
) -> Iterator[MapJobs]:
    """A context manager that connects to a Ray cluster and gives the `MapJobs` of its workers.

    `connection` says which cluster that is, and what is raised. Workers must see `folder` as this
    process does. With `on_gpus` there is a worker for each GPU, if the cluster has any.
    """
    with connection(address, cores) as head, marked(folder) as mark:
        pool = _Pool(head, mark, on_gpus)
        try:
            yield pool.map_jobs
        finally:
            pool.close()


@contextmanager
def marked(folder: Path | None) -> Iterator[Path | None]:
    """A new, empty file in `folder`, which a worker sees if the folder is the same for it.

    Folders that are made for it don't stay empty.
    """
    if folder is None:
        yield None
        return
    mark = folder.absolute() / f".seen-by-workers-{uuid4().hex}"
    made = [parent for parent in mark.parents if not parent.exists()]  # the innermost first
    replace_whole(mark, lambda file: file.touch())
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()


def see(mark: Path | None):
    """Raise StepError where this worker does not see the file `mark`."""
    if mark is not None and not mark.exists():
        raise StepError(
            f"the worker on {node()} does not see the folder {mark.parent} of this machine: all "
            "machines of the cluster must share it, under the same path"
        )


class Worker:
    """What runs in each of Ray's actors: the function of a step, which keeps what it loads."""

    def start(self, function: Callable, initializer: Callable | None, mark: Path | None):
        """Get ready for the jobs of `function`. Raises StepError where the worker does not see the
        file `mark`.
        """
        see(mark)
        self.function = function
        if initializer is not None:
            initializer()

    def do(self, jobs: list) -> list:
        """The result of each job."""
        return [self.function(job) for job in jobs]


def no_start(error: Exception) -> StepError:
    """What to say when workers end as they start, the last one by Ray's `error`."""
    reason = str(error).strip().splitlines()[0]
    return StepError(
        f"workers of the Ray cluster end as they start ({reason}): install the same artclf on all "
        "machines, and look into Ray's logs"
    )


@dataclass(eq=False)
class _Call:
    """A call that is under way: of `Worker.start` where there are no `jobs`."""

    actor: Any  # the handle that Ray gives of a `Worker`
    jobs: list | None = None
    is_alone: bool = False  # a single job that was under way when its worker ended
    deaths: int = 0  # of workers that had this job alone


class _Pool:
    """The workers of one connection. Each is replaced when it ends; what has started stays for the
    next jobs, because importing torch takes seconds.
    """

    def __init__(self, head: Head, mark: Path | None, on_gpus: bool):
        import ray

        self.head = head
        self.kind = "GPU" if on_gpus and head.resources.get("GPU") else "CPU"
        gpus = 1 if self.kind == "GPU" else 0
        self.new_actor = ray.remote(num_cpus=1, num_gpus=gpus)(Worker).remote
        self.mark = mark
        self.idle: list = []  # actors that have done the jobs of a function

    @property
    def size(self) -> int:
        """The number of workers for which the cluster has room now, at least one."""
        return self.head.size(self.kind)

    def map_jobs(
        self,
        function: Callable,
        jobs: Iterable,
        workers: int | None = None,
        chunk_size: int = 16,
        initializer: Callable | None = None,
    ) -> Iterator[list[tuple]]:
        """A `MapJobs` with `workers` workers, by default one a core or GPU of the cluster, also of
        the machines that join it meanwhile.

        When a worker ends, as by a decoder that crashes, a kill or the end of its machine, another
        one starts, and what it had under way is done again, one job at a time. The result of a job
        that ends `TRIES_ALONE` workers more is None. Raises StepError where workers end as they
        start, and where the cluster is gone.
        """
        chunks = in_chunks(jobs, chunk_size)
        first = next(chunks, None)
        if first is None:
            return
        run = _Run(self, workers, (function, initializer, self.mark), chain([first], chunks))
        try:
            yield from run.results()
        finally:
            run.end()

    def actor(self):
        """A worker that waits for jobs, or a new one."""
        return self.idle.pop() if self.idle else self.new_actor()

    def close(self):
        for actor in self.idle:
            self.head.end(actor)


class _Run:
    """The jobs of one function on the workers of a pool, and what is under way of them."""

    def __init__(
        self, pool: _Pool, workers: int | None, arguments_of_start: tuple, chunks: Iterator[list]
    ):
        self.pool = pool
        self.workers = workers
        self.arguments_of_start = arguments_of_start
        self.chunks = chunks
        self.again: deque[_Call] = deque()  # single jobs whose worker ended
        self.calls: dict = {}  # by the reference to the result
        self.ready: dict = {}  # of each actor that has started, its calls of `Worker.do`
        self.failed_starts = 0
        self.look_at = 0.0  # when to look for room in the cluster again
        self.has_waited = False

    def results(self) -> Iterator[list[tuple]]:
        import ray

        while True:
            self.pool.head.check()
            if monotonic() >= self.look_at:
                self._start_workers()
                self.look_at = monotonic() + SECONDS_TO_LOOK
            self._hand_out()
            is_done = not self.again and all(call.jobs is None for call in self.calls.values())
            if self.ready and is_done:
                return
            done, _ = ray.wait(list(self.calls), timeout=SECONDS_TO_LOOK)
            if not done and not self.ready and not self.has_waited:
                print(
                    "Waiting for workers of the Ray cluster: they start, or others use all its cores.",
                    file=sys.stderr,
                )
                self.has_waited = True
            for reference in done:
                yield from self._results_of(reference)

    def end(self):
        """Give the workers that have nothing under way back to the pool, and end the others."""
        busy = {call.actor for call in self.calls.values()}
        for actor in busy:
            self.pool.head.end(actor)
        self.pool.idle += self.ready.keys() - busy

    def _start_workers(self):
        """Start workers as long as the cluster has room, or up to the number that was asked for."""
        starting = sum(call.jobs is None for call in self.calls.values())
        wanted = self.workers or self.pool.size
        for _ in range(wanted - len(self.ready) - starting):
            self._start_worker()

    def _start_worker(self):
        actor = self.pool.actor()
        self.calls[actor.start.remote(*self.arguments_of_start)] = _Call(actor)

    def _hand_out(self):
        """Give work to the workers that have room. A job that is done again has its worker for
        itself, so that no other one is taken for the cause when that ends.
        """
        for actor, calls in self.ready.items():
            if self.again:
                if not calls:
                    call = self.again.popleft()
                    self._submit(_Call(actor, call.jobs, is_alone=True, deaths=call.deaths))
            elif not any(call.is_alone for call in calls):
                for chunk in islice(self.chunks, CHUNKS_AT_A_TIME - len(calls)):
                    self._submit(_Call(actor, chunk))

    def _submit(self, call: _Call):
        self.calls[call.actor.do.remote(call.jobs)] = call
        self.ready[call.actor].append(call)

    def _results_of(self, reference) -> Iterator[list[tuple]]:
        """The pairs (job, result) of a call that is done, if it gave any. Raises what a job
        raised.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        call = self.calls.pop(reference)
        if call.jobs is not None and call.actor in self.ready:
            self.ready[call.actor].remove(call)
        try:
            results = ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            yield from self._after_the_end(call, error)
            return
        if call.jobs is None:
            self.failed_starts = 0
            self.ready[call.actor] = []
        else:
            yield list(zip(call.jobs, results, strict=True))

    def _after_the_end(self, call: _Call, error: Exception) -> Iterator[list[tuple]]:
        """Do again what a worker had under way when it ended; give up a job that ended several."""
        if call.jobs is None:
            self.failed_starts += 1
            if self.failed_starts >= MOST_FAILED_STARTS:
                raise no_start(error) from error
            self._start_worker()
            return
        if self.ready.pop(call.actor, None) is not None:
            self._start_worker()
        deaths = call.deaths + call.is_alone
        if deaths == TRIES_ALONE:
            yield [(job, None) for job in call.jobs]
        else:
            self.again.extend(_Call(None, [job], deaths=deaths) for job in call.jobs)
