"""What one looks at: the explorer, that is the confusion matrix and the pictures in it, made from
predictions.

Reads the predictions (`interpret.read`), the pictures in `DATA`, and embeddings and saliency from
`EXPORT`. A page is a whole HTML file: it needs neither a network nor a kernel. Shown in
`04_interpret`. Its JavaScript is declarative by lit-html (7 kB, `templates/lit-html.js`), which
needs no build step, never takes a stranger's text for markup, and keeps the focus while filters
change; libraries of charts (Vega, Plot) are many times as large and know no cards and no grid.
"""

import base64
import math
from pathlib import Path

import numpy as np

from artclf.base.files import read_json
from artclf.model import embeddings
from artclf.results import evaluation
from artclf.results.pages import TEMPLATES, filled, framed, relative_address, thumbnails

LIMIT = 4000  # thumbnails of a page: with more it would be over 20 MB


NO_EMBEDDINGS = (
    "No embeddings of these pictures were found: run `artclf train` again, and make this page with `out`, "
    "the export folder."
)


def page(predictions, data, part="test", limit=LIMIT, out=None) -> str:
    """The explorer as a whole HTML page: choose a cell of the matrix, and the paintings behind it
    appear beside it.

    Every image of every part is in it; the `limit` with the highest loss have their thumbnails (3
    kB each), those of `part` first, and a grey tile stands for any other and for a picture that
    can't be read. With the export folder `out`, a painting is shown with its most similar training
    pictures, and its saliency where `out` holds it. Larger pictures are read from `data` by an
    address relative to `out`, `out/notebooks` or the working folder.
    """
    style, library, script = (
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("explorer.css", "lit-html.js", "explorer.js")
    )
    return filled(
        "explorer.html",
        _content(predictions, data, part, limit, out),
        EXPLORER_STYLE=style,
        EXPLORER_SCRIPT=library + script,
    )


def _content(predictions, data, part, limit, out) -> dict:
    """What the page shows."""
    evaluation.of_part(predictions, part)
    names = evaluation.classes(predictions)
    rows = predictions.sort_values("loss", ascending=False, kind="stable")
    rows = rows.iloc[np.argsort(rows.part != part, kind="stable")]
    thumbs = thumbnails(rows.file[:limit], data, 128) + [""] * max(len(rows) - limit, 0)
    similar, without = _similar(rows, out)
    folder = saliency_folder(out) if out else None
    each = zip(rows.itertuples(), _top(rows, names), thumbs, similar, strict=True)
    images = [
        {
            **_image(row, top, names),
            "thumb": thumb,
            "similar": near,
            "saliency": _saliency(row.file, folder),
        }
        for row, top, thumb, near in each
    ]
    return {
        "classes": names,
        "parts": evaluation.parts(predictions),
        "part": part,
        "images": images,
        "bases": _bases(data, out),
        "withoutSimilar": without,
    }


def _image(row, top, names) -> dict:
    return {
        "file": row.file,
        "part": row.part,
        "title": row.title,
        "artist": row.artist,
        "year": row.year,
        "source": row.source,
        "given": names.index(row.period),
        "predicted": names.index(row.predicted),
        "probability": _rounded(row.probability),
        "loss": _rounded(row.loss),
        "top": top,
    }


def _rounded(number) -> float | None:
    return round(float(number), 4) if math.isfinite(number) else None


def _top(rows, names, k=5) -> list[list]:
    """Of each row the `k` most probable classes, and the given one, as pairs of place in `names`
    and probability.
    """
    scores = evaluation.scores(rows)
    places, values = [names.index(name) for name in scores], scores.to_numpy()
    given = [names.index(period) for period in rows.period]
    return [
        [
            [places[i], _rounded(row[i])]
            for rank, i in enumerate(order)
            if rank < k or places[i] == own
        ]
        for order, row, own in zip(
            np.argsort(-values, axis=1, kind="stable"), values, given, strict=True
        )
    ]


def _similar(rows, out, k=6) -> tuple[list, str]:
    """Of each row the `k` nearest training pictures as pairs of place and cosine, and what to say
    where there are none.

    A training picture is not its own neighbour.
    """
    train = np.flatnonzero(rows.part == "train")
    try:
        if out is None:
            raise FileNotFoundError("no export folder")
        known = embeddings.read(out, rows.file)
    except (FileNotFoundError, ValueError):
        return [[]] * len(rows), NO_EMBEDDINGS
    indices, cosines = embeddings.nearest(known, known[train], k + 1)
    pairs = [
        [
            (int(place), round(float(cosine), 3))
            for place, cosine in zip(train[near], row, strict=True)
        ]
        for near, row in zip(indices, cosines, strict=True)
    ]
    return [
        [pair for pair in row if pair[0] != own][:k] for own, row in enumerate(pairs)
    ], "There are none."


def saliency_folder(out) -> Path:
    """The folder in `out` for maps of the network that is there now: those of an earlier one lie in
    another.
    """
    hashes = read_json(Path(out) / "config.json").get("hashes", {})
    return Path(out) / "saliency" / hashes.get("model.safetensors", "")[:8]


def _saliency(file, folder) -> str:
    """The map of a picture in `folder` as a data URL; '' where there is none."""
    if folder is None or not (path := folder / f"{Path(file).stem}.jpg").exists():
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()


def _bases(data, out) -> list[str]:
    """Addresses of `data` relative to the folders in which the page may lie."""
    data, places = (
        Path(data).resolve(),
        [*([Path(out), Path(out) / "notebooks"] if out else []), Path()],
    )
    return list(dict.fromkeys(filter(None, (relative_address(data, place) for place in places))))


def frame(predictions, data, part="test", height=None, out=None) -> str:
    """`page` in a frame (`framed`)."""
    height = height or min(max(620, 300 + 28 * len(evaluation.classes(predictions))), 960)
    return framed(
        page(predictions, data, part, out=out), "explorer", "interactive confusion matrix", height
    )


def show(predictions, data, part="test", height=None, out=None):
    """`frame` as an object that a notebook displays, live and in the HTML that nbconvert saves."""
    from IPython.display import HTML

    return HTML(frame(predictions, data, part, height, out))
