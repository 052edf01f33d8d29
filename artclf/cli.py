"""The command line: one command a step, each a call of the function that its notebook calls."""

import json
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer

import artclf
from artclf.base import extras, settings
from artclf.base.errors import InputError, SettingError, StepError
from artclf.base.figures import figure
from artclf.base.machine import keep_freed_memory
from artclf.base.processes import MapJobs
from artclf.data import packs
from artclf.data.archives import MAX_GIGABYTES
from artclf.results.recipe import DEFAULTS


class _App(typer.Typer):
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


app = _App(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Build a data set of paintings, teach a network their periods, look at what it learned.",
)

# Bad input and bad surroundings end with one line and exit code 1. Any other exception, such as a
# ValueError out of numpy or a RuntimeError out of torch, is a bug: Python shows its traceback.
EXPECTED = (InputError, StepError, OSError, ImportError, sqlite3.Error)
CTRL_C = 130  # the exit code that Typer gives


def _number(range_name: str, help_text: str, *names: str):
    """An option for a number in a range of `base.settings`, which its help shows."""
    allowed = settings.RANGES[range_name]

    def check(value):
        if value is not None and value not in allowed:
            raise typer.BadParameter(f"{value}: take {allowed}")
        return value

    return typer.Option(*names, help=f"{help_text}: {allowed}.", callback=check)


data_app = _App(no_args_is_help=True, help="Pack a data set into shards, and unpack it.")
app.add_typer(data_app, name="data")

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
Seed = Annotated[int, _number("seed", "Where chance starts")]
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

DATA = Path("data/sample")
EXPORT = Path("exports/sample")
URLS = Path("paintings_urls")


def main():
    """Run the command line; an expected error is one line on standard error and exit code 1, a
    setting that makes no sense exit code 2.
    """
    keep_freed_memory()
    try:
        with warnings.catch_warnings():
            _ignore_warnings_of_pillow()
            app()
    except EXPECTED as error:
        if os.environ.get("ARTCLF_TRACEBACK"):
            raise
        print(f"artclf: {extras.advice(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingError) else 1)
    except SystemExit as end:
        if end.code == CTRL_C:
            print("artclf: interrupted; the same command goes on from here", file=sys.stderr)
        raise


def _ignore_warnings_of_pillow():
    """It warns of large pictures and damaged tags; step clean judges these itself."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.Image\b")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _call(function: Callable, *args, **kwargs):
    """Call a step; what it prints goes to standard error, for standard output holds the summary."""
    with redirect_stdout(sys.stderr):
        return function(*args, **kwargs)


def _print(summary, as_json: bool):
    """Print a DataFrame or a dict, for a person or as JSON."""
    is_table = hasattr(summary, "to_json")
    if as_json:
        print(summary.to_json(orient="index") if is_table else json.dumps(summary, default=str))
    elif is_table:
        print(summary.to_string())
    else:
        print("\n".join(f"{name}: {figure(value)}" for name, value in summary.items()))


def _parse_numbers(text: str, option: str) -> list[float]:
    """`2,1` as numbers."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} are no numbers, such as 2,1", param_hint=option
        ) from error


def _use_cache(folder: Path | None):
    """Let this process, and the notebooks that it runs, keep features and pixels in `folder`."""
    if folder is not None:
        os.environ["ARTCLF_CACHE"] = str(folder.resolve())


