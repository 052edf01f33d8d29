"""What covariances of wide stages add, in few numbers: those of the channels projected onto their
principal components, which take no label.

    python benchmarks/wide.py DATA [--arch vgg16] [--size 224] [--beside efficientnet_lite0]
                              [--rank 64] [--split artist] [--seeds 1 2]

DATA is a data folder. Stages with at most `network.MOST_CHANNELS` channels have their covariances in
the features as they are; here, the others get those of `--rank` components, fitted on 200 pictures.
Prints the figures of the recipe's head on the features of ARCH without and with them, and, unless
`--beside` is '', on those together with the features of that network at 320 px: in one head, and in
a head each whose probabilities are averaged. They are pooled over five folds and the seeds; brackets
are 95% intervals of how far they are above the first row (see `heads.py`).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from heads import differences
from train import mean_of

from artclf.base.progress import progress_bar
from artclf.data.pictures import SIZE
from artclf.lab import leaks, protocols
from artclf.model.features import of_images
from artclf.model.folds import prediction_table
from artclf.model.heads import LinearHead, reduced
from artclf.model.network import MOST_CHANNELS, covariances
from artclf.model.pixels import Pictures
from artclf.results import evaluation
from artclf.results.recipe import DEFAULTS

BATCH = 8
TO_FIT = 200  # pictures


@torch.inference_mode()
def wide_maps(body, config: dict, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The maps of the pooled stages of more than `MOST_CHANNELS` channels."""
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    x = (pixels.float() / 255 - mean) / std
    found = []
    for stage, layout, is_pooled in zip(body.stages, body.layouts, body.is_pooled, strict=True):
        x = stage(x)
        maps = layout.maps(x)
        if is_pooled and maps.shape[1] > MOST_CHANNELS:
            found.append(maps)
    return found


def components(body, config: dict, pictures: Pictures, rank: int) -> list[torch.Tensor]:
    """For each wide stage the principal components of its channels, (channels, rank), over places
    and pictures; every picture counts alike, however large its values are.
    """
    chosen = np.random.default_rng(0).permutation(len(pictures.files))[:TO_FIT]
    sums: list[torch.Tensor] = []
    for start in progress_bar(range(0, len(chosen), BATCH)):
        pixels = pictures.pixels(chosen[start : start + BATCH])
        matrices = []
        for maps in wide_maps(body, config, pixels):
            places = maps.flatten(2)
            centred = places - places.mean(2, keepdim=True)
            of_pictures = centred @ centred.transpose(1, 2)
            traces = of_pictures.diagonal(dim1=1, dim2=2).sum(1)
            matrices.append((of_pictures / (traces[:, None, None] + 1e-6)).sum(0))
        sums = [old + new for old, new in zip(sums, matrices, strict=True)] if sums else matrices
    return [torch.linalg.eigh(matrix).eigenvectors[:, -rank:] for matrix in sums]


def wide_covariances(body, config: dict, pictures: Pictures, rank: int) -> np.ndarray:
    """Covariances of the components of the wide stages: (images, numbers)."""
    bases = components(body, config, pictures, rank)
    rows = []
    for start in progress_bar(range(0, len(pictures.files), BATCH)):
        indices = range(start, min(start + BATCH, len(pictures.files)))
        of_stages = []
        maps_of_stages = wide_maps(body, config, pictures.pixels(indices))
        for maps, basis in zip(maps_of_stages, bases, strict=True):
            projected = torch.einsum("nchw,cr->nrhw", maps, basis)
            of_stages.append(covariances(projected, basis.shape[1]))
        rows.append(torch.cat(of_stages, 1).numpy())
    return np.concatenate(rows)


def features_of(data, images: pd.DataFrame, arch: str, size: int):
    """The body of `arch`, its settings, and the features of `images` as training has them."""
    body, config = protocols.frozen_body(arch, size)
    body.eval()
    return body, config, of_images(data, images, body, config)[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", default="vgg16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--beside", default="efficientnet_lite0")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--split", default="artist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    pd.set_option("display.width", 200)
    images = leaks.images(args.data, [args.split])
    body, config, plain = features_of(args.data, images, args.arch, args.size)
    pictures = Pictures(args.data, images.file, images.clean_sha256, args.size)
    wide = wide_covariances(body, config, pictures, args.rank)
    print(f"{args.arch}: {plain.shape[1]} features, {wide.shape[1]} covariances of wide stages")
    parts = {args.arch: [plain], f"{args.arch}, wide": [plain, wide]}
    if args.beside:
        _, _, other = features_of(args.data, images, args.beside, SIZE)
        for name, columns in list(parts.items()):
            parts[f"{args.beside} and {name}, one head"] = [other, *columns]
        parts = {args.beside: [other], **parts}
    head = LinearHead(DEFAULTS.ridge, DEFAULTS.balance, DEFAULTS.tau, standardise=False)
    runs = {}
    for name, columns in parts.items():
        x = reduced(np.concatenate(columns, axis=1))
        groups = images[f"by_{args.split}"]
        runs[name] = prediction_table(head, x, images.period, groups, 5, args.seeds, threads=None)
    if args.beside:
        for name in (args.arch, f"{args.arch}, wide"):
            both = mean_of([runs[args.beside], runs[name]])
            runs[f"{args.beside} and {name}, a head each"] = both
    first = next(iter(runs.values()))
    rows = {}
    for name, run in runs.items():
        figures = evaluation.metrics(run)["test"]
        rows[name] = {
            "accuracy": round(figures["accuracy"], 3),
            "macro_f1": round(figures["macro_f1"], 3),
            **differences(first, run),
        }
    print(pd.DataFrame.from_dict(rows, orient="index").to_string())


if __name__ == "__main__":
    main()
