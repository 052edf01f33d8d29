"""Descriptions: one of an object that is equal for equal settings, in every process.

`keep.Resume` tells by it whether a fit is the one that was interrupted. Reads the code of artclf.
"""

import hashlib
import re
import types
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fastai.learner import Learner

from artclf.answers.exports import VERSIONS

ROOMS = ("base", "data", "model")  # what decides the weights, together with step train
CODE = Path(__file__).parents[1]


@cache
def versions() -> dict[str, str]:
    """The versions of all that a fit depends on: of libraries, and `code`, a hash of artclf's own."""
    files = [CODE / "train.py"]
    for room in ROOMS:
        files += sorted((CODE / room).glob("*.py"))
    code = b"".join(file.read_bytes() for file in files)
    return {**{name: version(name) for name in VERSIONS}, "code": _hash(code)}


def describe(value, inside: tuple = ()):
    """`value` in words and numbers that JSON takes: what it is, and what is in it, all the way down.

    Learners, generators of random numbers and open files are named, not described. `inside` are the
    objects that hold `value`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if any(value is other for other in inside):
        return "itself"
    holders = (*inside, value)
    if isinstance(value, dict):
        return {str(key): describe(item, holders) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(repr(describe(item, holders)) for item in value)
    if isinstance(value, list | tuple):
        return [describe(item, holders) for item in value]
    if isinstance(value, bytes):
        return _hash(value)
    if isinstance(value, torch.Tensor):
        return describe(value.detach().cpu().as_subclass(torch.Tensor).float().numpy())
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [str(value.dtype), list(value.shape), _hash(value.tobytes())]
    if isinstance(value, partial):
        return ["partial", describe([value.func, value.args, value.keywords], holders)]
    if isinstance(value, types.MethodType):
        return describe([value.__func__, value.__self__], holders)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = [value.__defaults__, value.__kwdefaults__]
        return [_name(value), _code(value.__code__), describe([*cells, *defaults], holders)]
    if isinstance(value, type):
        functions = [item for item in vars(value).values() if isinstance(item, types.FunctionType)]
        return [_name(value), [_code(function.__code__) for function in functions]]
    if hasattr(value, "__dict__") and not isinstance(value, Learner | types.ModuleType):
        attributes = {name: item for name, item in vars(value).items() if name != "learn"}
        return [describe(type(value)), describe(attributes, holders)]
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))  # without the place in memory


def _name(value) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _code(code: types.CodeType) -> str:
    """A hash of what a function does, wherever its lines stand."""
    constants = []
    for constant in code.co_consts:
        is_code = isinstance(constant, types.CodeType)
        constants.append(_code(constant) if is_code else describe(constant))
    return _hash(repr((code.co_code, code.co_names, constants)).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
