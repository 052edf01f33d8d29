"""Leaks and shortcuts: how much of a score they explain, measured by a light head on frozen
features, with them and without them.

Reads the catalogue and the clean images of DATA; writes `DATA/features.db`. Notebook:
`experiments/17_leaks`.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data.aliases import aliases_of
from artclf.data.catalogue import read_catalogue
from artclf.data.classes import UNLABELLED
from artclf.data.groups import joined
from artclf.data.names import artist_keys
from artclf.data.splits import group_columns, usable
from artclf.model import features
from artclf.model.folds import prediction_table
from artclf.results import plots
from artclf.results.significance import FIGURES, bootstrap, figures, summary, with_intervals

FREQUENT = "nothing: the most frequent period"
SIZES = "width, height and file size"
FEATURES = "features"
HEAD = make_pipeline(
    StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", tol=1e-3, max_iter=500)
)
TREES = HistGradientBoostingClassifier(
    max_iter=30, min_samples_leaf=5, class_weight="balanced", random_state=0
)


# The splits


def compare(
    data,
    splits: Sequence[str] = ("random", "grouped", "artist"),
    folds: int = 5,
    seeds: Sequence[int] = (1, 2, 3),
    with_duplicates: bool = False,
    resamples: int = 1000,
) -> pd.DataFrame:
    """What a head scores on the same images under several splits: a DataFrame, a row a split, then
    the differences.

    `accuracy`, `macro_f1` and `distance` (mean, in periods) are those of `evaluation.metrics` on
    the out-of-fold predictions of all `seeds` pooled; `*_low` and `*_high` are 95% intervals by
    `bootstrap` over the seeds and the split's own groups: images for `random`, duplicate groups for
    `grouped`, painters for `artist`, since images of one group are right or wrong together. A
    difference, `random - grouped`, is paired: both figures are computed on the same draws of the
    second's groups. `with_duplicates` includes the copies that cleaning set aside. A UserWarning
    names what had to be left out. Raises what `splits.items` and `features.extract` do, InputError
    for too few images.
    """
    table = images(data, splits, folds, with_duplicates)
    x = features.extract(data, table)
    runs = {
        name: prediction_table(HEAD, x, table.period, table[f"by_{name}"], folds, seeds)
        for name in progress_bar(list(splits), desc="splits")
    }
    rows = {name: summary(run, run.group, resamples) for name, run in runs.items()}
    for first, second in pairwise(splits):
        rows[f"{first} - {second}"] = _difference(runs[first], runs[second], resamples)
    return pd.DataFrame(rows.values(), index=list(rows))


def images(
    data, splits: Sequence[str], folds: int = 5, with_duplicates: bool = False
) -> pd.DataFrame:
    """The usable rows of the catalogue, with a column `by_<split>` for each split that names every
    image's group.

    Periods that lie in a single group can't be learned and tested at once: they are left out, with
    a UserWarning.
    """
    table = usable(data)
    if with_duplicates:
        table = pd.concat([table, _copies(data)], ignore_index=True)
    table = table.reset_index(drop=True)
    keys = artist_keys(table.artist.dropna(), aliases_of(data))
    table["painter"] = table.artist.map(keys).astype(object).fillna("")
    for name in splits:
        own_groups = [str(i) for i in table.index]
        table[f"by_{name}"] = joined(own_groups, group_columns(table, name))
    if "artist" in splits and not table.painter.any():
        warnings.warn(
            f"no painter is known in {data}: split artist is the same as split grouped; import the "
            "pictures with a column `artist` to measure what a painter on both sides is worth",
            stacklevel=3,
        )
    return _testable(table, splits, folds)


def _copies(data) -> pd.DataFrame:
    """The copies of usable images that were set aside as duplicates within one period."""
    table = read_catalogue(data)
    table["dup_group"] = table.dup_group.astype(object).fillna("")
    set_aside = (table.clean_status == "duplicate") & (table.period != UNLABELLED)
    return table[set_aside & table.clean_sha256.notna() & table.review.isna()]


def _testable(table, splits: Sequence[str], folds: int) -> pd.DataFrame:
    """`table` without the periods that lie in a single group; warnings name them, and those with
    fewer groups than folds.
    """
    columns = [f"by_{name}" for name in splits]
    groups = table.groupby("period")[columns].nunique().min(axis=1)
    single = list(groups.index[groups < 2])
    few = list(groups.index[(groups >= 2) & (groups < folds)])
    if single:
        warnings.warn(
            f"left out: {', '.join(single)}, all of whose images are one group under "
            f"{' or '.join(splits)}: no head can learn and be tested on them",
            stacklevel=4,
        )
    if few:
        warnings.warn(
            f"fewer than {folds} groups in {', '.join(few)}: some folds test none of their "
            "images, and figures say little of them",
            stacklevel=4,
        )
    table = table[~table.period.isin(single)].reset_index(drop=True)
    if table.period.nunique() < 2:
        raise InputError("fewer than two periods can be tested: add pictures")
    return table


def _difference(first, second, resamples: int) -> dict:
    """The figures of `first` minus those of `second`, both on the same draws of the groups of
    `second`.
    """
    units = second.group
    draws = bootstrap(first, units, resamples) - bootstrap(second, units, resamples)
    differences = figures(first) - figures(second)
    return with_intervals(first, units, differences, draws)


# The shortcuts


def shortcuts(
    data,
    levelled=None,
    by: str = "grouped",
    source: str | None = None,
    folds: int = 5,
    seeds: Sequence[int] = (1, 2, 3),
    resamples: int = 1000,
) -> pd.DataFrame:
    """What can be predicted without looking at the painting: a DataFrame, a row for what a
    classifier `sees`.

    It sees nothing; or only width, height, their ratio and the file size of the raw file (boosted
    trees); or the features (the head of `compare`). With `levelled`, a folder that `level_sources`
    wrote, the latter two follow once more, of the levelled pictures. All rows are on the same
    images and folds of split `by`; then again within the `source` with the most images of periods
    that have at least `folds` groups there (column `pictures`), where there are several sources.
    Figures and intervals as in `compare`.
    """
    table = images(data, [by], folds)
    level = None
    if levelled is not None:
        table, level = _in_both(table, data, levelled)
    inputs = [
        (FREQUENT, DummyClassifier(), np.zeros((len(table), 1))),
        (SIZES, TREES, _sizes(table)),
        (FEATURES, HEAD, features.extract(data, table)),
    ]
    if level is not None:
        inputs += [
            (f"{SIZES}, levelled", TREES, _sizes(level)),
            (f"{FEATURES}, levelled", HEAD, features.extract(levelled, level)),
        ]
    subsets = {"all": table.index, **_within_source(table, f"by_{by}", source, folds)}
    jobs = [(pictures, sees, *rest) for pictures in subsets for sees, *rest in inputs]
    rows = []
    for pictures, sees, model, x in progress_bar(jobs, desc="shortcuts"):
        index = subsets[pictures]
        groups = table[f"by_{by}"][index]
        run = prediction_table(model, x[index], table.period[index], groups, folds, seeds)
        rows.append({"pictures": pictures, "sees": sees, **summary(run, run.group, resamples)})
    return pd.DataFrame(rows)


def _in_both(table, data, levelled) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of `table` whose picture the data set `levelled` holds, too, and the rows there, in
    the same order.
    """
    level = usable(levelled).set_index(["url", "period"])
    keys = pd.MultiIndex.from_frame(table[["url", "period"]])
    in_both = keys.isin(level.index)
    if not in_both.any():
        raise InputError(f"{levelled} holds no picture of {data}: level it again")
    return table[in_both].reset_index(drop=True), level.loc[keys[in_both]].reset_index()


