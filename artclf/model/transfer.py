"""Style transfer: a picture painted anew in the style of others, by optimising its pixels.

Gatys, Ecker and Bethge 2016 (Image Style Transfer Using Convolutional Neural Networks): the Gram
matrices of a pretrained network's maps hold the style, its deeper maps the content. Means and
standard deviations of the channels are a simpler style to compare with. Reads nothing and writes
nothing. Notebook: `experiments/16_style_transfer`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

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
STEPS = 60  # at each size
STYLE_WEIGHT = 3.0
VARIATION_WEIGHT = 1.0
CONTENT_STAGE = 3  # of VGG16 conv4_3
LEVELS = 2  # sizes from coarse to fine
OPTIMIZERS = ("lbfgs", "adam")
ADAM_RATE = 0.02
TINY = 1e-12


@dataclass(frozen=True)
class Style:
    """A style: a statistic of the maps of each stage, a mean over `pictures` pictures.

    `kind` is one of `STATISTICS`, `stages` the numbers of the stages. `colours` are the mean
    products of any two of (1, red, green, blue) over the pixels: (4, 4).
    """

    statistics: tuple[torch.Tensor, ...]
    colours: np.ndarray
    pictures: int = 1
    kind: str = "gram"
    stages: tuple[int, ...] = ()


class Stages(nn.Module):
    """A frozen pretrained network as maps: from pixels (images, 3, height, width), values from 0 to
    1, to a list of maps, one for each stage, taken before the pooling that ends it.

    Poolings take the mean instead of the maximum, which gives smoother pictures (Gatys et al. 2016,
    section 2). `weights` is a file of weights of `arch`, by default they are those that
    `backbones.find` gets. Raises ConnectionError without weights, InputError for a network that has
    no stages of maps.
    """

    def __init__(self, arch: str = ARCH, weights=None):
        super().__init__()
        backbone = backbones.find(arch, weights=weights)
        self.arch = backbone.name
        body = network.new_body(backbone, size=SIZE, weights=weights)
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


def moments(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel of the maps of one picture, (1, channels, height,
    width): (2, channels). AdaIN moves these two (Huang and Belongie 2017, Arbitrary Style Transfer
    in Real-time with Adaptive Instance Normalization).
    """
    places = maps[0].flatten(1)
    spread = (places.var(1, correction=0) + TINY).sqrt()  # the root has no gradient at 0
    return torch.stack([places.mean(1), spread])


STATISTICS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gram": gram, "moments": moments}


@torch.no_grad()
def style_of(
    pictures: Iterable,
    stages: Stages,
    size: int = STYLE_SIZE,
    kind: str = "gram",
    style_stages: Sequence[int] | None = None,
) -> Style:
    """The mean `Style` of pictures (PIL images), each resized to `size` px along its longer side.

    `kind` is one of `STATISTICS`; `style_stages` are the stages that it is taken from, by default
    all. Raises InputError where there are no pictures, SettingError for another kind or stage.
    """
    settings.check_choice("kind", kind, STATISTICS)
    numbers = range(len(stages.stages))
    chosen = tuple(numbers if style_stages is None else style_stages)
    if not chosen:
        raise InputError("a style needs at least one stage of the network")
    for stage in chosen:
        settings.check_choice("style_stages", stage, numbers)
    sums: list[torch.Tensor] = []
    colours = np.zeros((4, 4))
    count = 0
    for picture in pictures:
        pixels = pixels_of(picture, size)
        colours += _products(_colours_of(picture_of(pixels)))
        maps = stages(pixels)
        found = [STATISTICS[kind](maps[stage]) for stage in chosen]
        sums = [total + new for total, new in zip(sums, found, strict=True)] if sums else found
        count += 1
    if not count:
        raise InputError("no picture to take a style from: name one, or a period that has some")
    return Style(tuple(total / count for total in sums), colours / count, count, kind, chosen)


