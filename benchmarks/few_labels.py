"""How many labels a collection needs, and whether the accuracy that the page of
`experiments/21_label` estimates is right.

    python benchmarks/few_labels.py labels DATA [--seeds 1 2 3 4 5] [--most 900]
    python benchmarks/few_labels.py estimates DATA [--seeds 1 2 3 4 5]

DATA is a clean data set with labels, which a person's keys are read from. Nothing in it is changed,
except that features are stored.

`labels`: for each seed, a test part of painters that are in no other part is put aside, and
the others get their labels, 20 at a time, the first ones by chance. Printed is after how many labels
the accuracy on test is 90 and 95% of what all labels give: the mean over the seeds, and the lowest
and the highest. A seed's accuracy is the mean of three pages in a row, so that no single page
decides.

`estimates`: the labels are hidden, and pages of `lab.labelling` get them as a person would
give them. Printed is the estimate with its interval, beside the accuracy on the whole collection: of
a head that learned from all labels on the pictures without one, and out of folds on the others.
"""

import argparse
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from artclf.base.progress import progress_bar
from artclf.data import splits
from artclf.data.catalogue import Catalogue
from artclf.data.classes import UNLABELLED
from artclf.lab import few_labels, labelling
from artclf.model.folds import out_of_fold
from artclf.model.heads import LinearHead
from artclf.results.recipe import DEFAULTS

SHARES = (0.9, 0.95)
PAGES = 3  # in a row, of which the mean counts
ESTIMATED_AT = (100, 200, 400)  # labels


def as_on_the_page(pool, labelled, places, probabilities, number, rng):
    """What `labelling.Labelling.next_page` does: a fifth by chance, the others by the mixture."""
    by_chance = rng.permutation(len(places))[: ceil(labelling.BY_CHANCE * number)]
    others = np.setdiff1d(np.arange(len(places)), by_chance)
    chosen = few_labels.by_margin_and_coverage(
        pool, labelled, places[others], probabilities[others], number - len(by_chance), rng
    )
    return np.concatenate([places[by_chance], chosen])


STRATEGIES = {
    "random": few_labels.at_random,
    "margin and coverage": few_labels.by_margin_and_coverage,
    "that, a fifth by chance: the page": as_on_the_page,
}


def accuracies(pool, choose, most: int, seed: int) -> pd.Series:
    """The accuracy on test by the number of labels, 20 more in each round."""
    rng = np.random.default_rng(seed)
    labelled = rng.permutation(pool.candidates)[: labelling.PAGE]
    found = {}
    while True:
        probabilities = few_labels.answers(pool, labelled, np.arange(len(pool.images)))
        answers = np.array(pool.classes)[probabilities[pool.tests].argmax(1)]
        found[len(labelled)] = (answers == pool.periods[pool.tests]).mean()
        places = np.setdiff1d(pool.candidates, labelled)
        if len(labelled) >= most or not len(places):
            return pd.Series(found)
        chosen = choose(pool, labelled, places, probabilities[places], labelling.PAGE, rng)
        labelled = np.concatenate([labelled, chosen])


def labels_needed(data, arch: str, size: int, seeds, most: int) -> pd.DataFrame:
    """A row for each strategy and seed: the labels until each of `SHARES`, NaN for more than
    `most`.
    """
    rows = []
    for seed in progress_bar(list(seeds), desc="seeds"):
        pool = few_labels.pool(data, arch, size, "artist", seed)
        all_labels = few_labels.score(pool, pool.candidates)["accuracy"]
        for name, choose in STRATEGIES.items():
            found = accuracies(pool, choose, most, seed).rolling(PAGES).mean()
            needed = {}
            for share in SHARES:
                reached = found.index[found >= share * all_labels]
                needed[f"{share:.0%}"] = reached[0] if len(reached) else np.nan
            row = {"strategy": name, "seed": seed, **needed, "at 200": found[200]}
            rows.append({**row, "all labels": all_labels, "pictures": len(pool.candidates)})
    return pd.DataFrame(rows)


