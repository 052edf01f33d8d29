"""Clusters: what KMeans finds in several descriptions of the same paintings, and how far that has to
do with their periods and painters.

Reads the predictions and embeddings of EXPORT, the catalogue and the clean images of DATA; writes
`DATA/features.db` and, with `write`, `EXPORT/clusters.html`. Notebook: `experiments/15_clusters`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from artclf.base.errors import InputError
from artclf.base.files import write_text
from artclf.data.splits import usable
from artclf.lab import autoencoder, drift, protocols, scratch
from artclf.model.features import extract, of_images
from artclf.results import embeddings, evaluation, pages, plots

COMPONENTS = 64  # of PCA: KMeans measures distances in as many numbers at most
EARLY_STAGES = 3  # whose covariances are the Gram matrices
STARTS = 10  # of KMeans, of which the best counts
CENTRAL = 8  # pictures of a cluster on the page
LARGEST = 10  # standard deviations
FIGURES = {
    "ari": "adjusted Rand index",
    "nmi": "normalised mutual information",
    "purity": "purity",
    "silhouette": "silhouette",
    "same_period": "nearest has the same period",
    "same_painter": "nearest has the same painter",
}


def paintings(data, out) -> pd.DataFrame:
    """The pictures of the export `out` that are still in `data`: its predictions, `clean_sha256` of
    the catalogue, and `painter`, '' where unknown.

    Raises FileNotFoundError and InputError as `evaluation.read` does.
    """
    rows = evaluation.read(out, data)
    hashes = usable(data).set_index("file").clean_sha256
    rows = rows[rows.file.isin(hashes.index)].join(hashes, on="file")
    if rows.period.nunique() < 2:
        raise InputError(
            f"{out} holds pictures of fewer than two periods: there is nothing to part"
        )
    return rows.assign(painter=drift.painters(rows.artist)).reset_index(drop=True)


def pixels_of(rows: pd.DataFrame, data, size: int) -> torch.Tensor:
    """The pictures squashed to squares: uint8 of shape (images, 3, size, size)."""
    return scratch.pixels(tuple(Path(data) / file for file in rows.file), size)


def descriptions(
    rows: pd.DataFrame, data, out, learners: dict, pixels: torch.Tensor, arch: str, size: int
) -> dict[str, np.ndarray]:
    """Several descriptions of the pictures in `rows`, each (images, numbers), by name.

    `pixels` are small pictures (`pixels_of`), `learners` autoencoders that were trained on them. The
    pretrained network `arch` sees pictures of `size` px: its Gram matrices are the covariances of
    the channels of its first stages (Gatys et al. 2016), its features the means of its last maps.
    The embeddings are those of the export `out`. The answers are the logarithms of the
    probabilities in its `predictions.csv`: for test, and after `predict.export_final` for all
    parts, those of networks that had not learned from the picture.
    """
    found = {"pixels": pixels.flatten(1).numpy().astype(np.float32)}
    for kind, learn in learners.items():
        found[f"autoencoder {kind}"] = autoencoder.codes(learn, pixels)
    grams = gram_matrices(rows, data, arch, size)
    if grams is not None:
        found["Gram matrices"] = grams
    found["pretrained features"] = extract(data, rows, arch, size)
    found["embeddings of the export"] = embeddings.read(out, rows.file)
    found["answers of the export"] = np.log(evaluation.scores(rows).to_numpy().clip(1e-6))
    return found


def gram_matrices(rows: pd.DataFrame, data, arch: str, size: int) -> np.ndarray | None:
    """The covariances of the channels of the first stages of a pretrained network: (images, pairs);
    None for a network whose stages give none.
    """
    body, config = protocols.frozen_body(arch, size)
    columns: list[int] = []
    start = 0
    for channels in getattr(body, "covariance_channels", [])[:EARLY_STAGES]:
        if not channels:
            break
        pairs = channels * (channels - 1) // 2
        start += 2 * channels  # means and standard deviations come first
        columns += range(start, start + pairs)
        start += pairs
    if not columns:
        return None
    return of_images(data, rows, body, config)[:, 0, columns]


def standardised(description: np.ndarray, seed: int = 0) -> np.ndarray:
    """A description, each number standardised, projected on at most `COMPONENTS` principal
    components: (images, components).
    """
    numbers = StandardScaler().fit_transform(description).clip(-LARGEST, LARGEST)
    components = min(COMPONENTS, *numbers.shape)
    return PCA(components, random_state=seed).fit_transform(numbers)


def cluster(points: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    """The cluster, 0 to `number` - 1, of each row of `points`, by KMeans with the best of ten
    starts.
    """
    with threadpool_limits(1):  # the number of threads would change the result
        return KMeans(number, n_init=STARTS, random_state=seed).fit_predict(points)


def measure(
    descriptions: dict[str, np.ndarray], rows: pd.DataFrame, seeds: Sequence[int] = (1, 2, 3)
) -> pd.DataFrame:
    """How far clusters and nearest neighbours agree with periods and painters: a row a description,
    then a row `chance`.

    There are as many clusters as periods. `ari` (Hubert and Arabie 1985) and `nmi` are 0 for
    independent clusters but for chance and 1 where clusters are the periods; `purity` is the share
    of pictures in a cluster's most frequent period; `silhouette` (Rousseeuw 1987) tells how apart
    the clusters are, whatever they are made of: means over `seeds`, and `<name>_spread`, half the
    distance of the highest from the lowest. `same_period` and `same_painter` are the shares of
    pictures whose nearest one has theirs, the latter of those whose painter has others here.
    `chance` is what shuffled clusters and random neighbours give.
    """
    periods = rows.period.to_numpy()
    number = rows.period.nunique()
    table = {}
    for name, description in descriptions.items():
        points = standardised(description)
        runs = pd.DataFrame(
            [_of_clusters(cluster(points, number, seed), periods, points) for seed in seeds]
        )
        spreads = (runs.max() - runs.min()) / 2
        table[name] = {
            **runs.mean().to_dict(),
            "same_period": _same(points, periods),
            "same_painter": _same(points, rows.painter.to_numpy()),
            **spreads.add_suffix("_spread").to_dict(),
        }
    table["chance"] = _chance(rows, seeds)
    return pd.DataFrame.from_dict(table, orient="index")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `measure` as a reader sees it: texts, a mean with its spread."""
    texts = pd.DataFrame(index=table.index)
    for name, words in FIGURES.items():
        column = table[name].map("{:.3f}".format)
        spread = f"{name}_spread"
        if spread in table:
            column += table[spread].map(" ± {:.3f}".format)
        texts[words] = column.str.replace(" ± nan", "").str.replace("nan", "")
    return texts


