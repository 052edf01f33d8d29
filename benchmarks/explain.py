"""Which maps of what a classifier looks at can be trusted, on paintings of one's own.

    python benchmarks/explain.py EXPORT DATA [--images 12] [--out FOLDER]

Takes paintings of the part test that the classifier gets right, drawn by chance, one period after
the other, and prints two tables: the areas under the deletion and insertion curves of each method
beside chance; and the rank correlation of each method's maps with its first ones while the network
is randomised from the head down. Means over the paintings and their standard deviation. FOLDER gets
both in full as CSV, and the plots.
"""

import argparse
from pathlib import Path

import pandas as pd

import artclf
from artclf.lab import explain, sanity
from artclf.model.explainer import Explainer

COARSE = {
    "integrated gradients": {"steps": 16},
    "occlusion": {"window": 56, "stride": 28},
}  # for the many networks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("exports/explain"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200, "display.max_columns", None)
    explainer = Explainer(artclf.load(args.export))
    rows = explain.chosen(args.export, args.data, args.images)
    x, targets = explainer.pictures([args.data / file for file in rows.file]), list(rows.predicted)
    maps = explainer.every(x, targets)
    curves = sanity.curves(explainer, x, targets, maps)
    print(sanity.summary(curves).round(3), end="\n\n", flush=True)
    steps = sanity.randomisation(
        explainer, x, targets, {name: COARSE.get(name, {}) for name in maps}
    )
    print(sanity.by_step(steps).round(2), end="\n\n")
    for name, table in (("curves", curves), ("randomised", steps)):
        table.to_csv(args.out / f"{name}.csv", index=False)
    for kind in sanity.KINDS:
        sanity.plot_curves(curves, kind).savefig(args.out / f"{kind}.png", dpi=150)
    sanity.plot_randomisation(steps).savefig(args.out / "randomised.png", dpi=150)


if __name__ == "__main__":
    main()
