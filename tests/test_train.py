"""Step train: the lines of the notebook, the same weights for the same seed, and no epoch lost or
computed twice.
"""

import ast
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.vision.all import (
    EarlyStoppingCallback,
    F1Score,
    FocalLossFlat,
    LabelSmoothingCrossEntropyFlat,
    MixUp,
    Resize,
    ResizeMethod,
    RMSProp,
    accuracy,
    error_rate,
    top_k_accuracy,
)
from safetensors.torch import save_file

import artclf
from artclf import predict, train
from artclf.base.errors import SettingError, StepError
from artclf.data import cleaning, splits
from artclf.data.catalogue import Catalogue
from artclf.model import backbones, descriptions, exports, network
from artclf.results import recipe, saliency
from artclf.results.recipe import DEFAULTS

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}


class Stop(Callback):
    """Raises `error` at a batch of an epoch of the fit that it is given to, when there are
    gradients already.
    """

    fit_depends_on_it = False  # so that a fit goes on without it

    def __init__(self, error, epoch: int, batch: int = 0):
        self.error, self.at = error, (epoch, batch)

    def before_step(self):
        if (self.epoch, self.iter) == self.at:
            raise self.error


class Count(Callback):
    """Counts the batches that the network learns from."""

    batches = 0
    fit_depends_on_it = False

    def before_batch(self):
        self.batches += self.training


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


def learner(data, out, **kwargs):
    learn = train.learner(data, out, **{**SMALL, **kwargs})
    learn.remove_cb(learn.progress)
    learn.add_cb(Count())
    return learn


