"""The benchmarks: each says how it is called, and those of training measure what they say on drawn
canvases.
"""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import artclf
from artclf import train

SCRIPTS = sorted((Path(__file__).resolve().parent.parent / "benchmarks").glob("*.py"))


def of(name: str) -> Path:
    [file] = [file for file in SCRIPTS if file.stem == name]
    return file


@pytest.fixture
def script(monkeypatch):
    """A function that runs a script with arguments as its command line would, in this process."""

    def run(file: Path, *args):
        monkeypatch.setattr(sys, "argv", [str(file), *map(str, args)])
        monkeypatch.setattr(sys, "path", [str(file.parent), *sys.path])
        runpy.run_path(str(file), run_name="__main__")

    return run


@pytest.fixture
def recipe(monkeypatch):
    return load("recipe", monkeypatch)


def load(name: str, monkeypatch):
    """The module of a script."""
    monkeypatch.syspath_prepend(of(name).parent)
    return importlib.import_module(name)


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)
def test_every_script_says_how_it_is_called(script, file, capsys):
    with pytest.raises(SystemExit) as stop:
        script(file, "--help")
    assert stop.value.code == 0 and "usage:" in capsys.readouterr().out
    assert f"`{file.name}`" in (file.parent / "README.md").read_text(encoding="utf-8")


def test_the_hours_in_the_documentation_are_those_that_are_reckoned(script, capsys):
    script(of("reckon"))
    page = of("reckon").parent.parent / "docs/scale.md"
    assert capsys.readouterr().out in page.read_text("utf-8")
    script(of("reckon"), "--urls", "1e6", "--cores", "8", "--largest", "0.9")
    assert "| 62 (hosts) |" in capsys.readouterr().out


def test_what_a_run_takes_anyhow_is_not_counted_for_a_picture(monkeypatch):
    cluster = load("cluster", monkeypatch)
    few, all_pictures = (
        [cluster.Round(pictures, 9.0, fixed + pictures / 4000) for fixed in (1.0, 0.5, 7.0)]
        for pictures in (100, 400)
    )
    assert cluster.for_processor(few, all_pictures) == pytest.approx(4000)


def test_heads_are_held_against_the_first_on_the_same_folds(script, drawn, capsys, no_workers):
    names = ["as it is: ridge 0.3, balanced", "ridge 3", "15 neighbours, cosine"]
    script(of("heads"), drawn, "--split", "grouped", "--size", 64, "--seeds", 1, "--only", *names)
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(names[0]) and "+0.000 [+0.000, +0.000]" in first
    assert second.startswith("ridge 3") and third.startswith("15 neighbours")


def test_a_head_from_a_part_learns_from_so_many_of_each_class(monkeypatch):
    heads = load("heads", monkeypatch)
    x, y = np.eye(40, dtype=np.float32), np.repeat(["a", "b"], 20)
    learned = []

    class Spy(heads.LinearHead):
        def fit(self, x, y):
            learned.append(y)
            return super().fit(x, y)

    heads.FromPart(Spy(), 0.75).fit(x, y)
    assert pd.Series(learned[0]).value_counts().to_dict() == {"a": 15, "b": 15}


def test_the_line_of_errors_is_found_and_drawn_on(monkeypatch):
    curve = load("curve", monkeypatch)
    pictures = np.array([100, 200, 400, 800])
    slope, at = curve.errors_at(pictures, 3 * pictures[None] ** -0.25, [1600, 12800])
    np.testing.assert_allclose(slope, [-0.25])
    np.testing.assert_allclose(at, [[3 * 1600**-0.25, 3 * 12800**-0.25]])


def test_a_part_is_drawn_by_painters_or_by_pictures(monkeypatch):
    curve, rng = load("curve", monkeypatch), np.random.default_rng(0)
    painters = np.repeat([f"painter {number}" for number in range(40)], 5)
    train = np.arange(150)  # 30 painters
    whole = curve.drawn(train, painters, "painters", 0.5, rng)
    assert set(pd.Series(painters[whole]).value_counts()) == {5} and 75 <= len(whole) <= 80
    single = curve.drawn(train, painters, "pictures", 0.5, rng)
    assert len(set(single)) == 75 and len(np.unique(painters[single])) > 25
    assert set(whole) | set(single) <= set(train)


