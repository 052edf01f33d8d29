"""The interactive confusion matrix: what its page holds, and what a reader sees who clicks and
types in Chromium.
"""

import base64
import html
import io
import json
import os
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from loopback import jupyterlab, run_first_cell
from PIL import Image
from scipy.spatial.distance import cdist

from artclf import interpret
from artclf.base.files import write_json
from artclf.results import embeddings, evaluation, explorer, pages

REPOSITORY = str(pages.TEMPLATES.parents[2])


@pytest.fixture(scope="module")
def predictions(errors_of_a_run):
    data, out = errors_of_a_run
    return evaluation.read(out, data)


@pytest.fixture(scope="module")
def page_text(errors_of_a_run, predictions):
    return explorer.page(predictions, errors_of_a_run[0])


def content(page):
    return json.loads(
        re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def test_the_page_holds_every_prediction_once(page_text, predictions):
    held = content(page_text)
    assert held["classes"] == evaluation.classes(predictions) and held["parts"] == [
        "train",
        "valid",
        "test",
    ]
    by_file = {image["file"]: image for image in held["images"]}
    assert len(by_file) == len(held["images"]) == len(predictions)
    for row in predictions.itertuples():
        image = by_file[row.file]
        assert (image["title"], image["artist"], image["part"]) == (row.title, row.artist, row.part)
        assert (
            held["classes"][image["given"]] == row.period
            and held["classes"][image["predicted"]] == row.predicted
        )
    scores = predictions.filter(regex="^p_")
    best = (
        scores.loc[predictions.file == held["images"][0]["file"]]
        .iloc[0]
        .sort_values(ascending=False)
    )
    best = best[
        (np.arange(6) < 5) | (best.index == f"p_{held['classes'][held['images'][0]['given']]}")
    ]
    assert [f"p_{held['classes'][i]}" for i, _ in held["images"][0]["top"]] == list(best.index)
    assert [share for _, share in held["images"][0]["top"]] == pytest.approx(list(best), abs=1e-4)


def test_no_title_can_end_the_script_that_holds_it(page_text):
    assert (
        page_text.count("</script>") == page_text.count("<script") == 2
        and "<img src=x>" not in page_text
    )


def test_thumbnails_are_small_jpegs_and_a_missing_picture_has_none(tmp_path):
    Image.new("CMYK", (900, 300)).save(tmp_path / "a.jpg")
    Image.new("RGBA", (40, 50)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    *thumbs, broken, moved = pages.thumbnails(["a.jpg", "b.png", "c.jpg", "d.jpg"], tmp_path)
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(thumb.removeprefix("data:image/jpeg;base64,")))).size
        for thumb in thumbs
    ]
    assert sizes == [(112, 37), (40, 50)] and broken == moved == ""


def test_of_too_many_images_the_highest_losses_of_the_part_shown_have_thumbnails(
    errors_of_a_run, predictions
):
    images = content(explorer.page(predictions, errors_of_a_run[0], "valid", limit=20))["images"]
    with_thumb = [image["file"] for image in images if image["thumb"]]
    assert with_thumb == evaluation.top_losses(predictions, 20, "valid").file.tolist()
    assert len(images) == len(predictions)


def test_a_loss_that_is_no_number_does_not_break_the_page(errors_of_a_run, predictions):
    held = content(explorer.page(predictions.assign(loss=np.nan), errors_of_a_run[0], limit=0))
    assert {image["loss"] for image in held["images"]} == {None}


def test_the_frame_has_what_the_page_has_and_a_notebook_shows_the_frame(
    errors_of_a_run, predictions, page_text
):
    frame = explorer.frame(predictions, errors_of_a_run[0], height=432)
    assert framed(frame) == content(page_text) and "height: 432px" in frame
    empty = re.sub(f"(?<={re.escape(pages.DATA)})[^<]*", "", page_text)
    assert html.unescape(re.search('srcdoc="([^"]*)"', frame)[1]) == empty != page_text
    assert explorer.show(predictions, errors_of_a_run[0], height=432)._repr_html_() == frame


