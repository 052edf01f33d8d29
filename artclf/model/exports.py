"""Step predict: export a trained learner, load it anywhere, ask it about pictures.

Reads and writes `EXPORT/`: `model.safetensors` and `config.json`, which `load` opens without
running pickled code, fastai's `learner.pkl`, `predictions.csv`, `embeddings.npz` and
`metrics.json`. The temperature in `config.json` makes the probabilities of `Classifier.predict` and
of `predictions.csv` honest (see `calibration`); fastai's learners, in `learner.pkl` and as
`Classifier.learner`, know nothing of it: they give the same answers with other probabilities.
Notebook: `05_predict`.
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from fastai.learner import Learner
from fastai.vision.all import default_split
from PIL import Image
from safetensors.torch import load_file

from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.model import backbones, network
from artclf.model.classifier import Classifier
from artclf.model.loaders import loaders


def read_json(out, name: str) -> dict:
    """The JSON object in the file `name` of folder `out`; an empty one where there is no such
    file.
    """
    file = Path(out) / name
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no settings: run `artclf train` again")
    return found


VERSIONS = ("artclf", "torch", "torchvision", "timm", "fastai", "pillow")


def load(out) -> Classifier:
    """The `Classifier` in the export folder `out`, built from `config.json` and `model.safetensors`
    alone.

    Runs no pickled code. Warns where torch, timm or fastai are of another version than at training.
    Raises FileNotFoundError without an export, ValueError for a `config.json` that is none, names
    no known architecture, or describes other weights or another network.
    """
    config = _read_config((out := Path(out)) / "config.json")
    if sha256_of(out / "model.safetensors") != config["hashes"].get("model.safetensors"):
        raise InputError(
            f"{out / 'model.safetensors'} is not the file that config.json describes: copy both again"
        )
    differing = [
        f"{name} {version(name)} (trained with {then})"
        for name, then in config["versions"].items()
        if version(name).split(".")[:2] != then.split(".")[:2]
    ]
    if differing:
        warnings.warn(f"other versions than at training: {', '.join(differing)}", stacklevel=2)
    learn = network.new_learner(_empty_loaders(config), {**config, "weights": "random"})
    try:
        learn.model.load_state_dict(load_file(out / "model.safetensors"))
    except RuntimeError as e:
        raise InputError(
            f"{out} holds another network than its config.json describes: train again"
        ) from e
    return Classifier(learn, config)


def load_learner(path, trust: bool = False) -> Learner:
    """fastai's own export: `learner.pkl` at `path`, or in the folder `path`.

    It is a pickle, and loading one runs whatever code is in it. Raises ValueError unless you vouch
    for it with `trust=True`.
    """
    from fastai.learner import load_learner as unpickle

    path = Path(path) / "learner.pkl" if Path(path).is_dir() else Path(path)
    if not trust:
        raise InputError(
            f"loading {path} runs any code that is in it: use artclf.load(folder), which doesn't, or "
            "say trust=True if you made the file or trust who did"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="load_learner` uses Python's insecure pickle"
        )  # vouched for above
        return unpickle(path)


def _read_config(file: Path) -> dict:
    """The settings in `file`, which a stranger may have written: no name in it leads to a hub or to
    another folder.
    """
    if not file.exists():
        raise FileNotFoundError(f"no export in {file.parent}: run `artclf train` first")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        backbones.find(config["name"], pretrained=False)
        for name in config["vocab"]:
            if name != Path(name).name or name == "..":
                raise InputError(f"{name!r} is no class")
        versions = {name: str(config["versions"][name]) for name in VERSIONS}
        return {**config, "versions": versions, "hashes": dict(config["hashes"])}
    except (ValueError, LookupError, TypeError) as e:
        raise InputError(f"{file} is not the config.json of an export ({e}): copy it again") from e


def _empty_loaders(config: dict):
    """`DataLoaders` as at training but without images; fastai sets its transforms up on one, so it
    gets a blank one.
    """
    with TemporaryDirectory() as folder:
        blank = Path(folder) / config["vocab"][0] / "blank.png"
        blank.parent.mkdir()
        Image.new("RGB", (8, 8)).save(blank)
        return loaders([blank, blank], [False, True], config).new_empty()


def pickle_learner(learn: Learner, file: Path):
    """fastai's export, without callbacks of ours and without paths, so that it opens on any machine
    with fastai.
    """
    own = {name: getattr(learn, name) for name in ("path", "model", "splitter", "opt")}
    data, ours = (
        learn.dls.path,
        [cb for cb in learn.cbs if type(cb).__module__.startswith("artclf")],
    )
    with learn.removed_cbs(ours):
        learn.path = learn.dls.path = PurePosixPath(".")
        learn.model, learn.splitter, learn.opt = (
            network.plain(learn.model, len(learn.dls.vocab)),
            default_split,
            None,
        )
        try:
            learn.export(file.resolve())
        finally:
            learn.dls.path = data
            for name, value in own.items():
                setattr(learn, name, value)