def test_the_curve_is_a_table_and_a_plot(script, drawn, tmp_path, capsys, no_workers):
    plot = tmp_path / "curve.png"
    script(of("curve"), drawn, "--size", 64, "--seeds", 1, "--plot", plot)
    told = capsys.readouterr().out.splitlines()
    assert "50,000 pictures" in "".join(told) and plot.stat().st_size > 10_000
    sizes = [line.split() for line in told if line.strip().startswith(("painters", "pictures"))]
    assert len(sizes) == 8


@pytest.mark.slow
def test_features_and_fine_tuning_are_measured_on_every_fold_once(
    script, fresh, tmp_path, capsys, no_workers
):
    file = of("train")
    call = file, fresh, "--work", tmp_path, "--cut", "folds", "--seeds", "1", "--methods", "frozen"
    script(*call)
    [kept] = tmp_path.glob("folds-frozen-efficientnet_lite0-*.csv")
    first, told, rows = kept.read_bytes(), capsys.readouterr().out, pd.read_csv(kept)
    assert rows.file.is_unique and rows.run.nunique() == 5 and len(rows) == 40
    assert (
        f"{f1_score(rows.period, rows.predicted, average='macro'):.3f} [" in told.splitlines()[-1]
    )
    script(*call)
    assert kept.read_bytes() == first
    (next((fresh / "gallery").iterdir()) / "notes.txt").write_text("no picture")
    with pytest.raises(SystemExit, match="needs a data folder"):
        script(
            file, fresh / "gallery", "--work", tmp_path, "--cut", "artist", "--methods", "frozen"
        )


@pytest.mark.slow
def test_each_unfrozen_variant_moves_the_network_in_a_way_of_its_own(
    script, fresh, tmp_path, capsys, no_workers, monkeypatch
):
    monkeypatch.syspath_prepend(of("train").parent)
    benchmark = importlib.import_module("train")
    ours = benchmark.ours

    def ours_on_small_pictures(*args, size, **options):
        return ours(*args, size=64, **options)

    monkeypatch.setattr(benchmark, "ours", ours_on_small_pictures)
    monkeypatch.setattr(benchmark, "FOLDS", 2)
    names = "to the end", "mixup", "averaged", "mirrored only", "growing", "head alone"
    stages = [f"unfrozen, {name}" for name in names]
    script(of("recipe"), fresh, "--work", tmp_path, "--only", "224 px", *stages)
    told = capsys.readouterr().out.splitlines()
    assert [line[: len(name)] for line, name in zip(told[-6:], stages, strict=True)] == stages
    assert "above '224 px':" in told
    runs = {
        name: pd.read_csv(next(tmp_path.glob(f"folds-{name}-*.csv"))).filter(regex="^p_")
        for name in ["224 px", *stages]
    }
    assert len({probabilities.to_csv() for probabilities in runs.values()}) == 7
    moved = {name: (runs[name] - runs["224 px"]).abs().to_numpy().mean() for name in stages}
    assert moved["unfrozen, averaged"] < moved["unfrozen, to the end"]


@pytest.mark.slow
def test_bodies_are_a_table_and_those_that_cannot_be_had_are_named(
    script, fresh, tmp_path, capsys, no_workers
):
    torch.manual_seed(0)
    file = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    both = "efficientnet_lite0+efficientnet_lite1"
    names = "efficientnet_lite0", both, "test_vit@96", "resnet50", "nonsense"
    options = "--size", 64, "--seeds", 1, "--weights", f"test_vit={file}"
    script(of("bodies"), fresh, "--archs", *names, *options)
    told = capsys.readouterr().out
    assert "resnet50 is left out: no ImageNet weights" in told
    assert "nonsense is left out: no architecture is called" in told
    rows = {line.split()[0]: line.split() for line in told.splitlines() if line.strip()}
    lite, vit = rows["efficientnet_lite0"], rows["test_vit@96"]
    assert rows[both][4] == "apache-2.0" and float(rows[both][3]) > float(lite[3])
    assert lite[4] == "apache-2.0" and vit[4:7] == ["of", "the", "file"]
    assert float(lite[-2]) > 0.5 and 0 <= float(vit[-1]) <= 1
    assert float(vit[2]) == pytest.approx(4 * 370_000 / 1e6, rel=0.2)