def framed(frame):
    return json.loads(html.unescape(re.search("<template>([^<]*)</template>", frame)[1]))


def test_the_most_similar_are_scipys_nearest_training_pictures(
    errors_of_a_run, predictions, vectors
):
    images = content(explorer.page(predictions, errors_of_a_run[0], limit=0, out=vectors))["images"]
    known = dict(zip(predictions.file, embeddings.read(vectors, predictions.file), strict=True))
    train = [image["file"] for image in images if image["part"] == "train"]
    for image in images[::7]:
        others = [file for file in train if file != image["file"]]
        cosine = 1 - cdist([known[image["file"]]], [known[file] for file in others], "cosine")[0]
        best = np.argsort(-cosine)[:6]
        assert [images[place]["file"] for place, _ in image["similar"]] == [others[i] for i in best]
        assert [similarity for _, similarity in image["similar"]] == pytest.approx(
            cosine[best], abs=0.001
        )


def test_an_older_export_and_none_at_all_say_how_to_get_similar_pictures(
    errors_of_a_run, predictions, vectors
):
    embeddings.write(
        vectors / "embeddings.npz", predictions.file[1:], np.ones((len(predictions) - 1, 3))
    )
    for out in (None, errors_of_a_run[1], vectors):
        held = content(explorer.page(predictions, errors_of_a_run[0], limit=0, out=out))
        assert "artclf train" in held["withoutSimilar"] and not any(
            image["similar"] for image in held["images"]
        )


def test_it_opens_with_all_parts_only_where_no_network_had_learned_from_a_picture(
    errors_of_a_run, predictions, tmp_path
):
    def opens_with(metrics, part=None):
        write_json(tmp_path / "metrics.json", metrics)
        page = explorer.page(predictions, errors_of_a_run[0], part, limit=0, out=tmp_path)
        held = content(page)
        return held["part"], [image["loss"] for image in held["images"]]

    part, losses = opens_with({"final": {"unseen": {"accuracy": 0.5}}})
    assert part == explorer.EVERY_PART and losses == sorted(losses, reverse=True)
    assert opens_with({"final": {"unseen": {}}}, "valid")[0] == "valid"
    assert opens_with({"final": {"images": 9}})[0] == opens_with({})[0] == "test"


def test_saliency_is_that_of_the_network_exported(errors_of_a_run, predictions, vectors):
    worst = evaluation.top_losses(predictions, 1).file.iloc[0]
    assert saliency_of(explorer.page(predictions, errors_of_a_run[0], limit=0, out=vectors)) == {
        worst: b"a map"
    }
    (vectors / "config.json").write_text(
        '{"hashes": {"model.safetensors": "another network"}}', encoding="utf-8"
    )
    assert saliency_of(explorer.page(predictions, errors_of_a_run[0], limit=0, out=vectors)) == {}


def saliency_of(page):
    maps = {
        image["file"]: image["saliency"] for image in content(page)["images"] if image["saliency"]
    }
    return {
        file: base64.b64decode(text.removeprefix("data:image/jpeg;base64,"))
        for file, text in maps.items()
    }


def test_addresses_lead_from_the_page_to_the_pictures(predictions, tmp_path, monkeypatch):
    (tmp_path / "books").mkdir()
    monkeypatch.chdir(tmp_path / "books")
    assert explorer._bases("../data/a b#", "../exports/a") == [
        "../../data/a%20b%23/",
        "../../../data/a%20b%23/",
        "../data/a%20b%23/",
    ]


