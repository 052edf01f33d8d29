"""Exports: what of `EXPORT/` is read and checked without torch, whatever computes the answers."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from artclf.answers import config as settings
from artclf.base.errors import InputError
from artclf.base.files import finish_replacing, sha256_of

# the packages whose versions config.json names
VERSIONS = ("artclf", "torch", "torchvision", "timm", "fastai", "pillow")
WEIGHTS = "model.safetensors"
WEIGHTS_OF_MEASURED = "measured.safetensors"


def read_config(out: Path) -> dict:
    """The settings in the `config.json` of the export folder `out`, which a stranger may have
    written: no class in it leads to another folder, and no number is out of its range.

    Raises FileNotFoundError without an export, InputError for a `config.json` that is none, or that
    a newer artclf made.
    """
    finish_replacing(out)
    file = out / "config.json"
    if not file.exists():
        raise FileNotFoundError(f"no export in {out}: run `artclf train` first")
    with checking_config(out):
        config = settings.read(file)
    if settings.is_newer(config):
        raise made_by_newer(file)
    with checking_config(out):
        settings.check(config)
        for name in VERSIONS:
            settings.check_text(name, config["versions"][name])
    return {"stages": 1, **config}  # exports of version 0.1 don't name it


def of_measured(config: dict, out: Path) -> dict:
    """The settings of the network that the figures belong to, given those of the network that
    learned from all images afterwards. Raises InputError as `read_config` does.
    """
    with checking_config(out):
        if not isinstance(config["measured"], dict):
            raise InputError("measured holds no settings")
        of_both = {**config, **config["measured"]}
        settings.check(of_both)
    return of_both


def made_by_newer(file: Path) -> InputError:
    """The error for a `config.json` that this artclf is too old for."""
    return InputError(
        f"{file} was made by a newer artclf than this one, {version('artclf')}: update"
    )


@contextmanager
def checking_config(out: Path) -> Iterator[None]:
    """What is raised while the settings of the export `out` are looked at becomes an InputError
    that names their file.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{out / 'config.json'} is not the config.json of an export ({what}): copy it again"
        ) from error


def check_hash(file: Path, config: dict):
    """Raise InputError where `file` is another one than `config.json` describes, FileNotFoundError
    where it is missing.
    """
    if sha256_of(file) != config["hashes"].get(file.name):
        raise InputError(f"{file} is not the file that config.json describes: copy both again")


def warn_of_other_versions(config: dict, packages: Iterable[str] = VERSIONS):
    """Warn whoever called artclf where one of `packages` is of another version than at training."""
    differing = []
    for name in packages:
        at_training = config["versions"][name]
        if version(name).split(".")[:2] != at_training.split(".")[:2]:
            differing.append(f"{name} {version(name)} (trained with {at_training})")
    if differing:
        warnings.warn(
            f"other versions than at training: {', '.join(differing)}",
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """The `stacklevel`, for the function that asks, of the first caller outside this package."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "artclf":
        frame = frame.f_back
        level += 1
    return level
