"""Step predict: export a trained learner, load it anywhere, ask it about pictures.

Reads and writes `EXPORT/`: `model.safetensors` and `config.json`, which `load` opens without running pickled code,
fastai's `learner.pkl`, `predictions.csv` and `metrics.json`. Notebook: `05_predict`.
"""
import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from fastai.vision.all import PILImage, Resize, default_split
from PIL import Image, ImageOps
from safetensors.torch import load_file, save

from artclf import backbones, network, split, surroundings
from artclf.catalogue import IMAGE_SUFFIXES
from artclf.clean import DECODER_ERRORS, Rejected, open_rgb, shrink, to_rgb
from artclf.features import ahead

VERSIONS = ("artclf", "torch", "torchvision", "timm", "fastai", "pillow")
NO_PROTOCOL = ("vocab", "artists", "mean", "std", "temperature", "data_hash", "seed", "versions", "hashes")


def load(out) -> "Classifier":
    """The `Classifier` in the export folder `out`, built from `config.json` and `model.safetensors` alone.

    Runs no pickled code. Warns where torch, timm or fastai are of another version than at training. Raises
    FileNotFoundError without an export, ValueError for a `config.json` that is none, names no known architecture, or
    describes other weights.
    """
    config = _read_config((out := Path(out)) / "config.json")
    if _sha256(out / "model.safetensors") != config["hashes"].get("model.safetensors"):
        raise ValueError(f"{out / 'model.safetensors'} is not the file that config.json describes: copy both again")
    differing = [f"{name} {version(name)} (trained with {then})" for name, then in config["versions"].items()
                 if version(name).split(".")[:2] != then.split(".")[:2]]
    if differing: warnings.warn(f"other versions than at training: {', '.join(differing)}", stacklevel=2)
    learn = network.new_learner(_empty_loaders(config), {**config, "weights": "random"})
    learn.model.load_state_dict(load_file(out / "model.safetensors"))
    return Classifier(learn, config)


def load_learner(path, trust: bool = False) -> Learner:
    """fastai's own export: `learner.pkl` at `path`, or in the folder `path`.

    It is a pickle, and loading one runs whatever code is in it. Raises ValueError unless you vouch for it with
    `trust=True`.
    """
    from fastai.learner import load_learner as unpickle
    path = Path(path) / "learner.pkl" if Path(path).is_dir() else Path(path)
    if not trust:
        raise ValueError(f"loading {path} runs any code that is in it: use artclf.load(folder), which doesn't, or "
                         "say trust=True if you made the file or trust who did")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="load_learner` uses Python's insecure pickle")  # vouched for above
        return unpickle(path)


def export(learn: Learner, out=None) -> Path:
    """Write `learn` to the folder `out` (its own path), with its predictions and figures; the folder.

    `learn` comes from `train.learner`. Predictions are made by the exported network, on every image of every part.
    """
    out = Path(out or learn.path)
    tensors = {name: value.contiguous() for name, value in learn.model.state_dict().items()}
    _replace(out / "model.safetensors", lambda file: file.write_bytes(save(tensors)))
    _replace(out / "learner.pkl", lambda file: _pickle(learn, file))
    hashes = {name: _sha256(out / name) for name in ("model.safetensors", "learner.pkl")}
    config = {**learn.config, "versions": {name: version(name) for name in VERSIONS}, "hashes": hashes}
    _replace(out / "config.json", lambda file: file.write_text(json.dumps(config, indent=1), encoding="utf-8"))
    _write_predictions(out, learn.dls.path)
    return out


def headline(out, part: str = "test") -> dict:
    """The figures of `EXPORT/metrics.json` for one part, valid where there is no test, beside those of the baseline."""
    metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    part = part if part in metrics else "valid"
    return {"part": part, **metrics[part]}