@pytest.fixture
def vectors(predictions, tmp_path):
    """An export folder with embeddings of all pictures, and the saliency of the worst error in
    test.
    """
    known = np.random.default_rng(3).normal(size=(len(predictions), 5)).astype(np.float16)
    embeddings.write(tmp_path / "embeddings.npz", predictions.file, known)
    (tmp_path / "saliency").mkdir()
    worst = evaluation.top_losses(predictions, 1).file.iloc[0]
    (tmp_path / "saliency" / f"{Path(worst).stem}.jpg").write_bytes(b"a map")
    return tmp_path


@pytest.mark.slow
def test_2000_images_stay_under_20_megabytes(predictions, tmp_path):
    grain = np.random.default_rng(0).normal(0, 12, (400, 400, 3))
    paint = (
        128
        + 100
        * np.sin(np.linspace(0, 30, 400))[:, None, None]
        * np.cos(np.linspace(0, 40, 400))[None, :, None]
    )
    Image.fromarray((paint + grain).clip(0, 255).astype(np.uint8)).save(
        tmp_path / "a.jpg", quality=90
    )
    many = pd.concat([predictions.assign(file="a.jpg")] * 14).head(2000)
    frame = explorer.frame(many, tmp_path)
    assert len(framed(frame)["images"]) == 2000 and 5e6 < len(frame.encode()) < 20e6


def given_predicted(predictions, place, part="test"):
    """The names of the `place`-th commonest confusion, and the files behind it in the order of the
    page.
    """
    pair = evaluation.most_confused(predictions, None, part).iloc[place]
    return pair.given, pair.predicted, files(predictions, pair.given, pair.predicted, part)


def files(predictions, given, predicted, part="test"):
    rows = predictions[predictions.part == part]
    rows = rows[(rows.period == given) & (rows.predicted == predicted)]
    return rows.sort_values("loss", ascending=False, kind="stable").file.tolist()


def shown(frame):
    return frame.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.file)")


def text_of(card):
    """What is read on `card` by someone who scrolls to it: outside the window Chromium doesn't lay
    it out.
    """
    from playwright.sync_api import expect

    card.scroll_into_view_if_needed()
    expect(card).not_to_have_text("", use_inner_text=True)
    return card.inner_text()


def cell(frame, given, predicted):
    return frame.locator(f'td[aria-label^="given {given}, predicted {predicted}:"]')


@pytest.mark.slow
def test_a_click_shows_the_paintings_behind_a_cell(opened, predictions):
    given, predicted, expected = given_predicted(predictions, 0)
    assert shown(opened) == expected, "it opens on the commonest confusion"
    given, predicted, expected = given_predicted(predictions, 1)
    cell(opened, given, predicted).click()
    assert (
        shown(opened) == expected
        and cell(opened, given, predicted).get_attribute("aria-selected") == "true"
    )
    assert opened.locator("[aria-selected=true]").count() == 1
    row = predictions.set_index("file").loc[expected[0]]
    card = text_of(opened.locator(".card").first)
    assert (
        row.title in card
        and "A. & B. <Painter>, 1650" in card
        and f"given {given}, predicted {predicted}" in card
    )
    assert (
        f"{row.probability:.0%}" in card
        and 3 <= opened.locator(".card").first.locator(".bar").count() <= 4
    )
    assert opened.locator("#heading").inner_text() == f"{given}, taken for {predicted}"
    empty = next(
        (a, b)
        for a in predictions.period.unique()
        for b in predictions.period.unique()
        if not files(predictions, a, b)
    )
    cell(opened, *empty).click()
    assert shown(opened) == [] and opened.locator("#note").inner_text().startswith("0 of ")


