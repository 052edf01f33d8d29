"""Exports on a hub of the test's own, on 127.0.0.1: what is sent, what is loaded, what is said where
that fails.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from made_hub import TOKEN, Hub
from made_pictures import encoded, noise

import artclf
from artclf.answers import hub
from artclf.base.errors import InputError
from artclf.base.files import sha256_of

ADDRESS = "hf://user/periods"
SENT = ["config.json", "model.safetensors", "metrics.json", "README.md"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub, whose cache and token are those of huggingface_hub in this process."""
    monkeypatch.delenv("ARTCLF_OFFLINE")
    constants = huggingface_hub.constants
    with Hub() as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def out(export, tmp_path) -> Path:
    """An export with everything that one may hold."""
    out = shutil.copytree(export, tmp_path / "out")
    (out / "plots").mkdir()
    (out / "plots" / "a.svg").write_text("<svg/>")
    (out / "model.onnx").write_bytes(b"onnx")
    rewrite(out, hashes={**config_of(out)["hashes"], "model.onnx": sha256_of(out / "model.onnx")})
    return out


def config_of(out: Path) -> dict:
    return json.loads((out / "config.json").read_text(encoding="utf-8"))


def rewrite(out: Path, **changes):
    (out / "config.json").write_text(json.dumps({**config_of(out), **changes}), encoding="utf-8")


def test_an_export_comes_back_as_it_was_sent(server, out):
    told = hub.push(out, ADDRESS)
    commit, files = server.files("user/periods")
    assert told == {
        "repository": ADDRESS,
        "url": f"{server.url}/user/periods",
        "revision": commit,
        "private": True,
        "files": [*SENT, "model.onnx"],
    }
    assert files == {name: (out / name).read_bytes() for name in told["files"]}
    pictures = [noise(90, 70, seed=seed) for seed in range(3)]
    expected = artclf.load(out).probabilities(pictures)[0]
    for address in (ADDRESS, Path(ADDRESS), f"{ADDRESS}@{commit}"):
        found = artclf.load(address).probabilities(pictures)[0]
        np.testing.assert_array_equal(found, expected)
    asked = {request.rpartition("/")[2] for request in server.requests if "/resolve/" in request}
    assert asked == {"config.json", "model.safetensors"}


def test_what_names_pictures_or_runs_code_is_sent_only_when_asked_for(server, out):
    assert "learner.pkl" in hub.push(out, ADDRESS, pickle=True)["files"]
    told = hub.push(out, "hf://user/all", public=True, everything=True)
    assert told["private"] is False
    others = {"predictions.csv", "embeddings.npz", "history.csv", "plots/a.svg", "model.onnx"}
    assert set(told["files"]) == {*SENT, *others}
    assert set(server.files("user/all")[1]) == set(told["files"])


def test_a_revision_is_that_commit(server, out):
    first = hub.push(out, ADDRESS)["revision"]
    config = config_of(out)
    rewrite(out, temperature=3.0)
    hub.push(out, ADDRESS)
    assert artclf.load(ADDRESS).config["temperature"] == 3.0
    older = artclf.load(f"{ADDRESS}@{first}")
    assert older.config["temperature"] == config["temperature"]
    with pytest.raises(InputError, match=f"{ADDRESS}@v9 has no such revision"):
        artclf.load(f"{ADDRESS}@v9")


def test_the_measured_network_is_fetched_where_it_is_wanted(server, out):
    shutil.copy(out / "model.safetensors", out / "measured.safetensors")
    config = config_of(out)
    hashes = config["hashes"]
    hashes = {**hashes, "measured.safetensors": hashes["model.safetensors"]}
    rewrite(out, hashes=hashes, measured={"temperature": 2.5})
    hub.push(out, ADDRESS)
    assert artclf.load(ADDRESS).config["temperature"] == config["temperature"]
    assert not any("measured" in request for request in server.requests if "/resolve/" in request)
    assert artclf.load(ADDRESS, measured=True).config["temperature"] == 2.5


def test_what_computes_decides_what_is_fetched(server, out):
    hub.push(out, ADDRESS)
    folder = hub.fetch(ADDRESS, backend="onnx")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.onnx"]
    with pytest.raises(InputError, match=r"model\.onnx is no network"):
        artclf.load(ADDRESS, backend="onnx")


def test_offline_it_is_what_the_cache_has(server, out, monkeypatch):
    hub.push(out, ADDRESS)
    monkeypatch.setenv("ARTCLF_OFFLINE", "1")
    for act in (lambda: artclf.load(ADDRESS), lambda: hub.push(out, ADDRESS)):
        with pytest.raises(ConnectionError, match="ARTCLF_OFFLINE=1 is set"):
            act()
    monkeypatch.delenv("ARTCLF_OFFLINE")
    folder = hub.fetch(ADDRESS)
    monkeypatch.setenv("ARTCLF_OFFLINE", "1")
    server.requests.clear()
    assert hub.fetch(ADDRESS) == folder and server.requests == []
    assert artclf.load(ADDRESS).vocab == artclf.load(out).vocab


