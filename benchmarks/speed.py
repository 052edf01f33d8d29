"""How long training takes: features and an unfrozen epoch beside fastai's own, and how both grow
with the images.

    python benchmarks/speed.py FOLDER [--arch resnet34] [--number 500] [--runs 3]
    python benchmarks/speed.py FOLDER --growth 500 1000 2000 4000 [--arch efficientnet_lite0]
    python benchmarks/speed.py FOLDER --precisions [--arch efficientnet_lite0] [--number 500]
    python benchmarks/speed.py FOLDER --memory [--arch efficientnet_lite0] [--number 500] [--runs 3]

FOLDER is a gallery `FOLDER/<class>/*.jpg`. Weights are random: only time counts. All times are
medians of runs in turn, each from nothing.

The first form prints seconds of fastai's frozen and unfrozen epoch and of ours. The second prints
seconds, bytes on disk and the most memory of one process after either stage for each number of
images (repeated where there are fewer). The third compares the precisions of the body. The fourth
prints what keeping freed memory (`machine.keep_freed_memory`) is worth, and what it would be worth
at most to store the maps that enter block 4, below which nothing learns by default.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from fastai.vision import all as vision

from artclf import train
from artclf.base.machine import keep_freed_memory
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.model import backbones, network
from artclf.results.recipe import DEFAULTS

SIZE = 224
STAGES = ["frozen stage", "unfrozen epoch"]


def table_of(folder: Path, number: int) -> pd.DataFrame:
    """`number` pictures of `folder`, again from the first where there are fewer, four fifths of
    them to learn from.
    """
    files = sorted(
        file.resolve() for file in folder.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES
    )
    if not files:
        raise SystemExit(f"no pictures in {folder}/<class>/")
    random.Random(0).shuffle(files)
    files = [files[place % len(files)] for place in range(number)]
    table = pd.DataFrame({"file": [str(file) for file in files]})
    table["period"] = [file.parent.name for file in files]
    table["sha256"] = table.index.astype(str)
    table["clean_sha256"] = table.sha256
    table["part"] = "train"
    # a class of which train has none can't be in valid
    periods_of_train = table[table.index % 2 == 0].period.unique()
    is_valid = (table.index % 5 == 1) & table.period.isin(periods_of_train)
    table.loc[is_valid, "part"] = "valid"
    return table


def ours(table: pd.DataFrame, arch: str, size: int = SIZE, **settings) -> dict[str, float]:
    """Seconds of the frozen stage (10 epochs, from nothing) and of an epoch in which more layers
    learn: all of them, or those from `unfreeze_from` on; bytes on disk and the most memory.
    """
    result = {}
    with TemporaryDirectory() as folder:
        options = {"pretrained": False, **settings}
        learn = train.learner(folder, folder, arch, size=size, split=table, **options)
        learn.freeze()
        with learn.no_bar(), learn.no_logging():
            result["frozen stage"] = seconds(lambda: learn.fit_one_cycle(10))
            result["memory"] = most_memory()
            stores = Path(folder).glob("*.db")
            result["bytes on disk"] = sum(file.stat().st_size for file in stores)
            learn.unfreeze()
            result["unfrozen epoch"] = seconds(lambda: learn.fit_one_cycle(1, 1e-4))
    result["memory at its end"] = most_memory()
    return result


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
    dls = block.dataloaders(table, bs=64)
    learn = vision.vision_learner(dls, builder, normalize=False, pretrained=False)
    learn.freeze()
    with learn.no_bar(), learn.no_logging():
        frozen = seconds(lambda: learn.fit_one_cycle(1))
        learn.unfreeze()
        unfrozen = seconds(lambda: learn.fit_one_cycle(1))
    return {"frozen epoch": frozen, "unfrozen epoch": unfrozen}


def seconds(work: Callable) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def most_memory() -> int:
    """The most bytes of memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def compare(args):
    table = table_of(args.folder, args.number)
    rows = []
    for _ in range(args.runs):
        rows.append({"who": "artclf", **ours(table, args.arch)})
        rows.append({"who": "fastai", **fastais(table, args.arch)})
    medians = pd.DataFrame(rows).groupby("who").median()
    print(medians[["frozen stage", "unfrozen epoch", "frozen epoch"]].round(1).to_string())


def growth(args):
    for number in args.growth:
        result = in_a_process(args, number)
        print(
            f"{number} images: frozen stage {result['frozen stage']:.1f} s, "
            f"{result['memory'] / 1e6:.0f} MB of memory, "
            f"{result['bytes on disk'] / 1e6:.0f} MB on disk; "
            f"unfrozen epoch {result['unfrozen epoch']:.1f} s, "
            f"{result['memory at its end'] / 1e6:.0f} MB of memory",
            flush=True,
        )


def precisions(args):
    """At the default size, with the upper block alone learning, as `artclf train` does."""
    table = table_of(args.folder, args.number)
    defaults = {"size": DEFAULTS.size, "pretrained": True}
    rows = []
    for _ in range(args.runs):
        for precision in network.PRECISIONS:
            result = ours(table, args.arch, precision=precision, **defaults)
            rows.append({"precision": precision, **result})
    print(pd.DataFrame(rows).groupby("precision")[STAGES].median().round(1).to_string())


def memory(args):
    rows = []
    for _ in range(args.runs):
        for name, options in (("kept", ["--keep-memory"]), ("returned", [])):
            result = in_a_process(args, args.number, *options)
            rows.append({"freed memory is": name, **result})
    table = pd.DataFrame(rows).groupby("freed memory is")[STAGES].median().round(1)
    print(table.to_string(), flush=True)
    from_pictures, from_maps = seconds_of_block_4(args.arch)
    print(
        f"a batch of 16 that block 4 learns from: {from_pictures:.2f} s, "
        f"from its stored maps on {from_maps:.2f} s"
    )


def in_a_process(args, number: int, *options: str) -> dict[str, float]:
    """What `one` measures in a process of its own, since memory that was fetched stays."""
    command = [sys.executable, __file__, str(args.folder)]
    command += ["--arch", args.arch, "--one", str(number), *options]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def one(args):
    if args.keep_memory:
        keep_freed_memory()
    print(json.dumps(ours(table_of(args.folder, args.one), args.arch)))


def seconds_of_block_4(arch: str, runs: int = 5) -> tuple[float, float]:
    """Median seconds of a batch forward, and backward through block 4: from the pictures, and from
    what enters it.
    """
    keep_freed_memory()
    body = network.Body(backbones.body(backbones.find(arch, pretrained=False)), size=SIZE).eval()
    body.to(memory_format=torch.channels_last)
    first = body.blocks.index(4)
    for stage in body.stages[:first]:
        stage.requires_grad_(False)
    x = torch.rand(16, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = torch.nn.Sequential(*body.stages[:first])(x)
    upper = torch.nn.Sequential(*body.stages[first:])
    from_pictures = []
    from_maps = []
    for _ in range(runs + 1):
        from_pictures.append(seconds(lambda: body(x).sum().backward()))
        from_maps.append(seconds(lambda: network.statistics(upper(maps)).sum().backward()))
    # the first run of each warms up
    return median(from_pictures[1:]), median(from_maps[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--number", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="+")
    parser.add_argument("--precisions", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keep-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args)
    elif args.growth:
        growth(args)
    elif args.precisions:
        precisions(args)
    elif args.memory:
        memory(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
