"""A trained classifier: what it answers for pictures of any kind, one or many.

Reads pictures; made by `exports.load` from an export.
"""

import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch
from fastai.learner import Learner

from artclf.base import settings
from artclf.base.machine import keep_freed_memory
from artclf.base.threads import prefetch
from artclf.data.pictures import Rejected
from artclf.data.web import WebPictures
from artclf.model import inputs, network

COLUMNS = ["image", "predicted", "probability", "top", "error"]
NUMBERS = ("probability", "artist_probability")  # all other columns are of any objects


class Classifier:
    """A trained classifier of art periods: `vocab` are its classes, `learner` is a fastai
    `Learner`.

    Its probabilities are calibrated by `config["temperature"]`, those of `learner` are not.
    Prediction may run in several threads at once. The process keeps the memory that it frees from
    now on (see `machine.keep_freed_memory`).
    """

    def __init__(self, learner: Learner, config: dict):
        self.learner = learner
        self.config = config
        self.vocab = config["vocab"]
        self.artists = config.get("artists", [])
        keep_freed_memory()
        self._model = learner.model.eval()
        self._device = learner.dls.device
        self._mean = torch.tensor(config["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(config["std"], device=self._device).view(3, 1, 1)
        learner.model = network.keep_outputs(learner.model, len(self.vocab))

    def predict(
        self, images, k: int = 3, batch_size: int = 64, min_probability: float | None = None
    ) -> pd.DataFrame:
        """A row per image, in the order given: `image, predicted, probability, top, error`.

        `images` is one or many, nested as they come, of: a path (`~` is the home), a folder (the
        pictures in it), an http(s) URL (fetched as step download does it), the bytes of a file in
        any form, an open file, the value of ipywidgets' FileUpload, a PIL image, an array or tensor
        (see `arrays`), a batch of these, a table with the column `file`. `top` lists `k` pairs of
        class and probability, the likeliest first. A network of artists adds `artist,
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
        for batch in self._batches(images, batch_size):
            yield self._table(*batch, k, min_probability)
            is_empty = False
        if is_empty:
            yield self._table([], self._no_answers(0), [], k, min_probability)

    def probabilities(self, images, batch_size: int = 64) -> tuple[np.ndarray, list[str]]:
        """Probabilities of shape (images, classes), NaN in the rows of unreadable images, and an
        error text for each; `images` is what `predict` takes.

        Artists, if any, follow the classes.
        """
        probabilities = [self._no_answers(0)]
        errors: list[str] = []
        for _, rows, texts in self._batches(images, batch_size):
            probabilities.append(rows)
            errors += texts
        return np.concatenate(probabilities), errors

    def _batches(
        self, images, batch_size: int
    ) -> Iterator[tuple[list[str], np.ndarray, list[str]]]:
        """For each batch of `images` their names, probabilities (images, classes + artists), and
        error texts.

        While the network computes one batch, the next one is decoded.
        """
        with WebPictures() as web:
            pictures = inputs.stream(images)
            for _, batch in prefetch(partial(self._pixels, web), pictures, batch_size):
                names, pixels = zip(*batch, strict=True)
                errors = [str(item) if isinstance(item, Rejected) else "" for item in pixels]
                readable = [place for place, error in enumerate(errors) if not error]
                probabilities = self._no_answers(len(batch))
                if readable:
                    stacked = torch.stack([pixels[place] for place in readable])
                    probabilities[readable] = self._forward(stacked)
                yield list(names), probabilities, errors

    def _no_answers(self, count: int) -> np.ndarray:
        answers = len(self.vocab) + len(self.artists)
        return np.full((count, answers), np.nan, dtype=np.float32)

    def _table(
        self,
        names: list[str],
        probabilities: np.ndarray,
        errors: list[str],
        k: int,
        min_probability: float | None,
    ) -> pd.DataFrame:
        """The table of `predict` for one batch."""
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
        answer = _spoken(likeliest)
        if min_probability is not None and probability < min_probability:
            predicted = None
            answer = f"not sure, between {' and '.join(_spoken(name) for name, _ in top[:2])}"
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

    def _pixels(self, web: WebPictures, named: tuple) -> tuple[str, torch.Tensor | Rejected]:
        """The name of a picture and its pixels, of shape (3, size, size), resized as in training."""
        name, picture = named
        try:
            return name, torch.from_numpy(inputs.pixels(picture, self.config, web))
        except Rejected as error:
            return name, error

    @torch.inference_mode()
    def _forward(self, pixels: torch.Tensor) -> np.ndarray:
        """Probabilities of shape (images, classes + artists)."""
        x = pixels.to(self._device).float() / 255
        features = self._model[0]((x - self._mean) / self._std)
        return self._answers(features).float().cpu().numpy()

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
