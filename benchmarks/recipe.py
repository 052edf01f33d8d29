"""What each change of the recipe is worth: one thing changed at a time, on the same folds.

    python benchmarks/recipe.py DATA --work WORK [--seeds 1] [--only NAME ...]

DATA is a data folder or a gallery; the folds and figures are those of `benchmarks/train.py --cut
folds`, and so are the files in WORK. The names that begin with `unfrozen` go on from the row `224
px` (`unfrozen, 320 px` from `as it is`) and end with their last epoch, whether it is better on
valid or not. Prints the figures of each, and their differences from the first one with 95%
intervals.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import train
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import AffineCoordTfm, Flip, LightingTfm
from fastcore.foundation import L

from artclf.model.losses import AdjustedLoss, balanced_weights
from artclf.results.recipe import DEFAULTS
from artclf.train import class_counts


def adjusted(table, *args):
    """Logit adjustment in the loss, in place of the balanced loss."""
    counts = table[table.part == "train"].period.value_counts().sort_index()
    loss = AdjustedLoss(torch.tensor(counts.to_numpy()).float())
    return train.ours(table, *args, balance=False, loss_func=loss)


def smoothed(table, *args):
    """Label smoothing."""
    loss = CrossEntropyLossFlat(weight=balanced_weights(class_counts(table)), label_smoothing=0.1)
    return train.ours(table, *args, loss_func=loss)


def shifted(table, *args):
    """Logit adjustment afterwards, on top of the balanced loss: rare periods gain a little more."""
    share = table[table.part == "train"].period.value_counts(normalize=True).sort_index().to_numpy()
    p = train.ours(table, *args) / share**0.2
    return p / p.sum(1, keepdims=True)


def to_the_end(learn, **kwargs):
    """The unfrozen stage without the rule by which an epoch must be better on valid, which would
    hide its effect.
    """
    keep_no_epoch(learn)
    train.unfrozen(learn, **kwargs)


def keep_no_epoch(learn):
    """From now on, the weights of a fit are those of its last epoch."""
    learn.remove_cbs([learn.history, learn.best_epoch, learn.resume])


def averaged(learn):
    """Then the mean of the weights before and after (WiSE-FT: Wortsman et al. 2022)."""
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    to_the_end(learn)
    weights = learn.model.state_dict()
    for name, value in weights.items():
        if value.is_floating_point():
            weights[name] = (value + before[name]) / 2
    learn.model.load_state_dict(weights)


def flipped(learn):
    """Nothing but mirror images: no rotation, zoom, warp or light, which blur strokes and change
    colours.
    """
    transforms = []
    for transform in learn.dls.train.after_batch.fs:
        if isinstance(transform, AffineCoordTfm):
            transforms.append(Flip())
        elif not isinstance(transform, LightingTfm):
            transforms.append(transform)
    learn.dls.train.after_batch.fs = L(transforms)
    to_the_end(learn)


def head_alone(learn):
    """The same pictures, but a body that learns nothing: this shows what the head gains by learning
    from augmented pictures.
    """
    keep_no_epoch(learn)
    learn.unfreeze()
    learn.fit_one_cycle(2, np.array([0, 1e-4]))


class Growing(Callback):
    """Progressive resizing: all epochs but the last learn on pictures of 160 px."""

    def before_batch(self):
        if not self.training or self.epoch == self.n_epoch - 1:
            return
        x = torch.nn.functional.interpolate(self.xb[0], 160, mode="bilinear", antialias=True)
        self.learn.xb = (x,)


VARIANTS = {
    "as it is": {},
    "last maps only": {"pool": "last"},
    "without covariances": {"pool": "stages"},
    "one view": {"views": 1},
    "four views": {"views": 4},
    "looking at the mirror image, too": {"test_views": (0, 1)},
    "30 epochs": {"epochs": 30},
    "dropout 0.5": {"dropout": 0.5},
    "a hidden layer, dropout 0.5": {"depth": 1, "dropout": 0.5},
    "ridge 0.1": {"ridge": 0.1},
    "ridge 1": {"ridge": 1.0},
    "AdamW's decay instead of ridge": {"ridge": 0},
    "unbalanced loss": {"balance": False},
    "mixup of features": {"cbs": [MixUp()]},
    "224 px": {"size": 224},
    "448 px": {"size": 448},
    "crop": {"resize": "crop"},
    "pad": {"resize": "pad"},
}
METHODS = {name: partial(train.ours, **change) for name, change in VARIANTS.items()}
METHODS |= {
    "logit adjustment": adjusted,
    "label smoothing 0.1": smoothed,
    "shifted to rare periods": shifted,
}
STAGES = {
    "to the end": to_the_end,
    "mixup": partial(to_the_end, cbs=MixUp()),
    "averaged": averaged,
    "mirrored only": flipped,
    "growing": partial(to_the_end, cbs=Growing()),
    "head alone": head_alone,
}
METHODS |= {
    f"unfrozen, {name}": partial(train.ours, size=224, then=stage) for name, stage in STAGES.items()
}
METHODS["unfrozen, all blocks"] = partial(train.ours, size=224, then=to_the_end, unfreeze_from=0)
METHODS["unfrozen, 320 px"] = partial(train.ours, then=to_the_end)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    args = parser.parse_args()
    args.cut = "folds"
    args.size = DEFAULTS.size
    args.precision = DEFAULTS.precision
    args.work.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200)
    train.METHODS |= METHODS
    table = train.pictures(args.folder)
    runs = pd.concat(train.measure(table, method, args) for method in args.only)
    print(train.figures(runs, args.cut).to_string())
    if len(args.only) > 1:
        print(f"above {args.only[0]!r}:\n{train.above(runs, args.cut).to_string()}")


if __name__ == "__main__":
    main()
