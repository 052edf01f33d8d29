"""A trained classifier that computes with onnxruntime, without torch, and is ready at once.

Reads `config.json` and `model.onnx` (or `model-int8.onnx`) of an export; `artclf export` writes the
latter two (see `model.onnx_export`). Needs the extra `onnx`.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from artclf.answers.classifier import Predictor
from artclf.answers.exports import WEIGHTS, read_config, warn_of_other_versions
from artclf.base.errors import InputError
from artclf.base.extras import require

FLOAT = "model.onnx"
INT8 = "model-int8.onnx"
FILES = (FLOAT, INT8)
# what is in such a file: pixels (uint8, (images, 3, size, size)) go in, two arrays come out
INPUT = "pixels"
OUTPUTS = ["logits", "features"]
MADE_FROM = "sha256 of model.safetensors"  # in the file's metadata
# what changes answers while the network is the same: the reading and resizing of pictures
PACKAGES = ("artclf", "pillow")


class OnnxClassifier(Predictor):
    """A trained classifier of art periods: `vocab` are its classes; `session` is onnxruntime's.

    Its probabilities are calibrated by `config["temperature"]`.
    """

    def __init__(self, session, config: dict, file: str = FLOAT):
        super().__init__(config)
        self.session = session
        self.file = file
        self.n_features = session.get_outputs()[1].shape[1]

    def _forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, features = self.session.run(OUTPUTS, {INPUT: pixels})
        return logits, features


def load(out, measured: bool = False, file: str = FLOAT) -> OnnxClassifier:
    """The classifier in the export folder `out`, from `config.json` and `file` alone.

    Uses as many threads as `OMP_NUM_THREADS` says, by default one for each core. Warns where Pillow
    is of another version than at training. Raises FileNotFoundError without an export, or where it
    has no such file yet, InputError for a file that does not belong to the weights of the export or
    is damaged, and for the measured network where another one learned from all pictures afterwards;
    ImportError without onnxruntime.
    """
    require("onnx", "onnxruntime")
    out = Path(out)
    config = read_config(out)
    if measured and "measured" in config:
        raise InputError(
            f"{out / file} holds the network that learned from all pictures: take the measured one "
            'with backend="torch"'
        )
    session = _session(out / file, config)
    warn_of_other_versions(config, PACKAGES)
    return OnnxClassifier(session, config, file)


def _session(file: Path, config: dict):
    """onnxruntime's session of a file that is the one which `config` describes."""
    again = f"run `{command(file)}` again"
    if not file.exists():
        raise FileNotFoundError(f"no {file}: run `{command(file)}` first")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != config["hashes"].get(file.name):
        raise InputError(f"{file} is not the file that config.json describes: {again}")
    session = open_session(content, file)
    made_from = session.get_modelmeta().custom_metadata_map.get(MADE_FROM)
    if made_from is None or made_from != config["hashes"].get(WEIGHTS):
        raise InputError(f"{file} was made from other weights than {WEIGHTS}: {again}")
    outputs = len(config["vocab"]) + len(config.get("artists", ()))
    shape_of_pixels = ["tensor(uint8)", 3, config["size"], config["size"]]
    shapes = {output.name: output.shape for output in session.get_outputs()}
    inputs = [[given.type, *given.shape[1:]] for given in session.get_inputs()]
    are_ours = list(shapes) == OUTPUTS and shapes["logits"][1:] == [outputs]
    if not are_ours or inputs != [shape_of_pixels]:
        raise InputError(f"{file} holds another network than config.json describes: {again}")
    return session


def open_session(content: bytes, file: Path):
    """onnxruntime's session of the `content` of a file. Raises InputError, which names `file`, for
    what is no network.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0  # 0: all cores
    options.log_severity_level = 3  # errors, which are raised as well
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
    ) as error:
        raise InputError(f"{file} is no network ({error}): run `{command(file)}` again") from error


def command(file: Path) -> str:
    """The command that writes `file`."""
    int8 = " --int8" if file.name == INT8 else ""
    return f"artclf export {file.parent} --onnx{int8}"
