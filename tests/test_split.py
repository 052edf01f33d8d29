"""Splits: proportions, repeatability, and what is said where the images are too few."""
import pytest

from artclf import split
from artclf.catalogue import Catalogue, read_catalogue


def fill(data, status="ok", **periods):
    """Rows of clean images: `periods` says how many of each."""
    rows = [{"url": f"http://a.example/{period}/{i}", "period": period, "file": f"raw/{period}/{i:04}.png",
             "status": "ok", "sha256": f"{period}{i}", "clean_status": status}
            for period, number in periods.items() for i in range(number)]
    with Catalogue(data) as cat:
        cat.add(rows)
        cat.update(rows)
    return data


def numbers(table) -> dict:
    return {period: rows.part.value_counts().to_dict() for period, rows in table.groupby("period")}


def parts_of(table) -> dict: return dict(zip(table.file, table.part, strict=True))


@pytest.mark.parametrize(("number", "parts", "expected"), [
    (100, (70, 15, 15), (70, 15, 15)), (40, (70, 15, 15), (28, 6, 6)), (10, (70, 15, 15), (7, 2, 1)),
    (3, (70, 15, 15), (1, 1, 1)), (4, (70, 15, 15), (2, 1, 1)), (50, (80, 20, 0), (40, 10, 0)),
    (2, (80, 20, 0), (1, 1, 0)),
    (7, (1, 0, 0), (7, 0, 0)), (30, (.8, .1, .1), (24, 3, 3)), (1000, (98, 1, 1), (980, 10, 10)),
    (5, (98, 1, 1), (3, 1, 1)),
])
def test_every_period_is_cut_in_the_proportions_asked_for(tmp_path, number, parts, expected):
    table = split.items(fill(tmp_path, a=number, b=60), parts)
    assert numbers(table)["a"] == {part: n for part, n in zip(split.PARTS, expected, strict=True) if n}


def test_every_usable_image_is_in_exactly_one_part(tmp_path):
    fill(tmp_path, a=33, b=20)
    for status in ("flagged", "rejected", "duplicate", "conflict", None): fill(tmp_path, status, **{f"{status}": 5})
    table = split.items(tmp_path)
    usable = {"a": 33, "b": 20, "flagged": 5}
    assert sorted(table.file) == [f"clean/{name}/{i:04}.jpg" for name, number in usable.items() for i in range(number)]
    assert table.part.isin(split.PARTS).all() and table.columns.tolist() == ["file", "period", "part", "sha256"]
    assert (table.sha256 == table.period + table.file.str[-8:-4].astype(int).astype(str)).all()


def test_the_cut_is_random_and_the_same_seed_gives_the_same(tmp_path):
    fill(tmp_path, a=60, b=60)
    one, again, other = (split.items(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert one.equals(again) and parts_of(one) != parts_of(other) and numbers(one) == numbers(other)
    a, b = (one[one.period == period].part.tolist() for period in "ab")
    assert a != b and a != sorted(a, key=split.PARTS.index)


def test_a_further_period_or_a_class_left_out_changes_no_other_cut(tmp_path):
    before = parts_of(split.items(fill(tmp_path, b=40, c=30)))
    after = parts_of(split.items(fill(tmp_path, a=25, d=9)))
    assert before.items() <= after.items() and len(after) == 104
    assert parts_of(split.items(tmp_path, exclude=["a", "d"])) == before


def test_the_order_in_which_images_came_changes_nothing(tmp_path):
    fill(tmp_path / "one", a=20, b=20)
    fill(tmp_path / "two", b=20, a=20)
    assert split.items(tmp_path / "one").equals(split.items(tmp_path / "two"))


def test_the_cut_is_written_into_the_catalogue(tmp_path):
    for seed in (1, 2):
        table = split.items(fill(tmp_path, a=20, b=20), seed=seed)
        rows = read_catalogue(tmp_path)
        written = dict(zip(rows.file.str[4:-4], rows.split_random, strict=True))
        assert written == {file[6:-4]: part for file, part in parts_of(table).items()}


def test_the_fingerprint_changes_with_image_label_and_part_alone(tmp_path):
    table = split.items(fill(tmp_path, a=20, b=20))
    assert split.fingerprint(table) == split.fingerprint(split.items(tmp_path))
    changed = [table.replace({column: {table[column][3]: "other"}}) for column in ("file", "period", "part", "sha256")]
    prints = {split.fingerprint(other) for other in [table, table.iloc[1:], *changed]}
    assert len(prints) == 6 and all(len(text) == 16 for text in prints)


@pytest.mark.parametrize(("periods", "options", "message"), [
    ({}, {}, "no clean images in .*: run `artclf clean --data"),
    ({"a": 20}, {}, "single class a: a classifier needs two"),
    ({"a": 20, "b": 20}, {"exclude": ["c"]}, "--exclude names c, but .* has no such class"),
    ({"a": 20, "b": 20}, {"exclude": ["b"]}, "single class a"),
    ({"a": 20, "b": 2, "c": 1}, {}, "too few images for 3 parts in b, c: add pictures, or .* --exclude"),
    ({"a": 20, "b": 1}, {"parts": (80, 20, 0)}, "too few images for 2 parts in b"),
    ({"a": 20, "b": 20}, {"parts": (0, 0, 0)}, "parts are .* give three shares"),
    ({"a": 20, "b": 20}, {"parts": (0, 50, 50)}, "give three shares"),
    ({"a": 20, "b": 20}, {"parts": (80, 20)}, "give three shares"),
    ({"a": 20, "b": 20}, {"parts": (120, -10, -10)}, "give three shares"),
])
def test_what_cannot_be_cut_is_an_error_that_says_what_to_do(tmp_path, periods, options, message):
    with Catalogue(tmp_path): fill(tmp_path, **periods)
    with pytest.raises(ValueError, match=message): split.items(tmp_path, **options)
    assert read_catalogue(tmp_path).split_random.isna().all()


def test_images_of_which_none_is_clean_are_no_images(tmp_path):
    with pytest.raises(ValueError, match="artclf clean"): split.items(fill(tmp_path, "rejected", a=9, b=9))
    with pytest.raises(FileNotFoundError, match="no catalogue"): split.items(tmp_path / "new")
