"""Labelling: pictures without a label stay out of everything, a person's keys label them, and the
estimate of the accuracy is an honest one.
"""

import os
import shutil
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from loopback import jupyterlab, run_first_cell
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from statsmodels.stats.proportion import proportion_confint

from artclf import download
from artclf.base.errors import InputError, SettingError
from artclf.data import cleaning, review, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.classes import UNLABELLED
from artclf.lab import few_labels, label_page, labelling, leaks
from artclf.results import review_page
from artclf.results.recipe import DEFAULTS

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"arch": "efficientnet_lite0", "size": 64}


@pytest.fixture(scope="session")
def collection(drawn, tmp_path_factory) -> tuple[Path, dict]:
    """The canvases of `drawn` taken in without their labels, with what is computed of them; and
    their labels, which an oracle tells.
    """
    data = tmp_path_factory.mktemp("unlabelled")
    download.import_folder(drawn / "gallery", data, layout=UNLABELLED)
    cleaning.normalise(data, workers=1)
    labels = read_catalogue(drawn).set_index("url").period.to_dict()
    labelling.Labelling(data, sorted(set(labels.values())), **SETTINGS)
    return data, labels


@pytest.fixture
def data(collection, tmp_path) -> Path:
    return shutil.copytree(collection[0], tmp_path / "data")


@pytest.fixture
def oracle(collection) -> dict:
    return collection[1]


@pytest.fixture
def periods(oracle) -> list[str]:
    return sorted(set(oracle.values()))


@pytest.fixture
def task(data, periods) -> labelling.Labelling:
    return labelling.Labelling(data, periods, number=8, **SETTINGS)


def label(task, places, oracle):
    for place in places:
        task.decide(int(place), oracle[task.rows.url[place]])


def test_a_folder_without_labels_is_in_no_split_until_it_is_labelled(data, oracle, periods):
    table = read_catalogue(data)
    assert set(table.period) == {UNLABELLED} and len(table) == 40
    with pytest.raises(InputError, match="no picture .* has a label.*21_label"):
        splits.items(data)
    first, second = table.url[:2]
    review.decide(data, [first], f"move:{periods[0]}")
    review.decide(data, [second], "keep")
    assert splits.usable(data).url.tolist() == [first]
    assert set(splits.with_unlabelled(data).period) == {periods[0], UNLABELLED}
    assert review.classes(data) == [periods[0]]
    with pytest.raises(InputError, match="can't be a class"):
        review.decide(data, [second], "move:a/b")


def test_copies_without_a_label_are_in_no_figure_of_leaks(drawn, tmp_path):
    data = shutil.copytree(drawn, tmp_path / "copy")
    with Catalogue(data) as cat:
        copies = [
            {**row, "url": f"{row['url']}-copy", "period": UNLABELLED} for row in cat.select()
        ]
        cat.add(copies)
        cat.update({**row, "clean_status": "duplicate"} for row in copies)
    assert len(leaks.images(data, ["random"], with_duplicates=True)) == 40


def test_labels_travel_as_a_file(collection, data, oracle, tmp_path, capsys):
    url, period = next(iter(oracle.items()))
    review.decide(data, [url], f"move:{period}")
    other = shutil.copytree(collection[0], tmp_path / "other")
    review.export_csv(data, tmp_path / "labels.csv")
    assert review.read_csv(other, tmp_path / "labels.csv")["applied"] == 1
    assert splits.usable(other).period.tolist() == [period]


def test_the_first_page_is_drawn_by_chance_and_later_ones_by_a_fifth(task, oracle):
    assert task.next_page().tolist() == task.order[:8].tolist()
    label(task, task.order[:8], oracle)
    page = task.next_page()
    assert len(set(page)) == 8 and not set(page) & set(task.labelled)
    assert set(task.undecided[:2]) <= set(page)
    places = np.setdiff1d(task.undecided, task.undecided[:2])
    probabilities = few_labels.answers(task.pool, task.labelled, places)
    others = few_labels.by_margin_and_coverage(
        task.pool, task.labelled, places, probabilities, 6, None
    )
    assert set(page) == {*task.undecided[:2], *others}


