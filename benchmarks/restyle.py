"""Style transfer beside the recipe it comes from, and beside simpler ways to give a picture a style.

    python benchmarks/restyle.py recipe DATA [--pictures 2] [--size 256] [--steps 60 100]
                                 [--iterations 500] [--starts content noise]
                                 [--out FOLDER]
    python benchmarks/restyle.py grid DATA EXPORT [--pictures 4] [--size 128] [--steps 30]
                                 [--likes PERIOD ...] [--weights 0.01 0.1 1] [--out FOLDER]

`recipe` paints pictures of the period --content in the style of single pictures of --like, by the
recipe of Gatys et al. 2016 and by ours, with VGG16 for both. The recipe is that of the paper's own
code (github.com/leongatys/PytorchNeuralStyleTransfer): the network scaled so that each channel has
a mean of 1, mean poolings, style from conv1_1, conv2_1, conv3_1, conv4_1, conv5_1 with weights
1000 / channels^2, content from conv4_2 with weight 1, L-BFGS for 500 evaluations from the content
or from noise. The paper takes VGG19. Prints for each result seconds, the loss of the recipe and
ours, both of the picture as it is saved, and the loss of the recipe as a share of the content's;
means over the pictures. Each loss is minimised as the recipe does it and as ours is, too.

`grid` paints pictures of --content like each period of --likes, by Gram matrices and by means and
standard deviations of the channels, with each style weight, and by colour transfer alone. Prints
what the measured classifier of EXPORT makes of them: means over the periods.

With --out, the pictures are written to FOLDER, and the plot and the table of `grid`.
"""

import argparse
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

import artclf
from artclf.lab import style_transfer
from artclf.model import transfer

STYLE_LAYERS = (0, 2, 4, 7, 10)  # conv1_1, conv2_1, ..., conv5_1, by their number
CONTENT_LAYER = 8  # conv4_2
EVALUATIONS = 20  # of L-BFGS before it is called again
CONTENT = "content as it is"
SQUARE = 128  # px, of the pictures by which the network is scaled