@contextmanager
def _workers(
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
    if _is_local(engine, address):
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
def _senders(
    engine: EngineName, address: str | None, lists: Path, data: Path
) -> Iterator[Callable | None]:
    """What sends the requests of step download: the workers of a Ray cluster, which see `data`;
    None for this process. Raises FileNotFoundError where there are no `lists`.
    """
    if _is_local(engine, address):
        yield None
        return
    from artclf.cluster.requests import sent_by_workers
    from artclf.download import find_lists

    find_lists(lists)
    with sent_by_workers(data, address) as senders:
        yield senders


def _is_local(engine: EngineName, address: str | None) -> bool:
    """Whether no Ray is asked for. Raises BadParameter for an address that goes with it."""
    if engine == EngineName.local and address:
        raise typer.BadParameter("it goes with --engine ray", param_hint="--address")
    return engine == EngineName.local


def _parse_parts(text: str) -> tuple[float, ...]:
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


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument()] = Path("data/sample/gallery"),
    count: Annotated[int, _number("count", "Canvases of each period")] = 40,
    size: Annotated[int, _number("canvas_size", "Longer side in px")] = 320,
    seed: Seed = 42,
):
    """Draw canvases for all 18 periods, COUNT each, by code."""
    from artclf.data.sample import draw

    print(f"{draw(folder, count, size, seed)} canvases drawn, {folder}")


@app.command()
def search(
    query: str,
    period: Annotated[str, typer.Option(help="The class that the pictures are of.")],
    max_images: Annotated[int, _number("max_images", "Results to look at", "--max")] = 300,
    lists: Lists = URLS,
    engine: str = "ddgs",
):
    """Collect URLs by image search and append them to the list of a period."""
    from artclf.search import collect

    summary = collect(query, period, lists, max_images, engine)
    if summary.gave_up and not summary.found:
        raise StepError(summary)
    print(summary)


@app.command()
def download(
    lists: Annotated[
        Path | None, typer.Option(help="Folder of URL lists. Default: drawn canvases.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Default: data/sample, or data/<name of the lists>.")
    ] = None,
    max_per_period: Annotated[
        int | None, _number("max_per_period", "Of each list, so many rows")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed.")
    ] = False,
    per_host: Annotated[int, _number("per_host", "Requests at a time to one host")] = 2,
    total: Annotated[
        int, _number("total", "Requests at a time over all, of each worker on Ray")
    ] = 32,
    deadline: Annotated[
        float, _number("deadline", "Seconds for one image, redirects included")
    ] = 60,
    contact: Annotated[
        str, typer.Option(help="Your address, told to servers in the User-Agent.")
    ] = "",
    robots: Annotated[bool, typer.Option(help="Respect robots.txt and X-Robots-Tag.")] = True,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Allow this network, too.")
    ] = False,
    engine: Engine = EngineName.local,
    address: Address = None,
    as_json: Json = False,
):
    """Fetch what the URL lists name, or canvases that are drawn by code; goes on where it was."""
    from artclf.download import data_folder, fetch_canvases, fetch_lists

    options: dict[str, Any] = {
        "max_per_period": max_per_period,
        "retry_failed": retry_failed,
        "per_host": per_host,
        "total": total,
        "deadline": deadline,
        "robots": robots,
        "allow_private": allow_private,
    }
    if contact:
        options["contact"] = contact
    if lists is None and data not in (None, DATA):
        raise typer.BadParameter(f"name the URL lists for {data} with --lists")
    is_local = _is_local(engine, address)
    if lists is None and not is_local:
        raise typer.BadParameter("it goes with --lists FOLDER", param_hint="--engine")
    if lists is None:
        summary = _call(fetch_canvases, DATA, **options)
    else:
        data = data or _call(data_folder, lists, "lists")
        with _senders(engine, address, lists, data) as senders:
            summary = _call(fetch_lists, lists, data, engine=senders, **options)
    _print(summary, as_json)


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder of pictures, or a zip or tar of one.")],
    data: Annotated[Path | None, typer.Option(help="Default: data/<name of FOLDER>.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON Lines of facts; default: that in FOLDER or above it."),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="The column of the manifest that holds the class.")
    ] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(
            help="What the folders in FOLDER are; found out by default: classes, "
            "train/valid/test with classes in them, the other way round, or (nearest) the class "
            "is the folder in which a picture lies; unlabelled takes no folder for a class."
        ),
    ] = None,
    file_names: Annotated[
        bool, typer.Option(help="Read artist, title and year from names like WikiArt's.")
    ] = True,
    max_unpacked: Annotated[
        float, _number("max_unpacked", "GB that an archive may unpack to")
    ] = MAX_GIGABYTES,
    level: Annotated[
        bool, typer.Option("--level-sources", help="Squash and recompress all alike.")
    ] = False,
    engine: Engine = EngineName.local,
    address: Address = None,
    as_json: Json = False,
):
    """Take in a folder FOLDER/<class>/ of pictures, or one folder and a CSV of facts."""
    from artclf.data.archives import existing
    from artclf.download import data_folder, import_folder, import_levelled

    options: dict[str, Any] = {
        "manifest": manifest,
        "label_column": label_column,
        "layout": layout.value if layout else None,
        "file_names": file_names,
    }
    existing(folder)  # before Ray starts
    if level:
        data = data or Path("data") / f"{folder.resolve().name}-level"
    else:
        data = data or _call(data_folder, folder, "folder")
        options["max_unpacked"] = max_unpacked
    with _workers(engine, address, data, is_new=True) as map_jobs:
        take_in = import_levelled if level else import_folder
        summary = _call(take_in, folder, data, map_jobs=map_jobs, **options)
    _print(summary, as_json)


