"""Features: what a frozen body sees in the clean pictures, computed once; and these pictures,
decoded once.

Reads `DATA/clean/` and the catalogue; keeps the numbers in `DATA/features.db` and the pixels in
`DATA/pixels.db`, which may be deleted at any time. The frozen stage of training, doubtful labels
and the experiments build on them.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from fastai.torch_core import default_device
from fastai.vision.all import PILImage
from torch import nn

from artclf.base.errors import InputError
from artclf.base.machine import keep_freed_memory
from artclf.base.threads import prefetch
from artclf.base.progress import progress_bar
from artclf.data.catalogue import clean_path
from artclf.data.pictures import open_rgb, resizing
from artclf.model import backbones
from artclf.model.store import Store

BATCH = 16  # of 64, the activations are memory that is fetched and returned each time: a third of the speed


VERSION = 2  # to be raised when the same network gives other features than before


def extract(data, rows, arch: str = "auto", size: int = 224, mirror: bool = False) -> np.ndarray:
    """The body's output for clean pictures, averaged over each: float32 of shape (images,
    channels).

    `rows` are rows of `read_catalogue(data)` with a clean copy; pictures are squished to `size` x
    `size` px and mirrored if asked. Numbers are stored by the picture's bytes and all that they
    depend on; killed at any moment, the same call goes on. Raises ConnectionError without weights,
    ValueError for a body without feature maps, FileNotFoundError where a copy is gone.
    """
    backbone = backbones.find(arch)
    pictures = Pictures(
        data, [clean_path(row) for row in rows.to_dict("records")], rows.clean_sha256, size
    )
    net = nn.Sequential(_ChannelsLast(), backbones.body(backbone), _Mean())
    net.to(default_device(), memory_format=torch.channels_last)
    return views(pictures, net, backbone, f"{backbone.name} mean", [int(mirror)])[:, 0]


class _ChannelsLast(nn.Module):
    def forward(self, x):
        return x.contiguous(memory_format=torch.channels_last)


class _Mean(nn.Module):
    def forward(self, maps):
        if maps.ndim != 4:
            raise InputError("this architecture has no feature maps: take a convolutional one")
        return maps.mean((2, 3))


class Pictures:
    """Clean pictures at one size, each decoded once: `pixels(places)` has shape (places, 3, size,
    size), uint8.

    `files` are relative to `data`, `hashes` tell their bytes; `resize` is one of
    `backbones.RESIZE`.
    """

    def __init__(
        self,
        data,
        files: Sequence[str],
        hashes: Sequence[str],
        size: int = 224,
        resize: str = "squish",
    ):
        self.data, self.files, self.hashes, self.size = Path(data), list(files), list(hashes), size
        if not all(self.hashes):
            raise InputError(f"pictures in {data} have no hash: run `artclf clean --data {data}`")
        self.key, self.store = f"{size} px {resize}", Store(self.data / "pixels.db")
        self._resize = resizing(size, resize)

    def pixels(self, places: Sequence[int]) -> torch.Tensor:
        """The pictures at `places`; those not yet kept are decoded, in parallel, and kept.

        Raises FileNotFoundError where a file is gone.
        """
        wanted = [self.hashes[place] for place in places]
        known = self.store.read(self.key, wanted)
        new = {
            image: self.data / self.files[place]
            for image, place in zip(wanted, places, strict=True)
            if image not in known
        }
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = dict(zip(new, pool.map(self._decode, new.values()), strict=True))
        self.store.write(self.key, found)
        known |= found
        pixels = np.frombuffer(b"".join(known[image] for image in wanted), np.uint8)
        return torch.from_numpy(pixels.reshape(len(wanted), 3, self.size, self.size).copy())

    def _decode(self, file: Path) -> bytes:
        if not file.exists():
            raise FileNotFoundError(f"{file} is gone: run `artclf clean --data {self.data}`")
        picture = self._resize(PILImage(open_rgb(file)), split_idx=1)
        return np.ascontiguousarray(np.array(picture).transpose(2, 0, 1)).tobytes()


def views(
    pictures: Pictures, net: nn.Module, backbone, name: str, wanted: Sequence[int]
) -> np.ndarray:
    """The output of `net` for views of every picture: float32 of shape (images, views, numbers).

    View 0 is the picture, view 1 its mirror image, and each further one a crop of half the area or
    more, mirrored or not, as the picture's bytes and the view's number say. `name` tells `net`
    apart from others of the same weights.
    """
    weights = hashlib.sha256(
        b"".join(t.cpu().numpy().tobytes() for t in net.state_dict().values())
    ).hexdigest()
    store, hashes = Store(pictures.data / "features.db"), pictures.hashes
    keys = [
        f"{name} {weights[:16]} {VERSION}, torch {torch.__version__} {pictures.key} view {view}"
        for view in wanted
    ]
    values = _Values(hashes, len(wanted))
    for view, key in enumerate(keys):
        for start in range(0, len(hashes), 500):
            values.put(view, store.read(key, hashes[start : start + 500]))
    places = {image: place for place, image in enumerate(hashes) if not values.has(image)}
    device = next(net.eval().parameters()).device
    keep_freed_memory()
    mean, std = (
        torch.tensor(v, device=device).view(3, 1, 1) for v in (backbone.mean, backbone.std)
    )
    with (
        progress_bar(desc=f"features of {backbone.name}", total=len(places))
        if places
        else nullcontext() as bar
    ):
        for _, (images, pixels) in _batches(pictures, places):
            for place, (view, key) in enumerate(zip(wanted, keys, strict=True)):
                x = (view_of(pixels, images, view).to(device).float() / 255 - mean) / std
                with torch.inference_mode():
                    out = net(x).float().cpu().numpy()
                new = {image: value.tobytes() for image, value in zip(images, out, strict=True)}
                store.write(key, new)
                values.put(place, new)
            bar.update(len(images))
    return values.array


class _Values:
    """The array of `views` in the making: a picture may stand in several of its rows."""

    def __init__(self, hashes: Sequence[str], number: int):
        self.rows, self.known, self.array = (
            {},
            [set() for _ in range(number)],
            np.empty((0, number, 0), np.float32),
        )
        for row, image in enumerate(hashes):
            self.rows.setdefault(image, []).append(row)

    def put(self, view: int, found: dict[str, bytes]):
        for image, value in found.items():
            if not len(self.array):
                shape = sum(map(len, self.rows.values())), len(self.known), len(value) // 4
                self.array = np.empty(shape, np.float32)
            self.array[self.rows[image], view] = np.frombuffer(value, np.float32)
        self.known[view] |= found.keys()

    def has(self, image: str) -> bool:
        return all(image in known for known in self.known)


def _batches(pictures: Pictures, places: dict[str, int]):
    """Hashes and pixels of `places`, a batch at a time; the next one is decoded meanwhile."""
    images = list(places)
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    for start, [pixels] in prefetch(
        lambda batch: pictures.pixels([places[image] for image in batch]), batches, 1
    ):
        yield start, (batches[start], pixels)


def view_of(pixels: torch.Tensor, images: Sequence[str], view: int) -> torch.Tensor:
    """View number `view` of `pixels`, of shape (images, 3, height, width), of the pictures with
    these hashes.
    """
    if view < 2:
        return pixels.flip(-1) if view else pixels
    return torch.stack(
        [
            _crop(x, int(hashlib.sha256(f"{image} {view}".encode()).hexdigest()[:12], 16))
            for x, image in zip(pixels, images, strict=True)
        ]
    )


def _crop(x: torch.Tensor, seed: int) -> torch.Tensor:
    rng, size = np.random.default_rng(seed), x.shape[-1]
    side = int(size * rng.uniform(0.5**0.5, 1))
    top, left = rng.integers(0, size - side + 1, 2)
    crop = x[None, :, top : top + side, left : left + side].float()
    crop = (
        nn.functional.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
        .round()
        .byte()
    )
    return crop.flip(-1) if rng.random() < 0.5 else crop
