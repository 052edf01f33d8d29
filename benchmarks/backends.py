"""What answers without torch cost: seconds until a classifier is ready, one painting beside decoding
plus the bare call of onnxruntime, onnxruntime beside torch, and what int8 costs.

    python benchmarks/backends.py EXPORT DATA [--runs 9] [--pictures 64] [--static]

EXPORT is the export of a run on DATA, with the files of `artclf export EXPORT --onnx --int8 --data
DATA`. The paintings are those of part test. The ways take turns on the same pictures, and the
figures are medians over the runs; `ready` starts a process each time. Set `OMP_NUM_THREADS` to the
cores that both libraries may use.

With `--static`, the measured network is also computed in int8, weights and maps, as
`onnxruntime.quantization` makes it from paintings of part train (ranges by least and largest value,
or by the 99.99th percentile), and its answers to part test are counted.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

import artclf
from artclf.answers import inputs
from artclf.answers import onnx as answers
from artclf.data import splits
from artclf.model import exports, onnx_export

READY = """
import time; started = time.perf_counter(), time.process_time()
import sys, artclf
classifier = artclf.load(sys.argv[1], backend=sys.argv[2])
print(time.perf_counter() - started[0], time.process_time() - started[1])
"""
LIMIT_READY = 1.0  # seconds
LIMIT_RATIO = 1.2  # of decoding plus the bare call


def seconds_in_turns(ways: dict, runs: int) -> dict[str, float]:
    """Median seconds of each way; before the first run each has a turn that doesn't count."""
    seconds = {name: [] for name in ways}
    for number in range(runs + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(times) for name, times in seconds.items()}


def ready(export: Path, backend: str, runs: int) -> tuple[float, float]:
    """Seconds from the start of the imports to a loaded classifier: by the clock, and of work."""
    measured = []
    for _ in range(runs):
        command = [sys.executable, "-W", "ignore", "-c", READY, export, backend]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured.append([float(number) for number in done.stdout.split()])
    by_clock, of_work = np.median(measured, axis=0)
    return by_clock, of_work


def one_painting(classifier, files: list[Path], runs: int) -> float:
    """Seconds of `predict` of one painting, as a multiple of decoding it plus the bare call."""
    session, config = classifier.session, classifier.config
    ratios = []
    for file in files:

        def bare(file=file):
            pixels = inputs.pixels(str(file), config)
            session.run(answers.OUTPUTS, {answers.INPUT: pixels[np.newaxis]})

        ways = {"predict": lambda file=file: classifier.predict(file), "bare": bare}
        seconds = seconds_in_turns(ways, runs)
        ratios.append(seconds["predict"] / seconds["bare"])
    return median(ratios)


def static_int8(export: Path, data: Path) -> pd.DataFrame:
    """Accuracy on part test of the measured network: in float, with weights in int8, and computed
    in int8; and the MB of each.
    """
    from onnxruntime import quantization

    classifier = exports.load(export, measured=True)
    images = splits.of_training(data, classifier.config)
    test = images[images.part == "test"]
    train = images[images.part == "train"].sample(64, random_state=0)
    calibration = [inputs.pixels(str(data / file), classifier.config) for file in train.file]

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self):
            self.remaining = iter(calibration)

        def get_next(self):
            pixels = next(self.remaining, None)
            return None if pixels is None else {answers.INPUT: pixels[np.newaxis]}

    rows = {}
    with TemporaryDirectory() as folder:
        as_float = Path(folder) / "float.onnx"
        weights = Path(folder) / "weights.onnx"
        onnx_export.export(classifier, as_float)
        onnx_export.quantise(as_float, weights)
        files = {"float": as_float, "weights in int8": weights}
        for method in ("MinMax", "Percentile"):
            file = files[f"all in int8, {method}"] = Path(folder) / f"{method}.onnx"
            quantization.quantize_static(
                as_float,
                file,
                Pictures(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=["Conv"],
                calibrate_method=quantization.CalibrationMethod[method],
                extra_options={"CalibPercentile": 99.99},
            )
        for name, file in files.items():
            session = answers.open_session(file.read_bytes(), file)
            found = answers.OnnxClassifier(session, classifier.config)
            predicted = found.predict([data / file for file in test.file]).predicted.to_numpy()
            one = np.stack(calibration[:1])
            seconds = seconds_in_turns({"run": lambda found=found, one=one: found.answer(one)}, 15)
            rows[name] = {
                "images": len(test),
                "accuracy": round((predicted == test.period.to_numpy()).mean(), 4),
                "MB": round(file.stat().st_size / 1e6, 2),
                "ms a picture": round(seconds["run"] * 1000, 1),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--static", action="store_true")
    args = parser.parse_args()
    with_torch = artclf.load(args.export)
    with_onnx = artclf.load(args.export, backend="onnx")
    in_int8 = artclf.load(args.export, backend="onnx-int8")
    images = splits.of_training(args.data, with_torch.config)
    files = [args.data / file for file in images.file[images.part == "test"]]
    print(f"{torch.get_num_threads()} threads, {len(files)} paintings of part test")

    for name in ("onnx", "onnx-int8", "torch"):
        by_clock, of_work = ready(args.export, name, 5)
        print(f"{name} ready after {by_clock:.2f} s, {of_work:.2f} s of work")
    ratio = one_painting(with_onnx, files[:5], args.runs)
    print(f"predict of one painting: {ratio:.2f} times decoding plus the bare call")
    print(f"limits: {LIMIT_READY} s, {LIMIT_RATIO} times")

    batch = np.stack(
        [inputs.pixels(str(file), with_onnx.config) for file in files[: args.pictures]]
    )
    for pixels in (batch[:1], batch):
        ways = {
            "torch": lambda pixels=pixels: with_torch.answer(pixels),
            "onnx": lambda pixels=pixels: with_onnx.answer(pixels),
            "onnx-int8": lambda pixels=pixels: in_int8.answer(pixels),
        }
        for name, seconds in seconds_in_turns(ways, args.runs).items():
            print(f"{len(pixels)} at once, {name}: {1000 * seconds / len(pixels):.1f} ms a picture")

    of_torch, _ = with_torch.probabilities(files)
    for name, classifier in (("onnx", with_onnx), ("onnx-int8", in_int8)):
        probabilities, _ = classifier.probabilities(files)
        same = (probabilities.argmax(1) == of_torch.argmax(1)).sum()
        difference = abs(probabilities - of_torch)
        print(
            f"{name}: {same} of {len(files)} answers as torch's, probabilities differ by up to "
            f"{difference.max():.2g}, by {difference.max(1).mean():.2g} on average"
        )
    for name in (exports.WEIGHTS, *answers.FILES):
        print(f"{name}: {(args.export / name).stat().st_size / 1e6:.1f} MB")
    print(f"loss of int8: {with_onnx.config['int8']}")
    if args.static:
        print(static_int8(args.export, args.data).to_string())


if __name__ == "__main__":
    main()
