"""Step train: the classic fastai recipe, from clean images to an exported learner.

Reads `DATA/clean/` and the catalogue, or a pack of them; writes `EXPORT/` (checkpoints in `EXPORT/models/`,
`history.csv`, and by `predict.export` all the rest). Notebook: `03_train`, which shows the lines of
`fit` one by one.
"""

import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import artclf.model  # noqa: F401  # isort: skip  (imports fastai without its warnings)

import pandas as pd
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import F1Score, accuracy, error_rate
from fastai.torch_core import set_seed
from fastcore.foundation import L

from artclf import predict
from artclf.base import settings as ranges
from artclf.base.errors import InputError
from artclf.base.files import read_json
from artclf.base.locks import locked
from artclf.base.processes import MapJobs
from artclf.data import cleaning
from artclf.data.classes import in_order
from artclf.data.pictures import RESIZE
from artclf.data.splits import (
    AUTO,
    choose,
    cut_name,
    fingerprint,
    items,
    of_training,
    record,
)
from artclf.model import backbones, engine, network, ranks
from artclf.model.feature_rows import rows_of, store_in_shares
from artclf.model.heads import LinearHead
from artclf.model.keep import BestEpoch, CheckFit, History, OneRun, Resume
from artclf.model.loaders import data_loaders
from artclf.model.losses import AdjustedLoss, balanced_weights
from artclf.model.pixels import pictures_of
from artclf.model.store import store_file
from artclf.results.recipe import DEFAULTS, EXPERIMENTS
from artclf.results.runs import FIGURES, read_run, spread

__all__ = ["fit", "learn_from_all", "learner", "repeat"]

# the settings of a learner that have a range
NUMBERS = (
    "size",
    "batch_size",
    "seed",
    "dropout",
    "ridge",
    "tau",
    "unfreeze_from",
    "width",
    "depth",
    "views",
)
# the others that a network for all images takes over
SETTINGS_OF_FINAL = ("resize", "pool", "balance", "precision", "cached")
NOT_REPEATABLE = (
    "the recipe can't be repeated on all pictures, because parts, callbacks or arguments of your "
    "own are in it"
)
NOT_FOR_SEVERAL = (
    "several processes learn from what is stored, with a pretrained body and a linear head: leave "
    "out --no-cached and --no-pretrained, or train with one process"
)
FASTAI_WEIGHT_DECAY = 0.01  # AdamW's default in fastai
STRONG_WEIGHT_DECAY = 3.0  # keeps a new head on a pretrained body small where there is no ridge


def fit(
    data,
    out,
    epochs: int = DEFAULTS.epochs,
    unfrozen_epochs: int = DEFAULTS.unfrozen_epochs,
    lr: float = DEFAULTS.lr,
    gradual: bool = DEFAULTS.gradual,
    final: bool = DEFAULTS.final,
    **kwargs,
) -> Learner:
    """Train the head alone, then the upper blocks of the body, too, and export; return the learner
    with its best weights.

    `lr` is the highest learning rate of the head. Once the body is unfrozen, the head learns at a
    tenth of it and the lowest block at a tenth of that (linear probing, then fine-tuning: Kumar et
    al. 2022). With `gradual`, the blocks are unfrozen one after the other, an epoch each (Howard
    and Ruder 2018), before all learn. With `final`, the exported network then learns from the
    images of all parts (see `learn_from_all`), unless arguments of yours can't be repeated. Further
    arguments go to `learner`; `split` must be a name here, because the export divides the data
    again by it. Raises InputError where `split` isn't a name, or where `gradual` finds a single
    block to unfreeze, SettingError for a setting that makes no sense, StepError where the loss
    becomes NaN or another process trains into `out`.
    """
    ranges.check(epochs=epochs, unfrozen_epochs=unfrozen_epochs, lr=lr)
    if not isinstance(kwargs.get("split", ""), str):
        raise InputError(
            "an export needs a split by name: for a table, use train.learner and its fits"
        )
    learn = learner(data, out, **kwargs)
    groups = network.parameter_groups(learn.model, learn.config["unfreeze_from"])
    if gradual and len(groups) < 3:
        raise InputError(
            "--gradual has a single block to unfreeze: give it more by --unfreeze-from 3 or lower"
        )
    with locked(out) if ranks.is_first() else nullcontext():
        with _bar(learn):
            _fit_stages(learn, epochs, unfrozen_epochs, lr, gradual)
        if ranks.is_first():
            predict.export(learn, out)
        ranks.wait_for_all()
        if final and read_json(Path(out) / "metrics.json")["recipe"]:
            learn_from_all(learn, out)
        elif final:
            print(f"The exported network learned from part train alone: {NOT_REPEATABLE}.")
    return learn


