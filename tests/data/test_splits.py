"""Splits: proportions, repeatability, groups that stay together, and what is said where the images
are too few.
"""

import hashlib
import random
import sqlite3
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from artclf.data import splits
from artclf.data.catalogue import Catalogue, read_catalogue


def fill(data, status="ok", **periods):
    """Rows of clean images: `periods` says how many of each."""
    rows = [
        {
            "url": f"http://a.example/{period}/{i}",
            "period": period,
            "file": f"raw/{period}/{i:04}.png",
            "status": "ok",
            "sha256": f"{period}{i}",
            "clean_status": status,
        }
        for period, number in periods.items()
        for i in range(number)
    ]
    with Catalogue(data) as cat:
        cat.add(rows)
        cat.update(rows)
    return data


def fill_groups(data, images):
    """Clean images, one for each dict of facts in `images`, which has a `period`."""
    rows = [
        {
            "url": f"http://a.example/{i}",
            "file": f"raw/{image['period']}/{i:04}.png",
            "status": "ok",
            "sha256": f"{i}",
            "clean_status": "ok",
            **image,
        }
        for i, image in enumerate(images)
    ]
    with Catalogue(data) as cat:
        cat.add(rows)
        cat.update(rows)
    return data


def numbers(table) -> dict:
    return {period: rows.part.value_counts().to_dict() for period, rows in table.groupby("period")}


def parts_of(table) -> dict:
    return dict(zip(table.file, table.part, strict=True))


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (100, (70, 15, 15), (70, 15, 15)),
        (40, (70, 15, 15), (28, 6, 6)),
        (10, (70, 15, 15), (7, 2, 1)),
        (3, (70, 15, 15), (1, 1, 1)),
        (4, (70, 15, 15), (2, 1, 1)),
        (50, (80, 20, 0), (40, 10, 0)),
        (2, (80, 20, 0), (1, 1, 0)),
        (7, (1, 0, 0), (7, 0, 0)),
        (30, (0.8, 0.1, 0.1), (24, 3, 3)),
        (1000, (98, 1, 1), (980, 10, 10)),
        (5, (98, 1, 1), (3, 1, 1)),
    ],
)
def test_every_period_is_cut_in_the_proportions_asked_for(tmp_path, number, parts, expected):
    fill(tmp_path, a=number, b=60)
    for name in splits.SPLITS:  # without duplicates and painters, each image is a group
        table = splits.items(tmp_path, name, parts)
        assert numbers(table)["a"] == {
            part: n for part, n in zip(splits.PARTS, expected, strict=True) if n
        }


def test_every_usable_image_is_in_exactly_one_part(tmp_path):
    fill(tmp_path, a=33, b=20)
    for status in ("flagged", "rejected", "duplicate", "conflict", None):
        fill(tmp_path, status, **{f"{status}": 5})
    table = splits.items(tmp_path)
    usable = {"a": 33, "b": 20, "flagged": 5}
    assert sorted(table.file) == [
        f"clean/{name}/{i:04}.jpg" for name, number in usable.items() for i in range(number)
    ]
    assert table.part.isin(splits.PARTS).all() and list(table) == [
        "file",
        "period",
        "part",
        "sha256",
        "clean_sha256",
    ]
    assert (table.sha256 == table.period + table.file.str[-8:-4].astype(int).astype(str)).all()


