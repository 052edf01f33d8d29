"""Pictures: the one way from the bytes of a picture to its pixels, at a size.

Reads files and streams; writes nothing. Cleaning, training, prediction and maps all decode and
resize by it.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 100_000_000

# whatever the decoders have been seen to raise on damaged files
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class Rejected(Exception):
    """An image that can't be used, and why."""


def open_rgb(file, max_size: int = 500) -> Image.Image:
    """The picture in `file` (a path or a binary stream) decoded whole: upright, RGB, longer side at
    most `max_size`.

    Alpha is laid on white, 16 bits are scaled to 8. Raises `Rejected` with the reason, in words,
    where that fails.
    """
    try:
        im = Image.open(
            BytesIO(data := file.read() if hasattr(file, "read") else Path(file).read_bytes())
        )
        if im.width * im.height > MAX_PIXELS:
            raise Rejected("over 100 megapixels")
        if getattr(im, "n_frames", 1) > 1 and im.format != "MPO":
            raise Rejected("animated or of several pages")
        parts = 2 ** min(
            3, max(0, (max(im.size) // max_size).bit_length() - 1)
        )  # JPEGs shrink fast by 2, 4 or 8
        least = [max(1, side // parts) for side in im.size]
        if im.format == "JPEG" and (plain := _decode_jpeg(im, data, least, max_size)):
            return plain
        im.draft("RGB", least)
        im.load()
        ImageOps.exif_transpose(im, in_place=True)
        return shrink(to_rgb(im), max_size)
    except DECODER_ERRORS as e:
        raise Rejected(_reason(e)) from e


def _decode_jpeg(
    im: Image.Image, data: bytes, least: list[int], max_size: int
) -> Image.Image | None:
    """What Pillow makes of a JPEG, pixel for pixel, in less time; None where there is anything for
    Pillow to judge.
    """
    if im.mode != "RGB" or im.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, min_width=least[0], min_height=least[1], min_factor=1)
        return Image.fromarray(_shrunk(pixels, max_size))
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "over 100 megapixels"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, FileNotFoundError):
        return "file is missing"
    return (
        "truncated"
        if "truncated" in str(error)
        else f"cannot be decoded ({str(error) or type(error).__name__})"
    )


def to_rgb(im: Image.Image) -> Image.Image:
    """`im` in mode RGB: alpha on white, 16-bit and floating-point greys scaled to 0..255."""
    if im.mode == "RGB" and not im.has_transparency_data:
        return im
    if im.mode.startswith("I") or im.mode == "F":
        pixels = np.nan_to_num(np.asarray(im, dtype=float))
        top = (
            1
            if im.mode == "F" and pixels.max() <= 1
            else 65535
            if "16" in im.mode or pixels.max() > 255
            else 255
        )
        im = Image.fromarray((pixels.clip(0, top) * (255 / top)).astype("uint8"))
    if im.has_transparency_data:
        im = im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, "white"), im).convert("RGB")
    return im.convert("RGB")


def shrink(im: Image.Image, max_size: int) -> Image.Image:
    """`im` with its longer side at most `max_size` px, its shape kept; never enlarged."""
    return im if max(im.size) <= max_size else Image.fromarray(_shrunk(np.asarray(im), max_size))


def _shrunk(pixels: np.ndarray, max_size: int) -> np.ndarray:
    if (scale := max_size / max(pixels.shape[:2])) >= 1:
        return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(
        pixels, size, interpolation=cv2.INTER_LINEAR if scale > 0.5 else cv2.INTER_AREA
    )


RESIZE = ("squish", "crop", "pad")


def resizing(size: int, resize: str):
    """fastai's transform that brings a picture to `size` x `size` px; `resize` is one of
    `RESIZE`.
    """
    from fastai.vision.all import PadMode, Resize, ResizeMethod

    methods = dict(
        zip(RESIZE, (ResizeMethod.Squish, ResizeMethod.Crop, ResizeMethod.Pad), strict=True)
    )
    return Resize(size, method=methods[resize], pad_mode=PadMode.Zeros)
