"""The tables and plots of step `interpret`, against scikit-learn, pandas and counting by hand."""

import collections
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.metrics import classification_report, confusion_matrix, f1_score, top_k_accuracy_score

from artclf import interpret
from artclf.data.pictures import thumbnail
from artclf.results import evaluation, plots


@pytest.fixture
def predictions(errors_of_a_run):
    data, out = errors_of_a_run
    return evaluation.read(out, data)


def made_up(pairs, part="test", names=None):
    """Predictions with the given `(period, predicted)` pairs and one-hot probabilities."""
    table = pd.DataFrame(pairs, columns=["period", "predicted"])
    table = table.assign(
        file=[f"clean/x/{i}.jpg" for i in range(len(table))],
        part=part,
        probability=1.0,
        loss=0.0,
        title="",
        artist="",
        year="",
        source="",
    )
    for name in names or sorted({name for pair in pairs for name in pair}):
        table[f"p_{name}"] = (table.predicted == name).astype(float)
    return table


def test_read_joins_the_facts_of_the_raw_file_to_the_prediction_of_the_clean_one(predictions):
    assert len(predictions) == 150
    assert predictions.title[0] == "No. 0" and predictions.title[149] == "No. 149"
    assert set(predictions.year) == {"1650"} and set(predictions.source) == {""}


def test_read_says_what_to_do_about_missing_or_foreign_tables(errors_of_a_run, tmp_path):
    data, out = errors_of_a_run
    with pytest.raises(FileNotFoundError, match="artclf train"):
        evaluation.read(tmp_path, data)
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        evaluation.read(out, tmp_path)
    for text, problem in [
        ("", "not a table of predictions"),
        ("a,b\n1,2\n", "lacks file, part"),
        ("file,part,period,predicted,probability,loss\n", "lacks rows"),
        ("file,part,period,predicted,probability,loss,p_a\nf,test,a,a,much,1,1\n", "much"),
        ("file,part,period,predicted,probability,loss,p_a\nf,test,a,a,1,1,\n", "p_a|convert"),
    ]:
        (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=problem):
            evaluation.read(tmp_path, data)


def test_a_class_called_NA_is_a_class(errors_of_a_run, tmp_path):
    text = "file,part,period,predicted,probability,loss,p_NA,p_b\nclean/NA/1.jpg,test,NA,NA,0.75,0.3,0.75,0.25\n"
    (tmp_path / "predictions.csv").write_text(text, encoding="utf-8")
    assert evaluation.classes(evaluation.read(tmp_path, errors_of_a_run[0])) == ["NA", "b"]


def test_classes_stand_in_time_order_and_keep_those_without_images(predictions):
    names = ["01-early", "02-high", "05-baroque", "9-realism", "10-late", "12-empty"]
    assert evaluation.classes(predictions) == names
    assert evaluation.positions(names).tolist() == [1, 2, 5, 9, 10, 12]
    assert evaluation.positions(["01-early", "monet"]).tolist() == [0, 1]
    unknown = made_up([("03-new", "01-a")], names=["01-a"])
    assert evaluation.classes(unknown) == ["01-a", "03-new"]


