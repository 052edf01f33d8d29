"""What a fit leaves behind: its history, its best epoch, and its last finished epoch to go on from.

Callbacks of `train.learner`, which work across all fits of a learner: `CheckFit`, `OneRun`,
`History`, `BestEpoch`, and `Resume`, which also restores what the two before it had noted. They
write `history.csv` and `models/` under the learner's path, and do nothing in `validate`,
`get_preds` and `lr_find`. Fits are numbered from 0.
"""

import hashlib
import json
import random
import time

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelEpochException
from fastai.torch_core import get_model, set_seed
from fastcore.basics import noop
from fastcore.foundation import L, defaults

from artclf.base import settings
from artclf.base.errors import StepError
from artclf.base.files import replace_whole, write_csv
from artclf.base.locks import hold
from artclf.model import network, ranks
from artclf.model.descriptions import describe, versions


def is_fitting(learn) -> bool:
    """Whether a learner is in a fit, not in `validate`, `get_preds` or `lr_find`.

    Callbacks ask this instead of setting fastai's `Callback.run`, which an interrupted `lr_find`
    would leave switched off.
    """
    is_predicting = learn.lock.locked()
    is_finding_lr = hasattr(learn, "lr_finder")
    return not is_predicting and not is_finding_lr


def is_replayed(learn) -> bool:
    """Whether the current epoch was finished by an interrupted run of this fit, so that only its
    figures are shown again.
    """
    return learn.epoch < learn.resume.epochs_done


class CheckFit(Callback):
    """Refuses a fit whose epochs or learning rates make no sense (SettingError), and ends one whose
    loss is NaN or infinite (StepError): such an epoch is neither kept nor exported.
    """

    fit_depends_on_it = False

    def __call__(self, event_name: str):
        """As fastai's, without the words that it puts before the message of an error."""
        getattr(self, event_name, noop)()

    def before_fit(self):
        if is_fitting(self.learn):
            settings.RANGES["unfrozen_epochs"].check("epochs", self.n_epoch)
            rate = max(peak_learning_rates(self.learn))
            if rate != 0:  # a fit that only looks at batches
                settings.check(lr=rate)

    def after_loss(self):
        if not is_fitting(self.learn) or torch.isfinite(self.learn.loss).all():
            return
        rate = max(peak_learning_rates(self.learn))
        raise StepError(
            f"the loss is {self.learn.loss.detach().mean():g} in epoch {self.epoch}: take a lower "
            f"learning rate than {rate:g} (--lr). Nothing was exported, and an export that is in "
            f"{self.learn.path} stays"
        )


class OneRun(Callback):
    """Keeps other processes from fitting into the same folder, whose checkpoints both would write.

    A fit that was interrupted holds the folder until the next fit ends, or the process does. Of
    several processes of one training (see `ranks`), the first holds it for all.
    """

    order = 54  # before the others, which write
    fit_depends_on_it = False

    def before_fit(self):
        if is_fitting(self.learn) and ranks.is_first():
            self.folder_lock = hold(self.learn.path)

    def after_fit(self):
        if is_fitting(self.learn) and ranks.is_first():
            self.folder_lock.release()


class History(Callback):
    """One row per epoch of every fit, in `rows` and in `history.csv` under the learner's path.

    Columns: `fit`, `epoch`, the losses and metrics, `seconds`, `lr_low` and `lr_high` (the lowest
    and the highest of the parameter groups' peak learning rates), how many `groups` of parameters
    there are and how many of them are `learning`, and the names of the hyperparameters that are
    `scheduled` from batch to batch.
    """

    order = 55  # after fastai's Recorder
    fit_depends_on_it = False

    def __init__(self):
        self.rows: list[dict] = []

    def before_epoch(self):
        self.started = time.time()

    def after_epoch(self):
        if not is_fitting(self.learn) or is_replayed(self.learn):
            return
        names = list(self.recorder.metric_names)[1:-1]  # without epoch and time
        values = [float(value) for value in self.recorder.values[-1]]
        rates = peak_learning_rates(self.learn)
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

    def values_of_fit(self, fit_number: int) -> list[list[float]]:
        """Losses and metrics of every epoch of a fit, in the order of fastai's Recorder."""
        names = list(self.recorder.metric_names)[1:-1]
        rows = [row for row in self.rows if row["fit"] == fit_number]
        return [[row[name] for name in names] for row in rows]

    def write(self):
        """Write `history.csv`, whole or not at all."""
        if self.rows and ranks.is_first():
            write_csv(self.learn.path / "history.csv", pd.DataFrame(self.rows))


