"""One body, two heads: the period and the artist of a picture, beside a network for each alone.

Reads the catalogue and the clean images of DATA; writes a folder for every run to `OUT/runs/`,
`OUT/results.csv` and the stored features. Notebook: `experiments/12_period_and_artist`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.losses import CrossEntropyLossFlat
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.nn import functional

from artclf import predict, train
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.lab import experiment
from artclf.model import engine, network
from artclf.results import evaluation

DEFAULTS = {
    "method": "sum",
    "fewest": 5,
    "arch": "auto",
    "size": 224,
    "depth": 1,
    "epochs": 10,
    "unfrozen_epochs": 0,
    "lr": 2e-3,
    "seed": 42,
}
METHODS = {
    "period alone": ("period",),
    "artist alone": ("artist",),
    "sum": ("period", "artist"),
    "uncertainty": ("period", "artist"),
}  # what each learns
FREQUENT = "most frequent"
FIGURES = {
    "period_accuracy": "period, accuracy",
    "period_f1": "period, macro F1",
    "artist_accuracy": "artist, accuracy",
    "artist_f1": "artist, macro F1",
}
MISSING = -100  # torch's ignore_index


def cut(data, config: dict):
    """The images of `splits.items`, cut by split `grouped` and the seed, with a column `artist`.

    All spellings of an artist (`splits.usable`) become the most frequent one. `artist` is '' where
    it is unknown, or has fewer than `fewest` train images. Raises InputError where fewer than two
    artists are left.
    """
    table = splits.items(data, seed=config["seed"])
    signed = splits.usable(data).query("painter != ''")
    spellings = signed.groupby("painter").artist.agg(lambda names: names.mode()[0])
    artist_of_file = signed.set_index("file").painter.map(spellings)
    artist = table.file.map(artist_of_file).astype(object).fillna("")
    counts = artist[(table.part == "train") & (artist != "")].value_counts()
    frequent = counts.index[counts >= config["fewest"]]
    if len(frequent) < 2:
        raise InputError(
            f"fewer than two artists in {data} have {config['fewest']} train images: "
            "import with a column `artist`, or ask for fewer"
        )
    return table.assign(artist=artist.where(artist.isin(frequent), ""))


class Both(nn.Module):
    """The sum of the cross-entropies of the tasks of a method: outputs are `periods` periods, then
    artists; targets are (images, 2).

    A missing artist adds nothing. `uncertainty` (Kendall et al. 2018) learns s of each task in
    exp(-s) loss + s / 2, where exp(s) is the variance of the task's noise; other methods take the
    plain sum.
    """

    def __init__(self, periods: int, method: str):
        super().__init__()
        self.periods, self.tasks = periods, METHODS[method]
        self.log_vars = nn.Parameter(torch.zeros(2)) if method == "uncertainty" else None

    def forward(self, outputs, targets):
        parts = {
            "period": (outputs[:, : self.periods], targets[:, 0]),
            "artist": (outputs[:, self.periods :], targets[:, 1]),
        }
        losses = torch.stack([_cross_entropy(*parts[task]) for task in self.tasks])
        if self.log_vars is not None:
            losses = (-self.log_vars).exp() * losses + self.log_vars / 2
        return losses.sum()


def _cross_entropy(logits, targets):
    """The mean over targets that aren't missing; 0 where a batch has none (torch gives nan)."""
    total = functional.cross_entropy(logits, targets, ignore_index=MISSING, reduction="sum")
    number = (targets != MISSING).sum()
    return total / number.clamp(min=1)


