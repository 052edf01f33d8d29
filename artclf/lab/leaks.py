"""What leaks and shortcuts are worth: one light head on frozen features, measured with them and
without them.

Reads the catalogue and the clean images of DATA; writes `DATA/features.db`. Notebook:
`experiments/17_leaks`.
"""

import warnings
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
from artclf.data.catalogue import read_catalogue
from artclf.data.groups import joined
from artclf.data.names import artist_keys
from artclf.data.splits import SPLITS, usable
from artclf.model import features
from artclf.model.folds import out_of_fold
from artclf.results import evaluation, plots
from artclf.results.significance import FIGURES, bootstrap

FREQUENT, SIZES, FEATURES = (
    "nothing: the most frequent period",
    "width, height and file size",
    "features",
)
HEAD = make_pipeline(
    StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", tol=1e-3, max_iter=500)
)
TREES = HistGradientBoostingClassifier(
    max_iter=30, min_samples_leaf=5, class_weight="balanced", random_state=0
)


def compare(
    data,
    splits=("random", "grouped", "artist"),
    folds: int = 5,
    seeds=(1, 2, 3),
    with_duplicates: bool = False,
    resamples: int = 1000,
):
    """What a head scores on the same images under several splits: a DataFrame, a row a split, then
    the differences.

    `accuracy`, `macro_f1` and `distance` (mean, in periods) are those of `interpret.metrics` on the
    out-of-fold predictions of all `seeds` pooled; `*_low` and `*_high` are 95% intervals by
    `bootstrap` over the seeds and the split's own groups: images for `random`, duplicate groups for
    `grouped`, painters for `artist`, since images of one group are right or wrong together. A
    difference, `random - grouped`, is paired: both terms are figured on the same draws of the
    second's groups. `with_duplicates` takes the copies that cleaning set aside back in. A
    UserWarning says what had to be left out. Raises what `split.items` and `features.extract` do,
    ValueError for too few images.
    """
    table = images(data, splits, folds, with_duplicates)
    x = features.extract(data, table)
    runs = {
        name: out_of_fold(HEAD, x, table.period, table[f"by_{name}"], folds, seeds)
        for name in progress_bar(list(splits), desc="splits")
    }
    rows = {name: _row(run, run.group, resamples) for name, run in runs.items()}
    for one, other in pairwise(splits):
        rows[f"{one} - {other}"] = _row(runs[one], runs[other].group, resamples, minus=runs[other])
    return pd.DataFrame(rows.values(), index=list(rows))


def images(data, splits, folds: int = 5, with_duplicates: bool = False):
    """The usable rows of the catalogue, with a column `by_<split>` for each split that names every
    image's group.

    Periods that lie in a single group can't be learnt and tested at once: they are left out, with a
    UserWarning.
    """
    table = usable(data)
    if with_duplicates:
        table = pd.concat([table, _copies(data)], ignore_index=True)
    table = table.reset_index(drop=True)
    table["painter"] = (
        table.artist.map(artist_keys(table.artist.dropna())).astype(object).fillna("")
    )
    for name in splits:
        columns = SPLITS[name] and [*SPLITS[name], "clean_sha256"]
        table[f"by_{name}"] = joined(
            [str(i) for i in table.index], [table[column] for column in columns]
        )
    if "artist" in splits and not table.painter.any():
        warnings.warn(
            f"no painter is known in {data}: split artist is split grouped; take the pictures in with a "
            "column `artist` to measure what a painter on both sides is worth",
            stacklevel=3,
        )
    return _testable(table, splits, folds)


def _copies(data):
    """The copies of usable images that were set aside as duplicates within one period."""
    table = read_catalogue(data)
    table["dup_group"] = table.dup_group.astype(object).fillna("")
    return table[
        (table.clean_status == "duplicate") & table.clean_sha256.notna() & table.review.isna()
    ]


def _testable(table, splits, folds: int):
    groups = table.groupby("period")[[f"by_{name}" for name in splits]].nunique().min(axis=1)
    if single := list(groups.index[groups < 2]):
        warnings.warn(
            f"left out: {', '.join(single)}, all of whose images are one group under {' or '.join(splits)}: "
            "no head can learn and be tested on them",
            stacklevel=4,
        )
    if few := list(groups.index[(groups >= 2) & (groups < folds)]):
        warnings.warn(
            f"fewer than {folds} groups in {', '.join(few)}: some folds test none of their images, and "
            "figures say little of them",
            stacklevel=4,
        )
    table = table[~table.period.isin(single)].reset_index(drop=True)
    if table.period.nunique() < 2:
        raise InputError("fewer than two periods can be tested: add pictures")
    return table


def _row(run, units, resamples: int, minus=None) -> dict:
    found, draws = (
        pd.Series(evaluation.metrics(run)["test"])[list(FIGURES)],
        bootstrap(run, units, resamples),
    )
    if minus is not None:
        found -= pd.Series(evaluation.metrics(minus)["test"])[list(FIGURES)]
        draws -= bootstrap(minus, units, resamples)
    low, high = draws.quantile(0.025), draws.quantile(0.975)
    row = {
        "periods": run.period.nunique(),
        "images": run.image.nunique(),
        "groups": units.nunique(),
    }
    for name in FIGURES:
        row |= {name: found[name], f"{name}_low": low[name], f"{name}_high": high[name]}
    return row


