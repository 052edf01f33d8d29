"""What a body computes of a batch of pictures, and what that depends on."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from artclf.base.processes import in_chunks

BATCH = 16  # pictures; of more, the activations leave the processor's cache
VERSION = 4  # to be raised when the same network gives other features than before

# Pictures without features, by the views that they lack: the index of each
Lacking = dict[tuple[int, ...], list[int]]


def batches_of(lacking: Lacking) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    """Views, and the indices of up to `BATCH` pictures that lack them.

    So each picture is in one batch, and decoded once.
    """
    for views, indices in lacking.items():
        for batch in in_chunks(indices, BATCH):
            yield views, batch


def maker_of(name: str, net: nn.Module) -> str:
    """What features depend on beside picture and view."""
    return f"{name} {_hash_of_weights(net)} {VERSION}, torch {torch.__version__}"


def _hash_of_weights(net: nn.Module) -> str:
    content = hashlib.sha256()
    for tensor in net.state_dict().values():
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


@torch.inference_mode()
def compute(net: nn.Module, backbone, pixels: torch.Tensor) -> np.ndarray:
    """The features of `pixels`, uint8 of (images, 3, height, width): float32 (images, features).

    A last, smaller batch is filled up: processors may round differently in batches of another size.
    """
    n_images = len(pixels)
    if n_images < BATCH:
        blanks = pixels.new_zeros(BATCH - n_images, *pixels.shape[1:])
        pixels = torch.cat([pixels, blanks])
    device = next(net.parameters()).device
    mean = torch.tensor(backbone.mean, device=device).view(3, 1, 1)
    std = torch.tensor(backbone.std, device=device).view(3, 1, 1)
    x = (pixels.to(device).float() / 255 - mean) / std
    return net(x)[:n_images].float().cpu().numpy()


def as_bytes(hashes: Sequence[str], features: np.ndarray) -> dict[str, bytes]:
    content = [row.tobytes() for row in features]
    return dict(zip(hashes, content, strict=True))
