"""The engine behind `train.learner`: batches from what is stored, so that nothing is computed
twice.

While the body is frozen, the head learns on features that `features` stores; unfrozen, the network
learns on pictures that were decoded once. Reads and writes `DATA/features.db` and `DATA/pixels.db`.
"""

import os
import time

import pandas as pd
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.data.load import DataLoader
from fastai.torch_core import get_model, norm_types
from fastai.vision.core import TensorImage

from artclf.base.machine import keep_freed_memory
from artclf.base.processes import MapJobs
from artclf.model import network, ranks
from artclf.model.feature_rows import rows_of, store_in_shares
from artclf.model.pixels import Pictures, pictures_of


class Stored(Callback):
    """Gives a learner of `network.new_learner` its batches from what is stored.

    While the body is frozen, an epoch of train is every picture in each of `views` views (see
    `features.feature_views`), and valid is view 0 of every picture. Once it is unfrozen, an epoch
    is every picture, with the batch transforms of the learner's own loaders. Fits, `validate` and
    `lr_find` are served; `show_batch`, `get_preds` and any other loader read the files, and give a
    picture of valid the same numbers. `map_jobs` is for `features.feature_views`. From a fit on, the
    process keeps the memory that it frees.
    """

    run_after = TrainEvalCallback
    fit_depends_on_it = False  # its settings are those of the learner

    def __init__(self, data, table, config: dict, map_jobs: MapJobs | None = None):
        self.data = data
        self.config = config
        self.map_jobs = map_jobs
        self.loaders: dict[tuple[str, bool], DataLoader] = {}
        self.tables = {}
        self.pictures = {}
        for part in ("train", "valid"):
            rows = table[table.part == part]
            self.tables[part] = rows
            self.pictures[part] = pictures_of(data, rows, config)

    @property
    def frozen(self) -> bool:
        """Whether the body is frozen."""
        return network.only_head_learns(self.opt)

    def before_fit(self):
        self.loaders = {}  # of a fit that was interrupted; the body may have changed since
        keep_freed_memory()

    def after_fit(self):
        self.loaders = {}  # they hold hundreds of megabytes, which can be read again

    def before_train(self):
        self._replace("train", self.dls.train)

    def before_validate(self):
        self._replace("valid", self.dls.valid)

    def _replace(self, part: str, own_loader):
        """Give the learner the stored batches of `part`, if it is about to use its own loader."""
        if self.learn.dl is not own_loader:
            return
        key = (part, self.frozen)
        if key not in self.loaders:
            make_loader = self.feature_loader if self.frozen else self.pixel_loader
            self.loaders[key] = make_loader(part, own_loader)
        if part == "train" and self.frozen:
            self._standardise_head()
        self.learn.dl = self.loaders[key]
        self.learn.dl.rng = own_loader.rng
        own_loader.before_iter()  # tells its batch transforms which part they are for

    def feature_loader(self, part: str, own_loader) -> DataLoader:
        """Batches of features and targets, in which each view of a picture is an item of its own.

        For train, mean and variance of the features are kept, by which a linear head standardises.
        """
        body = get_model(self.learn.model)[0]
        views = range(self.config["views"] if part == "train" else 1)
        store_in_shares(self.pictures[part], body, self.config, views)
        x = rows_of(self.pictures[part], body, self.config, views, self.map_jobs)
        y = self._targets(part).repeat_interleave(len(views))
        if part == "train":
            self.feature_mean = x.mean
            self.feature_var = x.var

        def create_batch(indices):
            return x[indices], y[indices]

        return self._loader(part, own_loader, len(x), create_batch)

    def pixel_loader(self, part: str, own_loader) -> DataLoader:
        """Batches of pictures and targets, with the batch transforms of the learner's own loader."""
        y = self._targets(part)
        pictures = self.pictures[part]
        device = self.dls.device

        def create_batch(indices):
            images = self._pixels(pictures, indices).to(device)
            return own_loader.after_batch((images, y[indices].to(device)))

        return self._loader(part, own_loader, len(y), create_batch)

    def _pixels(self, pictures: Pictures, indices: list[int]) -> TensorImage:
        """The pictures of a batch. Where each process has a share of it, the others are black: they
        are there so that chance draws the same batch transforms for a picture as in one process.
        """
        if not ranks.has_shares(self.learn.model):
            return TensorImage(pictures.pixels(indices))
        share = ranks.share_of(len(indices))
        own = pictures.pixels([indices[place] for place in share])
        images = own.new_zeros(len(indices), *own.shape[1:])
        images[share] = own
        return TensorImage(images)

    def _loader(self, part: str, own_loader, count: int, create_batch) -> DataLoader:
        """A loader of `count` items that makes a batch of their indices by `create_batch`."""
        is_train = part == "train"
        return DataLoader(
            range(count),
            bs=own_loader.bs,
            shuffle=is_train,
            drop_last=is_train,
            create_batch=create_batch,
            retain=lambda batch, indices: batch,  # a batch need not have the type of its indices
        )

    def _targets(self, part: str) -> torch.Tensor:
        vocab = self.config["vocab"]
        return torch.tensor([vocab.index(period) for period in self.tables[part].period])

    def _standardise_head(self):
        """Let a linear head standardise by all images of train, not batch by batch."""
        layer = network.standardizer(get_model(self.learn.model)[1])
        if layer is not None:
            layer.running_mean.copy_(self.feature_mean)
            layer.running_var.copy_(self.feature_var)