class Artists(Callback):
    """Adds the artist to the targets that `engine.Stored` gives; the learner's metrics are those of
    `task`.

    `table` is that of the learner with a column `artist`, `names` are the artists in the order of
    the outputs.
    """

    run_after = engine.Stored

    def __init__(self, table, names: list[str], task: str):
        numbers = pd.Index(names).get_indexer(table.artist)
        targets = torch.tensor(np.where(numbers < 0, MISSING, numbers))
        self.task = task
        self.targets = {
            part: targets[np.flatnonzero(table.part == part)] for part in ("train", "valid")
        }

    def before_train(self):
        self._add_artists("train")

    def before_validate(self):
        self._add_artists("valid")

    def after_loss(self):
        if self.y.ndim == 1:
            return
        periods = len(self.dls.vocab)
        if self.task == "artist":
            self.learn.pred = self.pred[:, periods:]
            self.learn.yb = (self.y[:, 1],)
        else:
            self.learn.pred = self.pred[:, :periods]
            self.learn.yb = (self.y[:, 0],)

    def _add_artists(self, part: str):
        """Replace the learner's loader, if it is that of `engine.Stored`, by one with both
        targets.
        """
        loader = self.learn.dl
        stored = self.learn.stored
        if loader is not stored.loaders.get((part, stored.frozen)):
            return
        targets = self.targets[part]
        views = len(loader.dataset) // len(targets)
        artists = targets.repeat_interleave(views)

        def create_batch(places):
            x, periods = loader.create_batch(places)
            both = torch.stack([periods, artists[places].to(periods.device)], 1)
            return x, both

        self.learn.dl = loader.new(create_batch=create_batch)
        self.learn.dl.rng = loader.rng


def configuration(**changes) -> dict:
    """All settings of one run: `DEFAULTS` with `changes`.

    Raises InputError for a setting that doesn't exist, or a value that makes no sense.
    """
    config = experiment.configuration(DEFAULTS, changes)
    settings.check(depth=config["depth"])
    settings.check_choice("method", config["method"], METHODS)
    return config


def configurations(
    methods: Sequence[str] = tuple(METHODS), seeds: Sequence[int] = (42,), **common
) -> list[dict]:
    """A `configuration` for each method and each seed, all with the settings `common`."""
    return [
        configuration(**common, method=method, seed=seed) for method in methods for seed in seeds
    ]


def learner(data, out, config: dict, table):
    """The learner of one configuration on the images of `cut`, its body frozen; its
    `config["artists"]` are the artists in the order of the outputs.

    A network for artists alone learns from pictures whose artist is known. The best epoch is chosen
    by the period, or by the artist where the network learns only that.
    """
    tasks = METHODS[config["method"]]
    names = sorted(set(table.artist) - {""})
    split = "grouped"  # by name, so that `export` can cut the same parts again
    if "period" not in tasks:
        table = table[table.artist != ""]
        split = table
    loss = Both(table.period.nunique(), config["method"])
    learn = train.learner(
        data,
        out,
        arch=config["arch"],
        size=config["size"],
        split=split,
        seed=config["seed"],
        depth=config["depth"],
        balance=False,
        loss_func=loss,
        cbs=[Artists(table, names, tasks[0])],
    )
    learn.config["artists"] = names
    body = learn.model[0]
    head = network.new_head(body.n_features, learn.config).to(learn.dls.device)
    learn.model[1] = head
    if loss.log_vars is not None:
        head.log_vars = loss.log_vars  # the optimizer learns the head, checkpoints keep it
    learn.opt = None  # of the head that was replaced
    learn.freeze()
    if loss.log_vars is not None:
        learn.opt.state[loss.log_vars]["do_wd"] = False
    return learn


def trained(data, out, config: dict, table):
    """A learner of one configuration, trained frozen, then as a whole for `unfrozen_epochs`.

    Training that was interrupted goes on from what `out` keeps.
    """
    lr = config["lr"]
    with experiment.quiet(learner(data, out, config, table)) as learn:
        learn.fit_one_cycle(config["epochs"], lr)
        if config["unfrozen_epochs"]:
            learn.unfreeze()
            learn.fit_one_cycle(config["unfrozen_epochs"], slice(lr / 200, lr / 20))
    return learn


