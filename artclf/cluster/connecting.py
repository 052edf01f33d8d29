"""Connecting to a Ray cluster, and noticing that it is gone.

Without its head, Ray answers no question, and ends the process after a minute. So the head is asked
in a thread of its own: whoever waits for workers learns before that minute is over that it is gone.
Where Ray has ended on the machine of the process alone, its workers end, and it would wait for ever.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from platform import node
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from artclf.base.errors import SettingError, StepError
from artclf.base.extras import require
from artclf.base.progress import show_line

LOCAL = "local"  # Ray's name for a cluster that is started on this machine
AUTO = "auto"  # and for the one that was started here before
OBJECT_STORE = 2**28  # bytes on this machine; results are small
STARTS = (
    3  # of Ray on this machine: its processes give up where a busy machine is slow to start them
)
SECONDS_TO_CONNECT = 10
SECONDS_BETWEEN_QUESTIONS = 5  # to the head
SECONDS_TO_ANSWER = 30  # of the head, before it counts as gone; Ray ends the process after 60
# how a program begins to talk HTTP/2, which Ray's head speaks (RFC 9113, 3.4), and the kind of the
# frame that it is answered with
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4
WRONG_TOKEN = "InvalidAuthToken"  # in what Ray's head answers, also where there is no token


@contextmanager
def connection(address: str | None = None, cores: int | None = None) -> Iterator["Head"]:
    """A context manager that connects to a Ray cluster, and gives its `Head`.

    `address` is that of the cluster, by default the one in RAY_ADDRESS; without both, one starts on
    this machine, with all its cores or as many as `cores`, and ends with the `with` block. A line
    says which cluster it is. A Ray that the process is connected to already is used, and stays.
    Raises SettingError for an empty address, ImportError without Ray, StepError where no cluster
    answers.
    """
    address = _named(address)
    require("cluster", "ray")
    import ray

    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(address, cores)
    is_local = address == LOCAL and not was_connected
    head = Head("on this machine" if is_local else f"at {_address_of_head()}", is_local)
    if not was_connected:
        verb = "Started a" if is_local else "Joined the"
        show_line(f"{verb} Ray cluster {head.place}: {_in_words(head.resources)}.")
    try:
        yield head
    finally:
        head.close()
        if not was_connected:
            ray.shutdown()


class Head:
    """The head of a cluster. A thread asks what machines the cluster has, and ends its actors.

    `place` says in words where it is, and `resources` what Ray's `cluster_resources` returned last.
    """

    def __init__(self, place: str, is_local: bool):
        import ray

        self.place = place
        self.is_local = is_local
        self._node = ray.get_runtime_context().get_node_id()
        self._asked: float | None = None  # when the first question was asked that has no answer
        self._questions: SimpleQueue = SimpleQueue()  # functions to call; None ends the thread
        self._look()
        self._thread = Thread(target=self._ask, daemon=True)
        self._thread.start()

    def size(self, kind: str = "CPU") -> int:
        """How many cores, or GPUs, the cluster has now, at least one."""
        return max(1, int(self.resources.get(kind, 1)))

    def check(self):
        """Raise StepError where the head is gone, or has lost this machine, with all workers of this
        process.
        """
        problem = ""
        if self._is_gone():
            problem = f"is gone, it has not answered for {SECONDS_TO_ANSWER} seconds"
        elif not self._is_member:
            problem = f"has lost {node()}, the machine of this command"
        if problem:
            again = "" if self.is_local else "start it again, and "
            raise StepError(
                f"the Ray cluster {self.place} {problem}: {again}the same command goes on where it "
                "was"
            )

    def end(self, actor):
        """End an actor of Ray soon. Doesn't wait for it: that takes for ever where the head is gone."""
        import ray

        self._questions.put(partial(ray.kill, actor))

    def close(self):
        """Ask nothing more, once the actors have ended that are to."""
        self._questions.put(None)
        while self._thread.is_alive() and not self._is_gone():
            self._thread.join(1)

    def _is_gone(self) -> bool:
        asked = self._asked
        return asked is not None and monotonic() - asked > SECONDS_TO_ANSWER

    def _look(self):
        import ray

        self.resources: dict[str, float] = ray.cluster_resources()
        alive = {machine["NodeID"] for machine in ray.nodes() if machine["Alive"]}
        self._is_member = self._node in alive

    def _ask(self):
        from ray.exceptions import RayError

        while True:
            try:
                question = self._questions.get(timeout=SECONDS_BETWEEN_QUESTIONS)
            except Empty:
                question = self._look
            if question is None:
                return
            if self._asked is None:
                self._asked = monotonic()
            with suppress(RayError):
                question()
                self._asked = None


def _named(address: str | None) -> str:
    """The address of the cluster that is asked for, `LOCAL` where none is. Raises SettingError for an
    empty one, as of a variable that a script has not set.
    """
    source = "--address"
    if address is None:
        source = "RAY_ADDRESS"
        address = os.environ.get(source, LOCAL)
    if not address.strip():
        raise SettingError(
            f"{source} is empty: name a Ray cluster, such as 10.0.0.1:6379, or leave {source} out, "
            "and one starts on this machine"
        )
    return address


def _connect(address: str, cores: int | None):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
    import ray

    options: dict[str, Any] = {}
    if address == LOCAL:
        options = {
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
    tries_left = STARTS if address == LOCAL else 1
    while not ray.is_initialized():
        tries_left -= 1
        try:
            _knock(address)
            # what workers print goes to Ray's logs
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # noqa: BLE001 (Ray raises bare Exceptions, too)
            ray.shutdown()
            if not tries_left:
                where = "on this machine" if address == LOCAL else f"at {address}"
                raise StepError(f"no Ray cluster {where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why Ray did not connect, in a line."""
    if WRONG_TOKEN in str(error.__cause__):
        return (
            "it takes only those who have its token: copy ~/.ray/auth_token from its head, and set "
            "RAY_AUTH_MODE=token"
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def _knock(address: str):
    """Raise OSError where nothing answers at `address`, host:port, as Ray's head would: Ray itself
    tries again for minutes.
    """
    if address == AUTO:
        # the private function tells what Ray takes it for: it may be a cluster that has ended
        from ray._private.services import canonicalize_bootstrap_address

        address = canonicalize_bootstrap_address(address) or ""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return
    with socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT) as server:
        if os.environ.get("RAY_USE_TLS", "0") in ("0", ""):
            server.sendall(HELLO)
            if not _is_settings(server):
                raise ConnectionError(
                    "what answers there is no Ray; name the port of its head, 6379 by default"
                )


def _is_settings(server: socket.socket) -> bool:
    """Whether the next that `server` sends is a frame SETTINGS of HTTP/2, whose kind is its fourth
    byte.
    """
    answer = b""
    while len(answer) < 4:
        part = server.recv(4 - len(answer))
        if not part:
            return False
        answer += part
    return answer[3] == SETTINGS


def _address_of_head() -> str:
    """The address of the cluster that this process is connected to."""
    import ray

    return ray.get_runtime_context().gcs_address


def _in_words(resources: dict[str, float]) -> str:
    """The cores and GPUs of a cluster, such as `16 cores, 2 GPUs`."""
    numbers = [(resources.get("CPU", 0), "core"), (resources.get("GPU", 0), "GPU")]
    words = [f"{number:g} {unit}{'' if number == 1 else 's'}" for number, unit in numbers if number]
    return ", ".join(words) or "no cores"