def test_the_cut_is_random_and_the_same_seed_gives_the_same(tmp_path):
    fill(tmp_path, a=60, b=60)
    one, again, other = (splits.items(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert one.equals(again) and parts_of(one) != parts_of(other) and numbers(one) == numbers(other)
    a, b = (one[one.period == period].part.tolist() for period in "ab")
    assert a != b and a != sorted(a, key=splits.PARTS.index)


def test_the_order_of_groups_comes_from_the_seed_and_their_names_in_all_versions(tmp_path):
    for seed, group in ((42, "a"), (7, "9f3c")):
        digest = hashlib.sha256(f"{seed} {group}".encode()).digest()
        chance = int.from_bytes(digest[:4], "big") / 2**32
        assert splits._random_factor(seed, group) == 0.5 + chance / 2
    fill(tmp_path, a=60, b=60)
    assert splits.items(tmp_path).equals(splits.items(tmp_path, seed=42))


def test_a_further_period_or_a_class_left_out_changes_no_other_cut(tmp_path):
    before = parts_of(splits.items(fill(tmp_path, b=40, c=30)))
    after = parts_of(splits.items(fill(tmp_path, a=25, d=9)))
    assert before.items() <= after.items() and len(after) == 104
    assert parts_of(splits.items(tmp_path, exclude=["a", "d"])) == before


def test_the_order_in_which_images_came_changes_nothing(tmp_path):
    fill(tmp_path / "one", a=20, b=20)
    fill(tmp_path / "two", b=20, a=20)
    assert splits.items(tmp_path / "one").equals(splits.items(tmp_path / "two"))


def test_a_cut_writes_nothing(tmp_path):
    fill(tmp_path, a=20, b=20)
    before = read_catalogue(tmp_path)
    tables = sqlite3.connect(tmp_path / "catalogue.db").execute("SELECT name FROM sqlite_master")
    names = sorted(tables.fetchall())
    for seed, name in enumerate(("random", "grouped", "artist", "auto")):
        splits.items(tmp_path, name, seed=seed)
    after = sqlite3.connect(tmp_path / "catalogue.db").execute("SELECT name FROM sqlite_master")
    assert sorted(after.fetchall()) == names and read_catalogue(tmp_path).equals(before)


def test_cuts_are_noted_by_split_shares_and_seed_and_none_replaces_another(tmp_path):
    fill(tmp_path, a=20, b=20)
    made = {}
    for options in (("grouped", (70, 15, 15), 42), ("grouped", (70, 15, 15), 43),
                    ("grouped", (80, 20, 0), 42), ("random", (70, 15, 15), 42)):  # fmt: skip
        table = splits.items(tmp_path, *options)
        made[splits.cut_name(*options)] = parts_of(table)
        splits.record(tmp_path, table, splits.cut_name(*options))
    assert list(made)[0] == "grouped 70,15,15 seed 42" and len(made) == 4
    assert {name: cut.to_dict() for name, cut in splits.recorded(tmp_path).items()} == made
    smaller = splits.items(tmp_path).iloc[:5]
    splits.record(tmp_path, smaller, "grouped 70,15,15 seed 42")
    assert (splits.recorded(tmp_path)["grouped 70,15,15 seed 42"] != "").sum() == 5
    assert splits.cut_name("artist", (0.7, 0.3, 0), 1, ["10", "9"]).endswith("seed 1 without 9, 10")


def test_a_catalogue_that_cannot_be_written_is_no_reason_not_to_train(
    tmp_path, monkeypatch, capsys
):
    table = splits.items(fill(tmp_path, a=20, b=20))

    def refuse(*_):
        raise sqlite3.OperationalError("attempt to write a readonly database")

    monkeypatch.setattr(splits, "Catalogue", refuse)
    splits.record(tmp_path, table, "a cut")
    assert "(a cut) are not noted" in capsys.readouterr().out


def test_the_fingerprint_changes_with_image_copy_label_and_part(tmp_path):
    table = splits.items(fill(tmp_path, a=20, b=20))
    assert splits.fingerprint(table) == splits.fingerprint(splits.items(tmp_path))
    columns = ("file", "period", "part", "sha256", "clean_sha256")
    changed = [table.replace({column: {table[column][3]: "other"}}) for column in columns]
    prints = {splits.fingerprint(other) for other in [table, table.iloc[1:], *changed]}
    assert len(prints) == 7 and all(len(text) == 16 for text in prints)
    lines = [",".join(["" if value is None else value for value in row]) for row in table.values]
    text = "".join(f"{line}\n" for line in ["file,period,part,sha256,clean_sha256", *lines])
    assert splits.fingerprint(table) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("periods", "options", "message"),
    [
        ({}, {}, "no clean images in .*: run `artclf clean --data"),
        ({"a": 20}, {}, "single class a: a classifier needs two"),
        ({"a": 20, "b": 20}, {"exclude": ["c"]}, "--exclude names c, but .* has no such class"),
        ({"a": 20, "b": 20}, {"exclude": ["b"]}, "single class a"),
        (
            {"a": 20, "b": 20},
            {"exclude": ["a", "b"]},
            "--exclude leaves out all classes of .*leave",
        ),
        (
            {"a": 20, "b": 2, "c": 1},
            {},
            "too few images for 3 parts in b, c: add pictures, or .* --exclude",
        ),
        ({"a": 20, "b": 1}, {"shares": (80, 20, 0)}, "too few images for 2 parts in b"),
        ({"a": 20, "b": 20}, {"shares": (0, 0, 0)}, "parts are .* give three shares"),
        ({"a": 20, "b": 20}, {"shares": (0, 50, 50)}, "give three shares"),
        ({"a": 20, "b": 20}, {"shares": (80, 20)}, "give three shares"),
        ({"a": 20, "b": 20}, {"shares": (120, -10, -10)}, "give three shares"),
        (
            {"a": 20, "b": 20},
            {"split": "painter"},
            "--split is 'painter': take one of random, grouped, artist, source, own, auto",
        ),
        ({"a": 20, "b": 2}, {"split": "artist"}, "too few images for 3 parts in b"),
        (
            {"a": 20, "b": 20},
            {"split": "own"},
            "the column `split` says nothing for 40 images in .* such as http://a.ex",
        ),
    ],
)
def test_what_cannot_be_cut_is_an_error_that_says_what_to_do(tmp_path, periods, options, message):
    with Catalogue(tmp_path):
        fill(tmp_path, **periods)
    with pytest.raises(ValueError, match=message):
        splits.items(tmp_path, **options)


def test_images_of_which_none_is_clean_are_no_images(tmp_path):
    with pytest.raises(ValueError, match="artclf clean"):
        splits.items(fill(tmp_path, "rejected", a=9, b=9))
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        splits.items(tmp_path / "new")


# Groups


def joined(images, *facts) -> list[set[int]]:
    """The places of the images that share any of `facts`, directly or through others, by merging
    sets.
    """
    sets = [{i} for i in range(len(images))]
    for fact in facts:
        for value in {image.get(fact) for image in images} - {None}:
            holders = {i for i, image in enumerate(images) if image.get(fact) == value}
            touched = [group for group in sets if group & holders]
            sets = [group for group in sets if not group & holders] + [set().union(*touched)]
    return sets


def random_images(rng, spread: float) -> list[dict]:
    """Up to five periods of painters and duplicates; `spread` is the chance that one is of another
    period.
    """
    images, hand = [], lambda home: f"Painter {home}{int(rng.paretovariate(0.6)) % 60}o"
    for period in "abcde"[: rng.randint(2, 5)]:
        for _ in range(rng.choice([3, 8, 40, 120])):
            home = rng.choice("abcde") if rng.random() < spread else period
            images.append(
                {
                    "period": period,
                    "dup_group": rng.choice([None, None, f"{home}{rng.randint(0, 15)}"]),
                    "artist": rng.choice([None, "unknown", hand(home)]),
                }
            )
    return images


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("name", "facts"),
    [("random", ()), ("grouped", ["dup_group"]), ("artist", ["dup_group", "artist"])],
)
@pytest.mark.filterwarnings("ignore:--split")
def test_no_group_crosses_and_every_image_is_in_one_part_near_the_share_asked_for(
    tmp_path, name, facts, seed
):
    rng = random.Random(seed)
    spread, parts = (
        rng.choice([0, 0, 0.3]),
        rng.choice([(70, 15, 15), (50, 25, 25), (80, 20, 0), (90, 5, 5)]),
    )
    images = random_images(rng, spread)
    table = splits.items(fill_groups(tmp_path, images), name, parts, seed)
    part = dict(zip(table.file.str[-8:-4].astype(int), table.part, strict=True))
    assert sorted(part) == list(range(len(images)))
    groups = joined(
        [
            {**image, "artist": None if image["artist"] == "unknown" else image["artist"]}
            for image in images
        ],
        *facts,
    )
    assert all(len({part[i] for i in group}) == 1 for group in groups)
    inside = defaultdict(list)
    for group in groups:
        for period in {images[i]["period"] for i in group}:
            inside[period].append(group)
    for period, its in inside.items():
        found = Counter(part[i] for i, image in enumerate(images) if image["period"] == period)
        wanted = [name for name, share in zip(splits.PARTS, parts, strict=True) if share]
        assert found["train"] and set(found) <= set(wanted)
        if any(images[i]["period"] != period for group in its for i in group):
            continue
        assert set(found) == set(
            wanted if len(its) >= len(wanted) else ["train", "test"][: len(its)]
        )
        largest, n = max(map(len, its)), found.total()
        single = any(len([g for g in its if part[min(g)] == name]) <= 1 for name in wanted)
        for name, share in zip(splits.PARTS, parts, strict=True):
            ahead = found[name] - share / sum(parts) * n
            assert ahead <= largest and -ahead <= largest * (2 if single else 1), (
                period,
                found,
                largest,
            )