class Classifier:
    """A trained classifier of art periods: `vocab` are its classes, `learner` is a fastai `Learner`.

    Prediction may run in several threads at once.
    """

    def __init__(self, learner: Learner, config: dict):
        self.learner, self.config = learner, config
        self.vocab, self.artists = config["vocab"], config.get("artists", [])
        self._model, self._device = learner.model.eval(), learner.dls.device
        learner.model = network.of_periods(learner.model, len(self.vocab))
        self._resize = learner.dls.after_item.fs.filter(lambda tfm: isinstance(tfm, Resize))[0]
        self._mean, self._std = (torch.tensor(config[name], device=self._device).view(3, 1, 1)
                                 for name in ("mean", "std"))

    def predict(self, images, k: int = 3, batch_size: int = 64) -> pd.DataFrame:
        """A row per image, in the order given: `image, predicted, probability, top, error`.

        `images` is one or many of: a path, a folder (the pictures in it), bytes, a PIL image, an array of shape
        (height, width) or (height, width, 3 or 4) and type uint8. `top` lists `k` pairs of class and probability, the
        likeliest first. A network of artists, too, adds `artist, artist_probability`. Where an image can't be read,
        `error` says why and the others go on. Raises ValueError for a `k` below 1.
        """
        if k < 1: raise ValueError(f"k is {k}: ask for the likeliest class at least")
        names, sources = _listed(images)
        probabilities, errors = self.probabilities(sources, batch_size)
        (periods, artists), rows = np.split(probabilities, [len(self.vocab)], axis=1), []
        for name, p, error in zip(names, periods, errors, strict=True):
            top = [] if error else [(self.vocab[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]
            rows.append((name, *(top[0] if top else (None, np.nan)), top, error))
        table = pd.DataFrame(rows, columns=["image", "predicted", "probability", "top", "error"])
        if not self.artists: return table
        best = [None if error else self.artists[i] for i, error in zip(artists.argmax(1), errors, strict=True)]
        return table.assign(artist=best, artist_probability=artists.max(1).astype(float))

    def probabilities(self, sources: list, batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Probabilities of shape (images, classes), NaN in the rows of unreadable images, and an error text for each.

        Artists, if any, follow the classes. While the network looks at one batch, the next one is decoded.
        """
        shape, errors = (len(sources), len(self.vocab) + len(self.artists)), [""] * len(sources)
        found = np.full(shape, np.nan, dtype=np.float32)
        for start, batch in ahead(self._pixels, sources, batch_size):
            for i, item in enumerate(batch, start):
                if isinstance(item, Rejected): errors[i] = str(item)
            good = [i for i, item in enumerate(batch) if not isinstance(item, Rejected)]
            if good: found[[start + i for i in good]] = self._forward(torch.stack([batch[i] for i in good]))
        return found, errors

    def _pixels(self, source) -> torch.Tensor | Rejected:
        """`source` as bytes of shape (3, size, size), brought to size as in training."""
        try:
            return torch.from_numpy(np.array(self._resize(PILImage(_opened(source)), split_idx=1))).permute(2, 0, 1)
        except Rejected as e:
            return e

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> np.ndarray:
        x = pixels.to(self._device).float() / 255
        logits = self._model((x - self._mean) / self._std) / self.config["temperature"]
        both = logits.split([len(self.vocab), len(self.artists)], dim=1)
        return torch.cat([part.softmax(dim=1) for part in both], dim=1).float().cpu().numpy()


def _read_config(file: Path) -> dict:
    """The settings in `file`, which a stranger may have written: no name in it leads to a hub or to another folder."""
    if not file.exists(): raise FileNotFoundError(f"no export in {file.parent}: run `artclf train` first")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        backbones.find(config["name"], pretrained=False)
        for name in config["vocab"]:
            if name != Path(name).name or name == "..": raise ValueError(f"{name!r} is no class")
        versions = {name: str(config["versions"][name]) for name in VERSIONS}
        return {**config, "versions": versions, "hashes": dict(config["hashes"])}
    except (ValueError, LookupError, TypeError) as e:
        raise ValueError(f"{file} is not the config.json of an export ({e}): copy it again") from e


def _listed(images) -> tuple[list[str], list]:
    """The images one by one, and a name for each: its path, or its place."""
    one = isinstance(images, str | Path | bytes | np.ndarray | Image.Image) or not isinstance(images, Iterable)
    many = [picture for image in ([images] if one else images) for picture in _pictures(image)]
    return [str(image) if isinstance(image, str | Path) else f"image {i}" for i, image in enumerate(many)], many


def _pictures(image) -> list:
    """The pictures in `image` if that is a folder, else `image` alone."""
    folder = isinstance(image, str | Path) and os.path.isdir(image)  # noqa: PTH112 (Path.is_dir raises for some texts)
    if not folder: return [image]
    return sorted(p for p in Path(image).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())


def _opened(source) -> Image.Image:
    if isinstance(source, str | Path): return open_rgb(source)
    if isinstance(source, bytes): return open_rgb(BytesIO(source))
    try:
        im = Image.fromarray(source) if isinstance(source, np.ndarray) else source
        if not isinstance(im, Image.Image) or not min(im.size): raise ValueError("no pixels")
        return shrink(to_rgb(ImageOps.exif_transpose(im)), 500)  # a copy: the caller's picture stays as it is
    except DECODER_ERRORS as e:
        raise Rejected(f"{type(source).__name__} {getattr(source, 'shape', '')} is not a picture ({e})") from e


def _write_predictions(out: Path, data: Path):
    from artclf import interpret
    classifier = load(out)
    config, vocab = classifier.config, classifier.vocab
    table = split.items(data, config["split"], config["parts"], config["seed"], config["exclude"])
    if split.fingerprint(table) != config["data_hash"]:
        raise ValueError(f"the images in {data} have changed since training: train again")
    p, errors = classifier.probabilities([data / file for file in table.file])
    p = p[:, :len(vocab)]
    unreadable = [f"{data / file} ({error})" for file, error in zip(table.file, errors, strict=True) if error]
    if unreadable: raise ValueError(f"can't read {unreadable[0]}: run `artclf clean`")
    true = p[np.arange(len(p)), [vocab.index(period) for period in table.period]]
    columns = {"predicted": np.array(vocab)[p.argmax(1)], "probability": p.max(1), "loss": -np.log(true.clip(1e-12))}
    table = pd.concat([table.drop(columns=["sha256", "clean_sha256"]).assign(**columns),
                       pd.DataFrame(p, columns=[f"p_{name}" for name in vocab])], axis=1)
    _replace(out / "predictions.csv", lambda file: table.to_csv(file, index=False))
    history = out / "history.csv"
    epochs = pd.read_csv(history).fit.value_counts(sort=False).tolist() if history.exists() else []
    protocol = {"epochs": epochs, **{name: value for name, value in config.items() if name not in NO_PROTOCOL}}
    figures = {"metrics": interpret.metrics(table), "protocol": protocol, "data_hash": config["data_hash"],
               "seed": config["seed"], "versions": config["versions"], **surroundings(classifier.learner.dls.device)}
    _replace(out / "metrics.json", lambda file: file.write_text(json.dumps(figures, indent=1), encoding="utf-8"))


def _empty_loaders(config: dict):
    """`DataLoaders` as at training but without images; fastai sets its transforms up on one, so it gets a blank one."""
    with TemporaryDirectory() as folder:
        blank = Path(folder) / config["vocab"][0] / "blank.png"
        blank.parent.mkdir()
        Image.new("RGB", (8, 8)).save(blank)
        return backbones.loaders([blank, blank], [False, True], config).new_empty()


def _pickle(learn: Learner, file: Path):
    """fastai's export, without callbacks of ours and without paths, so that it opens on any machine with fastai."""
    own = {name: getattr(learn, name) for name in ("path", "model", "splitter", "opt")}
    data, ours = learn.dls.path, [cb for cb in learn.cbs if type(cb).__module__.startswith("artclf")]
    with learn.removed_cbs(ours):
        learn.path = learn.dls.path = PurePosixPath(".")
        learn.model, learn.splitter, learn.opt = network.plain(learn.model, len(learn.dls.vocab)), default_split, None
        try:
            learn.export(file.resolve())
        finally:
            learn.dls.path = data
            for name, value in own.items(): setattr(learn, name, value)


def _replace(file: Path, write):
    """Let `write` fill a file beside `file`, then put it in its place: a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    write(part)
    part.replace(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream: return hashlib.file_digest(stream, "sha256").hexdigest()
