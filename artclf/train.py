"""Step train: the classic fastai recipe, from clean images to an exported learner.

Reads `DATA/clean/` and the catalogue; writes `EXPORT/` (checkpoints in `EXPORT/models/`, `history.csv`, and by
`predict.export` all the rest). Notebook: `03_train`, which shows the lines of `fit` one by one.
"""
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import F1Score, accuracy, error_rate
from fastai.torch_core import set_seed
from fastcore.foundation import L

from artclf import backbones, engine, network
from artclf.split import fingerprint, items


def fit(data, out, epochs: int = 15, unfrozen_epochs: int = 2, lr: float = 1e-3, gradual: bool = False,
        **kwargs) -> Learner:
    """Train the head alone, then the upper blocks of the body, too, and export; the learner comes back at its best.

    `lr` is the highest learning rate of the head; unfrozen, the head learns at a tenth of it and the lowest block at a
    tenth of that (linear probing, then fine-tuning: Kumar et al. 2022). With `gradual`, the blocks are unfrozen one
    after the other, an epoch each (Howard and Ruder 2018), before all learn. Further arguments go to `learner`; but
    `split` must be a name here, by which the export cuts the data again. Raises ValueError where it isn't, or where
    `gradual` finds a single block to unfreeze.
    """
    from artclf import predict
    if not isinstance(kwargs.get("split", ""), str):
        raise ValueError("an export needs a split by name: for a table, take train.learner and its own fits")
    learn = learner(data, out, **kwargs)
    if gradual and len(network.groups(learn.model, learn.config["unfreeze_from"])) < 3:
        raise ValueError("--gradual has one block alone to unfreeze: give more of them by --unfreeze-from 3 or lower")
    with nullcontext() if sys.stdout.isatty() else learn.no_bar():
        learn.fit_one_cycle(epochs, lr)
        learn.save("stage-1")
        for n in range(2, len(learn.opt.param_lists) if gradual else 0):
            learn.freeze_to(-n)
            learn.fit_one_cycle(1, slice(lr / 100, lr / 10))
        learn.unfreeze()
        learn.fit_one_cycle(unfrozen_epochs, slice(lr / 100, lr / 10))
        learn.save("stage-2")
    predict.export(learn, out)
    return learn


def learner(data, out, arch: str = "auto", size: int = 320, resize: str = "squish", batch_size: int = 32,
            split="grouped", parts: Sequence[float] = (70, 15, 15), seed: int = 42, exclude: Sequence[str] = (),
            width: int = 512, depth: int = 0, dropout: float = 0.0, ridge: float = 0.3, pool: str = "style",
            views: int = 2, unfreeze_from: int = 4, balance: bool = True, pretrained: bool = True, cbs=(),
            **kwargs) -> Learner:
    """A fastai `Learner` on the clean images of `data`, its body frozen, that `Keep`s its best under `out`.

    `arch` is a name that `backbones.find` knows; pictures are brought to `size` x `size` px by `resize` (squish, crop
    or pad); `split.items` cuts them by `split`, or `split` is a table such as it gives. The head has `depth` hidden
    layers of `width` units on what the body gives by `pool` (see `network.Body`); without hidden layers it is kept
    small by `ridge` (see `engine.Ridge`), else, or where `ridge` is 0, by AdamW's decay. Frozen, it learns on `views`
    views of each picture (see `features.views`), unfrozen the body learns from block `unfreeze_from` on (1 to 4, 0 for
    all). With `balance` every period weighs as much as any other in the loss. Training that was interrupted goes on
    from its last finished epoch; the same `seed` gives the same weights on one machine. Further arguments go to
    `Learner`. Raises ValueError for settings that don't fit the data, FileNotFoundError without a catalogue.
    """
    _check(resize, pool, views, unfreeze_from)
    backbone = backbones.find(arch, pretrained)
    table = items(data, split, parts, seed, exclude) if isinstance(split, str) else split
    if "valid" not in set(table.part):
        raise ValueError("the part valid is empty, and the best epoch is chosen on it: give it images")
    batch_size = min(batch_size, int((table.part == "train").sum()))  # fastai drops a batch that isn't full
    if batch_size < 2: raise ValueError("batch normalisation needs two images or more a batch")
    config = {**asdict(backbone), "vocab": sorted(table.period.unique()), "size": size, "resize": resize,
              "width": width, "depth": depth, "dropout": dropout, "ridge": ridge, "pool": pool, "views": views,
              "unfreeze_from": unfreeze_from, "balance": balance, "batch_size": batch_size, "seed": seed,
              "split": split if isinstance(split, str) else "table", "parts": list(parts), "exclude": list(exclude),
              "callbacks": [type(cb).__name__ for cb in cbs], "arguments": sorted(kwargs),
              "data_hash": fingerprint(table), "temperature": 1.0}
    set_seed(seed, reproducible=True)
    rows = table[table.part != "test"]
    dls = backbones.loaders([Path(data) / file for file in rows.file], rows.part == "valid", config, path=Path(data))
    if balance: kwargs = {"loss_func": CrossEntropyLossFlat(weight=class_weights(table).to(dls.device)), **kwargs}
    ridged, norms = [engine.Ridge(ridge)] if ridge and not depth else [], [engine.KeepNorms] if pretrained else []
    cbs = [Keep(config), engine.Stored(data, rows, backbone, config), *ridged, *norms, *cbs]
    kwargs = {"wd": 0.01 if ridged or not pretrained else 3.0, **kwargs}
    learn = network.new_learner(dls, config, path=Path(out), train_bn=not pretrained, cbs=cbs,
                                metrics=[error_rate, accuracy, F1Score(average="macro")], **kwargs)
    learn.config = config
    return learn


