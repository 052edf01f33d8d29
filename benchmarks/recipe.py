"""What each change of the recipe is worth: the frozen stage with one thing changed at a time, on the same folds.

    python benchmarks/recipe.py DATA --work WORK [--seeds 1] [--only NAME ...]

DATA is a data folder or a gallery; the folds and figures are those of `benchmarks/train.py --cut folds`, and so is what
is kept in WORK. A difference counts where it is larger than the spread over the seeds.
"""
import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import train
from fastai.callback.mixup import MixUp
from fastai.losses import CrossEntropyLossFlat

from artclf.lab.balance import Adjusted
from artclf.train import class_weights


def adjusted(table, *args):
    counts = table[table.part == "train"].period.value_counts().sort_index()
    return train.ours(table, *args, balance=False, loss_func=Adjusted(torch.tensor(counts.to_numpy()).float()))


def smoothed(table, *args):
    loss = CrossEntropyLossFlat(weight=class_weights(table), label_smoothing=.1)
    return train.ours(table, *args, loss_func=loss)


VARIANTS = {
    "as it is": {}, "last maps only": {"pool": "last"}, "without covariances": {"pool": "stages"},
    "one view": {"views": 1}, "four views": {"views": 4}, "looking at the mirror image, too": {"looks": (0, 1)},
    "30 epochs": {"epochs": 30}, "dropout 0.5": {"dropout": .5},
    "a hidden layer, dropout 0.5": {"depth": 1, "dropout": .5},
    "ridge 0.1": {"ridge": .1}, "ridge 1": {"ridge": 1.}, "AdamW's decay instead of ridge": {"ridge": 0},
    "unbalanced loss": {"balance": False}, "mixup of features": {"cbs": [MixUp()]}, "224 px": {"size": 224},
    "448 px": {"size": 448}, "crop": {"resize": "crop"}, "pad": {"resize": "pad"},
}
METHODS = {name: partial(train.ours, **change) for name, change in VARIANTS.items()}
METHODS |= {"logit adjustment": adjusted, "label smoothing 0.1": smoothed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    args = parser.parse_args()
    args.cut = "folds"
    args.work.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200)
    train.METHODS |= METHODS
    table = train.pictures(args.folder)
    runs = pd.concat(train.measure(table, method, args) for method in args.only)
    print(train.figures(runs, args.cut).to_string())


if __name__ == "__main__":
    main()
