"""What training is worth: plain fastai beside features alone and features then fine-tuning, on the
same cuts.

    python benchmarks/train.py FOLDER --work WORK [--cut fifth|folds|artist] [--seeds 1 2 3]
                               [--methods fastai quick frozen detail unfrozen] [--arch efficientnet_lite0]

FOLDER is a gallery `FOLDER/<class>/*.jpg`, taken as it is, or a data folder, whose usable pictures
are taken. `fifth` tests on the random fifth of torch seed 42, `folds` on each of 5 folds of the
grouped split in turn, `artist` on a fifth of the painters. Methods: `fastai` is the schedule of its
first lesson, `frozen` the first stage of ours, `unfrozen` both stages; `quick` is `frozen` on one
view of each picture, `detail` is `frozen` at 384 px and looks at the mirror image in testing, too.
Ours keep 5% of the training images as the part valid.

Predictions of the test parts go to WORK/<cut>-<method>-<arch>-<hash of the pictures>.csv, with the
seconds that training and prediction took; what is there is not computed again. `fifth` starts from
nothing, the other two share stored pixels and features between runs. Prints each method's figures,
pooled over folds and seeds, with 95% intervals by bootstrap over seeds and groups, and their spread
over the seeds.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from artclf import train
from artclf.base.files import replace_whole, sha256_of
from artclf.data import splits
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.data.groups import joined
from artclf.model import backbones, features
from artclf.results import evaluation
from artclf.results.significance import bootstrap

FOLDS = 5
FIGURES = ["accuracy", "macro_f1"]


def pictures(folder: Path) -> pd.DataFrame:
    """The pictures in `folder`, with `file`, `period`, `group` (of duplicates) and `artist` (a
    group by painter).
    """
    if (folder / "catalogue.db").exists():
        table = splits.usable(folder).reset_index(drop=True)
        table["file"] = [str(folder.resolve() / file) for file in table.file]
        table["group"] = joined(table.sha256, [table.dup_group, table.clean_sha256])
        table["artist"] = joined(table.sha256, [table.dup_group, table.clean_sha256, table.painter])
        return table[["file", "period", "group", "artist"]]
    files = sorted(
        file.resolve() for file in folder.glob("*/*") if file.suffix.lower() in IMAGE_SUFFIXES
    )
    if not files:
        raise SystemExit(f"no pictures in {folder}/<class>/")
    table = pd.DataFrame({"file": map(str, files), "period": [file.parent.name for file in files]})
    return table.assign(group=table.file, artist="")


def cuts(table: pd.DataFrame, cut: str, seeds: list[int]) -> Iterator[tuple[str, int, np.ndarray]]:
    """The name of each run, its seed and the places of its test images."""
    if cut == "fifth":
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(42))
        yield "42-0", 42, order[: len(table) // 5].sort().values.numpy()
        return
    if cut == "artist" and not table.artist.any():
        raise SystemExit(
            "--cut artist needs a data folder, which knows painters: artclf import makes one"
        )
    for seed in seeds:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        groups = table.group if cut == "folds" else table.artist
        for fold, (_, test) in enumerate(folds.split(table, table.period, groups)):
            if cut == "folds" or fold == 0:
                yield f"{seed}-{fold}", seed, test


def plain_fastai(table: pd.DataFrame, seed: int, args) -> np.ndarray:
    """The probabilities of the test images after the schedule of fastai's first lesson."""
    from fastai.vision import all as vision

    backbone = backbones.find(args.arch)
    vision.set_seed(seed)
    block = vision.DataBlock(
        blocks=(vision.ImageBlock, vision.CategoryBlock(vocab=sorted(table.period.unique()))),
        get_x=vision.ColReader("file"),
        get_y=vision.ColReader("period"),
        splitter=vision.IndexSplitter(table.index[table.part == "test"]),
        item_tfms=vision.Resize(224, method="squish"),
        batch_tfms=[
            *vision.aug_transforms(),
            vision.Normalize.from_stats(backbone.mean, backbone.std),
        ],
    )
    dls = block.dataloaders(table, bs=64)
    in_wheel = backbone.library == "wheel"
    learn = vision.vision_learner(
        dls,
        backbones.fastai_arch(backbone),
        normalize=False,
        pretrained=not in_wheel,
        metrics=vision.accuracy,
    )
    if in_wheel:
        backbones.load_wheel(learn.model[0], backbone.name)
        learn.freeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(4)
        learn.unfreeze()
        learn.fit_one_cycle(2, slice(1e-6, 1e-4))
        return learn.get_preds()[0].numpy()


