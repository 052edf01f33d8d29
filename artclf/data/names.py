"""Names of painters: a key that all spellings of one painter share.

Works on texts; reads and writes no files.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple


def _words(text: str) -> set[str]:
    return set(text.split())


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
    "van von vom de der den del della dei di da dal dos das do du des la le les lo el al il ten ter te "
    "tot zu zum zur af am op het the of sir dame lord fra"
)


UNKNOWN = _words(
    "unknown anonymous anonymus anon anonym anonyme anonimo unidentified nan none null various"
)


NATIONS = _words(
    "american austrian bavarian belgian bohemian british catalan chinese danish dutch english european "
    "flemish florentine french german greek hungarian irish italian japanese netherlandish norwegian "
    "polish portuguese russian scottish sienese spanish swedish swiss venetian"
)


NOBODY = NATIONS | _words(
    "north south east west central northern southern upper lower or and artist painter master "
    "school century"
)


NUMERALS = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}


GENERATIONS = {
    "1": r"\b(?:the|de|le|el|der) (?:elder|oude|ancien|viejo|altere)\b|\b(?:il )?vecchio\b|\b(?:senior|sr)\b|\bd a$",
    "2": r"\b(?:the|de|le|el|der) (?:younger|jonge|jeune|joven|jungere)\b|\b(?:il )?giovane\b|\b(?:junior|jr)\b|\bd j$",
}


HAND = (
    r"\b(workshop|studio|atelier|school|circle|followers?|manner|style|imitator|attributed|attr|ascribed|after|"
    r"copy|copyist|possibly|probably|pupil|assistant)\b(?: (?:of|to|after|by))?"
)


KEPT = rf"i{{1,3}}|iv|the elder|the younger|{HAND}\D*"  # in brackets


DATES = (
    r"(?:[,;.\s]|\b(?:c|ca|circa|b|born|d|died|active)\b)*"
    r"(?:\b\d{4}\s*[-–—/]\s*(?:c\.\s*)?\d{0,4}|,\s*\d{4})\s*$"
)


class Name(NamedTuple):
    """A painter's name in parts, without accents, particles, dates; `hand` says that it is only
    after or near them.
    """

    surname: str
    forenames: tuple[str, ...] = ()
    generation: str = ""
    hand: str = ""
    placed: bool = (
        False  # one name and a place, as in Leonardo da Vinci, or one that may lack its place
    )


def artist_keys(names: Iterable[str]) -> dict[str, str]:
    """The painter of every name: a key that the spellings of one painter share, empty where a name
    tells none.

    A name joins a fuller one with the same surname and generation that has its forenames or their
    initials, in their order; a surname alone joins the only painter who bears it, a forename alone
    (Leonardo) the only one who is named by it and a place (Leonardo da Vinci). What fits several
    painters joins none, nor do elder and younger, a name without either, a workshop, a follower or
    an attribution.
    """
    parsed = {name: _parse(name) for name in names}
    people = {name._replace(hand="") for name in parsed.values() if name}
    known, same, placed = defaultdict(list), {}, defaultdict(set)
    for person in sorted(people, key=lambda p: (-len("".join(p.forenames)), p)):
        alike = known[person.surname]
        if person.forenames:
            alike = [p for p in alike if p.generation == person.generation]
            found = [p for p in alike if p.forenames == person.forenames] or [
                p for p in alike if _within(person.forenames, p.forenames)
            ]
        else:
            found = [p for p in alike if person.generation in ("", p.generation)] or [
                p for p in placed[person.surname] if person.placed
            ]
        same[person] = found[0] if len(found) == 1 else person
        if same[person] is person and person.forenames:
            known[person.surname].append(person)
        if person.placed and person.forenames:
            placed[person.forenames[0]].add(same[person])
    return {
        name: _key(same[p._replace(hand="")]._replace(hand=p.hand)) if p else ""
        for name, p in parsed.items()
    }


def _key(name: Name) -> str:
    return " ".join(filter(None, (name.hand, *name.forenames, name.surname, name.generation)))


def _within(short: tuple[str, ...], full: tuple[str, ...]) -> bool:
    """Whether the forenames `short` stand in `full` in this order; initials count where both begin
    alike.
    """
    if not _alike(short[0], full[0]) and (len(short[0]) == 1 or short[0] not in full):
        return False
    rest = iter(full)
    return all(any(_alike(name, other) for other in rest) for name in short)


def _alike(a: str, b: str) -> bool:
    return a == b or (1 in (len(a), len(b)) and a[0] == b[0])


def _parse(name: str) -> Name | None:
    """The parts of a painter's name, `Gogh, Vincent van` or `vincent-van-gogh`; None where it names
    nobody.
    """
    letters = unicodedata.normalize("NFKD", name[:300].casefold().translate(LETTERS))
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    text = re.sub(
        r"\(([^()]*)\)?", lambda m: f" {m[1]} " if re.fullmatch(KEPT, m[1]) else " ", text
    )
    text = re.sub(DATES, "", text).split(";")[0]
    several = re.search(r"[/&]|\b(?:and|or|with)\b", text)
    text = re.sub(r"(?:[^\w,]|_)+", " ", text).strip()
    if hand := re.search(HAND, text):
        text = re.sub(HAND, "", text)
    generation = next(
        (number for number, pattern in GENERATIONS.items() if re.search(pattern, text)), ""
    )
    for pattern in GENERATIONS.values():
        text = re.sub(pattern, "", text)
    parts = [words for part in text.split(",") if (words := part.split())]
    for place, words in enumerate(parts):
        if words[-1] in NUMERALS and (len(words) > 1 or place > 1 or place and words[-1] != "i"):
            generation = NUMERALS[words.pop()]
    forenames = next((words for words in parts[1:] if words and not set(words) <= NATIONS), [])
    words = forenames + parts[0] if parts else []
    if set(words) <= NOBODY or set(words) & UNKNOWN or hand and hand[0] == "school":
        return None
    if several:
        return Name(" ".join(words))
    *first, surname = [word for word in words if word not in PARTICLES] or words
    placed = len(words) == 1 or words[0] in first and words[1] in ("da", "van", "von")
    return Name(surname, tuple(first), generation, hand[1].rstrip("s") if hand else "", placed)
