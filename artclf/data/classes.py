"""Classes: the order of their names, which is that of plots, tables and the network's outputs."""

import math
import re
from collections.abc import Iterable

UNLABELLED = "unlabelled"  # the folder of pictures that wait for a label; no class
NO_CLASS = "they wait for a label, and no training or figure uses them"


def in_order(names: Iterable[str]) -> list[str]:
    """The names of classes in their order: those that begin with a number by that number, then the
    others by name.

    So `2` comes before `10`, and `9-realism` before `10-impressionism`.
    """
    return sorted(names, key=_place)


def labelled(names: Iterable[str]) -> set[str]:
    """The classes among `names`: all but `unlabelled`, unless there is nothing else."""
    found = set(names)
    return found - {UNLABELLED} or found


def spoken(name: str) -> str:
    """`05-high_baroque` as one says it: high baroque."""
    return re.sub(r"^\d+-(?=.)", "", name).replace("_", " ")


def _place(name: str) -> tuple[float, str]:
    number = re.match(r"\d+", name)
    return (float(number[0]) if number else math.inf, name)
