"""Shrinking without OpenCV: the same pixels, but for rounding, as with it."""

import cv2
import numpy as np
import pytest
from made_pictures import noise
from PIL import Image

from artclf.data import pictures, shrinking

SIZES = [(700, 501), (501, 700), (999, 40), (1000, 800), (1001, 3), (1733, 1310), (2500, 1)]


@pytest.mark.parametrize("width, height", SIZES)
def test_pixels_are_those_of_opencv(width, height, monkeypatch):
    picture = Image.fromarray(noise(width, height))
    with_opencv = np.asarray(pictures.shrink(picture, 500)).astype(int)
    monkeypatch.setattr(pictures, "HAS_OPENCV", False)
    monkeypatch.setattr(cv2, "resize", lambda *a, **k: pytest.fail("OpenCV was asked"))
    without = np.asarray(pictures.shrink(picture, 500)).astype(int)
    assert without.shape == with_opencv.shape and max(with_opencv.shape) == 500
    assert abs(without - with_opencv).max() <= 1


def test_an_area_is_averaged_by_what_lies_in_it():
    row = np.array([[[10], [20], [60]]], np.uint8)
    shrunk = shrinking.shrink(row, 2, 1, by_area=True)
    # each new pixel covers one and a half: (10 + 20 / 2) / 1.5 and (20 / 2 + 60) / 1.5
    assert shrunk.tolist() == [[[13], [47]]]


def test_neighbours_are_mixed_by_how_near_they_are():
    row = np.array([[[10], [20], [60], [90]]], np.uint8)
    shrunk = shrinking.shrink(row, 3, 1, by_area=False)
    # the middles of the new pixels are at 1/6, 3/2 and 17/6
    assert shrunk.tolist() == [[[12], [40], [85]]]
