"""artclf: build a data set of paintings, teach a network their periods, look at what it learned."""

import importlib
import warnings

__version__ = "0.1.0"
__all__ = ["Classifier", "load", "load_learner", "read_catalogue"]

_HOME = {
    "Classifier": "model.classifier",
    "load": "model.exports",
    "load_learner": "model.exports",
    "read_catalogue": "data.catalogue",
}

# What libraries below say about each other, which a reader of a notebook can do nothing about:
warnings.filterwarnings(
    "ignore", category=FutureWarning, module=r"torch\.jit\b"
)  # fastai scripts a function on import
warnings.filterwarnings(
    "ignore", category=RuntimeWarning, module=r"PIL\.Image\b"
)  # large: step clean has its limit
warnings.filterwarnings(
    "ignore", category=UserWarning, module=r"PIL\."
)  # damaged tags: step clean decodes and judges
warnings.filterwarnings(
    "ignore", category=Warning, module=r"tqdm\.auto\b"
)  # TqdmWarning, where ipywidgets is missing


def __getattr__(name):
    """Import the module behind a public name when it is first used, so that `import artclf` stays
    instant.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'artclf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"artclf.{_HOME[name]}"), name)
