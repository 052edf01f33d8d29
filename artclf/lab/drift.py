"""The drift map: where in time the network puts the pictures of a painter, or of a decade.

Reads the predictions (`evaluation.read`) and the pictures in DATA; writes `EXPORT/drift_*.csv` and
`EXPORT/plots/drift_*.png`. The other half of the experiment is `atlas`. Notebook:
`experiments/18_time`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from artclf.base.files import write_csv, write_figure
from artclf.data import years
from artclf.data.names import artist_keys
from artclf.data.pictures import thumbnail
from artclf.results import evaluation, plots

# The longest span of years that counts as a date: 1510-40 does; a century, or the dates of a
# painter's life, do not.
WITHIN = 30
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


def place(predictions, parts: Sequence[str] = ("test",), within: int = WITHIN) -> pd.DataFrame:
    """Where in time the network puts each picture of `parts`: the rows of `predictions` with
    further columns.

    `place` is the mean of the classes' places in time (`evaluation.positions`) weighted by their
    probabilities, `given` the place of the given period. Uncertainty moves `place` towards the
    middle of the classes, so the fair measure of a picture is `ahead`: `place` minus the mean
    `place` of all these pictures of its given period. `year` is the middle of the span `first` to
    `last` that the catalogue's text, now `dated`, names (`years.spans`); missing where there is
    none or where it is longer than `within` years. `painter` is the commonest spelling of the
    painter's name, '' where none is known. Raises InputError where one of `parts` has no image.
    """
    rows = pd.concat([evaluation.of_part(predictions, part) for part in parts], ignore_index=True)
    places = class_places(predictions)
    scores = evaluation.scores(rows)
    total = scores.sum(axis=1).clip(lower=1e-9)
    mean_place = scores.to_numpy() @ places[scores.columns].to_numpy() / total
    spans = years.spans(rows.year)
    span_is_short = spans["last"] - spans["first"] <= within
    rows = rows.rename(columns={"year": "dated"}).join(spans)
    return rows.assign(
        year=spans[["first", "last"]].mean(axis=1).where(span_is_short),
        painter=painters(rows.artist),
        given=rows.period.map(places),
        place=mean_place,
        ahead=mean_place - mean_place.groupby(rows.period).transform("mean"),
    )


def class_places(predictions) -> pd.Series:
    """The place in time of each class (`evaluation.positions`), by name."""
    names = evaluation.classes(predictions)
    return pd.Series(evaluation.positions(names), names)


def painters(artists: pd.Series) -> pd.Series:
    """The painter of each picture: the commonest of all spellings of the name, '' where unknown."""
    if artists.empty:
        return artists.astype(object)
    keys = artists.map(artist_keys(artists.unique()))
    spelling = artists.groupby(keys).agg(lambda names: names.value_counts().index[0])
    return keys.map(spelling).where(keys != "", "").astype(object)


def dating(rows) -> pd.Series:
    """How many pictures of `place` have a year: counts of `dated`, and of those left out, by
    reason.
    """
    has_span = rows["first"].notna()
    has_no_text = rows.dated == ""
    return pd.Series(
        {
            "pictures": len(rows),
            "dated": rows.year.notna().sum(),
            "no year": has_no_text.sum(),
            "span too long": (has_span & rows.year.isna()).sum(),
            "not understood": (~has_span & ~has_no_text).sum(),
        }
    )


def by_painter(rows, least: int = 5) -> pd.DataFrame:
    """The painters with at least `least` pictures, by their mean predicted place, the earliest
    first.

    Columns: `pictures`, their number; `year`, the mean of those known; `given`, the mean place of
    the given periods; `place`, the mean predicted place; `error`, its standard error; `low` and
    `high`, its 95% interval by Student's t, as if the pictures were independent; `ahead`, the mean
    of that; `earliest` and `latest`, the files at both ends.
    """
    signed = rows[rows.painter != ""]
    return _means(signed, "painter", least).sort_values("place", kind="stable")


def most(painters, n: int = 24) -> pd.DataFrame:
    """The `n` rows of `by_painter` with the most pictures, in its order."""
    return painters.loc[painters.pictures.nlargest(n).index].sort_values("place", kind="stable")


def by_decade(rows, least: int = 5) -> pd.DataFrame:
    """The decades of known years with at least `least` pictures, in order; columns as in
    `by_painter`.
    """
    dated = rows.dropna(subset="year")
    decade = (dated.year // 10 * 10).astype(int)
    return _means(dated.assign(decade=decade), "decade", least)


def _means(rows, by: str, least: int) -> pd.DataFrame:
    """The `FIGURES` of the rows with each value of column `by`, if they are `least` or more."""
    table = {name: _figures(group) for name, group in rows.groupby(by) if len(group) >= least}
    return pd.DataFrame(table.values(), pd.Index(list(table), name=by), FIGURES)


def _figures(group) -> dict:
    number = len(group)
    mean = group.place.mean()
    error = group.place.sem()
    half_width = error * stats.t.ppf(0.975, number - 1) if number > 1 else np.nan
    return {
        "pictures": number,
        "year": group.year.mean(),
        "given": group.given.mean(),
        "place": mean,
        "error": error,
        "low": mean - half_width,
        "high": mean + half_width,
        "ahead": group.ahead.mean(),
        "earliest": group.file[group.place.idxmin()],
        "latest": group.file[group.place.idxmax()],
    }


def correlations(rows, least: int = 10, resamples: int = 1000) -> pd.DataFrame:
    """Whether later pictures are placed later: Spearman's rank correlation of `year` and `place`, a
    DataFrame.

    Rows: `all` dated pictures; `within periods`, where ranks, years and places are taken within
    each given period, so that only what the network sees beyond the period counts; and each period
    with `least` dated pictures. `pictures` and `painters` are numbers, `rho` the correlation, `low`
    and `high` its 95% interval by bootstrap over painters (Field and Welsh 2007), whose pictures
    are similar; a picture without a known painter is drawn by itself. `slope` is that of the
    regression line, in places a century. Missing where nothing varies.
    """
    dated = rows.dropna(subset="year")
    number_in_period = dated.groupby("period").file.transform("size")
    enough = dated[number_in_period >= least]
    table = {
        "all": _correlation(dated.assign(stratum=""), resamples),
        "within periods": _correlation(enough.assign(stratum=enough.period), resamples),
    }
    for period, group in enough.groupby("period"):
        table[period] = _correlation(group.assign(stratum=""), resamples)
    result = pd.DataFrame(table.values(), list(table))
    return result.astype({"pictures": int, "painters": int})


def _correlation(rows, resamples: int) -> dict:
    """A row of `correlations`; ranks, years and places are taken within each value of column
    `stratum`.
    """
    painter_of_picture, painters = pd.factorize(rows.painter.where(rows.painter != "", rows.file))
    number = len(painters)
    rng = np.random.default_rng(0)
    # How often each painter counts: once, then as the bootstrap draws.
    counts: list[np.ndarray] = [np.ones(number)]
    if number > 1:
        for _ in range(resamples):
            drawn = rng.integers(number, size=number)
            counts.append(np.bincount(drawn, minlength=number))
    rho, *bootstrapped = weighted_correlations(rows, np.array(counts)[:, painter_of_picture])
    low, high = np.nan, np.nan
    if np.isfinite(bootstrapped).any():
        low, high = np.nanpercentile(bootstrapped, [2.5, 97.5])
    x = _centred(rows, "year")
    y = _centred(rows, "place")
    return {
        "pictures": len(rows),
        "painters": number,
        "rho": rho,
        "low": low,
        "high": high,
        "slope": 100 * (x @ y) / (x @ x) if x.any() else np.nan,
    }


def _centred(rows, column: str) -> np.ndarray:
    return (rows[column] - rows.groupby("stratum")[column].transform("mean")).to_numpy()


def weighted_correlations(rows, weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of `year` and `place` for every draw: shape (draws,).

    Picture i counts `weights[draw, i]` times; ranks are taken within each value of column
    `stratum`. nan where nothing varies.
    """
    products = np.zeros(len(weights))
    year_squares = np.zeros(len(weights))
    place_squares = np.zeros(len(weights))
    for index in rows.groupby("stratum").indices.values():
        weight = weights[:, index]
        year_ranks = _ranks(rows.year.to_numpy()[index], weight)
        place_ranks = _ranks(rows.place.to_numpy()[index], weight)
        products += (weight * year_ranks * place_ranks).sum(1)
        year_squares += (weight * year_ranks**2).sum(1)
        place_squares += (weight * place_ranks**2).sum(1)
    scale = np.sqrt(year_squares * place_squares)
    return np.divide(products, scale, out=np.full(len(scale), np.nan), where=scale > 1e-12)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The middle rank of each value in every draw, as a share of the draw's size, less one half."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))  # of each distinct value
    counts = np.add.reduceat(weights[:, order], starts, axis=1)
    middle_ranks = counts.cumsum(1) - counts / 2
    shares = middle_ranks / np.maximum(counts.sum(1, keepdims=True), 1)
    number_of_value = np.searchsorted(ordered[starts], values)
    return shares[:, number_of_value] - 0.5


