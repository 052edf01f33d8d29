"""Doubtful labels and outliers: which pictures a person should look at first.

Reads the catalogue and `features.db`; writes the catalogue's columns `doubt`, `likelier`,
`likelier_probability` and `outlier`. How much both lists find is measured by
`benchmarks/labels.py`.
"""

import warnings

import numpy as np
import pandas as pd
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_chunked
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from artclf.data import splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.groups import joined
from artclf.model import backbones, features

FOLDS = 5


DOUBTFUL = 0.05  # the share of the pictures whose labels are doubted most; with more, most alarms are false


FAR = 3.0  # in standard deviations, were the outlier scores normal, above their median


FOUND = ["doubt", "likelier", "likelier_probability", "outlier"]


NUMBERS = ["doubt", "likelier_probability", "outlier"]


def mark(data, seed: int = 42, arch: str = "auto"):
    """Doubt the label of every usable picture, and write it to the catalogue: a DataFrame, the
    worst first.

    Columns: `file`, the clean copy; `period`, the label doubted; `doubt`, 1 minus the probability
    of that period by a head that never saw the picture; `likelier`, the likeliest period where it
    is another, and `likelier_probability`; `outlier`, as `outliers` has it; `reason`. Where no
    other picture teaches a period, its `doubt` is unknown, and a UserWarning names it. Raises
    FileNotFoundError without a catalogue, ValueError without clean images.
    """
    rows = splits.usable(data).reset_index(drop=True)
    arch = backbones.find(arch).name
    x = (features.extract(data, rows, arch) + features.extract(data, rows, arch, mirror=True)) / 2
    groups = pd.Series(joined(rows.clean_sha256, [rows.dup_group]))
    rows[FOUND[:3]] = None
    if len(known := np.flatnonzero(_learnable(rows.period, groups))):
        periods, y = np.unique(rows.period[known].astype(str), return_inverse=True)
        rows.loc[known, FOUND[:3]] = _doubts(
            probabilities(x[known], y, groups[known], seed), y, periods
        ).to_numpy()
    rows["outlier"] = outliers(x, seed)
    _record(data, rows)
    rows["reason"] = _join(_reasons(rows))
    rows = rows.astype(dict.fromkeys(NUMBERS, float)).sort_values(
        "doubt", ascending=False, kind="stable"
    )
    return rows[["file", "period", *FOUND, "reason"]].reset_index(drop=True)


def flagged(data):
    """The rows of the catalogue that a person should look at, with their `reasons` in words: a
    DataFrame.

    First pictures under two periods, then doubtful labels, outliers, what step clean flagged,
    near-duplicates that are set aside, and last what was decided on and is flagged no more;
    doubtful labels and outliers by how bad they are. Doubtful are the `DOUBTFUL` share doubted
    most, where another period is likelier; outliers are `FAR` from the median. Both are what `mark`
    last found. Raises FileNotFoundError without a catalogue.
    """
    table, aside = read_catalogue(data), pd.DataFrame()
    near = table.clean_reason.str.startswith("near-duplicate", na=False)
    aside["conflict"] = table.clean_reason.where(table.clean_status == "conflict")
    aside[["doubtful", "outlier"]] = _reasons(table)
    aside["flagged"] = table.clean_reason.where(table.clean_status == "flagged")
    aside["duplicate"] = table.clean_reason.where((table.clean_status == "duplicate") & near)
    aside["decided"] = ("decided (" + table.review + ")").where(aside.isna().all(axis=1))
    table["reasons"], table["kind"] = _join(aside), aside.notna().to_numpy().argmax(1)
    table["bad"] = table.doubt.where(table.kind == 1, table.outlier)
    table = table[table.reasons != ""].sort_values(
        ["kind", "bad"], ascending=[True, False], kind="stable"
    )
    return table.drop(columns=["kind", "bad"]).reset_index(drop=True)


def probabilities(x, y, groups, seed: int = 42) -> np.ndarray:
    """The probabilities of the periods 0, 1... for each picture, out of fold: shape (images,
    periods).

    `x` has shape (images, channels). A fold's head never saw its pictures, nor others of their
    groups. Heads learn twice, and the second time a picture counts by how much the first believed
    its label, out of fold again, so that wrong labels teach less (importance reweighting, Liu and
    Tao 2016, with the probability itself as the weight). Of a period that isn't among the pictures
    a head learned from, the probability is unknown: NaN.
    """

    def believed(train):
        own = _out_of_fold(x[train], y[train], groups[train], seed + 1)[
            np.arange(len(train)), y[train]
        ]
        own = pd.Series(own).fillna(np.nanmean(own) if np.isfinite(own).any() else 1)
        return own / own.groupby(y[train]).transform(
            "mean"
        )  # no period counts less because it is a hard one

    return _out_of_fold(x, y, groups, seed, believed)


