"""Small CNNs from scratch: the network, and its fastai `Learner` on pictures that are held in
memory.

Reads clean images; writes nothing. A part of the experiment `painters`. Notebook:
`experiments/13_painters`.
"""

import math
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from fastai.vision import all as vision
from PIL import Image
from torch import nn

from artclf.base import settings
from artclf.base.errors import SettingError
from artclf.data.classes import in_order
from artclf.data.pictures import open_reduced
from artclf.model.keep import CheckFit

POOLINGS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# The mean over an epoch. fastai's own train_loss is a moving average, which lags behind it.
LOSS = "train_cross_entropy"


def cnn(
    classes: int,
    size: int = 28,
    neurons: int = 16,
    depth: int = 2,
    pooling: str = "max",
    activation: str = "relu",
) -> nn.Sequential:
    """A network from pictures (batch, 3, size, size) to logits (batch, classes), as in old
    tutorials.

    `depth` blocks of a 3 x 3 convolution, an activation and a pooling that halves the sides;
    `neurons` channels in the first block, twice as many in each next one; then all values in a row,
    a layer of 4 * `neurons`, and the logits. Raises what `check` does.
    """
    check(size, depth, pooling, activation)
    activation_layer = ACTIVATIONS[activation]
    channels = [3, *(neurons * 2**block for block in range(depth))]
    layers = []
    for inputs, outputs in pairwise(channels):
        convolution = vision.ConvLayer(inputs, outputs, norm_type=None, act_cls=activation_layer)
        layers.append(nn.Sequential(convolution, POOLINGS[pooling](2)))
    side = size // 2**depth
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels[-1] * side**2, 4 * neurons),
        activation_layer(),
        nn.Linear(4 * neurons, classes),
    )


def check(size: int, depth: int, pooling: str, activation: str):
    """Raise SettingError for an unknown pooling or activation, or where so many poolings leave no
    pixel.
    """
    settings.check_choice("pooling", pooling, POOLINGS)
    settings.check_choice("activation", activation, ACTIVATIONS)
    settings.RANGES["convolutions"].check("depth", depth)
    if 2**depth > size:
        most = int(math.log2(size))
        raise SettingError(f"depth is {depth}, but {size} px can be halved {most} times at most")


def learner(table, files: tuple[Path, ...], config: dict) -> vision.Learner:
    """A fastai `Learner` of a new `cnn` on the parts train and valid of a table of `splits.items`.

    `files` are the pictures of its rows; `config` needs `size, neurons, depth, pooling, activation,
    batch_size, seed`. Nothing is augmented. Accuracy and cross-entropy are recorded on train, too.
    Raises what `cnn` does.
    """
    vision.set_seed(config["seed"], reproducible=True)
    vocab = in_order(table.period.unique())
    model = cnn(
        len(vocab),
        config["size"],
        config["neurons"],
        config["depth"],
        config["pooling"],
        config["activation"],
    )
    items = dataset(table, files, config["size"])
    train_items = [items[i] for i in np.flatnonzero(table.part == "train")]
    valid_items = [items[i] for i in np.flatnonzero(table.part == "valid")]
    normalise = vision.Normalize.from_stats([0.5] * 3, [0.5] * 3)
    dls = vision.DataLoaders.from_dsets(
        train_items,
        valid_items,
        bs=min(config["batch_size"], len(train_items)),
        num_workers=0,  # nothing is left to decode
        after_batch=[vision.IntToFloatTensor(), normalise],
        device=vision.default_device(),
    )
    dls.vocab = vocab
    if dls.device.type == "cpu":
        model = model.to(memory_format=torch.channels_last)  # half as fast again
    learn = vision.Learner(
        dls,
        model,
        vision.CrossEntropyLossFlat(),
        metrics=[vision.accuracy, vision.F.cross_entropy],
        cbs=[CheckFit()],
    )
    learn.recorder.train_metrics = True
    return learn


def dataset(table, files: tuple[Path, ...], size: int) -> list[tuple]:
    """The pictures and labels of a table of `splits.items`, as pairs of `TensorImage` and
    `TensorCategory`.
    """
    numbers = {name: number for number, name in enumerate(in_order(table.period.unique()))}
    return [
        (vision.TensorImage(picture), vision.TensorCategory(numbers[name]))
        for picture, name in zip(pixels(files, size), table.period, strict=True)
    ]


@lru_cache(maxsize=2)
def pixels(files: tuple[Path, ...], size: int) -> torch.Tensor:
    """Pictures squashed to squares: uint8 of shape (pictures, 3, size, size). Cached, so that each
    is decoded once.
    """
    squares = np.empty((len(files), size, size, 3), np.uint8)
    for i, file in enumerate(files):
        picture = open_reduced(file, size).resize((size, size), Image.Resampling.BILINEAR)
        squares[i] = np.asarray(picture)
    return torch.from_numpy(squares).permute(0, 3, 1, 2)
