"""Style transfer on a data set: which pictures make a style, what is written, what is measured."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

import artclf
from artclf.base.errors import InputError
from artclf.data.catalogue import read_catalogue
from artclf.lab import style_transfer
from artclf.model import transfer

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def network():
    return style_transfer.stages("efficientnet_lite0")


def test_a_style_is_of_a_picture_a_period_or_a_painter(drawn):
    table = read_catalogue(drawn)
    table = table[table.clean_status == "ok"]
    period, artist = table.period.iloc[0], table.artist.dropna().iloc[0]
    of_period = style_transfer.files_like(drawn, period, 3)
    assert len(set(of_period)) == 3 and all(period in str(file) for file in of_period)
    assert of_period == style_transfer.files_like(drawn, period, 3)
    assert set(of_period) != set(style_transfer.files_like(drawn, period, 3, seed=5))
    painted = {Path(file).stem for file in table.file[table.artist == artist]}
    by_painter = style_transfer.files_like(drawn, artist.upper(), 1000)
    assert by_painter and {file.stem for file in by_painter} <= painted
    assert style_transfer.files_like(drawn, str(of_period[0])) == [of_period[0]]
    with pytest.raises(InputError, match=f"no period or painter in .*{re.escape(period)}"):
        style_transfer.files_like(drawn, "nobody")


def test_the_command_writes_a_picture_and_replaces_none(command, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = style_transfer.files_like(drawn, read_catalogue(drawn).period.iloc[0], 1)[0]
    asked = ["restyle", file, "--like", file, "--data", drawn, "--arch", "efficientnet_lite0"]
    asked += ["--size", "64", "--steps", "1"]
    code, out, _ = command(*asked)
    [written] = tmp_path.iterdir()
    assert code == 0 and written.name == f"{file.stem}-like-{file.stem}.jpg" in out
    assert max(Image.open(written).size) == 64
    before = written.read_bytes()
    code, _, err = command(*asked)
    assert code == 1 and "there already" in err and written.read_bytes() == before
    code, _, err = command(*asked, "--out", tmp_path / "a.txt")
    assert code == 1 and ".jpg" in err and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "page.jpg").write_text("<html>")
    for broken in (tmp_path / "page.jpg", tmp_path / "gone.jpg"):
        code, _, err = command("restyle", broken, *asked[2:], "--out", tmp_path / "c.png")
        assert code == 1 and err.startswith(f"artclf: can't read {broken}")
    assert command(*asked, "--out", tmp_path / "b.png")[0] == 0
    assert Image.open(tmp_path / "b.png").format == "PNG"


def test_without_vgg16_another_network_paints_and_a_line_says_so(monkeypatch, capsys):
    real = transfer.Stages

    def offline(arch):
        if arch == "vgg16":
            raise ConnectionError("no hub")
        return real(arch)

    monkeypatch.setattr(transfer, "Stages", offline)
    assert isinstance(style_transfer.stages(), real)
    assert "No weights of VGG16" in capsys.readouterr().out
    with pytest.raises(ConnectionError):
        style_transfer.stages("vgg16")


def test_what_is_measured_is_what_the_classifier_says(drawn, export, network):
    classifier = artclf.load(export)
    period = classifier.vocab[0]
    files = style_transfer.files_like(drawn, period, 3)
    contents = style_transfer.opened(files)
    mirrored = [picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in contents]
    painted = {"same": contents, "others": contents[1:] + contents[:1], "mirrored": mirrored}
    table = style_transfer.measure(classifier, contents, painted, period)
    said = classifier.predict(contents, k=len(classifier.vocab))
    assert table.probability["content"] == pytest.approx(
        np.mean([dict(top)[period] for top in said.top]), abs=1e-5
    )
    assert table.share["content"] == (said.predicted == period).mean()
    assert table.kept["content"] == pytest.approx(1) == table.kept["same"]
    assert table.kept["others"] < table.kept["mirrored"] < 1
    with pytest.raises(InputError, match="no period of the classifier"):
        style_transfer.measure(classifier, contents, {}, "nothing")
    style = transfer.style_of(contents, network, 64)
    grid = style_transfer.grid(contents[:1], style, network, (1, 5), size=64, steps=1, levels=1)
    assert list(grid) == ["style weight 1", "style weight 5"]
    axes = style_transfer.plot_rows({"content": contents, **grid}).axes[0]
    assert len(axes.images) == 5 and [text.get_text() for text in axes.texts][1:] == list(grid)
    assert len(style_transfer.plot_trade_off(table).axes[0].texts) == 4
    assert (
        style_transfer.mean_picture(
            [Image.new("RGB", (3, 9), "white"), Image.new("RGB", (5, 2))], 4
        ).getpixel((0, 0))
        == (128,) * 3
    )


@pytest.mark.slow
def test_the_notebook_runs(drawn, export, tmp_path):
    import nbformat

    from artclf import run

    vocab = artclf.load(export).vocab
    copy = run.execute(
        ROOT / "notebooks/experiments/16_style_transfer.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(drawn),
            "EXPORT": str(export),
            "CONTENT": vocab[0],
            "LIKE": vocab[1],
            "ARCH": "efficientnet_lite0",
            "PICTURES": 2,
            "SIZE": 64,
            "STEPS": 1,
            "STYLE_WEIGHTS": (1, 10),
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [item for cell in book.cells if cell.cell_type == "code" for item in cell.outputs]
    texts = " ".join(str(item.get("data", {}).get("text/plain", "")) for item in outputs)
    assert "style weight 10" in texts and "colours alone" in texts and "kept" in texts
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 5
    assert not any(item.get("name") == "stderr" for item in outputs)
