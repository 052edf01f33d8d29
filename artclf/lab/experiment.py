"""What the experiments share: settings, runs that are kept, predictions from stored features, and
tables of means.

Writes a folder for every run to `OUT/runs/`: `run.json` (settings, facts and seconds) and
`predictions.csv`. The experiments `architectures`, `imbalance`, `period_and_artist` and `painters`
build on it.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.files import make_folder, write_csv, write_json
from artclf.model import features
from artclf.results import evaluation, plots

RUN_FILE = "run.json"  # written last: a folder that has it holds a finished run
PREDICTIONS_FILE = "predictions.csv"
# the settings of an experiment that have a range
NUMBERS = (
    "size",
    "epochs",
    "unfrozen_epochs",
    "lr",
    "batch_size",
    "seed",
    "width",
    "neurons",
)


class Run(NamedTuple):
    """The result of one configuration.

    `predictions` are as in `predictions.csv` of an export and may have more columns. `facts` are
    what else was measured, as JSON holds it. `seconds` is how long the run took, with its
    predictions.
    """

    config: dict
    predictions: pd.DataFrame
    facts: dict
    seconds: float


# Settings


def configuration(defaults: dict, changes: dict) -> dict:
    """All settings of one run: `defaults` with `changes`.

    Raises InputError for a setting that `defaults` lacks, SettingError for one out of its range in
    `NUMBERS`.
    """
    unknown = sorted(set(changes) - set(defaults))
    if unknown:
        raise InputError(f"no setting {', '.join(unknown)}: there are {', '.join(defaults)}")
    config = {**defaults, **changes}
    settings.check(**{name: config[name] for name in NUMBERS if name in config})
    return config


# Runs that are kept


def run_once(
    out,
    name: str,
    config: dict,
    table: pd.DataFrame,
    train: Callable[[Path], tuple[pd.DataFrame, dict]],
    measured: Sequence[str] = (),
) -> Run:
    """The `Run` of these settings on this table of images: read from `out`, or made by `train`.

    `train` takes the run's folder and returns predictions and facts. A run is identified by its
    settings, the images with their parts, and the names of what is `measured`; `name` only begins
    the name of its folder. Where `train` is interrupted, the next call may go on from what it left
    in the folder.
    """
    folder = run_folder(out, name, config, table, measured)
    if not is_finished(folder):
        make_folder(folder)
        started = time.time()
        predictions, facts = train(folder)
        seconds = time.time() - started
        write_csv(folder / PREDICTIONS_FILE, predictions)
        write_json(folder / RUN_FILE, {"config": config, "facts": facts, "seconds": seconds})
    _delete_checkpoints(folder)
    return read_run(folder)


def run_folder(
    out, name: str, config: dict, table: pd.DataFrame, measured: Sequence[str] = ()
) -> Path:
    """The folder in which `run_once` keeps the run of these settings and images."""
    identity = json.dumps([config, list(measured)], sort_keys=True)
    identity += table.to_csv(index=False, lineterminator="\n")
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    readable_name = re.sub(r"\W+", "-", name).strip("-")
    return Path(out) / "runs" / f"{readable_name}-{digest}"


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds a finished run."""
    return (folder / RUN_FILE).exists()


def finished_runs(out) -> list[Run]:
    """All finished runs that `out` keeps, in the order in which they were finished."""
    files = sorted(Path(out).glob(f"runs/*/{RUN_FILE}"), key=lambda file: file.stat().st_mtime_ns)
    return [read_run(file.parent) for file in files]


def read_run(folder: Path) -> Run:
    """The finished run in `folder`."""
    kept = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    predictions = pd.read_csv(
        folder / PREDICTIONS_FILE, dtype=evaluation.COLUMNS, keep_default_na=False
    )
    return Run(kept["config"], predictions, kept["facts"], kept["seconds"])


def _delete_checkpoints(folder: Path):
    """Delete what an interrupted run goes on from: hundreds of megabytes that a finished run does
    not need.
    """
    for file in (folder / "models").glob("*.pth"):
        file.unlink()


# Training and predicting


@contextmanager
def quiet(learn):
    """`learn` without progress bars, tables and printed lines, for experiments that train many."""
    with learn.no_bar(), learn.no_logging(), redirect_stdout(io.StringIO()):
        yield learn


@torch.no_grad()
def outputs(learn, data, rows) -> torch.Tensor:
    """The outputs of a learner of `train.learner` for the pictures of `rows`: shape (images,
    outputs).

    The features of the body are read from the store where training kept them; the others are
    computed and kept there.
    """
    body, head = learn.model.eval()
    x = features.of_images(data, rows, body, learn.config)[:, 0]
    return head(torch.from_numpy(x).to(learn.dls.device)).cpu()


def prediction_table(logits: torch.Tensor, vocab: Sequence[str], rows) -> pd.DataFrame:
    """The predictions for `rows` as in `predictions.csv`, from `logits` of shape (images,
    periods).
    """
    names = np.array(vocab)
    p = torch.softmax(logits.double(), 1).numpy()
    given = pd.Index(vocab).get_indexer(rows.period)
    given_p = p[np.arange(len(p)), given].clip(1e-38)
    table = rows[["file", "part", "period"]].reset_index(drop=True)
    table["predicted"] = names[p.argmax(1)]
    table["probability"] = p.max(1)
    table["loss"] = -np.log(given_p)
    probabilities = pd.DataFrame(p, columns=[f"p_{name}" for name in vocab])
    return pd.concat([table, probabilities], axis=1)


# Tables and plots of results


def write_results(out, table: pd.DataFrame):
    """Write the table of a comparison to `OUT/results.csv`."""
    write_csv(Path(out) / "results.csv", table)


def means(table, figures: Iterable[str], ranges: dict | None = None) -> pd.DataFrame:
    """A row for each `label` of a table of results: the means of `figures` over its runs, and
    `runs`, their number.

    `ranges` are further columns (new name: column of `table`; `f1_range` of `macro_f1` if not
    given): the highest value minus the lowest, nan for one run.
    """
    if ranges is None:
        ranges = {"f1_range": "macro_f1"}
    groups = table.groupby("label", sort=False)
    result = groups[list(figures)].mean()
    for name, column in ranges.items():
        result[name] = groups[column].agg(np.ptp).where(groups.size() > 1)
    result["runs"] = groups.size()
    return result


def plot_means(table, figures: dict, ax=None):
    """The mean of each of `figures` (column: name) of each label of a table of results as a Figure,
    single runs as rings.
    """
    rows = table.groupby("label", sort=False)[list(figures)].mean()
    ax = ax or plots.axes_of_size(9, 1.4 + 0.42 * len(rows))
    row_places = np.arange(len(rows))
    run_places = rows.index.get_indexer(table.label)
    middle = (len(figures) - 1) / 2
    for i, (column, name) in enumerate(figures.items()):
        colour = plots.COLOURS[i]
        shift = 0.22 * (i - middle)
        ax.plot(rows[column], row_places + shift, "o", color=colour, label=name)
        ax.plot(table[column], run_places + shift, "o", mfc="none", color=colour, markersize=4)
    ax.plot([], [], "o", mfc="none", color="0.5", markersize=4, label="each run")
    ax.set_yticks(row_places, rows.index, parse_math=False)
    ax.set(
        xlim=(-0.02, 1.02),
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="share of the test pictures, or macro F1",
    )
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, ncols=len(figures) + 1)
    return ax.figure
