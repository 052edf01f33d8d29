"""How fast, and in how much memory, pictures are downloaded, verified and normalised.

    python benchmarks/download.py FOLDER [--against fastai img2dataset] [--img2dataset-python PYTHON] [--runs 3]
    python benchmarks/download.py --memory 1000 10000 100000

Where writing thousands of small files is slow, TMPDIR names another file system, such as /dev/shm.

The first serves the pictures in `FOLDER/<class>/` on loopback, from a process of its own, and times
(1) artclf's steps download and clean, (2) fastai's `download_images`, `verify_images` and
`resize_images(max_size=500)`, (3) img2dataset from another environment (`python -m venv i2d;
i2d/bin/pip install img2dataset`), with the longer side at most 500 px, JPEG quality 90, a process a
core, 32 threads each and shards enough for all. Each run is a process of its own, fetches the same
URLs into an empty folder, and is timed without its imports; runs alternate, medians are compared.

The second fetches that many URLs of 500 hosts, one in ten a picture and the others dead, through a
transport that only pretends, and prints the peak of the process's memory (not on Windows).
"""

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median


def run_artclf(lists: Path, out: Path):
    """Download and clean everything, with as many requests to the one host as img2dataset's
    processes make.
    """
    import pandas  # noqa: F401  (imports are on nobody's clock)

    from artclf import download
    from artclf.data import cleaning

    clock = time.perf_counter()
    download.fetch_lists(lists, out, allow_private=True, per_host=32)
    cleaning.normalise(out)
    return report(clock, out.glob("clean/*/*.jpg"))


def run_fastai(lists: Path, out: Path):
    from fastai.vision.all import download_images, get_image_files, resize_images, verify_images

    urls = read_urls(lists)
    clock = time.perf_counter()
    download_images(out / "raw", urls=urls, max_pics=len(urls))
    for path in verify_images(get_image_files(out / "raw")):
        path.unlink()
    resize_images(out / "raw", max_size=500, dest=out / "clean")
    return report(clock, (out / "clean").iterdir())


def run_img2dataset(lists: Path, out: Path):
    from img2dataset import download

    urls, processes = read_urls(lists), os.cpu_count()
    (out / "urls.txt").write_text("\n".join(urls))
    clock = time.perf_counter()
    download(
        str(out / "urls.txt"),
        output_folder=str(out / "clean"),
        image_size=500,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
        encode_quality=90,
        processes_count=processes,
        thread_count=32,
        number_sample_per_shard=math.ceil(len(urls) / (4 * processes)),
    )
    return report(clock, out.glob("clean/*/*.jpg"))


def run_memory(number: int, out: Path):
    """Fetch `number` URLs through a transport that only pretends."""
    import resource

    from PIL import Image

    from artclf.data.fetch import Fetcher
    from artclf.data.intake import Failure, Fetched
    from artclf.download import fetch_lists

    (out / "urls_all.csv").write_text(
        "".join(f"http://h{i % 500}.example/{i}.jpg\n" for i in range(number))
    )
    Image.new("RGB", (300, 200)).save(out / "picture.jpg")
    body = (out / "picture.jpg").read_bytes()

    class Pretender(Fetcher):
        """Dead links, and one picture in ten."""

        async def __call__(self, url, keep, turn):
            await asyncio.sleep(0.001)
            if not url.endswith("0.jpg"):
                raise Failure("http 404", 404)
            return keep(Fetched(body, 200, "JPEG", 300, 200))

    clock = time.perf_counter()
    fetch_lists(out, out / "data", fetcher=Pretender)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(json.dumps({"seconds": time.perf_counter() - clock, "megabytes": peak}))


def read_urls(lists: Path) -> list[str]:
    """The URLs, without artclf, which img2dataset's environment doesn't have: pictures on loopback
    have no commas.
    """
    lines = [
        line
        for path in sorted(lists.glob("urls_*.csv"))
        for line in path.read_text(encoding="utf-8").split("\n")
    ]
    return [
        line.split(",")[0].strip('"') for line in lines if line.startswith(("http://", '"http://'))
    ]


def report(clock: float, files):
    print(json.dumps({"seconds": time.perf_counter() - clock, "images": len(list(files))}))


def measure(name: str, argument, python: str = sys.executable) -> dict:
    """What `run_<name>` reports from a process of its own that works in an empty folder."""
    with tempfile.TemporaryDirectory() as out:
        env = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        if hasattr(os, "sync"):
            os.sync()  # what the last run wrote and deleted is on nobody's clock
        done = subprocess.run(
            [python, __file__, "--run", name, str(argument), out],
            env=env,
            text=True,
            capture_output=True,
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.strip().split("\n")[-1])


def compare(folder: Path, names: list[str], runs: int, pythons: dict[str, str]):
    """Serve the folder and print a table: a row a program."""
    with tempfile.TemporaryDirectory() as lists:
        server = subprocess.Popen(
            [sys.executable, "-m", "artclf.data.gallery", folder, lists], stdout=subprocess.PIPE
        )
        try:
            server.stdout.readline()
            print(
                f"{len(read_urls(Path(lists)))} pictures, {os.cpu_count()} cores, medians of {runs} runs"
            )
            done = {name: [] for name in names}
            for _ in range(runs):
                for name in names:
                    done[name].append(measure(name, lists, pythons.get(name, sys.executable)))
        finally:
            server.terminate()
    speeds = {name: [run["images"] / run["seconds"] for run in runs] for name, runs in done.items()}
    print(f"{'':12} {'images':>7} {'images/s':>9} {'lowest':>7} {'highest':>8} {'artclf is':>10}")
    for name, values in speeds.items():
        ratio = median(speeds["artclf"]) / median(values)
        print(
            f"{name:12} {done[name][0]['images']:7} {median(values):9.1f} {min(values):7.1f} {max(values):8.1f} "
            f"{ratio:9.2f}x"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--against", nargs="*", default=["fastai"], choices=["fastai", "img2dataset"]
    )
    parser.add_argument("--img2dataset-python", default=sys.executable)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory", nargs="*", type=int, default=[])
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        name, argument, out = args.run
        argument = int(argument) if name == "memory" else Path(argument)
        globals()[f"run_{name}"](argument, Path(out))
    for number in args.memory:
        result = measure("memory", number)
        print(
            f"{number:7} URLs: {result['megabytes']:6.1f} MB, {number / result['seconds']:7.0f} URLs/s"
        )
    if args.folder:
        compare(
            args.folder,
            ["artclf", *args.against],
            args.runs,
            {"img2dataset": args.img2dataset_python},
        )


if __name__ == "__main__":
    main()
