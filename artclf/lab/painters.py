"""Painters: small CNNs from scratch, as in old tutorials, beside transfer learning.

Reads the catalogue and the clean images of DATA, whose classes are painters; writes a folder for
every run to `OUT/runs/`, and `OUT/results.csv`. The CNNs are in `scratch`. Notebook:
`experiments/13_painters`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from fastcore.basics import noop
from sklearn.metrics import classification_report

from artclf import download, train
from artclf.base.files import write_csv, write_text
from artclf.base.progress import progress_bar
from artclf.data import cleaning, sample, splits
from artclf.lab import experiment, scratch
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
PERIOD = "10-impressionism"  # the invented hands of this period are the drawn painters


def drawn(data, count: int = 600, size: int = 224, seed: int = 42) -> Path:
    """The folder `data`: with `count` canvases by ten painters that `data.sample` invents, imported
    and cleaned.

    Draws only what is missing. A data set that wasn't drawn stays as it is. Raises what
    `sample.draw` does.
    """
    data = Path(data)
    gallery = data / "gallery"
    if (data / "catalogue.db").exists() and not gallery.exists():
        return data
    if not gallery.exists():
        print(f"No painters in {data}: drawing {count} canvases by ten invented ones.")
    sample.draw(gallery, count, size, seed, periods=[PERIOD])
    download.import_folder(gallery, data, label_column="artist")
    cleaning.normalise(data)
    return data


# Settings


def configuration(**changes) -> dict:
    """All settings of one run: those of `CNN`, or of `TRANSFER` for another `arch`, with `changes`.

    Raises InputError for a setting that doesn't exist, SettingError for one that makes no sense.
    """
    defaults = CNN if changes.get("arch", "cnn") == "cnn" else TRANSFER
    config = experiment.configuration(defaults, changes)
    if defaults is CNN:
        scratch.check(config["size"], config["depth"], config["pooling"], config["activation"])
    return config


def configurations(changes: Iterable[dict], seeds: Sequence[int] = (42,), **common) -> list[dict]:
    """A `configuration` for each dict in `changes` and each seed, all with the settings
    `common`.
    """
    return [
        configuration(**{**common, **change, "seed": seed}) for change in changes for seed in seeds
    ]


def label(config: dict) -> str:
    """A configuration in a few words, without its seed; epochs, lr and batch size are named where
    they aren't the defaults.
    """
    if config["arch"] == "cnn":
        defaults = CNN
        words = "{size} px, {neurons} neurons, depth {depth}, {pooling}, {activation}"
    else:
        defaults = TRANSFER
        words = "transfer, {arch}, {size} px"
    parts = [words.format(**config)]
    for name in ("epochs", "lr", "batch_size"):
        if name in defaults and config[name] != defaults[name]:
            parts.append(f"{name} {config[name]}")
    return ", ".join(parts)


# Runs


def fit(data, out, config: dict) -> experiment.Run:
    """The run of one configuration on the images of `data`: trained, or read from `out` if it is
    there.

    Its predictions are by the last epoch of a CNN, and by the best one of transfer learning
    (`train.learner`). Its facts are `parameters`, their number, and what `history` reads.
    `config["seed"]` cuts the parts by split `grouped` and starts the network: the same seed gives
    the same run on one machine. Raises what `splits.items` and `train.learner` do.
    """
    table = splits.items(data, seed=config["seed"])
    train_and_predict = _train_cnn if config["arch"] == "cnn" else _train_transfer
    return experiment.run_once(
        out,
        f"{config['arch']}-{config['size']}px",
        config,
        table,
        lambda folder: train_and_predict(Path(data), folder, table, config),
    )


def _train_cnn(data: Path, folder: Path, table, config: dict) -> tuple[pd.DataFrame, dict]:
    cleaning.check_copies(data, table.file)
    files = tuple(data / file for file in table.file)
    learn = scratch.learner(table, files, config)
    with experiment.quiet(learn):
        learn.fit_one_cycle(config["epochs"], config["lr"])
        facts = _facts(learn)  # before get_preds, which overwrites what the recorder holds
        dl = learn.dls.valid.new(scratch.dataset(table, files, config["size"]))
        logits, _ = learn.get_preds(dl=dl, act=noop)
    return experiment.prediction_table(logits, learn.dls.vocab, table), facts


def _train_transfer(data: Path, folder: Path, table, config: dict) -> tuple[pd.DataFrame, dict]:
    learn = train.learner(
        data, folder, arch=config["arch"], size=config["size"], seed=config["seed"]
    )
    with experiment.quiet(learn):
        learn.fit_one_cycle(config["epochs"], config["lr"])
        facts = _facts(learn)
        logits = experiment.outputs(learn, data, table)
    return experiment.prediction_table(logits, learn.dls.vocab, table), facts


def _facts(learn) -> dict:
    """The number of parameters of a trained learner, and its losses and accuracies of each
    epoch.
    """
    names = list(learn.recorder.metric_names)[1:-1]  # without epoch and time
    rows = [[float(value) for value in row] for row in learn.recorder.values]
    epochs = pd.DataFrame(rows, columns=names).rename(columns={"accuracy": "valid_accuracy"})
    if scratch.LOSS in epochs:
        epochs["train_loss"] = epochs[scratch.LOSS]
    return {
        "parameters": sum(p.numel() for p in learn.model.parameters()),
        "history": epochs.reindex(columns=HISTORY).to_dict("list"),
    }


def history(run: experiment.Run) -> pd.DataFrame:
    """Loss and accuracy on train (while it learned) and on valid of a run: a row an epoch, from 1.

    Transfer learning measures no accuracy on train: that column is nan.
    """
    table = pd.DataFrame(run.facts["history"], columns=HISTORY)
    table.index = pd.RangeIndex(1, len(table) + 1, name="epoch")
    return table


# Results


def compare(data, out, configs: list[dict]) -> pd.DataFrame:
    """The results of all `configs`: a row a run, in their order; runs that `out` keeps are not
    computed again.

    Columns: `label`, the settings, `parameters`, `seconds`, `best_epoch` (with the lowest loss on
    valid), `train_accuracy`, `valid_accuracy`, `test_accuracy`, `macro_f1` (on test), `gap`
    (accuracy on train minus that on valid) and `baseline` (accuracy on test of always answering the
    most frequent painter). Writes `OUT/results.csv`.
    """
    rows = [_row(fit(data, out, config)) for config in progress_bar(configs, desc="configurations")]
    table = pd.DataFrame(rows)
    whole_numbers = [name for name in ("neurons", "depth", "batch_size") if name in table]
    table = table.astype(dict.fromkeys(whole_numbers, "Int64"))  # transfer learning has none
    experiment.write_results(out, table)
    return table


def _row(run: experiment.Run) -> dict:
    metrics = evaluation.metrics(run.predictions)
    accuracy = {part: metrics[part]["accuracy"] for part in splits.PARTS}
    return {
        "label": label(run.config),
        **run.config,
        "parameters": run.facts["parameters"],
        "seconds": run.seconds,
        "best_epoch": int(history(run).valid_loss.idxmin()),
        "train_accuracy": accuracy["train"],
        "valid_accuracy": accuracy["valid"],
        "test_accuracy": accuracy["test"],
        "macro_f1": metrics["test"]["macro_f1"],
        "gap": accuracy["train"] - accuracy["valid"],
        "baseline": metrics["test"]["baseline_accuracy"],
    }


def summary(table) -> pd.DataFrame:
    """A table of `compare` with a row a configuration: the means over its runs, one a seed, and
    `runs`, their number.

    `train`, `valid` and `test` are accuracies; `f1_range` is the highest macro F1 minus the lowest,
    nan for one run.
    """
    means = experiment.means(table, ["parameters", "seconds", "best_epoch", *FIGURES])
    return means.rename(columns=FIGURES).astype({"parameters": int})


def report(predictions, part: str = "test") -> tuple[str, pd.DataFrame]:
    """scikit-learn's classification report of a part, as text and as a table: a row a painter, then
    the averages.
    """
    rows = evaluation.of_part(predictions, part)
    options = {"labels": evaluation.classes(predictions), "zero_division": 0}
    text = classification_report(rows.period, rows.predicted, **options)
    figures = classification_report(rows.period, rows.predicted, output_dict=True, **options)
    # The text gives accuracy in the column of F1.
    figures["accuracy"] = {"f1-score": figures["accuracy"], "support": len(rows)}
    return text, pd.DataFrame(figures).T


def write(run: experiment.Run, out, part: str = "test") -> tuple[str, pd.DataFrame]:
    """The `report` of a run, after writing it to `report.txt` and `report.csv` in `out`, beside
    `history.csv`.
    """
    out = Path(out)
    text, table = report(run.predictions, part)
    write_text(out / "report.txt", text)
    write_csv(out / "report.csv", table, index=True)
    write_csv(out / "history.csv", history(run), index=True)
    return text, table


def plot_curves(histories: dict, figure: str = "loss", ax=None):
    """The loss or accuracy of each `history` (name: table) by epoch as a Figure: train dashed,
    valid solid, a dot on the best epoch.
    """
    ax = ax or plots.axes_of_size(6.5, 3.3 + 0.22 * len(histories))
    for (name, table), colour in zip(histories.items(), plots.COLOURS, strict=False):
        valid = table[f"valid_{figure}"]
        best_epoch = valid.idxmin() if figure == "loss" else valid.idxmax()
        ax.plot(table[f"train_{figure}"], "--", color=colour)
        ax.plot(valid, color=colour, label=name)
        ax.plot(best_epoch, valid[best_epoch], "o", color=colour)
    ax.plot([], [], "--", color="0.5", label="the same on train")
    ax.set(xlabel="epoch", ylabel=figure, ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return ax.figure


def plot_gaps(table, ax=None):
    """The mean accuracy on train and test of each configuration in a table of `compare` as a
    Figure, single runs as rings.
    """
    rows = summary(table)
    places = np.arange(len(rows))
    run_places = rows.index.get_indexer(table.label)
    train_colour, test_colour = plots.COLOURS[1], plots.COLOURS[0]
    ax = ax or plots.axes_of_size(9, 1.4 + 0.36 * len(rows))
    ax.hlines(places, rows.test, rows.train, color="0.8", linewidth=3, zorder=0)
    ax.plot(rows.train, places, "o", color=train_colour, label="train")
    ax.plot(rows.test, places, "o", color=test_colour, label="test")
    ax.plot(
        table.test_accuracy,
        run_places,
        "o",
        mfc="none",
        color=test_colour,
        markersize=4,
        label="each run on test",
    )
    ax.axvline(table.baseline.mean(), color="0.5", linestyle=":", label="most frequent painter")
    ax.set_yticks(places, rows.index, parse_math=False)
    ax.set(xlim=(0, 1.03), ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy")
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=4)
    return ax.figure
