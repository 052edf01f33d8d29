"""The export to ONNX: what onnxruntime answers is what torch answers, for every kind of network."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from made_pictures import noise
from torch import nn

import artclf
from artclf.answers import onnx as answers
from artclf.answers.exports import WEIGHTS
from artclf.data import splits
from artclf.model import backbones, network, onnx_export
from artclf.model.classifier import Classifier

pytestmark = pytest.mark.slow  # an export takes ten seconds


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture(scope="module")
def exported(export, drawn, tmp_path_factory) -> tuple[Path, dict]:
    """The export with both ONNX files, and what was measured of them."""
    out = tmp_path_factory.mktemp("onnx") / "export"
    shutil.copytree(export, out, ignore=shutil.ignore_patterns("models", "*.pkl"))
    return out, onnx_export.write(out, int8=True, data=drawn)


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(exported[0], tmp_path / "copy")


def config_of(out: Path) -> dict:
    return json.loads((out / "config.json").read_text(encoding="utf-8"))


def content(out: Path) -> dict:
    return {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


def test_answers_are_those_of_torch(exported, drawn):
    files = sorted((drawn / "clean").rglob("*.jpg"))
    pictures = [*files, noise(700, 40), b"no picture"]
    expected = artclf.load(exported[0])
    found = artclf.load(exported[0], backend="onnx")
    assert found.n_features == expected.n_features
    table = found.predict(pictures, k=5)
    of_torch = expected.predict(pictures, k=5)
    assert table.error.tolist() == of_torch.error.tolist()
    assert table.predicted.tolist() == of_torch.predicted.tolist()
    for batch_size in (1, 7, 64):
        probabilities, features, _ = found.probabilities_and_features(pictures, batch_size)
        of_torch = expected.probabilities_and_features(pictures, batch_size)
        np.testing.assert_allclose(probabilities, of_torch[0], atol=1e-3)
        np.testing.assert_allclose(features, of_torch[1], rtol=1e-3, atol=1e-4)


def test_weights_in_int8_are_a_third_and_their_loss_is_measured(exported, drawn):
    out, told = exported
    sizes = {name: (out / name).stat().st_size for name in answers.FILES}
    assert sizes[answers.INT8] < sizes[answers.FLOAT] / 3
    measured = config_of(out)["int8"]
    assert told == measured | {name: round(size / 1e6, 2) for name, size in sizes.items()}
    test = splits.items(drawn).query("part == 'test'")
    given = test.period.to_numpy()
    files = [drawn / file for file in test.file]
    table = pd.read_csv(out / "predictions.csv").query("part == 'test'")
    assert measured["images"] == len(given) == len(table)
    assert measured["accuracy"] == (table.period == table.predicted).mean()
    as_int8 = artclf.load(out, backend="onnx-int8")
    predicted = as_int8.predict(files).predicted.to_numpy()
    assert measured["accuracy_int8"] == (predicted == given).mean()
    assert measured["same"] == (predicted == table.predicted.to_numpy()).mean()
    as_float = artclf.load(out, backend="onnx")
    difference = abs(as_int8.probabilities(files)[0] - as_float.probabilities(files)[0])
    assert 0 < difference.max() < 0.1


def test_the_file_tells_nothing_of_this_machine(exported):
    content = (exported[0] / answers.FLOAT).read_bytes()
    for secret in ("site-packages", "artclf", str(Path.cwd()), str(exported[0])):
        assert secret.encode() not in content


def test_files_of_before_go_with_a_new_export(copy, drawn):
    from artclf import predict, train

    learn = train.learner(drawn, copy, arch="efficientnet_lite0", size=64, batch_size=8)
    predict.export(learn)
    assert not set(answers.FILES) & set(content(copy)) and "int8" not in config_of(copy)
    with pytest.raises(FileNotFoundError, match="artclf export"):
        artclf.load(copy, backend="onnx")


def test_int8_goes_where_only_float_is_written(copy):
    onnx_export.write(copy)
    assert answers.INT8 not in content(copy) and "int8" not in config_of(copy)
    assert list(config_of(copy)["hashes"])[-1] == answers.FLOAT
    artclf.load(copy, backend="onnx")
    artclf.load(copy)


def test_an_export_that_fails_leaves_the_files_of_before(copy, monkeypatch):
    before = content(copy)
    monkeypatch.setattr(onnx_export, "MAX_DIFFERENCE", -1)
    with pytest.raises(RuntimeError, match="other probabilities than in torch"):
        onnx_export.write(copy)
    assert content(copy) == before


NETWORKS = [
    ("resnet18", {}),
    ("resnet18", {"depth": 2, "pool": "last"}),
    ("resnet18", {"artists": ["A", "B", "C"], "pool": "stages"}),
    ("efficientnet_lite0+resnet18", {"precision": "bfloat16"}),
    ("test_vit", {}),
]


def random_classifier(arch: str, pool="style", precision="float32", **settings) -> Classifier:
    """A classifier with random weights, also in its head, for pictures of 64 px."""
    torch.manual_seed(0)
    backbone = backbones.find(arch, pretrained=False)
    config = {
        "name": arch,
        "mean": backbone.mean,
        "std": backbone.std,
        "vocab": ["01-a", "02-b", "03-c"],
        "artists": [],
        "size": 64,
        "depth": 0,
        "width": 16,
        "dropout": 0.5,
        "temperature": 1.5,
        "hashes": {WEIGHTS: "a" * 64},
        **settings,
    }
    body = network.new_body(backbone, pool, 64, precision)
    head = network.new_head(body.n_features, config)
    model = nn.Sequential(body, head).train()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, 0.5)
        for seed in range(3):  # so that the norms have something to do
            model(torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    learner = SimpleNamespace(model=model, dls=SimpleNamespace(device=torch.device("cpu")))
    return Classifier(learner, config)


@pytest.mark.parametrize("arch, settings", NETWORKS, ids=str)
def test_networks_of_every_kind_answer_alike(tmp_path, arch, settings):
    classifier = random_classifier(arch, **settings)
    file = tmp_path / answers.FLOAT
    onnx_export.export(classifier, file)
    assert list(tmp_path.iterdir()) == [file]  # in one piece
    session = answers.open_session(file.read_bytes(), file)
    found = answers.OnnxClassifier(session, classifier.config)
    for body in classifier.model[0].bodies:
        body.autocast_dtype = None  # an exported network computes in float32
    for count in (1, 5):
        pixels = np.stack([noise(64, 64, seed).transpose(2, 0, 1) for seed in range(count)])
        probabilities, features = found.answer(pixels)
        expected, expected_features = classifier.answer(pixels)
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
        difference = np.linalg.norm(features - expected_features)
        assert difference < 1e-3 * np.linalg.norm(expected_features)
        assert np.ptp(expected[0, :3]) > 0.01  # an answer that a mistake would change
    onnx_export.quantise(file, tmp_path / answers.INT8)
    session = answers.open_session((tmp_path / answers.INT8).read_bytes(), file)
    in_int8, _ = answers.OnnxClassifier(session, classifier.config).answer(pixels)
    np.testing.assert_allclose(in_int8, expected, atol=0.1)
