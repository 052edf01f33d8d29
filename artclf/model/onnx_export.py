"""ONNX: the network of an export as one file that needs no torch.

Reads an export and, for int8, the pictures of part test; writes `EXPORT/model.onnx` and
`EXPORT/model-int8.onnx`, and their hashes into `EXPORT/config.json`. Needs the extra `onnx-export`.
`answers.onnx` loads the files.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from artclf.answers import onnx as answers
from artclf.answers.exports import WEIGHTS
from artclf.base.errors import InputError, StepError
from artclf.base.extras import require
from artclf.base.files import read_json, replace_together, sha256_of, write_json
from artclf.data import splits
from artclf.model import network
from artclf.model.classifier import Classifier
from artclf.model.exports import load

OPSET = 20
LEAST_WEIGHTS = 4096  # of a layer that is worth int8
MAX_DIFFERENCE = 1e-3  # of probabilities


class Whole(nn.Module):
    """A copy of a classifier's network from pixels on, in float32 on the CPU: from uint8 of shape
    (images, 3, size, size) to logits (images, classes + artists) and features (images, n_features).
    """

    def __init__(self, classifier: Classifier, folded: bool):
        """`folded` says whether norms are folded into convolutions."""
        super().__init__()
        body, head = deepcopy(classifier.model).cpu()
        body.autocast_dtype = None
        config = classifier.config
        self.body = network.fold_norms(body, config["size"]) if folded else body
        self.head = head
        self.register_buffer("mean", _of_bytes(config["mean"]))
        self.register_buffer("std", _of_bytes(config["std"]))
        self.eval()

    def forward(self, pixels):
        features = self.body.extract((pixels.float() - self.mean) / self.std)
        return self.head(features), features


def _of_bytes(values: Sequence[float]) -> torch.Tensor:
    """Means or standard deviations of channels from 0 to 1, for values from 0 to 255."""
    return 255 * torch.tensor(values).view(3, 1, 1)


def write(out, int8: bool = False, data=None) -> dict:
    """Write `model.onnx`, and with `int8` also `model-int8.onnx`, into the export folder `out`;
    return the size of each in MB, and with `int8` what `loss_of_int8` measures on the data set
    `data`.

    All files take their places together, or none; without `int8`, such a file of before is removed.
    `config.json` keeps what was measured. Raises what `exports.load` and `loss_of_int8` do,
    ImportError without the extra, StepError where the file does not answer as the network.
    """
    require("onnx-export", "onnx", "onnxscript", "onnxruntime")
    out = Path(out)
    classifier = load(out)
    names = [answers.FLOAT, answers.INT8] if int8 else [answers.FLOAT]
    config = {
        name: value for name, value in read_json(out / "config.json").items() if name != "int8"
    }
    with replace_together(out) as new:
        export(classifier, new / answers.FLOAT)
        if int8:
            quantise(new / answers.FLOAT, new / answers.INT8)
            config["int8"] = loss_of_int8(out, Path(data))
        hashes = {key: value for key, value in config["hashes"].items() if key not in answers.FILES}
        hashes |= {name: sha256_of(new / name) for name in names}
        write_json(new / "config.json", {**config, "hashes": hashes})
    if not int8:
        (out / answers.INT8).unlink(missing_ok=True)
    sizes = {name: round((out / name).stat().st_size / 1e6, 2) for name in names}
    return {**sizes, **config.get("int8", {})}


def export(classifier: Classifier, file: Path):
    """Write the network of a classifier to `file`, in one piece and without paths of this machine.

    Raises StepError where onnxruntime gives probabilities that differ from torch's by more than
    `MAX_DIFFERENCE`.
    """
    size = classifier.config["size"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 3, size, size), dtype=np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own workings
        program = torch.onnx.export(
            Whole(classifier, folded=True),
            (torch.from_numpy(pixels),),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=[answers.INPUT],
            output_names=answers.OUTPUTS,
            dynamic_shapes={"pixels": {0: torch.export.Dim("images", min=1)}},
            verbose=False,
        )
    model = program.model_proto
    _remove_notes(model)
    note = model.metadata_props.add()
    note.key = answers.MADE_FROM
    note.value = classifier.config["hashes"][WEIGHTS]
    content = model.SerializeToString()
    session = answers.open_session(content, file)
    found, _ = answers.OnnxClassifier(session, classifier.config).answer(pixels[:2])
    with torch.inference_mode():
        logits, _ = Whole(classifier, folded=False)(torch.from_numpy(pixels[:2]))
    difference = abs(found - classifier.calibrated(logits.numpy())).max()
    if not difference <= MAX_DIFFERENCE:
        raise StepError(
            f"{classifier.config['name']} in ONNX gives other probabilities than in torch (by up to "
            f"{difference:.2g}), so it is not written"
        )
    file.write_bytes(content)


def _remove_notes(model):
    """Remove what the exporter notes of the code that it followed, paths of this machine among
    it.
    """
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    del graph.value_info[:]  # shapes in between, which the notes hang on
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def quantise(file: Path, quantised: Path):
    """Write to `quantised` the network in `file` with its weights in int8, a scale for each output
    of a layer.

    onnxruntime makes float32 of them while it loads: the file is a third as long, and the network
    computes as before. (With int8 in the computation, too, the statistics of the maps that the head
    looks at become too coarse; benchmarks/backends.py measures it.)
    """
    import onnx

    model = onnx.load(file)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    restoring = []
    for name, axis in _axes_of_outputs(graph).items():
        values = onnx.numpy_helper.to_array(weights[name])
        if values.dtype != np.float32 or values.size < LEAST_WEIGHTS:
            continue
        others = tuple(set(range(values.ndim)) - {axis % values.ndim})
        scale = abs(values).max(others, keepdims=True) / 127
        scale[scale == 0] = 1
        whole = np.rint(values / scale).astype(np.int8)
        graph.initializer.remove(weights[name])
        graph.initializer.append(onnx.numpy_helper.from_array(whole, f"{name} int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name} scale"))
        restoring += [
            onnx.helper.make_node(
                "Cast", [f"{name} int8"], [f"{name} float"], to=onnx.TensorProto.FLOAT
            ),
            onnx.helper.make_node("Mul", [f"{name} float", f"{name} scale"], [name]),
        ]
    layers = list(graph.node)
    del graph.node[:]
    graph.node.extend([*restoring, *layers])
    onnx.save(model, quantised)


def _axes_of_outputs(graph) -> dict[str, int]:
    """The axis of the outputs in each tensor of weights, by its name."""
    weights = {tensor.name for tensor in graph.initializer}
    axes = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in weights:
            is_transposed = any(each.name == "transB" and each.i for each in node.attribute)
            axes[node.input[1]] = 0 if node.op_type == "Conv" or is_transposed else -1
    return axes


def loss_of_int8(out: Path, data: Path) -> dict:
    """How the weights in int8 change the figures of an export: `images` of part test, their
    `accuracy` in float and in `accuracy_int8`, and which share has the `same` answer.

    Both networks are the measured one, which did not learn from these images. Raises InputError
    where the images have changed since training, or there is no part test.
    """
    classifier = load(out, measured=True)
    images = splits.of_training(data, classifier.config)
    test = images[images.part == "test"]
    if not len(test):
        raise InputError(f"no part test in {data}: the loss of int8 can't be measured")
    given = np.array([classifier.vocab.index(name) for name in test.period])
    files = [data / file for file in test.file]
    answered = {}
    with TemporaryDirectory() as folder:
        as_float, as_int8 = Path(folder) / answers.FLOAT, Path(folder) / answers.INT8
        export(classifier, as_float)
        quantise(as_float, as_int8)
        for file in (as_float, as_int8):
            session = answers.open_session(file.read_bytes(), file)
            probabilities, _ = answers.OnnxClassifier(session, classifier.config).probabilities(
                files
            )
            periods = probabilities[:, : len(classifier.vocab)]
            answered[file] = np.nan_to_num(periods).argmax(1)
    return {
        "images": len(test),
        "accuracy": float((answered[as_float] == given).mean()),
        "accuracy_int8": float((answered[as_int8] == given).mean()),
        "same": float((answered[as_float] == answered[as_int8]).mean()),
    }
