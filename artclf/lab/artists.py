"""One body, two heads: the period and the artist of a picture, beside a network for each alone.

Reads the catalogue and the clean images of DATA; writes a folder for every run to `OUT/runs/`,
`OUT/results.csv`, the stored features, and by `split.items` the catalogue's column `split_grouped`.
Notebook: `experiments/12_period_and_artist`.
"""

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
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.lab import frozen
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
    """`split.items` by split `grouped` and the seed, with a column `artist`, '' where it counts as
    missing.

    An artist's spellings are one, by `split.usable`, under the most frequent; missing are unknown
    ones, and those with fewer than `fewest` train images. Raises ValueError where fewer than two
    artists are left.
    """
    table, known = splits.items(data, seed=config["seed"]), splits.usable(data)
    known = known[known.painter != ""]
    names = known.groupby("painter").artist.agg(lambda spelt: spelt.mode()[0])
    artist = table.file.map(known.set_index("file").painter.map(names)).astype(object).fillna("")
    counts = artist[(table.part == "train") & (artist != "")].value_counts()
    enough = counts.index[counts >= config["fewest"]]
    if len(enough) < 2:
        raise InputError(
            f"fewer than two artists in {data} have {config['fewest']} train images: "
            "import with a column `artist`, or ask for fewer"
        )
    return table.assign(artist=artist.where(artist.isin(enough), ""))