@pytest.mark.slow
def test_the_keyboard_alone_reaches_every_cell(opened, predictions):
    names = evaluation.classes(predictions)
    cell(opened, "02-high", "01-early").focus()
    for way in ("Up", "Right", "Up", "Down", "Left", "Left", "Up"):
        opened.keyboard.press(f"Arrow{way}")
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
        matrix = evaluation.confusion(predictions, part)
        opened.locator("#unit").select_option("count")
        assert opened.locator("td").all_inner_texts() == [
            str(n) if n else "" for n in matrix.to_numpy().ravel()
        ]
        opened.locator("#unit").select_option("rate")
        rates = 100 * matrix.div(matrix.sum(axis=1).clip(lower=1), axis=0).to_numpy().ravel()
        assert opened.locator("td").all_inner_texts() == [
            str(int(rate + 0.5)) if rate else "" for rate in rates
        ]
        opened.locator("#unit").select_option("column")
        rates = (100 * matrix / matrix.sum().clip(lower=1)).to_numpy().ravel()
        assert opened.locator("td").all_inner_texts() == [
            str(int(rate + 0.5)) if rate else "" for rate in rates
        ]
        given, predicted, expected = given_predicted(predictions, 0, part)
        cell(opened, given, predicted).click()
        assert shown(opened) == expected


@pytest.fixture(scope="module")
def varied(predictions):
    """The predictions with painters, sources and years of many kinds, some unknown."""

    def cycle(*values):
        return [values[i % len(values)] for i in range(len(predictions))]

    return predictions.assign(
        artist=cycle("Vincent van Gogh", "Gogh, Vincent Willem van", "Élise Müller", ""),
        source=cycle("A", "<script>window.hacked = 1</script>", "A"),
        year=cycle("1650", "c. 1702", "", "1888-89", "1702"),
    )


@pytest.fixture
def opened_varied(tab, varied, errors_of_a_run, vectors):
    (vectors / "page.html").write_text(
        explorer.page(varied, errors_of_a_run[0], out=vectors), encoding="utf-8"
    )
    tab.goto((vectors / "page.html").as_uri())
    return tab


def assert_shows(tab, rows):
    """Matrix, figures and pictures are those of `rows`."""
    names = evaluation.classes(rows)
    counts = pd.crosstab(rows.period, rows.predicted).reindex(
        index=names, columns=names, fill_value=0
    )
    assert tab.locator("td").all_inner_texts() == [
        str(n) if n else "" for n in counts.to_numpy().ravel()
    ]
    accuracy = f"{100 * (rows.period == rows.predicted).mean():.1f}%" if len(rows) else "–"
    status = tab.locator("#status").inner_text()
    assert status.startswith(f"{len(rows)} ") and f"accuracy {accuracy}" in status
    label = tab.locator("[aria-selected=true]").get_attribute("aria-label")
    given, predicted = re.match("given (.+), predicted (.+):", label).groups()
    behind = rows[(rows.period == given) & (rows.predicted == predicted)]
    assert shown(tab) == behind.sort_values("loss", ascending=False, kind="stable").file.tolist()


@pytest.mark.slow
def test_filters_act_on_matrix_and_pictures_alike_until_reset(opened_varied, varied):
    tab, test = opened_varied, varied[varied.part == "test"]
    year = test.year.str.extract(r"(\d{4})")[0].astype(float)
    filters = [
        ({"#painter": "van gogh"}, test.artist.str.contains("Gogh")),
        ({"#painter": "elise müller"}, test.artist == "Élise Müller"),
        ({"#painter": "nobody"}, year < 0),
        ({"#painter": "vincent müller"}, year < 0),
        ({"#from": "1700"}, year >= 1700),
        ({"#from": "1650", "#to": "1702"}, year.between(1650, 1702)),
        ({"#low": "60"}, test.probability >= 0.6),
        ({"#high": "55"}, test.probability <= 0.55),
        (
            {"#painter": "vincent", "#to": "1800", "#low": "40"},
            test.artist.str.contains("Gogh") & (year <= 1800) & (test.probability >= 0.4),
        ),
    ]
    for values, mask in filters:
        for control, value in values.items():
            tab.locator(control).fill(value)
        assert_shows(tab, test[mask])
        tab.locator("#reset").click()
        assert_shows(tab, test)
        assert [tab.locator(control).input_value() for control in values] == [""] * len(values)
    tab.locator("#source").select_option("A")
    assert_shows(tab, test[test.source == "A"])
    tab.locator("#part").select_option(label="all parts")
    assert_shows(tab, varied[varied.source == "A"])
    assert tab.locator("#reset").is_enabled()
    tab.locator("#reset").click()
    assert_shows(tab, test)
    assert tab.locator("#reset").is_disabled() and tab.evaluate("window.hacked") is None