def ours(
    table: pd.DataFrame,
    seed: int,
    args,
    epochs: int = 15,
    then: Callable | None = None,
    test_views: Sequence[int] = (0,),
    **kwargs,
) -> np.ndarray:
    """The probabilities of the test images after the lines of `train.fit`, means over the views
    `test_views` of each.

    `then` is the stage after the frozen one, a function of the learner.
    """
    rows = table.reset_index(drop=True)
    rows["sha256"] = [sha256_of(Path(file)) for file in rows.file]
    rows["clean_sha256"] = rows.sha256
    learning = rows[rows.part == "train"]
    rows.loc[learning.index, "part"] = splits.cut(learning.period, learning.group, (95, 5, 0), seed)
    with TemporaryDirectory() as folder:
        data = folder if args.cut == "fifth" else args.work
        learn = train.learner(data, folder, args.arch, split=rows, seed=seed, **kwargs)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 1e-3)
            if then is not None:
                then(learn)
        return probabilities(learn, rows[rows.part == "test"], data, test_views)


@torch.inference_mode()
def probabilities(learn, rows: pd.DataFrame, data, views: Sequence[int]) -> np.ndarray:
    """The probabilities of the images of `rows`, means over their `views`."""
    body, head = learn.model.eval()
    x = features.of_images(data, rows, body, learn.config, views)
    logits = head(torch.from_numpy(x).flatten(0, 1)).unflatten(0, (len(rows), len(views)))
    return torch.softmax(logits, -1).mean(1).numpy()


def unfrozen(learn, **kwargs):
    """The unfrozen stage of `train.fit`."""
    learn.unfreeze()
    learn.fit_one_cycle(2, slice(1e-5, 1e-4), **kwargs)


METHODS = {
    "fastai": plain_fastai,
    "quick": partial(ours, views=1),
    "frozen": ours,
    "detail": partial(ours, size=384, test_views=(0, 1)),
    "unfrozen": partial(ours, then=unfrozen),
}


def measure(table: pd.DataFrame, method: str, args) -> pd.DataFrame:
    """The predictions of `method` on the test part of every cut, those of earlier runs among
    them.
    """
    content_hash = hashlib.sha256(table.to_csv(lineterminator="\n").encode()).hexdigest()[:8]
    file = args.work / f"{args.cut}-{method}-{args.arch}-{content_hash}.csv"
    runs = pd.read_csv(file) if file.exists() else pd.DataFrame({"run": []})
    for name, seed, test in cuts(table, args.cut, args.seeds):
        if (runs.run == name).any():
            continue
        run = predict_cut(table, test, method, seed, args).assign(method=method, run=name)
        runs = pd.concat([runs, run]) if len(runs) else run
        replace_whole(file, partial(runs.to_csv, index=False))
        print(figures(run, args.cut).to_string(), flush=True)
    return runs


def predict_cut(
    table: pd.DataFrame, test: np.ndarray, method: str, seed: int, args
) -> pd.DataFrame:
    """The predictions of `method` for the images at the places `test`, which it doesn't learn
    from, and its seconds.
    """
    table = table.assign(part="train")
    table.loc[test, "part"] = "test"
    started = time.time()
    p = METHODS[method](table, seed, args)
    seconds = time.time() - started
    columns = [f"p_{period}" for period in sorted(table.period.unique())]
    by_period = pd.DataFrame(p, columns=columns).round(5)
    rows = table.loc[test].reset_index(drop=True)
    rows["seed"] = seed
    rows["seconds"] = seconds
    rows["predicted"] = by_period.idxmax(axis=1).str.removeprefix("p_")
    return pd.concat([rows, by_period], axis=1)


def figures(runs: pd.DataFrame, cut: str) -> pd.DataFrame:
    """A row a method: figures of the pooled predictions, intervals, spread over seeds, median
    seconds a run.
    """
    rows = {}
    for method, predictions in runs.groupby("method", sort=False):
        pooled = evaluation.metrics(predictions)["test"]
        groups = predictions.artist if cut == "artist" else predictions.group
        draws = bootstrap(predictions, groups)
        of_seeds = [evaluation.metrics(of_seed) for _, of_seed in predictions.groupby("seed")]
        row = {
            "runs": predictions.run.nunique(),
            "images": predictions.file.nunique(),
            "seconds": round(predictions.groupby("run").seconds.first().median()),
        }
        for name in FIGURES:
            low, high = draws[name].quantile([0.025, 0.975])
            spread = pd.Series([metrics["test"][name] for metrics in of_seeds]).std()
            row[name] = f"{pooled[name]:.3f} [{low:.3f}, {high:.3f}]"
            row[f"{name} ±"] = f"{spread:.3f}"
        rows[method] = row
    return pd.DataFrame(rows).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cut", choices=["fifth", "folds", "artist"], default="fifth")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arch", default="efficientnet_lite0")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200)
    table = pictures(args.folder)
    runs = pd.concat(measure(table, method, args) for method in args.methods)
    print(figures(runs, args.cut).to_string())


if __name__ == "__main__":
    main()
