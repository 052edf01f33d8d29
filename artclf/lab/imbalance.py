"""Periods with many pictures and periods with few: losses and samplers that make up for it, on one
cut.

Reads the catalogue and the clean images of DATA; writes a folder for every run to `OUT/runs/`,
`OUT/results.csv`, the stored features, and by `split.items` the catalogue's column `split_grouped`.
Notebook: `experiments/11_imbalance`.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from fastai.optimizer import SGD, Adam
from sklearn.metrics import recall_score

from artclf import train
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.lab import balance, frozen
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


# The cut


def cut(data, config: dict):
    """The images of `data` cut by split `grouped` and the seed, train thinned to a `long_tail`: as
    `split.items`.
    """
    table = splits.items(data, seed=config["seed"])
    return thin(table, long_tail(table, config["tail"]), config["seed"])


def long_tail(table, ratio: float) -> dict[str, float]:
    """The share of its train images that each period keeps, from 1 down to 1 / `ratio` in equal
    ratios.

    Which period is rare is drawn once, and the same for all seeds. All shares are 1 where one
    period has twice the train images of another or more: such data are uneven by themselves. Raises
    ValueError for a ratio below 1.
    """
    if ratio < 1:
        raise InputError(
            f"tail is {ratio}: give how many times as many pictures the largest period has, 1 "
            "or more"
        )
    counts = train_counts(table)
    order = np.random.default_rng(0).permutation(counts.index)
    if counts.max() >= 2 * counts.min():
        ratio = 1
    return dict(zip(order.tolist(), np.geomspace(1, 1 / ratio, len(order)).tolist(), strict=True))


def thin(table, shares: dict[str, float], seed: int = 42):
    """`table` without some train images of the periods in `shares`, which keep that share, and two
    images at least.

    Which images stay is drawn by `seed`; valid and test, and periods without a share, stay whole.
    """
    rng, out = np.random.default_rng(seed), []
    for period, rows in table[table.part == "train"].groupby("period"):
        stays = max(2, round(shares.get(period, 1) * len(rows)))
        out += rng.permutation(rows.index)[stays:].tolist()
    return table.drop(index=out).reset_index(drop=True)


def train_counts(table) -> pd.Series:
    """How many train images each period has, in sorted order."""
    return table[table.part == "train"].period.value_counts().sort_index()


def rare(table) -> list[str]:
    """The third of the periods with the fewest train images, the rarest first."""
    counts = train_counts(table).sort_values(kind="stable")
    return list(counts.index[: max(1, len(counts) // 3)])


# Runs


def configuration(**changes) -> dict:
    """All settings of one run: `DEFAULTS` with `changes`; `tail` is the ratio of `long_tail`.

    Raises ValueError for a setting that there isn't, or that makes no sense.
    """
    config = frozen.configuration(DEFAULTS, balance.METHODS, **changes)
    if config["optimizer"] not in OPTIMIZERS:
        raise InputError(
            f"optimizer is {config['optimizer']!r}: take one of {', '.join(OPTIMIZERS)}"
        )
    return config


def configurations(methods=tuple(balance.METHODS), seeds=(42,), **common) -> list[dict]:
    """A `configuration` for each method and each seed, all with the settings `common`."""
    return [
        configuration(**common, method=method, seed=seed) for method in methods for seed in seeds
    ]


def label(config: dict) -> str:
    """The method of a configuration, with the optimizer where it isn't Adam."""
    return config["method"] + (f", {config['optimizer']}" if config["optimizer"] != "adam" else "")


def learner(data, out, config: dict, table, cbs=()):
    """The learner of one configuration on the images of `table`, its body frozen."""
    loss = balance.METHODS[config["method"]](
        torch.tensor(train_counts(table).to_numpy(), dtype=torch.float32)
    )
    cbs = [*cbs, *([balance.Sampler(table)] if config["method"] == "sampler" else [])]
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


def fit(data, out, config: dict) -> frozen.Run:
    """Train one configuration on the images of `data`, or read what `out` keeps of it: a
    `frozen.Run`.

    The seed cuts the parts and starts the network: the same seed gives the same run on one machine.
    Raises what `split.items` does, and `train.learner`.
    """
    table = cut(data, config)

    def run(folder: Path):
        with frozen.quiet(learner(data, folder, config, table)) as learn:
            learn.fit_one_cycle(config["epochs"], config["lr"])
            return frozen.predictions(
                frozen.outputs(learn, data, table), learn.config["vocab"], table
            ), {}

    return frozen.kept(out, config, table, run)


