"""What a trained classifier answers for pictures of any kind, one or many, whatever computes it.

Reads pictures. `model.classifier` computes with torch, `answers.onnx` with onnxruntime.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from artclf.answers import inputs
from artclf.answers.exports import WEIGHTS
from artclf.base import settings
from artclf.base.machine import keep_freed_memory
from artclf.base.threads import prefetch
from artclf.data.classes import spoken
from artclf.data.pictures import Rejected
from artclf.data.web import WebPictures

COLUMNS = ["image", "predicted", "probability", "top", "error"]
NUMBERS = ("probability", "artist_probability")  # all other columns are of any objects


class Predictor(ABC):
    """A trained classifier of art periods: `vocab` are its classes, `artists` the artists that it
    knows, if any, `n_features` is the number of its features, `file` the name of the file in the
    export that holds the network.

    A subclass computes the network. Prediction may run in several threads at once. The process
    keeps the memory that it frees from now on (see `machine.keep_freed_memory`).
    """

    n_features: int
    file = WEIGHTS

    def __init__(self, config: dict):
        self.config = config
        self.vocab = config["vocab"]
        self.artists = config.get("artists", [])
        keep_freed_memory()

    @abstractmethod
    def _forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (images, classes + artists) and features (images, n_features) of pictures."""

    def answer(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (images, classes + artists), calibrated, and features (images, n_features)
        of pictures, both float32.

        `pixels` are uint8 of shape (images, 3, size, size), as `inputs.pixels` gives them.
        """
        logits, features = self._forward(pixels)
        return self.calibrated(logits), features

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities of periods and of artists from logits, both (images, classes + artists); the
        temperature was fitted on periods.
        """
        periods = logits[:, : len(self.vocab)] / np.float32(self.config["temperature"])
        artists = logits[:, len(self.vocab) :]
        return np.concatenate([_softmax(periods), _softmax(artists)], axis=1)

    def predict(
        self, images, k: int = 3, batch_size: int = 64, min_probability: float | None = None
    ) -> pd.DataFrame:
        """A row per image, in the order given: `image, predicted, probability, top, error`.

        `images` is one or many, nested as they come, of: a path (`~` is the home), a folder or a pack
        (the pictures in it), an http(s) URL (fetched as step download does it), the bytes of a file
        in any form, an open file, the value of ipywidgets' FileUpload, a PIL image, an array or
        tensor (see `arrays`), a batch of these, a table with the column `file`. `top` lists `k` pairs
        of class and probability, the likeliest first. A network of artists adds `artist,
        artist_probability`. Where an image can't be read, or may be read in two ways, `predicted` is
        None and `error` says why; the others go on.

        With `min_probability`, `predicted` is None where the likeliest class is less likely than
        that, and a column `answer` says it in words: `baroque`, or `not sure, between baroque and
        rococo`; '' where there is an error. Raises SettingError for a `k` below 1, or a
        `min_probability` that is none.
        """
        tables = list(self.predict_batches(images, k, batch_size, min_probability))
        return pd.concat(tables, ignore_index=True)

    def predict_batches(
        self, images, k: int = 3, batch_size: int = 64, min_probability: float | None = None
    ) -> Iterator[pd.DataFrame]:
        """What `predict` returns, a table for each batch, for more images than one table can hold;
        one empty table where there are none.

        An iterator of images is consumed two batches ahead. Raises as `predict` does.
        """
        settings.check(k=k)
        if min_probability is not None:
            settings.check(min_probability=min_probability)
        is_empty = True
        for names, probabilities, _, errors in self._batches(images, batch_size):
            yield self.table(names, probabilities, errors, k, min_probability)
            is_empty = False
        if is_empty:
            yield self.table([], self._no_answers(0), [], k, min_probability)

    def probabilities(self, images, batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Probabilities of shape (images, classes), NaN in the rows of unreadable images, and an
        error text for each; `images` is what `predict` takes.

        Artists, if any, follow the classes.
        """
        probabilities = [self._no_answers(0)]
        errors: list[str] = []
        for _, rows, _, texts in self._batches(images, batch_size):
            probabilities.append(rows)
            errors += texts
        return np.concatenate(probabilities), errors

    def probabilities_and_features(
        self, images, batch_size: int = 64
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """What `probabilities` returns, with the features, (images, n_features), in the middle; NaN
        in the rows of unreadable images.
        """
        probabilities = [self._no_answers(0)]
        features = [self._no_features(0)]
        errors: list[str] = []
        for _, rows, rows_of_features, texts in self._batches(images, batch_size):
            probabilities.append(rows)
            features.append(rows_of_features)
            errors += texts
        return np.concatenate(probabilities), np.concatenate(features), errors

    def _batches(
        self, images, batch_size: int
    ) -> Iterator[tuple[list[str], np.ndarray, np.ndarray, list[str]]]:
        """For each batch of `images` their names, probabilities (images, classes + artists),
        features (images, n_features), and error texts.

        While the network computes one batch, the next one is decoded.
        """
        with WebPictures() as web:
            pictures = inputs.stream(images)
            for _, batch in prefetch(partial(self._pixels, web), pictures, batch_size):
                names, pixels = zip(*batch, strict=True)
                errors = [str(item) if isinstance(item, Rejected) else "" for item in pixels]
                readable = [place for place, error in enumerate(errors) if not error]
                probabilities = self._no_answers(len(batch))
                features = self._no_features(len(batch))
                if readable:
                    stacked = np.stack([pixels[place] for place in readable])
                    probabilities[readable], features[readable] = self.answer(stacked)
                yield list(names), probabilities, features, errors

    def _no_features(self, count: int) -> np.ndarray:
        return np.full((count, self.n_features), np.nan, dtype=np.float32)

    def _no_answers(self, count: int) -> np.ndarray:
        answers = len(self.vocab) + len(self.artists)
        return np.full((count, answers), np.nan, dtype=np.float32)

    def table(
        self,
        names: list[str],
        probabilities: np.ndarray,
        errors: list[str],
        k: int = 3,
        min_probability: float | None = None,
    ) -> pd.DataFrame:
        """The table of `predict` for pictures whose probabilities, (images, classes + artists), are
        known; `errors` are '' but for those without.
        """
        rows: list[dict] = []
        for name, row, error in zip(names, probabilities, errors, strict=True):
            rows.append(self._answer(name, row, error, k, min_probability))
        columns = [*COLUMNS]
        if min_probability is not None:
            columns.append("answer")
        if self.artists:
            columns += ["artist", "artist_probability"]
        # objects, because pandas' own texts turn None into nan
        table = pd.DataFrame(rows, columns=columns, dtype=object)
        return table.astype({name: float for name in NUMBERS if name in columns})

    def _answer(
        self, name: str, row: np.ndarray, error: str, k: int, min_probability: float | None
    ) -> dict:
        """The row of the table for one image; what is not asked for is left out by its columns."""
        if error:
            return {
                "image": name,
                "predicted": None,
                "probability": np.nan,
                "top": [],
                "error": error,
                "answer": "",
                "artist": None,
                "artist_probability": np.nan,
            }
        top = self._top(row[: len(self.vocab)], max(k, 2))
        likeliest, probability = top[0]
        predicted: str | None = likeliest
        answer = spoken(likeliest)
        if min_probability is not None and probability < min_probability:
            predicted = None
            answer = f"not sure, between {' and '.join(spoken(name) for name, _ in top[:2])}"
        answers = {
            "image": name,
            "predicted": predicted,
            "probability": probability,
            "top": top[:k],
            "error": "",
            "answer": answer,
        }
        if self.artists:
            artists = row[len(self.vocab) :]
            answers["artist"] = self.artists[artists.argmax()]
            answers["artist_probability"] = float(artists.max())
        return answers

    def _top(self, row: np.ndarray, k: int) -> list[tuple[str, float]]:
        best = np.argsort(-row, kind="stable")[:k]
        return [(self.vocab[place], float(row[place])) for place in best]

    def _pixels(self, web: WebPictures, named: tuple) -> tuple[str, np.ndarray | Rejected]:
        """The name of a picture and its pixels, of shape (3, size, size), resized as in training."""
        name, picture = named
        try:
            return name, inputs.pixels(picture, self.config, web)
        except Rejected as error:
            return name, error


def _softmax(logits: np.ndarray) -> np.ndarray:
    if not logits.shape[1]:
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
