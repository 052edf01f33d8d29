"""Methods against uneven classes: losses that know the number of train images of each class, and a
sampler of train batches.

Reads and writes nothing. A part of the experiment `imbalance`, which compares them. Notebook:
`experiments/11_imbalance`.
"""

import torch
from fastai.callback.core import Callback
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat
from torch import nn
from torch.nn import functional

from artclf.model import engine
from artclf.model.losses import AdjustedLoss, balanced_weights


class Weighted(nn.Module):
    """The mean over images of cross-entropy times the weight of the image's class.

    torch's own mean with `weight=` divides by the sum of the weights in the batch instead of the
    number of images, so that a common factor of all weights changes nothing there.
    """

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, logits, targets):
        losses = functional.cross_entropy(logits, targets, reduction="none")
        return (self.weight.to(logits.device)[targets] * losses).mean()


# What each class weighs, from `n`, the train images of every class.
WEIGHTS = {
    "N/(n_c K)": balanced_weights,
    "N/n_c": lambda n: n.sum() / n,
    "1/n_c": lambda n: 1 / n,
}

# The loss of each method, from `n` again.
METHODS = {
    "plain": lambda n: CrossEntropyLossFlat(),
    "weights N/(n_c K)": lambda n: Weighted(WEIGHTS["N/(n_c K)"](n)),
    "weights N/n_c": lambda n: Weighted(WEIGHTS["N/n_c"](n)),
    "weights 1/n_c": lambda n: Weighted(WEIGHTS["1/n_c"](n)),
    "weights, torch's mean": lambda n: CrossEntropyLossFlat(weight=WEIGHTS["N/(n_c K)"](n)),
    "sampler": lambda n: CrossEntropyLossFlat(),
    "logit adjustment": AdjustedLoss,
    "focal": lambda n: FocalLossFlat(gamma=2.0),
}


class Sampler(Callback):
    """Draws every train batch with replacement so that all periods are equally likely; an epoch is
    as long as before.

    `table` is that of the learner. It works on the loader of `engine.Stored`, where all views of a
    picture are equally likely.
    """

    run_after = engine.Stored

    def __init__(self, table):
        periods = table[table.part == "train"].period
        counts = periods.map(periods.value_counts())
        self.weights = (1 / counts).to_numpy()

    def before_train(self):
        stored = self.learn.dl
        views = len(stored.dataset) // len(self.weights)
        weights = self.weights.repeat(views)

        def draw(places):
            return loader.rng.choices(places, weights, k=len(places))

        loader = stored.new(shuffle_fn=draw)
        loader.rng = stored.rng
        self.learn.dl = loader


class Count(Callback):
    """Counts the periods in every train batch: `batches` is a list of counts for each batch."""

    run_after = Sampler

    def before_fit(self):
        self.batches = []

    def after_pred(self):
        if self.training:
            self.batches.append(self.y.bincount(minlength=self.dls.c).tolist())
