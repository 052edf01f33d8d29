"""The atlas: all paintings on one map, near each other where their embeddings are similar.

Reads the predictions (`evaluation.read`), `EXPORT/embeddings.npz` and the pictures in DATA; writes
`EXPORT/atlas.html`, which needs neither a network nor a kernel. The other half of the experiment is
`drift`. Notebook: `experiments/18_time`.
"""

import importlib.metadata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from artclf.base.errors import InputError
from artclf.base.files import write_text
from artclf.lab import drift
from artclf.results import embeddings, evaluation, pages

LEAST = 5  # pictures: fewer have no neighbourhoods to lay out
# Of t-SNE. On 2,049 paintings as trustworthy as scikit-learn's default of 1,000 (.953 and .954), in
# half the time.
ITERATIONS = 500
UMAP_NEIGHBOURS = 15
# The part of the colour map that stands out from a light and from a dark page.
COLOUR_RANGES = {"light": (0, 0.85), "dark": (0.3, 1)}


def project(
    vectors: np.ndarray, places=None, perplexity: float = 30, seed: int = 0, umap: bool = True
) -> dict[str, np.ndarray]:
    """Maps of the pictures by name: `{"PCA": array, "t-SNE": ..., "UMAP": ...}`, each of shape
    (images, 2) in -1 to 1.

    `vectors` are embeddings, a row a picture. t-SNE (van der Maaten and Hinton 2008) and UMAP
    (McInnes et al. 2018) keep neighbours by cosine distance together; long distances and empty
    space mean little. `perplexity` is about the number of neighbours that count, lowered to a third
    of the pictures where these are few. UMAP is made where `umap-learn` is installed (`has_umap`)
    and `umap` is true; fewer than 5 pictures have PCA only. Every map is turned so that `places`,
    those of the given periods in time, grow to the right. The same `seed` gives the same maps.
    Raises InputError for embeddings that aren't a table of numbers.
    """
    vectors = np.asarray(vectors, float)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise InputError("embeddings must be numbers, a row an image: run `artclf train` again")
    maps = {"PCA": _pca(vectors)}
    if len(vectors) >= LEAST:
        maps["t-SNE"] = _tsne(vectors, maps["PCA"], perplexity, seed)
        if umap and has_umap():
            maps["UMAP"] = _umap(vectors, seed)
    return {name: _turned(points, places) for name, points in maps.items()}


