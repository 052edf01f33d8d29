"""What Ray costs beside the processes of this machine, at equal cores: pictures a second for import,
clean, near-duplicates and features, and the memory of a worker.

    python benchmarks/cluster.py DATA [--cores 2] [--rounds 3] [--pictures 512] [--size 224]
        [--steps import clean duplicates features] [--nodes 1] [--save FILE]

DATA is a clean data set; its first pictures are copied to a folder beside it, which is removed in
the end. Its raw pictures are imported into a new data set; cleaning decodes all of them;
near-duplicates are described, searched and compared, and features are those of view 0 by
EfficientNet-Lite0, of both of which nothing is stored before. Rounds take turns, and medians are
shown. Import here is one process; a round of cleaning here starts its processes. A first round of
each, which starts Ray's workers and imports torch, is shown apart. With `--nodes 2`, Ray has two nodes
on this machine, which share its cores. `--save` writes what `reckon.py` reads.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from faults import nodes
from reckon import save

from artclf import download
from artclf.base.processes import MapJobs
from artclf.cluster.workers import connected
from artclf.data import cleaning, descriptions, duplicates
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue

# torch is imported where it is used: the processes that clean import this file, too

ARCH = "efficientnet_lite0"


def copy_of(data: Path, number: int, folder: Path) -> Path:
    """A data set in `folder` with the first `number` usable pictures of `data`."""
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


def compute_features(data: Path, size: int, cores: int, map_jobs) -> int:
    import torch
    from fastai.torch_core import default_device

    from artclf.model import backbones, features, network
    from artclf.model.pixels import Pictures

    torch.set_num_threads(cores)
    for name in ("features.db", "pixels.db"):
        for file in data.glob(f"{name}*"):
            file.unlink()
    rows = read_catalogue(data).query("clean_status == 'ok'")
    files = [clean_path(row) for row in rows.to_dict("records")]
    backbone = backbones.find(ARCH)
    body = network.new_body(backbone, size=size)
    body.to(default_device(), memory_format=torch.channels_last)
    pictures = Pictures(data, files, rows.clean_sha256, size)
    name = features.body_name(backbone, body)
    features.feature_views(pictures, body, backbone, name, [0], map_jobs=map_jobs)
    return len(files)


def rate(step: Callable[[], int]) -> tuple[float, float]:
    """Pictures a second, and those for each second of the processor that this process takes."""
    started, processor = time.perf_counter(), time.process_time()
    number = step()
    return (
        number / (time.perf_counter() - started),
        number / (time.process_time() - processor),
    )


@contextmanager
def workers(cores: int, number_of_nodes: int) -> Iterator[MapJobs]:
    """The workers of a Ray on this machine."""
    if number_of_nodes == 1:
        with connected(cores=cores) as map_jobs:
            yield map_jobs
        return
    with (
        nodes([cores // number_of_nodes] * number_of_nodes) as cluster,
        connected(cluster.address) as map_jobs,
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
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = copy_of(args.data, args.pictures, Path(folder))
        steps = {
            "import": lambda map_jobs: import_raw(data, map_jobs),
            "clean": lambda map_jobs: clean(data, args.cores, map_jobs),
            "duplicates": lambda map_jobs: find_duplicates(data, map_jobs),
            "features": lambda map_jobs: compute_features(data, args.size, args.cores, map_jobs),
        }
        started = time.perf_counter()
        with workers(args.cores, args.nodes) as map_jobs:
            print(f"Ray starts in {time.perf_counter() - started:.1f} s")
            for name, step in steps.items():
                if args.steps and name not in args.steps:
                    continue
                for place, engine in (("here", None), ("with Ray", map_jobs)):
                    started = time.perf_counter()
                    step(engine)
                    print(f"{name}: first round {place} {time.perf_counter() - started:.1f} s")
                rates: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
                for _ in range(args.rounds):
                    rates["local"].append(rate(lambda step=step: step(None)))
                    rates["ray"].append(rate(lambda step=step: step(map_jobs)))
                local, _ = map(statistics.median, zip(*rates["local"], strict=True))
                ray, driver = map(statistics.median, zip(*rates["ray"], strict=True))
                if args.save:
                    save(args.save, {name: {"a_core": ray / args.cores, "driver": driver}})
                print(
                    f"{name}: {local:.1f} pictures a second here, {ray:.1f} with Ray "
                    f"({ray / local - 1:+.0%})",
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
