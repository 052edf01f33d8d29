"""All plots of the pipeline: each function returns its Figure, and draws into `ax` if that is
given.

Reads the predictions (`evaluation.read`) and the pictures in `DATA`; no window opens. Shown in
`04_interpret`.
"""

from pathlib import Path

import numpy as np

from artclf.base.files import read_json
from artclf.data.pictures import thumbnail
from artclf.results import calibration, evaluation

# of Okabe and Ito, which colour-blind people can tell apart
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"]
PICTURES_A_ROW = 4
LONGEST_NAME = 28


def plot_confusion(predictions, part="test", rates=False, ax=None):
    """The confusion matrix as a Figure: counts, or percent of each row; the colour is the share of
    the row.
    """
    matrix = evaluation.confusion(predictions, part)
    n = len(matrix)
    shares = matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    ax = ax or axes_of_size(3 + max(0.4 * n, 2), 2.5 + max(0.4 * n, 2))
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_short(name) for name in matrix]
    ax.set_xticks(
        range(n), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False
    )
    ax.set_yticks(range(n), names, parse_math=False)
    ax.set(
        xlabel="predicted",
        ylabel="given",
        title=f"{part}: {'percent of the given period' if rates else 'number of images'}",
    )
    for row, column in zip(*matrix.to_numpy().nonzero(), strict=True):
        share = shares[row, column]
        ax.text(
            column,
            row,
            f"{100 * share:.0f}" if rates else matrix.iat[row, column],
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share > 0.65 else "black",
        )
    return ax.figure