def learn_from_all(learn: Learner, out=None) -> Learner:
    """Train the recipe of `learn` once more, on the images of all parts, and put that network into
    the export `out`, which keeps the figures of `learn`; return its learner.

    `out` is the export of `learn` (by default, its own path). The new network ends with the epoch
    that was chosen for `learn`; nothing is chosen again. Where that was one of a linear head alone,
    the new head is the one with the least loss, which a solver finds in seconds (see
    `heads.LinearHead`). `predict.export_final` says what the export then holds. Checkpoints are
    kept in `OUT/models/all/`, so a run that was killed goes on. Raises InputError where `out` is no
    export of `learn`, or its recipe can't be repeated.
    """
    out = Path(out or learn.path)
    metrics = read_json(out / "metrics.json")
    config = read_json(out / "config.json")
    if config.get("data_hash") != learn.config["data_hash"]:
        raise InputError(
            f"{out} is no export of this learner: call predict.export(learn, out) first"
        )
    recipe = metrics["recipe"]
    if not recipe:
        raise InputError(
            f"{NOT_REPEATABLE}: leave this out (`FINAL = False` in `03_train`), or train on all "
            "images yourself, with a table as `split`"
        )
    fits = {row["fit"] for row in learn.history.rows}
    if len(fits) != len(metrics["protocol"]["fits"]):
        raise InputError(
            f"this learner was trained since it was exported to {out}: call predict.export(learn, "
            "out) again"
        )
    images = of_training(learn.data, learn.config)
    table = pd.concat([images.assign(part="train"), images[images.part == "valid"]])
    settings = {name: learn.config[name] for name in (*NUMBERS, *SETTINGS_OF_FINAL)}
    again = learner(
        learn.data,
        out / "models" / "all",
        recipe["arch"],
        split=table,
        pretrained=recipe["pretrained"],
        weights=learn.weights_file,
        map_jobs=learn.map_jobs,
        **settings,
    )
    best = learn.best_epoch
    in_first_fit = best.fit_number == 0
    if in_first_fit and _first_fit_is_convex(again.config):
        print(f"The network that is exported learns from all {len(images)} images.")
        _solve_head(again, images)
    else:
        print(
            f"The network that is exported learns from all {len(images)} images. What follows of valid "
            "is of images that it learns from, and says nothing of others:"
        )
        again.best_epoch.chosen = (best.fit_number, best.epoch_number)
        again.config["chosen_epoch"] = list(again.best_epoch.chosen)
        with _bar(again):
            _fit_stages(
                again,
                recipe["epochs"],
                0 if in_first_fit else recipe["unfrozen_epochs"],
                recipe["lr"],
                recipe["gradual"] and not in_first_fit,
            )
    if ranks.is_first():
        predict.export_final(again, out)
    ranks.wait_for_all()
    return again


def _first_fit_is_convex(config: dict) -> bool:
    """Whether the loss of the first fit has a single minimum: only a head learns, which is linear,
    has a penalty and drops no input.
    """
    head_alone = config["weights"] != "random"
    return head_alone and config["depth"] == 0 and config["ridge"] > 0 and config["dropout"] == 0


def _solve_head(learn: Learner, images: pd.DataFrame):
    """Give the head of `learn` the weights with the least loss on `images`."""
    config = learn.config
    views = range(config["views"])
    pictures = pictures_of(learn.data, images, config)
    store_in_shares(pictures, learn.model[0], config, views)
    x = rows_of(pictures, learn.model[0], config, views, learn.map_jobs)
    classes = pd.Index(config["vocab"]).get_indexer(images.period)
    head = LinearHead(config["ridge"], config["balance"], config["tau"])
    if ranks.is_first():
        head.fit(x, classes).put_into(learn.model[1])


def _bar(learn: Learner):
    """Shows a progress bar, except in a file, where it would be one line per step."""
    return nullcontext() if sys.stdout.isatty() else learn.no_bar()


def _fit_stages(learn: Learner, epochs: int, unfrozen_epochs: int, lr: float, gradual: bool):
    """The fits of `fit`, with a checkpoint after each stage."""
    learn.fit_one_cycle(epochs, lr)
    learn.save("stage-1")
    if gradual:
        for learning_groups in range(2, len(learn.opt.param_lists)):
            learn.freeze_to(-learning_groups)
            learn.fit_one_cycle(1, slice(lr / 100, lr / 10))
    learn.unfreeze()
    learn.fit_one_cycle(unfrozen_epochs, slice(lr / 100, lr / 10))
    learn.save("stage-2")


