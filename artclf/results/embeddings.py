"""Embeddings: the features of every picture in few numbers, and the pictures most similar to it.

Reads and writes `EXPORT/embeddings.npz`: the features that enter the head, standardised and brought
to at most 128 numbers by PCA; those of early stages alone, which tell the style; and what projects
the features of a new picture. Step predict makes them with its predictions; the explorer, the server
and experiments read them.
"""

from collections.abc import Callable, Iterable, Iterator
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
PICTURES_A_NUMBER = 10  # of a style, at least: of fewer pictures, the last components are noise
OVERSAMPLES = 10  # of the components in batches, beyond those that are kept
ITERATIONS = 12  # of the components in batches
TIE = 6  # decimals of a similarity: what differs less is as similar


class Projection(NamedTuple):
    """What makes embeddings of features: `mean` and `scale` of each feature, the `center` of the
    standardised ones (features,), and the `axes` (d, features), d at most 128.
    """

    mean: np.ndarray
    scale: np.ndarray
    center: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(
        cls,
        features: np.ndarray | Iterable[np.ndarray],
        numbers: int = NUMBERS,
        whiten: bool = False,
    ) -> "Projection":
        """The projection that standardises each of `features` (images, numbers) and keeps at most
        `numbers` of their principal components, with `whiten` each divided by its deviation.

        Features may come in batches, which are looped over several times.
        """
        from sklearn.preprocessing import StandardScaler

        is_whole = isinstance(features, np.ndarray)
        batches = [features] if is_whole else features
        scaler = StandardScaler()
        for batch in batches:
            scaler.partial_fit(batch)

        def scaled() -> Iterator[np.ndarray]:
            for batch in batches:
                yield np.clip(scaler.transform(batch), -LARGEST, LARGEST)

        find = _components if is_whole else _components_of_batches
        center, axes, variances = find(scaled, numbers)
        if whiten:
            deviations = np.sqrt(variances)[:, None]
            axes = axes / np.where(deviations < 1e-6, 1, deviations)
        arrays = (scaler.mean_, scaler.scale_, center, axes)
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


