"""The interactive confusion matrix: what its page holds, and what a reader sees who clicks and types in Chromium."""
import base64
import html
import io
import json
import os
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from loopback import jupyterlab, run_first_cell
from PIL import Image

from artclf import explorer, interpret

REPOSITORY = str(explorer.TEMPLATES.parents[1])


@pytest.fixture(scope="module")
def predictions(errors_of_a_run):
    data, out = errors_of_a_run
    return interpret.read(out, data)


@pytest.fixture(scope="module")
def page_text(errors_of_a_run, predictions):
    return explorer.page(predictions, errors_of_a_run[0])


def content(page):
    return json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_holds_every_prediction_once(page_text, predictions):
    held = content(page_text)
    assert held["classes"] == interpret.classes(predictions) and held["parts"] == ["train", "valid", "test"]
    by_file = {image["file"]: image for image in held["images"]}
    assert len(by_file) == len(held["images"]) == len(predictions)
    for row in predictions.itertuples():
        image = by_file[row.file]
        assert (image["title"], image["artist"], image["part"]) == (row.title, row.artist, row.part)
        assert held["classes"][image["given"]] == row.period and held["classes"][image["predicted"]] == row.predicted
    scores = predictions.filter(regex="^p_")
    best = scores.loc[predictions.file == held["images"][0]["file"]].iloc[0].sort_values(ascending=False)
    best = best[(np.arange(6) < 5) | (best.index == f"p_{held['classes'][held['images'][0]['given']]}")]
    assert [f"p_{held['classes'][i]}" for i, _ in held["images"][0]["top"]] == list(best.index)
    assert [share for _, share in held["images"][0]["top"]] == pytest.approx(list(best), abs=1e-4)


def test_no_title_can_end_the_script_that_holds_it(page_text):
    assert page_text.count("</script>") == page_text.count("<script") == 2 and "<img src=x>" not in page_text


def test_thumbnails_are_small_jpegs_and_a_missing_picture_has_none(tmp_path):
    Image.new("CMYK", (900, 300)).save(tmp_path / "a.jpg")
    Image.new("RGBA", (40, 50)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    *thumbs, broken, moved = explorer.thumbnails(["a.jpg", "b.png", "c.jpg", "d.jpg"], tmp_path)
    sizes = [Image.open(io.BytesIO(base64.b64decode(thumb.removeprefix("data:image/jpeg;base64,")))).size
             for thumb in thumbs]
    assert sizes == [(112, 37), (40, 50)] and broken == moved == ""


def test_of_too_many_images_the_highest_losses_of_the_part_shown_have_thumbnails(errors_of_a_run, predictions):
    images = content(explorer.page(predictions, errors_of_a_run[0], "valid", limit=20))["images"]
    with_thumb = [image["file"] for image in images if image["thumb"]]
    assert with_thumb == interpret.top_losses(predictions, 20, "valid").file.tolist()
    assert len(images) == len(predictions)


def test_a_loss_that_is_no_number_does_not_break_the_page(errors_of_a_run, predictions):
    held = content(explorer.page(predictions.assign(loss=np.nan), errors_of_a_run[0], limit=0))
    assert {image["loss"] for image in held["images"]} == {None}


def test_the_frame_is_the_page_and_a_notebook_shows_the_frame(errors_of_a_run, predictions, page_text):
    frame = explorer.frame(predictions, errors_of_a_run[0], height=432)
    assert html.unescape(re.search('srcdoc="([^"]*)"', frame)[1]) == page_text and "height: 432px" in frame
    assert explorer.show(predictions, errors_of_a_run[0], height=432)._repr_html_() == frame


@pytest.mark.slow
def test_2000_images_stay_under_20_megabytes(predictions, tmp_path):
    grain = np.random.default_rng(0).normal(0, 12, (400, 400, 3))
    paint = 128 + 100 * np.sin(np.linspace(0, 30, 400))[:, None, None] * np.cos(np.linspace(0, 40, 400))[None, :, None]
    Image.fromarray((paint + grain).clip(0, 255).astype(np.uint8)).save(tmp_path / "a.jpg", quality=90)
    many = pd.concat([predictions.assign(file="a.jpg")] * 14).head(2000)
    frame = explorer.frame(many, tmp_path)
    assert len(content(html.unescape(frame))["images"]) == 2000 and 5e6 < len(frame.encode()) < 20e6


def given_predicted(predictions, place, part="test"):
    """The names of the `place`-th commonest confusion, and the files behind it in the order of the page."""
    pair = interpret.most_confused(predictions, None, part).iloc[place]
    return pair.given, pair.predicted, files(predictions, pair.given, pair.predicted, part)


def files(predictions, given, predicted, part="test"):
    rows = predictions[predictions.part == part]
    rows = rows[(rows.period == given) & (rows.predicted == predicted)]
    return rows.sort_values("loss", ascending=False, kind="stable").file.tolist()


def shown(frame):
    return frame.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.file)")


