"""Step predict: export a trained learner, load it anywhere, ask it about pictures.

Reads and writes `EXPORT/`: `model.safetensors` and `config.json`, which `load` opens without running pickled code,
fastai's `learner.pkl`, `predictions.csv`, `embeddings.npz` and `metrics.json`. The temperature in `config.json` makes
the probabilities of `Classifier.predict` and of `predictions.csv` honest (see `calibration`); fastai's learners, in
`learner.pkl` and as `Classifier.learner`, know nothing of it: they give the same answers with other probabilities.
Notebook: `05_predict`.
"""
import hashlib
import json
import warnings
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from fastai.learner import Learner
from fastai.vision.all import default_split
from PIL import Image
from safetensors.torch import load_file, save

from artclf import backbones, calibration, embeddings, network, split, surroundings
from artclf.classifier import Classifier

VERSIONS = ("artclf", "torch", "torchvision", "timm", "fastai", "pillow")
FIT = ["lr_low", "lr_high", "groups", "learning", "scheduled"]  # what tells one fit from another in history.csv
NO_PROTOCOL = ("vocab", "artists", "mean", "std", "temperature", "data_hash", "seed", "versions", "hashes")


def load(out) -> Classifier:
    """The `Classifier` in the export folder `out`, built from `config.json` and `model.safetensors` alone.

    Runs no pickled code. Warns where torch, timm or fastai are of another version than at training. Raises
    FileNotFoundError without an export, ValueError for a `config.json` that is none, names no known architecture, or
    describes other weights or another network.
    """
    config = _read_config((out := Path(out)) / "config.json")
    if _sha256(out / "model.safetensors") != config["hashes"].get("model.safetensors"):
        raise ValueError(f"{out / 'model.safetensors'} is not the file that config.json describes: copy both again")
    differing = [f"{name} {version(name)} (trained with {then})" for name, then in config["versions"].items()
                 if version(name).split(".")[:2] != then.split(".")[:2]]
    if differing: warnings.warn(f"other versions than at training: {', '.join(differing)}", stacklevel=2)
    learn = network.new_learner(_empty_loaders(config), {**config, "weights": "random"})
    try:
        learn.model.load_state_dict(load_file(out / "model.safetensors"))
    except RuntimeError as e:
        raise ValueError(f"{out} holds another network than its config.json describes: train again") from e
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

    `learn` comes from `train.learner`. Predictions are made by the exported network, on every image of every part; the
    temperature is fitted on those of valid, before any, so that exporting again gives the same.
    """
    out = Path(out or learn.path)
    tensors = {name: value.contiguous() for name, value in learn.model.state_dict().items()}
    _replace(out / "model.safetensors", lambda file: file.write_bytes(save(tensors)))
    _replace(out / "learner.pkl", lambda file: _pickle(learn, file))
    hashes = {name: _sha256(out / name) for name in ("model.safetensors", "learner.pkl")}
    config = {**learn.config, "versions": {name: version(name) for name in VERSIONS}, "hashes": hashes}
    _write_json(out / "config.json", {**config, "temperature": 1.0})
    _write_predictions(out, learn.dls.path)
    return out


def headline(out, part: str = "test") -> dict:
    """The figures of `EXPORT/metrics.json` for one part, valid where there is no test, beside those of the baseline."""
    metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    part = part if part in metrics else "valid"
    return {"part": part, **metrics[part]}


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


def _write_predictions(out: Path, data: Path):
    from artclf import interpret
    classifier = load(out)
    config, vocab = classifier.config, classifier.vocab
    table = split.items(data, config["split"], config["parts"], config["seed"], config["exclude"])
    if split.fingerprint(table) != config["data_hash"]:
        raise ValueError(f"the images in {data} have changed since training: train again")
    p, features, errors = classifier.look([data / file for file in table.file])
    p = p[:, :len(vocab)]
    unreadable = [f"{data / file} ({error})" for file, error in zip(table.file, errors, strict=True) if error]
    if unreadable: raise ValueError(f"can't read {unreadable[0]}: run `artclf clean`")
    given, valid = np.array([vocab.index(period) for period in table.period]), (table.part == "valid").to_numpy()
    temperature, why = calibration.fit(p[valid], given[valid])
    _write_json(out / "config.json", {**config, "temperature": temperature})
    p = calibration.temper(p, temperature).astype(np.float32)
    true = p[np.arange(len(p)), given]
    columns = {"predicted": np.array(vocab)[p.argmax(1)], "probability": p.max(1), "loss": -np.log(true.clip(1e-12))}
    table = pd.concat([table.drop(columns=["sha256", "clean_sha256"]).assign(**columns),
                       pd.DataFrame(p, columns=[f"p_{name}" for name in vocab])], axis=1)
    _replace(out / "predictions.csv", lambda file: table.to_csv(file, index=False))
    known = embeddings.project(features, (table.part == "train").to_numpy())
    _replace(out / embeddings.NAME, lambda file: embeddings.write(file, table.file, known))
    history = out / "history.csv"
    rows = pd.read_csv(history).groupby("fit") if history.exists() else []
    fits = [{"epochs": len(fit), **fit[FIT].iloc[0].to_dict()} for _, fit in rows]
    protocol = {"epochs": [fit["epochs"] for fit in fits], "fits": fits,
                **{name: value for name, value in config.items() if name not in NO_PROTOCOL}}
    figures = {"metrics": interpret.metrics(table), "calibration": calibration.summary(table, temperature, why),
               "protocol": protocol, "data_hash": config["data_hash"], "seed": config["seed"],
               "versions": config["versions"], **surroundings(classifier.learner.dls.device)}
    _write_json(out / "metrics.json", figures)


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


def _write_json(file: Path, content: dict):
    _replace(file, lambda part: part.write_text(json.dumps(content, indent=1), encoding="utf-8"))


def _replace(file: Path, write):
    """Let `write` fill a file beside `file`, then put it in its place: a reader never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    write(part)
    part.replace(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream: return hashlib.file_digest(stream, "sha256").hexdigest()
