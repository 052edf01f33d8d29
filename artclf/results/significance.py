"""How sure a figure is, and whether two runs differ by more than chance: bootstrap intervals and
McNemar's test.

Works on the table of predictions (`interpret.read`); reads and writes no files. Shown in
`04_interpret`.
"""

import numpy as np

from artclf.data.groups import joined
from artclf.data.names import artist_keys
from artclf.results import evaluation

FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "distance": "mean distance in periods"}


FEWEST = 10  # groups: an interval over fewer is mostly chance


def units(rows):
    """What `bootstrap` should draw: the group of each image, a Series, and what groups are, as a
    word.

    Images of one duplicate group or of one painter are right or wrong together. Where these are
    fewer than ten groups, each image is a unit of its own, and the word says that intervals are too
    narrow then.
    """
    import pandas as pd

    known = [rows.get(name, pd.Series("", rows.index)) for name in ("dup_group", "artist")]
    columns = [known[0], known[1].map(artist_keys(known[1].unique()))]
    groups = pd.Series(joined(rows.file.tolist(), columns), rows.index)
    if groups.nunique() == len(rows):
        return rows.file, "pictures"
    if groups.nunique() < FEWEST:
        return rows.file, "pictures, as if no two had one painter: the truth is less sure"
    if not columns[1].any():
        return groups, "groups of copies"
    return groups, "painters" if (
        columns[1] != ""
    ).all() else "painters, or pictures of unknown ones"


def bootstrap(predictions, units, resamples: int = 1000):
    """The figures of `predictions` on `resamples` draws, with replacement, of whole units: a
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
    given, predicted = (
        pd.Index(names).get_indexer(predictions[column]) for column in ("period", "predicted")
    )
    rng, k, factors = np.random.default_rng(0), len(names), [pd.factorize(units)]
    if "seed" in predictions:
        factors.append(pd.factorize(predictions.seed))
    draws = (
        np.prod(
            [
                np.bincount(rng.integers(len(found), size=len(found)), minlength=len(found))[codes]
                for codes, found in factors
            ],
            axis=0,
        )
        for _ in range(resamples)
    )
    counts = [np.bincount(given * k + predicted, draw, k * k).reshape(k, k) for draw in draws]
    return pd.DataFrame([_figures(matrix, np.abs(place[:, None] - place)) for matrix in counts])


def _figures(matrix: np.ndarray, gaps: np.ndarray) -> dict[str, float]:
    """The figures of a confusion matrix, defined as in `interpret.metrics`."""
    both = matrix.sum(0) + matrix.sum(1)
    return {
        "accuracy": matrix.trace() / matrix.sum(),
        "macro_f1": np.mean(2 * matrix.diagonal()[both > 0] / both[both > 0]),
        "distance": (matrix * gaps).sum() / matrix.sum(),
    }


def interval(draws):
    """The middle 95% of the draws of `bootstrap`: a DataFrame, a row a figure, with columns `low`
    and `high`.
    """
    return draws.quantile([0.025, 0.975]).T.set_axis(["low", "high"], axis=1)


def mcnemar(one, other) -> dict:
    """Whether two runs are right equally often on the same images: how many one alone has right,
    and how sure that is.

    `one` and `other` say of each image whether it is right. `p` is two-sided and exact (McNemar
    1947): the chance that those which one run alone has right would be shared so unevenly, or more
    so, by tossing a coin.
    """
    from scipy.stats import binomtest

    one, other = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    only, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    p = binomtest(only, only + only_other).pvalue if only + only_other else 1.0
    return {"only_one": only, "only_other": only_other, "p": float(p)}


def holm(p) -> np.ndarray:
    """The p values of several tests, adjusted so that all together keep their level (Holm 1979)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted[np.argsort(order, kind="stable")]
