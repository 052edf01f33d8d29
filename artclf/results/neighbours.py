"""Neighbours: the training pictures most similar to a new one in content or style, what is known of
them, and whether the new one is like any picture that the network knows. `artclf similar` and the
server show them.

Reads `EXPORT/embeddings.npz` and `predictions.csv`, and the catalogue and pictures of `DATA`.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from artclf.answers import inputs
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data.pictures import thumbnail
from artclf.results import embeddings, evaluation, retrieval
from artclf.results.collection import Collection
from artclf.results.facts import FACTS, facts_of, in_words, matching

THUMBNAIL = 240  # px
THUMBNAILS = 1000  # that are kept in memory, 10 kB each
SELECTIONS = 8  # by period, painter and years, that are kept in memory
HELD_OUT = 0.99  # of the pictures of valid and test lie within the limit
COLUMNS = ["image", "rank", "file", "period", "similarity", "title", "artist", "year"]
COLUMNS += ["source", "source_page", "error"]
FEWEST = 50  # pictures of valid and test: with fewer there is no limit


class Neighbours:
    """The pictures of part train in `out`, an export folder, for new pictures to be compared with.

    `limit` is what the residuals of new pictures are compared with; None where the export has no
    residuals, or too few pictures outside train. Without the data set in folder `data`, only files
    and periods are known. Raises FileNotFoundError and InputError as `embeddings.read_all` does.
    """

    def __init__(self, out, data=None, thumbnails: str = ""):
        known = embeddings.read_all(out)
        self.describe = retrieval.Describer(known, out)
        predictions = evaluation.read_table(Path(out) / "predictions.csv").set_index("file")
        predictions = predictions.reindex(known.files)
        is_train = (predictions.part == "train").to_numpy()
        self.thumbnails = thumbnails  # the address that the number of a picture is added to
        self.limit = _limit(self.describe.residuals[~is_train])
        self.data = Path(data) if data is not None else None
        self.files = [file for file, is_one in zip(known.files, is_train, strict=True) if is_one]
        self._periods = predictions.period[is_train].tolist()
        descriptions = retrieval.known_descriptions(known)
        self._descriptions = {kind: vectors[is_train] for kind, vectors in descriptions.items()}
        self._facts = facts_of(data) if data is not None else {}
        self.thumbnail = lru_cache(THUMBNAILS)(self._thumbnail)
        self._selected = lru_cache(SELECTIONS)(self._select)

    def distance(self, features: np.ndarray) -> float | None:
        """How far a picture of these `features` (features,) lies from all of training, where 1 is
        the limit that 99 of 100 pictures outside train keep; None without a limit.
        """
        if self.limit is None:
            return None
        return float(self.describe.projection.residuals(features[None])[0] / self.limit)

    def nearest(
        self,
        features: np.ndarray,
        count: int,
        period: str = "",
        painter: str = "",
        years: str = "",
        by=retrieval.CONTENT,
    ) -> list[dict]:
        """The `count` training pictures most similar to one of these `features` (features,), the
        most similar first: `id, period, similarity, file` (relative to the data set) and what the
        catalogue knows, '' if nothing.

        With `period`, only pictures of that one, with `painter`, only those by painters whose name
        has that text in it, and with `years` only those that are known to be of these (see
        `matching`). `by` is `content`, `style`, or how much style counts, from 0 to 1. `similarity`
        is the cosine of the embeddings, or of the styles, or their weighted mean. Raises SettingError
        for another `by`, InputError where the export knows no styles.
        """
        share = retrieval.style_share(by)
        self.describe.check(share)
        among = self._selected(period, painter, years)
        described = {kind: row for kind, [row] in self.describe(features[None]).items()}
        rows, similarities = retrieval.nearest(described, self._descriptions, share, count, among)
        found = []
        for place, similarity in zip(rows.tolist(), similarities.tolist(), strict=True):
            file = self.files[place]
            picture = {
                "id": place,
                "period": self._periods[place],
                "similarity": round(similarity, 4),
                "file": file,
                "thumbnail": f"{self.thumbnails}{place}" if self.data is not None else "",
            }
            facts = self._facts.get(file, dict.fromkeys(FACTS, ""))
            found.append({**picture, **facts})
        return found

    def has(self, period: str = "", painter: str = "", years: str = "") -> bool:
        """Whether there is a picture of this period, painter and these years."""
        rows = self._selected(period, painter, years)
        return len(self.files if rows is None else rows) > 0

    def _select(self, period: str, painter: str, years: str) -> np.ndarray | None:
        """The rows of the pictures that are asked for; None for all."""
        facts = [self._facts.get(file, {}) for file in self.files]
        wanted = matching(
            self._periods,
            [known.get("artist", "") for known in facts],
            [known.get("year", "") for known in facts],
            period,
            painter,
            years,
        )
        return None if wanted is None else np.flatnonzero(wanted)

    def _thumbnail(self, place: int) -> bytes | None:
        """A training picture as a small JPEG; None where there is none."""
        if self.data is None or not 0 <= place < len(self.files):
            return None
        file = (self.data / self.files[place]).resolve()
        if not file.is_relative_to(self.data.resolve()):  # the export may be a stranger's
            return None
        picture = thumbnail(file, THUMBNAIL)
        if picture is None:
            return None
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=82)
        return stream.getvalue()


def similar(
    classifier,
    out,
    images,
    data=None,
    k: int = 10,
    period: str = "",
    painter: str = "",
    years: str = "",
    by=retrieval.CONTENT,
    among=None,
    index: bool = False,
) -> pd.DataFrame:
    """The `k` training pictures most similar to each of `images`, which are what `predict` takes: a
    row each, `image, rank, file, period, similarity, title, artist, year, source, source_page,
    error`. `file` is relative to the data set, or to the folder `among`.

    `classifier` is that of the export folder `out`; `data` is the data set that facts are taken
    from, which `painter` and `years` need. For `period`, `painter`, `years` and `by` see
    `Neighbours.nearest`. With `among`, a folder of pictures or a data set, the most similar are
    looked for there (see `Collection`, also for `index`). An image that can't be read has one row,
    whose `error` says why. Raises SettingError for a `k` below 1, another `by` or `years` that are
    none, InputError for an unknown period, where no picture is left, and what `Neighbours` and
    `Collection` raise.
    """
    settings.check(k=k)
    retrieval.style_share(by)
    if among is not None:
        if data is not None:
            raise InputError("--data and --among exclude each other: --among takes a data set, too")
        collection = Collection(among, classifier, out)
        wanted = {"period": period, "painter": painter, "years": years}
        if not collection.has(**wanted):
            raise InputError(f"no picture in {among} is of {in_words(wanted)}: ask for less")
        return table_of(
            classifier,
            images,
            lambda features: collection.nearest(features, k, **wanted, by=by, index=index),
        )
    if index:
        raise InputError("an index is of a collection: name its folder with --among")
    if period and period not in classifier.vocab:
        raise InputError(f"no period {period}: take one of {', '.join(classifier.vocab)}")
    if (painter or years) and data is None:
        raise InputError(
            "painters and years are known by the data set: name its folder with --data"
        )
    known = Neighbours(out, data)
    wanted = {"period": period, "painter": painter, "years": years}
    if not known.has(**wanted):
        raise InputError(f"no picture of part train is of {in_words(wanted)}: ask for less")
    return table_of(
        classifier, images, lambda features: known.nearest(features, k, **wanted, by=by)
    )


def table_of(classifier, images, nearest: Callable[[np.ndarray], list[dict]]) -> pd.DataFrame:
    """The table of `similar`, where `nearest` gives the rows of a picture by its features."""
    named = list(inputs.stream(images))
    _, features, errors = classifier.probabilities_and_features([each for _, each in named])
    rows: list[dict] = []
    for (name, _), of_image, error in zip(named, features, errors, strict=True):
        if error:
            rows.append({"image": name, "error": error})
            continue
        found = nearest(of_image)
        rows += [{"image": name, "rank": rank, **row} for rank, row in enumerate(found, 1)]
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    table = table.astype({"rank": "Int64", "similarity": float})
    texts = table.columns.difference(["rank", "similarity"])
    return table.fillna(dict.fromkeys(texts, ""))


def _limit(residuals: np.ndarray) -> float | None:
    if len(residuals) < FEWEST:
        return None
    return float(np.quantile(residuals, HELD_OUT))