@app.command()
def clean(
    data: Data = DATA,
    max_size: Annotated[int, _number("max_size", "Longer side of a copy in px")] = 500,
    quality: Annotated[int, _number("quality", "JPEG quality of a copy")] = 90,
    near: Annotated[bool, typer.Option(help="Look for near-duplicates, too.")] = True,
    review: Annotated[
        Path | None, typer.Option(help="Apply the decisions in this CSV first.")
    ] = None,
    engine: Engine = EngineName.local,
    address: Address = None,
    as_json: Json = False,
):
    """Verify every image by decoding it whole, write normalised copies, set duplicates aside."""
    from artclf.clean import clean_all

    with _workers(engine, address, data) as map_jobs:
        summary = _call(clean_all, data, max_size, quality, near, review, map_jobs)
    _print(summary, as_json)


@app.command()
def review(
    data: Data = DATA,
    export: Annotated[Path | None, typer.Option(help="Write the decisions to this CSV.")] = None,
    labels: Annotated[bool, typer.Option(help="Look for doubtful labels and outliers.")] = True,
    cache: Cache = None,
):
    """List the pictures that a person should look at; 02_clean shows them with buttons."""
    from artclf.clean import export_decisions, list_flagged

    _use_cache(cache)
    flagged = _call(list_flagged, data, find_doubtful=labels)
    if export:
        print(f"{_call(export_decisions, data, export)} decisions in {export}", file=sys.stderr)
    _print(flagged, False)


@data_app.command()
def pack(
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    target: Annotated[
        str, typer.Argument(help="A folder, or an address such as s3://bucket/name.")
    ],
    clean: Annotated[
        bool, typer.Option("--clean", help="Pack the clean copies instead of the raw pictures.")
    ] = False,
    shard_size: Annotated[
        float, _number("shard_size", "MB of pictures in a shard")
    ] = packs.MEGABYTES_OF_SHARD,
    as_json: Json = False,
):
    """Pack a data set into tar files of pictures, each with a Parquet file; goes on where it was."""
    from artclf.data import packing

    _print(_call(packing.pack, data, target, clean, shard_size), as_json)


@data_app.command()
def unpack(
    source: Annotated[
        str, typer.Argument(help="A packed folder, or an address such as s3://bucket/name.")
    ],
    data: Annotated[Path, typer.Argument(help="A new folder for the data set.")],
    as_json: Json = False,
):
    """Make a data set of a pack, and check every hash; goes on where it was."""
    from artclf.data import unpacking

    _print(_call(unpacking.unpack, source, data), as_json)


