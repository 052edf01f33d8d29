"""Folds: predictions for every picture by a model that has not learned from it, nor from others of
its group.

Works on arrays, feature rows and tables; writes no files. Doubtful labels (`doubts`) and the experiment
`leaks` are made of them.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from artclf.base.errors import InputError
from artclf.model.feature_rows import FeatureRows


class OutOfFold(NamedTuple):
    """Predictions of one cut into folds.

    `classes` are sorted. `probabilities` has shape (images, classes): NaN for a class that the
    model of the image's fold did not learn, and for images without a prediction. `fold` is the
    number of each image's fold, -1 for images in none.
    """

    classes: np.ndarray
    probabilities: np.ndarray
    fold: np.ndarray

    def of_class(self, labels) -> np.ndarray:
        """The probability of one class for each image: the one that `labels` names."""
        columns = np.searchsorted(self.classes, labels)
        return self.probabilities[np.arange(len(labels)), columns]


def cut(y, groups, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to `folds` pairs of the places of images to learn from and images to predict, stratified
    by class; no group is in both.

    `y` and `groups` are arrays with the class and the group of each image. There are no more folds
    than the class with the most groups has groups, and none where no class has two.
    """
    most_groups = pd.Series(groups).groupby(y).nunique().max()
    folds = min(folds, most_groups)
    if folds < 2:
        return []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Callers name the classes with fewer groups than folds in words of their own.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        pairs = list(splitter.split(y, y, groups))
    return [(train, test) for train, test in pairs if len(test)]


def out_of_fold(
    model,
    x: np.ndarray | FeatureRows,
    y: np.ndarray,
    groups: np.ndarray,
    folds: int,
    seed: int,
    fit_params: Callable[[np.ndarray], dict] | None = None,
    threads: int | None = 1,
) -> OutOfFold:
    """The prediction for every image by a clone of `model` that has not learned from its fold.

    `x` has shape (images, inputs), or is a row for each image, for a model that learns from rows;
    `y` and `groups` hold the class and the group of each image.
    `fit_params` gives further arguments of `fit` for the places of the images to learn from. A fold
    that leaves a single class to learn from gets no predictions. On matrices of few columns, more
    than one of `threads` cost more than they give; None takes all.
    """
    classes = np.unique(y)
    probabilities = np.full((len(y), len(classes)), np.nan)
    fold_of_image = np.full(len(y), -1)
    for fold, (train, test) in enumerate(cut(y, groups, folds, seed)):
        fold_of_image[test] = fold
        if len(np.unique(y[train])) < 2:
            continue
        params = fit_params(train) if fit_params else {}
        with threadpool_limits(threads):
            fitted = clone(model).fit(_at(x, train), y[train], **params)
            columns = np.searchsorted(classes, fitted.classes_)
            probabilities[np.ix_(test, columns)] = fitted.predict_proba(_at(x, test))
    return OutOfFold(classes, probabilities, fold_of_image)


def _at(x: np.ndarray | FeatureRows, places: np.ndarray) -> np.ndarray | FeatureRows:
    return x[places] if isinstance(x, np.ndarray) else x.at(places)


def prediction_table(
    model,
    x: np.ndarray,
    periods,
    groups,
    folds: int = 5,
    seeds: Sequence[int] = (1, 2, 3),
    threads: int | None = 1,
) -> pd.DataFrame:
    """The predictions of `out_of_fold` for each seed: a DataFrame, a row an image and seed.

    All splits are cut in the same way, so that they differ only in their groups. `x` is an array
    (images, inputs), `periods` and `groups` are series with a value an image. Rows are ordered by
    seed, then as `x`; columns are `image` (its place), `seed`, `fold`, `group` and those that
    `evaluation.metrics` reads. Raises InputError where a fold leaves a single period to learn from.
    """
    y = periods.to_numpy()
    groups = groups.to_numpy()
    tables = []
    for seed in seeds:
        result = out_of_fold(model, x, y, groups, folds, seed, threads=threads)
        if np.isnan(result.probabilities).all(axis=1).any():
            raise InputError("one period is left to learn from: groups are too large")
        probabilities = np.nan_to_num(result.probabilities)
        table = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in result.classes])
        tables.append(
            table.assign(
                image=np.arange(len(y)),
                seed=seed,
                fold=result.fold,
                group=groups,
                part="test",
                period=y,
                predicted=result.classes[probabilities.argmax(axis=1)],
            )
        )
    return pd.concat(tables, ignore_index=True)
