"""What one looks at: the interactive confusion matrix and the pictures in it, made from predictions.

Reads the predictions (`interpret.read`) and the pictures in `DATA`. The page is a whole HTML file with the pictures
in it: it needs neither a network nor a kernel. Shown in `04_interpret`.
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