def _out_of_fold(x, y, groups, seed: int, weights=lambda train: None) -> np.ndarray:
    chances = np.full((len(y), y.max() + 1), np.nan)
    folds = min(FOLDS, pd.Series(groups).groupby(y).nunique().max())  # more would be empty
    if folds < 2:
        return chances
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The least populated class", UserWarning
        )  # some folds have none of it
        cuts = list(cut.split(x, y, groups))
    for train, test in cuts:
        if not len(test) or len(set(y[train])) < 2:
            continue
        head = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
        )
        with threadpool_limits(1):  # on matrices of this size threads cost more than they give
            head.fit(x[train], y[train], logisticregression__sample_weight=weights(train))
        chances[np.ix_(test, head.classes_)] = head.predict_proba(x[test])
    return chances


def outliers(x, seed: int = 42) -> np.ndarray:
    """How far each picture is from all others: the cosine distance within which a tenth of them
    lie, 0 to 1.

    `x` has shape (images, channels); what is negative counts as 0, and fourth roots keep a few
    strong channels from deciding. Fewer neighbours would miss strangers that come in dozens, such
    as pages of one book. Of more than 2,000 pictures, 2,000 drawn by chance stand for all.
    """
    x = np.maximum(x, 0) ** 0.25
    others = np.random.default_rng(seed).permutation(len(x))[:2000]
    return np.concatenate(
        list(
            pairwise_distances_chunked(
                x,
                x[others],
                metric="cosine",
                reduce_func=lambda part, _: np.quantile(part, 0.1, axis=1),
            )
        )
    )


def _learnable(periods, groups) -> pd.Series:
    """Which pictures have another in their period that isn't a duplicate; a warning names the
    periods without.
    """
    counts = groups.groupby(periods).nunique()
    found, small = counts.index[counts > 1], counts.index[counts < 2]
    if len(found) < 2:
        warnings.warn(
            "no label is checked: that takes two periods of at least two different pictures",
            stacklevel=3,
        )
        found = []
    elif len(small):
        warnings.warn(
            f"the labels of {', '.join(small)} are not checked: a period takes two different pictures",
            stacklevel=3,
        )
    return periods.isin(found)


def _doubts(chances, y, periods) -> pd.DataFrame:
    """The columns that say how doubtful each label is; empty where a head didn't know the
    period.
    """
    unknown = np.isnan(chances[np.arange(len(y)), y])
    chances = np.nan_to_num(chances)
    best = chances.argmax(1)
    doubt = 1 - get_label_quality_scores(y, chances, method="self_confidence")
    columns = {"doubt": doubt, "likelier": periods[best], "likelier_probability": chances.max(1)}
    found = pd.DataFrame(columns, dtype=object)
    found.loc[best == y, ["likelier", "likelier_probability"]] = None
    found.loc[unknown] = None
    return found


def _record(data, rows):
    """Write what was found of `rows`, and clear what was found of others before, in one
    transaction.
    """
    found = rows[["url", *FOUND]].assign(period=rows.listed).to_dict("records")
    with Catalogue(data) as cat:
        stale = [
            {"url": row["url"], "period": row["period"], **dict.fromkeys(FOUND)}
            for row in cat.select("outlier IS NOT NULL OR doubt IS NOT NULL")
        ]
        cat.update([*stale, *found])


def _reasons(rows) -> pd.DataFrame:
    """Why each picture should be looked at, as `doubtful` and `outlier`: text, empty where it
    needn't be.
    """
    doubt, chance, far = (pd.to_numeric(rows[column]) for column in NUMBERS)
    doubted = (
        doubt.rank(ascending=False, method="first") <= DOUBTFUL * doubt.count()
    ) & rows.likelier.notna()
    middle = far.median()
    strange = (
        far > middle + FAR * 1.4826 * (far - middle).abs().median()
    )  # Leys and others 2013: median, not mean
    text = (
        "doubtful label ("
        + rows.likelier.astype(str)
        + " "
        + chance.map("{:.0%}".format)
        + ", given "
    )
    return pd.DataFrame(
        {
            "doubtful": (text + (1 - doubt).map("{:.0%}".format) + ")").where(doubted),
            "outlier": (
                "outlier (distance " + far.map("{:.2f}".format) + f", mostly {middle:.2f})"
            ).where(strange),
        }
    )


def _join(reasons) -> list[str]:
    return ["; ".join(text for text in row if isinstance(text, str)) for row in reasons.to_numpy()]
