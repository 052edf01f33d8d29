"""Remembered: values by key, of which those in use are never forgotten."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    value: Value
    users: int = 0
    is_outdated: bool = False


def never(value) -> bool:
    """That a value is not needed."""
    return False


class Remembered(Generic[Key, Value]):
    """The values that `make` returns of keys. Those beyond `most` that were used least recently are
    forgotten, but not while they are in use or `is_needed` says True of them.
    """

    def __init__(
        self,
        make: Callable[[Key], Value],
        most: int,
        is_needed: Callable[[Value], bool] = never,
    ):
        self._make = make
        self._most = most
        self._is_needed = is_needed
        self._entries: dict[Key, _Entry[Value]] = {}  # the one used last is the last

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def using(self, key: Key) -> Iterator[Value]:
        """The value of `key`, which is in use while the `with` block lasts."""
        entry = self._entries.pop(key, None) or _Entry(self._make(key))
        self._entries[key] = entry
        entry.users += 1
        self._forget_oldest()
        try:
            yield entry.value
        finally:
            entry.users -= 1
            if entry.is_outdated and not entry.users:
                del self._entries[key]

    def outdate(self):
        """Forget all values, those in use as soon as they are not."""
        for entry in self._entries.values():
            entry.is_outdated = True
        self._entries = {key: entry for key, entry in self._entries.items() if entry.users}

    def _forget_oldest(self):
        too_many = len(self._entries) - self._most
        if too_many <= 0:
            return
        unused = (
            key
            for key, entry in self._entries.items()
            if not entry.users and not self._is_needed(entry.value)
        )
        for key in list(islice(unused, too_many)):
            del self._entries[key]
