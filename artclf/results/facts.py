"""Facts: what the catalogue knows of the pictures that are shown, and which of them are asked for.

Reads the catalogue of `DATA`.
"""

from collections.abc import Sequence

import numpy as np

from artclf.base.errors import SettingError
from artclf.base.settings import shown
from artclf.data import years as dates
from artclf.data.catalogue import clean_path, read_catalogue

FACTS = ("title", "artist", "year", "licence", "source", "source_page")


def facts_of(data) -> dict[str, dict[str, str]]:
    """What the catalogue of `data` knows of each picture, by its file."""
    rows = read_catalogue(data).dropna(subset="file")
    known = {}
    for row in rows.to_dict("records"):
        texts = {name: row[name] if isinstance(row[name], str) else "" for name in FACTS}
        texts["year"] = texts["year"].removesuffix(".0")  # tables often hold years as 1889.0
        if not texts["source_page"].startswith(("https://", "http://")):
            texts["source_page"] = ""
        known[clean_path(row)] = texts
    return known


def in_words(wanted: dict[str, str]) -> str:
    """What is asked for, as an error names it."""
    return " and ".join(filter(None, wanted.values()))


def range_of(years: str) -> tuple[float, float]:
    """The first and last of the years that a text names. Raises SettingError where it names none."""
    [(first, last)] = dates.spans([years]).to_numpy()
    if np.isnan(first):
        raise SettingError(f"years are {shown(years)}: take some such as 1870-1890 or 1880s")
    return first, last


def matching(
    periods: Sequence[str],
    painters: Sequence[str],
    texts_of_years: Sequence[str],
    period: str = "",
    painter: str = "",
    years: str = "",
) -> np.ndarray | None:
    """Which pictures are asked for (pictures,), given what is known of each; None where nothing is
    asked, so that all are.

    They are of `period`, by a painter whose name has the text `painter` in it, and of `years`: a
    year or a range in words, `1872`, `1870-1890`, `1880s`, `16th century`, in which all of the years
    that are known of the picture lie. Raises SettingError for `years` that name none.
    """
    wanted = []
    if period:
        wanted.append(np.array([one == period for one in periods], dtype=bool))
    if painter:
        part = painter.casefold()
        wanted.append(np.array([part in name.casefold() for name in painters], dtype=bool))
    if years:
        first, last = range_of(years)
        known = dates.spans(texts_of_years).to_numpy()
        wanted.append((known[:, 0] >= first) & (known[:, 1] <= last))
    return np.logical_and.reduce(wanted) if wanted else None
