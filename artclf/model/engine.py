"""The engine behind `train.learner`: batches that come without computing anything twice.

While the body is frozen, the head learns on features that `features` keeps; unfrozen, the network
learns on pictures that were decoded once. How a processor is best used is measured on it. Reads and
writes what `features` does.
"""

import json
import os
import time
from itertools import product

import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.data.load import DataLoader
from fastai.torch_core import norm_types
from fastai.vision.core import TensorImage

from artclf.base.machine import keep_freed_memory, processor
from artclf.model import features, network
from artclf.model.store import Store

FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


GAIN = 1.2  # what gains less than this is noise, and would change the numbers from run to run


class Stored(Callback):
    """Gives a learner of `network.new_learner` its batches from what is stored.

    Frozen, an epoch is every picture in each of `views` views (see `features.views`), and the part
    valid is view 0; unfrozen, it is every picture with the batch transforms of the learner's own
    loaders. The numbers are those of the learner's own loaders, which stay as they are for all
    else.
    """

    run_after = TrainEvalCallback

    def __init__(self, data, table, backbone, config: dict):
        self.data, self.backbone, self.config, self.loaders = data, backbone, config, {}
        self.tables = {part: table[table.part == part] for part in ("train", "valid")}
        self.pictures = {
            part: features.Pictures(
                data, rows.file, rows.clean_sha256, config["size"], config["resize"]
            )
            for part, rows in self.tables.items()
        }

    @property
    def frozen(self) -> bool:
        """Whether nothing but the head learns."""
        return 0 < self.opt.frozen_idx == len(self.opt.param_lists) - 1

    def before_fit(self):
        self.loaders = {}  # of a fit that was interrupted; the body may have changed since

    def after_fit(self):
        self.learn.model[0].precision = None
        self.loaders = {}  # hundreds of megabytes, which the store has, too

    def before_train(self):
        keep_freed_memory()
        self._replace("train", self.dls.train)

    def before_validate(self):
        self._replace("valid", self.dls.valid)

    def seconds(self, epochs: int) -> float:
        """About how long `epochs` more epochs of this fit take."""
        look, (train, valid) = (
            self._best(False)["seconds"],
            (len(self.tables[part]) for part in ("train", "valid")),
        )
        if not self.frozen:
            return epochs * (train * self._best(True)["seconds"] + valid * look)
        return (
            look * (train * self.config["views"] + valid)
            + epochs * train * self.config["views"] * 3e-4
        )

    def _replace(self, part: str, own):
        """Take the stored batches of `part` instead of those of the loader `own`, if they are what
        comes next.
        """
        self.learn.model[
            0
        ].precision = None  # other batches are looked at as the exported network does
        if self.learn.dl is not own:
            return
        use(self.learn.model[0], self._best(learns=not self.frozen))
        key = part, self.frozen
        if key not in self.loaders:
            self.loaders[key] = (self._features if self.frozen else self._pixels)(part, own)
        if key == ("train", True):
            self._standardise()
        self.learn.dl = self.loaders[key]
        self.learn.dl.rng = own.rng
        own.before_iter()  # tells its batch transforms which part they are for

    def _features(self, part: str, own) -> DataLoader:
        body, views = self.learn.model[0], range(self.config["views"] if part == "train" else 1)
        name = f"{self.backbone.name} {body.pool} {body.precision}"
        x = torch.from_numpy(features.views(self.pictures[part], body, self.backbone, name, views))
        y = self._targets(part).repeat_interleave(len(views))
        x = x.flatten(0, 1)
        if part == "train":
            self.spread = x.mean(0), x.var(0, correction=0)
        return self._loader(part, own, len(x), lambda places: (x[places], y[places]))

    def _standardise(self):
        """Let a linear head standardise its numbers by those of all images of train, not batch by
        batch.
        """
        layer = network.standardising(self.learn.model[1])
        if layer is None:
            return
        for known, value in zip((layer.running_mean, layer.running_var), self.spread, strict=True):
            known.copy_(value)

    def _pixels(self, part: str, own) -> DataLoader:
        y, pictures = self._targets(part), self.pictures[part]
        return self._loader(
            part,
            own,
            len(y),
            lambda places: own.after_batch(
                (
                    TensorImage(pictures.pixels(places)).to(self.dls.device),
                    y[places].to(self.dls.device),
                )
            ),
        )

    def _targets(self, part: str) -> torch.Tensor:
        return torch.tensor(
            [self.config["vocab"].index(period) for period in self.tables[part].period]
        )

    def _loader(self, part: str, own, number: int, take) -> DataLoader:
        return DataLoader(
            range(number),
            bs=own.bs,
            shuffle=part == "train",
            drop_last=part == "train",
            create_batch=take,
            retain=lambda batch, _: batch,
        )

    def _best(self, learns: bool) -> dict:
        return best_settings(
            self.learn.model[0],
            self.config["size"],
            learns,
            Store(self.pictures["train"].store.file.with_name("features.db")),
            f"{self.backbone.name} {self.config['pool']}",
        )


