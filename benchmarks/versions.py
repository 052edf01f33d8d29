"""Whether an export means the same with other versions of the packages: the largest difference of a
probability between two environments.

    python benchmarks/versions.py PYTHON

PYTHON is the interpreter of another environment that has artclf's packages, such as
`.venv-oldest/bin/python` after `make test-oldest`. Each of the two trains a small network on drawn
canvases and exports it, for ONNX as well, and both are asked about these: as files, and as pixels
of the network's size, which need no resizing; with torch and with onnxruntime. Ends with exit code
1 where answers differ by more than 0.0001.
"""

import argparse
import json
import os
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "fastai",
    "safetensors",
    "onnxruntime",
    "numpy",
    "pandas",
    "pillow",
)
BACKENDS = ("torch", "onnx")
SIZE = 64  # px
MOST = 1e-4
ROOT = Path(__file__).resolve().parent.parent


def draw(data: Path):
    """A data set of drawn canvases in `data`, imported and clean."""
    from artclf import download
    from artclf.data import cleaning, sample

    sample.draw(data / "gallery", 8, 112, workers=1, periods=list(sample.PERIODS)[::4])
    download.import_folder(data / "gallery", data)
    cleaning.normalise(data, workers=1)


def write(data: Path, out: Path):
    """Train on `data` and export to `out`."""
    from artclf import train
    from artclf.model import onnx_export

    train.fit(data, out, 1, 1, final=False, arch="efficientnet_lite0", size=SIZE, batch_size=8)
    onnx_export.write(out)


def answer(data: Path, out: Path, file: Path):
    """Write the probabilities that the export `out` gives the pictures in `data` to `file`."""
    import artclf

    files = sorted((data / "clean").rglob("*.jpg"))
    pixels = np.random.default_rng(0).integers(0, 256, (len(files), SIZE, SIZE, 3), dtype=np.uint8)
    answers = {}
    for backend in BACKENDS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="other versions than at training")
            classifier = artclf.load(out, backend=backend)
        answers[f"{backend}, files"] = classifier.probabilities(files)[0]
        answers[f"{backend}, pixels"] = classifier.probabilities(pixels)[0]
    versions = np.array([f"{name} {version(name)}" for name in PACKAGES])
    np.savez(file, versions=versions, **answers)


STEPS = {"draw": draw, "write": write, "answer": answer}


def run(python: str, step: str, *paths: Path):
    """A step in the environment of an interpreter."""
    command = [python, "-W", "ignore", __file__, "--step", step, *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ARTCLF_OFFLINE": "1"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def compare(other: str, folder: Path) -> list[dict]:
    """For each of the two that exports, the versions of both and the largest differences."""
    rows = []
    run(sys.executable, "draw", folder / "data")
    for name, python in (("this", sys.executable), ("other", other)):
        out = folder / name
        run(python, "write", folder / "data", out)
        answers = []
        for place, asked in enumerate((sys.executable, other)):
            file = folder / f"{name}-{place}.npz"
            run(asked, "answer", folder / "data", out, file)
            answers.append(np.load(file))
        row = {"exported by": name}
        row["difference"] = {
            asked: float(np.abs(answers[0][asked] - answers[1][asked]).max())
            for asked in answers[0].files
            if asked != "versions"
        }
        row["versions"] = [", ".join(answered["versions"]) for answered in answers]
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="PYTHON")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        STEPS[args.step](*map(Path, args.paths))
        return
    with TemporaryDirectory() as folder:
        rows = compare(args.paths[0], Path(folder))
    print(json.dumps(rows, indent=1))
    sys.exit(any(max(row["difference"].values()) > MOST for row in rows))


if __name__ == "__main__":
    main()