class Ridge(Callback):
    """Adds `strength` / 2 times the sum of the squares of a linear head's weights to the loss that
    is learned from.

    Without it, a head with more features than there are pictures overfits. Unlike AdamW's decay,
    this has the minimum of logistic regression with an L2 penalty (le Cessie and van Houwelingen
    1992), whatever the learning rate.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def after_loss(self):
        if not self.training:
            return
        weight = get_model(self.model)[1][-1].weight
        self.learn.loss_grad = self.loss_grad + self.strength / 2 * weight.square().sum()


class KeepNorms(Callback):
    """Leaves the running statistics of the body's batch normalisation as they are, and, with
    `head`, those of a linear head.

    The body's come from a million photographs, and small batches of paintings give worse ones. The
    head's are those of all of train, where `Stored` has set them.
    """

    run_after = TrainEvalCallback

    def __init__(self, head: bool = True):
        self.head = head

    def before_train(self):
        body, head = get_model(self.learn.model)
        layers = list(body.modules())
        if self.head:
            layers.append(network.standardizer(head))
        for layer in layers:
            if isinstance(layer, norm_types):
                layer.eval()


def measure_settings(body, size: int, backward: bool = False, runs: int = 3) -> pd.DataFrame:
    """How fast `body` is with each precision and number of threads: a DataFrame, the fastest first.

    Columns `precision`, `threads`, and `seconds` per image, those of the fastest of `runs` batches
    of eight blank pictures of `size` px. With `backward`, the time for the gradients is in it.
    Changes nothing: choose by `train.learner(..., precision=...)` and `torch.set_num_threads`.
    Another precision gives other features.
    """
    device = next(body.parameters()).device
    x = torch.zeros(8, 3, size, size, device=device)
    threads_before = torch.get_num_threads()
    dtype_before = body.autocast_dtype
    was_training = [(module, module.training) for module in body.modules()]
    rows = []
    try:
        body.eval()
        for precision, dtype in network.PRECISIONS.items():
            for threads in sorted({threads_before, os.cpu_count() or 1}):
                body.autocast_dtype = dtype
                torch.set_num_threads(threads)
                seconds = min(_seconds(body, x, backward) for _ in range(runs)) / len(x)
                rows.append({"precision": precision, "threads": threads, "seconds": seconds})
    finally:
        body.autocast_dtype = dtype_before
        torch.set_num_threads(threads_before)
        for module, training in was_training:
            module.training = training
    return pd.DataFrame(rows).sort_values("seconds", ignore_index=True)


def _seconds(body, x, backward: bool) -> float:
    started = time.perf_counter()
    with torch.set_grad_enabled(backward):
        output = body(x)
        if backward:
            parameters = [p for p in body.parameters() if p.requires_grad]
            torch.autograd.grad(output.sum(), parameters)
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - started