@pytest.mark.slow
def test_the_control_moves_the_head_alone(recipe, fresh, tmp_path, no_workers):
    learn = train.learner(fresh, tmp_path, arch="efficientnet_lite0", size=64, batch_size=8)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
        body, head = (
            {name: value.clone() for name, value in part.state_dict().items()}
            for part in learn.model
        )
        recipe.head_alone(learn)
    assert all(
        torch.equal(value, body[name]) for name, value in learn.model[0].state_dict().items()
    )
    assert not torch.equal(learn.model[1][-1].weight, head["2.weight"])


def test_the_shift_divides_by_a_power_of_the_share_in_train(recipe, monkeypatch):
    monkeypatch.setattr(recipe.train, "ours", lambda *args: np.array([[0.5, 0.5], [0.8, 0.2]]))
    table = pd.DataFrame({"period": ["b", "a", "a", "a", "b"], "part": ["train"] * 4 + ["test"]})
    found = recipe.shifted(table, 1, None)
    assert found.sum(1) == pytest.approx([1, 1])
    assert found[:, 1] / found[:, 0] == pytest.approx([3**0.2, 0.25 * 3**0.2])


def test_each_change_is_told_by_what_it_has_above_the_first(recipe):
    given, rng = np.array(["a", "b", "c"] * 20), np.random.default_rng(0)
    runs = pd.DataFrame(
        {
            "file": [f"{i:02d}.jpg" for i in range(60)],
            "group": [f"{i // 2}" for i in range(60)],
            "artist": "one",
            "period": given,
            "run": "1-0",
            "seed": 1,
            "p_a": 1.0,
            "p_b": 0.0,
            "p_c": 0.0,
        }
    )
    told = {"first": given, "worse": np.where(rng.random(60) < 0.4, "a", given), "same": given}
    table = recipe.train.above(
        pd.concat(
            runs.assign(method=name, predicted=p).sample(frac=1, random_state=len(name))
            for name, p in told.items()
        ),
        "folds",
    )
    assert list(table.index) == ["worse", "same"] and set(table.loc["same"]) == {
        "+0.000 [+0.000, +0.000]"
    }
    assert table.accuracy["worse"].startswith(f"{accuracy_score(given, told['worse']) - 1:+.3f} [-")
    assert table.macro_f1["worse"].startswith(
        f"{f1_score(given, told['worse'], average='macro') - 1:+.3f} [-"
    )


def test_the_exact_head_is_scikit_learns_on_all_features(recipe, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 90)) * rng.uniform(0.1, 9, 90)
    periods = np.array(["a", "b", "b", "c"] * 10)
    table = pd.DataFrame({"period": periods, "part": ["train"] * 28 + ["test"] * 12})
    monkeypatch.setattr(recipe.train, "features_of", lambda table, args: x)
    found = recipe.train.exact(table, 1, None)
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1 / (0.3 * 28), class_weight="balanced", tol=1e-8, max_iter=5000),
    )
    expected = model.fit(x[:28], periods[:28]).predict_proba(x[28:])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_heads_of_their_own_answer_by_the_mean_of_their_probabilities(recipe):
    rows = {"run": "1-0", "file": ["x", "y"], "seconds": 2.0, "predicted": "a"}
    one = pd.DataFrame({**rows, "p_a": [0.9, 0.6], "p_b": [0.1, 0.4]})
    other = pd.DataFrame({**rows, "p_a": [0.3, 0.2], "p_b": [0.7, 0.8]})
    found = recipe.train.averaged([one, other[::-1]])
    assert found.p_a.tolist() == pytest.approx([0.6, 0.4]) and list(found.predicted) == ["a", "b"]
    assert set(found.seconds) == {4.0}


@pytest.mark.slow
def test_several_networks_are_measured_beside_each_other(
    script, fresh, tmp_path, capsys, no_workers
):
    archs = ["efficientnet_lite0", "efficientnet_lite1"]
    call = [of("train"), fresh, "--work", tmp_path, "--cut", "folds", "--seeds", "1"]
    call += ["--methods", "exact", "--size", "64", "--arch", *archs, "+".join(archs)]
    script(*call)
    told = capsys.readouterr().out
    both = "efficientnet_lite0+efficientnet_lite1, exact"
    assert told.count(f"\n{both} ") == 2 and told.count(f"\n{both}, a head each") == 2
    costs = told.split("processor seconds a picture")[1].splitlines()
    lite0, lite1, together = (line.split()[1:] for line in costs[1:4])
    assert float(together[2]) == float(lite0[2]) + float(lite1[2])