def learner(
    data,
    out,
    arch: str = DEFAULTS.arch,
    size: int = DEFAULTS.size,
    resize: str = DEFAULTS.resize,
    batch_size: int = DEFAULTS.batch_size,
    split=DEFAULTS.split,
    parts: Sequence[float] = DEFAULTS.parts,
    seed: int = DEFAULTS.seed,
    exclude: Sequence[str] = DEFAULTS.exclude,
    dropout: float = DEFAULTS.dropout,
    ridge: float = DEFAULTS.ridge,
    unfreeze_from: int = DEFAULTS.unfreeze_from,
    balance: bool = DEFAULTS.balance,
    tau: float = DEFAULTS.tau,
    pretrained: bool = DEFAULTS.pretrained,
    weights=DEFAULTS.weights,
    precision: str = DEFAULTS.precision,
    cached: bool = DEFAULTS.cached,
    width: int = EXPERIMENTS["width"],
    depth: int = EXPERIMENTS["depth"],
    pool: str = EXPERIMENTS["pool"],
    views: int = EXPERIMENTS["views"],
    metrics=(error_rate, accuracy),
    cbs=(),
    map_jobs: MapJobs | None = None,
    **kwargs,
) -> Learner:
    """A fastai `Learner` on the clean images of `data`, its body frozen, that keeps its best epoch
    under `out`. `data` is the folder of a data set, or a pack of its clean copies.

    `arch` is a name that `backbones.find` knows, or several with `+` between them; it starts from
    pretrained weights, or from those in the file `weights` (safetensors or a state dict), which is
    for one network. Pictures are brought to `size` x `size` px by `resize` (squish, crop or pad).
    `splits.items` divides them by `split`, or `split` is a table that it returned. The head has
    `depth` hidden layers of `width` units on the features of the body (`pool`, see `network.Body`).
    A head without hidden layers is regularised by `ridge` (see `engine.Ridge`); with hidden layers,
    or with a `ridge` of 0, AdamW's weight decay does that. While the body is frozen, the head
    learns on `views` views of each picture (see `features.feature_views`); once unfrozen, the body
    learns from block `unfreeze_from` on (1 to 4, 0 for all). With `balance`, every period weighs
    the same in the loss; `tau` is that of `losses.AdjustedLoss`. `precision` is float32 or
    bfloat16. With `cached`, batches come from stored features and pixels (see `engine.Stored`),
    else from fastai's own loaders, which decode every picture in every epoch. `map_jobs` computes
    stored features elsewhere than in this process (see `features.feature_views`). Training that was
    interrupted goes on from its last finished epoch; the same settings give the same weights on one
    machine. `metrics` and `cbs` are one or several of fastai's or of yours; macro F1 is added to
    the metrics, because it chooses the best epoch. Further arguments, such as `loss_func`, go to
    `Learner`. Raises SettingError for settings that make no sense, InputError for those that don't
    fit the data and for a pack of raw pictures, FileNotFoundError without a catalogue or where clean
    copies are gone.
    """
    callbacks = [callback() if isinstance(callback, type) else callback for callback in L(cbs)]
    settings = {
        "size": size,
        "resize": resize,
        "width": width,
        "depth": depth,
        "dropout": dropout,
        "ridge": ridge,
        "pool": pool,
        "views": views,
        "unfreeze_from": unfreeze_from,
        "balance": balance,
        "tau": tau,
        "batch_size": batch_size,
        "precision": precision,
        "cached": cached,
        "seed": seed,
        "split": split if isinstance(split, str) else "table",
        "parts": list(parts),
        "exclude": list(exclude),
        "callbacks": [type(callback).__name__ for callback in callbacks],
        "arguments": sorted(kwargs),
    }
    _check_settings(settings)
    if ranks.are_several() and not (cached and pretrained and depth == 0):
        raise InputError(NOT_FOR_SEVERAL)
    cleaning.check_has_copies(data)
    backbone = backbones.find(arch, pretrained, weights)
    settings["max_size"] = _max_size(data, size)
    if isinstance(split, str) and split == AUTO:
        split, why = choose(data, exclude)
        settings["split"] = split
        if why:
            print(why)
    if isinstance(split, str):
        table = items(data, split, parts, seed, exclude)
        if ranks.is_first():
            record(data, table, cut_name(split, parts, seed, exclude))
    else:
        table = split
    config = _config(settings, backbone, table)
    cleaning.check_copies(data, table.file)
    set_seed(seed, reproducible=True)
    rows = table[table.part != "test"]
    copies = cleaning.copies(data, rows.file)
    dls = data_loaders(copies, rows.part == "valid", config, path=Path(data))
    loss = _loss(table, balance, tau, dls.device)
    uses_ridge = bool(ridge) and depth == 0
    needs_strong_decay = pretrained and not uses_ridge
    weight_decay = STRONG_WEIGHT_DECAY if needs_strong_decay else FASTAI_WEIGHT_DECAY
    learn = network.new_learner(
        dls,
        config,
        weights,
        path=Path(out),
        train_bn=not pretrained,
        cbs=[CheckFit(), OneRun(), History(), BestEpoch(), Resume(config)],
        metrics=[*L(metrics), _macro_f1()],
        **{"wd": weight_decay, "loss_func": loss, **kwargs},
    )
    learn.data = data
    learn.config = config
    learn.weights_file = weights
    learn.map_jobs = map_jobs
    if cached:
        learn.add_cb(engine.Stored(data, rows, config, map_jobs))
        print(
            "While the body is frozen, the head learns on features that are stored in "
            f"{store_file(data, 'features.db')}; once it is unfrozen, the network learns on pixels in "
            "pixels.db. With cached=False (--no-cached), every epoch reads the files."
        )
    if uses_ridge:
        learn.add_cb(engine.Ridge(ridge))
    if pretrained:
        learn.add_cb(engine.KeepNorms(head=cached))
    if ranks.are_several():
        learn.add_cb(ranks.SharedBatches())
    learn.add_cbs(callbacks)
    return learn


