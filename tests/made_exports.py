"""Exports with a network made by hand, which need neither training nor torch: shared by several
tests.
"""

import json
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
import onnx

from artclf.answers import onnx as answers
from artclf.answers.exports import VERSIONS
from artclf.base.files import sha256_of

SIZE = 8
WEIGHTS = "a" * 64
LOGITS = np.float32([[0.1, 0, 0, 0.05], [0, 0.1, 0, 0], [0, 0, 0.1, 0]])  # of mean colours


def model_of_colours(made_from=WEIGHTS, size=SIZE, logits=LOGITS, names=answers.OUTPUTS):
    """A network as `model.onnx_export` writes it, whose features are the mean red, green and
    blue.
    """
    helper = onnx.helper
    pixels = helper.make_tensor_value_info(
        answers.INPUT, onnx.TensorProto.UINT8, ["images", 3, size, size]
    )
    shapes = [["images", logits.shape[1]], ["images", 3]]
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    nodes = [
        helper.make_node("Cast", [answers.INPUT], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], [names[1]], keepdims=0),
        helper.make_node("MatMul", [names[1], "weight"], [names[0]]),
    ]
    weights = [
        onnx.numpy_helper.from_array(logits, "weight"),
        onnx.numpy_helper.from_array(np.int64([2, 3]), "axes"),
    ]
    graph = helper.make_graph(nodes, "colours", [pixels], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {answers.MADE_FROM: made_from})
    return model


def write(out: Path, model=None, **changes):
    """An export whose ONNX file is `model`, with `changes` of its settings."""
    onnx.save(model or model_of_colours(), out / answers.FLOAT)
    config = {
        "vocab": ["01-red", "02-green", "03-blue"],
        "artists": ["A"],
        "size": SIZE,
        "resize": "squish",
        "temperature": 2.0,
        "versions": {name: version_of(name) for name in VERSIONS},
        "hashes": {
            "model.safetensors": WEIGHTS,
            answers.FLOAT: sha256_of(out / answers.FLOAT),
        },
    }
    (out / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
