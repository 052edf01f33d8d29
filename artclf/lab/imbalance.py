"""Periods with many pictures and periods with few: losses and samplers that compensate, all on the
same cut.

Reads the catalogue and the clean images of DATA; writes a folder for every run to `OUT/runs/`,
`OUT/results.csv` and the stored features. The losses and the sampler are in `balance`. Notebook:
`experiments/11_imbalance`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from fastai.optimizer import SGD, Adam
from sklearn.metrics import recall_score

from artclf import train
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.data.classes import in_order
from artclf.lab import balance, experiment
from artclf.results import evaluation, plots

DEFAULTS = {
    "method": "plain",
    "tail": 20,
    "arch": "auto",
    "size": 224,
    "epochs": 10,
    "lr": 2e-3,
    "optimizer": "adam",
    "seed": 42,
}
OPTIMIZERS = {"adam": Adam, "sgd": partial(SGD, mom=0.9)}
FREQUENT = "most frequent period"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rare_recall": "recall, rare third",
    "other_recall": "recall, others",
}
EVEN_RATIO = 2  # data whose largest period has this many times the smallest are uneven already
FEWEST = 2  # train images that thinning leaves in a period


# The cut


def cut(data, config: dict) -> pd.DataFrame:
    """The images of `data` cut by split `grouped` and the seed, train thinned to a `long_tail`: a
    table as `splits.items` gives it.
    """
    table = splits.items(data, seed=config["seed"])
    shares = long_tail(table, config["tail"])
    return thin(table, shares, config["seed"])


def long_tail(table, ratio: float) -> dict[str, float]:
    """The share of its train images that each period keeps, from 1 down to 1 / `ratio` in equal
    ratios.

    Which period is rare is drawn once, and the same for all seeds. All shares are 1 where one
    period has twice the train images of another or more: such data are uneven by themselves. Raises
    InputError for a ratio below 1.
    """
    if ratio < 1:
        raise InputError(
            f"tail is {ratio}: give how many times as many pictures the largest period has, 1 "
            "or more"
        )
    counts = train_counts(table)
    if counts.max() >= EVEN_RATIO * counts.min():
        ratio = 1
    periods = np.random.default_rng(0).permutation(counts.index).tolist()
    shares = np.geomspace(1, 1 / ratio, len(periods)).tolist()
    return dict(zip(periods, shares, strict=True))


def thin(table, shares: dict[str, float], seed: int = 42) -> pd.DataFrame:
    """`table` without some train images of the periods in `shares`, which keep that share, and two
    images at least.

    Which images stay is drawn by `seed`; valid and test, and periods without a share, stay whole.
    """
    rng = np.random.default_rng(seed)
    removed = []
    for period, rows in table[table.part == "train"].groupby("period"):
        number = max(FEWEST, round(shares.get(period, 1) * len(rows)))
        removed += rng.permutation(rows.index)[number:].tolist()
    return table.drop(index=removed).reset_index(drop=True)


def train_counts(table) -> pd.Series:
    """How many train images each period has, in the order of classes."""
    counts = table[table.part == "train"].period.value_counts()
    return counts[in_order(counts.index)]


def rare(table) -> list[str]:
    """The third of the periods with the fewest train images, the rarest first."""
    counts = train_counts(table).sort_values(kind="stable")
    number = max(1, len(counts) // 3)
    return list(counts.index[:number])


# Runs


def configuration(**changes) -> dict:
    """All settings of one run: `DEFAULTS` with `changes`; `tail` is the ratio of `long_tail`.

    Raises InputError for a setting that doesn't exist, or a value that makes no sense.
    """
    config = experiment.configuration(DEFAULTS, changes)
    settings.check_choice("method", config["method"], balance.METHODS)
    settings.check_choice("optimizer", config["optimizer"], OPTIMIZERS)
    return config


def configurations(
    methods: Sequence[str] = tuple(balance.METHODS), seeds: Sequence[int] = (42,), **common
) -> list[dict]:
    """A `configuration` for each method and each seed, all with the settings `common`."""
    return [
        configuration(**common, method=method, seed=seed) for method in methods for seed in seeds
    ]


def label(config: dict) -> str:
    """The method of a configuration, with the optimizer where it isn't Adam."""
    if config["optimizer"] == "adam":
        return config["method"]
    return f"{config['method']}, {config['optimizer']}"


def learner(data, out, config: dict, table, cbs=()):
    """The learner of one configuration on the images of `table`, its body frozen."""
    counts = torch.tensor(train_counts(table).to_numpy(), dtype=torch.float32)
    loss = balance.METHODS[config["method"]](counts)
    cbs = list(cbs)
    if config["method"] == "sampler":
        cbs.append(balance.Sampler(table))
    return train.learner(
        data,
        out,
        arch=config["arch"],
        size=config["size"],
        split=table,
        seed=config["seed"],
        ridge=0,
        balance=False,
        loss_func=loss,
        opt_func=OPTIMIZERS[config["optimizer"]],
        cbs=cbs,
    )


