"""Aliases: painters who are known under several names that share no words, such as Titian and
Tiziano Vecellio.

Reads `artists.csv` beside this module, written by hand, and one of the user's own, `DATA/artists.csv`;
both have the columns `alias, artist`. Which names spell the same is for module `names` to say.
"""

import csv
from functools import cache
from pathlib import Path

from artclf.base.errors import InputError

FILE = "artists.csv"
COLUMNS = ("alias", "artist")


@cache
def known_aliases() -> dict[str, str]:
    """The painter of each alias, of those that come with this package."""
    return read_aliases(Path(__file__).with_name(FILE))


def aliases_of(data) -> dict[str, str]:
    """The painter of each alias of the user's own: those in `DATA/artists.csv`, none where there is
    no such file.
    """
    file = Path(data) / FILE
    return read_aliases(file) if file.exists() else {}


def read_aliases(file: Path) -> dict[str, str]:
    """The painter of each alias in a CSV file. Raises InputError for one without the columns, and
    for an alias or painter that is blank.
    """
    aliases = {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="", skipinitialspace=True)
        try:
            found = list(reader.fieldnames or [])
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{file} is not CSV in UTF-8: {error}") from error
    if not set(COLUMNS) <= set(found):
        raise InputError(f"{file} needs the columns alias and artist: it has {', '.join(found)}")
    for row in rows:
        alias, artist = (row[name].strip() for name in COLUMNS)
        if not alias or not artist:
            raise InputError(f"{file} has a row without alias or artist: {alias or artist!r}")
        aliases[alias] = artist
    return aliases
