"""What `Classifier.predict` costs beside decoding plus the bare forward pass, for one image and for
256.

    python benchmarks/predict.py EXPORT IMAGES [--runs 9] [--number 256]

EXPORT is an export folder, IMAGES a folder of pictures. The ways take turns, each on the same
files; the figures are medians over the runs. `threads` decodes in as many threads as there are
cores, then runs the network; `serial` decodes in one. Floors: one image within 1.5 times `serial`,
many at 90% or more of the throughput of `threads`.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

import artclf


def decode(file, size: int) -> torch.Tensor:
    with Image.open(file) as im:
        im = im.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(im)).permute(2, 0, 1)


@torch.inference_mode()
def forward(clf, pixels: list, batch_size: int = 64):
    mean, std = (torch.tensor(clf.config[name]).view(3, 1, 1) for name in ("mean", "std"))
    for start in range(0, len(pixels), batch_size):
        batch = torch.stack(pixels[start : start + batch_size]).float() / 255
        clf.learner.model(((batch - mean) / std).to(clf.learner.dls.device)).cpu()


def ways(clf) -> dict:
    size = clf.config["size"]

    def serial(files):
        forward(clf, [decode(file, size) for file in files])

    def threads(files):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pixels = list(pool.map(lambda file: decode(file, size), files))
        forward(clf, pixels)

    return {"Classifier.predict": clf.predict, "serial": serial, "threads": threads}


def measure(ways: dict, files: list, runs: int) -> dict:
    """Median seconds of each way; before the first run each has a turn that doesn't count."""
    seconds = {name: [] for name in ways}
    for number in range(runs + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(files)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--number", type=int, default=256)
    args = parser.parse_args()
    clf, files = artclf.load(args.export), sorted(args.images.rglob("*.jpg"))
    if not files:
        parser.error(f"no *.jpg in {args.images}")
    many = (files * -(-args.number // len(files)))[: args.number]
    print(
        f"{clf.config['name']}, {clf.config['size']} px, {os.cpu_count()} cores, {args.runs} runs"
    )
    for name, chosen, runs in (
        ("one image", files[:1], 10 * args.runs),
        (f"{args.number} images", many, args.runs),
    ):
        seconds = measure(ways(clf), chosen, runs)
        own = seconds["Classifier.predict"]
        for way, bare in seconds.items():
            print(
                f"{name:12}  {way:20} {1000 * bare / len(chosen):8.2f} ms an image  {own / bare:5.2f} times of it"
            )


if __name__ == "__main__":
    main()
