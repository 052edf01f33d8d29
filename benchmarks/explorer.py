"""How large the explorer is, how fast it opens, and how fast it answers, in headless Chromium.

    python benchmarks/explorer.py DATA EXPORT [--images 2216] [--runs 5]

DATA is a data folder, EXPORT an export on it; with fewer images than asked for, some stand in the
page twice. The page is opened as it stands in a report: in a frame, without network or kernel.
`open` lasts from the navigation to the first picture that is decoded and the next frame that is
painted; an answer from the click or input to the next frame. Figures are medians over the runs, of
each action for itself; the slowest is named. Limits: 20 MB, 3 s and 100 ms.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import pandas as pd
from playwright.sync_api import sync_playwright

from artclf.results import evaluation, explorer

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PAINTED = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"  # the task after the next frame
FIRST_PICTURE = (
    f"async () => {{ await document.querySelector('.card img').decode(); await {PAINTED}; }}"
)
ACTIONS = f"""async () => {{
  const measured = [], byId = id => document.getElementById(id);
  async function measure(name, act) {{
    const start = performance.now();
    act();
    document.body.offsetHeight;
    await {PAINTED};
    measured.push([name, performance.now() - start]);
  }}
  const set = (id, value, kind = 'input') => measure(`${{id}}: ${{value || 'any'}}`, () => {{
    byId(id).value = value;
    byId(id).dispatchEvent(new Event(kind, {{bubbles: true}}));
  }});
  const part = byId('part').value, cells = [...document.querySelectorAll('td')];
  const fullest = cells.sort((a, b) => Number(b.textContent) - Number(a.textContent)).slice(0, 40);
  for (const cell of fullest) await measure(`cell: ${{cell.ariaLabel}}`, () => cell.click());
  fullest[0].click();
  for (const name of ['part', 'unit', 'sort', 'source'].filter(byId)) {{
    const first = byId(name).value;
    for (const option of [...byId(name).options].slice(0, 8)) await set(name, option.value, 'change');
    await set(name, first, 'change');
  }}
  const typed = {{threshold: ['30', '60', '90', '0'], painter: ['v', 'van', ''], low: ['50', ''], high: ['70', ''],
                 from: ['1700', ''], to: ['1850', '']}};
  for (const name of Object.keys(typed).filter(byId)) for (const value of typed[name]) await set(name, value);
  for (const button of [...document.querySelectorAll('.card .open')].slice(0, 10)) {{
    await measure(`open: ${{button.ariaLabel}}`, () => button.click());
    const similar = document.querySelector('#similar .open');
    if (similar) await measure('similar', () => similar.click());
    await measure('close', () => byId('close').click());
  }}
  return measured;
}}"""


def opened(browser, address: str):
    """A tab with the page open, its frame, and how many seconds that took."""
    tab = browser.new_page(viewport={"width": 1300, "height": 900})
    start = time.perf_counter()
    tab.goto(address, wait_until="commit")
    tab.wait_for_selector("iframe.artclf-explorer")
    frame = tab.frame_locator("iframe.artclf-explorer")
    frame.locator(".card img").first.wait_for()
    frame.locator("body").evaluate(FIRST_PICTURE)
    return tab, frame, time.perf_counter() - start


def measure(file: Path, runs: int) -> tuple[float, dict[str, float]]:
    """Median seconds to open the page, and median milliseconds of each action."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise SystemExit(f"none of {', '.join(PROGRAMS)} is on the PATH: install one")
    seconds, answers = [], {}
    with sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        for _ in range(runs):
            tab, frame, took = opened(browser, file.as_uri())
            seconds.append(took)
            for name, took in frame.locator("body").evaluate(ACTIONS):
                answers.setdefault(name, []).append(took)
            tab.close()
        browser.close()
    return median(seconds), {name: median(values) for name, values in answers.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("export", type=Path)
    parser.add_argument("--images", type=int, default=2216)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    predictions = evaluation.read(args.export, args.data)
    times = -(-args.images // len(predictions))
    predictions = pd.concat([predictions] * times, ignore_index=True).head(args.images)
    start = time.perf_counter()
    frame = explorer.frame(
        predictions, args.data, evaluation.parts(predictions)[-1], out=args.export
    )
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        (file := Path(folder, "page.html")).write_text(
            f"<!doctype html><meta charset=utf-8>{frame}", encoding="utf-8"
        )
        seconds, answers = measure(file, args.runs)
    slowest = max(answers, key=answers.get)
    print(
        f"{len(predictions)} images, {len(evaluation.classes(predictions))} classes, {args.runs} runs: "
        f"{len(frame.encode()) / 1e6:.1f} MB, made in {built:.0f} s\nopen     {seconds:.2f} s\n"
        f"answers  {median(answers.values()):.0f} ms, median of {len(answers)} actions\n"
        f"slowest  {answers[slowest]:.0f} ms ({slowest})"
    )


if __name__ == "__main__":
    main()
