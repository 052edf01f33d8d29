"""Retrieval: how similar pictures are in style and in content, and the most similar of many.

Works on features; reads and writes nothing. `neighbours` and `collection` hold the pictures that are
searched.
"""

from collections.abc import Iterator

import numpy as np

from artclf.base.errors import InputError, SettingError
from artclf.base.settings import Range, shown
from artclf.results.embeddings import Embeddings, best, directions

CONTENT = "content"
STYLE = "style"
SHARE = Range(0, 1, is_whole=False)
ROWS_AT_ONCE = 65_536  # of which a copy is in memory, where only some rows are wanted


def style_share(by) -> float:
    """How much of a similarity is that of style: 0 for `content`, 1 for `style`, or the number from
    0 to 1 that `by` is. Raises SettingError for anything else.
    """
    shares = {CONTENT: 0.0, STYLE: 1.0}
    if by in shares:
        return shares[by]
    try:
        share = float(by)
    except (TypeError, ValueError):
        share = -1
    if share not in SHARE:
        raise SettingError(
            f"by is {shown(by)}: take {STYLE}, {CONTENT}, or how much style counts beside content, "
            f"{SHARE}"
        )
    return share


class Describer:
    """What makes descriptions of features: for each picture one of its content and one of its style,
    as directions (vectors of length 1) with `sizes` numbers.

    `known` are the embeddings of the export folder `out`; `residuals` are what these could not hold.
    Raises InputError where they are of a version that kept nothing to project new pictures with.
    """

    def __init__(self, known: Embeddings, out):
        if known.projection is None or known.residuals is None:
            raise InputError(
                f"{out} is of an earlier version, which kept nothing to project new pictures with: "
                "run `artclf train` again"
            )
        self.out = out
        self.projection = known.projection
        self.residuals = known.residuals
        self.style = known.style
        of_style = 0 if known.style is None else len(known.style.projection.axes)
        self.sizes = {CONTENT: len(known.projection.axes), STYLE: of_style}

    def check(self, share: float):
        """Raise InputError where a `share` of style is wanted and the export knows none."""
        if share and self.style is None:
            raise InputError(
                f"{self.out} knows nothing of styles: its network has no stages, or it is of an "
                "earlier version (then run `artclf train` again); take --by content"
            )

    def __call__(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Both descriptions of pictures with `features` (images, numbers): float32 (images, size)."""
        content = directions(self.projection(features))
        if self.style is None:
            return {CONTENT: content, STYLE: np.zeros((len(features), 0), np.float32)}
        return {CONTENT: content, STYLE: directions(self.style(features))}


def known_descriptions(known: Embeddings) -> dict[str, np.ndarray]:
    """Both descriptions of the pictures of an export: float32 (pictures, size)."""
    content = directions(known.vectors)
    if known.style is None:
        return {CONTENT: content, STYLE: np.zeros((len(content), 0), np.float32)}
    return {CONTENT: content, STYLE: directions(known.style.vectors)}


def nearest(
    query: dict[str, np.ndarray],
    among: dict[str, np.ndarray],
    share: float,
    k: int,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` pictures of `among` most similar to a `query`, the most similar first: their rows and
    similarities, both (k,), fewer where there are fewer.

    Every picture is compared. `query` holds a description of each kind (size,), `among` those of all
    pictures (pictures, size), `rows` those of which are wanted, in ascending order, by default all.
    A similarity is `share` times the cosine of styles plus 1 - `share` times that of contents. Of
    pictures as similar, the first comes first (see `embeddings.best`).
    """
    similarities = _similarities(query, among, share, rows)
    places = best(similarities, k)
    found = places if rows is None else rows[places]
    return found, similarities[places]


def weights(share: float) -> dict[str, float]:
    """How much the kinds count, those that do."""
    both = {CONTENT: 1 - share, STYLE: share}
    return {kind: weight for kind, weight in both.items() if weight}


def _similarities(query, among, share: float, rows: np.ndarray | None) -> np.ndarray:
    total = np.zeros(len(among[CONTENT]) if rows is None else len(rows), np.float32)
    for kind, weight in weights(share).items():
        weighted = np.float32(weight) * query[kind]
        if rows is None:
            total += among[kind] @ weighted
            continue
        for part in _parts(len(rows)):
            total[part] += among[kind][rows[part]] @ weighted
    return total


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)
