"""Which map to trust: does the answer hang on what a map marks, and does the map hang on what the
network learned?

Works on an `explain.Explainer`; reads and writes no files. Shown in `experiments/14_explain`.
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
from artclf.results import plots

KINDS = ("deletion", "insertion")
COLOURS = [*plots.COLOURS, "#D55E00", "#000000"]


def curves(
    explainer: Explainer,
    x,
    targets: Sequence[str],
    maps: dict,
    steps: int = 14,
    cells: int = 14,
    draws: int = 3,
    seed: int = 0,
):
    """The probability of each picture's target while what a map marks is taken away, or given back:
    a DataFrame.

    Columns `method, kind, image, share, probability`, a row for each share of the picture from 0 to
    1. Deletion lays grey on the places that a map marks most, first; insertion begins with the
    blurred picture and sharpens them first (Petsiuk et al. 2018). Other than there, whole cells of
    a grid, `cells` on a side, are taken by their mean: single pixels make noise that confuses a
    network wherever it lies, and more so for maps with fine grain. `maps` are `{method: (images,
    size, size)}`; `random` is the mean of `draws` orders by chance.
    """
    rng, classes = (
        np.random.default_rng(seed),
        [explainer.vocab.index(target) for target in targets],
    )
    chance = rng.random((draws, len(x), cells, cells))
    everything = [
        *((name, values) for name, values in maps.items()),
        *(("random", values) for values in chance),
    ]
    shares, rows = np.linspace(0, 1, steps + 1), []
    for (method, values), kind in progress_bar(
        [(pair, kind) for pair in everything for kind in KINDS], desc="curves"
    ):
        for i, (picture, label) in enumerate(zip(x, classes, strict=True)):
            p = (
                explainer.probabilities(changed(picture, values[i], kind, shares, cells))[:, label]
                .cpu()
                .numpy()
            )
            rows += [
                (method, kind, i, share, float(value))
                for share, value in zip(shares, p, strict=True)
            ]
    table = pd.DataFrame(rows, columns=["method", "kind", "image", "share", "probability"])
    return (
        table.groupby(["method", "kind", "image", "share"], sort=False)
        .probability.mean()
        .reset_index()
    )


def changed(
    picture: torch.Tensor, values: np.ndarray, kind: str, shares: Sequence[float], cells: int
) -> torch.Tensor:
    """`picture` (3, size, size) with each of `shares` of its cells changed, the highest of `values`
    first.
    """
    size = picture.shape[-1]
    means = adaptive_avg_pool2d(torch.as_tensor(values, dtype=torch.float32)[None], cells).flatten()
    place = torch.empty(len(means))
    place[means.argsort(descending=True, stable=True)] = torch.arange(
        len(means), dtype=torch.float32
    )
    places = interpolate(place.view(1, 1, cells, cells), (size, size), mode="nearest")[0].to(
        picture.device
    )
    wide = max(1.0, size / 20)
    start, end = (
        (picture, torch.zeros_like(picture))
        if kind == "deletion"
        else (gaussian_blur(picture, [2 * int(3 * wide) + 1] * 2, [wide] * 2), picture)
    )
    return torch.stack(
        [torch.where(places < round(share * len(means)), end, start) for share in shares]
    )


def areas(table):
    """The area under each curve, from 0 to 1: `method, kind, image, area`. For deletion low is
    good, else high.
    """
    groups = table.sort_values("share").groupby(["method", "kind", "image"], sort=False)
    return (
        groups.apply(lambda rows: auc(rows.share, rows.probability), include_groups=False)
        .rename("area")
        .reset_index()
    )


def summary(table):
    """The `areas` of a table of `curves`: a DataFrame, a row a method, the best of both first.

    For each kind the mean over the pictures, its standard deviation between pictures (`_sd`), and
    the share of pictures on which the map beats chance (`_beats`). `gap` is the mean of insertion
    less deletion.
    """
    found = areas(table).pivot(index="image", columns=["kind", "method"], values="area")
    rows = {}
    for method in table.method.unique():
        rows[method] = {}
        for kind, sign in zip(KINDS, (-1, 1), strict=True):
            own = found[kind, method]
            better = (
                (sign * (own - found[kind, "random"]) > 0).mean() if method != "random" else np.nan
            )
            rows[method] |= {kind: own.mean(), f"{kind}_sd": own.std(), f"{kind}_beats": better}
        rows[method]["gap"] = rows[method]["insertion"] - rows[method]["deletion"]
        rows[method]["images"] = len(found)
    return (
        pd.DataFrame(rows)
        .T.rename_axis("method")
        .sort_values("gap", ascending=False)
        .astype({"images": int})
    )


def randomised(explainer: Explainer, x, seed: int = 0) -> Iterator[tuple[str, Explainer]]:
    """The explainer with its network randomised from the head down to the stem: what was reached,
    and the explainer.

    The head, then block after block, the last first (`network.Body.blocks`), gets the weights of a
    network that learned nothing: the cascade of Adebayo et al. (2018). Batch normalisation of such
    blocks takes its statistics from `x`: else what comes out of many random layers is too large or
    too small for float32.
    """
    config, (body, head) = explainer.config, deepcopy(explainer.score.model)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = (config["name"], config["library"], "random", config["mean"], config["std"])
        fresh = network.Body(
            backbones.body(backbones.Backbone(*names)), config["pool"], config["size"]
        )
        for layer in head.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    yield "head", Explainer(explainer.classifier, nn.Sequential(body, head))
    for block in sorted(set(body.blocks), reverse=True):
        for i, of in enumerate(body.blocks):
            if of == block:
                body.stages[i] = fresh.stages[i].to(x.device).requires_grad_(False)
        _take_statistics(body, x, block)
        yield (
            f"block {block}" if block else "stem",
            Explainer(explainer.classifier, nn.Sequential(body, head)),
        )


@torch.no_grad()
def _take_statistics(body: network.Body, x, first: int):
    layers = [
        layer
        for stage, block in zip(body.stages, body.blocks, strict=True)
        if block >= first
        for layer in stage.modules()
        if isinstance(layer, norm_types) and hasattr(layer, "reset_running_stats")
    ]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    for batch in x.split(16):
        body(batch)
    body.eval()


def randomisation(explainer: Explainer, x, targets: Sequence, methods: dict, seed: int = 0):
    """How like its first self a map stays while the network is randomised: `method, randomised,
    image, correlation`.

    A DataFrame with Spearman's rank correlation between the pixels of both maps: of their values,
    and in `absolute` of their absolute values. `methods` are `{name of a method: its further
    arguments}`. The rows `another picture` compare with the map of the next picture by the network
    as it was: so much is alike in any two maps. A map that is flat has the correlation 0.
    """
    before = {
        method: explainer.maps(x, targets, method, **kwargs) for method, kwargs in methods.items()
    }
    rows = [
        row
        for method, maps in before.items()
        if len(maps) > 1
        for row in _correlations(method, "another picture", maps, np.roll(maps, 1, 0))
    ]
    for name, other in progress_bar(
        randomised(explainer, x, seed), total=1 + len(set(explainer.body.blocks)), desc="randomised"
    ):
        for method, kwargs in methods.items():
            rows += _correlations(
                method, name, before[method], other.maps(x, targets, method, **kwargs)
            )
    return pd.DataFrame(rows, columns=["method", "randomised", "image", "correlation", "absolute"])


def _correlations(method: str, name: str, first: np.ndarray, second: np.ndarray) -> list[tuple]:
    return [
        (method, name, i, _spearman(a, b), _spearman(abs(a), abs(b)))
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b, axis=None).statistic)


def by_step(table, column: str = "correlation"):
    """A table of `randomisation` as means over the pictures: a row a step, a pair of columns `mean,
    sd` a method.
    """
    steps = table.randomised.unique()
    found = (
        table.groupby(["randomised", "method"], sort=False)[column]
        .agg(["mean", "std"])
        .unstack("method")
    )
    return (
        found.swaplevel(axis=1)
        .rename(columns={"std": "sd"})
        .loc[steps, pd.IndexSlice[table.method.unique(), :]]
    )


def plot_curves(table, kind: str, ax=None):
    """The mean curve of each method of a table of `curves` as a Figure, with the mean area under it
    in the legend.
    """
    ax, mean = ax or plots.axes_of_size(6.5, 3.6), summary(table)[kind]
    for place, (method, rows) in enumerate(table[table.kind == kind].groupby("method", sort=False)):
        curve = rows.groupby("share").probability.mean()
        ax.plot(curve.index, curve, label=f"{method} ({mean[method]:.2f})", **_style(method, place))
    ax.set(
        xlabel=f"share of the picture that is {'grey' if kind == 'deletion' else 'sharp'}",
        ylim=(0, None),
        ylabel="probability of the class",
        title=f"{kind}: {'low' if kind == 'deletion' else 'high'} is good",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure


def plot_randomisation(table, column: str = "correlation", ax=None):
    """The mean correlation of each method while the network is randomised as a Figure; rings are
    `another picture`.

    Of a single picture there are no rings.
    """
    ax, means = ax or plots.axes_of_size(7, 3.6), by_step(table, column).xs("mean", axis=1, level=1)
    steps = [step for step in means.index if step != "another picture"]
    for place, method in enumerate(means):
        style = _style(method, place)
        ax.plot(
            [0, *range(1, len(steps) + 1)], [1, *means.loc[steps, method]], label=method, **style
        )
        rings = means.reindex(["another picture"])[method]
        ax.plot(len(steps) + 1, rings, "o", fillstyle="none", color=style["color"])
    ax.axhline(0, color="0.8", linewidth=1)
    ax.set_xticks(
        range(len(steps) + 2),
        ["nothing", *(step.replace(" ", "\n") for step in steps), "another\npicture"],
    )
    ax.set(
        xlabel="randomised, from the head down to",
        ylabel="rank correlation with the first map",
        title="a map that shows what was learned falls to its ring",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax.figure


def _style(method: str, place: int) -> dict:
    if method == "random":
        return {"color": "#777777", "linestyle": "--"}
    return {"color": COLOURS[place], "marker": "osD^v"[place % 5], "markersize": 4}