def fit(data, out, config: dict) -> experiment.Run:
    """The run of one configuration on the images of `data`: trained, or read from `out` if it is
    there.

    Predictions also have the columns `artist` and `predicted_artist`, and lack the columns of a
    task that wasn't learned. The fact `log_vars` is s of period and artist, None without
    uncertainty weighting. Raises what `cut` does.
    """
    table = cut(data, config)

    def train_and_predict(folder: Path) -> tuple[pd.DataFrame, dict]:
        learn = trained(data, folder, config, table)
        logits = experiment.outputs(learn, data, table)
        predictions = _predictions(logits, learn.config, METHODS[config["method"]], table)
        log_vars = learn.loss_func.log_vars
        return predictions, {"log_vars": None if log_vars is None else log_vars.tolist()}

    return experiment.run_once(out, config["method"], config, table, train_and_predict)


def _predictions(logits: torch.Tensor, config: dict, tasks: Sequence[str], table) -> pd.DataFrame:
    periods = len(config["vocab"])
    predictions = table[["file", "part", "period"]]
    if "period" in tasks:
        predictions = experiment.prediction_table(logits[:, :periods], config["vocab"], table)
    predictions = predictions.assign(artist=table.artist)
    if "artist" in tasks:
        names = np.array(config["artists"], dtype=object)
        predictions["predicted_artist"] = names[logits[:, periods:].argmax(1).numpy()]
    return predictions


def export(data, out, config: dict) -> Path:
    """Train one configuration of both tasks, and export it to `out`, which comes back:
    `artclf.load(out).predict` gives both.

    Raises InputError for a method that learns one task alone.
    """
    if len(METHODS[config["method"]]) < 2:
        raise InputError(f"{config['method']} has one head: take sum or uncertainty")
    learn = trained(data, out, config, cut(data, config))
    if learn.loss_func.log_vars is not None:
        del learn.model[1].log_vars
    learn.loss_func = CrossEntropyLossFlat()  # fastai's own, for `learner.pkl`
    return predict.export(learn, out)


def figures(predictions) -> dict[str, float]:
    """The `FIGURES` of predictions on test: of artists over pictures with a known one, nan for a
    task that wasn't learned.
    """
    test = evaluation.of_part(predictions, "test")
    signed = test[test.artist != ""]
    result = dict.fromkeys(FIGURES, np.nan)
    if "predicted" in test:
        result["period_accuracy"] = accuracy_score(test.period, test.predicted)
        result["period_f1"] = f1_score(test.period, test.predicted, average="macro")
    if "predicted_artist" in test and len(signed):
        result["artist_accuracy"] = accuracy_score(signed.artist, signed.predicted_artist)
        result["artist_f1"] = f1_score(signed.artist, signed.predicted_artist, average="macro")
    return result


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run with `label`, the settings, the `FIGURES` and
    `seconds`.

    The first rows are those of always answering the most frequent period and artist of train, one a
    seed. Runs that `out` keeps are not computed again. Writes `OUT/results.csv`.
    """
    runs = [fit(data, out, config) for config in progress_bar(configs, desc="configurations")]
    rows = [
        {
            "label": run.config["method"],
            **run.config,
            **figures(run.predictions),
            "seconds": run.seconds,
        }
        for run in runs
    ]
    cuts = {run.config["seed"]: run.predictions for run in runs}
    baselines = [
        {"label": FREQUENT, "seed": seed, **figures(_always_most_frequent(predictions))}
        for seed, predictions in cuts.items()
    ]
    table = pd.DataFrame([*baselines, *rows])
    experiment.write_results(out, table)
    return table


def _always_most_frequent(predictions) -> pd.DataFrame:
    train_rows = predictions[predictions.part == "train"]
    artists = train_rows.artist[train_rows.artist != ""]
    return predictions.assign(
        predicted=train_rows.period.mode()[0], predicted_artist=artists.mode()[0]
    )


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a method: the means over its runs, their number, and the
    ranges of macro F1.
    """
    ranges = {"period_range": "period_f1", "artist_range": "artist_f1"}
    return experiment.means(table, FIGURES, ranges)


def plot_results(table, ax=None):
    """The `FIGURES` of each method of a table of `compare` as a Figure: means, and runs as
    rings.
    """
    return experiment.plot_means(table, FIGURES, ax)
