"""What one looks at: the interactive confusion matrix, pages of pictures, and the report, each made from predictions.

Reads the predictions (`interpret.read`) and the pictures in `DATA`. The pages are whole HTML files with the pictures
in them: they need neither a network nor a kernel. Shown in `04_interpret`.
"""
import base64
import html
import io
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from artclf import interpret

TEMPLATES = Path(__file__).parent / "templates"


def picture(path, size: int):
    """The picture at `path` as RGB, its longer side at most `size`; None where it can't be read (it may have moved)."""
    from PIL import Image
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            image = image.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    image.thumbnail((size, size))
    return image


def thumbnails(files, data, size=112) -> list[str]:
    """The pictures as JPEG data URLs, in order; '' for one that can't be read."""
    def thumbnail(file):
        image, buffer = picture(Path(data) / file, size), io.BytesIO()
        if image is None: return ""
        image.save(buffer, "JPEG", quality=70, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(thumbnail, files))


def page(predictions, data, part="test", limit=4000) -> str:
    """The confusion matrix as a whole HTML page: choose a cell, and the paintings behind it appear beside it.

    Every image of every part is in it; the `limit` with the highest loss have their thumbnails (3 kB each), those of
    `part` first, and a grey tile stands for any other and for a picture that can't be read.
    """
    interpret.of_part(predictions, part)
    names = interpret.classes(predictions)
    rows = predictions.sort_values("loss", ascending=False, kind="stable")
    rows = rows.iloc[np.argsort(rows.part != part, kind="stable")]
    thumbs = thumbnails(rows.file[:limit], data) + [""] * max(len(rows) - limit, 0)
    images = [_image(row, top, thumb, names)
              for row, top, thumb in zip(rows.itertuples(), _top(rows), thumbs, strict=True)]
    content = {"classes": names, "parts": interpret.parts(predictions), "part": part, "images": images}
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (TEMPLATES / "explorer.html").read_text(encoding="utf-8").replace("EXPLORER_DATA", text)


def _image(row, top, thumb, names) -> dict:
    return {"file": row.file, "part": row.part, "title": row.title, "artist": row.artist, "year": row.year,
            "source": row.source, "given": names.index(row.period), "predicted": names.index(row.predicted),
            "loss": round(row.loss, 4) if math.isfinite(row.loss) else None, "thumb": thumb,
            "top": [[names.index(name), round(probability, 4)] for name, probability in top]}


def _top(rows, k=3) -> list[list]:
    """The `k` most probable classes of each row with their probabilities, most probable first."""
    scores = rows.filter(regex="^p_")
    names, values = [name.removeprefix("p_") for name in scores], scores.to_numpy()
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return [[(names[i], float(row[i])) for i in best] for best, row in zip(order, values, strict=True)]


def frame(predictions, data, part="test", height=None) -> str:
    """`page` in a frame: HTML to put into another page, whose styles and scripts it neither sees nor disturbs."""
    height = height or min(max(520, 220 + 28 * len(interpret.classes(predictions))), 900)
    return (f'<div><iframe class="artclf-explorer" title="interactive confusion matrix" '
            f'style="width: 100%; height: {height}px; border: 0" '
            f'srcdoc="{html.escape(page(predictions, data, part))}"></iframe></div>')


def show(predictions, data, part="test", height=None):
    """`frame` as an object that a notebook displays, live and in the HTML that nbconvert saves."""
    from IPython.display import HTML
    return HTML(frame(predictions, data, part, height))


def behind(predictions, pair, part="test"):
    """The images behind one row of `most_confused`, those that the network was surest of first."""
    rows = interpret.of_part(predictions, part)
    rows = rows[(rows.period == pair.given) & (rows.predicted == pair.predicted)]
    return rows.sort_values("probability", ascending=False, kind="stable")


def plot_most_confused(predictions, data, n=5, part="test", ax=None):
    """The most confused pairs as a Figure, a row a pair, with the four pictures that the network was surest of."""
    tiles = {}
    for place, pair in enumerate(interpret.most_confused(predictions, n, part).itertuples()):
        head = f"{pair.given} taken for {pair.predicted}: {pair.count}, {pair.rate:.0%} of {pair.given}"
        for column, row in enumerate(behind(predictions, pair, part).head(4).itertuples()):
            tiles[place, column] = Path(data) / row.file, "" if column else head
    return _plot_tiles(tiles, ax)


