"""What a classifier looks at: the choice of pictures, and maps of what in them speaks for a period,
or for one and against another.

Reads an export and pictures. The methods are in `model.attribution`, the explainer that applies
them in `model.explainer`; which maps to trust is measured in `sanity`. Needs captum (`pip install
artclf[lab]`). Notebook: `experiments/14_explain`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from artclf.base.errors import InputError
from artclf.results import evaluation, plots

GREY = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue look


def right_answers(out, data, n: int, part: str = "test", seed: int = 0) -> pd.DataFrame:
    """`n` rows of `evaluation.read` that the classifier got right, drawn by chance, period after
    period.

    Raises InputError where it got none right.
    """
    rows = evaluation.of_part(evaluation.read(out, data), part)
    rows = rows[rows.period == rows.predicted].sample(frac=1, random_state=seed)
    if rows.empty:
        raise InputError(f"no picture of part {part} has a right answer: there is nothing to show")
    rows["turn"] = rows.groupby("period").cumcount()
    rows = rows.sort_values(["turn", "period"], kind="stable")
    return rows.drop(columns="turn").head(n)


def rivals(predictions, part: str = "test") -> tuple[tuple[str, str], pd.DataFrame]:
    """Two periods that are hard to tell apart, and the pictures of the first, those most like the
    second first.

    It is the pair that is confused most often, as `(given, predicted)`; where nothing is confused,
    the period of the least sure picture and the one likeliest after it. Pictures of periods that
    the network doesn't know are left out. Raises InputError where it knows a single period, or
    where no picture of `part` has a period that it knows.
    """
    vocab = evaluation.scores(predictions).columns
    predictions = predictions[predictions.period.isin(vocab)]
    rows = evaluation.of_part(predictions, part)
    if len(vocab) < 2:
        raise InputError("the network knows a single period: there is none to compare it with")
    scores = evaluation.scores(rows)
    pairs = evaluation.most_confused(predictions, 1, part)
    if pairs.empty:
        least_sure = rows.probability.idxmin()
        given = rows.period[least_sure]
        other = scores.loc[least_sure].drop(given).idxmax()
    else:
        given, other = pairs.loc[0, ["given", "predicted"]]
    likeness = scores.loc[rows.period == given, other]
    order = likeness.sort_values(ascending=False, kind="stable").index
    return (given, other), rows.loc[order]


def plot_maps(pictures: np.ndarray, maps: dict, captions: Sequence[str], ax=None):
    """Pictures beside their maps as a Figure: a row a picture, a column a method.

    `pictures` come from `Explainer.colours`, `maps` are `{title: (images, size, size)}`. On the
    grey picture, orange speaks for the target and purple against it; each map has its own scale, up
    to its 99.5th percentile.
    """
    column_width, row_height = 1.06, 1.16  # a picture is 1 wide and 1 high
    ax = ax or plots.axes_of_size(1.75 * (1 + len(maps)), 0.7 + 1.9 * len(pictures))
    for row, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        top = row * row_height
        ax.imshow(picture, extent=(0, 1, top + 1, top))
        ax.text(0, top - 0.03, caption, fontsize=7.5, va="bottom", parse_math=False)
        for column, values in enumerate(maps.values(), 1):
            left = column * column_width
            _overlay(ax, picture, values[row], (left, left + 1, top + 1, top))
    for column, title in enumerate(maps, 1):
        middle = column * column_width + 0.5
        ax.text(middle, -0.13, title, fontsize=8, ha="center", va="bottom", parse_math=False)
    bottom = len(pictures) * row_height
    if maps:
        legend = "orange: for   purple: against"
        ax.text(column_width, bottom - 0.12, legend, fontsize=7.5, va="top")
    right = column_width * (1 + len(maps)) - 0.05
    ax.set(xlim=(0, right), ylim=(bottom, -0.3), aspect="equal")
    ax.axis("off")
    return ax.figure


def _overlay(ax, picture: np.ndarray, values: np.ndarray, extent: tuple):
    """Draw the map `values` over the grey picture, the more opaque the farther from 0."""
    brightness = picture @ GREY
    size = abs(values)
    highest = max(float(np.percentile(size, 99.5)), 1e-12)
    ax.imshow(0.35 + 0.6 * brightness, cmap="gray", vmin=0, vmax=1, extent=extent)
    ax.imshow(
        values,
        cmap="PuOr_r",
        vmin=-highest,
        vmax=highest,
        alpha=0.9 * (size / highest).clip(0, 1),
        extent=extent,
    )