def cell(frame, given, predicted):
    return frame.locator(f'td[aria-label^="given {given}, predicted {predicted}:"]')


@pytest.fixture
def tab(browser):
    """A browser tab; afterwards it must have asked for nothing but files, and no script may have failed."""
    tab, asked, failed = browser.new_page(viewport={"width": 1300, "height": 900}), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: failed.append(str(error)))
    yield tab
    tab.close()
    assert failed == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def opened(tab, page_text, tmp_path):
    (tmp_path / "page.html").write_text(page_text, encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    return tab


@pytest.mark.slow
def test_a_click_shows_the_paintings_behind_a_cell(opened, predictions):
    given, predicted, expected = given_predicted(predictions, 0)
    assert shown(opened) == expected, "it opens on the commonest confusion"
    given, predicted, expected = given_predicted(predictions, 1)
    cell(opened, given, predicted).click()
    assert shown(opened) == expected and cell(opened, given, predicted).get_attribute("aria-selected") == "true"
    assert opened.locator("[aria-selected=true]").count() == 1
    row = predictions.set_index("file").loc[expected[0]]
    card = opened.locator(".card").first.inner_text()
    assert row.title in card and "A. & B. <Painter>, 1650" in card and f"given {given}, predicted {predicted}" in card
    assert f"{row.probability:.0%}" in card and 3 <= opened.locator(".card").first.locator(".bar").count() <= 4
    assert opened.locator("#heading").inner_text() == f"{given}, taken for {predicted}"
    empty = next((a, b) for a in predictions.period.unique() for b in predictions.period.unique()
                 if not files(predictions, a, b))
    cell(opened, *empty).click()
    assert shown(opened) == [] and opened.locator("#note").inner_text().startswith("0 of ")


@pytest.mark.slow
def test_the_keyboard_alone_reaches_every_cell(opened, predictions):
    names = interpret.classes(predictions)
    cell(opened, "02-high", "01-early").focus()
    for way in ("Up", "Right", "Up", "Down", "Left", "Left", "Up"): opened.keyboard.press(f"Arrow{way}")
    focused = opened.evaluate("document.activeElement.dataset.cell")
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert focused == "0,0" and opened.locator("td[tabindex='0']").count() == 1
    opened.keyboard.press("Enter")
    assert shown(opened) == files(predictions, names[0], names[0])
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press(" ")
    assert shown(opened) == files(predictions, names[1], names[1])


@pytest.mark.slow
def test_parts_and_rates_change_the_cells(opened, predictions):
    for part in ("train", "valid", "test"):
        opened.locator("#part").select_option(part)
        matrix = interpret.confusion(predictions, part)
        opened.locator("#unit").select_option("count")
        assert opened.locator("td").all_inner_texts() == [str(n) if n else "" for n in matrix.to_numpy().ravel()]
        opened.locator("#unit").select_option("rate")
        rates = 100 * matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0).to_numpy().ravel()
        assert opened.locator("td").all_inner_texts() == [str(int(rate + .5)) if rate else "" for rate in rates]
        given, predicted, expected = given_predicted(predictions, 0, part)
        cell(opened, given, predicted).click()
        assert shown(opened) == expected


@pytest.mark.slow
def test_strangers_text_is_text_and_a_moved_picture_a_grey_tile(opened, predictions):
    for place in (3, 4, 8):
        row = predictions.iloc[place]
        opened.locator("#part").select_option(row.part)
        cell(opened, row.period, row.predicted).click()
        card = opened.locator(f'.card[data-file="{row.file}"]')
        assert card.locator(".title").inner_text() == row.title
        assert card.locator("img").count() == (place != 8) and card.locator(".tile").count() == (place == 8)
    assert opened.evaluate("window.hacked") is None
    widths = opened.locator(".card img").evaluate_all(
        "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))")
    assert widths and all(0 < width <= 128 for width in widths)


