"""Near-duplicates of pictures: copies are found and named, other pictures stay apart, and what was
decided can be taken back.
"""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageOps

from artclf import download
from artclf.data import cleaning, comparison, duplicates, matcher, sample, splits, verdicts
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue
from artclf.data.numbered import Pictures

FIRST, SECOND = list(sample.PERIODS)[4], list(sample.PERIODS)[9]


@pytest.fixture(scope="module")
def canvas():
    """Drawn canvases, by number."""
    return [sample.canvas(FIRST, number, 300) for number in range(5)]


def marked(folder: Path, pictures: dict):
    """A data folder with `pictures` (name with its period: image), clean and marked; and what
    `mark` returned.
    """
    for name, image in pictures.items():
        (folder / "gallery" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "gallery" / name, quality=90)
    download.import_folder(folder / "gallery", folder / "data")
    cleaning.normalise(folder / "data", workers=1)
    return folder / "data", duplicates.mark(folder / "data")


def bordered(im):
    return ImageOps.expand(im, 30, "white")


def watermarked(im):
    layer = Image.new("RGBA", im.size)
    ImageDraw.Draw(layer).text((30, 120), "museum", (255, 255, 255, 140), font_size=40)
    return Image.alpha_composite(im.convert("RGBA"), layer).convert("RGB")


