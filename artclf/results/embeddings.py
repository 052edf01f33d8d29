"""Embeddings: the features of every picture in few numbers, and the pictures most similar to it.

Reads and writes `EXPORT/embeddings.npz`: the features that enter the head, standardised and brought
to at most 128 numbers by PCA, with what projects the features of a new picture. Step predict makes
them with its predictions; the explorer, the server and experiments read them.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from artclf.base.errors import InputError
from artclf.base.files import finish_replacing, replace_whole

NAME = "embeddings.npz"
NUMBERS = 128  # at most
QUERIES = 500  # that are compared at once, so that little memory is used
LARGEST = 10  # standard deviations: what hardly varies in train must not drown the rest


class Projection(NamedTuple):
    """What makes embeddings of features: `mean` and `scale` of each feature, the `center` of the
    standardised ones (features,), and the `axes` (d, features), d at most 128.
    """

    mean: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> "Projection":
        """The projection that standardises each of `features` (images, numbers) and keeps their
        principal components.
        """
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(features)
        scaled = np.clip(scaler.transform(features), -LARGEST, LARGEST)
        pca = PCA(min(NUMBERS, *scaled.shape), random_state=0).fit(scaled)
        arrays = (scaler.mean_, scaler.scale_, pca.mean_, pca.components_)
        return cls(*(array.astype(np.float32) for array in arrays))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (images, numbers) as embeddings: float16 of shape (images, d)."""
        return (self._centred(features) @ self.axes.T).astype(np.float16)

    def residuals(self, features: np.ndarray) -> np.ndarray:
        """How much of the standardised features (images, numbers) no embedding can hold: the length
        of what is left, float32 of shape (images,).

        It tells pictures of another kind apart better than the distance to the nearest picture
        (Wang et al. 2022, ViM: Out-of-distribution with virtual-logit matching).
        """
        centred = self._centred(features)
        held = np.square(centred @ self.axes.T).sum(axis=1)
        squares = np.square(centred).sum(axis=1) - held
        return np.sqrt(squares.clip(0)).astype(np.float32)

    def _centred(self, features: np.ndarray) -> np.ndarray:
        scaled = np.clip((features - self.mean) / self.scale, -LARGEST, LARGEST)
        return scaled - self.center


class Embeddings(NamedTuple):
    """What `EXPORT/embeddings.npz` holds: the `files` (relative to DATA), their `vectors`, float32
    of shape (files, d), and what a new picture is compared by.

    `projection` and the `residuals` (files,) are None where an earlier version made the export.
    """

    files: list[str]
    vectors: np.ndarray
    projection: Projection | None
    residuals: np.ndarray | None


def project(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features (images, numbers) as embeddings: float16 of shape (images, d), d at most 128.

    The projection is fitted on the images where `train` is true.
    """
    return Projection.fit(features[train])(features)


def write(
    file: Path,
    files,
    embeddings: np.ndarray,
    projection: Projection | None = None,
    residuals: np.ndarray | None = None,
):
    """Write the embeddings of `files`, which are relative to DATA, as `file`, whole or not at all,
    with the `projection` that made them and the `residuals` that it left.
    """
    arrays = {"file": np.array(list(files), dtype=str), "embedding": embeddings}
    if projection is not None and residuals is not None:
        arrays |= {**projection._asdict(), "residual": residuals}
    replace_whole(file, partial(_write_arrays, arrays))


def _write_arrays(arrays: dict[str, np.ndarray], file: Path):
    with ZipFile(file, "w") as archive:  # what numpy.savez writes, which has no array called `file`
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array)


def read(out, files) -> np.ndarray:
    """The embeddings of `files` in the export folder `out`: float32 of shape (files, d), in their
    order.

    Raises FileNotFoundError for an export without embeddings, InputError where they are not those
    of `files`.
    """
    names, values, _, _ = read_all(out)
    place = dict(zip(names, range(len(values)), strict=False))
    lost = [file for file in files if file not in place]
    if lost:
        raise InputError(
            f"{Path(out) / NAME} lacks {len(lost)} pictures, such as {lost[0]}: run `artclf train` "
            "again"
        )
    return values[[place[file] for file in files]]


def read_all(out) -> Embeddings:
    """All embeddings in the export folder `out`.

    Raises FileNotFoundError for an export without embeddings, InputError where the file is damaged.
    """
    path = Path(out) / NAME
    finish_replacing(path.parent)
    again = "run `artclf train` again"
    if not path.exists():
        raise FileNotFoundError(f"no {path}: {again}")
    try:
        with np.load(path) as stored:
            names = stored["file"].tolist()
            values = stored["embedding"].astype(np.float32)
            projection = residuals = None
            if {*Projection._fields, "residual"} <= set(stored.files):
                projection = Projection(*(stored[name] for name in Projection._fields))
                residuals = stored["residual"]
    except (ValueError, LookupError, EOFError, OSError, BadZipFile) as e:
        raise InputError(f"{path} holds no embeddings ({e}): {again}") from e
    return Embeddings(names, values, projection, residuals)


def nearest(queries: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each query the `k` most similar rows of `among`, most similar first: their indices and
    cosine similarities.

    Both of shape (queries, k), or fewer columns where `among` has fewer rows.
    """
    k = min(k, len(among))
    indices = np.zeros((len(queries), k), int)
    similarities = np.zeros((len(queries), k))
    if not k:
        return indices, similarities
    directions = _directions(among)
    for start in range(0, len(queries), QUERIES):
        rows = slice(start, start + QUERIES)
        cosines = _directions(queries[rows]) @ directions.T
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        indices[rows] = best
        similarities[rows] = np.take_along_axis(cosines, best, axis=1)
    return indices, similarities


def _directions(vectors: np.ndarray) -> np.ndarray:
    """`vectors` (n, d) at length 1; one of length 0 stays as it is."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
