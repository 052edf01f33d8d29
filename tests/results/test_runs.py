"""Runs: all that are kept in one table, mean and spread over seeds, and what a run tells of where
it was made.
"""

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import artclf
from artclf import train
from artclf.base import machine
from artclf.results import runs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}


def write(folder: Path, macro_f1: float, accuracy: float = 0.5, part: str = "test", **changes):
    """A made-up `metrics.json` in `folder`, and one figure that must not be taken: that of
    train.
    """
    figures = {
        "images": 6,
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "baseline_accuracy": 0.2,
        "distance": 1.5,
    }
    told = {
        "metrics": {
            "train": {**figures, "macro_f1": 1.0},
            "valid": {**figures, "macro_f1": 0.99},
            part: figures,
        },
        "protocol": {
            "epochs": [4, 2],
            "name": "efficientnet_lite0",
            "size": 224,
            "split": "grouped",
        },
        "seed": 42,
        "data_hash": "fedcba9876543210",
        "commit": COMMIT,
        "date": "2026-01-02 03:04:05Z",
        **changes,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def exports(tmp_path) -> Path:
    """Four runs: the best in a subfolder, one with a changed commit, one without test, one that
    tells little.
    """
    write(tmp_path / "paintings", 0.61)
    write(tmp_path / "paintings/seed-43", 0.83, seed=43)
    write(tmp_path / "sample", 0.72, commit=f"{COMMIT}+changes")
    write(tmp_path / "small", 0.12, part="valid", protocol={}, commit=None, date=None, seed=0)
    return tmp_path


def test_all_runs_the_best_first(exports):
    found = runs.table(exports)
    assert found.run.tolist() == ["paintings/seed-43", "sample", "paintings", "small"]
    assert found.macro_f1.tolist() == [0.83, 0.72, 0.61, 0.12] and found.part.tolist() == [
        "test"
    ] * 3 + ["valid"]
    assert found.seed.tolist() == [43, 42, 42, 0] and found["size"].tolist()[:3] == [224] * 3
    assert found.commit.tolist()[:3] == ["0123456", "0123456+changes", "0123456"]
    assert found.data_hash.tolist() == ["fedcba98"] * 4 and found.images.tolist() == [6] * 4
    assert (
        found.arch[0] == "efficientnet_lite0"
        and found.split[0] == "grouped"
        and found.epochs[0] == [4, 2]
    )
    assert found.loc[3, ["size", "arch", "split", "commit", "date"]].isna().all()
    assert runs.table(exports / "sample").run.tolist() == ["."]


UNREADABLE = [
    "",
    "{",
    "[]",
    "{}",
    '{"metrics": 3}',
    '{"metrics": {"test": {"macro_f1": 1}}}',
    "\xff",
]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_run_that_cannot_be_read_is_named_and_the_others_are_shown(exports, text):
    (exports / "bad").mkdir()
    (exports / "bad/metrics.json").write_text(text, encoding="latin-1")
    with pytest.warns(
        UserWarning, match=r"bad.metrics\.json is left out.*train again, or remove it"
    ):
        assert len(runs.table(exports)) == 4


def test_a_setting_that_is_none_is_named(exports):
    write(exports / "odd", 0.5, protocol={"size": "large"})
    with pytest.warns(UserWarning, match="odd.*large"):
        assert len(runs.table(exports)) == 4


def test_an_empty_folder_says_what_to_do(tmp_path, command):
    with pytest.raises(FileNotFoundError, match="no runs in"):
        runs.table(tmp_path)
    for folder in (tmp_path, tmp_path / "nothing"):
        code, out, err = command("runs", folder)
        assert code == 1 and out == "" and len(err.strip().splitlines()) == 1
        assert (
            err.startswith(f"artclf: no runs in {folder}: ")
            and "artclf train --data DATA --out" in err
        )


def test_the_command_prints_all_runs_in_120_columns(exports, command):
    code, out, err = command("runs", exports)
    lines = out.splitlines()
    assert code == 0 and err == "" and len(lines) == 5 and max(map(len, lines)) <= 120
    assert lines[1].split() == [
        "paintings/seed-43",
        "test",
        "0.830",
        "0.500",
        "1.500",
        "efficientnet_lite0",
        "224",
        "grouped",
        "43",
        "fedcba98",
        "0123456",
        "2026-01-02",
    ]
    assert (
        " 0123456+ " in lines[2]
        and "None" not in out
        and "nan" not in out.lower()
        and "<NA>" not in out
    )


def test_runs_that_tell_little_are_printed(tmp_path, command):
    write(tmp_path / "a", 0.5, protocol={}, commit=None, date=None, seed=None)
    code, out, _ = command("runs", tmp_path)
    assert code == 0 and "None" not in out and "nan" not in out.lower() and "<NA>" not in out


def test_the_command_gives_all_runs_as_json(exports, command):
    code, out, err = command("runs", exports, "--json")
    found = json.loads(out)
    assert (
        code == 0
        and err == ""
        and len(out.strip().splitlines()) == 1
        and list(found) == ["0", "1", "2", "3"]
    )
    assert (
        found["0"]["run"] == "paintings/seed-43"
        and found["0"]["macro_f1"] == 0.83
        and found["0"]["seed"] == 43
    )
    assert (
        found["3"]["part"] == "valid"
        and found["3"]["size"] is None
        and found["3"]["commit"] is None
    )


def test_a_table_of_runs_needs_no_torch(exports):
    code = (
        "import sys; from artclf.results import runs; runs.text(runs.table(sys.argv[1]))\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, exports], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


def test_mean_and_spread_are_those_of_numpy(exports):
    found = runs.table(exports)
    measured = runs.spread(found)
    assert measured.index.tolist() == ["mean", "spread"] and list(measured) == runs.FIGURES
    for name in runs.FIGURES:
        np.testing.assert_allclose(
            measured[name], [np.mean(found[name]), np.std(found[name], ddof=1)], atol=1e-15
        )
    assert runs.spread(found[:1]).loc["spread"].isna().all()


# train --seeds


@pytest.fixture
def fits(monkeypatch) -> list:
    """What `train.fit` was asked for; in its place a made-up export is written."""
    from artclf import train

    asked = []

    def fit(data, out, *args, **kwargs):
        asked.append((data, out, args, kwargs))
        shutil.rmtree(out, ignore_errors=True)
        write(Path(out), kwargs["seed"] / 100, kwargs["seed"] / 50)

    monkeypatch.setattr(train, "fit", fit)
    return asked


def test_each_seed_has_a_folder_of_its_own(fits, tmp_path):
    found = train.repeat("data", tmp_path, 3, 1, seeds=3, seed=7, size=64)
    assert fits == [
        ("data", tmp_path / f"seed-{n}", (3, 1), {"seed": n, "size": 64}) for n in (7, 8, 9)
    ]
    assert found.index.tolist() == ["7", "8", "9", "mean", "spread"] and set(found.part) == {"test"}
    np.testing.assert_allclose(found.macro_f1, [0.07, 0.08, 0.09, 0.08, 0.01])
    np.testing.assert_allclose(found.accuracy, [0.14, 0.16, 0.18, 0.16, 0.02])


def test_the_command_trains_with_several_seeds(fits, tmp_path, command):
    code, out, err = command(
        "train", "--data", "d", "--out", tmp_path / "o", "--seeds", 2, "--seed", 5, "--epochs", 3
    )
    assert code == 0 and [row.split()[0] for row in out.splitlines()[1:]] == [
        "5",
        "6",
        "mean",
        "spread",
    ]
    assert [out.name for _, out, _, _ in fits] == ["seed-5", "seed-6"] and fits[0][2] == (
        3,
        1,
        1e-3,
        False,
        True,
    )
    assert "Seed 6, number 2 of 2" in err and "macro_f1" in out
    code, out, _ = command(
        "train", "--data", "d", "--out", tmp_path / "o", "--seeds", 2, "--seed", 5, "--json"
    )
    found = json.loads(out)
    assert code == 0 and list(found) == ["5", "6", "mean", "spread"]
    assert found["mean"]["macro_f1"] == pytest.approx(0.055)
    assert found["spread"]["accuracy"] == pytest.approx(np.std([0.1, 0.12], ddof=1))


def test_one_seed_is_trained_into_the_folder_itself(fits, tmp_path, command):
    code, out, _ = command("train", "--out", tmp_path / "o", "--seeds", 1, "--json")
    assert code == 0 and json.loads(out)["macro_f1"] == 0.42 and fits[0][1] == tmp_path / "o"


def test_no_seed_at_all_is_a_bad_argument(command):
    assert command("train", "--seeds", 0)[0] == 2


@pytest.mark.slow
def test_seeds_give_different_weights_and_nothing_is_trained_again(
    drawn, tmp_path, no_workers, capsys
):
    found = train.repeat(drawn, tmp_path, 1, 1, seeds=2, final=False, **SMALL)
    folders = [tmp_path / "seed-42", tmp_path / "seed-43"]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    seconds = [pd.read_csv(folder / "history.csv").seconds.tolist() for folder in folders]
    assert weights[0] != weights[1] and "Going on" not in capsys.readouterr().out
    kept = runs.table(tmp_path)
    assert set(kept.run) == {"seed-42", "seed-43"} and set(kept.seed) == {42, 43}
    assert kept.epochs.tolist() == [[1, 1]] * 2
    again = train.repeat(drawn, tmp_path, 1, 1, seeds=2, final=False, **SMALL)
    assert capsys.readouterr().out.count("Going on after epoch 0") == 4
    pd.testing.assert_frame_equal(found, again)
    assert [(folder / "model.safetensors").read_bytes() for folder in folders] == weights
    assert [pd.read_csv(folder / "history.csv").seconds.tolist() for folder in folders] == seconds


# What a run tells


def test_a_run_tells_its_protocol_machine_and_commit(export):
    told = json.loads((export / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    same = {
        name: config[name] for name in ("name", "size", "resize", "split", "parts", "batch_size")
    }
    assert told["protocol"].items() >= {**same, "epochs": [1, 1]}.items() and told["seed"] == 42
    assert told["versions"] == config["versions"] and told["data_hash"] == config["data_hash"]
    assert (
        told["machine"]["processor"] and told["machine"]["cores"] >= 1 and told["machine"]["device"]
    )
    assert told["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", told["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", told["date"])


def git(folder: Path, *words) -> str:
    own = (
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b.example",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "core.hooksPath=",
    )
    ran = subprocess.run(
        ["git", "-C", folder, *own, *words], check=True, capture_output=True, text=True
    )
    return ran.stdout.strip()


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_the_commit_is_that_of_the_checkout_around_the_code(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert machine.commit_of(tmp_path) == commit
    (tmp_path / "notes.txt").write_text("not a part of it\n")
    assert machine.commit_of(tmp_path) == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert machine.commit_of(tmp_path) == f"{commit}+changes"
    (inside := tmp_path / "lib/site-packages").mkdir(parents=True)
    assert machine.commit_of(inside) is None


def test_outside_a_checkout_and_without_git_there_is_no_commit(tmp_path, monkeypatch):
    assert machine.commit_of(tmp_path) is None
    (tmp_path / ".git").mkdir()  # not a repository
    assert machine.commit_of(tmp_path) is None
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.commit_of(Path(artclf.__file__).parents[2]) is None


def test_the_machine_is_told_without_a_list_of_processors(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)
    for name, told in (("i386", "i386"), ("", "arm64")):
        monkeypatch.setattr(
            machine,
            "platform",
            SimpleNamespace(processor=lambda n=name: n, machine=lambda: "arm64"),
        )
        assert machine.processor() == told


def test_a_readable_folder_warns_of_nothing(exports):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.text(runs.table(exports))
