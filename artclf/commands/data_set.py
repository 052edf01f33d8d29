"""Commands that make a data set, from canvases, URL lists or folders, clean it and pack it."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from artclf.base.errors import StepError
from artclf.commands.calls import call, print_summary, runs_here, senders_of, use_cache, workers_of
from artclf.commands.options import (
    DATA,
    URLS,
    Address,
    App,
    Cache,
    Data,
    Engine,
    EngineName,
    Json,
    Layout,
    Lists,
    Seed,
    number,
)
from artclf.data import packs
from artclf.data.archives import MAX_GIGABYTES

app = App()
packs_app = App(no_args_is_help=True, help="Pack a data set into shards, and unpack it.")
app.add_typer(packs_app, name="data")


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument()] = Path("data/sample/gallery"),
    count: Annotated[int, number("count", "Canvases of each period")] = 40,
    size: Annotated[int, number("canvas_size", "Longer side in px")] = 320,
    seed: Seed = 42,
):
    """Draw canvases for all 18 periods, COUNT each, by code."""
    from artclf.data.sample import draw

    print(f"{draw(folder, count, size, seed)} canvases drawn, {folder}")


@app.command()
def search(
    query: str,
    period: Annotated[str, typer.Option(help="The class that the pictures are of.")],
    max_images: Annotated[int, number("max_images", "Results to look at", "--max")] = 300,
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
        int | None, number("max_per_period", "Of each list, so many rows")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed.")
    ] = False,
    per_host: Annotated[int, number("per_host", "Requests at a time to one host")] = 2,
    total: Annotated[
        int, number("total", "Requests at a time over all, of each worker on Ray")
    ] = 32,
    deadline: Annotated[
        float, number("deadline", "Seconds for one image, redirects included")
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
    if lists is None and not runs_here(engine, address):
        raise typer.BadParameter("it goes with --lists FOLDER", param_hint="--engine")
    if lists is None:
        summary = call(fetch_canvases, DATA, **options)
    else:
        data = data or call(data_folder, lists, "lists")
        with senders_of(engine, address, lists, data) as senders:
            summary = call(fetch_lists, lists, data, engine=senders, **options)
    print_summary(summary, as_json)


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
        float, number("max_unpacked", "GB that an archive may unpack to")
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
        data = data or call(data_folder, folder, "folder")
        options["max_unpacked"] = max_unpacked
    with workers_of(engine, address, data, is_new=True) as map_jobs:
        take_in = import_levelled if level else import_folder
        summary = call(take_in, folder, data, map_jobs=map_jobs, **options)
    print_summary(summary, as_json)


@app.command()
def clean(
    data: Data = DATA,
    max_size: Annotated[int, number("max_size", "Longer side of a copy in px")] = 500,
    quality: Annotated[int, number("quality", "JPEG quality of a copy")] = 90,
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

    with workers_of(engine, address, data) as map_jobs:
        summary = call(clean_all, data, max_size, quality, near, review, map_jobs)
    print_summary(summary, as_json)


@app.command()
def review(
    data: Data = DATA,
    export: Annotated[Path | None, typer.Option(help="Write the decisions to this CSV.")] = None,
    labels: Annotated[bool, typer.Option(help="Look for doubtful labels and outliers.")] = True,
    cache: Cache = None,
):
    """List the pictures that a person should look at; 02_clean shows them with buttons."""
    from artclf.clean import export_decisions, list_flagged

    use_cache(cache)
    flagged = call(list_flagged, data, find_doubtful=labels)
    if export:
        print(f"{call(export_decisions, data, export)} decisions in {export}", file=sys.stderr)
    print_summary(flagged, False)


@packs_app.command()
def pack(
    data: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    target: Annotated[
        str, typer.Argument(help="A folder, or an address such as s3://bucket/name.")
    ],
    clean: Annotated[
        bool, typer.Option("--clean", help="Pack the clean copies instead of the raw pictures.")
    ] = False,
    shard_size: Annotated[
        float, number("shard_size", "MB of pictures in a shard")
    ] = packs.MEGABYTES_OF_SHARD,
    as_json: Json = False,
):
    """Pack a data set into tar files of pictures, each with a Parquet file; goes on where it was."""
    from artclf.data import packing

    print_summary(call(packing.pack, data, target, clean, shard_size), as_json)


@packs_app.command()
def unpack(
    source: Annotated[
        str, typer.Argument(help="A packed folder, or an address such as s3://bucket/name.")
    ],
    data: Annotated[Path, typer.Argument(help="A new folder for the data set.")],
    as_json: Json = False,
):
    """Make a data set of a pack, and check every hash; goes on where it was."""
    from artclf.data import unpacking

    print_summary(call(unpacking.unpack, source, data), as_json)
