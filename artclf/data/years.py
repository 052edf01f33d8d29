"""Years: when a picture was painted, as the texts of catalogues say it.

Works on texts; reads and writes no files. Shown in `experiments/18_time`.
"""

import re

import numpy as np
import pandas as pd

YEARS = re.compile(
    r"""
    (?<!\d)(?P<year>1\d{3}|20\d{2})(?!\d)  # 1000 to 2099
    (?P<decade>'?s\b)?
    (?:
        -[01]\d-[0-3]\d(?:[t ]\d\d:[\d:.+-]*)?  # month and day, perhaps the time
        |
        \s*[-–—/]\s*(?P<second>\d\d)(?P<second_decade>'?s)?\b  # the 06 of 1503-06
    )?
    """,
    re.VERBOSE,
)

# with a word for century later in the text
CENTURY = re.compile(r"\b(1\d|2[01])(?:st|nd|rd|th)\b(?=.*\bc(?:ent|\b))")

# with one of these words, what a text names is one end of a span
OPEN = re.compile(r"\b(?:after|before|until|post|ante|nach|vor|apr[eè]s|avant|dopo|prima)\b")


def spans(texts) -> pd.DataFrame:
    """The years that texts name, `1889.0`, `c. 1503`, `1503/06`, `1880s`, `16th century`: a
    DataFrame, one row per text.

    Columns `first` and `last`; both are missing where the text names no year or leaves one end open
    (`after 1630`). The second number of `1503-06` is a year, that of `1889-05` a month, since it
    can't be the end of a span.
    """
    return pd.DataFrame(
        [_span(str(text)) for text in texts], columns=["first", "last"], dtype=float
    )


def _span(text: str) -> tuple[float, float]:
    """The first and last year that a text names; NaN twice where it leaves one open."""
    text = text.casefold()
    named = {_span_of_years(match) for match in YEARS.finditer(text)}
    if not named:
        named = {_span_of_century(int(number)) for number in CENTURY.findall(text)}
    is_open = len(named) == 1 and OPEN.search(text)
    if not named or is_open:
        return np.nan, np.nan
    return min(first for first, _ in named), max(last for _, last in named)


def _span_of_years(match: re.Match) -> tuple[int, int]:
    """The first and last year of `1889`, `1880s`, `1503-06` or `1880s-90s`."""
    first = int(match["year"])
    last = _last_year(first, match["decade"])
    if match["second"]:
        second = first - first % 100 + int(match["second"])
        if second > first:
            last = _last_year(second, match["second_decade"])
    return first, last


def _last_year(year: int, decade: str | None) -> int:
    """1889 of `1880s`, 1899 of `1800s`; `year` itself without an s."""
    if not decade:
        return year
    return year + 9 if year % 100 else year + 99


def _span_of_century(number: int) -> tuple[int, int]:
    return 100 * number - 99, 100 * number
