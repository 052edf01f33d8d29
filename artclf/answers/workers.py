"""Answers by workers: each has the network for itself, and names of files travel to it.

Reads pictures. `batch.save` uses it where it is given workers.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from artclf.answers.classifier import Predictor
from artclf.answers.inputs import Named, is_url
from artclf.base.errors import InputError, StepError
from artclf.base.processes import MapJobs, in_chunks
from artclf.data.packs import PackedPicture
from artclf.data.pictures import MISSING


@dataclass
class BatchOnWorker:
    """Answers batches of pictures in a worker, by the classifier that `load` gives there.

    Raises StepError where that has other settings than `config`.
    """

    load: Callable[[], Predictor]
    config: dict

    @cached_property
    def _classifier(self) -> Predictor:
        classifier = self.load()
        if classifier.config != self.config:
            raise StepError(
                "a worker finds another export than this machine under the same path: all machines "
                "must share its folder"
            )
        return classifier

    def __call__(self, job: tuple[int, list[Named]]) -> tuple[np.ndarray, list[str]]:
        """What `Predictor.probabilities` gives for the pictures of a job."""
        _, pictures = job
        return self._classifier.probabilities(pictures, len(pictures))


def tables(
    classifier: Predictor,
    pictures: Iterable[Named],
    batch_size: int,
    min_probability: float | None,
    map_jobs: MapJobs,
    load: Callable[[], Predictor],
) -> Iterator[pd.DataFrame]:
    """What `classifier.predict_batches` gives for `pictures` and all classes, computed by the workers
    of `map_jobs`, where `load` gives the same classifier.

    Batches that are done out of turn wait here, as probabilities. Raises InputError for a URL,
    StepError where a worker does not see a file that is there.
    """
    jobs = enumerate(in_chunks(map(_for_worker, pictures), batch_size))
    done: dict[int, tuple[list[Named], tuple]] = {}
    place = 0
    for chunk in map_jobs(BatchOnWorker(load, classifier.config), jobs, chunk_size=1):
        for (number, batch), result in chunk:
            done[number] = (batch, result or _without_answers(classifier, batch))
        while place in done:
            batch, (probabilities, errors) = done.pop(place)
            _check_files(batch, errors)
            names = [picture.name for picture in batch]
            k = len(classifier.vocab)
            yield classifier.table(names, probabilities, errors, k, min_probability)
            place += 1


def _for_worker(named: Named) -> Named:
    """The picture under a path that any process understands."""
    if is_url(named.picture):
        raise InputError(
            f"workers of a cluster answer files, not {named.name}: download the pictures first, so that "
            "no server gets requests of all workers together"
        )
    if isinstance(named.picture, str | Path):
        return Named(named.name, Path(named.picture).absolute())
    return named


def _without_answers(classifier: Predictor, batch: list[Named]) -> tuple[np.ndarray, list[str]]:
    answers = len(classifier.vocab) + len(classifier.artists)
    probabilities = np.full((len(batch), answers), np.nan, dtype=np.float32)
    error = f"this picture, or another of its batch of {len(batch)}, ends the workers"
    return probabilities, [error] * len(batch)


def _check_files(batch: list[Named], errors: list[str]):
    for named, error in zip(batch, errors, strict=True):
        if (
            error == MISSING
            and isinstance(named.picture, Path | PackedPicture)
            and named.picture.exists()
        ):
            raise StepError(
                f"a worker does not see {named.picture}: all machines of the cluster must share the "
                "pictures, under the same path"
            )
