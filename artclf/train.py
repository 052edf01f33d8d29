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
from fastai.callback.core import Callback, CancelEpochException, TrainEvalCallback
from fastai.learner import Learner
from fastai.metrics import F1Score, accuracy, error_rate
from fastai.torch_core import norm_types, set_seed
from fastcore.foundation import L

from artclf import backbones
from artclf.split import fingerprint, items


def fit(data, out, epochs: int = 4, unfrozen_epochs: int = 2, lr: float = 2e-3, **kwargs) -> Learner:
    """Train with the head alone, then with the whole network, and export; the learner that comes back is the best one.

    `lr` is the highest learning rate of the head; unfrozen, the body's first layers learn at a hundredth of a fifth
    of it. Further arguments go to `learner`.
    """
    from artclf import predict
    learn = learner(data, out, **kwargs)
    with nullcontext() if sys.stdout.isatty() else learn.no_bar():
        learn.fit_one_cycle(epochs, lr)
        learn.save("stage-1")
        learn.unfreeze()
        learn.fit_one_cycle(unfrozen_epochs, slice(lr / 500, lr / 5))
        learn.save("stage-2")
    predict.export(learn, out)
    return learn


def learner(data, out, arch: str = "auto", size: int = 224, resize: str = "squish", batch_size: int = 32,
            split: str = "grouped", parts: Sequence[float] = (70, 15, 15), seed: int = 42, exclude: Sequence[str] = (),
            width: int = 512, depth: int = 1, dropout: float = 0.5, pretrained: bool = True) -> Learner:
    """A fastai `Learner` on the clean images of `data`, its body frozen, that keeps its best epoch under `out`.

    `arch` is a name that `backbones.find` knows; pictures are brought to `size` x `size` px by `resize` (squish, crop
    or pad); `split.items` cuts them by `split`; the head has `depth` hidden layers of `width` units. Training that was
    interrupted goes on from its last finished epoch; the same `seed` gives the same weights on one machine.
    Raises ValueError for settings that don't fit the data, FileNotFoundError without a catalogue.
    """
    if resize not in backbones.RESIZE:
        raise ValueError(f"--resize is {resize!r}: take one of {', '.join(backbones.RESIZE)}")
    backbone = backbones.find(arch, pretrained)
    table = items(data, split, parts, seed, exclude)
    if "valid" not in set(table.part):
        raise ValueError("the part valid is empty, and the best epoch is chosen on it: give it images")
    batch_size = min(batch_size, int((table.part == "train").sum()))  # fastai drops a batch that isn't full
    if batch_size < 2: raise ValueError("batch normalisation needs two images or more a batch")
    config = {**asdict(backbone), "vocab": sorted(table.period.unique()), "size": size, "resize": resize,
              "width": width, "depth": depth, "dropout": dropout, "batch_size": batch_size, "seed": seed,
              "split": split, "parts": list(parts), "exclude": list(exclude), "data_hash": fingerprint(table),
              "temperature": 1.0}
    set_seed(seed, reproducible=True)
    rows = table[table.part != "test"]
    dls = backbones.loaders([Path(data) / file for file in rows.file], rows.part == "valid", config, path=Path(data))
    cbs = [Keep(config), *([KeepNorms] if pretrained else [])]
    learn = backbones.new_learner(dls, config, path=Path(out), train_bn=not pretrained, wd=0.01, cbs=cbs,
                                  metrics=[error_rate, accuracy, F1Score(average="macro")])
    learn.config = config
    return learn


class KeepNorms(Callback):
    """Leaves the running statistics of the body's batch normalisation as they are, frozen or not.

    They come from a million photographs, small batches of paintings give worse ones; and the head learns on what the
    body gives at prediction.
    """
    run_after = TrainEvalCallback

    def before_train(self):
        for layer in self.learn.model[0].modules():
            if isinstance(layer, norm_types): layer.eval()


class Keep(Callback):
    """Keeps every finished epoch, so that an interrupted fit goes on from it, and the best one, to end with it.

    A fit is known by its settings, number, epochs and learning rates. Every epoch starts from a seed of its own: a
    fit that was interrupted ends with the weights of one that was not. The best epoch has the highest macro F1 on
    valid of all fits so far. Writes `models/fit-N.pth` and `history.csv` under the learner's path.
    """
    order = 55  # after Recorder, whose log it replays, and before the progress bar

    def __init__(self, config: dict):
        self.config, self.fits, self.history = config, [], []
        self.best = {"f1": -1.0, "where": "before training", "model": None}

    def before_fit(self):
        # validate, get_preds and lr_find; not fastai's `run`, which an interrupted lr_find would leave switched off
        self.idle = self.learn.lock.locked() or hasattr(self.learn, "lr_finder")
        if self.idle: return
        self.key, self.rows = self._key(), []
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
        self.history.append({"fit": len(self.fits), "epoch": self.epoch, **row, "seconds": time.time() - self.started})
        if row["f1_score"] > self.best["f1"]:
            self.best = {"f1": row["f1_score"], "where": f"epoch {self.epoch} of stage {len(self.fits) + 1}",
                         "model": self._weights()}
        self._save()
        self._write_history()

    def after_fit(self):
        if self.idle: return
        if self.best["model"]: self.learn.model.load_state_dict(self.best["model"])
        self.fits.append(self.key)
        print(f"Kept the best so far on valid: {self.best['where']}, macro F1 {self.best['f1']:.3f}.")

    def _key(self) -> str:
        scheds = [item for cb in self.learn.cbs if hasattr(cb, "scheds") for item in cb.scheds.items()]
        schedules = {name: [np.asarray(schedule(at)).tolist() for at in (0, 0.1, 0.5)] for name, schedule in scheds}
        # Without what is scheduled: an interrupted fit leaves that in the optimizer as it was at the time.
        hypers = [{k: float(v) for k, v in group.items() if k not in schedules} for group in self.opt.hypers]
        return json.dumps([self.config, self.fits, self.n_epoch, self.opt.frozen_idx, hypers, schedules])

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
        """On a CPU: time a forward pass, and say how long the fit may take.

        With its backward pass, a pass takes about five times as long; to decode and augment an image takes 12 ms.
        """
        if self.dls.device.type != "cpu": return
        x, model = torch.zeros(8, 3, self.config["size"], self.config["size"]), self.learn.model.eval()
        with torch.inference_mode():
            model(x)
            started = time.time()
            model(x)
        forward, decode = (time.time() - started) / len(x), 0.012
        passes = 5 if self.opt.frozen_idx == 0 else 1
        train, valid = (len(dl.dataset) for dl in (self.dls.train, self.dls.valid))
        epoch = train * (passes * forward + decode) + valid * (forward + decode)
        print(f"About {(self.n_epoch - len(self.rows)) * epoch / 60:.1f} minutes on this CPU.")
