"""Exports: the files of `EXPORT/` that hold a network, written and loaded.

`model.safetensors` and `config.json` are opened without running pickled code; `learner.pkl` is
fastai's own export, a pickle. Where the network learned from all images in the end, the weights of
the one that was measured before are in `measured.safetensors`.
"""

import warnings
from copy import copy
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import torch
from fastai.learner import Learner
from fastai.vision.all import default_split
from fastcore.foundation import defaults
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from artclf.answers import config as settings
from artclf.answers.exports import (
    WEIGHTS,
    WEIGHTS_OF_MEASURED,
    check_hash,
    checking_config,
    made_by_newer,
    of_measured,
    read_config,
    warn_of_other_versions,
)
from artclf.base.errors import InputError
from artclf.base.files import finish_replacing
from artclf.base.settings import Range, check_choice
from artclf.data.packs import is_pack
from artclf.model import backbones, network, stages
from artclf.model.classifier import Classifier
from artclf.model.loaders import data_loaders
from artclf.model.losses import AdjustedLoss

SMALL = 10_000_000  # parameters that any network may have


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
    weights = out / WEIGHTS
    if measured and "measured" in config:
        weights = out / WEIGHTS_OF_MEASURED
        config = of_measured(config, out)
    if config["stages"] in Range(stages.VERSION + 1, 1_000_000):
        raise made_by_newer(out / "config.json")
    with checking_config(out):
        _check_settings(config)
    check_hash(weights, config)
    tensors = _read_weights(weights)
    _check_sizes(config, tensors, out)
    warn_of_other_versions(config)
    learn = network.new_learner(_empty_loaders(config), {**config, "weights": "random"})
    try:
        learn.model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _another_network(out) from error
    return Classifier(learn, config)


def _check_settings(config: dict):
    """Raise InputError for settings of a network that no export has; LookupError where one is
    missing. No name in them leads to a hub or to another folder.
    """
    for name in ("name", "library", "weights"):
        settings.check_text(name, config[name])
    settings.check_numbers(config, "width", "depth", "dropout")
    if "unfreeze_from" in config:  # which answers don't depend on, and older exports lack
        settings.check_numbers(config, "unfreeze_from")
    check_choice("pool", config["pool"], network.POOLS)
    check_choice("precision", config.get("precision", "float32"), network.PRECISIONS)
    Range(1, stages.VERSION).check("stages", config["stages"])
    if not isinstance(config.get("bodies", []), list):
        raise InputError("bodies is no list")
    found = backbones.find(config["name"], pretrained=False)
    described = backbones.of_config(config)
    for body in (described, *described.bodies):
        settings.check_channels("mean", body.mean)
        settings.check_channels("std", body.std, lowest=1e-6)
    pairs = zip(
        [found, *backbones.each(found)], [described, *backbones.each(described)], strict=True
    )
    for right, other in pairs:
        libraries = [right.library]
        if right.library == "torchvision":
            libraries.append("archive")  # the same network, with weights from elsewhere
        check_choice("library", other.library, libraries)


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in `file`. Raises InputError where it holds none, or numbers that aren't finite."""
    try:
        tensors = load_file(file)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} is no file of weights ({error}): copy it again") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{file} has weights that are no numbers ({name}): train again")
    return tensors


def _check_sizes(config: dict, tensors: dict[str, torch.Tensor], out: Path):
    """Raise InputError where the network of `config` needs far more memory than the weights have:
    before any is taken for it.
    """
    in_file = sum(tensor.numel() for tensor in tensors.values())
    of_bodies = sum(
        backbones.count_parameters(body)
        for body in backbones.each(backbones.of_config({**config, "weights": "random"}))
    )
    # a body loses what follows its last stage, which is the smaller part
    has_room = of_bodies <= 2 * in_file + SMALL
    hidden = [config["width"]] * config["depth"]
    outputs = [*hidden, len(config["vocab"]) + len(config.get("artists", []))]
    layers = {}
    for name, tensor in tensors.items():
        module, _, rest = name.partition(".")
        if module == "1" and tensor.ndim == 2 and rest.partition(".")[0].isdecimal():
            layers[int(rest.partition(".")[0])] = tensor.shape[0]
    if not has_room or [layers[place] for place in sorted(layers)] != outputs:
        raise _another_network(out)


def _another_network(out: Path) -> InputError:
    return InputError(f"{out} holds another network than its config.json describes: train again")


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
    """Write fastai's own export of `learn`, a learner of `train.learner`, to `file`, without callbacks
    and losses of ours and without paths, so that it opens on any machine with fastai.

    It is a new learner on the same loaders, without their images; `learn` stays as it is.
    """
    dls = learn.dls.new_empty()
    if is_pack(learn.data):  # what opens its pictures is ours
        for loader, of_files in zip(dls.loaders, _empty_loaders(learn.config).loaders, strict=True):
            loader.dataset = of_files.dataset
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
