"""What several commands share: their options, and the ranges and paths that these take."""

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from artclf.base import settings
from artclf.data import packs


class App(typer.Typer):
    """A Typer app in which no command takes an address or a pack for a folder or file: what is to be
    one has the type Path, what may be either str.
    """

    def command(self, *args, **kwargs):
        register = super().command(*args, **kwargs)

        def decorated(function: Callable) -> Callable:
            @wraps(function)
            def with_checked_paths(**values):
                for value in values.values():
                    if isinstance(value, Path):
                        packs.check_is_none(value)
                return function(**values)

            register(with_checked_paths)
            return function

        return decorated


def number(range_name: str, help_text: str, *names: str):
    """An option for a number in a range of `base.settings`, which its help shows."""
    allowed = settings.RANGES[range_name]

    def check(value):
        if value is not None and value not in allowed:
            raise typer.BadParameter(f"{value}: take {allowed}")
        return value

    return typer.Option(*names, help=f"{help_text}: {allowed}.", callback=check)


def parse_numbers(text: str, option: str) -> list[float]:
    """`2,1` as numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} are no numbers, such as 2,1", param_hint=option
        ) from error


def parse_parts(text: str) -> tuple[float, ...]:
    """`70,15,15` as three numbers."""
    try:
        parts = tuple(float(part) for part in text.split(","))
        settings.check_parts(parts)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not three shares of train, valid and test, such as 70,15,15",
            param_hint="--parts",
        ) from error
    return parts


DATA = Path("data/sample")
EXPORT = Path("exports/sample")
URLS = Path("paintings_urls")

Data = Annotated[Path, typer.Option(help="Folder of the data set.")]
DataOrPack = Annotated[
    str,
    typer.Option(
        help="Folder of the data set, or a pack of its clean copies: a folder, or an address such as "
        "s3://bucket/name."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the export.")]
Lists = Annotated[Path, typer.Option(help="Folder of URL lists, urls_<class>.csv.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")
]
Seed = Annotated[int, number("seed", "Where chance starts")]
Cache = Annotated[
    Path | None,
    typer.Option(
        envvar="ARTCLF_CACHE", help="Folder of stored features and pixels; default: the data set's."
    ),
]

EngineName = StrEnum("EngineName", ["local", "ray"])
Engine = Annotated[
    EngineName,
    typer.Option(help="What shares out the work: processes of this machine, or a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster; default: RAY_ADDRESS, else one starts on this machine."),
]
Exclude = Annotated[list[str] | None, typer.Option(help="A class to leave out; may be repeated.")]

Resize = StrEnum("Resize", ["squish", "crop", "pad"])
Precision = StrEnum("Precision", ["float32", "bfloat16"])
Layout = StrEnum("Layout", ["class", "part-class", "class-part", "nearest", "unlabelled"])
Split = StrEnum("Split", ["auto", "random", "grouped", "artist", "source", "own"])
Backend = StrEnum("Backend", ["torch", "onnx", "onnx-int8"])
Part = StrEnum("Part", ["train", "valid", "test"])
ServeBackend = StrEnum("ServeBackend", ["auto", "torch", "onnx", "onnx-int8"])
Pooling = StrEnum("Pooling", ["max", "avg"])
Optimizer = StrEnum("Optimizer", ["lbfgs", "adam"])
Activation = StrEnum("Activation", ["relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid"])
