"""Aliases: painters who are known under several names that share no words, such as Titian and
Tiziano Vecellio.

Reads `artists.csv` beside this module, written by hand, and one of the user's own, `DATA/artists.csv`;
both have the columns `alias, artist`. Which names spell the same is for module `names` to say.
"""

import csv
from functools import cache
from io import StringIO
from pathlib import Path

from artclf.base.errors import InputError
from artclf.data import packs
from artclf.data.places import Place

FILE = "artists.csv"
COLUMNS = ("alias", "artist")


@cache
def known_aliases() -> dict[str, str]:
    """The painter of each alias, of those that come with this package."""
    file = Path(__file__).with_name(FILE)
    return parse(file.read_bytes(), str(file))


def aliases_of(data) -> dict[str, str]:
    """The painter of each alias of the user's own: those in `artists.csv` of a data set, a folder or
    a pack, none where there is no such file.
    """
    if packs.is_pack(data):
        content = Place(data).read(FILE)
    else:
        file = Path(data) / FILE
        content = file.read_bytes() if file.exists() else None
    return {} if content is None else parse(content, f"{data}/{FILE}")


def parse(content: bytes, file: str) -> dict[str, str]:
    """The painter of each alias in the content of a CSV file, which messages name `file`. Raises
    InputError where there aren't the columns, and for an alias or painter that is blank.
    """
    aliases = {}
    try:
        text = StringIO(content.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text, restval="", skipinitialspace=True)
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
