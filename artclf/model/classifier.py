"""A trained classifier: what it answers for pictures of any kind, one or many.

Reads pictures; made by `predict.load` from an export.
"""

import os
import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from fastai.vision.all import PILImage, Resize
from PIL import Image, ImageOps

from artclf.base.errors import InputError
from artclf.base.threads import prefetch
from artclf.data.galleries import IMAGE_SUFFIXES
from artclf.data.pictures import DECODER_ERRORS, Rejected, open_rgb, shrink, to_rgb
from artclf.model import network


class Classifier:
    """A trained classifier of art periods: `vocab` are its classes, `learner` is a fastai
    `Learner`.

    Its probabilities are tempered by `config["temperature"]`, those of `learner` are not.
    Prediction may run in several threads at once.
    """

    def __init__(self, learner: Learner, config: dict):
        self.learner, self.config = learner, config
        self.vocab, self.artists = config["vocab"], config.get("artists", [])
        self._model, self._device = learner.model.eval(), learner.dls.device
        learner.model = network.of_periods(learner.model, len(self.vocab))
        self._resize = learner.dls.after_item.fs.filter(lambda tfm: isinstance(tfm, Resize))[0]
        self._mean, self._std = (
            torch.tensor(config[name], device=self._device).view(3, 1, 1)
            for name in ("mean", "std")
        )

    def predict(
        self, images, k: int = 3, batch_size: int = 64, min_probability: float | None = None
    ) -> pd.DataFrame:
        """A row per image, in the order given: `image, predicted, probability, top, error`.

        `images` is one or many of: a path, a folder (the pictures in it), bytes, a PIL image, an
        array of shape (height, width) or (height, width, 3 or 4) and type uint8. `top` lists `k`
        pairs of class and probability, the likeliest first. A network of artists, too, adds
        `artist, artist_probability`. Where an image can't be read, `error` says why and the others
        go on. With `min_probability`, `predicted` is missing where the likeliest class is less
        likely than that, and a column `answer` says it in words: `baroque`, or `not sure, between
        baroque and rococo`; '' where there is an error. Raises ValueError for a `k` below 1, or a
        `min_probability` that is none.
        """
        if k < 1:
            raise InputError(f"k is {k}: ask for the likeliest class at least")
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise InputError(
                f"min_probability is {min_probability}: take one from 0 to 1, such as 0.7"
            )
        names, sources = _listed(images)
        probabilities, errors = self.probabilities(sources, batch_size)
        (periods, artists), rows = np.split(probabilities, [len(self.vocab)], axis=1), []
        for name, p, error in zip(names, periods, errors, strict=True):
            top = (
                []
                if error
                else [(self.vocab[i], float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]
            )
            rows.append((name, *(top[0] if top else (None, np.nan)), top, error))
        table = pd.DataFrame(rows, columns=["image", "predicted", "probability", "top", "error"])
        if min_probability is not None:
            table = self._sure(table, periods, min_probability)
        if not self.artists:
            return table
        best = [
            None if error else self.artists[i]
            for i, error in zip(artists.argmax(1), errors, strict=True)
        ]
        return table.assign(artist=best, artist_probability=artists.max(1).astype(float))

    def probabilities(self, sources: list, batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Probabilities of shape (images, classes), NaN in the rows of unreadable images, and an
        error text for each.

        Artists, if any, follow the classes.
        """
        probabilities, _, errors = self.look(sources, batch_size)
        return probabilities, errors

    def look(self, sources: list, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`probabilities`, and between the two the features that enter the head, of shape (images,
        numbers).

        While the network looks at one batch, the next one is decoded.
        """
        answers, errors = len(self.vocab) + len(self.artists), [""] * len(sources)
        found = np.full((len(sources), answers + self._model[0].width), np.nan, dtype=np.float32)
        for start, batch in prefetch(self._pixels, sources, batch_size):
            for i, item in enumerate(batch, start):
                if isinstance(item, Rejected):
                    errors[i] = str(item)
            good = [i for i, item in enumerate(batch) if not isinstance(item, Rejected)]
            if good:
                found[[start + i for i in good]] = self._forward(
                    torch.stack([batch[i] for i in good])
                )
        return found[:, :answers], found[:, answers:], errors

    def _sure(self, table, p: np.ndarray, least: float) -> pd.DataFrame:
        """`table` without the predictions that are less likely than `least`, and with the column
        `answer`.
        """
        unsure = table.probability < least
        names = [
            [_plain(self.vocab[i]) for i in row]
            for row in np.argsort(-p, axis=1, kind="stable")[:, :2]
        ]
        words = [
            f"not sure, between {' and '.join(pair)}" if doubt else pair[0]
            for pair, doubt in zip(names, unsure, strict=True)
        ]
        return table.assign(
            predicted=table.predicted.where(~unsure, None),
            answer=pd.Series(words, dtype=object).where(table.error == "", ""),
        )

    def _pixels(self, source) -> torch.Tensor | Rejected:
        """`source` as bytes of shape (3, size, size), brought to size as in training."""
        try:
            return torch.from_numpy(
                np.array(self._resize(PILImage(_opened(source)), split_idx=1))
            ).permute(2, 0, 1)
        except Rejected as e:
            return e

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> np.ndarray:
        x = pixels.to(self._device).float() / 255
        body, head = self._model
        features = body((x - self._mean) / self._std)
        periods, artists = head(features).split([len(self.vocab), len(self.artists)], dim=1)
        both = (
            (periods / self.config["temperature"]).softmax(dim=1),
            artists.softmax(dim=1),
        )  # fitted on periods alone
        return torch.cat([*both, features], dim=1).float().cpu().numpy()


def _plain(name: str) -> str:
    """`05-high_baroque` as one says it: high baroque."""
    return re.sub(r"^\d+-(?=.)", "", name).replace("_", " ")


def _listed(images) -> tuple[list[str], list]:
    """The images one by one, and a name for each: its path, or its place."""
    one = isinstance(images, str | Path | bytes | np.ndarray | Image.Image) or not isinstance(
        images, Iterable
    )
    many = [picture for image in ([images] if one else images) for picture in _pictures(image)]
    return [
        str(image) if isinstance(image, str | Path) else f"image {i}"
        for i, image in enumerate(many)
    ], many


def _pictures(image) -> list:
    """The pictures in `image` if that is a folder, else `image` alone."""
    folder = isinstance(image, str | Path) and os.path.isdir(image)  # noqa: PTH112 (Path.is_dir raises for some texts)
    if not folder:
        return [image]
    return sorted(
        p for p in Path(image).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()
    )


def _opened(source) -> Image.Image:
    if isinstance(source, str | Path):
        return open_rgb(source)
    if isinstance(source, bytes):
        return open_rgb(BytesIO(source))
    try:
        im = Image.fromarray(source) if isinstance(source, np.ndarray) else source
        if not isinstance(im, Image.Image) or not min(im.size):
            raise InputError("no pixels")
        return shrink(
            to_rgb(ImageOps.exif_transpose(im)), 500
        )  # a copy: the caller's picture stays as it is
    except DECODER_ERRORS as e:
        raise Rejected(
            f"{type(source).__name__} {getattr(source, 'shape', '')} is not a picture ({e})"
        ) from e
