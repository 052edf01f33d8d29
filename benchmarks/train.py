"""What training is worth: plain fastai beside features alone and features then fine-tuning, on the
same cuts.

    python benchmarks/train.py FOLDER --work WORK [--cut fifth|folds|artist|painters] [--seeds 1 2 3]
                               [--methods fastai quick frozen detail unfrozen exact]
                               [--arch efficientnet_lite0 ...] [--size 320] [--precision float32]

FOLDER is a gallery `FOLDER/<class>/*.jpg`, taken as it is, or a data folder, whose usable pictures
are taken. `fifth` tests on the random fifth of torch seed 42, `folds` on each of 5 folds of the
grouped split in turn, `artist` on a fifth of the painters, `painters` on each fifth of them in turn.
Methods: `fastai` is the schedule of its first lesson, `frozen` the first stage of ours, `unfrozen`
both stages; `quick` is `frozen` on one view of each picture, `detail` is `frozen` at 384 px and
looks at the mirror image in testing, too. They keep 5% of the training images as the part valid.
`exact` is the head of `quick` at the minimum of its loss, without a part valid: the fastest one.

Predictions of the test parts go to WORK/<cut>-<method>-<arch>-<hash of the pictures>.csv, with the
seconds that training and prediction took; what is there is not computed again. `fifth` starts from
nothing, the others share stored pixels and features between runs. Prints each method's figures,
pooled over folds and seeds, with 95% intervals by bootstrap over seeds and groups, and their spread
over the seeds. With several architectures it also prints what each one costs, and how much more
each row has than the first one; beside `a+b`, where `a` and `b` are named, too, stands the mean of
the probabilities of both, each with a head of its own.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from artclf import train
from artclf.base.files import replace_whole, sha256_of
from artclf.base.machine import keep_freed_memory
from artclf.data import splits
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.data.groups import joined
from artclf.model import backbones, features, network
from artclf.model.feature_batches import BATCH
from artclf.results import compare, evaluation
from artclf.results.recipe import DEFAULTS
from artclf.results.significance import bootstrap

FOLDS = 5
FIGURES = ["accuracy", "macro_f1"]
BY_PAINTER = ("artist", "painters")  # cuts that leave the pictures of a painter together


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
    if cut in BY_PAINTER and not table.artist.any():
        raise SystemExit(
            f"--cut {cut} needs a data folder, which knows painters: artclf import makes one"
        )
    for seed in seeds:
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        groups = groups_of(table, cut)
        for fold, (_, test) in enumerate(folds.split(table, table.period, groups)):
            if cut != "artist" or fold == 0:
                yield f"{seed}-{fold}", seed, test


def groups_of(table: pd.DataFrame, cut: str) -> pd.Series:
    """The group that each picture is right or wrong together with."""
    return table.artist if cut in BY_PAINTER else table.group


def plain_fastai(table: pd.DataFrame, seed: int, args) -> np.ndarray:
    """The probabilities of the test images after the schedule of fastai's first lesson."""
    from fastai.vision import all as vision

    backbone = backbones.find(args.arch)
    if backbone.bodies:
        raise SystemExit(f"plain fastai takes one network, not {args.arch}: --methods frozen")
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
    filled_here = backbones.is_filled_here(backbone)
    learn = vision.vision_learner(
        dls,
        backbones.fastai_arch(backbone),
        normalize=False,
        pretrained=not filled_here,
        metrics=vision.accuracy,
    )
    if filled_here:
        backbones.fill(learn.model[0], backbone)
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
        settings = {"size": args.size, "precision": args.precision, **kwargs}
        learn = train.learner(data, folder, args.arch, split=rows, seed=seed, **settings)
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


def exact(table: pd.DataFrame, seed: int, args) -> np.ndarray:
    """The probabilities of the test images by the linear head of `frozen` at the minimum of its
    loss, which scikit-learn finds; it learns on one view of each picture, and has no part valid.
    """
    x = features_of(table, args)
    learns = (table.part == "train").to_numpy()
    scaler = StandardScaler().fit(x[learns])
    train_x, test_x = scaler.transform(x[learns]), scaler.transform(x[~learns])
    # fewer pictures than features: the head lies in the span of the pictures
    values, vectors = np.linalg.eigh(train_x @ train_x.T)
    is_spanned = values > 1e-6 * values[-1]
    span = train_x.T @ (vectors[:, is_spanned] / np.sqrt(values[is_spanned]))
    head = LogisticRegression(
        C=1 / (DEFAULTS.ridge * learns.sum()), class_weight="balanced", max_iter=1000
    )
    head.fit(train_x @ span, table.period[learns])
    found = pd.DataFrame(head.predict_proba(test_x @ span), columns=head.classes_)
    return found.reindex(columns=sorted(table.period.unique()), fill_value=0).to_numpy()