def schedules(learn) -> dict:
    """The hyperparameters that change from batch to batch, such as `lr`: by name, functions of how
    much of the fit is done (0 to 1).
    """
    found = {}
    for callback in learn.cbs:
        found.update(getattr(callback, "scheds", {}))
    return found


def peak_learning_rates(learn) -> list[float]:
    """The highest learning rate that each parameter group has in this fit."""
    schedule = schedules(learn).get("lr")
    if schedule is None:
        return [float(group["lr"]) for group in learn.opt.hypers]
    n_groups = len(learn.opt.param_lists)
    rates = [np.broadcast_to(schedule(done), n_groups) for done in np.linspace(0, 1, 101)]
    return np.max(rates, axis=0).astype(float).tolist()


class BestEpoch(Callback):
    """Keeps the best epoch of all fits, and puts its weights back at the end of every fit.

    The best has the highest macro F1 on valid. On few images chance decides much of that, so two
    rules apply. An epoch of a later fit must not have a higher loss on valid than the best epoch
    of the fits before it. And while a linear head learns alone, only the last epoch of a fit
    counts: the loss has a single minimum, and the last epoch is nearest to it.

    Where `chosen` names an epoch, as (fit, epoch), that one is kept, whatever its figures are.

    The weights of the best epoch are in `models/best-N.pth`, where N is its fit. fastai's
    SaveModelCallback has a single file: a rerun of the first fit would find the weights of a later
    one in it.
    """

    order = 56  # after History
    fit_depends_on_it = False

    def __init__(self):
        self.f1 = -1.0
        self.valid_loss = float("inf")
        self.fit_number = 0
        self.epoch_number = -1  # until an epoch was taken
        self.loss_at_start = float("inf")
        self.chosen: tuple[int, int] | None = None

    def before_fit(self):
        if is_fitting(self.learn):
            self.loss_at_start = self.valid_loss

    def after_epoch(self):
        if not is_fitting(self.learn) or is_replayed(self.learn):
            return
        is_last = self.epoch == self.n_epoch - 1
        if self.chosen is not None or is_last or not self._is_linear_head_alone():
            self._take_if_better()

    def after_fit(self):
        if not is_fitting(self.learn):
            return
        stopped_early = 0 < self.learn.resume.epochs_done < self.n_epoch
        if stopped_early and self._is_linear_head_alone():
            self._take_if_better()
        # processors of several machines may round differently
        self.restore(ranks.of_first(self.state()))
        if self.epoch_number >= 0:
            self._put_back()

    @property
    def file(self):
        return self.learn.path / self.learn.model_dir / f"best-{self.fit_number}.pth"

    def _take_if_better(self):
        row = self.learn.history.rows[-1]
        is_low_enough = row["valid_loss"] <= self.loss_at_start  # NaN isn't
        is_best = row["macro_f1"] > self.f1 and is_low_enough
        if self.chosen is not None:
            is_best = (row["fit"], row["epoch"]) == self.chosen
        if is_best:
            self.f1 = row["macro_f1"]
            self.valid_loss = row["valid_loss"]
            self.fit_number = row["fit"]
            self.epoch_number = row["epoch"]
            if ranks.is_first():
                weights = get_model(self.learn.model).state_dict()
                replace_whole(self.file, lambda file: torch.save(weights, file))

    def _put_back(self):
        weights = torch.load(self.file, map_location=self.dls.device, weights_only=True)
        get_model(self.learn.model).load_state_dict(weights)
        last = (self.learn.resume.fit_number, self.epoch)
        verb = "Kept" if (self.fit_number, self.epoch_number) == last else "Put back"
        weights_of = f"{verb} the weights of epoch {self.epoch_number} of fit {self.fit_number}"
        if self.chosen is not None:
            print(f"{weights_of}, which was chosen before.")
            return
        print(
            f"{weights_of}, the best on valid: macro F1 {self.f1:.3f}, loss {self.valid_loss:.3f} "
            "(an epoch of a later fit with a higher loss does not count)."
        )

    def _is_linear_head_alone(self) -> bool:
        has_linear_head = network.standardizer(get_model(self.learn.model)[1]) is not None
        return network.only_head_learns(self.opt) and has_linear_head

    def state(self) -> dict:
        names = ("f1", "valid_loss", "fit_number", "epoch_number", "loss_at_start")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict):
        for name, value in state.items():
            setattr(self, name, value)


