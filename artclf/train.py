"""Step train: the classic fastai recipe, from clean images to an exported learner.

Reads `DATA/clean/` and the catalogue; writes `EXPORT/` (checkpoints in `EXPORT/models/`,
`history.csv`, and by `predict.export` all the rest). Notebook: `03_train`, which shows the lines of
`fit` one by one.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import F1Score, accuracy, error_rate
from fastai.torch_core import set_seed

from artclf.base.errors import InputError
from artclf.data.pictures import RESIZE
from artclf.data.splits import fingerprint, items
from artclf.model import backbones, engine, network
from artclf.model.keep import Keep
from artclf.model.loaders import loaders
from artclf.results.runs import FIGURES, read_run, spread


def repeat(data, out, *args, seeds: int = 3, seed: int = 42, **kwargs) -> pd.DataFrame:
    """Train with the seeds `seed`, `seed` + 1... into `out/seed-<n>`: a row a seed, then `mean` and
    `spread`.

    Columns: `part` and the figures as in `table`. Each seed cuts the data anew, too, so the spread
    is that of both. Further arguments go to `train.fit`. What was trained before is not trained
    again. Raises as `train.fit` does.
    """
    pass  # not at the top: a table of runs needs no torch
    out, rows = Path(out), {}
    for number in range(seed, seed + seeds):
        print(f"Seed {number}, number {len(rows) + 1} of {seeds}:")
        fit(data, out / f"seed-{number}", *args, seed=number, **kwargs)
        rows[str(number)] = read_run(out / f"seed-{number}/metrics.json")
    found = pd.DataFrame.from_dict(rows, orient="index")[["part", *FIGURES]]
    return pd.concat([found, spread(found).assign(part=found.part.iloc[0])])


def fit(
    data,
    out,
    epochs: int = 15,
    unfrozen_epochs: int = 2,
    lr: float = 1e-3,
    gradual: bool = False,
    **kwargs,
) -> Learner:
    """Train the head alone, then the upper blocks of the body, too, and export; the learner comes
    back at its best.

    `lr` is the highest learning rate of the head; unfrozen, the head learns at a tenth of it and
    the lowest block at a tenth of that (linear probing, then fine-tuning: Kumar et al. 2022). With
    `gradual`, the blocks are unfrozen one after the other, an epoch each (Howard and Ruder 2018),
    before all learn. Further arguments go to `learner`; but `split` must be a name here, by which
    the export cuts the data again. Raises ValueError where it isn't, or where `gradual` finds a
    single block to unfreeze.
    """
    from artclf import predict

    if not isinstance(kwargs.get("split", ""), str):
        raise InputError(
            "an export needs a split by name: for a table, take train.learner and its own fits"
        )
    learn = learner(data, out, **kwargs)
    if gradual and len(network.groups(learn.model, learn.config["unfreeze_from"])) < 3:
        raise InputError(
            "--gradual has one block alone to unfreeze: give more of them by --unfreeze-from 3 or lower"
        )
    with nullcontext() if sys.stdout.isatty() else learn.no_bar():
        learn.fit_one_cycle(epochs, lr)
        learn.save("stage-1")
        for n in range(2, len(learn.opt.param_lists) if gradual else 0):
            learn.freeze_to(-n)
            learn.fit_one_cycle(1, slice(lr / 100, lr / 10))
        learn.unfreeze()
        learn.fit_one_cycle(unfrozen_epochs, slice(lr / 100, lr / 10))
        learn.save("stage-2")
    predict.export(learn, out)
    return learn


def learner(
    data,
    out,
    arch: str = "auto",
    size: int = 320,
    resize: str = "squish",
    batch_size: int = 32,
    split="grouped",
    parts: Sequence[float] = (70, 15, 15),
    seed: int = 42,
    exclude: Sequence[str] = (),
    width: int = 512,
    depth: int = 0,
    dropout: float = 0.0,
    ridge: float = 0.3,
    pool: str = "style",
    views: int = 2,
    unfreeze_from: int = 4,
    balance: bool = True,
    pretrained: bool = True,
    cbs=(),
    **kwargs,
) -> Learner:
    """A fastai `Learner` on the clean images of `data`, its body frozen, that `Keep`s its best
    under `out`.

    `arch` is a name that `backbones.find` knows; pictures are brought to `size` x `size` px by
    `resize` (squish, crop or pad); `split.items` cuts them by `split`, or `split` is a table such
    as it gives. The head has `depth` hidden layers of `width` units on what the body gives by
    `pool` (see `network.Body`); without hidden layers it is kept small by `ridge` (see
    `engine.Ridge`), else, or where `ridge` is 0, by AdamW's decay. Frozen, it learns on `views`
    views of each picture (see `features.views`), unfrozen the body learns from block
    `unfreeze_from` on (1 to 4, 0 for all). With `balance` every period weighs as much as any other
    in the loss. Training that was interrupted goes on from its last finished epoch; the same `seed`
    gives the same weights on one machine. Further arguments go to `Learner`. Raises ValueError for
    settings that don't fit the data, FileNotFoundError without a catalogue.
    """
    _check(resize, pool, views, unfreeze_from)
    backbone = backbones.find(arch, pretrained)
    table = items(data, split, parts, seed, exclude) if isinstance(split, str) else split
    if "valid" not in set(table.part):
        raise InputError(
            "the part valid is empty, and the best epoch is chosen on it: give it images"
        )
    batch_size = min(
        batch_size, int((table.part == "train").sum())
    )  # fastai drops a batch that isn't full
    if batch_size < 2:
        raise InputError("batch normalisation needs two images or more a batch")
    config = {
        **asdict(backbone),
        "vocab": sorted(table.period.unique()),
        "size": size,
        "resize": resize,
        "width": width,
        "depth": depth,
        "dropout": dropout,
        "ridge": ridge,
        "pool": pool,
        "views": views,
        "unfreeze_from": unfreeze_from,
        "balance": balance,
        "batch_size": batch_size,
        "seed": seed,
        "split": split if isinstance(split, str) else "table",
        "parts": list(parts),
        "exclude": list(exclude),
        "callbacks": [type(cb).__name__ for cb in cbs],
        "arguments": sorted(kwargs),
        "data_hash": fingerprint(table),
        "temperature": 1.0,
    }
    set_seed(seed, reproducible=True)
    rows = table[table.part != "test"]
    dls = loaders(
        [Path(data) / file for file in rows.file], rows.part == "valid", config, path=Path(data)
    )
    if balance:
        kwargs = {
            "loss_func": CrossEntropyLossFlat(weight=class_weights(table).to(dls.device)),
            **kwargs,
        }
    ridged, norms = (
        [engine.Ridge(ridge)] if ridge and not depth else [],
        [engine.KeepNorms] if pretrained else [],
    )
    cbs = [Keep(config), engine.Stored(data, rows, backbone, config), *ridged, *norms, *cbs]
    kwargs = {"wd": 0.01 if ridged or not pretrained else 3.0, **kwargs}
    learn = network.new_learner(
        dls,
        config,
        path=Path(out),
        train_bn=not pretrained,
        cbs=cbs,
        metrics=[error_rate, accuracy, F1Score(average="macro")],
        **kwargs,
    )
    learn.config = config
    return learn


def class_weights(table) -> torch.Tensor:
    """What each period weighs in the loss, in sorted order: all images by those of the period and
    by the periods.
    """
    counts = table[table.part == "train"].period.value_counts().sort_index()
    return torch.tensor((counts.sum() / (len(counts) * counts)).to_numpy(), dtype=torch.float32)


def _check(resize, pool, views, unfreeze_from):
    if resize not in RESIZE:
        raise InputError(f"--resize is {resize!r}: take one of {', '.join(RESIZE)}")
    if pool not in network.POOLS:
        raise InputError(f"--pool is {pool!r}: take one of {', '.join(network.POOLS)}")
    if views < 1:
        raise InputError(f"--views is {views}: the head needs one view of a picture at least")
    if unfreeze_from not in range(5):
        raise InputError(
            f"--unfreeze-from is {unfreeze_from}: take a block from 1 to 4, or 0 for all"
        )
