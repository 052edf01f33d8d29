"""Keeping what a fit has reached: every finished epoch, the best one, and their history."""

import json
import random
import time

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.torch_core import set_seed
from fastcore.foundation import L

from artclf.model import network


class Keep(Callback):
    """Keeps every finished epoch, so that an interrupted fit goes on from it, and the best one, to
    end with it.

    A fit is known by its settings, number, epochs and learning rates. Every epoch starts from a
    seed of its own: a fit that was interrupted ends with the weights of one that was not. The best
    epoch has the highest macro F1 on valid of all fits so far. On few images that is half chance,
    so two rules keep it from being: an epoch of a later fit must not have a higher loss there than
    what the fit began with; and of a linear head alone, whose loss has one minimum, only the last
    epoch is taken, for it lies nearest to that. Writes `models/fit-N.pth` and `history.csv` under
    the learner's path.
    """

    order = 55  # after Recorder, whose log it replays, and before the progress bar

    def __init__(self, config: dict):
        self.config, self.fits, self.history = config, [], []
        self.best = {"f1": -1.0, "loss": float("inf"), "where": "before training", "model": None}

    def before_fit(self):
        # validate, get_preds and lr_find; not fastai's `run`, which an interrupted lr_find would leave switched off
        self.idle = self.learn.lock.locked() or hasattr(self.learn, "lr_finder")
        if self.idle:
            return
        if not self.fits:
            self.config["lr"] = max(self._lrs())
        self.key, self.rows, self.begun_at = self._key(), [], self.best["loss"]
        self.file = self.learn.path / self.learn.model_dir / f"fit-{len(self.fits)}.pth"
        state = self._read()
        if state:
            self._restore(state)
        else:
            self._save()
        if len(self.rows) < self.n_epoch:
            self._say_how_long()

    def before_epoch(self):
        if self.idle:
            return
        if self.epoch < len(self.rows):
            self.learn.recorder.log = L(
                [self.epoch, *self.rows[self.epoch]]
            )  # so that the table shows it again
            raise CancelEpochException
        self.started, seed = time.time(), self.config["seed"] + 1000 * len(self.fits) + self.epoch
        set_seed(seed, reproducible=True)
        self.dls.train.rng = random.Random(seed)

    def after_epoch(self):
        if self.idle or self.epoch < len(self.rows):
            return
        names = list(self.recorder.metric_names)[1:-1]
        self.rows.append([float(value) for value in self.recorder.values[-1]])
        row = dict(zip(names, self.rows[-1], strict=True))
        lrs = self._lrs()
        self.history.append(
            {
                "fit": len(self.fits),
                "epoch": self.epoch,
                **row,
                "seconds": time.time() - self.started,
                "lr_low": min(lrs),
                "lr_high": max(lrs),
                "groups": len(lrs),
                "learning": len(lrs) - self.opt.frozen_idx,
                "scheduled": " ".join(self._schedules()),
            }
        )
        if not self._is_convex() or self.epoch == self.n_epoch - 1:
            self._take_if_better()
        self._save()
        self._write_history()

    def after_fit(self):
        if self.idle:
            return
        stopped = (
            0 < len(self.rows) == self.epoch + 1 < self.n_epoch
        )  # as fastai's EarlyStoppingCallback does
        if stopped and self._is_convex():
            self._take_if_better()
        if self.best["model"]:
            self.learn.model.load_state_dict(self.best["model"])
        self.fits.append(self.key)
        print(
            f"Kept the best so far on valid: {self.best['where']}, macro F1 {self.best['f1']:.3f}."
        )

    def _is_convex(self) -> bool:
        return self.learn.stored.frozen and network.standardising(self.learn.model[1]) is not None

    def _take_if_better(self):
        row = self.history[-1]
        if row["f1_score"] > self.best["f1"] and not row["valid_loss"] > self.begun_at:
            self.best = {
                "f1": row["f1_score"],
                "loss": row["valid_loss"],
                "model": self._weights(),
                "where": f"epoch {row['epoch']} of stage {len(self.fits) + 1}",
            }

    def _lrs(self) -> list[float]:
        """The highest learning rate of each parameter group."""
        schedule, number = self._schedules().get("lr"), len(self.opt.param_lists)
        found = (
            [np.broadcast_to(schedule(at), number) for at in np.linspace(0, 1, 21)]
            if schedule
            else [[float(group["lr"]) for group in self.opt.hypers]]
        )
        return np.max(found, axis=0).astype(float).tolist()

    def _schedules(self) -> dict:
        """What changes from batch to batch, such as `lr`: a function each, of the share of the fit
        that is done.
        """
        return {
            name: schedule
            for cb in self.learn.cbs
            for name, schedule in getattr(cb, "scheds", {}).items()
        }

    def _key(self) -> str:
        schedules = {
            name: [np.asarray(schedule(at)).tolist() for at in (0, 0.1, 0.5)]
            for name, schedule in self._schedules().items()
        }
        # Without what is scheduled: an interrupted fit leaves that in the optimizer as it was at the time.
        hypers = [
            {k: float(v) for k, v in group.items() if k not in schedules}
            for group in self.opt.hypers
        ]
        loss = self.learn.loss_func
        weight = getattr(loss, "weight", None)
        loss = [repr(loss), weight if weight is None else weight.tolist()]
        return json.dumps(
            [self.config, self.fits, self.n_epoch, self.opt.frozen_idx, hypers, schedules, loss]
        )

    def _read(self) -> dict | None:
        if not self.file.exists():
            return None
        state = torch.load(self.file, map_location=self.dls.device, weights_only=True)
        return state if state["key"] == self.key else None

    def _save(self):
        recorder, opt = self.learn.recorder, self.opt.state_dict()
        state = {
            "key": self.key,
            "rows": self.rows,
            "history": self.history,
            "best": self.best,
            "model": self.learn.model.state_dict(),
            "opt": opt["state"],
            "hypers": [{k: float(v) for k, v in group.items()} for group in opt["hypers"]],
            "losses": [float(loss) for loss in recorder.losses],
            "lrs": [float(lr) for lr in recorder.lrs],
            "smooth": [recorder.smooth_loss.count, float(recorder.smooth_loss.val)],
        }
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
        recorder.smooth_loss.count, recorder.smooth_loss.val = (
            state["smooth"][0],
            torch.tensor(state["smooth"][1]),
        )
        self._write_history()
        if self.rows:
            print(f"Going on after epoch {len(self.rows) - 1}, which {self.file} keeps.")

    def _write_history(self):
        if self.history:
            pd.DataFrame(self.history).to_csv(self.learn.path / "history.csv", index=False)

    def _weights(self) -> dict:
        return {
            name: value.detach().clone() for name, value in self.learn.model.state_dict().items()
        }

    def _say_how_long(self):
        if self.dls.device.type == "cpu":
            print(
                f"About {self.learn.stored.seconds(self.n_epoch - len(self.rows)) / 60:.1f} minutes on this CPU."
            )
