"""Pace: how fast the hosts of a download give their URLs, and which of them the others wait for."""

import heapq
from dataclasses import dataclass, field
from time import monotonic

FEW = 3  # hosts that a line names
UNITS = ((86400, "days"), (3600, "h"), (60, "min"))


@dataclass(eq=False)
class HostPace:
    """The URLs of one host: how many are `left` and `done`, since when."""

    name: str
    left: int
    started: float
    done: int = 0

    def rate(self, now: float) -> float:
        """URLs a second so far."""
        return self.done / max(now - self.started, 1e-3)


@dataclass
class Pace:
    """The URLs of a run: how many are `left`, and those of the hosts that are being fetched from.

    `last` is the host that was done last.
    """

    left: int = 0
    started: float = 0
    hosts: dict[str, HostPace] = field(default_factory=dict)
    last: HostPace | None = None

    def start(self, number: int):
        """Start the clock of a run of `number` URLs."""
        self.left = number
        self.started = monotonic()

    def host(self, name: str, number: int) -> HostPace:
        """The pace of a host with `number` URLs, which starts now."""
        self.hosts[name] = HostPace(name, number, monotonic())
        return self.hosts[name]

    def note(self, host: HostPace):
        """A URL of `host` is done."""
        self.left -= 1
        host.left -= 1
        host.done += 1
        if not host.left:
            self.last = self.hosts.pop(host.name)

    def move(self, host: HostPace, new_host: HostPace | None):
        """A URL of `host` waits for `new_host` now, or for one that is not fetched from yet."""
        host.left -= 1
        if not host.left:
            del self.hosts[host.name]
        if new_host is not None:
            new_host.left += 1
            self.hosts[new_host.name] = new_host

    def describe(self) -> str | None:
        """Which hosts have most of the URLs that are left, and when they will be done; None where
        these are more than a `FEW`.
        """
        now = monotonic()
        active = list(self.hosts.values())  # another thread may add one
        most = heapq.nlargest(FEW, active, key=lambda host: host.left)
        binding: list[HostPace] = []
        of_these = 0
        for host in most:
            if 2 * of_these <= self.left:
                binding.append(host)
                of_these += host.left
        if 2 * of_these <= self.left:
            return None
        names = ", ".join(
            f"{host.name} ({host.left:,}, {host.rate(now):.2g} a second)" for host in binding
        )
        rest = f"{self.left:,} URLs left, most of them of {names}"
        if not all(host.done for host in binding):
            return rest
        seconds = max(host.left / host.rate(now) for host in binding)
        return f"{rest}: done in about {duration(seconds)}"

    def describe_end(self) -> str | None:
        """How long the run took, and the host that the others waited for; None for a run without
        URLs.
        """
        if self.last is None:
            return None
        now = monotonic()
        return (
            f"Done after {duration(now - self.started)}, last with {self.last.name}: "
            f"{self.last.done:,} URLs, {self.last.rate(now):.2g} a second"
        )


def duration(seconds: float) -> str:
    """Seconds in words, such as `1.5 h`."""
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
