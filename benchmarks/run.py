"""How long `artclf run` takes, notebook by notebook, with one checkout of this repository and with
others.

    python benchmarks/run.py CHECKOUT [CHECKOUT ...] [--runs 3] [--again]

Each CHECKOUT is a clone or a worktree, such as `git worktree add ../before HEAD~20` makes. Their
runs take turns, each in a new folder, on the drawn canvases and with the Python that runs this
script. Seconds are medians over the runs; `all` is that of the whole command, the drawing of the
canvases included. With `--again`, a second run in the same folder, which has nothing to do, is
measured as well.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

# a line of `artclf run`: the notebook, the number of the cell, its seconds
CELL = re.compile(r"^(\d\d_\w+) +\d+/\d+ +([\d.]+) s", re.MULTILINE)
COMMAND = "import sys; from artclf.cli import main; sys.argv = ['artclf', 'run']; main()"


def seconds_of_run(checkout: Path, folder: Path) -> dict[str, float]:
    """Seconds of each notebook, and of the whole command, which runs in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=folder, env=environment, capture_output=True, text=True
    )
    whole = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{checkout}: artclf run failed\n{done.stderr[-2000:]}")
    seconds: dict[str, float] = {}
    for notebook, of_cell in CELL.findall(done.stdout):
        seconds[notebook] = seconds.get(notebook, 0) + float(of_cell)
    return {**seconds, "all": whole}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    rows = []
    for number in range(args.runs):
        for checkout in args.checkouts:
            with tempfile.TemporaryDirectory() as folder:
                for name in ("", ", again") if args.again else ("",):
                    seconds = seconds_of_run(checkout, Path(folder))
                    rows.append({"checkout": f"{checkout}{name}", **seconds})
                    print(f"run {number + 1}, {checkout}{name}: {seconds['all']:.0f} s", flush=True)
    medians = pd.DataFrame(rows).groupby("checkout", sort=False).median()
    print(medians.round(1).T.to_string())


if __name__ == "__main__":
    main()
