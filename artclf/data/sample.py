"""Canvases drawn by code for all 18 periods: a data set for people without a network.

A period is a row of visual habits. A canvas follows them in the manner of one of the period's
invented hands, and some lean towards a neighbour in time. `draw` writes `FOLDER/<period>/*.jpg` and
`FOLDER/manifest.csv`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.files import replace_whole
from artclf.base.processes import process_pool
from artclf.base.progress import progress_bar
from artclf.data.pictures import SIZE
from artclf.data.sample_canvas import Canvas
from artclf.data.sample_periods import HABITS, PERIODS, ROLES, Period

HANDS = 10  # invented painters of each period

# How hard the periods are to tell apart: how many canvases lean towards a neighbour in time, and
# how far at most.
LEANING = 0.55
MAX_LEAN = 0.62

SOURCE = "artclf sample"
MANIFEST = "file,title,artist,year,licence,source"


@dataclass
class Plan:
    """What a canvas will be; `rng` goes on drawing it."""

    rng: np.random.Generator
    motif: str
    colours: np.ndarray  # float, (roles, 3), from 0 to 255
    habits: dict[str, float]  # from 0 to 1
    title: str
    artist: str
    year: int

    def facts(self) -> str:
        """Its cells of the manifest: title, artist, year and licence."""
        return f"{self.title},{self.artist},{self.year},CC0"


@dataclass(frozen=True)
class Job:
    """A canvas to draw, and the file to write."""

    file: Path
    period: str
    number: int
    size: int
    seed: int


def draw(
    folder,
    count: int = 40,
    size: int = SIZE,
    seed: int = 42,
    workers: int | None = None,
    periods=None,
) -> int:
    """The number of canvases drawn: those of `count` for each period that `folder` doesn't hold
    yet.

    Raises SettingError for a number that makes no sense, InputError for an unknown period or a
    folder that holds anything else.
    """
    settings.check(count=count, seed=seed)
    settings.RANGES["canvas_size"].check("size", size)
    folder = Path(folder)
    source = f"{SOURCE}; seed {seed}; size {size}"
    jobs = []
    lines = set()
    for period in periods or PERIODS:
        for number in range(count):
            file = f"{period}/{number:03d}.jpg"
            jobs.append(Job(folder / file, period, number, size, seed))
            lines.add(f"{file},{plan(period, number, seed).facts()},{source}")
    _write_manifest(folder / "manifest.csv", lines, source)
    missing = [job for job in jobs if not job.file.exists()]
    workers = min(workers or os.cpu_count() or 1, len(missing) or 1, 32)
    with process_pool(workers) as pool:
        drawn = pool.map(_draw_file, missing, chunksize=4)
        for _ in progress_bar(drawn, total=len(missing), desc="drawing"):
            pass
    return len(missing)


def is_drawn(folder) -> bool:
    """Whether the pictures in `folder` are canvases that `draw` made."""
    manifest = Path(folder) / "manifest.csv"
    if not manifest.exists():
        return False
    first_rows = manifest.read_text(encoding="utf-8", errors="replace").splitlines()[:2]
    return first_rows[:1] == [MANIFEST] and SOURCE in first_rows[-1]


def canvas(period: str, number: int, size: int = SIZE, seed: int = 42) -> Image.Image:
    """Canvas `number` of a period, its longer side `size` pixels, always the same for the same
    arguments.
    """
    planned = plan(period, number, seed)
    shorter = round(size * planned.rng.uniform(0.65, 1))
    chance_of_wide = 0.3 if planned.motif in ("group", "portrait") else 0.7
    is_wide = planned.rng.random() < chance_of_wide
    width, height = (size, shorter) if is_wide else (shorter, size)
    painting = Canvas(planned.rng, width, height, planned.colours, planned.habits)
    return painting.paint(planned.motif)


def plan(period: str, number: int, seed: int) -> Plan:
    """What canvas `number` of a period will be.

    Its hand has a taste of its own, the same on all its canvases; a canvas that leans has part of
    the colours, habits and motifs of a neighbouring period. Raises InputError for an unknown
    period.
    """
    if period not in PERIODS:
        raise InputError(f"no period {period!r}: choose from {', '.join(PERIODS)}")
    place = list(PERIODS).index(period)
    rng = np.random.default_rng([seed, place, number])
    hand = int(rng.integers(HANDS))
    hand_rng = np.random.default_rng([seed, place, hand, 1])
    own = PERIODS[period]
    neighbour = _neighbour(place, rng)
    lean = MAX_LEAN * rng.random()
    if rng.random() >= LEANING:
        lean = 0
    motifs = neighbour.motifs if rng.random() < lean else own.motifs
    motif = str(rng.choice(motifs))
    colours = _colours(own, neighbour, lean, rng, hand_rng)
    habits = _habits(own, neighbour, lean, rng, hand_rng)
    return Plan(
        rng=rng,
        motif=motif,
        colours=colours,
        habits=habits,
        title=f"{motif} {number:03d} (drawn by code)",
        artist=f"drawn hand {hand + 1:02d} of {period[3:]}",
        year=int(rng.integers(*own.years)),
    )


def _neighbour(place: int, rng) -> Period:
    """A period one or two steps before or after; at either end, on the other side."""
    periods = list(PERIODS.values())
    step = int(rng.choice([-2, -1, 1, 2], p=[0.1, 0.4, 0.4, 0.1]))
    if 0 <= place + step < len(periods):
        return periods[place + step]
    return periods[place - step]


def _colours(own: Period, neighbour: Period, lean: float, rng, hand_rng) -> np.ndarray:
    from_neighbour = rng.random((len(ROLES), 1)) < lean
    colours = np.where(from_neighbour, neighbour.palette(), own.palette())
    colours = colours * hand_rng.normal(1, 0.1) * rng.normal(1, 0.08)
    colours = colours + hand_rng.normal(0, 7, colours.shape) + rng.normal(0, 4, colours.shape)
    return np.clip(colours, 0, 255)


def _habits(own: Period, neighbour: Period, lean: float, rng, hand_rng) -> dict[str, float]:
    strengths = [
        (1 - lean) * own.strength(habit) + lean * neighbour.strength(habit) for habit in HABITS
    ]
    taste = np.exp(hand_rng.normal(0, 0.25, len(HABITS)) + rng.normal(0, 0.2, len(HABITS)))
    is_followed = rng.random(len(HABITS)) > 0.05
    strengths = np.minimum(1, strengths * (taste * is_followed))
    return dict(zip(HABITS, strengths.tolist(), strict=True))


def _draw_file(job: Job):
    image = canvas(job.period, job.number, job.size, job.seed)
    quality = 70 + job.number * 7 % 26
    replace_whole(job.file, lambda part: image.save(part, "JPEG", quality=quality))


def _write_manifest(file: Path, lines: set[str], source: str):
    """Add lines to the manifest. Raises InputError where it is of another `source`.

    It is written before the first canvas, so that a run that was stopped can't go on with another
    seed or size.
    """
    before = set()
    if not file.exists() and file.parent.exists() and any(file.parent.iterdir()):
        raise InputError(f"{file.parent} holds other files: name another folder for the canvases")
    if file.exists():
        before = set(file.read_text(encoding="utf-8").splitlines()) - {MANIFEST}
    if not all(line.endswith(f",{source}") for line in before):
        raise InputError(f"{file} isn't of {source!r}: name another folder, or delete this one")
    if lines <= before:
        return
    text = "\n".join([MANIFEST, *sorted(lines | before), ""])
    replace_whole(file, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
