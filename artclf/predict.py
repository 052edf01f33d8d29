"""Step predict: export a trained learner, load it anywhere, ask it about pictures.

Reads and writes `EXPORT/`: `model.safetensors` and `config.json`, which `load` opens without
running pickled code, `measured.safetensors` (see `export_final`), fastai's `learner.pkl`,
`predictions.csv`, `embeddings.npz`, `metrics.json` and the model card `README.md`. The temperature
in `config.json` calibrates the probabilities of `Classifier.predict` and of `predictions.csv` (see
`results.calibration`). fastai's learners, in `learner.pkl` and as `Classifier.learner`, don't use
it: they give the same answers with other probabilities. Notebook: `05_predict`.
"""

import shutil
from importlib.metadata import version
from pathlib import Path

import artclf.model  # noqa: F401  # isort: skip  (imports fastai without its warnings)

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from safetensors import torch as safetensors

from artclf.answers import onnx
from artclf.answers.batch import save
from artclf.answers.config import FORMAT
from artclf.answers.exports import VERSIONS, WEIGHTS, WEIGHTS_OF_MEASURED
from artclf.base.errors import InputError, StepError
from artclf.base.files import (
    read_json,
    replace_together,
    replace_whole,
    sha256_of,
    write_csv,
    write_json,
    write_text,
)
from artclf.base.machine import surroundings
from artclf.base.processes import MapJobs
from artclf.data import splits
from artclf.data.cleaning import check_copies
from artclf.model import unseen
from artclf.model.classifier import Classifier
from artclf.model.exports import load, load_learner, pickle_learner
from artclf.model.feature_rows import FeatureRows, of_each, rows_of
from artclf.model.network import early_features
from artclf.model.pixels import pictures_of
from artclf.results import calibration, card, embeddings, evaluation
from artclf.results.neighbours import similar
from artclf.results.recipe import recipe_of

__all__ = ["Classifier", "export", "headline", "load", "load_learner", "save", "similar"]

# the columns of history.csv that tell one fit from another
FIT_COLUMNS = ["lr_low", "lr_high", "groups", "learning", "scheduled"]
# the settings of config.json that are not part of the protocol in metrics.json
NOT_IN_PROTOCOL = (
    "vocab",
    "artists",
    "mean",
    "std",
    "temperature",
    "measured",
    "data_hash",
    "seed",
    "format",
    "versions",
    "hashes",
    "int8",
)


def export(learn: Learner, out=None) -> Path:
    """Write `learn`, a learner of `train.learner`, with its predictions and figures to the folder
    `out` (by default, its own path); return the folder.

    The exported network predicts every image of every part; the temperature is fitted on its
    predictions for valid. An export that is there is replaced as a whole, or, where anything fails,
    not at all. Raises InputError where the images have changed since training, FileNotFoundError
    where one is gone, StepError for a network whose weights are NaN.
    """
    out = Path(out or learn.path)
    _check_weights(learn)
    data = learn.data
    images = splits.of_training(data, learn.config)
    check_copies(data, images.file)
    with replace_together(out) as new:
        _write_network(learn, new)
        _write_figures(new, data, images, _fits(out), learn.map_jobs)
    for file in (WEIGHTS_OF_MEASURED, *onnx.FILES):  # of an export that was there
        (out / file).unlink(missing_ok=True)
    return out


def _write_figures(out: Path, data, images, fits: list[dict], map_jobs: MapJobs | None):
    """Write what the network in `out` answers for `images`, and how well; set its temperature."""
    classifier = load(out)
    body, config = classifier.learner.model[0], classifier.config
    rows = rows_of(pictures_of(data, images, config), body, config, map_jobs=map_jobs)
    probabilities = of_each(rows, classifier.of_features)[:, : len(classifier.vocab)]
    temperature, why_not_fitted = _fit_temperature(probabilities, images, classifier.vocab)
    config = {**classifier.config, "temperature": temperature}
    write_json(out / "config.json", config)
    calibrated = calibration.temper(probabilities, temperature).astype(np.float32)
    predictions = _predictions(calibrated, images, classifier.vocab)
    write_csv(out / "predictions.csv", predictions)
    _write_embeddings(rows, images, early_features(body), out)
    metrics = {
        "metrics": evaluation.metrics(predictions),
        "calibration": calibration.summary(predictions, temperature, why_not_fitted),
        "protocol": _protocol(config, fits),
        "recipe": recipe_of(config, fits),
        "data_hash": config["data_hash"],
        "seed": config["seed"],
        "versions": config["versions"],
        **surroundings(classifier.learner.dls.device),
    }
    write_json(out / "metrics.json", metrics)
    write_text(out / card.NAME, card.text(out, data))


