"""Features: equal to what a fastai learner's body gives, computed once, whole after a kill."""

import platform
import sqlite3
import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from artclf.data.catalogue import clean_path, read_catalogue
from artclf.model import backbones, feature_batches, features, network
from artclf.model.pixels import Pictures, view_of

LITE = "efficientnet_lite0"


@pytest.fixture
def rows(drawn, no_workers):
    return read_catalogue(drawn).query("clean_status == 'ok'").iloc[:6]


def by_hand(data, rows, body, size, change=lambda x: x):
    """The feature maps from torch alone, image by image."""
    stats = torch.tensor(0.5)
    with torch.no_grad():
        pictures = [
            Image.open(data / clean_path(row)).resize((size, size), Image.Resampling.BILINEAR)
            for row in rows.to_dict("records")
        ]
        x = torch.stack(
            [torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255 for picture in pictures]
        )
        return body(change((x - stats) / stats))


def table_of(rows):
    return rows.assign(file=[clean_path(row) for row in rows.to_dict("records")])


def test_features_are_what_the_body_sees(fresh, rows):
    body = backbones.body(backbones.find(LITE))
    found = features.extract(fresh, rows, LITE, size=64)
    assert found.shape == (6, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(fresh, rows, body, 64).mean((2, 3)), atol=2e-4)
    mirrored = features.extract(fresh, rows, LITE, size=64, mirror=True)
    np.testing.assert_allclose(
        mirrored, by_hand(fresh, rows, body, 64, lambda x: x.flip(-1)).mean((2, 3)), atol=2e-4
    )


def seen_by(monkeypatch) -> list:
    """The files that are decoded from now on."""
    seen, look = [], Pictures._decode
    monkeypatch.setattr(
        Pictures, "_decode", lambda self, file: seen.append(file) or look(self, file)
    )
    return seen


def test_what_is_known_is_not_computed_again_and_no_picture_decoded_twice(fresh, rows, monkeypatch):
    first, seen = features.extract(fresh, rows.iloc[:4], LITE, size=64), seen_by(monkeypatch)
    both = features.extract(fresh, rows.iloc[::-1], LITE, size=64)
    assert len(seen) == 2 and (both[::-1][:4] == first).all()
    features.extract(fresh, rows, LITE, size=64, mirror=True)
    assert len(seen) == 2
    features.extract(fresh, rows, LITE, size=96)
    assert len(seen) == 8  # another size, other pixels


def test_a_killed_run_keeps_whole_batches(fresh, rows, monkeypatch):
    look = Pictures._decode

    def dies(self, file):
        if file.name == last:
            raise KeyboardInterrupt
        return look(self, file)

    last = clean_path(rows.to_dict("records")[-1]).rsplit("/", 1)[-1]
    monkeypatch.setattr(feature_batches, "BATCH", 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Pictures, "_decode", dies)
        features.extract(fresh, rows, LITE, size=64)
    with sqlite3.connect(fresh / "features.db") as db:
        lengths = db.execute("SELECT length(value) FROM entries").fetchall()
    body = network.Body(backbones.body(backbones.find(LITE)), size=64)
    assert lengths == [(4 * body.n_features,)] * 4
    seen = seen_by(monkeypatch)
    assert features.extract(fresh, rows, LITE, size=64).shape == (6, 1280)
    assert [file.relative_to(fresh).as_posix() for file in seen] == table_of(rows).file[4:].tolist()


