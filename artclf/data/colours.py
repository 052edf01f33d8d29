"""Colours: from the colour space that a picture's ICC profile describes to sRGB.

Networks, pages and other programs take pixels for sRGB. Without this step the colours of a picture
depend on who scanned it. Reads and writes nothing.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_srgb(im: Image.Image, profile: bytes | None) -> Image.Image:
    """`im`, of mode RGB or CMYK, as RGB in sRGB; `profile` is the ICC profile that came with it.

    White stays white and black becomes black (relative colorimetric, black point compensated).
    Without a profile, and with one that is damaged or of another kind of colours, the values are
    taken for sRGB, or converted from CMYK by Pillow's formula.
    """
    if profile is None:
        return im if im.mode == "RGB" else im.convert("RGB")
    converted = _by_profile(im, profile)
    if converted is None:
        converted = im.convert("RGB")
    converted.info.pop("icc_profile", None)  # so that nobody applies it once more
    return converted


def _by_profile(im: Image.Image, profile: bytes) -> Image.Image | None:
    """`im` converted by `profile`; None where that can't be."""
    try:
        space = _space(profile)
        if space == "GRAY" and _is_grey(im):
            return _transform(profile, "L").apply(im.getchannel(0))
        if space == im.mode:
            return _transform(profile, im.mode).apply(im)
    except (ImageCms.PyCMSError, OSError, ValueError):  # what ImageCms raises on damaged profiles
        return None
    return None


def _space(profile: bytes) -> str:
    """The kind of colours that a profile describes: RGB, GRAY, CMYK..."""
    return ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()


@lru_cache(maxsize=16)  # of the few profiles that most pictures share; to build one takes 10 ms
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(BytesIO(profile)),
        SRGB,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _is_grey(im: Image.Image) -> bool:
    return im.mode == "RGB" and not np.ptp(np.asarray(im), axis=2).any()
