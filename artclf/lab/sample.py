"""Canvases drawn by code for all 18 periods: a data set for people without a network.

Writes `FOLDER/<period>/*.jpg` and `FOLDER/manifest.csv`. A period is a row of visual habits; a canvas follows them in
the manner of one of the period's invented hands, and some canvases lean towards a neighbour in time.
"""
import csv
import io
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from artclf.catalogue import progress
from artclf.lab.canvas import ROLES, Canvas

HANDS = 10  # invented painters a period
KIN_SHARE, KIN_REACH = 0.55, 0.68  # how many canvases lean towards a neighbour, and how far at most: the difficulty
MANIFEST = ("file", "title", "artist", "year", "licence", "source")


def row(first: int, last: int, colours: str, motifs: str, **habits) -> SimpleNamespace:
    """A period: its years, a colour for each of `ROLES`, motifs (twice: seen twice as often), habits from 0 to 1."""
    return SimpleNamespace(years=(first, last), motifs=motifs.split(), habits=habits,
                           colours=np.array([list(bytes.fromhex(colour)) for colour in colours.split()], dtype=float))


PERIODS = {
    "01-early_renaissance": row(1401, 1489, "c8b27a 9c7a4a efd2a6 2d4a8e b23a30 d8ab3c 3a2a20",
        "group group portrait", gold=.9, arch=.9, halo=1, symmetry=1, contour=.35, age=.8, model=.3),
    "02-high_renaissance": row(1490, 1527, "9fb0a4 6f6a44 e8c79a 8c3f33 3f5a78 c89a4e 2c2018",
        "group portrait portrait", soft=.5, halo=.25, symmetry=.8, age=.5, model=.9, dark=.3, floor=.5, columns=.2),
    "03-northern_renaissance": row(1430, 1570, "4f5f58 5a4a34 f0d8bc 7a1f20 26402f e8e4da 16130f",
        "portrait portrait group still", contour=.3, age=.35, model=.8, dark=.35, floor=.8, contrast=.5),
    "04-mannerism": row(1525, 1600, "5d6f84 6d5f58 f2d6c2 d8648a 8fb35c e8a03c 232432",
        "group group portrait", long=1, bend=.35, swirl=.4, model=.9, dark=.3, contrast=.5, columns=.3),
    "05-baroque": row(1601, 1719, "4a3626 3a281a f0c890 a8281e 7a4a20 d8a040 0c0806",
        "group portrait still", dark=.9, contrast=.8, model=1, strokes=.3, width=.3, age=.4),
    "06-rococo": row(1710, 1779, "b8d0dc 9cb08c fbe6d8 e8a0b0 9cc8c0 f2d890 6a5a5c",
        "group portrait garden garden", swirl=1, strokes=.45, width=.2, soft=.3, model=.5, jitter=.25),
    "07-neoclassicism": row(1765, 1829, "a8a69c 8c8478 ecd6be b03028 e6e2da 3c5a8c 3a3632",
        "group group portrait", columns=1, floor=.9, symmetry=.7, model=.7, contrast=.3, contour=.15),
    "08-romanticism": row(1795, 1859, "5c6c80 40382c f6cf86 6a3a2c 3c5058 f09040 14141c",
        "sea sea land", storm=1, strokes=.4, width=.4, swirl=.5, dark=.5, contrast=.5, model=.4, jitter=.15),
    "09-realism": row(1840, 1889, "b4b0a0 7a6a46 d8b894 6a5844 58604c 8c5a3c 2a241e",
        "field field field portrait land still", strokes=.45, width=.3, model=.5, dark=.15, jitter=.12),
    "10-impressionism": row(1865, 1899, "b4cbe2 9ab878 f8e6c0 8896c8 b0a8d4 f2a878 52608a",
        "land garden sea field", strokes=1, width=.25, jitter=.6, soft=.1),
    "11-post-impressionism": row(1884, 1909, "5a90c8 b8a83c f8dc70 2f64a8 4c8c50 e87a2c 22305c",
        "land field still garden portrait", strokes=1, width=.3, swirl=.8, dots=.5, jitter=.45, contour=.2),
    "12-fauvism": row(1899, 1914, "38a8c8 f0c030 f8a890 e03028 2c9048 f07818 282880",
        "land sea portrait still", flat=.7, strokes=.5, width=.9, contour=.45, jitter=.45, bend=.15),
    "13-expressionism": row(1905, 1932, "d85a20 3c5a44 d8c870 1f3f78 8c1f3c e8b020 0c0c14",
        "portrait land group field", bend=1, contour=1, strokes=.7, width=.8, jitter=.35, contrast=.6, swirl=.5),
    "14-cubism": row(1907, 1924, "a89c84 7c7058 d8c8a0 5c5c54 8c7448 b08c54 24201c",
        "still still portrait", facets=1, contour=.15, strokes=.25, width=.2, letters=.2),
    "15-surrealism": row(1922, 1959, "6fa8c8 d8ac68 f4e4c4 a84830 48788c e8c850 2c2430",
        "dream dream dream still", model=.9, bend=.25, soft=.2),
    "16-modernism": row(1915, 1965, "ece6d8 d0c8b4 f8f4e8 d03424 2850a0 f0c020 181818",
        "shapes shapes shapes dream", flat=.8, contour=.1),
    "17-dadaism": row(1916, 1926, "d8c8a4 b09c78 f0e4c8 b83828 4c5450 c89c50 181410",
        "collage collage shapes portrait", letters=1, age=.3, flat=.3),
    "18-pop-art": row(1955, 1979, "f8d820 f04890 ffd8b8 e82020 2070e0 f8f8f0 0a0a0a",
        "portrait portrait still shapes", halftone=1, flat=1, contour=.9, letters=.6, contrast=.7),
}
HABITS = sorted(set().union(*(period.habits for period in PERIODS.values())))


