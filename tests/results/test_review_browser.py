"""The review as a reader sees it: clicks and keys in JupyterLab in headless Chromium, and the plain
run.
"""

import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from loopback import jupyterlab, run_first_cell

from artclf.data import catalogue, review

pytestmark = pytest.mark.slow
REPOSITORY = str(Path(review.__file__).parents[2])


@pytest.fixture
def data(drawn, tmp_path):
    """The drawn canvases, one under a title that attacks."""
    data = shutil.copytree(drawn, tmp_path / "data")
    first = catalogue.read_catalogue(data).iloc[0]
    with catalogue.Catalogue(data) as cat:
        cat.update(
            [
                {
                    "url": first.url,
                    "period": first.period,
                    "title": "<img src=x onerror='window.hacked = 1'>",
                }
            ]
        )
    return data


@pytest.fixture
def notebook(data, tmp_path, monkeypatch):
    """A notebook whose one cell shows the review of 16 canvases, all likelier of the next period,
    in a dark page.
    """
    pytest.importorskip("ipywidgets")
    monkeypatch.setenv("PYTHONPATH", REPOSITORY, prepend=os.pathsep)
    code = f"""from artclf.data import catalogue
from artclf.results import review_page
flagged = catalogue.read_catalogue({str(data)!r}).iloc[::2].head(16)
periods = sorted(flagged.period.unique())
likelier = [periods[(periods.index(period) + 1) % len(periods)] for period in flagged.period]
review_page.show({str(data)!r}, flagged.assign(reasons='doubtful label (0.9)', likelier=likelier))"""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    folder = tmp_path / "notebooks"
    settings = (
        folder
        / ".jupyter/CONFIG/lab/user-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
    )
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"theme": "JupyterLab Dark"}))
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel),
        folder / "review.ipynb",
    )
    return folder / "review.ipynb"


def decided(data):
    table = catalogue.read_catalogue(data)
    return table.set_index("url").review.dropna().to_dict()


def saved(notebook):
    """The notebook as HTML: what somebody sees to whom it is sent."""
    from nbconvert import HTMLExporter

    return HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="").from_notebook_node(
        notebook
    )[0]


def test_a_person_decides_by_mouse_and_keyboard_in_jupyterlab(browser, notebook, data, tmp_path):
    table = catalogue.read_catalogue(data).iloc[::2]
    first, second, third, fourth, fifth = table.url.head(5)
    likelier = sorted(table.period.unique())[1]
    with jupyterlab(notebook) as address:
        tab = browser.new_page(viewport={"width": 1500, "height": 1000})
        tab.goto(address)
        run_first_cell(tab, ".artclf-card img")
        cards, told = (
            tab.locator(".artclf-card:visible"),
            tab.locator(".artclf-review [role=status]"),
        )

        def button(place, name):
            return cards.nth(place).get_by_role("button", name=name)

        def chip(place, text):
            cards.nth(place).locator(".artclf-chip", has_text=text).wait_for()

        button(0, "drop").click()
        chip(0, "drop")
        button(1, f"move to {likelier}").click()
        chip(1, f"move to {likelier}")
        assert decided(data) == {first: "drop", second: f"move:{likelier}"}

        button(2, "keep").focus()
        tab.keyboard.press("Enter")
        chip(2, "keep")
        tab.keyboard.press("Tab")
        tab.keyboard.press(" ")
        chip(2, "drop")
        assert decided(data)[third] == "drop"
        cards.nth(3).get_by_role("combobox").focus()
        tab.keyboard.type("01x")  # JupyterLab's keys for a heading and to cut the cell
        button(3, "move to …").wait_for()
        for _ in "01x":
            tab.keyboard.press("Backspace")
        tab.keyboard.type("realis")
        button(3, "move to 09-realism").wait_for()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        chip(3, "move to 09-realism")
        assert (
            decided(data)[fourth] == "move:09-realism"
            and told.first.inner_text() == "4 of 16 decided · page 1 of 2"
        )

        tab.get_by_role("button", name="undo").first.click()
        tab.get_by_text("taken back: move to 09-realism").first.wait_for()
        assert decided(data) == {first: "drop", second: f"move:{likelier}", third: "drop"}
        seen(tab, cards, tmp_path / "review.png")
        tab.get_by_role("button", name="next").first.click()
        tab.get_by_text("page 2 of 2").first.wait_for()
        cards.nth(4).wait_for(state="detached")
        assert cards.count() == 4
        tab.get_by_role("button", name="export").first.click()
        tab.get_by_text("3 decisions are in").first.wait_for()
        assert len((data / "review.csv").read_text().splitlines()) == 4
        tab.keyboard.press("Control+s")
        tab.wait_for_function("!document.querySelector('.jp-mod-dirty')")
        assert tab.evaluate("window.hacked") is None
        tab.close()
    page = saved(nbformat.read(notebook, 4))
    assert (
        "The review, 0 of 16 decided: run this cell" in page
        and "VBox(" not in page
        and "widget-view" not in page
    )


def seen(tab, cards, file):
    """Nothing on the page is cut off, and pictures and words can be made out on a dark page."""
    tab.screenshot(path=file)
    images = cards.locator("img").evaluate_all(
        "images => images.map(i => [i.naturalWidth, i.height, i.width])"
    )
    assert len(images) == 12 and min(max(height, width) for _, height, width in images) >= 112
    assert all(natural > 0 for natural, *_ in images)
    assert (
        tab.locator(".artclf-review button:visible").evaluate_all(
            "buttons => buttons.filter(b => b.scrollWidth > b.clientWidth).map(b => b.innerText)"
        )
        == []
    )
    assert (
        cards.evaluate_all(
            "cards => cards.filter(c => c.scrollWidth > c.clientWidth + 1 "
            "|| c.scrollHeight > c.clientHeight + 1).length"
        )
        == 0
    )
    ink = cards.locator(".artclf-text").first.evaluate("node => getComputedStyle(node).color")
    assert min(int(number) for number in re.findall(r"\d+", ink)[:3]) > 180, "light on dark"


def test_a_plain_run_shows_pictures_and_no_dead_widget(notebook, data):
    from nbclient import NotebookClient

    executed = NotebookClient(nbformat.read(notebook, 4), kernel_name="python3").execute()
    [output] = executed.cells[0].outputs
    assert "image/png" in output.data and "widgets" not in executed.metadata
    page = saved(executed)
    assert "data:image/png" in page and "VBox(" not in page and "widget-view" not in page