@pytest.mark.slow
def test_a_long_list_comes_in_portions(tab, predictions, tmp_path):
    one = predictions[predictions.part == "test"].head(1)
    many = pd.concat([one] * 130).assign(file=[f"{i}.jpg" for i in range(130)])
    (tmp_path / "page.html").write_text(explorer.page(many, tmp_path), encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    cell(tab, one.period.iloc[0], one.predicted.iloc[0]).click()
    counts = [len(shown(tab))]
    while tab.locator("#more").is_visible():
        tab.locator("#more").click()
        counts.append(len(shown(tab)))
    assert counts == [60, 120, 130] and shown(tab) == many.file.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("n", [5, 17, 30])
def test_labels_are_whole_and_numbers_legible(browser, tmp_path, n, scheme):
    names = [f"{i:02d}-northern_renaissance" for i in range(n)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:i + 2] for _ in range(i + 1)]
    table = pd.DataFrame(pairs, columns=["period", "predicted"]).assign(
        file="a.jpg", part="test", probability=1., loss=0., title="", artist="", year="", source="")
    for name in names: table[f"p_{name}"] = (table.predicted == name).astype(float)
    (tmp_path / "page.html").write_text(explorer.page(table, tmp_path, limit=0), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    cut = """nodes => nodes.filter(node => node.scrollWidth > node.clientWidth
                                        || node.scrollHeight > node.clientHeight).length"""
    assert tab.locator("thead span").evaluate_all(cut) == tab.locator("tbody th").evaluate_all(cut) == 0
    assert tab.locator("td").evaluate_all(cut) == 0 and tab.locator("thead span").count() == n
    assert tab.locator("td").first.evaluate("node => parseFloat(getComputedStyle(node).fontSize)") >= 10
    colours = tab.locator("td").evaluate_all("nodes => nodes.map(node => [getComputedStyle(node).color, "
                                             "getComputedStyle(node).backgroundColor])")
    paper = numbers(tab.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    assert min(contrast(numbers(ink), numbers(ground), paper) for ink, ground in colours) >= 4.5
    tab.close()


def numbers(colour):
    return np.array([float(number) for number in re.findall(r"[\d.]+", colour)])


def contrast(ink, ground, paper):
    """WCAG 2's contrast ratio of a colour on a half transparent ground over paper."""
    alpha = ground[3] if len(ground) == 4 else 1
    def luminance(colour):
        share = colour[:3] / 255
        return np.where(share <= .04045, share / 12.92, ((share + .055) / 1.055) ** 2.4) @ (.2126, .7152, .0722)
    dark, light = sorted([luminance(ink), luminance(alpha * ground[:3] + (1 - alpha) * paper)])
    return (light + .05) / (dark + .05)


@pytest.mark.slow
def test_the_report_opens_alone_and_its_matrix_answers(tab, errors_of_a_run, predictions):
    data, out = errors_of_a_run
    tab.goto(Path(interpret.write(out, data, n=5)["report"]).as_uri())
    frame = tab.frame_locator("iframe.artclf-explorer")
    given, predicted, expected = given_predicted(predictions, 1)
    cell(frame, given, predicted).click()
    assert shown(frame) == expected
    assert tab.locator("#losses figure").evaluate_all("nodes => nodes.map(node => node.dataset.file)") == \
        interpret.top_losses(predictions, 5).file.tolist()
    assert tab.locator("img").evaluate_all("images => images.every(image => image.naturalWidth > 0)")
    assert tab.evaluate("window.hacked") is None and tab.evaluate("document.documentElement.scrollWidth") <= 1300
    tab.emulate_media(media="print")
    assert not tab.locator("iframe").is_visible() and tab.locator("img.paper").is_visible()


@pytest.fixture
def notebook(errors_of_a_run, tmp_path, monkeypatch):
    """A notebook whose one cell shows the matrix, in an otherwise empty folder."""
    monkeypatch.setenv("PYTHONPATH", REPOSITORY, prepend=os.pathsep)
    data, out = errors_of_a_run
    code = ("from artclf import explorer, interpret\n"
            f"explorer.show(interpret.read({str(out)!r}, {str(data)!r}), {str(data)!r})")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "matrix.ipynb")
    return tmp_path / "matrix.ipynb"


@pytest.mark.slow
def test_it_answers_in_the_html_of_a_notebook_without_a_kernel(tab, notebook, predictions):
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter
    executed = NotebookClient(nbformat.read(notebook, 4), kernel_name="python3").execute()
    saved, _ = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="").from_notebook_node(executed)
    notebook.with_suffix(".html").write_text(saved, encoding="utf-8")
    tab.goto(notebook.with_suffix(".html").as_uri())
    frame = tab.frame_locator("iframe.artclf-explorer")
    for place in (1, 0):
        given, predicted, expected = given_predicted(predictions, place)
        cell(frame, given, predicted).click()
        assert shown(frame) == expected


@pytest.mark.slow
def test_it_answers_live_in_jupyterlab(browser, notebook, predictions):
    with jupyterlab(notebook) as address:
        tab = browser.new_page(viewport={"width": 1500, "height": 950})
        tab.goto(address)
        run_first_cell(tab, "iframe.artclf-explorer")
        frame = tab.frame_locator("iframe.artclf-explorer")
        given, predicted, expected = given_predicted(predictions, 1)
        cell(frame, given, predicted).click()
        assert shown(frame) == expected
        tab.close()
