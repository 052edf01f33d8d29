"""Painters: networks with the parameters that a hand counts, scikit-learn's reports, runs that are
kept.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from torch import nn

from artclf import cli
from artclf.data import splits
from artclf.data.catalogue import read_catalogue
from artclf.lab import painters, scratch

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
TINY = {"size": 12, "neurons": 4, "epochs": 2}


@pytest.fixture(scope="module", autouse=True)
def alone(no_workers):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return painters.drawn(tmp_path_factory.mktemp("data") / "painters", 120, 112)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def run(data, out):
    return painters.fit(data, out, painters.configuration(**TINY))


@pytest.fixture
def no_training(monkeypatch):
    """A run that isn't kept is an error."""

    def refuse(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(scratch, "learner", refuse)


# The network


@pytest.mark.parametrize(
    "config, shape, parameters",
    [
        # 3 x 3 convolutions with biases, then (flat + 1) * 64 and (64 + 1) * classes
        ({}, (28, 16, 2), (27 * 16 + 16) + (144 * 32 + 32) + (7 * 7 * 32 + 1) * 64 + 65 * 10),
        (
            {"depth": 1, "pooling": "avg", "activation": "tanh"},
            (28, 16, 1),
            448 + (14 * 14 * 16 + 1) * 64 + 650,
        ),
        (
            {"depth": 4, "size": 200},
            (200, 16, 4),
            448 + 4640 + (288 * 64 + 64) + (576 * 128 + 128) + (12 * 12 * 128 + 1) * 64 + 650,
        ),
        (
            {"neurons": 8, "depth": 3, "activation": "gelu"},
            (28, 8, 3),
            (27 * 8 + 8) + (72 * 16 + 16) + (144 * 32 + 32) + (3 * 3 * 32 + 1) * 32 + 33 * 10,
        ),
    ],
)
def test_the_network_has_the_parameters_that_a_hand_counts(config, shape, parameters):
    size, _, depth = shape
    model = scratch.cnn(10, **config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    kinds = [type(layer) for layer in model.modules()]
    assert (
        kinds.count(nn.Conv2d)
        == depth
        == kinds.count(scratch.POOLINGS[config.get("pooling", "max")])
    )
    assert kinds.count(scratch.ACTIVATIONS[config.get("activation", "relu")]) == depth + 1
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 10)


def test_the_network_computes_what_torch_does():
    model, x = scratch.cnn(3, 8, 2, 1, "avg", "tanh"), torch.randn(2, 3, 8, 8)
    conv, one, two = (
        layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    maps = nn.functional.avg_pool2d(
        torch.tanh(nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)), 2
    )
    own = torch.tanh(maps.reshape(2, -1) @ one.weight.T + one.bias) @ two.weight.T + two.bias
    assert torch.allclose(model(x), own, atol=1e-6)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"pooling": "median"}, "pooling is 'median': take one of max, avg"),
        ({"activation": "swoosh"}, "activation is 'swoosh': take one of relu"),
        ({"depth": 5}, "depth is 5, but 28 px can be halved 4 times at most"),
        ({"neurons": 0}, "neurons is 0: take a whole number from 1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"depth": -1}, "depth is -1: take a whole number from 1 to 12"),
        ({"lr": float("nan")}, "lr is nan: take a number from 0 to 10"),
        ({"size": 0}, "size is 0"),
        ({"brush": 3}, "no setting brush: there are arch, size"),
        ({"arch": "auto", "depth": 3}, "no setting depth: there are arch, size, epochs"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        painters.configuration(**changes)


def test_a_table_of_configurations_has_a_row_for_each_change_and_seed():
    table = painters.configurations(
        [{}, {"pooling": "avg", "lr": 0.1}, {"arch": "auto"}], (1, 2), size=40, epochs=5
    )
    assert [(config["seed"], config.get("pooling")) for config in table] == [
        (1, "max"),
        (2, "max"),
        (1, "avg"),
        (2, "avg"),
        (1, None),
        (2, None),
    ]
    assert {config["size"] for config in table} == {40} and {
        config["epochs"] for config in table
    } == {5}
    assert (
        painters.label(table[0])
        == painters.label(table[1])
        == "40 px, 16 neurons, depth 2, max, relu, epochs 5"
    )
    assert painters.label(table[2]).endswith("avg, relu, epochs 5, lr 0.1")
    assert painters.label(table[4]) == "transfer, auto, 40 px, epochs 5"


# The data


def test_drawn_painters_are_ten_hands_and_are_drawn_once(data):
    table, before = (
        read_catalogue(data),
        {path: path.stat().st_mtime_ns for path in data.rglob("*.jpg")},
    )
    assert table.period.nunique() == 10 and table.clean_status.eq("ok").all() and len(table) == 120
    assert (table.period == table.artist).all() and table.period.str.match(
        r"drawn hand \d\d of impressionism"
    ).all()
    assert painters.drawn(data, 120, 112) == data
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.jpg")} == before


def test_a_data_set_of_ones_own_stays_as_it_is(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    (tmp_path / "gallery").rename(tmp_path / "elsewhere")
    painters.drawn(tmp_path)
    assert (
        read_catalogue(tmp_path).equals(read_catalogue(drawn))
        and not (tmp_path / "gallery").exists()
    )


def test_pictures_are_squashed_to_squares_and_decoded_once(data):
    table = splits.items(data)
    files = tuple(data / file for file in table.file[:3])
    x = scratch.pixels(files, 20)
    assert x.dtype == torch.uint8 and x.shape == (3, 3, 20, 20) and scratch.pixels(files, 20) is x
    for picture, file in zip(x, files, strict=True):
        own = np.asarray(Image.open(file).resize((20, 20), Image.Resampling.BOX), float)
        assert np.abs(picture.permute(1, 2, 0).numpy() - own).mean() < 10


def test_batches_are_floats_between_minus_one_and_one_with_the_labels_of_their_pictures(
    data,
):
    table, config = splits.items(data), painters.configuration(**TINY)
    learn = scratch.learner(table, tuple(data / file for file in table.file), config)
    assert [len(dl.dataset) for dl in learn.dls.loaders] == [
        (table.part == part).sum() for part in splits.PARTS[:2]
    ]
    x, y = learn.dls.valid.one_batch()
    assert (
        x.shape[1:] == (3, 12, 12)
        and x.dtype == torch.float32
        and -1 <= x.min() < -0.2
        and 0.2 < x.max() <= 1
    )
    assert [learn.dls.vocab[i] for i in y] == list(table.period[table.part == "valid"])[: len(y)]


# A run


@pytest.mark.slow
def test_a_run_has_a_history_and_predictions_of_every_part(data, run):
    history = painters.history(run)
    assert list(history) == painters.HISTORY and list(history.index) == [1, 2]
    assert history.notna().all(axis=None)
    table = splits.items(data)
    assert run.predictions[["file", "part", "period"]].equals(table[["file", "part", "period"]])
    chances = run.predictions.filter(regex="^p_")
    assert chances.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4) and chances.shape == (
        120,
        10,
    )
    assert ("p_" + run.predictions.predicted == chances.idxmax(axis=1)).all()
    own = [row[f"p_{row['period']}"] for row in run.predictions.to_dict("records")]
    assert run.predictions.loss.to_numpy() == pytest.approx(-np.log(own))
    assert run.facts["parameters"] == 112 + 296 + (3 * 3 * 8 + 1) * 16 + 17 * 10 and run.seconds > 0


@pytest.mark.slow
def test_the_history_ends_with_what_the_last_predictions_say(run):
    valid = run.predictions[run.predictions.part == "valid"]
    last = painters.history(run).iloc[-1]
    assert last.valid_loss == pytest.approx(valid.loss.mean(), abs=1e-4)
    assert last.valid_accuracy == pytest.approx(accuracy_score(valid.period, valid.predicted))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_seed_another(data, tmp_path, run):
    again = painters.fit(data, tmp_path, run.config)
    assert painters.history(again).equals(painters.history(run))
    assert again.predictions.equals(run.predictions)
    other = painters.fit(data, tmp_path, {**run.config, "seed": 7})
    assert not other.predictions.part.equals(run.predictions.part)
    assert not painters.history(other).equals(painters.history(run))


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_and_what_is_finished_is_not_computed_again(
    data, tmp_path, monkeypatch
):
    configs = painters.configurations([{}, {"depth": 1}, {"pooling": "avg"}], **TINY)
    learner, trained = scratch.learner, []

    def counted(table, files, config):
        if len(trained) == 1 and config not in trained:
            raise KeyboardInterrupt
        trained.append(config)
        return learner(table, files, config)

    monkeypatch.setattr(scratch, "learner", counted)
    with pytest.raises(KeyboardInterrupt):
        painters.compare(data, tmp_path, configs)
    assert trained == configs[:1]
    monkeypatch.setattr(scratch, "learner", lambda *args: trained.append(args[2]) or learner(*args))
    table = painters.compare(data, tmp_path, configs)
    assert trained == configs
    assert painters.compare(data, tmp_path, configs).equals(table) and trained == configs
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 3 and not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_other_pictures_are_another_run(data, out, run, tmp_path, no_training):
    assert painters.fit(data, out, run.config).predictions.equals(run.predictions)
    shutil.copytree(data, tmp_path / "data")
    from artclf.data.catalogue import Catalogue

    row = read_catalogue(data).iloc[0]
    with Catalogue(tmp_path / "data") as cat:
        cat.update([{"url": row.url, "period": row.period, "review": "drop"}])
    with pytest.raises(AssertionError, match="trained again"):
        painters.fit(tmp_path / "data", out, run.config)


@pytest.mark.slow
def test_the_network_learns_colours(tmp_path):
    from artclf import download
    from artclf.data import cleaning

    rng = np.random.default_rng(0)
    for name, colour in (("anna", (200, 60, 60)), ("bea", (60, 60, 200)), ("cleo", (90, 190, 80))):
        (tmp_path / "gallery" / name).mkdir(parents=True)
        for i in range(20):
            noise = rng.normal(colour, 60, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).resize((64, 64)).save(tmp_path / "gallery" / name / f"{i}.png")
    download.import_folder(tmp_path / "gallery", tmp_path / "data")
    cleaning.normalise(tmp_path / "data", workers=1)
    run = painters.fit(
        tmp_path / "data", tmp_path / "out", painters.configuration(size=16, neurons=8, epochs=10)
    )
    test = run.predictions[run.predictions.part == "test"]
    assert accuracy_score(test.period, test.predicted) == 1
    losses = painters.history(run).train_loss
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


# The results


@pytest.mark.slow
def test_results_are_scikit_learns_figures_on_the_predictions(data, tmp_path):
    configs = painters.configurations([{}, {"depth": 1}], (1, 2), **TINY)
    table = painters.compare(data, tmp_path, configs)
    for row, config in zip(table.itertuples(), configs, strict=True):
        run = painters.fit(data, tmp_path, config)
        parts = dict(list(run.predictions.groupby("part")))
        own = {part: accuracy_score(rows.period, rows.predicted) for part, rows in parts.items()}
        assert [row.train_accuracy, row.valid_accuracy, row.test_accuracy] == pytest.approx(
            [own[part] for part in splits.PARTS]
        )
        assert row.gap == pytest.approx(own["train"] - own["valid"])
        assert row.macro_f1 == pytest.approx(
            f1_score(parts["test"].period, parts["test"].predicted, average="macro")
        )
        assert row.baseline == (parts["test"].period == parts["train"].period.mode()[0]).mean()
        valid_loss = painters.history(run).valid_loss
        assert valid_loss[row.best_epoch] == valid_loss.min()
    assert pd.read_csv(tmp_path / "results.csv").macro_f1.to_list() == pytest.approx(
        table.macro_f1.to_list()
    )
    means = painters.summary(table)
    assert list(means.runs) == [2, 2] and list(means.index) == [
        painters.label(configs[0]),
        painters.label(configs[2]),
    ]
    assert means.macro_f1.iloc[0] == pytest.approx(table.macro_f1[:2].mean())
    assert means.f1_range.iloc[1] == pytest.approx(abs(table.macro_f1[2] - table.macro_f1[3]))
    assert painters.summary(table[:1]).f1_range.isna().all()


@pytest.mark.slow
def test_the_report_is_scikit_learns_as_text_and_as_a_table(run, tmp_path):
    text, table = painters.write(run, tmp_path)
    rows = run.predictions[run.predictions.part == "test"]
    names = sorted(rows.period.unique())
    columns = precision_recall_fscore_support(
        rows.period, rows.predicted, labels=names, zero_division=0
    )
    for name, column in zip(("precision", "recall", "f1-score", "support"), columns, strict=True):
        assert table.loc[names, name].to_list() == pytest.approx(list(column))
    accuracy = accuracy_score(rows.period, rows.predicted)
    assert table.loc["accuracy"].to_list() == pytest.approx(
        [np.nan, np.nan, accuracy, len(rows)], nan_ok=True
    )
    assert (tmp_path / "report.txt").read_text() == text and all(
        name in text for name in (*names, "macro avg")
    )
    assert pd.read_csv(tmp_path / "report.csv", index_col=0).to_numpy() == pytest.approx(
        table.to_numpy(float), nan_ok=True
    )
    assert pd.read_csv(tmp_path / "history.csv").epoch.to_list() == [1, 2]


@pytest.mark.slow
def test_a_part_without_pictures_has_no_report(run):
    with pytest.raises(ValueError, match="no image of part 'nothing'"):
        painters.report(run.predictions, "nothing")


# The plots


def test_curves_show_train_and_valid_and_the_best_epoch():
    import matplotlib.pyplot as plt

    one = pd.DataFrame(
        {
            "train_loss": [2.0, 1.0, 0.5],
            "valid_loss": [2.0, 1.5, 1.8],
            "train_accuracy": [0.2, 0.6, 0.9],
            "valid_accuracy": [0.2, 0.3, 0.4],
        },
        index=[1, 2, 3],
    )
    two = one.assign(train_accuracy=np.nan, valid_loss=[1.0, 1.2, 1.3])
    _, ax = plt.subplots()
    assert painters.plot_curves({"one": one, "two": two}, ax=ax) is ax.figure
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "one",
        "two",
        "the same on train",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    train, valid, dot = ax.lines[:3]
    assert list(train.get_ydata()) == [2, 1, 0.5] and list(valid.get_ydata()) == [2, 1.5, 1.8]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in (dot, ax.lines[5])] == [
        (2, 1.5),
        (1, 1.0),
    ]
    [axes] = painters.plot_curves({"one": one, "two": two}, "accuracy").axes
    assert (*axes.lines[2].get_xdata(), *axes.lines[2].get_ydata()) == (
        3,
        0.4,
    ) and axes.get_ylabel() == "accuracy"
    plt.close(ax.figure)


def test_gaps_show_means_on_train_and_test_and_every_run():
    rows = [
        {
            "label": name,
            "parameters": 9,
            "seconds": 1.0,
            "best_epoch": 1,
            "train_accuracy": known,
            "valid_accuracy": 0.4,
            "test_accuracy": test,
            "macro_f1": 0.3,
            "gap": 0.2,
            "baseline": 0.1,
        }
        for name, known, test in (("a", 0.8, 0.3), ("a", 1.0, 0.4), ("b", 0.6, 0.5))
    ]
    [ax] = painters.plot_gaps(pd.DataFrame(rows)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["train"].get_xdata()) == pytest.approx([0.9, 0.6])
    assert list(lines["test"].get_xdata()) == pytest.approx([0.35, 0.5])
    assert list(zip(*lines["each run on test"].get_data(), strict=True)) == [
        (0.3, 0),
        (0.4, 0),
        (0.5, 1),
    ]
    assert list(lines["most frequent painter"].get_xdata()) == pytest.approx([0.1, 0.1])
    assert ax.get_xlabel() == "accuracy"


# The command


@pytest.fixture
def artclf(monkeypatch, capfd):
    """Runs `artclf painters` in this process: exit code, standard output, standard error."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["artclf", "painters", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capfd.readouterr()
        text, code = (
            (end.value.code, 1) if isinstance(end.value.code, str) else ("", end.value.code or 0)
        )
        return code, said.out, said.err + text

    return run


def test_the_command_prints_and_writes_the_report(artclf, data, tmp_path):
    options = ("--data", data, "--out", tmp_path, "--size", 12, "--neurons", 4, "--epochs", 2)
    code, out, _ = artclf(*options)
    assert (
        code == 0
        and out.rstrip("\n") == (tmp_path / "report.txt").read_text().rstrip("\n")
        and "macro avg" in out
    )
    assert (
        len(pd.read_csv(tmp_path / "history.csv")) == 2
        and len(pd.read_csv(tmp_path / "report.csv")) == 13
    )
    code, out, _ = artclf(
        *options, "--json", "--depth", 1, "--pooling", "avg", "--activation", "tanh", "--seed", 3
    )
    assert code == 0 and set(json.loads(out)["macro avg"]) == {
        "precision",
        "recall",
        "f1-score",
        "support",
    }
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 2


@pytest.mark.parametrize(
    "args, words, expected",
    [
        (("--depth", 9), "depth is 9, but 28 px", 2),
        (("--data", "nothing"), "no catalogue in nothing: run", 1),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    artclf, args, words, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = artclf(*args)
    assert (
        code == expected
        and not out
        and err.startswith("artclf: ")
        and len(err.strip().splitlines()) == 1
        and words in err
    )
    assert not list(tmp_path.iterdir())


# What takes long


@pytest.mark.slow
def test_transfer_learning_is_a_row_like_others(data, tmp_path):
    config = painters.configuration(arch="efficientnet_lite0", size=64, epochs=1)
    table = painters.compare(data, tmp_path, [config, painters.configuration(**TINY)])
    run = painters.fit(data, tmp_path, config)
    history = painters.history(run)
    assert list(history) == painters.HISTORY
    assert history[["train_loss", "valid_loss"]].notna().all(axis=None)
    assert history[["train_accuracy"]].isna().all(axis=None)
    assert run.predictions.filter(regex="^p_").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)
    assert (
        list(run.predictions.file) == list(splits.items(data).file)
        and run.facts["parameters"] > 3e6
    )
    assert (
        table.label[0].startswith("transfer, efficientnet_lite0, 64 px")
        and table.macro_f1.notna().all()
    )


@pytest.mark.slow
def test_the_notebook_runs_on_drawn_painters(tmp_path):
    import nbformat

    from artclf import run

    notebook, out = ROOT / "notebooks/experiments/13_painters.ipynb", tmp_path / "out"
    copy = run.execute(
        notebook,
        tmp_path / "copy.ipynb",
        {
            "DATA": str(tmp_path / "painters"),
            "OUT": str(out),
            "DRAWN": 120,
            "SEEDS": (1, 2),
            "SMALL": 16,
            "EPOCHS": 2,
            "CHANGES": ({}, {"pooling": "avg"}),
            "LARGE": 32,
            "LARGE_EPOCHS": 1,
            "TRANSFER_SIZE": 64,
            "TRANSFER_EPOCHS": 1,
            "ARCH": "efficientnet_lite0",
        },
    )
    outputs = [
        out
        for cell in nbformat.read(copy, 4).cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    text = " ".join(
        str(out.get("data", {}).get("text/plain", "")) + out.get("text", "") for out in outputs
    )
    assert (
        "f1_range" in text and "macro avg" in text and "transfer, efficientnet_lite0, 64 px" in text
    )
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 6
    results = pd.read_csv(out / "results.csv")
    assert len(results) == 2 * (2 + 2 + 1) and results[list(painters.FIGURES)].notna().all(
        axis=None
    )
    assert set(results.arch) == {"cnn", "efficientnet_lite0"} and list(results.seed[:4]) == [
        1,
        2,
        1,
        2,
    ]
    assert (
        len(list(out.glob("runs/*/run.json"))) == 10 and len(pd.read_csv(out / "history.csv")) == 2
    )
    assert (
        "macro avg" in (out / "report.txt").read_text()
        and len(pd.read_csv(out / "report.csv")) == 13
    )


@pytest.mark.slow
def test_real_painters_are_told_better_than_by_chance(paintings, tmp_path):
    from artclf import download
    from artclf.data import cleaning

    download.import_folder(paintings / "painters", tmp_path / "data")
    cleaning.normalise(tmp_path / "data")
    run = painters.fit(tmp_path / "data", tmp_path / "out", painters.configuration())
    parts = {
        part: accuracy_score(rows.period, rows.predicted)
        for part, rows in run.predictions.groupby("part")
    }
    assert (
        parts["test"] > 0.2 and parts["train"] > parts["test"] + 0.3
    )  # the most frequent painter has 0.1