def fit(data, out, config: dict) -> experiment.Run:
    """The run of one configuration on the images of `data`: trained, or read from `out` if it is
    there.

    The seed cuts the parts and starts the network: the same seed gives the same run on one machine.
    Raises what `splits.items` and `train.learner` do.
    """
    table = cut(data, config)

    def train_and_predict(folder: Path) -> tuple[pd.DataFrame, dict]:
        with experiment.quiet(learner(data, folder, config, table)) as learn:
            learn.fit_one_cycle(config["epochs"], config["lr"])
            logits = experiment.outputs(learn, data, table)
        return experiment.prediction_table(logits, learn.config["vocab"], table), {}

    return experiment.run_once(out, config["method"], config, table, train_and_predict)


def batches(data, config: dict) -> pd.DataFrame:
    """The periods in the train batches of one epoch, as a learner of `config` gets them: a row a
    batch, counts.
    """
    table = cut(data, config)
    counter = balance.Count()
    with (
        TemporaryDirectory() as folder,
        experiment.quiet(learner(data, folder, config, table, [counter])) as learn,
    ):
        learn.fit(1, 0.0)
    return pd.DataFrame(counter.batches, columns=learn.config["vocab"])


# Results


def figures(predictions) -> dict[str, float]:
    """The `FIGURES` of predictions on test; the recalls are means over the periods of `rare`, and
    over the others.
    """
    test = evaluation.of_part(predictions, "test")
    metrics = evaluation.metrics(predictions)["test"]
    rare_periods = rare(predictions)
    other_periods = in_order(set(test.period) - set(rare_periods))
    return {
        "accuracy": metrics["accuracy"],
        "macro_f1": metrics["macro_f1"],
        "rare_recall": _mean_recall(test, rare_periods),
        "other_recall": _mean_recall(test, other_periods),
    }


def _mean_recall(rows, periods: list[str]) -> float:
    return recall_score(
        rows.period, rows.predicted, labels=periods, average="macro", zero_division=0
    )


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run with `label`, the settings, the `FIGURES` and
    `seconds`.

    The first rows are those of always answering the most frequent period of train, one for each
    cut. Runs that `out` keeps are not computed again. Writes `OUT/results.csv`.
    """
    runs = [fit(data, out, config) for config in progress_bar(configs, desc="configurations")]
    rows = [
        {
            "label": label(run.config),
            **run.config,
            **figures(run.predictions),
            "seconds": run.seconds,
        }
        for run in runs
    ]
    cuts = {(run.config["seed"], run.config["tail"]): run.predictions for run in runs}
    baselines = []
    for (seed, tail), predictions in cuts.items():
        always = predictions.assign(predicted=train_counts(predictions).idxmax())
        baselines.append({"label": FREQUENT, "seed": seed, "tail": tail, **figures(always)})
    table = pd.DataFrame([*baselines, *rows])
    experiment.write_results(out, table)
    return table


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a method: the means over its runs, their number, and the
    range of macro F1.
    """
    return experiment.means(table, FIGURES)


def recalls(runs: list[experiment.Run]) -> pd.DataFrame:
    """The recall of each period on test: a column a method, the mean over its runs, and `images`,
    those of train.

    Rows are sorted by `images`, the largest first; recall is nan where no run has a test image.
    """
    by_method = {}
    for run in runs:
        test = evaluation.of_part(run.predictions, "test")
        recall = (test.predicted == test.period).groupby(test.period).mean()
        by_method.setdefault(label(run.config), []).append(recall)
    images = pd.concat([train_counts(run.predictions) for run in runs], axis=1).mean(axis=1)
    table = pd.DataFrame(
        {method: pd.concat(columns, axis=1).mean(axis=1) for method, columns in by_method.items()}
    )
    table = table.reindex(images.index).assign(images=images)
    return table.sort_values("images", ascending=False, kind="stable")


def plot_results(table, ax=None):
    """Macro F1 and the recalls of each method of a table of `compare` as a Figure: means, and runs
    as rings.
    """
    shown = {name: words for name, words in FIGURES.items() if name != "accuracy"}
    return experiment.plot_means(table, shown, ax)


def plot_recalls(table, ax=None):
    """A table of `recalls` as a Figure: a row a period with its train images, a dot a method."""
    ax = ax or plots.axes_of_size(9, 1.4 + 0.3 * len(table))
    places = np.arange(len(table))
    styles = zip(table.columns.drop("images"), plots.COLOURS, "os^Dv", strict=False)
    for name, colour, marker in styles:
        ax.plot(table[name], places, marker, color=colour, label=name, alpha=0.8)
    labels = [f"{name} ({images:.0f})" for name, images in table.images.items()]
    ax.set_yticks(places, labels, parse_math=False)
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(len(table) - 0.5, -0.5),
        xlabel="recall on test",
        ylabel="period (train images)",
    )
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=4)
    return ax.figure


def plot_batches(tables: dict, ax=None):
    """Tables of `batches` by name as a Figure: how often each period is drawn a batch, on average.

    Periods stand in the order of the first table, the most frequent first.
    """
    first = next(iter(tables.values()))
    periods = first.sum().sort_values(ascending=False, kind="stable").index
    ax = ax or plots.axes_of_size(9, 3.6)
    places = np.arange(len(periods))
    width = 0.8 / len(tables)
    middle = (len(tables) - 1) / 2
    for i, (name, table) in enumerate(tables.items()):
        means = table[periods].mean()
        ax.bar(places + (i - middle) * width, means, width, color=plots.COLOURS[i], label=name)
    ax.set_xticks(places, periods, rotation=45, ha="right", parse_math=False)
    ax.set(ylabel="pictures a batch")
    ax.legend(frameon=False)
    return ax.figure
