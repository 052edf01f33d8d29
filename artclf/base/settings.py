"""Settings: the range of every number that a user may set, in one place.

The command line checks its options by these ranges, and so do the functions that notebooks call.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from artclf.base.errors import SettingError

LONGEST_SHOWN = 60  # signs of a wrong value in a message


@dataclass(frozen=True)
class Range:
    """The numbers from `lowest` to `highest`, both included, but not those in `without`."""

    lowest: float
    highest: float
    is_whole: bool = True
    without: tuple[float, ...] = ()

    def __str__(self):
        kind = "a whole number" if self.is_whole else "a number"
        exceptions = "".join(f", but not {number:g}" for number in self.without)
        return f"{kind} from {_short(self.lowest)} to {_short(self.highest)}{exceptions}"

    def __contains__(self, value) -> bool:
        is_number = isinstance(value, Integral if self.is_whole else Real)
        if not is_number or isinstance(value, bool):
            return False
        return self.lowest <= value <= self.highest and value not in self.without  # nan isn't

    def check(self, name: str, value):
        """Raise SettingError where the setting `name` has a `value` out of this range."""
        if value not in self:
            raise SettingError(f"{name} is {shown(value)}: take {self}")


RANGES = {
    # pictures that are drawn, searched for, fetched, cleaned
    "count": Range(1, 100_000),
    "canvas_size": Range(64, 10_000),  # px
    "max_images": Range(1, 1_000_000),
    "max_per_period": Range(1, 1_000_000_000),
    "tries": Range(1, 1000),
    "wait": Range(0, 86_400, is_whole=False),  # seconds
    "backoff": Range(0, 86_400, is_whole=False),  # seconds
    "per_host": Range(1, 1000),
    "total": Range(1, 1000),
    "deadline": Range(0, 86_400, is_whole=False, without=(0,)),  # seconds
    "max_bytes": Range(1, 1 << 40),
    "max_pixels": Range(1, 1 << 40),
    "max_unpacked": Range(0, 1_000_000, is_whole=False, without=(0,)),  # GB
    "shard_size": Range(0, 100_000, is_whole=False, without=(0,)),  # MB
    "max_size": Range(64, 10_000),  # px
    "quality": Range(1, 100),  # of JPEG
    # training
    "epochs": Range(1, 10_000),
    "unfrozen_epochs": Range(0, 10_000),
    "lr": Range(0, 10, is_whole=False, without=(0,)),
    "size": Range(8, 4096),  # px
    "batch_size": Range(2, 65_536),  # batch normalisation needs two pictures
    "seed": Range(0, 2**32 - 1),  # what numpy takes
    "seeds": Range(1, 1000),
    "processes": Range(1, 100_000),
    "dropout": Range(0, 1, is_whole=False, without=(1,)),
    "ridge": Range(0, 1_000_000, is_whole=False),
    "tau": Range(0, 10, is_whole=False),
    "unfreeze_from": Range(0, 4),
    "width": Range(1, 65_536),  # units
    "depth": Range(0, 20),  # hidden layers of a head
    "views": Range(1, 100),
    # small networks from scratch
    "neurons": Range(1, 4096),
    "convolutions": Range(1, 12),
    # style transfer
    "style_weight": Range(0, 1_000_000, is_whole=False),
    "variation_weight": Range(0, 1_000_000, is_whole=False),
    "steps": Range(1, 10_000),
    "levels": Range(1, 8),  # sizes from coarse to fine
    "every": Range(0, 10_000),  # steps between two intermediate pictures
    # labelling
    "page": Range(1, 1000),  # pictures
    "by_chance": Range(0, 1, is_whole=False),
    # environment variables
    "ARTCLF_CACHE_GB": Range(0, 1_000_000, is_whole=False),
    "ARTCLF_FEATURES_GB": Range(0, 1_000_000, is_whole=False),
    # answers, and what is shown of them
    "k": Range(1, 1_000_000),
    "min_probability": Range(0, 1, is_whole=False),
    "n": Range(0, 1_000_000),
    # the server
    "port": Range(0, 65_535),
    "pictures": Range(1, 1000),  # of a request
    "rate": Range(0, 1_000_000, is_whole=False),  # pictures a second
    "queue": Range(1, 1000),  # pictures under way
    "suggestions": Range(1, 1_000_000),  # pictures that wait for a decision
    "temperature": Range(1e-3, 1e3, is_whole=False),
}
SHARE = Range(0, 1_000_000, is_whole=False)


def check(**values):
    """Raise SettingError where one of `values` is out of its range in `RANGES`."""
    for name, value in values.items():
        RANGES[name].check(name, value)


def from_environment(variable: str, default: float) -> float:
    """The number that an environment variable holds, `default` where it isn't set. Raises
    SettingError where it is out of its range.
    """
    text = os.environ.get(variable, default)
    try:
        number = float(text)
    except ValueError as error:
        raise SettingError(f"{variable} is {text!r}: take {RANGES[variable]}") from error
    RANGES[variable].check(variable, number)
    return number


def check_choice(name: str, value, choices):
    """Raise SettingError where the setting `name` has a `value` that isn't one of `choices`."""
    if value not in choices:
        choices = ", ".join(map(str, choices))
        raise SettingError(f"{name} is {shown(value)}: take one of {choices}")


def check_parts(parts: Sequence[float]):
    """Raise SettingError where `parts` aren't the shares of train, valid and test."""
    are_three = isinstance(parts, Sequence) and len(parts) == 3
    if not are_three or not all(share in SHARE for share in parts) or parts[0] == 0:
        raise SettingError(
            f"parts are {parts}: give three shares of train, valid and test, such as 70,15,15"
        )


def shown(value) -> str:
    """A wrong value as a message names it: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _short(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
