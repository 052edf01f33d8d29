"""artclf: build a data set of paintings, teach a network their periods, look at what it learned."""

import importlib

__version__ = "0.1.0"
__all__ = ["Classifier", "load", "load_learner", "read_catalogue"]

_HOME = {
    "Classifier": "artclf.model.classifier",
    "load": "artclf.model.exports",
    "load_learner": "artclf.model.exports",
    "read_catalogue": "artclf.data.catalogue",
}


def __getattr__(name):
    """Import the module of a public name on its first use, so that `import artclf` is instant."""
    if name not in _HOME:
        raise AttributeError(f"module 'artclf' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