def weights(learn) -> dict:
    return {name: value.clone() for name, value in learn.model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def exported(out) -> dict:
    return exports.load_file(Path(out) / "model.safetensors")


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory, no_workers):
    """Learner, folder and weights of three epochs that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    learn = learner(drawn, out)
    learn.fit_one_cycle(3, 2e-3)
    return learn, out, weights(learn)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["test_vit", "test_convnext"])
def test_a_body_of_a_file_learns_from_block_3_on_and_its_export_needs_no_file(
    drawn, tmp_path, arch
):
    torch.manual_seed(1)
    file, out = tmp_path / "mine.safetensors", tmp_path / "out"
    save_file(timm.create_model(arch).state_dict(), file)
    settings = {**SMALL, "arch": arch, "weights": file, "unfreeze_from": 3}
    learn = train.fit(drawn, out, 1, 1, final=False, **settings)
    taken = backbones.find(arch, weights=file)
    fresh = network.Body(backbones.body(taken, 64, file), size=64)
    for stage, before, block in zip(learn.model[0].stages, fresh.stages, fresh.blocks, strict=True):
        assert block >= 3 or same(stage.state_dict(), before.state_dict())
        assert all(p.requires_grad == (block >= 3) for p in stage.parameters())
    file.unlink()
    clf = artclf.load(out)
    assert clf.config["weights"] == taken.weights
    command = recipe.command(json.loads((out / "metrics.json").read_text()), drawn, out)
    assert "--weights mine.safetensors" in command and f"--arch {arch}" in command
    table = pd.read_csv(out / "predictions.csv").iloc[::5]
    found = clf.probabilities([drawn / name for name in table.file])[0]
    np.testing.assert_allclose(found, table.filter(regex="^p_"), atol=1e-4)
    opened = artclf.load_learner(out, trust=True).model.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), clf.learner.model(x), atol=1e-3, rtol=1e-3)
    assert saliency.worst(out, drawn, n=3)


def test_fit_is_exactly_the_lines_of_the_notebook(drawn, export, tmp_path):
    book = json.loads((REPOSITORY / "notebooks/03_train.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    names = {
        "DATA": drawn,
        "EXPORT": tmp_path,
        "ARCH": "efficientnet_lite0",
        "SIZE": 64,
        "BATCH_SIZE": 8,
        "EPOCHS": 1,
        "UNFROZEN_EPOCHS": 1,
        "UNFREEZE_FROM": 4,
        "LR": 1e-3,
        "SPLIT": "auto",
        "PARTS": (70, 15, 15),
        "SEED": 42,
        "RESIZE": "squish",
        "FIND_LR": False,
        "train": train,
        "predict": predict,
    }
    recipe = [
        cell
        for cell in cells
        if any(
            word in cell
            for word in ("train.learner", "learn.fit", "learn.save", "learn.unfreeze", "export(")
        )
    ]
    for cell in recipe:
        exec(cell, names)
    assert [ast.unparse(ast.parse(cell)).split("(")[0].split(" = ")[-1] for cell in recipe] == [
        "train.learner",
        "learn.fit_one_cycle",
        "learn.save",
        "learn.unfreeze",
        "learn.fit_one_cycle",
        "learn.save",
        "predict.export",
    ]
    assert same(exported(tmp_path), exported(export))
    configs = [
        json.loads((out / "config.json").read_text(encoding="utf-8")) for out in (tmp_path, export)
    ]
    assert configs[0]["data_hash"] == configs[1]["data_hash"]
    assert {"stage-1.pth", "stage-2.pth"} <= {file.name for file in (export / "models").iterdir()}


def test_the_settings_of_the_notebook_are_those_of_the_recipe():
    book = json.loads((REPOSITORY / "notebooks/03_train.ipynb").read_text(encoding="utf-8"))
    [source] = [
        "".join(cell["source"])
        for cell in book["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    shown = {}
    exec(source, shown)
    settings = {name.lower(): value for name, value in shown.items() if name.isupper()}
    for name in ("data", "export", "find_lr"):
        del settings[name]
    assert len(settings) > 8
    assert settings == {name: getattr(DEFAULTS, name) for name in settings}


def test_a_rerun_puts_each_stage_back_as_it_was(drawn, tmp_path, capsys):
    def stages(out):
        learn = learner(drawn, out)
        learn.fit_one_cycle(1, 2e-3)
        first = weights(learn)
        learn.unfreeze()
        learn.best_epoch.f1 = -1.0  # so that the epoch to come is the best
        learn.best_epoch.valid_loss = float("inf")
        learn.fit_one_cycle(1, 1e-3)
        return first, weights(learn)

    first, second = stages(tmp_path)
    assert (
        not same(first, second)
        and "Kept the weights of epoch 0 of fit 1" in capsys.readouterr().out
    )
    again = stages(tmp_path)
    assert same(again[0], first) and same(again[1], second)


def test_weights_that_are_put_back_are_said(drawn, tmp_path, capsys):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 2e-3)
    learn.unfreeze()
    learn.fit_one_cycle(1, 0.5)  # a rate that ruins the network
    assert "Put back the weights of epoch 0 of fit 0" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_follows_from_its_settings_alone(drawn, tmp_path, precision):
    def trained(out):
        learn = learner(drawn, out, precision=precision)
        learn.fit_one_cycle(1, 2e-3)
        learn.unfreeze()
        learn.best_epoch.f1 = -1.0  # so that the epoch to come is the best
        learn.best_epoch.valid_loss = float("inf")
        learn.fit_one_cycle(1, 1e-3)
        return weights(learn)

    expected = trained(tmp_path / "one")
    for name in ("features.db", "pixels.db"):
        (drawn / name).unlink()
    assert same(trained(tmp_path / "two"), expected)
    # another run stores the features of some pictures, in batches of other pictures
    for name in ("features.db", "pixels.db"):
        (drawn / name).unlink()
    some = splits.items(drawn, seed=3).iloc[::2]
    learner(drawn, tmp_path / "some", precision=precision, split=some).fit_one_cycle(1, 2e-3)
    assert same(trained(tmp_path / "three"), expected)


def test_without_stored_batches_fastais_own_loaders_are_read(drawn, tmp_path, capsys):
    learn = learner(drawn, tmp_path, cached=False)
    said = capsys.readouterr().out
    assert "features.db" not in said and not hasattr(learn, "stored")
    learn.fit_one_cycle(1, 2e-3)
    assert learn.count.batches == len(learn.dls.train)
    assert learn.model[1][0].running_mean.abs().sum() > 0  # the head standardises batch by batch
    learner(drawn, tmp_path)
    assert "features.db" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_weights_and_another_does_not(whole, drawn, tmp_path):
    again, other = learner(drawn, tmp_path / "again"), learner(drawn, tmp_path / "other", seed=7)
    torch.rand(3)
    for learn in (again, other):
        learn.fit_one_cycle(3, 2e-3)
    assert same(weights(again), whole[2])
    assert not same(weights(other), whole[2])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=repr)
@pytest.mark.parametrize("fresh", [True, False], ids=["new learner", "same learner"])
def test_an_interrupted_fit_ends_with_the_weights_of_one_that_was_not(
    whole, drawn, tmp_path, error, fresh, capsys
):
    learn = learner(drawn, tmp_path)
    with pytest.raises(type(error)):
        learn.fit_one_cycle(3, 2e-3, cbs=Stop(error, 1, 2))
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1
    if fresh:
        learn = learner(drawn, tmp_path)
    learn.count.batches = 0
    learn.fit_one_cycle(3, 2e-3)
    assert same(weights(learn), whole[2])
    assert learn.count.batches == whole[0].count.batches * 2 // 3
    assert "Going on after epoch 0" in capsys.readouterr().out
    kept, expected = (
        pd.read_csv(out / "history.csv").drop(columns="seconds") for out in (tmp_path, whole[1])
    )
    pd.testing.assert_frame_equal(kept, expected)
    assert len(learn.recorder.losses) == len(whole[0].recorder.losses)


def test_a_fit_interrupted_in_its_first_epoch_starts_from_its_first_weights(whole, drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(3, 2e-3, cbs=Stop(KeyboardInterrupt(), 0, 2))
    learn.fit_one_cycle(3, 2e-3)
    assert same(weights(learn), whole[2])


@pytest.mark.slow
def test_stage_2_interrupted_ends_with_the_weights_of_one_that_was_not(drawn, tmp_path):
    def stages(out, stop=None):
        learn = learner(drawn, out)
        learn.fit_one_cycle(1, 2e-3)
        learn.unfreeze()
        learn.fit_one_cycle(2, slice(4e-6, 4e-4), cbs=stop)
        return learn

    expected = stages(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        stages(tmp_path / "cut", Stop(KeyboardInterrupt(), 1))
    resumed = stages(tmp_path / "cut")
    assert same(weights(resumed), weights(expected))
    assert resumed.count.batches == len(resumed.dls.train)  # one epoch of the three
    assert pd.read_csv(tmp_path / "cut/history.csv")[["fit", "epoch"]].to_numpy().tolist() == [
        [0, 0],
        [1, 0],
        [1, 1],
    ]


def test_all_done_is_not_computed_again_and_restores_a_lost_history(whole, drawn):
    learn, (_, out, expected) = learner(drawn, whole[1]), whole
    before = (out / "history.csv").read_bytes()
    (out / "history.csv").unlink()
    learn.fit_one_cycle(3, 2e-3)
    assert learn.count.batches == 0 and same(weights(learn), expected)
    assert (out / "history.csv").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"size": 72},
        {"resize": "pad"},
        {"lr": 1e-3},
        {"epochs": 2},
        {"exclude": ["05-baroque"]},
        {"dropout": 0.1},
        {"depth": 1},
        {"split": "random"},
        {"views": 1},
        {"pool": "last"},
        {"balance": False},
        {"loss_func": FocalLossFlat()},
        {"cbs": [MixUp()]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_setting_starts_afresh(whole, drawn, tmp_path, change, capsys):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    epochs, lr = change.pop("epochs", 3), change.pop("lr", 2e-3)
    learn = learner(drawn, tmp_path, **change)
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(epochs, lr, cbs=Stop(KeyboardInterrupt(), 0))
    assert learn.resume.epochs_done == 0 and "Going on" not in capsys.readouterr().out


class Scale(Callback):
    """Multiplies the loss, by a number that it is given and by one in its code."""

    def __init__(self, factor):
        self.factor = factor
        self.calls = 0

    def after_loss(self):
        self.calls += 1  # changes while it works
        self.learn.loss_grad = self.loss_grad * self.factor


class ScaleMore(Callback):
    def after_loss(self):
        self.learn.loss_grad = self.loss_grad * 2


class ScaleLess(Callback):
    def after_loss(self):
        self.learn.loss_grad = self.loss_grad * 3


ScaleLess.__name__ = ScaleMore.__name__  # a cell of a notebook that was changed and run again
ScaleLess.__qualname__ = ScaleMore.__qualname__


def goes_on(drawn, out, fit_cbs=(), **changes) -> bool:
    """Whether a fit of two epochs finds one done; it is stopped in whichever it begins with."""
    learn = learner(drawn, out, **changes)
    stops = [Stop(KeyboardInterrupt(), epoch) for epoch in range(2)]
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(2, 2e-3, cbs=[*fit_cbs, *stops])
    return learn.resume.epochs_done > 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"cbs": [MixUp(0.4)]}, {"cbs": [MixUp(0.1)]}),
        ({"cbs": [Scale(2)]}, {"cbs": [Scale(3)]}),
        ({"cbs": [ScaleMore()]}, {"cbs": [ScaleLess()]}),
        ({"fit_cbs": [MixUp(0.4)]}, {"fit_cbs": [MixUp(0.1)]}),
        ({"fit_cbs": [MixUp(0.4)]}, {}),
        (
            {"loss_func": LabelSmoothingCrossEntropyFlat(eps=0.1)},
            {"loss_func": LabelSmoothingCrossEntropyFlat(eps=0.3)},
        ),
        ({"opt_func": partial(RMSProp, mom=0.9)}, {"opt_func": partial(RMSProp, mom=0.5)}),
        ({"metrics": [accuracy]}, {"metrics": [error_rate]}),
    ],
    ids=[
        "setting of a callback",
        "setting of a callback of the reader's",
        "code of a callback",
        "setting of a callback of the fit",
        "callback of the fit",
        "setting of the loss",
        "setting of the optimizer",
        "metrics",
    ],
)
def test_a_setting_inside_a_callback_a_loss_or_an_optimizer_starts_afresh(
    drawn, tmp_path, before, after
):
    def fresh(options):
        return copy.deepcopy(options)  # as a new process makes them

    learn_options = fresh({name: value for name, value in before.items() if name != "fit_cbs"})
    learn = learner(drawn, tmp_path, **learn_options)
    fit_cbs = fresh(before.get("fit_cbs", []))
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(2, 2e-3, cbs=[*fit_cbs, Stop(KeyboardInterrupt(), 1)])
    shutil.copytree(tmp_path, other := tmp_path / "other", ignore=shutil.ignore_patterns("other"))
    assert goes_on(drawn, tmp_path, **fresh(before))
    assert not goes_on(drawn, other, **fresh(after))


@pytest.mark.parametrize("name", ["torch", "fastai", "code"])
def test_another_version_starts_afresh(whole, drawn, tmp_path, name, monkeypatch):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    other = {**descriptions.versions(), name: "another"}
    monkeypatch.setattr("artclf.model.keep.versions", lambda: other)
    learn = learner(drawn, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(3, 2e-3, cbs=Stop(KeyboardInterrupt(), 0))
    assert learn.resume.epochs_done == 0


def test_the_best_epoch_of_all_stages_is_kept(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(2, 2e-3)
    first = weights(learn)
    learn.unfreeze()
    learn.fit_one_cycle(2, 0.5)  # a rate that ruins the network
    history = pd.read_csv(tmp_path / "history.csv")
    best = history[history.fit == 0].iloc[-1]
    assert best.macro_f1 > history[history.fit == 1].macro_f1.max() and same(weights(learn), first)
    learn.freeze()
    np.testing.assert_allclose(
        learn.validate()[1:4], best[["error_rate", "accuracy", "macro_f1"]].astype(float)
    )


def test_a_later_fit_must_not_cost_loss_on_valid(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 1e-3)
    first = weights(learn)
    learn.best_epoch.f1 = -1.0  # any epoch has a higher macro F1, and a higher loss
    learn.best_epoch.valid_loss = 0.0
    learn.unfreeze()
    learn.fit_one_cycle(1, 1e-3)
    assert same(weights(learn), first) and learn.best_epoch.f1 == -1.0


@pytest.mark.slow
def test_gradually_one_block_after_the_other_learns(drawn, tmp_path):
    train.fit(drawn, tmp_path, 1, 1, gradual=True, unfreeze_from=2, **SMALL)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history.learning.tolist() == [1, 2, 3, 4] and set(history.groups) == {4}
    np.testing.assert_allclose(history.lr_high, [1e-3, 1e-4, 1e-4, 1e-4])
    np.testing.assert_allclose(history.lr_low, [1e-3, 1e-5, 1e-5, 1e-5])
    with pytest.raises(ValueError, match="--unfreeze-from 3"):
        train.fit(drawn, tmp_path, gradual=True, **SMALL)


def test_a_fit_that_its_callback_ends_keeps_its_last_epoch(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(5, 1e-3, cbs=EarlyStoppingCallback("macro_f1", min_delta=2.0, patience=1))
    history = pd.read_csv(tmp_path / "history.csv")
    assert len(history) == 2 and learn.best_epoch.f1 == history.macro_f1.iloc[-1]


def test_a_fit_that_ends_before_its_first_epoch_puts_nothing_back(drawn, tmp_path, capsys):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(2, 1e-3, cbs=Stop(CancelFitException(), 0, 1))
    said = capsys.readouterr().out
    assert "weights of epoch" not in said and not (tmp_path / "models/best-0.pth").exists()


def test_the_key_of_a_fit_is_as_short_after_many_fits(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    for _ in range(3):
        learn.fit_one_cycle(1, 1e-3)
    files = (tmp_path / "models").glob("fit-*.pth")
    keys = {torch.load(file, weights_only=True)["key"] for file in files}
    assert [len(key) for key in keys] == [64] * 3


def test_a_table_of_parts_cannot_be_exported_by_fit(drawn, tmp_path):
    with pytest.raises(ValueError, match="train.learner"):
        train.fit(drawn, tmp_path, split=splits.items(drawn))
    assert not (tmp_path / "models").exists()


@pytest.mark.slow
def test_looking_at_the_learner_between_fits_changes_nothing(drawn, tmp_path):
    def stages(out, look):
        learn = learner(drawn, out)
        learn.fit_one_cycle(1, 2e-3)
        learn.unfreeze()
        if look:
            look_around(learn, out)
        learn.fit_one_cycle(1, slice(4e-6, 4e-4))
        return learn

    def look_around(learn, out):
        files = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
        learn.validate()
        learn.get_preds()
        learn.lr_find(show_plot=False, num_it=20, end_lr=1, stop_div=False)
        changed = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
        assert changed == {file: files[file] for file in files if file.is_file()}
        assert set(files) == set(out.rglob("*"))

    looked, plain = stages(tmp_path / "looked", True), stages(tmp_path / "plain", False)
    assert same(weights(looked), weights(plain))
    assert len(pd.read_csv(tmp_path / "looked/history.csv")) == 2


def test_a_fit_after_an_interrupted_look_is_kept(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    with learn.added_cbs(Stop(KeyboardInterrupt(), 0, 1)), pytest.raises(KeyboardInterrupt):
        learn.lr_find(show_plot=False)
    learn.fit_one_cycle(1, 2e-3)
    assert (
        len(pd.read_csv(tmp_path / "history.csv")) == 1 and (tmp_path / "models/fit-0.pth").exists()
    )


def test_history_has_a_row_an_epoch(whole):
    history = pd.read_csv(whole[1] / "history.csv")
    figures = ["train_loss", "valid_loss", "error_rate", "accuracy", "macro_f1"]
    assert list(history) == ["fit", "epoch", *figures, "seconds", *predict.FIT_COLUMNS]
    assert set(history.lr_low) == set(history.lr_high) == {2e-3} and set(history.learning) == {1}
    assert (
        history.epoch.tolist() == [0, 1, 2]
        and history.notna().all(axis=None)
        and (history.seconds > 0).all()
    )
    np.testing.assert_allclose(history.error_rate, 1 - history.accuracy, atol=1e-6)


def test_fewer_images_than_a_batch_are_learned_from(drawn, tmp_path):
    learn = learner(drawn, tmp_path, batch_size=512)
    learn.fit_one_cycle(1, 2e-3)
    assert learn.count.batches == 2  # one a view
    assert pd.read_csv(tmp_path / "history.csv").train_loss.notna().all()
    with pytest.raises(ValueError, match="batch"):
        learner(drawn, tmp_path, batch_size=1)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": float("nan")},
        {"lr": 1e30},
        {"epochs": -1},
        {"unfrozen_epochs": -1},
        {"size": 0},
        {"batch_size": 1},
        {"width": 0},
        {"depth": -1},
        {"views": 0},
        {"dropout": 1},
        {"ridge": float("inf")},
        {"unfreeze_from": 5},
        {"seed": -1},
        {"seed": 1.5},
        {"epochs": "many"},
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_work_starts(tmp_path, settings):
    [(name, value)] = settings.items()
    with pytest.raises(SettingError, match=f"^{name} is {re.escape(repr(value))}: take a "):
        train.fit(tmp_path / "nothing", tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epochs, lr", [(-1, 1e-3), (1, float("nan")), (1, 1e30)])
def test_a_fit_that_makes_no_sense_is_refused(drawn, tmp_path, epochs, lr):
    learn = learner(drawn, tmp_path)
    with pytest.raises(SettingError, match="^(epochs|lr) is "):
        learn.fit_one_cycle(epochs, lr)
    assert list(tmp_path.iterdir()) == []


class NaNLoss(torch.nn.Module):
    """Cross-entropy, but NaN from a call on, in training or in validation."""

    def __init__(self, first: int, in_training: bool):
        super().__init__()
        self.first, self.in_training, self.calls = first, in_training, 0

    def forward(self, logits, targets):
        loss = torch.nn.functional.cross_entropy(logits, targets)
        if logits.requires_grad != self.in_training:
            return loss
        self.calls += 1
        return loss * (float("nan") if self.calls >= self.first else 1)


@pytest.mark.parametrize("first, in_training", [(1, True), (1, False)])
def test_a_loss_that_becomes_nan_ends_training_and_leaves_the_export_alone(
    drawn, export, tmp_path, first, in_training
):
    out = shutil.copytree(export, tmp_path / "out", ignore=shutil.ignore_patterns("models"))
    before = {file: file.read_bytes() for file in out.iterdir() if file.is_file()}
    with pytest.raises(StepError, match=r"^the loss is nan in epoch 0: .* than 0.002 \(--lr\)"):
        train.fit(drawn, out, 2, 1, 2e-3, **SMALL, loss_func=NaNLoss(first, in_training))
    assert {file: file.read_bytes() for file in out.iterdir() if file.is_file()} == before


def test_an_epoch_whose_loss_is_nan_is_never_the_best(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 2e-3)
    kept = learn.best_epoch.state()
    learn.history.rows.append({**learn.history.rows[-1], "macro_f1": 2.0, "valid_loss": np.nan})
    learn.best_epoch._take_if_better()
    assert learn.best_epoch.state() == kept


def test_a_network_of_nan_is_not_exported(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    torch.nn.init.constant_(learn.model[1][-1].weight, float("nan"))
    with pytest.raises(StepError, match="1.2.weight of the network is not finite"):
        predict.export(learn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_finder_of_the_learning_rate_may_diverge(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.lr_find(end_lr=1e30, num_it=12, stop_div=False, show_plot=False)
    learn.fit_one_cycle(1, 2e-3)
    assert pd.read_csv(tmp_path / "history.csv").valid_loss.notna().all()


def test_the_body_is_frozen_and_only_the_head_learns(whole, drawn, tmp_path):
    start = weights(learner(drawn, tmp_path))
    changed = {
        name.split(".")[0]
        for name, value in whole[2].items()
        if not torch.equal(value, start[name])
    }
    assert changed == {"1"}


@pytest.mark.parametrize(
    "resize, method",
    [("squish", ResizeMethod.Squish), ("crop", ResizeMethod.Crop), ("pad", ResizeMethod.Pad)],
)
def test_resizing(drawn, tmp_path, resize, method):
    learn = learner(drawn, tmp_path, resize=resize)
    tfm = learn.dls.after_item.fs.filter(lambda tfm: isinstance(tfm, Resize))[0]
    assert tfm.method == method and tuple(tfm.size) == (64, 64)
    assert learn.dls.one_batch()[0].shape == (8, 3, 64, 64)


def test_head_of_wanted_width_and_depth(drawn, tmp_path):
    model = learner(drawn, tmp_path, width=48, depth=2, dropout=0.3).model[1]
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [48, 48, 5]
    assert linear[-1].out_features == len(learner(drawn, tmp_path).dls.vocab)


def test_excluded_class_is_neither_learned_nor_predicted(drawn, tmp_path):
    learn = learner(drawn, tmp_path, exclude=["05-baroque"])
    assert (
        list(learn.dls.vocab)
        == learn.config["vocab"]
        == ["01-early_renaissance", "09-realism", "13-expressionism", "17-dadaism"]
    )
    assert not any("05-baroque" in str(file) for file in learn.dls.train.items)


def test_test_images_are_never_seen_in_training(whole, drawn):
    table, learn = splits.items(drawn), whole[0]
    seen = {Path(file) for dl in learn.dls.loaders for file in dl.items}
    assert seen == {drawn / file for file in table[table.part != "test"].file}
    assert {Path(file) for file in learn.dls.valid.items} == {
        drawn / f for f in table[table.part == "valid"].file
    }


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"resize": "stretch"}, ["stretch", "squish, crop, pad"]),
        ({"arch": "no-such-network"}, ["no-such-network", "efficientnet_lite0"]),
        ({"arch": "hf-hub:somebody/something"}, ["hf-hub:somebody/something"]),
        (
            {"exclude": ["01-early_renaissance", "05-baroque", "09-realism", "13-expressionism"]},
            ["single class", "17-dad"],
        ),
        ({"parts": (70, 0, 30)}, ["valid"]),
        ({"split": "own"}, ["column `split`", "nothing", "train, valid, test"]),
    ],
)
def test_settings_that_cannot_work_say_what_to_do(drawn, tmp_path, settings, words):
    with pytest.raises(ValueError) as error:
        learner(drawn, tmp_path, **settings)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_without_weights_the_error_names_the_way_out(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConnectionError, match="--arch auto"):
        learner(drawn, tmp_path, arch="resnet18")
    assert learner(drawn, tmp_path, arch="resnet18", pretrained=False).opt is None


def test_no_data_and_too_few_images_say_what_to_do(drawn, tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf download"):
        learner(tmp_path / "nothing", tmp_path)
    assert not (tmp_path / "nothing").exists()
    shutil.copytree(drawn, data := tmp_path / "data")
    with Catalogue(data) as cat:
        cat.update(
            {"url": row["url"], "period": row["period"], "clean_status": "rejected"}
            for row in cat.select("period = '05-baroque'")[2:]
        )
    with pytest.raises(ValueError, match=r"too few images .* 05-baroque: .*--exclude"):
        learner(data, tmp_path)


@pytest.mark.slow
def test_the_default_path_trains_resnet34(drawn, tmp_path, monkeypatch):
    """`--arch auto` with the weights of ResNet34, random ones here, in the cache of torch's hub."""
    import torchvision

    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    file = torchvision.models.ResNet34_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet34().state_dict(), cache / file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    out = tmp_path / "out"
    learn = train.fit(drawn, out, epochs=2, unfrozen_epochs=1, size=64, final=False)
    assert learn.config["name"] == "resnet34" and learn.config["library"] == "torchvision"
    assert "IMAGENET" in learn.config["weights"] and learn.config["precision"] == "float32"
    assert learn.config["cached"] and (drawn / "features.db").exists()
    history = pd.read_csv(out / "history.csv")
    assert history.learning.tolist() == [1, 1, 2] and set(history.groups) == {2}
    classifier = predict.load(out)
    table = pd.read_csv(out / "predictions.csv")
    found = classifier.predict([drawn / name for name in table.file[:5]])
    np.testing.assert_allclose(found.probability, table.probability[:5], atol=1e-4)
    assert json.loads((out / "metrics.json").read_text("utf-8"))["recipe"]["arch"] == "resnet34"


