"""Names of painters: a key that all spellings of one painter share.

Works on texts, with the table of module `aliases` for names that share no words. A name goes through
`PASSES`, one after the other: each reads something off the text (who painted after whom, which
generation) or removes something from it (accents, dates). What remains is split into surname and
forenames.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from artclf.base.errors import InputError
from artclf.data.aliases import FILE, known_aliases


def _words(text: str) -> set[str]:
    return set(text.split())


LONGEST = 300  # characters of a name that are read

# letters that Unicode does not split into a letter and an accent, and marks that join words
LETTERS = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "æ": "ae",
        "œ": "oe",
        "ı": "i",
        **dict.fromkeys("'’‘`´", ""),
    }
)
PARTICLES = _words(
    "van von vom de der den del della dei di da dal dos das do du des la le les lo el al il ten "
    "ter te tot zu zum zur af am op het the of sir dame lord fra"
)
UNKNOWN = _words(
    "unknown anonymous anonymus anon anonym anonyme anonimo unidentified nan none null various"
)
NATIONS = _words(
    "american austrian bavarian belgian bohemian british catalan chinese danish dutch english "
    "european flemish florentine french german greek hungarian irish italian japanese "
    "netherlandish norwegian polish portuguese russian scottish sienese spanish swedish swiss "
    "venetian"
)
# a name of these words alone names nobody: `North Netherlandish`, `Italian school`
NOBODY = NATIONS | _words(
    "north south east west central northern southern upper lower or and artist painter master "
    "school century"
)
NUMERALS = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
PLACES = ("da", "van", "von")  # a forename and a place: Leonardo da Vinci

# `workshop of`, `attributed to`: the painter is only near the one who is named
ATTRIBUTION = (
    r"\b(workshop|studio|atelier|school|circle|followers?|manner|style|imitator|attributed|attr"
    r"|ascribed|after|copy|copyist|possibly|probably|pupil|assistant)\b(?: (?:of|to|after|by))?"
)
# what is read although it stands in brackets: `Bruegel (I)`, `Rubens (workshop)`
READ_IN_BRACKETS = rf"i{{1,3}}|iv|the elder|the younger|{ATTRIBUTION}\D*"
# at the end of a name: `1853-1890`, `, c. 1503/06`, `, 1606`
DATES = (
    r"(?:[,;.\s]|\b(?:c|ca|circa|b|born|d|died|active)\b)*"
    r"(?:\b\d{4}\s*[-–—/]\s*(?:c\.\s*)?\d{0,4}|,\s*\d{4})\s*$"
)
ELDER = (
    r"\b(?:the|de|le|el|der) (?:elder|oude|ancien|viejo|altere)\b|\b(?:il )?vecchio\b"
    r"|\b(?:senior|sr)\b|\bd a$"
)
YOUNGER = (
    r"\b(?:the|de|le|el|der) (?:younger|jonge|jeune|joven|jungere)\b|\b(?:il )?giovane\b"
    r"|\b(?:junior|jr)\b|\bd j$"
)


class Name(NamedTuple):
    """A painter's name in parts, without accents, particles and dates.

    `attribution` says how the painter is near the one who is named (`workshop`, `after`). `placed`
    is true for a single name that may lack its place (Leonardo), and for one with it (Leonardo da
    Vinci).
    """

    surname: str
    forenames: tuple[str, ...] = ()
    generation: str = ""
    attribution: str = ""
    placed: bool = False

    @property
    def key(self) -> str:
        words = (self.attribution, *self.forenames, self.surname, self.generation)
        return " ".join(word for word in words if word)


def artist_keys(
    names: Iterable[str], own_aliases: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The painter of every name: a key that the spellings of one painter share, '' where a name
    names nobody.

    A name joins a fuller one with the same surname and generation that has its forenames or their
    initials, in their order; a surname alone joins the only painter who has it, a forename alone
    (Leonardo) the only one who is named by it and a place (Leonardo da Vinci). A name that fits
    several painters joins none. Elder and younger stay apart, and so do workshops, followers and
    attributions.

    Names that share no words (Titian, Tiziano Vecellio) are joined by the table of module
    `aliases`, and by `own_aliases`, alias -> painter, which come before it.
    """
    parsed = {name: _parse(name) for name in names}
    people = {name._replace(attribution="") for name in parsed.values() if name is not None}
    key_of = _keys_of_people(people, _alias_keys(own_aliases or {}))
    keys = {}
    for name, person in parsed.items():
        if person is None:
            keys[name] = ""
        else:
            key = key_of[person._replace(attribution="")]
            keys[name] = f"{person.attribution} {key}".strip()
    return keys


