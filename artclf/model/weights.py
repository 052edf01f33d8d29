"""Weights from a file of the user's: a safetensors file or a state dict, read without running code
that is in it, and matched to the names of a network.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from artclf.base.errors import InputError

NAMED = 4  # tensors that an error names, of those that don't fit
WRAPPERS = ("state_dict", "model")  # what training scripts keep a state dict under
# tables of positions, which timm brings to another size of the pictures
POSITIONS = ("pos_embed", "relative_position_bias_table")


def read(file) -> dict[str, torch.Tensor]:
    """The tensors in `file` by name, on the CPU.

    Raises FileNotFoundError where there is no file, InputError for one that holds anything but
    tensors by name.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no file of weights at {file}")
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{file} can't be read as weights ({reason}): take a .safetensors file, or what "
            "torch.save(model.state_dict(), file) writes"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(map(_is_tensor, content.values())):
        raise InputError(
            f"{file} holds no tensors by name: take a .safetensors file, or what "
            "torch.save(model.state_dict(), file) writes"
        )
    return content


def _is_tensor(value) -> bool:
    return isinstance(value, torch.Tensor)


def match(file, expected: dict[str, torch.Tensor], heads: tuple[str, ...]) -> dict:
    """The tensors in `file` under the names of `expected`, without those of the `heads`.

    A prefix that all names in the file have, such as `module.` or `backbone.`, is taken off. Tables
    of positions may have another shape. Raises InputError, which names the first tensors, where
    tensors are missing, of another shape, or unknown.
    """
    found = _without_prefix(read(file), expected)
    found = {
        name: tensor
        for name, tensor in found.items()
        if name in expected or not _is_of(name, heads)
    }
    # counters that files of old versions of torch lack, and that nothing is computed from
    wanted = {name for name in expected if not name.endswith("num_batches_tracked")}
    problems = {
        "lacks": sorted(wanted - found.keys()),
        "has too many": sorted(found.keys() - expected.keys()),
        "has in another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in found.items()
            if name in expected and not _fits(name, tensor, expected[name])
        ],
    }
    told = []
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            told.append(f"{problem} {', '.join(names[:NAMED])}{more}")
    if told:
        raise InputError(f"{file} holds weights of another network: it {'; it '.join(told)}")
    return found


def _without_prefix(tensors: dict, expected: dict) -> dict:
    """The tensors without the words before a dot that all their names begin with."""
    while True:
        [first, *others] = {name.partition(".")[0] for name in tensors}
        is_prefix = not others and all("." in name for name in tensors)
        if not is_prefix or any(name.startswith(f"{first}.") for name in expected):
            return tensors
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _fits(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> bool:
    if name.endswith(POSITIONS):
        return tensor.shape[-1] == expected.shape[-1]
    return tensor.shape == expected.shape