@pytest.mark.slow
def test_both_stages_are_timed_beside_fastai(script, drawn, capsys, no_workers):
    call = (
        of("speed"),
        drawn / "gallery",
        "--arch",
        "efficientnet_lite0",
        "--number",
        "16",
        "--runs",
        "1",
    )
    script(*call)
    rows = {
        line.split()[0]: line.split()[1:]
        for line in capsys.readouterr().out.splitlines()
        if line.strip()
    }
    assert [float(seconds) > 0 for seconds in rows["artclf"]] == [True, True, False]
    assert [float(seconds) > 0 for seconds in rows["fastai"]] == [False, True, True]


@pytest.mark.slow
def test_the_explorer_is_measured_in_a_browser(errors_of_a_run, browser):
    call = [
        sys.executable,
        of("explorer"),
        *errors_of_a_run,
        "--images",
        "300",
        "--runs",
        "1",
    ]  # not beside `browser`
    told = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
    size, opened, slowest = (
        float(re.search(pattern, told)[1])
        for pattern in (r"(\S+) MB", r"open +(\S+) s", r"slowest +(\S+) ms")
    )
    assert (
        told.startswith("300 images, 6 classes, 1 runs")
        and 0 < size < 20
        and 0 < opened < 30
        and 0 < slowest < 5000
    )


@pytest.mark.slow
def test_maps_are_judged_on_paintings_told_right(script, drawn, tmp_path, capsys, no_workers):
    from artclf import train

    train.fit(drawn, tmp_path, 10, 0, arch="efficientnet_lite0", size=64, batch_size=8)
    script(of("explain"), tmp_path, drawn, "--images", 1, "--out", tmp_path / "explain")
    told = capsys.readouterr().out
    assert "random" in told and "stages CAM" in told and "stem" in told
    assert {"curves.csv", "randomised.csv", "deletion.png"} <= {
        file.name for file in (tmp_path / "explain").iterdir()
    }


def test_runs_of_checkouts_take_turns_and_their_medians_are_a_table(
    script, monkeypatch, tmp_path, capsys
):
    called = []

    def run(command, cwd, env, **options):
        assert command[0] == sys.executable and "'artclf', 'run'" in command[-1]
        called.append((Path(env["PYTHONPATH"]).name, cwd))
        seconds = 10 * len(called)
        printed = f"01_download  1/2    1.5 s  a\n01_download  2/2    {seconds}.0 s  b\nfoo 1 s\n"
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    script(of("run"), tmp_path / "now", tmp_path / "before", "--runs", "3", "--again")
    names = [name for name, _ in called]
    assert names == ["now", "now", "before", "before"] * 3
    folders = [folder for _, folder in called]
    assert folders[0] == folders[1] != folders[2] and len(set(folders)) == 6
    table = capsys.readouterr().out.splitlines()[-3:]
    assert table[1].split() == ["01_download", "51.5", "61.5", "71.5", "81.5"]
    assert table[2].split()[0] == "all"


def test_a_run_that_fails_is_told(script, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, "", "no disk")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(SystemExit, match="artclf run failed\nno disk"):
        script(of("run"), tmp_path)


@pytest.mark.slow
def test_many_answers_are_measured_by_their_number(script, drawn, tmp_path, capsys):
    before = set(drawn.rglob("*"))
    script(of("batch"), tmp_path, drawn / "clean", "--numbers", 9, 70, "--size", 16)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(line[0]) for line in lines] == [9, 70]
    for line in lines:
        rate, megabytes, written = (float(line[place]) for place in (2, 5, 9))
        assert rate > 0 and 20 < megabytes < 4000 and written >= 0
    assert set(drawn.rglob("*")) == before


def vgg_like():
    """Stages as `transfer.Stages` has them of VGG16, with three channels everywhere and random
    weights.
    """
    torch.manual_seed(0)
    stages = []
    channels = 3
    for convolutions in (2, 2, 3, 3, 3):
        layers = []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(inplace=True)]
            channels = 4
        stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
    return SimpleNamespace(
        stages=nn.ModuleList(stages), mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1)
    )


