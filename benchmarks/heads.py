"""What each change of the head is worth on painters it never saw: one thing changed at a time, on
the same folds and features.

    python benchmarks/heads.py DATA [--split artist] [--seeds 1 2] [--size 320]
                               [--arch efficientnet_lite0] [--only NAME ...]

DATA is a data folder. Every head learns from the features of the frozen body, those of one view of
each picture unless it says otherwise, standardised by all pictures. Prints the figures of each,
pooled over five folds and the seeds, and how far macro F1 and accuracy are above those of the first
one, with 95% intervals by bootstrap over groups and seeds.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from artclf.lab import leaks, protocols
from artclf.model.features import of_images
from artclf.model.folds import prediction_table
from artclf.model.heads import LinearHead, reduced
from artclf.results import evaluation
from artclf.results.significance import bootstrap, interval

RIDGE = 0.3


def as_it_is(views: np.ndarray) -> np.ndarray:
    return reduced(views[:, 0])


def mirrored_too(views: np.ndarray) -> np.ndarray:
    """Both views of a picture as two rows that teach the same; the first is asked."""
    images, number, _ = views.shape
    columns = reduced(views.reshape(images * number, -1))
    return columns.reshape(images, number, -1)


def mean_of_mirror(views: np.ndarray) -> np.ndarray:
    return reduced(views.mean(axis=1))


def changed(function):
    """Features that `function` changes after they are standardised."""

    def columns(views: np.ndarray) -> np.ndarray:
        x = function(StandardScaler().fit_transform(views[:, 0]))
        return reduced(x)

    return columns


def signed_root(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.sqrt(np.abs(x))


def clipped(x: np.ndarray) -> np.ndarray:
    return x.clip(-2.5, 2.5)


class FromPart(ClassifierMixin, BaseEstimator):
    """A head that learns from a `share` of the pictures, drawn from each class."""

    def __init__(self, head, share: float):
        self.head = head
        self.share = share

    def fit(self, x, y):
        part, _ = train_test_split(
            np.arange(len(y)), train_size=self.share, stratify=y, random_state=0
        )
        self.head.fit(x[part], y[part])
        self.classes_ = self.head.classes_
        return self

    def predict_proba(self, x):
        return self.head.predict_proba(x)


def linear(ridge: float = RIDGE, balance: bool = True, tau: float = 0.0) -> LinearHead:
    return LinearHead(ridge, balance, tau, standardise=False)


VARIANTS = {
    "as it is: ridge 0.3, balanced": (as_it_is, linear()),
    "learns from the mirror image, too": (mirrored_too, linear()),
    "that, from 70% of the pictures": (mirrored_too, FromPart(linear(), 0.7)),
    "that, from all, tau 0.2": (mirrored_too, linear(tau=0.2)),
    "that, from all, tau 0.3: the recipe": (mirrored_too, linear(tau=0.3)),
    "mean of both views": (mean_of_mirror, linear()),
    "ridge 0.03": (as_it_is, linear(0.03)),
    "ridge 0.1": (as_it_is, linear(0.1)),
    "ridge 1": (as_it_is, linear(1.0)),
    "ridge 3": (as_it_is, linear(3.0)),
    "unbalanced": (as_it_is, linear(balance=False)),
    "tau 0.2": (as_it_is, linear(tau=0.2)),
    "unbalanced, tau 0.6": (as_it_is, linear(balance=False, tau=0.6)),
    "tanh of standardised features": (changed(np.tanh), linear()),
    "signed root of them": (changed(signed_root), linear()),
    "clipped at 2.5": (changed(clipped), linear()),
    "mean of both views, tau 0.2": (mean_of_mirror, linear(tau=0.2)),
    "scikit-learn, C=0.003, balanced": (
        as_it_is,
        LogisticRegression(C=0.003, class_weight="balanced", max_iter=1000),
    ),
    "LDA, shrinkage 0.5": (
        as_it_is,
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5),
    ),
    "15 neighbours, cosine": (as_it_is, KNeighborsClassifier(15, metric="cosine")),
}


def differences(first: pd.DataFrame, other: pd.DataFrame) -> dict[str, str]:
    """How far `other` is above `first`, on the same draws of groups and seeds."""
    draws = interval(bootstrap(other, other.group) - bootstrap(first, first.group))
    found = {}
    for name in ("accuracy", "macro_f1"):
        difference = (
            evaluation.metrics(other)["test"][name] - evaluation.metrics(first)["test"][name]
        )
        low, high = draws.loc[name]
        found[f"{name} above"] = f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="artist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME"
    )
    args = parser.parse_args()
    pd.set_option("display.width", 200)
    images = leaks.images(args.data, [args.split])
    body, config = protocols.frozen_body(args.arch, args.size)
    views = of_images(args.data, images, body, config, (0, 1))
    groups = images[f"by_{args.split}"]
    rows = {}
    first = None
    for name in args.only:
        columns_of, head = VARIANTS[name]
        started = time.perf_counter()
        x = columns_of(views)
        run = prediction_table(head, x, images.period, groups, 5, args.seeds, threads=None)
        seconds = (time.perf_counter() - started) / len(args.seeds)
        first = run if first is None else first
        figures = evaluation.metrics(run)["test"]
        rows[name] = {
            "accuracy": round(figures["accuracy"], 3),
            "macro_f1": round(figures["macro_f1"], 3),
            **differences(first, run),
            "seconds": round(seconds, 1),
        }
        print(f"{name}: {rows[name]}", flush=True)
    print(pd.DataFrame.from_dict(rows, orient="index").to_string())


if __name__ == "__main__":
    main()