def test_views_are_the_picture_its_mirror_image_and_crops_that_never_change(fresh, rows):
    table, body = table_of(rows), torch.nn.Flatten()
    body.weight = torch.nn.Parameter(torch.zeros(1))
    pictures = Pictures(fresh, table.file, table.clean_sha256, 16)
    grey = backbones.Backbone("pixels", "none", "none", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    plain, mirror, one, other = (
        features.feature_views(pictures, body, grey, "pixels", range(4))
        .reshape(6, 4, 3, 16, 16)
        .transpose(1, 0, 2, 3, 4)
    )
    assert (mirror == plain[..., ::-1]).all() and not np.allclose(one, other)
    np.testing.assert_allclose(plain, pictures.pixels(range(6)) / 255)
    again = view_of(pictures.pixels([5, 2]), [pictures.hashes[5], pictures.hashes[2]], 2)
    np.testing.assert_allclose(again / 255, one[[5, 2]])  # whatever else is in the batch


def test_a_picture_that_lacks_a_view_is_completed_and_copies_of_it_have_a_row_each(fresh, rows):
    table = table_of(rows.iloc[[0, 1, 0]])
    body = torch.nn.Flatten()
    body.weight = torch.nn.Parameter(torch.zeros(1))
    grey = backbones.Backbone("pixels", "none", "none", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    first = Pictures(fresh, table.file[:1], table.clean_sha256[:1], 16)
    features.feature_views(first, body, grey, "pixels", [0])
    pictures = Pictures(fresh, table.file, table.clean_sha256, 16)
    found = features.feature_views(pictures, body, grey, "pixels", [0, 1])
    plain = pictures.pixels([0, 1, 0]).float() / 255
    expected = torch.stack([plain, plain.flip(-1)], 1).flatten(2)
    np.testing.assert_allclose(found, expected)


def test_features_do_not_depend_on_what_was_stored_before(fresh, rows):
    some = features.extract(fresh, rows.iloc[::3], LITE, size=64)
    rest = features.extract(fresh, rows, LITE, size=64)
    assert (rest[::3] == some).all()
    (fresh / "features.db").unlink()
    assert (features.extract(fresh, rows, LITE, size=64) == rest).all()


def test_pictures_that_find_no_room_are_decoded_each_time(fresh, rows, monkeypatch):
    monkeypatch.setattr("artclf.model.store.LIMIT", 0)
    (fresh / "pixels.db").unlink(missing_ok=True)
    table, seen = table_of(rows), seen_by(monkeypatch)
    pictures = Pictures(fresh, table.file, table.clean_sha256, 32)
    assert (pictures.pixels([0, 1]) == pictures.pixels([0, 1])).all() and len(seen) == 4


def test_other_weights_give_other_numbers(fresh, rows, monkeypatch):
    ours, real = features.extract(fresh, rows, LITE, size=64), backbones.body

    def shifted(backbone, size, weights):
        net = real(backbone, size, weights)
        with torch.no_grad():
            net.model.conv_head.weight.mul_(2)
        return net

    monkeypatch.setattr(backbones, "body", shifted)
    assert not np.allclose(ours, features.extract(fresh, rows, LITE, size=64))


def test_what_cannot_be_had_is_said(fresh, rows, monkeypatch):
    with pytest.raises(ConnectionError, match="--arch auto"):
        features.extract(fresh, rows, "resnet18")
    with pytest.raises(FileNotFoundError, match="lost.jpg is gone: run `artclf clean"):
        features.extract(fresh, rows.assign(file="raw/x/lost.png"), LITE, size=64)


@pytest.mark.parametrize("name", ["test_vit", "swin"])
def test_the_maps_of_transformers_are_their_tokens(fresh, rows, monkeypatch, name):
    """The mean of each channel over the places, without the class token."""
    torch.manual_seed(0)
    name = {"swin": "swin_tiny_patch4_window7_224"}.get(name, name)
    taken = backbones.find(name, pretrained=False)
    net = backbones.body(taken, 64)
    model = deepcopy(net.model)
    monkeypatch.setattr(backbones, "find", lambda arch: taken)
    monkeypatch.setattr(backbones, "body", lambda backbone, size, weights: net)
    found = features.extract(fresh, rows, name, size=64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (taken.mean, taken.std))
    last = by_hand(fresh, rows, model.forward_features, 64, lambda x: (x / 2 + 0.5 - mean) / std)
    places = last[:, model.num_prefix_tokens :] if last.ndim == 3 else last.flatten(1, 2)
    np.testing.assert_allclose(found, places.mean(1), atol=2e-3)


def test_a_body_without_maps_gives_its_features_as_they_are(fresh, rows, monkeypatch):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 2))
    monkeypatch.setattr(backbones, "body", lambda backbone, size, weights: flat)
    found = features.extract(fresh, rows, LITE, size=64)
    np.testing.assert_allclose(found, by_hand(fresh, rows, flat, 64), atol=1e-3)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="memory is kept and given back by glibc alone"
)
def test_memory_is_kept_when_freed_and_given_back_when_asked():
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from artclf.base import machine\n"
        "def resident():\n"
        "    pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
        "    return pages * os.sysconf('SC_PAGE_SIZE') // 10**6\n"
        "machine.keep_freed_memory()\n"
        "before = resident()\n"
        "held = [bytes([1]) * 10**6 for _ in range(300)]\n"
        "last = bytes(10**6)\n"
        "del held\n"
        "kept = resident()\n"
        "machine.keep_freed_memory()\n"
        "print(kept - before, resident() - before)"
    )
    kept, after = map(
        int,
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split(),
    )
    assert kept > 250 and after < 50
