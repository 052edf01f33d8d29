"""The linear head of the recipe, at the minimum of its loss.

The loss that `train.learner` lets a linear head learn from, cross-entropy with an L2 penalty, is
convex: it has a single minimum, and a solver finds it in seconds. Folds and the head that learns
from all parts are made so, and a test holds fastai's fit against them.
"""

from collections.abc import Iterable

import numpy as np
import torch
from fastai.torch_core import default_device
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn
from torch.nn.functional import cross_entropy

from artclf.model.feature_rows import Batches, FeatureRows, RowsInMemory, of_each
from artclf.model.losses import advantage, balanced_weights

EPSILON = 1e-5  # added to variances, as batch normalisation does
STEPS = 300  # of L-BFGS; a head takes about a hundred
MANY_FEATURES = 5  # as many for each image, and it is worth while to learn from fewer columns


class LinearHead(ClassifierMixin, BaseEstimator):
    """The head of `network.new_head`, without hidden layers or dropout, as an estimator of
    scikit-learn.

    It standardises its inputs, unless `standardise` is off, and minimises the mean cross-entropy
    plus `ridge` / 2 times the sum of the squares of its weights. With `balance`, every class weighs
    the same in the loss; `tau` is that of `losses.AdjustedLoss`.
    """

    def __init__(
        self,
        ridge: float = 0.3,
        balance: bool = True,
        tau: float = 0.0,
        standardise: bool = True,
    ):
        self.ridge = ridge
        self.balance = balance
        self.tau = tau
        self.standardise = standardise

    def fit(self, x: np.ndarray | FeatureRows, y: np.ndarray) -> "LinearHead":
        """Learn from features `x`, (images, features) or (images, views, features), or from their
        rows, and the class of each image.
        """
        device = default_device()
        rows = x if isinstance(x, FeatureRows) else RowsInMemory(x)
        self.classes_, targets = np.unique(y, return_inverse=True)
        views = len(rows) // len(targets)
        labels = torch.as_tensor(targets, device=device).repeat_interleave(views)
        self.mean_ = torch.zeros((), device=device)
        self.deviation_ = torch.ones((), device=device)
        if self.standardise:
            self.mean_ = rows.mean.to(device)
            self.deviation_ = (rows.var.to(device) + EPSILON).sqrt()
        counts = torch.bincount(labels)
        weight = balanced_weights(counts) if self.balance else torch.ones_like(counts).float()
        if isinstance(rows, RowsInMemory):
            inputs = self._standardised(rows.x)
            self.weight_, self.bias_ = self._from_memory(inputs, labels, weight)
        else:
            batches = Batches(rows.chunks, self._standardised)
            self.weight_, self.bias_ = _minimum(batches, labels, weight, self.ridge)
        # the bias is free, so an advantage while it learns only moves it
        self.bias_ -= advantage(counts, self.tau)
        return self

    def _standardised(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.to(self.mean_.device) - self.mean_) / self.deviation_

    def _from_memory(
        self, inputs: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The minimum for `inputs` that are in memory as a whole (see `_minimum`)."""
        if inputs.shape[1] <= MANY_FEATURES * len(inputs):
            return _minimum([inputs], labels, weight, self.ridge)
        # the weights are sums of the inputs
        triangle = _triangle(inputs)
        columns = triangle.float().to(inputs.device)
        solution, bias = _minimum([columns], labels, weight, self.ridge)
        in_rows = torch.linalg.solve_triangular(triangle.T, solution.cpu().double(), upper=True)
        return inputs.T @ in_rows.float().to(inputs.device), bias

    def put_into(self, layers: nn.Sequential):
        """Give the layers of a head of `network.new_head` what this one learned.

        Its classes are the numbers of the outputs.
        """
        standardizer, _, linear = layers
        with torch.no_grad():
            standardizer.running_mean.copy_(self.mean_)
            standardizer.running_var.copy_(self.deviation_**2 - EPSILON)
            linear.weight.copy_(self.weight_.T)
            linear.bias.copy_(self.bias_)

    def predict_proba(self, x: np.ndarray | FeatureRows) -> np.ndarray:
        """The probability of each of `classes_`: (images, classes). Of several views in an array,
        the first counts.
        """
        if isinstance(x, FeatureRows):
            return of_each(x, self.predict_proba)
        rows = torch.as_tensor(x, dtype=torch.float32, device=self.mean_.device)
        rows = rows[:, 0] if rows.ndim == 3 else rows
        logits = (rows - self.mean_) / self.deviation_ @ self.weight_ + self.bias_
        return logits.softmax(1).cpu().numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The likeliest class of each image."""
        return self.classes_[self.predict_proba(x).argmax(1)]


def reduced(x: np.ndarray) -> np.ndarray:
    """Features `x`, (images, features), standardised by all images and turned into no more columns
    than there are images: (images, columns).

    The turn keeps all inner products, so a `LinearHead` without standardising learns the same from
    both, in a fraction of the time.
    """
    rows = torch.as_tensor(x, dtype=torch.float32, device=default_device())
    rows = (rows - rows.mean(0)) / (rows.var(0, correction=0) + EPSILON).sqrt()
    columns = _triangle(rows).float() if rows.shape[1] > len(rows) else rows
    return columns.cpu().numpy()


def _triangle(inputs: torch.Tensor) -> torch.Tensor:
    """A square matrix whose rows have the inner products of the rows of `inputs`: float64, and so on
    the CPU, because Apple's GPUs have none.
    """
    gram = (inputs @ inputs.T).cpu().double()
    gram.diagonal().add_(1e-6 * gram.diagonal().mean())  # rows may be equal
    return torch.linalg.cholesky(gram)


def _minimum(
    batches: Iterable[torch.Tensor], labels: torch.Tensor, class_weight: torch.Tensor, ridge: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights, (inputs, classes), and the biases with the least loss and penalty, by L-BFGS.

    `batches` of inputs are looped over once for each step; `labels` are those of all.
    """
    first = next(iter(batches))
    weight = first.new_zeros(first.shape[1], len(class_weight), requires_grad=True)
    bias = first.new_zeros(len(class_weight), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )
    sum_of_weights = class_weight[labels].sum()

    def closure():
        optimizer.zero_grad()
        penalty = ridge / 2 * weight.square().sum()
        penalty.backward()
        value = penalty.detach()
        start = 0
        for inputs in batches:
            targets = labels[start : start + len(inputs)]
            logits = inputs @ weight + bias
            loss = cross_entropy(logits, targets, class_weight, reduction="sum") / sum_of_weights
            loss.backward()
            value += loss.detach()
            start += len(inputs)
        return value

    optimizer.step(closure)
    return weight.detach(), bias.detach()
