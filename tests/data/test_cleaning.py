"""Cleaning: verdicts, exact duplicates and conflicts, workers that die, runs that are killed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_pictures import encoded, noise
from PIL import Image

from artclf.data import cleaning, pictures
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.cleaning import normalise


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

    def run(function, jobs, workers, initializer):
        for job in jobs:
            decoded.append(job.raw.name)
            yield [(job, function(job))]

    monkeypatch.setattr(cleaning, "map_in_processes", run)
    return decoded


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


# Exact duplicates


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


def test_a_copy_without_a_label_is_set_aside_for_the_one_with_a_label(data, in_this_process):
    data.add("unlabelled", "1.png", encoded(noise(seed=1))).add(
        "a", "2.png", encoded(noise(seed=1))
    )
    data.add("unlabelled", "3.png", encoded(noise(seed=2)))
    data.add("unlabelled", "4.png", encoded(noise(seed=2)))
    normalise(data.folder)
    assert data.verdicts() == {
        "unlabelled/1.png": ("duplicate", "same picture twice (raw/a/2.png)"),
        "a/2.png": ("ok", None),
        "unlabelled/3.png": ("ok", None),
        "unlabelled/4.png": ("duplicate", "same picture twice (raw/unlabelled/3.png)"),
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


@pytest.mark.parametrize(
    "review, expected",
    [
        ({"a/1.png": "drop"}, ["ok", "duplicate", "ok"]),  # a/2 goes along, so b/3 is alone
        ({"a/1.png": "move:b"}, ["ok", "duplicate", "duplicate"]),
        ({"a/1.png": "drop", "a/2.png": "keep"}, ["ok", "conflict", "conflict"]),
        ({"a/2.png": "drop"}, ["conflict", "ok", "conflict"]),
        ({"b/3.png": "drop"}, ["ok", "duplicate", "ok"]),
    ],
)
def test_a_decision_on_the_first_holds_for_its_undecided_copies(
    data, in_this_process, review, expected
):
    files = ["a/1.png", "a/2.png", "b/3.png"]
    for file in files:
        data.add(*file.split("/"), encoded(noise()))
    normalise(data.folder)
    with Catalogue(data.folder) as cat:
        for file, decision in review.items():
            cat.db.execute("UPDATE images SET review = ? WHERE file = ?", (decision, f"raw/{file}"))
    normalise(data.folder)
    statuses = data.statuses()
    assert [statuses[file] for file in files] == expected


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


def test_a_raw_file_that_was_missing_is_judged_again_when_it_is_there(data, in_this_process):
    data.add("a", "0.png", encoded(noise())).add("a", "1.png", encoded(noise(seed=1)))
    raw = data.folder / "raw/a/0.png"
    raw.rename(data.folder / "away.png")
    normalise(data.folder)
    assert data.statuses() == {"a/0.png": "rejected", "a/1.png": "ok"}
    normalise(data.folder)
    assert in_this_process == ["0.png", "1.png"]  # it is still missing
    (data.folder / "away.png").rename(raw)
    normalise(data.folder)
    assert data.verdicts()["a/0.png"] == ("ok", None) and in_this_process[2:] == ["0.png"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_a_moment_without_memory_or_disk_passes(data, in_this_process, monkeypatch, error):
    data.add("a", "0.png", encoded(noise())).add("a", "bad.png", b"no picture")
    with monkeypatch.context() as patch:

        def fail(*_):
            raise error

        patch.setattr(Path, "read_bytes", fail)
        normalise(data.folder)
    assert set(data.statuses().values()) == {"rejected"}
    normalise(data.folder)
    assert data.statuses() == {"a/0.png": "ok", "a/bad.png": "rejected"}
    decoded = len(in_this_process)
    normalise(data.folder)
    assert len(in_this_process) == decoded  # what is no picture stays rejected


def test_a_higher_limit_of_pixels_judges_again(data, in_this_process, monkeypatch):
    data.add("a", "0.png", encoded(noise(100, 90)))
    for module in (pictures, cleaning):
        monkeypatch.setattr(module, "MAX_PIXELS", 8_000)
    for _ in range(2):
        normalise(data.folder)
        assert data.statuses() == {"a/0.png": "rejected"} and len(in_this_process) == 1
    for module in (pictures, cleaning):
        monkeypatch.setattr(module, "MAX_PIXELS", 9_000)
    normalise(data.folder)
    assert data.statuses() == {"a/0.png": "ok"}


# Processes


clean_picture = cleaning._clean_picture


def die_or_clean(settings, job):
    if "killer" in job.raw.name:
        os._exit(11)
    return clean_picture(settings, job)


def test_a_picture_that_crashes_the_decoder_has_that_as_its_reason(data, monkeypatch):
    for i in range(5):
        data.add("a", f"{i}.png", encoded(noise(seed=i)))
    data.add("a", "killer.png", encoded(noise(seed=9)))
    monkeypatch.setattr(cleaning, "_clean_picture", die_or_clean)
    normalise(data.folder, workers=2)
    assert data.verdicts() == {
        **{f"a/{i}.png": ("ok", None) for i in range(5)},
        "a/killer.png": ("rejected", "crashed the decoder"),
    }
    # a process may also have been ended for want of memory: the next run tries once more
    monkeypatch.setattr(cleaning, "_clean_picture", clean_picture)
    normalise(data.folder, workers=2)
    assert data.verdicts()["a/killer.png"] == ("ok", None)


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


def test_a_picture_with_damaged_tags_warns_of_nothing(data, capfd):
    exif = Image.Exif()
    exif[0x010E] = "a description that is longer than four bytes"
    content = encoded(noise(), "JPEG", exif=exif)
    place = content.index(bytes([0x01, 0x0E]))  # the tag's entry: tag, type, count, offset
    damaged = content[: place + 8] + b"\x00\xff\xff\x00" + content[place + 12 :]
    with pytest.warns(UserWarning):
        Image.open(BytesIO(damaged)).getexif().get(0x010E)
    data.add("a", "1.jpg", damaged)
    normalise(data.folder, workers=1)
    assert data.statuses() == {"a/1.jpg": "ok"}
    assert "Warning" not in capfd.readouterr().err


def test_the_size_of_clean_copies_is_known(tmp_path):
    assert cleaning.max_size_of(tmp_path) == 500
    assert not any(tmp_path.iterdir())
    data = Data(tmp_path).add("a", "1.png", encoded(noise()))
    assert cleaning.max_size_of(tmp_path) == 500
    normalise(data.folder, max_size=1000, workers=1)
    assert cleaning.max_size_of(tmp_path) == 1000


def test_copies_of_an_earlier_version_are_made_again(data, in_this_process):
    data.add("a", "1.png", encoded(noise()))
    normalise(data.folder)
    copy = data.folder / "clean/a/1.jpg"
    whole = copy.read_bytes()
    copy.write_bytes(b"of another way to clean")
    normalise(data.folder)
    assert copy.read_bytes() != whole
    with Catalogue(data.folder) as cat:
        settings = json.loads(cat.setting("clean"))
        del settings["version"]  # as version 0.1 wrote it
        cat.set_setting("clean", json.dumps(settings))
    normalise(data.folder)
    assert copy.read_bytes() == whole and data.statuses() == {"a/1.png": "ok"}