@app.command()
def train(
    data: DataOrPack = str(DATA),
    out: Out = EXPORT,
    arch: Annotated[
        str, typer.Option(help="auto, or a name of torchvision or timm; a+b takes both together.")
    ] = DEFAULTS.arch,
    epochs: Annotated[int, _number("epochs", "Epochs of the head alone")] = DEFAULTS.epochs,
    unfrozen_epochs: Annotated[
        int, _number("unfrozen_epochs", "Epochs of the upper blocks, too")
    ] = DEFAULTS.unfrozen_epochs,
    lr: Annotated[float, _number("lr", "Highest learning rate of the head")] = DEFAULTS.lr,
    size: Annotated[int, _number("size", "Sides of the pictures in px")] = DEFAULTS.size,
    resize: Resize = Resize(DEFAULTS.resize),
    batch_size: Annotated[int, _number("batch_size", "Pictures in a batch")] = DEFAULTS.batch_size,
    split: Annotated[
        Split,
        typer.Option(
            help="What stays in one part: nothing, duplicates, painters, sources; or (own) the parts of "
            "your folders or manifest. auto: own where there are parts, else grouped."
        ),
    ] = Split(DEFAULTS.split),
    parts: Annotated[str, typer.Option(help="Shares of train, valid and test.")] = "70,15,15",
    seed: Seed = DEFAULTS.seed,
    exclude: Exclude = None,
    dropout: Annotated[float, _number("dropout", "Dropout of the head")] = DEFAULTS.dropout,
    ridge: Annotated[
        float, _number("ridge", "L2 penalty on the weights of the head")
    ] = DEFAULTS.ridge,
    unfreeze_from: Annotated[
        int, _number("unfreeze_from", "First block to unfreeze, 0 for all")
    ] = DEFAULTS.unfreeze_from,
    gradual: Annotated[
        bool, typer.Option("--gradual", help="Unfreeze block by block, an epoch each.")
    ] = DEFAULTS.gradual,
    final: Annotated[
        bool,
        typer.Option(
            help="In the end, let the exported network learn from the images of all parts; the "
            "figures stay those of the network that has not seen test."
        ),
    ] = DEFAULTS.final,
    balance: Annotated[
        bool, typer.Option(help="Let every period weigh the same in the loss.")
    ] = DEFAULTS.balance,
    tau: Annotated[
        float,
        _number(
            "tau",
            "Advantage of frequent periods while the network learns, gone when it is asked "
            "(logit adjustment)",
        ),
    ] = DEFAULTS.tau,
    pretrained: Annotated[
        bool, typer.Option(help="Start from the pretrained weights of ARCH.")
    ] = DEFAULTS.pretrained,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from the weights of ARCH, a single one, in this safetensors or state dict file."
        ),
    ] = DEFAULTS.weights,
    precision: Annotated[
        Precision, typer.Option(help="Of the body; bfloat16 is fast on some processors and GPUs.")
    ] = Precision(DEFAULTS.precision),
    cached: Annotated[
        bool, typer.Option(help="Learn from stored features and pixels.")
    ] = DEFAULTS.cached,
    cache: Cache = None,
    seeds: Annotated[
        int,
        _number(
            "seeds",
            "Train so many times, from SEED, SEED + 1..., each into a folder of its own in OUT, "
            "and print mean and spread",
        ),
    ] = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    processes: Annotated[
        int | None,
        _number(
            "processes",
            "End unless torchrun or accelerate started so many processes, which then learn together",
        ),
    ] = None,
    as_json: Json = False,
):
    """Train the head alone, then the upper blocks of the body, too, and export."""
    shares = _parse_parts(parts)
    _use_cache(cache)
    from artclf import predict
    from artclf.model import ranks
    from artclf.train import fit, repeat

    step = fit if seeds == 1 else partial(repeat, seeds=seeds)
    with ranks.connected(processes):
        if ranks.are_several() and engine != EngineName.local:
            raise typer.BadParameter(
                "several processes share out the features themselves", param_hint="--engine"
            )
        with _workers(engine, address, data, on_gpus=True) as map_jobs:
            result = _call(
                step,
                data,
                out,
                epochs,
                unfrozen_epochs,
                lr,
                gradual,
                final,
                arch=arch,
                size=size,
                resize=resize.value,
                batch_size=batch_size,
                split=split.value,
                parts=shares,
                seed=seed,
                exclude=exclude or (),
                dropout=dropout,
                ridge=ridge,
                unfreeze_from=unfreeze_from,
                balance=balance,
                tau=tau,
                pretrained=pretrained,
                weights=weights,
                precision=precision.value,
                cached=cached,
                map_jobs=map_jobs,
            )
        _print(predict.headline(out) if seeds == 1 else result, as_json)


