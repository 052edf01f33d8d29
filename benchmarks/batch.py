"""What answers for many pictures in one file cost: pictures a second, and memory by their number.

    python benchmarks/batch.py EXPORT IMAGES [--numbers 1000 100000] [--kind csv] [--size 32]

EXPORT is an export folder, IMAGES a folder of pictures. Each number of pictures is a folder of hard
links to these, answered by `artclf.answers.batch.save` in a process of its own. Memory is the most
that the process took. With `--size`, a network without weights, which answers by the mean colours
of pictures of that many px, takes the place of the export's: what remains is the cost of reading
and writing.
"""

import argparse
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import artclf
from artclf.answers import batch
from artclf.answers.classifier import Predictor

FILES_IN_FOLDER = 10_000


class MeanColours(Predictor):
    n_features = 3

    def _forward(self, pixels):
        means = pixels.mean((2, 3), dtype=np.float32)
        return means / 100, means


def classifier(export: Path, size: int | None) -> Predictor:
    if size is None:
        return artclf.load(export)
    vocab = ["red", "green", "blue"]
    return MeanColours({"vocab": vocab, "temperature": 1.0, "size": size, "resize": "squish"})


def link(images: list[Path], number: int, folder: Path):
    """Fill `folder` with `number` hard links to `images`, copies where the disk is another."""
    for place, image in enumerate(islice(cycle(images), number)):
        name = folder / f"{place // FILES_IN_FOLDER:04}" / f"{place:08}{image.suffix}"
        name.parent.mkdir(exist_ok=True)
        try:
            os.link(image, name)
        except OSError:
            name.write_bytes(image.read_bytes())


def measure(export: Path, size: int | None, folder: Path, file: Path) -> tuple[float, float]:
    """Seconds, and the most memory in MB, for the pictures in `folder`."""
    asked = classifier(export, size)
    started = time.perf_counter()
    batch.save(asked, [str(folder)], file)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--kind", choices=["csv", "parquet"], default="csv")
    parser.add_argument("--size", type=int)
    args = parser.parse_args()
    images = sorted(args.images.rglob("*.jpg"))
    if not images:
        parser.error(f"no *.jpg in {args.images}")
    for number in args.numbers:
        with TemporaryDirectory(dir=args.images.parent) as folder:
            pictures, file = Path(folder) / "pictures", Path(folder) / f"answers.{args.kind}"
            pictures.mkdir()
            link(images, number, pictures)
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                task = process.submit(measure, args.export, args.size, pictures, file)
                seconds, megabytes = task.result()
            print(
                f"{number:8} pictures  {number / seconds:7.1f} a second  {megabytes:6.0f} MB at most  "
                f"{file.stat().st_size / 1e6:7.2f} MB written",
                flush=True,
            )


if __name__ == "__main__":
    main()
