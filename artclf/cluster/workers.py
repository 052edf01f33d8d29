"""Workers on Ray: actors, one a core or GPU, that do the jobs of a step.

A step gives a function and jobs, both small: paths, hashes and settings. The workers see the folder
of the data set under the same path as the caller, who alone writes to catalogue and stores.
Needs the extra `cluster`.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from platform import node
from uuid import uuid4

from artclf.base.errors import StepError
from artclf.base.extras import require
from artclf.base.files import replace_whole
from artclf.base.processes import MapJobs, in_chunks

LOCAL = "local"  # Ray's name for a cluster that is started on this machine
OBJECT_STORE = 2**28  # bytes on this machine; results are small
CHUNKS_AT_A_TIME = 2  # of a worker: the one that it works on, and the next
TRIES_ALONE = 2  # of a job that was under way when its worker ended
MOST_FAILED_STARTS = 5  # one after the other, before a run gives up
PATIENCE = 30  # seconds without any worker, before a line says so


@contextmanager
def connected(
    address: str | None = None,
    folder: Path | None = None,
    on_gpus: bool = False,
    cores: int | None = None,
) -> Iterator[MapJobs]:
    """A context manager that connects to a Ray cluster and gives the `MapJobs` of its workers.

    `address` is that of the cluster, by default the one in RAY_ADDRESS; without both, one starts on
    this machine, with as many `cores` as that has or as named, and ends with the `with` block. Workers must see `folder` as this process does.
    With `on_gpus` there is a worker for each GPU, if the cluster has any. A Ray that the process is
    connected to already is used, and stays. Raises ImportError without Ray, StepError where no
    cluster answers.
    """
    require("cluster", "ray")
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(address or os.environ.get("RAY_ADDRESS") or LOCAL, cores)
    try:
        with _mark(folder) as mark:
            yield partial(_map_jobs, mark, on_gpus)
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(address: str, cores: int | None):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
    import ray

    options = {}
    if address == LOCAL:
        options = {
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
    try:
        # what workers print goes to Ray's logs
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # noqa: BLE001 (Ray raises bare Exceptions, too)
        ray.shutdown()
        where = "on this machine" if address == LOCAL else f"at {address}"
        reason = str(error).strip().splitlines()[0]
        raise StepError(f"no Ray cluster {where}: {reason}") from error


@contextmanager
def _mark(folder: Path | None) -> Iterator[Path | None]:
    """A new, empty file in `folder`, which a worker sees if the folder is the same for it."""
    if folder is None:
        yield None
        return
    mark = folder.absolute() / f".seen-by-workers-{uuid4().hex}"
    replace_whole(mark, lambda file: file.touch())
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


class Worker:
    """What runs in each of Ray's actors: the function of a step, which keeps what it loads."""

    def __init__(self, function: Callable):
        self.function = function

    def start(self, initializer: Callable | None, mark: Path | None):
        """Prepare the process. Raises StepError where it does not see the file `mark`."""
        if mark is not None and not mark.exists():
            raise StepError(
                f"the worker on {node()} does not see the folder {mark.parent} of this machine: all "
                "machines of the cluster must share it, under the same path"
            )
        if initializer is not None:
            initializer()

    def do(self, jobs: list) -> list:
        """The result of each job."""
        return [self.function(job) for job in jobs]


@dataclass(eq=False)
class _Call:
    """A call that is under way: of `Worker.start` where there are no `jobs`."""

    actor: object
    jobs: list | None = None
    is_alone: bool = False  # a single job that was under way when its worker ended
    deaths: int = 0  # of workers that had this job alone


