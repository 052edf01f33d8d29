"""The command line: exit codes, one line that says what to do, one JSON object on standard
output.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from artclf import clean, cli
from artclf.data.catalogue import read_catalogue
from artclf.data.gallery import serve

COMMANDS = (
    "sample",
    "search",
    "download",
    "import",
    "clean",
    "data",
    "review",
    "train",
    "measure",
    "interpret",
    "export",
    "push",
    "predict",
    "similar",
    "serve",
    "report",
    "restyle",
    "run",
    "runs",
    "painters",
)


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture
def artclf(command):
    return command


def strict(text: str) -> dict:
    """`text` as one JSON object, without NaN and Infinity, which are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def test_help_of_every_command(artclf):
    code, out, _ = artclf("--help")
    assert code == 0 and all(re.search(rf"^\s*{command}\b", out, re.M) for command in COMMANDS)
    for command in COMMANDS:
        code, out, err = artclf(command, "--help")
        assert (
            code == 0
            and err == ""
            and f"{command} " in out.splitlines()[0 if out.startswith("Usage") else 1]
        )
        options = {
            "download": "--lists --data --json",
            "clean": "--data --json",
            "train": "--data --out --json --arch",
            "interpret": "--data --out",
            "export": "--onnx --int8 --data --json",
            "predict": "--out --backend --json --save",
            "similar": "--out --data --period --painter --years --by --among --index --json",
            "serve": "--data --port --bind --token",
            "restyle": "--like --data --out --keep-colours",
            "run": "--lists --parameter",
        }
        assert all(option in out for option in options.get(command, "").split())


