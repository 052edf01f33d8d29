"""Unpacking: nothing that is damaged or leads out of DATA becomes a part of a data set."""

import hashlib
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import made_packs

import artclf
from artclf.base.errors import InputError, StepError
from artclf.data import packing, packs, unpacking
from artclf.data.places import Place

MB = 0.005


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with a data set `data` and its pack `pack`."""
    folder = tmp_path_factory.mktemp("whole")
    made_packs.make(folder / "data")
    packing.pack(folder / "data", folder / "pack", shard_size=MB)
    return folder


@pytest.fixture
def source(whole, tmp_path) -> Path:
    return shutil.copytree(whole / "pack", tmp_path / "pack")


@pytest.fixture
def back(tmp_path) -> Path:
    return tmp_path / "back"


def truncate(length: int):
    return lambda content: content[:length]


def flip(place: int):
    def flipped(content: bytes) -> bytes:
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flipped


def flip_in_second_header(content: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return flip(tar.getmembers()[1].offset + 5)(content)


def rewritten(change):
    """A change of a tar file in which `change` gets the list of its members and contents."""

    def changed(content: bytes) -> bytes:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            members = [(member, tar.extractfile(member).read()) for member in tar]
        change(members)
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for member, content in members:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return stream.getvalue()

    return changed


def renamed(name: str, **attributes):
    def change(members):
        members[1][0].name = name
        for key, value in attributes.items():
            setattr(members[1][0], key, value)

    return rewritten(change)


TAR, PARQUET = "images-000001.tar", "images-000001.parquet"
DAMAGE = {
    "an empty tar file": (TAR, truncate(0), "images-000001.tar is damaged"),
    "half of a header": (TAR, truncate(100), "images-000001.tar is damaged"),
    "half of a picture": (TAR, truncate(1000), "images-000001.tar is damaged"),
    "one picture of several": (TAR, truncate(2560), "images-000001.tar is damaged"),
    "a bit of a picture": (TAR, flip(600), "the SHA-256 of raw/.* differs"),
    "a bit of a header": (TAR, flip(5), "images-000001.tar is damaged"),
    "a bit of a later header": (TAR, flip_in_second_header, "it ends before raw"),
    "a picture more": (TAR, rewritten(lambda m: m.append(m[0])), "doesn't name"),
    "a picture less": (TAR, rewritten(lambda m: m.pop()), "it ends before raw"),
    "another order": (TAR, rewritten(lambda m: m.reverse()), "where raw/.* should be"),
    "a path that leads out": (TAR, renamed("../../out.jpg"), "would be extracted to"),
    "an absolute path": (TAR, renamed("/tmp/out.jpg"), "where raw/.* should be"),
    "a link": (TAR, renamed("a", type=tarfile.SYMTYPE, linkname="b"), "has 'a' where"),
    "a link that leads out": (TAR, renamed("a", type=tarfile.SYMTYPE, linkname="/etc"), "absolute"),
    "a device": (TAR, renamed("a", type=tarfile.CHRTYPE), "special file"),
    "no tar file": (TAR, None, "images-000001.tar is gone"),
    "half of a Parquet file": (PARQUET, truncate(-9), "images-000001.parquet is damaged"),
    "a bit of a Parquet file": (PARQUET, flip(40), "images-000001.parquet is damaged"),
    "no Parquet file": (PARQUET, None, "images-000001.parquet is gone"),
    "a bit of a table": ("table-cuts.parquet", flip(40), "table-cuts.parquet is damaged"),
    "no artists": ("artists.csv", None, "artists.csv is gone"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named_and_mended_by_packing_again(whole, source, back, damage):
    name, change, problem = DAMAGE[damage]
    file = source / name
    content = file.read_bytes()
    file.unlink()
    if change:
        file.write_bytes(change(content))
    with pytest.raises(InputError, match=problem) as error:
        unpacking.unpack(source, back)
    assert str(file) in str(error.value) and "run `artclf data pack` again" in str(error.value)
    left = made_packs.files(back)
    pictures = {name: left[name] for name in left if not name.startswith("unpacking/")}
    first = artclf.read_catalogue(whole / "pack").head(rows_of_first_shard(source))
    expected = first.file.dropna().tolist() if name in (TAR, PARQUET) else None
    assert expected is None or sorted(pictures) == sorted(expected)
    assert {name.rpartition("/")[2] for name in left} <= {
        "catalogue.db",
        "catalogue.db-wal",
        "pack.json",
        *(name.rpartition("/")[2] for name in pictures),
    }
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        artclf.read_catalogue(back)
    file.unlink(missing_ok=True)
    packing.pack(whole / "data", source, shard_size=MB)
    assert made_packs.files(source) == made_packs.files(whole / "pack")
    unpacking.unpack(source, back)
    assert made_packs.tables(back) == made_packs.tables(whole / "data")
    expected = {n: c for n, c in made_packs.files(whole / "data").items() if n.startswith("raw/")}
    assert {n: c for n, c in made_packs.files(back).items() if n.startswith("raw/")} == expected


def rows_of_first_shard(source: Path) -> int:
    """The rows of the first shard."""
    return packs.read_index(Place(source)).shards[0]["rows"]


def crafted(source: Path, **values):
    """Give the first row with a picture other values, in a pack that is right in all else."""
    place = Place(source)
    shard = packs.read_shard(place, "images-000000")
    rows = shard.table.to_pylist()
    next(row for row in rows if row["pack_member"]).update(values)
    table = type(shard.table).from_pylist(rows, shard.table.schema)
    content = packs.parquet_of(table, shard.tar_bytes)
    (source / "images-000000.parquet").write_bytes(content)
    index = json.loads((source / "pack.json").read_text())
    index["shards"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (source / "pack.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "values, problem",
    [
        ({"file": "../../out.jpg"}, "outside raw/<class>/"),
        ({"file": "/tmp/a/out.jpg"}, "outside raw/<class>/"),
        ({"file": "raw/../out.jpg"}, "outside raw/<class>/"),
        ({"file": "raw/a\\..\\..\\b/c.jpg"}, "outside raw/<class>/"),
        ({"file": "raw//c.jpg"}, "outside raw/<class>/"),
        ({"review": "move:../../../a"}, "outside clean/<class>/"),
        ({"pack_member": "../../out.jpg"}, "another picture than its row says"),
        ({"pack_sha256": "0" * 64}, "another picture than its row says"),
        ({"sha256": None}, "another picture than its row says"),
    ],
)
def test_rows_that_lead_out_of_the_folder_are_refused(source, back, values, problem):
    crafted(source, **values)
    with pytest.raises(InputError, match=problem):
        unpacking.unpack(source, back)
    assert set(made_packs.files(back)) == {"unpacking/catalogue.db", "unpacking/pack.json"}


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda index: index.update(complete=False), "packing it has not ended"),
        (lambda index: index.update(format=2), "another version of artclf"),
        (lambda index: index.pop("shards"), "is no index of a pack"),
    ],
)
def test_packs_that_are_not_whole_are_refused(source, back, change, problem):
    index = json.loads((source / "pack.json").read_text())
    change(index)
    (source / "pack.json").write_text(json.dumps(index))
    for function in (artclf.read_catalogue, lambda place: unpacking.unpack(place, back)):
        with pytest.raises(InputError, match=problem):
            function(source)
    assert not back.exists()


@pytest.mark.parametrize("name", ["../../a.csv", "table-images.parquet", "catalogue.db"])
def test_files_that_no_pack_has_are_refused(source, back, name):
    index = json.loads((source / "pack.json").read_text())
    index["files"][name] = "0"
    (source / "pack.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"has a file '{name}', which is unknown"):
        unpacking.unpack(source, back)
    assert not back.exists()


def test_places_without_a_pack_and_folders_that_hold_something(source, back, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in ("empty", "none"):
        with pytest.raises(FileNotFoundError, match=r"no pack: it has no pack\.json"):
            unpacking.unpack(tmp_path / place, back)
    (source / "pack.json").write_text("{")
    with pytest.raises(InputError, match="is no index of a pack"):
        artclf.read_catalogue(source)
    assert not back.exists()
    (back / "raw").mkdir(parents=True)
    (source / "pack.json").unlink()
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        artclf.read_catalogue(source)


def test_a_data_set_is_never_unpacked_over_another_one(whole, source, tmp_path):
    before = made_packs.files(whole / "data")
    with pytest.raises(InputError, match="name a new folder"):
        unpacking.unpack(source, whole / "data")
    assert made_packs.files(whole / "data") == before
    finished = tmp_path / "finished"
    unpacking.unpack(source, finished)
    (finished / "unpacking").mkdir()  # of a run that was killed when all was done
    before = made_packs.files(finished)
    with pytest.raises(InputError, match="name a new folder"):
        unpacking.unpack(source, finished)
    assert made_packs.files(finished) == before
    (source / TAR).unlink()
    back = tmp_path / "back"
    with pytest.raises(InputError, match="is gone"):
        unpacking.unpack(source, back)
    other = made_packs.make(tmp_path / "other", 5, seed=1)
    packing.pack(other, tmp_path / "other-pack", shard_size=MB)
    left = made_packs.files(back)
    with pytest.raises(InputError, match="a part of another pack"):
        unpacking.unpack(tmp_path / "other-pack", back)
    assert {name: c for name, c in made_packs.files(back).items() if name in left} == left


def test_commands_pack_and_unpack(whole, tmp_path, command):
    code, out, _ = command("data", "--help")
    assert code == 0 and all(f"{name} " in out for name in ("pack", "unpack"))
    code, out, _ = command("data", "pack", "--help")
    assert code == 0 and all(name in out for name in ("--clean", "--shard-size", "--json"))
    code, out, _ = command("data", "pack", whole / "data", tmp_path / "p", "--json")
    assert code == 0 and json.loads(out)["shards"] == 1
    code, out, _ = command("data", "unpack", tmp_path / "p", tmp_path / "d")
    assert code == 0 and "pictures: 12" in out
    code, _, err = command("data", "unpack", tmp_path / "p", tmp_path / "d")
    assert code == 1 and "name a new folder" in err and err.count("\n") == 1
    code, _, err = command("data", "pack", whole / "data", tmp_path / "q", "--shard-size", "0")
    assert code == 2 and "a number from 0 to 100000, but not 0" in err
    for address, problem in (
        ("nothing://a/b", "nothing"),
        ("gs://a/b", "gs://a/b needs the package gcsfs: run pip install gcsfs in the environment"),
    ):
        code, _, err = command("data", "pack", whole / "data", address)
        assert code == 1 and problem in err.lower() and err.count("\n") == 1, err


def test_an_object_store_holds_the_same_files(whole, s3, back, monkeypatch):
    target = f"{s3}/packs/one"
    store = Place(target).filesystem  # fsspec gives the same one to every Place
    put = store.put_file

    def put_until(last):
        def put_file(path, *args):
            if Path(path).name == last:
                raise ConnectionError("the store is gone")
            return put(path, *args)

        monkeypatch.setattr(store, "put_file", put_file)

    for last in ("images-000001.tar", "images-000001.parquet"):
        put_until(last)
        with pytest.raises(StepError, match=f"{last}: ConnectionError: the store is gone"):
            packing.pack(whole / "data", target, shard_size=MB)
        with pytest.raises(InputError, match="packing it has not ended"):
            artclf.read_catalogue(target)
    put_until(None)
    shards = len(list((whole / "pack").glob("*.tar")))
    assert packing.pack(whole / "data", target, shard_size=MB)["written"] == shards - 1
    place = Place(target)
    names = {path.rpartition("/")[2] for path in place.filesystem.ls(place.root)}
    expected = made_packs.files(whole / "pack")
    assert {name: place.read(name) for name in names} == expected
    where = [("width", ">", 603), ("review", "==", None)]
    found = artclf.read_catalogue(target, ["url", "width"], where)
    pd.testing.assert_frame_equal(
        found, artclf.read_catalogue(whole / "data", ["url", "width"], where)
    )
    place.filesystem.rm_file(place.path(TAR))
    with pytest.raises(InputError, match=f"{target}/{TAR} is gone"):
        unpacking.unpack(target, back)
    packing.pack(whole / "data", target, shard_size=MB)
    unpacking.unpack(target, back)
    assert made_packs.tables(back) == made_packs.tables(whole / "data")
    assert not (back / "unpacking").exists()
    with pytest.raises(FileNotFoundError, match="s3://nobody/a holds no pack"):
        artclf.read_catalogue("s3://nobody/a")
    with pytest.raises(FileNotFoundError, match="s3://nobody/a/pack.json isn't there"):
        packing.pack(whole / "data", "s3://nobody/a")
