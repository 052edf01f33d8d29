"""Years: when a picture was painted, as the texts of catalogues say it.

Works on texts; reads and writes no files. Shown in `experiments/18_time`.
"""

import re

import numpy as np
import pandas as pd

# a year from 1000 to 2099
YEAR = r"(?<!\d)(1\d{3}|20\d{2})(?!\d)"

# with one of these words, a single year is one end of a span
OPEN = r"\b(?:after|before|until|post|ante|nach|vor|apr[eè]s|avant|dopo|prima)\b"


def spans(texts) -> pd.DataFrame:
    """The years that texts name, `1889.0`, `c. 1503`, `1503/06`, `1880s`, `16th century`: a
    DataFrame, a row a text.

    Columns `first` and `last`; both are missing where the text names no year or leaves one end open
    (`after 1630`). The second number of `1503-06` is a year, that of `1889-05` a month, since it
    can't be the end of a span.
    """
    return pd.DataFrame(
        [_span(str(text)) for text in texts], columns=["first", "last"], dtype=float
    )


def _span(text: str) -> tuple[float, float]:
    text = re.sub(rf"{YEAR}-\d\d-\d\d.*", r"\1", re.sub(r"\.0+$", "", text.casefold().strip()))
    ends = []
    for first, many, short in re.findall(YEAR + r"('?s\b)?(?:\s*[-–—/]\s*(\d\d)\b)?", text):
        start, end = int(first), int(first[:2] + (short or "00"))
        ends += [start, start + (9 if start % 100 else 99) if many else max(start, end)]
    for century in re.findall(r"\b(1\d|2[01])(?:st|nd|rd|th)\b(?=.*\bc)", text) if not ends else []:
        ends += [100 * int(century) - 99, 100 * int(century)]
    if not ends or len(set(ends)) == 1 and re.search(OPEN, text):
        return np.nan, np.nan
    return min(ends), max(ends)
