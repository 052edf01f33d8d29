"""Packs: their pictures are read where they lie, and what is no picture of theirs is named."""

import json
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
def pack(request, data, s3, tmp_path) -> str:
    """The place of a pack of clean copies."""
    target = (
        f"{s3}/{tmp_path.name}" if request.param == "an object store" else str(tmp_path / "pack")
    )
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


def damage_index(pack: str, change):
    """Change what `pack.json` says; `change` gets that as a dict."""

    def changed(content: bytes) -> bytes:
        index = json.loads(content)
        change(index)
        return json.dumps(index).encode()

    damage(pack, packs.INDEX, changed)


def test_rows_that_are_not_those_which_were_packed_are_not_given(data, pack):
    whole = catalogue.read_catalogue(pack)
    place, target = Place(pack), "images-000002.parquet"
    own = place.read(target)
    rows = [shard["rows"] for shard in packs.read_index(place).shards]
    assert len(set(rows)) > 1 and rows.count(rows[2]) > 1
    for number, count in enumerate(rows):
        other = place.read(f"{packs.shard_name(number)}.parquet")
        damage(pack, target, lambda content, other=other: other)
        problem = "other rows than were packed" if count == rows[2] else f"has {count} rows, and "
        if number != 2:
            with pytest.raises(InputError, match=f"{pack}/{target} .*{problem}.*data pack` again"):
                catalogue.read_catalogue(pack, ["url"])
        damage(pack, target, lambda content: own)
    assert catalogue.read_catalogue(pack).equals(whole)
    place.filesystem.rm_file(place.path(target))
    with pytest.raises(InputError, match=f"{pack}/{target} is gone: run `artclf data pack`"):
        catalogue.read_catalogue(pack)
    packing.pack(data, pack, clean=True, shard_size=MB)
    assert catalogue.read_catalogue(pack).equals(whole)
    damage(pack, "images-000000.parquet", lambda content: None)
    with pytest.raises(InputError, match=r"images-000000\.parquet is gone: run `artclf data pack`"):
        catalogue.read_catalogue(pack)
    damage(pack, "table-settings.parquet", lambda content: None)
    with pytest.raises(
        InputError, match=r"table-settings\.parquet is gone: run `artclf data pack`"
    ):
        catalogue.read_setting(pack, "clean")


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda index: index["shards"].pop(), r"lists shards of \d+ rows, and 13 were packed"),
        (lambda index: index.update(rows=14), "lists shards of 13 rows, and 14 were packed"),
        (lambda index: index.update(shards=[1, 2]), r"is no index of a pack \(a shard is 1\)"),
        (lambda index: index.update(shards=None), r"is no index of a pack \(shards is None\)"),
        (lambda index: index["shards"][0].pop("rows"), "is no index of a pack"),
        (lambda index: index["shards"][0].update(sha256=7), "is no index of a pack"),
        (lambda index: index.update(rows="13"), "is no index of a pack"),
        (lambda index: index.update(files=[]), "is no index of a pack"),
    ],
)
def test_an_index_that_makes_no_sense_is_named_and_packing_again_mends_it(
    data, tmp_path, change, problem
):
    pack = tmp_path / "pack"
    packing.pack(data, pack, clean=True, shard_size=MB)
    before = made_packs.files(pack)
    damage_index(pack, change)
    for read in (catalogue.read_catalogue, lambda pack: list(packs.pictures(pack))):
        with pytest.raises(InputError, match=f"pack.json .*{problem}.*: remove it there and run"):
            read(pack)
    (pack / packs.INDEX).unlink()
    assert packing.pack(data, pack, clean=True, shard_size=MB)["written"] == 0
    assert made_packs.files(pack) == before


def test_packs_of_earlier_versions_are_read(data, pack):
    whole = catalogue.read_catalogue(pack)

    def forget(index):
        for shard in index["shards"]:
            del shard["rows_sha256"]

    damage_index(pack, forget)
    assert catalogue.read_catalogue(pack).equals(whole)
    other = Place(pack).read("images-000000.parquet")
    damage(pack, "images-000001.parquet", lambda content: other)
    with pytest.raises(
        InputError, match=r"images-000001\.parquet has \d+ rows, and \d+ were packed"
    ):
        catalogue.read_catalogue(pack)


def test_without_credentials_a_line_says_what_to_set(data, s3, monkeypatch):
    import s3fs

    address = f"{s3}/closed"
    packing.pack(data, address, clean=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StepError, match=f"{address}/pack.json: NoCred.*; set AWS_ACCESS_KEY_ID"):
        catalogue.read_catalogue(address)
    s3fs.S3FileSystem.clear_instance_cache()


def test_what_a_store_says_while_rows_are_read_is_a_line(data, s3, monkeypatch):
    import s3fs

    address = f"{s3}/refused"
    packing.pack(data, address, clean=True)

    def refuse(*args, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "open", refuse)
    problem = r"PermissionError: Access Denied; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    with pytest.raises(StepError, match=rf"{address}/\*\.parquet: {problem}"):
        catalogue.read_catalogue(address)


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