CHANGES = {
    "smaller": (lambda im: im.resize((im.width // 2, im.height // 2)), "same"),
    "grey": (lambda im: im.convert("L").convert("RGB"), "same"),
    "cropped": (lambda im: ImageOps.crop(im, im.width // 10), "same"),
    "detail": (
        lambda im: im.crop(
            (im.width // 5, im.height // 5, im.width * 7 // 10, im.height * 7 // 10)
        ),
        "detail",
    ),
    "border": (bordered, "same"),
    "frame": (lambda im: ImageOps.expand(ImageOps.expand(im, 8, "black"), 16, "goldenrod"), "same"),
    "watermark": (watermarked, "same"),
    "rotated": (
        lambda im: im.rotate(3, Image.Resampling.BICUBIC, expand=True, fillcolor="white"),
        "same",
    ),
    "cast": (lambda im: Image.fromarray((np.asarray(im) * (1, 0.8, 0.6)).astype(np.uint8)), "same"),
    "squashed": (lambda im: im.resize((224, 224)), "same"),
    "mirror": (ImageOps.mirror, "mirror"),
    "mirrored crop": (lambda im: ImageOps.mirror(ImageOps.crop(im, im.width // 10)), "mirror"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_its_kind_named(canvas, tmp_path, change):
    apply, kind = CHANGES[change]
    pictures = {f"{FIRST}/{number}.png": image for number, image in enumerate(canvas)}
    data, found = marked(tmp_path, {**pictures, f"{FIRST}/copy.png": apply(canvas[1])})
    assert found.kind.tolist() == [kind]
    table = read_catalogue(data)
    group = table[table.dup_group.notna()]
    assert (
        len(group) == 2
        and group.dup_group.nunique() == 1
        and group.dup_group.iloc[0] == group.sha256.min()[:16]
    )
    kept = group.assign(size=group.width * group.height).sort_values(["size", "bytes"]).iloc[-1]
    [other] = group[group.file != kept.file].to_dict("records")
    assert (kept.clean_status, other["clean_status"]) == ("ok", "duplicate")
    assert other["clean_reason"] == f"near-duplicate of {kept.file} ({kind})"


@pytest.mark.slow
def test_different_canvases_stay_apart(drawn):
    assert duplicates.mark(drawn).empty
    table = read_catalogue(drawn)
    assert table.dup_group.isna().all() and table.phash.str.fullmatch("[0-9a-f]{16}").all()


def test_pictures_of_one_colour_have_no_hash_and_no_double(tmp_path):
    pictures = {
        f"{FIRST}/{shade}.png": Image.new("RGB", (200, 150), (shade, shade, 90))
        for shade in (0, 9, 90, 200)
    }
    data, found = marked(tmp_path, pictures)
    table = read_catalogue(data)
    assert found.empty and table.phash.isna().all() and (table.clean_status == "flagged").all()


def test_a_picture_under_two_periods_waits_for_the_review(canvas, tmp_path):
    data, found = marked(
        tmp_path,
        {
            f"{FIRST}/a.png": canvas[0],
            f"{FIRST}/c.png": canvas[2],
            f"{SECOND}/a.png": canvas[0].resize((200, 180)),
            f"{SECOND}/d.png": canvas[3],
        },
    )
    assert (
        found.kept.isna().all() and set(found.periods) == {f"{FIRST}, {SECOND}"} and len(found) == 2
    )
    table = read_catalogue(data)
    wrong = table[table.clean_status == "conflict"]
    other = {FIRST: SECOND, SECOND: FIRST}
    assert list(wrong.clean_reason) == [
        f"near-duplicate under another period ({other[p]})" for p in wrong.period
    ]
    moved = wrong[wrong.period == SECOND].iloc[0]
    with Catalogue(data) as cat:
        cat.update([{"url": moved.url, "period": SECOND, "review": "drop"}])
    assert duplicates.mark(data).empty
    table = read_catalogue(data)
    assert (table.clean_status == "ok").all() and table.dup_group.notna().sum() == 2
    assert table.review.dropna().tolist() == ["drop"]


def test_a_rerun_says_the_same_computes_nothing_and_takes_back(canvas, tmp_path, monkeypatch):
    data, found = marked(
        tmp_path,
        {
            f"{FIRST}/a.png": canvas[0],
            f"{FIRST}/b.jpg": canvas[0].resize((210, 190)),
            f"{FIRST}/c.png": canvas[1],
        },
    )
    before = read_catalogue(data)
    with monkeypatch.context() as patch:
        for name in ("describe_file", "read_luminance"):
            patch.delattr(verdicts, name)
        for name in ("candidate_maps", "kind_of_copy"):
            patch.delattr(matcher, name)
        assert duplicates.mark(data).equals(found) and len(found) == 1
    assert read_catalogue(data).equals(before)
    with Catalogue(data) as cat:  # the larger one is found to be broken
        kept = before[before.file == found.kept[0]].iloc[0]
        cat.update(
            [
                {
                    "url": kept.url,
                    "period": kept.period,
                    "clean_status": "rejected",
                    "clean_reason": "truncated",
                }
            ]
        )
    assert duplicates.mark(data).empty
    after = read_catalogue(data).set_index("file").loc[found.file[0]]
    assert after.clean_status == "ok" and pd.isna(after.dup_group)


def test_what_step_clean_said_is_kept_and_comes_back(canvas, tmp_path):
    small = canvas[0].resize((210, 190))
    data, _ = marked(
        tmp_path,
        {f"{FIRST}/a.png": canvas[0], f"{FIRST}/b.png": small, f"{FIRST}/c.png": canvas[2]},
    )
    with Catalogue(data) as cat:
        cat.db.execute(
            "UPDATE images SET clean_status = 'flagged', clean_reason = 'a page of text'"
        )
    duplicates.mark(data)
    table = read_catalogue(data)
    assert sorted(table.clean_status) == ["duplicate", "flagged", "flagged"]
    cleaning.normalise(data, workers=1)
    assert read_catalogue(data).equals(table)
    [copy] = table[table.clean_status == "duplicate"].url
    with Catalogue(data) as cat:
        cat.db.execute("DELETE FROM images WHERE clean_status = 'flagged'")
    assert duplicates.mark(data).empty
    [left] = read_catalogue(data).to_dict("records")
    assert (left["url"], left["clean_status"], left["clean_reason"]) == (
        copy,
        "flagged",
        "a page of text",
    )


def test_a_run_that_was_killed_goes_on(canvas, tmp_path, monkeypatch):
    pictures = {
        f"{FIRST}/a.png": canvas[0],
        f"{FIRST}/b.jpg": canvas[0].resize((210, 190)),
        f"{FIRST}/c.png": canvas[1],
    }
    with monkeypatch.context() as patch:
        patch.setattr(matcher, "kind_of_copy", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            marked(tmp_path, pictures)
    data = tmp_path / "data"
    assert (read_catalogue(data).clean_status == "ok").all()
    with sqlite3.connect(data / "duplicates.db") as db:
        assert db.execute("SELECT count(*) FROM descriptions").fetchone() == (3,)
    with monkeypatch.context() as patch:
        patch.delattr(verdicts, "describe_file")
        assert len(duplicates.mark(data)) == 1


def side_by_side(images, columns: int, size: int = 300) -> Image.Image:
    """Pictures in rows of `columns`, each squashed to a square."""
    rows = len(images) // columns
    wall = Image.new("RGB", (columns * size, rows * size))
    for place, image in enumerate(images):
        wall.paste(image.resize((size, size)), (place % columns * size, place // columns * size))
    return wall


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_picture_that_shows_several_others_is_set_aside_by_itself(canvas, tmp_path, columns):
    periods = [FIRST, SECOND, SECOND, FIRST]
    pictures = {f"{p}/{n}.png": canvas[n] for n, p in enumerate(periods)}
    pictures[f"{FIRST}/wall.png"] = side_by_side(canvas[:4], columns)
    data, found = marked(tmp_path, pictures)
    table = read_catalogue(data).set_index("file")
    assert found.kind.tolist() == ["collage"]
    [wall] = found.file
    assert Image.open(data / wall).size == pictures[f"{FIRST}/wall.png"].size
    reason = table.clean_reason[wall]
    assert reason.startswith("near-duplicate: shows several pictures of the collection (raw/")
    assert reason.count("raw/") >= 2
    assert (table.clean_status.drop(wall) == "ok").all()
    shown = [file for file in table.index if file in reason]
    assert table.dup_group[[wall, *shown]].nunique() == 1  # splits keep them together


def test_two_details_of_a_picture_do_not_make_it_a_collage(canvas, tmp_path):
    width, height = canvas[1].size
    half = (width // 2, height // 2)
    pictures = {
        f"{FIRST}/whole.png": canvas[1],
        f"{FIRST}/left.png": canvas[1].crop((0, 0, *half)),
        f"{FIRST}/right.png": canvas[1].crop((*half, width, height)),
    }
    data, found = marked(tmp_path, pictures)
    assert found.kind.tolist() == ["detail", "detail"]
    assert len(splits.usable(data)) == 1


def test_pictures_that_fade_into_another_are_copies_of_their_neighbours_alone(canvas, tmp_path):
    first, last = (canvas[number].resize((300, 300)) for number in (1, 3))
    pictures = {
        f"{FIRST}/{step:02}.png": Image.blend(first, last, step / 11).resize((300 - step,) * 2)
        for step in range(12)
    }
    data, found = marked(tmp_path, pictures)
    table = read_catalogue(data).sort_values("width", ascending=False)
    used = table[table.clean_status == "ok"]
    assert table.file.iloc[0] in set(used.file) and 2 <= len(used) < 12
    assert table.dup_group.nunique() == 1  # splits keep all of them together
    pictures = Pictures.of(
        (row["clean_sha256"], clean_path(row)) for row in table.to_dict("records")
    )
    with_kept = comparison.compare(data, pictures).named(range(len(pictures))).kinds
    hashes = table.set_index("file").clean_sha256
    for row in found.itertuples():
        assert tuple(sorted((hashes[row.file], hashes[row.kept]))) in with_kept


def test_a_dropped_picture_takes_its_copies_along(canvas, tmp_path):
    pictures = {
        f"{FIRST}/a.png": canvas[0],
        f"{FIRST}/b.png": canvas[0].resize((210, 190)),
        f"{FIRST}/c.png": canvas[1],
    }
    data, found = marked(tmp_path, pictures)
    [kept] = found.kept
    table = read_catalogue(data)
    url = table.url[table.file == kept].item()
    with Catalogue(data) as cat:
        cat.update([{"url": url, "period": FIRST, "review": "drop"}])
    cleaning.normalise(data, workers=1)
    duplicates.mark(data)
    assert splits.usable(data).width.tolist() == [canvas[1].width]


@pytest.mark.slow
def test_of_a_group_the_learner_sees_one(canvas, tmp_path):
    pictures = {
        f"{period}/{number}.png": sample.canvas(period, number, 200)
        for period in (FIRST, SECOND)
        for number in range(4)
    }
    copy = pictures[f"{FIRST}/0.png"]
    data, found = marked(
        tmp_path,
        {
            **pictures,
            f"{FIRST}/x.png": copy.resize((120, 110)),
            f"{FIRST}/y.png": ImageOps.expand(copy, 20, "white"),
        },
    )
    assert len(found) == 2 and set(found.kept) == {found.kept[0]} and len(splits.items(data)) == 8


def test_no_pictures_and_one_picture(canvas, tmp_path):
    data, found = marked(tmp_path, {f"{FIRST}/a.png": canvas[0]})
    assert found.empty and read_catalogue(data).phash.notna().all()
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        duplicates.mark(tmp_path)
    with Catalogue(tmp_path / "empty"):
        assert duplicates.mark(tmp_path / "empty").empty


@pytest.mark.slow
def test_copies_of_paintings(paintings, tmp_path):
    files = sorted((paintings / "painters" / "claude_monet").glob("*.jpg"))[:40]
    originals = {f"{FIRST}/{file.stem}.png": Image.open(file).convert("RGB") for file in files}
    copies = {
        f"{FIRST}/{change}.jpg": apply(image)
        for (change, (apply, _)), image in zip(CHANGES.items(), originals.values(), strict=False)
    }
    data, _ = marked(tmp_path, {**originals, **copies})
    table = read_catalogue(data)
    again = table[table.dup_group.isin(table.dup_group[table.clean_status == "duplicate"])]
    assert (table.clean_status == "duplicate").sum() == len(CHANGES) and len(again) == 2 * len(
        CHANGES
    )


def test_a_pair_stays_found_when_its_pictures_are_no_longer_candidates(
    canvas, tmp_path, monkeypatch
):
    data, found = marked(
        tmp_path, {"a/1.png": canvas[0], "a/2.png": CHANGES["cropped"][0](canvas[0])}
    )
    monkeypatch.setattr(verdicts, "by_words", lambda number, descriptors: set())
    monkeypatch.setattr(verdicts, "by_hash", lambda hashes: set())
    assert len(found) == 1 and duplicates.mark(data).equals(found)
