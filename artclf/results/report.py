"""The report of a run, and the comparison of two: all that is known as one HTML page, without a
network, to be printed.

Reads the predictions (`interpret.read`), `EXPORT/` and the pictures in `DATA`. `interpret.write`
writes the report, `compare` the comparison.
"""

from pathlib import Path

from artclf.base.files import read_json
from artclf.results import calibration, evaluation, explorer, recipe, significance
from artclf.results.pages import cards, render, svg_url

HOW_SPLIT = {
    "random": "by chance",
    "grouped": "so that copies of a picture lie in one part",
    "artist": "so that all pictures of a painter lie in one part",
    "own": "as the list of pictures says",
}


def page(predictions, data, out, part="test", n=12) -> str:
    """All that is known of a run as one HTML page; reads `config.json`, `metrics.json` and the
    plots of `out`.
    """
    from markupsafe import Markup

    config, kept = read_json(Path(out) / "config.json"), read_json(Path(out) / "metrics.json")
    pairs = [
        (pair, cards(evaluation.images_of_pair(predictions, pair, part).head(4), data))
        for pair in evaluation.most_confused(predictions, 8, part).itertuples()
    ]
    low_high, units = intervals(predictions, part)
    return render(
        "report.html",
        part=part,
        figures=evaluation.metrics(predictions),
        intervals=low_high,
        units=units,
        pairs=pairs,
        frame=Markup(explorer.frame(predictions, data, part, out=out)),
        table=evaluation.per_class(predictions).to_dict("index"),
        plots={path.stem: svg_url(path) for path in sorted((Path(out) / "plots").glob("*.svg"))},
        calibration=kept.get("calibration", {}),
        error=calibration.error(evaluation.of_part(predictions, part)),
        answerable=calibration.answerable(predictions, part).to_dict("records"),
        by={
            fact: evaluation.errors_by(predictions, fact, part)
            .head(20)
            .reset_index()
            .to_dict("records")
            for fact in ("artist", "source")
        },
        sure=cards(evaluation.surest(predictions, False, n, part), data),
        unsure=cards(evaluation.least_sure(predictions, n, part), data),
        typical=_typical(predictions, data, part),
        config=config,
        kept=kept,
        how_split=HOW_SPLIT.get(config.get("split"), "as a table of its own says"),
        command=recipe.command(kept, data, out),
    )


def intervals(predictions, part="test") -> tuple[dict, str]:
    """The 95% intervals of accuracy, macro F1 and distance, `{name: (low, high)}`, and what was
    drawn for them.
    """
    rows = evaluation.of_part(predictions, part)
    groups, word = significance.units(rows)
    if len(rows) < 2:
        return {}, word
    table = significance.interval(significance.bootstrap(rows, groups))
    return {
        row.Index: (row.low, row.high) for row in table.itertuples()
    }, f"{groups.nunique()} {word}"


def _typical(predictions, data, part) -> list[tuple]:
    right = evaluation.surest(predictions, True, None, part)
    return [
        (name, cards(right[right.period == name].head(4), data))
        for name in evaluation.classes(predictions)
        if (right.period == name).any()
    ]
