"""Features: the numbers that a frozen body computes of the clean pictures, computed once.

Stores them in `DATA/features.db`, or in the folder `ARTCLF_CACHE` (see `store.store_file`), by the
SHA-256 of the pictures' bytes; the file may be deleted at any time. The frozen stage of training,
doubtful labels and the experiments build on them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from fastai.torch_core import default_device
from torch import nn

from artclf.base.machine import keep_freed_memory
from artclf.base.processes import MapJobs, in_chunks
from artclf.base.progress import progress_bar
from artclf.base.threads import prefetch
from artclf.data.catalogue import clean_path
from artclf.data.pictures import SIZE
from artclf.model import backbones, network
from artclf.model.feature_batches import Lacking, as_bytes, batches_of, compute, maker_of
from artclf.model.features_by_workers import compute_by
from artclf.model.pixels import Pictures, pictures_of, view_of
from artclf.model.store import Store, store_file

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


def body_views(
    pictures: Pictures,
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

    def stored(view: int, hashes: list[str]) -> set[str]:
        by_hash = store.read(keys[view], hashes)
        table.put(view, by_hash)
        return set(by_hash)

    lacking = _lacking(pictures.hashes, views, stored)
    for view, by_hash in _computed(pictures, net, backbone, name, lacking, map_jobs):
        store.write(keys[view], by_hash)
        table.put(view, by_hash)
    return table.array


def store_views(
    pictures: Pictures,
    net: nn.Module,
    backbone,
    name: str,
    views: Sequence[int],
    map_jobs: MapJobs | None = None,
):
    """Compute and store the features that `feature_views` would, without holding them in memory.

    All that lack some are computed in one go, by one call of `map_jobs`.
    """
    store = Store(store_file(pictures.data, "features.db"))
    keys = store_keys(pictures, net, name, views)

    def stored(view: int, hashes: list[str]) -> set[str]:
        return store.stored(keys[view], hashes)

    lacking = _lacking(pictures.hashes, views, stored)
    for view, by_hash in _computed(pictures, net, backbone, name, lacking, map_jobs):
        store.write(keys[view], by_hash)


def store_keys(
    pictures: Pictures, net: nn.Module, name: str, views: Sequence[int]
) -> dict[int, str]:
    """For each view the key under which `feature_views` stores features in `features.db`."""
    made_by = maker_of(name, net)
    return {view: f"{made_by} {pictures.key} view {view}" for view in views}


def _lacking(
    hashes: Sequence[str], views: Sequence[int], stored: Callable[[int, list[str]], set[str]]
) -> Lacking:
    """The pictures that lack some of `views`; of those with the same bytes, the first.

    `stored` tells for which of some pictures a view is stored.
    """
    index_of: dict[str, int] = {}
    for index, sha256 in enumerate(hashes):
        index_of.setdefault(sha256, index)
    lacking: Lacking = {}
    for some in in_chunks(index_of, PICTURES_PER_READ):
        known = {view: stored(view, some) for view in views}
        for sha256 in some:
            lacked = tuple(view for view in views if sha256 not in known[view])
            if lacked:
                lacking.setdefault(lacked, []).append(index_of[sha256])
    return lacking


def _computed(
    pictures: Pictures,
    net: nn.Module,
    backbone,
    name: str,
    lacking: Lacking,
    map_jobs: MapJobs | None,
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """For each batch of the pictures that lack views, a view and its features as bytes by SHA-256,
    while a progress bar is shown.
    """
    if not lacking:
        return
    if map_jobs is None:
        computed = _compute_here(pictures, net, backbone, lacking)
    else:
        computed = compute_by(map_jobs, pictures, net, backbone, name, lacking)
    total = sum(len(views) * len(indices) for views, indices in lacking.items())
    with progress_bar(desc=f"features of {backbone.name}", total=total) as bar:
        for view, by_hash in computed:
            yield view, by_hash
            bar.update(len(by_hash))


def _compute_here(
    pictures: Pictures, net: nn.Module, backbone, lacking: Lacking
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """As `_computed`, in this process; the next batch is decoded meanwhile."""
    body = network.fold_norms(net, pictures.size)
    keep_freed_memory()

    def decoded(batch: tuple[tuple[int, ...], list[int]]):
        views, indices = batch
        hashes = [pictures.hashes[index] for index in indices]
        return views, hashes, pictures.pixels(indices)

    for _, [(views, hashes, pixels)] in prefetch(decoded, batches_of(lacking), batch_size=1):
        for view in views:
            yield view, as_bytes(hashes, compute(body, backbone, view_of(pixels, hashes, view)))


class _FeatureTable:
    """The array of `feature_views` while it is filled; pictures of the same bytes have a row each."""

    def __init__(self, hashes: Sequence[str], views: list[int], wanted: slice):
        self.n_rows = len(hashes)
        self.wanted = wanted
        self.rows: dict[str, list[int]] = {}
        for row, sha256 in enumerate(hashes):
            self.rows.setdefault(sha256, []).append(row)
        self.columns = {view: column for column, view in enumerate(views)}
        self.array = np.empty((0, len(views), 0), np.float32)

    def put(self, view: int, by_hash: dict[str, bytes]):
        """Fill in the features of a view, given as bytes by the SHA-256 of their pictures."""
        for sha256, content in by_hash.items():
            features = np.frombuffer(content, np.float32)[self.wanted]
            if not len(self.array):  # the first picture tells how many features there are
                shape = (self.n_rows, len(self.columns), len(features))
                self.array = np.empty(shape, np.float32)
            self.array[self.rows[sha256], self.columns[view]] = features