def test_the_confusion_matrix_counts_pairs(predictions):
    test = predictions[predictions.part == "test"]
    names = evaluation.classes(predictions)
    expected = confusion_matrix(test.period, test.predicted, labels=names)
    assert (evaluation.confusion(predictions).to_numpy() == expected).all()
    with pytest.raises(ValueError, match="the parts are train, valid, test"):
        evaluation.confusion(predictions, "dev")


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_metrics_agree_with_scikit_learn_and_with_counting(predictions, part):
    rows, figures = predictions[predictions.part == part], evaluation.metrics(predictions)[part]
    names = [name[2:] for name in predictions if name.startswith("p_")]
    train = predictions[predictions.part == "train"]
    always = (
        DummyClassifier(strategy="most_frequent")
        .fit(train[["loss"]], train.period)
        .predict(rows[["loss"]])
    )
    report = classification_report(rows.period, rows.predicted, output_dict=True, zero_division=0)
    assert figures["images"] == len(rows)
    assert figures["accuracy"] == pytest.approx((rows.period == rows.predicted).mean())
    assert figures["error_rate"] == pytest.approx((rows.period != rows.predicted).mean())
    assert figures["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert figures["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert figures["top3_accuracy"] == pytest.approx(
        top_k_accuracy_score(
            rows.period, rows[[f"p_{name}" for name in sorted(names)]], k=3, labels=sorted(names)
        )
    )
    assert figures["baseline"] == always[0] == "01-early"
    assert figures["baseline_accuracy"] == pytest.approx((rows.period == always).mean())
    assert figures["baseline_macro_f1"] == pytest.approx(
        f1_score(rows.period, always, average="macro")
    )


@pytest.mark.parametrize("part", ["train", "test"])
def test_period_distances_agree_with_counting_image_by_image(predictions, part):
    rows, figures = predictions[predictions.part == part], evaluation.metrics(predictions)[part]

    def year(name):
        return int(name.split("-")[0])

    wrong = [(year(a), year(b)) for a, b in zip(rows.period, rows.predicted, strict=True) if a != b]
    given = [year(name) for name in rows.period]
    # a random error takes the class of any image of another class, each with equal chance
    chance = sum(np.mean([abs(a - other) for other in given if other != a]) for a, _ in wrong)
    assert figures["error_distance"] == pytest.approx(
        sum(abs(a - b) for a, b in wrong) / len(wrong)
    )
    assert figures["distance"] == pytest.approx(sum(abs(a - b) for a, b in wrong) / len(rows))
    assert figures["error_distance_chance"] == pytest.approx(chance / len(wrong))
    assert figures["distance_chance"] == pytest.approx(chance / len(rows))
    table = evaluation.distances(predictions, part)
    assert (
        table.errors.to_dict() | collections.Counter(abs(a - b) for a, b in wrong)
        == table.errors.to_dict()
    )
    assert table.chance.sum() == pytest.approx(len(wrong))


def test_metrics_of_perfect_and_of_one_class_predictions():
    perfect = evaluation.metrics(made_up([("01-a", "01-a"), ("02-b", "02-b")] * 3))["test"]
    assert (
        perfect["accuracy"] == 1 and perfect["distance"] == 0 and perfect["error_distance"] is None
    )
    one = evaluation.metrics(made_up([("01-a", "02-b"), ("01-a", "01-a")]))["test"]
    assert (
        one["error_distance"] == 1
        and one["error_distance_chance"] is None
        and one["top3_accuracy"] == 1
    )
    unknown = evaluation.metrics(made_up([("03-new", "01-a")], names=["01-a", "02-b"]))["test"]
    assert unknown["top3_accuracy"] == 0 and unknown["error_distance"] == 2


def test_per_class_agrees_with_scikit_learn_and_leaves_undefined_figures_open(predictions):
    table = evaluation.per_class(predictions)
    for part in ("train", "test"):
        rows = predictions[predictions.part == part]
        report = classification_report(
            rows.period, rows.predicted, output_dict=True, zero_division=np.nan
        )
        for name in rows.period.unique():
            for ours, theirs in zip(
                ("precision", "recall", "f1", "support"),
                ("precision", "recall", "f1-score", "support"),
                strict=True,
            ):
                assert table.loc[name, f"{ours}_{part}"] == pytest.approx(
                    report[name][theirs], nan_ok=True
                )
    assert table.support_test["12-empty"] == 0 and math.isnan(table.recall_test["12-empty"])


def test_most_confused_counts_pairs_and_rates(predictions):
    test = predictions[predictions.part == "test"]
    pairs = collections.Counter(
        (a, b) for a, b in zip(test.period, test.predicted, strict=True) if a != b
    )
    table = evaluation.most_confused(predictions, n=None)
    assert {(row.given, row.predicted): row.count for row in table.itertuples(index=False)} == pairs
    assert (
        table["count"].is_monotonic_decreasing
        and len(evaluation.most_confused(predictions, n=2)) == 2
    )
    first = table.iloc[0]
    assert first.rate == pytest.approx(
        pairs[first.given, first.predicted] / (test.period == first.given).sum()
    )
    images = evaluation.images_of_pair(predictions, first)
    assert set(images.period) == {first.given} and set(images.predicted) == {first.predicted}
    assert len(images) == first["count"] and images.probability.is_monotonic_decreasing


def test_top_losses_come_highest_first(predictions):
    worst = evaluation.top_losses(predictions, 5, "train")
    assert (
        worst.loss.tolist()
        == sorted(predictions[predictions.part == "train"].loss, reverse=True)[:5]
    )


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
    figure = plots.plot_confusion(made_up([(name, name) for name in names]))
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


@pytest.fixture(scope="module")
def written(errors_of_a_run):
    data, out = errors_of_a_run
    history = pd.DataFrame(
        {
            "epoch": [0, 1],
            "train_loss": [2.0, 1.0],
            "valid_loss": [2.0, 1.5],
            "accuracy": [0.3, 0.5],
            "error_rate": [0.7, 0.5],
            "f1_score": [0.2, 0.4],
            "time": ["00:01", "00:01"],
        }
    )
    history.to_csv(out / "history.csv", index=False)
    (out / "config.json").write_text(
        json.dumps({"arch": "<i>net</i>", "vocab": ["a"]}), encoding="utf-8"
    )
    return interpret.write(out, data, n=5)


def test_write_leaves_plots_tables_and_a_summary(written, errors_of_a_run, predictions):
    _, out = errors_of_a_run
    names = {
        "confusion_counts",
        "confusion_rates",
        "per_class",
        "distance",
        "most_confused",
        "top_losses",
        "reliability",
    }
    assert {path.stem for path in (out / "plots").iterdir()} == names | {"losses", "scores"}
    for path in (out / "plots").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in (out / "plots").glob("*.png"):
        assert min(thumbnail(path, 2000).size) > 300
    assert (
        written["report"] == str(out / "report.html")
        and written["part"] == "test"
        and len(written["plots"]) == 18
    )
    json.dumps(written)
    assert written["accuracy"] == evaluation.metrics(predictions)["test"]["accuracy"]
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "per_class.csv", index_col="period"),
        evaluation.per_class(predictions),
        check_exact=False,
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(out / "most_confused.csv"), evaluation.most_confused(predictions, None)
    )


