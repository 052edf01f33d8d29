"""The explainer: a copy of a classifier's network that can be asked what it looks at.

Reads pictures; the methods are in `attribution`. Needs captum (`pip install artclf[lab]`).
"""

import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from fastai.vision.all import PILImage
from torch import nn

from artclf.base.errors import InputError
from artclf.base.machine import keep_freed_memory
from artclf.data.pictures import Rejected, open_rgb, resizing
from artclf.model import attribution
from artclf.model.attribution import BATCH, METHODS


class Explainer:
    """A copy of a classifier's network that can be asked what it looks at; the classifier stays as
    it is.

    `model` is taken instead of the classifier's own network, with a body and head of the same kind.
    Raises ValueError for a network without feature maps, such as a transformer.
    """

    def __init__(self, classifier, model: nn.Sequential | None = None):
        keep_freed_memory()
        self.classifier, self.vocab, self.config = classifier, classifier.vocab, classifier.config
        self.device, size = classifier.learner.dls.device, self.config["size"]
        self.score = attribution.Score(classifier.learner.model if model is None else model).to(
            self.device
        )
        self.body, self.blank = (
            self.score.model[0],
            torch.zeros(1, 3, size, size, device=self.device),
        )
        with torch.no_grad():
            shape = nn.Sequential(*self.body.stages)(self.blank).shape
        if (
            not self.body.has_maps or shape[-2] != shape[-1]
        ):  # some transformers have their channels last
            raise InputError(
                f"{self.config['name']} has no feature maps, as transformers have none: explain a "
                "convolutional network, such as --arch resnet34 or efficientnet_lite0"
            )

    @cached_property
    def guided(self) -> attribution.Score:
        return attribution.guided(self.score, self.blank)

    @cached_property
    def direct(self) -> attribution.Score:
        return attribution.direct(self.score)

    def pictures(self, files: Sequence) -> torch.Tensor:
        """Pictures as the network sees them, normalised: (images, 3, size, size).

        Raises Rejected, which names the file, for what is gone or none.
        """
        return torch.stack([self._picture(file) for file in files]).to(self.device)

    def _picture(self, file) -> torch.Tensor:
        resize = resizing(self.config["size"], self.config["resize"])
        try:
            pixels = torch.from_numpy(
                np.array(resize(PILImage(open_rgb(file)), split_idx=1))
            ).permute(2, 0, 1)
        except Rejected as e:
            raise Rejected(
                f"{file}: {e}; if it has moved, run `artclf clean` and `artclf train` again"
            ) from e
        return (pixels / 255 - self._colour("mean")) / self._colour("std")

    def colours(self, x: torch.Tensor) -> np.ndarray:
        """What `pictures` gave, to look at: (images, size, size, 3), from 0 to 1."""
        return (
            (x.cpu() * self._colour("std") + self._colour("mean"))
            .clip(0, 1)
            .permute(0, 2, 3, 1)
            .numpy()
        )

    def _colour(self, name: str) -> torch.Tensor:
        return torch.tensor(self.config[name]).view(3, 1, 1)

    def weights(self, targets: Sequence) -> torch.Tensor:
        """What each logit weighs, (images, classes): a target is a class, or (a class, one that it
        is held against).

        Raises ValueError for a class that the network doesn't know.
        """
        pairs = [(target,) if isinstance(target, str) else target for target in targets]
        unknown = sorted({name for pair in pairs for name in pair} - set(self.vocab))
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: no class of this network; it has {', '.join(self.vocab)}"
            )
        weights = torch.zeros(len(pairs), len(self.vocab), device=self.device)
        for row, pair in zip(weights, pairs, strict=True):
            for name, sign in zip(pair, (1, -1), strict=False):
                row[self.vocab.index(name)] += sign
        return weights

    @torch.no_grad()
    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """The probability of each class, as `predict` gives it: (images, classes)."""
        logits = torch.cat([self.score.model(batch) for batch in x.split(BATCH)])
        return (logits / self.config["temperature"]).softmax(1)

    def maps(self, x: torch.Tensor, targets: Sequence, method: str, **kwargs) -> np.ndarray:
        """A map for each picture of `x` by one of `METHODS`, to which `kwargs` go: float32,
        (images, size, size).

        What is above 0 speaks for the target, what is below against it; guided backpropagation has
        no sign. For units see the methods. Raises ValueError for another method, or another number
        of targets than of pictures.
        """
        if method not in METHODS:
            raise InputError(f"no method is called {method!r}: take one of {', '.join(METHODS)}")
        if len(targets) != len(x):
            raise InputError(f"{len(x)} pictures and {len(targets)} targets: give each its own")
        batches = zip(x.split(BATCH), self.weights(targets).split(BATCH), strict=True)
        found = [METHODS[method](self, images, weights, **kwargs) for images, weights in batches]
        return torch.cat(found).sum(1).float().cpu().numpy()

    def every(
        self, x: torch.Tensor, targets: Sequence, arguments: dict | None = None
    ) -> dict[str, np.ndarray]:
        """The `maps` by each of `METHODS`; `arguments` are `{method: its kwargs}`.

        A method that this network doesn't allow is left out, with a warning that says why.
        """
        found = {}
        for method in METHODS:
            try:
                found[method] = self.maps(x, targets, method, **(arguments or {}).get(method, {}))
            except attribution.Unsuited as error:
                warnings.warn(f"{method} is left out: {error}", stacklevel=2)
        return found

    def stages(self, x: torch.Tensor, targets: Sequence):
        """What each stage by itself gives to the score, in logits: a DataFrame, a row a picture.

        See `attribution.by_stage`. A column for each stage that the head reads, by number;
        `constant` is what is left of `score`, the same for all pictures of a target if the head is
        linear.
        """
        import pandas as pd

        weights, rows = self.weights(targets), []
        for images, some in zip(x.split(BATCH), weights.split(BATCH), strict=True):
            sums = [maps.sum((1, 2, 3)) for maps in attribution.by_stage(self, images, some)]
            rows.append(torch.stack([*sums, self.score(images, some)], 1))
        read = [i for i, taken in enumerate(self.body.taken) if taken] or [
            len(self.body.stages) - 1
        ]
        table = pd.DataFrame(
            torch.cat(rows).cpu().numpy(), columns=[*(f"stage {i}" for i in read), "score"]
        )
        table.insert(len(read), "constant", table.score - table.iloc[:, :-1].sum(axis=1))
        return table