def export_final(learn: Learner, out) -> Path:
    """Put `learn`, a network that learned from the images of all parts, into the export `out`;
    return the folder.

    Predictions and figures of valid and test stay those of the network that was exported before,
    which had not learned from them. Those of train become out-of-fold predictions by linear heads
    on the pretrained body (see `unseen.probabilities`), and so do the temperature and, under
    `final` in `metrics.json`, figures of all images. Of no picture had such a head seen others by the
    same painter, as far as painters are known (`painter_known` counts the images).
    A network that did not start from pretrained weights has no such predictions, nor have images of
    too few painters: then all of these stay as they are. The weights of the measured network stay
    in `measured.safetensors`. Raises as `export` does.
    """
    out = Path(out)
    _check_weights(learn)
    measured = read_json(out / "config.json")
    measured.pop("int8", None)  # of the network before
    data = learn.data
    images = splits.of_training(data, measured)
    predictions = evaluation.read_table(out / "predictions.csv")
    metrics = read_json(out / "metrics.json")
    temperature = measured["temperature"]
    weights_of_measured = WEIGHTS
    if "measured" in measured:  # the export holds such a network already
        weights_of_measured = WEIGHTS_OF_MEASURED
        measured = {**measured, **measured["measured"]}
    final: dict = {"learned_from": list(splits.PARTS), "images": len(images)}
    probabilities = None
    if measured["weights"] != "random":
        probabilities = unseen.probabilities(
            data, images, measured, weights=learn.weights_file, map_jobs=learn.map_jobs
        )
    if probabilities is not None:
        given = pd.Index(measured["vocab"]).get_indexer(images.period)
        # an image whose period its head did not learn tells nothing of a temperature
        is_learned = ~np.isnan(probabilities[np.arange(len(given)), given])
        probabilities = np.nan_to_num(probabilities)
        temperature, why_not_fitted = calibration.fit(probabilities[is_learned], given[is_learned])
        calibrated = calibration.temper(probabilities, temperature).astype(np.float32)
        of_unseen = _predictions(calibrated, images, measured["vocab"])
        is_train = predictions.part == "train"
        predictions[is_train] = of_unseen[is_train]
        usable = splits.usable(data, measured["exclude"])
        known = usable.painter[usable.file.isin(images.file)] != ""
        final |= {
            "temperature": temperature,
            "why": why_not_fitted,
            "painter_known": int(known.sum()),
            "unseen": evaluation.metrics(of_unseen.assign(part="test"))["test"],
        }
    learn.config = {
        **measured,
        "stages": learn.config["stages"],
        "learned_from": list(splits.PARTS),
        "measured": {"temperature": measured["temperature"], "learned_from": [splits.PARTS[0]]},
    }
    with replace_together(out) as new:
        shutil.copyfile(out / weights_of_measured, new / WEIGHTS_OF_MEASURED)
        _write_network(learn, new)
        config = {**read_json(new / "config.json"), "temperature": temperature}
        write_json(new / "config.json", config)
        write_csv(new / "predictions.csv", predictions)
        body = load(new).learner.model[0]
        pictures = pictures_of(data, images, config)
        rows = rows_of(pictures, body, config, map_jobs=learn.map_jobs)
        _write_embeddings(rows, images, early_features(body), new)
        recipe = metrics["recipe"] and {**metrics["recipe"], "final": True}
        figures = evaluation.metrics(predictions)
        metrics = {**metrics, "metrics": figures, "recipe": recipe, "final": final}
        write_json(new / "metrics.json", metrics)
        write_text(new / card.NAME, card.text(new, data))
    for file in onnx.FILES:  # of the network before
        (out / file).unlink(missing_ok=True)
    return out


