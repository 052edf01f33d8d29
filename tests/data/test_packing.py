"""Packing: shards that hold everything of a data set, are whole, and follow from it alone."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import made_packs

import artclf
from artclf.base.errors import InputError, SettingError, StepError
from artclf.base.locks import hold
from artclf.data import cleaning, packing, packs, review, splits, unpacking
from artclf.data.catalogue import Catalogue, clean_path

MB = 0.005  # of a shard: three or four pictures


@pytest.fixture
def data(tmp_path) -> Path:
    return made_packs.make(tmp_path / "data")


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "pack"


def members(target: Path) -> list[str]:
    names = []
    for path in sorted(target.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    return names


def test_an_address_with_one_slash_is_no_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("s3:/bucket/pack", Path("s3://bucket/pack")):
        with pytest.raises(InputError, match="has one slash: an address has two"):
            packing.pack(data, address)
    assert not (tmp_path / "s3:").exists()


def test_a_folder_or_address_with_something_else_in_it_becomes_no_pack(data, target, s3):
    picture = target / "12-fauvism" / "mine.jpg"
    picture.parent.mkdir(parents=True)
    picture.touch()
    address = f"{s3}/not-empty"
    packing.Place(address).write("mine.jpg", lambda path: path.write_bytes(b"mine"))
    for place, name in ((target, "12-fauvism"), (address, "mine.jpg")):
        with pytest.raises(InputError, match=f"has {name} in it: name a new folder or address"):
            packing.pack(data, place)
        assert packing.Place(place).names() == [name]
    picture.unlink()
    picture.parent.rmdir()
    (target / ".DS_Store").touch()
    assert packing.pack(data, target)["pictures"] == 12


def test_everything_comes_back_and_is_packed_to_the_same_bytes(data, target, tmp_path):
    with Catalogue(data) as catalogue:
        catalogue.db.execute('ALTER TABLE images ADD COLUMN "of ""mine""" INTEGER')
        catalogue.db.execute('UPDATE images SET "of ""mine""" = 7 WHERE period = \'10\'')
    summary = packing.pack(data, target, shard_size=MB)
    assert summary["rows"] == 13 and summary["pictures"] == 12 and summary["missing"] == 0
    assert summary["shards"] == summary["written"] == len(list(target.glob("*.tar"))) > 2
    back = tmp_path / "back"
    assert unpacking.unpack(target, back) == {
        key: summary[key] for key in ("rows", "pictures", "shards")
    }
    tables = made_packs.tables(data)
    assert made_packs.tables(back) == tables
    assert set(tables) == {"images", "settings", "imports", "decisions", "cuts"} and all(
        tables.values()
    )
    before, after = made_packs.files(data), made_packs.files(back)
    for name in ("catalogue.db", *(name for name in before if name.startswith("clean/"))):
        before.pop(name), after.pop(name, None)
    assert after == before
    expected = artclf.read_catalogue(data)
    pd.testing.assert_frame_equal(artclf.read_catalogue(target), expected)
    pd.testing.assert_frame_equal(artclf.read_catalogue(back), expected)
    assert expected['of "mine"'].sum() == 7 * (expected.period == "10").sum()
    packing.pack(back, tmp_path / "again", shard_size=MB)
    assert made_packs.files(tmp_path / "again") == made_packs.files(target)


