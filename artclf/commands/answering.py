"""Commands that answer with an exported network, here, over HTTP, or from a hub."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import artclf
from artclf.base.errors import InputError
from artclf.commands.calls import call, print_summary, workers_of
from artclf.commands.options import (
    EXPORT,
    Address,
    App,
    Backend,
    Engine,
    EngineName,
    Json,
    Out,
    ServeBackend,
    number,
)

app = App()


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
    k: Annotated[int, number("k", "Periods to name, the likeliest first")] = 3,
    as_json: Json = False,
    min_probability: Annotated[
        float | None,
        number("min_probability", "Answer only where the likeliest period is as likely as that"),
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
    classifier = call(load)
    if save:
        place = out if is_address(out) else Path(out).absolute()  # workers have another folder
        load = partial(artclf.load, place, backend=backend.value)
        with workers_of(engine, address, None, on_gpus=backend == Backend.torch) as map_jobs:
            summary = call(batch.save, classifier, images, save, min_probability, map_jobs, load)
        if summary["errors"] == summary["pictures"]:
            raise InputError(f"no picture could be read: the column error of {save} says why")
        print_summary(summary, as_json)
        return
    pictures = batch.pictures_in(images)
    found = call(classifier.predict, pictures, k, min_probability=min_probability)
    if (found.error != "").all():
        raise InputError(f"no picture found: {'; '.join(found.error) or 'empty folders'}")
    print_summary(found, as_json)


@app.command()
def similar(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders or URLs of pictures.")],
    out: Out = EXPORT,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data set, for titles, painters, sources.")
    ] = None,
    k: Annotated[int, number("k", "Pictures to name, the most similar first")] = 10,
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
    classifier = call(artclf.load, out, backend=backend.value)
    wanted = {"period": period, "painter": painter, "years": years}
    options: dict[str, Any] = {"by": by, "among": among, "index": index}
    found = call(neighbours.similar, classifier, out, images, data, k, **wanted, **options)
    if (found.error != "").all():
        raise InputError(f"no picture found: {'; '.join(found.error) or 'empty folders'}")
    print_summary(found, as_json)


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
    port: Annotated[int, number("port", "0 takes any free one")] = 8000,
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
        number(
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
        int | None, number("suggestions", "Given pictures that may wait for a decision")
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
    max_bytes: Annotated[int | None, number("max_bytes", "Bytes of a picture")] = None,
    max_pixels: Annotated[int | None, number("max_pixels", "Pixels of a picture")] = None,
    pictures: Annotated[int | None, number("pictures", "Pictures of a request")] = None,
    rate: Annotated[
        float | None, number("rate", "Pictures a second of one address, 0 for all")
    ] = None,
    queue: Annotated[int | None, number("queue", "Pictures under way at once")] = None,
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

    print_summary(call(hub.push, export, address, public, pickle, everything), as_json)