@pytest.mark.slow
def test_a_filter_keeps_the_focus_where_it_is_typed(opened_varied):
    opened_varied.locator("#painter").press_sequentially("gogh")
    assert opened_varied.evaluate("document.activeElement.id") == "painter"
    assert opened_varied.locator("#painter").input_value() == "gogh"


@pytest.mark.slow
def test_pictures_are_sorted(opened, predictions):
    given, predicted, expected = given_predicted(predictions, 0)
    rows = predictions.set_index("file").loc[expected]
    for order, column, ascending in (
        ("loss", "loss", False),
        ("-loss", "loss", True),
        ("confidence", "probability", False),
        ("-confidence", "probability", True),
    ):
        opened.locator("#sort").select_option(order)
        assert (
            shown(opened)
            == rows.sort_values(column, ascending=ascending, kind="stable").index.tolist()
        )


@pytest.mark.slow
def test_the_threshold_greys_out_the_unsure_and_says_what_is_left(opened, predictions):
    test = predictions[predictions.part == "test"]
    for threshold in (50, 80):
        opened.locator("#threshold").fill(str(threshold))
        sure = test[test.probability.round(4) >= threshold / 100]
        names = evaluation.classes(predictions)
        counts, all_counts = (
            pd.crosstab(rows.period, rows.predicted)
            .reindex(index=names, columns=names, fill_value=0)
            .to_numpy()
            .ravel()
            for rows in (sure, test)
        )
        assert opened.locator("td").all_inner_texts() == [str(n) if n else "" for n in counts]
        assert opened.locator("td.unsure").count() == ((counts == 0) & (all_counts > 0)).sum() > 0
        accuracy = 100 * (sure.period == sure.predicted).mean()
        assert (
            f"At least {threshold}% sure: {len(sure)} of them ({100 * len(sure) / len(test):.1f}%), accuracy "
            f"{accuracy:.1f}%" in opened.locator("#status").inner_text()
        )
        grey = opened.locator(".card.unsure").evaluate_all(
            "cards => cards.map(card => card.dataset.file)"
        )
        assert set(grey) == set(shown(opened)) - set(sure.file)
        assert opened.locator(".card").count() == len(given_predicted(predictions, 0)[2])