@app.command()
def measure(
    data: Annotated[Path, typer.Argument(help="Folder of a data set.")] = DATA,
    levelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a copy of the data set in which all pictures are made alike; made if "
            "need be, and measured, too."
        ),
    ] = None,
    arch: Annotated[
        str, typer.Option(help="auto, or a name of torchvision or timm; a+b takes both together.")
    ] = DEFAULTS.arch,
    size: Annotated[int, _number("size", "Sides of the pictures in px")] = DEFAULTS.size,
    cache: Cache = None,
    as_json: Json = False,
):
    """Measure the recipe on painters and sources that it never saw."""
    _use_cache(cache)
    from artclf.data.levels import level_sources
    from artclf.lab import protocols

    if levelled:
        _call(level_sources, data, levelled)
    figures, believed = _call(protocols.measure, data, levelled, arch, size)
    if as_json:
        _print({"figures": figures.to_dict("index"), "believed": believed.to_dict("index")}, True)
    else:
        print(protocols.text(figures, believed))


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="A folder of exports.")] = EXPORT.parent,
    as_json: Json = False,
):
    """List all runs that a folder of exports keeps, the highest macro F1 first."""
    from artclf.results import runs

    table = runs.table(folder)
    if as_json:
        _print(table, True)
    else:
        print(runs.text(table))


@app.command()
def interpret(data: Data = DATA, out: Out = EXPORT, part: Part = Part.test):
    """Write report.html, plots and tables from the predictions, and saliency of the worst
    errors.
    """
    from artclf.interpret import write, write_saliency

    _call(write_saliency, out, data)
    _print(_call(write, out, data, part.value), False)


@app.command()
def report(
    one: Path,
    other: Annotated[Path | None, typer.Argument()] = None,
    data: Data = DATA,
    part: Part = Part.test,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report, by default ONE; of a comparison its page, by default "
            "OTHER/compare-<name of ONE>.html."
        ),
    ] = None,
):
    """Write the report of the run in folder ONE, or what differs between it and that in folder
    OTHER.
    """
    from artclf import interpret

    if out and out.suffix == ".html" and not other:
        raise typer.BadParameter("it names the page of a comparison: for one run, name a folder")
    if other:
        summary = _call(interpret.compare_runs, one, other, data, out, part=part.value)
    else:
        summary = _call(interpret.write, one, data, part=part.value, folder=out)
    _print(summary, False)


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="Folder of the export.")
    ] = EXPORT,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write model.onnx, which answers without torch.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Also write model-int8.onnx, a third as long, and measure on part test of DATA what "
            "that costs.",
        ),
    ] = False,
    data: Data = DATA,
    web: Annotated[
        Path | None,
        typer.Option(help="Write a page that answers in the browser to this folder."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="The archive of onnxruntime-web for it; by default from npm, once."),
    ] = None,
    as_json: Json = False,
):
    """Write the network of an export in other forms."""
    if not onnx and web is None:
        raise typer.BadParameter("say which form: --onnx, with --int8 if you like, or --web FOLDER")
    if int8 and not onnx:
        raise typer.BadParameter("it comes with --onnx", param_hint="--int8")
    summary = {}
    if onnx:
        from artclf.model import onnx_export

        summary |= _call(onnx_export.write, folder, int8, data)
    if web is not None:
        from artclf.answers.web import write

        summary |= _call(write, folder, web, runtime)
    _print(summary, as_json)


