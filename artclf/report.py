"""The report of a run, and the comparison of two: all that is known as one HTML page, without a network, to be printed.

Reads the predictions (`interpret.read`), `EXPORT/` and the pictures in `DATA`. `interpret.write` writes the report,
`compare` the comparison.
"""
import base64
import inspect
import math
import os
import shlex
from pathlib import Path

from artclf import calibration, explorer, interpret, significance

HOW_SPLIT = {"random": "by chance", "grouped": "so that copies of a picture lie in one part",
             "artist": "so that all pictures of a painter lie in one part", "own": "as the list of pictures says"}
SHOWN = 40  # pictures a side in a comparison


def page(predictions, data, out, part="test", n=12) -> str:
    """All that is known of a run as one HTML page; reads `config.json`, `metrics.json` and the plots of `out`."""
    from markupsafe import Markup
    config, kept = interpret.kept(out, "config.json"), interpret.kept(out, "metrics.json")
    pairs = [(pair, _cards(interpret.behind(predictions, pair, part).head(4), data))
             for pair in interpret.most_confused(predictions, 8, part).itertuples()]
    low_high, units = intervals(predictions, part)
    return _render(
        "report.html", part=part, figures=interpret.metrics(predictions), intervals=low_high, units=units, pairs=pairs,
        frame=Markup(explorer.frame(predictions, data, part, out=out)),
        table=interpret.per_class(predictions).to_dict("index"),
        plots={path.stem: _svg(path) for path in sorted((Path(out) / "plots").glob("*.svg"))},
        calibration=kept.get("calibration", {}), error=calibration.error(interpret.of_part(predictions, part)),
        answerable=calibration.answerable(predictions, part).to_dict("records"),
        by={fact: interpret.errors_by(predictions, fact, part).head(20).reset_index().to_dict("records")
            for fact in ("artist", "source")},
        sure=_cards(interpret.surest(predictions, False, n, part), data),
        unsure=_cards(interpret.least_sure(predictions, n, part), data), typical=_typical(predictions, data, part),
        config=config, kept=kept, how_split=HOW_SPLIT.get(config.get("split"), "as a table of its own says"),
        command=command(config, kept, data, out))


def intervals(predictions, part="test") -> tuple[dict, str]:
    """The 95% intervals of accuracy, macro F1 and distance, `{name: (low, high)}`, and what was drawn for them."""
    rows = interpret.of_part(predictions, part)
    groups, word = significance.units(rows)
    if len(rows) < 2: return {}, word
    table = significance.interval(significance.bootstrap(rows, groups))
    return {row.Index: (row.low, row.high) for row in table.itertuples()}, f"{groups.nunique()} {word}"


def command(config: dict, kept: dict, data, out) -> str:
    """The command that trains the same network, with every setting that isn't the default; '' where there is none.

    There is none for a network with a head for artists, a cut of its own, callbacks or arguments that the command
    doesn't have, nor for other fits than the command's.
    """
    from artclf import cli
    fits = (kept.get("protocol") or {}).get("fits") or []
    own = config.get("artists") or config.get("callbacks") or config.get("arguments") or config.get("split") == "table"
    if own or not fits or not {"name", "weights", "parts", "lr"} <= set(config): return ""
    recipe = {"epochs": fits[0]["epochs"], "unfrozen_epochs": fits[-1]["epochs"] if fits[1:] else 0, "lr": config["lr"],
              "gradual": len(fits) > 2}
    if not _alike(fits, _fits(**recipe, groups=fits[0]["groups"], frozen=config["weights"] != "random")): return ""
    told = {**config, **recipe, "data": _relative(data), "out": _relative(out), "arch": config["name"],
            "pretrained": config["weights"] != "random", "exclude": config.get("exclude") or None,
            "parts": ",".join(f"{share:g}" for share in config["parts"])}
    usual = {name: setting.default for name, setting in inspect.signature(cli.train).parameters.items()}
    changed = {name: told[name] for name in usual if name in told and told[name] != usual[name]}
    return shlex.join(["artclf", "train", *(word for item in changed.items() for word in _option(*item))])


def _fits(epochs: int, unfrozen_epochs: int, lr: float, gradual: bool, groups: int, frozen: bool) -> list[tuple]:
    """What `train.fit` does: epochs, lowest and highest learning rate, and groups that learn, of each fit."""
    first, slow = (epochs, lr, lr, 1 if frozen else groups), (lr / 100, lr / 10)
    return [first, *((1, *slow, number) for number in range(2, groups if gradual else 0)),
            *([(unfrozen_epochs, *slow, groups)] if unfrozen_epochs else [])]


def _alike(fits: list[dict], expected: list[tuple]) -> bool:
    found = [[fit[name] for name in ("epochs", "lr_low", "lr_high", "learning")] for fit in fits]
    return ({fit["scheduled"] for fit in fits} == {"lr mom"} and len(found) == len(expected) and
            all(map(math.isclose, sum(found, []), (number for fit in expected for number in fit))))


def _option(name: str, value) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool): return [f"--{flag}" if value else f"--no-{flag}"]
    return [word for each in (value if isinstance(value, list) else [value]) for word in (f"--{flag}", str(each))]


def _relative(folder) -> str:
    """`folder` as seen from the folder that holds `notebooks/`, where commands are run; from here without one."""
    here = Path.cwd()
    home = next((place for place in (here, *here.parents) if (place / "notebooks").is_dir()), here)
    return Path(os.path.relpath(folder, home)).as_posix()


def _typical(predictions, data, part) -> list[tuple]:
    right = interpret.surest(predictions, True, None, part)
    return [(name, _cards(right[right.period == name].head(4), data)) for name in interpret.classes(predictions)
            if (right.period == name).any()]