def plot_per_class(predictions, ax=None):
    """F1 of every class in train and test as a Figure of bars, in time order from above."""
    table = evaluation.per_class(predictions)
    place = np.arange(len(table))
    ax = ax or axes_of_size(6, 1.2 + 0.34 * len(table))
    for part, shift, colour in (("train", -0.2, COLOURS[1]), ("test", 0.2, COLOURS[0])):
        ax.barh(place + shift, table[f"f1_{part}"].fillna(0), 0.38, color=colour, label=part)
    names = [f"{_short(name)} ({count})" for name, count in table.support_test.items()]
    ax.set_yticks(place, names, parse_math=False)
    ax.set(
        xlim=(0, 1),
        ylim=(len(table) - 0.5, -0.5),
        xlabel="F1",
        title="F1 of each period (images in test)",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure


def plot_distance(predictions, part="test", ax=None):
    """Over how many periods the errors of a part reach, beside random errors (`distances`), as a
    Figure of bars.
    """
    table = evaluation.distances(predictions, part)
    ax = ax or axes_of_size(7, 3.5)
    for name, shift, colour in (("errors", -0.2, COLOURS[0]), ("chance", 0.2, "#999999")):
        total = max(table[name].sum(), 1)
        mean = (table[name] * table.index).sum() / total
        ax.bar(
            table.index + shift,
            table[name] / total,
            0.4,
            color=colour,
            label=f"{name} (mean {mean:.1f})",
        )
    ax.set(
        xlim=(0.4, max(table.index.max(), 1) + 0.6),
        xlabel="periods between the given and the predicted one",
        ylabel="share of the errors",
        title=f"{part}: how far in time the errors lie",
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return ax.figure


def plot_reliability(predictions, part="test", temperature=1.0, ax=None):
    """The accuracy of answers over their probability, by `calibration.bins`, as a Figure: those of
    a calibrated classifier are on the diagonal.

    `temperature` is the one that is in the predictions: where it isn't 1, the same without it
    stands beside them. The area of a dot is the number of images.
    """
    rows = evaluation.of_part(predictions, part)
    ax = ax or axes_of_size(4.6, 4.3)
    ax.plot([0, 1], [0, 1], "--", color="#999999", linewidth=1)
    curves = [("as answered", rows, COLOURS[0])]
    if temperature != 1:
        before = calibration.untempered(rows, temperature)
        curves.insert(0, ("before", before, "#777777"))
    for name, table, colour in curves:
        bins = calibration.bins(table).dropna()
        label = f"{name} (calibration error {calibration.error(table):.3f})"
        ax.plot(
            bins.confidence,
            bins.accuracy,
            "-",
            color=colour,
            linewidth=1.2,
            marker="o",
            markersize=4,
            label=label,
        )
        area = 1500 * bins.images / len(rows)
        ax.scatter(bins.confidence, bins.accuracy, area, color=colour, alpha=0.35, linewidths=0)
    ax.set(
        xlim=(0, 1.04),
        ylim=(-0.04, 1.3),
        yticks=np.linspace(0, 1, 6),  # above 1 is room for the legend
        xlabel="probability of the answer",
        ylabel="share that is right",
        title=f"{part}: how far its probabilities can be trusted",
    )
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    return ax.figure


def plot_most_confused(predictions, data, n=5, part="test", ax=None):
    """The most confused pairs as a Figure, a row a pair, with the four pictures that the network
    was surest of.
    """
    tiles = {}
    for place, pair in enumerate(evaluation.most_confused(predictions, n, part).itertuples()):
        caption = f"{pair.given} taken for {pair.predicted}: {pair.count}, "
        caption += f"{pair.rate:.0%} of {pair.given}"
        images = evaluation.images_of_pair(predictions, pair, part).head(PICTURES_A_ROW)
        for column, file in enumerate(images.file):
            tiles[place, column] = Path(data) / file, caption if column == 0 else ""
    return _plot_tiles(tiles, ax)


def plot_top_losses(predictions, data, n=12, part="test", ax=None):
    """The images with the highest loss as a Figure, four in a row, given period → predicted one."""
    rows = list(evaluation.top_losses(predictions, n, part).itertuples())
    captions = [f"{row.period}\n→ {row.predicted}, {row.probability:.0%}" for row in rows]
    return plot_pictures([Path(data) / row.file for row in rows], captions, ax)


def plot_pictures(files, captions, ax=None):
    """Pictures as a Figure, four in a row, each under its caption; a grey tile for one that can't
    be read.
    """
    tiles = {}
    for place, tile in enumerate(zip(files, captions, strict=True)):
        tiles[divmod(place, PICTURES_A_ROW)] = tile
    return _plot_tiles(tiles, ax)


def _plot_tiles(tiles: dict, ax):
    """A Figure of pictures: `tiles` is `{(row, column): (file, caption)}`."""
    from PIL import Image

    rows = 1 + max((row for row, _ in tiles), default=0)
    ax = ax or axes_of_size(8, 2.3 * rows)
    for (row, column), (file, caption) in tiles.items():
        image = thumbnail(file, 300) or Image.new("RGB", (300, 300), "#bbbbbb")
        scale = 0.94 / max(image.size)
        width = scale * image.width
        height = scale * image.height
        top = 1.25 * row
        ax.imshow(image, extent=(column, column + width, top + height, top))
        ax.text(column, top - 0.03, caption, fontsize=7.5, va="bottom", parse_math=False)
    ax.set(xlim=(0, PICTURES_A_ROW), ylim=(1.25 * rows - 0.25, -0.27), aspect="equal")
    ax.axis("off")
    return ax.figure


def plot_history(history, columns, ax=None):
    """Columns of `EXPORT/history.csv` over the epochs as a Figure of curves."""
    ax = ax or axes_of_size(5, 3)
    epochs = np.arange(1, len(history) + 1)
    for name, colour in zip(columns, COLOURS, strict=False):
        ax.plot(epochs, history[name], ".-", color=colour, label=name.replace("_", " "))
    ax.set(xlabel="epoch", xticks=epochs[:: 1 + len(epochs) // 12])
    ax.legend(frameon=False)
    return ax.figure


def of_run(predictions, data, out, part="test", n=12) -> dict:
    """All plots by name, each a Figure; the curves are there where `out` holds `history.csv`."""
    import pandas as pd

    temperature = read_json(Path(out) / "config.json").get("temperature", 1.0)
    figures = {
        "confusion_counts": plot_confusion(predictions, part),
        "confusion_rates": plot_confusion(predictions, part, rates=True),
        "per_class": plot_per_class(predictions),
        "distance": plot_distance(predictions, part),
        "reliability": plot_reliability(predictions, part, temperature),
        "most_confused": plot_most_confused(predictions, data, part=part),
        "top_losses": plot_top_losses(predictions, data, n, part),
    }
    file = Path(out) / "history.csv"
    if file.exists():
        history = pd.read_csv(file).select_dtypes("number")
        for name, pattern in (("losses", "loss"), ("scores", "accuracy|error|f1")):
            columns = history.columns[history.columns.str.contains(pattern)]
            figures[name] = plot_history(history, columns)
    return figures


def axes_of_size(width, height):
    """The axes of a new Figure that no window shows and no notebook shows twice; its texts are
    legible in any script that a font on this machine has.
    """
    import matplotlib.pyplot as plt

    from artclf.results.fonts import LegibleFigure

    figure, ax = plt.subplots(
        figsize=(width, height), layout="constrained", FigureClass=LegibleFigure
    )
    plt.close(figure)
    return ax


def _short(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 1]}…"
