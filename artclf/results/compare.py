"""The comparison of two runs: what differs on the pictures that both were tested on, as a page.

Reads the predictions of both, and writes `OTHER/compare-<name of ONE>.html`.
"""

from pathlib import Path

from artclf.base.errors import InputError
from artclf.base.files import read_json
from artclf.results import evaluation, significance
from artclf.results.pages import cards, render

SHOWN = 40  # pictures a side in a comparison


def compare(one, other, data, out=None, part="test") -> dict:
    """Write what two runs differ in, on the pictures that both have in `part`, to a page: its path,
    and the figures.

    `one` and `other` are export folders; `out` is `OTHER/compare-<name of ONE>.html` by default.
    Raises ValueError where their classes differ or no picture is in both parts, and what
    `interpret.read` raises.
    """
    folders = [Path(one), Path(other)]
    runs = [evaluation.of_part(evaluation.read(folder, data), part) for folder in folders]
    rows = paired(*runs, folders)
    names = [folder.resolve().name for folder in folders]
    if names[0] == names[1]:
        names = [folder.as_posix() for folder in folders]
    found, file = (
        differences(*rows),
        Path(out) if out else folders[1] / f"compare-{folders[0].resolve().name}.html",
    )
    text = render(
        "compare.html",
        names=names,
        part=part,
        counts=[len(run) for run in runs],
        found=found,
        periods=by_period(*rows).reset_index().to_dict("records"),
        changed=_changed(folders),
        sides=[_won(*rows, data), _won(*rows[::-1], data)],
        labels=significance.FIGURES,
    )
    file.write_text(text, encoding="utf-8")
    figures = {
        f"{name}_{key}": value
        for name, row in found.pop("figures").items()
        for key, value in row.items()
    }
    return {"page": str(file), "part": part, **found, **figures}


def _changed(folders) -> dict:
    """The settings of `config.json` in which two runs differ, each with both values."""
    one, other = (read_json(Path(folder) / "config.json") for folder in folders)
    derived = ("hashes", "mean", "std", "temperature")  # they follow from others
    return {
        name: (one.get(name), other.get(name))
        for name in one | other
        if one.get(name) != other.get(name) and name not in derived
    }


def paired(one, other, folders=("one run", "the other")) -> tuple:
    """The rows of two runs for the pictures that both have, in one order: two DataFrames.

    A picture that was given another period since counts in neither. Raises ValueError where there
    is none, or where the runs have other classes.
    """
    a, b = folders
    own, others = (set(evaluation.scores(run)) for run in (one, other))
    if own != others:
        raise InputError(
            f"{a} and {b} have different classes ({', '.join(sorted(own ^ others)[:5])} in one of them "
            "alone): compare runs that were trained on the same ones"
        )
    keys = one[["file", "period"]].merge(other[["file", "period"]])
    if keys.empty:
        raise InputError(
            f"no picture is in the same part of both {a} and {b}: train both on the same data, "
            "with the same --split, --parts and --seed"
        )
    return keys.merge(one, how="left"), keys.merge(other, how="left")


def differences(one, other) -> dict:
    """The figures of two runs on the same pictures (`paired`), and whether they differ: a dict.

    `images`, McNemar's `only_one`, `only_other` and `p`, `units`, what was drawn for the intervals,
    and `figures`: for each of accuracy, macro F1 and distance `one`, `other`, their `difference`
    (other - one), and its 95% interval `low` and `high` by the paired bootstrap.
    """
    groups, word = significance.units(one)
    draws = [significance.bootstrap(run, groups) for run in (one, other)]
    table, found = significance.interval(draws[1] - draws[0]), {}
    both = [evaluation.metrics(run.assign(part="both"))["both"] for run in (one, other)]
    for name in significance.FIGURES:
        a, b = (figures[name] for figures in both)
        found[name] = {
            "one": a,
            "other": b,
            "difference": b - a,
            "low": table.low[name],
            "high": table.high[name],
        }
    return {
        "images": len(one),
        **significance.mcnemar(one.period == one.predicted, other.period == other.predicted),
        "units": f"{groups.nunique()} {word}",
        "figures": found,
    }


def by_period(one, other):
    """How many of each period two runs have right (`paired`): a DataFrame, a row a period, in time
    order.

    Columns `images`, `recall_one`, `recall_other`, McNemar's `only_one`, `only_other` and `p`, and
    `p_holm`, adjusted for there being as many tests as periods.
    """
    import pandas as pd

    found = {}
    for name in evaluation.classes(one):
        of = (one.period == name).to_numpy()
        if not of.any():
            continue
        right = [(run.predicted[of] == name).to_numpy() for run in (one, other)]
        found[name] = {
            "images": int(of.sum()),
            "recall_one": right[0].mean(),
            "recall_other": right[1].mean(),
            **significance.mcnemar(*right),
        }
    table = pd.DataFrame.from_dict(found, orient="index").rename_axis("period")
    return table.assign(p_holm=significance.holm(table.p))


def _won(winner, loser, data) -> list[tuple]:
    """Pictures that one run alone has right, as rows of the other with their thumbnails; its surest
    errors first.
    """
    rows = loser[(winner.period == winner.predicted) & (loser.period != loser.predicted)]
    rows = rows.assign(right_probability=winner.probability[rows.index])
    return cards(rows.sort_values("probability", ascending=False, kind="stable").head(SHOWN), data)
