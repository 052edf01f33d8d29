"""Plots of predictions: what they show, their labels, and that none is clipped."""

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from made_predictions import made_predictions
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image

from artclf.results import evaluation, fonts, plots


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_confusion_plot_is_labelled_in_time_order_and_annotated(predictions):
    matrix = evaluation.confusion(predictions)
    ax = plots.plot_confusion(predictions).axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == list(matrix)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(matrix)
    assert texts(ax) == [str(count) for count in matrix.to_numpy().ravel() if count]
    rates = plots.plot_confusion(predictions, rates=True).axes[0]
    shares = matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0).to_numpy().ravel()
    assert texts(rates) == [f"{100 * share:.0f}" for share in shares if share]


@pytest.mark.parametrize("n", [1, 5, 30])
def test_no_label_of_the_confusion_plot_is_clipped_or_covers_another(n):
    names = [f"{i:02d}-a_rather_long_name_of_a_style_of_painting_$" for i in range(n)]
    figure = plots.plot_confusion(made_predictions([(name, name) for name in names]))
    figure.draw_without_rendering()
    ax, (width, height) = figure.axes[0], figure.canvas.get_width_height()
    boxes = [
        label.get_window_extent()
        for label in [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title]
    ]
    assert all(
        box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes
    )
    rows = sorted(
        (label.get_window_extent() for label in ax.get_yticklabels()), key=lambda box: box.y0
    )
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in zip(rows, rows[1:], strict=False))


def test_bars_show_the_numbers_of_the_tables(predictions):
    table = evaluation.per_class(predictions)
    ax = plots.plot_per_class(predictions).axes[0]
    train, test = ([bar.get_width() for bar in bars] for bars in ax.containers)
    assert train == pytest.approx(table.f1_train.fillna(0)) and test == pytest.approx(
        table.f1_test.fillna(0)
    )
    assert ax.yaxis_inverted() and ax.get_yticklabels()[0].get_text().startswith("01-early (")
    ax = plots.plot_distance(predictions).axes[0]
    errors, chance = ([bar.get_height() for bar in bars] for bars in ax.containers)
    distances = evaluation.distances(predictions)
    assert errors == pytest.approx(distances.errors / distances.errors.sum())
    assert chance == pytest.approx(distances.chance / distances.chance.sum())
    figures = evaluation.metrics(predictions)["test"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"errors (mean {figures['error_distance']:.1f})",
        f"chance (mean {figures['error_distance_chance']:.1f})",
    ]


def test_plots_draw_into_axes_that_one_gives(predictions, errors_of_a_run):
    data, _ = errors_of_a_run
    history = pd.DataFrame({"train_loss": [2, 1]})
    for plot in (
        plots.plot_confusion,
        plots.plot_per_class,
        plots.plot_distance,
        plots.plot_reliability,
        lambda table, ax: plots.plot_top_losses(table, data, ax=ax),
        lambda table, ax: plots.plot_most_confused(table, data, ax=ax),
        lambda table, ax: plots.plot_history(history, ["train_loss"], ax),
    ):
        ax = plots.axes_of_size(4, 4)
        assert plot(predictions, ax=ax) is ax.figure and ax.has_data()


@pytest.mark.parametrize(
    ("plot", "x", "y"),
    [
        (plots.plot_confusion, "predicted", "given"),
        (plots.plot_per_class, "F1", ""),
        (
            plots.plot_distance,
            "periods between the given and the predicted one",
            "share of the errors",
        ),
        (plots.plot_reliability, "probability of the answer", "share that is right"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_axes_say_what_they_show(predictions, plot, x, y):
    ax = plot(predictions).axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x, y)


def test_curves_are_the_columns_of_the_history_by_epoch():
    history = pd.DataFrame({"train_loss": [2.0, 1.0, 0.5], "valid_loss": [2.0, 1.5, 1.4]})
    ax = plots.plot_history(history, ["train_loss", "valid_loss"]).axes[0]
    assert ax.get_xlabel() == "epoch"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train loss", "valid loss"]
    for line, name in zip(ax.lines, history, strict=True):
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([[1, 2, 3], history[name]]))


def test_picture_plots_show_the_pictures_of_the_tables(predictions, errors_of_a_run):
    data, _ = errors_of_a_run
    ax = plots.plot_top_losses(predictions, data, n=6).axes[0]
    worst = evaluation.top_losses(predictions, 6)
    assert [text.split("\n")[0] for text in texts(ax)] == worst.period.tolist()
    shown = [tuple(image.get_array()[0, 0]) for image in ax.images]
    assert shown == [Image.open(data / file).getpixel((0, 0)) for file in worst.file]
    ax = plots.plot_most_confused(predictions, data, n=3).axes[0]
    pairs = evaluation.most_confused(predictions, 3)
    assert [text.split(":")[0] for text in texts(ax) if text] == [
        f"{pair.given} taken for {pair.predicted}" for pair in pairs.itertuples()
    ]
    assert len(ax.images) == sum(min(count, 4) for count in pairs["count"])


# Scripts


@pytest.fixture
def no_letters_said(monkeypatch):
    """Warnings and found families of other tests don't count."""
    monkeypatch.setattr(fonts, "_said", set())
    fonts._families_with.cache_clear()
    yield
    fonts._families_with.cache_clear()


def test_letters_that_a_font_lacks_come_from_another(no_letters_said, tmp_path):
    with warnings.catch_warnings(), matplotlib.rc_context({"font.family": ["cmr10"]}):
        warnings.filterwarnings("ignore", message="cmr10 font should")
        warnings.simplefilter("error", append=True)
        figure = plots.plot_confusion(made_predictions([("Барокко", "Барокко"), ("b", "b")]))
        figure.savefig(tmp_path / "figure.png")
        axes = figure.axes[0]
        for _ in range(2):  # a second drawing adds nothing
            for label in axes.get_xticklabels() + axes.get_yticklabels():
                families = label.get_fontfamily()
                assert families[0] == "cmr10"
                assert len(families) == (2 if label.get_text() == "Барокко" else 1)
            figure.savefig(tmp_path / "figure.svg")
        other = axes.get_xticklabels()[1].get_fontfamily()[1]
        letters = fonts._letters(findfont(FontProperties(family=[other])))
        assert set("Барокко") <= letters


def test_letters_that_no_font_has_are_named_once(no_letters_said, tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_fonts", dict)
    pairs = made_predictions([("\U0010fffd\U0010fffc", "b"), ("b", "b")])
    with pytest.warns(UserWarning, match="no font on this machine has the letters") as said:
        for number in range(2):
            plots.plot_confusion(pairs).savefig(tmp_path / f"{number}.png", bbox_inches="tight")
    assert len(said) == 1
    with pytest.warns(UserWarning, match="has the letters \U0010fffb:") as said:
        plots.plot_per_class(made_predictions([("\U0010fffb\U0010fffc", "b")])).savefig(
            tmp_path / "2.png"
        )
    assert len(said) == 1