def plot_map(table, rows, data, ax=None):
    """A table of `by_painter` or `by_decade` as a Figure, a row a painter or decade, time from left
    to right.

    A dot is the mean predicted place with its interval, a ring the mean given place; the pictures
    placed earliest and latest hang at their places, to the left and right.
    """
    ax = ax or plots.axes_of_size(10, 2.4 + 0.52 * max(len(table), 1))
    y = np.arange(len(table))
    blue = plots.COLOURS[0]
    ax.hlines(y, table.low, table.high, color=blue, linewidth=2)
    ring = {"color": "0.35", "markerfacecolor": "white", "markersize": 8}
    ax.plot(table.given, y, "o", label="given", zorder=4, **ring)
    ax.plot(table.place, y, "o", color=blue, label="predicted, 95% interval", zorder=5)
    place_of_file = rows.drop_duplicates("file").set_index("file").place
    for i, row in enumerate(table.itertuples()):
        _draw_picture(ax, Path(data) / row.earliest, place_of_file[row.earliest], i, on_left=True)
        _draw_picture(ax, Path(data) / row.latest, place_of_file[row.latest], i, on_left=False)
    ax.set_yticks(y, _row_names(table), parse_math=False)
    places = _label_periods(ax.xaxis, rows)
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


def _row_names(table) -> list[str]:
    names = []
    for name, pictures in zip(table.index, table.pictures, strict=True):
        text = f"{name}s" if table.index.name == "decade" else name[:36]
        names.append(f"{text} ({pictures})")
    return names


