"""What a fit leaves behind: its history, its best epoch, and every finished epoch to go on from.

Callbacks of `train.learner`, which work across all fits of a learner: `History`, `BestEpoch`, and
`Resume`, which restores the other two. They write `history.csv` and `models/` under the learner's
path, and do nothing in `validate`, `get_preds` and `lr_find`.
"""

import json
import random
import time

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.torch_core import set_seed
from fastcore.foundation import L

from artclf.base.files import replace_whole, write_csv
from artclf.model import network


def is_looking(learn) -> bool:
    """Whether a learner is in `validate`, `get_preds` or `lr_find` instead of a fit.

    Not fastai's `Callback.run`, which an interrupted `lr_find` would leave switched off.
    """
    return learn.lock.locked() or hasattr(learn, "lr_finder")


def is_done_before(learn) -> bool:
    """Whether the current epoch was finished by an interrupted run of the same fit."""
    return learn.epoch < learn.resume.epochs_done


class History(Callback):
    """A row for every epoch of every fit, in `rows` and in `history.csv` under the learner's path.

    Columns: `fit`, `epoch`, the losses and metrics, `seconds`, the lowest and highest of the
    parameter groups' learning rates, how many `groups` there are and how many are `learning`, and
    what is `scheduled` from batch to batch.
    """

    order = 55  # after fastai's Recorder

    def __init__(self):
        self.rows: list[dict] = []

    def before_epoch(self):
        self.started = time.time()

    def after_epoch(self):
        if is_looking(self.learn) or is_done_before(self.learn):
            return
        names = list(self.recorder.metric_names)[1:-1]  # without epoch and time
        values = [float(value) for value in self.recorder.values[-1]]
        rates = highest_rates(self.learn)
        self.rows.append(
            {
                "fit": self.learn.resume.fit_number,
                "epoch": self.epoch,
                **dict(zip(names, values, strict=True)),
                "seconds": time.time() - self.started,
                "lr_low": min(rates),
                "lr_high": max(rates),
                "groups": len(rates),
                "learning": len(rates) - self.opt.frozen_idx,
                "scheduled": " ".join(schedules(self.learn)),
            }
        )

    def values_of_fit(self, number: int) -> list[list[float]]:
        """Losses and metrics of every epoch of a fit, as fastai's Recorder shows them."""
        names = list(self.recorder.metric_names)[1:-1]
        return [[row[name] for name in names] for row in self.rows if row["fit"] == number]

    def write(self):
        """Write `history.csv`, whole or not at all."""
        if self.rows:
            write_csv(self.learn.path / "history.csv", pd.DataFrame(self.rows))


def schedules(learn) -> dict:
    """What changes from batch to batch, such as `lr`: a function each of the share of the fit that
    is done.
    """
    found = {}
    for callback in learn.cbs:
        found.update(getattr(callback, "scheds", {}))
    return found


def highest_rates(learn) -> list[float]:
    """The highest learning rate of each parameter group in this fit."""
    schedule = schedules(learn).get("lr")
    if schedule is None:
        return [float(group["lr"]) for group in learn.opt.hypers]
    number = len(learn.opt.param_lists)
    rates = [np.broadcast_to(schedule(share), number) for share in np.linspace(0, 1, 21)]
    return np.max(rates, axis=0).astype(float).tolist()


class BestEpoch(Callback):
    """Keeps the best epoch of all fits, and puts its weights back at the end of every fit.

    The best has the highest macro F1 on valid. On few images that is half chance, so two rules
    apply: an epoch of a later fit must not have a higher loss on valid than what the fit began
    with; and of a linear head alone, whose loss has a single minimum, only the last epoch counts,
    because it is nearest to the minimum. Its weights are in `models/best-N.pth`, where N is its
    fit: fastai's SaveModelCallback has one file, which a rerun of the first fit would take from a
    later one.
    """

    order = 56  # after History

    def __init__(self):
        self.f1 = -1.0
        self.valid_loss = float("inf")
        self.fit_number = 0
        self.epoch_number = -1
        self.loss_at_start = float("inf")

    def before_fit(self):
        if not is_looking(self.learn):
            self.loss_at_start = self.valid_loss

    def after_epoch(self):
        if is_looking(self.learn) or is_done_before(self.learn):
            return
        is_last = self.epoch == self.n_epoch - 1
        if is_last or not self._is_linear_head_alone():
            self._take_if_better()

    def after_fit(self):
        if is_looking(self.learn):
            return
        stopped_early = 0 < self.learn.resume.epochs_done < self.n_epoch
        if stopped_early and self._is_linear_head_alone():
            self._take_if_better()
        if self.epoch_number >= 0:
            weights = torch.load(self.file, map_location=self.dls.device, weights_only=True)
            self.learn.model.load_state_dict(weights)
        last = (self.learn.resume.fit_number, self.epoch)
        verb = "Kept" if (self.fit_number, self.epoch_number) == last else "Put back"
        print(
            f"{verb} the weights of epoch {self.epoch_number} of stage {self.fit_number + 1}, "
            f"the best on valid: macro F1 {self.f1:.3f}."
        )

    @property
    def file(self):
        return self.learn.path / self.learn.model_dir / f"best-{self.fit_number}.pth"

    def _take_if_better(self):
        row = self.learn.history.rows[-1]
        if row["f1_score"] > self.f1 and not row["valid_loss"] > self.loss_at_start:
            self.f1 = row["f1_score"]
            self.valid_loss = row["valid_loss"]
            self.fit_number = row["fit"]
            self.epoch_number = row["epoch"]
            weights = self.learn.model.state_dict()
            replace_whole(self.file, lambda file: torch.save(weights, file))

    def _is_linear_head_alone(self) -> bool:
        only_head_learns = 0 < self.opt.frozen_idx == len(self.opt.param_lists) - 1
        return only_head_learns and network.standardizer(self.learn.model[1]) is not None

    def state(self) -> dict:
        names = ("f1", "valid_loss", "fit_number", "epoch_number", "loss_at_start")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict):
        for name, value in state.items():
            setattr(self, name, value)


