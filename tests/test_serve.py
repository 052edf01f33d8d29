"""Step serve: the command as a process of its own, its signals, and the page in a browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from loopback import Server as Pages
from loopback import answer, picture
from made_pictures import encoded, noise
from PIL import Image

import artclf
from artclf import clean, download, run, serve
from artclf.data import review
from artclf.data.pictures import Rejected
from artclf.data.web import WebPictures

TOKEN = "a token of the tests"


@contextmanager
def process(*arguments, **environment):
    """`artclf serve` with these arguments on a free port: the process and its address."""
    command = [sys.executable, "-m", "artclf.cli", "serve", *map(str, arguments), "--port", "0"]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        line = server.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + server.stderr.read()
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield server, found[0]
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def ask(address: str, body: bytes | None = None, **headers) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/octet-stream", **headers}
    request = urllib.request.Request(address, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answered:
            return answered.status, answered.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def pictures(drawn):
    return sorted((drawn / "clean").rglob("*.jpg"))[::8]


@pytest.mark.slow
def test_the_server_answers_as_predict_does_and_stops_when_it_is_told(export, drawn, pictures):
    expected, _ = artclf.load(export).probabilities(pictures)
    with process(export, "--data", drawn, "--backend", "torch") as (server, url):
        for file, probabilities in zip(pictures, expected, strict=True):
            status, content = ask(f"{url}/api/predict", file.read_bytes())
            [result] = json.loads(content)["results"]
            assert status == 200
            np.testing.assert_allclose(
                list(result["probabilities"].values()), probabilities, atol=1e-4
            )
        [near, *others] = result["nearest"]
        assert near["similarity"] <= 1.001 and len(others) == 5
        assert near["period"] in artclf.read_catalogue(drawn).period.tolist()
        status, jpeg = ask(url + near["thumbnail"])
        assert status == 200 and jpeg[:2] == b"\xff\xd8"
        assert ask(re.sub(r"\d+$", "99999", url + near["thumbnail"]))[0] == 404
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert server.stdout.read().endswith("Stopped.\n")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_new_export_is_taken_in_and_a_broken_one_is_not(own_run, pictures):
    _, out = own_run
    with process(out, ARTCLF_TOKEN=TOKEN) as (server, url):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        asked = threading.Event()
        statuses = []

        def keep_asking():
            while not asked.is_set():
                statuses.append(ask(f"{url}/api/predict", pictures[0].read_bytes(), **bearer)[0])
                time.sleep(0.3)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        before = version(url, bearer)
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps({**config, "temperature": 2.0}))
        server.send_signal(signal.SIGHUP)
        for _ in range(100):
            if version(url, bearer) != before:
                break
            time.sleep(0.2)
        after = version(url, bearer)
        assert after != before
        (out / "model.safetensors").write_bytes(b"damaged")
        status, content = ask(f"{url}/api/reload", b"", **bearer)
        assert status == 409 and b"model.safetensors" in content
        assert version(url, bearer) == after
        asked.set()
        asking.join()
        assert set(statuses) <= {200, 429} and 200 in statuses


def version(url: str, headers: dict) -> str:
    return json.loads(ask(f"{url}/api/model", **headers)[1])["version"]


@pytest.mark.slow
def test_a_map_is_drawn_on_demand(export, pictures):
    pytest.importorskip("captum")
    with process(export, "--backend", "torch") as (_, url):
        content = pictures[0].read_bytes()
        status, png = ask(f"{url}/api/saliency", content)
        assert status == 200
        from io import BytesIO

        grey = Image.open(BytesIO(png))
        with Image.open(pictures[0]) as shown:
            ratio = shown.width / shown.height
        assert grey.mode == "L" and grey.width / grey.height == pytest.approx(ratio, abs=0.02)
        low, high = grey.getextrema()
        assert low < 60 and high > 180
        assert ask(f"{url}/api/saliency?period=none", content)[0] == 422
        assert ask(f"{url}/api/saliency", b"no picture")[0] == 422


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bind", "0.0.0.0"], "token"),
        (["--token", "short"], "16"),
        (["--cors", "*"], "origin"),
        (["--port", "70000"], "65535"),
        (["--min-probability", "2"], "0 to 1"),
    ],
)
def test_settings_that_are_unsafe_or_make_no_sense_end_with_code_2(
    command, tmp_path, arguments, text
):
    code, _, err = command("serve", tmp_path, *arguments)
    assert code == 2 and text in err


def test_a_folder_without_an_export_is_said(command, tmp_path):
    code, _, err = command("serve", tmp_path)
    assert code == 1 and "artclf train" in err and "Traceback" not in err


def test_urls_go_through_the_guarded_fetcher():
    """Pages that lead to addresses of this network, and bodies without an end, give no picture."""
    with Pages() as pages:
        pages.routes["/secret"] = answer(picture())
        pages.routes["/away"] = answer(status="302 Found", Location=f"{pages.url}/secret")
        pages.routes["/other"] = answer(status="302 Found", Location="http://169.254.169.254/")
        pages.routes["/large"] = answer(bytes(60_000), length=10**9)
        with WebPictures(max_bytes=50_000, deadline=5) as web:
            for path in ("/secret", "/away"):
                with pytest.raises(Rejected, match="blocked address"):
                    web.read(pages.url + path)
            for url in ("http://localhost:1/", "http://[::1]:1/", "http://0x7f000001/"):
                with pytest.raises(Rejected):
                    web.read(url)
        assert pages.requests == []
        here = pages.url.removeprefix("http://")
        with WebPictures(max_bytes=50_000, deadline=5, allowed_address=here) as web:
            assert web.read(f"{pages.url}/away") == picture()
            with pytest.raises(Rejected, match="blocked address"):
                web.read(f"{pages.url}/other")
            with pytest.raises(Rejected, match="too large"):
                web.read(f"{pages.url}/large")


# the page


@pytest.fixture(scope="module")
def page(export, drawn):
    with serve.running(export, drawn, backend="torch", limits=serve.allowed_limits(rate=0)) as one:
        yield one.url


@pytest.fixture
def visit(browser, page):
    """A function that opens the page in a tab of its own; no script may have failed, and nothing
    but the server may have been asked.
    """
    contexts, asked, failed = [], [], []

    def make(**options):
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: failed.append(str(error)))
        tab.goto(page)
        tab.wait_for_selector("#model:not(:empty)")
        return tab

    yield make
    for context in contexts:
        context.close()
    assert failed == []
    assert [url for url in asked if not url.startswith((page, f"blob:{page}"))] == []


def cards(tab, count: int):
    """The cards, once there are `count` with an answer."""
    tab.wait_for_selector(f".card[aria-busy=false] >> nth={count - 1}", timeout=60_000)
    assert tab.locator(".card").count() == count
    return tab.locator(".card")


DROP = """([name, bytes, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/jpeg'}));
  const options = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
  const made = type === 'paste' ? new ClipboardEvent(type, options) : new DragEvent(type, options);
  document.querySelector('#drop').dispatchEvent(made);
}"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["pick", "drop", "paste"])
def test_a_picture_gets_in_and_its_period_comes_out(visit, pictures, export, how):
    tab, file = visit(), pictures[1]
    expected = artclf.load(export).predict(file).iloc[0]
    if how == "pick":
        tab.set_input_files("#files", file)
    else:
        tab.evaluate(DROP, [file.name, list(file.read_bytes()), how])
    card = cards(tab, 1)
    first = card.locator(".timeline .first")
    assert re.sub(r"^\d+-", "", expected.top[0][0]).replace("_", " ") in first.inner_text().lower()
    assert f"{expected.probability:.0%}" in first.inner_text()
    assert card.locator(".timeline li").count() == len(artclf.load(export).vocab)
    assert card.locator(".nearest li").count() == 6
    tab.wait_for_selector(".nearest img >> nth=5")
    assert expected.image and tab.locator("#status").inner_text()


@pytest.mark.slow
def test_several_pictures_and_one_that_is_none(visit, pictures, tmp_path):
    tab = visit()
    shutil.copy(__file__, tmp_path / "<b>none.jpg")
    tab.set_input_files("#files", [*pictures[:2], tmp_path / "<b>none.jpg"])
    shown = cards(tab, 3)
    assert shown.nth(2).locator(".period").inner_text() == "This picture can't be read"
    assert shown.nth(2).locator(".name").inner_text() == "<b>none.jpg"
    assert "not an image" in shown.nth(2).locator(".sentence").inner_text()
    assert tab.locator(".card.failed").count() == 1
    tab.click(".card >> nth=2 >> .remove")
    assert tab.locator(".card").count() == 2


@pytest.mark.slow
def test_the_keyboard_alone_is_enough(visit, pictures):
    tab = visit()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "files"
    tab.evaluate(
        "document.activeElement.addEventListener('click', event => {window.opened = event.isTrusted})"
    )
    tab.keyboard.press("Enter")
    tab.wait_for_function("window.opened")
    tab.set_input_files("#files", pictures[0])
    cards(tab, 1)
    seen = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.className"))
        if "all" in seen[-1].split():
            break
    assert "button small all" in seen and "remove" in seen
    tab.keyboard.press("Enter")
    assert tab.get_attribute(".all", "aria-expanded") == "true"
    assert tab.locator(".timeline .minor .label").first.bounding_box()["width"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_nothing_is_cut_off_and_texts_stand_out(visit, pictures, scheme, width):
    tab = visit(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 800})
    tab.set_input_files("#files", pictures[0])
    cards(tab, 1)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    colours = tab.evaluate(
        "['.sentence', '.lead', '.name'].map(one => [getComputedStyle(document.querySelector(one))"
        ".color, getComputedStyle(document.querySelector('.card')).backgroundColor])"
    )
    for ink, paper in colours:
        assert contrast(ink, paper) > 4.5


def contrast(*colours: str) -> float:
    """WCAG's ratio of two colours, `rgb(r, g, b)`."""
    light = []
    for colour in colours:
        shares = np.array([int(number) for number in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.slow
def test_the_page_asks_for_the_token(browser, export):
    from artclf.server.security import Security

    with serve.running(export, security=Security(token=TOKEN), backend="torch") as one:
        tab = browser.new_page()
        tab.goto(one.url)
        tab.wait_for_selector("#token-form:not([hidden])")
        tab.fill("#token", "wrong")
        tab.press("#token", "Enter")
        tab.wait_for_selector("#token-problem:not(:empty)")
        tab.fill("#token", TOKEN)
        tab.press("#token", "Enter")
        tab.wait_for_selector("#model:not(:empty)")
        assert tab.locator("#intake").is_visible() and not tab.locator("#token-form").is_visible()
        tab.close()


@pytest.mark.slow
def test_a_picture_that_somebody_gives_waits_for_a_decision(browser, own_run):
    data, out = own_run
    content = encoded(noise(300, 200, 5), "JPEG")
    with serve.running(out, data, collect=data, backend="torch") as one:
        tab = browser.new_page()
        tab.goto(one.url)
        tab.wait_for_selector("#model:not(:empty)")
        assert tab.locator("#collects").is_visible()
        tab.evaluate(DROP, ["x.jpg", list(content), "drop"])
        card = cards(tab, 1)
        label = artclf.read_catalogue(data).period.max()
        card.locator(".give summary").click()
        assert not card.locator("[type=checkbox]").is_checked()
        card.locator(".given").select_option(label)
        card.locator(".give button").click()  # without agreement
        assert card.locator(".give :invalid").count()
        assert "suggested" not in set(artclf.read_catalogue(data).status)
        card.locator("[type=checkbox]").check()
        card.locator(".give button").click()
        tab.wait_for_selector(".receipt:has-text('decision')")
        assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
        tab.close()
    [row] = artclf.read_catalogue(data).query("status == 'suggested'").to_dict("records")
    assert row["period"] == label and (data / row["file"]).read_bytes() == content
    assert row["url"] in set(clean.flagged(data).url)
    review.decide(data, [row], "keep")
    clean.normalise(data, workers=1)
    assert clean.usable(data).set_index("url").period[row["url"]] == label


@pytest.mark.parametrize(
    ("folder", "text"), [("nothing", "artclf import"), ("other", "no class 01-early_renaissance")]
)
def test_pictures_are_collected_only_into_the_data_set_of_the_network(
    command, export, tmp_path, folder, text
):
    (tmp_path / "gallery" / "other").mkdir(parents=True)
    (tmp_path / "gallery" / "other" / "a.png").write_bytes(encoded(noise()))
    download.import_folder(tmp_path / "gallery", tmp_path / "other")
    code, _, err = command("serve", export, "--port", 0, "--collect", tmp_path / folder)
    assert code == 1 and text in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_axe_finds_no_violation(visit, pictures, tmp_path):
    """The page before and with answers: sure, unsure and far, none; light and wide, dark and narrow."""
    axe = Axe()

    def answer_unsurely(route):
        answered = route.fetch()
        body = answered.json()
        for result in body["results"]:
            result.update(predicted=None, sure=False, far=True)
        route.fulfill(response=answered, json=body)

    def look(state):
        problems = axe.run(tab)
        assert not problems.violations_count, f"{state}: {problems.generate_report()}"

    tab = visit()
    look("empty")
    tab.set_input_files("#files", pictures[0])
    cards(tab, 1)
    look("an answer")
    tab.route("**/api/predict", answer_unsurely)
    shutil.copy(__file__, tmp_path / "none.jpg")
    tab.set_input_files("#files", [pictures[1], tmp_path / "none.jpg"])
    cards(tab, 3)
    assert tab.locator(".notice.far").first.is_visible() and tab.locator(".failed").count() == 1
    tab.evaluate("document.querySelector('.give').hidden = false")
    tab.click(".give summary >> nth=0")
    tab.click(".all >> nth=0")
    look("several")
    tab.emulate_media(color_scheme="dark")
    look("several, dark")
    tab.set_viewport_size({"width": 380, "height": 800})
    look("several, dark and narrow")
    tab.reload()
    tab.wait_for_selector("#model:not(:empty)")
    look("empty, dark and narrow")
    tab.evaluate("document.querySelector('#token-form').hidden = false")
    tab.evaluate("document.querySelector('#url-form').hidden = false")
    tab.emulate_media(color_scheme="light")
    look("with the token and an address")


@pytest.mark.slow
def test_the_notebook_runs(export, drawn, tmp_path):
    copy = run.execute(
        run.NOTEBOOKS / "06_serve.ipynb",
        tmp_path / "06_serve.ipynb",
        {"DATA": str(drawn), "EXPORT": str(export)},
    )
    book = nbformat.read(copy, as_version=4)
    text = "".join(
        str(output.get("text", "")) + str(output.get("data", ""))
        for cell in book.cells
        for output in cell.get("outputs", [])
    )
    assert "http://127.0.0.1:" in text and "probability" in text and "artclf_requests_total" in text
    assert Path(copy).with_suffix(".html").exists()
