"""Step interpret: where the classifier errs, and how far in time: tables, plots and a report made
from predictions.

Reads `EXPORT/predictions.csv` and the catalogue and pictures of `DATA`; writes
`EXPORT/report.html`, `EXPORT/plots/`, `EXPORT/per_class.csv` and `EXPORT/most_confused.csv`. Needs
no network and no model. Notebook: `04_interpret`.
"""

from pathlib import Path

from artclf.results.evaluation import metrics, most_confused, per_class, read


def write(out, data, part="test", n=12) -> dict:
    """Write report, plots (PNG and SVG) and tables into folder `out`; the summary: their paths, and
    the part's figures.

    `n` is the number of top losses shown. Raises FileNotFoundError and ValueError as `read` and
    `of_part` do.
    """
    from artclf.results import (
        plots,
        report,  # they build on this module
    )

    out, predictions = Path(out), read(out, data)
    figures = plots.of_run(predictions, data, out, part, n)
    paths = [out / "plots" / f"{name}.{kind}" for name in figures for kind in ("png", "svg")]
    (out / "plots").mkdir(exist_ok=True)
    for path in paths:
        figures[path.stem].savefig(path, dpi=150)
    per_class(predictions).to_csv(out / "per_class.csv", encoding="utf-8")
    most_confused(predictions, None, part).to_csv(
        out / "most_confused.csv", index=False, encoding="utf-8"
    )
    (out / "report.html").write_text(report.page(predictions, data, out, part, n), encoding="utf-8")
    return {
        "report": str(out / "report.html"),
        "plots": [str(path) for path in paths],
        "part": part,
        **metrics(predictions)[part],
    }
