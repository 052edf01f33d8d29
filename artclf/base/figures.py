"""Figures as people read them: rounded the same way on pages, in tables and on the command line."""

import math
from numbers import Integral

NOTHING = "–"


def figure(value) -> str:
    """A number with three decimals, a whole one as it is; NOTHING for None and NaN, and other
    things as texts.
    """
    if _is_missing(value):
        return NOTHING
    return f"{value:.3f}" if _is_fraction(value) else str(value)


def percent(value) -> str:
    """A share as a percentage with one decimal; NOTHING for None and NaN."""
    return NOTHING if _is_missing(value) else f"{100 * value:.1f}%"


def p_value(value) -> str:
    """A p-value with three decimals; a smaller one than these can show is below 0.001."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _is_fraction(value) -> bool:
    return hasattr(value, "__float__") and not isinstance(value, Integral)


def _is_missing(value) -> bool:
    return value is None or (_is_fraction(value) and math.isnan(value))
