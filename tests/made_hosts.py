"""Hosts without a network: an `engine` of `fetch_lists` whose answers are those of a function."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from loopback import picture

from artclf.data.client import Client, Question, Reply, Response
from artclf.data.intake import Failure

JPEG = picture()
SECONDS = 0.01  # of a request


@dataclass
class Asked:
    """A request as a host sees it, with the times of its beginning and end in seconds, and the
    `patience` in seconds that the host asked for.
    """

    host: str
    path: str
    began: float
    ended: float = 0
    patience: float | None = None


@dataclass
class Hosts:
    """`engine(client)` asks these hosts. `reply(host, path)` gives bytes, with status 200, the
    address to which the host redirects, or what a request raises; a path with query is one, too.
    """

    reply: Callable[[str, str], bytes | str | Exception]
    asked: list[Asked] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    under_way: Counter = field(default_factory=Counter)
    most: Counter = field(default_factory=Counter)  # at a time, by host

    size = 1

    def engine(self, client: Client) -> "Hosts":
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        pass

    async def ask(self, question: Question, before) -> Reply:
        before()
        self.questions.append(question)
        host = question.url.host
        request = Asked(host, question.url.path_qs, time.monotonic())
        self.asked.append(request)
        self.under_way[host] += 1
        self.most[host] = max(self.most[host], self.under_way[host])
        answer = self.reply(host, request.path)
        await asyncio.sleep(SECONDS)
        self.under_way[host] -= 1
        request.ended = time.monotonic()
        if isinstance(answer, Failure):
            request.patience = answer.retry_after
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            return Reply(302, SECONDS, answer)
        response = Response(answer, 200, "image/jpeg")
        return Reply(200, SECONDS, result=question.use(response))

    def of(self, host: str, path: str | None = None) -> list[Asked]:
        """What `host` was asked, or was asked for `path`."""
        return [
            request
            for request in self.asked
            if request.host == host and path in (None, request.path)
        ]

    def refused(self, host: str) -> list[Asked]:
        """The requests to which `host` answered that it wants patience."""
        return [request for request in self.of(host) if request.patience is not None]

    def too_early(self, host: str) -> list[Asked]:
        """The requests to a host that began after it had asked for patience, before that was over."""
        return [
            request
            for request in self.of(host)
            for refused in self.refused(host)
            if refused.ended < request.began < refused.ended + refused.patience
        ]

    def pauses(self, host: str) -> list[float]:
        """The seconds between the requests to a host, but for its robots.txt."""
        requests = [request for request in self.of(host) if request.path != "/robots.txt"]
        return [
            later.began - earlier.ended
            for earlier, later in zip(requests, requests[1:], strict=False)
        ]


NOT_FOUND = Failure("http 404", 404)


def refusal(seconds: float | None) -> Failure:
    """What a request raises whose host asks for patience."""
    return Failure("http 429", 429, True, seconds)


class Patient:
    """A host that refuses one request in `every`, and then all of them for `seconds`."""

    def __init__(self, every: int, seconds: float):
        self.every = every
        self.seconds = seconds
        self.number = 0
        self.closed_until = 0.0

    def __call__(self) -> bytes | Failure:
        now = time.monotonic()
        if now >= self.closed_until:
            self.number += 1
            if self.number % self.every:
                return JPEG
            self.closed_until = now + self.seconds
        return refusal(self.closed_until - now)
