"""How well a model does on pictures that it has not seen: folds.

Works on arrays and tables; reads and writes no files. Shown in `experiments/17_leaks`.
"""

import warnings

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from artclf.base.errors import InputError


def out_of_fold(model, x, periods, groups, folds: int = 5, seeds=(1, 2, 3)):
    """The prediction for every image by a model that has not seen its fold, once a seed: a
    DataFrame.

    All splits are cut by one method, stratified by period, so that they differ by nothing but their
    groups. `x` is an array (images, inputs), `periods` and `groups` are series with a value an
    image. Rows are ordered by seed, then as `x`; columns are `image` (its place), `seed`, `fold`,
    `group` and those that `interpret.metrics` reads. Raises ValueError where a fold takes all
    periods but one.
    """
    y, groups, names = periods.to_numpy(), groups.to_numpy(), sorted(periods.unique())
    folds = min(folds, pd.Series(groups).groupby(y).nunique().max())  # more would be empty
    runs = []
    for seed in seeds:
        with (
            warnings.catch_warnings()
        ):  # `images` has named the periods with fewer groups than folds
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            cuts = list(
                StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, groups)
            )
        for fold, (train, test) in enumerate(cuts):
            if not len(test):
                continue
            if len(set(y[train])) < 2:
                raise InputError("one period is left to learn from: groups are too large")
            with threadpool_limits(1):  # on matrices of this size threads cost more than they give
                fitted = clone(model).fit(x[train], y[train])
                chances = pd.DataFrame(fitted.predict_proba(x[test]), columns=fitted.classes_)
            runs.append(
                chances.reindex(columns=names, fill_value=0.0)
                .add_prefix("p_")
                .assign(
                    image=test,
                    seed=seed,
                    fold=fold,
                    group=groups[test],
                    part="test",
                    period=y[test],
                    predicted=chances.idxmax(axis=1).to_numpy(),
                )
            )
    return pd.concat(runs).sort_values(["seed", "image"], ignore_index=True)