def test_the_scaled_network_has_channels_of_mean_1_and_answers_the_same(monkeypatch):
    restyle = load("restyle", monkeypatch)
    stages = vgg_like()
    pictures = [Image.effect_noise((40, 30), 60).convert("RGB") for _ in range(3)]
    layers = restyle.scaled_layers(stages, pictures)
    x = torch.cat(
        [
            restyle.transfer.pixels_of(p.resize((restyle.SQUARE,) * 2), restyle.SQUARE)
            for p in pictures
        ]
    )
    scaled = plain = x
    with torch.no_grad():
        flat = [layer for stage in stages.stages for layer in stage]
        assert len(layers) == len(flat)
        for found, layer in zip(layers, flat, strict=True):
            scaled = found(scaled)
            plain = nn.AvgPool2d(2)(plain) if isinstance(layer, nn.MaxPool2d) else layer(plain)
            if isinstance(layer, nn.ReLU):
                means = plain.mean((0, 2, 3), keepdim=True).clamp(min=1e-6)
                assert torch.allclose(scaled, plain / means, rtol=1e-3, atol=1e-3)


def test_the_loss_of_the_recipe_is_worked_out_by_numpy(monkeypatch):
    restyle = load("restyle", monkeypatch)
    stages = vgg_like()
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    flat = restyle.scaled_layers(stages, [picture])
    style, content, pixels = torch.rand(3, 1, 3, 32, 32)
    losses = restyle.Recipe(flat, stages.mean, stages.std, style).at(content)

    def maps(x):
        found = []
        for layer in flat:
            x = layer(x)
            found += [x[0].flatten(1).detach().numpy()] if isinstance(layer, nn.ReLU) else []
        return found

    of_style, of_content, of_pixels = maps(style), maps(content), maps(pixels)
    expected = 0
    for place in (0, 2, 4, 7, 10):
        grams = [m[place] @ m[place].T / m[place].shape[1] for m in (of_style, of_pixels)]
        expected += 1e3 / 4**2 * np.square(grams[0] - grams[1]).mean()
    found = {name: float(value) for name, value in losses(pixels).items()}
    assert found["style"] == pytest.approx(expected, rel=1e-3)
    assert found["content"] == pytest.approx(
        np.square(of_content[8] - of_pixels[8]).mean(), rel=1e-3
    )
    assert found["total"] == pytest.approx(found["style"] + found["content"], rel=1e-4)
    target = losses(content)
    assert float(target["content"]) == 0
    painted = restyle.by_recipe(losses, content, stages.mean, "content", 40)
    assert float(losses(painted)["total"]) < 0.7 * float(target["total"])


@pytest.mark.slow
def test_kinds_of_style_are_measured_on_periods(script, drawn, export, tmp_path, capsys):
    first, second = artclf.load(export).vocab[:2]
    call = [of("restyle"), "grid", drawn, export, "--content", first, "--likes", second]
    call += ["--arch", "efficientnet_lite0", "--pictures", 1, "--size", 64, "--steps", 1]
    script(*call, "--weights", 1, "--out", tmp_path)
    told = capsys.readouterr().out
    assert "mean of 1 periods" in told and "means and spreads, 1" in told
    assert {file.name for file in tmp_path.iterdir()} == {"grid.csv", "grid.png", f"{second}.png"}


def test_chance_is_that_of_an_order_by_lot():
    functions = runpy.run_path(str(of("similar")), run_name="similar")
    rng = np.random.default_rng(0)
    sought = rng.random((40, 25)) < 0.1
    left_out = ~sought & (rng.random((40, 25)) < 0.2)
    asked = np.flatnonzero(sought.any(axis=1))
    found = functions["chance"](sought, left_out, asked)
    by_lot = rng.random((2000, len(asked), 25))
    by_lot[:, left_out[asked]] = 2
    order = by_lot.argsort(axis=2)
    hits = np.take_along_axis(np.broadcast_to(sought[asked], order.shape), order, axis=2)
    for rank in (1, 5, 10):
        expected = hits[:, :, :rank].any(axis=2).mean()
        assert float(found[f"at {rank}"]) == pytest.approx(expected, abs=0.01)
