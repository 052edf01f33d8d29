"""The drift map: where in time the network puts the pictures of a painter, or of a decade.

Reads the predictions (`interpret.read`) and the pictures in DATA; writes `EXPORT/drift_*.csv` and
`EXPORT/plots/drift_*.png`. Notebook: `experiments/18_time`.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from artclf.data import years
from artclf.data.names import artist_keys
from artclf.results import evaluation, pages, plots

WITHIN = 30  # years: a picture of 1510-40 is dated; one of the 16th century, or with the dates of a life, is not
FIGURES = [
    "pictures",
    "year",
    "given",
    "place",
    "error",
    "low",
    "high",
    "ahead",
    "earliest",
    "latest",
]


def place(predictions, parts=("test",), within: int = WITHIN) -> pd.DataFrame:
    """Where in time the network puts each picture of `parts`: the rows of `predictions` with
    further columns.

    `place` is the mean of the classes' places in time (`interpret.positions`) weighted by their
    probabilities, `given` the place of the given period. Doubt draws `place` towards the middle of
    the classes, so the fair measure of a picture is `ahead`: `place` minus the mean `place` of all
    these pictures of its given period. `year` is the middle of the span `first` to `last` that the
    catalogue's text, now `dated`, names (`years.spans`); missing where there is none or where it is
    longer than `within` years. `painter` is the commonest spelling of the painter's name, '' where
    none is known. Raises ValueError where one of `parts` has no image.
    """
    rows = pd.concat([evaluation.of_part(predictions, part) for part in parts], ignore_index=True)
    positions = class_places(predictions)
    scores = evaluation.scores(rows)
    known = positions[scores.columns].to_numpy()
    placed = scores.to_numpy() @ known / scores.sum(axis=1).clip(lower=1e-9)
    rows = rows.rename(columns={"year": "dated"}).join(years.spans(rows.year))
    middle = rows[["first", "last"]].mean(axis=1).where(rows["last"] - rows["first"] <= within)
    return rows.assign(
        year=middle,
        painter=_painters(rows.artist),
        given=rows.period.map(positions),
        place=placed,
        ahead=placed - placed.groupby(rows.period).transform("mean"),
    )


def class_places(predictions) -> pd.Series:
    """The place in time of each class (`interpret.positions`), by name."""
    names = evaluation.classes(predictions)
    return pd.Series(evaluation.positions(names), names)


def _painters(artists):
    """The painter of each picture: of all spellings of one painter's name the commonest."""
    keys = artists.map(artist_keys(artists.unique()))
    spelling = (
        artists.groupby(keys).agg(lambda names: names.value_counts().index[0])
        if len(artists)
        else {}
    )
    return keys.map(spelling).where(keys != "", "").astype(object)


def dating(rows) -> pd.Series:
    """How many pictures of `place` have a year: counts of `dated`, and of those left out, by
    why.
    """
    read, silent = rows["first"].notna(), rows.dated == ""
    return pd.Series(
        {
            "pictures": len(rows),
            "dated": rows.year.notna().sum(),
            "no year": silent.sum(),
            "span too long": (read & rows.year.isna()).sum(),
            "not understood": (~read & ~silent).sum(),
        }
    )


def by_painter(rows, least: int = 5) -> pd.DataFrame:
    """The painters with at least `least` pictures, by their mean predicted place, the earliest
    first (`_means`).
    """
    return _means(rows[rows.painter != ""], "painter", least).sort_values("place", kind="stable")


def most(painters, n: int = 24) -> pd.DataFrame:
    """The `n` rows of `by_painter` with the most pictures, in its order."""
    return painters.loc[painters.pictures.nlargest(n).index].sort_values("place", kind="stable")