def test_groups_are_random_by_seed_repeatable_and_without_regard_to_other_periods(tmp_path):
    images = [
        {"period": period, "artist": f"Hand {i % 9}{period}ston"}
        for period in "ab"
        for i in range(90)
    ]
    fill_groups(tmp_path / "two", images)
    fill_groups(
        tmp_path / "one", [*images, *({"period": "c", "artist": f"M {i}"} for i in range(30))]
    )
    one, again, other = (splits.items(tmp_path / "two", "artist", seed=seed) for seed in (1, 1, 2))
    assert one.equals(again) and parts_of(one) != parts_of(other)
    assert (
        parts_of(one).items() <= parts_of(splits.items(tmp_path / "one", "artist", seed=1)).items()
    )
    assert parts_of(splits.items(tmp_path / "one", "artist", seed=1, exclude=["c"])) == parts_of(
        one
    )


def test_one_painter_by_several_spellings_stays_in_one_part(tmp_path):
    names = ["Vincent van Gogh", "van Gogh, Vincent", "VAN GOGH", "Gogh, Vincent Willem van"]
    images = [{"period": period, "artist": name} for period in "ab" for name in names]
    images += [
        {"period": period, "artist": f"Somebody Else{i}"} for period in "ab" for i in range(40)
    ]
    for seed in range(5):
        table = splits.items(fill_groups(tmp_path, images), "artist", seed=seed)
        assert (
            table[
                table.file.isin(
                    [f"clean/{image['period']}/{i:04}.jpg" for i, image in enumerate(images[:8])]
                )
            ].part.nunique()
            == 1
        )


