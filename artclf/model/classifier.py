"""A trained classifier that computes with torch, and its fastai `Learner`.

Reads pictures; made by `exports.load` from an export.
"""

import numpy as np
import torch
from fastai.learner import Learner

from artclf.answers.classifier import Predictor
from artclf.model import network


class Classifier(Predictor):
    """A trained classifier of art periods: `vocab` are its classes, `learner` is a fastai
    `Learner`, `model` its body and its head, with the outputs for artists, too.

    Its probabilities are calibrated by `config["temperature"]`, those of `learner` are not.
    """

    def __init__(self, learner: Learner, config: dict):
        super().__init__(config)
        self.learner = learner
        self.model = learner.model.eval()
        self._device = learner.dls.device
        self._mean = torch.tensor(config["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(config["std"], device=self._device).view(3, 1, 1)
        self.n_features = self.model[0].n_features
        learner.model = network.keep_outputs(learner.model, len(self.vocab))

    @torch.inference_mode()
    def of_features(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (images, classes) of pictures whose features (images, n_features) are
        known; artists, if any, follow the classes.
        """
        logits = self.model[1](torch.from_numpy(features).to(self._device))
        return self.calibrated(_array(logits))

    @torch.inference_mode()
    def _forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = torch.from_numpy(pixels).to(self._device).float() / 255
        features = self.model[0]((x - self._mean) / self._std)
        return _array(self.model[1](features)), _array(features)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
