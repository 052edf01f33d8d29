"""Who painted it? Small CNNs from scratch, as old tutorials have them, beside transfer learning.

Reads the catalogue and the clean images of DATA, whose classes are painters; writes a folder for
every run to `OUT/runs/`, `OUT/results.csv`, and by `split.items` the catalogue's column
`split_grouped`. Notebook: `experiments/13_painters`.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import classification_report

from artclf import download, train
from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import cleaning, sample, splits
from artclf.lab import frozen, scratch
from artclf.results import evaluation, plots

CNN = {
    "arch": "cnn",
    "size": 28,
    "neurons": 16,
    "depth": 2,
    "pooling": "max",
    "activation": "relu",
    "epochs": 20,
    "lr": 2e-3,
    "batch_size": 32,
    "seed": 42,
}
TRANSFER = {"arch": "auto", "size": 224, "epochs": 3, "lr": 2e-3, "seed": 42}
HISTORY = ["train_loss", "valid_loss", "train_accuracy", "valid_accuracy"]
FIGURES = {
    "train_accuracy": "train",
    "valid_accuracy": "valid",
    "test_accuracy": "test",
    "gap": "gap",
    "macro_f1": "macro_f1",
}  # what `compare` measures, and its short name in `summary`
PERIOD = "10-impressionism"  # whose invented hands are the drawn painters


def drawn(data, count: int = 600, size: int = 224, seed: int = 42) -> Path:
    """The folder `data`: with `count` canvases by ten painters whom `lab.sample` invents, imported
    and cleaned.

    Draws only what is missing, and leaves a data set of one's own as it is. Raises what
    `sample.draw` does.
    """
    data, gallery = Path(data), Path(data) / "gallery"
    if (data / "catalogue.db").exists() and not gallery.exists():
        return data
    if not gallery.exists():
        print(f"No painters in {data}: drawing {count} canvases by ten invented ones.")
    sample.draw(gallery, count, size, seed, periods=[PERIOD])
    download.import_folder(gallery, data, label_column="artist")
    cleaning.normalise(data)
    return data


def configuration(**changes) -> dict:
    """All settings of one run: those of `CNN`, or of `TRANSFER` for another `arch`, with `changes`.

    Raises ValueError for a setting that there isn't, a number that isn't above 0, and what
    `scratch.check` refuses.
    """
    settings = CNN if changes.get("arch", "cnn") == "cnn" else TRANSFER
    if unknown := sorted(set(changes) - set(settings)):
        raise InputError(
            f"no setting {', '.join(unknown)} of {settings['arch']}: there are {', '.join(settings)}"
        )
    config = {**settings, **changes}
    for name in ("size", "neurons", "depth", "epochs", "lr", "batch_size"):
        if config.get(name, 1) <= 0:
            raise InputError(f"{name} is {config[name]}: it must be above 0")
    if settings is CNN:
        scratch.check(*(config[name] for name in ("size", "depth", "pooling", "activation")))
    return config


def configurations(changes, seeds=(42,), **common) -> list[dict]:
    """A `configuration` for each dict in `changes` and each seed, all with the settings
    `common`.
    """
    return [
        configuration(**{**common, **change, "seed": seed}) for change in changes for seed in seeds
    ]


def label(config: dict) -> str:
    """A configuration in a few words, without its seed; other settings are named where they aren't
    the usual ones.
    """
    usual, words = TRANSFER, "transfer, {arch}, {size} px"
    if config["arch"] == "cnn":
        usual, words = CNN, "{size} px, {neurons} neurons, depth {depth}, {pooling}, {activation}"
    others = [
        f"{name} {config[name]}"
        for name in usual
        if name in ("epochs", "lr", "batch_size") and config[name] != usual[name]
    ]
    return ", ".join([words.format(**config), *others])


class Run(NamedTuple):
    """What came of one configuration.

    `history` has a row an epoch, from 1: loss and accuracy on train, while it learned, and on
    valid; transfer learning knows no accuracy on train. `predictions` are as in `predictions.csv`,
    by the last epoch.
    """

    config: dict
    history: pd.DataFrame
    predictions: pd.DataFrame
    parameters: int
    seconds: float


def fit(data, out, config: dict) -> Run:
    """Train one configuration on the images of `data`, or read what `out` keeps of it.

    `config["seed"]` cuts the parts by split `grouped` and starts the network: the same seed gives
    the same run on one machine. Raises what `split.items` does, and `train.learner`.
    """
    table = splits.items(data, seed=config["seed"])
    key = hashlib.sha256(
        json.dumps([config, splits.fingerprint(table)], sort_keys=True).encode()
    ).hexdigest()[:12]
    folder = Path(out) / "runs" / f"{config['arch']}-{config['size']}px-{key}"
    if not (folder / "run.json").exists():
        files, started = tuple(Path(data) / file for file in table.file), time.time()
        learn = (
            scratch.learner(table, files, config)
            if config["arch"] == "cnn"
            else train.learner(
                data, folder, arch=config["arch"], size=config["size"], seed=config["seed"]
            )
        )
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(config["epochs"], config["lr"])
        seconds = time.time() - started
        folder.mkdir(parents=True, exist_ok=True)
        _history(learn).to_csv(folder / "history.csv")
        _predictions(learn, table, files, config).to_csv(folder / "predictions.csv", index=False)
        run = {
            "config": config,
            "parameters": sum(p.numel() for p in learn.model.parameters()),
            "seconds": seconds,
        }
        (folder / "run.part").write_text(json.dumps(run, indent=1), encoding="utf-8")
        (folder / "run.part").replace(folder / "run.json")  # a run that has this file is whole
    frozen.forget_fits(folder)
    return _read(folder)


def _history(learn) -> pd.DataFrame:
    names = list(learn.recorder.metric_names)[1:-1]  # without epoch and time
    found = pd.DataFrame([list(map(float, row)) for row in learn.recorder.values], columns=names)
    if scratch.LOSS in found:
        found["train_loss"] = found[scratch.LOSS]
    found.index = pd.RangeIndex(1, len(found) + 1, name="epoch")
    return found.rename(columns={"accuracy": "valid_accuracy"}).reindex(columns=HISTORY)


def _predictions(learn, table, files, config: dict) -> pd.DataFrame:
    """What the network says of every image of every part."""
    if config["arch"] == "cnn":
        dl = learn.dls.valid.new(scratch.dataset(table, files, config["size"]))
    else:
        dl = learn.dls.test_dl(list(files))
    with learn.no_bar(), learn.no_logging():
        p = learn.get_preds(dl=dl)[0].double()
    return frozen.predictions(p.log(), list(learn.dls.vocab), table)


def _read(folder: Path) -> Run:
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    predictions = pd.read_csv(
        folder / "predictions.csv", dtype=evaluation.COLUMNS, keep_default_na=False
    )
    return Run(
        history=pd.read_csv(folder / "history.csv", index_col="epoch"),
        predictions=predictions,
        **run,
    )


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run, in their order; those that `out` keeps are not
    computed again.

    Columns: `label`, the settings, `parameters`, `seconds`, `best_epoch` (with the lowest loss on
    valid), `train_accuracy`, `valid_accuracy`, `test_accuracy`, `macro_f1` (on test), `gap`
    (accuracy on train minus that on valid) and `baseline` (accuracy on test of always answering the
    most frequent painter). Writes `OUT/results.csv`.
    """
    table = pd.DataFrame(
        [_row(fit(data, out, config)) for config in progress_bar(configs, desc="configurations")]
    )
    table = table.astype(
        {name: "Int64" for name in ("neurons", "depth", "batch_size") if name in table}
    )
    table.to_csv(Path(out) / "results.csv", index=False)
    return table