def test_a_duplicate_joins_two_painters(tmp_path):
    images = [
        {"period": "ab"[i % 2], "artist": "John Smith" if i < 10 else "Mary Jones"}
        for i in range(20)
    ]
    images[3]["dup_group"] = images[14]["dup_group"] = "same"
    images += [{"period": "ab"[i % 2]} for i in range(60)]
    table = splits.items(fill_groups(tmp_path, images), "artist")
    assert table[table.file.str[-8:-4].astype(int) < 20].part.nunique() == 1
    assert numbers(table)["a"].keys() == set(splits.PARTS)


def test_a_period_of_one_painter_is_learned_from_and_the_warning_names_it(tmp_path):
    images = [{"period": "one", "artist": "Anna Lee"}] * 12 + [
        {"period": "two", "artist": f"{name} Roe"} for name in ("Ada", "Bert") for _ in range(6)
    ]
    images += [{"period": "many", "artist": f"Painter Number{i}"} for i in range(40)]
    with pytest.warns(UserWarning) as told:
        table = splits.items(fill_groups(tmp_path, images), "artist")
    assert [str(warning.message).split(":")[0] for warning in told] == [
        "--split artist leaves no valid images in one, two",
        "--split artist leaves no test images in one",
    ]
    assert numbers(table)["one"] == {"train": 12} and numbers(table)["two"] == {
        "train": 6,
        "test": 6,
    }
    with warnings.catch_warnings(action="error"):
        assert set(numbers(splits.items(tmp_path))["one"]) == set(splits.PARTS)


