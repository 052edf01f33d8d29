"""Architectures: which backbone, how deep it learns and how wide a head it gets, on one cut of the
same pictures.

Reads the catalogue and the clean images of DATA; writes `OUT/results.csv`, a row a configuration, a
folder a run in `OUT/runs/`, and by `train.learner` `DATA/features.db` and `DATA/pixels.db`.
Notebook: `experiments/10_architectures`.
"""

import hashlib
import json
import pickle
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from artclf import train
from artclf.base.errors import InputError
from artclf.data import splits
from artclf.lab import frozen
from artclf.model import backbones
from artclf.results import evaluation, plots

USUAL = {
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
SHAPE = ("arch", "size", "width", "depth", "pool")
HEAD_ONLY, FROM_START = "head only", "all from the start"
DEPTHS = {
    HEAD_ONLY: HEAD_ONLY,
    4: "from block 4",
    3: "from block 3",
    2: "from block 2",
    1: "from block 1",
    0: "all, after the head",
    FROM_START: FROM_START,
}  # what learns, and how it is called
COSTS = {"images_per_second": "images/s at prediction", "seconds": "seconds to train"}
SHOWN = [
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


def configuration(**changes) -> dict:
    """All settings of one run: those of `USUAL` with `changes`; from scratch, everything learns
    from the start.

    The architecture `auto` becomes what `backbones.find` takes for it. Raises ValueError for a
    setting or an architecture that there isn't, a depth of freezing that isn't in `DEPTHS`, and a
    random body that would stay so.
    """
    if unknown := set(changes) - set(USUAL):
        raise InputError(f"no setting {unknown}: there are {', '.join(USUAL)}")
    config = {
        **USUAL,
        **({} if changes.get("pretrained", True) else {"unfreeze_from": FROM_START}),
        **changes,
    }
    if config["unfreeze_from"] not in DEPTHS:
        raise InputError(
            f"unfreeze_from is {config['unfreeze_from']!r}: take one of {', '.join(map(repr, DEPTHS))}"
        )
    if not config["pretrained"] and config["unfreeze_from"] != FROM_START:
        raise InputError(f"from scratch, the body must learn: unfreeze_from={FROM_START!r}")
    return {**config, "arch": backbones.find(config["arch"], pretrained=False).name}


def configurations(changes, **common) -> list[dict]:
    """A `configuration` for each dict in `changes`, all with the settings `common`."""
    return [configuration(**{**common, **change}) for change in changes]


def label(config: dict) -> str:
    """A configuration in a few words: its architecture, and what isn't as usual."""
    head = [f"{config['depth']} x {config['width']} hidden"] if config["depth"] else []
    learns = config["unfreeze_from"]
    words = [
        *head,
        *([] if learns == HEAD_ONLY or not config["pretrained"] else [DEPTHS[learns]]),
        *([] if config["pretrained"] else ["from scratch"]),
    ]
    named = [
        f"{name} {config[name]}"
        for name in USUAL
        if name in ("size", "pool", "lr", "split", "seed") and config[name] != USUAL[name]
    ]
    return ", ".join([config["arch"], *words, *named])


def missing(config: dict) -> str:
    """Why the weights that a configuration starts from can't be had; '' if they can. Fetches them,
    if need be.
    """
    try:
        backbones.body(backbones.find(config["arch"], config["pretrained"]))
    except (
        OSError,
        ImportError,
        RuntimeError,
        pickle.UnpicklingError,
    ) as e:  # no hub, no wheel, not offered, broken
        return " ".join(str(e).split())
    return ""


def run(data, out, config: dict) -> dict:
    """The row of one configuration: trained by `fit`, or read from `OUT/results.csv` if it is
    there.

    A row is known by its settings, what is measured and `split.fingerprint`. Accuracies and losses
    (mean cross-entropy, no period weighs more than another) are those of the epoch that
    `train.Keep` ends with, `valid_f1` and `macro_f1` the macro F1 on valid and test; `last_f1` is
    what the last epoch had on valid, kept or not. `parameters` counts body and head, `body_mb` and
    `head_mb` are their safetensors' megabytes. `seconds` are those of the learner's own fits; the
    frozen stage is much shorter where `DATA/features.db` has the body's features from a run before,
    as `features_kept` tells. `images_per_second` is the network's on decoded pictures. Raises as
    `train.learner` does.
    """
    if row := kept(data, out, config):
        return row
    table = splits.items(data, config["split"], seed=config["seed"])
    key = _key(config, table)
    row = _trained(data, Path(out) / "runs" / f"{config['arch']}-{key}", config, table)
    rows = pd.concat([_rows(out), pd.DataFrame([{"key": key, **row}])], ignore_index=True)
    rows.to_csv(part := Path(out) / "results.part", index=False)
    part.replace(Path(out) / "results.csv")
    return kept(data, out, config)


def kept(data, out, config: dict) -> dict | None:
    """The row of a configuration that `OUT/results.csv` has for the images of `data`, if any."""
    rows = _rows(out)
    if rows.empty:
        return None
    own = rows[
        rows.key == _key(config, splits.items(data, config["split"], seed=config["seed"]))
    ].to_dict("records")
    return own[0] if own else None


def _key(config: dict, table) -> str:
    known = json.dumps([config, SHOWN, splits.fingerprint(table)], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:12]


def _rows(out) -> pd.DataFrame:
    file = Path(out) / "results.csv"
    return (
        pd.read_csv(file, dtype={"key": str, "unfreeze_from": str})
        if file.exists()
        else pd.DataFrame()
    )


def _trained(data, folder: Path, config: dict, table) -> dict:
    passed = {name: config[name] for name in (*SHAPE, "pretrained", "batch_size", "seed")}
    first, threads = config["unfreeze_from"], torch.get_num_threads()
    learn = train.learner(
        data, folder, split=table, unfreeze_from=first if isinstance(first, int) else 0, **passed
    )
    stored = first != FROM_START and _has_features(data, learn.config)
    with learn.no_bar(), learn.no_logging():
        fit(learn, config)
    history = pd.read_csv(folder / "history.csv")
    found = _figures(
        frozen.predictions(frozen.outputs(learn, data, table), learn.config["vocab"], table)
    )
    frozen.forget_fits(folder)
    torch.set_num_threads(threads)  # each fit takes what suits it, and speed is to be compared
    sizes = {
        f"{name}_mb": len(save({k: v.contiguous() for k, v in part.state_dict().items()})) / 1e6
        for name, part in zip(("body", "head"), learn.model, strict=True)
    }
    return {
        "label": label(config),
        **config,
        "pool": learn.config["pool"],
        "weights": learn.config["weights"],
        **found,
        "last_f1": history.f1_score.iloc[-1],
        "parameters": sum(p.numel() for p in learn.model.parameters()),
        **sizes,
        "seconds": history.seconds.sum(),
        "features_kept": stored,
        "images_per_second": speed(learn),
    }


def _has_features(data, config: dict) -> bool:
    """Whether training has left features of this body; those of `predictions` are of view 0
    alone.
    """
    file, like = (
        Path(data) / "features.db",
        "{name} {pool} * {size} px {resize} view 1".format(**config),
    )
    if not file.exists():
        return False
    with closing(sqlite3.connect(file)) as db:
        return db.execute("SELECT 1 FROM used WHERE key GLOB ?", (like,)).fetchone() is not None


def _figures(predictions) -> dict:
    """Accuracies, losses and macro F1 of a table of `predictions`; `baseline` is the most frequent
    period on valid.
    """
    found, loss = evaluation.metrics(predictions), predictions.groupby("part").loss.mean()
    return {
        **{f"{part}_accuracy": found[part]["accuracy"] for part in splits.PARTS},
        "train_loss": loss["train"],
        "valid_loss": loss["valid"],
        "valid_f1": found["valid"]["macro_f1"],
        "macro_f1": found["test"]["macro_f1"],
        "baseline": found["valid"]["baseline_accuracy"],
    }


def fit(learn, config: dict):
    """Train `learn`: the frozen stage, then what `unfreeze_from` says; everything at once `from the
    start`.

    After a frozen stage the learning rates are those of `train.fit`; without one the head learns at
    `lr` and the body's first layers at a hundredth of that, or at `lr` where they know nothing yet.
    """
    lr, depth = config["lr"], config["unfreeze_from"]
    if depth != FROM_START:
        learn.fit_one_cycle(config["epochs"], lr)
    if depth == HEAD_ONLY:
        return
    learn.unfreeze()
    slow = (
        slice(lr / 100, lr / 10)
        if depth != FROM_START
        else slice(lr / 100, lr)
        if config["pretrained"]
        else lr
    )
    learn.fit_one_cycle(config["unfrozen_epochs"], slow)


def speed(learn, images: int = 64, runs: int = 5) -> float:
    """Images a second that the whole network predicts in batches of 16: the median of `runs`, after
    one to warm up.
    """
    size, model, times = learn.config["size"], learn.model.eval(), []
    x = torch.rand(16, 3, size, size, device=learn.dls.device)
    with torch.inference_mode():
        for _ in range(runs + 1):
            started = time.perf_counter()
            for _ in range(images // 16):
                model(x).cpu()
            times.append(time.perf_counter() - started)
    return images / statistics.median(times[1:])


def compare(data, out, configs: list[dict], from_scratch: bool = False) -> pd.DataFrame:
    """The rows of `run` for all `configs`, in their order; what `OUT/results.csv` has is not
    computed again.

    Architectures whose weights can't be had are left out, and a line says so and why; with
    `from_scratch` they learn from random weights instead. Raises ConnectionError where nothing is
    left.
    """
    rows = []
    for config in configs:
        reason = "" if kept(data, out, config) else missing(config)
        if reason:
            print(f"{'From scratch' if from_scratch else 'Left out'}: {label(config)}: {reason}")
        if reason and not from_scratch:
            continue
        if reason:
            config = configuration(**{**config, "pretrained": False, "unfreeze_from": FROM_START})
        print(f"{label(config)}:")
        rows.append(run(data, out, config))
    if not rows:
        raise ConnectionError(
            f"no weights of any of these: train from scratch, or take {USUAL['arch']}"
        )
    return pd.DataFrame(rows)


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a configuration and the columns that are measured."""
    return table.set_index("label")[SHOWN]


def plot_accuracy(table, ax=None):
    """Accuracy on train and valid of each row of `compare` as a Figure of bars, in the order of the
    rows from above.
    """
    ax, place = ax or plots.axes_of_size(8, 1.4 + 0.45 * len(table)), np.arange(len(table))
    for part, shift, colour in (
        ("train", -0.2, plots.COLOURS[1]),
        ("valid", 0.2, plots.COLOURS[0]),
    ):
        bars = ax.barh(place + shift, table[f"{part}_accuracy"], 0.38, color=colour, label=part)
        ax.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=8)
    ax.axvline(table.baseline.mean(), color="0.5", linestyle=":", label="most frequent period")
    ax.set_yticks(place, table.label, parse_math=False)
    ax.set(xlim=(0, 1.08), ylim=(len(table) - 0.5, -0.5), xlabel="accuracy")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=3)
    return ax.figure


def plot_cost(table, cost: str = "images_per_second", ax=None):
    """Macro F1 on test of each row of `compare` against one of `COSTS`, as a Figure.

    A ring among the seconds is a row whose features were kept from a run before, which makes it
    cheaper than it is.
    """
    ax = ax or plots.axes_of_size(8, 4.5)
    for row, colour in zip(table.to_dict("records"), plots.COLOURS * len(table), strict=False):
        ring = cost == "seconds" and row["features_kept"]
        ax.plot(row[cost], row["macro_f1"], "o", color=colour, mfc="none" if ring else colour)
        ax.annotate(
            row["label"],
            (row[cost], row["macro_f1"]),
            (6, 4),
            textcoords="offset points",
            fontsize=8,
        )
    ax.margins(y=0.15)
    ax.set(
        xlim=(0, 1.4 * table[cost].max()), xlabel=COSTS[cost], ylabel="macro F1 on test"
    )  # room for the labels
    return ax.figure


def plot_depths(table, ax=None):
    """Macro F1 on valid and test by how much of the network learns, as a Figure: from the head
    alone to everything.

    Crosses are the last epochs' on valid: where one lies apart from its ring, an earlier epoch was
    kept.
    """
    depths = {
        str(depth): name for depth, name in DEPTHS.items() if str(depth) in set(table.unfreeze_from)
    }
    ax = ax or plots.axes_of_size(8, 4)
    for (arch, rows), colour in zip(table.groupby("arch", sort=False), plots.COLOURS, strict=False):
        rows = rows.set_index("unfreeze_from").reindex(list(depths))
        ax.plot(range(len(depths)), rows.macro_f1, "o-", color=colour, label=f"{arch}, test")
        ax.plot(
            range(len(depths)),
            rows.valid_f1,
            "o:",
            mfc="none",
            color=colour,
            label=f"{arch}, valid",
        )
        ax.plot(range(len(depths)), rows.last_f1, "x", color=colour, label=f"{arch}, last epoch")
    ax.set_xticks(range(len(depths)), depths.values(), rotation=20)
    ax.set(xlabel="what learns", ylabel="macro F1", ylim=(0, 1.05))
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=3)
    return ax.figure
