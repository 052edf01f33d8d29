"""Style transfer on a data set: pictures painted in the style of a period or painter, and what a
classifier that had no part in it makes of them.

Reads the catalogue and the clean images of DATA, and an export; writes what it is asked to. The
method is in `model.transfer`. Notebook: `experiments/16_style_transfer`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.files import replace_whole
from artclf.base.progress import progress_bar
from artclf.data.classes import in_order
from artclf.data.pictures import MAX_SIZE, Rejected, open_rgb
from artclf.data.splits import usable
from artclf.lab import drift
from artclf.model import transfer
from artclf.results import plots

AUTO = "auto"
WITHOUT_VGG = "efficientnet_lite0"
NUMBER = 20  # pictures of a period or painter, over which a style is a mean
KINDS = {"gram": "Gram matrices", "moments": "means and spreads"}
COLOURS = "colours alone"
FORMATS = (".jpg", ".jpeg", ".png", ".webp")


def stages(arch: str = AUTO, weights=None) -> transfer.Stages:
    """The `Stages` of a network; `auto` is VGG16, or EfficientNet-Lite0 where its weights can't be
    had, which a line then says.

    `weights` is a file of weights, for which `auto` is VGG16. Raises what `transfer.Stages` does.
    """
    if weights is not None:
        return transfer.Stages(transfer.ARCH if arch == AUTO else arch, weights)
    if arch != AUTO:
        return transfer.Stages(arch)
    try:
        return transfer.Stages(transfer.ARCH)
    except ConnectionError:
        print("No weights of VGG16 here: taking EfficientNet-Lite0, which paints less finely.")
        return transfer.Stages(WITHOUT_VGG)


def files_like(data, like: str, number: int = NUMBER, seed: int = 0) -> list[Path]:
    """The picture at the path `like`, or at most `number` random ones of the period or painter
    `like` in `data`.

    Raises InputError where it is neither.
    """
    if Path(like).is_file():
        return [Path(like)]
    rows = usable(data)
    painters = drift.painters(rows.artist.astype(object).fillna(""))
    found = rows[(rows.period == like) | (painters.str.casefold() == like.casefold())]
    if found.empty:
        raise InputError(
            f"{like} is no picture, and no period or painter in {data}: its periods are "
            f"{', '.join(in_order(rows.period.unique()))}"
        )
    chosen = found.sample(min(number, len(found)), random_state=seed)
    return [Path(data) / file for file in chosen.file]


def opened(files: Sequence[Path]) -> list[Image.Image]:
    """The pictures in files, upright and RGB, of at most `MAX_SIZE` px.

    Raises InputError, which names the file, for one that can't be read.
    """
    pictures = []
    for file in files:
        try:
            pictures.append(open_rgb(file, MAX_SIZE))
        except Rejected as error:
            raise InputError(f"can't read {file} ({error}): take another picture") from error
    return pictures


def restyle_file(
    image,
    like: Sequence[str],
    data,
    file,
    arch: str = AUTO,
    weights=None,
    mix: Sequence[float] | None = None,
    every: int = 0,
    **options,
) -> dict[str, float]:
    """Paint the picture `image` in the style of each of `like` (see `files_like`), mixed by the
    weights `mix` (by default equal ones), write it to `file`, and return the losses of
    `transfer.restyle`, which takes `options`.

    `arch` and `weights` are those of `stages`. With `every`, the picture after so many steps, and
    each time so many more, is written beside `file` as `<name>-step-<number>`, before colours are
    put back. Raises InputError
    where a file is there already, its name is that of no picture, or there are not as many weights
    as styles.
    """
    file = Path(file)
    if file.suffix.lower() not in FORMATS:
        raise InputError(f"{file} is no name of a picture: it must end in {', '.join(FORMATS)}")
    settings.check(every=every)
    steps = options.get("steps", transfer.STEPS)
    sizes = transfer.sizes(
        options.get("size", transfer.SIZE), options.get("levels", transfer.LEVELS)
    )
    total = steps * len(sizes)
    _check_new([file, *(_at_step(file, step) for step in _shown_steps(total, every))])
    [content] = opened([Path(image)])
    pictures = [opened(files_like(data, one)) for one in like]
    network = stages(arch, weights)
    styles = [transfer.style_of(of_one, network) for of_one in pictures]
    style = transfer.mixed(styles, mix or [1] * len(styles))
    with progress_bar(total=total, desc="painting") as bar:

        def on_step(step, pixels):
            bar.update()
            if step in _shown_steps(total, every):
                _save(transfer.picture_of(pixels), _at_step(file, step))

        painted, losses = transfer.restyle(content, style, network, on_step=on_step, **options)
    _save(painted, file)
    return losses


def name_of(like: str) -> str:
    """A picture, a period or a painter as a part of the name of a file."""
    return Path(like).stem if Path(like).is_file() else like.replace("/", "-")


def _shown_steps(total: int, every: int) -> range:
    """The steps after which an intermediate picture is written; the last is the result."""
    return range(every, total, every) if every else range(0)


def _at_step(file: Path, step: int) -> Path:
    return file.with_name(f"{file.stem}-step-{step}{file.suffix}")


def _check_new(files: Sequence[Path]):
    for file in files:
        if file.exists():
            raise InputError(f"{file} is there already: name another file with --out")


def _save(picture: Image.Image, file: Path):
    replace_whole(file, lambda part: picture.save(part, _format_of(file)))


def _format_of(file: Path) -> str:
    return Image.registered_extensions()[file.suffix.lower()]


# What it does


def restyle_in_steps(
    content: Image.Image, style: transfer.Style, network: transfer.Stages, shown: int = 3, **options
) -> tuple[list[Image.Image], dict[str, float]]:
    """`shown` pictures on the way, evenly over the steps, then the result; and its losses.

    `options` are those of `transfer.restyle`.
    """
    every_step = []

    def on_step(step, pixels):
        every_step.append(transfer.picture_of(pixels))

    painted, losses = transfer.restyle(content, style, network, on_step=on_step, **options)
    places = np.linspace(0, len(every_step) - 1, shown + 1).round().astype(int)[:-1]
    return [*(every_step[place] for place in places), painted], losses


def grid(
    contents: Sequence[Image.Image],
    models: Sequence[Image.Image],
    network: transfer.Stages,
    style_weights: Sequence[float],
    **options,
) -> dict[str, list[Image.Image]]:
    """`contents` in the style of `models`, by the name of the row: lists as long as `contents`.

    Rows `Gram matrices, 10` are painted with that style weight; so are rows `means and spreads,
    10`, by means and standard deviations of the channels, as AdaIN matches them (Huang and Belongie
    2017), with the same steps in the place of its trained decoder. The row `colours alone` is
    `transfer.with_statistics_of`. `options` are those of `transfer.restyle`.
    """
    painted = {}
    with progress_bar(total=len(KINDS) * len(style_weights), desc="style weights") as bar:
        for kind, words in KINDS.items():
            style = transfer.style_of(models, network, kind=kind)
            for weight in style_weights:
                painted[f"{words}, {weight:g}"] = [
                    transfer.restyle(content, style, network, style_weight=weight, **options)[0]
                    for content in contents
                ]
                bar.update()
    painted[COLOURS] = [transfer.with_statistics_of(content, models) for content in contents]
    return painted


def say_shared_body(classifier, network: transfer.Stages):
    """Print a line where the classifier sees by the network that painted, whose judgement is then
    not independent.
    """
    if network.arch in classifier.config["name"].split("+"):
        print(
            f"The classifier sees by {network.arch}, too, so it may take for the period what only this "
            "network takes for it."
        )


def measure(
    classifier, contents: Sequence[Image.Image], painted: dict[str, list], period: str
) -> pd.DataFrame:
    """What a classifier makes of pictures before and after: a row `content`, then one for each list
    in `painted`.

    `probability` is the mean probability of `period`, `share` that of the pictures that are called
    by it, `kept` the mean cosine between what the classifier's network sees in a picture and in its
    content: the means of its last maps, each less its mean over the contents. Raises InputError for
    a period that the classifier doesn't know.
    """
    if period not in classifier.vocab:
        raise InputError(f"{period} is no period of the classifier: {', '.join(classifier.vocab)}")
    place = classifier.vocab.index(period)
    last = getattr(classifier.model[0], "last_means", slice(None))  # several bodies have none
    rows = {}
    before = None
    for name, pictures in {"content": list(contents), **painted}.items():
        probabilities, features, _ = classifier.probabilities_and_features(pictures)
        seen = features[:, last]
        before = seen if before is None else before
        rows[name] = {
            "probability": probabilities[:, place].mean(),
            "share": (probabilities[:, : len(classifier.vocab)].argmax(1) == place).mean(),
            "kept": _cosines(seen - before.mean(0), before - before.mean(0)).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, 1e-9)


# Plots


def plot_rows(rows: dict[str, Sequence[Image.Image]], size: int = 200, ax=None):
    """Rows of pictures as a Figure, each row under its name."""
    columns = max(len(pictures) for pictures in rows.values())
    height_of_row = 1.15
    ax = ax or plots.axes_of_size(2 * columns, 2 * height_of_row * len(rows))
    for row, (name, pictures) in enumerate(rows.items()):
        top = height_of_row * row + 0.15
        ax.text(0, top - 0.03, name, fontsize=9, va="bottom", parse_math=False)
        for column, picture in enumerate(pictures):
            shown = picture.convert("RGB")
            shown.thumbnail((size, size))
            scale = 0.96 / max(shown.size)
            right = column + scale * shown.width
            ax.imshow(shown, extent=(column, right, top + scale * shown.height, top))
    ax.set(xlim=(0, columns), ylim=(height_of_row * len(rows), 0), aspect="equal")
    ax.axis("off")
    return ax.figure


def plot_trade_off(table: pd.DataFrame, ax=None):
    """The table of `measure` as a Figure: how much is kept against how probable the period is, a
    line for each kind of style, along its weights.
    """
    ax = ax or plots.axes_of_size(7, 4.5)
    kinds = pd.Series(table.index, table.index).str.split(", ").str[0]
    for kind, rows in table.groupby(kinds, sort=False):
        ax.plot(rows.kept, rows.probability, "o-", label=kind, linewidth=1)
        for name, row in rows.iterrows():
            ax.annotate(
                str(name).removeprefix(f"{kind}, "),
                (row.kept, row.probability),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
            )
    ax.set(xlabel="kept of the content (cosine)", ylabel="probability of the period")
    ax.legend(fontsize=8)
    ax.margins(0.2)
    ax.grid(alpha=0.3)
    return ax.figure