@app.command()
def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders or packs of them, URLs of pictures, or lists of these: a .txt with "
            "one a line, a .csv with the column file or url."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder of the export, or hf://USER/NAME on the Hugging Face hub.")
    ] = str(EXPORT),
    k: Annotated[int, _number("k", "Periods to name, the likeliest first")] = 3,
    as_json: Json = False,
    min_probability: Annotated[
        float | None,
        _number("min_probability", "Answer only where the likeliest period is as likely as that"),
    ] = None,
    backend: Annotated[
        Backend, typer.Option(help="What computes; for onnx, run `artclf export` first.")
    ] = Backend.torch,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the answers to this .csv or .parquet file, with the probability of every period, "
            "for any number of pictures; goes on where it was."
        ),
    ] = None,
    engine: Engine = EngineName.local,
    address: Address = None,
):
    """Tell the periods of pictures."""
    from artclf.answers import batch
    from artclf.answers.hub import is_address

    if engine == EngineName.ray and not save:
        raise typer.BadParameter("it goes with --save FILE", param_hint="--engine")
    load = partial(artclf.load, out, backend=backend.value)
    classifier = _call(load)
    if save:
        place = out if is_address(out) else Path(out).absolute()  # workers have another folder
        load = partial(artclf.load, place, backend=backend.value)
        with _workers(engine, address, None, on_gpus=backend == Backend.torch) as map_jobs:
            summary = _call(batch.save, classifier, images, save, min_probability, map_jobs, load)
        if summary["errors"] == summary["pictures"]:
            raise InputError(f"no picture could be read: the column error of {save} says why")
        _print(summary, as_json)
        return
    pictures = batch.pictures_in(images)
    found = _call(classifier.predict, pictures, k, min_probability=min_probability)
    if (found.error != "").all():
        raise InputError(f"no picture found: {'; '.join(found.error) or 'empty folders'}")
    _print(found, as_json)


@app.command()
def similar(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders or URLs of pictures.")],
    out: Out = EXPORT,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, for titles, painters, sources.")
    ] = None,
    k: Annotated[int, _number("k", "Pictures to name, the most similar first")] = 10,
    period: Annotated[str, typer.Option(help="Only pictures of this period.")] = "",
    painter: Annotated[
        str, typer.Option(help="Only pictures by painters whose name has this text in it.")
    ] = "",
    years: Annotated[
        str, typer.Option(help="Only pictures of these years: 1872, 1870-1890, 1880s.")
    ] = "",
    by: Annotated[
        str,
        typer.Option(
            help="What is compared: content, style, or how much style counts beside content, "
            "from 0 to 1."
        ),
    ] = "content",
    among: Annotated[
        Path | None,
        typer.Option(
            help="Look among the pictures of this folder or data set, not among those of training."
        ),
    ] = None,
    index: Annotated[
        bool,
        typer.Option(
            "--index",
            help="Among more than 100,000 pictures, build an index, keep it, and ask that; it may "
            "miss a few.",
        ),
    ] = False,
    backend: Annotated[
        Backend, typer.Option(help="What computes; for onnx, run `artclf export` first.")
    ] = Backend.torch,
    as_json: Json = False,
):
    """Name the pictures that are most similar to pictures of yours: training pictures, or those of a
    folder.
    """
    from artclf.results import facts, neighbours, retrieval

    retrieval.style_share(by)
    if years:
        facts.range_of(years)
    classifier = _call(artclf.load, out, backend=backend.value)
    wanted = {"period": period, "painter": painter, "years": years}
    options: dict[str, Any] = {"by": by, "among": among, "index": index}
    found = _call(neighbours.similar, classifier, out, images, data, k, **wanted, **options)
    if (found.error != "").all():
        raise InputError(f"no picture found: {'; '.join(found.error) or 'empty folders'}")
    _print(found, as_json)


