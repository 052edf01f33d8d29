"""Unseen: predictions of every picture by heads that have seen neither it nor its painter.

Reads the catalogue and, through `features`, the clean pictures; writes nothing else. The pictures
are cut into folds, and a linear head learns from the features of all folds but one. That takes
seconds, so every picture can be a test picture.
"""

import numpy as np

from artclf.data import splits
from artclf.model import backbones, network, stages
from artclf.model.feature_rows import FeatureRows, RowsInMemory, SelectedRows, rows_of
from artclf.model.folds import out_of_fold
from artclf.model.heads import EPSILON, LinearHead, reduced
from artclf.model.pixels import pictures_of
from artclf.model.several import Bodies

FOLDS = 10
RIDGE = 0.3  # for recipes without a penalty of their own


def probabilities(
    data, images, config: dict, split: str = "artist", weights=None, map_jobs=None
) -> np.ndarray | None:
    """The probability of each class for each of `images`, (images, classes), out of `FOLDS` folds;
    None where the groups are too few, so that an image has no head that hasn't seen its group.

    `images` is a table of `splits.items`, `config` that of an export, whose body, settings and seed
    are taken; `weights` is the file that the body started from, if it did from one. Heads learn as
    in `heads.LinearHead`, from features of view 0 that are standardised by all images, which takes
    no label. The probability of a class that a fold did not learn is NaN. No group of `split` (of
    `splits.SPLITS`) is in two folds.
    """
    rows = splits.usable(data, config["exclude"]).set_index("file").loc[images.file]
    groups = np.array(splits.groups(rows, split))
    body = frozen_body(config, weights)
    pictures = pictures_of(data, images, config)
    x = _standardised(rows_of(pictures, body, config, map_jobs=map_jobs))
    tau = config.get("tau", 0.0)  # exports of version 0.1 don't name it
    ridge = config["ridge"] or RIDGE
    head = LinearHead(ridge, config["balance"], tau, standardise=False)
    y = images.period.to_numpy()
    found = out_of_fold(head, x, y, groups, FOLDS, config["seed"], threads=None)
    if np.isnan(found.probabilities).all(axis=1).any():
        return None
    places = [list(found.classes).index(period) for period in config["vocab"]]
    return found.probabilities[:, places]


def _standardised(rows: FeatureRows) -> np.ndarray | SelectedRows:
    """Rows standardised by all of them: an array in fewer columns where they are in memory."""
    if isinstance(rows, RowsInMemory):
        return reduced(rows.arrays())
    mean = rows.mean
    deviation = (rows.var + EPSILON).sqrt()
    return SelectedRows(rows, range(len(rows)), lambda batch: (batch - mean) / deviation)


def frozen_body(config: dict, weights=None) -> network.Body | Bodies:
    """The body of a network as it was before any training; `weights` is the file that it started
    from, if it did from one.
    """
    return network.new_body(
        backbones.of_config(config),
        config["pool"],
        config["size"],
        config["precision"],
        config.get("stages", stages.VERSION),
        weights,
    )
