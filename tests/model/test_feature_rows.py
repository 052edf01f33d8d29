"""Feature rows: from the store they are those in memory, and a head learns the same from them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from artclf import train
from artclf.data.catalogue import clean_path, read_catalogue
from artclf.model import backbones, feature_rows, features, heads, network, store

ROOT = Path(__file__).resolve().parents[2]
LITE = "efficientnet_lite0"
CONFIG = {"arch": LITE, "size": 64, "resize": "squish", "precision": "float32"}


@pytest.fixture
def pictures(fresh, no_workers):
    rows = read_catalogue(fresh).query("clean_status == 'ok'").iloc[:5]
    table = rows.assign(file=[clean_path(row) for row in rows.to_dict("records")])
    copies = pd.concat([table, table.iloc[:2]])  # the same bytes twice
    return features.pictures_of(fresh, copies, CONFIG)


@pytest.fixture
def body():
    return network.new_body(backbones.find(LITE), size=64)


@pytest.fixture
def config():
    from dataclasses import asdict

    return {**CONFIG, **asdict(backbones.find(LITE))}


@pytest.mark.parametrize("room", [None, 0])  # in the store; none, so that all is computed again
def test_rows_of_the_store_are_those_in_memory(pictures, body, config, room, monkeypatch):
    monkeypatch.setattr(feature_rows, "PICTURES_PER_READ", 3)
    if room is not None:
        monkeypatch.setattr(store, "LIMIT", room)
    views = (1, 0)
    in_memory = feature_rows.rows_of(pictures, body, config, views)
    monkeypatch.setattr(feature_rows, "IN_MEMORY", 0)
    stored = feature_rows.rows_of(pictures, body, config, views)
    kinds = (feature_rows.RowsInMemory, feature_rows.StoredRows)
    assert (type(in_memory), type(stored)) == kinds
    assert len(in_memory) == len(stored) == 14
    places = [13, 0, 5, 5, 8]
    assert torch.equal(in_memory[places], stored[places])
    assert torch.equal(torch.cat(list(in_memory.chunks())), torch.cat(list(stored.chunks())))
    torch.testing.assert_close(in_memory.mean, stored.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_memory.var, stored.var, rtol=1e-4, atol=1e-6)


def test_rows_go_to_the_store_from_the_limit_on(pictures, body, config, monkeypatch):
    taken = 2 * len(pictures.hashes) * body.n_features * 4
    for limit, kind in ((taken, "RowsInMemory"), (taken - 1, "StoredRows")):
        monkeypatch.setattr(feature_rows, "IN_MEMORY", limit)
        found = feature_rows.rows_of(pictures, body, config, (0, 1))
        assert type(found).__name__ == kind


@pytest.mark.parametrize("balance", [True, False])
def test_the_minimum_is_the_same(pictures, body, config, balance, monkeypatch):
    monkeypatch.setattr(feature_rows, "PICTURES_PER_READ", 5)
    monkeypatch.setattr(heads, "MANY_FEATURES", 1e9)  # as where there are many pictures
    y = np.array([0, 1, 2, 0, 1, 2, 2])
    found = []
    for limit in (1e9, 0):
        monkeypatch.setattr(feature_rows, "IN_MEMORY", limit)
        rows = feature_rows.rows_of(pictures, body, config, (0, 1))
        found.append(heads.LinearHead(0.3, balance, tau=0.5).fit(rows, y))
    torch.testing.assert_close(found[0].weight_, found[1].weight_, rtol=0, atol=1e-4)
    # the solver ends where the gradient is small enough, which rounding moves
    x = torch.cat(list(rows.chunks())).numpy()
    np.testing.assert_allclose(found[0].predict_proba(x), found[1].predict_proba(x), atol=1e-3)


@pytest.mark.slow
def test_a_run_ends_with_the_same_networks(drawn, tmp_path, monkeypatch, no_workers):
    monkeypatch.setattr(heads, "MANY_FEATURES", 1e9)
    settings = {"arch": LITE, "size": 64, "batch_size": 8}
    for name, limit in (("memory", 1e9), ("store", 0)):
        monkeypatch.setattr(feature_rows, "IN_MEMORY", limit)
        train.fit(drawn, tmp_path / name, 2, 0, **settings)
    # the solver ends where the gradient is small enough, which rounding moves
    for file, tolerance in (("measured.safetensors", 1e-5), ("model.safetensors", 2e-3)):
        memory, stored = (load_file(tmp_path / name / file) for name in ("memory", "store"))
        assert memory.keys() == stored.keys()
        for key in memory:
            torch.testing.assert_close(memory[key], stored[key], rtol=1e-4, atol=tolerance)


# the most memory that a process had after it learned from each of some numbers of pictures, in kB
MEMORY = """
import re, sys
import numpy as np
from artclf.model import backbones, feature_rows, features, network
from artclf.model.heads import LinearHead
from dataclasses import asdict

backbone = backbones.find("efficientnet_lite0")
body = network.new_body(backbone, "last", size=64)
config = {**asdict(backbone), "size": 64, "resize": "squish", "precision": "float32"}
[(_, _, name)] = features.named_bodies(body, config)
feature_rows.IN_MEMORY = 0
for count in map(int, sys.argv[2:]):
    hashes = [f"{number:064x}" for number in range(count)]
    pictures = features.Pictures(sys.argv[1], hashes, hashes, 64)
    [key] = features.store_keys(pictures, body, name, [0]).values()
    store = features.Store(features.store_file(sys.argv[1], "features.db"))
    for start in range(0, count, 100):
        drawn = np.random.default_rng(start).normal(size=(100, body.n_features)).astype("f4")
        some = hashes[start : start + 100]
        store.write(key, dict(zip(some, (row.tobytes() for row in drawn))))
    rows = feature_rows.rows_of(pictures, body, config)
    for start in range(0, count, 32):
        rows[range(start, min(start + 32, count))]
    LinearHead().fit(rows, np.arange(count) % 3)
    del rows
    # not getrusage, which begins with what the parent process took
    status = open("/proc/self/status").read()
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path, "500", "8000"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stdout.split())
    assert many - few < 35_000  # the features of 7,500 pictures are 73,000 kB