@app.command()
def serve(
    export: Annotated[
        str, typer.Argument(help="Folder of the export, or hf://USER/NAME on the Hugging Face hub.")
    ] = str(EXPORT),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data set, to show the nearest paintings with their facts."
        ),
    ] = None,
    port: Annotated[int, _number("port", "0 takes any free one")] = 8000,
    bind: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str,
        typer.Option(
            envvar="ARTCLF_TOKEN",
            help="What programs and visitors must know; safer in the environment than here.",
        ),
    ] = "",
    backend: Annotated[
        ServeBackend, typer.Option(help="auto: onnx where the export has it, else torch.")
    ] = ServeBackend.auto,
    min_probability: Annotated[
        float | None,
        _number(
            "min_probability",
            "Sure from this probability on; default: where 4 answers in 5 were right on valid",
        ),
    ] = None,
    urls: Annotated[
        bool, typer.Option("--urls", help="Let visitors give URLs of pictures.")
    ] = False,
    collect: Annotated[
        Path | None,
        typer.Option(
            help="A data set whose review gets the pictures that people agree to give; off by default."
        ),
    ] = None,
    suggestions: Annotated[
        int | None, _number("suggestions", "Given pictures that may wait for a decision")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name of this server; may be repeated.")
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may ask, such as https://a.org; may be repeated."),
    ] = None,
    allow_frame: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may frame the page; may be repeated."),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            help="Address of the proxy in front, whose X-Forwarded-For names the clients."
        ),
    ] = None,
    max_bytes: Annotated[int | None, _number("max_bytes", "Bytes of a picture")] = None,
    max_pixels: Annotated[int | None, _number("max_pixels", "Pixels of a picture")] = None,
    pictures: Annotated[int | None, _number("pictures", "Pictures of a request")] = None,
    rate: Annotated[
        float | None, _number("rate", "Pictures a second of one address, 0 for all")
    ] = None,
    queue: Annotated[int | None, _number("queue", "Pictures under way at once")] = None,
):
    """Serve a page and a JSON API that tell the periods of paintings."""
    from artclf import serve
    from artclf.server.security import Security

    security = Security(
        bind=bind,
        hosts=tuple(allow_host or ()),
        token=token,
        cors=serve.origins(cors),
        frames=serve.origins(allow_frame),
    )
    limits = serve.allowed_limits(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        pictures=pictures,
        rate=rate,
        queue=queue,
        suggestions=suggestions,
    )
    serve.run(
        export,
        data,
        backend=backend.value,
        port=port,
        min_probability=min_probability,
        urls=urls,
        collect=collect,
        proxy=proxy,
        limits=limits,
        security=security,
    )


@app.command()
def push(
    export: Annotated[Path, typer.Argument(help="Folder of the export.")],
    address: Annotated[str, typer.Argument(help="hf://USER/NAME")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public, not private.")
    ] = False,
    pickle: Annotated[
        bool, typer.Option("--pickle", help="Upload fastai's learner.pkl, too.")
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Upload predictions, embeddings and report, too: they name and show your pictures.",
        ),
    ] = False,
    as_json: Json = False,
):
    """Upload an export to the Hugging Face hub: weights, settings, figures and model card."""
    from artclf.answers import hub

    _print(_call(hub.push, export, address, public, pickle, everything), as_json)