def hidden(data: Path, folder: Path) -> dict[str, str]:
    """Write a data set whose pictures are those of `data`, without their labels, into `folder`; the
    labels by URL.
    """
    (folder / "clean" / UNLABELLED).mkdir(parents=True)
    with (
        closing(sqlite3.connect(data / "catalogue.db")) as source,
        closing(sqlite3.connect(folder / "catalogue.db")) as copy,
    ):
        source.backup(copy)
    rows = splits.usable(data).drop_duplicates("url")
    for file in rows.file:
        shutil.copyfile(data / file, folder / "clean" / UNLABELLED / Path(file).name)
    with Catalogue(folder) as catalogue, catalogue.transaction() as db:
        keep = list(zip(rows.url, rows.listed, strict=True))
        db.execute("UPDATE images SET clean_status = 'rejected', review = NULL")
        db.executemany(
            "UPDATE images SET clean_status = 'ok', period = ? WHERE url = ? AND period = ?",
            [(UNLABELLED, *key) for key in keep],
        )
    return dict(zip(rows.url, rows.period, strict=True))


def estimates(data: Path, arch: str, size: int, seeds) -> pd.DataFrame:
    """A row for each seed and number of labels: the estimate, and the accuracy on the whole
    collection; and the seconds of a page.

    Features are stored with those of `data`, which has the same pictures.
    """
    os.environ.setdefault("ARTCLF_CACHE", str(data))
    rows = []
    for seed in progress_bar(list(seeds), desc="seeds"):
        with tempfile.TemporaryDirectory() as folder:
            labels = hidden(data, Path(folder))
            periods = sorted(set(labels.values()))
            task = labelling.Labelling(folder, periods, arch, size, seed=seed)
            true = task.rows.url.map(labels).to_numpy()
            seconds = []
            while len(task.labelled) < max(ESTIMATED_AT):
                start = time.perf_counter()
                page = task.next_page()
                seconds.append(time.perf_counter() - start)
                for place in page:
                    task.decide(int(place), true[place])
                start = time.perf_counter()
                last = task.record().iloc[-1]
                seconds[-1] += time.perf_counter() - start
                if last.labels in ESTIMATED_AT:
                    accuracy = on_the_collection(task, true)
                    row = {"seed": seed, **last, "collection": accuracy}
                    rows.append({**row, "seconds of a page": np.median(seconds)})
    return pd.DataFrame(rows)


def on_the_collection(task: labelling.Labelling, true: np.ndarray) -> float:
    """The accuracy on all pictures, each by a head that has not learned from it."""
    labelled = task.labelled
    others = np.setdiff1d(task.order, labelled)
    found = few_labels.answers(task.pool, labelled, others).argmax(1)
    right = (np.array(task.pool.classes)[found] == true[others]).sum()
    head = LinearHead(DEFAULTS.ridge, DEFAULTS.balance, standardise=False)
    periods = true[labelled].astype(str)
    folds = out_of_fold(
        head, task.pool.x[labelled], periods, task.groups[labelled], labelling.FOLDS, 0, None, None
    )
    answers = folds.classes[np.nan_to_num(folds.probabilities).argmax(1)]
    return (right + (answers == periods).sum()) / len(task.order)


def readable(needed: pd.DataFrame, most: int) -> pd.DataFrame:
    """The first table as text."""
    rows = {}
    for name, table in needed.groupby("strategy", sort=False):
        row = {}
        for column in (f"{share:.0%}" for share in SHARES):
            labels = table[column]
            if labels.isna().any():
                row[column] = f"more than {most} in {labels.isna().sum()} of {len(labels)} seeds"
            else:
                row[column] = f"{labels.mean():.0f} ({labels.min():.0f} to {labels.max():.0f})"
        rows[name] = {**row, "accuracy at 200": f"{table['at 200'].mean():.3f}"}
    return pd.DataFrame.from_dict(rows, orient="index")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["labels", "estimates"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", default="auto")
    parser.add_argument("--size", type=int, default=DEFAULTS.size)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--most", type=int, default=900)
    args = parser.parse_args()
    if args.what == "estimates":
        found = estimates(args.data, args.arch, args.size, args.seeds)
        print(found.round(3).to_string(index=False))
        return
    needed = labels_needed(args.data, args.arch, args.size, args.seeds, args.most)
    print(readable(needed, args.most).to_string())
    per_seed = needed.groupby("seed")[["all labels", "pictures"]].first()
    print(f"\nAll labels:\n{per_seed.round(3).to_string()}")


if __name__ == "__main__":
    main()
