"""Maps of the worst errors: those of `explain`, laid where the network looked, for all pictures
that are there.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import artclf
from artclf.base import extras
from artclf.model.explainer import Explainer
from artclf.results import saliency


@pytest.fixture(autouse=True)
def alone(no_workers):
    pass


@pytest.fixture
def wrong_run(own_run) -> tuple[Path, Path]:
    """`own_run`, where four pictures of test are told as the next period, whatever the network
    says.
    """
    data, out = own_run
    table = pd.read_csv(out / "predictions.csv")
    periods = sorted(table.period.unique())
    table["predicted"] = table.period
    for index in table.index[table.part == "test"][:4]:
        following = periods.index(table.period[index]) + 1
        table.loc[index, "predicted"] = periods[following % len(periods)]
    table.to_csv(out / "predictions.csv", index=False)
    return data, out


def errors_of(out):
    table = pd.read_csv(out / "predictions.csv")
    table = table[table.period != table.predicted].sort_values("loss", ascending=False)
    return pd.concat([table[table.part == "test"], table[table.part == "valid"]])


def test_the_worst_errors_get_their_maps(wrong_run, export):
    data, out = wrong_run
    errors, config = errors_of(out), json.loads((out / "config.json").read_text(encoding="utf-8"))
    folder = out / "saliency" / config["hashes"]["model.safetensors"][:8]
    explainer = Explainer(artclf.load(export))
    assert len(errors) == 4
    paths = saliency.worst(out, data, 2)
    assert paths == [folder / f"{Path(file).stem}.jpg" for file in errors.file[:2]]
    for path, row in zip(paths, errors.itertuples(), strict=False):
        with Image.open(path) as im, Image.open(data / row.file) as picture:
            assert im.mode == "L" and max(im.size) == 56
            assert im.width / im.height == pytest.approx(picture.width / picture.height, rel=0.05)
            written, square = np.array(im) / 255, np.array(im.resize((64, 64))) / 255
        values = explainer.maps(
            explainer.pictures([data / row.file]), [row.predicted], "stages CAM"
        )[0].clip(0)
        if values.max() > 0:
            assert np.corrcoef(values.ravel(), square.ravel())[0, 1] > 0.95 and written.max() > 0.9
    times = [path.stat().st_mtime_ns for path in paths]
    assert len(saliency.worst(out, data)) == len(errors)
    assert times == [path.stat().st_mtime_ns for path in paths]


def test_a_picture_that_moved_gets_no_map_and_the_others_do(wrong_run):
    data, out = wrong_run
    errors = errors_of(out)
    (data / errors.file.iloc[0]).unlink()
    with pytest.warns(UserWarning, match="can't be read .* it gets no map"):
        paths = saliency.worst(out, data, 2)
    assert [path.stem for path in paths] == [Path(errors.file.iloc[1]).stem]
    table = pd.read_csv(out / "predictions.csv")
    table.assign(predicted=table.period).to_csv(out / "predictions.csv", index=False)
    assert saliency.worst(out, data) == []


def test_a_map_is_laid_where_the_network_looked():
    square = Image.new("L", (8, 8), 255)
    assert np.array(saliency.unresized(square, (40, 20), "squish")).min() == 255
    cropped = np.array(saliency.unresized(square, (40, 20), "crop"))
    assert (
        cropped.shape == (20, 40)
        and (cropped[:, 10:30] == 255).all()
        and (cropped[:, :10] == 0).all()
    )
    left = Image.fromarray(
        np.repeat(np.uint8([[0] * 4 + [255] * 4]), 8, 0).T.copy()
    )  # below the middle is white
    padded = np.array(saliency.unresized(left, (40, 20), "pad"))
    assert padded.shape == (20, 40) and padded[2].max() < 128 < padded[17].min()


def test_without_captum_there_are_no_maps_and_a_line_says_how_to_get_them(
    own_run, monkeypatch, capsys
):
    data, out = own_run
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    assert saliency.worst(out, data) == []
    assert 'needs captum: run pip install -e ".[lab]"' in capsys.readouterr().out
