"""The atlas: its maps, what its page holds, and what a reader sees who points, clicks and types in
Chromium.
"""

import html
import importlib.machinery
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from sklearn.metrics import pairwise_distances

from artclf.lab import atlas
from artclf.results import embeddings, evaluation, pages

ROOT = Path(__file__).resolve().parents[2]


def clouds(n=45, d=12, seed=0):
    """Embeddings in three clouds, and the place in time of each."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 3
    return (rng.normal(size=(3, d))[group] * 4 + rng.normal(size=(n, d))).astype(
        np.float32
    ), group.astype(float)


@pytest.fixture(scope="module")
def predictions(errors_of_a_run):
    data, out = errors_of_a_run
    return evaluation.read(out, data)


@pytest.fixture(scope="module")
def vectors(predictions):
    return clouds(len(predictions))[0]


@pytest.fixture(scope="module")
def page_text(errors_of_a_run, predictions, vectors):
    return atlas.page(
        predictions, vectors, errors_of_a_run[0], atlas.project(vectors, atlas.places(predictions))
    )


def content(page):
    return json.loads(
        re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


# Maps


def test_maps_are_the_same_each_time_and_keep_neighbourhoods():
    vectors, places = clouds()
    maps, again = (atlas.project(vectors, places, umap=False) for _ in range(2))
    assert list(maps) == ["PCA", "t-SNE"]
    for name, points in maps.items():
        assert points.shape == (45, 2) and np.abs(points).max() == pytest.approx(1)
        assert (points == again[name]).all() and np.isfinite(points).all()
        assert trustworthiness(vectors, points, n_neighbors=10, metric="cosine") > 0.8


def test_pca_keeps_its_distances_and_time_runs_to_the_right():
    from sklearn.decomposition import PCA

    vectors, places = clouds()
    maps = atlas.project(vectors, places, umap=False)
    ours, theirs = (
        pairwise_distances(points) for points in (maps["PCA"], PCA(2).fit_transform(vectors))
    )
    assert np.ptp(ours[theirs > 0] / theirs[theirs > 0]) < 1e-4
    for points in maps.values():
        x, y = np.linalg.lstsq(points - points.mean(0), places - places.mean(), rcond=None)[0]
        assert x > 0 and abs(y) < 1e-6 * x


@pytest.mark.parametrize(
    "n, d, names",
    [(1, 4, ["PCA"]), (4, 4, ["PCA"]), (5, 4, ["PCA", "t-SNE"]), (12, 1, ["PCA", "t-SNE"])],
)
def test_few_pictures_or_numbers_have_maps_too(n, d, names):
    vectors, places = clouds(n, d)
    maps = atlas.project(vectors, places, umap=False)
    assert list(maps) == names and all(points.shape == (n, 2) for points in maps.values())
    assert all(np.isfinite(points).all() for points in maps.values())


def test_equal_pictures_of_one_period_lie_in_one_place():
    maps = atlas.project(np.ones((8, 3)), np.ones(8), umap=False)
    assert np.isfinite(maps["t-SNE"]).all() and np.ptp(maps["PCA"]) == 0


def test_embeddings_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="artclf train"):
        atlas.project(np.full((6, 3), np.nan))


def test_umap_is_drawn_where_it_is_installed(monkeypatch):
    vectors, places = clouds(20)
    assert ("UMAP" in atlas.project(vectors, places)) == atlas.has_umap()

    class UMAP:
        def __init__(self, neighbours, **options):
            assert neighbours == 15 and options["random_state"] == 3

        def fit_transform(self, points):
            return points[:, :2]

    fake = types.ModuleType("umap")
    fake.UMAP, fake.__spec__ = UMAP, importlib.machinery.ModuleSpec("umap", None)
    monkeypatch.setitem(sys.modules, "umap", fake)
    monkeypatch.setattr(
        atlas.importlib.metadata, "version", lambda name: {"umap-learn": "0.5"}[name]
    )
    assert list(atlas.project(vectors, places, seed=3)) == ["PCA", "t-SNE", "UMAP"]


def test_trust_is_scikit_learns_and_the_share_of_neighbours_is_counted():
    vectors, places = clouds(30)
    periods = [f"p{i:.0f}" for i in places]
    maps = {"same": vectors[:, :2], "PCA": atlas.project(vectors, places, umap=False)["PCA"]}
    table = atlas.trust(maps, vectors, periods, k=4)
    assert table.trustworthiness["PCA"] == pytest.approx(
        trustworthiness(vectors, maps["PCA"], n_neighbors=4, metric="cosine")
    )
    gaps = pairwise_distances(maps["PCA"]) + 9 * np.eye(30)
    near = np.argsort(gaps, axis=1)[:, :4]
    assert table.same_period["PCA"] == pytest.approx(
        np.mean([periods[j] == periods[i] for i in range(30) for j in near[i]])
    )
    assert (
        table.chance.to_list() == pytest.approx([9 / 29] * 3)
        and table.trustworthiness["embeddings"] == 1
    )
    assert atlas.trust({"PCA": np.zeros((2, 2))}, vectors[:2], ["a", "b"]).same_period.isna().all()


# The page


def test_the_page_holds_every_picture_with_its_like(page_text, predictions, vectors):
    held = content(page_text)
    assert held["classes"] == evaluation.classes(predictions) and list(held["maps"]) == [
        "PCA",
        "t-SNE",
    ]
    assert [image[0] for image in held["images"]] == predictions.file.tolist()
    near = np.argsort(
        pairwise_distances(vectors, metric="cosine") + 9 * np.eye(len(vectors)), axis=1
    )[:, :6]
    for row, image, alike in zip(predictions.itertuples(), held["images"], near, strict=True):
        file, part, title, artist, year, given, predicted, probability, thumb, like = image
        assert (part, title, artist, year) == (row.part, row.title, row.artist, row.year)
        assert (held["classes"][given], held["classes"][predicted]) == (row.period, row.predicted)
        assert probability == pytest.approx(row.probability, abs=1e-4) and like == alike.tolist()
        assert bool(thumb) == (row.Index != 8)


def test_no_title_can_end_the_script_that_holds_it(page_text):
    assert page_text.count("</script>") == 2 and "<img src=x>" not in page_text


def test_colours_follow_time_in_lightness_for_any_number_of_classes():
    from matplotlib.colors import to_rgb

    for n in (1, 5, 30, 40):
        for colours in atlas._colours(n).values():
            light = np.array([to_rgb(colour) for colour in colours]) @ (0.2126, 0.7152, 0.0722)
            assert len(colours) == n and (np.diff(light) > 0).all()


def test_the_frame_has_what_the_page_has_and_a_notebook_shows_the_frame(page_text):
    frame = atlas.frame(page_text, 432)
    held = html.unescape(re.search("<template>([^<]*)</template>", frame)[1])
    assert json.loads(held) == content(page_text) and "height: 432px" in frame
    assert html.unescape(re.search('srcdoc="([^"]*)"', frame)[1]) == page_text.replace(held, "")
    assert atlas.show(page_text, 432)._repr_html_() == frame


def test_the_atlas_is_written_beside_the_export(errors_of_a_run, predictions, vectors, tmp_path):
    data, out = errors_of_a_run
    (tmp_path / "predictions.csv").write_bytes((out / "predictions.csv").read_bytes())
    with pytest.raises(FileNotFoundError, match="artclf train"):
        atlas.write(tmp_path, data)
    embeddings.write(tmp_path / embeddings.NAME, predictions.file, vectors)
    path = atlas.write(tmp_path, data)
    held = content(path.read_text(encoding="utf-8"))
    assert (
        path == tmp_path / "atlas.html"
        and (path.parent / held["pictures"]).resolve() == Path(data).resolve()
    )


# In the browser


def spot(tab, index):
    """Where picture `index` is on the screen."""
    box = tab.locator("#map").bounding_box()
    x, y = tab.evaluate("index => screen(index)", index)
    return box["x"] + x, box["y"] + y


def lonely(tab, candidates):
    """The first of `candidates` that the pointer, put on its mark, is nearest to."""
    return next(
        i for i in candidates if tab.evaluate("index => nearest(...screen(index), 16) === index", i)
    )


@pytest.mark.slow
def test_pointing_shows_a_picture_and_a_click_keeps_it(opened, predictions, vectors):
    index = lonely(opened, range(20, 60))
    row = predictions.iloc[index]
    assert not opened.locator("#tip").is_visible() and opened.locator("#hint").is_visible()
    opened.mouse.move(*spot(opened, index))
    tip = opened.locator("#tip")
    assert tip.get_attribute("data-file") == row.file and row.title in tip.inner_text()
    assert "A. & B. <Painter>, 1650" in tip.inner_text() and row.period in tip.inner_text()
    assert tip.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    opened.mouse.click(*spot(opened, index))
    opened.mouse.move(2, 2)
    assert not tip.is_visible()
    text = opened.locator("#pinned").inner_text()
    assert row.title in text and f"given {row.period}" in text and f"part {row.part}" in text
    assert f"predicted {row.predicted} ({row.probability:.0%})" in text
    near = np.argsort(pairwise_distances(vectors[[index]], vectors, metric="cosine")[0])[1:7]
    alike = opened.locator("#like button").evaluate_all(
        "nodes => nodes.map(node => node.dataset.file)"
    )
    assert alike == predictions.file.iloc[near].tolist()
    opened.locator("#like button").first.click()
    assert predictions.title.iloc[near[0]] in opened.locator("#pinned h2").inner_text()


@pytest.mark.slow
def test_the_keyboard_alone_reaches_and_keeps_pictures(opened, predictions):
    opened.locator("#map").focus()
    opened.keyboard.press("ArrowRight")
    first = opened.locator("#tip").get_attribute("data-file")
    before = opened.evaluate("screen(state.current)[0]")
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("screen(state.current)[0]") > before
    seen = {first}
    for _ in range(len(predictions)):
        opened.keyboard.press("PageDown")
        seen.add(opened.locator("#tip").get_attribute("data-file"))
    assert seen == set(predictions.file)
    opened.keyboard.press("Enter")
    file = opened.locator("#tip").get_attribute("data-file")
    title = predictions.set_index("file").title[file]
    assert opened.locator("#pinned h2").inner_text() == title
    assert title in opened.locator("#map").get_attribute("aria-label")
    opened.keyboard.press("+")
    assert opened.evaluate("state.zoom") == 1.5
    opened.keyboard.press("0")
    opened.keyboard.press("Escape")
    assert opened.evaluate("state.zoom") == 1 and opened.locator("#hint").is_visible()
    assert not opened.locator("#tip").is_visible()


@pytest.mark.slow
def test_part_period_and_words_filter_what_answers(opened, predictions):

    def count():
        return int(opened.locator("#count").inner_text().split()[0])

    for part in ("train", "test"):
        opened.locator("#part").select_option(part)
        assert count() == (predictions.part == part).sum()
    rows = predictions[predictions.part == "test"]
    opened.locator("#legend button", has_text="05-baroque").click()
    assert count() == (rows.period != "05-baroque").sum()
    gone = predictions.index[(predictions.part == "test") & (predictions.period == "05-baroque")][0]
    assert opened.evaluate("index => nearest(...screen(index), 1)", int(gone)) != gone
    opened.locator("#colour").select_option("predicted")
    assert count() == (rows.predicted != "05-baroque").sum()
    opened.locator("#none").click()
    assert count() == 0
    opened.locator("#all").click()
    opened.locator("#part").select_option("")
    opened.locator("#find").fill("NO. 14")
    assert count() == predictions.title.str.contains("No. 14").sum() == 11
    counts = opened.locator("#legend small").all_inner_texts()
    assert counts == [
        str((predictions.predicted == name).sum()) for name in evaluation.classes(predictions)
    ]


@pytest.mark.slow
def test_the_maps_and_the_colours_change(opened):
    def paint():
        return opened.evaluate("canvas.toDataURL()")

    pictures = [paint()]
    for name, value in (("#which", "PCA"), ("#colour", "predicted"), ("#colour", "right")):
        opened.locator(name).select_option(value)
        pictures.append(paint())
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function("before => canvas.toDataURL() !== before", arg=pictures[-1])
    pictures.append(paint())
    opened.locator("#in").click()
    pictures.append(paint())
    assert len(set(pictures)) == 6
    x, y = spot(opened, 30)
    box = opened.locator("#map").bounding_box()
    opened.mouse.move(box["x"] + 300, box["y"] + 300)
    opened.mouse.wheel(0, -300)
    opened.wait_for_timeout(200)
    assert opened.evaluate("state.zoom") == 1.5, (
        "the wheel scrolls the page until the map is clicked"
    )
    opened.mouse.down()
    opened.mouse.move(box["x"] + 340, box["y"] + 320, steps=4)
    opened.mouse.up()
    assert (
        spot(opened, 30) == pytest.approx((x + 40, y + 20)) and opened.locator("#hint").is_visible()
    )
    opened.locator("#map").focus()
    opened.mouse.wheel(0, -300)
    opened.wait_for_function("state.zoom > 1.5")


@pytest.mark.slow
def test_strangers_text_is_text_and_a_moved_picture_a_grey_tile(opened, predictions):
    for index in (3, 4, 8):
        opened.evaluate("index => { pin(index); point(index); }", index)
        assert opened.locator("#pinned h2").inner_text() == predictions.title[index]
        assert predictions.title[index] in opened.locator("#tip").inner_text()
        assert opened.locator("#tip img").count() == (index != 8)
        assert opened.locator("#tip .tile").count() == (index == 8)
    assert opened.evaluate("window.hacked") is None


@pytest.mark.slow
def test_larger_pictures_come_from_the_data_folder_where_it_is(
    tab, errors_of_a_run, predictions, vectors, tmp_path
):
    data, failed = errors_of_a_run[0], []
    tab.on("requestfailed", lambda request: failed.append(request.url))
    for pictures in (pages.relative_address(data, tmp_path), "nowhere/"):
        text = atlas.page(predictions, vectors, data, {"PCA": vectors[:, :2] / 9}, pictures)
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        tab.goto((tmp_path / "page.html").as_uri())
        tab.evaluate("pin(140)")  # 90 x 200, its thumbnail is 112 high
        loaded = "height => document.querySelector('#pinned img.large').naturalHeight === height"
        tab.wait_for_function(loaded, arg=200 if pictures != "nowhere/" else 112)
    assert all("nowhere/" in url for url in failed) and failed


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_one_class_or_forty_fit(browser, tmp_path, n, scheme):
    names = [f"{i:02d}-northern_renaissance" for i in range(n)]
    table = pd.DataFrame({"period": names * 3, "predicted": names * 3}).assign(
        file="a.jpg",
        part="test",
        probability=1.0,
        loss=0.0,
        title="",
        artist="",
        year="",
        source="",
        p_x=1.0,
    )
    (tmp_path / "page.html").write_text(
        atlas.page(table, clouds(3 * n)[0], tmp_path), encoding="utf-8"
    )
    tab = browser.new_page(viewport={"width": 1200, "height": 800}, color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.locator("#legend button").count() == n + 1  # class x has no picture
    assert tab.evaluate("document.documentElement.scrollHeight") <= 800
    whole = "nodes => nodes.every(node => node.scrollWidth <= node.clientWidth)"
    assert tab.locator("#legend span").evaluate_all(whole)
    tab.locator("#map").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#tip").is_visible() and "no picture" in tab.locator("#tip").inner_text()
    tab.close()


@pytest.mark.slow
def test_two_thousand_pictures_answer_at_once(tab, predictions, errors_of_a_run, tmp_path):
    many = pd.concat([predictions] * 15, ignore_index=True).head(2216)
    vectors = clouds(2216)[0]
    text = atlas.page(many, vectors, errors_of_a_run[0], {"PCA": vectors[:, :2] / 9})
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    spent = tab.evaluate("""() => { const start = performance.now();
        for (let i = 0; i < 20; i++) {
            const at = screen(i * 100);
            point(nearest(...at, 16)); pin(state.current);
        }
        return (performance.now() - start) / 20; }""")
    assert spent < 100


@pytest.mark.slow
def test_the_notebook_runs_on_canvases(drawn, export, tmp_path):
    import shutil

    import nbformat

    from artclf import run

    out = tmp_path / "export"
    shutil.copytree(export, out)
    copy = run.execute(
        ROOT / "notebooks/experiments/18_time.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(drawn),
            "EXPORT": str(out),
            "PARTS": ("train", "valid", "test"),
            "LEAST": 2,
            "RESAMPLES": 50,
        },
    )
    outputs = [
        out
        for cell in nbformat.read(copy, 4).cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    text = " ".join(
        str(out.get("data", {}).get("text/plain", "")) + out.get("text", "") for out in outputs
    )
    assert (
        "within periods" in text
        and "periods wide, a random one" in text
        and "trustworthiness" in text
    )
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 5
    assert sum("artclf-atlas" in out.get("data", {}).get("text/html", "") for out in outputs) == 1
    assert len(content((out / "atlas.html").read_text(encoding="utf-8"))["images"]) == 40
    assert len(list(out.glob("plots/drift_*.png"))) == 4 and len(list(out.glob("drift_*.csv"))) == 3
