"""The options --engine and --address, as far as they need no Ray."""

import socket
import subprocess
import sys

import pytest

from artclf.base import extras
from artclf.base.errors import StepError
from artclf.cluster import workers


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["clean", "--address", "auto"], "it goes with --engine ray"),
        (["predict", "a.jpg", "--engine", "ray"], "it goes with --save FILE"),
        (["download", "--engine", "ray"], "it goes with --lists FOLDER"),
        (["download", "--lists", ".", "--address", "auto"], "it goes with --engine ray"),
    ],
)
def test_options_that_need_another_one(command, arguments, reason):
    code, _, errors = command(*arguments)
    assert code == 2 and reason in errors


def test_without_ray_a_line_says_what_to_install(command, drawn, monkeypatch):
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ray" else found(name))
    code, _, errors = command("clean", "--data", drawn, "--engine", "ray")
    assert code == 1 and errors == (
        'artclf: this needs ray: run pip install -e ".[cluster]" in the clone of artclf\n'
    )


def test_a_new_folder_that_stays_empty_is_left_behind_by_no_run(tmp_path):
    with workers.marked(tmp_path / "parent/empty") as mark:
        assert mark.exists()
    assert not (tmp_path / "parent").exists()
    with workers.marked(tmp_path / "parent/data"):
        (tmp_path / "parent/data/catalogue.db").touch()
    assert [file.name for file in tmp_path.rglob("*.*")] == ["catalogue.db"]
    (tmp_path / "mine").mkdir()
    with workers.marked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").exists()


def test_a_folder_without_a_catalogue_is_named_before_ray_starts(command, tmp_path):
    code, _, errors = command("clean", "--data", tmp_path / "none", "--engine", "ray")
    assert code == 1 and f"no catalogue in {tmp_path / 'none'}" in errors


def test_lists_that_cannot_be_read_are_named_before_ray_starts(command, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_connect", None)
    arguments = ["download", "--lists", tmp_path, "--data", tmp_path / "data", "--engine", "ray"]
    code, _, errors = command(*arguments)
    assert code == 1 and "urls_" in errors
    (tmp_path / "urls_rococo.csv").write_bytes(
        "url,title\nhttp://a.example/1.jpg,Été\n".encode("cp1252")
    )
    code, _, errors = command(*arguments)
    assert code == 1 and "is not UTF-8" in errors


def test_an_address_where_nothing_listens_is_a_line(command, drawn):
    pytest.importorskip("ray")
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        code, _, errors = command("clean", "--data", drawn, "--engine", "ray", "--address", address)
    assert code == 1 and errors.startswith(f"artclf: no Ray cluster at {address}: ")
    assert len(errors.splitlines()) == 1


def test_a_start_on_this_machine_that_fails_is_tried_again(monkeypatch):
    ray = pytest.importorskip("ray")
    starts = []

    def init(*_, **__):
        starts.append(None)
        raise RuntimeError("busy" if len(starts) < 3 else "the raylet gave up\nmore of its log")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(StepError, match="no Ray cluster on this machine: the raylet gave up$"),
        workers.connected(),
    ):
        pass
    assert len(starts) == 3


def test_the_steps_do_not_import_ray():
    program = (
        "import sys, artclf.cli, artclf.clean, artclf.cluster.workers, artclf.cluster.requests\n"
        "print('ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
