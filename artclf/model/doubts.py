"""Doubtful labels and outliers: which pictures a person should look at first.

Reads the catalogue and `features.db`; writes the catalogue's columns `doubt`, `likelier`,
`likelier_probability` and `outlier`. `benchmarks/labels.py` measures how many wrong labels and
strange pictures the two lists find.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_chunked
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from artclf.base import settings
from artclf.data import splits
from artclf.data.catalogue import Catalogue, read_catalogue, require
from artclf.data.groups import joined
from artclf.data.suggestions import SUGGESTED
from artclf.model import backbones, features
from artclf.model.folds import out_of_fold

FOLDS = 5
HEAD = make_pipeline(
    StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
)
DOUBTFUL_SHARE = 0.05  # of the pictures, those doubted most; with more, most alarms are false
OUTLIER_DISTANCE = 3.0  # standard deviations above the median, if the scores were normal
NEAREST_SHARE = 0.1  # of the other pictures; fewer would miss strangers that come in dozens
MOST_NEIGHBOURS = 2000  # more pictures than this are represented by a random sample
LABEL_COLUMNS = ["doubt", "likelier", "likelier_probability"]
COLUMNS = [*LABEL_COLUMNS, "outlier"]
NUMBERS = ["doubt", "likelier_probability", "outlier"]


def mark(data, seed: int = 42, arch: str = "auto") -> pd.DataFrame:
    """Measure how doubtful the label of every usable picture is, and write it to the catalogue: a
    DataFrame, the most doubtful first.

    Columns: `file`, the clean copy; `period`, its label; `doubt`, 1 minus the probability of that
    period by a head that has not learned from the picture; `likelier`, the likeliest period where
    it is another one, and `likelier_probability`; `outlier`, as in `outliers`; `reason`. Where no
    other picture teaches a period, its `doubt` is unknown, and a UserWarning names it. Raises
    FileNotFoundError without a catalogue, InputError without clean images and for a pack.
    """
    settings.check(seed=seed)
    require(data)
    rows = splits.usable(data).reset_index(drop=True)
    arch = backbones.find(arch).name
    x = (features.extract(data, rows, arch) + features.extract(data, rows, arch, mirror=True)) / 2
    groups = pd.Series(joined(rows.clean_sha256, [rows.dup_group]))
    rows[LABEL_COLUMNS] = None
    checked = np.flatnonzero(_can_be_checked(rows.period, groups))
    if len(checked):
        periods, y = np.unique(rows.period[checked].astype(str), return_inverse=True)
        chances = probabilities(x[checked], y, groups[checked].to_numpy(), seed)
        rows.loc[checked, LABEL_COLUMNS] = _label_columns(chances, y, periods).to_numpy()
    rows["outlier"] = outliers(x, seed)
    _record(data, rows)
    rows["reason"] = _join_reasons(_reasons(rows))
    rows = rows.astype(dict.fromkeys(NUMBERS, float))
    rows = rows.sort_values("doubt", ascending=False, kind="stable")
    return rows[["file", "period", *COLUMNS, "reason"]].reset_index(drop=True)


def flagged(data) -> pd.DataFrame:
    """The rows of the catalogue that a person should look at, with their `reasons` in words: a
    DataFrame.

    The order: pictures under two periods; those that visitors suggested; doubtful labels, the most
    doubtful first; outliers, the farthest first; pictures that step clean flagged; near-duplicates
    that are set aside; and pictures with a decision that nothing else flags. Doubtful are the
    `DOUBTFUL_SHARE` that are doubted most, where another period is likelier; outliers are
    `OUTLIER_DISTANCE` from the median. Both are as the last `mark` wrote them. Raises
    FileNotFoundError without a catalogue.
    """
    table = read_catalogue(data)
    status = table.clean_status
    near = table.clean_reason.str.startswith("near-duplicate", na=False)
    reasons = pd.DataFrame()
    reasons["conflict"] = table.clean_reason.where(status == "conflict")
    reasons["suggested"] = _suggested(table)
    reasons[["doubtful", "outlier"]] = _reasons(table)
    reasons["flagged"] = table.clean_reason.where(status == "flagged")
    reasons["duplicate"] = table.clean_reason.where((status == "duplicate") & near)
    unflagged = reasons.isna().all(axis=1)
    reasons["decided"] = ("decided (" + table.review + ")").where(unflagged)
    table["reasons"] = _join_reasons(reasons)
    first_reason = reasons.notna().to_numpy().argmax(1)  # the number of the first column
    doubtful = first_reason == list(reasons).index("doubtful")
    table["order"] = first_reason
    table["badness"] = table.doubt.where(doubtful, table.outlier)
    table = table[table.reasons != ""]
    table = table.sort_values(["order", "badness"], ascending=[True, False], kind="stable")
    return table.drop(columns=["order", "badness"]).reset_index(drop=True)


def probabilities(x: np.ndarray, y: np.ndarray, groups, seed: int = 42) -> np.ndarray:
    """The probabilities of the periods 0, 1... for each picture, out of fold: shape (images,
    periods).

    `x` has shape (images, channels). The head of a fold has not learned from its pictures, nor from
    others of their groups. Heads learn twice: the second time the weight of a picture is the
    probability that the first gave its label, out of fold again, so that wrong labels teach less
    (importance reweighting, Liu and Tao 2016, with the probability itself as the weight). The
    probability of a period that a head has not learned is NaN.
    """
    groups = np.asarray(groups)

    def weights(train: np.ndarray) -> dict:
        labels = y[train]
        first = out_of_fold(HEAD, x[train], labels, groups[train], FOLDS, seed + 1)
        given = pd.Series(first.of_class(labels))
        unknown = given.mean() if given.notna().any() else 1
        given = given.fillna(unknown)
        # Divided by the mean of the period: no period counts less because it is a hard one.
        weight = given / given.groupby(labels).transform("mean")
        return {"logisticregression__sample_weight": weight}

    return out_of_fold(HEAD, x, y, groups, FOLDS, seed, weights).probabilities


def outliers(x: np.ndarray, seed: int = 42) -> np.ndarray:
    """How far each picture is from the others: the cosine distance within which a tenth of them
    lie, 0 to 1.

    `x` has shape (images, channels); negative values count as 0, and fourth roots keep a few strong
    channels from deciding alone. With fewer neighbours, strangers that come in dozens, such as
    pages of one book, would be missed. Of more than 2,000 pictures, 2,000 drawn by chance represent
    all.
    """
    x = np.maximum(x, 0) ** 0.25
    others = np.random.default_rng(seed).permutation(len(x))[:MOST_NEIGHBOURS]

    def nearest_share(distances, start):
        return np.quantile(distances, NEAREST_SHARE, axis=1)

    chunks = pairwise_distances_chunked(x, x[others], metric="cosine", reduce_func=nearest_share)
    return np.concatenate(list(chunks))


def _can_be_checked(periods, groups) -> pd.Series:
    """Which pictures have another picture in their period that isn't a duplicate; a warning names
    the periods without.
    """
    counts = groups.groupby(periods).nunique()
    checked, single = counts.index[counts > 1], counts.index[counts < 2]
    if len(checked) < 2:
        warnings.warn(
            "no label is checked: that takes two periods of at least two different pictures",
            stacklevel=3,
        )
        return pd.Series(False, periods.index)
    if len(single):
        warnings.warn(
            f"the labels of {', '.join(single)} are not checked: a period takes two different "
            "pictures",
            stacklevel=3,
        )
    return periods.isin(checked)


def _label_columns(chances: np.ndarray, y: np.ndarray, periods: np.ndarray) -> pd.DataFrame:
    """The `LABEL_COLUMNS` of pictures with the labels `y`; None where the head has not learned the
    period.
    """
    given = chances[np.arange(len(y)), y]
    chances = np.nan_to_num(chances)
    likeliest = chances.argmax(1)
    columns = {
        "doubt": 1 - given,
        "likelier": periods[likeliest],
        "likelier_probability": chances.max(1),
    }
    table = pd.DataFrame(columns, dtype=object)
    table.loc[likeliest == y, ["likelier", "likelier_probability"]] = None
    table.loc[np.isnan(given)] = None
    return table


def _record(data, rows):
    """Write the columns of `rows` to the catalogue, and clear those of all other pictures, in one
    transaction.
    """
    new = rows[["url", *COLUMNS]].assign(period=rows.listed).to_dict("records")
    with Catalogue(data) as cat:
        stale = [
            {"url": row["url"], "period": row["period"], **dict.fromkeys(COLUMNS)}
            for row in cat.select("outlier IS NOT NULL OR doubt IS NOT NULL")
        ]
        cat.update([*stale, *new])


def _reasons(rows) -> pd.DataFrame:
    """Why a person should look at each picture: columns `doubtful` and `outlier` of text, empty
    where they needn't.
    """
    doubt = pd.to_numeric(rows.doubt)
    likelier_probability = pd.to_numeric(rows.likelier_probability)
    distance = pd.to_numeric(rows.outlier)

    most_doubted = doubt.rank(ascending=False, method="first") <= DOUBTFUL_SHARE * doubt.count()
    doubtful = most_doubted & rows.likelier.notna()
    doubtful_text = (
        "doubtful label ("
        + rows.likelier.astype(str)
        + " "
        + likelier_probability.map("{:.0%}".format)
        + ", given "
        + (1 - doubt).map("{:.0%}".format)
        + ")"
    )

    # The median and the median deviation, because outliers move mean and standard deviation
    # (Leys et al. 2013); of normal numbers the latter is 1.4826 median deviations.
    median = distance.median()
    deviation = 1.4826 * (distance - median).abs().median()
    outlier = distance > median + OUTLIER_DISTANCE * deviation
    outlier_text = "outlier (distance " + distance.map("{:.2f}".format) + f", mostly {median:.2f})"
    return pd.DataFrame(
        {"doubtful": doubtful_text.where(doubtful), "outlier": outlier_text.where(outlier)}
    )


def _suggested(table) -> pd.Series:
    """What visitors and the classifier said of pictures that were suggested and not accepted;
    missing for all others.
    """
    rows = table[table.status == SUGGESTED]
    likeliest = rows.likelier.where(rows.likelier.notna(), rows.period)
    texts = []
    for reason, period, probability in zip(
        rows.reason, likeliest, rows.likelier_probability, strict=True
    ):
        texts.append(f"{reason} (the classifier: {period} {probability:.0%})")
    return pd.Series(texts, rows.index, dtype=object).reindex(table.index)


def _join_reasons(reasons) -> list[str]:
    return ["; ".join(text for text in row if isinstance(text, str)) for row in reasons.to_numpy()]