class Ridge(Callback):
    """Adds half the sum of the squares of a linear head's weights, times `strength`, to the loss
    that is learned from.

    On more numbers than there are pictures it learns them by heart otherwise. Unlike AdamW's decay,
    this has the minimum of logistic regression with an L2 penalty (le Cessie and van Houwelingen
    1992), whatever the learning rate.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def after_loss(self):
        if not self.training:
            return
        self.learn.loss_grad = (
            self.loss_grad + self.strength / 2 * self.model[1][-1].weight.square().sum()
        )


class KeepNorms(Callback):
    """Leaves the running statistics of the body's batch normalisation, and a linear head's, as they
    are.

    The body's come from a million photographs, small batches of paintings give worse ones; and the
    head learns on what the body gives at prediction.
    """

    run_after = TrainEvalCallback

    def before_train(self):
        body, head = self.learn.model
        for layer in [*body.modules(), network.standardising(head)]:
            if isinstance(layer, norm_types):
                layer.eval()


def best_settings(body, size: int, learns: bool, store: Store, name: str) -> dict:
    """The fastest `format`, `precision` and `threads` for `body` on this machine, and `seconds` an
    image.

    `learns` says whether gradients are computed, too, for what learns in `body` now. On a CPU each
    choice is measured once, and kept in `store`, so that the next run computes the same numbers;
    elsewhere it is channels last, float32.
    """
    if next(body.parameters()).device.type != "cpu":
        return {"format": "channels last", "precision": "float32", "threads": None, "seconds": 0.0}
    key = f"settings {processor()}, {os.cpu_count()}, torch {torch.__version__}"
    entry = f"{name} {size} px{f', {sum(p.numel() for p in learning(body))} numbers learn' if learns else ''}"
    if known := store.read(key, [entry]):
        return json.loads(known[entry])
    x, found, before = torch.zeros(8, 3, size, size), [], torch.get_num_threads()
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    for form, precision, threads in product(FORMATS, PRECISIONS, sorted({before, os.cpu_count()})):
        choice = {"format": form, "precision": precision, "threads": threads}
        use(body, choice)
        found.append({**choice, "seconds": min(_timed(body, x, learns) for _ in range(3)) / len(x)})
    torch.set_num_threads(before)
    for module, training in modes:
        module.training = training
    usual = next(c for c in found if (c["precision"], c["threads"]) == ("float32", before))
    best = min(found, key=lambda choice: choice["seconds"])
    if best["seconds"] * GAIN > usual["seconds"]:
        best = usual
    print(
        f"Measured on this machine, {'learning' if learns else 'looking'}: {best['format']}, {best['precision']}, "
        f"{best['threads']} threads, {1000 * best['seconds']:.0f} ms an image "
        f"(slowest choice {1000 * max(c['seconds'] for c in found):.0f})."
    )
    store.write(key, {entry: json.dumps(best).encode()})
    return best


def learning(body) -> list[torch.nn.Parameter]:
    return [p for p in body.parameters() if p.requires_grad]


def use(body, settings: dict):
    """Set `body` and torch to `settings` of `best_settings`."""
    body.to(memory_format=FORMATS[settings["format"]])
    body.format, body.precision = FORMATS[settings["format"]], PRECISIONS[settings["precision"]]
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])


def _timed(body, x, learns: bool) -> float:
    started = time.perf_counter()
    with torch.set_grad_enabled(learns):
        out = body(x)
        if learns:
            torch.autograd.grad(out.sum(), learning(body))
    return time.perf_counter() - started