@app.command()
def painters(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a data set whose classes are painters; default: "
            "data/painters, drawn by code if it isn't there."
        ),
    ] = None,
    out: Out = Path("exports/painters"),
    size: Annotated[int, _number("size", "Sides in px")] = 28,
    neurons: Annotated[int, _number("neurons", "Channels of the first convolution")] = 16,
    epochs: Annotated[int, _number("epochs", "Epochs")] = 20,
    depth: Annotated[int, _number("convolutions", "Convolutions, each with a pooling")] = 2,
    pooling: Pooling = Pooling.max,
    activation: Activation = Activation.relu,
    seed: Seed = 42,
    as_json: Json = False,
):
    """Train a small CNN from scratch to tell painters, and report on each of them."""
    from artclf.lab import painters

    config = painters.configuration(
        size=size,
        neurons=neurons,
        depth=depth,
        pooling=pooling.value,
        activation=activation.value,
        epochs=epochs,
        seed=seed,
    )
    run = _call(painters.fit, data or _call(painters.drawn, "data/painters"), out, config)
    text, table = painters.write(run, out)
    if as_json:
        _print(table, True)
    else:
        print(text)


@app.command()
def restyle(
    image: Annotated[Path, typer.Argument(help="A picture.")],
    like: Annotated[
        list[str],
        typer.Option(
            help="A picture, or a period or painter of DATA, whose style it takes; may be repeated."
        ),
    ],
    mix: Annotated[
        str | None, typer.Option(help="How much each --like counts, such as 2,1. Default: alike.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the result, by default IMAGE-like-LIKE.jpg here.")
    ] = None,
    data: Data = DATA,
    arch: Annotated[
        str,
        typer.Option(help="auto (VGG16 if it can be had), or a network of torchvision or timm."),
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(help="Take the weights of ARCH in this safetensors or state dict file."),
    ] = None,
    size: Annotated[int, _number("canvas_size", "Longer side of the result in px")] = 256,
    style_weight: Annotated[
        float, _number("style_weight", "How much style counts against content")
    ] = 3.0,
    variation_weight: Annotated[
        float, _number("variation_weight", "How smooth the result is")
    ] = 1.0,
    steps: Annotated[int, _number("steps", "Steps at each size")] = 60,
    levels: Annotated[int, _number("levels", "Sizes from coarse to fine")] = 2,
    optimizer: Annotated[
        Optimizer, typer.Option(help="What changes the pixels.")
    ] = Optimizer.lbfgs,
    keep_colours: Annotated[
        bool, typer.Option("--keep-colours", help="Keep the colours of IMAGE.")
    ] = False,
    every: Annotated[
        int, _number("every", "Write the picture each time after so many steps, 0 for never")
    ] = 0,
    as_json: Json = False,
):
    """Paint a picture in the style of others, of a period or of a painter."""
    from artclf.lab import style_transfer

    names = "-".join(map(style_transfer.name_of, like))
    file = out or Path(f"{image.stem}-like-{names}.jpg")
    losses = _call(
        style_transfer.restyle_file,
        image,
        like,
        data,
        file,
        arch,
        weights,
        _parse_numbers(mix, "--mix") if mix else None,
        every,
        size=size,
        style_weight=style_weight,
        variation_weight=variation_weight,
        steps=steps,
        levels=levels,
        optimizer=optimizer,
        keep_colours=keep_colours,
    )
    _print({"file": str(file), **losses}, as_json)


@app.command()
def run(
    gallery: Annotated[
        Path | None, typer.Argument(help="A folder of your own, GALLERY/<class>/*.jpg.")
    ] = None,
    lists: Annotated[
        Path | None, typer.Option(help="A folder of URL lists to fetch over the internet.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE for them.")
    ] = None,
    cache: Cache = None,
    again: Annotated[
        bool, typer.Option("--again", help="Run them even if nothing has changed since they ran.")
    ] = False,
):
    """Run the notebooks 01 to 05 top to bottom: on drawn canvases, on a folder of your own, or on
    URL lists.
    """
    from artclf.run import run_notebooks

    _use_cache(cache)
    run_notebooks(gallery, lists, parameter or [], again)


if __name__ == "__main__":
    main()