def mixed(styles: Sequence[Style], weights: Sequence[float]) -> Style:
    """A `Style` between several: their mean, weighted by `weights`.

    Raises InputError for weights that are not as many, negative, not finite, or all 0, and for
    styles of different kinds or stages.
    """
    are_right = len(styles) == len(weights) and all(0 <= weight < inf for weight in weights)
    if not are_right or not sum(weights):
        raise InputError(
            f"{len(styles)} styles need as many weights, none below 0 and not all 0: got "
            f"{', '.join(f'{weight:g}' for weight in weights)}"
        )
    first = styles[0]
    if any((style.kind, style.stages) != (first.kind, first.stages) for style in styles):
        raise InputError("these styles are of different kinds or stages: take them all alike")
    shares = [weight / sum(weights) for weight in weights]
    means = []
    for of_stage in zip(*(style.statistics for style in styles), strict=True):
        means.append(sum(share * one for share, one in zip(shares, of_stage, strict=True)))
    colours = np.average([style.colours for style in styles], axis=0, weights=shares)
    pictures = sum(style.pictures for style in styles)
    return Style(tuple(means), colours, pictures, first.kind, first.stages)


def pixels_of(picture: Image.Image, size: int) -> torch.Tensor:
    """A picture as pixels (1, 3, height, width) from 0 to 1, its longer side `size` px, no side
    below `SMALLEST`.
    """
    width, height = (max(SMALLEST, side) for side in _sides(picture, size))
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    array = np.asarray(resized, dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None].contiguous().to(default_device())


