"""Pixels: the clean pictures at one size, decoded once, and views of them.

Reads `DATA/clean/`, or a pack of it; stores pixels in `DATA/pixels.db`, or in the folder
`ARTCLF_CACHE` (see `store.store_file`), by the SHA-256 of the pictures' bytes. That file may be
deleted at any time.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from artclf.base.errors import InputError
from artclf.data.cleaning import copies
from artclf.data.packs import PackedPicture
from artclf.data.pictures import MISSING, Rejected, square
from artclf.model.store import Store, store_file

PIXELS_VERSION = 2  # to be raised when the same picture gives other pixels than before


class Pictures:
    """Clean pictures at one size, each decoded once.

    `data` is a folder or a pack, and `files` are relative to it; `hashes` are the SHA-256 of their
    bytes; `resize` is one of `pictures.RESIZE`. `copies` says where they lie. Raises InputError where a
    hash is missing, and what `cleaning.copies` raises.
    """

    def __init__(
        self,
        data,
        files: Sequence[str],
        hashes: Sequence[str],
        size: int = 224,
        resize: str = "squish",
    ):
        self.data = data
        self.copies = copies(data, files)
        self.hashes = list(hashes)
        self.size = size
        self.resize = resize
        if not all(self.hashes):
            raise InputError(f"pictures in {data} have no hash: run `artclf clean --data {data}`")
        self.key = f"{PIXELS_VERSION}, {size} px {resize}"
        self.store = Store(store_file(data, "pixels.db"))

    def at(self, indices: Sequence[int]) -> "Pictures":
        """The pictures at `indices` alone."""
        some = copy(self)
        some.copies = [self.copies[index] for index in indices]
        some.hashes = [self.hashes[index] for index in indices]
        return some

    def pixels(self, indices: Sequence[int]) -> torch.Tensor:
        """The pictures at `indices`: uint8 of shape (images, 3, size, size).

        Those not yet stored are decoded, in parallel, and stored. Raises FileNotFoundError where a
        file is gone.
        """
        hashes = [self.hashes[index] for index in indices]
        stored = self.store.read(self.key, hashes)
        new = {}
        for sha256, index in zip(hashes, indices, strict=True):
            if sha256 not in stored:
                new[sha256] = self.copies[index]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            decoded = dict(zip(new, pool.map(self._decode, new.values()), strict=True))
        self.store.write(self.key, decoded)
        content = stored | decoded
        pixels = np.frombuffer(b"".join(content[sha256] for sha256 in hashes), np.uint8)
        return torch.from_numpy(pixels.reshape(len(hashes), 3, self.size, self.size).copy())

    def _decode(self, place: Path | PackedPicture) -> bytes:
        return decoded(place, self.data, self.size, self.resize).tobytes()


def pictures_of(data, images, config: dict) -> Pictures:
    """The pictures of a table `images` (see `features.of_images`), as a network with the settings `config`
    takes them.
    """
    size, resize = config["size"], config["resize"]
    return Pictures(data, images.file, images.clean_sha256, size, resize)


def decoded(place: Path | PackedPicture, data, size: int, resize: str) -> np.ndarray:
    """The pixels of a clean picture of `data`: uint8 of shape (3, size, size). Raises
    FileNotFoundError where the file is gone, InputError where it can't be read.
    """
    try:
        return square(place, size, resize)
    except Rejected as error:
        if str(error) == MISSING:
            raise FileNotFoundError(f"{place} is gone: {_what_to_do(place, data)}") from error
        raise InputError(f"can't read {place} ({error}): {_what_to_do(place, data)}") from error


def _what_to_do(place: Path | PackedPicture, data) -> str:
    """What brings back a clean picture of `data` that is gone or damaged."""
    if isinstance(place, PackedPicture):
        return "run `artclf data pack` again; on a cluster, all machines must see the pack"
    return f"run `artclf clean --data {data}`"


def view_of(pixels: torch.Tensor, hashes: Sequence[str], view: int) -> torch.Tensor:
    """View `view` of pictures, given as `pixels` (images, 3, height, width) and their SHA-256."""
    if view == 0:
        return pixels
    if view == 1:
        return pixels.flip(-1)
    crops = []
    for picture, sha256 in zip(pixels, hashes, strict=True):
        seed = int(hashlib.sha256(f"{sha256} {view}".encode()).hexdigest()[:12], 16)
        crops.append(_crop(picture, seed))
    return torch.stack(crops)


def _crop(picture: torch.Tensor, seed: int) -> torch.Tensor:
    """A square of half the area or more, at the size of `picture`, mirrored or not."""
    rng = np.random.default_rng(seed)
    size = picture.shape[-1]
    side = int(size * rng.uniform(0.5**0.5, 1))
    top, left = rng.integers(0, size - side + 1, 2)
    crop = picture[None, :, top : top + side, left : left + side].float()
    crop = nn.functional.interpolate(crop, (size, size), mode="bilinear", antialias=True)
    crop = crop[0].round().byte()
    return crop.flip(-1) if rng.random() < 0.5 else crop
