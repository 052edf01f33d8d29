"""Exports that are wrong, truncated, tampered with, hostile or newer: an error that names the file,
before memory is taken.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import artclf
from artclf.answers.config import FORMAT, MOST_BYTES
from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.model import backbones, exports, network, stages

VALUES = [
    None,
    True,
    -1,
    0,
    10**9,
    10**400,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "x" * 300,
    "\ud800",
    "../x",
    "hf-hub:x/y",
    [],
    ["a", "a"],
    ["../b"],
    ["b\0"],
    ["\ud800"],
    ["x" * 300],
    [1, 2],
    [0.5, 0.5, float("nan")],
    [[]],
    {},
    {"a": 1},
    {"size": 10**9},
]


@pytest.fixture
def copy(export, tmp_path) -> Path:
    """An export that a test may spoil; weights are replaced, not written over."""
    out = tmp_path / "copy"
    out.mkdir()
    shutil.copy(export / "config.json", out)
    os.link(export / "model.safetensors", out / "model.safetensors")
    return out


@pytest.fixture
def no_network(monkeypatch):
    """No network is built."""
    monkeypatch.setattr(network, "new_learner", lambda *args: pytest.fail("a network was built"))


def rewrite(out: Path, **changes):
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def put(out: Path, weights: bytes | dict):
    """Put weights into an export, described as its own."""
    file = out / "model.safetensors"
    file.unlink()
    if isinstance(weights, dict):
        save_file(weights, file)
    else:
        file.write_bytes(weights)
    rewrite(out, hashes={file.name: sha256_of(file)})


NEEDED = ["name", "library", "weights", "mean", "std", "vocab", "size", "resize", "width"]
NEEDED += ["depth", "dropout", "pool", "temperature", "versions", "hashes"]
OPTIONAL = [
    "unfreeze_from",
    "bodies",
    "precision",
    "max_size",
    "stages",
    "format",
    "artists",
]  # not in older exports


class Built(Exception):
    """A network would be built now."""


@pytest.fixture
def built(monkeypatch) -> list[dict]:
    """The settings that a network was to be built for; each time, `Built` is raised."""
    settings: list[dict] = []

    def build(dls, config):
        settings.append(config)
        raise Built

    monkeypatch.setattr(network, "new_learner", build)
    return settings


@pytest.mark.parametrize("name", NEEDED + OPTIONAL)
def test_settings_of_other_kinds_and_ranges_are_refused(copy, name, built):
    for value in VALUES:
        rewrite(copy, **{name: value})
        with pytest.raises((InputError, Built)) as found:
            artclf.load(copy)
        if isinstance(found.value, InputError):
            assert str(copy) in str(found.value) and len(str(found.value)) < 700
    allowed = {
        "depth": [0],
        "dropout": [0, 0.5],
        "temperature": [0.5],
        "unfreeze_from": [0],
        "mean": [],
        "weights": ["random"] * 6,  # the words for where they are from, which nothing looks up
        "bodies": [[]],
        "artists": [[]],
    }
    assert [config[name] for config in built] == allowed.get(name, [])


@pytest.mark.parametrize("name", NEEDED)
def test_a_setting_that_is_missing_is_named(copy, name, no_network):
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    del config[name]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=rf"config\.json is not .*'{name}' is missing"):
        artclf.load(copy)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_settings_raise_nothing_else(copy, seed, built):
    """Bytes changed, removed or doubled at random."""
    chance = random.Random(seed)
    content = bytearray((copy / "config.json").read_bytes())
    for _ in range(chance.choice([1, 3, 30])):
        place = chance.randrange(len(content))
        kind = chance.randrange(3)
        if kind == 0:
            content[place] = chance.randrange(256)
        elif kind == 1:
            del content[place : place + chance.randrange(1, 40)]
        else:
            content[place:place] = content[place : place + chance.randrange(1, 40)]
    (copy / "config.json").write_bytes(content)
    with pytest.raises((InputError, Built)):
        artclf.load(copy)


def test_text_without_end_is_refused(copy, no_network):
    for text in ("[" * 200_000, '{"a":' * 200_000, '{"size": ' + "9" * 5000 + "}"):
        (copy / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"config\.json is not"):
            artclf.load(copy)
    with (copy / "config.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=rf"more than {MOST_BYTES} bytes"):
        artclf.load(copy)


@pytest.mark.parametrize("changes", [{"format": FORMAT + 1}, {"stages": stages.VERSION + 1}])
def test_a_newer_export_asks_for_a_newer_artclf(copy, changes, no_network):
    assert json.loads((copy / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    rewrite(copy, **changes)
    with pytest.raises(InputError, match=r"config\.json was made by a newer artclf .*: update"):
        artclf.load(copy)


def test_settings_of_the_measured_network_are_checked_too(copy, no_network):
    for measured in (3, [], {"size": 10**9}, {"temperature": None}, {"vocab": ["../x"]}):
        rewrite(copy, measured=measured)
        with pytest.raises(InputError, match=r"config\.json"):
            artclf.load(copy, measured=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 20, "width": 65_536},
        {"depth": 1, "width": 65_536},
        {"vocab": [f"{number}" for number in range(10_000)]},
        {"artists": [f"{number}" for number in range(10_000)]},
        {"name": "vit_giant_patch14_dinov2", "library": "timm"},
        {"name": "regnet_y_128gf", "library": "torchvision"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_no_network_is_built_that_the_weights_are_too_few_for(copy, changes, no_network):
    rewrite(copy, **changes)
    with pytest.raises(InputError, match="copy holds another network than its config"):
        artclf.load(copy)


def test_a_large_size_costs_no_network_of_that_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(network, "Body", lambda net, pool, size, *args: sizes.append(size))
    network.new_body(backbones.find("resnet18", pretrained=False), size=4096)
    network.new_body(backbones.find("resnet18", pretrained=False), size=96)
    assert sizes == [512, 96]
    with pytest.raises(InputError, match="made for one size, and gets 2800 px"):
        network.new_body(backbones.find("vit_tiny_patch16_224", pretrained=False), size=2800)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 5_000, -1])
def test_truncated_weights_are_named(copy, kept, no_network):
    weights = (copy / "model.safetensors").read_bytes()[:kept]
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match=r"model\.safetensors is not the file that"):
        artclf.load(copy)
    put(copy, weights)  # by somebody who changes the hash, too
    with pytest.raises(InputError, match=r"model\.safetensors is no file of weights"):
        artclf.load(copy)


@pytest.mark.parametrize("seed", range(20))
def test_weights_with_a_damaged_head_raise_nothing_else(copy, seed, built):
    chance = random.Random(seed)
    content = bytearray((copy / "model.safetensors").read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        content[chance.randrange(2000)] = chance.randrange(256)
    put(copy, bytes(content))
    with pytest.raises((InputError, Built)):
        artclf.load(copy)


def test_weights_that_are_no_numbers_are_refused(copy, no_network):
    tensors = load_file(copy / "model.safetensors")
    for value in (float("nan"), float("inf")):
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        damaged = tensors[name].clone()
        damaged.view(-1)[-1] = value
        put(copy, {**tensors, name: damaged})
        with pytest.raises(InputError, match=rf"weights that are no numbers \({name}\)"):
            artclf.load(copy)


def test_weights_of_other_shapes_and_names_are_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    last = next(name for name in reversed(list(tensors)) if tensors[name].ndim == 4)
    without = {name: tensor for name, tensor in tensors.items() if name != last}
    for changed in (
        without,
        {**tensors, "one.more": torch.zeros(3)},
        {**tensors, last: tensors[last][:, :, :1, :1].repeat(1, 1, 2, 2)},
        {"a": torch.zeros(2)},
    ):
        put(copy, changed)
        with pytest.raises(InputError, match="holds another network"):
            artclf.load(copy)


def test_sizes_are_counted_without_memory():
    for name in ("resnet18", "efficientnet_lite0", "vit_tiny_patch16_224"):
        backbone = backbones.find(name, pretrained=False)
        body = backbones.body(backbone)
        expected = sum(parameter.numel() for parameter in body.parameters())
        assert backbones.count_parameters(backbone) == pytest.approx(expected, rel=0.01)
    assert exports.SMALL > 0