def _row(run: Run) -> dict:
    figures = evaluation.metrics(run.predictions)
    known, valid, test = (figures[part]["accuracy"] for part in splits.PARTS)
    return {
        "label": label(run.config),
        **run.config,
        "parameters": run.parameters,
        "seconds": run.seconds,
        "best_epoch": int(run.history.valid_loss.idxmin()),
        "train_accuracy": known,
        "valid_accuracy": valid,
        "test_accuracy": test,
        "macro_f1": figures["test"]["macro_f1"],
        "gap": known - valid,
        "baseline": figures["test"]["baseline_accuracy"],
    }


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a configuration: the number of its runs, one a seed, and the
    means over them.

    `train`, `valid` and `test` are accuracies; `f1_range` is the highest macro F1 minus the lowest,
    nan for one run.
    """
    groups = table.groupby("label", sort=False)
    means = groups[["parameters", "seconds", "best_epoch", *FIGURES]].mean().rename(columns=FIGURES)
    means["f1_range"] = groups.macro_f1.agg(np.ptp).where(groups.size() > 1)
    return means.assign(parameters=means.parameters.astype(int), runs=groups.size())


def report(predictions, part: str = "test") -> tuple[str, pd.DataFrame]:
    """scikit-learn's classification report of a part, as text and as a table, a row a painter, then
    the averages.
    """
    rows, names = evaluation.of_part(predictions, part), evaluation.classes(predictions)
    options = {"labels": names, "zero_division": 0}
    found = classification_report(rows.period, rows.predicted, output_dict=True, **options)
    found["accuracy"] = {
        "f1-score": found["accuracy"],
        "support": len(rows),
    }  # in the place that the text gives it
    return classification_report(rows.period, rows.predicted, **options), pd.DataFrame(found).T


def write(run: Run, out, part: str = "test") -> tuple[str, pd.DataFrame]:
    """The `report` of a run, which is written to `report.txt` and `report.csv` in `out`, beside
    `history.csv`.
    """
    text, table = report(run.predictions, part)
    (Path(out) / "report.txt").write_text(text, encoding="utf-8")
    table.to_csv(Path(out) / "report.csv", encoding="utf-8")
    run.history.to_csv(Path(out) / "history.csv")
    return text, table


def plot_curves(histories: dict, figure: str = "loss", ax=None):
    """The loss or accuracy of each history by epoch as a Figure: train dashed, valid solid, a dot
    on the best epoch.
    """
    ax = ax or plots.axes_of_size(6.5, 3.3 + 0.22 * len(histories))
    for (name, history), colour in zip(histories.items(), plots.COLOURS, strict=False):
        valid = history[f"valid_{figure}"]
        best = valid.idxmin() if figure == "loss" else valid.idxmax()
        ax.plot(history[f"train_{figure}"], "--", color=colour)
        ax.plot(valid, color=colour, label=name)
        ax.plot(best, valid[best], "o", color=colour)
    ax.plot([], [], "--", color="0.5", label="the same on train")
    ax.set(xlabel="epoch", ylabel=figure, ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return ax.figure


def plot_gaps(table, ax=None):
    """The mean accuracy on train and test of each configuration in a table of `compare` as a
    Figure, runs as rings.
    """
    rows = summary(table)
    ax, place = ax or plots.axes_of_size(9, 1.4 + 0.36 * len(rows)), np.arange(len(rows))
    ax.hlines(place, rows.test, rows.train, color="0.8", linewidth=3, zorder=0)
    for part, colour in (("train", plots.COLOURS[1]), ("test", plots.COLOURS[0])):
        ax.plot(rows[part], place, "o", color=colour, label=part)
    ax.plot(
        table.test_accuracy,
        rows.index.get_indexer(table.label),
        "o",
        mfc="none",
        color=plots.COLOURS[0],
        markersize=4,
        label="each run on test",
    )
    ax.axvline(table.baseline.mean(), color="0.5", linestyle=":", label="most frequent painter")
    ax.set_yticks(place, rows.index, parse_math=False)
    ax.set(xlim=(0, 1.03), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=4)
    return ax.figure
