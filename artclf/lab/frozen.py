"""What experiments on `train.learner` share: runs that are kept, and answers from the stored
features.

Writes a folder for every run to `OUT/runs/`. The experiments `imbalance` and `artists` build on it.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from artclf.base.errors import InputError
from artclf.model import engine, features
from artclf.model.store import Store
from artclf.results import evaluation, plots


class Run(NamedTuple):
    """What came of one configuration.

    `predictions` are as in `predictions.csv` and may have more columns; `facts` are what else was
    measured, `seconds` how long it took.
    """

    config: dict
    predictions: pd.DataFrame
    facts: dict
    seconds: float


def configuration(defaults: dict, methods, **changes) -> dict:
    """All settings of one run: `defaults` with `changes`.

    Raises ValueError for a setting that there isn't, another method than `methods`, a number that
    isn't above 0.
    """
    if unknown := sorted(set(changes) - set(defaults)):
        raise InputError(f"no setting {', '.join(unknown)}: there are {', '.join(defaults)}")
    config = {**defaults, **changes}
    if config["method"] not in methods:
        raise InputError(f"method is {config['method']!r}: take one of {', '.join(methods)}")
    for name in ("size", "epochs", "lr"):
        if config[name] <= 0:
            raise InputError(f"{name} is {config[name]}: it must be above 0")
    return config


def kept(out, config: dict, table, run: Callable[[Path], tuple[pd.DataFrame, dict]]) -> Run:
    """The `Run` that `out` keeps for these settings and this table of images, or what `run` makes
    of them.

    `run` takes the run's folder and returns predictions and facts. A folder that holds `run.json`
    is whole.
    """
    text = json.dumps(config, sort_keys=True) + table.to_csv(index=False, lineterminator="\n")
    name = re.sub(r"\W+", "-", config["method"]).strip("-")
    folder = Path(out) / "runs" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not (folder / "run.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        predictions, facts = run(folder)
        predictions.to_csv(folder / "predictions.csv", index=False)
        found = {"config": config, "facts": facts, "seconds": time.time() - started}
        (folder / "run.part").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (folder / "run.part").replace(folder / "run.json")
    forget_fits(folder)
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    predictions = pd.read_csv(
        folder / "predictions.csv", dtype=evaluation.COLUMNS, keep_default_na=False
    )
    return Run(predictions=predictions, **found)


def forget_fits(folder: Path):
    """Delete what an interrupted run in `folder` goes on from: hundreds of megabytes, and the run
    is whole.
    """
    for file in (folder / "models").glob("fit-*.pth"):
        file.unlink()


@contextmanager
def quiet(learn):
    """No bar, table or line of `learn`: for experiments that train many."""
    with learn.no_bar(), learn.no_logging(), redirect_stdout(io.StringIO()):
        yield learn


@torch.no_grad()
def outputs(learn, data, rows) -> torch.Tensor:
    """What the head of a learner of `train.learner` gives for the pictures of `rows`: shape
    (images, outputs).

    The body's features are taken from the store where training kept them, or computed and kept
    there.
    """
    backbone, (body, head), config = learn.stored.backbone, learn.model.eval(), learn.config
    pictures = features.Pictures(
        data, rows.file, rows.clean_sha256, config["size"], config["resize"]
    )
    store = Store(Path(data) / "features.db")
    name = f"{backbone.name} {body.pool}"
    engine.use(body, engine.best_settings(body, config["size"], False, store, name))
    name = f"{name} {body.precision}"  # as `engine.Stored` has it
    x = torch.from_numpy(features.views(pictures, body, backbone, name, [0])[:, 0])
    body.precision = None  # as after a fit
    return head(x.to(learn.dls.device)).cpu()


def predictions(logits: torch.Tensor, vocab: list[str], rows) -> pd.DataFrame:
    """Answers for `rows` as in `predictions.csv`, from `logits` of shape (images, periods)."""
    p = torch.softmax(logits.double(), 1).numpy()
    own = p[np.arange(len(p)), pd.Index(vocab).get_indexer(rows.period)].clip(1e-38)
    return (
        rows[["file", "part", "period"]]
        .reset_index(drop=True)
        .assign(
            predicted=np.array(vocab)[p.argmax(1)],
            probability=p.max(1),
            loss=-np.log(own),
            **{f"p_{name}": p[:, i] for i, name in enumerate(vocab)},
        )
    )


def means(table, figures, ranges=None) -> pd.DataFrame:
    """A row for each `label` of a table of results: the mean `figures` over its runs, and their
    number.

    `ranges` (new name: column, `f1_range` of `macro_f1` if not given) are the highest value minus
    the lowest, nan for one run.
    """
    groups = table.groupby("label", sort=False)
    spreads = {
        name: groups[column].agg(np.ptp).where(groups.size() > 1)
        for name, column in (ranges or {"f1_range": "macro_f1"}).items()
    }
    return groups[list(figures)].mean().assign(**spreads, runs=groups.size())


def plot_means(table, figures: dict, ax=None):
    """The mean of each of `figures` (column: name) of each label of a table of results as a Figure,
    runs as rings.
    """
    rows = table.groupby("label", sort=False)[list(figures)].mean()
    ax, places = ax or plots.axes_of_size(9, 1.4 + 0.42 * len(rows)), np.arange(len(rows))
    for i, (column, name) in enumerate(figures.items()):
        colour, lift = plots.COLOURS[i], 0.22 * (i - (len(figures) - 1) / 2)
        ax.plot(rows[column], places + lift, "o", color=colour, label=name)
        ax.plot(
            table[column],
            rows.index.get_indexer(table.label) + lift,
            "o",
            mfc="none",
            color=colour,
            markersize=4,
        )
    ax.plot([], [], "o", mfc="none", color="0.5", markersize=4, label="each run")
    ax.set_yticks(places, rows.index, parse_math=False)
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="share of the test pictures, or macro F1",
    )
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=len(figures) + 1)
    return ax.figure
