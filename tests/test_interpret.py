"""Step interpret: what it writes, and with how little it does."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from artclf import interpret
from artclf.data.pictures import thumbnail
from artclf.results import evaluation


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
            "macro_f1": [0.2, 0.4],
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
