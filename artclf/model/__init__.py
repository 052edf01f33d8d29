"""What learns and answers: backbones, the network, its engine, exports.

Imports fastai here, once, without two warnings that a reader can do nothing about: torch's, that a
function of fastai is scripted, and tqdm's, that ipywidgets is missing.
"""

import warnings

from artclf.base.extras import require

require("train", "torch", "fastai")

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\b")
    warnings.filterwarnings("ignore", category=Warning, module=r"tqdm\.auto\b")
    import fastai.vision.all  # noqa: F401