class Style(NamedTuple):
    """How pictures are painted, whatever they show: `vectors` (files, d), and the `projection` that
    makes them of the features at `places` (numbers,).

    Those features are means, deviations and covariances of the channels of early stages: what a
    Gram matrix is made of (Gatys et al. 2016, Image style transfer using convolutional neural
    networks). Components are whitened, so that the strongest, such as contrast, doesn't decide
    alone.
    """

    vectors: np.ndarray
    projection: Projection
    places: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The style of other pictures, by their features (images, numbers): float16 of (images, d)."""
        return self.projection(features[:, self.places])


class Embeddings(NamedTuple):
    """What `EXPORT/embeddings.npz` holds: the `files` (relative to DATA), their `vectors`, float32
    of shape (files, d), and what a new picture is compared by.

    `projection` and the `residuals` (files,) are None where an earlier version made the export,
    `style` also where the network has no stages.
    """

    files: list[str]
    vectors: np.ndarray
    projection: Projection | None
    residuals: np.ndarray | None
    style: Style | None = None


def fit_style(early: np.ndarray | Iterable[np.ndarray], images: int) -> Projection:
    """The projection of a `Style`, fitted on the features of early stages of so many `images`."""
    numbers = min(NUMBERS, max(1, images // PICTURES_A_NUMBER))
    return Projection.fit(early, numbers, whiten=True)


Components = tuple[np.ndarray, np.ndarray, np.ndarray]


def _components(batches: Callable[[], Iterator[np.ndarray]], numbers: int) -> Components:
    """The mean of the only batch, (features,), at most `numbers` of its principal components,
    (numbers, features), and their variances, (numbers,).
    """
    from sklearn.decomposition import PCA

    [x] = batches()
    pca = PCA(min(numbers, *x.shape), random_state=0).fit(x)
    return pca.mean_, pca.components_, pca.explained_variance_


def _components_of_batches(batches: Callable[[], Iterator[np.ndarray]], numbers: int) -> Components:
    """What `_components` gives, of several batches that aren't in memory together.

    By subspace iteration (Halko, Martinsson and Tropp 2011, Finding structure with randomness,
    algorithm 4.4), as scikit-learn finds the components of many pictures. Its `IncrementalPCA` takes
    longer for as many features as a body has, and its last components are further from those of PCA.
    """
    images = 0
    total = np.zeros(())
    for batch in batches():
        images += len(batch)
        total = total + batch.sum(axis=0, dtype=np.float64)
    center = (total / images).astype(np.float32)
    numbers = min(numbers, images, len(center))
    columns = min(numbers + OVERSAMPLES, len(center))
    product = np.random.default_rng(0).normal(size=(len(center), columns))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(product)
        product = np.zeros_like(basis)
        for batch in batches():
            centred = batch - center
            product += centred.T @ (centred @ basis.astype(np.float32))
    squares, turn = np.linalg.eigh(basis.T @ product)
    axes = (basis @ turn[:, ::-1][:, :numbers]).T
    largest = np.abs(axes).argmax(axis=1)  # is positive, as in scikit-learn
    axes *= np.sign(axes[np.arange(numbers), largest])[:, None]
    variances = squares[::-1][:numbers].clip(0) / max(1, images - 1)
    return center, axes, variances


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
    style: Style | None = None,
):
    """Write the embeddings of `files`, which are relative to DATA, as `file`, whole or not at all,
    with the `projection` that made them, the `residuals` that it left, and their `style`.
    """
    arrays = {"file": np.array(list(files), dtype=str), "embedding": embeddings}
    if projection is not None and residuals is not None:
        arrays |= {**projection._asdict(), "residual": residuals}
    if style is not None:
        arrays |= {"style": style.vectors, "style_places": style.places}
        arrays |= {f"style_{name}": array for name, array in style.projection._asdict().items()}
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
    known = read_all(out)
    place = dict(zip(known.files, range(len(known.vectors)), strict=False))
    lost = [file for file in files if file not in place]
    if lost:
        raise InputError(
            f"{Path(out) / NAME} lacks {len(lost)} pictures, such as {lost[0]}: run `artclf train` "
            "again"
        )
    return known.vectors[[place[file] for file in files]]


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
            projection = residuals = style = None
            if {*Projection._fields, "residual"} <= set(stored.files):
                projection = Projection(*(stored[name] for name in Projection._fields))
                residuals = stored["residual"]
            if "style" in stored.files:
                arrays = (stored[f"style_{name}"] for name in Projection._fields)
                vectors = stored["style"].astype(np.float32)
                style = Style(vectors, Projection(*arrays), stored["style_places"])
    except (ValueError, LookupError, EOFError, OSError, BadZipFile) as e:
        raise InputError(f"{path} holds no embeddings ({e}): {again}") from e
    return Embeddings(names, values, projection, residuals, style)


def nearest(queries: np.ndarray, among: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each query the `k` most similar rows of `among`, most similar first: their indices and
    cosine similarities.

    Both of shape (queries, k), or fewer columns where `among` has fewer rows. Of rows as similar
    (see `best`) the first comes first.
    """
    k = min(k, len(among))
    indices = np.zeros((len(queries), k), int)
    similarities = np.zeros((len(queries), k))
    among = directions(among)
    for start in range(0, len(queries), QUERIES):
        cosines = directions(queries[start : start + QUERIES]) @ among.T
        for place, row in enumerate(cosines, start):
            indices[place] = best(row, k)
            similarities[place] = row[indices[place]]
    return indices, similarities


def best(similarities: np.ndarray, k: int) -> np.ndarray:
    """The places of the `k` highest of `similarities` (n,), the highest first.

    Of those that are equal to six decimals the first comes first, so that copies of a picture, whose
    similarities differ by rounding, keep their order.
    """
    k = min(k, len(similarities))
    if not k:
        return np.zeros(0, int)
    least = np.partition(similarities, -k)[-k]
    candidates = np.flatnonzero(similarities >= least - 10.0**-TIE)
    order = np.argsort(-similarities[candidates].round(TIE), kind="stable")
    return candidates[order[:k]]


def directions(vectors: np.ndarray) -> np.ndarray:
    """`vectors` (n, d) at length 1; one of length 0 stays as it is."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
