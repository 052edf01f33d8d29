"""Locks of folders: one process writes at a time, and a killed one leaves nothing behind."""

import subprocess
import sys
import time

import pytest

from artclf.base.errors import StepError
from artclf.base.locks import hold, locked

HOLDING = """
import sys, time
from artclf.base.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the folder `tmp_path / "data"`."""
    folder = tmp_path / "data"
    process = subprocess.Popen([sys.executable, "-c", HOLDING, folder], stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"held"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_another_process_holds_is_refused_at_once(other_process, tmp_path):
    started = time.time()
    with pytest.raises(StepError, match=f"another run is writing to {tmp_path / 'data'}"):  # noqa: SIM117
        with locked(tmp_path / "data"):
            pass
    assert time.time() - started < 1
    with locked(tmp_path / "another"):
        pass


def test_a_killed_process_holds_nothing(other_process, tmp_path):
    other_process.kill()
    other_process.wait()
    with locked(tmp_path / "data"):
        pass


def test_one_process_may_lock_a_folder_within_itself(tmp_path):
    with locked(tmp_path), locked(str(tmp_path)):
        pass
    lock = hold(tmp_path)
    assert lock.is_locked
    lock.release()
    assert not lock.is_locked


def steps(data, tmp_path):
    from artclf import clean, download

    (tmp_path / "folder/a").mkdir(parents=True)
    (tmp_path / "folder/a/1.jpg").write_bytes(b"")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/urls_a.csv").write_text("http://127.0.0.1:9/1.jpg\n", encoding="utf-8")
    return {
        "import": lambda: download.import_folder(tmp_path / "folder", data),
        "download": lambda: download.fetch_lists(tmp_path / "lists", data),
        "clean": lambda: clean.clean_all(data),
        "normalise": lambda: clean.normalise(data),
    }


@pytest.mark.parametrize("step", ["import", "download", "clean", "normalise"])
def test_a_step_on_data_that_another_run_writes_to_stops_and_touches_nothing(
    other_process, tmp_path, step
):
    from artclf.data.catalogue import Catalogue, read_catalogue

    data = tmp_path / "data"
    with Catalogue(data) as catalogue:
        catalogue.add([{"url": "http://a.example/", "period": "x"}])
    (data / "tmp").mkdir()
    (data / "tmp/half.jpg").write_bytes(b"half")
    with pytest.raises(StepError, match="another run is writing"):
        steps(data, tmp_path)[step]()
    assert (data / "tmp/half.jpg").read_bytes() == b"half"
    assert len(read_catalogue(data)) == 1  # reading stays possible