def test_a_hub_that_does_not_answer_leaves_the_cache(server, out, monkeypatch):
    hub.push(out, ADDRESS)
    folder = hub.fetch(ADDRESS)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert hub.fetch(ADDRESS) == folder
    for act in (lambda: hub.fetch("hf://user/other"), lambda: hub.push(out, ADDRESS)):
        with pytest.raises(ConnectionError, match="http://127.0.0.1:9 does not answer"):
            act()


def test_what_came_is_checked_as_a_folder_is(server, out):
    hub.push(out, ADDRESS)
    _, files = server.files("user/periods")
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    commits = server.repositories["user/periods"]["commits"]
    commits.append(("a" * 40, {**files, "model.safetensors": bytes(weights)}))
    with pytest.raises(InputError, match=r"model\.safetensors is not the file that config\.json"):
        artclf.load(ADDRESS)
    without = {name: content for name, content in files.items() if name != "model.safetensors"}
    commits.append(("b" * 40, without))
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        artclf.load(ADDRESS)
    commits.append(("c" * 40, {"README.md": b"a model of others"}))
    with pytest.raises(InputError, match=f"{ADDRESS} holds no export of artclf"):
        artclf.load(ADDRESS)


def test_what_is_private_takes_a_token(server, out, monkeypatch):
    hub.push(out, ADDRESS)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        InputError, match="not there, or not yours to use: log in by `hf auth login"
    ):
        artclf.load(ADDRESS)
    with pytest.raises(InputError, match="takes uploads of its users only: log in"):
        hub.push(out, ADDRESS)
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(InputError, match="the hub refuses|not yours to use"):
        hub.push(out, "hf://user/second")


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://user",
        "hf://user/name/more",
        "hf:///name",
        "hf://a b/c",
        "hf://user/..",
        "hf:/",
    ],
)
def test_addresses_that_are_none_are_named(server, out, address):
    for act in (lambda: artclf.load(address), lambda: hub.push(out, address)):
        with pytest.raises(InputError, match="is no address on the hub"):
            act()
    assert server.requests == []


def test_only_whole_exports_are_sent(server, out):
    with pytest.raises(InputError, match="names a revision"):
        hub.push(out, f"{ADDRESS}@main")
    card = (out / "README.md").read_bytes()
    (out / "README.md").unlink()
    with pytest.raises(InputError, match=r"no model card.*artclf interpret --out"):
        hub.push(out, ADDRESS)
    (out / "README.md").write_bytes(card)
    (out / "learner.pkl").write_bytes(b"other")
    with pytest.raises(InputError, match=r"learner\.pkl is not the file"):
        hub.push(out, ADDRESS, pickle=True)
    for name in ("model.onnx", "measured.safetensors"):
        (out / name).write_bytes(b"of another network")
        with pytest.raises(InputError, match=rf"{name} is not the file"):
            hub.push(out, ADDRESS)
        (out / name).unlink()
    with pytest.raises(FileNotFoundError, match="no export"):
        hub.push(out / "plots", ADDRESS)
    assert server.requests == []


def test_commands_send_and_answer(server, out, command, tmp_path):
    code, told, said = command("push", out, ADDRESS, "--json")
    assert code == 0 and json.loads(told)["files"] == [*SENT, "model.onnx"]
    assert f"Uploading to {ADDRESS}: config.json (0.0 MB), model.safetensors (" in said
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded(noise(80, 70)))
    code, told, _ = command("predict", picture, "--out", ADDRESS, "--json")
    assert code == 0
    assert json.loads(told)["0"]["predicted"] == artclf.load(out).predict(picture).predicted[0]
    code, _, said = command("predict", picture, "--out", "hf://user/none")
    assert code == 1 and said.startswith("artclf: hf://user/none is not there")


LIGHT = """
import sys
from artclf.answers import hub
hub.is_address("hf://a/b")
assert "huggingface_hub" not in sys.modules
try:
    hub.fetch("hf://user/name")
except ConnectionError as error:
    print(error)
print(sorted({"torch", "fastai"} & set(sys.modules)))
"""


def test_no_torch_is_needed(tmp_path):
    environment = {"ARTCLF_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": sys.path[0]}
    environment["PYTHONPATH"] = str(Path(artclf.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [
        "hf://user/name is not in the cache of the hub, and ARTCLF_OFFLINE=1 is set",
        "[]",
    ]
