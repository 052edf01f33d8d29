"""Arrays: each shape, type and range is read as what it is, or not at all."""

import numpy as np
import pytest
from made_pictures import noise

from artclf.base.errors import InputError
from artclf.data.arrays import pictures_in, to_8_bits


def only_picture(array, **options) -> np.ndarray:
    [picture] = pictures_in(array, **options)
    assert picture.dtype == np.uint8
    return picture


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_may_be_last(channels):
    pixels = noise(channels=channels)
    assert (only_picture(pixels) == pixels).all()
    assert (only_picture(pixels, is_tensor=True) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_of_tensors_and_batches_may_be_first(channels):
    pixels = noise(channels=channels)
    first = pixels.transpose(2, 0, 1)
    assert (only_picture(first, is_tensor=True) == pixels).all()
    batch = np.stack([first, 255 - first])
    found = list(pictures_in(batch))
    assert len(found) == 2 and (found[0] == pixels).all() and (found[1] == 255 - pixels).all()


def test_greys_have_one_channel():
    grey = noise(channels=1)
    assert (only_picture(grey[..., 0]) == grey).all()
    assert (only_picture(grey[..., 0][None]) == grey).all()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((3, 200, 300), "one picture of 3 channels or 3 grey pictures"),
        ((4, 200, 300), "one picture of 4 channels or 4 grey pictures"),
        ((3, 200, 3), "first or last"),
        ((8, 3, 200, 3), "first or last"),
        ((200, 300, 2), "no dimension of 1, 3 or 4"),
        ((16, 200, 300), "no dimension of 1, 3 or 4"),
        ((8, 2, 200, 300), "no dimension of 1, 3 or 4"),
        ((5,), "1 dimensions"),
        ((2, 2, 3, 20, 30), "5 dimensions"),
        ((0, 30, 3), "no pixels"),
        ((0, 30), "no pixels"),
        ((2, 0, 30, 3), "no pixels"),
    ],
)
def test_a_shape_that_may_be_two_things_or_is_none_is_an_error(shape, reason):
    with pytest.raises(InputError, match=reason):
        list(pictures_in(np.zeros(shape, np.uint8)))


def test_an_empty_batch_holds_nothing():
    assert list(pictures_in(np.zeros((0, 3, 20, 30), np.float32))) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 9, 255], np.uint8), [0, 9, 255]),
        (np.array([0, 1, 1], np.uint8), [0, 1, 1]),
        (np.array([True, False]), [255, 0]),
        (np.array([0, 0.5, 1]), [0, 128, 255]),
        (np.array([0, 200 / 255], np.float16), [0, 200]),
        (np.array([0, 1.0004], np.float32), [0, 255]),
        (np.array([0, 2.4, 254.6, 255], np.float32), [0, 2, 255, 255]),
        (np.array([0, 257, 65535], np.uint16), [0, 1, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([0, 100], np.int8), [0, 100]),
        (np.array([0, 2]), [0, 2]),
        (np.array([0, 2.0]), [0, 2]),
        (np.array([0, 256], np.uint16), [0, 1]),
        (np.zeros(3, np.uint16), [0, 0, 0]),
        (np.zeros(3), [0, 0, 0]),
    ],
)
def test_values_are_scaled_by_their_type_and_range(values, expected):
    found = to_8_bits(values)
    assert found.dtype == np.uint8 and found.tolist() == expected


def test_every_value_of_8_bits_survives_each_form():
    every = np.arange(256, dtype=np.uint8)
    for form in (every / 255, (every / 255).astype(np.float32), every.astype(float)):
        assert (to_8_bits(form) == every).all()
    assert (to_8_bits(every.astype(np.uint16) * 257) == every).all()


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 1.1]),  # 0 to 1 beyond its end, or nearly black?
        np.array([0, 1.99]),
        np.array([0, 255.5]),
        np.array([0, 300.0]),
        np.array([-0.1, 1]),
        np.array([-2.1, 2.6]),
        np.array([np.nan, 1]),
        np.array([np.inf, 1]),
        np.array([0, 200], np.uint16),
        np.array([0, 255], np.uint16),
        np.array([0, 256]),
        np.array([-1, 3]),
        np.array([0, 1]),
        np.array([1j]),
        np.array(["2020-01-01"], dtype="datetime64[s]"),
    ],
)
def test_other_values_are_an_error_that_names_them(values):
    with pytest.raises(InputError, match=r"values (from|are|of type)|its values"):
        to_8_bits(values)