class Resume(Callback):
    """Keeps every finished epoch in `models/fit-N.pth`, so that an interrupted fit goes on from it.

    A fit is known by the learner's settings, the fits before it, its number of epochs, its learning
    rates and its loss function. Every epoch starts from a seed of its own, so a fit that was
    interrupted ends with the same weights as one that was not.
    """

    order = 57  # after History and BestEpoch, whose state it keeps; before the progress bar

    def __init__(self, config: dict):
        self.config = config
        self.fits: list[str] = []  # keys of the fits that are finished
        self.epochs_done = 0

    @property
    def fit_number(self) -> int:
        return len(self.fits)

    def before_fit(self):
        if is_looking(self.learn):
            return
        if not self.fits:
            self.config["lr"] = max(highest_rates(self.learn))
        self.key = self._key()
        self.file = self.learn.path / self.learn.model_dir / f"fit-{self.fit_number}.pth"
        self.epochs_done = 0
        state = self._read()
        if state is None:
            self._save()
        else:
            self._restore(state)

    def before_epoch(self):
        if is_looking(self.learn):
            return
        if self.epoch < self.epochs_done:
            values = self.learn.history.values_of_fit(self.fit_number)[self.epoch]
            self.learn.recorder.log = L([self.epoch, *values])  # so that the table shows it again
            raise CancelEpochException
        seed = self.config["seed"] + 1000 * self.fit_number + self.epoch
        set_seed(seed, reproducible=True)
        self.dls.train.rng = random.Random(seed)

    def after_epoch(self):
        if is_looking(self.learn) or is_done_before(self.learn):
            return
        self.epochs_done += 1
        self._save()
        self.learn.history.write()

    def after_fit(self):
        if not is_looking(self.learn):
            self.fits.append(self.key)

    def _key(self) -> str:
        """All that the fit depends on, as text."""
        scheduled = {}
        for name, schedule in schedules(self.learn).items():
            scheduled[name] = [np.asarray(schedule(share)).tolist() for share in (0, 0.1, 0.5)]
        hypers = []
        for group in self.opt.hypers:
            # an interrupted fit leaves what is scheduled in the optimizer as it was at the time
            hypers.append({k: float(v) for k, v in group.items() if k not in scheduled})
        loss_func = self.learn.loss_func
        weight = getattr(loss_func, "weight", None)
        loss = [repr(loss_func), None if weight is None else weight.tolist()]
        return json.dumps(
            [self.config, self.fits, self.n_epoch, self.opt.frozen_idx, hypers, scheduled, loss]
        )

    def _read(self) -> dict | None:
        if not self.file.exists():
            return None
        state = torch.load(self.file, map_location=self.dls.device, weights_only=True)
        return state if state["key"] == self.key else None

    def _save(self):
        recorder = self.learn.recorder
        optimizer = self.opt.state_dict()
        state = {
            "key": self.key,
            "epochs_done": self.epochs_done,
            "history": self.learn.history.rows,
            "best": self.learn.best_epoch.state(),
            "model": self.learn.model.state_dict(),
            "opt": optimizer["state"],
            "hypers": [{k: float(v) for k, v in group.items()} for group in optimizer["hypers"]],
            "losses": [float(loss) for loss in recorder.losses],
            "lrs": [float(lr) for lr in recorder.lrs],
            "smooth": [recorder.smooth_loss.count, float(recorder.smooth_loss.val)],
        }
        replace_whole(self.file, lambda file: torch.save(state, file))

    def _restore(self, state: dict):
        self.epochs_done = state["epochs_done"]
        self.learn.history.rows = state["history"]
        self.learn.best_epoch.restore(state["best"])
        self.learn.model.load_state_dict(state["model"])
        self.opt.load_state_dict({"state": state["opt"], "hypers": L(state["hypers"])})
        self.opt.zero_grad()  # an interrupted batch may have left its gradients
        recorder = self.learn.recorder
        recorder.losses = state["losses"]
        recorder.lrs = state["lrs"]
        recorder.smooth_loss.count = state["smooth"][0]
        recorder.smooth_loss.val = torch.tensor(state["smooth"][1])
        self.learn.history.write()
        if self.epochs_done:
            print(f"Going on after epoch {self.epochs_done - 1}, which {self.file} keeps.")