def test_periods_of_one_painter_each_cannot_be_cut_by_painter(tmp_path):
    fill_groups(
        tmp_path,
        [{"period": f"p{i % 2}", "artist": ("Anna Lee", "Ben Cox")[i % 2]} for i in range(40)],
    )
    with pytest.raises(
        ValueError, match="leaves no images for valid and test, .* take another --split"
    ):
        splits.items(tmp_path, "artist")


# A split of the user's own


def own(data, *parts, **change):
    images = [{"period": "ab"[i % 2], "split": part} for i, part in enumerate(parts)]
    return fill_groups(data, [{**image, **change} for image in images])


def test_a_split_of_ones_own_is_honoured(tmp_path):
    given = ["train", "train", "test", "valid", "valid", "test", "train", "train"]
    table = splits.items(own(tmp_path, *given), "own", shares=(1, 0, 0))
    assert dict(zip(table.file.str[-8:-4].astype(int), table.part, strict=True)) == dict(
        enumerate(given)
    )
    assert splits.fingerprint(table) != splits.fingerprint(splits.items(tmp_path))


def test_a_manifest_brings_ones_own_split_and_may_change_it(tmp_path):
    from PIL import Image

    from artclf import download
    from artclf.data import cleaning

    folder, data = tmp_path / "gallery", tmp_path / "data"
    for period in "ab":
        (folder / period).mkdir(parents=True)
        for i in range(4):
            Image.effect_noise((90 + i, 80), 60 + ord(period) % 7).convert("RGB").save(
                folder / period / f"{i}.png"
            )
    for order in (("train", "valid", "test", "train"), ("test", "train", "train", "valid")):
        lines = [f"{period}/{i}.png,{part}" for period in "ab" for i, part in enumerate(order)]
        (folder / "manifest.csv").write_text("\n".join(["file,split", *lines]), encoding="utf-8")
        download.import_folder(folder, data)
        cleaning.normalise(data, workers=1)
        rows = read_catalogue(data).sort_values(["period", "width"])
        table = splits.items(data, "own").set_index("file").part
        assert [
            table[f"clean/{row.period}/{row.file[-20:-4]}.jpg"] for row in rows.itertuples()
        ] == [*order, *order]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ["train", "train", "dev", "Test", "train", None],
            "says 'Test', 'dev', nothing for 3 images .*example/2: it may",
        ),
        (["train", "valid", "train", "test"], "no train images in b"),
    ],
)
def test_a_split_of_ones_own_that_makes_no_sense_is_an_error_that_names_it(
    tmp_path, parts, message
):
    with pytest.raises(ValueError, match=message):
        splits.items(own(tmp_path, *parts), "own")


def test_parts_that_were_given_are_taken_unless_asked_otherwise(tmp_path):
    given = ["train", "train", "test", "test", "valid", "valid"]
    data = own(tmp_path / "all", *given)
    assert splits.choose(data)[0] == "own"
    assert splits.items(data, "auto").equals(splits.items(data, "own"))
    assert splits.choose(fill(tmp_path / "none", a=9, b=9)) == ("grouped", "")
    assert splits.items(tmp_path / "none", "auto").equals(splits.items(tmp_path / "none"))


def test_parts_for_some_images_alone_are_not_taken_and_the_sentence_says_why(tmp_path):
    data = own(tmp_path, *["train", "test", "valid", "train", None, None])
    name, why = splits.choose(data)
    assert name == "grouped"
    assert "a part for 4 of 6 images, and none for http://a.example/4" in why


def test_without_a_valid_part_train_gives_some_and_the_warning_says_so(tmp_path):
    data = own(tmp_path, *["train"] * 40, *["test"] * 10)
    with pytest.warns(UserWarning, match="8 of its 40 train images are valid now"):
        table = splits.items(data, "own", shares=(80, 20, 0), seed=1)
    assert table.part.value_counts().to_dict() == {"train": 32, "test": 10, "valid": 8}
    with pytest.warns(UserWarning):
        again = splits.items(data, "own", shares=(80, 20, 0), seed=1)
    assert table.equals(again)