def test_skipped_and_no_paintings_teach_nothing_and_are_not_asked_again(data, task, oracle):
    first, second, *others = task.next_page()
    task.decide(int(first), labelling.SKIP)
    task.decide(int(second), labelling.NO_PAINTING)
    label(task, others, oracle)
    assert task.counts() == {"labelled": 6, "skipped": 1, "no painting": 1, "left": 32}
    assert sorted(task.labelled) == sorted(others)
    assert not {first, second} & set(task.next_page())
    assert sorted(task.tested()) == sorted(others)
    again = labelling.Labelling(data, number=8, **SETTINGS)
    assert again.counts() == task.counts() and again.next_page().tolist() == list(task.next_page())


def test_pictures_that_had_a_label_from_the_start_teach_and_are_not_counted(data, oracle, periods):
    urls = [url for url in read_catalogue(data).url if oracle[url] == periods[0]][:3]
    with Catalogue(data) as cat, cat.transaction() as db:
        for url in urls:
            db.execute("UPDATE images SET period = ? WHERE url = ?", (periods[0], url))
    review.decide(data, urls[:1], "drop")
    task = labelling.Labelling(data, periods, **SETTINGS)
    assert sorted(task.rows.url[task.labelled]) == sorted(urls[1:])
    assert task.counts() == {"labelled": 0, "skipped": 0, "no painting": 0, "left": 37}
    assert not len(task.tested()) and not set(urls) & set(task.rows.url[task.next_page()])


def test_only_pictures_drawn_by_chance_are_tested(task, oracle):
    label(task, task.order[:8], oracle)
    chosen = task.order[20:25]
    label(task, chosen, oracle)
    assert sorted(task.tested()) == sorted(task.order[:8])
    label(task, task.order[8:20], oracle)  # now those of before count, too
    assert sorted(task.tested()) == sorted(task.order[:25])


def test_the_estimate_is_that_of_cross_validation_by_scikit_learn(task, oracle):
    assert task.estimate() is None and task.record().empty
    label(task, task.order[:30], oracle)
    found = task.estimate()
    x, y = task.pool.x[task.labelled], task.pool.periods[task.labelled].astype(str)
    pairs = labelling.out_of_fold(
        LogisticRegression(), x, y, task.groups[task.labelled], labelling.FOLDS, task.seed
    ).fold
    weight = DEFAULTS.ridge * np.mean([(pairs != fold).sum() for fold in range(labelling.FOLDS)])
    model = LogisticRegression(C=1 / weight, class_weight="balanced", tol=1e-8, max_iter=5000)
    cut = [(np.flatnonzero(pairs != fold), np.flatnonzero(pairs == fold)) for fold in set(pairs)]
    right = int((cross_val_predict(model, x, y, cv=cut) == y).sum())
    assert found["labels"] == found["tested"] == 30 and abs(found["right"] - right) <= 1
    low, high = proportion_confint(found["right"], 30, method="wilson")
    assert (found["low"], found["high"]) == (pytest.approx(low), pytest.approx(high))
    assert found["accuracy"] == found["right"] / 30


def test_the_curve_is_kept_and_forgets_what_was_taken_back(data, task, oracle):
    for number in (12, 16, 20):
        label(task, task.order[number - 12 : number], oracle)
        table = task.record()
    assert table.labels.tolist() == [12, 16, 20]
    assert labelling.curve(data).equals(table) and task.record().equals(table)
    task.undo()
    assert task.record().labels.tolist() == [12, 16, 19]
    assert "With 19 labels" in labelling.describe(labelling.curve(data))
    [bars] = labelling.plot_curve(table).axes[0].containers
    assert bars[0].get_ydata().tolist() == table.accuracy.tolist()
    assert labelling.plot_curve(table.head(0)) is None


