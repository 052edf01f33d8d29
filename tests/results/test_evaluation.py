"""The table of predictions and its figures, against scikit-learn, pandas and counting by hand."""

import collections
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from made_predictions import made_predictions
from sklearn.dummy import DummyClassifier
from sklearn.metrics import classification_report, confusion_matrix, f1_score, top_k_accuracy_score

from artclf.base.errors import InputError
from artclf.results import evaluation


def test_read_joins_the_facts_of_the_raw_file_to_the_prediction_of_the_clean_one(predictions):
    assert len(predictions) == 150
    assert predictions.title[0] == "No. 0" and predictions.title[149] == "No. 149"
    assert set(predictions.year) == {"1650"} and set(predictions.source) == {""}


def test_read_names_painters_as_the_users_table_does(errors_of_a_run, tmp_path):
    data, out = errors_of_a_run
    shutil.copytree(data, tmp_path / "data")
    table = "alias,artist\nA. & B. <Painter>,Titian\n"
    (tmp_path / "data/artists.csv").write_text(table, encoding="utf-8")
    assert set(evaluation.read(out, tmp_path / "data").artist) == {"Titian"}


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
    unknown = made_predictions([("03-new", "01-a")], names=["01-a"])
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
    perfect = evaluation.metrics(made_predictions([("01-a", "01-a"), ("02-b", "02-b")] * 3))["test"]
    assert (
        perfect["accuracy"] == 1 and perfect["distance"] == 0 and perfect["error_distance"] is None
    )
    one = evaluation.metrics(made_predictions([("01-a", "02-b"), ("01-a", "01-a")]))["test"]
    assert (
        one["error_distance"] == 1
        and one["error_distance_chance"] is None
        and one["top3_accuracy"] == 1
    )
    unknown = evaluation.metrics(made_predictions([("03-new", "01-a")], names=["01-a", "02-b"]))[
        "test"
    ]
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


@pytest.fixture
def told() -> pd.DataFrame:
    """Eight predictions of test and two of train, with painters, sources and probabilities."""
    pairs = [
        ("01-a", "02-b"),
        ("01-a", "02-b"),
        ("01-a", "01-a"),
        ("02-b", "01-a"),
        ("02-b", "03-c"),
        ("03-c", "03-c"),
        ("03-c", "01-a"),
        ("02-b", "02-b"),
        ("02-b", "02-b"),
        ("02-b", "01-a"),
    ]
    table = made_predictions(pairs)
    table["part"] = ["test"] * 8 + ["train"] * 2
    table["probability"] = [0.5, 0.9, 0.6, 0.4, 0.9, 0.7, 0.8, 0.6, 0.3, 0.2]
    table["loss"] = [1.0, 4.0, 0.5, 2.0, 4.0, 0.1, 3.0, 0.6, 9.0, 9.0]
    table["artist"] = ["Ann Lee", "Lee, Ann", "Ann Lee", "Bo", "Bo", "", "Anonymous", "Cy", "", ""]
    table["source"] = ["x", "x", "x", "y", "y", "y", "y", "", "", ""]
    return table


def test_the_baseline_is_the_most_frequent_class_of_train(told):
    figures = evaluation.metrics(told)
    assert figures["test"]["baseline"] == "02-b"
    assert figures["test"]["baseline_accuracy"] == pytest.approx(3 / 8)
    assert figures["train"]["baseline_accuracy"] == 1
    without_train = evaluation.metrics(told[(told.part == "test") & (told.period != "02-b")])
    assert without_train["test"]["baseline"] == "01-a"


def test_pairs_of_equal_count_come_in_the_order_of_their_rate(told):
    pairs = evaluation.most_confused(told)
    assert pairs.to_dict("records") == [
        {"given": "01-a", "predicted": "02-b", "count": 2, "rate": pytest.approx(2 / 3)},
        {"given": "03-c", "predicted": "01-a", "count": 1, "rate": 0.5},
        {"given": "02-b", "predicted": "01-a", "count": 1, "rate": pytest.approx(1 / 3)},
        {"given": "02-b", "predicted": "03-c", "count": 1, "rate": pytest.approx(1 / 3)},
    ]
    assert len(evaluation.most_confused(told, 2)) == 2
    assert evaluation.most_confused(told, part="train")["count"].tolist() == [1]


def test_the_images_of_a_pair_come_surest_first(told):
    pair = evaluation.most_confused(told).iloc[0]
    assert evaluation.images_of_pair(told, pair).index.tolist() == [1, 0]


def test_errors_of_painters_join_their_spellings_and_leave_out_nobody(told):
    table = evaluation.errors_by(told, "artist")
    expected = pd.DataFrame(
        {
            "images": [2, 3, 1],
            "errors": [2, 2, 0],
            "rate": [1.0, 2 / 3, 0.0],
            "mostly": [("02-b", "01-a"), ("01-a", "02-b"), None],
        },
        index=pd.Index(["Bo", "Ann Lee", "Cy"], name="name"),
    )
    pd.testing.assert_frame_equal(table, expected)


def test_errors_of_sources_are_those_of_their_names(told):
    table = evaluation.errors_by(told, "source")
    assert table.index.tolist() == ["y", "x"] and table.errors.tolist() == [3, 2]
    assert table.images.tolist() == [4, 3] and table.rate.tolist() == [0.75, pytest.approx(2 / 3)]
    assert list(table) == ["images", "errors", "rate", "mostly"]


def test_the_surest_and_the_least_sure_answers_of_a_part(told):
    assert evaluation.surest(told, right=False).index.tolist() == [1, 4, 6, 0, 3]
    assert evaluation.surest(told, right=False, n=2).index.tolist() == [1, 4]
    assert evaluation.surest(told, right=True).index.tolist() == [5, 2, 7]
    assert evaluation.surest(told, right=True, n=None, part="train").index.tolist() == [8]
    assert evaluation.least_sure(told, 3).index.tolist() == [3, 0, 2]
    assert evaluation.least_sure(told, part="train").index.tolist() == [9, 8]
    assert evaluation.top_losses(told, 3).index.tolist() == [1, 4, 6]
    assert evaluation.top_losses(told, part="train").index.tolist() == [8, 9]


@pytest.mark.parametrize(
    "figure",
    [evaluation.surest, evaluation.least_sure, evaluation.top_losses],
    ids=lambda function: function.__name__,
)
def test_twelve_images_are_enough_unless_asked(figure):
    table = made_predictions([("01-a", "02-b")] * 14)
    options = {"right": False} if figure is evaluation.surest else {}
    assert len(figure(table, **options)) == 12


def test_a_part_without_images_is_an_error_that_names_the_parts(told):
    with pytest.raises(InputError) as error:
        evaluation.of_part(told, "valid")
    assert str(error.value) == "no image of part 'valid': the parts are train, test"


def test_without_predictions_the_step_before_is_named(told, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        evaluation.read(tmp_path, tmp_path)
    assert str(error.value) == f"no {tmp_path / 'predictions.csv'}: run `artclf train` first"
