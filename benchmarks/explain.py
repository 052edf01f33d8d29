"""Which maps of what a classifier looks at can be trusted, measured on your paintings.

    python benchmarks/explain.py EXPORT DATA [--images 12] [--out FOLDER]

Takes paintings of the part test that the classifier gets right, drawn by chance, one period after
the other. Prints two tables, each with means over the paintings and their standard deviation: the
areas under the deletion and insertion curves of each method, beside chance; and the rank
correlation of each method's maps with its first ones while the network is randomised from the head
down. Writes both in full as CSV to FOLDER, and the plots.
"""

import argparse
from pathlib import Path

import pandas as pd

import artclf
from artclf.lab import explain, sanity
from artclf.model.explainer import Explainer

# Faster arguments for the randomised networks, of which there are many.
COARSE = {
    "integrated gradients": {"steps": 16},
    "occlusion": {"window": 56, "stride": 28},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("exports/explain"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200, "display.max_columns", None)
    explainer = Explainer(artclf.load(args.export, measured=True))
    rows = explain.right_answers(args.export, args.data, args.images)
    x = explainer.pictures([args.data / file for file in rows.file])
    targets = list(rows.predicted)
    maps = explainer.all_maps(x, targets)
    curves = sanity.curves(explainer, x, targets, maps)
    print(sanity.summary(curves).round(3), end="\n\n", flush=True)
    methods = {name: COARSE.get(name, {}) for name in maps}
    steps = sanity.randomisation(explainer, x, targets, methods)
    print(sanity.by_step(steps).round(2), end="\n\n")
    curves.to_csv(args.out / "curves.csv", index=False)
    steps.to_csv(args.out / "randomised.csv", index=False)
    for kind in sanity.KINDS:
        sanity.plot_curves(curves, kind).savefig(args.out / f"{kind}.png", dpi=150)
    sanity.plot_randomisation(steps).savefig(args.out / "randomised.png", dpi=150)


if __name__ == "__main__":
    main()