class Recipe:
    """The loss of Gatys et al. 2016 of pixels (1, 3, height, width) from 0 to 1."""

    def __init__(self, layers: list[nn.Module], mean, std, style):
        self.layers = layers
        self.mean = mean
        self.std = std
        with torch.no_grad():
            self.style = [self.gram(maps) for maps in self.of(style, STYLE_LAYERS)]

    def of(self, pixels: torch.Tensor, wanted) -> list[torch.Tensor]:
        """The maps after the ReLU of the wanted convolutions."""
        x = (pixels - self.mean) / self.std
        found = []
        number = -1
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.Conv2d):
                number += 1
            elif isinstance(layer, nn.ReLU) and number in wanted:
                found.append(x)
                if len(found) == len(wanted):
                    break
        return found

    @staticmethod
    def gram(maps: torch.Tensor) -> torch.Tensor:
        flat = maps.view(maps.shape[1], -1)
        return flat @ flat.T / flat.shape[1]

    def at(self, target: torch.Tensor):
        """The function from pixels to the losses by name, for the pixels of a content."""
        with torch.no_grad():
            [content] = self.of(target, [CONTENT_LAYER])
        places = sorted([*STYLE_LAYERS, CONTENT_LAYER])

        def losses(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
            found = dict(zip(places, self.of(pixels, places), strict=True))
            style = 0.0
            for number, wanted in zip(STYLE_LAYERS, self.style, strict=True):
                weight = 1e3 / len(wanted) ** 2
                style += weight * functional.mse_loss(self.gram(found[number]), wanted)
            of_content = functional.mse_loss(found[CONTENT_LAYER], content)
            return {"content": of_content, "style": style, "total": of_content + style}

        return losses


@torch.no_grad()
def scaled_layers(stages: transfer.Stages, pictures) -> list[nn.Module]:
    """The layers of VGG16 with mean poolings, scaled so that each channel has a mean of 1 over
    pictures; what it answers stays the same but for these factors (Gatys et al. 2016, section 2).
    """
    layers = []
    squares = [picture.resize((SQUARE, SQUARE)) for picture in pictures]
    x = torch.cat([transfer.pixels_of(square, SQUARE) for square in squares])
    x = (x - stages.mean) / stages.std
    before = None
    for layer in (layer for stage in stages.stages for layer in stage):
        if isinstance(layer, nn.MaxPool2d):
            layers.append(nn.AvgPool2d(2))
        elif isinstance(layer, nn.ReLU):
            layers.append(nn.ReLU())
        else:
            layers.append(deepcopy(layer))
            if before is not None:
                layers[-1].weight.mul_(before[:, None, None])
            before = layers[-1](x).relu().mean((0, 2, 3)).clamp(min=1e-6)
            layers[-1].weight.div_(before[:, None, None, None])
            layers[-1].bias.div_(before)
        x = layers[-1](x)
    return layers


def by_recipe(losses, target: torch.Tensor, mean, start: str, iterations: int) -> torch.Tensor:
    """The pixels after so many evaluations of L-BFGS, in the units of the paper's code: from 0 to
    255, less the mean.
    """
    torch.manual_seed(0)
    levels = torch.randn_like(target) if start == "noise" else 255 * (target - mean)
    levels.requires_grad_()
    opt = torch.optim.LBFGS([levels], max_iter=EVALUATIONS)
    done = 0

    def loss():
        nonlocal done
        done += 1
        opt.zero_grad()
        total = losses(levels / 255 + mean)["total"]
        total.backward()
        return total

    while done < iterations:
        opt.step(loss)
    return (levels / 255 + mean).detach()


def ways_to_paint(content, model, stages: transfer.Stages, reference: Recipe, args) -> dict:
    """Functions without arguments that give the pixels of a result, by name."""
    target = transfer.pixels_of(content, args.size)
    style = transfer.style_of([model], stages, args.size)

    def as_it_is():
        return target

    def ours(steps: int):
        painted, _ = transfer.restyle(content, style, stages, args.size, steps=steps)
        return transfer.pixels_of(painted, args.size)

    def recipes_loss_as_ours(steps: int):
        start = transfer.with_statistics_of(content, [model])
        return transfer.paint(content, reference.at, args.size, steps, start=start)

    def by_recipe_from(losses, start: str):
        return partial(by_recipe, losses, target, stages.mean, start, args.iterations)

    ways = {CONTENT: as_it_is}
    for steps in args.steps:
        ways[f"ours, {steps} steps"] = partial(ours, steps)
        ways[f"the recipe's loss as ours, {steps} steps"] = partial(recipes_loss_as_ours, steps)
    for start in args.starts:
        ways[f"the recipe from {start}"] = by_recipe_from(reference.at(target), start)
    our_loss = transfer.Objective(stages, style, target)
    ways["our loss as the recipe"] = by_recipe_from(our_loss, "content")
    return ways


def recipe(args):
    stages = transfer.Stages(transfer.ARCH)
    contents = style_transfer.opened(
        style_transfer.files_like(args.data, args.content, args.pictures, args.seed)
    )
    models = style_transfer.opened(style_transfer.files_like(args.data, args.like, seed=args.seed))
    layers = scaled_layers(stages, models)
    rows = []
    for number, (content, model) in enumerate(zip(contents, models, strict=False)):
        model_pixels = transfer.pixels_of(model, args.size)
        reference = Recipe(layers, stages.mean, stages.std, model_pixels)
        target = transfer.pixels_of(content, args.size)
        style = transfer.style_of([model], stages, args.size)
        losses = {"recipe": reference.at(target), "ours": transfer.Objective(stages, style, target)}
        ways = ways_to_paint(content, model, stages, reference, args)
        for name, paint in ways.items():
            started = time.perf_counter()
            pixels = paint()
            row = {"way": name, "seconds": time.perf_counter() - started}
            with torch.no_grad():
                saved = pixels.clamp(0, 1)
                for whose, losses_of in losses.items():
                    for key, value in losses_of(saved).items():
                        row[f"{whose}: {key}"] = float(value)
            rows.append(row)
            print(row, flush=True)
            if args.out:
                file = args.out / f"{number}-{name.replace(' ', '-')}.png"
                transfer.picture_of(pixels).save(file)
    table = pd.DataFrame(rows).groupby("way", sort=False).mean()
    total = table["recipe: total"]
    table["share of the content's"] = total / total[CONTENT]
    print(table.to_string(float_format="{:.4g}".format))


def grid(args):
    stages = style_transfer.stages(args.arch)
    classifier = artclf.load(args.export, measured=True)
    contents = style_transfer.opened(
        style_transfer.files_like(args.data, args.content, args.pictures, args.seed)
    )
    tables = []
    for like in args.likes:
        models = style_transfer.opened(style_transfer.files_like(args.data, like, seed=args.seed))
        painted = style_transfer.grid(
            contents, models, stages, args.weights, size=args.size, steps=args.steps
        )
        table = style_transfer.measure(classifier, contents, painted, like)
        print(f"{like}\n{table.round(3).to_string()}", flush=True)
        tables.append(table)
        if args.out:
            figure = style_transfer.plot_rows({"content": contents, **painted})
            figure.savefig(args.out / f"{like}.png", dpi=120)
    mean = pd.concat(tables).groupby(level=0, sort=False).mean()
    print(f"mean of {len(tables)} periods\n{mean.round(3).to_string()}")
    if args.out:
        mean.to_csv(args.out / "grid.csv")
        style_transfer.plot_trade_off(mean).savefig(args.out / "grid.png", dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for function in (recipe, grid):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        command.add_argument("data", type=Path)
        command.add_argument("--content", default="09-realism")
        command.add_argument("--seed", type=int, default=1)
        command.add_argument("--out", type=Path)
        if function is recipe:
            command.add_argument("--like", default="10-impressionism")
            command.add_argument("--pictures", type=int, default=2)
            command.add_argument("--size", type=int, default=256)
            command.add_argument("--steps", type=int, nargs="+", default=[60, 100])
            command.add_argument("--iterations", type=int, default=500)
            command.add_argument(
                "--starts", nargs="+", choices=("content", "noise"), default=["content"]
            )
        else:
            command.add_argument("export", type=Path)
            command.add_argument("--likes", nargs="+", default=["10-impressionism"])
            command.add_argument("--arch", default="auto")
            command.add_argument("--pictures", type=int, default=4)
            command.add_argument("--size", type=int, default=128)
            command.add_argument("--steps", type=int, default=30)
            command.add_argument("--weights", type=float, nargs="+", default=[0.01, 0.1, 1])
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 250, "display.max_columns", None)
    args.function(args)


if __name__ == "__main__":
    main()
