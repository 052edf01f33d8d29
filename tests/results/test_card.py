"""The model card: read by the hub's own library and by a Markdown parser, against counting and
scikit-learn, with hostile names and with parts and facts missing.
"""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from artclf import interpret
from artclf.data.catalogue import Catalogue
from artclf.results import calibration, card, evaluation
from artclf.results.report import intervals

NAMES = ["01-early_renaissance", "05-*b* | [x](http://evil) <b>&amp;`$`", "09-_no_ ~~test~~"]
LICENCES = ["CC0", "", "cc | by <script>"]
SOURCE = "**museum** | <img src=x>\n# a heading"
BODY = {"name": "efficientnet_lite0", "library": "wheel", "weights": "wheel lite0", "bodies": []}
BODY |= {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def run(tmp_path):
    """Makes folders DATA and EXPORT of 60 made-up predictions; those of the last period are all in
    train.
    """

    def make(parts=("train", "valid", "test"), final=None, **changes) -> tuple[Path, Path]:
        data, out, rng = tmp_path / "data", tmp_path / "out", np.random.default_rng(5)
        out.mkdir()
        rows = []
        with Catalogue(data) as catalogue:
            for place in range(60):
                period = NAMES[place % 3]
                key = {"url": f"http://a.example/{place}", "period": period}
                facts = {"source": SOURCE, "licence": LICENCES[place % 3], "artist": f"A. {place}"}
                catalogue.add([{**key, **facts}])
                catalogue.update([{**key, "file": f"raw/x/{place:04}.png"}])
                chances = rng.dirichlet(1 + 2 * np.eye(3)[place % 3])
                part = "train" if place % 3 == 2 else parts[place // 3 % len(parts)]
                loss = -np.log(chances[place % 3])
                file = f"clean/{period}/{place:04}.jpg"
                best = chances.argmax()
                rows.append([file, part, period, NAMES[best], chances[best], loss, *chances])
        columns = [*evaluation.COLUMNS, *(f"p_{name}" for name in NAMES)]
        table = pd.DataFrame(rows, columns=columns)
        table.to_csv(out / "predictions.csv", index=False)
        config = {**BODY, "vocab": NAMES, "size": 64, "resize": "crop", "max_size": 500}
        config |= {"data_hash": "0123abc", "seed": 3, "versions": {"artclf": "0.1.0"}}
        config |= {"temperature": 1.25, "split": "grouped", **changes}
        metrics = {"metrics": evaluation.metrics(table)}
        metrics["calibration"] = calibration.summary(table, 1.25)
        if final:
            metrics["final"] = final
        (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (out / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        return data, out

    return make


class Page(HTMLParser):
    """The tags, links, table rows and words of a page."""

    def __init__(self, markdown: str):
        super().__init__()
        self.tags, self.links, self.rows, self.words = set(), set(), [], ""
        self.is_in_cell = False
        self.feed(MarkdownIt("gfm-like", {"linkify": False}).render(markdown))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links |= {value for name, value in attributes if name in ("href", "src")}
        if tag == "tr":
            self.rows.append([])
        self.is_in_cell = tag in ("td", "th")
        if self.is_in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.is_in_cell = self.is_in_cell and tag not in ("td", "th")

    def handle_data(self, text):
        self.words += text
        if self.is_in_cell:
            self.rows[-1][-1] += text

    def row(self, first: str, number: int = 0) -> list[str]:
        """The cells after the first one, `first`, in the row of that name with that number."""
        found = [cells[1:] for cells in self.rows if cells[:1] == [first]]
        return found[number]


def page_of(data, out) -> Page:
    return Page(ModelCard(card.text(out, data)).text)


def test_the_head_is_what_the_hub_reads(run):
    data, out = run()
    head = ModelCard(card.text(out, data)).data
    assert (head.license, head.library_name) == ("apache-2.0", "artclf")
    assert head.pipeline_tag == "image-classification" and "paintings" in head.tags
    assert head.model_name == "artclf efficientnet_lite0"
    test = pd.read_csv(out / "predictions.csv").query("part == 'test'")
    found = {result.metric_name: result for result in head.eval_results}
    accuracy = accuracy_score(test.period, test.predicted)
    macro_f1 = f1_score(test.period, test.predicted, average="macro")
    assert found["accuracy"].metric_value == pytest.approx(accuracy, abs=1e-4)
    assert found["macro F1"].metric_value == pytest.approx(macro_f1, abs=1e-4)
    assert found["macro F1"].metric_args == {"average": "macro"}
    for result in found.values():
        assert (result.dataset_split, result.dataset_revision) == ("test", "0123abc")
        assert result.dataset_name == f"{len(test)} pictures of 3 periods"


def test_names_of_users_are_texts_and_nothing_else(run):
    data, out = run()
    page = page_of(data, out)
    of_the_template = {"h1", "h2", "p", "a", "ul", "li", "code", "pre"}
    assert page.tags == of_the_template | {"table", "thead", "tbody", "tr", "th", "td"}
    assert page.links == {card.HOME}
    assert page.row(" ".join(SOURCE.split())) == ["60"]
    for name in NAMES:
        assert len(page.row(name)) == 3 and len(page.row(name, 1)) == 4
    assert page.words.count("# a heading") == 1


@pytest.mark.parametrize("text", ["a  b\tc\n\nd", "x\u202ey\x00z", "a\\_b", "&lt;", "- a", "$$x$$"])
def test_escaped_text_comes_back(text):
    shown = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    assert Page(f"It is {card.escaped(text)}.").words.strip() == f"It is {shown}."


def test_counts_and_figures_by_period_are_those_of_the_table(run):
    data, out = run()
    page = page_of(data, out)
    table = pd.read_csv(out / "predictions.csv")
    test = table[table.part == "test"]
    figures = precision_recall_fscore_support(
        test.period, test.predicted, labels=NAMES, zero_division=np.nan
    )
    for name, *expected, support in zip(NAMES, *figures, strict=True):
        parts = table.part[table.period == name]
        assert page.row(name) == [str((parts == part).sum()) for part in ("train", "valid", "test")]
        shown = ["–" if np.isnan(value) else f"{100 * value:.1f}%" for value in expected]
        assert page.row(name, 1) == [*shown, str(support)]
    predictions = evaluation.read(out, data)
    low, high = intervals(predictions)[0]["accuracy"]
    accuracy = accuracy_score(test.period, test.predicted)
    cells = page.row("accuracy")
    assert cells[:2] == [f"{100 * accuracy:.1f}%", f"{100 * low:.1f}% to {100 * high:.1f}%"]
    assert "No picture in test, so that nothing is known of its answers: 09-_no_" in page.words
    confused = evaluation.most_confused(predictions, 1).iloc[0]
    assert f"{confused.given} taken for {confused.predicted} ({confused['count']} of" in page.words
    assert page.row("CC0") == page.row("cc | by <script>") == page.row("not known") == ["20"]


def test_without_test_it_says_that_the_figures_are_too_good(run):
    data, out = run(parts=("train", "valid"))
    text = card.text(out, data)
    head = ModelCard(text).data
    assert {result.dataset_split for result in head.eval_results} == {"validation"}
    page = Page(ModelCard(text).text)
    assert "There is no part test" in page.words and "they are too good" in page.words
    assert "took part in nothing" not in page.words and "test" not in page.rows[0]


def test_it_tells_which_network_the_figures_are_of(run):
    unseen = {"accuracy": 0.4321, "macro_f1": 0.321}
    data, out = run()
    assert "learned from the pictures of all parts" not in page_of(data, out).words
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    config |= {"learned_from": ["train", "valid", "test"], "temperature": 1.5}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for final in ({"images": 60}, {"images": 60, "painter_known": 55, "unseen": unseen}):
        kept = {**metrics, "final": final}
        (out / "metrics.json").write_text(json.dumps(kept), encoding="utf-8")
        words = page_of(data, out).words
        assert "learned from the pictures of all parts" in words and "temperature 1.500" in words
        assert ("43.2% of all 60 pictures their period, macro F1 32.1%" in words) == (
            "unseen" in final
        )


def test_the_same_export_gives_the_same_text_without_paths(run):
    data, out = run()
    text = card.text(out, data)
    assert text == card.text(out, data)
    assert str(out.parent) not in text and not re.search(r"\d{4}-\d\d-\d\d", text)


@pytest.mark.parametrize(
    ("changes", "licence", "said"),
    [
        ({"weights": "random"}, "unknown", "began with random weights"),
        ({"weights": "file own.safetensors 12ab"}, "unknown", "own.safetensors 12ab) is not known"),
        (
            {"name": "resnet18", "library": "torchvision", "weights": "torchvision X"},
            "bsd-3-clause",
            "(torchvision X) are under bsd-3-clause",
        ),
        (
            {
                "name": "efficientnet_lite0+resnet18",
                "library": "several",
                "bodies": [BODY, {**BODY, "name": "resnet18", "library": "torchvision"}],
            },
            "other",
            "resnet18 began with (wheel lite0) are under bsd-3-clause",
        ),
    ],
)
def test_the_licence_is_that_of_the_weights_it_began_with(run, changes, licence, said):
    data, out = run(**changes)
    text = card.text(out, data)
    assert ModelCard(text).data.license == licence
    assert said in Page(ModelCard(text).text).words


def test_a_base_model_is_named_where_the_hub_has_it(run):
    data, out = run(name="resnet10t", library="timm", weights="timm timm/resnet10t.c3_in1k")
    assert ModelCard(card.text(out, data)).data.base_model == ["timm/resnet10t.c3_in1k"]


def test_an_export_brings_its_card(export, drawn):
    text = (export / "README.md").read_text(encoding="utf-8")
    assert text == card.text(export, drawn)
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    page = Page(ModelCard(text).text)
    for name in config["vocab"]:
        assert sum(map(int, page.row(name))) == 8


def test_interpret_writes_a_card_where_there_is_none(own_run, tmp_path, monkeypatch):
    data, out = own_run
    monkeypatch.setattr(interpret, "plots_of_run", lambda *args: {})  # they take seconds
    monkeypatch.setattr(interpret.report_page, "page", lambda *args: "")
    (out / "README.md").write_text("of my own", encoding="utf-8")
    interpret.write(out, data, n=1)
    assert (out / "README.md").read_text(encoding="utf-8") == "of my own"
    (out / "README.md").unlink()
    interpret.write(out, data, n=1, folder=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "README.md").read_text(encoding="utf-8") == card.text(
        out, data
    )
