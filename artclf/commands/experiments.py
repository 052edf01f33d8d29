"""Commands of the experiments in `artclf.lab`."""

from pathlib import Path
from typing import Annotated

import typer

from artclf.commands.calls import call, print_summary
from artclf.commands.options import (
    DATA,
    Activation,
    App,
    Data,
    Json,
    Optimizer,
    Out,
    Pooling,
    Seed,
    number,
    parse_numbers,
)

app = App()


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
    size: Annotated[int, number("size", "Sides in px")] = 28,
    neurons: Annotated[int, number("neurons", "Channels of the first convolution")] = 16,
    epochs: Annotated[int, number("epochs", "Epochs")] = 20,
    depth: Annotated[int, number("convolutions", "Convolutions, each with a pooling")] = 2,
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
    run = call(painters.fit, data or call(painters.drawn, "data/painters"), out, config)
    text, table = painters.write(run, out)
    if as_json:
        print_summary(table, True)
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
    size: Annotated[int, number("canvas_size", "Longer side of the result in px")] = 256,
    style_weight: Annotated[
        float, number("style_weight", "How much style counts against content")
    ] = 3.0,
    variation_weight: Annotated[
        float, number("variation_weight", "How smooth the result is")
    ] = 1.0,
    steps: Annotated[int, number("steps", "Steps at each size")] = 60,
    levels: Annotated[int, number("levels", "Sizes from coarse to fine")] = 2,
    optimizer: Annotated[
        Optimizer, typer.Option(help="What changes the pixels.")
    ] = Optimizer.lbfgs,
    keep_colours: Annotated[
        bool, typer.Option("--keep-colours", help="Keep the colours of IMAGE.")
    ] = False,
    every: Annotated[
        int, number("every", "Write the picture each time after so many steps, 0 for never")
    ] = 0,
    as_json: Json = False,
):
    """Paint a picture in the style of others, of a period or of a painter."""
    from artclf.lab import style_transfer

    names = "-".join(map(style_transfer.name_of, like))
    file = out or Path(f"{image.stem}-like-{names}.jpg")
    losses = call(
        style_transfer.restyle_file,
        image,
        like,
        data,
        file,
        arch,
        weights,
        parse_numbers(mix, "--mix") if mix else None,
        every,
        size=size,
        style_weight=style_weight,
        variation_weight=variation_weight,
        steps=steps,
        levels=levels,
        optimizer=optimizer,
        keep_colours=keep_colours,
    )
    print_summary({"file": str(file), **losses}, as_json)