def by_decade(rows, least: int = 5) -> pd.DataFrame:
    """The decades of known years with at least `least` pictures, in order (`_means`)."""
    dated = rows.dropna(subset="year")
    return _means(dated.assign(decade=(dated.year // 10 * 10).astype(int)), "decade", least)


def _means(rows, by: str, least: int) -> pd.DataFrame:
    """A row for each value of column `by`.

    `pictures`, their number; `year`, the mean of those known; `given`, mean place of the given
    periods; `place`, mean predicted place; `error`, its standard error; `low` and `high`, its 95%
    interval by Student's t, as though the pictures were independent; `ahead`, the mean of that;
    `earliest` and `latest`, the files at both ends.
    """
    table = {}
    for name, group in rows.groupby(by):
        n, error = len(group), group.place.sem()
        if n < least:
            continue
        reach = error * stats.t.ppf(0.975, n - 1) if n > 1 else np.nan
        mean = group.place.mean()
        table[name] = [
            n,
            group.year.mean(),
            group.given.mean(),
            mean,
            error,
            mean - reach,
            mean + reach,
            group.ahead.mean(),
            group.file[group.place.idxmin()],
            group.file[group.place.idxmax()],
        ]
    return pd.DataFrame(table.values(), pd.Index(list(table), name=by), FIGURES)


def correlations(rows, least: int = 10, resamples: int = 1000) -> pd.DataFrame:
    """Whether later pictures are placed later: Spearman's rank correlation of `year` and `place`, a
    DataFrame.

    Rows: `all` dated pictures; `within periods`, where ranks, years and places are taken within
    each given period, so that only what the network sees beyond the period counts; and each period
    with `least` dated pictures. `pictures` and `painters` are numbers, `rho` the correlation, `low`
    and `high` its 95% interval by bootstrap over painters (Field and Welsh 2007), whose pictures
    are alike; a picture without a known painter stands for itself. `slope` is that of the
    regression line, in places a century. Missing where nothing varies.
    """
    dated = rows.dropna(subset="year")
    dated = dated.assign(all="", enough=dated.groupby("period").file.transform("size") >= least)
    enough = dated[dated.enough]
    names, groups = zip(("all", dated), *enough.groupby("period"), strict=True)
    table = [_correlation(group, "all", resamples) for group in groups]
    table.insert(1, _correlation(enough, "period", resamples))
    return pd.DataFrame(table, [names[0], "within periods", *names[1:]]).astype(
        {"pictures": int, "painters": int}
    )


def _correlation(rows, strata: str, resamples: int) -> dict:
    units, names = pd.factorize(rows.painter.where(rows.painter != "", rows.file))
    rng, n = np.random.default_rng(0), len(names)
    draws = [
        np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples if n > 1 else 0)
    ]
    rho = _rhos(rows, strata, np.array([np.ones(n), *draws])[:, units])
    low, high = (
        np.nanpercentile(rho[1:], [2.5, 97.5]) if np.isfinite(rho[1:]).any() else (np.nan, np.nan)
    )
    x, y = (
        (rows[name] - rows.groupby(strata)[name].transform("mean")).to_numpy()
        for name in ("year", "place")
    )
    slope = 100 * (x @ y) / (x @ x) if x.any() else np.nan
    return {
        "pictures": len(rows),
        "painters": n,
        "rho": rho[0],
        "low": low,
        "high": high,
        "slope": slope,
    }


def _rhos(rows, strata: str, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation where picture i counts `weights[draw, i]` times, for every draw; ranks
    are by stratum.
    """
    products = np.zeros((3, len(weights)))
    for index in rows.groupby(strata).indices.values():
        w = weights[:, index]
        a, b = (_ranks(rows[name].to_numpy()[index], w) for name in ("year", "place"))
        products += (w * a * b).sum(1), (w * a * a).sum(1), (w * b * b).sum(1)
    both, one, other = products
    size = np.sqrt(one * other)
    return np.divide(both, size, out=np.full(len(size), np.nan), where=size > 1e-12)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The middle rank of each value in every draw, as a share of the draw's size, less one half."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = (counts.cumsum(1) - counts / 2) / np.maximum(counts.sum(1, keepdims=True), 1)
    return ranks[:, np.searchsorted(values[order][starts], values)] - 0.5


def plot_map(table, rows, data, ax=None):
    """A table of `by_painter` or `by_decade` as a Figure, a row a painter or decade, time from left
    to right.

    A dot is the mean predicted place with its interval, a ring the mean given place; the pictures
    placed earliest and latest hang at their places, to the left and right.
    """
    ax, y = ax or plots.axes_of_size(10, 2.4 + 0.52 * max(len(table), 1)), np.arange(len(table))
    ax.hlines(y, table.low, table.high, color=plots.COLOURS[0], linewidth=2)
    ax.plot(
        table.given,
        y,
        "o",
        color="0.35",
        markerfacecolor="white",
        markersize=8,
        label="given",
        zorder=4,
    )
    ax.plot(table.place, y, "o", color=plots.COLOURS[0], label="predicted, 95% interval", zorder=5)
    placed = rows.drop_duplicates("file").set_index("file").place
    for i, row in enumerate(table.itertuples()):
        _hang(ax, Path(data) / row.earliest, placed[row.earliest], i, left=True)
        _hang(ax, Path(data) / row.latest, placed[row.latest], i, left=False)
    names = [
        f"{name}s ({n})" if table.index.name == "decade" else f"{name:.36} ({n})"
        for name, n in zip(table.index, table.pictures, strict=True)
    ]
    ax.set_yticks(y, names, parse_math=False)
    places = _periods(ax.xaxis, rows)
    ax.set(
        xlim=(min(places) - 1.2, max(places) + 1.2),
        ylim=(max(len(table), 1) - 0.4, -0.6),
        xlabel=time_label(rows),
    )
    ax.grid(axis="x", alpha=0.25)
    if table.empty:
        ax.text(0.5, 0.5, "none has enough pictures", transform=ax.transAxes, ha="center")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax.figure


def _hang(ax, path, x: float, y: float, left: bool):
    """A thumbnail beside (`x`, `y`), which its nearer edge touches."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    image = pages.picture(path, 128)
    if image is None:
        return
    box = OffsetImage(np.asarray(image), zoom=32 / max(image.size))
    ax.add_artist(
        AnnotationBbox(
            box,
            (x, y),
            (-4 if left else 4, 0),
            boxcoords="offset points",
            pad=0,
            frameon=False,
            box_alignment=(1 if left else 0, 0.5),
        )
    )


def _periods(axis, rows) -> list[float]:
    """Write the names of the periods at their places on an axis, periods of one place together; the
    places.
    """
    places = class_places(rows)
    ticks = pd.Series(places.index.str.slice(0, 28), places).groupby(level=0).agg(", ".join)
    turned = (
        {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if axis.axis_name == "x" else {}
    )
    axis.set_ticks(
        ticks.index, ticks, fontsize=8 if len(ticks) < 25 else 6, parse_math=False, **turned
    )
    return list(ticks.index)


def time_label(rows) -> str:
    """What a place on the axis of time means."""
    if all(re.match(r"\d{1,9}-", name) for name in evaluation.classes(rows)):
        return "place in time"
    return "order of the names, which is not that of time: not every name begins with a number"


def plot_years(rows, ax=None):
    """The predicted place of every dated picture over its year, with the regression line, as a
    Figure.

    The colour is the given period's place; the title has Spearman's correlation and the number of
    pictures.
    """
    dated, ax = rows.dropna(subset="year"), ax or plots.axes_of_size(9, 5.5)
    ax.scatter(dated.year, dated.place, 14, dated.given, cmap="viridis", alpha=0.8, linewidths=0)
    title = f"{len(dated)} pictures with a year"
    if dated.year.nunique() > 1 and dated.place.nunique() > 1:
        line = stats.linregress(dated.year, dated.place)
        ends = np.array([dated.year.min(), dated.year.max()])
        ax.plot(ends, line.intercept + line.slope * ends, color="0.3", linewidth=1)
        title += f", Spearman {stats.spearmanr(dated.year, dated.place).statistic:.2f}"
    places = _periods(ax.yaxis, rows)
    ax.set(
        ylim=(min(places) - 0.5, max(places) + 0.5),
        xlabel="year",
        ylabel=f"predicted {time_label(rows)}",
    )
    ax.set_title(title)
    return ax.figure


def plot_ends(rows, data, by="ahead", n=4, ax=None):
    """The `n` pictures with the lowest `by` and the `n` with the highest, as a Figure; `by` may be
    `place`, too.
    """
    order = rows.sort_values(by, kind="stable")
    shown = pd.concat([order.head(n), order.tail(n)[::-1]])
    captions = [
        "\n".join(
            line if len(line) < 29 else f"{line[:28]}…"
            for line in (
                row.title,
                " ".join(filter(None, (row.painter, row.dated))),
                f"{row.period} → {row.place:.1f}",
            )
        )
        for row in shown.itertuples()
    ]
    return plots.plot_pictures([Path(data) / file for file in shown.file], captions, ax)


def write(rows, data, out, least: int = 5, shown: int = 24) -> list[Path]:
    """Write the tables and plots of `place`'s rows to the export folder `out`; their paths.

    Painters and decades have at least `least` pictures; of the painters the `shown` with the most
    are plotted.
    """
    out = Path(out)
    painters, decades = by_painter(rows, least), by_decade(rows, least)
    tables = {"painters": painters, "decades": decades, "correlations": correlations(rows)}
    figures = {
        "painters": plot_map(most(painters, shown), rows, data),
        "decades": plot_map(decades, rows, data),
        "years": plot_years(rows),
        "ends": plot_ends(rows, data),
    }
    (out / "plots").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"drift_{name}.csv", encoding="utf-8")
    for name, figure in figures.items():
        figure.savefig(out / "plots" / f"drift_{name}.png", dpi=150)
    return [
        *(out / f"drift_{name}.csv" for name in tables),
        *(out / "plots" / f"drift_{name}.png" for name in figures),
    ]