def headline(out, part: str = "test") -> dict:
    """The figures of `EXPORT/metrics.json` for one part, or for valid where there is no test.

    Raises InputError where the file is missing or holds no figures.
    """
    file = Path(out) / "metrics.json"
    try:
        metrics = read_json(file)["metrics"]
        found = part if part in metrics else "valid"
        return {"part": found, **metrics[found]}
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{file} holds no figures of {part}, or is not there: run `artclf train --out {out}` again"
        ) from error


def _check_weights(learn: Learner):
    """Raise StepError for weights that are NaN or infinite: such a network answers nothing."""
    for name, tensor in learn.model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise StepError(
                f"{name} of the network is not finite, so nothing is exported: train again with a "
                "lower learning rate (--lr)"
            )


def _write_network(learn: Learner, out: Path):
    """Write the weights, fastai's own export, and the settings with their hashes."""
    tensors = {name: value.contiguous() for name, value in learn.model.state_dict().items()}
    replace_whole(out / WEIGHTS, lambda file: file.write_bytes(safetensors.save(tensors)))
    replace_whole(out / "learner.pkl", lambda file: pickle_learner(learn, file))
    files = (WEIGHTS, WEIGHTS_OF_MEASURED, "learner.pkl")
    config = {
        **learn.config,
        "format": FORMAT,
        "versions": {name: version(name) for name in VERSIONS},
        "hashes": {name: sha256_of(out / name) for name in files if (out / name).exists()},
        "temperature": 1.0,  # until it is fitted
    }
    write_json(out / "config.json", config)


def _fit_temperature(probabilities, images, vocab: list[str]) -> tuple[float, str]:
    """The temperature, fitted on valid, and why it is 1.0 where it had to stay so (else '')."""
    is_valid = (images.part == "valid").to_numpy()
    given = pd.Index(vocab).get_indexer(images.period)
    return calibration.fit(probabilities[is_valid], given[is_valid])


def _predictions(probabilities, images, vocab: list[str]) -> pd.DataFrame:
    """The table that `predictions.csv` holds: one row per image."""
    given = pd.Index(vocab).get_indexer(images.period)
    probability_of_given = probabilities[np.arange(len(given)), given]
    columns = {f"p_{name}": probabilities[:, index] for index, name in enumerate(vocab)}
    return pd.DataFrame(
        {
            "file": images.file.to_numpy(),
            "period": images.period.to_numpy(),
            "part": images.part.to_numpy(),
            "predicted": np.array(vocab)[probabilities.argmax(1)],
            "probability": probabilities.max(1),
            "loss": -np.log(probability_of_given.clip(1e-12)),
            **columns,
        }
    )


def _write_embeddings(rows: FeatureRows, images, early: np.ndarray, out: Path):
    """Write the embeddings of `images` by their features, a row each; `early` says which features
    are those of early stages.
    """
    train = rows.at(np.flatnonzero(images.part == "train"))
    projection = embeddings.Projection.fit(train.arrays())
    vectors = of_each(rows, lambda features: projection(features))
    residuals = of_each(rows, projection.residuals)
    style = None
    if len(early):
        of_style = embeddings.fit_style(train.arrays(early), len(train))
        styles = of_each(rows, lambda features: of_style(features[:, early]))
        style = embeddings.Style(styles, of_style, early)
    embeddings.write(out / embeddings.NAME, images.file, vectors, projection, residuals, style)


def _fits(out: Path) -> list[dict]:
    """What `history.csv` says of each fit: `epochs` and the columns `FIT_COLUMNS`."""
    history = out / "history.csv"
    if not history.exists():
        return []
    fits = []
    for _, rows in pd.read_csv(history).groupby("fit"):
        fits.append({"epochs": len(rows), **rows[FIT_COLUMNS].iloc[0].to_dict()})
    return fits


def _protocol(config: dict, fits: list[dict]) -> dict:
    settings = {name: value for name, value in config.items() if name not in NOT_IN_PROTOCOL}
    return {"epochs": [fit["epochs"] for fit in fits], "fits": fits, **settings}
