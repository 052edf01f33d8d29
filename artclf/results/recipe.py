"""The recipe: the settings of `artclf train`, and the command that repeats a run.

`predict.export` writes the recipe of a run into `metrics.json`; the report shows its command.
"""

import math
import os
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The settings of `artclf train` and their defaults, for the command, `train.fit` and
    `train.learner` alike.

    `lr` is the highest learning rate of the head; `parts` are the shares of train, valid and test;
    `weights` is a file; `final` says whether the exported network learns from all parts in the end.
    """

    arch: str = "auto"
    epochs: int = 15
    unfrozen_epochs: int = 1
    lr: float = 1e-3
    gradual: bool = False
    size: int = 320
    resize: str = "squish"
    batch_size: int = 32
    split: str = "auto"
    parts: tuple[float, ...] = (70, 15, 15)
    seed: int = 42
    exclude: tuple[str, ...] = ()
    dropout: float = 0.0
    ridge: float = 0.3
    unfreeze_from: int = 4
    balance: bool = True
    tau: float = 0.3
    pretrained: bool = True
    weights: str | None = None
    precision: str = "float32"
    cached: bool = True
    final: bool = True


DEFAULTS = Recipe()
# the settings that older exports don't name, as they were then
NOT_NAMED = {"tau": 0.0, "final": False}
# what an experiment may change, and the command can't
EXPERIMENTS: dict[str, Any] = {"width": 512, "depth": 0, "pool": "style", "views": 2}


def recipe_of(config: dict, fits: list[dict]) -> dict | None:
    """The recipe of a run as a dict, or None where `artclf train` can't repeat it.

    `config` is that of `config.json`, `fits` are those of `metrics.json`'s protocol. None for a
    network with a head for artists, parts given as a table, callbacks, further arguments or
    settings of experiments, and for other fits than those of the command.
    """
    settings_of_its_own = (
        config.get("artists")
        or config.get("callbacks")
        or config.get("arguments")
        or config.get("split") == "table"
        or any(config.get(name, usual) != usual for name, usual in EXPERIMENTS.items())
    )
    has_settings = {"name", "weights", "parts", "lr"} <= set(config)
    if settings_of_its_own or not has_settings or not fits:
        return None
    pretrained = config["weights"] != "random"
    known = {field.name for field in fields(Recipe)} & set(config) - {"weights"}
    recipe = {
        **asdict(DEFAULTS),
        **{name: config[name] for name in known},
        "arch": config["name"],
        "epochs": fits[0]["epochs"],
        "unfrozen_epochs": fits[-1]["epochs"] if len(fits) > 1 else 0,
        "gradual": len(fits) > 2,
        "pretrained": pretrained,
        "weights": _weights_file(config["weights"]),
        "exclude": list(config.get("exclude") or ()),
        "final": False,  # until `predict.export_final`
        "parts": list(config["parts"]),
    }
    expected = expected_fits(recipe, fits[0]["groups"])
    return recipe if _are_alike(fits, expected) else None


def _weights_file(origin: str) -> str | None:
    """The name of the file that weights of that origin came from, `file NAME SHA-256`; None for
    other origins.
    """
    kind, _, rest = origin.partition(" ")
    return rest.rpartition(" ")[0] if kind == "file" else None


def expected_fits(recipe: dict, groups: int) -> list[dict]:
    """The fits of `train.fit`: `epochs`, `lr_low`, `lr_high` and the parameter groups that
    learn.
    """
    lr = recipe["lr"]
    low = {"lr_low": lr / 100, "lr_high": lr / 10}
    learning = 1 if recipe["pretrained"] else groups
    fits = [{"epochs": recipe["epochs"], "lr_low": lr, "lr_high": lr, "learning": learning}]
    if recipe["gradual"]:
        fits += [{"epochs": 1, **low, "learning": number} for number in range(2, groups)]
    if recipe["unfrozen_epochs"]:
        fits.append({"epochs": recipe["unfrozen_epochs"], **low, "learning": groups})
    return fits


def _are_alike(fits: list[dict], expected: list[dict]) -> bool:
    if len(fits) != len(expected):
        return False
    for fit, wanted in zip(fits, expected, strict=True):
        if fit["scheduled"] != "lr mom":  # what fit_one_cycle schedules
            return False
        if not all(math.isclose(fit[name], value) for name, value in wanted.items()):
            return False
    return True


def command(metrics: dict, data, out) -> str:
    """The command that trains the same network, with every setting that isn't the default; '' where
    there is none.

    `metrics` is the content of `metrics.json`. Folders are named as seen from the folder that holds
    `notebooks/`, where commands are run.
    """
    recipe = metrics.get("recipe")
    if not recipe:
        return ""
    words = ["artclf", "train"]
    for name, folder, usual in (
        ("data", data, "data/sample"),
        ("out", out, "exports/sample"),
    ):
        folder = _relative(folder)
        if folder != usual:
            words += [f"--{name}", folder]
    usual_values = json_like(asdict(DEFAULTS))
    settings = {**NOT_NAMED, **recipe}
    for name, usual_value in usual_values.items():
        if settings.get(name, usual_value) != usual_value:
            words += _option(name, settings[name])
    return shlex.join(words)


def json_like(settings: dict) -> dict:
    """`settings` with lists for tuples, as JSON has them."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
    }


def _option(name: str, value) -> list[str]:
    """A setting as words of the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if name == "parts":
        return ["--parts", ",".join(f"{share:g}" for share in value)]
    values = value if isinstance(value, list) else [value]
    words = []
    for each in values:
        words += [f"--{flag}", str(each)]
    return words


def _relative(folder) -> str:
    """`folder` as seen from the folder that holds `notebooks/`; from here where there is none."""
    here = Path.cwd()
    home = here
    for place in (here, *here.parents):
        if (place / "notebooks").is_dir():
            home = place
            break
    return Path(os.path.relpath(folder, home)).as_posix()
