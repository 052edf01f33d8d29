"""Commands that train a network, measure the recipe, and list the runs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from artclf.commands.calls import call, print_summary, use_cache, workers_of
from artclf.commands.options import (
    DATA,
    EXPORT,
    Address,
    App,
    Cache,
    DataOrPack,
    Engine,
    EngineName,
    Exclude,
    Json,
    Out,
    Precision,
    Resize,
    Seed,
    Split,
    number,
    parse_parts,
)
from artclf.results.recipe import DEFAULTS

app = App()


@app.command()
def train(
    data: DataOrPack = str(DATA),
    out: Out = EXPORT,
    arch: Annotated[
        str, typer.Option(help="auto, or a name of torchvision or timm; a+b takes both together.")
    ] = DEFAULTS.arch,
    epochs: Annotated[int, number("epochs", "Epochs of the head alone")] = DEFAULTS.epochs,
    unfrozen_epochs: Annotated[
        int, number("unfrozen_epochs", "Epochs of the upper blocks, too")
    ] = DEFAULTS.unfrozen_epochs,
    lr: Annotated[float, number("lr", "Highest learning rate of the head")] = DEFAULTS.lr,
    size: Annotated[int, number("size", "Sides of the pictures in px")] = DEFAULTS.size,
    resize: Resize = Resize(DEFAULTS.resize),
    batch_size: Annotated[int, number("batch_size", "Pictures in a batch")] = DEFAULTS.batch_size,
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
    dropout: Annotated[float, number("dropout", "Dropout of the head")] = DEFAULTS.dropout,
    ridge: Annotated[
        float, number("ridge", "L2 penalty on the weights of the head")
    ] = DEFAULTS.ridge,
    unfreeze_from: Annotated[
        int, number("unfreeze_from", "First block to unfreeze, 0 for all")
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
        number(
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
        number(
            "seeds",
            "Train so many times, from SEED, SEED + 1..., each into a folder of its own in OUT, "
            "and print mean and spread",
        ),
    ] = 1,
    engine: Engine = EngineName.local,
    address: Address = None,
    processes: Annotated[
        int | None,
        number(
            "processes",
            "End unless torchrun or accelerate started so many processes, which then learn together",
        ),
    ] = None,
    as_json: Json = False,
):
    """Train the head alone, then the upper blocks of the body, too, and export."""
    shares = parse_parts(parts)
    use_cache(cache)
    from artclf import predict
    from artclf.model import ranks
    from artclf.train import fit, repeat

    step = fit if seeds == 1 else partial(repeat, seeds=seeds)
    with ranks.connected(processes):
        if ranks.are_several() and engine != EngineName.local:
            raise typer.BadParameter(
                "several processes share out the features themselves", param_hint="--engine"
            )
        with workers_of(engine, address, data, on_gpus=True) as map_jobs:
            result = call(
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
        print_summary(predict.headline(out) if seeds == 1 else result, as_json)


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
    size: Annotated[int, number("size", "Sides of the pictures in px")] = DEFAULTS.size,
    cache: Cache = None,
    as_json: Json = False,
):
    """Measure the recipe on painters and sources that it never saw."""
    use_cache(cache)
    from artclf.data.levels import level_sources
    from artclf.lab import protocols

    if levelled:
        call(level_sources, data, levelled)
    figures, believed = call(protocols.measure, data, levelled, arch, size)
    if as_json:
        print_summary(
            {"figures": figures.to_dict("index"), "believed": believed.to_dict("index")}, True
        )
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
        print_summary(table, True)
    else:
        print(runs.text(table))
