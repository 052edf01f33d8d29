"""What `Classifier.predict` costs beside decoding plus the bare forward pass, for one image and for
256; its memory by number of images.

    python benchmarks/predict.py EXPORT IMAGES [--runs 9] [--number 256]
    python benchmarks/predict.py EXPORT IMAGES --memory 1000 20000

EXPORT is an export folder, IMAGES a folder of pictures. The ways take turns, each on the same
files; the figures are medians over the runs. `threads` decodes in as many threads as there are
cores, then runs the network; `serial` decodes in one. Floors: one image within 1.5 times `serial`,
many at 90% or more of the throughput of `threads`.

With `--memory`, each number of images comes from an iterator that repeats the files, in a process of
its own; the figure is the most memory that the process took, beside that of a single batch.
"""

import argparse
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
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


def megabytes_at_most() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # in kilobytes on Linux


def memory(export: Path, files: list[Path], number: int) -> tuple[float, float, float]:
    """The most memory in MB after a batch and after `number` images, and the seconds of these."""
    clf = artclf.load(export)
    clf.predict(islice(cycle(files), 64))
    of_a_batch = megabytes_at_most()
    started = time.perf_counter()
    table = clf.predict(islice(cycle(files), number))
    assert len(table) == number
    return of_a_batch, megabytes_at_most(), time.perf_counter() - started


def print_memory(export: Path, files: list[Path], numbers: list[int]):
    for number in numbers:
        with get_context("spawn").Pool(1) as process:
            of_a_batch, most, seconds = process.apply(memory, (export, files, number))
        print(
            f"{number:7} images  {most:7.0f} MB at most, {most - of_a_batch:6.0f} MB above a batch, "
            f"{seconds:6.0f} s",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--number", type=int, default=256)
    parser.add_argument("--memory", type=int, nargs="+", metavar="NUMBER")
    args = parser.parse_args()
    files = sorted(args.images.rglob("*.jpg"))
    if not files:
        parser.error(f"no *.jpg in {args.images}")
    if args.memory:
        print_memory(args.export, files, args.memory)
        return
    clf = artclf.load(args.export)
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
