"""The atlas: all paintings on one map, near each other where the network sees them alike.

Reads the predictions (`interpret.read`), `EXPORT/embeddings.npz` and the pictures in DATA; writes
`EXPORT/atlas.html`, which needs neither a network nor a kernel. Notebook: `experiments/18_time`.
"""

import importlib.metadata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from artclf.base.errors import InputError
from artclf.lab import drift
from artclf.model import embeddings
from artclf.results import evaluation, pages

LEAST = 5  # fewer pictures have no neighbourhoods to lay out
ROUNDS = 500  # on 2,049 paintings as trustworthy as scikit-learn's 1,000 (.953 and .954), in half the time
SHADES = {
    "light": (0, 0.85),
    "dark": (0.3, 1),
}  # the part of the colours that stands out from either paper


def project(
    vectors: np.ndarray, places=None, perplexity: float = 30, seed: int = 0, umap: bool = True
) -> dict:
    """Maps of the pictures by name: `{"PCA": array, "t-SNE": ..., "UMAP": ...}`, each of shape
    (images, 2) in -1 to 1.

    `vectors` are embeddings, a row a picture. t-SNE (van der Maaten and Hinton 2008) and UMAP
    (McInnes et al. 2018) keep near pictures near, by cosine distance; far ones and empty space mean
    little. `perplexity` is about the number of neighbours that count, lowered to a third of the
    pictures where these are few. UMAP is made where `umap-learn` is installed (`has_umap`) and
    `umap` is true; fewer than 5 pictures have PCA only. Every map is turned so that `places`, those
    of the given periods in time, grow to the right. The same `seed` gives the same maps.
    """
    from sklearn.manifold import TSNE

    vectors, n = np.asarray(vectors, float), len(vectors)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError("embeddings must be numbers, a row an image: run `artclf train` again")
    maps = {"PCA": _pca(vectors)}
    if n >= LEAST:
        start = (
            maps["PCA"] / max(maps["PCA"][:, 0].std(), 1e-12) * 1e-4
        )  # as in scikit-learn's init="pca"
        tsne = TSNE(
            perplexity=min(perplexity, (n - 1) / 3),
            metric="cosine",
            init=start,
            max_iter=ROUNDS,
            random_state=seed,
        )
        with threadpool_limits(
            1
        ):  # its threads wait for each other, and their number would change the map
            maps["t-SNE"] = tsne.fit_transform(vectors)
        if umap and has_umap():
            maps["UMAP"] = _umap(vectors, seed)
    return {name: _turned(points, places) for name, points in maps.items()}


def _pca(vectors) -> np.ndarray:
    from sklearn.decomposition import PCA

    points, k = np.zeros((len(vectors), 2)), min(2, *vectors.shape)
    if np.ptp(vectors, 0).any():  # pictures that are all alike stay in one place
        points[:, :k] = PCA(k, svd_solver="full").fit_transform(vectors)
    return points


def places(predictions) -> np.ndarray:
    """The place in time of each picture's given period."""
    return predictions.period.map(drift.class_places(predictions)).to_numpy(float)


