"""Colours: what a picture's ICC profile says is what comes out, and no profile loses a picture."""

import struct
from io import BytesIO

import numpy as np
import pytest
from made_pictures import encoded, noise
from PIL import Image

from artclf.data.colours import SRGB
from artclf.data.pictures import Rejected, open_rgb

SRGB_PROFILE = SRGB.tobytes()
# the profile of a machine that stores green in the first channel and red in the second
SWAPPED = SRGB_PROFILE.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
D50 = (0.9642, 1.0, 0.8249)


def fixed(*values: float) -> bytes:
    """Numbers as an ICC profile holds them: 16 bits before the point and 16 behind it."""
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def profile(space: bytes, connection: bytes, **tags: bytes) -> bytes:
    """An ICC profile of version 2, by hand."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(body), 0x02400000, b"prtr", space, connection, b"acsp"
    )
    head += bytes(28) + fixed(*D50)
    return head.ljust(128, b"\0") + table + body


def grey_profile(gamma: float) -> bytes:
    white = b"XYZ \0\0\0\0" + fixed(*D50)
    curve = struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))
    return profile(b"GRAY", b"XYZ ", wtpt=white, kTRC=curve)


def cmyk_profile() -> bytes:
    """The profile of a printer whose every colour is grey: the more ink, the darker, cyan alone
    having no effect.
    """
    ramp = bytes(range(256))
    corners = b""
    for corner in range(16):  # two levels of each ink, cyan the slowest
        inks = [corner >> 2 & 1, corner >> 1 & 1, corner & 1]  # magenta, yellow, black
        lightness = 255 * (1 - max(inks))
        corners += bytes([lightness, 128, 128])
    table = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += ramp * 4 + corners + ramp * 3
    white = b"XYZ \0\0\0\0" + fixed(*D50)
    return profile(b"CMYK", b"Lab ", wtpt=white, A2B0=table, A2B1=table)


def pixels(content: bytes, max_size=None) -> np.ndarray:
    return np.asarray(open_rgb(content, max_size)).astype(int)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_colours_come_out_as_the_profile_says(form):
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(noise(), form, icc_profile=SWAPPED, **options)
    assert abs(pixels(content) - noise()[..., [1, 0, 2]]).max() <= 1


@pytest.mark.parametrize("max_size", [None, 500, 40])
def test_a_jpeg_of_any_size_is_converted(max_size):
    picture = Image.new("RGB", (900, 600), (200, 30, 90))
    content = encoded(picture, "JPEG", icc_profile=SWAPPED)
    assert abs(pixels(content, max_size) - [30, 200, 90]).max() <= 3


def test_the_profile_of_srgb_changes_nothing():
    assert (pixels(encoded(noise(), icc_profile=SRGB_PROFILE)) == noise()).all()


def test_transparent_palettes_and_pictures_in_memory_are_converted_too():
    green = [30, 200, 90]
    red = Image.new("RGBA", (80, 80), (200, 30, 90, 255))
    assert abs(pixels(encoded(red, icc_profile=SWAPPED)) - green).max() <= 1
    palette = red.convert("RGB").quantize(4)
    assert abs(pixels(encoded(palette, icc_profile=SWAPPED)) - green).max() <= 1
    opened = Image.open(BytesIO(encoded(red, icc_profile=SWAPPED)))
    once = open_rgb(opened)
    assert abs(np.asarray(once).astype(int) - green).max() <= 1
    assert (np.asarray(open_rgb(once)) == np.asarray(once)).all()  # not twice
    assert opened.info["icc_profile"] == SWAPPED
    clear = Image.new("RGBA", (80, 80), (200, 30, 90, 0))
    assert pixels(encoded(clear, icc_profile=SWAPPED)).min() == 255


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_greys_are_as_light_as_their_profile_says(mode):
    value = {"L": 128, "I;16": 128 * 257}[mode]
    content = encoded(Image.new(mode, (80, 80), value), "TIFF", icc_profile=grey_profile(1.0))
    light = 128 / 255
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)  # linear light in sRGB, IEC 61966-2-1
    found = pixels(content)
    assert abs(found - expected).max() <= 1 and np.ptp(found) == 0


def test_cmyk_is_converted_by_its_profile():
    for form in ("JPEG", "TIFF"):
        cyan = encoded(
            Image.new("CMYK", (80, 80), (255, 0, 0, 0)), form, icc_profile=cmyk_profile()
        )
        black = encoded(
            Image.new("CMYK", (80, 80), (0, 0, 0, 255)), form, icc_profile=cmyk_profile()
        )
        assert pixels(cyan).min() >= 252, form
        assert pixels(black).max() <= 3, form
    without = pixels(encoded(Image.new("CMYK", (80, 80), (255, 0, 0, 0)), "TIFF"))
    assert (without == [0, 255, 255]).all()


def test_a_profile_of_other_colours_than_the_picture_has_is_left_out():
    for other in (cmyk_profile(), grey_profile(1.0)):
        assert (pixels(encoded(noise(), icc_profile=other)) == noise()).all()
    cmyk = Image.new("CMYK", (80, 80), (255, 0, 0, 0))
    assert (pixels(encoded(cmyk, "TIFF", icc_profile=SWAPPED)) == [0, 255, 255]).all()


def test_no_damaged_profile_loses_the_picture():
    rng = np.random.default_rng(0)
    for whole in (SWAPPED, cmyk_profile(), grey_profile(2.2)):
        for _ in range(150):
            damaged = np.frombuffer(whole, np.uint8)[: rng.integers(1, len(whole) + 1)].copy()
            places = rng.integers(0, len(damaged), rng.integers(1, 30))
            damaged[places] = rng.integers(0, 256, len(places))
            for mode in ("RGB", "L", "CMYK"):
                picture = Image.new(mode, (9, 9))
                picture.info["icc_profile"] = damaged.tobytes()
                assert open_rgb(picture).mode == "RGB"
    content = encoded(noise(), icc_profile=b"no profile")
    assert (pixels(content) == noise()).all()


def test_a_damaged_picture_with_a_profile_is_still_rejected():
    with pytest.raises(Rejected, match="truncated"):
        open_rgb(encoded(noise(), "JPEG", icc_profile=SWAPPED)[:-900])
