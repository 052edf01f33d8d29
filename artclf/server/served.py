"""Served: an export in memory, and what it answers for one picture.

Reads an export, and the data set where there is one; uploads stay in memory.
"""

import hashlib
import math
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import artclf
from artclf.answers import inputs
from artclf.base.errors import InputError
from artclf.base.files import read_json
from artclf.base.machine import limit_freed_memory
from artclf.data.classes import spoken
from artclf.data.intake import Failure, probe
from artclf.data.pictures import Rejected
from artclf.results import calibration, embeddings, evaluation
from artclf.results.neighbours import Neighbours
from artclf.server.batching import Batcher

ACCURACY = 0.8  # at which it answers, unless asked otherwise
HALF = 0.5  # the least probability of an answer where no limit reaches that accuracy
NEAREST = 6
LARGE = 8_000_000  # pixels
SALIENCY_SIZE = 512  # px, longer side of a map


class NoSaliency(Exception):
    """This server draws no saliency maps, and why."""


@dataclass(frozen=True)
class Settings:
    """How answers are made: see step `serve`."""

    backend: str = "torch"
    data: Path | None = None
    min_probability: float | None = None
    max_pixels: int = 50_000_000
    seconds: float = 60


class Served:
    """The export in folder `out`, ready to answer. Raises what `artclf.load` raises."""

    def __init__(
        self,
        out,
        settings: Settings = Settings(),
        on_batch: Callable[[int], None] = lambda size: None,
        classifier=None,
    ):
        self.out = Path(out)
        self.settings = settings
        self.classifier = classifier or artclf.load(out, backend=settings.backend)
        limit_freed_memory()
        self.vocab = self.classifier.vocab
        asked = settings.min_probability
        self.min_probability = _least_probability(self.out) if asked is None else asked
        self.version = _version(self.out)
        self.neighbours, self.without_neighbours = _neighbours(out, settings.data, self.version)
        self.facts = self._describe()
        self._explainer_lock = threading.Lock()
        self._explainer = None
        self.batcher = Batcher(self.classifier.answer, on_batch=on_batch)
        try:
            self._warm_up()
        except BaseException:
            self.batcher.close()
            raise

    def pixels(self, content: bytes) -> np.ndarray:
        """An upload as the network sees it. Raises Rejected, which says why it can't be used."""
        try:
            form, width, height = probe(content, max_pixels=self.settings.max_pixels)
        except Failure as failure:
            raise Rejected(_too_many(self.settings.max_pixels, failure.reason)) from failure
        # a large JPEG is decoded at a part of its size
        if width * height <= LARGE or form in ("JPEG", "MPO"):
            with _DECODING:
                return inputs.pixels(content, self.classifier.config)
        with _DECODING_LARGE:
            try:
                return inputs.pixels(content, self.classifier.config)
            finally:
                limit_freed_memory()

    def answers(
        self, uploads: Sequence[tuple[str, bytes | Rejected]], k: int, nearest: int
    ) -> list[dict]:
        """What /api/predict says of uploads, pairs of a name and the bytes, in their order.

        `k` is how many classes each names, `nearest` how many training pictures. Raises
        TimeoutError where the network takes too long.
        """
        submitted: list[Future | str] = []
        for _, content in uploads:
            try:
                if isinstance(content, Rejected):
                    raise content
                submitted.append(self.batcher.submit(self.pixels(content)))
            except Rejected as error:
                submitted.append(str(error))
        results = []
        for (name, _), answer in zip(uploads, submitted, strict=True):
            if isinstance(answer, str):
                results.append({"name": name, "error": answer})
            else:
                probabilities, features = answer.result(self.settings.seconds)
                results.append(self.result(name, probabilities, features, k, nearest))
        return results

    def result(
        self, name: str, probabilities: np.ndarray, features: np.ndarray, k: int, nearest: int
    ) -> dict:
        """One of the results of /api/predict, of a picture that could be read."""
        periods = probabilities[: len(self.vocab)]
        order = np.argsort(-periods, kind="stable")
        top = [
            {"period": self.vocab[place], "probability": _short(periods[place])} for place in order
        ]
        is_sure = bool(periods[order[0]] >= self.min_probability)
        distance = self.neighbours.distance(features) if self.neighbours else None
        is_far = distance is not None and distance > 1
        result = {
            "name": name,
            "error": "",
            "predicted": top[0]["period"] if is_sure else None,
            "sure": is_sure,
            "answer": _in_words([item["period"] for item in top], is_sure, is_far),
            "far": is_far,
            "distance": None if distance is None else round(distance, 3),
            "top": top[:k],
            "probabilities": dict(zip(self.vocab, map(_short, periods), strict=True)),
            "nearest": self.neighbours.nearest(features, nearest) if self.neighbours else [],
        }
        artists = probabilities[len(self.vocab) :]
        if len(artists):
            result["artist"] = self.classifier.artists[artists.argmax()]
            result["artist_probability"] = _short(artists.max())
        return result

    def saliency(self, content: bytes, period: str | None) -> bytes:
        """What spoke for `period`, by default for the likeliest one: a grey PNG of the shape of the
        picture, black for 0, white for the highest value.

        Raises NoSaliency where this server can't draw one, Rejected for an upload that can't be
        used, InputError for a class that the network doesn't know.
        """
        if self.settings.backend != "torch":
            raise NoSaliency("saliency maps need the torch backend: serve with --backend torch")
        if period is not None and period not in self.vocab:
            raise InputError(f"{period!r}: no class of this network")
        pixels = self.pixels(content)
        with self._explainer_lock:
            if self._explainer is None:
                self._explainer = _explainer(self.classifier)
            if period is None:
                probabilities, _ = self.batcher.submit(pixels).result(self.settings.seconds)
                period = self.vocab[int(probabilities[: len(self.vocab)].argmax())]
            from artclf.results.saliency import map_png

            return map_png(self._explainer, content, period, SALIENCY_SIZE)

    def close(self):
        """Answer what is under way, then stop."""
        self.batcher.close()

    def _warm_up(self):
        """Ask about a grey picture, so that the first visitor needn't wait; raise InputError where
        the answer is none.
        """
        size = self.classifier.config["size"]
        grey = np.full((3, size, size), 128, np.uint8)
        probabilities, features = self.batcher.submit(grey).result()
        total = float(probabilities[: len(self.vocab)].sum())
        if not np.isfinite(features).all() or not abs(total - 1) < 1e-3:  # nan isn't
            raise InputError(f"the network in {self.out} gives no probabilities: train again")
        self.result("", probabilities, features, 1, NEAREST)

    def _describe(self) -> dict:
        """What /api/model says."""
        figures = read_json(self.out / "metrics.json").get("metrics", {})
        part = next((name for name in ("test", "valid") if name in figures), None)
        config = self.classifier.config
        return {
            "name": self.out.resolve().name,
            "architecture": config["name"],
            "backend": self.settings.backend,
            "version": self.version,
            "classes": [{"period": name, "label": spoken(name)} for name in self.vocab],
            "chronological": all(re.match(r"\d", name) for name in self.vocab),
            "size": config["size"],
            "min_probability": round(self.min_probability, 5),
            "saliency": self.settings.backend == "torch" and find_spec("captum") is not None,
            "nearest": self.neighbours is not None,
            "far": self.neighbours is not None and self.neighbours.limit is not None,
            "figures": None
            if part is None
            else {
                "part": part,
                "images": figures[part]["images"],
                "accuracy": round(figures[part]["accuracy"], 4),
                "macro_f1": round(figures[part]["macro_f1"], 4),
            },
        }