def compare(one, other, data, out=None, part="test") -> dict:
    """Write what two runs differ in, on the pictures that both have in `part`, to a page: its path, and the figures.

    `one` and `other` are export folders; `out` is `OTHER/compare-<name of ONE>.html` by default. Raises ValueError
    where their classes differ or no picture is in both parts, and what `interpret.read` raises.
    """
    folders = [Path(one), Path(other)]
    runs = [interpret.of_part(interpret.read(folder, data), part) for folder in folders]
    rows = paired(*runs, folders)
    names = [folder.resolve().name for folder in folders]
    if names[0] == names[1]: names = [folder.as_posix() for folder in folders]
    found, file = differences(*rows), Path(out) if out else folders[1] / f"compare-{folders[0].resolve().name}.html"
    text = _render("compare.html", names=names, part=part, counts=[len(run) for run in runs], found=found,
                   periods=by_period(*rows).reset_index().to_dict("records"), changed=_changed(folders),
                   sides=[_won(*rows, data), _won(*rows[::-1], data)], labels=significance.FIGURES)
    file.write_text(text, encoding="utf-8")
    figures = {f"{name}_{key}": value for name, row in found.pop("figures").items() for key, value in row.items()}
    return {"page": str(file), "part": part, **found, **figures}


def _changed(folders) -> dict:
    """The settings of `config.json` in which two runs differ, each with both values."""
    one, other = (interpret.kept(folder, "config.json") for folder in folders)
    derived = ("hashes", "mean", "std", "temperature")  # they follow from others
    return {name: (one.get(name), other.get(name)) for name in one | other
            if one.get(name) != other.get(name) and name not in derived}


def paired(one, other, folders=("one run", "the other")) -> tuple:
    """The rows of two runs for the pictures that both have, in one order: two DataFrames.

    A picture that was given another period since counts in neither. Raises ValueError where there is none, or where the
    runs have other classes.
    """
    a, b = folders
    own, others = (set(interpret.scores(run)) for run in (one, other))
    if own != others:
        raise ValueError(f"{a} and {b} have different classes ({', '.join(sorted(own ^ others)[:5])} in one of them "
                         "alone): compare runs that were trained on the same ones")
    keys = one[["file", "period"]].merge(other[["file", "period"]])
    if keys.empty: raise ValueError(f"no picture is in the same part of both {a} and {b}: train both on the same data, "
                                    "with the same --split, --parts and --seed")
    return keys.merge(one, how="left"), keys.merge(other, how="left")


def differences(one, other) -> dict:
    """The figures of two runs on the same pictures (`paired`), and whether they differ: a dict.

    `images`, McNemar's `only_one`, `only_other` and `p`, `units`, what was drawn for the intervals, and `figures`: for
    each of accuracy, macro F1 and distance `one`, `other`, their `difference` (other - one), and its 95% interval `low`
    and `high` by the paired bootstrap.
    """
    groups, word = significance.units(one)
    draws = [significance.bootstrap(run, groups) for run in (one, other)]
    table, found = significance.interval(draws[1] - draws[0]), {}
    both = [interpret.metrics(run.assign(part="both"))["both"] for run in (one, other)]
    for name in significance.FIGURES:
        a, b = (figures[name] for figures in both)
        found[name] = {"one": a, "other": b, "difference": b - a, "low": table.low[name], "high": table.high[name]}
    return {"images": len(one), **significance.mcnemar(one.period == one.predicted, other.period == other.predicted),
            "units": f"{groups.nunique()} {word}", "figures": found}


def by_period(one, other):
    """How many of each period two runs have right (`paired`): a DataFrame, a row a period, in time order.

    Columns `images`, `recall_one`, `recall_other`, McNemar's `only_one`, `only_other` and `p`, and `p_holm`, adjusted
    for there being as many tests as periods.
    """
    import pandas as pd
    found = {}
    for name in interpret.classes(one):
        of = (one.period == name).to_numpy()
        if not of.any(): continue
        right = [(run.predicted[of] == name).to_numpy() for run in (one, other)]
        found[name] = {"images": int(of.sum()), "recall_one": right[0].mean(), "recall_other": right[1].mean(),
                       **significance.mcnemar(*right)}
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("period")
    return table.assign(p_holm=significance.holm(table.p))


def _won(winner, loser, data) -> list[tuple]:
    """Pictures that one run alone has right, as rows of the other with their thumbnails; its surest errors first."""
    rows = loser[(winner.period == winner.predicted) & (loser.period != loser.predicted)]
    rows = rows.assign(right_probability=winner.probability[rows.index])
    return _cards(rows.sort_values("probability", ascending=False, kind="stable").head(SHOWN), data)


def _render(template: str, **content) -> str:
    from jinja2 import Environment, FileSystemLoader
    pages = Environment(loader=FileSystemLoader(explorer.TEMPLATES), autoescape=True, trim_blocks=True,
                        lstrip_blocks=True)
    missing = lambda value: value is None or math.isnan(value)
    pages.filters |= {"percent": lambda value: "–" if missing(value) else f"{100 * value:.1f}%",
                      "number": lambda value: "–" if missing(value) else f"{value:.2f}",
                      "fine": lambda value: "–" if missing(value) else f"{value:.3f}",
                      "p": lambda value: "< 0.001" if value < .001 else f"{value:.3f}"}
    return pages.get_template(template).render(**content)


def _cards(rows, data) -> list[tuple]:
    return list(zip(rows.itertuples(), explorer.thumbnails(rows.file, data, 224), strict=True))


def _svg(path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
