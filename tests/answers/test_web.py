"""The page without a server: what is in its folder, and that a browser answers as Python does."""

import base64
import hashlib
import io
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_exports import model_of_colours
from made_exports import write as write_export
from made_pictures import encoded, noise
from PIL import Image

import artclf
from artclf.answers import inputs, runtime, web
from artclf.answers import onnx as answers
from artclf.base.errors import InputError
from artclf.base.files import sha256_of


def archive(**changes) -> bytes:
    """An archive such as npm's, with made-up files."""
    contents = {f"package/dist/{name}": name.encode() for name in runtime.FILES}
    contents |= {"package/package.json": b"{}", "../outside": b"evil"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as package:
        for name, content in (contents | changes).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def known(tmp_path, monkeypatch) -> Path:
    """A file with the archive that is taken for the known one; the cache is empty."""
    content = archive()
    sha512 = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(runtime, "SHA512", sha512)
    monkeypatch.setenv("ARTCLF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runtime.tgz").write_bytes(content)
    return tmp_path / "runtime.tgz"


@pytest.fixture
def small(tmp_path) -> Path:
    """An export with a network of colours, and one with other logits for int8."""
    out = tmp_path / "export"
    out.mkdir()
    write_export(out)
    return out


def add_int8(out: Path, accuracy_int8: float):
    onnx.save(model_of_colours(), out / answers.INT8)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["hashes"][answers.INT8] = sha256_of(out / answers.INT8)
    config["int8"] = {"accuracy": 0.7, "accuracy_int8": accuracy_int8}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


# The archive


def test_only_the_files_of_the_known_archive_are_taken(known):
    assert runtime.files(known) == {name: name.encode() for name in runtime.FILES}


def test_other_bytes_are_refused_before_they_are_opened(known, monkeypatch):
    monkeypatch.setattr(tarfile, "open", lambda **k: pytest.fail("it was opened"))
    known.write_bytes(known.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"runtime\.tgz is not onnxruntime-web"):
        runtime.files(known)
    runtime.cache_file().parent.mkdir()
    runtime.cache_file().write_bytes(b"spoilt")
    with pytest.raises(InputError, match="remove it, or fetch https://.* with --runtime"):
        runtime.files()


def test_it_is_fetched_once(known, monkeypatch):
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(known.read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.delenv("ARTCLF_OFFLINE")
    assert runtime.files() == runtime.files() == runtime.files(known)
    assert asked == [runtime.URL] and runtime.cache_file().exists()


def test_what_the_registry_sends_instead_is_not_kept(known, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(b"<html>"))
    monkeypatch.delenv("ARTCLF_OFFLINE")
    with pytest.raises(InputError, match=r"https://.*tgz is not onnxruntime-web"):
        runtime.files()
    assert not runtime.cache_file().exists()


def test_without_a_network_it_says_what_to_do(known, monkeypatch):
    with pytest.raises(ConnectionError, match="ARTCLF_OFFLINE=1 forbids .* with --runtime"):
        runtime.files()
    monkeypatch.delenv("ARTCLF_OFFLINE")

    def refuse(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"does not answer \(no route\): fetch https://"):
        runtime.files()


# The folder


def test_the_command_writes_all_that_the_page_needs(small, known, tmp_path, command):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "CNAME").write_text("art.example")
    code, printed, _ = command("export", small, "--web", folder, "--runtime", known, "--json")
    assert code == 0
    names = {path.name for path in folder.iterdir()}
    page = {path.name for path in web.PAGE.iterdir()}
    assert names == {*page, *runtime.FILES, "model.onnx", "model.json", "CNAME"}
    size = sum(path.stat().st_size for path in folder.iterdir()) - len("art.example")
    assert json.loads(printed) == {
        "model": "model.onnx",
        "model_MB": round((small / "model.onnx").stat().st_size / 1e6, 2),
        "MB": round(size / 1e6, 2),
    }
    settings = json.loads((folder / "model.json").read_text())
    assert settings["vocab"] == ["01-red", "02-green", "03-blue"] and settings["max_size"] == 500


@pytest.mark.parametrize("accuracy_int8, taken", [(0.7, "int8"), (0.696, "int8"), (0.695, "float")])
def test_int8_is_taken_where_it_costs_less_than_half_a_point(
    small, known, tmp_path, accuracy_int8, taken
):
    add_int8(small, accuracy_int8)
    summary = web.write(small, tmp_path / "page", known)
    assert summary["model"] == (answers.INT8 if taken == "int8" else answers.FLOAT)
    expected = (small / summary["model"]).read_bytes()
    assert (tmp_path / "page" / "model.onnx").read_bytes() == expected


def test_without_a_form_or_the_network_the_command_says_so(small, known, tmp_path, command):
    for options in ([], ["--int8"], ["--int8", "--web", tmp_path / "page"]):
        code, _, said = command("export", small, *options)
        assert code == 2 and "--onnx" in said
    (small / answers.FLOAT).unlink()
    code, _, said = command("export", small, "--web", tmp_path / "page", "--runtime", known)
    assert code == 1 and "--onnx` first" in said and not (tmp_path / "page").exists()


def test_the_page_names_no_other_host():
    for file in web.PAGE.iterdir():
        assert "//" not in file.read_text(encoding="utf-8").replace("// ", ""), file.name


# In a browser


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *args):
        pass


