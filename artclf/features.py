"""Features: what a frozen ImageNet body sees in the clean pictures, computed once.

Reads `DATA/clean/` and the catalogue; keeps the numbers in `DATA/features.db`, which may be deleted at any time.
Doubtful labels and the experiments build on them.
"""
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from artclf import backbones
from artclf.catalogue import clean_path, progress
from artclf.clean import open_rgb

TILES = [(slice(None), slice(None))] + [(slice(i, i + 2), slice(j, j + 2)) for i in range(3) for j in range(3)]

BATCH = 16  # of 64, the activations are memory that is fetched and returned each time: a third of the speed


def extract(data, rows, arch: str = "auto", size: int = 224, mirror: bool = False, tiles: bool = False) -> np.ndarray:
    """The body's output for clean pictures, averaged over each: float32 of shape (images, channels).

    `rows` are rows of `read_catalogue(data)` with a clean copy; pictures are squished to `size` x `size` px and
    mirrored if asked. With `tiles` the shape is (images, 10, channels): the whole picture, then its nine quarters that
    overlap by half, row by row. Numbers are stored by the picture's bytes and all that they depend on; killed at any
    moment, the same call goes on. Raises ConnectionError without weights, ValueError for a body without feature maps,
    FileNotFoundError where a copy is gone.
    """
    backbone = backbones.find(arch)
    net = backbones.body(backbone)
    weights = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in net.state_dict().values())).hexdigest()
    key = f"{backbone.name} {weights[:16]} {size} px squish{' mirrored' * mirror}{' tiles' * tiles}"
    files = {row["clean_sha256"]: Path(data) / clean_path(row) for row in rows.to_dict("records")}
    see = _Eye(net, backbone, size, mirror, tiles)
    with closing(sqlite3.connect(Path(data) / "features.db", timeout=30)) as db:
        db.execute("CREATE TABLE IF NOT EXISTS features (key TEXT, image TEXT, value BLOB, PRIMARY KEY (key, image))")
        known = dict(db.execute("SELECT image, value FROM features WHERE key = ?", (key,)))
        new = [image for image in files if image not in known]
        if gone := [files[image] for image in new if not files[image].exists()]:
            raise FileNotFoundError(f"{gone[0]} is gone: run `artclf clean --data {data}`")
        with progress(desc=f"features of {backbone.name}", total=len(new)) as bar:
            for start, batch in ahead(see.pixels, [files[image] for image in new], BATCH):
                values = [value.tobytes() for value in see(torch.stack(batch))]
                found = list(zip(new[start:start + len(batch)], values, strict=True))
                with db: db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", ((key, *f) for f in found))
                known |= found
                bar.update(len(batch))
    shape = (len(rows), len(TILES), -1) if tiles else (len(rows), -1)
    return np.frombuffer(b"".join(known[image] for image in rows.clean_sha256), np.float32).reshape(shape)


class _Eye:
    """Turns clean pictures into features."""

    def __init__(self, net, backbone, size: int, mirror: bool, tiles: bool):
        self.device = torch.device("cuda" if torch.cuda.is_available() else
                                   "mps" if torch.backends.mps.is_available() else "cpu")
        self.net = net.eval().to(self.device, memory_format=torch.channels_last)
        self.mean, self.std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        self.size, self.mirror, self.tiles = size, mirror, tiles

    def pixels(self, file: Path) -> torch.Tensor:
        """The picture as bytes of shape (3, size, size)."""
        image = open_rgb(file).resize((self.size, self.size), 2)  # bilinear, as fastai's Resize
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> np.ndarray:
        x = (pixels.to(self.device).float() / 255 - self.mean) / self.std
        if self.mirror: x = x.flip(-1)
        maps = self.net(x.contiguous(memory_format=torch.channels_last))
        if maps.ndim != 4: raise ValueError("this architecture has no feature maps: take a convolutional one")
        if not self.tiles: return maps.mean((2, 3)).float().cpu().numpy()
        quarters = torch.nn.functional.adaptive_avg_pool2d(maps, 4)
        return torch.stack([quarters[:, :, i, j].mean((2, 3)) for i, j in TILES], 1).float().cpu().numpy()


def ahead(function: Callable, items: Sequence, batch_size: int = 64) -> Iterator[tuple[int, list]]:
    """Pairs of a place and `function` of the `batch_size` items from there; threads work on the next meanwhile."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        coming = []
        for start in range(0, len(items) + batch_size, batch_size):
            now, coming = coming, [pool.submit(function, item) for item in items[start:start + batch_size]]
            if now: yield start - batch_size, [future.result() for future in now]