def has_umap() -> bool:
    """Whether UMAP can be drawn; `pip install umap-learn` makes it so."""
    try:
        return bool(importlib.metadata.version("umap-learn"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _umap(vectors, seed: int):
    # by name: it is optional, and an import would make it a dependency
    umap = importlib.import_module("umap")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value|.*n_neighbors is larger", UserWarning)
        neighbours, start = min(15, len(vectors) - 1), "spectral" if len(vectors) > 15 else "random"
        return umap.UMAP(neighbours, metric="cosine", random_state=seed, init=start).fit_transform(
            vectors
        )


def _turned(points, places) -> np.ndarray:
    """`points` about their middle, rotated so that `places` grow to the right, within -1 to 1;
    distances keep.
    """
    points = points - points.mean(0)
    if places is not None:
        x, y = np.linalg.lstsq(points, places - np.mean(places), rcond=None)[0]
        if size := np.hypot(x, y):
            points = points @ np.array([[x, -y], [y, x]]) / size
    points = points - (points.max(0) + points.min(0)) / 2
    return points / max(np.abs(points).max(), 1e-12)


def trust(maps: dict, vectors, periods, k: int = 10) -> pd.DataFrame:
    """How far to trust each map: a DataFrame, a row for the embeddings themselves and one for each
    map.

    `same_period` is the share of a picture's `k` nearest that have its period, `chance` that among
    all other pictures. `trustworthiness` (Venna and Kaski 2001) is 1 where the `k` nearest on the
    map are near in the embeddings, too, and about .5 for a random map. Missing for fewer than 3
    pictures.
    """
    from sklearn.manifold import trustworthiness

    periods, k = np.asarray(periods, dtype=object), min(k, (len(vectors) - 1) // 2)
    counts = pd.Series(periods).map(pd.Series(periods).value_counts())
    chance = ((counts - 1) / max(len(periods) - 1, 1)).mean()
    rows = {"embeddings": (_same(vectors, periods, k, "cosine"), chance, 1.0)}
    for name, points in maps.items():
        kept = trustworthiness(vectors, points, n_neighbors=k, metric="cosine") if k else np.nan
        rows[name] = _same(points, periods, k, "euclidean"), chance, kept
    return pd.DataFrame(rows, ["same_period", "chance", "trustworthiness"]).T


def _same(points, periods, k: int, metric: str) -> float:
    from sklearn.neighbors import NearestNeighbors

    if not k:
        return np.nan
    near = (
        NearestNeighbors(n_neighbors=k, metric=metric).fit(points).kneighbors(return_distance=False)
    )
    return float((periods[near] == periods[:, None]).mean())


def page(
    predictions, vectors, data, maps=None, pictures: str = "", near: int = 6, seed: int = 0
) -> str:
    """The atlas as a whole HTML page: point at a picture, and it appears; click, and it stays, with
    its like.

    `vectors` are the embeddings of the rows of `predictions`, `maps` what `project` returned for
    them (made where there are none). `near` pictures with the highest cosine similarity are named
    for each, which the map can't always show. `pictures` is the way from the page to DATA, from
    which larger pictures are then read.
    """
    names = evaluation.classes(predictions)
    index = {name: place for place, name in enumerate(names)}
    if maps is None:
        maps = project(vectors, places(predictions), seed=seed)
    like = [
        [j for j in row if j != i][:near]
        for i, row in enumerate(embeddings.nearest(vectors, vectors, near + 1)[0].tolist())
    ]
    columns = zip(
        predictions.itertuples(), pages.thumbnails(predictions.file, data), like, strict=True
    )
    images = [
        [
            row.file,
            row.part,
            row.title,
            row.artist,
            row.year,
            index[row.period],
            index[row.predicted],
            round(row.probability, 4) if np.isfinite(row.probability) else None,
            thumb,
            alike,
        ]
        for row, thumb, alike in columns
    ]
    content = {
        "classes": names,
        "parts": evaluation.parts(predictions),
        "colours": _colours(len(names)),
        "pictures": pictures,
        "images": images,
        "maps": {name: np.round(points, 4).tolist() for name, points in maps.items()},
    }
    return pages.filled("atlas.html", content)


def _colours(n: int) -> dict:
    """A colour for each class in time order, on light and on dark paper: plasma is safe for the
    colour-blind.
    """
    from matplotlib import colormaps, colors

    return {
        paper: [colors.to_hex(colour) for colour in colormaps["plasma"](np.linspace(*ends, n))]
        for paper, ends in SHADES.items()
    }


def frame(text: str, height: int = 720) -> str:
    """A `page` in a frame (`explorer.framed`)."""
    return pages.framed(text, "atlas", "atlas of the paintings", height)


def show(text: str, height: int = 720):
    """`frame` as an object that a notebook displays, live and in the HTML that nbconvert saves."""
    from IPython.display import HTML

    return HTML(frame(text, height))


def write(out, data, maps=None) -> Path:
    """Write the atlas of all pictures with predictions to `EXPORT/atlas.html`; its path.

    `maps` are those that `project` returned for them; they are made where there are none. Raises
    FileNotFoundError and ValueError as `interpret.read` and `embeddings.read` do.
    """
    predictions, path = evaluation.read(out, data), Path(out) / "atlas.html"
    vectors = embeddings.read(out, predictions.file)
    path.write_text(
        page(predictions, vectors, data, maps, pages.relative_address(data, out)), encoding="utf-8"
    )
    return path
