"""Saliency: maps of what spoke for the wrong answers, which the explorer lays over the pictures.

Reads an export and the pictures in `DATA`; writes `EXPORT/saliency/`. Needs captum (`pip install
artclf[lab]`); without it there are no maps, and the explorer shows none. Shown in `04_interpret`.
"""

import warnings
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from artclf.base.errors import InputError
from artclf.base.extras import require
from artclf.base.files import replace_whole
from artclf.base.threads import prefetch
from artclf.data.pictures import Rejected, open_rgb
from artclf.model import exports
from artclf.model.feature_batches import BATCH
from artclf.results import evaluation, explorer

METHOD = "stages CAM"  # it shows what the head reads, of every stage: see `experiments/14_explain`


class Job(NamedTuple):
    """A map to make: of a picture, for the period that was predicted, into a file."""

    picture: Path
    predicted: str
    map_file: Path


def worst(out, data, n: int = 100, longest: int = 56) -> list[Path]:
    """The files of the maps of the worst errors, after making those that are missing.

    A map shows what spoke for a wrong answer. It lies in `explorer.saliency_folder(out)` as `<stem
    of the picture's file>.jpg`. The worst are the `n` errors of the highest loss in part test,
    filled up from valid. A map is grey, from black for 0 to white for its highest value, and has
    the shape of the whole picture, `longest` px on its longer side. Pictures that can't be read are
    left out, with a warning. Without captum, without the network in `EXPORT`, and for a network
    that has no maps, it makes none, and a line says why. Raises FileNotFoundError without
    predictions.
    """
    predictions = evaluation.read(out, data)
    try:
        explainer = _explainer(out)
    except (ImportError, FileNotFoundError, InputError) as error:
        print(f"No maps of the worst errors: {error}")
        return []
    known = predictions[predictions.predicted.isin(explainer.vocab)]
    rows = _worst_errors(known, n)
    folder = explorer.saliency_folder(out)
    jobs = [
        Job(Path(data) / row.file, row.predicted, folder / f"{Path(row.file).stem}.jpg")
        for row in rows.itertuples()
    ]
    missing = [job for job in jobs if not job.map_file.exists()]
    for _, batch in prefetch(lambda job: (job, _read(explainer, job.picture)), missing, BATCH):
        _write_maps(explainer, batch, longest)
    return [job.map_file for job in jobs if job.map_file.exists()]


def _explainer(out):
    require("lab", "captum")
    from artclf.model.explainer import Explainer  # imports captum

    return Explainer(exports.load(out, measured=True))


def _worst_errors(predictions: pd.DataFrame, n: int) -> pd.DataFrame:
    """The wrong rows with the highest loss: those of part test first, then of valid."""
    wrong = predictions.period != predictions.predicted
    rows = predictions[wrong & predictions.part.isin(["test", "valid"])]
    return rows.sort_values(["part", "loss"], ascending=[True, False], kind="stable").head(n)


def _read(explainer, file: Path) -> tuple[torch.Tensor, tuple[int, int]] | None:
    """The picture in `file` as an input of the network, and its width and height; None, with a
    warning, where it can't be read.
    """
    try:
        return explainer.picture(file), open_rgb(file).size
    except Rejected as error:
        warnings.warn(f"{file} can't be read ({error}): it gets no map", stacklevel=2)
        return None


def _write_maps(explainer, batch: list[tuple], longest: int):
    """Write the maps of a batch of pairs (job, result of `_read`)."""
    readable = [(job, *picture) for job, picture in batch if picture is not None]
    if not readable:
        return
    jobs, inputs, sizes = zip(*readable, strict=True)
    x = torch.stack(inputs).to(explainer.device)
    maps = explainer.maps(x, [job.predicted for job in jobs], METHOD)
    for job, values, size in zip(jobs, maps, sizes, strict=True):
        image = _grey(values, size, explainer.config["resize"], longest)
        replace_whole(job.map_file, partial(image.save, format="JPEG", quality=80))


def map_png(explainer, picture: bytes, period: str, longest: int) -> bytes:
    """What spoke for `period` in a picture, as a grey PNG: from black for 0 to white for the
    highest value, in the shape of the whole picture, `longest` px on its longer side at most.

    Raises Rejected for a picture that can't be read.
    """
    x = explainer.pictures([picture])
    [values] = explainer.maps(x, [period], METHOD)
    size = open_rgb(picture, longest).size
    image = _grey(values, size, explainer.config["resize"], longest)
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _grey(values: np.ndarray, size: tuple[int, int], resize: str, longest: int) -> Image.Image:
    """A map of the network's input, (size, size), on the picture of `size` (width, height)."""
    shares = (values / max(values.max(), 1e-12)).clip(0, 1)
    grey = Image.fromarray((255 * shares).round().astype(np.uint8))
    image = unresized(grey, size, resize)
    image.thumbnail((longest, longest))
    return image


def unresized(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """A square map of what the network saw, on the whole picture of `size` (width, height) that the
    network's input was made from.

    What `crop` cut away is black.
    """
    if resize == "squish":
        return image.resize(size)
    width, height = size
    side = min(size) if resize == "crop" else max(size)
    whole = Image.new("L", size)
    whole.paste(image.resize((side, side)), ((width - side) // 2, (height - side) // 2))
    return whole
