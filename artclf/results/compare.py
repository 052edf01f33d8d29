"""The comparison of two runs: what differs on the pictures that both were tested on, as a page.

Reads the predictions of both, and writes `OTHER/compare-<name of ONE>.html`.
"""

from pathlib import Path

from artclf.base.errors import InputError
from artclf.base.files import read_json, write_text
from artclf.results import evaluation, significance
from artclf.results.pages import cards, render

SHOWN = 40  # pictures a side
# settings of config.json that follow from others
DERIVED = ("bodies", "hashes", "mean", "std", "temperature")


def compare_runs(one, other, data, out=None, part="test") -> dict:
    """Write the differences of two runs, on the pictures that both have in `part`, to a page;
    return its path, and the figures.

    `one` and `other` are export folders; `out` is `OTHER/compare-<name of ONE>.html` by default.
    Raises InputError where their classes differ or no picture is in both parts, and what
    `evaluation.read` raises.
    """
    folders = [Path(one), Path(other)]
    runs = [evaluation.of_part(evaluation.read(folder, data), part) for folder in folders]
    rows_of_one, rows_of_other = paired(runs[0], runs[1], folders)
    found = differences(rows_of_one, rows_of_other)
    text = render(
        "compare.html",
        names=_names(folders),
        part=part,
        counts=[len(run) for run in runs],
        found=found,
        periods=by_period(rows_of_one, rows_of_other).reset_index().to_dict("records"),
        changed=_changed_settings(folders),
        sides=[_won(rows_of_one, rows_of_other, data), _won(rows_of_other, rows_of_one, data)],
        labels=significance.FIGURES,
    )
    file = Path(out) if out else folders[1] / f"compare-{folders[0].resolve().name}.html"
    write_text(file, text)
    summary = {"page": str(file), "part": part}
    for name, value in found.items():
        if name != "figures":
            summary[name] = value
    for name, row in found["figures"].items():
        for key, value in row.items():
            summary[f"{name}_{key}"] = value
    return summary


def _names(folders: list[Path]) -> list[str]:
    """The names of the folders; their paths where the names are equal."""
    names = [folder.resolve().name for folder in folders]
    if names[0] == names[1]:
        return [folder.as_posix() for folder in folders]
    return names


def _changed_settings(folders: list[Path]) -> dict:
    """The settings of `config.json` in which two runs differ, each with both values."""
    one = read_json(folders[0] / "config.json")
    other = read_json(folders[1] / "config.json")
    changed = {}
    for name in one | other:
        if one.get(name) != other.get(name) and name not in DERIVED:
            changed[name] = (one.get(name), other.get(name))
    return changed


def paired(one, other, folders=("one run", "the other")) -> tuple:
    """The rows of two runs for the pictures that both have, in one order: two DataFrames.

    A picture that was given another period since counts in neither. Raises InputError where there
    is none, or where the runs have other classes.
    """
    classes_of_one = set(evaluation.scores(one))
    classes_of_other = set(evaluation.scores(other))
    if classes_of_one != classes_of_other:
        names = ", ".join(sorted(classes_of_one ^ classes_of_other)[:5])
        raise InputError(
            f"{folders[0]} and {folders[1]} have different classes ({names} in one of them alone): "
            "compare runs that were trained on the same ones"
        )
    keys = one[["file", "period"]].merge(other[["file", "period"]])
    if keys.empty:
        raise InputError(
            f"no picture is in the same part of both {folders[0]} and {folders[1]}: train both on "
            "the same data, with the same --split, --parts and --seed"
        )
    return keys.merge(one, how="left"), keys.merge(other, how="left")


def differences(one, other) -> dict:
    """The figures of two runs on the same pictures (`paired`), and whether they differ: a dict.

    `images`, McNemar's `only_one`, `only_other` and `p`, `units`, what was drawn for the intervals,
    and `figures`: for each of accuracy, macro F1 and distance `one`, `other`, their `difference`
    (other - one), and its 95% interval `low` and `high` by the paired bootstrap.
    """
    groups, kind = significance.units(one)
    draws_of_one = significance.bootstrap(one, groups)
    draws_of_other = significance.bootstrap(other, groups)
    interval = significance.interval(draws_of_other - draws_of_one)
    metrics_of_one = evaluation.metrics(one.assign(part="both"))["both"]
    metrics_of_other = evaluation.metrics(other.assign(part="both"))["both"]
    figures = {}
    for name in significance.FIGURES:
        figures[name] = {
            "one": metrics_of_one[name],
            "other": metrics_of_other[name],
            "difference": metrics_of_other[name] - metrics_of_one[name],
            "low": interval.low[name],
            "high": interval.high[name],
        }
    return {
        "images": len(one),
        **significance.mcnemar(one.period == one.predicted, other.period == other.predicted),
        "units": f"{groups.nunique()} {kind}",
        "figures": figures,
    }


def by_period(one, other):
    """How many of each period two runs have right (`paired`): a DataFrame, a row a period, in time
    order.

    Columns `images`, `recall_one`, `recall_other`, McNemar's `only_one`, `only_other` and `p`, and
    `p_holm`, adjusted for there being as many tests as periods.
    """
    import pandas as pd

    rows = {}
    for name in evaluation.classes(one):
        is_given = (one.period == name).to_numpy()
        if not is_given.any():
            continue
        one_right = (one.predicted[is_given] == name).to_numpy()
        other_right = (other.predicted[is_given] == name).to_numpy()
        rows[name] = {
            "images": int(is_given.sum()),
            "recall_one": one_right.mean(),
            "recall_other": other_right.mean(),
            **significance.mcnemar(one_right, other_right),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("period")
    return table.assign(p_holm=significance.holm(table.p))


def _won(winner, loser, data) -> list[tuple]:
    """Pictures that only `winner` has right, as rows of `loser` with their thumbnails; its surest
    errors first.
    """
    only_winner = (winner.period == winner.predicted) & (loser.period != loser.predicted)
    rows = loser[only_winner]
    rows = rows.assign(right_probability=winner.probability[rows.index])
    rows = rows.sort_values("probability", ascending=False, kind="stable")
    return cards(rows.head(SHOWN), data)
