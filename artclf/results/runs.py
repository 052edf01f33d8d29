"""Runs: all that are kept, side by side.

Reads every `metrics.json` below a folder, as `predict.export` writes them.
"""

import json
import warnings
from pathlib import Path

import pandas as pd

from artclf.base.figures import figure
from artclf.base.files import NEW, UNFINISHED, finish_replacing

FIGURES = ["macro_f1", "accuracy", "baseline_accuracy", "distance"]
COLUMNS = [
    "run",
    "part",
    *FIGURES,
    "arch",
    "size",
    "split",
    "epochs",
    "seed",
    "images",
    "data_hash",
    "commit",
    "date",
]
WHOLE_NUMBERS = ["size", "seed", "images"]
SHOWN = [
    "run",
    "part",
    "macro_f1",
    "accuracy",
    "distance",
    "arch",
    "size",
    "split",
    "seed",
    "data_hash",
    "commit",
    "date",
]
COMMIT_DIGITS = 40


def table(folder="exports") -> pd.DataFrame:
    """A row for each run below `folder`, by macro F1, the highest first.

    Columns: `run`, its folder seen from `folder`; `part`, where it was measured: test, or valid
    where there is no test; `macro_f1, accuracy, baseline_accuracy` (shares of 1, the last of always
    answering the most frequent class) and `distance` (periods, over all images); `arch, size` (px),
    `split`, `epochs` (a list, of each stage) and `seed`; `images`, the number in that part;
    `data_hash` (8 digits), the same where the images of every part are; `commit` (7 digits, and
    `+changes`) of the code that exported it last, and that `date` (UTC). What a run doesn't tell is
    missing; a file that can't be read is named in a UserWarning. Raises FileNotFoundError where
    there is no run.
    """
    folder = Path(folder)
    for new in folder.rglob(NEW):
        finish_replacing(new.parent)
    rows = []
    for file in sorted(folder.rglob("metrics.json")):
        if file.parent.name == UNFINISHED:
            continue
        try:
            row = read_run(file)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            warnings.warn(
                f"{file} is left out, because it is not the metrics.json of a run "
                f"({type(error).__name__}: {error}): train again, or remove it",
                stacklevel=2,
            )
            continue
        rows.append({"run": file.parent.relative_to(folder).as_posix(), **row})
    if not rows:
        raise FileNotFoundError(
            f"no runs in {folder}: name another folder, or make one by `artclf train --data DATA "
            f"--out {folder / 'NAME'}`"
        )
    runs = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))
    return runs.sort_values("macro_f1", ascending=False, kind="stable", ignore_index=True)


def text(rows) -> str:
    """Rows of `table` as lines with the columns that tell runs apart; `+` is a commit with changes.

    They have at most 120 characters where the names of runs have at most 20.
    """
    shown = rows[SHOWN].rename(columns={"data_hash": "data"})
    shown["commit"] = shown.commit.str.replace("+changes", "+")
    shown["date"] = shown.date.str[:10]
    lines = [list(shown)]
    for row in shown.itertuples(index=False):
        lines.append(["" if pd.isna(value) else figure(value) for value in row])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    aligned = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        aligned.append(" ".join(cells).rstrip())
    return "\n".join(aligned)


def spread(rows) -> pd.DataFrame:
    """`mean` and `spread` (sample standard deviation; missing for a single run) of the figures in
    rows of `table`.
    """
    return rows[FIGURES].agg(["mean", "std"]).rename({"std": "spread"})


def read_run(file: Path) -> dict:
    """The columns of `table` but `run`, as far as the file `metrics.json` has them."""
    metrics = json.loads(file.read_text(encoding="utf-8"))
    part = "test" if "test" in metrics["metrics"] else "valid"
    figures = metrics["metrics"][part]
    protocol = metrics.get("protocol", {})
    return {
        "part": part,
        **{name: float(figures[name]) for name in FIGURES},
        "images": int(figures["images"]),
        "arch": protocol.get("name"),
        "size": _whole(protocol.get("size")),
        "split": protocol.get("split"),
        "epochs": protocol.get("epochs"),
        "seed": _whole(metrics.get("seed")),
        "data_hash": metrics["data_hash"][:8],
        "commit": _short_commit(metrics.get("commit")),
        "date": metrics.get("date"),
    }


def _whole(value) -> int | None:
    return None if value is None else int(value)


def _short_commit(commit: str | None) -> str | None:
    """Seven digits, and `+changes` where it has them."""
    if commit is None:
        return None
    return commit[:7] + commit[COMMIT_DIGITS:]
