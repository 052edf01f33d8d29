"""Autoencoders: small networks that learn to give pictures back, through a code of fewer numbers.

Reads clean images; writes nothing. A part of the experiment `clusters`. Notebook:
`experiments/15_clusters`.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from fastai.vision import all as vision
from torch import nn

from artclf.base import settings
from artclf.base.errors import SettingError

# Channels after each convolution of the encoder: the tutorials' network, and a deeper one
CHANNELS = {"3-9-3": (9, 3), "deep": (16, 32, 64, 16)}
HALVINGS = {"3-9-3": 1, "deep": 3}  # of the sides


class Autoencoder(nn.Module):
    """A convolutional autoencoder for pictures (batch, 3, size, size) with values from 0 to 1.

    The encoder is a row of 3 x 3 convolutions with ReLU, the first `halvings` of which are followed
    by a max pooling; the decoder mirrors it with nearest-neighbour enlargements (Odena et al. 2016)
    and ends with a sigmoid. `code` gives (batch, numbers).
    """

    def __init__(self, channels: Sequence[int], halvings: int):
        super().__init__()
        down = []
        for place, (inputs, outputs) in enumerate(pairwise((3, *channels))):
            down += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            if place < halvings:
                down.append(nn.MaxPool2d(2))
        up = []
        reversed_channels = (*channels[::-1], 3)
        for place, (inputs, outputs) in enumerate(pairwise(reversed_channels)):
            if place >= len(channels) - halvings:
                up.append(nn.Upsample(scale_factor=2))
            up += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up[:-1], nn.Sigmoid())

    def code(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def learner(pixels: torch.Tensor, kind: str = "3-9-3", seed: int = 42) -> vision.Learner:
    """A fastai `Learner` of a new `Autoencoder` on `pixels`, uint8 (images, 3, size, size), of which
    every tenth is for validation; the loss is the mean squared error.

    `kind` is one of `CHANNELS`. Raises SettingError for another, or for a size that can't be halved
    so often.
    """
    settings.check_choice("kind", kind, CHANNELS)
    size = pixels.shape[-1]
    halvings = HALVINGS[kind]
    if size % 2**halvings:
        raise SettingError(f"size is {size}: take a multiple of {2**halvings}, for {kind}")
    vision.set_seed(seed, reproducible=True)
    pairs = [(vision.TensorImage(picture), vision.TensorImage(picture)) for picture in pixels]
    dls = vision.DataLoaders.from_dsets(
        [pair for place, pair in enumerate(pairs) if place % 10],
        pairs[::10],
        bs=min(32, len(pairs)),
        num_workers=0,  # nothing is left to decode
        after_batch=[vision.IntToFloatTensor()],
        device=vision.default_device(),
    )
    model = Autoencoder(CHANNELS[kind], halvings)
    return vision.Learner(dls, model, vision.MSELossFlat(), cbs=[vision.CastToTensor()])


@torch.inference_mode()
def codes(learn: vision.Learner, pixels: torch.Tensor, batch_size: int = 256) -> np.ndarray:
    """The codes of `pixels`, uint8 (images, 3, size, size): float32 (images, numbers)."""
    model = learn.model.eval()
    device = learn.dls.device
    batches = pixels.split(batch_size)
    return np.concatenate(
        [model.code(batch.to(device).float() / 255).cpu().numpy() for batch in batches]
    )


@torch.inference_mode()
def reconstructions(learn: vision.Learner, pixels: torch.Tensor) -> np.ndarray:
    """What the network makes of `pixels`, uint8 (images, 3, size, size), in the same form."""
    model = learn.model.eval()
    made = model(pixels.to(learn.dls.device).float() / 255)
    return (made * 255).round().byte().cpu().numpy()
