"""Few labels: how good a classifier gets from a handful of labelled paintings, and which painting to
label next.

Reads the catalogue and the clean images of DATA; writes `DATA/features.db`, and for fine-tuning a
folder for every run to `OUT/runs/`. Notebook: `experiments/20_few_labels`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, f1_score

from artclf import train
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.data.classes import in_order
from artclf.lab import experiment, protocols
from artclf.model.features import of_images
from artclf.model.heads import LinearHead, reduced
from artclf.results import plots
from artclf.results.recipe import DEFAULTS

COMPONENTS = 64  # of PCA, in which pictures are near to each other
SHORTLIST = 5  # times as many pictures as are asked for, the least sure ones
HEAD = "head on frozen features"
FINE_TUNED = "fine-tuned"
FINE_TUNING = {
    "number": 5,
    "arch": "auto",
    "size": DEFAULTS.size,
    "epochs": 10,
    "unfrozen_epochs": 3,
    "lr": DEFAULTS.lr,
    "split": "grouped",
    "seed": 1,
}


@dataclass
class Pool:
    """Pictures that may be labelled, and those that test what was learned.

    `images` is a table of `splits.items`, `x` (images, columns) the features of the frozen body as
    `heads.reduced` gives them, `points` (images, components) the same in few numbers, for
    distances, `classes` all periods in time order. `candidates` and `tests` are places in them: the
    parts train and valid, and test.
    """

    images: pd.DataFrame
    x: np.ndarray
    points: np.ndarray
    classes: list[str]

    @property
    def periods(self) -> np.ndarray:
        return self.images.period.to_numpy()

    @property
    def candidates(self) -> np.ndarray:
        return np.flatnonzero(self.images.part != "test")

    @property
    def tests(self) -> np.ndarray:
        return np.flatnonzero(self.images.part == "test")


def pool(
    data,
    arch: str = DEFAULTS.arch,
    size: int = DEFAULTS.size,
    split: str = "grouped",
    seed: int = DEFAULTS.seed,
) -> Pool:
    """The `Pool` of a data set, cut by `split` and `seed`.

    Features are standardised by all pictures, which takes no label. Raises what `splits.items` and
    `backbones.find` do, InputError where there is no part test.
    """
    images = splits.items(data, split, seed=seed)
    if not (images.part == "test").any():
        raise InputError(f"{data} has no pictures to test on: give splits.items a part test")
    body, config = protocols.frozen_body(arch, size)
    features = of_images(data, images, body, config)[:, 0]
    x = reduced(features)
    components = min(COMPONENTS, *x.shape)
    points = PCA(components, random_state=0).fit_transform(x)
    return Pool(images, x, points, in_order(images.period.unique()))


def answers(pool: Pool, labelled: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """What a head that learned from the pictures at `labelled` answers for those at `asked`:
    probabilities (images, classes), 0 for a class without a label.
    """
    periods = pool.periods[labelled]
    found = np.zeros((len(asked), len(pool.classes)))
    learned = np.unique(periods)
    if len(learned) == 1:
        found[:, pool.classes.index(learned[0])] = 1
        return found
    head = LinearHead(DEFAULTS.ridge, DEFAULTS.balance, standardise=False)
    head.fit(pool.x[labelled], periods)
    places = [pool.classes.index(name) for name in head.classes_]
    found[:, places] = head.predict_proba(pool.x[asked])
    return found


def score(pool: Pool, labelled: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1 on test of a head that learned from the pictures at `labelled`."""
    found = np.array(pool.classes)[answers(pool, labelled, pool.tests).argmax(1)]
    return _figures(pool.periods[pool.tests], found)


def _figures(given, found) -> dict[str, float]:
    return {
        "accuracy": accuracy_score(given, found),
        "macro_f1": f1_score(given, found, average="macro"),
    }


# How many labels are needed


def some_of_each(pool: Pool, number: int | None, seed: int = 0) -> np.ndarray:
    """Places of `number` random candidates of each period, or all where it has fewer or `number` is
    None.
    """
    shuffled = np.random.default_rng(seed).permutation(pool.candidates)
    order = pd.Series(pool.periods[shuffled]).groupby(pool.periods[shuffled]).cumcount()
    return shuffled[order < (number or len(shuffled))]


def learning_curve(
    pool: Pool,
    numbers: Sequence[int | None] = (1, 2, 5, 10, 20, None),
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
) -> pd.DataFrame:
    """The `score` of a head from `numbers` labels a period, drawn anew for each seed: a row each,
    with `what`, `number` (NaN for all), `labels`, `seed`.
    """
    rows = []
    for number in progress_bar(list(numbers), desc="labels a period"):
        for seed in seeds:
            labelled = some_of_each(pool, number, seed)
            figures = score(pool, labelled)
            rows.append(
                {"what": HEAD, "number": number, "labels": len(labelled), "seed": seed, **figures}
            )
    return pd.DataFrame(rows).astype({"number": float})


