"""Embeddings: the features of every picture in few numbers, and the pictures most similar to it.

Reads and writes `EXPORT/embeddings.npz`: the features that enter the head, standardised and brought
to at most 128 numbers by PCA. Step predict makes them with its predictions; the explorer and
experiments read them.
"""

from functools import partial
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from artclf.base.errors import InputError
from artclf.base.files import finish_replacing, replace_whole

NAME = "embeddings.npz"
NUMBERS = 128  # at most
LARGEST = 10  # standard deviations: what hardly varies in train must not drown the rest


def project(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features (images, numbers) as embeddings: float16 of shape (images, d), d at most 128.

    Each number is standardised, and the principal components found, on the images where `train` is
    true.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features[train])
    scaled = np.clip(scaler.transform(features), -LARGEST, LARGEST)
    d = min(NUMBERS, *scaled[train].shape)
    pca = PCA(d, random_state=0).fit(scaled[train])
    return pca.transform(scaled).astype(np.float16)


def write(file: Path, files, embeddings: np.ndarray):
    """Write the embeddings of `files`, which are relative to DATA, as `file`, whole or not at
    all.
    """
    arrays = {"file": np.array(list(files), dtype=str), "embedding": embeddings}
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
    path = Path(out) / NAME
    finish_replacing(path.parent)
    again = "run `artclf train` again"
    if not path.exists():
        raise FileNotFoundError(f"no {path}: {again}")
    try:
        with np.load(path) as stored:
            names = stored["file"].tolist()
            values = stored["embedding"].astype(np.float32)
    except (ValueError, LookupError, EOFError, OSError, BadZipFile) as e:
        raise InputError(f"{path} holds no embeddings ({e}): {again}") from e
    place = dict(zip(names, range(len(values)), strict=False))
    lost = [file for file in files if file not in place]
    if lost:
        raise InputError(f"{path} lacks {len(lost)} pictures, such as {lost[0]}: {again}")
    return values[[place[file] for file in files]]


def nearest(queries: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each query the `k` most similar rows of `among`, most similar first: their indices and
    cosine similarities.

    Both of shape (queries, k), or fewer columns where `among` has fewer rows.
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(among))
    if not k or not len(queries):
        return np.zeros((len(queries), k), int), np.zeros((len(queries), k))
    distances, indices = (
        NearestNeighbors(n_neighbors=k, metric="cosine").fit(among).kneighbors(queries)
    )
    return indices, 1 - distances