def _alias_keys(own_aliases: Mapping[str, str]) -> dict[str, str]:
    """The key of the painter of each key that an alias, or a painter with aliases, has."""
    table = dict(_known_alias_keys())
    table.update(_keys_of_aliases(own_aliases))
    resolved = {}
    for key in table:
        painter = key
        seen = set()
        while painter in table and painter not in seen:  # an alias of an alias
            seen.add(painter)
            painter = table[painter]
        resolved[key] = painter
    return resolved


@cache
def _known_alias_keys() -> dict[str, str]:
    return _keys_of_aliases(known_aliases())


def _keys_of_aliases(aliases: Mapping[str, str]) -> dict[str, str]:
    table: dict[str, str] = {}
    for alias, artist in aliases.items():
        person, painter = _parse(alias), _parse(artist)
        if person is None or painter is None:
            raise InputError(f"{alias if person is None else artist!r} in {FILE} names no painter")
        table.setdefault(painter.key, painter.key)
        table[person.key] = painter.key
    return table


def _keys_of_people(people: set[Name], alias_keys: dict[str, str]) -> dict[Name, str]:
    """The key of each person: that of the painter whose alias it is, or of a name that it is
    joined with; else that of its fullest name.
    """
    fullest = _fullest_names(people)
    painter_of: dict[Name, str] = {}  # of fullest names
    for person in sorted(people):
        if person.forenames and person.key in alias_keys:
            painter_of.setdefault(fullest[person], alias_keys[person.key])
    keys = {}
    for person in people:
        full = fullest[person]
        if person.key in alias_keys:
            # a single name in the table, such as Caravaggio, is no surname of somebody else
            keys[person] = alias_keys[person.key]
        else:
            keys[person] = painter_of.get(full) or alias_keys.get(full.key, full.key)
    return keys


def _fullest_names(people: Iterable[Name]) -> dict[Name, Name]:
    """The fullest name of each person: itself, or the single fuller one that it fits."""
    by_surname: dict[str, list[Name]] = defaultdict(list)
    by_forename: dict[str, set[Name]] = defaultdict(set)  # of people who are named by a place
    fullest: dict[Name, Name] = {}

    def length_of_forenames(person: Name) -> int:
        return len("".join(person.forenames))

    for person in sorted(people, key=lambda person: (-length_of_forenames(person), person)):
        matches = _matches(person, by_surname[person.surname], by_forename[person.surname])
        full = matches[0] if len(matches) == 1 else person
        fullest[person] = full
        if full is person and person.forenames:
            by_surname[person.surname].append(person)
        if person.placed and person.forenames:
            by_forename[person.forenames[0]].add(full)
    return fullest


def _matches(person: Name, namesakes: list[Name], placed: set[Name]) -> list[Name]:
    """The fuller names that `person` may stand for.

    `namesakes` have the same surname; `placed` have this name as a forename, and a place.
    """
    if person.forenames:
        namesakes = [other for other in namesakes if other.generation == person.generation]
        equal = [other for other in namesakes if other.forenames == person.forenames]
        fuller = [other for other in namesakes if _stand_in(person.forenames, other.forenames)]
        return equal or fuller
    namesakes = [other for other in namesakes if person.generation in ("", other.generation)]
    if not namesakes and person.placed:
        return list(placed)
    return namesakes


def _stand_in(forenames: tuple[str, ...], full: tuple[str, ...]) -> bool:
    """Whether `forenames` stand in `full` in this order; initials count where both begin alike."""
    first = forenames[0]
    if not _is_same(first, full[0]) and (len(first) == 1 or first not in full):
        return False
    rest = iter(full)
    return all(any(_is_same(name, other) for other in rest) for name in forenames)


def _is_same(name: str, other: str) -> bool:
    is_initial = 1 in (len(name), len(other)) and name[0] == other[0]
    return name == other or is_initial


@dataclass
class _Reading:
    """A name that is being read: the `text` that is left of it, and what was read so far."""

    text: str
    several: bool = False
    is_school: bool = False
    attribution: str = ""
    generation: str = ""


