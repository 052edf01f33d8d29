"""The explainer: maps of what a classifier looks at, by a copy of its network.

Reads pictures; the methods are in `attribution`. Needs captum (`pip install artclf[lab]`).
"""

import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import nn

from artclf.answers import inputs
from artclf.base.errors import InputError
from artclf.base.machine import keep_freed_memory
from artclf.data.pictures import Rejected
from artclf.model import attribution
from artclf.model.attribution import BATCH, METHODS


class Explainer:
    """A copy of a classifier's network that explains its answers; the classifier stays as it is.

    `model` replaces the classifier's own network: a body and a head of the same kind. Raises
    InputError for a network without feature maps or tokens of places.
    """

    def __init__(self, classifier, model: nn.Sequential | None = None):
        keep_freed_memory()
        self.classifier = classifier
        self.vocab = classifier.vocab
        self.config = classifier.config
        self.device = classifier.learner.dls.device
        if model is None:
            model = classifier.learner.model
        self.score = attribution.Score(model).to(self.device)
        self.body = self.score.model[0]
        size = self.config["size"]
        self.blank = torch.zeros(1, 3, size, size, device=self.device)
        if not all(body.has_places for body in self.body.bodies):
            raise InputError(
                f"{self.config['name']} gives no maps of places: explain another network, such as "
                "--arch resnet34 or efficientnet_lite0"
            )

    @cached_property
    def guided(self) -> attribution.Score:
        """The score for guided backpropagation, see `attribution.guided`."""
        return attribution.guided(self.score, self.blank)

    @cached_property
    def direct(self) -> attribution.Score:
        """The score for what the head reads of each stage, see `attribution.direct`."""
        return attribution.direct(self.score)

    def pictures(self, files: Sequence) -> torch.Tensor:
        """Pictures as inputs of the network, normalised: (images, 3, size, size).

        Raises Rejected, which names the file, for one that is gone or no picture.
        """
        return torch.stack([self.picture(file) for file in files]).to(self.device)

    def picture(self, file) -> torch.Tensor:
        """One picture as an input of the network, normalised, on the CPU: (3, size, size).

        Raises Rejected as `pictures` does.
        """
        try:
            pixels = torch.from_numpy(inputs.pixels(file, self.config))
        except Rejected as error:
            raise Rejected(
                f"{file}: {error}; if it has moved, run `artclf clean` and `artclf train` again"
            ) from error
        return (pixels / 255 - self._colour("mean")) / self._colour("std")

    def colours(self, x: torch.Tensor) -> np.ndarray:
        """The result of `pictures` as images to show: (images, size, size, 3), from 0 to 1."""
        images = x.cpu() * self._colour("std") + self._colour("mean")
        return images.clip(0, 1).permute(0, 2, 3, 1).numpy()

    def _colour(self, name: str) -> torch.Tensor:
        return torch.tensor(self.config[name]).view(3, 1, 1)

    def weights(self, targets: Sequence) -> torch.Tensor:
        """The weight of each logit in the score: (images, classes).

        A target is a class, or a pair (class, class that it is compared with). Raises InputError
        for a class that the network doesn't know.
        """
        pairs = [(target,) if isinstance(target, str) else target for target in targets]
        unknown = sorted({name for pair in pairs for name in pair} - set(self.vocab))
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: no class of this network; it has {', '.join(self.vocab)}"
            )
        weights = torch.zeros(len(pairs), len(self.vocab), device=self.device)
        for row, (target, *compared_with) in zip(weights, pairs, strict=True):
            row[self.vocab.index(target)] += 1
            for name in compared_with:
                row[self.vocab.index(name)] -= 1
        return weights

    @torch.no_grad()
    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """The probability of each class, as `predict` gives it: (images, classes)."""
        logits = torch.cat([self.score.model(batch) for batch in x.split(BATCH)])
        return (logits / self.config["temperature"]).softmax(1)

    def maps(self, x: torch.Tensor, targets: Sequence, method: str, **kwargs) -> np.ndarray:
        """A map for each picture of `x` by one of `METHODS`, to which `kwargs` go: float32,
        (images, size, size).

        Values above 0 speak for the target, values below against it; guided backpropagation has no
        sign. For units see the methods. Raises InputError for another method, or where there
        aren't as many targets as pictures.
        """
        if method not in METHODS:
            raise InputError(f"no method is called {method!r}: take one of {', '.join(METHODS)}")
        if len(targets) != len(x):
            raise InputError(f"{len(x)} pictures and {len(targets)} targets: give each its own")
        compute = METHODS[method]
        batches = zip(x.split(BATCH), self.weights(targets).split(BATCH), strict=True)
        maps = [compute(self, images, weights, **kwargs) for images, weights in batches]
        return torch.cat(maps).sum(1).float().cpu().numpy()

    def all_maps(
        self, x: torch.Tensor, targets: Sequence, arguments: dict[str, dict] | None = None
    ) -> dict[str, np.ndarray]:
        """The `maps` by each of `METHODS`; `arguments` are `{method: its kwargs}`.

        A method that can't be used on this network is left out, with a warning that says why.
        """
        arguments = arguments or {}
        result = {}
        for method in METHODS:
            try:
                result[method] = self.maps(x, targets, method, **arguments.get(method, {}))
            except attribution.Unsuited as error:
                warnings.warn(f"{method} is left out: {error}", stacklevel=2)
        return result

    def stages(self, x: torch.Tensor, targets: Sequence) -> pd.DataFrame:
        """What each stage by itself adds to the score, in logits: a row a picture.

        See `attribution.by_stage`. A column for each stage that the head reads, by number;
        `constant` is the rest of `score`, the same for all pictures of a target if the head is
        linear and the network has no class token.
        """
        rows = []
        batches = zip(x.split(BATCH), self.weights(targets).split(BATCH), strict=True)
        for images, weights in batches:
            maps_of_stages = attribution.by_stage(self, images, weights)
            sums = [maps.sum((1, 2, 3)) for maps in maps_of_stages]
            rows.append(torch.stack([*sums, self.score(images, weights)], 1))
        names = [f"stage {number}" for number in attribution.stages_read(self.body)]
        table = pd.DataFrame(torch.cat(rows).cpu().numpy(), columns=[*names, "score"])
        table.insert(len(names), "constant", table.score - table[names].sum(axis=1))
        return table