def _of_clusters(clusters: np.ndarray, periods: np.ndarray, points=None) -> dict[str, float]:
    counts = pd.crosstab(clusters, periods)
    figures = {
        "ari": adjusted_rand_score(periods, clusters),
        "nmi": normalized_mutual_info_score(periods, clusters),
        "purity": counts.max(axis=1).sum() / len(periods),
    }
    if points is not None and 1 < len(counts) < len(points):
        figures["silhouette"] = silhouette_score(points, clusters)
    return figures


def _same(points: np.ndarray, labels: np.ndarray) -> float:
    """The share of pictures whose nearest other one has their label, of those whose label is not ''
    and that others have, too.
    """
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(return_distance=False)[:, 0]
    counted = _has_others(labels)
    return float((labels[nearest] == labels)[counted].mean()) if counted.any() else np.nan


def _has_others(labels: np.ndarray) -> np.ndarray:
    counts = pd.Series(labels).map(pd.Series(labels).value_counts()).to_numpy()
    return (counts > 1) & (labels != "")


def _chance(rows: pd.DataFrame, seeds: Sequence[int]) -> dict[str, float]:
    """What clusters of random pictures and random neighbours give."""
    periods = rows.period.to_numpy()
    number = rows.period.nunique()
    runs = []
    for seed in seeds:
        random_clusters = np.random.default_rng(seed).integers(0, number, len(rows))
        runs.append(_of_clusters(random_clusters, periods))
    chance = pd.DataFrame(runs).mean().to_dict()
    for name, labels in (("same_period", periods), ("same_painter", rows.painter.to_numpy())):
        counts = pd.Series(labels).map(pd.Series(labels).value_counts())
        of_others = (counts - 1) / max(len(rows) - 1, 1)
        chance[name] = of_others[_has_others(labels)].mean()
    return chance


# What is in the clusters


