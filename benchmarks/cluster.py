"""What Ray costs beside the processes of this machine, at equal cores: pictures a second for import,
clean, near-duplicates and features, the memory of a worker, and what the command itself takes.

    python benchmarks/cluster.py DATA [--cores 2] [--rounds 3] [--pictures 512] [--size 224]
        [--steps import clean duplicates features] [--nodes 1] [--save FILE]
    python benchmarks/cluster.py DATA --calls 4 1024

DATA is a clean data set; its first pictures are copied to a folder, which is removed in the end.
Their raw files are imported into a new data set; cleaning decodes all of them; near-duplicates are
described, searched and compared, and features are those of view 0 by EfficientNet-Lite0, of both of
which nothing is stored before. Rounds take turns, and medians are shown. Import here is one process;
a round of cleaning here starts its processes. A first round of each, with a quarter of the pictures,
starts Ray's workers and imports torch, and is shown apart. With `--nodes 2`, Ray has two nodes on
this machine, which share its cores.

What the command itself takes for a picture (`driver`, pictures for each second of the processor) is
the slope between a quarter of the pictures and all of them: what a run takes however many pictures
there are, as for making the network, isn't counted. `--save` writes what `reckon.py` reads.

With `--calls`, it is only measured how long the command takes for the result of a job that does nothing,
by how many calls are under way: a cluster has two for each worker.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

from faults import nodes
from reckon import save

from artclf import download
from artclf.base.processes import MapJobs
from artclf.cluster import workers as of_cluster
from artclf.data import cleaning, descriptions, duplicates
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue

# torch is imported where it is used: the processes that clean import this file, too

ARCH = "efficientnet_lite0"


def copy_of(data: Path, number: int, folder: Path) -> Path:
    """A data set in the new `folder` with the first `number` usable pictures of `data`."""
    folder.mkdir()
    rows = read_catalogue(data).query("status == 'ok' and clean_status == 'ok'").iloc[:number]
    shutil.copyfile(data / "catalogue.db", folder / "catalogue.db")
    for row in rows.to_dict("records"):
        for file in (row["file"], clean_path(row)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / file, folder / file)
    with Catalogue(folder) as catalogue, catalogue.transaction() as db:
        kept = [(row["url"], row["period"]) for row in rows.to_dict("records")]
        db.execute("CREATE TEMP TABLE kept (url, period)")
        db.executemany("INSERT INTO kept VALUES (?, ?)", kept)
        db.execute("DELETE FROM images WHERE (url, period) NOT IN (SELECT * FROM kept)")
    return folder


def import_raw(data: Path, map_jobs) -> int:
    shutil.rmtree(data / "imported", ignore_errors=True)
    summary = download.import_folder(data / "raw", data / "imported", map_jobs=map_jobs)
    return int(summary.ok.sum())


def find_duplicates(data: Path, map_jobs) -> int:
    (data / "duplicates.db").unlink(missing_ok=True)
    shutil.rmtree(data / descriptions.FOLDER, ignore_errors=True)
    duplicates.mark(data, map_jobs)
    return len(read_catalogue(data))


def clean(data: Path, cores: int, map_jobs) -> int:
    with Catalogue(data) as catalogue, catalogue.transaction() as db:
        db.execute("UPDATE images SET clean_status = NULL, clean_reason = NULL")
    cleaning.normalise(data, workers=cores, map_jobs=map_jobs)
    return len(read_catalogue(data))


@cache
def body_of(size: int, cores: int):
    """The network of the features, made once: that takes longer than to hand out many pictures."""
    import torch
    from fastai.torch_core import default_device

    from artclf.model import backbones, network

    torch.set_num_threads(cores)
    body = network.new_body(backbones.find(ARCH), size=size)
    return body.to(default_device(), memory_format=torch.channels_last)


def compute_features(data: Path, size: int, cores: int, map_jobs) -> int:
    from artclf.model import backbones, features
    from artclf.model.pixels import Pictures

    body = body_of(size, cores)
    for name in ("features.db", "pixels.db"):
        for file in data.glob(f"{name}*"):
            file.unlink()
    rows = read_catalogue(data).query("clean_status == 'ok'")
    files = [clean_path(row) for row in rows.to_dict("records")]
    backbone = backbones.find(ARCH)
    pictures = Pictures(data, files, rows.clean_sha256, size)
    name = features.body_name(backbone, body)
    features.feature_views(pictures, body, backbone, name, [0], map_jobs=map_jobs)
    return len(files)


class Round(NamedTuple):
    """A step for so many pictures: seconds, and those of the processor that this process took."""

    pictures: int
    seconds: float
    processor: float


def timed(step: Callable[[], int]) -> Round:
    started, processor = time.perf_counter(), time.process_time()
    pictures = step()
    return Round(pictures, time.perf_counter() - started, time.process_time() - processor)


def rate(rounds: list[Round]) -> float:
    """Pictures a second, the median."""
    return statistics.median(found.pictures / found.seconds for found in rounds)


def for_processor(few: list[Round], all_pictures: list[Round]) -> float:
    """Pictures for each second of the processor, of those that the second rounds had more."""
    further = all_pictures[0].pictures - few[0].pictures
    seconds = [
        statistics.median(found.processor for found in rounds) for rounds in (few, all_pictures)
    ]
    return further / (seconds[1] - seconds[0])


def milliseconds_a_result(map_jobs: MapJobs, calls: int, results: int = 3000) -> float:
    """Milliseconds of the processor that this process takes for the result of a job that does
    nothing, while so many calls are under way, all to one worker.
    """
    with patch.object(of_cluster, "CHUNKS_AT_A_TIME", calls):
        jobs = map_jobs(abs, repeat(0), workers=1, chunk_size=1)
        next(jobs)  # the worker has started
        processor = time.process_time()
        for _ in islice(jobs, results):
            pass
        processor = time.process_time() - processor
        jobs.close()
    return 1000 * processor / results


@contextmanager
def workers(cores: int, number_of_nodes: int) -> Iterator[MapJobs]:
    """The workers of a Ray on this machine."""
    if number_of_nodes == 1:
        with of_cluster.connected(cores=cores) as map_jobs:
            yield map_jobs
        return
    with (
        nodes([cores // number_of_nodes] * number_of_nodes) as cluster,
        of_cluster.connected(cluster.address) as map_jobs,
    ):
        yield map_jobs


def bytes_of(data: Path) -> dict[str, float]:
    """The mean size of raw pictures and of clean copies."""
    rows = read_catalogue(data).query("clean_status == 'ok'").to_dict("records")
    raw = [(data / row["file"]).stat().st_size for row in rows]
    copies = [(data / clean_path(row)).stat().st_size for row in rows]
    return {"raw_bytes": statistics.mean(raw), "clean_bytes": statistics.mean(copies)}


def peak_memory(_job) -> tuple[int, float]:
    """The worker's process, and the most memory in MB that it took."""
    import resource

    return os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--steps", nargs="*", help="those to measure; default: all")
    parser.add_argument("--calls", type=int, nargs="*", help="under way at a time")
    args = parser.parse_args()
    started = time.perf_counter()
    with TemporaryDirectory() as folder, workers(args.cores, args.nodes) as map_jobs:
        print(f"Ray starts in {time.perf_counter() - started:.1f} s")
        if args.calls:
            compare_calls(map_jobs, args.calls, args.rounds)
        else:
            compare_steps(args, map_jobs, Path(folder))


