"""Near-duplicates by workers: what they describe and compare is stored, and found again by later
runs; what ends workers is told.
"""

import pickle
import shutil
import sqlite3
from contextlib import closing

import pytest
from PIL import ImageOps

from artclf import download
from artclf.base.errors import StepError
from artclf.data import (
    cleaning,
    descriptions,
    duplicates,
    matcher,
    sample,
    shared_verdicts,
    verdicts,
)
from artclf.data.catalogue import read_catalogue

FIRST, SECOND = list(sample.PERIODS)[4], list(sample.PERIODS)[9]


def serially(function, jobs, workers=None, chunk_size=16, initializer=None):
    """Does jobs as workers do: function, jobs and results are copies."""
    for job in jobs:
        own_function, own_job = pickle.loads(pickle.dumps((function, job)))
        yield [(job, pickle.loads(pickle.dumps(own_function(own_job))))]


def no_workers(*args, **kwargs):
    raise AssertionError("there is work")
    yield


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """A clean data set: two canvases, a copy of each, and a third one that is larger than these."""
    folder = tmp_path_factory.mktemp("cleaned")
    first, second, third = (sample.canvas(FIRST, number, 260) for number in range(3))
    pictures = {
        f"{FIRST}/0.png": first,
        f"{FIRST}/1.png": second,
        f"{FIRST}/2.png": third,
        f"{FIRST}/smaller.png": first.resize((150, 140)),
        f"{SECOND}/mirror.png": ImageOps.mirror(second).resize((170, 160)),
    }
    for name, image in pictures.items():
        (folder / "gallery" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / "gallery" / name)
    download.import_folder(folder / "gallery", folder / "data")
    cleaning.normalise(folder / "data", workers=1)
    return folder / "data"


@pytest.fixture
def data(cleaned, tmp_path):
    return shutil.copytree(cleaned, tmp_path / "data")


def without_work(monkeypatch):
    for module in (verdicts, descriptions):
        monkeypatch.delattr(module, "describe_file")
    for name in ("candidate_maps", "kind_of_copy"):
        monkeypatch.delattr(matcher, name)


def test_runs_with_and_without_workers_find_the_same_and_go_on_from_each_other(
    data, tmp_path, monkeypatch
):
    other = shutil.copytree(data, tmp_path / "other")
    monkeypatch.setattr(shared_verdicts, "SMALLEST_SHARD", 2)
    found = duplicates.mark(other)
    assert sorted(found.kind) == ["mirror", "mirror", "same"]
    assert duplicates.mark(data, serially).equals(found)
    assert read_catalogue(data).equals(read_catalogue(other))
    shards = descriptions.shards(data)
    assert len(shards) == 3 and not list(data.glob("for-workers-*"))
    before = {shard: shard.stat().st_mtime_ns for shard in shards}
    without_work(monkeypatch)
    assert duplicates.mark(data, serially).equals(found)
    assert {shard: shard.stat().st_mtime_ns for shard in descriptions.shards(data)} == before
    assert duplicates.mark(other, serially).equals(found)  # described and compared without workers
    with descriptions.open_shard(shards[0]) as shard, pytest.raises(sqlite3.OperationalError):
        descriptions.create_table(shard)
        descriptions.write(shard, [])
        shard.execute("DELETE FROM descriptions")


def test_a_shard_is_whole_or_absent_and_a_run_goes_on_after_those_that_are_there(data, monkeypatch):
    monkeypatch.setattr(shared_verdicts, "SMALLEST_SHARD", 2)

    def ends_after_one(function, jobs, workers=None, chunk_size=16, initializer=None):
        for number, chunk in enumerate(serially(function, jobs)):
            if number == 1:
                raise KeyboardInterrupt
            yield chunk

    with pytest.raises(KeyboardInterrupt):
        duplicates.mark(data, ends_after_one)
    finished, last = descriptions.shards(data)  # the second has been written, too
    last.rename(last.with_name(f".{last.name}.part"))
    described = []

    def counted(function, jobs, workers=None, chunk_size=16, initializer=None):
        for chunk in serially(function, jobs):
            described.extend(job for job, _ in chunk if isinstance(job, descriptions.Shard))
            yield chunk

    assert len(duplicates.mark(data, counted)) == 3
    assert sum(len(shard.files) for shard in described) == 3
    assert finished not in {shard.path for shard in described}


def test_descriptions_of_another_version_are_not_taken(data, monkeypatch):
    duplicates.mark(data, serially)
    names = set(read_catalogue(data).clean_sha256)
    [shard] = descriptions.shards(data)
    with descriptions.open_shard(shard) as db:
        assert dict(descriptions.hashes(db)).keys() == names
        monkeypatch.setattr(descriptions, "DESCRIPTION_VERSION", "other")
        assert dict(descriptions.hashes(db)) == {}


def test_a_copy_that_is_gone_is_an_error_before_any_work(data):
    next((data / "clean").rglob("*.jpg")).unlink()
    with pytest.raises(FileNotFoundError, match="is gone: run `artclf clean` first"):
        duplicates.mark(data, no_workers)


def without_results(of):
    """Does the jobs, and gives none of the results of function `of`."""

    def map_jobs(function, jobs, workers=None, chunk_size=16, initializer=None):
        for chunk in serially(function, jobs):
            yield [(job, None if function is of else result) for job, result in chunk]

    return map_jobs


def test_pictures_that_end_workers_are_named(data):
    with pytest.raises(StepError, match=r"describe .*\.jpg or one of the 4 pictures after it"):
        duplicates.mark(data, without_results(descriptions.describe_shard))


def test_pairs_that_end_workers_count_as_different_and_are_told(data, capsys):
    map_jobs = without_results(shared_verdicts._kind_on_worker)
    assert duplicates.mark(data, map_jobs).empty
    [line] = capsys.readouterr().err.splitlines()
    assert "pairs count as different until the next run, such as " in line
    with closing(sqlite3.connect(data / "duplicates.db")) as db:
        [(compared,)] = db.execute("SELECT count(*) FROM verdicts")
    assert compared == 0
    assert len(duplicates.mark(data, serially)) == 3  # they are compared again
