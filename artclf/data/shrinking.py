"""Shrinking without OpenCV: the same two ways, for installations that only answer.

Reads and writes nothing. `pictures` calls it where OpenCV, which is faster, is not installed; the
pages of `answers` shrink pictures in the same way.
"""

import math

import numpy as np


def shrink(pixels: np.ndarray, width: int, height: int, by_area: bool) -> np.ndarray:
    """`pixels`, uint8 of shape (height, width, channels), at a smaller size.

    With `by_area` each new pixel is the average of the area that it covers, as OpenCV's
    `INTER_AREA`, else a mixture of the four pixels around its middle, as `INTER_LINEAR`. Values
    differ by at most 1 from OpenCV's.
    """
    weights = _weights_of_area if by_area else _weights_of_neighbours
    rows = _mix_rows(pixels.astype(np.float32), height, weights)
    columns = _mix_rows(rows.transpose(1, 0, 2), width, weights)
    return np.rint(columns.transpose(1, 0, 2)).clip(0, 255).astype(np.uint8)


def _mix_rows(pixels: np.ndarray, count: int, weights_of) -> np.ndarray:
    """`count` mixtures of the rows of `pixels`: float32, (count, width, channels)."""
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    scale = len(rows) / count
    mixed = np.empty((count, rows.shape[1]), np.float32)
    for place in range(count):
        first, weights = weights_of(place, scale, len(rows))
        mixed[place] = weights @ rows[first : first + len(weights)]
    return mixed.reshape(count, *pixels.shape[1:])


def _weights_of_area(place: int, scale: float, rows: int) -> tuple[int, np.ndarray]:
    """The first row that new row `place` covers, and how much it covers of that and the next."""
    start = place * scale
    end = min(start + scale, rows)
    first = math.floor(start)
    last = min(math.ceil(end - 1e-6), rows)
    lower = np.arange(first, last)
    covered = np.minimum(lower + 1, end) - np.maximum(lower, start)
    return first, (covered / covered.sum()).astype(np.float32)


def _weights_of_neighbours(place: int, scale: float, rows: int) -> tuple[int, np.ndarray]:
    """The row above the middle of new row `place`, and the weights of that and the one below."""
    middle = min(max((place + 0.5) * scale - 0.5, 0), rows - 1)
    first = math.floor(middle)
    below = middle - first
    weights = [1 - below, below] if first + 1 < rows else [1]
    return first, np.array(weights, np.float32)
