"""The options --engine and --address, as far as they need no Ray."""

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from artclf.base import extras
from artclf.base.errors import StepError
from artclf.cluster import connecting, workers


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["clean", "--address", "auto"], "it goes with --engine ray"),
        (["predict", "a.jpg", "--engine", "ray"], "it goes with --save FILE"),
        (["download", "--engine", "ray"], "it goes with --lists FOLDER"),
        (["download", "--lists", ".", "--address", "auto"], "it goes with --engine ray"),
        (["clean", "--address", ""], "it goes with --engine ray"),
    ],
)
def test_options_that_need_another_one(command, arguments, reason):
    code, _, errors = command(*arguments)
    assert code == 2 and reason in errors


def test_an_empty_address_starts_no_ray(command, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(connecting, "_connect", None)
    (tmp_path / "urls_a.csv").write_text("http://a.test/1.jpg\n")
    clean = ["clean", "--data", drawn, "--engine", "ray"]
    download = ["download", "--lists", tmp_path, "--data", tmp_path / "data", "--engine", "ray"]
    for arguments in (clean, download):
        for address in ("", " "):
            code, _, errors = command(*arguments, "--address", address)
            assert code == 2 and errors.startswith("artclf: --address is empty: name a Ray cluster")
            assert errors.count("\n") == 1
        monkeypatch.setenv("RAY_ADDRESS", "")
        code, _, errors = command(*arguments)
        assert code == 2 and errors.startswith("artclf: RAY_ADDRESS is empty: name a Ray cluster")
        assert errors.count("\n") == 1
        monkeypatch.delenv("RAY_ADDRESS")


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
    monkeypatch.setattr(connecting, "_connect", None)
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


class Silent(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_server_that_is_no_ray_is_a_line(command, drawn):
    pytest.importorskip("ray")
    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        code, _, errors = command("clean", "--data", drawn, "--engine", "ray", "--address", address)
        server.shutdown()
    assert code == 1 and errors == (
        f"artclf: no Ray cluster at {address}: what answers there is no Ray; name the port of its "
        "head, 6379 by default\n"
    )


@pytest.mark.parametrize("name", ["--address", "RAY_ADDRESS", "auto"])
def test_a_server_that_says_nothing_is_a_line(command, drawn, monkeypatch, name):
    pytest.importorskip("ray")
    from ray._private import services

    monkeypatch.setattr(connecting, "SECONDS_TO_CONNECT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        # "auto" is what Ray takes for the cluster of this machine
        monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        options = {"--address": ["--address", address], "auto": ["--address", "auto"]}
        code, _, errors = command(
            "clean", "--data", drawn, "--engine", "ray", *options.get(name, [])
        )
    place = "auto" if name == "auto" else address
    assert code == 1 and errors == f"artclf: no Ray cluster at {place}: timed out\n"


class NoHead:
    """What `Head` uses of Ray, where the head answers one question and no more."""

    def __init__(self):
        self.is_asked = threading.Event()
        self.killed = []

    def get_runtime_context(self):
        return self

    def get_node_id(self):
        return "mine"

    def nodes(self):
        return [{"NodeID": "mine", "Alive": True}]

    def cluster_resources(self):
        if not hasattr(self, "was_asked"):
            self.was_asked = True
            return {"CPU": 3.0, "GPU": 1.0}
        self.is_asked.set()
        return threading.Event().wait()

    def kill(self, actor):
        self.killed.append(actor)


def test_a_head_that_does_not_answer_is_gone_and_nobody_waits_for_it(monkeypatch):
    ray = pytest.importorskip("ray")
    gone = NoHead()
    for name in ("cluster_resources", "kill", "nodes", "get_runtime_context"):
        monkeypatch.setattr(ray, name, getattr(gone, name))
    monkeypatch.setattr(connecting, "SECONDS_BETWEEN_QUESTIONS", 0.01)
    head = connecting.Head("at 10.0.0.1:6379", False)
    assert gone.is_asked.wait(60)
    assert head.size() == 3 and head.size("GPU") == 1
    head.check()
    monkeypatch.setattr(connecting, "SECONDS_TO_ANSWER", 0)
    with pytest.raises(StepError, match="cluster at 10.0.0.1:6379 is gone.* start it again, and"):
        head.check()
    head.end("an actor")
    head.close()
    assert not gone.killed


def test_actors_end_before_the_connection_does_and_a_lost_machine_is_noticed(monkeypatch):
    ray = pytest.importorskip("ray")
    answers = NoHead()
    for name in ("kill", "nodes", "get_runtime_context"):
        monkeypatch.setattr(ray, name, getattr(answers, name))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    head = connecting.Head("on this machine", True)
    head.check()
    for actor in range(3):
        head.end(actor)
    head.close()
    assert answers.killed == [0, 1, 2] and head.size() == 1
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "mine", "Alive": False}])
    head = connecting.Head("on this machine", True)
    with pytest.raises(StepError, match="on this machine has lost .*: the same command goes on"):
        head.check()
    head.close()
    assert connecting._in_words({"CPU": 1, "GPU": 2.0, "memory": 3}) == "1 core, 2 GPUs"
    assert connecting._in_words({}) == "no cores"


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


@pytest.mark.parametrize(
    "cause, line",
    [
        (
            "Unauthenticated: InvalidAuthToken: missing",
            "it takes only those who have its token: copy ",
        ),
        ("it is busy", "AssertionError"),
    ],
)
def test_why_ray_does_not_connect_is_a_line(monkeypatch, cause, line):
    ray = pytest.importorskip("ray")

    def init(*_, **__):
        raise AssertionError from RuntimeError(f"a traceback of Ray\n{cause}")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(connecting, "_knock", lambda address: None)
    with (
        pytest.raises(StepError, match=f"^no Ray cluster at 10.0.0.1:6379: {line}"),
        connecting.connection("10.0.0.1:6379"),
    ):
        pass


def test_the_steps_do_not_import_ray():
    program = (
        "import sys, artclf.cli, artclf.clean, artclf.cluster.workers, artclf.cluster.requests\n"
        "print('ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
