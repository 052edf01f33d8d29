"""The report of a run: all that is known of it as one HTML page, which needs no network and can be printed.

Reads the predictions (`interpret.read`), `EXPORT/` and the pictures in `DATA`; written by `interpret.write`.
"""
import base64
import json
import math
from pathlib import Path

from artclf import explorer, interpret


def page(predictions, data, out, part="test", n=12) -> str:
    """Everything that is known of a run as one HTML page; reads `history.csv`, `config.json` and plots from `out`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    pages = Environment(loader=FileSystemLoader(explorer.TEMPLATES), autoescape=True, trim_blocks=True,
                        lstrip_blocks=True)
    pages.filters |= {"percent": lambda value: "–" if math.isnan(value) else f"{100 * value:.1f}%",
                      "number": lambda value: "–" if value is None else f"{value:.2f}"}
    pairs = [(pair, _cards(interpret.behind(predictions, pair, part).head(4), data))
             for pair in interpret.most_confused(predictions, 8, part).itertuples()]
    config = Path(out) / "config.json"
    return pages.get_template("report.html").render(
        part=part, figures=interpret.metrics(predictions), pairs=pairs,
        frame=Markup(explorer.frame(predictions, data, part)),
        losses=_cards(interpret.top_losses(predictions, n, part), data),
        table=interpret.per_class(predictions).to_dict("index"),
        plots={path.stem: _svg(path) for path in sorted((Path(out) / "plots").glob("*.svg"))},
        config=json.loads(config.read_text(encoding="utf-8")) if config.exists() else {})


def _cards(rows, data) -> list[tuple]:
    return list(zip(rows.itertuples(), explorer.thumbnails(rows.file, data, 224), strict=True))


def _svg(path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