def test_without_a_test_part_the_warning_says_what_is_measured_on(tmp_path):
    data = own(tmp_path, *["train"] * 4, *["valid"] * 4)
    with pytest.warns(UserWarning, match="no test images: figures are measured on valid"):
        assert len(splits.items(data, "own")) == 8


def test_copies_in_several_of_the_users_parts_give_a_warning(tmp_path):
    images = [{"period": "ab"[i % 2], "split": "train"} for i in range(8)]
    images += [
        {"period": "ab"[i % 2], "split": part} for i in range(4) for part in ("valid", "test")
    ]
    with warnings.catch_warnings(action="error"):
        splits.items(fill_groups(tmp_path / "none", images), "own")
    images[0]["dup_group"] = images[9]["dup_group"] = "same"
    data = fill_groups(tmp_path / "used", images)
    with pytest.warns(UserWarning, match=r"1 pictures whose copies are in several parts, .*test\)"):
        splits.items(data, "own")
    images[9]["clean_status"] = "duplicate"
    data = fill_groups(tmp_path / "aside", images)
    with pytest.warns(UserWarning) as told:
        splits.items(data, "own")
    [text] = [str(warning.message) for warning in told]
    assert "1 images are copies of images in another part and not used" in text
    assert "0000.png (train)" in text and "0009.png (test)" in text


# The review


def test_a_review_keeps_drops_and_moves(tmp_path):
    data = fill(tmp_path, a=9, b=3, c=4)
    with Catalogue(data) as cat:
        rows = [row for row in cat.select() if row["period"] == "a"]
        for row, status, review in zip(
            rows,
            ("ok", "conflict", "rejected", "duplicate", "conflict"),
            ("drop", "keep", "keep", "move:b", "move:c"),
            strict=False,
        ):
            cat.update(
                [
                    {
                        **{k: row[k] for k in ("url", "period")},
                        "clean_status": status,
                        "review": review,
                    }
                ]
            )
    table = splits.usable(data).set_index("url")
    found = [table.period.get(row["url"]) for row in rows[:6]]
    assert found == [None, "a", None, None, "c", "a"]
    moved = table.loc[rows[4]["url"]]
    assert moved.listed == "a" and moved.file == f"clean/c/{Path(rows[4]['file']).stem}.jpg"
    parts = splits.items(data)
    assert parts.groupby("period").size().to_dict() == {"a": 5, "b": 3, "c": 5}


def test_copies_with_the_same_pixels_are_in_one_part(tmp_path):
    data = fill(tmp_path, a=20, b=20)
    with Catalogue(data) as cat:
        cat.update(
            {"url": row["url"], "period": row["period"], "clean_sha256": row["url"][-1]}
            for row in cat.select()
        )
    parts = splits.items(data, shares=(60, 20, 20))
    assert (parts.groupby("clean_sha256").part.nunique() == 1).all()


def test_painters_with_several_names_stay_in_one_part_also_those_of_ones_own_table(tmp_path):
    images = [{"period": "ab"[i % 2], "artist": f"Somebody Else{i}"} for i in range(60)]
    names = ["Titian", "Tiziano Vecellio", "Banksy", "R. Gunningham"] * 3
    images += [{"period": "ab"[i % 2], "artist": name} for i, name in enumerate(names)]
    data = fill_groups(tmp_path, images)
    (data / "artists.csv").write_text("alias,artist\nR. Gunningham,Banksy\n", encoding="utf-8")
    rows = splits.usable(data)
    painters = rows.groupby("artist").painter.first()
    assert painters["Titian"] == painters["Tiziano Vecellio"] != painters["Banksy"]
    assert painters["Banksy"] == painters["R. Gunningham"]
    for seed in range(5):
        part_of = splits.items(data, "artist", seed=seed).set_index("file").part
        for pair in (names[:2], names[2:4]):
            files = rows.file[rows.artist.isin(pair)]
            assert part_of[files].nunique() == 1
