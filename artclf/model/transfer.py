"""Style transfer: a picture painted anew in the style of others, by optimising its pixels.

Gatys, Ecker and Bethge 2016 (Image Style Transfer Using Convolutional Neural Networks): the Gram
matrices of a pretrained network's maps hold the style, its deeper maps the content. Reads nothing
and writes nothing. Notebook: `experiments/16_style_transfer`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from fastai.torch_core import default_device
from PIL import Image
from torch import nn
from torch.nn import functional

from artclf.base import settings
from artclf.base.errors import InputError, StepError
from artclf.model import backbones, network

ARCH = "vgg16"
SIZE = 256  # px, the longer side of what is painted
SMALLEST = 32  # px
STYLE_SIZE = 256  # px, the longer side of the pictures whose style is taken
OPTIMIZERS = ("lbfgs", "adam")
ADAM_RATE = 0.02
TINY = 1e-12


@dataclass(frozen=True)
class Style:
    """A style: the Gram matrix (channels, channels) of each stage, divided by the number of places,
    a mean over `pictures` pictures.
    """

    grams: tuple[torch.Tensor, ...]
    pictures: int = 1


class Stages(nn.Module):
    """A frozen pretrained network as maps: from pixels (images, 3, height, width), values from 0 to
    1, to a list of maps, one for each stage, taken before the pooling that ends it.

    Poolings take the mean instead of the maximum, which gives smoother pictures (Gatys et al. 2016,
    section 2). Raises ConnectionError without weights, InputError for a network that has no stages
    of maps.
    """

    def __init__(self, arch: str = ARCH):
        super().__init__()
        backbone = backbones.find(arch)
        body = network.new_body(backbone, size=SIZE)
        is_convolutional = len(body.stages) > 1 and all(
            layout.kind == "maps" for layout in getattr(body, "layouts", [])
        )
        if not is_convolutional or len(backbones.each(backbone)) > 1:
            raise InputError(f"{arch} has no stages of maps: take a convolutional network")
        self.stages = nn.ModuleList(body.stages).eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        self.to(default_device())

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        x = (pixels - self.mean) / self.std
        found = []
        for stage in self.stages:
            x, maps = _through(stage, x)
            found.append(maps)
        return found


def _through(stage: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a stage passes on, and its maps before the pooling that ends it, if one does."""
    layers = list(stage.children()) if isinstance(stage, nn.Sequential) else []
    if not layers or not isinstance(layers[-1], nn.MaxPool2d | nn.AvgPool2d):
        x = stage(x)
        return x, x
    for layer in layers[:-1]:
        x = layer(x)
    pooling = layers[-1]
    return functional.avg_pool2d(x, pooling.kernel_size, pooling.stride, pooling.padding), x


def gram(maps: torch.Tensor) -> torch.Tensor:
    """The Gram matrix of the maps of one picture, (1, channels, height, width), divided by the
    number of places: (channels, channels).
    """
    places = maps[0].flatten(1)
    return places @ places.T / places.shape[1]


@torch.no_grad()
def style_of(pictures: Iterable, stages: Stages, size: int = STYLE_SIZE) -> Style:
    """The mean `Style` of pictures (PIL images), each shrunk to `size` px along its longer side.

    Raises InputError where there are none.
    """
    sums: list[torch.Tensor] = []
    count = 0
    for picture in pictures:
        grams = [gram(maps) for maps in stages(pixels_of(picture, size))]
        sums = [total + new for total, new in zip(sums, grams, strict=True)] if sums else grams
        count += 1
    if not count:
        raise InputError("no picture to take a style from: name one, or a period that has some")
    return Style(tuple(total / count for total in sums), count)