def features_of(table: pd.DataFrame, args) -> np.ndarray:
    """The features of view 0 of each picture, by the body of `args.arch`: computed once."""
    key = (args.arch, args.size, args.precision)
    if key not in KEPT_FEATURES:
        backbone = backbones.find(args.arch)
        settings = {"size": args.size, "precision": args.precision}
        body = network.new_body(backbone, **settings).to(memory_format=torch.channels_last)
        config = {**asdict(backbone), **settings, "pool": body.pool, "resize": DEFAULTS.resize}
        hashes = [sha256_of(Path(file)) for file in table.file]
        rows = table.assign(clean_sha256=hashes)
        KEPT_FEATURES[key] = features.of_images(args.work, rows, body.eval(), config)[:, 0]
    return KEPT_FEATURES[key]


METHODS = {
    "fastai": plain_fastai,
    "quick": partial(ours, views=1),
    "frozen": ours,
    "detail": partial(ours, size=384, test_views=(0, 1)),
    "unfrozen": partial(ours, then=unfrozen),
    "exact": exact,
}
STANDARD = [name for name in METHODS if name != "exact"]  # what is compared unless asked
KEPT_FEATURES: dict[tuple, np.ndarray] = {}  # by architecture, size and precision


def measure(table: pd.DataFrame, method: str, args) -> pd.DataFrame:
    """The predictions of `method` on the test part of every cut, those of earlier runs among
    them.
    """
    changed = "" if args.size == DEFAULTS.size else f"-{args.size}px"
    changed += "" if args.precision == DEFAULTS.precision else f"-{args.precision}"
    content_hash = hashlib.sha256(table.to_csv(lineterminator="\n").encode()).hexdigest()[:8]
    file = args.work / f"{args.cut}-{method}-{args.arch}{changed}-{content_hash}.csv"
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
        draws = bootstrap(predictions, groups_of(predictions, cut))
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


def averaged(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The predictions by the mean of the probabilities of several tables of the same runs."""
    tables = [rows.sort_values(["run", "file"], ignore_index=True) for rows in tables]
    return mean_of(tables).assign(seconds=sum(rows.seconds for rows in tables))


def mean_of(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The predictions by the mean of the probabilities of several tables with the same rows."""
    columns = [name for name in tables[0] if name.startswith("p_")]
    means = sum(rows[columns] for rows in tables) / len(tables)
    return tables[0].assign(**means, predicted=means.idxmax(axis=1).str.removeprefix("p_"))


def above(runs: pd.DataFrame, cut: str) -> pd.DataFrame:
    """How much more accuracy and macro F1 each method has than the first one, on the same draws of
    groups and seeds.
    """
    runs = runs.assign(dup_group=groups_of(runs, cut), artist="")
    runs = runs.sort_values(["run", "file"], ignore_index=True)
    first, *others = (run.reset_index(drop=True) for _, run in runs.groupby("method", sort=False))
    rows = {}
    for other in others:
        found = compare.differences(first, other)["figures"]
        row = {}
        for name in FIGURES:
            row[name] = "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found[name])
        rows[other.method[0]] = row
    return pd.DataFrame(rows).T


@torch.inference_mode()
def costs(archs: Sequence[str], size: int, precision: str, runs: int = 3) -> pd.DataFrame:
    """A row an architecture: seconds of a processor that its body takes for a picture in a
    prediction, the median of `runs` batches; megabytes of its weights; number of features.
    """
    keep_freed_memory()
    x = torch.rand(BATCH, 3, size, size)
    rows = {}
    for arch in archs:
        backbone = backbones.find(arch, pretrained=False)
        body = network.new_body(backbone, size=size, precision=precision).eval()
        body.to(memory_format=torch.channels_last)
        seconds = []
        for _ in range(runs + 1):
            started = time.process_time()
            body(x)
            seconds.append(time.process_time() - started)
        size_in_bytes = sum(v.numel() * v.element_size() for v in body.state_dict().values())
        rows[arch] = {
            "processor seconds a picture": round(
                median(seconds[1:]) / len(x), 3
            ),  # the first one warms up
            "megabytes": round(size_in_bytes / 1e6),
            "features": body.n_features,
        }
    return pd.DataFrame(rows).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cut", choices=["fifth", "folds", *BY_PAINTER], default="fifth")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=STANDARD)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arch", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--size", type=int, default=DEFAULTS.size)
    parser.add_argument("--precision", choices=network.PRECISIONS, default=DEFAULTS.precision)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    pd.set_option("display.width", 200)
    table = pictures(args.folder)
    archs = args.arch
    tables = {}
    for method in args.methods:
        for arch in archs:
            args.arch = arch
            name = method if len(archs) == 1 else f"{arch}, {method}"
            tables[name] = measure(table, method, args)
            parts = [f"{part}, {method}" for part in arch.split("+")]
            if len(parts) > 1 and tables.keys() >= set(parts):
                tables[f"{name}, a head each"] = averaged([tables[part] for part in parts])
    runs = pd.concat(rows.assign(method=name) for name, rows in tables.items())
    print(figures(runs, args.cut).to_string())
    if len(archs) > 1:
        print(f"above {next(iter(tables))!r}:\n{above(runs, args.cut).to_string()}")
        print(costs(archs, args.size, args.precision).to_string())


if __name__ == "__main__":
    main()
