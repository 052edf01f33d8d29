"""ONNX: a network that answers without torch, from a file that belongs to the weights."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from made_exports import LOGITS, SIZE, WEIGHTS, model_of_colours, version_of, write
from PIL import Image

import artclf
from artclf.answers import onnx as answers
from artclf.answers.exports import VERSIONS
from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.commands.options import Backend


@pytest.fixture
def small(tmp_path) -> Path:
    write(tmp_path)
    return tmp_path


def load(out: Path):
    return artclf.load(out, backend="onnx")


def test_answers_come_from_the_pixels(small):
    classifier = load(small)
    assert classifier.n_features == 3
    pictures = [Image.new("RGB", (30, 20), colour) for colour in ("#900", "#090", "#009")]
    table = classifier.predict([*pictures, b"none"], k=2)
    assert table.predicted.tolist()[:3] == ["01-red", "02-green", "03-blue"]
    assert table.error.tolist() == ["", "", "", "not an image"]
    assert table.artist.tolist()[:3] == ["A"] * 3 and pd.isna(table.artist[3])
    logits = np.array([0x99 * 0.1, 0, 0]) / 2
    expected = np.exp(logits) / np.exp(logits).sum()
    assert table.probability[0] == pytest.approx(expected[0], abs=1e-6)
    for batch_size in (1, 2, 64):
        probabilities, features, _ = classifier.probabilities_and_features(pictures, batch_size)
        np.testing.assert_allclose(features, 0x99 * np.eye(3), atol=1e-3)
        np.testing.assert_allclose(probabilities[0, :3], expected, atol=1e-6)


WITHOUT_TORCH = """
import importlib.util, sys
absent = {"torch", "fastai", "timm", "cv2", "scipy", "sklearn", "matplotlib", "aiohttp", "jinja2"}
class Refuse:
    def find_spec(self, name, *args):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in absent else find_spec(name)
sys.meta_path.insert(0, Refuse())
from artclf import cli
sys.argv = ["artclf", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    print(end.code, [name for name in absent if name in sys.modules])
"""


def without_torch(*args) -> tuple[str, str]:
    """Standard output and error of a command where only the extra `onnx` is installed."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_command_answers_without_torch(small, tmp_path):
    Image.new("RGB", (700, 30), "#090").save(tmp_path / "green.jpg")
    pictures = [tmp_path / "green.jpg", "http://127.0.0.1:9/a.jpg"]
    options = ["--out", small, "--backend", "onnx", "--json"]
    printed, said = without_torch("predict", *pictures, *options)
    answered, end = printed.splitlines()
    assert end == "0 []" and said == ""
    found = json.loads(answered)
    assert found["0"]["predicted"] == "02-green"
    assert "needs aiohttp" in found["1"]["error"]


def test_without_torch_other_commands_say_what_to_install(small, tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
    for command in (
        ("predict", tmp_path / "a.png", "--out", small),
        ("export", small, "--onnx"),
        ("train",),
        ("clean", "--data", small),
    ):
        printed, said = without_torch(*command)
        assert printed == "1 []\n"
        assert said.startswith("artclf: this needs ") and said.count("\n") == 1
        assert said.endswith('run pip install -e ".[train]" in the clone of artclf\n')


def test_without_onnxruntime_the_extra_is_named(small, monkeypatch):
    monkeypatch.setattr("artclf.base.extras.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs onnxruntime: run pip install -e "\.\[onnx\]"'):
        load(small)


def test_another_backend_is_refused(small):
    assert [backend.value for backend in Backend] == list(artclf.BACKENDS)
    with pytest.raises(InputError, match="backend is 'jax': take one of torch, onnx, onnx-int8"):
        artclf.load(small, backend="jax")


def test_a_file_that_is_missing_comes_by_a_command(small):
    (small / answers.FLOAT).unlink()
    for backend, options in (("onnx", "--onnx"), ("onnx-int8", "--onnx --int8")):
        with pytest.raises(FileNotFoundError, match=f"run `artclf export .* {options}` first"):
            artclf.load(small, backend=backend)
    (small / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="artclf train"):
        load(small)


def test_a_spoilt_file_is_refused(small):
    file = small / answers.FLOAT
    content = file.read_bytes()
    for spoilt in (content[:-1], b"", bytes([content[0] ^ 1]) + content[1:]):
        file.write_bytes(spoilt)
        with pytest.raises(InputError, match=r"model\.onnx is not the file .* export .* --onnx"):
            load(small)


@pytest.mark.parametrize("content", [b"", b"no network", b"\0" * 100])
def test_what_is_no_network_is_refused(small, content):
    (small / answers.FLOAT).write_bytes(content)
    hashes = {"model.safetensors": WEIGHTS, answers.FLOAT: sha256_of(small / answers.FLOAT)}
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    (small / "config.json").write_text(json.dumps(config | {"hashes": hashes}), encoding="utf-8")
    with pytest.raises(InputError, match=r"model\.onnx is no network .*: run `artclf export"):
        load(small)


def test_a_file_of_other_weights_is_refused(tmp_path):
    write(tmp_path, model_of_colours(made_from="b" * 64))
    with pytest.raises(InputError, match="made from other weights .* run `artclf export"):
        load(tmp_path)


def test_a_file_that_names_no_weights_is_refused(tmp_path):
    model = model_of_colours()
    del model.metadata_props[:]
    onnx.save(model, tmp_path / answers.FLOAT)
    write(tmp_path, model, hashes={answers.FLOAT: sha256_of(tmp_path / answers.FLOAT)})
    with pytest.raises(InputError, match="made from other weights"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"size": None}, {"size": 0}, {"resize": "stretch"}, {"temperature": 0}], ids=str
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=r"config\.json is not the config\.json of an export"):
        load(tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        model_of_colours(size=SIZE + 1),
        model_of_colours(logits=LOGITS[:, :3]),
        model_of_colours(names=["answers", "features"]),
    ],
)
def test_a_network_with_another_input_or_output_is_refused(tmp_path, model):
    write(tmp_path, model)
    with pytest.raises(InputError, match="holds another network than config.json describes"):
        load(tmp_path)


def test_the_measured_network_is_torchs_alone(tmp_path):
    write(tmp_path, measured={"temperature": 1.0})
    with pytest.raises(InputError, match='measured one with backend="torch"'):
        artclf.load(tmp_path, measured=True, backend="onnx")
    write(tmp_path)  # one network, which was measured
    assert artclf.load(tmp_path, measured=True, backend="onnx").vocab[0] == "01-red"


def test_only_versions_that_change_answers_are_warned_of(tmp_path):
    versions = {name: version_of(name) for name in VERSIONS}
    write(tmp_path, versions=versions | {"torch": "1.0.0", "timm": "0.1.0"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path)
    write(tmp_path, versions=versions | {"pillow": "1.0.0"})
    with pytest.warns(UserWarning, match=r"pillow .*trained with 1\.0\.0") as found:
        load(tmp_path)
    assert found[0].filename == __file__


def test_threads_are_those_of_the_environment(small, monkeypatch):
    for text, expected in (("1", 1), ("3,2", 3), ("", 0), ("many", 0)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        options = load(small).session.get_session_options()
        assert options.intra_op_num_threads == expected