@pytest.mark.slow
def test_a_painting_opens_large_with_its_saliency_and_similar_pictures(
    opened_varied, varied, errors_of_a_run
):
    tab = opened_varied
    row = evaluation.top_losses(varied, 1).iloc[0]
    cell(tab, row.period, row.predicted).click()
    tab.locator(f'.card[data-file="{row.file}"] .open').press("Enter")
    viewer = tab.locator("#viewer")
    assert viewer.locator("h2").inner_text() == row.title and "part test" in viewer.inner_text()
    assert viewer.locator(".bar").count() in (5, 6) and row.source in viewer.inner_text()
    large = viewer.locator('.picture[src^="file:"]')
    large.wait_for()
    width, height = Image.open(errors_of_a_run[0] / row.file).size
    assert large.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [width, height]
    assert viewer.locator("#fallback").count() == viewer.locator(".heat").count() == 0
    viewer.locator("#heat-on").press(" ")
    boxes = [viewer.locator(kind).bounding_box() for kind in (".heat", ".picture")]
    assert boxes[0] == boxes[1] and boxes[0]["width"] / boxes[0]["height"] == pytest.approx(
        width / height, rel=0.02
    )
    held = content(Path(tab.url.removeprefix("file://")).read_text(encoding="utf-8"))["images"]
    similar = [
        held[place] for place, _ in next(i for i in held if i["file"] == row.file)["similar"]
    ]
    near = viewer.locator("#similar .open")
    assert near.evaluate_all("nodes => nodes.map(node => node.dataset.file)") == [
        image["file"] for image in similar
    ]
    for text, image in zip(near.all_inner_texts(), similar, strict=True):
        assert evaluation.classes(varied)[image["given"]] in text and "train, cosine" in text
    near.nth(2).click()
    assert (
        viewer.locator("h2").inner_text() == similar[2]["title"]
        and "part train" in viewer.inner_text()
    )
    assert viewer.locator("#heat-on").count() == 0, "the maps are those of the errors alone"
    viewer.locator("#back").click()
    assert viewer.locator("h2").inner_text() == row.title
    assert tab.evaluate("document.activeElement.id") == "close", "the keyboard stays in the window"
    box = viewer.bounding_box()
    tab.mouse.click(box["x"] + 30, box["y"] + box["height"] - 6)
    assert viewer.is_visible(), "a click on its empty paper is not one beside it"
    tab.mouse.click(box["x"] / 2, box["y"] + 100)
    assert not viewer.is_visible()
    tab.locator(f'.card[data-file="{row.file}"] .open').click()
    tab.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert tab.evaluate("document.activeElement.closest('.card').dataset.file") == row.file


@pytest.mark.slow
def test_arrows_lead_through_the_pictures_of_a_cell(opened, predictions):
    expected = given_predicted(predictions, 0)[2]
    titles = predictions.set_index("file").title[expected].tolist()
    opened.locator(".card .open").first.click()
    seen = [opened.locator("#viewer h2").inner_text()]
    for _ in expected[1:]:
        opened.keyboard.press("ArrowRight")
        seen.append(opened.locator("#viewer h2").inner_text())
    assert seen == titles and opened.locator("#next").get_attribute("aria-disabled") == "true"
    opened.locator("#previous").click()
    assert opened.locator("#viewer h2").inner_text() == titles[-2]
    for _ in range(2):
        opened.locator("#next").click(force=True)  # the second one leads nowhere
    assert opened.locator("#viewer h2").inner_text() == titles[-1]
    opened.keyboard.press("ArrowLeft")
    assert opened.locator("#viewer h2").inner_text() == titles[-2], (
        "arrows answer after a click, too"
    )
    assert "artclf train" in opened.locator("#similar").inner_text()


@pytest.mark.slow
def test_without_the_data_folder_the_thumbnail_stands_in_and_says_so(
    tab, predictions, errors_of_a_run, tmp_path
):
    page = explorer.page(predictions, errors_of_a_run[0], out=tmp_path / "elsewhere/deep/down")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    for place, expected in ((3, "This is the thumbnail"), (8, "The larger picture")):
        row = predictions.iloc[place]
        tab.locator("#part").select_option(row.part)
        cell(tab, row.period, row.predicted).click()
        tab.locator(f'.card[data-file="{row.file}"] .open').click()
        tab.locator("#fallback").wait_for()
        assert tab.locator("#fallback").inner_text().startswith(expected)
        assert tab.locator("#viewer .tile").count() == (place == 8)
        broken = "images => images.filter(image => image.complete && !image.naturalWidth).length"
        assert tab.locator("img").evaluate_all(broken) == 0
        tab.locator("#close").click()