def compare_calls(map_jobs: MapJobs, numbers: list[int], rounds: int):
    for calls in numbers:
        found = [milliseconds_a_result(map_jobs, calls) for _ in range(rounds)]
        print(f"{calls} calls under way: {statistics.median(found):.2f} ms a result", flush=True)


def compare_steps(args: argparse.Namespace, map_jobs: MapJobs, folder: Path):
    few = copy_of(args.data, args.pictures // 4, folder / "few")
    data = copy_of(args.data, args.pictures, folder / "all")
    steps = {
        "import": import_raw,
        "clean": lambda data, engine: clean(data, args.cores, engine),
        "duplicates": find_duplicates,
        "features": lambda data, engine: compute_features(data, args.size, args.cores, engine),
    }
    for name, step in steps.items():
        if args.steps and name not in args.steps:
            continue
        for place, engine in (("here", None), ("with Ray", map_jobs)):
            seconds = timed(lambda step=step, engine=engine: step(few, engine)).seconds
            print(f"{name}: first round {place} {seconds:.1f} s")
        here, few_on_ray, on_ray = [], [], []
        for _ in range(args.rounds):
            here.append(timed(lambda step=step: step(data, None)))
            few_on_ray.append(timed(lambda step=step: step(few, map_jobs)))
            on_ray.append(timed(lambda step=step: step(data, map_jobs)))
        driver = for_processor(few_on_ray, on_ray)
        if args.save:
            save(args.save, {name: {"a_core": rate(on_ray) / args.cores, "driver": driver}})
        print(
            f"{name}: {rate(here):.1f} pictures a second here, {rate(on_ray):.1f} with Ray "
            f"({rate(on_ray) / rate(here) - 1:+.0%}); {driver:.0f} for each second of the processor "
            "that the command takes",
            flush=True,
        )
        jobs = map_jobs(peak_memory, range(8 * args.cores), chunk_size=1)
        memory = dict(result for chunk in jobs for _, result in chunk)
        sizes = ", ".join(f"{megabytes:.0f}" for megabytes in memory.values())
        print(f"{name}: MB at most in each worker so far: {sizes}", flush=True)
    if args.save:
        save(args.save, bytes_of(data))


if __name__ == "__main__":
    main()