def test_the_report_holds_the_figures_and_escapes_strangers_text(
    written, errors_of_a_run, predictions
):
    html = (errors_of_a_run[1] / "report.html").read_text(encoding="utf-8")
    cells = [
        re.sub("<[^>]+>", "", cell)
        for cell in re.findall("<t[hd]>.*?</t[hd]>", html.split('id="figures"')[1])
    ]
    test, valid, train = (
        evaluation.metrics(predictions)[part] for part in ("test", "valid", "train")
    )
    expected = [test["accuracy"], valid["accuracy"], train["accuracy"], test["baseline_accuracy"]]
    place = cells.index("accuracy") + 1
    assert cells[place : place + 4] == [f"{100 * figure:.1f}%" for figure in expected]
    assert "<script>window.hacked" not in html and "<Painter>" not in html and "<i>net" not in html
    assert "&lt;i&gt;net" in html and html.count("A. &amp; B. &lt;Painter&gt;") > 5
    assert set(
        re.findall(r"""\s(?:src|href)=["']?(\w+:)""", re.sub('srcdoc="[^"]*"', "", html))
    ) == {"data:"}


def test_write_does_with_little(errors_of_a_run, tmp_path):
    data, out = errors_of_a_run
    lines = (out / "predictions.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join([lines[0], lines[4]]), encoding="utf-8")
    assert interpret.write(tmp_path, data)["images"] == 1
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        "Training" not in html and "All settings" not in html and "was trained on what" not in html
    )
    with pytest.raises(ValueError, match="no image of part 'valid': the parts are test"):
        interpret.write(tmp_path, data, part="valid")
