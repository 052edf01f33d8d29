"""Labelling: which pictures of a collection without labels to label next, and how good a classifier
the labels make so far.

Reads the catalogue and the clean images of DATA, whose pictures without a label are in the class
`unlabelled`; writes `DATA/features.db`, and the catalogue's table `label_curve`. A label is a
decision of `data.review`: `move:<period>`; `keep` skips a picture, `drop` says that it is no
painting. Notebook: `experiments/21_label`.
"""

import hashlib
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.decomposition import PCA

from artclf import clean, download
from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data import review, sample, splits
from artclf.data.catalogue import Catalogue
from artclf.data.classes import UNLABELLED, in_order, spoken
from artclf.data.groups import joined
from artclf.lab import few_labels, protocols
from artclf.model.features import of_images
from artclf.model.folds import out_of_fold
from artclf.model.heads import LinearHead, reduced
from artclf.results import plots
from artclf.results.recipe import DEFAULTS

PAGE = 20  # pictures that are asked for at a time
STRATEGY = "margin and coverage"
BY_CHANCE = 0.2  # of a page, so that the accuracy can be estimated
FEWEST = 10  # pictures drawn by chance: an estimate from fewer says next to nothing
FOLDS = 5
KEYS = "abcdefghijklmnopqrstuvwxyz0123456789"
SKIP = "keep"
NO_PAINTING = "drop"
CURVE = """
CREATE TABLE IF NOT EXISTS label_curve (
    labels INTEGER PRIMARY KEY,
    tested INTEGER NOT NULL,
    right INTEGER NOT NULL,
    time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""


def take_in(folder, data, periods: Sequence[str] = (), canvases: int = 10) -> pd.DataFrame:
    """Take the pictures in `folder` into the data set `data` without labels, and clean them: the
    counts of `clean_all`.

    Without a `folder`, `canvases` for each of `periods` are drawn into `DATA/gallery` and taken in.
    A further call takes in what is new. Raises what `download.import_folder` and `clean_all` do.
    """
    if folder is None:
        folder = Path(data) / "gallery"
        sample.draw(folder, canvases, periods=periods)
    download.import_folder(folder, data, layout=UNLABELLED)
    return clean.clean_all(data)


class Labelling:
    """The labelling of the pictures of `data` that came without a label.

    `periods` are the classes to choose from, those of the catalogue by default. Each page has
    `number` pictures, of which `by_chance` (a share) are drawn by chance from the whole collection,
    and the others are chosen by `strategy` (of `few_labels.STRATEGIES`), on the features of the
    frozen body `arch` at `size` px. Pictures that had a label from the start are learned from, too.
    Raises InputError without pictures to label or with fewer than two periods, SettingError for a
    number out of its range.
    """

    def __init__(
        self,
        data,
        periods: Sequence[str] = (),
        arch: str = DEFAULTS.arch,
        size: int = DEFAULTS.size,
        strategy: str = STRATEGY,
        number: int = PAGE,
        by_chance: float = BY_CHANCE,
        seed: int = DEFAULTS.seed,
    ):
        settings.check(size=size, page=number, by_chance=by_chance, seed=seed)
        settings.check_choice("strategy", strategy, few_labels.STRATEGIES)
        self.data = Path(data)
        self.strategy = strategy
        self.number = number
        self.by_chance = by_chance
        self.seed = seed
        self.classes = _classes(data, periods)
        self.rows = splits.with_unlabelled(data, with_dropped=True).reset_index(drop=True)
        collection = np.flatnonzero(self.rows.listed == UNLABELLED)
        if not len(collection):
            raise InputError(
                f"{data} has no picture without a label: take some in by `artclf import FOLDER "
                f"--data {data} --layout {UNLABELLED}`, then run `artclf clean --data {data}`"
            )
        self.order = collection[_by_chance(self.rows.clean_sha256[collection], seed)]
        self.pool = self._pool(arch, size)
        self.groups = np.array(joined(self.rows.clean_sha256, [self.rows.dup_group]))
        self.keys = list(zip(self.rows.url, self.rows.listed, strict=True))
        self.refresh()

    def _pool(self, arch: str, size: int) -> few_labels.Pool:
        body, config = protocols.frozen_body(arch, size)
        x = reduced(of_images(self.data, self.rows, body, config)[:, 0])
        components = min(few_labels.COMPONENTS, *x.shape)
        points = PCA(components, random_state=0).fit_transform(x)
        return few_labels.Pool(self.rows.assign(part="train"), x, points, self.classes)

    def refresh(self):
        """Read from the catalogue what is decided now."""
        with Catalogue(self.data) as catalogue:
            rows = catalogue.select("review IS NOT NULL")
        decided = {(row["url"], row["period"]): row["review"] for row in rows}
        reviews = np.array([decided.get(key, "") for key in self.keys], dtype=object)
        is_moved = np.array([text.startswith("move:") for text in reviews])
        moved_to = np.array([text.removeprefix("move:") for text in reviews], dtype=object)
        self.reviews = reviews
        periods = np.where(is_moved, moved_to, self.rows.listed)
        self.pool.images["period"] = periods
        self.pool.classes = in_order({*self.classes, *periods} - {UNLABELLED})

    @property
    def labelled(self) -> np.ndarray:
        """The places, in `rows`, of the pictures with a label."""
        has_label = self.pool.periods != UNLABELLED
        return np.flatnonzero(has_label & (self.reviews != NO_PAINTING))

    @property
    def undecided(self) -> np.ndarray:
        """The places of the pictures to label, in an order of chance that stays the same."""
        return self.order[self.reviews[self.order] == ""]

    def counts(self) -> dict[str, int]:
        """How many pictures of the collection are labelled, skipped, no painting, and left."""
        reviews = self.reviews[self.order]
        skipped = int((reviews == SKIP).sum())
        no_painting = int((reviews == NO_PAINTING).sum())
        left = int((reviews == "").sum())
        return {
            "labelled": len(reviews) - skipped - no_painting - left,
            "skipped": skipped,
            "no painting": no_painting,
            "left": left,
        }

    def next_page(self) -> np.ndarray:
        """The places of the pictures to label next, `number` or those that are left.

        Until two periods have a label, all of them are drawn by chance.
        """
        undecided = self.undecided
        if len(np.unique(self.pool.periods[self.labelled])) < 2:
            return undecided[: self.number]
        by_chance = undecided[: ceil(self.by_chance * self.number)]
        others = np.setdiff1d(undecided, by_chance)
        chosen = few_labels.next_to_label(
            self.pool,
            self.labelled,
            self.number - len(by_chance),
            self.strategy,
            self.seed,
            others,
        )
        page = np.concatenate([by_chance, chosen])
        return np.random.default_rng(self.seed + len(self.labelled)).permutation(page)

    def tested(self) -> np.ndarray:
        """The places of the labelled pictures that are a random sample of the collection: those at
        the beginning of its order of chance, up to the first without a decision.
        """
        is_decided = self.reviews[self.order] != ""
        beginning = self.order[np.logical_and.accumulate(is_decided)]
        return np.intersect1d(beginning, self.labelled)

    def estimate(self) -> dict[str, float] | None:
        """How good the labels are for, estimated: `labels`, `tested`, `right`, and `accuracy` with
        its 95% interval, `low` to `high` (Wilson 1927); None from fewer than `FEWEST` tested
        pictures.

        It is the accuracy on a picture drawn by chance from those of the collection that a person
        can label, painters known and unknown alike. Each of the `tested` pictures is told by a head
        that learned from four fifths of all labels, and from none of its copies, so that the head
        that learns from all of them is rather better.
        """
        labelled = self.labelled
        tested = self.tested()
        periods = self.pool.periods[labelled].astype(str)
        if len(tested) < FEWEST or len(np.unique(periods)) < 2:
            return None
        head = LinearHead(DEFAULTS.ridge, DEFAULTS.balance, standardise=False)
        groups = self.groups[labelled]
        found = out_of_fold(
            head, self.pool.x[labelled], periods, groups, FOLDS, self.seed, threads=None
        )
        answers = found.classes[np.nan_to_num(found.probabilities).argmax(1)]
        is_right = (answers == periods)[np.isin(labelled, tested)]
        return _figures(len(labelled), len(tested), int(is_right.sum()))

    def record(self) -> pd.DataFrame:
        """The `curve`, after the estimate for the labels of now was added to it."""
        found = self.estimate()
        with Catalogue(self.data) as catalogue, catalogue.transaction() as db:
            db.execute(CURVE)
            db.execute("DELETE FROM label_curve WHERE labels >= ?", (len(self.labelled),))
            if found:
                db.execute(
                    "INSERT INTO label_curve (labels, tested, right) VALUES (?, ?, ?)",
                    (found["labels"], found["tested"], found["right"]),
                )
        return curve(self.data)

    def decision(self, place: int) -> str:
        """What was decided on the picture at `place`, as `decide` takes it; '' for nothing."""
        return self.reviews[place].removeprefix("move:")

    def files(self, places) -> list[Path]:
        """The clean copies of the pictures at `places`, relative to `data`."""
        periods = self.pool.periods[places]
        names = [Path(file).name for file in self.rows.file[places]]
        return [Path("clean", *pair) for pair in zip(periods, names, strict=True)]

    def decide(self, place: int, choice: str):
        """Write a decision on the picture at `place` to the catalogue: a period, `SKIP` or
        `NO_PAINTING`.
        """
        row = self.rows.loc[place]
        decision = choice if choice in (SKIP, NO_PAINTING) else f"move:{choice}"
        review.decide(self.data, [{"url": row.url, "period": row.listed}], decision)
        self.refresh()

    def undo(self) -> list[int]:
        """Take back the last decision on a picture, also one from before a restart; the places of
        the pictures.
        """
        taken_back = {(row["url"], row["period"]) for row in review.undo(self.data)}
        self.refresh()
        return [place for place, key in enumerate(self.keys) if key in taken_back]


def _classes(data, periods: Sequence[str]) -> list[str]:
    """The classes to choose from. Raises InputError where they are fewer than two."""
    found = list(periods) or review.classes(data)
    if len(set(found)) < 2:
        raise InputError(
            f"{data} has {' and '.join(found) or 'no class'}, and labels need two classes to choose "
            "from: name them, such as PERIODS = ['05-baroque', '10-impressionism']"
        )
    return in_order(set(found))


def _by_chance(hashes, seed: int) -> np.ndarray:
    """An order of pictures that only their bytes and the seed decide, so that it stays the same
    after a restart and when pictures are added.
    """
    numbers = [hashlib.sha256(f"{seed} {sha256}".encode()).hexdigest() for sha256 in hashes]
    return np.argsort(numbers)


def _figures(labels: int, tested: int, right: int) -> dict[str, float]:
    interval = binomtest(right, tested).proportion_ci(0.95, "wilson")
    return {
        "labels": labels,
        "tested": tested,
        "right": right,
        "accuracy": right / tested,
        "low": interval.low,
        "high": interval.high,
    }


def curve(data) -> pd.DataFrame:
    """The estimates so far, a row for each number of labels; columns as in `Labelling.estimate`."""
    with Catalogue(data) as catalogue:
        catalogue.db.execute(CURVE)
        rows = catalogue.db.execute("SELECT labels, tested, right FROM label_curve ORDER BY labels")
        table = [_figures(*row) for row in rows]
    return pd.DataFrame(table, columns=["labels", "tested", "right", "accuracy", "low", "high"])


def describe(table: pd.DataFrame) -> str:
    """The last row of a `curve` in words."""
    if table.empty:
        return f"An estimate of the accuracy needs {FEWEST} labels of pictures drawn by chance."
    last = table.iloc[-1]
    return (
        f"With {last.labels:.0f} labels, right for {last.accuracy:.0%} of this collection "
        f"(95% interval {last.low:.0%} to {last.high:.0%}): {last.right:.0f} of {last.tested:.0f} "
        "pictures drawn by chance, each told by a head that had not learned from it."
    )


def plot_curve(table: pd.DataFrame, ax=None):
    """A `curve` as a Figure: the estimated accuracy against the number of labels, with its 95%
    interval. None without an estimate.
    """
    if table.empty:
        return None
    ax = ax or plots.axes_of_size(4.5, 2.6)
    below = table.accuracy - table.low
    above = table.high - table.accuracy
    ax.errorbar(table.labels, table.accuracy, [below, above], fmt=".-", color=plots.COLOURS[0])
    ax.set(xlabel="labels", ylabel="accuracy, estimated", ylim=(0, 1))
    ax.set_xlim(0, 1.1 * table.labels.max())
    ax.grid(alpha=0.3)
    return ax.figure


def keys(classes: Sequence[str]) -> list[dict[str, str]]:
    """The key of each class, in time order: dicts with `key`, `period` and its `name` in words.

    Raises InputError where there are more classes than keys.
    """
    if len(classes) > len(KEYS):
        raise InputError(f"{len(classes)} classes need as many keys: there are {len(KEYS)}")
    found = zip(KEYS, classes, strict=False)
    return [{"key": key, "period": name, "name": spoken(name)} for key, name in found]
