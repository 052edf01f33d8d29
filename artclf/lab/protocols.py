"""Protocols: what the recipe's frozen stage scores on pictures like those it learned from, by
painters it never saw, from sources it never saw, and where all pictures were made alike.

Reads the catalogue and the clean images of DATA, and of a levelled copy of it; writes
`DATA/features.db`. `artclf measure` prints the tables. Notebook: `experiments/19_protocols`.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd

from artclf.base import settings
from artclf.base.progress import progress_bar
from artclf.data.splits import usable
from artclf.lab import leaks
from artclf.model import backbones, network, unseen
from artclf.model.features import of_images
from artclf.model.folds import prediction_table
from artclf.model.heads import LinearHead, reduced
from artclf.results import calibration, evaluation
from artclf.results.recipe import DEFAULTS, EXPERIMENTS
from artclf.results.significance import summary

SPLITS = ("grouped", "artist", "source")
LEVELLED = "levelled"
MEANING = {
    "grouped": "copies together: painters and sources are known",
    "artist": "painters it never saw",
    "source": "sources it never saw",
    LEVELLED: "painters it never saw, all pictures made alike",
}


def measure(
    data,
    levelled=None,
    arch: str = DEFAULTS.arch,
    size: int = DEFAULTS.size,
    folds: int = 5,
    seeds=(1, 2, 3),
    resamples: int = 1000,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables: the figures of the recipe under each protocol, and how far its probabilities can
    be believed for painters it never saw.

    The recipe is the frozen stage of `artclf train`: a linear head at the minimum of its loss, on
    features of one view of each picture. Each protocol predicts all pictures out of `folds` folds
    for each of `seeds`, and its intervals are over its groups (see `significance.summary`). With
    `levelled`, a folder that `levels.level_sources` wrote, its pictures are measured in folds by
    painter. A UserWarning names periods that a protocol can't test, such as those from a single
    source. The second table is that of `calibration_on_unseen`. Raises what `splits.usable` and
    `backbones.find` do, SettingError for a number out of its range.
    """
    settings.check(size=size)
    body, config = frozen_body(arch, size)
    rows = {}
    runs = {}
    jobs = [(split, data, split) for split in SPLITS]
    rows_of_data = usable(data)
    unknown = int((rows_of_data.painter == "").sum())
    if unknown:
        print(
            f"The painters of {unknown} of {len(rows_of_data)} pictures are not known: each of these "
            "counts as a painter of its own."
        )
    sources = rows_of_data.source.replace("", None).nunique()
    if sources < 2:
        print(f"{data} names {sources or 'no'} source, so sources it never saw are not measured.")
        jobs.pop()
    if levelled is not None:
        jobs.append((LEVELLED, levelled, "artist"))
    for name, folder, split in progress_bar(jobs, desc="protocols"):
        images = leaks.images(folder, [split], folds)
        x = reduced(of_images(folder, images, body, config)[:, 0])
        head = LinearHead(DEFAULTS.ridge, DEFAULTS.balance, DEFAULTS.tau, standardise=False)
        groups = images[f"by_{split}"]
        runs[name] = prediction_table(head, x, images.period, groups, folds, seeds, threads=None)
        rows[name] = summary(runs[name], runs[name].group, resamples)
    figures = pd.DataFrame.from_dict(rows, orient="index")
    figures.insert(0, "meaning", [MEANING[name] for name in figures.index])
    return figures, calibration_on_unseen(runs)


def frozen_body(arch: str, size: int) -> tuple[network.Body, dict]:
    """The body of the recipe, and its settings as `config.json` has them."""
    backbone = backbones.find(arch)
    config = {
        **asdict(backbone),
        "size": size,
        "resize": DEFAULTS.resize,
        "precision": DEFAULTS.precision,
        "pool": EXPERIMENTS["pool"],
    }
    body = unseen.frozen_body(config)
    return body, {**config, "pool": body.pool, "stages": body.version}


def calibration_on_unseen(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How far probabilities can be believed for painters that were never seen, by what temperature
    and limits were fitted on: a row for the folds of copies, a row for those of painters.

    Both are fitted for each fold by painter, on predictions of other pictures, and held against the
    fold. Columns: `temperature` (mean), `ece` and `nll`, and for each accuracy of
    `calibration.ACCURACIES` the `answered_<percent>` share and what of it is `right_<percent>`.
    """
    rows = {}
    artist = runs["artist"]
    for fitted_on in ("grouped", "artist"):
        parts = []
        temperatures = []
        for (seed, _), fold in artist.groupby(["seed", "fold"]):
            other = runs[fitted_on]
            other = other[(other.seed == seed) & ~other.image.isin(fold.image)]
            temperature = _temperature(other)
            temperatures.append(temperature)
            parts.append(_answers(_tempered(other, temperature), _tempered(fold, temperature)))
        rows[fitted_on] = {"temperature": np.mean(temperatures), **_believed(pd.concat(parts))}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fitted on")


def _temperature(rows: pd.DataFrame) -> float:
    scores = evaluation.scores(rows)
    probabilities, given = scores.to_numpy(), scores.columns.get_indexer(rows.period)
    # an image whose period its head did not learn tells nothing of a temperature
    is_learned = probabilities[np.arange(len(given)), given] > 0
    temperature, _ = calibration.fit(probabilities[is_learned], given[is_learned])
    return temperature


def _tempered(rows: pd.DataFrame, temperature: float) -> pd.DataFrame:
    columns = rows.filter(regex="^p_").columns
    tempered = calibration.temper(rows[columns], temperature)
    return rows.assign(**dict(zip(columns, tempered.T, strict=True)), probability=tempered.max(1))


def _answers(fitted_on: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with columns that say which of them are answered at each of the accuracies."""
    answered = {}
    for accuracy in calibration.ACCURACIES:
        answered[_percent(accuracy)] = rows.probability >= calibration.threshold(
            fitted_on, accuracy
        )
    return rows.assign(**answered)


def _believed(rows: pd.DataFrame) -> dict[str, float]:
    is_right = rows.period == rows.predicted
    scores = evaluation.scores(rows)
    found = {
        "ece": calibration.error(rows),
        "nll": calibration.nll(scores.to_numpy(), scores.columns.get_indexer(rows.period)),
    }
    for accuracy in calibration.ACCURACIES:
        answered = rows[_percent(accuracy)]
        found[f"answered_{_percent(accuracy)}"] = answered.mean()
        found[f"right_{_percent(accuracy)}"] = is_right[answered].mean()
    return found


def _percent(share: float) -> str:
    return f"{share:.0%}"


def text(figures: pd.DataFrame, believed: pd.DataFrame) -> str:
    """Both tables of `measure` as text."""
    table = leaks.readable(figures)
    meanings = [
        f"{name}: {meaning}" for name, meaning in zip(table.index, table.meaning, strict=True)
    ]
    return (
        f"{table.drop(columns='meaning').to_string()}\n\n"
        + "\n".join(meanings)
        + "\n\nProbabilities for painters it never saw, by what temperature and limits are fitted "
        f"on:\n{believed.round(3).to_string()}"
    )