def test_pictures_that_come_later_join_the_order_of_chance(data, task):
    before = task.rows.url[task.order].tolist()
    gone = before[3]
    with Catalogue(data) as cat:
        cat.update([{"url": gone, "period": UNLABELLED, "clean_status": "rejected"}])
    fewer = labelling.Labelling(data, task.classes, **SETTINGS)
    assert fewer.rows.url[fewer.order].tolist() == [url for url in before if url != gone]


def test_what_cannot_be_labelled_says_what_to_do(data, drawn, periods):
    with pytest.raises(InputError, match="no class, and labels need two classes.*PERIODS"):
        labelling.Labelling(data)
    with pytest.raises(InputError, match="no picture without a label.*--layout unlabelled"):
        labelling.Labelling(drawn)
    with pytest.raises(SettingError, match="by_chance"):
        labelling.Labelling(data, periods, by_chance=2)
    with pytest.raises(SettingError, match="strategy"):
        labelling.Labelling(data, periods, strategy="magic")
    with pytest.raises(InputError, match="37 classes need as many keys: there are 36"):
        labelling.keys([str(number) for number in range(37)])
    assert labelling.keys(["05-high_baroque"]) == [
        {"key": "a", "period": "05-high_baroque", "name": "high baroque"}
    ]


# The page


@pytest.fixture
def page(task):
    pytest.importorskip("anywidget")
    found = label_page.widget(task)
    found.answers = []
    found.send = found.answers.append
    return found


def press(page, choice, at=None):
    place = page.places[page.decisions.index("") if at is None else at]
    page._answer(page, {"act": "decide", "place": place, "choice": choice}, [])


def test_a_key_is_in_the_catalogue_before_the_page_says_so(page, data, periods):
    page.send = lambda answer: page.answers.append(splits.usable(data).period.tolist())
    press(page, periods[1])
    assert page.answers == [[periods[1]]]
    assert page.decisions[0] == periods[1] and page.counts.startswith("1 labelled · 0 skipped")
    press(page, periods[2], at=0)
    assert page.answers[1] == [periods[2]]


def test_the_oracle_labels_page_after_page_until_nothing_is_left(page, data, oracle, task):
    sizes = []
    while page.places:
        sizes.append(len(page.places))
        for place in list(page.places):
            press(page, oracle[task.rows.url[place]])
    assert sizes == [8] * 5
    table = splits.usable(data)
    assert (table.period == table.url.map(oracle)).all() and len(table) == 40
    assert labelling.curve(data).labels.tolist() == [16, 24, 32, 40]
    assert page.curve.startswith("data:image/png") and "With 40 labels" in page.estimate
    assert set(splits.items(data).part) == {"train", "valid", "test"}


def test_backspace_leads_back_also_to_a_picture_of_the_page_before(page, task, oracle):
    first = page.places
    for place in list(first):
        press(page, oracle[task.rows.url[place]])
    assert page.places != first and page.current == 0
    page._answer(page, {"act": "undo"}, [])
    assert page.places[0] == first[-1] and len(page.places) == 9 and page.decisions == [""] * 9
    assert page.page[0]["picture"].startswith("data:image/jpeg")  # its file went back, too
    press(page, labelling.SKIP, at=2)
    press(page, labelling.SKIP, at=1)
    page._answer(page, {"act": "undo"}, [])
    assert page.current == 1 and page.answers[-1] == {"act": "undo"} and page.said == "taken back"


def test_what_a_person_can_mend_is_told_and_nothing_counts_as_stored(page):
    press(page, "no/class")
    assert "not done: 'no/class' can't be a class" in page.said and page.decisions[0] == ""
    assert page.answers == [{"act": "decide"}]
    page._answer(page, {"act": "undo"}, [])
    assert page.said == "nothing to undo"


def test_a_saved_notebook_shows_a_line_in_place_of_the_page(page):
    shown, _ = page._repr_mimebundle_()
    assert "run this cell" in shown["text/html"] and "widget-view" in " ".join(shown)


