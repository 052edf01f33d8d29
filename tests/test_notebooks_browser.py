"""The notebooks as a reader runs them: opened one after the other in JupyterLab in headless
Chromium, all cells run, the matrix clicked, pictures decided on.
"""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from loopback import jupyterlab

from artclf import run
from artclf.data import catalogue

pytestmark = pytest.mark.slow

SMALL = {
    "SIZE": 64,
    "EPOCHS": 1,
    "BATCH_SIZE": 8,
    "ARCH": "efficientnet_lite0",
    "N": 4,
    "CANVASES": 6,
    "FIND_LR": False,
}
# JupyterLab leaves cells that are out of sight out of the page, unless it is told not to
SETTINGS = "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
# whether so many code cells are shown, and whether all of them have run or one has failed
SHOWN = "count => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt').length === count"
FINISHED = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
    const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
    return failed || prompts.every(prompt => /[0-9]/.test(prompt.innerText));
}"""


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """The address of a JupyterLab in the notebooks of a clone, and the clone."""
    clone = tmp_path_factory.mktemp("clone")
    for step in run.STEPS:
        copy_small(run.NOTEBOOKS / f"{step}.ipynb", clone / "notebooks" / f"{step}.ipynb")
    settings = clone / "notebooks/.jupyter/CONFIG/lab/user-settings" / SETTINGS
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}', encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(run.NOTEBOOKS.parent), prepend=os.pathsep)
        with jupyterlab(clone / "notebooks" / f"{run.STEPS[0]}.ipynb") as address:
            yield address, clone


def copy_small(notebook: Path, copy: Path):
    """Copy a notebook as it is, but for settings with which it is quick."""
    book = nbformat.read(notebook, as_version=4)
    [cell] = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    targets = [statement.targets[0].id for statement in ast.parse(cell.source).body]
    lines = [f"{name} = {value!r}" for name, value in SMALL.items() if name in targets]
    cell.source = "\n".join([cell.source, *lines])
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, copy)


def count_code_cells(step: str) -> int:
    book = nbformat.read(run.NOTEBOOKS / f"{step}.ipynb", as_version=4)
    return sum(cell.cell_type == "code" for cell in book.cells)


@pytest.fixture(scope="module")
def run_all(browser, lab):
    """Opens a notebook and runs all its cells: the tab, in which no cell failed or warned, and no
    script either.
    """
    tabs = []

    def open_and_run(step: str):
        tab = browser.new_page(viewport={"width": 1500, "height": 1000})
        tab.set_default_timeout(60_000)
        tabs.append(tab)
        said = []
        tab.on("console", lambda message: said.append((message.type, message.text)))
        tab.on("pageerror", lambda error: said.append(("error", str(error))))
        # without `reset`, the notebooks that were open before would open again
        tab.goto(lab[0].replace(run.STEPS[0], step) + "&reset")
        tab.wait_for_function(SHOWN, arg=count_code_cells(step))
        tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        tab.locator(".lm-MenuBar-item", has_text="Run").click()
        tab.locator(".lm-Menu [data-command='runmenu:run-all']").click()
        try:
            tab.wait_for_function(FINISHED, timeout=300_000)
        finally:
            tab.screenshot(path=lab[1] / f"{step}.png")
        troubles = tab.locator(
            "[data-mime-type='application/vnd.jupyter.error'],"
            "[data-mime-type='application/vnd.jupyter.stderr']"
        )
        assert troubles.all_inner_texts() == []
        texts = tab.locator(".jp-OutputArea-output").all_inner_texts()
        assert [text for text in texts if "Warning" in text] == []
        assert [text for kind, text in said if kind == "error"] == []
        return tab

    yield open_and_run
    for tab in tabs:
        tab.close()


def test_01_download_draws_canvases_and_fetches_them(run_all, lab):
    run_all("01_download")
    table = catalogue.read_catalogue(lab[1] / "data/sample")
    assert (table.status == "ok").sum() >= 108


def test_02_clean_shows_pictures_to_decide_on(run_all, lab):
    tab = run_all("02_clean")
    cards = tab.locator(".artclf-card:visible")
    for place, decision in enumerate(("keep", "drop")):
        cards.nth(place).get_by_role("button", name=decision).click()
        cards.nth(place).locator(".artclf-chip", has_text=decision).wait_for()
    tab.screenshot(path=lab[1] / "02_clean, decided.png")
    decided = catalogue.read_catalogue(lab[1] / "data/sample").review.dropna()
    assert sorted(decided) == ["drop", "keep"]


def test_03_train_exports_a_classifier(run_all, lab):
    run_all("03_train")
    assert (lab[1] / "exports/sample/predictions.csv").exists()


def test_04_interpret_shows_the_pictures_behind_a_cell_of_the_matrix(run_all, lab):
    tab = run_all("04_interpret")
    matrix = tab.frame_locator("iframe.artclf-explorer")
    cells = matrix.locator("#matrix td").filter(has_text="1")
    before = matrix.locator("td[aria-selected=true]").get_attribute("data-cell")
    cells.last.click()
    chosen = matrix.locator("td[aria-selected=true]")
    assert chosen.count() == 1 and chosen.get_attribute("data-cell") != before
    assert matrix.locator(".card img").count() == int(chosen.inner_text())
    tab.screenshot(path=lab[1] / "04_interpret, clicked.png")


def test_05_predict_answers_for_pictures(run_all):
    tab = run_all("05_predict")
    assert tab.get_by_role("cell", name="no-such-picture.jpg").count() == 1