def class_weights(table) -> torch.Tensor:
    """What each period weighs in the loss, in sorted order: all images by those of the period and by the periods."""
    counts = table[table.part == "train"].period.value_counts().sort_index()
    return torch.tensor((counts.sum() / (len(counts) * counts)).to_numpy(), dtype=torch.float32)


def _check(resize, pool, views, unfreeze_from):
    if resize not in backbones.RESIZE:
        raise ValueError(f"--resize is {resize!r}: take one of {', '.join(backbones.RESIZE)}")
    if pool not in network.POOLS: raise ValueError(f"--pool is {pool!r}: take one of {', '.join(network.POOLS)}")
    if views < 1: raise ValueError(f"--views is {views}: the head needs one view of a picture at least")
    if unfreeze_from not in range(5): raise ValueError(f"--unfreeze-from is {unfreeze_from}: take a block from 1 to 4, "
                                                       "or 0 for all")


class Keep(Callback):
    """Keeps every finished epoch, so that an interrupted fit goes on from it, and the best one, to end with it.

    A fit is known by its settings, number, epochs and learning rates. Every epoch starts from a seed of its own: a
    fit that was interrupted ends with the weights of one that was not. The best epoch has the highest macro F1 on
    valid of all fits so far. On few images that is half chance, so two rules keep it from being: an epoch of a later
    fit must not have a higher loss there than what the fit began with; and of a linear head alone, whose loss has one
    minimum, only the last epoch is taken, for it lies nearest to that. Writes `models/fit-N.pth` and `history.csv`
    under the learner's path.
    """
    order = 55  # after Recorder, whose log it replays, and before the progress bar

    def __init__(self, config: dict):
        self.config, self.fits, self.history = config, [], []
        self.best = {"f1": -1.0, "loss": float("inf"), "where": "before training", "model": None}

    def before_fit(self):
        # validate, get_preds and lr_find; not fastai's `run`, which an interrupted lr_find would leave switched off
        self.idle = self.learn.lock.locked() or hasattr(self.learn, "lr_finder")
        if self.idle: return
        if not self.fits: self.config["lr"] = max(self._lrs())
        self.key, self.rows, self.begun_at = self._key(), [], self.best["loss"]
        self.file = self.learn.path / self.learn.model_dir / f"fit-{len(self.fits)}.pth"
        state = self._read()
        if state: self._restore(state)
        else: self._save()
        if len(self.rows) < self.n_epoch: self._say_how_long()

    def before_epoch(self):
        if self.idle: return
        if self.epoch < len(self.rows):
            self.learn.recorder.log = L([self.epoch, *self.rows[self.epoch]])  # so that the table shows it again
            raise CancelEpochException
        self.started, seed = time.time(), self.config["seed"] + 1000 * len(self.fits) + self.epoch
        set_seed(seed, reproducible=True)
        self.dls.train.rng = random.Random(seed)

    def after_epoch(self):
        if self.idle or self.epoch < len(self.rows): return
        names = list(self.recorder.metric_names)[1:-1]
        self.rows.append([float(value) for value in self.recorder.values[-1]])
        row = dict(zip(names, self.rows[-1], strict=True))
        lrs = self._lrs()
        self.history.append({"fit": len(self.fits), "epoch": self.epoch, **row, "seconds": time.time() - self.started,
                             "lr_low": min(lrs), "lr_high": max(lrs), "groups": len(lrs),
                             "learning": len(lrs) - self.opt.frozen_idx, "scheduled": " ".join(self._schedules())})
        if not self._is_convex() or self.epoch == self.n_epoch - 1: self._take_if_better()
        self._save()
        self._write_history()

    def after_fit(self):
        if self.idle: return
        stopped = 0 < len(self.rows) == self.epoch + 1 < self.n_epoch  # as fastai's EarlyStoppingCallback does
        if stopped and self._is_convex(): self._take_if_better()
        if self.best["model"]: self.learn.model.load_state_dict(self.best["model"])
        self.fits.append(self.key)
        print(f"Kept the best so far on valid: {self.best['where']}, macro F1 {self.best['f1']:.3f}.")

    def _is_convex(self) -> bool:
        return self.learn.stored.frozen and network.standardising(self.learn.model[1]) is not None

    def _take_if_better(self):
        row = self.history[-1]
        if row["f1_score"] > self.best["f1"] and not row["valid_loss"] > self.begun_at:
            self.best = {"f1": row["f1_score"], "loss": row["valid_loss"], "model": self._weights(),
                         "where": f"epoch {row['epoch']} of stage {len(self.fits) + 1}"}

    def _lrs(self) -> list[float]:
        """The highest learning rate of each parameter group."""
        schedule, number = self._schedules().get("lr"), len(self.opt.param_lists)
        found = ([np.broadcast_to(schedule(at), number) for at in np.linspace(0, 1, 21)] if schedule
                 else [[float(group["lr"]) for group in self.opt.hypers]])
        return np.max(found, axis=0).astype(float).tolist()

    def _schedules(self) -> dict:
        """What changes from batch to batch, such as `lr`: a function each, of the share of the fit that is done."""
        return {name: schedule for cb in self.learn.cbs for name, schedule in getattr(cb, "scheds", {}).items()}

    def _key(self) -> str:
        schedules = {name: [np.asarray(schedule(at)).tolist() for at in (0, 0.1, 0.5)]
                     for name, schedule in self._schedules().items()}
        # Without what is scheduled: an interrupted fit leaves that in the optimizer as it was at the time.
        hypers = [{k: float(v) for k, v in group.items() if k not in schedules} for group in self.opt.hypers]
        loss = self.learn.loss_func
        weight = getattr(loss, "weight", None)
        loss = [repr(loss), weight if weight is None else weight.tolist()]
        return json.dumps([self.config, self.fits, self.n_epoch, self.opt.frozen_idx, hypers, schedules, loss])

    def _read(self) -> dict | None:
        if not self.file.exists(): return None
        state = torch.load(self.file, map_location=self.dls.device, weights_only=True)
        return state if state["key"] == self.key else None

    def _save(self):
        recorder, opt = self.learn.recorder, self.opt.state_dict()
        state = {"key": self.key, "rows": self.rows, "history": self.history, "best": self.best,
                 "model": self.learn.model.state_dict(), "opt": opt["state"],
                 "hypers": [{k: float(v) for k, v in group.items()} for group in opt["hypers"]],
                 "losses": [float(loss) for loss in recorder.losses], "lrs": [float(lr) for lr in recorder.lrs],
                 "smooth": [recorder.smooth_loss.count, float(recorder.smooth_loss.val)]}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, part := self.file.with_suffix(".part"))
        part.replace(self.file)

    def _restore(self, state: dict):
        self.rows, self.history, self.best = state["rows"], state["history"], state["best"]
        self.learn.model.load_state_dict(state["model"])
        self.opt.load_state_dict({"state": state["opt"], "hypers": L(state["hypers"])})
        self.opt.zero_grad()  # an interrupted batch may have left its gradients
        recorder = self.learn.recorder
        recorder.losses, recorder.lrs = state["losses"], state["lrs"]
        recorder.smooth_loss.count, recorder.smooth_loss.val = state["smooth"][0], torch.tensor(state["smooth"][1])
        self._write_history()
        if self.rows: print(f"Going on after epoch {len(self.rows) - 1}, which {self.file} keeps.")

    def _write_history(self):
        if self.history: pd.DataFrame(self.history).to_csv(self.learn.path / "history.csv", index=False)

    def _weights(self) -> dict:
        return {name: value.detach().clone() for name, value in self.learn.model.state_dict().items()}

    def _say_how_long(self):
        if self.dls.device.type == "cpu":
            print(f"About {self.learn.stored.seconds(self.n_epoch - len(self.rows)) / 60:.1f} minutes on this CPU.")
