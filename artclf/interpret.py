"""Step interpret: where the classifier errs, and how far in time: tables, plots and a report made
from predictions.

Reads `EXPORT/predictions.csv` and the catalogue and pictures of `DATA`; writes
`EXPORT/report.html`, `EXPORT/plots/`, `EXPORT/per_class.csv`, `EXPORT/most_confused.csv`, the model
card `EXPORT/README.md` where there is none, and, by `write_saliency`, `EXPORT/saliency/`. Needs no
network and, but for the maps, no model. Notebook: `04_interpret`.
"""

import warnings
from pathlib import Path

from artclf.base import settings
from artclf.base.files import read_json, write_csv, write_figure, write_text
from artclf.data.cleaning import check_copies
from artclf.data.packs import check_is_none
from artclf.results import card
from artclf.results import report as report_page
from artclf.results.calibration import answerable
from artclf.results.compare import compare_runs
from artclf.results.evaluation import (
    classes,
    confusion,
    distances,
    errors_by,
    images_of_pair,
    least_sure,
    metrics,
    most_confused,
    of_part,
    per_class,
    read,
    surest,
    top_losses,
)
from artclf.results.explorer import show as show_explorer
from artclf.results.plots import of_run as plots_of_run
from artclf.results.recipe import command
from artclf.results.significance import bootstrap, interval, units

__all__ = [
    "answerable",
    "bootstrap",
    "classes",
    "command",
    "compare_runs",
    "confusion",
    "distances",
    "errors_by",
    "images_of_pair",
    "interval",
    "least_sure",
    "metrics",
    "most_confused",
    "of_part",
    "per_class",
    "read",
    "read_metrics",
    "show_explorer",
    "surest",
    "top_losses",
    "units",
    "write",
    "write_saliency",
]


def write(out, data, part="test", n=12, folder=None) -> dict:
    """Write report, plots (PNG and SVG) and tables of the export `out` into `folder` (by default,
    `out`); return their paths and the part's figures.

    `n` is the number of top losses shown. Warns where clean copies are gone. Raises
    FileNotFoundError and InputError as `read` and `of_part` do, InputError for a pack, PermissionError
    where `folder` can't be written.
    """
    settings.check(n=n)
    check_is_none(data)
    out = Path(out)
    folder = Path(folder or out)
    predictions = read(out, data)
    _warn_of_missing_copies(data, predictions)
    figures = plots_of_run(predictions, data, out, part, n)
    plots = folder / "plots"
    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            path = plots / f"{name}.{kind}"
            write_figure(path, figure)
            paths.append(str(path))
    write_csv(folder / "per_class.csv", per_class(predictions), index=True)
    write_csv(folder / "most_confused.csv", most_confused(predictions, None, part))
    report = folder / "report.html"
    write_text(report, report_page.page(predictions, data, out, part, n, plots))
    if not (folder / card.NAME).exists() and card.is_possible(out):
        write_text(folder / card.NAME, card.text(out, data))
    return {"report": str(report), "plots": paths, "part": part, **metrics(predictions)[part]}


def _warn_of_missing_copies(data, predictions):
    """Warn where the report will lack pictures, because their clean copies are gone."""
    try:
        check_copies(data, predictions.file)
    except FileNotFoundError as error:
        warnings.warn(f"the report lacks pictures: {error}", stacklevel=3)


def write_saliency(out, data, n: int = 100) -> list[Path]:
    """Write maps of what spoke for the `n` worst errors to `EXPORT/saliency/`; return their paths.

    See `artclf.results.saliency.worst`. Needs the export's network and captum; says so where they
    are missing.
    """
    settings.check(n=n)
    check_is_none(data)
    from artclf.results import saliency  # imports torch

    return saliency.worst(out, data, n)


def read_metrics(out) -> dict:
    """The content of `EXPORT/metrics.json`; an empty dict where there is no such file."""
    return read_json(Path(out) / "metrics.json")