def batches(data, config: dict) -> pd.DataFrame:
    """The periods in the train batches of one epoch, as a learner of `config` gets them: a row a
    batch, counts.
    """
    table, count = cut(data, config), balance.Count()
    with (
        TemporaryDirectory() as folder,
        frozen.quiet(learner(data, folder, config, table, [count])) as learn,
    ):
        learn.fit(1, 0.0)
    return pd.DataFrame(count.batches, columns=learn.config["vocab"])


# Results


def figures(predictions) -> dict[str, float]:
    """The `FIGURES` of predictions on test; the recalls are means over the periods of `rare`, and
    over the others.
    """
    test, names = evaluation.of_part(predictions, "test"), rare(predictions)
    groups = {"rare_recall": names, "other_recall": sorted(set(test.period) - set(names))}
    found = evaluation.metrics(predictions)["test"]
    return {
        "accuracy": found["accuracy"],
        "macro_f1": found["macro_f1"],
        **{
            name: recall_score(
                test.period, test.predicted, labels=of, average="macro", zero_division=0
            )
            for name, of in groups.items()
        },
    }


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run with `label`, the settings, the `FIGURES` and
    `seconds`.

    The first rows are those of always answering the most frequent period of train, one for each
    cut. What `out` keeps is not computed again. Writes `OUT/results.csv`.
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
    always = [
        {
            "label": FREQUENT,
            "seed": seed,
            "tail": tail,
            **figures(table.assign(predicted=train_counts(table).idxmax())),
        }
        for (seed, tail), table in cuts.items()
    ]
    table = pd.DataFrame([*always, *rows])
    table.to_csv(Path(out) / "results.csv", index=False)
    return table


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a method: the means over its runs, their number, and the
    range of macro F1.
    """
    return frozen.means(table, FIGURES)


def recalls(runs: list[frozen.Run]) -> pd.DataFrame:
    """The recall of each period on test: a column a method, the mean over its runs, and `images`,
    those of train.

    Rows are sorted by `images`, the largest first; recall is nan where no run has a test image.
    """
    found = {}
    for run in runs:
        test = evaluation.of_part(run.predictions, "test")
        right = (test.predicted == test.period).groupby(test.period).mean()
        found.setdefault(label(run.config), []).append(right)
    table = pd.DataFrame(
        {name: pd.concat(columns, axis=1).mean(axis=1) for name, columns in found.items()}
    )
    images = pd.concat([train_counts(run.predictions) for run in runs], axis=1).mean(axis=1)
    return (
        table.reindex(images.index)
        .assign(images=images)
        .sort_values("images", ascending=False, kind="stable")
    )


def plot_results(table, ax=None):
    """Macro F1 and the recalls of each method of a table of `compare` as a Figure: means, and runs
    as rings.
    """
    return frozen.plot_means(
        table, {name: words for name, words in FIGURES.items() if name != "accuracy"}, ax
    )


def plot_recalls(table, ax=None):
    """A table of `recalls` as a Figure: a row a period with its train images, a dot a method."""
    ax, places = ax or plots.axes_of_size(9, 1.4 + 0.3 * len(table)), np.arange(len(table))
    for name, colour, marker in zip(
        table.columns.drop("images"), plots.COLOURS, "os^Dv", strict=False
    ):
        ax.plot(table[name], places, marker, color=colour, label=name, alpha=0.8)
    ax.set_yticks(
        places, [f"{name} ({n:.0f})" for name, n in table.images.items()], parse_math=False
    )
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
    order = next(iter(tables.values())).sum().sort_values(ascending=False, kind="stable").index
    ax, places = ax or plots.axes_of_size(9, 3.6), np.arange(len(order))
    for i, (name, table) in enumerate(tables.items()):
        ax.bar(
            places + (i - (len(tables) - 1) / 2) * 0.8 / len(tables),
            table[order].mean(),
            0.8 / len(tables),
            color=plots.COLOURS[i],
            label=name,
        )
    ax.set_xticks(places, order, rotation=45, ha="right", parse_math=False)
    ax.set(ylabel="pictures a batch")
    ax.legend(frameon=False)
    return ax.figure
