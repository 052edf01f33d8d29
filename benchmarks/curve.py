"""What more pictures are worth on painters never seen, and whether more painters or more pictures of
each are worth more.

    python benchmarks/curve.py DATA [--seeds 1 2 3] [--size 320] [--arch efficientnet_lite0]
                               [--plot curve.png]

DATA is a data folder. The frozen stage's head learns from a part of the pictures and predicts those of
painters that it never saw, in five folds by painter. The part is drawn in two ways: by painters, each
with all of their pictures, or by pictures, of all painters. A line in the logarithms of the number of
pictures and of the errors is fitted to each way, and drawn on to collections that are larger; its
interval is over draws of painters. A picture without a known painter counts as one by a painter of its
own.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from artclf.base.progress import progress_bar
from artclf.lab import leaks, protocols
from artclf.model.features import of_images
from artclf.model.folds import cut
from artclf.model.heads import LinearHead, reduced
from artclf.results import evaluation
from artclf.results.significance import bootstrap, interval

SHARES = (0.125, 0.25, 0.5, 1.0)
WAYS = ("painters", "pictures")
LARGER = (5_000, 50_000)  # pictures
FIGURES = ("accuracy", "macro_f1")
FOLDS = 5


def drawn(train: np.ndarray, painters: np.ndarray, way: str, share: float, rng) -> np.ndarray:
    """A share of the places in `train`: of whole painters, or of pictures whoever painted them."""
    if way == "pictures":
        return rng.permutation(train)[: round(share * len(train))]
    names = rng.permutation(np.unique(painters[train]))
    sizes = pd.Series(painters[train]).value_counts()[names].cumsum()
    chosen = names[: np.searchsorted(sizes, share * len(train)) + 1]
    return train[np.isin(painters[train], chosen)]


def predictions_of(x, periods, painters, way: str, share: float, seeds) -> pd.DataFrame:
    """Predictions of all pictures for each seed, with the numbers of pictures and painters that
    taught their head.
    """
    y = periods.to_numpy()
    names = np.unique(y)
    head = LinearHead(standardise=False)
    tables = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for train, test in cut(y, painters, FOLDS, seed):
            part = drawn(train, painters, way, share, rng)
            with threadpool_limits(1):
                fitted = clone(head).fit(x[part], y[part])
                probabilities = pd.DataFrame(fitted.predict_proba(x[test]), columns=fitted.classes_)
            probabilities = probabilities.reindex(columns=names, fill_value=0.0)
            table = probabilities.add_prefix("p_").assign(
                image=test,
                seed=seed,
                part="test",
                period=y[test],
                predicted=names[probabilities.to_numpy().argmax(1)],
                group=painters[test],
                pictures=len(part),
                painters=len(np.unique(painters[part])),
            )
            tables.append(table)
    return pd.concat(tables).sort_values(["seed", "image"], ignore_index=True)


def errors_at(pictures: np.ndarray, errors: np.ndarray, wanted) -> tuple[np.ndarray, np.ndarray]:
    """The slope of each line through the logarithms of `errors`, (draws, sizes), over those of
    `pictures`, and the errors on the line for the `wanted` numbers: (draws,) and (draws, wanted).
    """
    slope, start = np.polyfit(np.log(pictures), np.log(errors).T, 1)
    return slope, np.exp(start[:, None] + slope[:, None] * np.log(wanted))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    pd.set_option("display.width", 200)
    images = leaks.images(args.data, ["artist"])
    body, config = protocols.frozen_body(args.arch, args.size)
    x = reduced(of_images(args.data, images, body, config)[:, 0])
    painters = images.by_artist.to_numpy()
    jobs = [(way, share) for way in WAYS for share in SHARES if way == WAYS[0] or share < 1]
    runs = {}
    for way, share in progress_bar(jobs, desc="sizes"):
        runs[way, share] = predictions_of(x, images.period, painters, way, share, args.seeds)
    runs[WAYS[1], 1.0] = runs[WAYS[0], 1.0]
    draws = {key: bootstrap(run, run.group) for key, run in runs.items()}

    rows = []
    for (way, share), run in runs.items():
        figures = evaluation.metrics(run)["test"]
        row = {"drawn by": way, "pictures": run.pictures.mean(), "painters": run.painters.mean()}
        for name in FIGURES:
            low, high = interval(draws[way, share]).loc[name]
            row[name] = f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(row)
    table = pd.DataFrame(rows).sort_values(["drawn by", "pictures"], ignore_index=True)
    print(table.round(0).to_string(index=False), "\n")
    print(pd.DataFrame(extrapolated(runs, draws)).to_string(index=False))
    if args.plot:
        plot(runs, draws, args.plot)


def extrapolated(runs: dict, draws: dict) -> list[dict]:
    """A row a figure and way: what the line promises for larger collections."""
    rows = []
    for name in FIGURES:
        for way in WAYS:
            pictures, measured, drawn_errors = curve(runs, draws, way, name)
            _, at = errors_at(pictures, measured[None], LARGER)
            slopes, of_draws = errors_at(pictures, drawn_errors, LARGER)
            low, high = np.percentile(of_draws, [97.5, 2.5], axis=0)
            row = {
                "figure": name,
                "drawn by": way,
                "error per doubling": f"x {2 ** slopes.mean():.3f}",
            }
            for place, number in enumerate(LARGER):
                row[f"{number:,} pictures"] = (
                    f"{1 - at[0, place]:.3f} [{1 - low[place]:.3f}, {1 - high[place]:.3f}]"
                )
            rows.append(row)
    return rows


def curve(runs: dict, draws: dict, way: str, figure: str):
    """The numbers of pictures, the errors that were measured, and those of each draw of painters:
    (sizes,), (sizes,) and (draws, sizes).
    """
    keys = sorted(key for key in runs if key[0] == way)
    pictures = np.array([runs[key].pictures.mean() for key in keys])
    measured = np.array([1 - evaluation.metrics(runs[key])["test"][figure] for key in keys])
    of_draws = np.stack([1 - draws[key][figure].to_numpy() for key in keys], axis=1)
    return pictures, measured, of_draws


def plot(runs: dict, draws: dict, file: Path):
    """Draw the measured figures with their lines, drawn on to the larger collections."""
    figure, axes = plt.subplots(1, len(FIGURES), figsize=(10, 4.2), layout="constrained")
    for ax, name in zip(axes, FIGURES, strict=True):
        for colour, way in enumerate(WAYS):
            pictures, measured, of_draws = curve(runs, draws, way, name)
            along = np.geomspace(pictures[0], LARGER[-1], 50)
            _, lines = errors_at(pictures, of_draws, along)
            low, high = np.percentile(1 - lines, [2.5, 97.5], axis=0)
            ax.fill_between(along, low, high, color=f"C{colour}", alpha=0.15)
            _, line = errors_at(pictures, measured[None], along)
            ax.plot(along, 1 - line[0], "--", color=f"C{colour}")
            ax.plot(pictures, 1 - measured, "o", color=f"C{colour}", label=f"more {way}")
        ax.set(xscale="log", xlabel="pictures to learn from", ylabel=name.replace("_", " "))
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
