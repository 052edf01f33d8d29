"""The report of a run: all that is known as one HTML page, without a network, to be printed.

Reads the predictions (`evaluation.read`), `EXPORT/` and the pictures in `DATA`. `interpret.write`
writes it.
"""

from pathlib import Path

from artclf.base.files import read_json
from artclf.results import calibration, evaluation, explorer, recipe, significance
from artclf.results.pages import cards, data_url, render

HOW_SPLIT = {
    "random": "by chance",
    "grouped": "so that copies of a picture lie in one part",
    "artist": "so that all pictures of a painter lie in one part",
    "source": "so that all pictures of a source lie in one part",
    "own": "as the folders, the manifest or the list of pictures say",
}
PAIRS = 8  # most confused ones that are shown
PICTURES = 4  # of each pair and of each period
NAMES = 20  # painters and sources with most errors


def page(predictions, data, out, part="test", n=12, plots_folder=None) -> str:
    """All that is known of a run as one HTML page; reads `config.json` and `metrics.json` of `out`,
    and the plots in `plots_folder` (by default, those of `out`).
    """
    from markupsafe import Markup

    config = read_json(Path(out) / "config.json")
    metrics = read_json(Path(out) / "metrics.json")
    pairs = []
    for pair in evaluation.most_confused(predictions, PAIRS, part).itertuples():
        images = evaluation.images_of_pair(predictions, pair, part)
        pairs.append((pair, cards(images.head(PICTURES), data)))
    errors = {}
    for fact in ("artist", "source"):
        table = evaluation.errors_by(predictions, fact, part).head(NAMES)
        errors[fact] = table.reset_index().to_dict("records")
    plots = {}
    for path in sorted(Path(plots_folder or Path(out) / "plots").glob("*.svg")):
        plots[path.stem] = data_url(path.read_bytes(), "image/svg+xml")
    low_high, units = intervals(predictions, part)
    # without a part, the explorer opens with all that no network had learned from
    page = explorer.frame(predictions, data, None if part == "test" else part, out=out)
    return render(
        "report.html",
        part=part,
        figures=evaluation.metrics(predictions),
        intervals=low_high,
        units=units,
        pairs=pairs,
        frame=Markup(page),
        table=evaluation.per_class(predictions).to_dict("index"),
        plots=plots,
        calibration=metrics.get("calibration", {}),
        error=calibration.error(evaluation.of_part(predictions, part)),
        answerable=calibration.answerable(predictions, part).to_dict("records"),
        by=errors,
        sure=cards(evaluation.surest(predictions, False, n, part), data),
        unsure=cards(evaluation.least_sure(predictions, n, part), data),
        typical=_typical(predictions, data, part),
        config=config,
        kept=metrics,
        how_split=HOW_SPLIT.get(config.get("split", ""), "as a table of its own says"),
        command=recipe.command(metrics, data, out),
    )


def intervals(predictions, part="test") -> tuple[dict, str]:
    """The 95% intervals of accuracy, macro F1 and distance, `{name: (low, high)}`, and what was
    drawn for them.
    """
    rows = evaluation.of_part(predictions, part)
    groups, kind = significance.units(rows)
    if len(rows) < 2:
        return {}, kind
    table = significance.interval(significance.bootstrap(rows, groups))
    low_high = {row.Index: (row.low, row.high) for row in table.itertuples()}
    return low_high, f"{groups.nunique()} {kind}"


def _typical(predictions, data, part) -> list[tuple]:
    """Pairs of a period and its pictures that are right with the highest probability."""
    right = evaluation.surest(predictions, True, None, part)
    typical = []
    for name in evaluation.classes(predictions):
        rows = right[right.period == name]
        if len(rows):
            typical.append((name, cards(rows.head(PICTURES), data)))
    return typical