def test_a_shard_is_read_by_webdataset(data, target):
    import webdataset

    packing.pack(data, target, shard_size=MB)
    rows = artclf.read_catalogue(target, ["file", "sha256"], [("file", "!=", None)])
    shards = [str(path) for path in sorted(target.glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [f"{sample['__key__']}.jpg" for sample in samples] == rows.file.tolist()
    for sample, file in zip(samples, rows.file, strict=True):
        assert sample["jpg"] == (data / file).read_bytes()
    with tarfile.open(shards[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar} == {(0, 0, 0, 0o644, "")}


def test_shards_are_as_large_as_asked(data, target, monkeypatch):
    large = data / artclf.read_catalogue(data).file.dropna().iloc[4]
    large.write_bytes(bytes(9000))
    with Catalogue(data) as catalogue, catalogue.transaction() as db:
        sha256 = packing.sha256_of(large)
        db.execute("UPDATE images SET sha256 = ? WHERE file LIKE ?", (sha256, f"%{large.name}"))
    packing.pack(data, target, shard_size=MB)
    sizes = []
    for path in sorted(target.glob("images-*.parquet")):
        shard = packs.read_shard(packing.Place(target), path.stem)
        sizes.append([row["pack_bytes"] for row in packs.members(shard.table)])
    assert all(sum(shard) <= 5000 or shard == [9000] for shard in sizes) and [9000] in sizes
    joined = [one + other[:1] for one, other in zip(sizes, sizes[1:], strict=False)]
    assert all(sum(shard) > 5000 for shard in joined)  # no shard could have held more
    monkeypatch.setattr(packing, "ROWS", 5)
    packing.pack(data, target.with_name("rows"))
    assert [len(shard) for shard in _keys(target.with_name("rows"))] == [5, 5, 3]


def _keys(target: Path) -> list[list[str]]:
    place = packing.Place(target)
    names = [path.stem for path in sorted(target.glob("images-*.parquet"))]
    return [packs.read_shard(place, name).table["url"].to_pylist() for name in names]


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The names of the files that are written, in order."""
    names = []
    write = packing.Place.write

    def noted(place, name, *args):
        names.append(name)
        return write(place, name, *args)

    monkeypatch.setattr(packing.Place, "write", noted)
    return names


def test_only_what_has_changed_is_written(data, target, written):
    packing.pack(data, target, shard_size=MB)
    assert written[:3] == ["pack.json", "images-000000.tar", "images-000000.parquet"]
    assert written[-1] == "pack.json" and "artists.csv" in written
    written.clear()
    assert packing.pack(data, target, shard_size=MB)["written"] == 0 and written == []
    last = artclf.read_catalogue(data, ["url", "period"]).iloc[-1].to_dict()
    with Catalogue(data) as catalogue:
        catalogue.update([{**last, "review": "drop"}])
    shards = len(list(target.glob("*.tar")))
    name = packs.shard_name(shards - 1)
    assert packing.pack(data, target, shard_size=MB)["written"] == 1
    assert written == ["pack.json", f"{name}.parquet", "pack.json"]
    (target / "images-000001.tar").unlink()
    written.clear()
    packing.pack(data, target, shard_size=MB)
    assert written == ["pack.json", "images-000001.tar", "pack.json"]
    made_packs.make(data, 15)  # three more
    written.clear()
    summary = packing.pack(data, target, shard_size=MB)
    assert summary["rows"] == 16 and "images-000000.tar" not in written
    assert f"{name}.tar" in written
    fresh = target.with_name("fresh")
    packing.pack(data, fresh, shard_size=MB)
    assert made_packs.files(fresh) == made_packs.files(target)


def test_no_pack_takes_the_place_of_another_one(data, target, tmp_path):
    packing.pack(data, target, shard_size=MB)
    before = made_packs.files(target)
    other = made_packs.make(tmp_path / "other", 9)
    with Catalogue(other) as catalogue, catalogue.transaction() as db:
        db.execute("UPDATE images SET url = 'x' || url")
    for folder, options, problem in (
        (data, {"shard_size": 1}, "other settings, raw pictures and shards of 0.005 MB"),
        (data, {"shard_size": MB, "clean": True}, "other settings"),
        (other, {"shard_size": MB}, "images-000000.parquet is of other pictures"),
    ):
        with pytest.raises(InputError, match=problem):
            packing.pack(folder, target, **options)
    with Catalogue(data) as catalogue, catalogue.transaction() as db:
        db.execute("DELETE FROM images WHERE rowid > ?", (len(_keys(target)[0]),))
    with pytest.raises(InputError, match="images-000001.parquet is of other pictures"):
        packing.pack(data, target, shard_size=MB)
    assert made_packs.files(target) == before
    with pytest.raises(InputError, match="is a data set itself"):
        packing.pack(data, data)
    with pytest.raises(InputError, match="lies in the data set .*: name a folder outside"):
        packing.pack(data, data / "raw" / "pack")


def test_bad_settings_and_nothing_to_pack(data, target, tmp_path):
    for size in (0, -1, "a"):
        with pytest.raises(SettingError, match="shard_size"):
            packing.pack(data, target, shard_size=size)
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        packing.pack(tmp_path / "none", target)
    shutil.rmtree(data / "clean")
    with pytest.raises(InputError, match="no clean pictures: run `artclf clean`"):
        packing.pack(data, target, clean=True)
    shutil.rmtree(data / "raw")
    with pytest.raises(InputError, match="no raw pictures"):
        packing.pack(data, target)
    assert made_packs.files(target) == {}


def test_a_missing_picture_is_counted_and_a_changed_one_is_named(data, target, tmp_path):
    first, second = artclf.read_catalogue(data).file.dropna().iloc[:2]
    (data / first).unlink()
    summary = packing.pack(data, target)
    assert summary["missing"] == 1 and summary["pictures"] == 11 and first not in members(target)
    unpacking.unpack(target, tmp_path / "back")
    assert made_packs.tables(tmp_path / "back") == made_packs.tables(data)
    (data / second).write_bytes((data / second).read_bytes()[::-1])
    with pytest.raises(InputError, match=rf"{second} is not the picture .* SHA-256 differs"):
        packing.pack(data, tmp_path / "changed")
    assert list(made_packs.files(tmp_path / "changed")) == [".images-000000.tar.part", "pack.json"]


@pytest.mark.parametrize(
    "change, problem",
    [
        ("CREATE TABLE others (a)", "a table 'others'"),
        ("ALTER TABLE images ADD COLUMN mine BLOB", "column mine is BLOB"),
        ("UPDATE images SET width = 'wide'", "another kind than its column"),
        ("UPDATE images SET file = '../secret/a.jpg' WHERE file <> ''", "outside raw/<class>/"),
        ("UPDATE images SET review = 'move:..' WHERE file <> ''", "outside clean/<class>/"),
    ],
)
def test_what_would_be_lost_or_lead_out_is_refused(data, target, change, problem):
    with Catalogue(data) as catalogue:
        catalogue.db.execute(change)
    with pytest.raises(InputError, match=problem):
        packing.pack(data, target)
    assert (
        not (target / "pack.json").exists() or not packs.read_index(packing.Place(target)).complete
    )


def test_two_runs_do_not_write_one_pack(data, target):
    code = (
        "import sys; from artclf.base.locks import hold; lock = hold(sys.argv[1]);"
        "print(1, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, target], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(StepError, match="another run is writing"):
            packing.pack(data, target)
        other.stdin.close()
    hold(target).release()


def test_the_pictures_that_training_sees_are_packed_alone(drawn, tmp_path, capsys):
    data = shutil.copytree(
        drawn, tmp_path / "data", ignore=shutil.ignore_patterns("*s.db", "gallery")
    )
    row = artclf.read_catalogue(data).iloc[3].to_dict()
    review.decide(data, [row], "move:17-dadaism")
    packing.pack(data, tmp_path / "pack", clean=True)
    back = tmp_path / "back"
    unpacking.unpack(tmp_path / "pack", back)
    assert made_packs.tables(back) == made_packs.tables(data) and not (back / "raw").exists()
    copies = made_packs.files(data / "clean")
    assert made_packs.files(back / "clean") == copies
    assert clean_path({**row, "review": "move:17-dadaism"}).removeprefix("clean/") in copies
    pd.testing.assert_frame_equal(splits.items(back), splits.items(data))
    pd.testing.assert_frame_equal(cleaning.normalise(back, workers=1), cleaning.counts(data))
    with pytest.raises(InputError, match="has only clean copies"):
        cleaning.normalise(back, max_size=100, workers=1)
    assert made_packs.tables(back)["images"] == made_packs.tables(data)["images"]


# Each run dies at another moment: before a file takes its place, before and after a transaction ends.
KILLED = """
import os, sys, shutil
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import made_packs
import pyarrow.dataset, pyarrow.parquet, fsspec.implementations.local
from artclf.data import catalogue, packing, unpacking

here = Path(sys.argv[1])
moment = 0
dies_at = None

def pass_moment():
    global moment
    moment += 1
    if moment == dies_at:
        os._exit(9)

def replace(path, target, original=Path.replace):
    pass_moment()
    original(path, target)

@contextmanager
def transaction(self, original=catalogue.Catalogue.transaction):
    with original(self) as db:
        yield db
        pass_moment()
    pass_moment()

Path.replace = replace
catalogue.Catalogue.transaction = transaction

def run(function, at=None):
    global dies_at, moment
    pid = os.fork()
    if pid == 0:
        dies_at, moment = at, 0
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def all_moments(function, made, check, check_whole):
    at = 1
    while True:
        shutil.rmtree(made, ignore_errors=True)
        code = run(function, at)
        assert code in (0, 9), code
        if code == 0:
            return at
        check(made)
        assert run(function) == 0
        check_whole(made)
        at += 3  # of all moments, each third is enough

pack = lambda: packing.pack(here / "data", here / "pack", shard_size=0.003)
unpack = lambda: unpacking.unpack(here / "whole", here / "back")
assert run(lambda: packing.pack(here / "data", here / "whole", shard_size=0.003)) == 0
assert run(lambda: unpacking.unpack(here / "whole", here / "whole-data")) == 0
whole, whole_data = (made_packs.files(here / name) for name in ("whole", "whole-data"))
whole_data.pop("catalogue.db")

def files_are_whole(made):
    for name, content in made_packs.files(made).items():
        if not Path(name).name.startswith(".") and name != "pack.json":
            assert whole[name] == content, name
    for parquet in made.glob("images*.parquet"):
        assert parquet.with_suffix(".tar").exists()

def pack_is_whole(made):
    found = made_packs.files(made)
    assert {name: found[name] for name in whole} == whole

def data_is_whole_or_none(made):
    for name, content in made_packs.files(made).items():
        if not name.startswith("unpacking/") and name != "catalogue.db" and not Path(name).name.startswith("."):
            assert whole_data[name] == content, name
    if (made / "catalogue.db").exists():
        shutil.rmtree(made)  # only the folder that was used is left behind

def data_is_whole(made):
    found = made_packs.files(made)
    found.pop("catalogue.db")
    assert found == whole_data
    assert made_packs.tables(made) == made_packs.tables(here / "data")

print(all_moments(pack, here / "pack", files_are_whole, pack_is_whole))
print(all_moments(unpack, here / "back", data_is_whole_or_none, data_is_whole))
"""


@pytest.mark.skipif(os.name == "nt", reason="fork of POSIX")
def test_runs_that_are_killed_at_any_moment_go_on(tmp_path):
    made_packs.make(tmp_path / "data", 5)
    helpers = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", KILLED, str(tmp_path), helpers]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    moments = [int(line) for line in re.findall(r"\d+", ran.stdout)]
    assert len(moments) == 2 and min(moments) > 10, ran.stdout