class Both(nn.Module):
    """Cross-entropy of the tasks of a method: outputs are `periods` periods, then artists; targets
    are (images, 2).

    Missing artists count nothing. `uncertainty` (Kendall et al. 2018) learns s of each task in
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
    """The mean over known targets, 0 where a batch has none, for which torch gives nan."""
    total = functional.cross_entropy(logits, targets, ignore_index=MISSING, reduction="sum")
    return total / (targets != MISSING).sum().clamp(min=1)


class Artists(Callback):
    """Adds the artist to the targets that `engine.Stored` gives; the learner's metrics are those of
    `task`.

    `table` is that of the learner with a column `artist`, `names` are the artists in the order of
    the outputs.
    """

    run_after = engine.Stored

    def __init__(self, table, names: list[str], task: str):
        places = pd.Index(names).get_indexer(table.artist)
        targets = torch.tensor(np.where(places < 0, MISSING, places))
        self.task, self.targets = (
            task,
            {part: targets[np.flatnonzero(table.part == part)] for part in splits.PARTS[:2]},
        )

    def before_train(self):
        self._add("train")

    def before_validate(self):
        self._add("valid")

    def after_loss(self):
        if self.y.ndim == 1:
            return
        number, place = len(self.dls.vocab), int(self.task == "artist")
        self.learn.pred = self.pred[:, number:] if place else self.pred[:, :number]
        self.learn.yb = (self.y[:, place],)

    def _add(self, part: str):
        own, stored = self.learn.dl, self.learn.stored
        if own is not stored.loaders.get((part, stored.frozen)):
            return
        artists = self.targets[part].repeat_interleave(len(own.dataset) // len(self.targets[part]))

        def take(places):
            x, y = own.create_batch(places)
            return x, torch.stack([y, artists[places].to(y.device)], 1)

        self.learn.dl = own.new(create_batch=take)
        self.learn.dl.rng = own.rng


def configuration(**changes) -> dict:
    """All settings of one run: `DEFAULTS` with `changes`. Raises ValueError for a setting that
    there isn't.
    """
    return frozen.configuration(DEFAULTS, METHODS, **changes)


def configurations(methods=tuple(METHODS), seeds=(42,), **common) -> list[dict]:
    """A `configuration` for each method and each seed, all with the settings `common`."""
    return [
        configuration(**common, method=method, seed=seed) for method in methods for seed in seeds
    ]


def learner(data, out, config: dict, table):
    """The learner of one configuration on the images of `cut`, its body frozen; `config["artists"]`
    are its artists.

    A network for artists alone learns from pictures whose artist is known. The best epoch is that
    of the period, or of the artist where that is all it learns.
    """
    method, names, cutting = config["method"], sorted(set(table.artist) - {""}), "grouped"
    if "period" not in METHODS[method]:
        table = cutting = table[table.artist != ""]
    number = table.period.nunique()
    loss, adds = Both(number, method), Artists(table, names, METHODS[method][0])
    learn = train.learner(
        data,
        out,
        arch=config["arch"],
        size=config["size"],
        split=cutting,
        seed=config["seed"],
        depth=config["depth"],
        balance=False,
        loss_func=loss,
        cbs=[adds],
    )
    learn.config["artists"] = names
    head = learn.model[1] = network.new_head(learn.model[0].width, learn.config).to(
        learn.dls.device
    )
    if loss.log_vars is not None:
        head.log_vars = loss.log_vars  # learned and kept with the head
    learn.opt = None
    learn.freeze()
    if loss.log_vars is not None:
        learn.opt.state[loss.log_vars]["do_wd"] = False
    return learn


def trained(data, out, config: dict, table):
    """A learner of one configuration, trained frozen, then, if `unfrozen_epochs`, as a whole; it
    goes on if stopped.
    """
    with frozen.quiet(learner(data, out, config, table)) as learn:
        learn.fit_one_cycle(config["epochs"], config["lr"])
        if config["unfrozen_epochs"]:
            learn.unfreeze()
            learn.fit_one_cycle(
                config["unfrozen_epochs"], slice(config["lr"] / 200, config["lr"] / 20)
            )
    return learn


def fit(data, out, config: dict) -> frozen.Run:
    """Train one configuration on the images of `data`, or read what `out` keeps of it: a
    `frozen.Run`.

    Predictions have the columns `artist` and `predicted_artist`, too, and lack those of a task not
    learned. The fact `log_vars` is s of period and artist, None without uncertainty weighting.
    Raises what `cut` does.
    """
    table, tasks = cut(data, config), METHODS[config["method"]]

    def run(folder: Path):
        learn = trained(data, folder, config, table)
        logits, number = frozen.outputs(learn, data, table), len(learn.dls.vocab)
        found = table[["file", "part", "period"]]
        if "period" in tasks:
            found = frozen.predictions(logits[:, :number], learn.config["vocab"], table)
        found = found.assign(artist=table.artist)
        if "artist" in tasks:
            names = np.array(learn.config["artists"], dtype=object)
            found["predicted_artist"] = names[logits[:, number:].argmax(1).numpy()]
        log_vars = learn.loss_func.log_vars
        return found, {"log_vars": None if log_vars is None else log_vars.tolist()}

    return frozen.kept(out, config, table, run)


def export(data, out, config: dict) -> Path:
    """Train one configuration of both tasks, and export it to `out`: `artclf.load(out).predict`
    gives both.

    Raises ValueError for a method that learns one task alone.
    """
    if len(METHODS[config["method"]]) < 2:
        raise InputError(f"{config['method']} has one head: take sum or uncertainty")
    learn = trained(data, out, config, cut(data, config))
    if learn.loss_func.log_vars is not None:
        del learn.model[1].log_vars
    learn.loss_func = CrossEntropyLossFlat()  # fastai's own, for `learner.pkl`
    return predict.export(learn, out)


def figures(predictions) -> dict[str, float]:
    """The `FIGURES` of predictions on test, those of artists over pictures with a known one; nan
    for tasks not learned.
    """
    test, found = evaluation.of_part(predictions, "test"), dict.fromkeys(FIGURES, np.nan)
    for task, answers, rows in (
        ("period", "predicted", test),
        ("artist", "predicted_artist", test[test.artist != ""]),
    ):
        if answers not in test or rows.empty:
            continue
        found[f"{task}_accuracy"] = accuracy_score(rows[task], rows[answers])
        found[f"{task}_f1"] = f1_score(rows[task], rows[answers], average="macro")
    return found


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run with `label`, the settings, the `FIGURES` and
    `seconds`.

    The first rows are those of always answering the most frequent period and artist of train, one a
    seed. What `out` keeps is not computed again. Writes `OUT/results.csv`.
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
    always = [
        {"label": FREQUENT, "seed": seed, **figures(_frequent(table))}
        for seed, table in cuts.items()
    ]
    table = pd.DataFrame([*always, *rows])
    table.to_csv(Path(out) / "results.csv", index=False)
    return table


def _frequent(table):
    known = table[table.part == "train"]
    return table.assign(
        predicted=known.period.mode()[0],
        predicted_artist=known.artist[known.artist != ""].mode()[0],
    )


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a method: the means over its runs, their number, and the
    ranges of macro F1.
    """
    return frozen.means(table, FIGURES, {"period_range": "period_f1", "artist_range": "artist_f1"})


def plot_results(table, ax=None):
    """The `FIGURES` of each method of a table of `compare` as a Figure: means, and runs as
    rings.
    """
    return frozen.plot_means(table, FIGURES, ax)