def _fold_letters(reading: _Reading):
    """`Édouard Fałat` -> `edouard falat`"""
    letters = unicodedata.normalize("NFKD", reading.text.casefold().translate(LETTERS))
    reading.text = "".join(letter for letter in letters if not unicodedata.combining(letter))


def _drop_brackets(reading: _Reading):
    """`gogh (dutch, 1853-1890)` -> `gogh`, but `bruegel (i)` -> `bruegel i`"""

    def content(match) -> str:
        return f" {match[1]} " if re.fullmatch(READ_IN_BRACKETS, match[1]) else " "

    reading.text = re.sub(r"\(([^()]*)\)?", content, reading.text)


def _drop_dates(reading: _Reading):
    """`gogh, 1853-1890` -> `gogh`"""
    reading.text = re.sub(DATES, "", reading.text)


def _keep_first_entry(reading: _Reading):
    """`el greco; greek` -> `el greco`"""
    reading.text = reading.text.split(";")[0]


def _note_several(reading: _Reading):
    """`govert flinck / rembrandt` names several painters"""
    reading.several = re.search(r"[/&]|\b(?:and|or|with)\b", reading.text) is not None


def _drop_punctuation(reading: _Reading):
    """`vincent-van_gogh` -> `vincent van gogh`; commas stay, they separate the surname"""
    reading.text = re.sub(r"(?:[^\w,]|_)+", " ", reading.text).strip()


def _read_attribution(reading: _Reading):
    """`workshop of rubens` -> `rubens`, by the workshop; but `utrecht school` is a school"""
    match = re.search(ATTRIBUTION, reading.text)
    if match:
        reading.attribution = match[1]
        reading.is_school = match[0] == "school"  # not `school of raphael`
        reading.text = re.sub(ATTRIBUTION, "", reading.text)


def _read_generation(reading: _Reading):
    """`pieter bruegel the elder` -> `pieter bruegel`, the first"""
    if re.search(ELDER, reading.text):
        reading.generation = "1"
    elif re.search(YOUNGER, reading.text):
        reading.generation = "2"
    for pattern in (ELDER, YOUNGER):
        reading.text = re.sub(pattern, "", reading.text)


PASSES = (
    _fold_letters,
    _drop_brackets,
    _drop_dates,
    _keep_first_entry,
    _note_several,
    _drop_punctuation,
    _read_attribution,
    _read_generation,
)


def _parse(name: str) -> Name | None:
    """The parts of a painter's name, `Gogh, Vincent van` or `vincent-van-gogh`; None where it names
    nobody.
    """
    reading = _Reading(name[:LONGEST])
    for read in PASSES:
        read(reading)
    parts = [part.split() for part in reading.text.split(",")]
    parts = [words for words in parts if words]
    numeral = _take_numeral(parts)
    words = _words_in_order(parts)
    if reading.is_school or set(words) <= NOBODY or set(words) & UNKNOWN:
        return None
    if reading.several:
        return Name(" ".join(words))
    *first, surname = [word for word in words if word not in PARTICLES] or words
    return Name(
        surname,
        tuple(first),
        numeral or reading.generation,
        reading.attribution.rstrip("s"),  # followers, follower
        placed=_is_placed(words, first),
    )


def _take_numeral(parts: list[list[str]]) -> str:
    """Remove `I` to `IV` from the ends of parts, and return the generation they tell.

    A single `I` as the second part is an initial: `Repin, I.`
    """
    generation = ""
    for place, words in enumerate(parts):
        is_initial = len(words) == 1 and (place == 0 or (place == 1 and words[-1] == "i"))
        if words[-1] in NUMERALS and not is_initial:
            generation = NUMERALS[words.pop()]
    return generation


def _words_in_order(parts: list[list[str]]) -> list[str]:
    """Forenames, then the surname, of a name in `parts` between commas.

    Of several parts the first is the surname, and the next that isn't a nation are the forenames.
    """
    if not parts:
        return []
    surname, *others = parts
    for words in others:
        if words and not set(words) <= NATIONS:
            return words + surname
    return surname


def _is_placed(words: list[str], first: list[str]) -> bool:
    if len(words) == 1:
        return True
    return words[0] in first and words[1] in PLACES
