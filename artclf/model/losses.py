"""Losses for classes of which there are few pictures.

Works on tensors; `train.learner` takes its loss from here, and the experiment `imbalance` compares it
with others.
"""

import torch
from fastai.losses import CrossEntropyLossFlat


class AdjustedLoss(CrossEntropyLossFlat):
    """Cross-entropy of logits to which `tau` times the log of each class's share of `counts` was
    added (Menon et al., Long-tail learning via logit adjustment, 2021); `weight` is that of each
    class.

    So frequent classes have an advantage while the network learns. It is gone at prediction, which
    takes the logits alone.
    """

    def __init__(self, counts: torch.Tensor, tau: float = 1.0, weight: torch.Tensor | None = None):
        super().__init__(weight=weight)
        self.advantage = advantage(counts, tau)

    def __call__(self, logits, targets, **kwargs):
        return super().__call__(logits + self.advantage.to(logits.device), targets, **kwargs)

    def plain(self) -> CrossEntropyLossFlat:
        """The same loss without the advantage: one of fastai's own."""
        return CrossEntropyLossFlat(weight=self.func.weight)


def advantage(counts: torch.Tensor, tau: float) -> torch.Tensor:
    """What is added to the logit of each class while a network learns."""
    return tau * (counts / counts.sum()).log()


def balanced_weights(counts: torch.Tensor) -> torch.Tensor:
    """The weight of each class with which all classes count the same: N / (K n), for n of N images
    and K classes.
    """
    return counts.sum() / (len(counts) * counts)
