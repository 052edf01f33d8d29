"""Step clean: decode every raw image whole, write normalised copies, set duplicates aside, and let
a person decide on the rest.

Reads `DATA/raw/`, the catalogue and a file of decisions; writes `DATA/clean/<period>/<stem>.jpg`
and the catalogue's columns on cleaning, doubtful labels and review. Raw files are never changed or
deleted. Notebook: `02_clean`.
"""

from pathlib import Path

from artclf.base import settings
from artclf.base.locks import locked
from artclf.base.processes import MapJobs
from artclf.data.catalogue import read_catalogue, require
from artclf.data.cleaning import counts, issues, normalise
from artclf.data.duplicates import mark as mark_duplicates
from artclf.data.pictures import MAX_SIZE
from artclf.data.review import export_csv as export_decisions
from artclf.data.review import read_csv as read_decisions
from artclf.data.splits import usable

__all__ = [
    "clean_all",
    "counts",
    "export_decisions",
    "flagged",
    "issues",
    "list_flagged",
    "mark_doubtful",
    "mark_duplicates",
    "normalise",
    "read_catalogue",
    "read_decisions",
    "show_review",
    "usable",
]


def clean_all(
    data,
    max_size: int = MAX_SIZE,
    quality: int = 90,
    near_duplicates: bool = True,
    decisions: Path | None = None,
    map_jobs: MapJobs | None = None,
):
    """Apply `decisions`, clean what is new, set duplicates aside; return the counts of `counts`.

    `decisions` is a `review.csv`; without `near_duplicates` only exact ones are set aside;
    `map_jobs` is for `normalise` and `mark_duplicates`. Raises FileNotFoundError without a catalogue
    or where `decisions` is not there, and what `read_decisions` and `normalise` raise.
    """
    settings.check(max_size=max_size, quality=quality)
    if decisions is not None:
        if not decisions.exists():
            raise FileNotFoundError(f"no {decisions}: name a review.csv with --review")
        read_decisions(data, decisions)
    with locked(require(data)):
        normalise(data, max_size, quality, map_jobs=map_jobs)
        if near_duplicates:
            mark_duplicates(data, map_jobs)
    return counts(data)


def mark_doubtful(data, seed: int = 42, arch: str = "auto"):
    """Doubt the label of every usable picture: a DataFrame, the most doubtful first. See
    `artclf.model.doubts.mark`.
    """
    from artclf.model import doubts  # imports torch

    return doubts.mark(data, seed, arch)


def flagged(data):
    """The pictures that a person should look at, with their `reasons`: a DataFrame. See
    `artclf.model.doubts.flagged`.
    """
    from artclf.model import doubts  # imports torch

    return doubts.flagged(data)


def list_flagged(data, find_doubtful: bool = True):
    """What a person should look at, as a short table: `period, file, likelier, review, reasons`.

    Looks for doubtful labels and outliers first, unless told not to.
    """
    if find_doubtful:
        mark_doubtful(data)
    return flagged(data)[["period", "file", "likelier", "review", "reasons"]]


def show_review(data, pictures, n: int = 24, file=None):
    """The review of `pictures`, a table of `flagged`: buttons where a person can press them, else a
    Figure of the first `n`. See `artclf.results.review_page.show`.

    *export* writes the decisions to `file` (DATA/review.csv).
    """
    from artclf.results import review_page  # imports matplotlib

    return review_page.show(data, pictures, n, file)
