"""File names that tell who painted a picture, as those of WikiArt and of Kaggle's copies of it do:
`vincent-van-gogh_the-night-cafe-1888.jpg`.

Works on names; reads and writes no files.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath

from artclf.data.names import PARTICLES

NAME = re.compile(
    r"""
    (?P<artist>[^\W\d_][^\d_]*)    # letters, hyphens, dots: vincent-van-gogh, m.c.-escher
    _
    (?P<title>.+?)
    (?:-(?P<year>1\d{3}|20[0-2]\d))?
    (?:-\d{1,2}|\(\d+\))?          # the second picture of that title
    """,
    re.VERBOSE,
)


def facts_of_names(files: Sequence[PurePath]) -> list[dict]:
    """The facts that the name of each file tells: dicts with `artist`, `title` and where there is
    one `year`.

    All are empty unless more than half of the names have the form `first-last_title`, with an
    artist of two words or more. Then an artist of one word, `rembrandt_...`, is read, too.
    """
    matches = [NAME.fullmatch(file.stem) for file in files]
    sure = [match for match in matches if match and _has_two_words(match) and _has_title(match)]
    if 2 * len(sure) <= len(files):
        return [{} for _ in files]
    facts: list[dict] = []
    for match in matches:
        # img_0001 tells neither a painter nor a title
        if match and (_has_two_words(match) or _has_title(match)):
            facts.append(_facts(match))
        else:
            facts.append({})
    return facts


def _has_two_words(match: re.Match) -> bool:
    return "-" in match["artist"].strip("-")


def _has_title(match: re.Match) -> bool:
    return any(letter.isalpha() for letter in match["title"])


def _facts(match: re.Match) -> dict:
    facts = {"artist": _artist(match["artist"]), "title": _words(match["title"]).capitalize()}
    if match["year"]:
        facts["year"] = match["year"]
    return facts


def _artist(text: str) -> str:
    """`vincent-van-gogh` -> `Vincent van Gogh`"""
    words = [word if word in PARTICLES else word.title() for word in _words(text).split()]
    name = " ".join(words)
    return name[:1].upper() + name[1:]


def _words(text: str) -> str:
    return " ".join(re.split(r"[-_\s]+", text)).strip()
