"""How a command calls a step, here or on a Ray cluster, and prints what came back."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import typer

from artclf.base.figures import figure
from artclf.base.processes import MapJobs
from artclf.commands.options import EngineName
from artclf.data import packs


def call(function: Callable, *args, **kwargs):
    """Call a step; what it prints goes to standard error, for standard output holds the summary."""
    with redirect_stdout(sys.stderr):
        return function(*args, **kwargs)


def print_summary(summary, as_json: bool):
    """Print a DataFrame or a dict, for a person or as JSON."""
    is_table = hasattr(summary, "to_json")
    if as_json:
        print(summary.to_json(orient="index") if is_table else json.dumps(summary, default=str))
    elif is_table:
        print(summary.to_string())
    else:
        print("\n".join(f"{name}: {figure(value)}" for name, value in summary.items()))


def use_cache(folder: Path | None):
    """Let this process, and the notebooks that it runs, keep features and pixels in `folder`."""
    if folder is not None:
        os.environ["ARTCLF_CACHE"] = str(folder.resolve())


@contextmanager
def workers_of(
    engine: EngineName,
    address: str | None,
    data: Path | str | None,
    on_gpus: bool = False,
    is_new: bool = False,
) -> Iterator[MapJobs | None]:
    """What does the jobs of a step: the workers of a Ray cluster, which see the folder `data`, or, for
    a pack, that of its stores; None for processes of this machine. Raises FileNotFoundError where
    `data` has no catalogue and is not to be a new data set.
    """
    if runs_here(engine, address):
        yield None
        return
    from artclf.cluster.workers import connected
    from artclf.data.catalogue import require

    folder = None
    if data is not None:
        folder = packs.working_folder(data)
        if not is_new and not packs.is_pack(data):
            require(data)
    with connected(address, folder, on_gpus) as map_jobs:
        yield map_jobs


@contextmanager
def senders_of(
    engine: EngineName, address: str | None, lists: Path, data: Path
) -> Iterator[Callable | None]:
    """What sends the requests of step download: the workers of a Ray cluster, which see `data`;
    None for this process. Raises what the step does of `lists`, before Ray starts.
    """
    if runs_here(engine, address):
        yield None
        return
    from artclf.cluster.requests import sent_by_workers
    from artclf.data.lists import check_lists
    from artclf.download import find_lists

    with warnings.catch_warnings(action="ignore"):  # the step warns
        check_lists(find_lists(lists))
    with sent_by_workers(data, address) as senders:
        yield senders


def runs_here(engine: EngineName, address: str | None) -> bool:
    """Whether no Ray is asked for. Raises BadParameter for an address that goes with it."""
    if engine == EngineName.local and address is not None:
        raise typer.BadParameter("it goes with --engine ray", param_hint="--address")
    return engine == EngineName.local
