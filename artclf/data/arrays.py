"""Arrays: the pictures in an array of numbers, whatever its shape, its type and its range.

Reads and writes nothing. `pictures` decodes with it what is in memory, `answers.inputs` takes batches
apart with it.
"""

from collections.abc import Iterator

import numpy as np

from artclf.base.errors import InputError

CHANNELS = (1, 3, 4)  # grey, RGB, RGB and alpha
ROUNDING = 1e-3  # of arithmetic on values from 0 to 1
HOW_TO_SCALE = "a picture has 0 to 1 as floats, 0 to 255, or 0 to 65535 as uint16"


def pictures_in(array: np.ndarray, is_tensor: bool = False) -> Iterator[np.ndarray]:
    """The pictures in `array`, one by one: uint8 of shape (height, width, channels).

    `array` has the shape (height, width), (height, width, channels), (images, height, width,
    channels) or (images, channels, height, width), where channels are 1, 3 or 4. A tensor may also
    have the shape (channels, height, width); an array of that shape may as well be several grey
    pictures. The range of the values is that of the whole array, see `to_8_bits`. Raises InputError
    where shape or values may be read in two ways, or in none.
    """
    batch = _with_channels_last(array, is_tensor)
    if len(batch) and not batch.size:
        raise InputError("no pixels")
    yield from to_8_bits(batch)


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """`array` as uint8, 0 for black and 255 for white.

    Truth values are black and white; floating-point numbers are from 0 to 1 or from 0 to 255, uint16
    from 0 to 65535, other whole numbers from 0 to 255. Raises InputError for other values, and for
    those that may be read in two ways.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise InputError(f"its values are of type {array.dtype}")
    if not array.size:
        return array.astype(np.uint8)
    lowest, highest = float(array.min()), float(array.max())
    white = _white(array.dtype, highest)
    if white is None or not lowest >= 0:  # NaN is not
        raise InputError(f"{array.dtype} values from {lowest:.4g} to {highest:.4g}: {HOW_TO_SCALE}")
    return np.rint(array * (255 / white)).clip(0, 255).astype(np.uint8)


def _white(dtype: np.dtype, highest: float) -> int | None:
    """The value of white in an array of that type and highest value; None where it can't be known.

    An array of 0 to 255 whose highest value is 1 would be black, and so would uint16 up to 255.
    """
    if highest == 0:
        return 1
    if dtype.kind == "f":
        if highest <= 1 + ROUNDING:
            return 1
        return 255 if 2 <= highest <= 255 else None
    if dtype == np.uint16:
        return 65535 if highest > 255 else None
    return 255 if 1 < highest <= 255 else None


def _with_channels_last(array: np.ndarray, is_tensor: bool) -> np.ndarray:
    """`array` in the shape (images, height, width, channels), not copied."""
    shape = array.shape
    if array.ndim == 2:
        return array[None, :, :, None]
    if array.ndim not in (3, 4):
        raise InputError(f"shape {shape} has {array.ndim} dimensions, a picture 2 or 3")
    batch = array if array.ndim == 4 else array[None]
    is_last = shape[-1] in CHANNELS
    is_first = shape[-3] in CHANNELS
    if is_last and is_first:
        raise InputError(
            f"shape {shape} may have its channels first or last: give PIL's Image.fromarray of it"
        )
    if is_last:
        return batch
    if not is_first:
        raise InputError(f"shape {shape} has no dimension of 1, 3 or 4 channels, first or last")
    if array.ndim == 3 and shape[0] > 1 and not is_tensor:
        raise InputError(
            f"shape {shape} may be one picture of {shape[0]} channels or {shape[0]} grey pictures: "
            "give array.transpose(1, 2, 0), or list(array)"
        )
    return batch.transpose(0, 2, 3, 1)
