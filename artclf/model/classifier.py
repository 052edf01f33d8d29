"""A trained classifier: what it answers for pictures of any kind, one or many.

Reads pictures; made by `exports.load` from an export.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner
from PIL import Image

from artclf.base import settings
from artclf.base.threads import prefetch
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.data.pictures import Rejected, square
from artclf.model import network


class Classifier:
    """A trained classifier of art periods: `vocab` are its classes, `learner` is a fastai
    `Learner`.

    Its probabilities are calibrated by `config["temperature"]`, those of `learner` are not.
    Prediction may run in several threads at once.
    """

    def __init__(self, learner: Learner, config: dict):
        self.learner = learner
        self.config = config
        self.vocab = config["vocab"]
        self.artists = config.get("artists", [])
        self._model = learner.model.eval()
        self._device = learner.dls.device
        self._mean = torch.tensor(config["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(config["std"], device=self._device).view(3, 1, 1)
        learner.model = network.keep_outputs(learner.model, len(self.vocab))

    def predict(
        self, images, k: int = 3, batch_size: int = 64, min_probability: float | None = None
    ) -> pd.DataFrame:
        """A row per image, in the order given: `image, predicted, probability, top, error`.

        `images` is one or many of: a path, a folder (the pictures in it), bytes, a PIL image, an
        array of shape (height, width) or (height, width, 3 or 4) and type uint8. `top` lists `k`
        pairs of class and probability, the likeliest first. A network of artists adds `artist,
        artist_probability`. Where an image can't be read, `error` says why and the others go on.

        With `min_probability`, `predicted` is missing where the likeliest class is less likely than
        that, and a column `answer` says it in words: `baroque`, or `not sure, between baroque and
        rococo`; '' where there is an error. Raises SettingError for a `k` below 1, or a
        `min_probability` that is none.
        """
        settings.check(k=k)
        if min_probability is not None:
            settings.check(min_probability=min_probability)
        names, sources = _list_images(images)
        probabilities, errors = self.probabilities(sources, batch_size)
        periods = probabilities[:, : len(self.vocab)]
        artists = probabilities[:, len(self.vocab) :]
        rows: list[tuple] = []
        for name, row, error in zip(names, periods, errors, strict=True):
            if error:
                rows.append((name, None, np.nan, [], error))
            else:
                top = self._top(row, k)
                predicted, probability = top[0]
                rows.append((name, predicted, probability, top, error))
        table = pd.DataFrame(rows, columns=["image", "predicted", "probability", "top", "error"])
        if min_probability is not None:
            table = self._answer(table, periods, min_probability)
        if self.artists:
            table = self._add_artists(table, artists)
        return table

    def probabilities(self, sources: list, batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Probabilities of shape (images, classes), NaN in the rows of unreadable images, and an
        error text for each.

        Artists, if any, follow the classes.
        """
        probabilities, _, errors = self.predict_arrays(sources, batch_size)
        return probabilities, errors

    def predict_arrays(
        self, sources: list, batch_size: int = 64
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Probabilities (images, classes), features that enter the head (images, features), and an
        error text for each image.

        While the network computes one batch, the next one is decoded.
        """
        answers = len(self.vocab) + len(self.artists)
        features = self._model[0].n_features
        arrays = np.full((len(sources), answers + features), np.nan, dtype=np.float32)
        errors = [""] * len(sources)
        for start, batch in prefetch(self._pixels, sources, batch_size):
            places = []
            pixels = []
            for place, item in enumerate(batch, start):
                if isinstance(item, Rejected):
                    errors[place] = str(item)
                else:
                    places.append(place)
                    pixels.append(item)
            if pixels:
                arrays[places] = self._forward(torch.stack(pixels))
        return arrays[:, :answers], arrays[:, answers:], errors

    def _top(self, row: np.ndarray, k: int) -> list[tuple[str, float]]:
        best = np.argsort(-row, kind="stable")[:k]
        return [(self.vocab[place], float(row[place])) for place in best]

    def _answer(self, table, periods: np.ndarray, min_probability: float) -> pd.DataFrame:
        """`table` without unsure predictions, and with the column `answer`."""
        unsure = table.probability < min_probability
        answers = []
        for row, is_unsure, error in zip(periods, unsure, table.error, strict=True):
            names = [_spoken(name) for name, _ in self._top(row, 2)]
            if error:
                answers.append("")
            elif is_unsure:
                answers.append(f"not sure, between {' and '.join(names)}")
            else:
                answers.append(names[0])
        return table.assign(
            predicted=table.predicted.where(~unsure, None),
            answer=pd.Series(answers, dtype=object),
        )

    def _add_artists(self, table, artists: np.ndarray) -> pd.DataFrame:
        names = []
        for place, error in zip(artists.argmax(1), table.error, strict=True):
            names.append(None if error else self.artists[place])
        return table.assign(artist=names, artist_probability=artists.max(1).astype(float))

    def _pixels(self, source) -> torch.Tensor | Rejected:
        """`source` as bytes of shape (3, size, size), resized as in training."""
        try:
            pixels = square(source, self.config["size"], self.config["resize"])
        except Rejected as error:
            return error
        return torch.from_numpy(pixels)

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> np.ndarray:
        """Probabilities and features side by side: (images, classes + artists + features)."""
        x = pixels.to(self._device).float() / 255
        features = self._model[0]((x - self._mean) / self._std)
        return torch.cat([self._answers(features), features], dim=1).float().cpu().numpy()

    @torch.inference_mode()
    def of_features(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (images, classes) of pictures whose features (images, features) are known;
        artists, if any, follow the classes.
        """
        return self._answers(torch.from_numpy(features).to(self._device)).float().cpu().numpy()

    def _answers(self, features: torch.Tensor) -> torch.Tensor:
        logits = self._model[1](features)
        periods = logits[:, : len(self.vocab)] / self.config["temperature"]  # fitted on periods
        artists = logits[:, len(self.vocab) :]
        return torch.cat([periods.softmax(dim=1), artists.softmax(dim=1)], dim=1)


def _spoken(name: str) -> str:
    """`05-high_baroque` as one says it: high baroque."""
    return re.sub(r"^\d+-(?=.)", "", name).replace("_", " ")


def _list_images(images) -> tuple[list[str], list]:
    """A name for each image (its path, or its place), and the images one by one."""
    is_one = isinstance(images, str | Path | bytes | np.ndarray | Image.Image)
    if is_one or not isinstance(images, Iterable):
        images = [images]
    sources = []
    for image in images:
        sources += _pictures_in(image)
    names = []
    for place, source in enumerate(sources):
        names.append(str(source) if isinstance(source, str | Path) else f"image {place}")
    return names, sources


def _pictures_in(image) -> list:
    """The pictures in `image` if that is a folder, else `image` alone."""
    if not isinstance(image, str | Path):
        return [image]
    if not os.path.isdir(image):  # noqa: PTH112 (Path.is_dir raises for some texts)
        return [image]
    files = Path(image).rglob("*")
    return sorted(
        file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )
