"""Features: equal to what a fastai learner's body gives, computed once, whole after a kill."""
import sqlite3

import numpy as np
import pytest
import torch
from PIL import Image

from artclf import backbones, features
from artclf.catalogue import clean_path, read_catalogue

LITE = "efficientnet_lite0"


@pytest.fixture
def rows(drawn, no_workers):
    return read_catalogue(drawn).query("clean_status == 'ok'").iloc[:6]


@pytest.fixture
def fresh(drawn):
    """The drawn data set without stored features."""
    (drawn / "features.db").unlink(missing_ok=True)
    return drawn


def by_hand(data, rows, body, size, change=lambda x: x):
    """The feature maps from torch alone, image by image."""
    stats = torch.tensor(.5)
    with torch.no_grad():
        pictures = [Image.open(data / clean_path(row)).resize((size, size), Image.Resampling.BILINEAR)
                    for row in rows.to_dict("records")]
        x = torch.stack([torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255 for picture in pictures])
        return body(change((x - stats) / stats))


def test_features_are_what_the_learners_body_sees(fresh, rows):
    dls = backbones.loaders([fresh / clean_path(row) for row in rows.to_dict("records")], [False] * 5 + [True],
                            {"vocab": sorted(rows.period.unique()), "size": 64, "resize": "squish",
                             "mean": (.5,) * 3, "std": (.5,) * 3, "batch_size": 2})
    learn = backbones.new_learner(dls, {"name": LITE, "library": "wheel", "weights": "w", "dropout": 0., "width": 8,
                                        "depth": 1})
    body = learn.model[0].cpu().eval()
    found = features.extract(fresh, rows, LITE, size=64)
    assert found.shape == (6, 1280) and found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(fresh, rows, body, 64).mean((2, 3)), atol=2e-4)
    mirrored = features.extract(fresh, rows, LITE, size=64, mirror=True)
    np.testing.assert_allclose(mirrored, by_hand(fresh, rows, body, 64, lambda x: x.flip(-1)).mean((2, 3)), atol=2e-4)
    tiles = features.extract(fresh, rows, LITE, size=128, tiles=True)
    maps = by_hand(fresh, rows, body, 128)
    assert tiles.shape == (6, 10, 1280) and maps.shape[2:] == (4, 4)
    np.testing.assert_allclose(tiles[:, 0], maps.mean((2, 3)), atol=2e-4)
    np.testing.assert_allclose(tiles[:, 6], maps[:, :, 1:3, 2:4].mean((2, 3)), atol=2e-4)


def test_what_is_known_is_not_computed_again(fresh, rows, monkeypatch):
    first = features.extract(fresh, rows.iloc[:4], LITE, size=64)
    seen, look = [], features._Eye.pixels
    monkeypatch.setattr(features._Eye, "pixels", lambda self, file: seen.append(file) or look(self, file))
    both = features.extract(fresh, rows.iloc[::-1], LITE, size=64)
    assert len(seen) == 2 and (both[::-1][:4] == first).all()
    features.extract(fresh, rows, LITE, size=96)
    assert len(seen) == 8  # another size, other numbers


def test_a_killed_run_keeps_whole_batches(fresh, rows, monkeypatch):
    look = features._Eye.pixels

    def dies(self, file):
        if file.name == last: raise KeyboardInterrupt
        return look(self, file)

    last = clean_path(rows.to_dict("records")[-1]).rsplit("/", 1)[-1]
    steps = features.ahead
    monkeypatch.setattr(features, "ahead", lambda function, items, _: steps(function, items, 2))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(features._Eye, "pixels", dies)
        features.extract(fresh, rows, LITE, size=64)
    with sqlite3.connect(fresh / "features.db") as db:
        assert db.execute("SELECT count(*), min(length(value)) FROM features").fetchone() == (4, 4 * 1280)
    assert features.extract(fresh, rows, LITE, size=64).shape == (6, 1280)


def test_other_weights_give_other_numbers(fresh, rows, monkeypatch):
    ours, real = features.extract(fresh, rows, LITE, size=64), backbones.body

    def shifted(backbone):
        net = real(backbone)
        with torch.no_grad(): net.model.conv_head.weight.mul_(2)
        return net

    monkeypatch.setattr(backbones, "body", shifted)
    assert not np.allclose(ours, features.extract(fresh, rows, LITE, size=64))


def test_what_cannot_be_had_is_said(fresh, rows, monkeypatch):
    with pytest.raises(ConnectionError, match="--arch auto"): features.extract(fresh, rows, "resnet18")
    with pytest.raises(FileNotFoundError, match="lost.jpg is gone: run `artclf clean"):
        features.extract(fresh, rows.assign(file="raw/x/lost.png"), LITE, size=64)
    monkeypatch.setattr(backbones, "body", lambda backbone: torch.nn.Flatten())
    with pytest.raises(ValueError, match="convolutional"): features.extract(fresh, rows, LITE, size=64)


@pytest.mark.parametrize("number", [0, 1, 63, 64, 65, 129])
def test_ahead_keeps_the_order(number):
    batches = list(features.ahead(lambda x: x * 2, range(number), 64))
    assert [x for _, batch in batches for x in batch] == [2 * i for i in range(number)]
    assert [start for start, _ in batches] == list(range(0, number, 64))
