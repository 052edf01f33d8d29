"""Exports: the files of `EXPORT/` that hold a network, written and loaded.

`model.safetensors` and `config.json` are opened without running pickled code; `learner.pkl` is
fastai's own export, a pickle. Where the network learned from all images in the end, the weights of
the one that was measured before are in `measured.safetensors`.
"""

import warnings
from copy import copy
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from fastai.learner import Learner
from fastai.vision.all import default_split
from fastcore.foundation import defaults
from PIL import Image
from safetensors.torch import load_file

from artclf.answers.exports import (
    WEIGHTS,
    WEIGHTS_OF_MEASURED,
    check_hash,
    checking_config,
    read_config,
    warn_of_other_versions,
)
from artclf.base.errors import InputError
from artclf.base.files import finish_replacing
from artclf.model import backbones, network
from artclf.model.classifier import Classifier
from artclf.model.loaders import data_loaders
from artclf.model.losses import AdjustedLoss


def load(out, measured: bool = False) -> Classifier:
    """The `Classifier` in the export folder `out`, built from `config.json` and `model.safetensors`
    alone.

    Where that network learned from the images of all parts, `measured` gives the one before it,
    which the figures of the export belong to: it learned from part train alone. Runs no pickled
    code. Warns where torch, timm or fastai are of another version than at training. Raises
    FileNotFoundError without an export, InputError for a `config.json` that is none, names no known
    architecture, or describes other weights or another network.
    """
    out = Path(out)
    config = read_config(out)
    with checking_config(out):  # no name in it leads to a hub
        backbones.find(config["name"], pretrained=False)
        backbones.of_config(config)
    weights = out / WEIGHTS
    if measured and "measured" in config:
        weights = out / WEIGHTS_OF_MEASURED
        config = {**config, **config["measured"]}
    check_hash(weights, config)
    warn_of_other_versions(config)
    learn = network.new_learner(_empty_loaders(config), {**config, "weights": "random"})
    try:
        learn.model.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise InputError(
            f"{out} holds another network than its config.json describes: train again"
        ) from error
    return Classifier(learn, config)


def load_learner(path, trust: bool = False) -> Learner:
    """fastai's own export: `learner.pkl` at `path`, or in the folder `path`.

    It is a pickle, and loading one runs whatever code is in it. Raises InputError unless you vouch
    for it with `trust=True`.
    """
    from fastai.learner import load_learner as unpickle

    path = Path(path)
    if path.is_dir():
        finish_replacing(path)
        path = path / "learner.pkl"
    if not trust:
        raise InputError(
            f"loading {path} runs any code that is in it: use artclf.load(folder), which doesn't, "
            "or say trust=True if you made the file or trust who did"
        )
    with warnings.catch_warnings():  # the caller has vouched for the file
        warnings.filterwarnings("ignore", message="load_learner` uses Python's insecure pickle")
        return unpickle(path)


def pickle_learner(learn: Learner, file: Path):
    """Write fastai's own export of `learn` to `file`, without callbacks and losses of ours and
    without paths, so that it opens on any machine with fastai.

    It is a new learner on the same loaders, without their images; `learn` stays as it is.
    """
    dls = learn.dls.new_empty()
    dls.path = PurePosixPath(".")
    loss = learn.loss_func
    callbacks = []
    for callback in learn.cbs:
        is_ours = type(callback).__module__.startswith("artclf")
        is_default = type(callback) in defaults.callbacks  # every learner makes its own
        if not is_ours and not is_default:
            callbacks.append(copy(callback))  # a learner writes itself into its callbacks
    plain = Learner(
        dls,
        network.plain_model(learn.model, len(learn.dls.vocab)),
        loss_func=loss.plain() if isinstance(loss, AdjustedLoss) else loss,
        opt_func=learn.opt_func,
        splitter=default_split,
        metrics=list(learn.metrics),
        cbs=callbacks,
        path=PurePosixPath("."),
        model_dir=learn.model_dir,
        wd=learn.wd,
        train_bn=learn.train_bn,
    )
    plain.export(file.resolve())


def _empty_loaders(config: dict):
    """`DataLoaders` as at training, without images.

    fastai sets its transforms up on an image, so it gets a blank one.
    """
    with TemporaryDirectory() as folder:
        blank = Path(folder) / config["vocab"][0] / "blank.png"
        blank.parent.mkdir()
        Image.new("RGB", (8, 8)).save(blank)
        return data_loaders([blank, blank], [False, True], config).new_empty()