CODE = """
import sys
from artclf import train
data, out = sys.argv[1:]
train.fit(data, out, 2, 2, arch="efficientnet_lite0", size=64, batch_size=8)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_at_any_moment_it_ends_with_the_same_weights(drawn, tmp_path):
    cut, kills = tmp_path / "cut", 0
    command = [sys.executable, "-c", CODE, drawn, cut]
    subprocess.run([*command[:-1], tmp_path / "whole"], check=True, stdout=subprocess.DEVNULL)
    for marks in (
        ["models/fit-0.pth"],
        ["history.csv"],
        ["models/fit-1.pth"],
        ["model.safetensors"],
    ):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not all((cut / mark).exists() for mark in marks):
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert kills >= 3
    assert same(exported(cut), exported(tmp_path / "whole"))
    assert len(pd.read_csv(cut / "history.csv")) == 4
    assert not list(cut.rglob("*.part"))


def test_metrics_callbacks_and_loss_of_ones_own_are_taken_as_vision_learner_takes_them(
    drawn, tmp_path
):
    loss_func = LabelSmoothingCrossEntropyFlat()
    learn = learner(drawn, tmp_path, metrics=top_k_accuracy, cbs=MixUp, loss_func=loss_func)
    assert [metric.name for metric in learn.metrics] == ["top_k_accuracy", "macro_f1"]
    assert learn.loss_func is loss_func and learn.mix_up.learn is learn
    learn.remove_cb(MixUp)
    learn.fit_one_cycle(1, 2e-3)
    history = pd.read_csv(tmp_path / "history.csv")
    assert {"top_k_accuracy", "macro_f1"} <= set(history) and "accuracy" not in history


def test_a_metric_called_f1_score_does_not_choose_the_epoch(drawn, tmp_path):
    learn = learner(drawn, tmp_path, metrics=[F1Score(average="micro")])
    learn.fit_one_cycle(1, 2e-3)
    row = pd.read_csv(tmp_path / "history.csv").iloc[0]
    assert learn.best_epoch.f1 == row.macro_f1 and "f1_score" in row


def test_fine_tune_is_the_short_form_of_both_stages(drawn, tmp_path, capsys):
    learn = learner(drawn, tmp_path)
    before = weights(learn)
    learn.fine_tune(1, 2e-3)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history.fit.tolist() == [0, 1] and history.learning.tolist() == [1, 2]
    assert history.lr_high.tolist() == pytest.approx([2e-3, 1e-3])
    assert not same(weights(learn), before) and "the best on valid" in capsys.readouterr().out


def test_the_size_of_clean_copies_is_kept_and_a_larger_network_is_warned_of(fresh, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert learner(fresh, tmp_path).config["max_size"] == 500
    cleaning.normalise(fresh, max_size=64, workers=1)
    with pytest.warns(UserWarning, match="--size 65 enlarges .* at most 64 px.*--max-size 65"):
        assert learner(fresh, tmp_path, size=65).config["max_size"] == 64


def test_the_parts_of_folders_are_taken_by_default_and_a_line_says_so(tmp_path, no_workers, capsys):
    from made_pictures import encoded, noise

    from artclf import clean, download

    folder, data, out = tmp_path / "folder", tmp_path / "data", tmp_path / "out"
    for seed, name in enumerate([*["train/a", "train/b"] * 3, *["val/a", "val/b"] * 2]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{seed}.png").write_bytes(encoded(noise(seed=seed)))
    download.import_folder(folder, data)
    clean.clean_all(data, near_duplicates=False)
    with pytest.warns(UserWarning, match="figures are measured on valid"):
        learn = learner(data, out)
    assert "the column `split` (--split own)" in capsys.readouterr().out
    assert learn.config["split"] == "own"
    assert (len(learn.dls.train_ds), len(learn.dls.valid_ds)) == (6, 4)
    assert set(splits.recorded(data)["own 70,15,15 seed 42"]) == {"train", "valid"}
    assert learner(data, out, split="grouped").config["split"] == "grouped"
    assert "grouped 70,15,15 seed 42" in splits.recorded(data)


def test_a_second_run_into_one_folder_stops_before_it_writes(drawn, tmp_path, no_workers):
    import subprocess
    import sys

    out = tmp_path / "out"
    program = (
        "import sys, time\n"
        "from artclf.base.locks import locked\n"
        "with locked(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    learn = learner(drawn, out)
    other = subprocess.Popen([sys.executable, "-c", program, out], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        before = sorted(out.rglob("*"))
        with pytest.raises(StepError, match="another run is writing to"):
            learn.fit_one_cycle(1, 1e-3)
        with pytest.raises(StepError, match="another run is writing to"):
            train.fit(drawn, out, 1, 0, arch="efficientnet_lite0", size=64, batch_size=8)
        assert sorted(out.rglob("*")) == before
    finally:
        other.kill()
        other.communicate()
    learn.fit_one_cycle(1, 1e-3)
    assert (out / "history.csv").exists()