class Current:
    """The export that is served now; `reload` puts the one that lies in its folder now in its
    place.
    """

    def __init__(self, load: Callable[[], Served]):
        self._load = load
        self._reloading = threading.Lock()
        self.served = load()

    def reload(self) -> Served:
        """Load the export again and serve that; requests under way are answered by the one before.

        Raises what loading raises; then the one before stays.
        """
        with self._reloading:
            new = self._load()
            old, self.served = self.served, new
            old.close()
            return new


# as many decoders as processors, but one for large pictures, which take hundreds of megabytes
_DECODING = threading.BoundedSemaphore(os.cpu_count() or 1)
_DECODING_LARGE = threading.Lock()


def _explainer(classifier):
    from artclf.base.extras import require

    try:
        require("lab", "captum")
        from artclf.model.explainer import Explainer

        return Explainer(classifier)
    except (ImportError, InputError) as error:
        raise NoSaliency(str(error)) from error


def _version(out: Path) -> str:
    """A name of what is in an export: it changes with the network, and with its embeddings."""
    content = hashlib.sha256()
    for name in ("config.json", embeddings.NAME):
        if (out / name).exists():
            content.update((out / name).read_bytes())
    return content.hexdigest()[:12]


def _neighbours(out, data, version: str) -> tuple[Neighbours | None, str]:
    """The neighbours in an export, or None and why there are none."""
    try:
        return Neighbours(out, data, f"/api/thumbnails/{version}/"), ""
    except (FileNotFoundError, InputError) as error:
        if data is not None and not (Path(data) / "catalogue.db").exists():
            raise
        return None, str(error)


def _least_probability(out: Path) -> float:
    """The probability from which on four answers in five were right on the part valid; a half
    where there is none.
    """
    file = out / "predictions.csv"
    if not file.exists():
        return HALF
    predictions = evaluation.read_table(file)
    least = calibration.threshold(predictions[predictions.part == "valid"], ACCURACY)
    return HALF if math.isnan(least) else float(least)


def _in_words(periods: list[str], is_sure: bool, is_far: bool) -> str:
    """The answer as a sentence says it; `periods` are the likeliest first."""
    if is_sure or len(periods) == 1:
        answer = spoken(periods[0])
    else:
        first, second = periods[:2]
        answer = f"not sure, between {spoken(first)} and {spoken(second)}"
    if is_far:
        answer = f"unlike all pictures that it learned from; nearest to {spoken(periods[0])}"
    return answer


def _too_many(max_pixels: int, reason: str) -> str:
    if reason == "too many pixels":
        return f"over {max_pixels / 1e6:g} megapixels"
    return reason


def _short(probability) -> float:
    return round(float(probability), 5)
