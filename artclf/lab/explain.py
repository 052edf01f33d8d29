"""What a classifier looks at: maps of what in a picture speaks for a period, or for one and against
another.

Reads an export and pictures. The methods are in `attribution`; `saliency` makes the maps of the
explorer; which maps to trust is measured in `sanity`. Needs captum (`pip install artclf[lab]`).
Notebook: `experiments/14_explain`.
"""

from collections.abc import Sequence

import numpy as np

from artclf.base.errors import InputError
from artclf.results import evaluation, plots


def chosen(out, data, n: int, part: str = "test", seed: int = 0):
    """`n` rows of `interpret.read` that the classifier got right, drawn by chance, period after
    period: a DataFrame.

    Raises ValueError where it got none right.
    """
    rows = evaluation.of_part(evaluation.read(out, data), part)
    rows = rows[rows.period == rows.predicted].sample(frac=1, random_state=seed)
    if rows.empty:
        raise InputError(f"no picture of part {part} is told right: there is nothing to look at")
    turn = rows.groupby("period").cumcount()
    return (
        rows.assign(turn=turn)
        .sort_values(["turn", "period"], kind="stable")
        .drop(columns="turn")
        .head(n)
    )


def rivals(predictions, part: str = "test"):
    """Two periods that are hard to tell apart, and the pictures of the first, those likest to the
    second first.

    It is the pair that is confused most often, as `(given, predicted)`; where nothing is confused,
    the period of the least sure picture and the one likeliest after it. Pictures of periods that
    the network doesn't know are left out. Raises ValueError where it knows one period alone, or no
    picture of `part` is of those it knows.
    """
    known = evaluation.scores(predictions)
    predictions = predictions[predictions.period.isin(known.columns)]
    rows, pairs = (
        evaluation.of_part(predictions, part),
        evaluation.most_confused(predictions, 1, part),
    )
    chances = evaluation.scores(rows)
    if len(known.columns) < 2:
        raise InputError("the network knows one period alone: there is none to hold it against")
    if pairs.empty:
        given = rows.period[unsure := rows.probability.idxmin()]
        other = chances.loc[unsure].drop(given).idxmax()
    else:
        given, other = pairs.loc[0, ["given", "predicted"]]
    order = (
        chances.loc[rows.period == given, other].sort_values(ascending=False, kind="stable").index
    )
    return (given, other), rows.loc[order]


def plot_maps(pictures: np.ndarray, maps: dict, captions: Sequence[str], ax=None):
    """Pictures beside their maps as a Figure: a row a picture, a column a method.

    `pictures` come from `Explainer.colours`, `maps` are `{title: (images, size, size)}`. On the
    grey picture, orange speaks for the target and purple against it; each map has its own scale, up
    to its 99.5th percentile.
    """
    wide, high = 1.06, 1.16
    ax = ax or plots.axes_of_size(1.75 * (1 + len(maps)), 0.7 + 1.9 * len(pictures))
    for row, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top = row * high
        ax.imshow(picture, extent=(0, 1, top + 1, top))
        ax.text(0, top - 0.03, caption, fontsize=7.5, va="bottom", parse_math=False)
        for column, values in enumerate((found[row] for found in maps.values()), 1):
            _overlay(ax, picture, values, (column * wide, column * wide + 1, top + 1, top))
    for column, title in enumerate(maps, 1):
        ax.text(
            column * wide + 0.5,
            -0.13,
            title,
            fontsize=8,
            ha="center",
            va="bottom",
            parse_math=False,
        )
    bottom = len(pictures) * high
    if maps:
        ax.text(wide, bottom - 0.12, "orange: for   purple: against", fontsize=7.5, va="top")
    ax.set(xlim=(0, wide * (1 + len(maps)) - 0.05), ylim=(bottom, -0.3), aspect="equal")
    ax.axis("off")
    return ax.figure


def _overlay(ax, picture: np.ndarray, values: np.ndarray, extent):
    """The map `values` over the grey picture, the more opaque the farther from 0."""
    grey, most = (
        picture @ np.array([0.299, 0.587, 0.114]),
        max(float(np.percentile(abs(values), 99.5)), 1e-12),
    )
    ax.imshow(0.35 + 0.6 * grey, cmap="gray", vmin=0, vmax=1, extent=extent)
    ax.imshow(
        values,
        cmap="PuOr_r",
        vmin=-most,
        vmax=most,
        alpha=0.9 * (abs(values) / most).clip(0, 1),
        extent=extent,
    )
