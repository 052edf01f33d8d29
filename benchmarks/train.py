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
nothing, the other two share what is decoded and seen between runs. Prints each method's figures,
pooled over folds and seeds, with 95% intervals by bootstrap over seeds and groups, and their spread
over the seeds.
"""

import argparse
import hashlib
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from artclf import train
from artclf.data import splits
from artclf.data.galleries import IMAGE_SUFFIXES
from artclf.data.groups import joined
from artclf.model import backbones, features
from artclf.results import evaluation
from artclf.results.significance import bootstrap

FOLDS = 5


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


def cuts(table: pd.DataFrame, cut: str, seeds: list[int]):
    """Pairs of a name and the places of the test images."""
    if cut == "fifth":
        order = torch.randperm(len(table), generator=torch.Generator().manual_seed(42))
        yield "42-0", order[: len(table) // 5].sort().values.numpy()
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
                yield f"{seed}-{fold}", test


def plain_fastai(table: pd.DataFrame, seed: int, args):
    """The schedule of fastai's first lesson, and the probabilities of the test images that it ends
    with.
    """
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
    learn = vision.vision_learner(
        dls,
        backbones.fastai_arch(backbone),
        normalize=False,
        pretrained=backbone.library != "wheel",
        metrics=vision.accuracy,
    )
    if backbone.library == "wheel":
        backbones._load_wheel(learn.model[0], backbone.name)
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
    then=lambda learn: None,
    looks=(0,),
    **kwargs,
):
    """The lines of `train.fit`, and the probabilities of the test images, over the views `looks` of
    each.

    `then` is the stage after the frozen one.
    """
    rows = table.reset_index(drop=True).assign(
        sha256=hashes(table.file), clean_sha256=hashes(table.file)
    )
    learning = rows[rows.part == "train"]
    rows.loc[learning.index, "part"] = splits.cut(learning.period, learning.group, (95, 5, 0), seed)
    with TemporaryDirectory() as folder:
        data = folder if args.cut == "fifth" else args.work
        learn = train.learner(data, folder, args.arch, split=rows, seed=seed, **kwargs)
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, 1e-3)
            then(learn)
        test = rows[rows.part == "test"]
        pictures = features.Pictures(
            data, test.file, test.sha256, learn.config["size"], learn.config["resize"]
        )
        name = f"{learn.config['name']} {learn.config['pool']}"
        x = torch.from_numpy(
            features.feature_views(pictures, learn.model[0], learn.stored.backbone, name, looks)
        )
        with torch.inference_mode():
            logits = [learn.model.eval()[1](x[:, view]) for view in range(len(looks))]
        return torch.softmax(torch.stack(logits), -1).mean(0).numpy()


def unfrozen(learn, **kwargs):
    """The unfrozen stage of `train.fit`."""
    learn.unfreeze()
    learn.fit_one_cycle(2, slice(1e-5, 1e-4), **kwargs)


def hashes(files) -> list[str]:
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


METHODS = {
    "fastai": plain_fastai,
    "quick": partial(ours, views=1),
    "frozen": ours,
    "detail": partial(ours, size=384, looks=(0, 1)),
    "unfrozen": partial(ours, then=unfrozen),
}


def measure(table: pd.DataFrame, method: str, args) -> pd.DataFrame:
    """The predictions of `method` on the test part of every cut, those of earlier runs among
    them.
    """
    known = hashlib.sha256(table.to_csv(lineterminator="\n").encode()).hexdigest()[:8]
    file = args.work / f"{args.cut}-{method}-{args.arch}-{known}.csv"
    done = [pd.read_csv(file)] if file.exists() else []
    for name, test in cuts(table, args.cut, args.seeds):
        if any((run.run == name).any() for run in done):
            continue
        rows, seed, started = table.assign(part="train"), int(name.split("-")[0]), time.time()
        rows.loc[test, "part"] = "test"
        p = METHODS[method](rows, seed, args)
        chances = pd.DataFrame(
            p, columns=[f"p_{period}" for period in sorted(table.period.unique())]
        ).round(5)
        rows = (
            rows.loc[test]
            .reset_index(drop=True)
            .assign(
                method=method,
                run=name,
                seed=seed,
                seconds=time.time() - started,
                predicted=chances.idxmax(axis=1).str.removeprefix("p_"),
            )
        )
        done.append(pd.concat([rows, chances], axis=1))
        pd.concat(done).to_csv(part := file.with_suffix(".part"), index=False)
        part.replace(file)
        print(figures(done[-1], args.cut).to_string(), flush=True)
    return pd.concat(done)


def figures(done: pd.DataFrame, cut: str) -> pd.DataFrame:
    """A row a method: figures of the pooled predictions, intervals, spread over seeds, median
    seconds a run.
    """
    rows = {}
    for method, run in done.groupby("method", sort=False):
        found = pd.Series(evaluation.metrics(run)["test"])[["accuracy", "macro_f1"]]
        draws = bootstrap(run, run.artist if cut == "artist" else run.group)
        spread = pd.DataFrame([evaluation.metrics(r)["test"] for _, r in run.groupby("seed")])[
            list(found.index)
        ].std()
        row = {
            "runs": run.run.nunique(),
            "images": run.file.nunique(),
            "seconds": round(run.groupby("run").seconds.first().median()),
        }
        for name in found.index:
            low, high = draws[name].quantile([0.025, 0.975])
            row |= {
                name: f"{found[name]:.3f} [{low:.3f}, {high:.3f}]",
                f"{name} ±": f"{spread[name]:.3f}",
            }
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
    print(
        figures(
            pd.concat(measure(table, method, args) for method in args.methods), args.cut
        ).to_string()
    )


if __name__ == "__main__":
    main()