def _pca(vectors: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    points = np.zeros((len(vectors), 2))
    if np.ptp(vectors, 0).any():  # pictures that are all alike stay in one place
        components = min(2, *vectors.shape)
        pca = PCA(components, svd_solver="full")
        points[:, :components] = pca.fit_transform(vectors)
    return points


def _tsne(vectors: np.ndarray, pca: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    start = pca / max(pca[:, 0].std(), 1e-12) * 1e-4  # as in scikit-learn's init="pca"
    tsne = TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
        metric="cosine",
        init=start,
        max_iter=ITERATIONS,
        random_state=seed,
    )
    # Its threads wait for each other, and their number would change the map.
    with threadpool_limits(1):
        return tsne.fit_transform(vectors)


def _umap(vectors: np.ndarray, seed: int) -> np.ndarray:
    umap = importlib.import_module("umap")  # by name, because no extra of ours installs it
    few = len(vectors) <= UMAP_NEIGHBOURS
    reducer = umap.UMAP(
        min(UMAP_NEIGHBOURS, len(vectors) - 1),
        metric="cosine",
        random_state=seed,
        init="random" if few else "spectral",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value|.*n_neighbors is larger", UserWarning)
        return reducer.fit_transform(vectors)


def has_umap() -> bool:
    """Whether UMAP can be drawn; `pip install umap-learn` makes it so."""
    try:
        return bool(importlib.metadata.version("umap-learn"))
    except importlib.metadata.PackageNotFoundError:
        return False


def _turned(points: np.ndarray, places) -> np.ndarray:
    """`points` about their middle, rotated so that `places` grow to the right, within -1 to 1;
    distances keep their ratios.
    """
    points = points - points.mean(0)
    if places is not None:
        x, y = np.linalg.lstsq(points, places - np.mean(places), rcond=None)[0]
        length = np.hypot(x, y)
        if length:
            points = points @ np.array([[x, -y], [y, x]]) / length
    points = points - (points.max(0) + points.min(0)) / 2
    return points / max(np.abs(points).max(), 1e-12)


def places(predictions) -> np.ndarray:
    """The place in time of each picture's given period."""
    return predictions.period.map(drift.class_places(predictions)).to_numpy(float)


def trust(maps: dict, vectors: np.ndarray, periods, k: int = 10) -> pd.DataFrame:
    """How far to trust each map: a DataFrame, a row for the embeddings themselves and one for each
    map.

    `same_period` is the share of a picture's `k` nearest that have its period, `chance` that among
    all other pictures. `trustworthiness` (Venna and Kaski 2001) is 1 where the `k` nearest on the
    map are near in the embeddings, too, and about .5 for a random map. Missing for fewer than 3
    pictures.
    """
    from sklearn.manifold import trustworthiness

    periods = np.asarray(periods, dtype=object)
    number = len(periods)
    k = min(k, (len(vectors) - 1) // 2)
    counts = pd.Series(periods).map(pd.Series(periods).value_counts())
    chance = ((counts - 1) / max(number - 1, 1)).mean()
    rows = {
        "embeddings": {
            "same_period": _same_period(vectors, periods, k, "cosine"),
            "chance": chance,
            "trustworthiness": 1.0,
        }
    }
    for name, points in maps.items():
        trusted = np.nan
        if k:
            trusted = trustworthiness(vectors, points, n_neighbors=k, metric="cosine")
        rows[name] = {
            "same_period": _same_period(points, periods, k, "euclidean"),
            "chance": chance,
            "trustworthiness": trusted,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _same_period(points: np.ndarray, periods: np.ndarray, k: int, metric: str) -> float:
    """The share of the `k` nearest neighbours that have the picture's own period."""
    from sklearn.neighbors import NearestNeighbors

    if not k:
        return np.nan
    nearest = NearestNeighbors(n_neighbors=k, metric=metric).fit(points)
    neighbours = nearest.kneighbors(return_distance=False)
    return float((periods[neighbours] == periods[:, None]).mean())


def page(
    predictions,
    vectors: np.ndarray,
    data,
    maps: dict | None = None,
    pictures: str = "",
    similar: int = 6,
    seed: int = 0,
) -> str:
    """The atlas as a whole HTML page: point at a picture, and it appears; click, and it stays, with
    the most similar ones.

    `vectors` are the embeddings of the rows of `predictions`, `maps` what `project` returned for
    them (made where there are none). The `similar` pictures with the highest cosine similarity are
    named for each, which the map can't always show. `pictures` is the address of DATA relative to
    the page, from which larger pictures are then read.
    """
    names = evaluation.classes(predictions)
    number_of_class = {name: number for number, name in enumerate(names)}
    if maps is None:
        maps = project(vectors, places(predictions), seed=seed)
    images = []
    for row, thumbnail, neighbours in zip(
        predictions.itertuples(),
        pages.thumbnails(predictions.file, data),
        _most_similar(vectors, similar),
        strict=True,
    ):
        # A list, not an object: the page holds thousands of these. The template reads them so.
        images.append(
            [
                row.file,
                row.part,
                row.title,
                row.artist,
                row.year,
                number_of_class[row.period],
                number_of_class[row.predicted],
                round(row.probability, 4) if np.isfinite(row.probability) else None,
                thumbnail,
                neighbours,
            ]
        )
    content = {
        "classes": names,
        "parts": evaluation.parts(predictions),
        "colours": _colours(len(names)),
        "pictures": pictures,
        "images": images,
        "maps": {name: np.round(points, 4).tolist() for name, points in maps.items()},
    }
    return pages.filled("atlas.html", content)


def _most_similar(vectors: np.ndarray, number: int) -> list[list[int]]:
    """The rows of the most similar other pictures of each picture."""
    nearest, _ = embeddings.nearest(vectors, vectors, number + 1)
    return [
        [other for other in row if other != i][:number] for i, row in enumerate(nearest.tolist())
    ]


def _colours(n: int) -> dict:
    """A colour for each class in time order, on a light and on a dark page.

    The colour map is plasma, which colour-blind people can read.
    """
    from matplotlib import colormaps, colors

    result = {}
    for page_colour, (start, end) in COLOUR_RANGES.items():
        colours = colormaps["plasma"](np.linspace(start, end, n))
        result[page_colour] = [colors.to_hex(colour) for colour in colours]
    return result


def frame(text: str, height: int = 720) -> str:
    """A `page` in a frame (`pages.framed`), as HTML."""
    return pages.framed(text, "atlas", "atlas of the paintings", height)


def show(text: str, height: int = 720):
    """`frame` as an object that a notebook displays, live and in the HTML that nbconvert saves."""
    from IPython.display import HTML

    return HTML(frame(text, height))


def write(out, data, maps: dict | None = None) -> Path:
    """The path of the atlas, `EXPORT/atlas.html`, after writing all pictures with predictions to
    it.

    `maps` are those that `project` returned for them; they are made where there are none. Raises
    FileNotFoundError and InputError as `evaluation.read` and `embeddings.read` do.
    """
    predictions = evaluation.read(out, data)
    vectors = embeddings.read(out, predictions.file)
    text = page(predictions, vectors, data, maps, pages.relative_address(data, out))
    path = Path(out) / "atlas.html"
    write_text(path, text)
    return path
