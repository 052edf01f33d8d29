"""Step clean: every odd way of storing a picture, doubles and conflicts, workers that die, runs
that are killed.
"""

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artclf.base.processes import map_in_processes
from artclf.data import cleaning
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.cleaning import normalise
from artclf.data.pictures import Rejected, open_rgb, shrink


def noise(width=96, height=80, seed=0, channels=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(picture, form="PNG", **options) -> bytes:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(stream := BytesIO(), form, **options)
    return stream.getvalue()


def opened(content: bytes, **options) -> np.ndarray:
    im = open_rgb(BytesIO(content), **options)
    assert im.mode == "RGB"
    return np.asarray(im)


class Data:
    """A data set in the making: files under raw/ and their rows, as step download leaves them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, period: str, name: str, content: bytes, **columns):
        file = self.folder / "raw" / period / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                width, height = Image.open(file).size
        except (OSError, Image.DecompressionBombError):
            width, height = 1000, 1000
        row = {"url": f"http://a.example/{name}", "period": period}
        with Catalogue(self.folder) as cat:
            cat.add([row])
            cat.update(
                [
                    {
                        **row,
                        "status": "ok",
                        "file": f"raw/{period}/{name}",
                        "width": width,
                        "height": height,
                        "sha256": hashlib.sha256(content).hexdigest(),
                        **columns,
                    }
                ]
            )
        return self

    def verdicts(self) -> dict:
        """File name under raw/ -> status and reason."""
        with Catalogue(self.folder) as cat:
            rows = cat.select("file IS NOT NULL")
        return {
            row["file"].removeprefix("raw/"): (row["clean_status"], row["clean_reason"])
            for row in rows
        }

    def statuses(self) -> dict:
        return {name: status for name, (status, _) in self.verdicts().items()}

    def copies(self) -> dict:
        return hashes(self.folder / "clean")


def hashes(folder: Path) -> dict:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def data(tmp_path) -> Data:
    return Data(tmp_path)


@pytest.fixture
def in_this_process(monkeypatch):
    """Jobs are done here, one by one, and the files that were decoded are listed."""
    decoded = []

    def run(fn, jobs, workers, size=16):
        for job in jobs:
            decoded.append(job[1].name)
            yield [(job, fn(job))]

    monkeypatch.setattr(cleaning, "map_in_processes", run)
    return decoded


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
        with pytest.raises(Rejected, match=r"cannot be decoded \((bad|MemoryError)\)"):
            open_rgb(BytesIO(content))


def test_pictures_under_64_px_and_missing_files_are_rejected(data, in_this_process):
    data.add("a", "narrow.png", encoded(noise(63, 200))).add(
        "a", "low.png", encoded(noise(200, 63))
    )
    data.add("a", "least.png", encoded(noise(64, 64))).add("a", "gone.png", encoded(noise()))
    (data.folder / "raw/a/gone.png").unlink()
    normalise(data.folder)
    assert data.verdicts() == {
        "a/narrow.png": ("rejected", "under 64 px"),
        "a/low.png": ("rejected", "under 64 px"),
        "a/least.png": ("ok", None),
        "a/gone.png": ("rejected", "file is missing"),
    }
    assert list(data.copies()) == ["a/least.jpg"]


def test_pictures_of_one_colour_are_flagged_and_kept(data, in_this_process):
    ramp = np.linspace(0, 1, 100)[None, :, None].repeat(100, 0).repeat(3, -1)
    data.add("a", "blue.png", encoded(Image.new("RGB", (100, 100), (0, 47, 167))))
    data.add("a", "nearly.png", encoded((200 + 6 * ramp).astype("uint8")))
    data.add("a", "faint.png", encoded((200 + 40 * ramp).astype("uint8")))
    data.add("a", "one_channel.png", encoded((200 + ramp * [0, 0, 40]).astype("uint8")))
    normalise(data.folder)
    assert data.statuses() == {
        "a/blue.png": "flagged",
        "a/nearly.png": "flagged",
        "a/faint.png": "ok",
        "a/one_channel.png": "ok",
    }
    assert len(data.copies()) == 4


# The step


def test_the_step_writes_normalised_jpegs_and_leaves_raw_files_alone(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    data.add("01-x", "1.jpg", encoded(noise(900, 600), "JPEG", exif=exif))
    data.add("02-y", "2.png", encoded(noise(channels=4)))
    data.add("02-y", "broken.jpg", encoded(noise(), "JPEG")[:-900])
    before = hashes(data.folder / "raw")
    counts = normalise(data.folder, workers=1)
    assert hashes(data.folder / "raw") == before
    copies = {
        path.relative_to(data.folder).as_posix(): Image.open(path)
        for path in data.folder.rglob("clean/*/*")
    }
    assert {name: (im.format, im.mode, im.size) for name, im in copies.items()} == {
        "clean/01-x/1.jpg": ("JPEG", "RGB", (333, 500)),
        "clean/02-y/2.jpg": ("JPEG", "RGB", (96, 80)),
    }
    quality = Image.open(BytesIO(encoded(noise(), "JPEG", quality=90))).quantization
    assert all(im.quantization == quality and not im.getexif() for im in copies.values())
    assert counts.to_dict("index") == {
        "01-x": {"ok": 1, "rejected": 0},
        "02-y": {"ok": 1, "rejected": 1},
    }
    for row in read_catalogue(data.folder).query("clean_status == 'ok'").itertuples():
        assert row.clean_sha256 == data.copies()[f"{row.period}/{Path(row.file).stem}.jpg"]


def test_without_a_catalogue_nothing_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf download"):
        normalise(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rows_that_were_not_fetched_are_left_alone(data, in_this_process):
    data.add("a", "1.png", encoded(noise()))
    with Catalogue(data.folder) as cat:
        cat.add([{"url": "http://a.example/never", "period": "b"}])
    normalise(data.folder)
    assert in_this_process == ["1.png"] and cleaning.counts(data.folder).index.tolist() == ["a"]


def test_a_rerun_decodes_only_what_is_new_or_gone_and_other_settings_decode_all(
    data, in_this_process
):
    data.add("a", "1.png", encoded(noise())).add("a", "2.png", encoded(noise())).add(
        "a", "3.jpg", b"no picture"
    )
    data.add("b", "4.png", encoded(Image.new("RGB", (99, 99))))
    runs = []

    def run(**options):
        in_this_process.clear()
        normalise(data.folder, **options)
        runs.append([name.split(".")[0] for name in in_this_process])

    run()
    verdicts = data.verdicts()
    run()
    data.add("b", "5.png", encoded(noise(seed=5)))
    run()
    (data.folder / "clean/b/5.jpg").unlink()
    run()
    assert {
        name: verdict for name, verdict in data.verdicts().items() if name != "b/5.png"
    } == verdicts
    run(max_size=80)
    assert Image.open(data.folder / "clean/a/1.jpg").size == (80, 67)
    run(max_size=80, quality=70)
    run(max_size=80, quality=70)
    assert runs == [list("1234"), [], ["5"], ["5"], list("12345"), list("12345"), []]


def test_the_table_of_issues_has_an_example_of_each(data, in_this_process):
    expected = [
        ["duplicate: same picture twice", 2, "raw/a/2.png"],
        ["rejected: not an image", 1, "raw/a/4.jpg"],
    ]
    data.add("a", "1.png", encoded(noise()))
    normalise(data.folder)
    assert cleaning.issues(data.folder).empty
    for name in ("2.png", "3.png"):
        data.add("a", name, encoded(noise()))
    data.add("a", "4.jpg", b"no picture")
    normalise(data.folder)
    issues = cleaning.issues(data.folder)
    assert (
        issues.columns.tolist() == ["issue", "number", "example"]
        and issues.values.tolist() == expected
    )
    assert cleaning.counts(data.folder).to_dict("index") == {
        "a": {"duplicate": 2, "ok": 1, "rejected": 1}
    }


def test_before_the_step_its_tables_are_empty(data):
    data.add("a", "1.png", encoded(noise()))
    assert cleaning.counts(data.folder).empty and cleaning.issues(data.folder).empty


# Doubles


def test_equal_pictures_are_kept_once_and_set_aside_under_two_periods(data, in_this_process):
    twice, across, jpeg = noise(seed=1), noise(seed=2), encoded(noise(seed=3), "JPEG")
    data.add("a", "1.png", encoded(twice)).add("a", "2.png", encoded(twice)).add(
        "a", "3.bmp", encoded(twice, "BMP")
    )
    data.add("a", "4.png", encoded(across)).add("b", "5.tif", encoded(across, "TIFF"))
    data.add("b", "6.png", encoded(across))
    data.add("c", "7.jpg", jpeg).add("c", "8.png", encoded(Image.open(BytesIO(jpeg))))
    data.add("c", "9.png", encoded(noise()))
    normalise(data.folder)
    double, conflict = (
        ("duplicate", "same picture twice (raw/a/1.png)"),
        "same picture under another period ({})",
    )
    assert data.verdicts() == {
        "a/1.png": ("ok", None),
        "a/2.png": double,
        "a/3.bmp": double,
        "a/4.png": ("conflict", conflict.format("b")),
        "b/5.tif": ("conflict", conflict.format("a")),
        "b/6.png": ("conflict", conflict.format("a")),
        "c/7.jpg": ("ok", None),
        "c/8.png": ("duplicate", "same picture twice (raw/c/7.jpg)"),
        "c/9.png": ("ok", None),
    }


def test_a_picture_that_comes_later_makes_a_conflict_and_its_leaving_ends_it(data, in_this_process):
    data.add("a", "1.png", encoded(noise())).add("a", "2.png", encoded(noise()))
    data.add("a", "3.png", encoded(Image.new("RGB", (99, 99), "red")))
    normalise(data.folder)
    before = data.verdicts()
    assert data.statuses() == {"a/1.png": "ok", "a/2.png": "duplicate", "a/3.png": "flagged"}
    data.add("b", "4.png", encoded(noise())).add(
        "b", "5.png", encoded(Image.new("RGB", (99, 99), "red"))
    )
    normalise(data.folder)
    assert set(data.statuses().values()) == {"conflict"}
    with Catalogue(data.folder) as cat:
        cat.db.execute("DELETE FROM images WHERE period = 'b'")
    normalise(data.folder)
    assert data.verdicts() == before


def test_when_the_kept_one_leaves_or_breaks_its_double_is_kept(data, in_this_process):
    for i in range(3):
        data.add("a", f"{i}.png", encoded(noise()))
    normalise(data.folder)
    (data.folder / "raw/a/0.png").write_bytes(b"broken since")
    (data.folder / "clean/a/0.jpg").unlink()
    normalise(data.folder)
    assert data.statuses() == {"a/0.png": "rejected", "a/1.png": "ok", "a/2.png": "duplicate"}
    with Catalogue(data.folder) as cat:
        cat.db.execute("DELETE FROM images WHERE file LIKE '%1.png'")
    normalise(data.folder)
    assert data.statuses() == {"a/0.png": "rejected", "a/2.png": "ok"}


# Processes


def die_on_seven(job: int) -> int:
    if job == 7:
        os._exit(1)
    return job * job


def test_a_job_that_kills_its_process_has_no_result_and_all_others_have_theirs():
    pairs = [
        pair
        for results in map_in_processes(die_on_seven, range(20), workers=2, size=4)
        for pair in results
    ]
    assert sorted(pairs) == [(i, None if i == 7 else i * i) for i in range(20)]


REAL_JOB = cleaning._job


def die_or_clean(settings, job):
    if "killer" in job[1].name:
        os._exit(11)
    return REAL_JOB(settings, job)


def test_a_picture_that_crashes_the_decoder_has_that_as_its_reason(data, monkeypatch):
    for i in range(5):
        data.add("a", f"{i}.png", encoded(noise(seed=i)))
    data.add("a", "killer.png", encoded(noise(seed=9)))
    monkeypatch.setattr(cleaning, "_job", die_or_clean)
    normalise(data.folder, workers=2)
    assert data.verdicts() == {
        **{f"a/{i}.png": ("ok", None) for i in range(5)},
        "a/killer.png": ("rejected", "crashed the decoder"),
    }


def test_a_script_without_a_main_guard_is_told_and_nothing_is_rejected(data):
    data.add("a", "1.png", encoded(noise()))
    script = data.folder / "script.py"
    script.write_text(
        "import sys\nfrom artclf import clean\nclean.normalise(sys.argv[1], workers=1)\n"
    )
    done = subprocess.run([sys.executable, script, data.folder], capture_output=True, text=True)
    assert done.returncode and "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    assert data.verdicts() == {"a/1.png": (None, None)}


def many(folder: Path) -> Data:
    data = Data(folder)
    for i in range(48):
        data.add("ab"[i % 2], f"{i}.png", encoded(noise(700, 700, seed=i // 2), compress_level=0))
    return data.add("b", "broken.png", b"no picture")


RUN = "import sys; from artclf import clean; clean.normalise(sys.argv[1], workers=2)"


@pytest.mark.skipif(os.name == "nt", reason="looks at processes as Linux and macOS show them")
def test_a_killed_run_leaves_no_process_and_the_next_ends_like_one_that_was_not(tmp_path):
    undisturbed = many(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    killed = Data(tmp_path / "two")
    normalise(undisturbed.folder, workers=1)
    process = subprocess.Popen([sys.executable, "-c", RUN, killed.folder], stdout=subprocess.PIPE)
    while not any(killed.folder.glob("clean/*/*")):
        time.sleep(0.01)
    process.kill()
    process.stdout.read()  # ends when the last worker has gone, for they hold it too
    done = [status for status in killed.statuses().values() if status]
    assert len(done) < 49
    normalise(killed.folder, workers=2)
    assert killed.verdicts() == undisturbed.verdicts()
    assert killed.copies() == undisturbed.copies()
    assert set(killed.statuses().values()) == {"conflict", "rejected"}


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


@pytest.mark.parametrize(
    "review, expected",
    [
        ({"a/1.png": "drop"}, {"a/1.png": "ok", "b/2.png": "ok"}),
        ({"a/1.png": "move:b"}, {"a/1.png": "ok", "b/2.png": "duplicate"}),
        ({"a/1.png": None}, {"a/1.png": "conflict", "b/2.png": "conflict"}),
    ],
)
def test_a_decision_ends_a_conflict_and_taking_it_back_brings_it_back(
    data, in_this_process, review, expected
):
    data.add("a", "1.png", encoded(noise())).add("b", "2.png", encoded(noise()))
    normalise(data.folder)
    for decisions, statuses in (
        (review, expected),
        (dict.fromkeys(review), dict.fromkeys(expected, "conflict")),
    ):
        with Catalogue(data.folder) as cat:
            cat.update(
                {"url": f"http://a.example/{name[2:]}", "period": name[0], "review": decision}
                for name, decision in decisions.items()
            )
        normalise(data.folder)
        found = read_catalogue(data.folder).set_index("url").clean_status
        assert {name: found[f"http://a.example/{name[2:]}"] for name in statuses} == statuses
