"""Step clean: decode every raw image whole, write normalised copies, set copies aside, and let a
person decide.

Reads `DATA/raw/` and the catalogue; writes `DATA/clean/<period>/<stem>.jpg` and the catalogue's
columns on cleaning and review. Raw files are never changed or deleted. Notebook: `02_clean`.
"""

from artclf.data.catalogue import read_catalogue
from artclf.data.cleaning import counts, issues, normalise
from artclf.data.duplicates import mark as mark_duplicates
from artclf.data.review import export_csv as export_decisions
from artclf.data.review import read_csv as read_decisions
from artclf.data.splits import usable

__all__ = [
    "counts",
    "export_decisions",
    "issues",
    "mark_duplicates",
    "normalise",
    "read_catalogue",
    "read_decisions",
    "usable",
]