def _macro_f1():
    """fastai's F1Score over the periods, under a name that no other metric has."""
    metric = F1Score(average="macro")
    metric.name = "macro_f1"
    return metric


def _check_settings(settings: dict):
    """Raise SettingError for a setting that can't work, whatever the data."""
    ranges.check(**{name: settings[name] for name in NUMBERS})
    ranges.check_choice("--resize", settings["resize"], RESIZE)
    ranges.check_choice("--pool", settings["pool"], network.POOLS)
    ranges.check_choice("--precision", settings["precision"], network.PRECISIONS)


def _max_size(data, size: int) -> int:
    """The longer side that the clean copies in `data` have at most, in px.

    Warns where the network is to see more pixels than they have.
    """
    max_size = cleaning.max_size_of(data)
    if size > max_size:
        warnings.warn(
            f"--size {size} enlarges the clean copies in {data}, whose longer side is at most "
            f"{max_size} px: run `artclf clean --data {data} --max-size {size}` first",
            stacklevel=3,
        )
    return max_size


def _config(settings: dict, backbone: backbones.Backbone, table: pd.DataFrame) -> dict:
    """What `config.json` will hold: the settings, and what follows from backbone and images.

    Raises InputError for a table of images that can't be learned from.
    """
    if "valid" not in set(table.part):
        raise InputError("the part valid is empty, and it chooses the best epoch: give it images")
    train_images = int((table.part == "train").sum())
    batch_size = min(settings["batch_size"], train_images)  # fastai drops a batch that isn't full
    if batch_size < 2:
        raise InputError("batch normalisation needs two images or more in a batch")
    return {
        **asdict(backbone),
        "vocab": in_order(table.period.unique()),
        **settings,
        "batch_size": batch_size,
        "data_hash": fingerprint(table),
        "temperature": 1.0,
    }


def _loss(table: pd.DataFrame, balance: bool, tau: float, device) -> CrossEntropyLossFlat:
    """The loss for the images of `table`, on `device`."""
    counts = class_counts(table).to(device)
    weight = balanced_weights(counts) if balance else None
    return AdjustedLoss(counts, tau, weight) if tau else CrossEntropyLossFlat(weight=weight)


def class_counts(table) -> torch.Tensor:
    """The number of train images of each period, in the order of classes: float32 (periods,)."""
    counts = table[table.part == "train"].period.value_counts()
    counts = counts[in_order(counts.index)]
    return torch.tensor(counts.to_numpy(), dtype=torch.float32)


def repeat(data, out, *args, seeds: int = 3, seed: int = DEFAULTS.seed, **kwargs) -> pd.DataFrame:
    """Train with the seeds `seed`, `seed` + 1... into `out/seed-<n>`: a table with one row per seed,
    then `mean` and `spread`.

    Columns: `part` and the figures as in `runs.table`. Each seed also divides the data anew, so the
    spread is that of both. Further arguments go to `fit`. What was trained before is not trained
    again. Raises as `fit` does.
    """
    ranges.check(seeds=seeds)
    rows = {}
    for this_seed in range(seed, seed + seeds):
        print(f"Seed {this_seed}, number {len(rows) + 1} of {seeds}:")
        folder = Path(out) / f"seed-{this_seed}"
        fit(data, folder, *args, seed=this_seed, **kwargs)
        rows[str(this_seed)] = read_run(folder / "metrics.json")
    table = pd.DataFrame.from_dict(rows, orient="index")[["part", *FIGURES]]
    return pd.concat([table, spread(table).assign(part=table.part.iloc[0])])
