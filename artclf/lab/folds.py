"""How well a model does on pictures that it has not seen, and how sure that is: folds and intervals.

Works on arrays and tables; reads and writes no files. Shown in `experiments/17_leaks`.
"""
import warnings

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from artclf import interpret

FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "distance": "mean distance in periods"}


def out_of_fold(model, x, periods, groups, folds: int = 5, seeds=(1, 2, 3)):
    """The prediction for every image by a model that has not seen its fold, once a seed: a DataFrame.

    All splits are cut by one method, stratified by period, so that they differ by nothing but their groups.
    `x` is an array (images, inputs), `periods` and `groups` are series with a value an image. Rows are ordered by seed,
    then as `x`; columns are `image` (its place), `seed`, `fold`, `group` and those that `interpret.metrics` reads.
    Raises ValueError where a fold takes all periods but one.
    """
    y, groups, names = periods.to_numpy(), groups.to_numpy(), sorted(periods.unique())
    folds = min(folds, pd.Series(groups).groupby(y).nunique().max())  # more would be empty
    runs = []
    for seed in seeds:
        with warnings.catch_warnings():  # `images` has named the periods with fewer groups than folds
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            cuts = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, groups))
        for fold, (train, test) in enumerate(cuts):
            if not len(test): continue
            if len(set(y[train])) < 2: raise ValueError("one period is left to learn from: groups are too large")
            with threadpool_limits(1):  # on matrices of this size threads cost more than they give
                fitted = clone(model).fit(x[train], y[train])
                chances = pd.DataFrame(fitted.predict_proba(x[test]), columns=fitted.classes_)
            runs.append(chances.reindex(columns=names, fill_value=0.).add_prefix("p_").assign(
                image=test, seed=seed, fold=fold, group=groups[test], part="test", period=y[test],
                predicted=chances.idxmax(axis=1).to_numpy()))
    return pd.concat(runs).sort_values(["seed", "image"], ignore_index=True)


def bootstrap(predictions, units, resamples: int = 1000):
    """The figures of `predictions` on `resamples` draws, with replacement, of whole units: a DataFrame, a row a draw.

    `units` names the unit of each prediction: an image, or the group that it is right or wrong with. Seeds are drawn,
    too, so that the chance of the folds counts. The same units and seeds give the same draws. Percentiles of the
    columns are intervals (Efron and Tibshirani 1993, chapter 13; for two factors Owen 2007, the pigeonhole bootstrap).
    """
    names = interpret.classes(predictions)
    place = interpret.positions(names)
    given, predicted = (pd.Index(names).get_indexer(predictions[column]) for column in ("period", "predicted"))
    rng, k, factors = np.random.default_rng(0), len(names), [pd.factorize(units), pd.factorize(predictions.seed)]
    draws = (np.prod([np.bincount(rng.integers(len(found), size=len(found)), minlength=len(found))[codes]
                      for codes, found in factors], axis=0) for _ in range(resamples))
    counts = [np.bincount(given * k + predicted, draw, k * k).reshape(k, k) for draw in draws]
    return pd.DataFrame([_figures(matrix, np.abs(place[:, None] - place)) for matrix in counts])


def _figures(matrix: np.ndarray, gaps: np.ndarray) -> dict[str, float]:
    """The figures of a confusion matrix, defined as in `interpret.metrics`."""
    both = matrix.sum(0) + matrix.sum(1)
    return {"accuracy": matrix.trace() / matrix.sum(), "macro_f1": np.mean(2 * matrix.diagonal()[both > 0]
            / both[both > 0]), "distance": (matrix * gaps).sum() / matrix.sum()}
