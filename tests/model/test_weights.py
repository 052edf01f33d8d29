"""Weights of a file: read without running code, matched to the network, or refused in words."""

import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.model import backbones, weights

VIT = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path, no_workers):
    """No network and empty caches."""
    import huggingface_hub.constants

    monkeypatch.setenv("ARTCLF_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    backbones._say.cache_clear()


def model_of(name: str, **options):
    torch.manual_seed(len(name))
    return timm.create_model(name, **options).eval()


def body_with(file: Path, name: str, size: int | None = None):
    return backbones.body(backbones.find(name, weights=file), size, file)


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.no_grad()
def test_a_file_is_the_network_whatever_its_names_begin_with(tmp_path, prefix, suffix):
    model, x = model_of(VIT), torch.randn(1, 3, 224, 224)
    file = tmp_path / f"mine{suffix}"
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"epoch": 3, "state_dict": state}, file)
    found = backbones.find(VIT, weights=file)
    assert found.weights == f"file mine{suffix} {sha256_of(file)}" and found.library == "timm"
    torch.testing.assert_close(
        body_with(file, VIT)(x), model.forward_head(model.forward_features(x), pre_logits=True)
    )


@torch.no_grad()
def test_positions_are_brought_to_the_size_of_the_pictures_as_timm_does_it(tmp_path):
    model, x = model_of(VIT), torch.randn(1, 3, 96, 96)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    found = body_with(tmp_path / "mine.safetensors", VIT, 96)
    model.set_input_size((96, 96))
    torch.testing.assert_close(found.model.pos_embed, model.pos_embed)
    torch.testing.assert_close(found.model.forward_features(x), model.forward_features(x))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eva02_tiny_patch14_224", 56),
        pytest.param("swin_tiny_patch4_window7_224", 64, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_tables_of_positions_of_every_kind_are_those_that_timm_makes(tmp_path, name, size):
    model = model_of(name)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    state = model.state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    found = body_with(tmp_path / "mine.safetensors", name, size).model
    expected = timm.create_model(
        name, True, pretrained_cfg_overlay={"state_dict": state}, num_classes=0, img_size=size
    )
    resized = 0
    for key, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], tensor)
        resized += tensor.shape != model.state_dict()[key].shape
    assert resized


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
@torch.no_grad()
def test_torchvisions_names_are_those_of_its_whole_networks(tmp_path, name):
    torch.manual_seed(3)
    model, x = get_model(name).eval(), torch.randn(1, 3, 64, 64)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    found = body_with(tmp_path / "mine.pth", name)(x)
    maps = []
    hook = model.avgpool.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
    model(x)
    hook.remove()
    torch.testing.assert_close(found, maps[0])


@torch.no_grad()
def test_a_network_of_a_wheel_takes_a_file_of_timms_names(tmp_path):
    model, x = model_of("tf_efficientnet_lite0"), torch.randn(1, 3, 64, 64)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    found = body_with(tmp_path / "mine.safetensors", "efficientnet_lite0")
    torch.testing.assert_close(found(x), model.forward_features(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.11.norm1.weight": None, "cls_token": None}, "lacks blocks.11.norm1.weight, cls_"),
        ({"blocks.12.norm1.weight": torch.ones(192)}, "has too many blocks.12.norm1.weight"),
        ({"norm.bias": torch.ones(7)}, r"shape norm.bias \(7,\) instead of \(192,\)"),
        ({"pos_embed": torch.ones(1, 197, 7)}, r"shape pos_embed"),
        ({f"x.{i}": torch.ones(1) for i in range(9)}, "x.0, x.1, x.2, x.3 and 5 more"),
    ],
    ids=str,
)
def test_weights_of_another_network_are_refused_by_their_first_tensors(tmp_path, change, message):
    state = {**model_of(VIT).state_dict(), **change}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=f"mine.safetensors holds weights of another.*{message}"):
        body_with(tmp_path / "mine.safetensors", VIT)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap",)


def test_no_code_in_a_file_runs_and_what_holds_no_weights_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.pth"
    torch.save({"a": Trap()}, file)
    with pytest.raises(InputError, match="can't be read as weights"):
        weights.read(file)
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="can't be read as weights"):
        weights.read(file)
    assert not (tmp_path / "trap").exists()
    for content in (b"", b"no weights", b"\x08" + bytes(40)):
        for suffix in (".pth", ".safetensors"):
            other = tmp_path / f"other{suffix}"
            other.write_bytes(content)
            with pytest.raises(InputError, match=f"other{suffix} can't be read as weights"):
                weights.read(other)
    for content in ({}, [torch.ones(1)], {"a": 3}, {"state_dict": {"a": "b"}}):
        torch.save(content, file)
        with pytest.raises(InputError, match="holds no tensors by name"):
            weights.read(file)


def test_a_file_needs_its_architecture(tmp_path):
    file = tmp_path / "mine.pth"
    torch.save({"a": torch.ones(1)}, file)
    for arguments in (("auto",), ("resnet18", False)):
        with pytest.raises(InputError, match="whose weights are in .*mine.pth"):
            backbones.find(*arguments, weights=file)
    with pytest.raises(FileNotFoundError, match="no file of weights at .*none.pth"):
        backbones.find("resnet18", weights=tmp_path / "none.pth")


# Weights of the hub


def put_into_the_cache(tmp_path, name: str, file_name: str, state: dict):
    repository = timm.get_pretrained_cfg(name).hf_hub_id.replace("/", "--")
    folder = tmp_path / "hub" / f"models--{repository}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    save_file(state, folder / "snapshots" / ("a" * 40) / file_name)


@pytest.mark.parametrize("file_name", ["model.safetensors", "open_clip_model.safetensors"])
@torch.no_grad()
def test_a_transformer_of_the_cache_is_stretched_to_the_size_and_a_line_says_so(
    tmp_path, capsys, file_name
):
    model = model_of(VIT)
    put_into_the_cache(tmp_path, VIT, file_name, model.state_dict())
    found = backbones.find(VIT)
    for _ in range(2):
        net = backbones.body(found, 96)
    model.set_input_size((96, 96))
    x = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(net.model.forward_features(x), model.forward_features(x))
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{VIT} was trained on pictures of 224 px and gets 96 px")


@pytest.mark.parametrize(
    ("name", "licence", "said"),
    [
        ("resnet18", "bsd-3-clause", ""),
        ("efficientnet_lite0", "apache-2.0", ""),
        ("vit_small_patch14_dinov2", "apache-2.0", ""),
        ("convnextv2_atto", "cc-by-nc-4.0", "commercial use is forbidden"),
        ("fastvit_mci0.apple_mclip", "apple-amlr", "commercial use is forbidden"),
        ("vit_small_patch16_dinov3", "dinov3-license", "restricts their use"),
        ("vit_tiny_patch16_224", "apache-2.0", ""),
        ("res2net50_14w_8s", "unknown", "is not known: look it up"),
    ],
)
def test_a_licence_that_restricts_use_is_said_before_the_download(
    name, licence, said, monkeypatch, capsys
):
    assert backbones.licence_of(name) == licence
    monkeypatch.setattr(backbones, "has_weights", lambda name: True)
    backbones.find(name, pretrained=False)
    assert not capsys.readouterr().out
    backbones.find(name)
    told = capsys.readouterr().out
    assert said in told and bool(told) == bool(said)
