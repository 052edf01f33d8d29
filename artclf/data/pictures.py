"""Pictures: the one way from the bytes of a picture to its pixels, at a size.

Cleaning, training, prediction, saliency maps, thumbnails and experiments all decode and resize with
these functions. Reads files, streams and what is in memory; writes nothing.
"""

import struct
import threading
import warnings
import zlib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from artclf.base.errors import InputError, StepError
from artclf.data import shrinking
from artclf.data.arrays import pictures_in
from artclf.data.colours import to_srgb

HAS_OPENCV = find_spec("cv2") is not None  # the extra `train` brings it
MAX_PIXELS = 100_000_000
MAX_SIZE = 500  # px, the longer side of clean copies, unless asked otherwise
# reasons that may pass: the picture itself is not to blame
MISSING = "file is missing"
NO_MEMORY = "not enough memory"
UNREADABLE = "can't be read"
MEGAPIXELS = "megapixels"
_CHANGING_FILTERS = threading.Lock()
SIZE = 320  # px, the sides of what a network sees, unless asked otherwise
RESIZE = ("squish", "crop", "pad")  # fastai's ways to bring a picture to a square

# All that decoders have raised on damaged files.
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


def open_rgb(source, max_size: int | None = None) -> Image.Image:
    """The picture in `source`, decoded whole: upright, RGB, longer side at most `max_size` px, or as
    long as it is.

    `source` is a path, a picture in a pack, bytes, a binary stream, a PIL image (which stays as it is), or an array of
    one picture (see `arrays.pictures_in`). Transparent parts become white, 16 bits are scaled to 8,
    and colours are brought to sRGB by the profile that comes with the picture; a damaged profile is
    left out of account. Raises `Rejected` with the reason, in words, where the picture can't be
    used, StepError where the store of a pack doesn't answer.
    """
    if isinstance(source, Image.Image | np.ndarray):
        return _from_memory(source, max_size)
    try:
        return _from_bytes(read(source), max_size)
    except StepError:  # it says nothing of the picture
        raise
    except DECODER_ERRORS as error:
        raise Rejected(_reason(error)) from error


def read(source) -> bytes:
    """The bytes of a picture, from a path, from bytes, or from a stream, which is read from its
    beginning, as Pillow does it.

    Raises Rejected for anything else, and what the file raises.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    if not hasattr(source, "read"):
        raise Rejected(f"{type(source).__name__} is not a picture")
    if hasattr(source, "seekable") and source.seekable():
        source.seek(0)
    content = source.read()
    if not isinstance(content, bytes):
        raise Rejected("it is opened as text: open it in mode 'rb'")
    return content


def square(source, size: int, resize: str = "squish", max_size: int | None = None) -> np.ndarray:
    """The pixels of a picture at the size of a network's input: uint8 of shape (3, size, size).

    `source` is what `open_rgb` takes, `resize` is one of `RESIZE`. The result is what fastai's
    `Resize` gives for a picture that is not augmented. A raw picture is first brought to the
    `max_size` of the clean copies that the network learned from, so that it looks like these; a
    clean copy is taken as it is. Raises `Rejected` as `open_rgb` does.
    """
    picture = open_rgb(source, max_size)
    if resize != "squish":
        picture = picture.crop(_region(picture.size, size, resize))
    resized = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def _region(picture_size: tuple[int, int], size: int, resize: str) -> tuple[int, int, int, int]:
    """The square in the middle of a picture that `crop` or `pad` bring to `size` px: left, top,
    right, bottom. It reaches over the edges for `pad`; what lies there is black. Rounded as fastai
    rounds.
    """
    width, height = picture_size
    longer_or_shorter = max if resize == "pad" else min
    side = int(longer_or_shorter(width / size, height / size) * size)
    left = int((width - side) * 0.5)
    top = int((height - side) * 0.5)
    return left, top, left + side, top + side


def thumbnail(file, size: int) -> Image.Image | None:
    """A small copy for a page: RGB, longer side at most `size` px; None where it can't be read."""
    try:
        picture = open_reduced(file, 2 * size)
    except DECODER_ERRORS:
        return None
    picture.thumbnail((size, size))
    return picture


def open_reduced(file, size: int) -> Image.Image:
    """The picture in a file as RGB; a JPEG is decoded at a half, a quarter or an eighth of its size
    where both of its sides stay at least `size` px.

    For copies that are made much smaller next: it is faster than `open_rgb`, and judges nothing.
    The picture is upright. Raises what Pillow raises.
    """
    with Image.open(file) as image:
        image.draft("RGB", (size, size))
        return ImageOps.exif_transpose(image).convert("RGB")


