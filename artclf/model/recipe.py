"""The recipe: the settings of `artclf train`, and the command that trains a run once more."""

import inspect
import math
import os
import shlex
from pathlib import Path


def command(config: dict, kept: dict, data, out) -> str:
    """The command that trains the same network, with every setting that isn't the default; '' where
    there is none.

    There is none for a network with a head for artists, a cut of its own, callbacks or arguments
    that the command doesn't have, nor for other fits than the command's.
    """
    from artclf import cli

    fits = (kept.get("protocol") or {}).get("fits") or []
    own = (
        config.get("artists")
        or config.get("callbacks")
        or config.get("arguments")
        or config.get("split") == "table"
    )
    if own or not fits or not {"name", "weights", "parts", "lr"} <= set(config):
        return ""
    recipe = {
        "epochs": fits[0]["epochs"],
        "unfrozen_epochs": fits[-1]["epochs"] if fits[1:] else 0,
        "lr": config["lr"],
        "gradual": len(fits) > 2,
    }
    if not _alike(
        fits, _fits(**recipe, groups=fits[0]["groups"], frozen=config["weights"] != "random")
    ):
        return ""
    told = {
        **config,
        **recipe,
        "data": _relative(data),
        "out": _relative(out),
        "arch": config["name"],
        "pretrained": config["weights"] != "random",
        "exclude": config.get("exclude") or None,
        "parts": ",".join(f"{share:g}" for share in config["parts"]),
    }
    usual = {
        name: setting.default for name, setting in inspect.signature(cli.train).parameters.items()
    }
    changed = {name: told[name] for name in usual if name in told and told[name] != usual[name]}
    return shlex.join(
        ["artclf", "train", *(word for item in changed.items() for word in _option(*item))]
    )


def _fits(
    epochs: int, unfrozen_epochs: int, lr: float, gradual: bool, groups: int, frozen: bool
) -> list[tuple]:
    """What `train.fit` does: epochs, lowest and highest learning rate, and groups that learn, of
    each fit.
    """
    first, slow = (epochs, lr, lr, 1 if frozen else groups), (lr / 100, lr / 10)
    return [
        first,
        *((1, *slow, number) for number in range(2, groups if gradual else 0)),
        *([(unfrozen_epochs, *slow, groups)] if unfrozen_epochs else []),
    ]


def _alike(fits: list[dict], expected: list[tuple]) -> bool:
    found = [[fit[name] for name in ("epochs", "lr_low", "lr_high", "learning")] for fit in fits]
    return (
        {fit["scheduled"] for fit in fits} == {"lr mom"}
        and len(found) == len(expected)
        and all(map(math.isclose, sum(found, []), (number for fit in expected for number in fit)))
    )


def _option(name: str, value) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [
        word
        for each in (value if isinstance(value, list) else [value])
        for word in (f"--{flag}", str(each))
    ]


def _relative(folder) -> str:
    """`folder` as seen from the folder that holds `notebooks/`, where commands are run; from here
    without one.
    """
    here = Path.cwd()
    home = next((place for place in (here, *here.parents) if (place / "notebooks").is_dir()), here)
    return Path(os.path.relpath(folder, home)).as_posix()
