"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path
from unittest.mock import patch
from urllib.request import urlopen

import pytest

os.environ["ARTCLF_OFFLINE"] = "1"  # no test asks a hub for weights

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


@pytest.fixture(autouse=True)
def same_environment():
    """A test, and a command that it runs in this process, leaves the environment as it was."""
    with patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def paintings() -> Path:
    """The folder of real paintings beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "paintings"
    if not (folder / "manifest.csv").exists():
        pytest.skip("no ../shared/paintings beside the checkout")
    return folder


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium under playwright; the test is skipped where there is none, and fails if one
    is required.
    """
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        problem = "no Chromium on the PATH: the pages were not looked at"
        if os.environ.get("ARTCLF_REQUIRE_BROWSER") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    from playwright.sync_api import sync_playwright

    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser):
    """A browser tab; afterwards it must have asked for nothing but files, and no script may have
    failed.
    """
    tab, asked, failed = browser.new_page(viewport={"width": 1300, "height": 900}), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: failed.append(str(error)))
    yield tab
    tab.close()
    assert failed == [] and [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def opened(tab, page_text, tmp_path):
    """The tab with the page that the fixture `page_text` of the test file makes."""
    (tmp_path / "page.html").write_text(page_text, encoding="utf-8")
    tab.goto((tmp_path / "page.html").as_uri())
    return tab


@pytest.fixture(scope="session")
def errors_of_a_run(tmp_path_factory):
    """Folders DATA and EXPORT of a made-up run: drawn pictures, a catalogue, predictions from
    seeded Dirichlets.

    One class has no images, one title is an attack on HTML, another on mathematical text, one
    picture has moved.
    """
    import numpy as np
    import pandas as pd
    from PIL import Image

    from artclf.data.catalogue import Catalogue

    data, out, rng = (
        tmp_path_factory.mktemp("data"),
        tmp_path_factory.mktemp("export"),
        np.random.default_rng(7),
    )
    names = ["01-early", "02-high", "05-baroque", "9-realism", "10-late", "12-empty"]
    given = rng.choice(5, 150, p=[0.4, 0.2, 0.2, 0.1, 0.1])
    chances = np.array([rng.dirichlet(0.2 + 3 * np.exp(-abs(np.arange(6) - i))) for i in given])
    rows, facts = [], []
    for place, (i, chance) in enumerate(zip(given, chances, strict=True)):
        file = Path("clean", names[i], f"{place:016x}.jpg")
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 60 + place), tuple(rng.integers(0, 256, 3).tolist())).save(
            data / file
        )
        part = ("train", "train", "valid", "test", "test")[place % 5]
        rows.append(
            [
                file.as_posix(),
                part,
                names[i],
                names[chance.argmax()],
                chance.max(),
                -np.log(chance[i]),
            ]
        )
        facts.append(
            {
                "url": f"http://a.example/{place}",
                "period": names[i],
                "title": f"No. {place}",
                "artist": "A. & B. <Painter>",
                "year": "1650.0",
            }
        )
    facts[3]["title"], facts[4]["title"] = (
        "</script><script>window.hacked = 1</script>",
        r"$\frac{$ <img src=x>",
    )
    with Catalogue(data) as catalogue:
        catalogue.add(facts)
        catalogue.update(
            {
                "url": fact["url"],
                "period": fact["period"],
                "file": f"raw/{row[2]}/{Path(row[0]).stem}.png",
            }
            for row, fact in zip(rows, facts, strict=True)
        )
    (data / rows[8][0]).unlink()
    table = pd.DataFrame(
        rows, columns=["file", "part", "period", "predicted", "probability", "loss"]
    )
    table[[f"p_{name}" for name in names]] = chances
    table.to_csv(out / "predictions.csv", index=False)
    return data, out


@pytest.fixture
def predictions(errors_of_a_run):
    """The table of `errors_of_a_run`, as `evaluation.read` gives it."""
    from artclf.results import evaluation

    data, out = errors_of_a_run
    return evaluation.read(out, data)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A small data set, imported and clean: five periods of eight canvases. Tests that change it
    take a copy.
    """
    from artclf import download
    from artclf.data import cleaning, sample

    data = tmp_path_factory.mktemp("drawn")
    sample.draw(data / "gallery", 8, 112, workers=1, periods=list(sample.PERIODS)[::4])
    download.import_folder(data / "gallery", data)
    cleaning.normalise(data, workers=1)
    return data


@pytest.fixture
def fresh(drawn, tmp_path) -> Path:
    """A copy of the data set `drawn` without what `features` keeps.

    What is computed anew comes in other batches, and differs from what it was by rounding.
    """
    return shutil.copytree(
        drawn, tmp_path / "fresh", ignore=shutil.ignore_patterns("features.db", "pixels.db")
    )


@pytest.fixture(scope="session")
def no_workers():
    """One process with one thread trains: on small pictures, workers and threads cost more than
    they give.
    """
    import torch
    from fastcore.foundation import defaults

    cpus, threads = defaults.cpus, torch.get_num_threads()
    defaults.cpus = 0
    torch.set_num_threads(1)
    yield
    defaults.cpus = cpus
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def export(drawn, tmp_path_factory, no_workers) -> Path:
    """The export of a network that had an epoch of either stage on the data set `drawn`."""
    from artclf import train

    out = tmp_path_factory.mktemp("export")
    settings = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}
    train.fit(drawn, out, 1, 1, final=False, **settings)
    return out


@pytest.fixture
def own_run(drawn, export, tmp_path) -> tuple[Path, Path]:
    """Folders DATA and EXPORT, copies of `drawn` and `export` that a test may change."""
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(drawn, data)
    shutil.copytree(export, out, ignore=shutil.ignore_patterns("models", "*.pkl"))
    return data, out


@pytest.fixture(scope="module")
def s3():
    """The address of a bucket of moto's server on this machine."""
    server_of_moto = pytest.importorskip("moto.server")
    import s3fs

    server = server_of_moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # the servers of a process have one content
        urlopen(f"http://{host}:{port}/moto-api/reset", data=b"", timeout=10).close()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()  # the next server has another address


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs a command in this process: exit code, standard output, standard error."""
    import sys

    from artclf import cli

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["artclf", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capfd.readouterr()
        # Python prints the text that a program exits with, and makes the code 1
        text, code = (
            (end.value.code, 1) if isinstance(end.value.code, str) else ("", end.value.code or 0)
        )
        return code, said.out, said.err + text

    return run
