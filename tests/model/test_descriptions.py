"""Settings: equal objects are described alike in every process, others are not."""

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.mixup import CutMix, MixUp
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat

from artclf.model.descriptions import describe, versions


def text(value) -> str:
    return json.dumps(describe(value))


def adder(number):
    return lambda value: value + number


OBJECTS = """
from fastai.callback.mixup import MixUp
from fastai.losses import FocalLossFlat
from fastai.optimizer import Adam
objects = [MixUp(0.4), FocalLossFlat(gamma=1.5), Adam, {"b", "a", "c"}, lambda x: x in {"e", "d"}]
"""


@pytest.mark.slow
def test_a_description_is_the_same_in_every_process():
    code = "import json\nfrom artclf.model.descriptions import describe\n" + OBJECTS
    code += "print(json.dumps(describe(objects)))"
    found = set()
    for seed in "12":
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        found.add(ran.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MixUp(0.4), MixUp(0.1)),
        (MixUp(0.4), CutMix(0.4)),
        (CrossEntropyLossFlat(), CrossEntropyLossFlat(axis=1)),
        (CrossEntropyLossFlat(), CrossEntropyLossFlat(weight=torch.ones(3))),
        (FocalLossFlat(gamma=1.0), FocalLossFlat(gamma=2.0)),
        (partial(adder, 1), partial(adder, 2)),
        (adder(1), adder(2)),
        (lambda value: value + 1, lambda value: value + 2),
        (torch.ones(3), torch.zeros(3)),
        (np.ones(3), np.ones((3, 1))),
        ([1, [2, {"a": 3}]], [1, [2, {"a": 4}]]),
        (torch.float32, torch.float16),
    ],
    ids=range(12),
)
def test_other_settings_have_another_description(one, other):
    assert text(one) != text(other)
    assert text(one) == text(one)


def test_what_holds_itself_is_described():
    ring: list = [1]
    ring.append(ring)
    assert describe(ring) == [1, "itself"]


def test_the_versions_name_libraries_and_code():
    assert {"torch", "fastai", "artclf", "code"} <= versions().keys()
