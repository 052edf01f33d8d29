"""How long training takes: features and an unfrozen epoch beside fastai's own, and how both grow
with the images.

    python benchmarks/speed.py FOLDER [--arch resnet34] [--number 500] [--runs 3]
    python benchmarks/speed.py FOLDER --growth 500 1000 2000 4000 [--arch efficientnet_lite0]
    python benchmarks/speed.py FOLDER --leads [--arch efficientnet_lite0] [--number 500] [--runs 3]

FOLDER is a gallery `FOLDER/<class>/*.jpg`. Weights are random: only time counts. The first form
prints seconds of fastai's frozen and unfrozen epoch and of ours (medians of alternating runs, each
from nothing), the second seconds, bytes kept and the most memory of one process after either stage
for each number of images (repeated where there are fewer). The third prints what keeping freed
memory (`features.keep_memory`) is worth, a process each in turn, and what it would be at most to
keep the maps that enter block 4, below which nothing learns by default.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from fastai.vision import all as vision

from artclf import train
from artclf.base.machine import keep_freed_memory
from artclf.data.galleries import IMAGE_SUFFIXES
from artclf.model import backbones, engine, features, network

SIZE = 224


def table_of(folder: Path, number: int) -> pd.DataFrame:
    """`number` pictures of `folder`, again from the first where there are fewer, four fifths of
    them to learn from.
    """
    files = sorted(
        file.resolve() for file in folder.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES
    )
    if not files:
        raise ValueError(f"no pictures in {folder}/<class>/")
    random.Random(0).shuffle(files)
    files = [files[i % len(files)] for i in range(number)]
    table = pd.DataFrame(
        {"file": map(str, files), "period": [file.parent.name for file in files], "part": "train"}
    )
    table["sha256"] = table["clean_sha256"] = table.index.astype(str)
    known = table[::2].period.unique()  # a class of which train has none can't be in valid
    table.loc[(table.index % 5 == 1) & table.period.isin(known), "part"] = "valid"
    return table


def ours(table: pd.DataFrame, arch: str) -> dict[str, float]:
    """Seconds of the frozen stage (10 epochs, from nothing) and of an epoch in which all layers
    learn; bytes kept.
    """
    found = {}
    with TemporaryDirectory() as folder:
        learn = train.learner(folder, folder, arch, size=SIZE, split=table, pretrained=False)
        learn.freeze()
        with learn.no_bar(), learn.no_logging():
            found["frozen stage"] = seconds(lambda: learn.fit_one_cycle(10))
            found["memory"] = most_memory()
            found["bytes kept"] = sum(file.stat().st_size for file in Path(folder).glob("*.db"))
            learn.unfreeze()
            found["unfrozen epoch"] = seconds(lambda: learn.fit_one_cycle(1, 1e-4))
    return found


def fastais(table: pd.DataFrame, arch: str) -> dict[str, float]:
    """Seconds of one epoch with the body frozen, and of one with all layers."""
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock),
        get_x=vision.ColReader("file"),
        get_y=vision.ColReader("period"),
        item_tfms=vision.Resize(SIZE, method="squish"),
        splitter=vision.IndexSplitter(table.index[table.part == "valid"]),
        batch_tfms=vision.aug_transforms(),
    )
    builder = getattr(vision, arch, arch)
    learn = vision.vision_learner(
        block.dataloaders(table, bs=64), builder, normalize=False, pretrained=False
    )
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        frozen = seconds(lambda: learn.fit_one_cycle(1))
        learn.unfreeze()
        return {"frozen epoch": frozen, "unfrozen epoch": seconds(lambda: learn.fit_one_cycle(1))}


def seconds(work) -> float:
    started = time.time()
    work()
    return time.time() - started


def compare(args):
    table, runs = table_of(args.folder, args.number), []
    for _ in range(args.runs):
        runs += [
            {"who": "artclf", **ours(table, args.arch)},
            {"who": "fastai", **fastais(table, args.arch)},
        ]
    print(
        pd.DataFrame(runs)
        .drop(columns=["bytes kept", "memory"])
        .groupby("who")
        .agg(median)
        .round(1)
        .to_string()
    )


def most_memory() -> int:
    """The most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def growth(args):
    for number in args.growth:
        found = apart(args, number)
        print(
            f"{number} images: frozen stage {found['frozen stage']:.1f} s, {found['memory'] / 1e6:.0f} MB of memory, "
            f"{found['bytes kept'] / 1e6:.0f} MB kept; unfrozen epoch {found['unfrozen epoch']:.1f} s, "
            f"{found['memory at its end'] / 1e6:.0f} MB of memory",
            flush=True,
        )


def apart(args, number: int, *more) -> dict[str, float]:
    """What `one` measures in a process of its own, since memory that was fetched stays."""
    command = [
        sys.executable,
        __file__,
        str(args.folder),
        "--arch",
        args.arch,
        "--one",
        str(number),
        *more,
    ]
    return json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[
            -1
        ]
    )


def one(args):
    if args.return_memory:
        features.keep_freed_memory = engine.keep_freed_memory = lambda: None
    print(
        json.dumps(
            {**ours(table_of(args.folder, args.one), args.arch), "memory at its end": most_memory()}
        )
    )


def leads(args):
    ways, stages = {"kept": [], "returned": ["--return-memory"]}, ["frozen stage", "unfrozen epoch"]
    runs = [
        {"freed memory is": way, **apart(args, args.number, *more)}
        for _ in range(args.runs)
        for way, more in ways.items()
    ]
    print(
        pd.DataFrame(runs).groupby("freed memory is")[stages].median().round(1).to_string(),
        flush=True,
    )
    whole, above = block_4(args.arch)
    print(
        f"a batch of 16 that block 4 learns from: {whole:.2f} s, from its kept maps on {above:.2f} s"
    )


def block_4(arch: str, runs: int = 5) -> tuple[float, float]:
    """Median seconds of a batch forward, and backward through block 4: from the pictures, and from
    what enters it.
    """
    keep_freed_memory()
    body = network.Body(backbones.body(backbones.find(arch, pretrained=False)), size=SIZE).eval()
    body.to(memory_format=torch.channels_last)
    cut = body.blocks.index(4)
    for stage in body.stages[:cut]:
        stage.requires_grad_(False)
    x = torch.rand(16, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = torch.nn.Sequential(*body.stages[:cut])(x)
    upper = torch.nn.Sequential(*body.stages[cut:])
    ways = [
        lambda: body(x).sum().backward(),
        lambda: network.statistics(upper(maps)).sum().backward(),
    ]
    times = [[seconds(way) for way in ways] for _ in range(runs + 1)][1:]
    return tuple(map(median, zip(*times, strict=True)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="+")
    parser.add_argument("--leads", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--return-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    (one if args.one else growth if args.growth else leads if args.leads else compare)(args)


if __name__ == "__main__":
    main()
