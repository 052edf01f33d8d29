"""Where in time the network puts painters and decades."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from artclf.data.catalogue import Catalogue
from artclf.lab import drift
from artclf.results import evaluation

NAMES = ["01-early", "02-high", "05-baroque", "9-realism"]


def made_up(n=60, names=NAMES, seed=3):
    """Predictions of four painters whose pictures follow each other in time, with probabilities by
    Dirichlet.
    """
    rng = np.random.default_rng(seed)
    given = np.sort(rng.choice(len(names), n))
    chances = np.array(
        [rng.dirichlet(0.3 + 4 * np.exp(-abs(np.arange(len(names)) - i))) for i in given]
    )
    table = pd.DataFrame(chances, columns=[f"p_{name}" for name in names])
    return table.assign(
        file=[f"clean/x/{i}.jpg" for i in range(n)],
        part=np.resize(["test", "valid", "train"], n),
        title="",
        period=np.array(names)[given],
        predicted=np.array(names)[chances.argmax(1)],
        probability=chances.max(1),
        artist=np.resize(
            ["Gogh, Vincent van", *["Vincent van Gogh"] * 2, "Titian", "Claude Monet", ""], n
        ),
        loss=0.0,
        year=[str(1500 + 100 * i + k) for i, k in zip(given, range(n), strict=True)],
        source="",
    )


def test_a_place_is_the_mean_of_the_classes_places_by_probability():
    predictions = made_up()
    rows = drift.place(predictions, ("test", "valid"))
    of = predictions[predictions.part != "train"].set_index("file")
    for row in rows.itertuples():
        chances = of.loc[row.file]
        expected = sum(
            k * chances[f"p_{name}"] for k, name in zip((1, 2, 5, 9), NAMES, strict=True)
        )
        assert row.place == pytest.approx(expected)
        assert row.given == int(row.period.split("-")[0]) and row.year == float(row.dated)
    assert len(rows) == len(of) == 40 and rows.groupby(
        "period"
    ).ahead.mean().to_numpy() == pytest.approx(0)
    halves = predictions.assign(
        **{name: predictions[name] / 2 for name in predictions if name.startswith("p_")}
    )
    assert drift.place(halves).place.to_numpy() == pytest.approx(
        drift.place(predictions).place.to_numpy()
    )
    with pytest.raises(ValueError, match="the parts are train, valid, test"):
        drift.place(predictions, ["dev"])


def test_spellings_of_a_painter_are_one_and_the_commonest_is_shown():
    rows = drift.place(made_up(), ("train", "valid", "test"))
    assert rows.painter.value_counts().to_dict() == {
        "Vincent van Gogh": 30,
        "Titian": 10,
        "Claude Monet": 10,
        "": 10,
    }
    table = drift.by_painter(rows, least=1)
    assert (
        set(table.index) == {"Vincent van Gogh", "Titian", "Claude Monet"}
        and table.place.is_monotonic_increasing
    )
    assert list(drift.by_painter(rows, least=11).index) == ["Vincent van Gogh"]
    assert list(drift.most(table, 1).index) == ["Vincent van Gogh"]


def test_means_and_intervals_agree_with_scipy():
    rows = drift.place(made_up(), ("train", "valid", "test"))
    for table, key in (
        (drift.by_painter(rows), rows.painter),
        (drift.by_decade(rows, 3), rows.year // 10 * 10),
    ):
        for name, row in table.iterrows():
            group = rows[key == name]
            test = stats.ttest_1samp(group.place, 0).confidence_interval()
            assert (row.low, row.high) == pytest.approx((test.low, test.high))
            assert row.error == pytest.approx(stats.sem(group.place)) and row.pictures == len(group)
            assert (row.year, row.given, row.ahead) == pytest.approx(
                tuple(group[["year", "given", "ahead"]].mean())
            )
            ends = group.sort_values("place").file
            assert (row.earliest, row.latest) == (ends.iloc[0], ends.iloc[-1])
    assert (
        (rows.groupby(rows.year // 10 * 10).size() >= 3).sum() == len(drift.by_decade(rows, 3)) > 3
    )


def test_what_has_no_year_is_counted():
    texts = ["1889", "", "16th century", "after 1889", "c. 1503", "1503-1540"]
    rows = drift.place(made_up(6).assign(part="test", year=texts))
    assert drift.dating(rows).to_dict() == {
        "pictures": 6,
        "dated": 2,
        "no year": 1,
        "span too long": 2,
        "not understood": 1,
    }
    assert (
        drift.dating(drift.place(made_up(6).assign(part="test", year=texts), within=100)).dated == 4
    )


def test_correlations_are_spearmans_and_within_periods_ranks_are_the_periods_own():
    tied = made_up(90).assign(year=lambda table: table.year.str[:3] + "5")
    rows = drift.place(tied, ("train", "valid", "test"))
    table = drift.correlations(rows, least=10, resamples=200)
    assert table.rho["all"] == pytest.approx(stats.spearmanr(rows.year, rows.place).statistic)
    assert table.slope["all"] == pytest.approx(100 * stats.linregress(rows.year, rows.place).slope)
    for name in NAMES:
        group = rows[rows.period == name]
        assert table.rho[name] == pytest.approx(
            stats.spearmanr(group.year, group.place).statistic, nan_ok=True
        )
        assert table.pictures[name] == len(group)
    ranks = rows.groupby("period")[["year", "place"]].rank(pct=True)
    centred = ranks - ranks.groupby(rows.period).transform("mean")
    assert table.rho["within periods"] == pytest.approx(
        stats.pearsonr(centred.year, centred.place).statistic
    )
    assert (
        (table.low <= table.rho).all()
        and (table.rho <= table.high).all()
        and table.painters["all"] == 3 + 15
    )


def test_weighted_ranks_are_those_of_repeated_pictures():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {"year": rng.integers(0, 8, 30), "place": rng.normal(size=30), "stratum": "a"}, dtype=object
    )
    rows = rows.astype({"year": float, "place": float})
    weights = rng.integers(0, 4, (5, 30))
    for draw, rho in zip(weights, drift.weighted_correlations(rows, weights), strict=True):
        many = rows.loc[rows.index.repeat(draw)]
        assert rho == pytest.approx(stats.spearmanr(many.year, many.place).statistic)


def test_the_interval_takes_all_pictures_of_a_painter_together():
    rows = drift.place(made_up(200).assign(part="test", artist=""))
    alone = drift.correlations(rows, resamples=300).loc["all"]
    few = drift.correlations(
        rows.assign(painter=np.repeat(["A. Lone", "B. Other", "C. Third", "D. Last"], 50)),
        resamples=300,
    ).loc["all"]
    assert (alone.painters, few.painters) == (200, 4) and few.high - few.low > 2 * (
        alone.high - alone.low
    )


def test_the_same_pictures_give_the_same_interval():
    rows = drift.place(made_up())
    pd.testing.assert_frame_equal(drift.correlations(rows, 3), drift.correlations(rows, 3))


def test_no_years_no_painters_one_class_or_few_pictures_give_empty_tables(tmp_path):
    for predictions in (
        made_up(5).assign(part="test", artist="", year=""),
        made_up(1).assign(part="test"),
        made_up(20, ["01-only"]).assign(part="test", year="1500"),
    ):
        rows = drift.place(predictions)
        assert drift.correlations(rows).pictures["all"] == rows.year.notna().sum()
        assert np.isnan(drift.correlations(rows).rho["all"])
        figures = [
            drift.plot_map(table, rows, tmp_path)
            for table in (drift.by_painter(rows), drift.by_decade(rows))
        ]
        figures += [drift.plot_years(rows), drift.plot_ends(rows, tmp_path)]
        for figure in figures:
            figure.draw_without_rendering()
    assert (
        "none has enough pictures" in [text.get_text() for text in figures[0].axes[0].texts]
        or len(rows) == 20
    )


# Plots


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_map_has_a_row_a_painter_with_the_pictures_at_both_ends(tmp_path):
    from matplotlib.offsetbox import AnnotationBbox
    from PIL import Image

    rows = drift.place(made_up(), ("train", "valid", "test"))
    table = drift.by_painter(rows)
    gone = table.latest.iloc[1]
    for file in {*table.earliest, *table.latest} - {gone}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / file)
    figure = drift.plot_map(table, rows, tmp_path)
    [ax] = figure.axes
    assert ticks(ax.yaxis) == [f"{name} ({n})" for name, n in table.pictures.items()]
    assert ticks(ax.xaxis) == NAMES and ax.get_xlabel() == "place in time" and ax.yaxis_inverted()
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["given"].get_xdata()) == list(table.given)
    assert list(lines["predicted, 95% interval"].get_xdata()) == list(table.place)
    placed = rows.set_index("file").place
    hung = {
        (round(box.xy[0], 6), box.xy[1]): box.xyann[0] < 0 for box in ax.findobj(AnnotationBbox)
    }
    assert hung == {
        (round(placed[file], 6), i): left
        for i, row in enumerate(table.itertuples())
        for file, left in ((row.earliest, True), (row.latest, False))
        if file != gone
    }
    assert drift.plot_map(table, rows, tmp_path, ax) is figure


def test_decades_are_named_and_stand_in_order(tmp_path):
    rows = drift.place(made_up(), ("train", "valid", "test"))
    [ax] = drift.plot_map(drift.by_decade(rows, 3), rows, tmp_path).axes
    assert ticks(ax.yaxis)[0] == "1500s (10)" and ticks(ax.yaxis) == sorted(ticks(ax.yaxis))


@pytest.mark.parametrize("n", [1, 18, 40])
def test_labels_do_not_overlap(tmp_path, n):
    names = [f"{i:02d}-northern_renaissance" for i in range(1, n + 1)]
    rows = drift.place(made_up(200, names).assign(part="test"))
    for figure, axis in (
        (drift.plot_map(drift.by_painter(rows), rows, tmp_path), "xaxis"),
        (drift.plot_years(rows), "yaxis"),
    ):
        figure.draw_without_rendering()
        labels = [
            label for label in getattr(figure.axes[0], axis).get_ticklabels() if label.get_text()
        ]
        assert [label.get_text() for label in labels] == names
        # turned labels run beside each other: what counts is how far apart they begin
        ends = np.array([label.get_transform().transform(label.get_position()) for label in labels])
        steps = np.abs(np.diff(ends[:, "xy".index(axis[0])]))
        high = labels[0].get_fontsize() * figure.dpi / 72
        assert (steps >= 0.95 * high / (1 if axis == "yaxis" else np.sin(np.deg2rad(50)))).all()
        boxes = [label.get_window_extent() for label in labels]
        assert min(box.x0 for box in boxes) >= 0 and min(box.y0 for box in boxes) >= 0


def test_years_and_places_are_dots_and_the_title_has_their_correlation():
    rows = drift.place(made_up())
    [ax] = drift.plot_years(rows).axes
    assert (
        ax.collections[0].get_offsets().data.tolist() == rows[["year", "place"]].to_numpy().tolist()
    )
    rho = stats.spearmanr(rows.year, rows.place).statistic
    assert (
        ax.get_title() == f"20 pictures with a year, Spearman {rho:.2f}"
        and ticks(ax.yaxis) == NAMES
    )
    line = stats.linregress(rows.year, rows.place)
    assert list(ax.lines[0].get_ydata()) == pytest.approx(
        [line.intercept + line.slope * year for year in ax.lines[0].get_xdata()]
    )


def test_names_without_numbers_are_said_to_be_in_no_order_of_time():
    rows = drift.place(made_up(names=["cubism", "01-baroque", "pop"]))
    assert sorted(rows.given.unique()) == [0, 1, 2]
    [ax] = drift.plot_years(rows).axes
    assert "not that of time" in ax.get_ylabel() and ticks(ax.yaxis) == [
        "01-baroque",
        "cubism",
        "pop",
    ]
    assert drift.time_label(drift.place(made_up(names=["00-a", "01-b"]))) == "place in time"


def test_the_ends_are_the_pictures_furthest_behind_and_ahead(tmp_path):
    title = r"<script> $\frac{$ and so on and so forth and on"
    rows = drift.place(made_up().assign(part="test", title=title))
    [ax] = drift.plot_ends(rows, tmp_path, n=4).axes
    order = rows.sort_values("ahead")
    shown = [*order.period.head(4), *order.period.tail(4)[::-1]]
    captions = [text.get_text().split("\n") for text in ax.texts]
    assert [lines[2].split(" → ")[0] for lines in captions] == shown
    assert captions[0][0] == title[:28] + "…" and captions[0][2].endswith(
        f" → {order.place.iloc[0]:.1f}"
    )
    [ax] = drift.plot_ends(rows, tmp_path, by="place", n=4).axes
    assert ax.texts[0].get_text().endswith(f" → {rows.place.min():.1f}")


def test_tables_and_plots_are_written(errors_of_a_run, tmp_path):
    data, out = errors_of_a_run
    rows = drift.place(evaluation.read(out, data), ("valid", "test"))
    paths = drift.write(rows, data, tmp_path, least=3)
    assert [path.name for path in paths] == [
        *(f"drift_{name}.csv" for name in ("painters", "decades", "correlations")),
        *(f"drift_{name}.png" for name in ("painters", "decades", "years", "ends")),
    ]
    assert all(path.stat().st_size > 50 for path in paths)
    decades = pd.read_csv(tmp_path / "drift_decades.csv")
    assert decades.decade.to_list() == [1650] and decades.pictures.to_list() == [len(rows)]


def test_the_catalogues_years_and_painters_come_through(tmp_path):
    facts = [("Titian", "1530.0"), ("Tiziano <b>", "c. 1540"), (None, None)]
    with Catalogue(tmp_path) as catalogue:
        rows = [
            {"url": f"http://a.example/{i}", "period": "01-a", "artist": artist, "year": year}
            for i, (artist, year) in enumerate(facts)
        ]
        catalogue.add(rows)
        catalogue.update({**row, "file": f"raw/01-a/{i}.jpg"} for i, row in enumerate(rows))
    table = made_up(3, ["01-a"]).drop(columns=["title", "artist", "year", "source"])
    table.assign(part="test", file=[f"clean/01-a/{i}.jpg" for i in range(3)]).to_csv(
        tmp_path / "predictions.csv"
    )
    rows = drift.place(evaluation.read(tmp_path, tmp_path))
    assert rows.year.to_list()[:2] == [1530, 1540] and np.isnan(rows.year[2])
    assert rows.painter.to_list() == ["Titian", "Tiziano <b>", ""]
