"""Style transfer on a data set: which pictures make a style, what is written, what is measured."""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
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
    assert style_transfer.name_of(str(of_period[0])) == of_period[0].stem
    assert style_transfer.name_of("J. M. W. Turner/circle") == "J. M. W. Turner-circle"
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


def test_the_command_mixes_styles_and_writes_pictures_on_the_way(
    command, drawn, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (1, 1), 90).save("tiny.png")
    one, two = read_catalogue(drawn).period.unique()[:2]
    asked = ["restyle", "tiny.png", "--like", one, "--like", two, "--data", drawn, "--size", "64"]
    asked += ["--arch", "efficientnet_lite0", "--steps", "2", "--json"]
    mixes = []
    real = transfer.mixed
    monkeypatch.setattr(transfer, "mixed", lambda *args: mixes.append(args[1]) or real(*args))
    code, out, _ = command(*asked, "--mix", "2,1", "--every", "3", "--optimizer", "adam")
    name = f"tiny-like-{one}-{two}"
    assert code == 0 and json.loads(out)["file"] == f"{name}.jpg" and mixes == [[2, 1]]
    made = {file.name for file in tmp_path.iterdir()}
    assert made == {"tiny.png", f"{name}.jpg", f"{name}-step-3.jpg"}
    (tmp_path / f"{name}.jpg").unlink()
    code, _, err = command(*asked, "--every", "3")
    assert code == 1 and f"{name}-step-3.jpg is there already" in err
    code, _, err = command(*asked, "--mix", "1")
    assert code == 1 and "2 styles need as many weights" in err
    code, _, err = command(*asked, "--mix", "a,b")
    assert code == 2 and "--mix" in err
    code, _, err = command(*asked, "--arch", "resnet50")
    assert code == 1 and err.startswith("artclf: no ImageNet weights of resnet50")
    assert {file.name for file in tmp_path.iterdir()} == made - {f"{name}.jpg"}


def test_pictures_on_the_way_are_spread_over_the_steps(network):
    content = Image.effect_noise((80, 60), 90).convert("RGB")
    style = transfer.style_of([Image.new("RGB", (40, 40), "red")], network, 64)
    shown, losses = style_transfer.restyle_in_steps(
        content, style, network, 2, size=64, steps=3, levels=1
    )
    painted, expected = transfer.restyle(content, style, network, size=64, steps=3, levels=1)
    assert len(shown) == 3 and shown[-1].tobytes() == painted.tobytes()
    assert shown[0].tobytes() != shown[1].tobytes() != shown[2].tobytes()
    assert losses == pytest.approx(expected, rel=1e-3)


def test_a_classifier_that_sees_by_the_network_that_paints_is_named(export, network, capsys):
    classifier = artclf.load(export)
    style_transfer.say_shared_body(classifier, network)
    assert "sees by efficientnet_lite0, too" in capsys.readouterr().out
    monkey = type("Other", (), {"arch": "vgg16"})
    style_transfer.say_shared_body(classifier, monkey)
    assert capsys.readouterr().out == ""


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
    grid = style_transfer.grid(
        contents[:1], contents[1:], network, (1, 5), size=64, steps=3, levels=1
    )
    kinds = ["Gram matrices", "means and spreads"]
    rows = [f"{kind}, {weight}" for kind in kinds for weight in (1, 5)]
    assert list(grid) == [*rows, "colours alone"]
    assert len({picture.tobytes() for [picture] in grid.values()}) == 5
    axes = style_transfer.plot_rows({"content": contents, **grid}).axes[0]
    assert len(axes.images) == 8 and [text.get_text() for text in axes.texts][1:] == list(grid)
    table = pd.DataFrame({"kept": 0.5, "probability": 0.2}, index=["content", *grid])
    axes = style_transfer.plot_trade_off(table).axes[0]
    assert [line.get_label() for line in axes.lines] == ["content", *kinds, "colours alone"]
    assert [text.get_text() for text in axes.get_legend().texts][1:3] == kinds
    assert [text.get_text() for text in axes.texts] == [
        "content",
        "1",
        "5",
        "1",
        "5",
        "colours alone",
    ]


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
            "EPOCHS": 2,
            "PICTURES": 2,
            "SIZE": 64,
            "STEPS": 1,
            "STYLE_WEIGHTS": (1, 10),
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [item for cell in book.cells if cell.cell_type == "code" for item in cell.outputs]
    texts = " ".join(str(item.get("data", {}).get("text/plain", "")) for item in outputs)
    assert "means and spreads, 10" in texts and "colours alone" in texts and "kept" in texts
    assert "style alone" in texts and "variance" in texts
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 5
    assert not any(item.get("name") == "stderr" for item in outputs)
