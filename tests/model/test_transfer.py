"""Style transfer: Gram matrices and losses worked out by numpy, and pictures that come nearer to a
style.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from artclf.base.errors import InputError, SettingError, StepError
from artclf.model import transfer

SIZE = 64


@pytest.fixture(scope="module")
def stages():
    return transfer.Stages("efficientnet_lite0")


def stripes(width=80, height=60, period=8, colour=(200, 60, 30)) -> Image.Image:
    """Stripes of a colour on a dark ground."""
    rows = np.zeros((height, width, 3), np.uint8)
    rows[(np.arange(height) // (period // 2)) % 2 == 0] = colour
    return Image.fromarray(rows)


def ramp(width=80, height=60) -> Image.Image:
    """Grey that grows from left to right."""
    line = np.linspace(0, 255, width).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(line, (height, 1))[..., None], 3, axis=2))


def test_a_gram_matrix_is_numpys_product_of_channels():
    maps = torch.randn(1, 5, 4, 3)
    flat = maps[0].reshape(5, 12).numpy()
    assert transfer.gram(maps).numpy() == pytest.approx(flat @ flat.T / 12, abs=1e-5)


def test_a_style_is_the_mean_over_pictures_and_mixing_weights_it(stages):
    one = transfer.style_of([stripes()], stages, SIZE)
    two = transfer.style_of([ramp()], stages, SIZE)
    both = transfer.style_of([stripes(), ramp()], stages, SIZE)
    assert both.pictures == 2 and len(both.grams) == len(stages.stages)
    mixed = transfer.mixed([one, two], [3, 3])
    quarter = transfer.mixed([one, two], [3, 1])
    for first, second, mean, half, weighted in zip(
        one.grams, two.grams, both.grams, mixed.grams, quarter.grams, strict=True
    ):
        assert mean.numpy() == pytest.approx(((first + second) / 2).numpy(), rel=1e-4, abs=1e-6)
        assert torch.allclose(half, mean, rtol=1e-4, atol=1e-6)
        assert torch.allclose(weighted, 0.75 * first + 0.25 * second, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="no picture"):
        transfer.style_of([], stages)
    for weights in ([1], [1, -1], [0, 0]):
        with pytest.raises(InputError, match="weights"):
            transfer.mixed([one, two], weights)


def test_losses_are_shares_of_what_is_wanted(stages):
    style = transfer.style_of([stripes()], stages, SIZE)
    own = stages(transfer.pixels_of(stripes(), SIZE))
    assert float(transfer.style_loss(own, style)) == pytest.approx(0, abs=1e-8)
    shares = []
    other = stages(transfer.pixels_of(ramp(), SIZE))
    for maps, wanted in zip(other, style.grams, strict=True):
        flat = maps[0].flatten(1).numpy()
        distance = np.square(flat @ flat.T / flat.shape[1] - wanted.numpy()).sum()
        shares.append(distance / np.square(wanted.numpy()).sum())
    assert float(transfer.style_loss(other, style)) == pytest.approx(np.mean(shares), rel=1e-4)
    wanted = torch.tensor([1.0, 2.0, 2.0])
    assert float(transfer.content_loss(torch.zeros(3), wanted)) == pytest.approx(1)
    assert float(transfer.content_loss(wanted, wanted)) == 0
    step = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    assert float(transfer.total_variation(step)) == pytest.approx(1)


def test_maps_are_those_before_a_pooling_and_poolings_take_the_mean():
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    stage = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(2, 2))
    x = torch.randn(1, 3, 8, 6)
    passed, maps = transfer._through(stage, x)
    assert torch.equal(maps, convolution(x).relu()) and passed.shape == (1, 4, 4, 3)
    assert torch.allclose(passed, maps.unflatten(2, (4, 2)).unflatten(4, (3, 2)).mean((3, 5)))
    _, unpooled = transfer._through(convolution, x)
    assert torch.equal(unpooled, convolution(x))


@pytest.mark.parametrize("optimizer", transfer.OPTIMIZERS)
def test_a_picture_comes_nearer_to_the_style_and_keeps_its_form(stages, optimizer):
    style = transfer.style_of([stripes()], stages, SIZE)
    before = float(transfer.style_loss(stages(transfer.pixels_of(ramp(), SIZE)), style))
    seen = []

    def note(step, pixels):
        seen.append((step, pixels.shape[2:]))

    painted, losses = transfer.restyle(
        ramp(), style, stages, SIZE, 100, 1, 15, optimizer, levels=2, on_step=note
    )
    assert losses["style"] < 0.8 * before and painted.size == (64, 48)
    assert [step for step, _ in seen] == list(range(1, 31))
    assert seen[0][1] == (32, 32) and seen[-1][1] == (48, 64)
    expected = losses["content"] + 100 * losses["style"] + losses["variation"]
    assert losses["total"] == pytest.approx(expected, rel=1e-4)


def test_without_style_the_content_stays_and_colours_can_be_kept(stages):
    style = transfer.style_of([stripes()], stages, SIZE)
    same, losses = transfer.restyle(ramp(), style, stages, SIZE, 0, 0, 2, levels=1)
    given = transfer.picture_of(transfer.pixels_of(ramp(), SIZE))
    assert np.abs(np.asarray(same, int) - np.asarray(given, int)).max() <= 1
    assert losses["content"] == pytest.approx(0, abs=1e-4)
    grey, _ = transfer.restyle(ramp(), style, stages, SIZE, 100, 0, 4, levels=1, keep_colours=True)
    channels = np.asarray(grey, int)
    assert np.ptp(channels, axis=2).max() <= 3
    lightness = np.asarray(transfer.with_colours_of(stripes(), ramp()).convert("L"), int)
    assert np.abs(lightness - np.asarray(stripes().convert("L"), int)).max() <= 60


def test_thin_grey_and_tiny_pictures_are_painted_and_wrong_settings_named(stages):
    style = transfer.style_of([Image.new("L", (9, 300), 90)], stages, SIZE)
    painted, _ = transfer.restyle(
        Image.new("L", (3, 900), 40), style, stages, SIZE, steps=1, levels=1
    )
    assert painted.mode == "RGB" and painted.size == (transfer.SMALLEST, SIZE)
    for wrong in (
        {"optimizer": "sgd"},
        {"content_stage": 99},
        {"size": 2},
        {"steps": 0},
        {"style_weight": float("nan")},
    ):
        with pytest.raises(SettingError):
            transfer.restyle(ramp(), style, stages, **wrong)
    broken = transfer.Style(tuple(gram * float("nan") for gram in style.grams))
    with pytest.raises(StepError, match="not finite"):
        transfer.restyle(ramp(), broken, stages, SIZE, steps=1)


def test_a_network_without_maps_is_refused(monkeypatch):
    monkeypatch.setattr(transfer.network, "new_body", lambda *_, **__: nn.Identity())
    monkeypatch.setattr(nn.Identity, "stages", [nn.Identity()], raising=False)
    with pytest.raises(InputError, match="no stages of maps"):
        transfer.Stages("efficientnet_lite0")


def test_colour_transfer_gives_the_mean_and_covariance_of_the_others():
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(90, 160, (40, 50, 3)).astype(np.uint8))
    others = [Image.fromarray((rng.random((30, 30, 3)) * [90, 40, 60] + 80).astype(np.uint8))]
    moved = transfer.with_statistics_of(picture, others)
    found = np.asarray(moved, float).reshape(-1, 3)
    wanted = np.asarray(others[0], float).reshape(-1, 3)
    assert moved.size == picture.size
    assert found.mean(0) == pytest.approx(wanted.mean(0), abs=1.5)
    assert np.cov(found.T) == pytest.approx(np.cov(wanted.T), rel=0.1, abs=15)