def to_rgb(im: Image.Image, max_size: int | None = None) -> Image.Image:
    """`im` in mode RGB and sRGB, its longer side at most `max_size` px: alpha on white, 16-bit and
    floating-point greys scaled to 0..255.
    """
    profile = im.info.get("icc_profile")
    if im.mode == "CMYK":
        return shrink(to_srgb(im, profile), max_size)
    if im.mode.startswith("I") or im.mode == "F":
        im = _to_8_bits(im)
    if im.has_transparency_data:
        im = im.convert("RGBA")
        white = Image.new("RGBA", im.size, "white")
        im = Image.alpha_composite(white, im)
    rgb = im if im.mode == "RGB" else im.convert("RGB")
    return to_srgb(shrink(rgb, max_size), profile)  # of a small picture colours convert sooner


def shrink(im: Image.Image, max_size: int | None) -> Image.Image:
    """`im` with its longer side at most `max_size` px, its shape kept; never enlarged."""
    if max_size is None or max(im.size) <= max_size:
        return im  # without a copy
    return Image.fromarray(_shrink_pixels(np.asarray(im), max_size))


def _from_bytes(content: bytes, max_size: int | None) -> Image.Image:
    im = _open(content)
    if im.width * im.height > MAX_PIXELS:
        raise Rejected(_over_limit())
    if getattr(im, "n_frames", 1) > 1 and im.format != "MPO":
        raise Rejected("animated or of several pages")
    factor = _reduction(max(im.size), max_size)
    min_width = max(1, im.width // factor)
    min_height = max(1, im.height // factor)
    if im.format == "JPEG":
        decoded = _decode_jpeg(im, content, min_width, min_height, max_size)
        if decoded is not None:
            return decoded
    im.draft("RGB", (min_width, min_height))
    im.load()
    ImageOps.exif_transpose(im, in_place=True)
    return to_rgb(im, max_size)


def _open(content: bytes) -> Image.Image:
    """The picture whose header is in `content`, without Pillow's warning of large pictures: our own
    limit follows.

    Warning filters belong to the whole process, so one thread at a time changes them.
    """
    with _CHANGING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(BytesIO(content))


def _reduction(longer_side: int, max_size: int | None) -> int:
    """By how much a JPEG may be reduced while it is decoded, which is fast: 8, 4, 2 or 1."""
    for factor in (8, 4, 2):
        if max_size is not None and longer_side // max_size >= factor:
            return factor
    return 1


def _decode_jpeg(
    im: Image.Image, content: bytes, min_width: int, min_height: int, max_size: int | None
) -> Image.Image | None:
    """What Pillow makes of a JPEG, pixel for pixel, in less time; None where Pillow must decide."""
    if im.mode != "RGB" or im.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(
            content, min_width=min_width, min_height=min_height, min_factor=1
        )
    except ValueError:
        return None
    small = Image.fromarray(_shrink_pixels(pixels, max_size))
    return to_srgb(small, im.info.get("icc_profile"))


def _from_memory(source: Image.Image | np.ndarray, max_size: int | None) -> Image.Image:
    try:
        im = _of_array(source) if isinstance(source, np.ndarray) else source
        if min(im.size) == 0:
            raise InputError("no pixels")
        upright = ImageOps.exif_transpose(im)  # a copy: the caller's picture stays as it is
        return to_rgb(upright, max_size)
    except DECODER_ERRORS as error:
        name = type(source).__name__
        if isinstance(source, np.ndarray):
            name = f"{name} {source.shape}"
        raise Rejected(f"{name} is not a picture ({error})") from error


def _of_array(array: np.ndarray) -> Image.Image:
    pictures = list(pictures_in(array))
    if len(pictures) != 1:
        raise InputError(f"it holds {len(pictures)}")
    pixels = pictures[0]
    is_grey = pixels.shape[2] == 1
    return Image.fromarray(pixels[:, :, 0] if is_grey else pixels)


def _over_limit() -> str:
    return f"over {MAX_PIXELS // 10**6} {MEGAPIXELS}"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return _over_limit()
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of a decoder
        return f"{UNREADABLE} ({error.strerror})"
    if "truncated" in str(error):
        return "truncated"
    return f"cannot be decoded ({str(error) or type(error).__name__})"


def _to_8_bits(im: Image.Image) -> Image.Image:
    """A grey picture of integers or floating-point numbers in mode L; NaN is black."""
    pixels = np.nan_to_num(np.asarray(im, dtype=float))
    highest = pixels.max()
    if im.mode == "F" and highest <= 1:
        white = 1
    elif "16" in im.mode or highest > 255:
        white = 65535
    else:
        white = 255
    return Image.fromarray(np.rint(pixels.clip(0, white) * (255 / white)).astype("uint8"))


def _shrink_pixels(pixels: np.ndarray, max_size: int | None) -> np.ndarray:
    height, width = pixels.shape[:2]
    if max_size is None or max(width, height) <= max_size:
        return pixels
    scale = max_size / max(width, height)
    new_width = max(1, round(width * scale))
    new_height = max(1, round(height * scale))
    by_area = scale <= 0.5
    if not HAS_OPENCV:
        return shrinking.shrink(pixels, new_width, new_height, by_area)
    import cv2

    interpolation = cv2.INTER_AREA if by_area else cv2.INTER_LINEAR
    return cv2.resize(pixels, (new_width, new_height), interpolation=interpolation)
