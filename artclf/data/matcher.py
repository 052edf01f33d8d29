"""Matcher: what two pictures have to do with each other.

A pair counts when one picture, laid onto the other by the points that they share, is light and dark
in the same places.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from artclf.data.matching import (
    Description,
    candidate_maps,
    kind_of_copy,
    overlap,
    rectangle_of,
    stands_out,
)

MAX_OVERLAP = 0.3  # of the smaller of two pictures that are shown side by side


class Matcher:
    """Compares pictures by their descriptions and luminances, which the functions `description` and
    `luminance` give of a picture.
    """

    def __init__(
        self,
        description: Callable[[Any], Description],
        luminance: Callable[[Any], np.ndarray],
    ):
        self.description = description
        self.luminance = luminance

    def kind(self, a, b, mirrored: bool) -> str:
        """The kind of a pair, '' where the two don't show one picture."""
        return self.kind_of_described(a, b, mirrored, (self.description(a), self.description(b)))

    def kind_of_described(
        self, a, b, mirrored: bool, of_both: tuple[Description, Description]
    ) -> str:
        for affine in candidate_maps(*of_both, mirrored):
            kind = kind_of_copy(self.luminance(a), self.luminance(b), affine)
            if kind:
                return kind
        return ""

    def shown_side_by_side(self, picture, others: list) -> list:
        """Those of `others` that `picture` shows beside another of them."""
        rectangles = {}
        for other in others:
            rectangle = self._rectangle(other, picture)
            if rectangle is not None and stands_out(self.luminance(picture), rectangle):
                rectangles[other] = rectangle
        shown = set()
        for one, other in combinations(rectangles, 2):
            if overlap(rectangles[one], rectangles[other]) < MAX_OVERLAP:
                shown |= {one, other}
        return list(shown)

    def _rectangle(self, inner, outer) -> np.ndarray | None:
        """Where picture `outer` shows `inner`, a smaller one (see `rectangle_of`); None where it
        doesn't.
        """
        a, b = self.luminance(inner), self.luminance(outer)
        for mirrored in (False, True):
            maps = candidate_maps(self.description(inner), self.description(outer), mirrored)
            for affine in maps:
                is_smaller = abs(np.linalg.det(affine[:, :2])) < 1
                if is_smaller and kind_of_copy(a, b, affine):
                    return rectangle_of(affine)
        return None