def shortcuts(
    data,
    levelled=None,
    by="grouped",
    source: str | None = None,
    folds: int = 5,
    seeds=(1, 2, 3),
    resamples: int = 1000,
):
    """What can be told without looking at the painting: a DataFrame, a row for what a classifier
    `sees`.

    It sees nothing, or only width, height, their ratio and the file size of the raw file (boosted
    trees), or the features (the head of `compare`); with `levelled`, a folder that `level_sources`
    wrote, the latter two after every picture was made alike. All on the same images and folds of
    split `by`; then again within the `source` with the most images of periods that have at least
    `folds` groups there (column `pictures`), where there are several sources. Figures and intervals
    as in `compare`.
    """
    table = images(data, [by], folds)
    if levelled is not None:
        level = usable(levelled).set_index(["url", "period"])
        table = table[
            pd.MultiIndex.from_frame(table[["url", "period"]]).isin(level.index)
        ].reset_index(drop=True)
        if table.empty:
            raise InputError(f"{levelled} holds no picture of {data}: level it again")
        level = level.loc[pd.MultiIndex.from_frame(table[["url", "period"]])].reset_index()
    views = [
        (FREQUENT, DummyClassifier(), np.zeros((len(table), 1))),
        (SIZES, TREES, _sizes(table)),
        (FEATURES, HEAD, features.extract(data, table)),
    ]
    if levelled is not None:
        views += [
            (f"{SIZES}, levelled", TREES, _sizes(level)),
            (f"{FEATURES}, levelled", HEAD, features.extract(levelled, level)),
        ]
    chosen, rows = {"all": table.index, **_within(table, f"by_{by}", source, folds)}, []
    for pictures, (sees, model, x) in progress_bar(
        [(p, view) for p in chosen for view in views], desc="shortcuts"
    ):
        index = chosen[pictures]
        run = out_of_fold(
            model, x[index], table.period[index], table[f"by_{by}"][index], folds, seeds
        )
        rows.append({"pictures": pictures, "sees": sees, **_row(run, run.group, resamples)})
    return pd.DataFrame(rows)


def _sizes(rows) -> np.ndarray:
    sizes = rows[["width", "height", "bytes"]].astype(float)
    return sizes.assign(ratio=sizes.width / sizes.height).to_numpy()


def _within(table, groups: str, source: str | None, folds: int) -> dict:
    """The rows of one source that can be tested, under its name; empty where it would be all rows,
    or none.
    """
    sources = table.source.fillna("unknown")
    if source is not None and source not in set(sources):
        raise InputError(
            f"no image of source {source!r}: there are {', '.join(sorted(set(sources)))}"
        )
    enough = table.groupby([sources, table.period])[groups].transform("nunique") >= folds
    rows = table[enough & (sources == source if source else True)]
    rows = rows[rows.groupby(sources[rows.index]).period.transform("nunique") > 1]
    if rows.empty:
        return {}
    largest = sources[rows.index].value_counts().index[0]
    index = rows.index[sources[rows.index] == largest]
    return {f"only {largest}": index} if len(index) < len(table) else {}


def warning(table, share: float = 0.2) -> str:
    """A sentence where the table of `shortcuts` says that size explains much, else ''.

    Much is at least `share` of what the features gain in macro F1 over guessing, which gets at most
    about one over the number of periods, with an interval above guessing. The default lies between
    the 0.28 measured on a mixture of sources with sizes of their own and the 0.13 within one of
    them, where file size only tells how busy a picture is.
    """
    rows = table[table.pictures == "all"].set_index("sees")
    size, seen = rows.loc[SIZES], rows.loc[FEATURES]
    guess = max(1 / size.periods, rows.macro_f1[FREQUENT])
    explained = (size.macro_f1 - guess) / max(seen.macro_f1 - guess, 1e-9)
    if explained < share or size.macro_f1_low <= guess:
        return ""
    return (
        f"Warning: {SIZES} alone tell the periods with a macro F1 of {size.macro_f1:.2f}, where guessing gets "
        f"{guess:.2f} and the pictures {seen.macro_f1:.2f}: that is {min(explained, 1):.0%} of what the pictures "
        "gain. A network can learn where a picture comes from instead of its period: level the sources, or keep "
        "to one."
    )


def readable(table):
    """A table of `compare` or `shortcuts` with each figure and its interval in one column of
    text.
    """
    text = {
        words: [
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in table[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        ]
        for name, words in FIGURES.items()
    }
    return table.loc[:, :"groups"].assign(**text)


def plot_compare(table, ax=None, figures=("accuracy", "macro_f1")):
    """The `figures` of each split in a table of `compare`, with intervals, as a Figure."""
    rows = table[~table.index.str.contains(" - ")]
    return _dots(rows, list(rows.index), figures, ax)


def plot_shortcuts(table, ax=None, figures=("macro_f1",)):
    """The `figures` of each row in a table of `shortcuts`, with intervals, as a Figure."""
    return _dots(
        table, [f"{row.sees}\n({row.pictures} pictures)" for row in table.itertuples()], figures, ax
    )


def _dots(table, labels: list[str], figures, ax):
    ax, place = ax or plots.axes_of_size(8, 1.2 + 0.5 * len(table)), np.arange(len(table))
    for i, (name, colour) in enumerate(zip(figures, plots.COLOURS, strict=False)):
        y = place + 0.3 * (i - (len(figures) - 1) / 2)
        ax.hlines(y, table[f"{name}_low"], table[f"{name}_high"], color=colour, linewidth=2)
        ax.plot(table[name], y, "o", color=colour, label=FIGURES[name])
        for value, at in zip(table[name], y, strict=True):
            ax.annotate(
                f"{value:.2f}",
                (value, at),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    ax.axvline(0, color="0.8", linewidth=1)  # figures are read from 0
    ax.set_yticks(place, labels, parse_math=False)
    ax.set(
        ylim=(len(table) - 0.4, -0.7),
        xlabel=f"{' and '.join(FIGURES[name] for name in figures)}, 95% intervals",
    )
    ax.grid(axis="x", alpha=0.3)
    if len(figures) > 1:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure
