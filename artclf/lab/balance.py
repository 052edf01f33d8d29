"""Ways to make up for uneven classes: losses with the train images of each class, and a sampler for
train batches.

Reads and writes nothing. The experiment `imbalance` compares them.
"""

import torch
from fastai.callback.core import Callback
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat
from torch import nn
from torch.nn import functional

from artclf.model import engine


class Weighted(nn.Module):
    """The mean over images of cross-entropy times the weight of the image's class.

    torch's own mean with `weight=` divides by the sum of the weights in the batch instead of the
    number of images, so that a common factor of all weights changes nothing there.
    """

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, logits, targets):
        return (
            self.weight.to(logits.device)[targets]
            * functional.cross_entropy(logits, targets, reduction="none")
        ).mean()


class Adjusted(nn.Module):
    """Cross-entropy of logits to which the log of each class's share of `counts` was added (Menon
    et al. 2021, tau 1).

    What is frequent has a head start while learning, which is gone at prediction: there the logits
    are taken alone.
    """

    def __init__(self, counts: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", (counts / counts.sum()).log())

    def forward(self, logits, targets):
        return functional.cross_entropy(logits + self.weight.to(logits.device), targets)


WEIGHTS = {
    "N/(n_c K)": lambda n: n.sum() / (n * len(n)),
    "N/n_c": lambda n: n.sum() / n,
    "1/n_c": lambda n: 1 / n,
}
METHODS = {
    "plain": lambda n: CrossEntropyLossFlat(),
    **{
        f"weights {name}": lambda n, weights=weights: Weighted(weights(n))
        for name, weights in WEIGHTS.items()
    },
    "weights, torch's mean": lambda n: CrossEntropyLossFlat(weight=WEIGHTS["N/(n_c K)"](n)),
    "sampler": lambda n: CrossEntropyLossFlat(),
    "logit adjustment": Adjusted,
    "focal": lambda n: FocalLossFlat(gamma=2.0),
}  # the loss of each, from the train images n of every class


class Sampler(Callback):
    """Draws every train batch with replacement so that all periods are equally likely; an epoch is
    as long as before.

    `table` is that of the learner. Works on what `engine.Stored` gives, all views of a picture
    alike.
    """

    run_after = engine.Stored

    def __init__(self, table):
        periods = table[table.part == "train"].period
        self.weights = (1 / periods.map(periods.value_counts())).to_numpy()

    def before_train(self):
        own = self.learn.dl
        weights = self.weights.repeat(len(own.dataset) // len(self.weights))
        drawn = own.new(shuffle_fn=lambda places: drawn.rng.choices(places, weights, k=len(places)))
        drawn.rng = own.rng
        self.learn.dl = drawn


class Count(Callback):
    """Counts the periods in every train batch: `batches` has a list of counts a batch."""

    run_after = Sampler

    def before_fit(self):
        self.batches = []

    def after_pred(self):
        if self.training:
            self.batches.append(self.y.bincount(minlength=self.dls.c).tolist())
