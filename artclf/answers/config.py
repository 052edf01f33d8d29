"""The settings in `config.json`, which a stranger may have written: how they are read, and which
values they may have.

Those that only the network needs are checked by `model.exports`.
"""

import json
import math
import os
from numbers import Real
from pathlib import Path

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.settings import Range
from artclf.data.pictures import RESIZE

FORMAT = 1  # goes up when an export can't be read by an artclf of before
MOST_BYTES = 10_000_000  # of the file
MOST_NAMES = 10_000  # classes, artists
LONGEST_NAME = 255  # bytes, as file systems have it


def read(file: Path) -> dict:
    """The JSON object in `file`.

    Raises ValueError or RecursionError where it holds none, or more than `MOST_BYTES`.
    """
    if file.stat().st_size > MOST_BYTES:
        raise InputError(f"it has more than {MOST_BYTES} bytes")
    content = json.loads(file.read_bytes().decode("utf-8"))
    if not isinstance(content, dict):
        raise InputError("it holds no settings")
    return content


def is_newer(config: dict) -> bool:
    """Whether an artclf made the export whose exports this one doesn't know."""
    return config.get("format") in Range(FORMAT + 1, 1_000_000)


def check(config: dict):
    """Raise InputError for settings that no export has; LookupError where one is missing."""
    Range(FORMAT, FORMAT).check("format", config.get("format", FORMAT))
    check_numbers(config, "size", "temperature")
    if "max_size" in config:
        check_numbers(config, "max_size")
    settings.check_choice("resize", config["resize"], RESIZE)
    _check_names("vocab", config["vocab"])
    if not config["vocab"]:
        raise InputError("vocab is empty")
    _check_names("artists", config.get("artists", []))
    for name in config["vocab"]:
        if name != Path(name).name or name == "..":
            raise InputError(f"{name!r} is no class")
    for name in ("versions", "hashes"):
        check_texts(name, config[name])


def check_numbers(config: dict, *names: str):
    """Raise SettingError where one of these settings is out of its range."""
    settings.check(**{name: config[name] for name in names})


def check_channels(name: str, values, lowest: float = -math.inf):
    """Raise InputError where `values` aren't three numbers, one a channel, of at least `lowest`."""
    are_three = isinstance(values, list) and len(values) == 3
    if not are_three or not all(_is_number(value) and value >= lowest for value in values):
        raise InputError(f"{name} is {settings.shown(values)}: it takes three numbers")


def check_text(name: str, value):
    """Raise InputError where `value` isn't a text as settings have it."""
    if not isinstance(value, str) or len(value) > 10_000:
        raise InputError(f"{name} is {settings.shown(value)}: it takes a text")


def check_texts(name: str, values):
    """Raise InputError where `values` aren't texts under names."""
    if not isinstance(values, dict):
        raise InputError(f"{name} is {settings.shown(values)}: it takes texts under names")
    for key, value in values.items():
        check_text(f"{name}: {settings.shown(key)}", value)


def _check_names(setting: str, names):
    are_names = isinstance(names, list) and len(names) <= MOST_NAMES
    if not are_names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{setting} is {settings.shown(names)}: it takes at most {MOST_NAMES} names"
        )
    for name in names:
        is_text = "\0" not in name and len(os.fsencode(name)) <= LONGEST_NAME
        if not name or not is_text:
            raise InputError(f"{setting} has the name {settings.shown(name)}")
    if len(set(names)) < len(names):
        raise InputError(f"{setting} has a name twice")


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
