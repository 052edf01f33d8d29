"""Style vectors: a decoder that gives paintings back, and averages where it doesn't know them."""

import numpy as np
import pandas as pd
import pytest
import torch

from artclf.base.errors import SettingError, StepError
from artclf.data.catalogue import read_catalogue
from artclf.lab import style_vectors


def drawn_rows(counts=(12, 12, 1), size=16):
    """Rows and pixels of periods of a colour each, over which every picture has patches."""
    rows = pd.DataFrame({"place": np.repeat(range(len(counts)), counts)})
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(len(rows), 1, 4, 4, generator=generator)
    pixels = torch.nn.functional.interpolate(patches, size, mode="nearest").repeat(1, 3, 1, 1)
    for number, place in enumerate(rows.place):
        pixels[number, place % 3] = 0.5
    return rows, pixels


@pytest.fixture(scope="module")
def learned(no_workers):
    rows, pixels = drawn_rows()
    model, losses = style_vectors.learn(rows, pixels, 150)
    return rows, pixels, losses, style_vectors.painted(model, rows, pixels)


def test_paintings_come_back_and_a_period_alone_is_near_its_mean(learned):
    rows, pixels, losses, shown = learned
    assert len(losses) == 150 and losses[-1] < 0.1 * losses[0]
    table = style_vectors.measure(shown, rows)
    assert table.distance["style alone"] < 0.6 * table.distance["paintings"]
    assert table.variance["style alone"] < 0.6 < table.variance["painted again"]
    again = (shown["painted again"] - pixels).square().mean()
    assert float(again) == pytest.approx(losses[-1], rel=0.5)


def test_figures_are_those_worked_out_by_numpy(learned):
    rows, pixels, _, shown = learned
    table = style_vectors.measure(shown, rows)
    x = 255 * pixels.numpy().astype(float)
    distances, variances = [], []
    for place in range(3):
        of_period = x[rows.place == place]
        mean = of_period.mean(0)
        assert 255 * shown["mean picture"][place].numpy() == pytest.approx(mean, abs=1e-3)
        distances.append(np.sqrt(np.square(of_period - mean).mean((1, 2, 3))).mean())
        variances.append(of_period.var((2, 3)).mean())
    assert table.distance["paintings"] == pytest.approx(np.mean(distances), rel=1e-4)
    assert table.variance["paintings"] == 1 and table.distance["mean picture"] == 0
    means = 255 * shown["mean picture"].numpy().astype(float)
    share = means.var((2, 3)).mean() / np.mean(variances)
    assert table.variance["mean picture"] == pytest.approx(share, rel=1e-4)
    # the style is that of the period after, and the figures are by that period
    other = 255 * shown["in another style"].numpy().astype(float)
    lent = (rows.place.to_numpy() + 1) % 3
    far = [np.sqrt(np.square(o - means[p]).mean()) for o, p in zip(other, lent, strict=True)]
    assert table.distance["in another style"] == pytest.approx(
        pd.Series(far).groupby(lent).mean().mean(), rel=1e-4
    )


def test_pictures_of_several_periods_are_shown(learned):
    rows, pixels, _, shown = learned
    pictures = style_vectors.rows_of_pictures(shown, rows, 2)
    assert list(pictures) == list(shown) and {len(row) for row in pictures.values()} == {2}
    first, last = (np.asarray(picture, int) for picture in pictures["paintings"])
    for found, expected in ((first, pixels[0]), (last, pixels[-1])):
        assert np.abs(found - 255 * expected.permute(1, 2, 0).numpy()).max() <= 1


def test_so_many_pictures_of_each_period_in_time_order(drawn):
    rows = style_vectors.paintings(drawn, 3)
    periods = sorted(read_catalogue(drawn).period.unique())
    assert rows.period.tolist() == [name for name in periods for _ in range(3)]
    assert rows.place.tolist() == [place for place in range(len(periods)) for _ in range(3)]
    assert rows.file.is_unique
    assert not rows.file.equals(style_vectors.paintings(drawn, 3, seed=2).file)
    pixels = style_vectors.pixels_of(rows, drawn, 16)
    assert pixels.shape == (len(rows), 3, 16, 16) and 0 <= pixels.min() < pixels.max() <= 1


def test_one_picture_a_period_and_grey_ones_are_learned():
    rows = pd.DataFrame({"place": [0, 1]})
    pixels = torch.full((2, 3, 8, 8), 0.5)
    model, _ = style_vectors.learn(rows, pixels, 2)
    table = style_vectors.measure(style_vectors.painted(model, rows, pixels), rows)
    assert np.isfinite(table.to_numpy()).all()
    one, _ = style_vectors.learn(rows[:1], pixels[:1], 1)
    assert style_vectors.painted(one, rows[:1], pixels[:1])["in another style"].shape[0] == 1


def test_what_can_not_be_learned_is_named():
    rows, pixels = drawn_rows((2, 2))
    with pytest.raises(SettingError, match="multiple of 8"):
        style_vectors.learn(rows, pixels[..., :12, :12], 1)
    with pytest.raises(SettingError, match="epochs"):
        style_vectors.learn(rows, pixels, 0)
    with pytest.raises(StepError, match="not finite"):
        style_vectors.learn(rows, pixels * float("nan"), 1)