def _draw_picture(ax, path: Path, x: float, y: float, on_left: bool):
    """Draw a thumbnail on one side of (`x`, `y`), which its edge nearly touches."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    image = thumbnail(path, 128)
    if image is None:
        return
    box = OffsetImage(np.asarray(image), zoom=32 / max(image.size))
    ax.add_artist(
        AnnotationBbox(
            box,
            (x, y),
            (-4 if on_left else 4, 0),
            boxcoords="offset points",
            pad=0,
            frameon=False,
            box_alignment=(1 if on_left else 0, 0.5),
        )
    )


def _label_periods(axis, rows) -> list[float]:
    """Write the names of the periods at their places on an axis, those of one place together; the
    places come back.
    """
    places = class_places(rows)
    short_names = places.index.str.slice(0, 28)
    ticks = pd.Series(short_names, places).groupby(level=0).agg(", ".join)
    style: dict[str, object] = {"fontsize": 8 if len(ticks) < 25 else 6, "parse_math": False}
    if axis.axis_name == "x":
        style |= {"rotation": 50, "ha": "right", "rotation_mode": "anchor"}
    axis.set_ticks(ticks.index, ticks, **style)
    return list(ticks.index)


def time_label(rows) -> str:
    """The label of the axis of time."""
    if all(re.match(r"\d{1,9}-", name) for name in evaluation.classes(rows)):
        return "place in time"
    return "order of the names, which is not that of time: not every name begins with a number"


def plot_years(rows, ax=None):
    """The predicted place of every dated picture over its year, with the regression line, as a
    Figure.

    The colour is the given period's place; the title has Spearman's correlation and the number of
    pictures.
    """
    dated = rows.dropna(subset="year")
    ax = ax or plots.axes_of_size(9, 5.5)
    ax.scatter(dated.year, dated.place, 14, dated.given, cmap="viridis", alpha=0.8, linewidths=0)
    title = f"{len(dated)} pictures with a year"
    if dated.year.nunique() > 1 and dated.place.nunique() > 1:
        line = stats.linregress(dated.year, dated.place)
        ends = np.array([dated.year.min(), dated.year.max()])
        ax.plot(ends, line.intercept + line.slope * ends, color="0.3", linewidth=1)
        rho = stats.spearmanr(dated.year, dated.place).statistic
        title += f", Spearman {rho:.2f}"
    places = _label_periods(ax.yaxis, rows)
    ax.set(
        ylim=(min(places) - 0.5, max(places) + 0.5),
        xlabel="year",
        ylabel=f"predicted {time_label(rows)}",
    )
    ax.set_title(title)
    return ax.figure


def plot_ends(rows, data, by: str = "ahead", n: int = 4, ax=None):
    """The `n` pictures with the lowest `by` and the `n` with the highest, as a Figure; `by` may be
    `place`, too.
    """
    order = rows.sort_values(by, kind="stable")
    shown = pd.concat([order.head(n), order.tail(n)[::-1]])
    captions = [_caption(row) for row in shown.itertuples()]
    return plots.plot_pictures([Path(data) / file for file in shown.file], captions, ax)


def _caption(row) -> str:
    painter_and_date = " ".join(text for text in (row.painter, row.dated) if text)
    lines = [row.title, painter_and_date, f"{row.period} → {row.place:.1f}"]
    return "\n".join(line if len(line) < 29 else f"{line[:28]}…" for line in lines)


def write(rows, data, out, least: int = 5, shown: int = 24) -> list[Path]:
    """The paths of the tables and plots of `place`'s rows, after writing them to the export folder
    `out`.

    Painters and decades have at least `least` pictures; of the painters the `shown` with the most
    are plotted.
    """
    out = Path(out)
    painters = by_painter(rows, least)
    decades = by_decade(rows, least)
    tables = {"painters": painters, "decades": decades, "correlations": correlations(rows)}
    figures = {
        "painters": plot_map(most(painters, shown), rows, data),
        "decades": plot_map(decades, rows, data),
        "years": plot_years(rows),
        "ends": plot_ends(rows, data),
    }
    paths = []
    for name, table in tables.items():
        path = out / f"drift_{name}.csv"
        write_csv(path, table, index=True)
        paths.append(path)
    for name, figure in figures.items():
        path = out / "plots" / f"drift_{name}.png"
        write_figure(path, figure)
        paths.append(path)
    return paths