def mixed(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """A `Style` between several: their mean, weighted by `weights`.

    Raises InputError for weights that are not as many, negative, or all 0.
    """
    if len(styles) != len(weights) or min(weights) < 0 or not sum(weights):
        raise InputError(f"{len(styles)} styles need as many weights, none below 0: got {weights}")
    shares = [weight / sum(weights) for weight in weights]
    grams = []
    for of_stage in zip(*(style.grams for style in styles), strict=True):
        grams.append(sum(share * one for share, one in zip(shares, of_stage, strict=True)))
    return Style(tuple(grams), sum(style.pictures for style in styles))


def pixels_of(picture: Image.Image, size: int) -> torch.Tensor:
    """A picture as pixels (1, 3, height, width) from 0 to 1, its longer side `size` px, no side
    below `SMALLEST`.
    """
    scale = size / max(picture.size)
    width, height = (max(SMALLEST, round(side * scale)) for side in picture.size)
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    array = np.asarray(resized, dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous().to(default_device())


def picture_of(pixels: torch.Tensor) -> Image.Image:
    """Pixels (1, 3, height, width) as a picture; values outside 0 to 1 are clipped."""
    array = pixels.detach()[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.cpu().numpy())


# The losses


def style_loss(maps: Sequence[torch.Tensor], style: Style) -> torch.Tensor:
    """How far the Gram matrices of `maps` are from those of `style`: the mean over the stages of the
    squared distance as a share of the squared length of the wanted one.

    Gatys et al. 2016, equations 4 and 5, divide by the sizes of the maps instead, for a network
    whose maps all have a mean of 1; torchvision's have not.
    """
    losses = []
    for of_stage, wanted in zip(maps, style.grams, strict=True):
        distance = (gram(of_stage) - wanted).square().sum()
        losses.append(distance / (wanted.square().sum() + TINY))
    return torch.stack(losses).mean()


def content_loss(maps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far `maps` are from those of the content, as a share of their square (Gatys et al. 2016,
    equation 1, made independent of the network and the size).
    """
    return (maps - wanted).square().mean() / (wanted.square().mean() + TINY)


def total_variation(pixels: torch.Tensor) -> torch.Tensor:
    """The mean square of the differences between neighbouring pixels."""
    down = (pixels[:, :, 1:] - pixels[:, :, :-1]).square().mean()
    right = (pixels[..., 1:] - pixels[..., :-1]).square().mean()
    return down + right


# Painting


def restyle(
    content: Image.Image,
    style: Style,
    stages: Stages,
    size: int = SIZE,
    style_weight: float = 30.0,
    variation_weight: float = 1.0,
    steps: int = 60,
    optimizer: str = "lbfgs",
    content_stage: int = 3,
    levels: int = 2,
    keep_colours: bool = False,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> tuple[Image.Image, dict[str, float]]:
    """`content` painted in `style`, its longer side `size` px, and the losses of the result.

    Minimises `content` + `style_weight` * `style` + `variation_weight` * `variation` by the pixels,
    from those of the content: the losses of `content_loss` after stage `content_stage`,
    `style_loss` and `total_variation`. It begins at a size that is halved `levels` - 1 times, and
    doubles it, with `steps` steps at each. `optimizer` is one of `OPTIMIZERS`. With `keep_colours`,
    the result has the colours of the content and only the lightness that was painted (Gatys et al.
    2017). `on_step` gets the number of each step and the pixels (1, 3, height, width) then. The
    losses are `style`, `content`, `variation`, `total`, before colours are put back and values are
    clipped. Raises SettingError for a number out of its range, StepError where the loss becomes
    NaN.
    """
    settings.check(canvas_size=size, style_weight=style_weight, steps=steps)
    settings.check_choice("optimizer", optimizer, OPTIMIZERS)
    settings.check_choice("content_stage", content_stage, range(len(stages.stages)))
    pixels = None
    done = 0
    for level in reversed(range(levels)):
        target = pixels_of(content, max(SMALLEST, size // 2**level))
        start = target if pixels is None else _resized(pixels, target)
        objective = _Objective(stages, style, target, content_stage, style_weight, variation_weight)
        pixels = _minimise(objective, start, steps, optimizer, done, on_step)
        done += steps
    result = picture_of(pixels)
    if keep_colours:
        result = with_colours_of(result, content)
    with torch.no_grad():
        losses = {name: float(value) for name, value in objective(pixels).items()}
    return result, losses


class _Objective:
    """The losses of pixels, by name."""

    def __init__(self, stages, style, target, content_stage, style_weight, variation_weight):
        self.stages = stages
        self.style = style
        self.content_stage = content_stage
        self.style_weight = style_weight
        self.variation_weight = variation_weight
        with torch.no_grad():
            self.wanted = stages(target)[content_stage]

    def __call__(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.stages(pixels)
        content = content_loss(maps[self.content_stage], self.wanted)
        style = style_loss(maps, self.style)
        variation = total_variation(pixels)
        total = content + self.style_weight * style + self.variation_weight * variation
        return {"content": content, "style": style, "variation": variation, "total": total}


def _minimise(objective: _Objective, start, steps: int, optimizer: str, done: int, on_step):
    """The pixels after `steps` steps from `start`."""
    pixels = start.clone(memory_format=torch.contiguous_format).requires_grad_()
    if optimizer == "adam":
        opt: torch.optim.Optimizer = torch.optim.Adam([pixels], ADAM_RATE)
    else:
        opt = torch.optim.LBFGS([pixels], max_iter=1, history_size=20, line_search_fn=None)

    def loss():
        opt.zero_grad()
        total = objective(pixels)["total"]
        if not torch.isfinite(total):
            raise StepError("the loss of the picture is not finite: take a lower style weight")
        total.backward()
        return total

    for step in range(steps):
        opt.step(loss)
        if on_step is not None:
            on_step(done + step + 1, pixels.detach())
    return pixels.detach()


def _resized(pixels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(pixels, like.shape[2:], mode="bicubic", antialias=True)


def with_colours_of(picture: Image.Image, other: Image.Image) -> Image.Image:
    """The lightness of `picture` with the colours of `other`, at the size of `picture`."""
    lightness = picture.convert("YCbCr").getchannel("Y")
    colours = other.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC)
    _, blue, red = colours.convert("YCbCr").split()
    return Image.merge("YCbCr", (lightness, blue, red)).convert("RGB")


# What it is compared with


def with_statistics_of(picture: Image.Image, others: Sequence[Image.Image]) -> Image.Image:
    """`picture` with the mean and covariance of the colours of `others`: colour transfer alone
    (Reinhard et al. 2001, with the covariance as Gatys et al. 2017 do it).
    """
    colours = np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3) / 255
    wanted = np.concatenate(
        [np.asarray(one.convert("RGB"), dtype=float).reshape(-1, 3) / 255 for one in others]
    )
    moved = (colours - colours.mean(0)) @ _root(colours, -0.5) @ _root(wanted, 0.5) + wanted.mean(0)
    array = (moved.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array.reshape(*picture.size[::-1], 3))


def _root(colours: np.ndarray, power: float) -> np.ndarray:
    """The covariance of colours to a `power`."""
    values, vectors = np.linalg.eigh(np.cov(colours.T) + 1e-6 * np.eye(3))
    return vectors * values**power @ vectors.T
