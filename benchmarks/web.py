"""The page of `artclf export EXPORT --web PAGE` in headless Chromium beside Python: seconds until the
first answer, seconds a picture, and how far the probabilities differ.

    python benchmarks/web.py EXPORT DATA PAGE [--pictures 50] [--chromium PROGRAM]

The paintings are of part test, drawn by chance, once as clean copies and once as they came. Python
answers with the same file (`model-int8.onnx` where the page has that). Needs playwright, of the extra
`dev`, and Chromium. The page is served on loopback.
"""

import argparse
import json
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import artclf
from artclf.answers import onnx as answers
from artclf.data import splits

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SHOWN = ".answer, .error"


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *args):
        pass


def first_answer(tab, url: str, file: Path) -> float:
    """Seconds from the address to the answer for a picture that is picked at once."""
    started = time.perf_counter()
    tab.goto(url)
    tab.set_input_files("#pick", file)
    tab.locator(SHOWN).first.wait_for(timeout=120_000)
    return time.perf_counter() - started


def answers_of_page(tab, url: str, files: list[Path]) -> tuple[np.ndarray, float]:
    """Probabilities of `files`, NaN for those that the browser can't read, and seconds a picture."""
    tab.goto(url)
    tab.locator("body[data-ready]").wait_for(timeout=120_000)
    started = time.perf_counter()
    tab.set_input_files("#pick", files)
    tab.locator(SHOWN).nth(len(files) - 1).wait_for(timeout=600_000)
    seconds = time.perf_counter() - started
    shown = tab.locator(".card").evaluate_all("all => all.map(card => card.dataset.probabilities)")
    rows = [json.loads(text) if text else None for text in reversed(shown)]
    classes = max(len(row) for row in rows if row)
    filled = [row or [np.nan] * classes for row in rows]
    return np.array(filled), seconds / len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    args = parser.parse_args()
    has_int8 = (args.export / answers.INT8).exists()
    is_int8 = (
        has_int8
        and (args.page / "model.onnx").read_bytes() == (args.export / answers.INT8).read_bytes()
    )
    backend = "onnx-int8" if is_int8 else "onnx"
    classifier = artclf.load(args.export, backend=backend)
    images = splits.of_training(args.data, classifier.config)
    test = images[images.part == "test"].sample(args.pictures, random_state=1)
    clean = [args.data / file for file in test.file]
    raw = [next((args.data / "raw" / file.parent.name).glob(f"{file.stem}.*")) for file in clean]
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=args.page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
        for visit in ("first", "second", "third"):
            tab = browser.new_page()  # each with an empty cache
            print(f"{visit} visit: answer after {first_answer(tab, url, clean[0]):.2f} s")
            tab.close()
        tab = browser.new_page()
        for kind, files in (("clean copies", clean), ("as they came", raw)):
            found, seconds = answers_of_page(tab, url, files)
            expected, _ = classifier.probabilities(files)
            difference = np.nanmax(abs(found - expected[:, : len(classifier.vocab)]), axis=1)
            same = (found.argmax(1) == expected[:, : len(classifier.vocab)].argmax(1)).sum()
            print(
                f"{kind}, {backend}: {same} of {len(files)} answers as Python's, probabilities differ "
                f"by up to {difference.max():.2g}, by {difference.mean():.2g} on average, by more than "
                f"0.01 for {(difference > 0.01).sum()}; {seconds:.2f} s a picture"
            )
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
