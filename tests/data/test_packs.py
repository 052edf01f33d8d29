"""Packs: their pictures are read where they lie, and what is no picture of theirs is named."""

import pickle
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import made_packs

from artclf.base.errors import InputError, StepError
from artclf.data import aliases, catalogue, cleaning, packing, packs, pictures
from artclf.data.catalogue import Catalogue
from artclf.data.places import Place

MB = 0.005


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set with a class whose name is longer than a plain header of a tar file holds."""
    data = made_packs.make(tmp_path_factory.mktemp("packs") / "data")
    period, longest = "06-rokoko & älter", "06-rokoko &" + 25 * " älter"
    for top in ("raw", "clean"):
        (data / top / period).rename(data / top / longest)
    with Catalogue(data) as cat, cat.transaction() as db:
        db.execute("UPDATE images SET file = replace(file, ?, ?)", (period, longest))
        db.execute("UPDATE images SET period = ? WHERE period = ?", (longest, period))
    return data


@pytest.fixture(params=["a folder", "an object store"])
def pack(request, data, tmp_path) -> str:
    """The place of a pack of clean copies."""
    if request.param == "a folder":
        target = str(tmp_path / "pack")
    else:
        target = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    packing.pack(data, target, clean=True, shard_size=MB)
    return target


def test_pictures_are_read_out_of_the_shards_by_the_bytes_where_they_lie(data, pack, monkeypatch):
    parts = []
    read_part = Place.read_part

    def noted(place, name, start, length):
        parts.append((name, length))
        return read_part(place, name, start, length)

    monkeypatch.setattr(Place, "read_part", noted)
    found = list(packs.pictures(pack))
    expected = {
        name: content for name, content in made_packs.files(data).items() if "clean/" in name
    }
    assert max(len(name.encode()) for name in expected) > tarfile.LENGTH_NAME
    assert {picture.file: picture.read() for picture in found} == expected
    assert parts == [(picture.tar, picture.size) for picture in found]
    assert len({picture.tar for picture in found}) > 2
    one = pickle.loads(pickle.dumps(found[-1]))
    assert one.read() == expected[one.file] and one.exists()
    assert str(one) == f"{pack}/{one.file}" and one.parent.name in one.file
    assert pictures.read(one) == expected[one.file]


def test_what_steps_ask_of_a_data_set_is_in_its_pack(data, pack):
    assert aliases.aliases_of(pack) == aliases.aliases_of(data) == {"Titian": "Tiziano"}
    for step in ("clean", "origin", "none"):
        assert catalogue.read_setting(pack, step) == catalogue.read_setting(data, step)
    assert cleaning.max_size_of(pack) == cleaning.max_size_of(data) == 500
    files = [picture.file for picture in packs.pictures(pack)][::-2]
    assert [place.file for place in cleaning.copies(pack, files)] == files
    assert cleaning.copies(data, files) == [data / file for file in files]
    with pytest.raises(FileNotFoundError, match=r"1 of 3 .* such as clean/10/none\.jpg"):
        cleaning.check_copies(pack, [*files[:2], "clean/10/none.jpg"])


def damage(pack: str, name: str, change) -> None:
    place = Place(pack)
    content = change(place.read(name))
    if content is None:
        place.filesystem.rm_file(place.path(name))
    else:
        place.filesystem.pipe_file(place.path(name), content)


@pytest.mark.parametrize(
    "name, change, problem",
    [
        ("images-000001.tar", lambda content: None, r"images-000001\.tar is damaged or gone"),
        ("images-000001.tar", lambda content: content[:-512], r"images-000001\.tar is damaged or"),
        (
            "images-000001.parquet",
            lambda content: None,
            r"images-000001\.parquet is damaged or gone",
        ),
        ("images-000001.parquet", lambda content: content[:-9], "images-000001.parquet is damaged"),
    ],
)
def test_a_shard_that_is_not_whole_is_named(pack, name, change, problem):
    damage(pack, name, change)
    with pytest.raises(InputError, match=problem):
        list(packs.pictures(pack))


def test_a_parquet_file_of_another_pack_is_named(pack):
    other = Place(pack).read("images-000000.parquet")
    damage(pack, "images-000001.parquet", lambda content: other)
    with pytest.raises(InputError, match=r"images-000001\.parquet is damaged or gone"):
        list(packs.pictures(pack))


def test_a_picture_that_is_damaged_or_gone_is_rejected_and_a_store_that_is_away_ends_the_step(
    pack, monkeypatch
):
    first = next(packs.pictures(pack))
    damage(pack, first.tar, lambda content: content[:600] + b"\0" + content[601:])
    with pytest.raises(InputError, match=f"{first.tar} is damaged, the SHA-256 of {first.file}"):
        first.read()
    with pytest.raises(pictures.Rejected, match="is damaged"):
        pictures.open_rgb(first)
    damage(pack, first.tar, lambda content: None)
    assert not first.exists()
    with pytest.raises(pictures.Rejected, match=pictures.MISSING):
        pictures.open_rgb(first)

    def away(*args):
        raise StepError("the store is away")

    monkeypatch.setattr(Place, "read_part", away)
    with pytest.raises(StepError, match="the store is away"):
        pictures.open_rgb(first)


def test_no_step_takes_a_pack_for_a_data_set(data, pack):
    before = made_packs.files(Path(pack)) if Place(pack).folder else None
    for act in (lambda: Catalogue(pack), lambda: Catalogue(pack, to_read=True)):
        with pytest.raises(InputError, match="artclf data unpack"):
            act()
    with pytest.raises(InputError, match="artclf data unpack"):
        cleaning.normalise(pack, workers=1)
    assert before is None or made_packs.files(Path(pack)) == before


def test_raw_pictures_are_no_clean_copies(data, tmp_path):
    packing.pack(data, tmp_path / "raw")
    for act in (cleaning.check_has_copies, lambda pack: cleaning.copies(pack, [])):
        with pytest.raises(
            InputError, match=r"raw pictures.*--clean.*artclf data unpack .*raw DATA"
        ):
            act(tmp_path / "raw")
    cleaning.check_has_copies(data)


def test_a_pack_json_of_another_program_makes_no_pack(tmp_path):
    (tmp_path / packs.INDEX).write_text('{"name": "textures"}')
    assert not packs.is_pack(tmp_path)
    (tmp_path / packs.INDEX).write_text('{"name":')
    assert packs.is_pack(tmp_path)
