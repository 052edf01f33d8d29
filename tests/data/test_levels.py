"""Levelled sources: pictures of the size asked for, with what is in the raw ones."""

import numpy as np
from made_pictures import noise
from PIL import Image

from artclf.data.catalogue import read_catalogue
from artclf.data.levels import level_sources


def test_a_large_levelled_picture_is_no_enlarged_small_one(tmp_path):
    for number, period in enumerate("ab"):
        folder = tmp_path / "gallery" / period
        folder.mkdir(parents=True)
        pixels = Image.fromarray(noise(150, 150, number, channels=1)[..., 0])
        pixels.resize((1500, 1500), Image.Resampling.NEAREST).save(folder / "large.png")
    out = level_sources(tmp_path / "gallery", tmp_path / "out", size=1000, quality=95, workers=1)
    table = read_catalogue(out)
    assert table.width.tolist() == [1000, 1000]
    raw = Image.open(tmp_path / "gallery/a/large.png").convert("RGB")
    expected = np.asarray(raw.resize((1000, 1000), Image.Resampling.BICUBIC)).astype(int)
    found = np.asarray(Image.open(out / table.set_index("period").file["a"])).astype(int)
    blurred = raw.resize((500, 500), Image.Resampling.BICUBIC).resize((1000, 1000))
    error = np.abs(found - expected).mean()
    assert error < np.abs(np.asarray(blurred).astype(int) - expected).mean() / 2
    clean = Image.open(out / "clean/a" / f"{(out / table.file[0]).stem}.jpg")
    assert clean.size == (1000, 1000)
