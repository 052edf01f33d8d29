"""Features: the numbers that a frozen body computes of the clean pictures, computed once; and these
pictures, decoded once.

Reads `DATA/clean/`, or a pack of it; stores the features in `DATA/features.db` and the pixels in
`DATA/pixels.db`, or in the folder `ARTCLF_CACHE` (see `store.store_file`), by the SHA-256 of the
pictures' bytes. Both may be deleted at any time. The frozen stage of training, doubtful labels and
the experiments build on them.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import torch
from fastai.torch_core import default_device
from safetensors.torch import load_file, save
from torch import nn

from artclf.base.errors import InputError, StepError
from artclf.base.files import replace_whole
from artclf.base.machine import keep_freed_memory
from artclf.base.processes import FOR_WORKERS, MapJobs, in_chunks
from artclf.base.progress import progress_bar
from artclf.base.threads import prefetch
from artclf.data import packs
from artclf.data.catalogue import clean_path
from artclf.data.cleaning import copies
from artclf.data.packs import PackedPicture
from artclf.data.pictures import MISSING, SIZE, Rejected, square
from artclf.model import backbones, network
from artclf.model.store import Store, store_file

BATCH = 16  # pictures; of more, the activations leave the processor's cache
VERSION = 4  # to be raised when the same network gives other features than before
PIXELS_VERSION = 2  # to be raised when the same picture gives other pixels than before
PICTURES_PER_READ = 500  # so that few features are in memory both as stored and in the array


def extract(data, rows, arch: str = "auto", size: int = SIZE, mirror: bool = False) -> np.ndarray:
    """The mean of each channel of the body's last feature maps: float32 of shape (images,
    channels).

    `rows` are rows of `read_catalogue(data)` with a clean copy; pictures are squished to `size` x
    `size` px, and mirrored with `mirror`. They are part of the features that the head learns from
    by default, and are stored with those: killed at any moment, the same call goes on. The maps of
    a transformer are its tokens; a body that has neither gives its features as they are. Of several
    bodies (`a+b`), the channels of all, one after the other. Raises ConnectionError without
    weights, FileNotFoundError where a clean copy is gone.
    """
    files = [clean_path(row) for row in rows.to_dict("records")]
    pictures = Pictures(data, files, rows.clean_sha256, size)
    view = 1 if mirror else 0
    channels = []
    for backbone in backbones.each(backbones.find(arch)):
        body = network.new_body(backbone, size=size)
        body.to(default_device(), memory_format=torch.channels_last)
        name = body_name(backbone, body)
        views = feature_views(pictures, body, backbone, name, [view], body.last_means)
        channels.append(views[:, 0])
    return np.concatenate(channels, axis=1)


def of_images(
    data,
    images,
    net: nn.Module,
    config: dict,
    views: Sequence[int] = (0,),
    map_jobs: MapJobs | None = None,
) -> np.ndarray:
    """The features of `images` by the body `net` of a network with the settings `config`: float32
    (images, views, features), those of several bodies one after the other.

    `images` is a table with columns `file` and `clean_sha256`, such as `splits.items` gives;
    `map_jobs` is for `feature_views`. Raises InputError for a picture that can't be read,
    FileNotFoundError for one that is gone.
    """
    return body_views(pictures_of(data, images, config), net, config, views, map_jobs)


def pictures_of(data, images, config: dict) -> "Pictures":
    """The pictures of a table `images` (see `of_images`), as a network with the settings `config`
    takes them.
    """
    size, resize = config["size"], config["resize"]
    return Pictures(data, images.file, images.clean_sha256, size, resize)


def body_views(
    pictures: "Pictures",
    net: nn.Module,
    config: dict,
    views: Sequence[int],
    map_jobs: MapJobs | None = None,
) -> np.ndarray:
    """`feature_views` by the body `net` of `network.new_learner` with the settings `config`.

    Several bodies are computed and stored one after the other, so that a body that was used before,
    alone or with others, has nothing to compute.
    """
    arrays = []
    for part, body, name in named_bodies(net, config):
        arrays.append(feature_views(pictures, body, part, name, views, map_jobs=map_jobs))
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2)


def named_bodies(net: nn.Module, config: dict) -> list[tuple[backbones.Backbone, nn.Module, str]]:
    """Each body of the body `net` of `network.new_learner`: its backbone, itself, and the name
    under which its features are stored.
    """
    parts = backbones.each(backbones.of_config(config))
    return [
        (part, body, body_name(part, body, config["precision"]))
        for part, body in zip(parts, net.bodies, strict=True)
    ]


def body_name(backbone: backbones.Backbone, body: nn.Module, precision: str = "float32") -> str:
    """The name under which the features of a single body are stored, alone or with others.

    A body that is cut as artclf always did has the name of then, so that its features are found.
    """
    name = f"{backbone.name} {body.pool} {precision}"
    return name if body.version == 1 else f"{name} stages {body.version}"


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


def feature_views(
    pictures: Pictures,
    net: nn.Module,
    backbone,
    name: str,
    views: Sequence[int],
    wanted: slice = slice(None),
    map_jobs: MapJobs | None = None,
) -> np.ndarray:
    """The features that `net` gives for views of every picture: float32 (images, views, features).

    View 0 is the picture, view 1 its mirror image, and each further one a crop of half the area or
    more, mirrored or not; the SHA-256 of the picture and the number of the view determine the crop.
    Only the features `wanted` are returned. `name` (see `body_name`) tells `net` apart from other
    networks of the same weights. Features are stored by all that they depend on. Every batch has
    the same size, so that features don't depend on what was stored before. From now on, the process
    keeps the memory that it frees.

    With `map_jobs`, its workers decode and compute (see `BatchOnWorker`; `net` is a `network.Body`
    then), and this process alone writes to the store; pixels are not stored.
    """
    store = Store(store_file(pictures.data, "features.db"))
    keys = store_keys(pictures, net, name, views)
    table = _FeatureTable(pictures.hashes, list(views), wanted)
    _read_stored(store, keys, pictures.hashes, table)
    missing = {view: table.missing(view) for view in views}
    total = sum(len(indices) for indices in missing.values())
    if not total:
        return table.array
    if map_jobs is None:
        computed = _compute_here(pictures, net, backbone, missing)
    else:
        computed = _compute_by(map_jobs, pictures, net, backbone, name, missing)
    with progress_bar(desc=f"features of {backbone.name}", total=total) as bar:
        for view, by_hash in computed:
            store.write(keys[view], by_hash)
            table.put(view, by_hash)
            bar.update(len(by_hash))
    return table.array


def store_keys(
    pictures: Pictures, net: nn.Module, name: str, views: Sequence[int]
) -> dict[int, str]:
    """For each view the key under which `feature_views` stores features in `features.db`."""
    made_by = _made_by(name, net)
    return {view: f"{made_by} {pictures.key} view {view}" for view in views}


def _made_by(name: str, net: nn.Module) -> str:
    """What features depend on beside picture and view."""
    return f"{name} {_hash_of_weights(net)} {VERSION}, torch {torch.__version__}"


def _compute_here(
    pictures: Pictures, net: nn.Module, backbone, missing: dict[int, dict[str, int]]
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """For each batch of what is `missing` (see `_FeatureTable.missing`) by view, the view and the
    features as bytes by SHA-256.
    """
    body = network.fold_norms(net, pictures.size)
    keep_freed_memory()
    for view, indices in missing.items():
        for hashes, pixels in _batches(pictures, indices):
            yield view, _as_bytes(hashes, _compute(body, backbone, view_of(pixels, hashes, view)))


def _as_bytes(hashes: Sequence[str], features: np.ndarray) -> dict[str, bytes]:
    content = [row.tobytes() for row in features]
    return dict(zip(hashes, content, strict=True))


class Batch(NamedTuple):
    """Pictures whose features a worker is to compute: where they lie, SHA-256 and views."""

    copies: list[Path | PackedPicture]
    hashes: list[str]
    views: tuple[int, ...]


@dataclass
class BatchOnWorker:
    """Computes the features of a `Batch` in a worker, as `feature_views` does, without a store.

    `weights` is a file with the weights of the body, from which the network is made at the first
    batch; `body` are the further arguments of `network.new_body`. Raises StepError where the body
    or torch of the worker would give other features than those `made_by`.
    """

    data: Path | str
    size: int
    resize: str
    backbone: backbones.Backbone
    name: str
    weights: Path
    body: dict
    made_by: str

    @cached_property
    def _net(self) -> nn.Module:
        net = network.new_body(replace(self.backbone, weights="random"), **self.body)
        net.load_state_dict(load_file(self.weights))
        made_by = _made_by(self.name, net)
        if made_by != self.made_by:
            raise StepError(
                f"a worker computes features by {made_by}, this machine by {self.made_by}: install the "
                "same versions on all machines"
            )
        net.to(default_device(), memory_format=torch.channels_last)
        keep_freed_memory()
        return network.fold_norms(net, self.size)

    def __call__(self, batch: Batch) -> dict[int, dict[str, bytes]]:
        """The features as bytes by view and SHA-256. Raises as `decoded` does."""
        pictures = [decoded(place, self.data, self.size, self.resize) for place in batch.copies]
        pixels = torch.from_numpy(np.stack(pictures))
        found = {}
        for view in batch.views:
            seen = view_of(pixels, batch.hashes, view)
            found[view] = _as_bytes(batch.hashes, _compute(self._net, self.backbone, seen))
        return found


def _compute_by(
    map_jobs: MapJobs,
    pictures: Pictures,
    net: network.Body,
    backbone: backbones.Backbone,
    name: str,
    missing: dict[int, dict[str, int]],
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """As `_compute_here`, by the workers of `map_jobs`. Raises StepError for a batch that ends its
    worker each time.
    """
    folder = packs.working_folder(pictures.data).absolute()
    weights = folder / f"{FOR_WORKERS}{uuid4().hex}.safetensors"
    precisions = {dtype: precision for precision, dtype in network.PRECISIONS.items()}
    function = BatchOnWorker(
        pictures.data,
        pictures.size,
        pictures.resize,
        backbone,
        name,
        weights,
        {
            "pool": net.pool,
            "size": pictures.size,
            "precision": precisions[net.autocast_dtype],
            "version": net.version,
        },
        _made_by(name, net),
    )
    tensors = {key: value.cpu().contiguous() for key, value in net.state_dict().items()}
    replace_whole(weights, lambda file: file.write_bytes(save(tensors)))
    try:
        batches = _batches_for_workers(pictures, missing)
        for chunk in map_jobs(function, batches, chunk_size=1):
            for batch, found in chunk:
                if found is None:
                    raise StepError(
                        f"workers end when they compute the features of {batch.copies[0]} or of one "
                        f"of the {len(batch.copies) - 1} pictures after it: look whether they have too "
                        "little memory, or leave that picture out"
                    )
                yield from found.items()
    finally:
        weights.unlink(missing_ok=True)


def _batches_for_workers(pictures: Pictures, missing: dict[int, dict[str, int]]) -> Iterator[Batch]:
    """Batches of the pictures that lack the same views, so that each is decoded once."""
    views_of: dict[str, tuple[int, ...]] = {}
    index_of: dict[str, int] = {}
    for view, indices in missing.items():
        index_of |= indices
        for sha256 in indices:
            views_of[sha256] = (*views_of.get(sha256, ()), view)
    lacking: dict[tuple[int, ...], list[str]] = {}
    for sha256, views in views_of.items():
        lacking.setdefault(views, []).append(sha256)
    for views, all_hashes in lacking.items():
        for hashes in in_chunks(all_hashes, BATCH):
            found = (pictures.copies[index_of[key]] for key in hashes)
            # a worker has another working folder
            places = [place.absolute() if isinstance(place, Path) else place for place in found]
            yield Batch(places, hashes, views)


def _read_stored(store: Store, keys: dict[int, str], hashes: list[str], table: "_FeatureTable"):
    """Put what is stored under the key of each view into `table`."""
    for view, key in keys.items():
        for start in range(0, len(hashes), PICTURES_PER_READ):
            table.put(view, store.read(key, hashes[start : start + PICTURES_PER_READ]))


def _hash_of_weights(net: nn.Module) -> str:
    content = hashlib.sha256()
    for tensor in net.state_dict().values():
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


@torch.inference_mode()
def _compute(net: nn.Module, backbone, pixels: torch.Tensor) -> np.ndarray:
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


class _FeatureTable:
    """The array of `feature_views` while it is filled; pictures of the same bytes have a row each."""

    def __init__(self, hashes: Sequence[str], views: list[int], wanted: slice):
        self.n_rows = len(hashes)
        self.wanted = wanted
        self.rows: dict[str, list[int]] = {}
        for row, sha256 in enumerate(hashes):
            self.rows.setdefault(sha256, []).append(row)
        self.columns = {view: column for column, view in enumerate(views)}
        self.filled: dict[int, set[str]] = {view: set() for view in views}
        self.array = np.empty((0, len(views), 0), np.float32)

    def put(self, view: int, by_hash: dict[str, bytes]):
        """Fill in the features of a view, given as bytes by the SHA-256 of their pictures."""
        for sha256, content in by_hash.items():
            features = np.frombuffer(content, np.float32)[self.wanted]
            if not len(self.array):  # the first picture tells how many features there are
                shape = (self.n_rows, len(self.columns), len(features))
                self.array = np.empty(shape, np.float32)
            self.array[self.rows[sha256], self.columns[view]] = features
        self.filled[view] |= by_hash.keys()

    def missing(self, view: int) -> dict[str, int]:
        """The pictures that lack a view: the index of one of their rows, by SHA-256."""
        filled = self.filled[view]
        return {sha256: rows[0] for sha256, rows in self.rows.items() if sha256 not in filled}


def _batches(
    pictures: Pictures, indices: dict[str, int]
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """SHA-256 and pixels of the pictures at `indices`, a batch at a time; the next one is decoded
    meanwhile.
    """
    batches = list(in_chunks(indices, BATCH))

    def pixels_of(batch):
        return pictures.pixels([indices[sha256] for sha256 in batch])

    for number, [pixels] in prefetch(pixels_of, batches, batch_size=1):
        yield batches[number], pixels


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
