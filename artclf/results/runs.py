"""Runs: all that were kept, side by side, and one recipe with several seeds.

Reads every `metrics.json` below a folder, as `predict.export` writes them; `repeat` writes exports,
`OUT/seed-<n>/`.
"""

import json
import warnings
from pathlib import Path

import pandas as pd

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


WHOLE = ["size", "seed", "images"]


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


def table(folder="exports") -> pd.DataFrame:
    """A row for each run kept below `folder`, by macro F1, the highest first.

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
    rows = [row for file in sorted(folder.rglob("metrics.json")) if (row := _row(file, folder))]
    if not rows:
        raise FileNotFoundError(
            f"no runs in {folder}: name another folder, or make one by `artclf train --data DATA "
            f"--out {folder / 'NAME'}`"
        )
    found = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))
    return found.sort_values("macro_f1", ascending=False, kind="stable", ignore_index=True)


def text(rows) -> str:
    """Rows of `table` as lines with the columns that tell runs apart; `+` is a commit with changes.

    They keep within 120 characters where the names of runs do within 20.
    """
    shown = rows[SHOWN].rename(columns={"data_hash": "data"})
    shown = shown.assign(commit=shown.commit.str.replace("+changes", "+"), date=shown.date.str[:10])
    cells = [
        list(shown),
        *([_cell(value) for value in row] for row in shown.itertuples(index=False)),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(" ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def spread(rows) -> pd.DataFrame:
    """`mean` and `spread` (sample standard deviation; missing for a single run) of the figures in
    rows of `table`.
    """
    return rows[FIGURES].agg(["mean", "std"]).rename({"std": "spread"})


def _row(file: Path, folder: Path) -> dict | None:
    try:
        return {"run": file.parent.relative_to(folder).as_posix(), **read_run(file)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
        warnings.warn(
            f"{file} is left out, for it is not the metrics.json of a run ({type(e).__name__}: {e}): train "
            "again, or remove it",
            stacklevel=3,
        )


def read_run(file: Path) -> dict:
    """The columns of `table` but `run`, as far as the file has them."""
    told = json.loads(file.read_text(encoding="utf-8"))
    part = "test" if "test" in told["metrics"] else "valid"
    figures, protocol = told["metrics"][part], told.get("protocol", {})
    size, seed = protocol.get("size"), told.get("seed")
    return {
        "part": part,
        **{name: float(figures[name]) for name in FIGURES},
        "images": int(figures["images"]),
        "arch": protocol.get("name"),
        "size": size and int(size),
        "split": protocol.get("split"),
        "epochs": protocol.get("epochs"),
        "seed": seed and int(seed),
        "data_hash": told["data_hash"][:8],
        "commit": _short(told.get("commit")),
        "date": told.get("date"),
    }


def _cell(value) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _short(commit: str | None) -> str | None:
    return commit and commit[:7] + commit[40:]