def plot_top_losses(predictions, data, n=12, part="test", ax=None):
    """The images with the highest loss as a Figure, four in a row, given period → predicted one."""
    rows = list(interpret.top_losses(predictions, n, part).itertuples())
    captions = [f"{row.period}\n→ {row.predicted}, {row.probability:.0%}" for row in rows]
    return plot_pictures([Path(data) / row.file for row in rows], captions, ax)


def plot_pictures(files, captions, ax=None):
    """Pictures as a Figure, four in a row, each under its caption; a grey tile for one that can't be read."""
    tiles = enumerate(zip(files, captions, strict=True))
    return _plot_tiles({divmod(place, 4): tile for place, tile in tiles}, ax)


def _plot_tiles(tiles: dict, ax):
    """A Figure of pictures: `tiles` is `{(row, column): (file, caption)}`."""
    from PIL import Image
    height = 1 + max((row for row, _ in tiles), default=0)
    ax = ax or interpret.axes_of_size(8, 2.3 * height)
    for (row, column), (file, caption) in tiles.items():
        image = picture(file, 300) or Image.new("RGB", (300, 300), "#bbbbbb")
        wide, high = (.94 * side / max(image.size) for side in image.size)
        ax.imshow(image, extent=(column, column + wide, 1.25 * row + high, 1.25 * row))
        ax.text(column, 1.25 * row - .03, caption, fontsize=7.5, va="bottom", parse_math=False)
    ax.set(xlim=(0, 4), ylim=(1.25 * height - .25, -.27), aspect="equal")
    ax.axis("off")
    return ax.figure


def plot_history(history, columns, ax=None):
    """Columns of `EXPORT/history.csv` over the epochs as a Figure of curves."""
    ax = ax or interpret.axes_of_size(5, 3)
    epochs = np.arange(1, len(history) + 1)
    for name, colour in zip(columns, interpret.COLOURS, strict=False):
        ax.plot(epochs, history[name], ".-", color=colour, label=name.replace("_", " "))
    ax.set(xlabel="epoch", xticks=epochs[::1 + len(epochs) // 12])
    ax.legend(frameon=False)
    return ax.figure


def plots(predictions, data, out, part="test", n=12) -> dict:
    """All plots by name, each a Figure; the curves are there where `out` holds `history.csv`."""
    import pandas as pd
    figures = {"confusion_counts": interpret.plot_confusion(predictions, part),
               "confusion_rates": interpret.plot_confusion(predictions, part, rates=True),
               "per_class": interpret.plot_per_class(predictions),
               "distance": interpret.plot_distance(predictions, part),
               "most_confused": plot_most_confused(predictions, data, part=part),
               "top_losses": plot_top_losses(predictions, data, n, part)}
    if (Path(out) / "history.csv").exists():
        history = pd.read_csv(Path(out) / "history.csv").select_dtypes("number")
        for name, pattern in (("losses", "loss"), ("scores", "accuracy|error|f1")):
            figures[name] = plot_history(history, history.columns[history.columns.str.contains(pattern)])
    return figures


def report(predictions, data, out, part="test", n=12) -> str:
    """Everything that is known of a run as one HTML page; reads `history.csv`, `config.json` and plots from `out`."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup
    pages = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"percent": lambda value: "–" if math.isnan(value) else f"{100 * value:.1f}%",
                      "number": lambda value: "–" if value is None else f"{value:.2f}"}
    pairs = [(pair, _cards(behind(predictions, pair, part).head(4), data))
             for pair in interpret.most_confused(predictions, 8, part).itertuples()]
    config = Path(out) / "config.json"
    return pages.get_template("report.html").render(
        part=part, figures=interpret.metrics(predictions), frame=Markup(frame(predictions, data, part)), pairs=pairs,
        losses=_cards(interpret.top_losses(predictions, n, part), data),
        table=interpret.per_class(predictions).to_dict("index"),
        plots={path.stem: _svg(path) for path in sorted((Path(out) / "plots").glob("*.svg"))},
        config=json.loads(config.read_text(encoding="utf-8")) if config.exists() else {})


def _cards(rows, data) -> list[tuple]:
    return list(zip(rows.itertuples(), thumbnails(rows.file, data, 224), strict=True))


def _svg(path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