class _Pool:
    """So many workers, each replaced when it ends, and what they have under way."""

    def __init__(self, function: Callable, initializer: Callable | None, mark, on_gpus: bool):
        import ray

        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if on_gpus else 0
        self.size = gpus or max(1, int(resources.get("CPU", 1)))
        self.actor_of = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(Worker)
        self.arguments = (function,)
        self.arguments_of_start = (initializer, mark)
        self.calls: dict = {}  # by the reference to the result
        self.ready: dict = {}  # the calls of `Worker.do` of each actor that has started
        self.failed_starts = 0

    def start_worker(self):
        actor = self.actor_of.remote(*self.arguments)
        self.calls[actor.start.remote(*self.arguments_of_start)] = _Call(actor)

    def submit(self, actor, jobs: list, **options):
        call = _Call(actor, jobs, **options)
        self.calls[actor.do.remote(jobs)] = call
        self.ready[actor].append(call)

    def has_jobs(self) -> bool:
        return any(call.jobs is not None for call in self.calls.values())

    def take(self, reference) -> _Call:
        """The call that is done."""
        call = self.calls.pop(reference)
        if call in self.ready.get(call.actor, []):
            self.ready[call.actor].remove(call)
        return call

    def replace(self, actor):
        """Start a worker in the place of one that has ended, unless that was done."""
        if self.ready.pop(actor, None) is not None:
            self.start_worker()

    def close(self):
        import ray

        for actor in {*self.ready, *(call.actor for call in self.calls.values())}:
            ray.kill(actor)


def _map_jobs(
    mark: Path | None,
    on_gpus: bool,
    function: Callable,
    jobs: Iterable,
    workers: int | None = None,
    chunk_size: int = 16,
    initializer: Callable | None = None,
) -> Iterator[list[tuple]]:
    """A `MapJobs` on the Ray that this process is connected to, with `workers` workers, by default
    one a core or GPU.

    When a worker ends, as by a decoder that crashes, a kill or the end of its machine, another one
    starts, and what it had under way is done again, one job at a time. The result of a job that
    ends `TRIES_ALONE` workers more is None. Raises StepError where workers end as they start.
    """
    import ray

    first = next(chunks := in_chunks(jobs, chunk_size), None)
    if first is None:
        return
    chunks = chain([first], chunks)
    again: deque[_Call] = deque()
    pool = _Pool(function, initializer, mark, on_gpus)
    try:
        for _ in range(workers or pool.size):
            pool.start_worker()
        while True:
            _hand_out(pool, chunks, again)
            if pool.ready and not pool.has_jobs() and not again:
                return
            done, _ = ray.wait(list(pool.calls), timeout=PATIENCE)
            if not done and not pool.ready:
                print("Waiting for a free worker of the Ray cluster.", file=sys.stderr)
            for reference in done:
                yield from _results_of(pool, pool.take(reference), reference, again)
    finally:
        pool.close()


def _hand_out(pool: _Pool, chunks: Iterator[list], again: deque[_Call]):
    """Give work to the workers that have room. A job that is done again has its worker for itself,
    so that no other one is taken for the cause when that ends.
    """
    for actor, calls in pool.ready.items():
        if again:
            if not calls:
                call = again.popleft()
                pool.submit(actor, call.jobs, is_alone=True, deaths=call.deaths)
        elif not any(call.is_alone for call in calls):
            for _ in range(CHUNKS_AT_A_TIME - len(calls)):
                if chunk := next(chunks, None):
                    pool.submit(actor, chunk)


def _results_of(pool: _Pool, call: _Call, reference, again: deque[_Call]) -> Iterator[list[tuple]]:
    """The pairs (job, result) of a call that is done, if it gave any. Raises what a job raised."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        results = ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        yield from _after_the_end(pool, call, error, again)
        return
    if call.jobs is None:
        pool.failed_starts = 0
        pool.ready[call.actor] = []
    else:
        yield list(zip(call.jobs, results, strict=True))


def _after_the_end(
    pool: _Pool, call: _Call, error: Exception, again: deque[_Call]
) -> Iterator[list[tuple]]:
    """Do again what a worker had under way when it ended; give up a job that ended several."""
    if call.jobs is None:
        pool.failed_starts += 1
        if pool.failed_starts >= MOST_FAILED_STARTS:
            reason = str(error).strip().splitlines()[0]
            raise StepError(
                f"workers of the Ray cluster end as they start ({reason}): install the same artclf on "
                "all machines, and look into Ray's logs"
            ) from error
        pool.start_worker()
        return
    pool.replace(call.actor)
    deaths = call.deaths + call.is_alone
    if deaths == TRIES_ALONE:
        yield [(job, None) for job in call.jobs]
    else:
        again.extend(_Call(None, [job], deaths=deaths) for job in call.jobs)