def test_without_a_person_the_page_is_pictures(data, periods, capsys, monkeypatch):
    figure = label_page.show(data, periods, number=6, **SETTINGS)
    assert len(figure.axes[0].images) == 6
    assert "0 labelled, 0 skipped, 0 no painting, 40 left" in capsys.readouterr().out
    monkeypatch.setattr(review_page, "somebody_there", lambda: True)
    monkeypatch.setattr(label_page, "widget", lambda task: task.number)
    assert label_page.show(data, periods, number=6, **SETTINGS) == 6


@pytest.mark.slow
def test_a_person_labels_by_keys_in_jupyterlab(browser, data, periods, tmp_path, monkeypatch):
    pytest.importorskip("anywidget")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    code = f"""from artclf.lab import label_page
label_page.show({str(data)!r}, {periods!r}, number=6, arch='efficientnet_lite0', size=64)"""
    notebook = tmp_path / "notebooks/label.ipynb"
    notebook.parent.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), notebook)

    def labels():
        return read_catalogue(data).review.dropna().tolist()

    with jupyterlab(notebook) as address:
        tab = browser.new_page(viewport={"width": 1500, "height": 1000})
        tab.goto(address)
        run_first_cell(tab, ".artclf-label .picture img")
        strip = tab.locator(".artclf-label .strip li")

        def press(*names):
            for name in names:
                tab.keyboard.press(name)

        def wait_for(text):
            # what is on its way is shown, too, so no answer may be due
            tab.locator(".artclf-label [role=status]:not(.waits)", has_text=text).wait_for()

        tab.locator(".artclf-label .picture").click()
        press("a", "B", "x", "Space", "-")  # x is no period, and cuts a cell of JupyterLab
        wait_for("2 labelled · 1 skipped · 1 no painting · 36 left")
        assert sorted(labels()) == ["drop", "keep", *(f"move:{name}" for name in periods[:2])]
        assert strip.all_inner_texts()[:5] == [
            "early renaissance",
            "baroque",
            "skipped",
            "no painting",
            "\u00a0",
        ]
        press("Backspace")
        wait_for("taken back")
        assert sorted(labels()) == ["keep", *(f"move:{name}" for name in periods[:2])]
        press("ArrowLeft", "ArrowLeft", "c")  # another period for the second
        tab.locator(".artclf-label .strip li", has_text="realism").wait_for()
        wait_for("2 labelled · 1 skipped · 0 no painting · 37 left")
        assert f"move:{periods[2]}" in labels() and f"move:{periods[1]}" not in labels()
        assert strip.nth(3).get_attribute("aria-current") == "true"
        press("d", "e", "a", "b", "b")  # the keys after the sixth picture are for none
        wait_for("5 labelled · 1 skipped · 0 no painting · 34 left")
        tab.locator(".artclf-label .strip li:not(.decided)").nth(5).wait_for()
        assert tab.locator(".jp-Cell").count() == 1 and len(labels()) == 6
        tab.get_by_role("button", name="expressionism").click()
        press("Backspace")
        wait_for("5 labelled · 1 skipped · 0 no painting · 34 left")
        press("Backspace")
        wait_for("4 labelled · 1 skipped · 0 no painting · 35 left")
        assert strip.count() == 7
        tab.screenshot(path=tmp_path / "label.png")
        tab.close()


@pytest.mark.slow
def test_the_notebook_runs(data, periods, tmp_path, monkeypatch):
    from artclf import run

    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    copy = run.execute(
        ROOT / "notebooks/experiments/21_label.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(data),
            "LABELS": str(tmp_path / "labels.csv"),
            "PERIODS": periods,
            "CANVASES": 1,
            "ARCH": "efficientnet_lite0",
            "SIZE": 64,
            "PAGE": 4,
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [item for cell in book.cells if cell.cell_type == "code" for item in cell.outputs]
    texts = " ".join(item.get("text", "") for item in outputs)
    assert "0 labelled, 0 skipped, 0 no painting, 45 left" in texts
    assert "needs 10 labels of pictures drawn by chance" in texts
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 1
    assert (tmp_path / "labels.csv").read_text().splitlines() == ["url,period,review,title,artist"]