class Resume(Callback):
    """Writes `models/fit-N.pth` after every epoch of fit N, so that an interrupted fit goes on.

    A fit goes on only where the learner's settings, the fits before it, the number of epochs, the
    learning rates, the loss function, the optimizer, the metrics, the callbacks with their settings
    and the versions of code and libraries are the same. A callback that a fit doesn't depend on
    says so by `fit_depends_on_it = False`. Every epoch starts from a seed of its own, so a fit that
    was interrupted ends with the same weights as one that was not.
    """

    order = 57  # after History and BestEpoch, whose state it writes; before the progress bar
    fit_depends_on_it = False

    def __init__(self, config: dict):
        self.config = config
        self.finished_keys: list[str] = []  # one per finished fit
        self.described: list[tuple] = []  # callbacks, each with its settings before its first fit
        self.epochs_done = 0  # of the current fit

    @property
    def fit_number(self) -> int:
        return len(self.finished_keys)

    def before_fit(self):
        if not is_fitting(self.learn):
            return
        if self.fit_number == 0:  # the recipe's learning rate, for config.json
            self.config["lr"] = max(peak_learning_rates(self.learn))
        self.key = self._key()
        self.file = self.learn.path / self.learn.model_dir / f"fit-{self.fit_number}.pth"
        self.epochs_done = 0
        state = self._read()
        done = state["epochs_done"] if state else 0
        ranks.check_same("settings, versions or data", (self.key, done))
        if state is None:
            self._save()  # interrupted in its first epoch, the fit starts from these weights again
        else:
            self._restore(state)

    def before_epoch(self):
        if not is_fitting(self.learn):
            return
        if is_replayed(self.learn):
            values = self.learn.history.values_of_fit(self.fit_number)[self.epoch]
            self.learn.recorder.log = L([self.epoch, *values])  # so that the table shows it again
            raise CancelEpochException
        seed = self.config["seed"] + 1000 * self.fit_number + self.epoch
        set_seed(seed, reproducible=True)
        self.dls.train.rng = random.Random(seed)

    def after_epoch(self):
        if not is_fitting(self.learn) or is_replayed(self.learn):
            return
        self.epochs_done += 1
        self._save()
        self.learn.history.write()

    def after_fit(self):
        if is_fitting(self.learn):
            self.finished_keys.append(self.key)

    def _key(self) -> str:
        """The SHA-256 of all that the fit depends on."""
        scheduled = {}
        for name, schedule in schedules(self.learn).items():
            # three values tell one schedule from another
            scheduled[name] = [np.asarray(schedule(done)).tolist() for done in (0, 0.1, 0.5)]
        constant = []
        for group in self.opt.hypers:
            # an interrupted fit leaves what is scheduled in the optimizer as it was at the time
            constant.append({k: float(v) for k, v in group.items() if k not in scheduled})
        depends_on = {
            "versions": versions(),
            "config": self.config,
            "fits_before": self.finished_keys,
            "epochs": self.n_epoch,
            "frozen_groups": self.opt.frozen_idx,
            "constant": constant,
            "scheduled": scheduled,
            "loss": describe(self.learn.loss_func),
            "optimizer": describe(self.learn.opt_func),
            "metrics": [metric.name for metric in self.learn.metrics],
            "callbacks": self._describe_callbacks(),
        }
        return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()

    def _describe_callbacks(self) -> list:
        """The settings of all callbacks that a fit depends on, as they were before their first fit:
        many change while they work.
        """
        found = []
        for callback in self.learn.cbs:
            is_default = type(callback) in defaults.callbacks
            if is_default or not getattr(callback, "fit_depends_on_it", True):
                continue
            known = [settings for other, settings in self.described if other is callback]
            if not known:
                known = [describe(callback)]
                self.described.append((callback, known[0]))
            found += known
        return found

    def _read(self) -> dict | None:
        if not self.file.exists():
            return None
        state = torch.load(self.file, map_location=self.dls.device, weights_only=True)
        return state if state["key"] == self.key else None

    def _save(self):
        if not ranks.is_first():
            return
        recorder = self.learn.recorder
        optimizer = self.opt.state_dict()
        state = {
            "key": self.key,
            "epochs_done": self.epochs_done,
            "history": self.learn.history.rows,
            "best": self.learn.best_epoch.state(),
            "model": get_model(self.learn.model).state_dict(),
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
        get_model(self.learn.model).load_state_dict(state["model"])
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