def _sides(picture: Image.Image, size: int) -> tuple[int, int]:
    """Width and height of a picture whose longer side becomes `size` px."""
    width, height = picture.size
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def picture_of(pixels: torch.Tensor) -> Image.Image:
    """Pixels (1, 3, height, width) as a picture; values outside 0 to 1 are clipped."""
    array = pixels.detach()[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    return Image.fromarray(array.cpu().numpy())


# The losses


def style_loss(maps: Sequence[torch.Tensor], style: Style) -> torch.Tensor:
    """How far the statistics of `maps`, those of all stages, are from those of `style`: the mean over
    its stages of the squared distance as a share of the squared length of the wanted one.

    Gatys et al. 2016, equations 4 and 5, divide by the sizes of the maps instead, for a network
    whose maps all have a mean of 1; torchvision's have not. With means and standard deviations it
    is the style loss of Huang and Belongie 2017, equation 13, made independent of the network.
    """
    losses = []
    for stage, wanted in zip(style.stages, style.statistics, strict=True):
        distance = (STATISTICS[style.kind](maps[stage]) - wanted).square().sum()
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
    style_weight: float = STYLE_WEIGHT,
    variation_weight: float = VARIATION_WEIGHT,
    steps: int = STEPS,
    optimizer: str = "lbfgs",
    content_stage: int = CONTENT_STAGE,
    levels: int = LEVELS,
    keep_colours: bool = False,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> tuple[Image.Image, dict[str, float]]:
    """`content` painted in `style`, its longer side `size` px, and the losses of the result.

    Minimises `content` + `style_weight` * `style` + `variation_weight` * `variation` by the pixels,
    from those of the content with the colours of the style, which few steps would not reach: the
    losses of `content_loss` after stage `content_stage`, `style_loss` and `total_variation`.
    For `steps`, `optimizer`, `levels` and `on_step` see `paint`. With `keep_colours`, the result
    begins with those of the content, has them in the end, too, and only its lightness was painted
    (Gatys et al. 2017, Controlling Perceptual Factors in Neural Style Transfer). The losses are `style`, `content`,
    `variation`, `total`, before colours are put back and values are clipped. A picture with a side
    below `SMALLEST` is painted at that and has its own proportions again in the end. Raises
    SettingError for a number out of its range, StepError where the loss is not finite.
    """
    settings.check(style_weight=style_weight, variation_weight=variation_weight)
    settings.check_choice("content_stage", content_stage, range(len(stages.stages)))

    def losses_at(target: torch.Tensor) -> Objective:
        return Objective(stages, style, target, style_weight, variation_weight, content_stage)

    mean = style.colours[0, 1:]
    covariance = style.colours[1:, 1:] - np.outer(mean, mean)
    start = content if keep_colours else _with_colours(content, mean, covariance)
    pixels = paint(content, losses_at, size, steps, optimizer, levels, on_step, start)
    result = picture_of(pixels).resize(_sides(content, size), Image.Resampling.BICUBIC)
    if keep_colours:
        result = with_colours_of(result, content)
    with torch.no_grad():
        losses = losses_at(pixels_of(content, size))(pixels)
    return result, {name: float(value) for name, value in losses.items()}


def paint(
    content: Image.Image,
    losses_at: Callable[[torch.Tensor], Callable[[torch.Tensor], dict[str, torch.Tensor]]],
    size: int = SIZE,
    steps: int = STEPS,
    optimizer: str = "lbfgs",
    levels: int = LEVELS,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    start: Image.Image | None = None,
) -> torch.Tensor:
    """The pixels (1, 3, height, width), the longer side `size` px, after those of `start` were
    changed step by step to lower the loss `total`; `start` has the proportions of `content`, and is
    it by default.

    `losses_at` gets the pixels of the content at a size, and gives the function from pixels of that
    size to the losses by name. Coarse to fine (Gatys et al. 2017): painting begins at a size that
    is halved `levels` - 1 times, and doubles it, with `steps` steps at each, but none twice at
    `SMALLEST`. `optimizer` is one of `OPTIMIZERS`: L-BFGS without a line search, as Gatys et al.
    use it, or Adam. `on_step` gets the number of each step and the pixels then. Raises SettingError
    for a number out of its range, StepError where the loss is not finite.
    """
    settings.check(canvas_size=size, steps=steps, levels=levels)
    settings.check_choice("optimizer", optimizer, OPTIMIZERS)
    first = start or content
    pixels = None
    done = 0
    for longer_side in sizes(size, levels):
        target = pixels_of(content, longer_side)
        begun = pixels_of(first, longer_side) if pixels is None else _resized(pixels, target)
        pixels = _minimise(losses_at(target), begun, steps, optimizer, done, on_step)
        done += steps
    assert pixels is not None  # there is at least one size
    return pixels


def sizes(size: int, levels: int) -> list[int]:
    """The sizes in px at which a picture of `size` px is painted, the smallest first."""
    return sorted({max(SMALLEST, size // 2**level) for level in range(levels)})


class Objective:
    """The losses of pixels (1, 3, height, width), by name, beside a content with the pixels
    `target`; for the arguments see `restyle`.
    """

    def __init__(
        self,
        stages: Stages,
        style: Style,
        target: torch.Tensor,
        style_weight: float = STYLE_WEIGHT,
        variation_weight: float = VARIATION_WEIGHT,
        content_stage: int = CONTENT_STAGE,
    ):
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


def _minimise(objective, start, steps: int, optimizer: str, done: int, on_step) -> torch.Tensor:
    """The pixels after `steps` steps from `start`. Raises StepError where the loss is not finite."""
    pixels = start.clone(memory_format=torch.contiguous_format).requires_grad_()
    if optimizer == "adam":
        opt: torch.optim.Optimizer = torch.optim.Adam([pixels], ADAM_RATE)
    else:
        opt = torch.optim.LBFGS([pixels], max_iter=1, history_size=20, tolerance_grad=0)

    def loss():
        opt.zero_grad()
        total = objective(pixels)["total"]
        total.backward()
        return total

    for step in range(steps):
        opt.step(loss)
        _check_finite(pixels)
        if on_step is not None:
            on_step(done + step + 1, pixels.detach())
    return pixels.detach()


def _check_finite(values: torch.Tensor):
    if not torch.isfinite(values).all():
        raise StepError(
            "the loss of the picture is not finite: take a lower style weight or the optimizer adam"
        )


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
    wanted = np.concatenate([_colours_of(one) for one in others])
    return _with_colours(picture, wanted.mean(0), np.cov(wanted.T, bias=True))


def _with_colours(picture: Image.Image, mean: np.ndarray, covariance: np.ndarray) -> Image.Image:
    """`picture` with the mean (3,) and covariance (3, 3) of its colours as given."""
    colours = _colours_of(picture)
    own = np.cov(colours.T, bias=True)
    moved = (colours - colours.mean(0)) @ _power(own, -0.5) @ _power(covariance, 0.5) + mean
    array = (moved.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(array.reshape(*picture.size[::-1], 3))


def _colours_of(picture: Image.Image) -> np.ndarray:
    """The colours of the pixels, from 0 to 1: (pixels, 3)."""
    return np.asarray(picture.convert("RGB"), dtype=float).reshape(-1, 3) / 255


def _products(colours: np.ndarray) -> np.ndarray:
    """The mean products of any two of (1, red, green, blue): (4, 4)."""
    with_one = np.insert(colours, 0, 1, axis=1)
    return with_one.T @ with_one / len(colours)


def _power(covariance: np.ndarray, power: float) -> np.ndarray:
    """A covariance (3, 3) to a `power`; that of a plain picture has no inverse but for a little."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * (values.clip(0) + 1e-6) ** power @ vectors.T