def _sizes(rows) -> np.ndarray:
    sizes = rows[["width", "height", "bytes"]].astype(float)
    return sizes.assign(ratio=sizes.width / sizes.height).to_numpy()


def _within_source(table, groups: str, source: str | None, folds: int) -> dict[str, pd.Index]:
    """The rows of one source that can be tested, under its name; empty where that would be all
    rows, or none.
    """
    sources = table.source.fillna("unknown")
    if source is not None and source not in set(sources):
        raise InputError(
            f"no image of source {source!r}: there are {', '.join(sorted(set(sources)))}"
        )
    number_of_groups = table.groupby([sources, table.period])[groups].transform("nunique")
    rows = table[number_of_groups >= folds]
    if source is not None:
        rows = rows[sources[rows.index] == source]
    number_of_periods = rows.groupby(sources[rows.index]).period.transform("nunique")
    rows = rows[number_of_periods > 1]
    if rows.empty:
        return {}
    largest = sources[rows.index].value_counts().index[0]
    index = rows.index[sources[rows.index] == largest]
    return {f"only {largest}": index} if len(index) < len(table) else {}


def warning(table, share: float = 0.2) -> str:
    """A sentence where the table of `shortcuts` says that size explains much, else ''.

    Much is at least `share` of what the features gain in macro F1 over guessing (guessing gets
    about one over the number of periods at most), where the interval of size lies above guessing,
    too. The default lies between the 0.28 measured on a mixture of sources with sizes of their own
    and the 0.13 within one of them, where file size only tells how busy a picture is.
    """
    rows = table[table.pictures == "all"].set_index("sees")
    size = rows.loc[SIZES]
    pictures = rows.loc[FEATURES]
    guess = max(1 / size.periods, rows.macro_f1[FREQUENT])
    explained = (size.macro_f1 - guess) / max(pictures.macro_f1 - guess, 1e-9)
    if explained < share or size.macro_f1_low <= guess:
        return ""
    return (
        f"Warning: {SIZES} alone tell the periods with a macro F1 of {size.macro_f1:.2f}, where "
        f"guessing gets {guess:.2f} and the pictures {pictures.macro_f1:.2f}: that is "
        f"{min(explained, 1):.0%} of what the pictures gain. A network can learn where a picture "
        "comes from instead of its period: level the sources, or use only one."
    )