def in_time_order(clusters: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """The same clusters, numbered from 1 by the mean place in time of their pictures."""
    places = rows.period.map(drift.class_places(rows)).to_numpy(float)
    order = pd.Series(places).groupby(clusters).mean().rank(method="first").astype(int)
    return order.loc[clusters].to_numpy()


def composition(clusters: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
    """The number of pictures of each period, in time order, in each cluster."""
    counts = pd.crosstab(pd.Series(clusters, name="cluster"), rows.period)
    return counts.reindex(columns=evaluation.classes(rows), fill_value=0)


def together(clusters: np.ndarray, rows: pd.DataFrame, least: int = 10) -> pd.DataFrame:
    """Pairs of periods by how often a picture of one and a picture of the other share a cluster: the
    `share` of such pairs, and `times_chance`, how many times that of all pictures of different
    periods; the highest first.

    Periods with fewer than `least` pictures are left out.
    """
    counts = composition(clusters, rows)
    counts = counts.loc[:, counts.sum() >= least]
    shares = counts / counts.sum()
    sharing = shares.T @ shares
    totals = counts.sum().to_numpy()
    pairs = np.outer(totals, totals).astype(float)
    np.fill_diagonal(pairs, 0)
    overall = (sharing.to_numpy() * pairs).sum() / max(pairs.sum(), 1)
    found = []
    names = list(counts)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            share = sharing.loc[one, other]
            found.append((one, other, share, share / overall if overall else np.nan))
    table = pd.DataFrame(found, columns=["one", "other", "share", "times_chance"])
    return table.sort_values("share", ascending=False, ignore_index=True)


def central(points: np.ndarray, clusters: np.ndarray, number: int = CENTRAL) -> dict[int, list]:
    """For each cluster the places of the pictures nearest to its mean, the nearest first."""
    found = {}
    for name in np.unique(clusters):
        members = np.flatnonzero(clusters == name)
        distances = np.linalg.norm(points[members] - points[members].mean(0), axis=1)
        found[int(name)] = members[np.argsort(distances, kind="stable")[:number]].tolist()
    return found


def write(out, data, rows: pd.DataFrame, points: np.ndarray, clusters: np.ndarray) -> Path:
    """The path of `EXPORT/clusters.html`, after writing it: for each cluster its periods, its
    painters, and its most central pictures.
    """
    counts = composition(clusters, rows)
    sections = []
    for name, places in central(points, clusters).items():
        members = rows[clusters == name]
        painters = members.painter[members.painter != ""].value_counts()
        of_periods = counts.loc[name].sort_values(ascending=False, kind="stable")
        sections.append(
            {
                "number": name,
                "images": len(members),
                "periods": of_periods[of_periods > 0].head(3).to_dict(),
                "painters": painters.head(3).to_dict(),
                "cards": pages.cards(rows.iloc[places], data),
            }
        )
    path = Path(out) / "clusters.html"
    write_text(path, pages.render("clusters.html", sections=sections, images=len(rows)))
    return path


# Plots


def plot_pca(points: np.ndarray, rows: pd.DataFrame, ax=None):
    """The first two principal components as a Figure, a dot a picture, coloured by its period."""
    ax = ax or plots.axes_of_size(7, 4.5)
    places = rows.period.map(drift.class_places(rows))
    dots = ax.scatter(points[:, 0], points[:, 1], c=places, s=7, cmap="plasma", linewidths=0)
    bar = ax.figure.colorbar(dots, ax=ax)
    ticks = drift.class_places(rows)
    bar.ax.set_yticks(ticks, ticks.index, fontsize=7, parse_math=False)
    # a few pictures far outside would press all others together
    for axis, values in (("x", points[:, 0]), ("y", points[:, 1])):
        low, high = np.percentile(values, [0.5, 99.5])
        margin = 0.05 * (high - low) or 1
        ax.set(**{f"{axis}lim": (low - margin, high + margin)})
    ax.set(xlabel="first principal component", ylabel="second", xticks=[], yticks=[])
    return ax.figure


def plot_composition(clusters: np.ndarray, rows: pd.DataFrame, ax=None):
    """Clusters against periods as a Figure: in percent of each period, both in time order."""
    counts = composition(clusters, rows)
    shares = (counts / counts.sum().clip(lower=1)).to_numpy()
    height, width = shares.shape
    ax = ax or plots.axes_of_size(2.5 + 0.4 * width, 2.5 + 0.3 * height)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=max(shares.max(), 1e-9), aspect="auto")
    names = list(counts)
    ax.set_xticks(
        range(width), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False
    )
    ax.set_yticks(range(height), counts.index)
    ax.set(ylabel="cluster", title="percent of each period")
    for row, column in zip(*counts.to_numpy().nonzero(), strict=True):
        share = shares[row, column]
        colour = "white" if share > 0.65 * shares.max() else "black"
        ax.text(
            column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour
        )
    return ax.figure


def plot_reconstructions(
    pixels: torch.Tensor, learners: dict, number: int = 6, seed: int = 0, ax=None
):
    """Pictures as a Figure: originals above, and below them what each autoencoder makes of them."""
    number = min(number, len(pixels))
    chosen = np.random.default_rng(seed).permutation(len(pixels))[:number]
    shown = {"original": pixels[chosen].numpy()}
    for kind, learn in learners.items():
        shown[kind] = autoencoder.reconstructions(learn, pixels[chosen])
    strips = [
        np.concatenate(list(pictures.transpose(0, 2, 3, 1)), 1) for pictures in shown.values()
    ]
    size = pixels.shape[-1]
    ax = ax or plots.axes_of_size(1.2 * number + 1, 1.2 * len(shown))
    ax.imshow(np.concatenate(strips))
    ax.set_yticks([size * (row + 0.5) for row in range(len(shown))], list(shown))
    ax.set(xticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax.figure
