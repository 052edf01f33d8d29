"""Step predict: export a trained learner, load it anywhere, ask it about pictures.

Reads and writes `EXPORT/`: `model.safetensors` and `config.json`, which `load` opens without
running pickled code, fastai's `learner.pkl`, `predictions.csv`, `embeddings.npz` and
`metrics.json`. The temperature in `config.json` makes the probabilities of `Classifier.predict` and
of `predictions.csv` honest (see `calibration`); fastai's learners, in `learner.pkl` and as
`Classifier.learner`, know nothing of it: they give the same answers with other probabilities.
Notebook: `05_predict`.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.learner import Learner
from safetensors.torch import save

from artclf.base.errors import InputError
from artclf.base.files import replace_whole, sha256_of, write_json
from artclf.base.machine import surroundings
from artclf.data import splits
from artclf.model import embeddings
from artclf.model.exports import VERSIONS, load, pickle_learner
from artclf.results import calibration

FIT = [
    "lr_low",
    "lr_high",
    "groups",
    "learning",
    "scheduled",
]  # what tells one fit from another in history.csv


NO_PROTOCOL = (
    "vocab",
    "artists",
    "mean",
    "std",
    "temperature",
    "data_hash",
    "seed",
    "versions",
    "hashes",
)


def export(learn: Learner, out=None) -> Path:
    """Write `learn` to the folder `out` (its own path), with its predictions and figures; the
    folder.

    `learn` comes from `train.learner`. Predictions are made by the exported network, on every image
    of every part; the temperature is fitted on those of valid, before any, so that exporting again
    gives the same.
    """
    out = Path(out or learn.path)
    tensors = {name: value.contiguous() for name, value in learn.model.state_dict().items()}
    replace_whole(out / "model.safetensors", lambda file: file.write_bytes(save(tensors)))
    replace_whole(out / "learner.pkl", lambda file: pickle_learner(learn, file))
    hashes = {name: sha256_of(out / name) for name in ("model.safetensors", "learner.pkl")}
    config = {
        **learn.config,
        "versions": {name: version(name) for name in VERSIONS},
        "hashes": hashes,
    }
    write_json(out / "config.json", {**config, "temperature": 1.0})
    _write_predictions(out, learn.dls.path)
    return out


def headline(out, part: str = "test") -> dict:
    """The figures of `EXPORT/metrics.json` for one part, valid where there is no test, beside those
    of the baseline.
    """
    metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    part = part if part in metrics else "valid"
    return {"part": part, **metrics[part]}


def _write_predictions(out: Path, data: Path):
    from artclf.results import evaluation

    classifier = load(out)
    config, vocab = classifier.config, classifier.vocab
    table = splits.items(data, config["split"], config["parts"], config["seed"], config["exclude"])
    if splits.fingerprint(table) != config["data_hash"]:
        raise InputError(f"the images in {data} have changed since training: train again")
    p, features, errors = classifier.look([data / file for file in table.file])
    p = p[:, : len(vocab)]
    unreadable = [
        f"{data / file} ({error})" for file, error in zip(table.file, errors, strict=True) if error
    ]
    if unreadable:
        raise InputError(f"can't read {unreadable[0]}: run `artclf clean`")
    given, valid = (
        np.array([vocab.index(period) for period in table.period]),
        (table.part == "valid").to_numpy(),
    )
    temperature, why = calibration.fit(p[valid], given[valid])
    write_json(out / "config.json", {**config, "temperature": temperature})
    p = calibration.temper(p, temperature).astype(np.float32)
    true = p[np.arange(len(p)), given]
    columns = {
        "predicted": np.array(vocab)[p.argmax(1)],
        "probability": p.max(1),
        "loss": -np.log(true.clip(1e-12)),
    }
    table = pd.concat(
        [
            table.drop(columns=["sha256", "clean_sha256"]).assign(**columns),
            pd.DataFrame(p, columns=[f"p_{name}" for name in vocab]),
        ],
        axis=1,
    )
    replace_whole(out / "predictions.csv", lambda file: table.to_csv(file, index=False))
    known = embeddings.project(features, (table.part == "train").to_numpy())
    replace_whole(out / embeddings.NAME, lambda file: embeddings.write(file, table.file, known))
    history = out / "history.csv"
    rows = pd.read_csv(history).groupby("fit") if history.exists() else []
    fits = [{"epochs": len(fit), **fit[FIT].iloc[0].to_dict()} for _, fit in rows]
    protocol = {
        "epochs": [fit["epochs"] for fit in fits],
        "fits": fits,
        **{name: value for name, value in config.items() if name not in NO_PROTOCOL},
    }
    figures = {
        "metrics": evaluation.metrics(table),
        "calibration": calibration.summary(table, temperature, why),
        "protocol": protocol,
        "data_hash": config["data_hash"],
        "seed": config["seed"],
        "versions": config["versions"],
        **surroundings(classifier.learner.dls.device),
    }
    write_json(out / "metrics.json", figures)
