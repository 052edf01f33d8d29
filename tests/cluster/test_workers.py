"""Steps on the workers of Ray: the same results as on this machine, also when workers or the caller
are killed.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from artclf import download
from artclf.answers import batch
from artclf.base.errors import InputError, StepError
from artclf.base.processes import FOR_WORKERS
from artclf.cluster import workers
from artclf.data import cleaning, packing
from artclf.data.catalogue import clean_path, read_catalogue
from artclf.model import backbones, features, network
from artclf.model.pixels import Pictures
from artclf.model.store import Store

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def store(s3):
    """An object store that is there before Ray starts, whose workers have the variables of then."""
    return s3


def results_of(chunks) -> dict:
    pairs = [pair for chunk in chunks for pair in chunk]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def hashes(folder: Path) -> dict:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


# The way to do jobs


def square_or_die(job: int) -> int:
    if job in (7, 11):
        os._exit(1)
    return job * job


def test_a_job_that_ends_its_workers_has_no_result_and_all_others_have_theirs(map_jobs):
    chunks = list(map_jobs(square_or_die, iter(range(20)), chunk_size=4))
    assert results_of(chunks) == {i: None if i in (7, 11) else i * i for i in range(20)}
    assert max(map(len, chunks)) == 4


def test_no_jobs_need_no_worker(map_jobs, monkeypatch):
    monkeypatch.setattr(workers._Run, "_start_worker", None)
    assert list(map_jobs(abs, [])) == []


def refuse(job: int):
    raise InputError(f"{job} is no picture: give another")


def test_what_a_job_raises_is_raised_as_it_is(map_jobs):
    with pytest.raises(InputError) as raised:
        list(map_jobs(refuse, [3], workers=1))
    assert str(raised.value) == "3 is no picture: give another"


def test_few_jobs_are_taken_before_their_results_are(map_jobs):
    taken = []
    chunks = map_jobs(abs, (taken.append(job) or job for job in range(1000)), chunk_size=2)
    next(chunks)
    assert len(taken) <= 2 * workers.CHUNKS_AT_A_TIME * 2
    chunks.close()


class SleepsOnce:
    """Sleeps in its first job ever, whose process is in the file `pid`."""

    def __init__(self, folder: Path):
        self.pid = folder / "pid"

    def prepare(self):
        self.is_prepared = True

    def __call__(self, job: int) -> int:
        if job == 0 and not self.pid.exists():
            part = self.pid.with_suffix(".part")
            part.write_text(str(os.getpid()))
            part.replace(self.pid)
            time.sleep(600)
        return job + 1


def kill_when_there(file: Path):
    while not file.exists():
        time.sleep(0.05)
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_what_a_killed_worker_had_under_way_is_done_again(map_jobs, tmp_path):
    function = SleepsOnce(tmp_path)
    killer = threading.Thread(target=kill_when_there, args=[function.pid])
    killer.start()
    assert results_of(map_jobs(function, range(9), chunk_size=3)) == {i: i + 1 for i in range(9)}
    killer.join()


def process_of(job: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_workers_that_the_cluster_gets_room_for_meanwhile_take_part(map_jobs, monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_TO_LOOK", 0)
    monkeypatch.setattr(workers._Pool, "size", 1)
    chunks = map_jobs(process_of, range(200), chunk_size=1)
    processes = {process for _, process in next(chunks)}
    monkeypatch.setattr(workers._Pool, "size", 2)
    while len(processes) < 2:
        processes |= {process for _, process in next(chunks)}
    chunks.close()


def test_a_worker_that_sees_another_folder_is_an_error(map_jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(map_jobs.__self__, "mark", tmp_path / "mark")
    with pytest.raises(StepError, match=f"does not see the folder {tmp_path} of this machine"):
        list(map_jobs(abs, [1], workers=1))


# The steps


@pytest.fixture
def raw(drawn, tmp_path) -> Path:
    """The data set `drawn` before it was cleaned, with a file that is no picture."""
    data = tmp_path / "raw"
    shutil.copytree(drawn, data, ignore=shutil.ignore_patterns("clean", "*.db*"))
    (data / "gallery/01-early_renaissance/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    download.import_folder(data / "gallery", data)
    next((data / "raw").rglob("*.*")).write_bytes(b"changed since")
    return data


def test_clean_writes_the_same_rows_and_bytes(map_jobs, raw, tmp_path):
    other = shutil.copytree(raw, tmp_path / "other")
    counts = cleaning.normalise(raw, workers=1)
    assert cleaning.normalise(other, map_jobs=map_jobs).equals(counts)
    assert read_catalogue(raw).equals(read_catalogue(other))
    assert "rejected" in counts and hashes(raw / "clean") == hashes(other / "clean")


def test_levelling_writes_the_same_rows_and_bytes(map_jobs, drawn, tmp_path):
    gallery = shutil.copytree(drawn / "gallery", tmp_path / "gallery")
    (gallery / "01-early_renaissance/broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    here, there = (tmp_path / name for name in ("here", "there"))
    counts = download.import_levelled(gallery, here, workers=1, size=64)
    assert download.import_levelled(gallery, there, map_jobs, size=64).equals(counts)
    assert read_catalogue(here).equals(read_catalogue(there))
    pictures = [{**hashes(data / "raw"), **hashes(data / "clean")} for data in (here, there)]
    assert pictures[0] == pictures[1] and len(pictures[0]) >= 40


def test_features_are_the_same_bit_for_bit(map_jobs, drawn, tmp_path, no_workers):
    folders = [
        shutil.copytree(
            drawn, tmp_path / name, ignore=shutil.ignore_patterns("features.db", "pixels.db")
        )
        for name in ("here", "workers")
    ]
    rows = read_catalogue(drawn).query("clean_status == 'ok'").iloc[:20]
    files = [clean_path(row) for row in rows.to_dict("records")]
    backbone = backbones.find("efficientnet_lite0")
    body = network.new_body(backbone, size=64)
    arrays = []
    for data, way in zip(folders, (None, map_jobs), strict=True):
        pictures = Pictures(data, files, rows.clean_sha256, 64)
        first = Pictures(data, files[:3], rows.clean_sha256[:3], 64)
        features.feature_views(first, body, backbone, "net", [0], map_jobs=way)
        arrays.append(
            features.feature_views(pictures, body, backbone, "net", range(3), map_jobs=way)
        )
    assert arrays[0].shape[:2] == (20, 3) and np.array_equal(*arrays)
    here, there = (Store(data / "features.db") for data in folders)
    [*keys] = here.keys()
    assert keys == there.keys() and len(keys) == 3
    for key in keys:
        assert here.read(key, list(rows.clean_sha256)) == there.read(key, list(rows.clean_sha256))
    assert not list(folders[1].glob(f"{FOR_WORKERS}*"))


@pytest.mark.parametrize("place", ["a folder", "an object store"])
def test_a_pack_is_read_by_the_workers(map_jobs, export, fresh, store, tmp_path, no_workers, place):
    import artclf

    pack = tmp_path / "pack" if place == "a folder" else f"{store}/{tmp_path.name}"
    packing.pack(fresh, pack, clean=True, shard_size=0.05)
    rows = read_catalogue(fresh).query("clean_status == 'ok'")
    files = [clean_path(row) for row in rows.to_dict("records")]
    backbone = backbones.find("efficientnet_lite0")
    body = network.new_body(backbone, size=64)
    arrays = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for data, way in ((fresh, None), (pack, map_jobs)):
            pictures = Pictures(data, files, rows.clean_sha256, 64)
            found = features.feature_views(pictures, body, backbone, "net", [0], map_jobs=way)
            arrays.append(found)
    assert np.array_equal(*arrays)
    stores = (tmp_path / "cache/artclf").iterdir()
    assert sorted(file.name for file in stores) == ["features.db", "pixels.db"]
    load = partial(artclf.load, str(export))
    classifier = load()
    batch.save(classifier, [str(pack)], tmp_path / "here.csv")
    batch.save(classifier, [str(pack)], tmp_path / "there.csv", None, map_jobs, load)
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


def test_predictions_are_the_same_file(map_jobs, export, drawn, tmp_path, no_workers):
    import artclf

    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    images = [str(drawn / "clean"), str(tmp_path / "broken.jpg"), str(tmp_path / "none.jpg")]
    classifier = artclf.load(export)
    here = batch.save(classifier, images, tmp_path / "here.csv", 0.5)
    load = partial(artclf.load, str(export))
    there = batch.save(classifier, images, tmp_path / "there.csv", 0.5, map_jobs, load)
    assert here["errors"] == there["errors"] == 2 and here["pictures"] == there["pictures"]
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()
    with pytest.raises(InputError, match="download the pictures first"):
        batch.save(classifier, ["http://127.0.0.1/a.jpg"], tmp_path / "a.csv", None, map_jobs, load)


def test_the_next_run_goes_on_where_the_caller_was_killed(map_jobs, raw, tmp_path):
    expected = shutil.copytree(raw, tmp_path / "expected")
    cleaning.normalise(expected, workers=1)
    address = ray.get_runtime_context().gcs_address
    command = [
        sys.executable,
        "-c",
        "from artclf.cli import main; main()",
        "clean",
        "--data",
        raw,
        "--no-near",
    ]
    command += ["--engine", "ray", "--address", address]
    with subprocess.Popen(command) as caller:
        while not list((raw / "clean").rglob("*.jpg")):
            assert caller.poll() is None
            time.sleep(0.01)
        caller.kill()
    cleaning.normalise(raw, map_jobs=map_jobs)
    assert read_catalogue(raw).equals(read_catalogue(expected))
    assert hashes(raw / "clean") == hashes(expected / "clean")
