"""Small CNNs from scratch: the network, and its fastai `Learner` on pictures that are held in
memory.

Reads clean images; writes nothing. Shown in `experiments/13_painters`.
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

from artclf.base.errors import InputError

POOLINGS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
SHAPE = ("neurons", "depth", "pooling", "activation")  # what a CNN is made of
LOSS = "train_cross_entropy"  # the mean of an epoch, where fastai's own train_loss is a moving average, which lags


def cnn(
    classes: int,
    size: int = 28,
    neurons: int = 16,
    depth: int = 2,
    pooling: str = "max",
    activation: str = "relu",
) -> nn.Sequential:
    """A network from pictures (batch, 3, size, size) to logits (batch, classes), as old tutorials
    build it.

    `depth` blocks of a 3 x 3 convolution, an activation and a pooling that halves the sides;
    `neurons` channels in the first block, twice as many in each next one; then all values in a row,
    a layer of 4 * `neurons`, and the logits. Raises what `check` does.
    """
    check(size, depth, pooling, activation)
    act, channels = ACTIVATIONS[activation], [3, *(neurons * 2**block for block in range(depth))]
    blocks = [
        nn.Sequential(
            vision.ConvLayer(before, after, norm_type=None, act_cls=act), POOLINGS[pooling](2)
        )
        for before, after in pairwise(channels)
    ]
    return nn.Sequential(
        *blocks,
        nn.Flatten(),
        nn.Linear(channels[-1] * (size // 2**depth) ** 2, 4 * neurons),
        act(),
        nn.Linear(4 * neurons, classes),
    )


def check(size: int, depth: int, pooling: str, activation: str):
    """Raise ValueError for an unknown pooling or activation, or where so many poolings leave no
    pixel.
    """
    for name, value, known in (
        ("pooling", pooling, POOLINGS),
        ("activation", activation, ACTIVATIONS),
    ):
        if value not in known:
            raise InputError(f"{name} is {value!r}: take one of {', '.join(known)}")
    if 2**depth > size:
        raise InputError(
            f"depth is {depth}, but {size} px can be halved {int(math.log2(size))} times at most"
        )


def learner(table, files: tuple[Path, ...], config: dict) -> vision.Learner:
    """A fastai `Learner` of a new `cnn` on the parts train and valid of a table of `split.items`.

    `files` are the pictures of its rows; `config` needs `size, neurons, depth, pooling, activation,
    batch_size, seed`. Nothing is augmented. Accuracy and cross-entropy are recorded on train, too.
    Raises what `cnn` does.
    """
    vision.set_seed(config["seed"], reproducible=True)
    vocab = sorted(table.period.unique())
    model = cnn(len(vocab), config["size"], **{name: config[name] for name in SHAPE})
    everything = dataset(table, files, config["size"])
    train_ds, valid_ds = (
        [everything[i] for i in np.flatnonzero(table.part == part)] for part in ("train", "valid")
    )
    normalise = vision.Normalize.from_stats([0.5] * 3, [0.5] * 3)
    dls = vision.DataLoaders.from_dsets(
        train_ds,
        valid_ds,
        bs=min(config["batch_size"], len(train_ds)),
        num_workers=0,  # nothing is left to decode
        after_batch=[vision.IntToFloatTensor(), normalise],
        device=vision.default_device(),
    )
    dls.vocab = vocab
    if dls.device.type == "cpu":
        model = model.to(memory_format=torch.channels_last)  # half as fast again
    learn = vision.Learner(
        dls, model, vision.CrossEntropyLossFlat(), metrics=[vision.accuracy, vision.F.cross_entropy]
    )
    learn.recorder.train_metrics = True
    return learn


def dataset(table, files: tuple[Path, ...], size: int) -> list[tuple]:
    """The pictures and labels of a table of `split.items`, as pairs of `TensorImage` and
    `TensorCategory`.
    """
    y = table.period.astype("category").cat.codes  # in sorted order
    return [
        (vision.TensorImage(x), vision.TensorCategory(int(i)))
        for x, i in zip(pixels(files, size), y, strict=True)
    ]


@lru_cache(maxsize=2)
def pixels(files: tuple[Path, ...], size: int) -> torch.Tensor:
    """Pictures squashed to squares: uint8 of shape (pictures, 3, size, size). Kept, so that each is
    decoded once.
    """
    squares = np.empty((len(files), size, size, 3), np.uint8)
    for place, file in enumerate(files):
        with Image.open(file) as image:
            image.draft("RGB", (size, size))  # decodes it no larger than is needed
            squares[place] = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(squares).permute(0, 3, 1, 2)
