"""The benchmarks: each says how it is called, and those of training measure what they say on drawn canvases."""
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import f1_score

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


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)
def test_every_script_says_how_it_is_called(script, file, capsys):
    with pytest.raises(SystemExit) as stop: script(file, "--help")
    assert stop.value.code == 0 and "usage:" in capsys.readouterr().out
    assert f"`{file.name}`" in (file.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_features_and_fine_tuning_are_measured_on_every_fold_once(script, fresh, tmp_path, capsys, no_workers):
    file = of("train")
    call = file, fresh, "--work", tmp_path, "--cut", "folds", "--seeds", "1", "--methods", "frozen"
    script(*call)
    first, told = (tmp_path / "folds-frozen.csv").read_bytes(), capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "folds-frozen.csv")
    assert rows.file.is_unique and rows.run.nunique() == 5 and len(rows) == 40
    assert f"{f1_score(rows.period, rows.predicted, average='macro'):.3f} [" in told.splitlines()[-1]
    script(*call)
    assert (tmp_path / "folds-frozen.csv").read_bytes() == first


@pytest.mark.slow
def test_each_unfrozen_variant_moves_the_network_in_a_way_of_its_own(script, fresh, tmp_path, capsys, no_workers):
    stages = [f"unfrozen, {name}" for name in ("to the end", "mixup", "averaged", "mirrored only", "growing")]
    script(of("recipe"), fresh, "--work", tmp_path, "--only", "224 px", *stages)
    told = capsys.readouterr().out.splitlines()
    assert [line[:len(name)] for line, name in zip(told[-5:], stages, strict=True)] == stages
    runs = {name: pd.read_csv(tmp_path / f"folds-{name}.csv").filter(regex="^p_") for name in ["224 px", *stages]}
    assert len({probabilities.to_csv() for probabilities in runs.values()}) == 6
    moved = {name: (runs[name] - runs["224 px"]).abs().to_numpy().mean() for name in stages}
    assert moved["unfrozen, averaged"] < moved["unfrozen, to the end"]