def strange(predictions, kind):
    """Predictions of a kind that nobody had in mind."""
    test = predictions[predictions.part == "test"].head(5)
    if kind == "5 images":
        return test
    if kind == "no facts":
        return predictions.assign(artist="", source="", year="", title="")
    if kind == "unknown classes":
        return test.assign(period="<b>new</b>", predicted="quite another")
    if kind == "moved":
        return predictions.assign(file=[f"gone/{i}?#.jpg" for i in range(len(predictions))])
    n, own = (
        (1, test) if kind == "1 class" else (40, pd.concat([predictions] * 2, ignore_index=True))
    )
    names = [f"{i % n:02d}-period" for i in range(len(own))]
    own = own.drop(columns=list(own.filter(regex="^p_"))).assign(
        period=names, predicted=names[::-1], probability=1.0
    )
    return own.assign(**{f"p_{name}": 1 / n for name in set(names)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["1 class", "40 classes", "no facts", "5 images", "unknown classes", "moved"]
)
def test_strange_predictions_have_a_page_that_answers(
    tab, predictions, errors_of_a_run, tmp_path, kind
):
    rows = strange(predictions, kind)
    (tmp_path / "page.html").write_text(
        explorer.page(rows, errors_of_a_run[0], out=tmp_path), encoding="utf-8"
    )
    tab.goto((tmp_path / "page.html").as_uri())
    names = evaluation.classes(rows)
    assert (
        tab.locator("td").count() == len(names) ** 2
        and tab.locator("tbody th").all_inner_texts() == names
    )
    row = rows[rows.part == "test"].iloc[0]
    cell(tab, row.period, row.predicted).click()
    assert shown(tab) == files(rows, row.period, row.predicted)
    assert tab.locator("#painter").count() == (kind != "no facts")
    tab.locator(".card .open").first.click()
    assert row.period in tab.locator("#viewer").inner_text()
    broken = "images => images.filter(image => image.complete && !image.naturalWidth).length"
    assert tab.locator("img").evaluate_all(broken) == 0


@pytest.mark.slow
def test_strangers_text_is_text_and_a_moved_picture_a_grey_tile(opened, predictions):
    for place in (3, 4, 8):
        row = predictions.iloc[place]
        opened.locator("#part").select_option(row.part)
        cell(opened, row.period, row.predicted).click()
        card = opened.locator(f'.card[data-file="{row.file}"]')
        assert row.title in text_of(card) and card.locator(".title").inner_text() == row.title
        assert card.locator("img").count() == (place != 8) and card.locator(".tile").count() == (
            place == 8
        )
    assert opened.evaluate("window.hacked") is None
    widths = opened.locator(".card img").evaluate_all(
        "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth)))"
    )
    assert widths and all(0 < width <= 128 for width in widths)


@pytest.mark.slow
def test_a_long_list_comes_in_portions(tab, predictions, tmp_path):
    one = predictions[predictions.part == "test"].head(1)
    many = pd.concat([one] * 70).assign(file=[f"{i}.jpg" for i in range(70)])
    (tmp_path / "page.html").write_text(explorer.page(many, tmp_path), encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    cell(tab, one.period.iloc[0], one.predicted.iloc[0]).click()
    counts = [len(shown(tab))]
    while tab.locator("#more").is_visible():
        tab.locator("#more").click()
        counts.append(len(shown(tab)))
    assert counts == [30, 60, 70] and shown(tab) == many.file.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("n", [5, 17, 30])
def test_labels_are_whole_and_numbers_legible(browser, tmp_path, n, scheme):
    names = [f"{i:02d}-northern_renaissance" for i in range(n)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i : i + 2] for _ in range(i + 1)]
    table = pd.DataFrame(pairs, columns=["period", "predicted"]).assign(
        file="a.jpg",
        part="test",
        probability=1.0,
        loss=0.0,
        title="",
        artist="",
        year="",
        source="",
    )
    for name in names:
        table[f"p_{name}"] = (table.predicted == name).astype(float)
    (tmp_path / "page.html").write_text(explorer.page(table, tmp_path, limit=0), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    cut = """nodes => nodes.filter(node => node.scrollWidth > node.clientWidth
                                        || node.scrollHeight > node.clientHeight).length"""
    assert (
        tab.locator("thead span").evaluate_all(cut)
        == tab.locator("tbody th").evaluate_all(cut)
        == 0
    )
    assert tab.locator("td").evaluate_all(cut) == 0 and tab.locator("thead span").count() == n
    assert (
        tab.locator("td").first.evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
        >= 10
    )
    colours = tab.locator("td").evaluate_all(
        "nodes => nodes.map(node => [getComputedStyle(node).color, "
        "getComputedStyle(node).backgroundColor])"
    )
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
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    dark, light = sorted([luminance(ink), luminance(alpha * ground[:3] + (1 - alpha) * paper)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_the_report_opens_alone_and_its_matrix_answers(tab, errors_of_a_run, predictions):
    data, out = errors_of_a_run
    tab.goto(Path(interpret.write(out, data, n=5)["report"]).as_uri())
    frame = tab.frame_locator("iframe.artclf-explorer")
    given, predicted, expected = given_predicted(predictions, 1)
    cell(frame, given, predicted).click()
    assert shown(frame) == expected
    assert (
        tab.locator("#sure figure").evaluate_all("nodes => nodes.map(node => node.dataset.file)")
        == evaluation.surest(predictions, False, 5).file.tolist()
    )
    assert tab.locator("img").evaluate_all(
        "images => images.every(image => image.naturalWidth > 0)"
    )
    assert (
        tab.evaluate("window.hacked") is None
        and tab.evaluate("document.documentElement.scrollWidth") <= 1300
    )
    tab.emulate_media(media="print")
    assert not tab.locator("iframe").is_visible() and tab.locator("img.paper").is_visible()


@pytest.fixture
def notebook(errors_of_a_run, tmp_path, monkeypatch):
    """A notebook whose one cell shows the matrix, in a folder with the data."""
    monkeypatch.setenv("PYTHONPATH", REPOSITORY, prepend=os.pathsep)
    data, out = errors_of_a_run
    shutil.copytree(data, tmp_path / "data")
    code = (
        "from artclf import interpret\nfrom artclf.results import explorer\n"
        f"explorer.show(interpret.read({str(out)!r}, 'data'), 'data')"
    )
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "matrix.ipynb"
    )
    return tmp_path / "matrix.ipynb"


def assert_answers(tab, predictions):
    """A click on the matrix in the notebook shows the pictures of a cell, and one on a picture the
    larger one.
    """
    frame = tab.frame_locator("iframe.artclf-explorer")
    for place in (1, 0):
        given, predicted, expected = given_predicted(predictions, place)
        cell(frame, given, predicted).click()
        assert shown(frame) == expected
    frame.locator("#low").fill("60")
    sure = predictions.set_index("file").probability[expected]
    assert shown(frame) == sure[sure >= 0.6].index.tolist()
    frame.locator("#reset").click()
    frame.locator(".card .open").first.click()
    frame.locator('.picture[src*="/data/clean/"]').wait_for()
    assert (
        frame.locator("#viewer h2").inner_text() == predictions.set_index("file").title[expected[0]]
    )


@pytest.mark.slow
def test_it_answers_in_the_html_of_a_notebook_without_a_kernel(tab, notebook, predictions):
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    where = {"metadata": {"path": str(notebook.parent)}}
    executed = NotebookClient(
        nbformat.read(notebook, 4), kernel_name="python3", resources=where
    ).execute()
    saved, _ = HTMLExporter(
        require_js_url="", mathjax_url="", mermaid_js_url=""
    ).from_notebook_node(executed)
    notebook.with_suffix(".html").write_text(saved, encoding="utf-8")
    tab.goto(notebook.with_suffix(".html").as_uri())
    assert_answers(tab, predictions)


@pytest.mark.slow
def test_it_answers_live_in_jupyterlab(browser, notebook, predictions):
    with jupyterlab(notebook) as address:
        tab = browser.new_page(viewport={"width": 1500, "height": 950})
        tab.goto(address)
        run_first_cell(tab, "iframe.artclf-explorer")
        assert_answers(tab, predictions)
        tab.close()
