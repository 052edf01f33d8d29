"""What other bodies give and cost: features of each for a linear head, on the same folds.

    python benchmarks/bodies.py DATA --archs NAME ... [--size 320] [--seeds 1 2 3]
                                [--weights NAME=FILE ...]

DATA is a data folder. Prints a row for each body that can be had here: seconds of its features a
picture, MB of its weights, number of features, licence, and accuracy and macro F1 of a balanced
logistic regression on them, pooled over five folds for each seed: grouped folds, which keep copies
together, and folds of painters. A name may carry the size of its pictures, as
`vit_small_patch14_dinov2.lvd142m@322`, and `a+b` are several bodies as one. Features are stored in
DATA, as those of training are. Bodies that can't be had are named with the reason.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from fastai.torch_core import default_device
from train import pictures

from artclf.base.files import sha256_of
from artclf.model import backbones, features, network
from artclf.model.doubts import HEAD
from artclf.model.engine import measure_settings
from artclf.model.folds import prediction_table
from artclf.model.pixels import Pictures
from artclf.results import evaluation

FOLDS = {"grouped": "group", "painters": "artist"}  # what the folds keep together


def row_of(table: pd.DataFrame, named: str, args) -> dict:
    """The row of one body; `named` is its name, with or without a size."""
    name, _, own_size = named.partition("@")
    size = int(own_size or args.size)
    weights = dict(pair.split("=", 1) for pair in args.weights).get(name)
    backbone = backbones.find(name, weights=weights)
    body = network.new_body(backbone, size=size, weights=weights)
    body.to(default_device(), memory_format=torch.channels_last)
    timed = measure_settings(network.fold_norms(body, size), size)
    here = timed[(timed.precision == "float32") & (timed.threads == torch.get_num_threads())]
    hashes = [sha256_of(Path(file)) for file in table.file]
    config = {**asdict(backbone), "precision": "float32"}
    shown = Pictures(args.data, table.file, hashes, size)
    x = features.body_views(shown, body, config, [0])[:, 0]
    licences = [backbones.licence_of(one.name) for one in backbones.each(backbone)]
    row = {
        "body": named,
        "s a picture": here.seconds.min(),
        "MB": sum(p.numel() * p.element_size() for p in body.parameters()) / 1e6,
        "features": body.n_features,
        "licence": "of the file" if weights else ", ".join(dict.fromkeys(licences)),
    }
    for folds, column in FOLDS.items():
        run = prediction_table(HEAD, x, table.period, table[column], seeds=args.seeds)
        figures = evaluation.metrics(run)["test"]
        row[f"{folds}: accuracy"] = figures["accuracy"]
        row[f"{folds}: macro F1"] = figures["macro_f1"]
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--archs", nargs="+", required=True)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE")
    args = parser.parse_args()
    if not (args.data / "catalogue.db").exists():
        parser.error(f"{args.data} is no data folder: artclf import makes one")
    table = pictures(args.data)
    rows = []
    for named in args.archs:
        try:
            rows.append(row_of(table, named, args))
        except (ValueError, OSError, ImportError) as error:
            print(f"{named} is left out: {error}")
    print(f"{len(table)} pictures, {table.period.nunique()} periods, seeds {args.seeds}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