# Tables and plots


def readable(table) -> pd.DataFrame:
    """A table of `compare` or `shortcuts` with each figure and its interval in one column of
    text.
    """
    text = {}
    for name, title in FIGURES.items():
        values = table[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        text[title] = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in values]
    return table.loc[:, :"groups"].assign(**text)


def plot_compare(table, ax=None, figures: Sequence[str] = ("accuracy", "macro_f1")):
    """The `figures` of each split in a table of `compare`, with intervals, as a Figure."""
    rows = table[~table.index.str.contains(" - ")]
    return _plot_intervals(rows, list(rows.index), figures, ax)


def plot_shortcuts(table, ax=None, figures: Sequence[str] = ("macro_f1",)):
    """The `figures` of each row in a table of `shortcuts`, with intervals, as a Figure."""
    labels = [f"{row.sees}\n({row.pictures} pictures)" for row in table.itertuples()]
    return _plot_intervals(table, labels, figures, ax)


def _plot_intervals(table, labels: list[str], figures: Sequence[str], ax):
    ax = ax or plots.axes_of_size(8, 1.2 + 0.5 * len(table))
    places = np.arange(len(table))
    middle = (len(figures) - 1) / 2
    for i, (name, colour) in enumerate(zip(figures, plots.COLOURS, strict=False)):
        y = places + 0.3 * (i - middle)
        ax.hlines(y, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=2)
        ax.plot(table[name], y, "o", color=colour, label=FIGURES[name])
        for point in zip(table[name], y, strict=True):
            text = f"{point[0]:.2f}"
            ax.annotate(text, point, (0, 5), textcoords="offset points", ha="center", fontsize=8)
    ax.axvline(0, color="0.8", linewidth=1)  # figures are read from 0
    ax.set_yticks(places, labels, parse_math=False)
    titles = " and ".join(FIGURES[name] for name in figures)
    ax.set(ylim=(len(table) - 0.4, -0.7), xlabel=f"{titles}, 95% intervals")
    ax.grid(axis="x", alpha=0.3)
    if len(figures) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure
