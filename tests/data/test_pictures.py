"""Pictures: every odd way of storing one, and all that a damaged file can do."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from made_pictures import encoded, noise
from PIL import Image

from artclf.data.pictures import (
    RESIZE,
    Rejected,
    open_reduced,
    open_rgb,
    shrink,
    square,
    thumbnail,
)


def opened(content: bytes, **options) -> np.ndarray:
    im = open_rgb(BytesIO(content), **options)
    assert im.mode == "RGB"
    return np.asarray(im)


BILINEAR = Image.Resampling.BILINEAR

# Ways of storing a picture


def test_lossless_pictures_come_back_pixel_by_pixel():
    for form in ("PNG", "BMP", "TIFF", "WEBP"):
        assert (
            opened(encoded(noise(), form, **{"lossless": True} if form == "WEBP" else {}))
            == noise()
        ).all(), form


def test_alpha_is_laid_on_white():
    rgba = noise(channels=4)
    alpha = rgba[..., 3:].astype(float) / 255
    white = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert abs(opened(encoded(rgba)) - white).max() <= 1
    la = noise(channels=2)
    alpha = la[..., 1:].astype(float) / 255
    assert (
        abs(
            opened(encoded(Image.fromarray(la, "LA"))) - (la[..., :1] * alpha + 255 * (1 - alpha))
        ).max()
        <= 1
    )


def test_transparent_colours_of_palettes_and_of_rgb_become_white():
    indices = noise(channels=1)[..., 0] % 4
    palette = Image.fromarray(indices, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0])
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90], [0, 0, 0]])
    assert (opened(encoded(palette, transparency=1)) == colours[indices]).all()
    assert (opened(encoded(palette, "GIF", transparency=1)) == colours[indices]).all()
    half = np.array(
        [
            [10, 20, 30],
            [40 * 128 / 255 + 127, 50 * 128 / 255 + 127, 60 * 128 / 255 + 127],
            [70, 80, 90],
            [255, 255, 255],
        ]
    )
    assert (
        abs(opened(encoded(palette, transparency=bytes([255, 128, 255, 0]))) - half[indices]).max()
        <= 1
    )
    pixels = noise()
    keyed = np.where((pixels == pixels[0, 0]).all(-1, keepdims=True), 255, pixels)
    assert (opened(encoded(pixels, transparency=tuple(pixels[0, 0].tolist()))) == keyed).all()


def test_greys_of_every_depth_are_scaled_to_8_bits():
    ramp = np.linspace(0, 1, 96 * 80).reshape(80, 96)
    expected = (ramp * 255)[..., None].repeat(3, -1)
    deep, whole = (ramp * 65535).astype("uint16"), (ramp * 255).astype("uint8")
    for content in (
        encoded(deep),
        encoded(deep, "TIFF"),
        encoded(deep.astype("int32"), "TIFF"),
        encoded(whole),
        encoded(whole.astype("int32"), "TIFF"),
        encoded(ramp.astype("float32"), "TIFF"),
        encoded((ramp * 255).astype("float32"), "TIFF"),
    ):
        assert abs(opened(content) - expected).max() < 1.01
    assert set(np.unique(opened(encoded(Image.fromarray(whole > 99))))) == {0, 255}


def test_a_dark_picture_of_16_bits_stays_dark():
    assert opened(encoded((noise()[..., 0]).astype("uint16"))).max() <= 1


def test_pixels_that_are_no_numbers_or_below_zero_are_black():
    ramp = np.linspace(-1, 1, 96 * 80, dtype="float32").reshape(80, 96)
    ramp[0, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = opened(encoded(ramp, "TIFF"))
    assert pixels[0, 0].max() == 0 and pixels[1].max() == 0 and pixels[-1, -1].min() == 255


def test_cmyk_keeps_its_colours():
    cmyk = Image.new("CMYK", (80, 80), (0, 200, 255, 10))
    for form in ("JPEG", "TIFF"):
        red, green, blue = opened(encoded(cmyk, form)).mean((0, 1))
        assert abs(red - 245) < 4 and abs(green - 53) < 4 and blue < 4, form


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_upright_once(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise(), form, exif=exif, **{"lossless": True} if form == "WEBP" else {})
    stored = (
        np.asarray(Image.open(BytesIO(encoded(noise(), "JPEG")))) if form == "JPEG" else noise()
    )
    assert (opened(content) == UPRIGHT[orientation](stored)).all()


def test_of_a_stereo_picture_the_first_is_taken():
    first = Image.fromarray(noise())
    content = encoded(first, "MPO", save_all=True, append_images=[Image.new("RGB", (96, 80))])
    assert Image.open(BytesIO(content)).n_frames == 2
    assert abs(opened(content).astype(int) - opened(encoded(first, "JPEG"))).max() <= 1


@pytest.mark.parametrize(
    ("size", "max_size", "expected"),
    [
        ((1200, 800), 500, (500, 333)),
        ((800, 1200), 500, (333, 500)),
        ((500, 400), 500, (500, 400)),
        ((501, 100), 500, (500, 100)),
        ((90, 80), 500, (90, 80)),
        ((3000, 64), 500, (500, 11)),
        ((1200, 800), 64, (64, 43)),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_longer_side_is_at_most_max_size_and_the_shape_kept(form, size, max_size, expected):
    im = open_rgb(BytesIO(encoded(Image.new("RGB", size), form)), max_size)
    assert (
        max(abs(im.width - expected[0]), abs(im.height - expected[1])) <= 1
        and max(im.size) <= max_size
    )


# What is rejected, and in which words


def header_of_a_png(width, height) -> bytes:
    """A PNG that says how large it is and holds no pixels, so that to decode it is another
    error.
    """

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animation(form: str) -> bytes:
    frames = [Image.fromarray(noise(seed=seed)) for seed in range(2)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(noise(), "JPEG")[:-900], "truncated"),
        (encoded(noise())[:-9000], "truncated"),
        (encoded(noise(), "TIFF")[:9000], "cannot be decoded|truncated|not an image"),
        (encoded(noise(), "BMP")[:-99], "truncated"),
        (animation("GIF"), "animated"),
        (animation("WEBP"), "animated"),
        (animation("PNG"), "animated"),
        (animation("TIFF"), "several pages"),
        (header_of_a_png(10_001, 10_000), "over 100 megapixels"),
        (header_of_a_png(20_000, 20_000), "over 100 megapixels"),
        (b"<html>not found</html>", "not an image"),
        (b"", "not an image"),
        (header_of_a_png(10_000, 10_000), "truncated|cannot be decoded"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_be_used_is_rejected_in_words(content, reason):
    with pytest.raises(Rejected, match=reason):
        open_rgb(BytesIO(content))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_nothing_that_a_damaged_file_does_is_more_than_a_rejection():
    exif, rng = Image.Exif(), np.random.default_rng(0)
    exif[0x0112], exif[0x010E] = 6, "a turned picture"
    small, outcomes = Image.fromarray(noise(24, 20)), set()
    seeds = [encoded(small, form, exif=exif) for form in ("JPEG", "PNG", "TIFF", "WEBP")]
    seeds += [encoded(small.convert("P"), "GIF"), encoded(small, "TIFF", compression="tiff_lzw")]
    for _ in range(1500):
        content = np.frombuffer(seeds[rng.integers(len(seeds))], np.uint8).copy()
        places = rng.integers(
            0, len(content) if rng.random() < 0.3 else min(400, len(content)), rng.integers(1, 9)
        )
        content[places] = rng.integers(0, 256, len(places))
        try:
            outcomes.add(open_rgb(BytesIO(content.tobytes())).mode)
        except Rejected as e:
            outcomes.add(str(e)[:9])
    assert {"RGB", "truncated", "cannot be"} <= outcomes


def test_a_decoder_may_raise_what_it_likes(monkeypatch):
    content = encoded(noise())
    for error in (
        struct.error("bad"),
        RuntimeError("bad"),
        MemoryError(),
        ZeroDivisionError("bad"),
        zlib.error("bad"),
    ):
        monkeypatch.setattr(
            Image.Image, "load", lambda self, error=error: (_ for _ in ()).throw(error)
        )
        with pytest.raises(Rejected, match=r"cannot be decoded \(bad\)|not enough memory"):
            open_rgb(BytesIO(content))


# Speed without loss


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}]
)
@pytest.mark.parametrize("size", [(500, 377), (997, 640), (1001, 333), (2017, 1500)])
def test_a_jpeg_has_the_pixels_that_pillow_decodes(size, options):
    content = encoded(
        Image.fromarray(noise(60, 40)).resize(size, Image.Resampling.BICUBIC), "JPEG", **options
    )
    im = Image.open(BytesIO(content))
    parts = 1 if max(size) < 1000 else 2 if max(size) < 2000 else 4
    im.draft("RGB", [side // parts for side in size])
    assert (opened(content, max_size=500) == np.asarray(shrink(im, 500))).all()


def test_shrinking_is_no_further_from_lanczos_than_pillows_bilinear():
    im = Image.fromarray(noise(90, 60)).resize((900, 600), Image.Resampling.BICUBIC)
    for longer in (640, 500, 450, 300, 100):
        fast = shrink(im, longer)
        lanczos, bilinear = (
            np.asarray(im.resize(fast.size, how)).astype(float)
            for how in (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
        )
        assert np.abs(np.asarray(fast) - lanczos).mean() <= np.abs(bilinear - lanczos).mean(), (
            longer
        )


def test_a_jpeg_with_an_odd_end_is_read_as_pillow_reads_it():
    content = encoded(noise(), "JPEG")
    assert (opened(content[:-2] + b"\x00\x00\x00" + content[-2:]) == opened(content)).all()


# Other sources and sizes


def smooth(width=90, height=60) -> Image.Image:
    return Image.fromarray(noise(9, 6)).resize((width, height), Image.Resampling.BICUBIC)


def test_a_picture_is_the_same_from_a_file_its_bytes_and_memory(tmp_path):
    content = encoded(smooth(900, 600))
    file = tmp_path / "a.png"
    file.write_bytes(content)
    image = Image.open(file)
    expected = np.asarray(open_rgb(file, 500))
    assert expected.shape == (333, 500, 3)
    for source in (str(file), content, BytesIO(content), image, np.asarray(image)):
        assert (np.asarray(open_rgb(source, 500)) == expected).all()
        assert (np.asarray(open_rgb(source)) == np.asarray(image)).all()


def test_a_picture_in_memory_is_turned_upright_and_stays_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(BytesIO(encoded(noise(), exif=exif)))
    assert (np.asarray(open_rgb(image)) == UPRIGHT[6](noise())).all()
    assert image.size == (96, 80) and image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "NoneType is not a picture"),
        (np.zeros((0, 5, 3), np.uint8), r"ndarray \(0, 5, 3\) is not a picture \(no pixels\)"),
        (np.zeros((4, 4, 9), np.uint8), r"ndarray \(4, 4, 9\) is not a picture"),
        (Image.new("RGB", (0, 5)), r"Image is not a picture \(no pixels\)"),
        (b"no picture", "not an image"),
        ("no/such.jpg", "file is missing"),
        ("no\0path", "cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_rejected_in_words(source, reason):
    with pytest.raises(Rejected, match=f"^{reason}"):
        open_rgb(source)


@pytest.mark.parametrize("resize", RESIZE)
def test_a_square_has_the_pixels_that_fastai_feeds_to_a_network(resize, tmp_path):
    from fastai.vision.all import DataBlock, ImageBlock, IndexSplitter, PadMode, Resize

    file = tmp_path / "a.png"
    smooth().save(file)
    method = Resize(64, method=resize, pad_mode=PadMode.Zeros)
    block = DataBlock(blocks=ImageBlock, splitter=IndexSplitter([1]), item_tfms=method)
    loaders = block.dataloaders([file, file], bs=1, num_workers=0, device="cpu")
    [batch] = loaders.valid.one_batch()
    expected = (batch[0] * 255).round().byte().numpy()
    pixels = square(file, 64, resize)
    assert pixels.dtype == np.uint8 and pixels.shape == (3, 64, 64)
    assert pixels.flags.c_contiguous
    assert (pixels == expected).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_large_square_shows_what_is_in_a_large_picture(form, tmp_path):
    file = tmp_path / "a"
    large = Image.fromarray(noise(240, 200)).resize((1200, 1000), Image.Resampling.NEAREST)
    file.write_bytes(encoded(large, form, quality=95))
    expected = np.asarray(Image.open(file).convert("RGB").resize((1000, 1000), BILINEAR))
    assert (square(file, 1000).transpose(1, 2, 0) == expected).all()
    as_clean = Image.open(BytesIO(encoded(open_rgb(file, 500))))
    assert (square(file, 320, max_size=500) == square(as_clean, 320)).all()


def test_a_square_of_what_cannot_be_used_is_rejected():
    with pytest.raises(Rejected, match="not an image"):
        square(b"no picture", 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_thumbnail_has_its_longer_side_and_its_shape(form, tmp_path):
    file = tmp_path / "a"
    file.write_bytes(encoded(smooth(900, 600).convert("L"), form))
    small = thumbnail(file, 90)
    assert small.size == (90, 60) and small.mode == "RGB"
    expected = np.asarray(smooth(900, 600).convert("L").resize((90, 60))).astype(int)
    assert abs(np.asarray(small)[..., 0] - expected).mean() < 2


def test_what_cannot_be_read_has_no_thumbnail(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(encoded(noise(), "JPEG")[:-900])
    (tmp_path / "text.jpg").write_bytes(b"no picture")
    for name in ("broken.jpg", "text.jpg", "gone.jpg"):
        assert thumbnail(tmp_path / name, 90) is None


def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path):
    file = tmp_path / "a.jpg"
    smooth(900, 600).save(file)
    sizes = {size: open_reduced(file, size).size for size in (900, 300, 299, 75)}
    assert sizes == {900: (900, 600), 300: (450, 300), 299: (450, 300), 75: (113, 75)}


@pytest.mark.parametrize("way", RESIZE)
def test_squares_are_those_of_fastai(way):
    from fastai.vision.core import PILImage

    from artclf.model.loaders import resizing

    rng = np.random.default_rng(3)
    for width, height in [(1, 70), (70, 1), (64, 64), *rng.integers(2, 300, (40, 2))]:
        picture = Image.fromarray(noise(width, height))
        for size in (64, 33):
            expected = resizing(size, way)(PILImage(picture), split_idx=1)
            found = square(picture, size, way)
            assert found.shape == (3, size, size) and found.flags.c_contiguous
            assert (found == np.asarray(expected).transpose(2, 0, 1)).all(), (width, height, size)