@pytest.fixture
def visit(browser):
    """Serves a folder on loopback and opens it; the page must ask nobody else, and no script may
    fail.
    """
    servers, tabs, asked, failed = [], [], [], []

    def visit(folder: Path, **options):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        tab = browser.new_page(**options)
        tabs.append(tab)
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: failed.append(str(error)))
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        return tab

    yield visit
    for tab in tabs:
        tab.close()
    for server in servers:
        server.shutdown()
        server.server_close()
    own = tuple(f"http://127.0.0.1:{server.server_port}/" for server in servers)
    assert failed == []
    assert [url for url in asked if not url.startswith((*own, "blob:", "data:"))] == []


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["squish", "crop", "pad"])
def test_the_browser_resizes_as_python_does(visit, tmp_path, resize):
    """But for rounding: Pillow takes the rows of some shapes before the columns, and OpenCV rounds on
    its way.
    """
    (tmp_path / "pictures.js").write_bytes((web.PAGE / "pictures.js").read_bytes())
    (tmp_path / "index.html").write_text("<!doctype html><title>.</title>")
    tab = visit(tmp_path)
    config = {"size": 32, "resize": resize, "max_size": 100}
    for width, height in [(100, 73), (31, 90), (32, 32), (5, 7), (1, 40), (150, 99), (260, 201)]:
        pixels = noise(width, height)
        picture = {"width": width, "height": height, "data": pixels.ravel().tolist()}
        found = tab.evaluate(
            """async ([picture, config]) => {
                const { square } = await import("./pictures.js");
                const data = Uint8ClampedArray.from(picture.data);
                return Array.from(square({ ...picture, data }, config, false));
            }""",
            [picture, config],
        )
        expected = inputs.pixels(pixels, config).ravel().astype(int)
        difference = abs(np.array(found) - expected)
        assert difference.max() <= 1, (width, height)


@pytest.fixture
def page(small, tmp_path) -> Path:
    """The page with the network of colours, and the real onnxruntime-web."""
    if not runtime.cache_file().exists():
        pytest.skip(
            f"no {runtime.cache_file()}: `artclf export EXPORT --web FOLDER` fetches it once"
        )
    web.write(small, tmp_path / "page")
    return tmp_path / "page"


@pytest.mark.slow
def test_the_browser_answers_as_python_does(visit, page, small):
    jpeg = encoded(Image.fromarray(noise(1300, 900) // 2 + 60), "JPEG", quality=95)
    transparent = Image.new("RGBA", (60, 40), (0, 200, 0, 0))
    large = Image.fromarray(np.kron(noise(7, 5), np.ones((100, 100, 1), np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "large.jpg": (jpeg, "image/jpeg"),
        "blue.png": (encoded(Image.new("RGB", (30, 20), "#009")), "image/png"),
        "clear.png": (encoded(transparent), "image/png"),
        "large.png": (encoded(large), "image/png"),
        "turned.jpg": (encoded(large, "JPEG", exif=turned), "image/jpeg"),
        "none.jpg": (b"no picture", "image/jpeg"),
    }
    tab = visit(page)
    uploads = [
        {"name": name, "mimeType": kind, "buffer": content}
        for name, (content, kind) in files.items()
    ]
    tab.set_input_files("#pick", uploads)
    tab.locator(".answer, .error").nth(len(files) - 1).wait_for()
    shown = tab.locator(".card").evaluate_all(
        "cards => cards.map(card => [card.querySelector('.name').textContent, card.dataset.error,"
        " card.dataset.probabilities, card.querySelector('.answer')?.textContent])"
    )
    classifier = artclf.load(small, backend="onnx")
    assert [name for name, *_ in shown] == [*files][::-1]
    for name, error, probabilities, answer in shown:
        expected, [problem] = classifier.probabilities(files[name][0])
        if problem:
            assert error and name == "none.jpg"
            continue
        periods = expected[0, :3]
        assert np.abs(np.array(json.loads(probabilities)) - periods).max() < 1e-2, name
        if periods.max() >= 0.5:
            assert answer == ("red", "green", "blue")[periods.argmax()]
        else:
            assert answer.startswith("not sure, between ")


@pytest.mark.slow
def test_pictures_come_by_drop_by_paste_and_by_keyboard(visit, page):
    tab = visit(page, viewport={"width": 360, "height": 640}, color_scheme="dark")
    tab.locator("body[data-ready]").wait_for()
    give = """([content, kind]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        const event = kind === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data });
        document.body.dispatchEvent(event);
    }"""
    content = base64.b64encode(encoded(Image.new("RGB", (30, 20), "#900"))).decode()
    for place, kind in enumerate(("drop", "paste")):
        tab.evaluate(give, [content, kind])
        tab.locator(".answer").nth(place).wait_for()
        assert tab.locator(".name").first.text_content() == f"{kind}.png"
        assert tab.locator("[role=status]").text_content().startswith(f"{kind}.png: red, ")
    tab.bring_to_front()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "pick"
    tab.evaluate(
        "document.activeElement.addEventListener('click', event => {window.opened = event.isTrusted})"
    )
    tab.keyboard.press("Space")
    tab.wait_for_function("window.opened")
    assert tab.evaluate("document.activeElement.multiple")
    width = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 26)"