def configuration(**changes) -> dict:
    """All settings of one fine-tuning: `FINE_TUNING` with `changes`.

    Raises InputError for a setting that doesn't exist, SettingError for one out of its range.
    """
    return experiment.configuration(FINE_TUNING, changes)


def configurations(numbers: Sequence[int], seeds: Sequence[int], **common) -> list[dict]:
    """A `configuration` for each number and each seed, all with the settings `common`."""
    return [
        configuration(**common, number=number, seed=seed) for number in numbers for seed in seeds
    ]


def few(data, config: dict) -> pd.DataFrame:
    """The images that a fine-tuning with these settings learns from and is tested on."""
    table = splits.items(data, config["split"], seed=DEFAULTS.seed)
    return thinned(table, config["number"], config["seed"])


def thinned(table: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """A table of `splits.items` with `number` random pictures of each period in train, and a fifth
    as many, but one at least, in valid; test stays whole.
    """
    shuffled = table.sample(frac=1, random_state=seed)
    order = shuffled.groupby(["part", "period"]).cumcount()
    limits = shuffled.part.map(
        {"train": number, "valid": max(1, number // 5), "test": len(shuffled)}
    )
    return table.loc[shuffled.index[order < limits].sort_values()].reset_index(drop=True)


def fine_tune(data, out, config: dict) -> experiment.Run:
    """The run of one fine-tuning: a frozen stage, then an unfrozen one, of `train.learner`; trained,
    or read from `out` if it is there.

    The epoch is chosen on a valid part that has few labels, too.
    """
    table = few(data, config)
    name = f"fine-tuned-{config['number']}"
    return experiment.run_once(out, name, config, table, partial(_fine_tune, data, config, table))


def _fine_tune(data, config: dict, table: pd.DataFrame, folder: Path):
    learn = train.learner(
        data, folder, config["arch"], size=config["size"], split=table, seed=config["seed"]
    )
    with experiment.quiet(learn):
        learn.fit_one_cycle(config["epochs"], config["lr"])
        learn.unfreeze()
        learn.fit_one_cycle(config["unfrozen_epochs"], slice(config["lr"] / 100, config["lr"] / 10))
    tests = table[table.part == "test"]
    logits = experiment.outputs(learn, data, tests)
    return experiment.prediction_table(logits, learn.dls.vocab, tests), {}


def fine_tuning_curve(data, out, configs: Sequence[dict]) -> pd.DataFrame:
    """What `learning_curve` gives, for fine-tuned networks."""
    rows = []
    for config in progress_bar(list(configs), desc="fine-tuning"):
        predictions = fine_tune(data, out, config).predictions
        table = few(data, config)
        rows.append(
            {
                "what": FINE_TUNED,
                "number": float(config["number"]),
                "labels": int((table.part != "test").sum()),
                "seed": config["seed"],
                **_figures(predictions.period, predictions.predicted),
            }
        )
    return pd.DataFrame(rows)


# Which picture to label next


def at_random(pool: Pool, labelled, places, probabilities, number: int, rng) -> np.ndarray:
    """Any pictures."""
    return rng.permutation(places)[:number]


def by_margin(pool: Pool, labelled, places, probabilities, number: int, rng) -> np.ndarray:
    """Those whose two likeliest periods are closest (Scheffer et al. 2001)."""
    two = np.sort(probabilities, axis=1)[:, -2:]
    return places[np.argsort(two[:, 1] - two[:, 0], kind="stable")[:number]]


def by_entropy(pool: Pool, labelled, places, probabilities, number: int, rng) -> np.ndarray:
    """Those whose answer is spread over most periods."""
    logs = np.log(probabilities.clip(1e-12))
    return places[np.argsort((probabilities * logs).sum(1), kind="stable")[:number]]


def by_coverage(pool: Pool, labelled, places, probabilities, number: int, rng) -> np.ndarray:
    """Those farthest from all labelled ones, one after the other (k-center greedy, Sener and
    Savarese 2018).
    """
    points = pool.points[places]
    distances = np.full(len(places), np.inf)
    for place in labelled:
        distances = np.minimum(distances, np.linalg.norm(points - pool.points[place], axis=1))
    chosen: list[int] = []
    for _ in range(min(number, len(places))):
        farthest = int(distances.argmax())
        chosen.append(farthest)
        distances = np.minimum(distances, np.linalg.norm(points - points[farthest], axis=1))
    return places[chosen]


def by_margin_and_coverage(
    pool: Pool, labelled, places, probabilities, number: int, rng
) -> np.ndarray:
    """Of the `SHORTLIST` times as many with the smallest margin, those that cover them best: unsure
    pictures that are not all alike.
    """
    shortlist = by_margin(pool, labelled, places, probabilities, SHORTLIST * number, rng)
    return by_coverage(pool, labelled, shortlist, None, number, rng)


STRATEGIES: dict[str, Callable] = {
    "random": at_random,
    "margin": by_margin,
    "entropy": by_entropy,
    "coverage": by_coverage,
    "margin and coverage": by_margin_and_coverage,
}


def next_to_label(
    pool: Pool,
    labelled: np.ndarray,
    number: int = 20,
    strategy: str = "margin",
    seed: int = 0,
    places: np.ndarray | None = None,
) -> np.ndarray:
    """Places of the `number` candidates to label next; `labelled` are those that have a label, at
    least one, `places` those to choose from, by default all candidates without a label. Raises
    SettingError for an unknown strategy.
    """
    settings.check_choice("strategy", strategy, STRATEGIES)
    if places is None:
        places = np.setdiff1d(pool.candidates, labelled)
    probabilities = answers(pool, labelled, places)
    rng = np.random.default_rng(seed)
    return STRATEGIES[strategy](pool, labelled, places, probabilities, number, rng)


def compare(
    pool: Pool,
    strategies: Sequence[str] = tuple(STRATEGIES),
    start: int = 20,
    step: int = 20,
    rounds: int = 15,
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
) -> pd.DataFrame:
    """The `score` after each round of labelling by each strategy: a row each, with `strategy`,
    `labels`, `seed`.

    Each seed begins with the same `start` random pictures for all strategies; in each round, `step`
    further ones get their label, the catalogue's.
    """
    rows = []
    for strategy in progress_bar(list(strategies), desc="strategies"):
        for seed in seeds:
            labelled = np.random.default_rng(seed).permutation(pool.candidates)[:start]
            for number in range(rounds + 1):
                if number:
                    chosen = next_to_label(pool, labelled, step, strategy, 1000 * seed + number)
                    labelled = np.concatenate([labelled, chosen])
                rows.append(
                    {
                        "strategy": strategy,
                        "labels": len(labelled),
                        "seed": seed,
                        **score(pool, labelled),
                    }
                )
    return pd.DataFrame(rows).drop_duplicates(["strategy", "labels", "seed"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How good each strategy of `compare` is: a row each.

    `accuracy` and `macro_f1` are means over all rounds after the first and all seeds, and
    `<figure>_above` is how far they are above those of `random`; `lowest` and `highest` are the
    differences of macro F1 of single seeds, `seeds_above` the number of seeds in which it is above.
    `labels_for_the_same` is after how many labels the mean macro F1 reaches what random has in the
    end, NaN where it doesn't.
    """
    later = table[table.labels > table.labels.min()]
    means = later.groupby(["strategy", "seed"], sort=False)[["accuracy", "macro_f1"]].mean()
    by_labels = table.groupby(["strategy", "labels"], sort=False).macro_f1.mean()
    random_end = by_labels["random"].iloc[-1]
    rows = {}
    for strategy in table.strategy.unique():
        gains = means.loc[strategy] - means.loc["random"]
        reached = by_labels[strategy][by_labels[strategy] >= random_end]
        rows[strategy] = {
            **means.loc[strategy].mean(),
            "accuracy_above": gains.accuracy.mean(),
            "macro_f1_above": gains.macro_f1.mean(),
            "lowest": gains.macro_f1.min(),
            "highest": gains.macro_f1.max(),
            "seeds_above": int((gains.macro_f1 > 0).sum()),
            "labels_for_the_same": reached.index[0] if len(reached) else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# Plots


def plot_lines(table: pd.DataFrame, by: str, figure: str = "macro_f1", ax=None):
    """A figure against the number of labels as a Figure: a line for each value of the column `by`,
    means over the seeds, with the range of the seeds.
    """
    ax = ax or plots.axes_of_size(7, 4)
    for number, (name, rows) in enumerate(table.groupby(by, sort=False)):
        runs = rows.groupby("labels")[figure].agg(["mean", "min", "max"])
        colour = f"C{number}"
        ax.plot(runs.index, runs["mean"], ".-", color=colour, label=name)
        ax.fill_between(runs.index, runs["min"], runs["max"], color=colour, alpha=0.12, lw=0)
    ax.set(xlabel="labelled pictures", ylabel=figure.replace("_", " "))
    if table.labels.max() > 20 * table.labels.min():
        ax.set_xscale("log")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax.figure


def files_of(pool: Pool, places, data) -> tuple[list[Path], list[str]]:
    """The files and periods of the pictures at `places`, for `plots.plot_pictures`."""
    rows = pool.images.iloc[places]
    return [Path(data) / file for file in rows.file], list(rows.period)
