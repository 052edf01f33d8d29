"""How certain a figure is, and whether two runs differ by more than chance: bootstrap intervals and
McNemar's test.

Works on the table of predictions (`evaluation.read`); reads and writes no files. Shown in
`04_interpret`.
"""

import numpy as np

from artclf.data.groups import joined
from artclf.data.names import artist_keys
from artclf.results import evaluation

FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "distance": "mean distance in periods",
}
FEWEST = 10  # groups: an interval over fewer is mostly chance


def units(rows):
    """What `bootstrap` should draw: the group of each image, a Series, and what groups are, as a
    text.

    Images of one duplicate group or of one painter are right or wrong together. Where these are
    fewer than ten groups, each image is a unit of its own, and the text says that intervals are too
    narrow then.
    """
    import pandas as pd

    unknown = pd.Series("", rows.index)
    duplicates = rows.get("dup_group", unknown)
    artists = rows.get("artist", unknown)
    painters = artists.map(artist_keys(artists.unique()))
    groups = pd.Series(joined(rows.file.tolist(), [duplicates, painters]), rows.index)
    number = groups.nunique()
    if number == len(rows):
        return rows.file, "pictures"
    if number < FEWEST:
        return rows.file, "pictures, as if no two had one painter: the intervals are too narrow"
    if not painters.any():
        return groups, "groups of copies"
    all_known = (painters != "").all()
    return groups, "painters" if all_known else "painters, or pictures of unknown ones"


def bootstrap(predictions, units, resamples: int = 1000):
    """The figures of `predictions` on `resamples` draws of whole units, with replacement: a
    DataFrame, a row a draw.

    `units` names the unit of each prediction: an image, or the group that it is right or wrong
    with. Where there is a column `seed`, seeds are drawn, too, so that the chance of the folds
    counts. The same units and seeds give the same draws, so the difference of two runs is that of
    their draws. Percentiles of the columns are intervals (Efron and Tibshirani 1993, chapter 13;
    for two factors Owen 2007, the pigeonhole bootstrap).
    """
    import pandas as pd

    names = evaluation.classes(predictions)
    place = evaluation.positions(names)
    gaps = np.abs(place[:, None] - place)
    given = pd.Index(names).get_indexer(predictions.period)
    predicted = pd.Index(names).get_indexer(predictions.predicted)
    k = len(names)
    cells = given * k + predicted
    factors = [pd.factorize(units)]
    if "seed" in predictions:
        factors.append(pd.factorize(predictions.seed))
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(resamples):
        weights = np.ones(len(predictions), dtype=np.int64)
        for codes, values in factors:
            number = len(values)
            draws = np.bincount(rng.integers(number, size=number), minlength=number)
            weights *= draws[codes]
        matrix = np.bincount(cells, weights, k * k).reshape(k, k)
        rows.append(_figures(matrix, gaps))
    return pd.DataFrame(rows)


def _figures(matrix: np.ndarray, gaps: np.ndarray) -> dict[str, float]:
    """The figures of a confusion matrix, defined as in `evaluation.metrics`."""
    total = matrix.sum()
    right = matrix.diagonal()
    given_and_predicted = matrix.sum(axis=0) + matrix.sum(axis=1)
    occurs = given_and_predicted > 0
    f1 = 2 * right[occurs] / given_and_predicted[occurs]
    return {
        "accuracy": right.sum() / total,
        "macro_f1": f1.mean(),
        "distance": (matrix * gaps).sum() / total,
    }


def interval(draws):
    """The middle 95% of the draws of `bootstrap`: a DataFrame, a row a figure, with columns `low`
    and `high`.
    """
    return draws.quantile([0.025, 0.975]).T.set_axis(["low", "high"], axis=1)


def figures(predictions):
    """The `FIGURES` of a table of out-of-fold predictions, all of part test: a Series."""
    import pandas as pd

    return pd.Series(evaluation.metrics(predictions)["test"])[list(FIGURES)]


def summary(predictions, units, resamples: int = 1000) -> dict:
    """The `figures` of out-of-fold predictions with 95% intervals over their `units` (see
    `bootstrap`), as `with_intervals` gives them.
    """
    draws = bootstrap(predictions, units, resamples)
    return with_intervals(predictions, units, figures(predictions), draws)


def with_intervals(predictions, units, values, draws) -> dict:
    """A row of a table: the numbers of `periods`, `images` and `groups`, and each of `values` with
    the 95% interval of its `draws`, `<figure>_low` to `<figure>_high`.
    """
    row = {
        "periods": predictions.period.nunique(),
        "images": predictions.image.nunique(),
        "groups": units.nunique(),
    }
    table = interval(draws)
    for name in FIGURES:
        row[name] = values[name]
        row[f"{name}_low"] = table.low[name]
        row[f"{name}_high"] = table.high[name]
    return row


def mcnemar(one, other) -> dict:
    """Whether two runs are right equally often on the same images.

    `one` and `other` say of each image whether it is right. `only_one` and `only_other` count the
    images that only one run has right. `p` is two-sided and exact (McNemar 1947): the chance that
    tossing a coin would share these images so unevenly, or more so.
    """
    from scipy.stats import binomtest

    one = np.asarray(one, dtype=bool)
    other = np.asarray(other, dtype=bool)
    only_one = int((one & ~other).sum())
    only_other = int((other & ~one).sum())
    differing = only_one + only_other
    p = binomtest(only_one, differing).pvalue if differing else 1.0
    return {"only_one": only_one, "only_other": only_other, "p": float(p)}


def holm(p) -> np.ndarray:
    """The p values of several tests, adjusted so that all together keep their level (Holm 1979)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.maximum.accumulate(p[order] * factors).clip(max=1)
    ranks = np.argsort(order, kind="stable")
    return adjusted[ranks]
