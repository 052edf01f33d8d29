"""artclf: build a data set of paintings, teach a network their periods, look at what it learned."""

import importlib

__version__ = "0.1.0"
__all__ = ["Classifier", "load", "load_learner", "read_catalogue"]

BACKENDS = {  # the module whose `load` opens an export, and what it is told
    "torch": ("artclf.model.exports", {}),
    "onnx": ("artclf.answers.onnx", {}),
    "onnx-int8": ("artclf.answers.onnx", {"file": "model-int8.onnx"}),
}
HUB = "artclf.answers.hub"
_HOME = {
    "Classifier": "artclf.model.classifier",
    "load_learner": "artclf.model.exports",
    "read_catalogue": "artclf.data.catalogue",
}


def load(out, measured: bool = False, backend: str = "torch"):
    """The classifier in the export folder `out`, or on the Hugging Face hub at `hf://USER/NAME` (see
    `answers.hub`); its `predict` tells the periods of pictures.

    `backend` is what computes: `torch` gives a `Classifier` (see `model.exports.load`); `onnx`, and
    `onnx-int8` with weights in int8, need no torch (see `answers.onnx.load`). `measured` gives the
    network that the figures belong to, where another one learned from all pictures afterwards. Runs
    no pickled code. Raises InputError for another backend, and what these functions raise.
    """
    from artclf.base.settings import check_choice

    check_choice("backend", backend, BACKENDS)
    hub = importlib.import_module(HUB)
    if hub.is_address(out):
        out = hub.fetch(out, measured, backend)
    module, options = BACKENDS[backend]
    return importlib.import_module(module).load(out, measured, **options)


def __getattr__(name):
    """Import the module of a public name on its first use, so that `import artclf` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'artclf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
