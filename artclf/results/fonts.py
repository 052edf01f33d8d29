"""Fonts: figures whose texts are legible in any script that a font on this machine has.

Reads the fonts that matplotlib finds. `plots.axes_of_size` makes its figures with it.
"""

import warnings
from functools import cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

PLACEHOLDERS = "Last Resort"  # a font that has a box for every letter
_said: set[str] = set()  # letters that a warning has named


class LegibleFigure(Figure):
    """A Figure of matplotlib that looks for fonts with the letters that its own font lacks.

    Where no font has them, a UserWarning says so, once for each letter in a process.
    """

    def draw(self, renderer):
        missing = _add_fonts(self)
        with warnings.catch_warnings():
            if missing:  # said already
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
            super().draw(renderer)


def _add_fonts(figure: Figure) -> set[str]:
    """Give the texts of `figure` further fonts for letters that theirs lack; the letters that no font
    has.
    """
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_ticklabels()  # sets their texts
    missing_anywhere = set()
    for text in figure.findobj(Text):
        missing = _lacking(text)
        if missing:
            families, missing = _families_with(frozenset(missing))
            text.set_fontfamily([*text.get_fontfamily(), *families])
            missing_anywhere |= missing
    _say_missing(missing_anywhere)
    return missing_anywhere


def _lacking(text: Text) -> set[str]:
    """The letters of `text` that none of its fonts has."""
    letters = {letter for letter in text.get_text() if not letter.isspace()}
    for family in text.get_fontfamily():
        letters -= _letters(findfont(FontProperties(family=[family])))
    return letters


@cache
def _letters(file: str) -> frozenset[str]:
    """The letters that a font has."""
    return frozenset(map(chr, get_font(file).get_charmap()))


@cache
def _families_with(letters: frozenset[str]) -> tuple[list[str], set[str]]:
    """The fewest families that have `letters`, as far as any has, and the letters that none has."""
    families = []
    missing = set(letters)
    letters_of = {name: _letters(file) for name, file in _fonts().items()}
    while letters_of:
        best = max(letters_of, key=lambda name: len(missing & letters_of[name]))
        if not missing & letters_of[best]:
            break
        families.append(best)
        missing -= letters_of.pop(best)
    return families, missing


@cache
def _fonts() -> dict[str, str]:
    """The file of each family in its upright, regular form."""
    upright = [entry for entry in fontManager.ttflist if entry.style == "normal"]
    files = {}
    for entry in sorted(upright, key=_boldness, reverse=True):
        if PLACEHOLDERS not in entry.name:
            files[entry.name] = entry.fname  # of one family the last, the most regular, counts
    return dict(sorted(files.items()))


def _boldness(entry) -> float:
    """How far a font is from the regular weight, 400."""
    return abs(entry.weight - 400) if isinstance(entry.weight, int) else 0


def _say_missing(letters: set[str]):
    new = letters - _said
    if not new:
        return
    _said.update(new)
    warnings.warn(
        f"no font on this machine has the letters {''.join(sorted(new))}: figures show boxes for "
        "them. Install one that has, such as Noto Sans CJK, and start again",
        stacklevel=2,
    )
