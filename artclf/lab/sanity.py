"""Which map to trust: does the answer depend on what a map marks, and does the map depend on what
the network learned?

Works on an `Explainer`; reads and writes no files. A part of the experiment `explain`. Notebook:
`experiments/14_explain`.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import norm_types
from scipy.stats import spearmanr
from sklearn.metrics import auc
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torchvision.transforms.functional import gaussian_blur

from artclf.base.progress import progress_bar
from artclf.model import backbones, network
from artclf.model.explainer import Explainer
from artclf.model.several import Bodies
from artclf.results import plots

KINDS = ("deletion", "insertion")
RANDOM = "random"  # the order of chance, which every map should beat
ANOTHER = "another picture"  # a step of `randomisation` that changes the picture instead
COLOURS = [*plots.COLOURS, "#D55E00", "#000000"]


# Deletion and insertion


def curves(
    explainer: Explainer,
    x: torch.Tensor,
    targets: Sequence[str],
    maps: dict[str, np.ndarray],
    steps: int = 14,
    cells: int = 14,
    draws: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """The probability of each picture's target while what a map marks is removed, or given back.

    Columns `method, kind, image, share, probability`, a row for each share of the picture from 0 to
    1. Deletion lays grey on the places that a map marks most, first; insertion begins with the
    blurred picture and sharpens them first (Petsiuk et al. 2018). Unlike there, whole cells of a
    grid, `cells` on a side, are ordered by their mean: single pixels make noise that confuses a
    network wherever it lies, and more so for maps with fine grain. `maps` are `{method: (images,
    size, size)}`; the method `random` is the mean of `draws` orders by chance.
    """
    rng = np.random.default_rng(seed)
    orders_by_chance = rng.random((draws, len(x), cells, cells))
    methods = [*maps.items(), *((RANDOM, order) for order in orders_by_chance)]
    jobs = [(method, values, kind) for method, values in methods for kind in KINDS]
    shares = np.linspace(0, 1, steps + 1).tolist()
    rows = []
    for method, values, kind in progress_bar(jobs, desc="curves"):
        for image, (picture, target) in enumerate(zip(x, targets, strict=True)):
            changed = change_cells(picture, values[image], kind, shares, cells)
            p = explainer.probabilities(changed)[:, explainer.vocab.index(target)].tolist()
            rows += [
                (method, kind, image, share, value) for share, value in zip(shares, p, strict=True)
            ]
    keys = ["method", "kind", "image", "share"]
    table = pd.DataFrame(rows, columns=[*keys, "probability"])
    return table.groupby(keys, sort=False).probability.mean().reset_index()


def change_cells(
    picture: torch.Tensor, values: np.ndarray, kind: str, shares: Sequence[float], cells: int
) -> torch.Tensor:
    """`picture` (3, size, size) with each of `shares` of its cells changed, those with the highest
    mean of `values` first: (shares, 3, size, size).
    """
    size = picture.shape[-1]
    values = torch.as_tensor(values, dtype=torch.float32)
    means = adaptive_avg_pool2d(values[None], cells).flatten()
    order = means.argsort(descending=True, stable=True)
    rank = torch.empty(len(means))
    rank[order] = torch.arange(len(means), dtype=torch.float32)
    rank_of_pixel = interpolate(rank.view(1, 1, cells, cells), (size, size), mode="nearest")[0]
    rank_of_pixel = rank_of_pixel.to(picture.device)
    if kind == "deletion":
        before, after = picture, torch.zeros_like(picture)
    else:
        before, after = _blurred(picture), picture
    return torch.stack(
        [torch.where(rank_of_pixel < round(share * len(means)), after, before) for share in shares]
    )


def _blurred(picture: torch.Tensor) -> torch.Tensor:
    sigma = max(1.0, picture.shape[-1] / 20)
    kernel = 2 * int(3 * sigma) + 1
    return gaussian_blur(picture, [kernel] * 2, [sigma] * 2)


def areas(table: pd.DataFrame) -> pd.DataFrame:
    """The area under each curve, from 0 to 1: `method, kind, image, area`. Low is good for
    deletion, high for insertion.
    """
    groups = table.sort_values("share").groupby(["method", "kind", "image"], sort=False)
    found = groups.apply(lambda rows: auc(rows.share, rows.probability), include_groups=False)
    return found.rename("area").reset_index()


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The `areas` of a table of `curves`: a row a method, the best of both kinds first.

    For each kind the mean over the pictures, its standard deviation between pictures (`_sd`), and
    the share of pictures on which the map beats chance (`_beats`). `gap` is the mean of insertion
    less deletion.
    """
    area = areas(table).pivot(index="image", columns=["kind", "method"], values="area")
    rows = {}
    for method in table.method.unique():
        row = {}
        for kind in KINDS:
            own, by_chance = area[kind, method], area[kind, RANDOM]
            beats = own < by_chance if kind == "deletion" else own > by_chance
            row[kind] = own.mean()
            row[f"{kind}_sd"] = own.std()
            row[f"{kind}_beats"] = np.nan if method == RANDOM else beats.mean()
        row["gap"] = row["insertion"] - row["deletion"]
        row["images"] = len(area)
        rows[method] = row
    result = pd.DataFrame(rows).T.rename_axis("method")
    return result.sort_values("gap", ascending=False).astype({"images": int})