def test_help_is_light_and_importing_says_nothing():
    heavy = (
        "torch",
        "fastai",
        "pandas",
        "matplotlib",
        "numpy",
        "PIL",
        "aiohttp",
        "sklearn",
        "nbformat",
    )
    code = (
        f"import sys, artclf.cli; sys.argv = ['artclf', '--help']\ntry: artclf.cli.main()\n"
        f"finally: print('LOADED', [m for m in {heavy} if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "LOADED []" and ran.stderr == ""


BAD = [
    "train --parts 70,30",
    "train --parts a,b,c",
    "train --parts=0,50,50",
    "train --resize stretch",
    "train --epochs x",
    "train --colour red",
    "paint",
    "predict",
    "import",
    "search query",
    "predict a.jpg -k 3",
]


@pytest.mark.parametrize("args", BAD)
def test_bad_arguments_are_exit_code_2(artclf, args):
    code, out, err = artclf(*args.split())
    assert code == 2 and out == "" and "Error" in err


NO_SENSE = {
    "sample": "--count 0,--count -1,--size 63,--seed -1",
    "search q --period x": "--max 0,--max -5",
    "download": "--max-per-period 0,--per-host 0,--total -1,--deadline 0,--deadline nan,--deadline inf",
    "clean": "--max-size 0,--max-size -1,--quality 0,--quality 500",
    "train": "--lr nan,--lr 1e+30,--lr 0,--lr -1,--epochs -1,--epochs 0,--unfrozen-epochs -1,--size 0,"
    "--batch-size 1,--seed -1,--dropout nan,--dropout 1,--dropout -0.1,--ridge nan,--ridge -1,"
    "--ridge inf,--unfreeze-from 5,--unfreeze-from -1,--seeds 0,--parts nan;15;15,--parts 70;inf;15",
    "predict a.jpg": "--k 0,--k -1,--min-probability nan,--min-probability 1.1",
    "similar a.jpg": "--k 0,--k -1",
    "serve": "--port -1,--port 70000,--rate nan,--queue 0",
    "restyle a.jpg --like b.jpg": "--size 0,--steps 0,--style-weight nan,--style-weight -1",
    "interpret": "--part tset",
    "report exports": "--part tset",
    "painters": "--depth -1,--depth 0,--epochs -1,--size 0,--neurons 0,--seed -1,--pooling median,"
    "--activation x",
}


@pytest.mark.parametrize(
    "step, option",
    [(command, option) for command, options in NO_SENSE.items() for option in options.split(",")],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_range(
    artclf, step, option, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name, value = option.replace(";", ",").split()
    code, out, err = artclf(*step.split(), name, value)
    said = " ".join(err.split())
    assert (code, out) == (2, "") and name in said and value in said
    assert re.search(r"take a (whole )?number from \d+ to \d+|is not one of '|three shares", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "parameter",
    ["EPOCHS=-1", "LR=nan", "LR=1e30", "SIZE=0", "MAX_SIZE=0", "QUALITY=500", "K=0", "SURE=2"]
    + ["CANVASES=0", "EPOCHS=None", "EPOCHS=many", "PARTS=70", "PARTS=(1,nan,1)", "N=-1"],
)
def test_notebooks_do_not_start_with_a_parameter_that_makes_no_sense(
    artclf, parameter, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = artclf("run", "-p", parameter)
    assert (code, out) == (2, "") and err.startswith("artclf: ")
    assert re.search("take a (whole )?number from|give three shares", err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args, words",
    [
        (
            ("clean", "--data", "nothing"),
            "`artclf download --lists FOLDER --data nothing` or `artclf import FOLDER --data nothing` first",
        ),
        (
            ("train", "--data", "nothing", "--arch", "efficientnet_lite0"),
            "nothing: run `artclf download --lists FOLDER --data nothing`",
        ),
        (("train", "--data", "nothing", "--arch", "no-net"), "no architecture is called 'no-net'"),
        (("interpret", "--out", "nothing"), "run `artclf train` first"),
        (
            ("predict", "a.jpg", "--out", "nothing"),
            "no export in nothing: run `artclf train` first",
        ),
        (("download", "--lists", "nothing"), "no urls_*.csv in nothing"),
        (("import", "nothing"), "nothing is not a folder"),
        (("run", "nothing"), "nothing is not a folder"),
        (("run", "-p", "COLOUR=red"), "'COLOUR=red' is not NAME=VALUE"),
        (("run", "-p", "SIZE"), "'SIZE' is not NAME=VALUE"),
        (("run", ".", "--lists", "."), "not both"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_exit_code_1_and_one_line(
    artclf, args, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = artclf(*args)
    assert code == 1 and out == ""
    assert err.startswith("artclf: ") and len(err.strip().splitlines()) == 1 and words in err
    assert not list(tmp_path.rglob("*.db"))


def shapes_of_numpy(*args):
    return np.zeros(2) + np.zeros(3)


def shapes_of_torch(*args):
    return torch.zeros(2) @ torch.zeros(3)


@pytest.mark.parametrize(
    "bug, error, message",
    [
        (shapes_of_numpy, ValueError, "could not be broadcast"),
        (shapes_of_torch, RuntimeError, "inconsistent tensor size"),
        (lambda *args: {}["absent"], KeyError, "absent"),
    ],
)
def test_a_bug_shows_its_traceback(monkeypatch, bug, error, message):
    monkeypatch.setattr(clean, "clean_all", bug)
    monkeypatch.setattr(sys, "argv", ["artclf", "clean"])
    with pytest.raises(error, match=message) as raised:
        cli.main()
    assert not isinstance(raised.value, cli.EXPECTED)


def test_the_command_line_leaves_the_filters_of_warnings_as_they_were(artclf):
    before = list(warnings.filters)
    artclf("runs", "nothing")
    assert warnings.filters == before


def test_the_traceback_can_be_had(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARTCLF_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["artclf", "clean"])
    with pytest.raises(FileNotFoundError):
        cli.main()


@pytest.mark.slow
def test_sources_are_levelled(artclf, drawn, tmp_path):
    code, out, _ = artclf(
        "import", drawn / "gallery", "--data", tmp_path / "level", "--level-sources"
    )
    table = read_catalogue(tmp_path / "level")
    assert code == 0 and len(table) == 40 and "05-baroque" in out
    assert (
        set(zip(table.width, table.height, strict=True)) == {(224, 224)}
        and table.artist.notna().all()
    )


@pytest.mark.slow
def test_decisions_are_applied_listed_and_exported(artclf, drawn, tmp_path):
    data, given, written = (
        shutil.copytree(drawn, tmp_path / "data"),
        tmp_path / "given.csv",
        tmp_path / "out.csv",
    )
    url = read_catalogue(data).url[0]
    given.write_text(
        f"url,review\n{url},drop\nhttp://a.example/unknown.jpg,keep\n", encoding="utf-8"
    )
    code, out, err = artclf("clean", "--data", data, "--no-near", "--review", given)
    assert code == 0 and "1 decisions applied" in err and "1 are on URLs" in err
    code, out, err = artclf("review", "--data", data, "--no-labels", "--export", written)
    assert "decided (drop)" in out and len(pd.read_csv(written)) == 1
    assert read_catalogue(data).review[0] == "drop"
    code, out, _ = artclf("review", "--data", data)
    assert code == 0 and "doubtful label" in out and read_catalogue(data).doubt.notna().sum() == 39
    code, out, err = artclf("clean", "--data", data, "--review", tmp_path / "no.csv")
    assert code == 1 and "name a review.csv with --review" in err


@pytest.mark.slow
def test_download_and_clean_as_json(artclf, drawn, tmp_path):
    data = tmp_path / "data"
    with serve(drawn / "gallery", tmp_path / "lists", faults=True):
        code, out, err = artclf(
            "download", "--lists", tmp_path / "lists", "--data", data, "--allow-private", "--json"
        )
        summary = strict(out)
        assert code == 0 and len(out.strip().splitlines()) == 1
        rows = pd.DataFrame(summary.values())
        assert rows.ok.sum() >= 40 and rows.failed.sum() > 0 and len(rows) == 5
        code, out, err = artclf(
            "download", "--lists", tmp_path / "lists", "--data", data, "--allow-private"
        )
        assert code == 0 and "05-baroque" in out and "{" in out
    code, out, _ = artclf("clean", "--data", data, "--json")
    assert code == 0 and strict(out)["05-baroque"]["ok"] == 8
    code, out, _ = artclf("clean", "--data", data)
    assert code == 0 and "clean_status" in out


def test_import_says_where_to(artclf, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawn / "gallery", tmp_path / "mine")
    assert artclf("import", "mine", "--json")[0] == 0
    assert (tmp_path / "data/mine/catalogue.db").exists()


def test_train_as_json_is_the_headline(artclf, drawn, export, tmp_path):
    from artclf.predict import headline

    code, out, err = artclf(
        "train",
        "--data",
        drawn,
        "--out",
        tmp_path,
        "--arch",
        "efficientnet_lite0",
        "--size",
        64,
        "--batch-size",
        8,
        "--epochs",
        1,
        "--unfrozen-epochs",
        1,
        "--json",
    )
    assert code == 0 and len(out.strip().splitlines()) == 1
    assert strict(out) == headline(tmp_path) == headline(export)
    assert "Put back the weights" in err and "Traceback" not in err


def test_train_hands_every_option_on(artclf, monkeypatch, tmp_path):
    from artclf import predict, train

    asked = {}
    monkeypatch.setattr(train, "fit", lambda *args, **kwargs: asked.update(kwargs, args=args))
    monkeypatch.setattr(predict, "headline", lambda out: {})
    options = {
        "arch": "a",
        "epochs": 3,
        "unfrozen_epochs": 5,
        "lr": 0.1,
        "size": 99,
        "resize": "pad",
        "batch_size": 9,
        "split": "artist",
        "parts": "60,20,20",
        "seed": 8,
        "dropout": 0.2,
        "ridge": 0.7,
        "tau": 0.4,
        "data": "d",
        "out": "o",
        "unfreeze_from": 1,
        "precision": "bfloat16",
        "weights": "mine.pth",
    }
    args = []
    for name, value in options.items():
        args += [f"--{name.replace('_', '-')}", str(value)]
    flags = "--exclude x --exclude y --no-pretrained --no-balance --gradual --no-final --no-cached"
    assert artclf("train", *args, *flags.split())[0] == 0
    given = ("d", Path("o"), 3, 5, 0.1, True, False)
    for name in ("data", "out", "epochs", "unfrozen_epochs", "lr"):
        del options[name]
    wanted = {
        **options,
        "parts": (60, 20, 20),
        "exclude": ["x", "y"],
        "pretrained": False,
        "balance": False,
        "cached": False,
        "map_jobs": None,
        "args": given,
    }
    assert asked == wanted


def test_predict_as_json_and_as_a_table(artclf, drawn, export, tmp_path):
    file = next((drawn / "clean/05-baroque").iterdir())
    (tmp_path / "page.jpg").write_text("<html>")
    code, out, err = artclf(
        "predict", file, tmp_path / "page.jpg", "--out", export, "--json", "--k", 2
    )
    found = strict(out)
    assert code == 0 and err == "" and len(out.strip().splitlines()) == 1
    assert (
        found["0"]["image"] == str(file)
        and len(found["0"]["top"]) == 2
        and found["0"]["error"] == ""
    )
    assert found["1"]["error"] == "not an image" and found["1"]["predicted"] is None
    code, out, err = artclf("predict", drawn / "clean/05-baroque", "--out", export)
    assert code == 0 and len(out.splitlines()) == 9 and err == ""


def test_predict_without_a_single_picture_is_exit_code_1(artclf, export, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty").mkdir()
    for args in (
        (tmp_path / "absent.jpg",),
        (tmp_path / "page.jpg", tmp_path / "absent.jpg"),
        (tmp_path / "empty",),
    ):
        code, out, err = artclf("predict", *args, "--out", export)
        assert code == 1 and err.startswith("artclf: ") and len(err.strip().splitlines()) == 1


def test_similar_names_training_pictures(artclf, drawn, export, tmp_path):
    predictions = pd.read_csv(export / "predictions.csv")
    own = predictions.file[predictions.part == "train"].iloc[0]
    (tmp_path / "page.jpg").write_text("<html>")
    asked = ("similar", drawn / own, tmp_path / "page.jpg", "--out", export, "--json")
    code, out, err = artclf(*asked, "--data", drawn, "--k", 2)
    first, second, broken = strict(out).values()
    assert code == 0 and err == ""
    assert first["file"] == own and first["similarity"] == pytest.approx(1, abs=1e-3)
    assert first["artist"] and first["similarity"] > second["similarity"]
    assert broken["error"] == "not an image" and broken["rank"] is None
    period = Path(own).parent.name
    code, out, _ = artclf(*asked, "--period", period, "--k", 3)
    found = [row for row in strict(out).values() if not row["error"]]
    assert code == 0 and {row["period"] for row in found} == {period}
    code, out, _ = artclf(*asked, "--by", "style", "--k", 1)
    found, _ = strict(out).values()
    assert code == 0 and found["file"] == own
    assert found["similarity"] == pytest.approx(1, abs=0.02)
    code, _, err = artclf("similar", tmp_path / "page.jpg", "--out", export)
    assert code == 1 and "not an image" in err


def test_similar_looks_in_a_folder_of_ones_own(artclf, drawn, export, tmp_path):
    own_export = shutil.copytree(export, tmp_path / "out", ignore=shutil.ignore_patterns("models"))
    files = sorted((drawn / "clean").rglob("*.jpg"))[:5]
    (tmp_path / "own").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "own")
    (tmp_path / "own" / "page.jpg").write_text("<html>")
    asked = ("similar", files[2], "--out", own_export, "--among", tmp_path / "own", "--json")
    code, out, err = artclf(*asked, "--by", "0.5", "--k", 9)
    found = list(strict(out).values())
    assert code == 0 and len(found) == 5 and found[0]["file"] == files[2].name
    assert "1 can't be read, such as page.jpg (not an image)" in err
    for option, value in (("--by", "2"), ("--by", "nan"), ("--years", "then")):
        code, out, err = artclf("similar", "a.jpg", option, value)
        assert code == 2 and out == "" and value in err and len(err.splitlines()) == 1


def test_interpret_says_what_it_wrote(artclf, export, drawn, tmp_path):
    out_folder = shutil.copytree(export, tmp_path / "copy", ignore=shutil.ignore_patterns("models"))
    code, out, err = artclf("interpret", "--data", drawn, "--out", out_folder)
    assert (
        code == 0
        and str(out_folder / "report.html") in out
        and (out_folder / "report.html").exists()
    )


@pytest.mark.parametrize("damage", ["garbage", "half", "hole"])
def test_a_damaged_catalogue_is_named_with_what_mends_it(artclf, own_run, damage):
    data, out = own_run
    catalogue = data / "catalogue.db"
    content = catalogue.read_bytes()
    damaged = {
        "garbage": b"x" * 5000,
        "half": content[: len(content) // 2],
        "hole": content[:4096] + bytes(len(content) - 4096),
    }
    catalogue.write_bytes(damaged[damage])
    for step in ("clean", "review --no-labels", f"report {out}", f"import {data / 'gallery'}"):
        code, stdout, err = artclf(*step.split(), "--data", data)
        assert (code, stdout) == (1, "") and err.startswith(f"artclf: {catalogue} is damaged (")
        assert f"`artclf import FOLDER --data {data}`" in err and "Traceback" not in err
    assert catalogue.read_bytes() == damaged[damage]


def test_an_empty_file_is_no_catalogue(artclf, tmp_path):
    (tmp_path / "catalogue.db").touch()
    code, _, err = artclf("train", "--data", tmp_path, "--arch", "efficientnet_lite0")
    assert code == 1 and f"no catalogue in {tmp_path}: run" in err


def test_clean_copies_that_are_gone_are_counted_with_the_command_that_makes_them(
    artclf, own_run, tmp_path
):
    data, out = own_run
    shutil.rmtree(data / "clean")
    new_run = ("--arch", "efficientnet_lite0", "--size", 64, "--out", tmp_path / "new")
    words = rf"40 of 40 clean copies are gone, such as {data}/clean/.*: run `artclf clean --data"
    for step in (("train", *new_run), ("painters", "--out", tmp_path / "new")):
        code, _, err = artclf(*step, "--data", data)
        assert code == 1 and re.search(words, err)
        assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    with pytest.warns(UserWarning, match=f"the report lacks pictures: {words}"):
        assert artclf("report", out, "--data", data)[0] == 0


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", '{"metrics": 3}', '{"metrics": {}}'])
def test_damaged_metrics_are_named_with_the_command_that_makes_them(own_run, content):
    from artclf.base.errors import InputError
    from artclf.predict import headline

    _, out = own_run
    (out / "metrics.json").write_text(content)
    with pytest.raises(InputError) as error:
        headline(out)
    assert str(error.value).startswith(str(out / "metrics.json"))
    assert f"run `artclf train --out {out}` again" in str(error.value)


def test_sample_draws(artclf, tmp_path):
    code, out, _ = artclf("sample", tmp_path / "g", "--count", 1, "--size", 64)
    assert (
        code == 0
        and out.startswith("18 canvases drawn")
        and len(list((tmp_path / "g").rglob("*.jpg"))) == 18
    )
    with Image.open(next((tmp_path / "g").rglob("*.jpg"))) as picture:
        assert max(picture.size) == 64


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupted_training_is_one_line_and_goes_on(drawn, tmp_path):
    code = (
        # a shell may have told its processes to ignore SIGINT
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from artclf.cli import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "train",
        "--data",
        drawn,
        "--out",
        tmp_path,
        "--arch",
        "efficientnet_lite0",
        "--size",
        "64",
        "--batch-size",
        "8",
        "--epochs",
        "30",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "history.csv").exists():
        time.sleep(0.02)
    while (
        process.poll() is None
    ):  # once may be too few: torch loses a signal that comes while its workers shut down
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    err = process.communicate()[1]
    assert process.returncode == 130
    assert err.splitlines()[-1] == "artclf: interrupted; the same command goes on from here"
    assert len(pd.read_csv(tmp_path / "history.csv")) >= 1


def test_canvases_never_go_to_the_data_of_something_else(artclf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = artclf("download", "--data", "data/paintings", "--retry-failed")
    assert code == 2 and "name the URL lists for data/paintings with --lists" in " ".join(
        err.split()
    )
    assert list(tmp_path.iterdir()) == []
