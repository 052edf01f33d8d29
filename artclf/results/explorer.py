"""The explorer: the confusion matrix and the pictures in it, as a page to click through.

Reads the predictions (`evaluation.read`), the pictures in `DATA`, and embeddings and saliency from
`EXPORT`. A page is a whole HTML file: it needs neither a network nor a kernel. Shown in
`04_interpret`. Its JavaScript uses lit-html (7 kB, `templates/lit-html.js`), which needs no build
step, never takes a stranger's text for markup, and keeps the focus while filters change; libraries
of charts (Vega, Plot) are many times as large and have no cards and no grid.
"""

import math
from pathlib import Path

import numpy as np

from artclf.base.errors import InputError
from artclf.base.files import read_json
from artclf.results import embeddings, evaluation
from artclf.results.pages import (
    TEMPLATES,
    data_url,
    filled,
    framed,
    relative_address,
    thumbnails,
)

LIMIT = 4000  # thumbnails of a page: with more it would be over 20 MB
THUMBNAIL_SIZE = 128  # px
NEIGHBOURS = 6
MOST_PROBABLE = 5  # classes of a picture whose probabilities are shown
EVERY_PART = "*"  # as the script of the page calls all parts
NO_EMBEDDINGS = (
    "No embeddings of these pictures were found: run `artclf train` again, and make this page with "
    "`out`, the export folder."
)


def page(predictions, data, part=None, limit=LIMIT, out=None) -> str:
    """The explorer as a whole HTML page: choose a cell of the matrix, and the paintings behind it
    appear beside it.

    Every image of every part is in it. It opens with those of `part`; without one, with those of all
    parts where no answer is of a network that had learned from the picture (see
    `predict.export_final`), else with those of test. The `limit` with the highest loss have their
    thumbnails (3 kB each), those it opens with first, and a grey tile stands for any other and for a
    picture that can't be read. With the export folder `out`, a painting is shown with its most similar training
    pictures, and its saliency where `out` holds it. Larger pictures are read from `data` by an
    address relative to `out`, `out/notebooks` or the working folder.
    """
    style = (TEMPLATES / "explorer.css").read_text(encoding="utf-8")
    library = (TEMPLATES / "lit-html.js").read_text(encoding="utf-8")
    script = (TEMPLATES / "explorer.js").read_text(encoding="utf-8")
    content = _content(predictions, data, part, limit, out)
    return filled("explorer.html", content, EXPLORER_STYLE=style, EXPLORER_SCRIPT=library + script)


def _content(predictions, data, part, limit, out) -> dict:
    """What the page shows."""
    part = part or (EVERY_PART if _are_unseen(out) else "test")
    names = evaluation.classes(predictions)
    rows = predictions.sort_values("loss", ascending=False, kind="stable")
    if part != EVERY_PART:
        evaluation.of_part(predictions, part)  # raises where it has no image
        rows = rows.iloc[np.argsort(rows.part != part, kind="stable")]
    n_without_thumbnail = max(len(rows) - limit, 0)
    thumbs = thumbnails(rows.file[:limit], data, THUMBNAIL_SIZE) + [""] * n_without_thumbnail
    tops = _top(rows, names)
    similar, why_none = _similar(rows, out)
    folder = saliency_folder(out) if out else None
    images = []
    for row, top, thumb, neighbours in zip(rows.itertuples(), tops, thumbs, similar, strict=True):
        image = _image(row, names)
        image["top"] = top
        image["thumb"] = thumb
        image["similar"] = neighbours
        image["saliency"] = _saliency(row.file, folder)
        images.append(image)
    return {
        "classes": names,
        "parts": evaluation.parts(predictions),
        "part": part,
        "images": images,
        "bases": _bases(data, out),
        "withoutSimilar": why_none,
    }


def _are_unseen(out) -> bool:
    """Whether all predictions in the export folder `out` are of networks that had not learned from
    the picture.
    """
    metrics = Path(out) / "metrics.json" if out else None
    if metrics is None or not metrics.exists():
        return False
    return "unseen" in (read_json(metrics).get("final") or {})


def _image(row, names) -> dict:
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
    }


def _rounded(number) -> float | None:
    return round(float(number), 4) if math.isfinite(number) else None


def _top(rows, names) -> list[list]:
    """For each row, the most probable classes and the given one: pairs of the class's index in
    `names` and its probability, the most probable first.
    """
    scores = evaluation.scores(rows)
    class_of_column = [names.index(name) for name in scores]
    probabilities = scores.to_numpy()
    orders = np.argsort(-probabilities, axis=1, kind="stable")
    top = []
    for order, of_row, period in zip(orders, probabilities, rows.period, strict=True):
        given = names.index(period)
        pairs = []
        for rank, column in enumerate(order):
            index = class_of_column[column]
            if rank < MOST_PROBABLE or index == given:
                pairs.append([index, _rounded(of_row[column])])
        top.append(pairs)
    return top


def _similar(rows, out) -> tuple[list, str]:
    """For each row, the most similar training pictures, and the text to show where there are none.

    A picture is a pair of its index in `rows` and its cosine similarity; it is not its own
    neighbour.
    """
    if out is None:
        return [[]] * len(rows), NO_EMBEDDINGS
    try:
        vectors = embeddings.read(out, rows.file)
    except (FileNotFoundError, InputError):
        return [[]] * len(rows), NO_EMBEDDINGS
    train = np.flatnonzero(rows.part == "train")
    nearest, cosines = embeddings.nearest(vectors, vectors[train], NEIGHBOURS + 1)
    neighbours = train[nearest]  # indices in `rows`
    similar = []
    for own_index in range(len(rows)):
        pairs = []
        for index, cosine in zip(neighbours[own_index], cosines[own_index], strict=True):
            if index != own_index:
                pairs.append((int(index), round(float(cosine), 3)))
        similar.append(pairs[:NEIGHBOURS])
    return similar, "There are none."


def saliency_folder(out) -> Path:
    """The folder in `out` for saliency maps of the network that was measured; the maps of an
    earlier network are in another folder.
    """
    hashes = read_json(Path(out) / "config.json").get("hashes", {})
    of_export = hashes.get("model.safetensors", "")
    return Path(out) / "saliency" / hashes.get("measured.safetensors", of_export)[:8]


def _saliency(file, folder) -> str:
    """The saliency map of a picture in `folder` as a data URL; '' where there is none."""
    if folder is None:
        return ""
    path = folder / f"{Path(file).stem}.jpg"
    return data_url(path.read_bytes(), "image/jpeg") if path.exists() else ""


def _bases(data, out) -> list[str]:
    """Addresses of `data` relative to the folders in which the page may lie."""
    folders = [Path()]
    if out:
        folders = [Path(out), Path(out) / "notebooks", Path()]
    addresses = [relative_address(data, folder) for folder in folders]
    return list(dict.fromkeys(address for address in addresses if address))


def frame(predictions, data, part=None, height=None, out=None) -> str:
    """`page` in a frame (`framed`)."""
    if height is None:
        rows = len(evaluation.classes(predictions))
        height = min(max(620, 300 + 28 * rows), 960)
    explorer = page(predictions, data, part, out=out)
    return framed(explorer, "explorer", "interactive confusion matrix", height)


def show(predictions, data, part=None, height=None, out=None):
    """`frame` as an object that a notebook displays, live and in the HTML that nbconvert saves."""
    from IPython.display import HTML

    return HTML(frame(predictions, data, part, height, out))
