"""The recipe of a run, and the command that repeats it."""

import inspect
import json
import shlex
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from artclf import cli, predict, train
from artclf.base.files import read_json
from artclf.commands import options, training
from artclf.data.pictures import SIZE
from artclf.results.recipe import DEFAULTS, EXPERIMENTS, Recipe, command, recipe_of

HEAD = (4, 1e-3, 1e-3, 1)  # epochs, lowest and highest rate, groups that learn
SLOW = (1e-5, 1e-4)


def fits(*rows, groups=4, scheduled="lr mom") -> list[dict]:
    """Fits as `metrics.json` has them."""
    names = ("epochs", "lr_low", "lr_high", "learning")
    common = {"groups": groups, "scheduled": scheduled}
    return [{**dict(zip(names, row, strict=True)), **common} for row in rows]


@pytest.fixture
def config(export) -> dict:
    return read_json(export / "config.json")


def text_of(config, *rows, **kwargs) -> str:
    return command({"recipe": recipe_of(config, fits(*rows, **kwargs))}, "d", "e")


def test_settings_have_one_default_everywhere():
    arguments = {}
    for function in (train.learner, train.fit):
        arguments |= inspect.signature(function).parameters
    of_command = inspect.signature(training.train).parameters
    for field in fields(Recipe):
        assert arguments[field.name].default == field.default
        if field.name not in ("parts", "exclude"):  # texts and lists on the command line
            assert of_command[field.name].default == field.default
    assert options.parse_parts(of_command["parts"].default) == DEFAULTS.parts
    for name, value in EXPERIMENTS.items():
        assert arguments[name].default == value and name not in of_command


def test_an_export_holds_its_recipe(export, monkeypatch):
    metrics = read_json(export / "metrics.json")
    expected = {
        **json.loads(json.dumps(asdict(DEFAULTS))),
        "arch": "efficientnet_lite0",
        "epochs": 1,
        "unfrozen_epochs": 1,
        "split": "grouped",  # what auto chose
        "final": False,
        "size": 64,
        "batch_size": 8,
    }
    assert metrics["recipe"] == expected
    monkeypatch.chdir(Path(__file__).parents[2] / "notebooks")
    assert command(metrics, "../data/my pictures", Path("..", "exports", "x")) == (
        "artclf train --data 'data/my pictures' --out exports/x --arch efficientnet_lite0 "
        "--epochs 1 --size 64 --batch-size 8 --split grouped --no-final"
    )
    usual = command({"recipe": expected}, "../data/sample", "../exports/sample")
    assert "--data" not in usual and "--out" not in usual


def test_the_command_of_an_older_export_names_what_it_did_not_have(export):
    recipe = read_json(export / "metrics.json")["recipe"]
    older = {name: value for name, value in recipe.items() if name not in ("tau", "final")}
    told = command({"recipe": older}, "../data/sample", "../exports/sample")
    assert "--tau 0.0" in told and "--no-final" in told
    assert "--tau" not in command({"recipe": recipe}, "../data/sample", "../exports/sample")


def test_the_command_hands_all_settings_to_fit(config, monkeypatch):
    changes = {
        "exclude": ["a", "b c"],
        "balance": False,
        "parts": [80, 10.5, 9.5],
        "weights": "random",
        "split": "artist",
        "size": 224,
        "batch_size": 32,
        "seed": 7,
        "lr": 0.01,
        "precision": "bfloat16",
        "cached": False,
    }
    rows = (15, 0.01, 0.01, 4), (1, 1e-4, 1e-3, 2), (1, 1e-4, 1e-3, 3), (2, 1e-4, 1e-3, 4)
    given = {}
    monkeypatch.setattr(train, "fit", lambda *args, **kwargs: given.update(args=args, **kwargs))
    monkeypatch.setattr(predict, "headline", lambda out: {})
    monkeypatch.setattr("sys.argv", shlex.split(text_of({**config, **changes}, *rows)))
    with pytest.raises(SystemExit):
        cli.main()
    expected = {
        **changes,
        "parts": (80, 10.5, 9.5),
        "pretrained": False,
        "args": ("d", Path("e"), 15, 2, 0.01, True, False),
    }
    del expected["weights"], expected["lr"]
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"artists": ["x"]},
        {"split": "table"},
        {"callbacks": ["Sampler"]},
        {"arguments": ["loss_func"]},
        {"depth": 1},
        {"width": 64},
        {"pool": "last"},
        {"views": 4},
    ],
    ids=str,
)
def test_what_the_command_cannot_do_has_no_recipe(config, changes):
    assert recipe_of(config, fits(HEAD)) is not None
    assert recipe_of({**config, **changes}, fits(HEAD)) is None


def test_without_fits_or_settings_there_is_no_recipe(config):
    assert recipe_of(config, []) is None and recipe_of({}, fits(HEAD)) is None
    assert command({}, "d", "e") == command({"recipe": None}, "d", "e") == ""


def test_the_fits_of_the_command_are_told_by_its_options(config):
    usual = text_of(config, HEAD, (1, *SLOW, 4))
    assert "--epochs 4" in usual and "--unfrozen" not in usual and "--gradual" not in usual
    assert "--epochs 4 --unfrozen-epochs 0" in text_of(config, HEAD)
    gradual = text_of(config, HEAD, (1, *SLOW, 2), (1, *SLOW, 3), (1, *SLOW, 4))
    assert "--gradual" in gradual and "--unfrozen" not in gradual


@pytest.mark.parametrize(
    "rows",
    [
        [(2, *SLOW, 4)],
        [HEAD, HEAD],
        [HEAD, (1, *SLOW, 2)],
        [HEAD, (1, *SLOW, 2), (1, *SLOW, 3)],
        [HEAD, (2, 1e-6, 1e-4, 4)],
        [HEAD, (2, *SLOW, 4), (2, *SLOW, 4)],
    ],
    ids=str,
)
def test_other_fits_have_no_recipe(config, rows):
    assert text_of(config, *rows) == ""
    assert text_of(config, HEAD, scheduled="lr") == ""


def test_the_default_size_is_that_of_stored_features_and_drawn_canvases():
    assert DEFAULTS.size == SIZE