# Randomisation


def randomised(explainer: Explainer, x, seed: int = 0) -> Iterator[tuple[str, Explainer]]:
    """The explainer with its network randomised from the head down to the stem: pairs of the last
    part that was randomised, and the explainer.

    The head, then block after block, the last first (`network.Body.blocks`), get the weights of a
    network that learned nothing: the cascade of Adebayo et al. (2018). Batch normalisation of such
    blocks takes its statistics from `x`; with its old ones the values after many random layers
    would be too large or too small for float32.
    """
    config = explainer.config
    body, head = deepcopy(explainer.score.model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = _random_body(config)
        for layer in head.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    yield "head", Explainer(explainer.classifier, nn.Sequential(body, head))
    for block in sorted(set(body.blocks), reverse=True):
        for one, fresh_one in zip(body.bodies, fresh.bodies, strict=True):
            for i, block_of_stage in enumerate(one.blocks):
                if block_of_stage == block:
                    one.stages[i] = fresh_one.stages[i].to(x.device).requires_grad_(False)
            if fresh_one.own_pool is not None and block == max(one.blocks):
                one.own_pool = fresh_one.own_pool.to(x.device).requires_grad_(False)
        _take_statistics(body, x, block)
        name = f"block {block}" if block else "stem"
        yield name, Explainer(explainer.classifier, nn.Sequential(body, head))


def _random_body(config: dict) -> network.Body | Bodies:
    backbone = backbones.of_config({**config, "weights": "random"})
    return network.new_body(backbone, config["pool"], config["size"], version=config["stages"])


@torch.no_grad()
def _take_statistics(body: network.Body, x: torch.Tensor, first_block: int):
    """Let batch normalisation from `first_block` on take its running statistics from `x`."""
    layers = []
    for stage, block in zip(body.stages, body.blocks, strict=True):
        for layer in stage.modules():
            is_norm = isinstance(layer, norm_types) and hasattr(layer, "reset_running_stats")
            if is_norm and block >= first_block:
                layers.append(layer)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    for batch in x.split(16):
        body(batch)
    body.eval()


def randomisation(
    explainer: Explainer, x: torch.Tensor, targets: Sequence, methods: dict, seed: int = 0
) -> pd.DataFrame:
    """How similar a map stays to the first one while the network is randomised: `method,
    randomised, image, correlation, absolute`.

    `correlation` is Spearman's rank correlation between the pixels of both maps, `absolute` that of
    their absolute values. `methods` are `{name of a method: its further arguments}`. The rows
    `another picture` compare with the map of the next picture by the network as it was: that much
    is alike in any two maps. A map that is flat has the correlation 0.
    """
    before = {
        method: explainer.maps(x, targets, method, **kwargs) for method, kwargs in methods.items()
    }
    rows = []
    if len(x) > 1:
        for method, maps in before.items():
            rows += _correlations(method, ANOTHER, maps, np.roll(maps, 1, 0))
    steps = progress_bar(
        randomised(explainer, x, seed), total=1 + len(set(explainer.body.blocks)), desc="randomised"
    )
    for name, other in steps:
        for method, kwargs in methods.items():
            maps = other.maps(x, targets, method, **kwargs)
            rows += _correlations(method, name, before[method], maps)
    return pd.DataFrame(rows, columns=["method", "randomised", "image", "correlation", "absolute"])


def _correlations(method: str, name: str, first: np.ndarray, second: np.ndarray) -> list[tuple]:
    rows = []
    for image, (one, other) in enumerate(zip(first, second, strict=True)):
        of_values = spearman(one, other)
        of_absolute_values = spearman(abs(one), abs(other))
        rows.append((method, name, image, of_values, of_absolute_values))
    return rows


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation between the pixels of two maps; 0 where one of them is flat."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other, axis=None).statistic)


def by_step(table: pd.DataFrame, column: str = "correlation") -> pd.DataFrame:
    """A table of `randomisation` as means over the pictures: a row a step, a pair of columns `mean,
    sd` a method.
    """
    groups = table.groupby(["randomised", "method"], sort=False)[column]
    found = groups.agg(["mean", "std"]).unstack("method")
    found = found.swaplevel(axis=1).rename(columns={"std": "sd"})
    return found.loc[table.randomised.unique(), pd.IndexSlice[table.method.unique(), :]]


# Plots


def plot_curves(table: pd.DataFrame, kind: str, ax=None):
    """The mean curve of each method of a table of `curves` as a Figure, with the mean area under it
    in the legend.
    """
    ax = ax or plots.axes_of_size(6.5, 3.6)
    mean_area = summary(table)[kind]
    for place, (method, rows) in enumerate(table[table.kind == kind].groupby("method", sort=False)):
        curve = rows.groupby("share").probability.mean()
        label = f"{method} ({mean_area[method]:.2f})"
        ax.plot(curve.index, curve, label=label, **_style(method, place))
    if kind == "deletion":
        xlabel, title = "share of the picture that is grey", "deletion: low is good"
    else:
        xlabel, title = "share of the picture that is sharp", "insertion: high is good"
    ax.set(xlabel=xlabel, ylim=(0, None), ylabel="probability of the class", title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure


def plot_randomisation(table: pd.DataFrame, column: str = "correlation", ax=None):
    """The mean correlation of each method while the network is randomised as a Figure; rings are
    `another picture`.

    There are no rings for a single picture.
    """
    ax = ax or plots.axes_of_size(7, 3.6)
    means = by_step(table, column).xs("mean", axis=1, level=1)
    steps = [step for step in means.index if step != ANOTHER]
    ring_place = len(steps) + 1
    for place, method in enumerate(means):
        style = _style(method, place)
        ax.plot(range(ring_place), [1, *means.loc[steps, method]], label=method, **style)
        ring = means.reindex([ANOTHER])[method]
        ax.plot(ring_place, ring, "o", fillstyle="none", color=style["color"])
    ax.axhline(0, color="0.8", linewidth=1)
    names = ["nothing", *(step.replace(" ", "\n") for step in steps), "another\npicture"]
    ax.set_xticks(range(ring_place + 1), names)
    ax.set(
        xlabel="randomised, from the head down to",
        ylabel="rank correlation with the first map",
        title="a map that shows what was learned falls to its ring",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure


def _style(method: str, place: int) -> dict:
    if method == RANDOM:
        return {"color": "#777777", "linestyle": "--"}
    return {"color": COLOURS[place], "marker": "osD^v"[place % 5], "markersize": 4}
