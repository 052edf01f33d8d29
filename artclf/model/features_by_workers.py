"""The features of pictures by workers: what they are given, and what they give back.

They see the folder of the pictures, and write to no store.
"""

from collections.abc import Iterator
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

from artclf.base.errors import StepError
from artclf.base.files import replace_whole
from artclf.base.machine import keep_freed_memory
from artclf.base.processes import FOR_WORKERS, MapJobs
from artclf.data import packs
from artclf.data.packs import PackedPicture
from artclf.model import backbones, network
from artclf.model.feature_batches import Lacking, as_bytes, batches_of, compute, maker_of
from artclf.model.pixels import Pictures, decoded, view_of


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
        made_by = maker_of(self.name, net)
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
            found[view] = as_bytes(batch.hashes, compute(self._net, self.backbone, seen))
        return found


def compute_by(
    map_jobs: MapJobs,
    pictures: Pictures,
    net: network.Body,
    backbone: backbones.Backbone,
    name: str,
    lacking: Lacking,
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """For each batch of the pictures that lack views, a view and its features as bytes by SHA-256.

    All batches are the jobs of one call of `map_jobs`, whose workers make the network once. Raises
    StepError for a batch that ends its worker each time.
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
        maker_of(name, net),
    )
    tensors = {key: value.cpu().contiguous() for key, value in net.state_dict().items()}
    replace_whole(weights, lambda file: file.write_bytes(save(tensors)))
    try:
        batches = _batches_for_workers(pictures, lacking)
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


def _batches_for_workers(pictures: Pictures, lacking: Lacking) -> Iterator[Batch]:
    for views, indices in batches_of(lacking):
        found = (pictures.copies[index] for index in indices)
        # a worker has another working folder
        places = [place.absolute() if isinstance(place, Path) else place for place in found]
        hashes = [pictures.hashes[index] for index in indices]
        yield Batch(places, hashes, views)