def style(period: str, number: int, seed: int):
    """What canvas `number` of a period will be: its random generator, motif, colours (7 x 3), habits, and facts.

    Raises ValueError for a period that isn't in `PERIODS`.
    """
    names = list(PERIODS)
    if period not in PERIODS: raise ValueError(f"no period {period!r}: choose from {', '.join(names)}")
    i = names.index(period)
    rng = np.random.default_rng([seed, i, number])
    hand, step = int(rng.integers(HANDS)), int(rng.choice([-2, -1, 1, 2], p=[.1, .4, .4, .1]))
    own, other = PERIODS[period], PERIODS[names[i + step if 0 <= i + step < len(names) else i - step]]
    lean, touch = KIN_REACH * rng.random() * (rng.random() < KIN_SHARE), np.random.default_rng([seed, i, hand, 1])
    motif = str(rng.choice((other if rng.random() < lean else own).motifs))
    colours = np.where(rng.random((len(ROLES), 1)) < lean, other.colours, own.colours)
    for source, spread in ((touch, 7), (rng, 4)):
        colours = colours * source.normal(1, .08) + source.normal(0, spread, colours.shape)
    habits = {}
    for name in HABITS:
        value = (1 - lean) * own.habits.get(name, 0) + lean * other.habits.get(name, 0)
        habits[name] = min(1.0, value * np.exp(touch.normal(0, .25) + rng.normal(0, .2)) * (rng.random() > .06))
    facts = {"title": f"{motif} {number:03d}, drawn by code", "artist": f"drawn hand {hand + 1:02d} of {period[3:]}",
             "year": str(rng.integers(*own.years)), "licence": "CC0"}
    return rng, motif, np.clip(colours, 0, 255), habits, facts


def canvas(period: str, number: int, size: int = 400, seed: int = 42) -> Image.Image:
    """Canvas `number` of a period, its longer side `size` pixels, always the same for the same arguments."""
    rng, motif, colours, habits, _ = style(period, number, seed)
    sides = size, round(size * rng.uniform(.65, 1))
    wide = rng.random() < (.3 if motif in ("group", "portrait") else .7)
    image = Canvas(rng, *(sides if wide else sides[::-1]), colours, habits).paint(motif)
    return image.convert("L").convert("RGB") if rng.random() < .02 else image


def draw(folder, count: int = 40, size: int = 400, seed: int = 42, workers: int | None = None, periods=None) -> int:
    """The number of canvases drawn: those of `count` for each period that `folder` doesn't hold yet.

    Raises ValueError for sizes that can't be drawn, an unknown period, or a folder that holds anything else.
    """
    if count < 1 or size < 64: raise ValueError("count must be at least 1 and size at least 64")
    folder, source = Path(folder), f"artclf sample, seed {seed}, size {size}"
    jobs = {f"{period}/{number:03d}.jpg": (period, number) for period in periods or PERIODS for number in range(count)}
    rows = {file: {"file": file, **style(*job, seed)[-1], "source": source} for file, job in jobs.items()}
    _write_manifest(folder, rows)
    missing = [(folder / file, *job) for file, job in jobs.items() if not (folder / file).exists()]
    if not missing: return 0
    workers = min(workers or os.cpu_count() or 1, len(missing), 32)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_watch_parent) as pool:
        drawn = pool.map(partial(_save, size=size, seed=seed), missing, chunksize=4)
        return sum(1 for _ in progress(drawn, total=len(missing), desc="drawing"))


def _watch_parent():
    """End this worker with the process that started it, even where that one was killed."""
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _save(job, size: int, seed: int):
    path, period, number = job
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    canvas(period, number, size, seed).save(part, "JPEG", quality=70 + number * 7 % 26)
    part.replace(path)


def _write_manifest(folder: Path, rows: dict[str, dict]):
    # It is written before the first canvas, so that a run that was stopped can't go on with another seed or size.
    path, source = folder / "manifest.csv", next(iter(rows.values()))["source"]
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = {row.get("file"): row for row in csv.DictReader(io.StringIO(before))}
    if any(row.get("source") != source for row in known.values()):
        raise ValueError(f"{path} isn't of {source!r}: name another folder, or delete this one")
    text = io.StringIO()
    writer = csv.DictWriter(text, MANIFEST, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in sorted((known | rows).items()))
    if text.getvalue() == before: return
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text.getvalue(), encoding="utf-8", newline="\n")
    part.replace(path)
