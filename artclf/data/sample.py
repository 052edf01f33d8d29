"""Canvases drawn by code for all 18 periods: a data set for people without a network.

A period is a row of visual habits. A canvas follows them in the manner of one of the period's
invented hands, and some lean towards a neighbour in time. `draw` writes `FOLDER/<period>/*.jpg` and
`FOLDER/manifest.csv`.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from artclf.base.errors import InputError
from artclf.base.processes import process_pool
from artclf.base.progress import progress_bar

HANDS = 10  # invented painters a period


KIN_SHARE, KIN_REACH = (
    0.55,
    0.62,
)  # how many canvases lean towards a neighbour, and how far at most: the difficulty


MANIFEST = "file,title,artist,year,licence,source"


WORDS = ("POP", "WOW!", "DADA", "ART", "Merz", "No 5", "JOURNAL", "BANG", "da da", "?!")


ROLES = (
    "sky",
    "ground",
    "light",
    "main",
    "second",
    "accent",
    "dark",
)  # what the seven colours of a period are for


HABITS = (
    "strokes",
    "width",
    "swirl",
    "jitter",
    "bend",
    "ragged",
    "contour",
    "facets",
    "model",
    "dark",
    "soft",
    "age",
    "gold",
    "symmetry",
    "floor",
    "columns",
    "halftone",
    "letters",
    "long",
    "halo",
)


# Period, years, colours (hexadecimal, in the order of ROLES), habits (0 to 9, in the order of HABITS), motifs.
TABLE = """
01-early_renaissance    1401-1489 ca7 974 eca 348 a33 da4 322  0000 0030 3007 8900 0009 group group portrait
02-high_renaissance     1490-1527 9aa 764 ec9 843 457 c95 321  0000 0000 8355 0752 0002 group portrait portrait
03-northern_renaissance 1430-1570 565 543 edb 722 243 edd 111  0000 0030 7303 0070 0000 portrait portrait group still
04-mannerism            1525-1600 578 665 edb d68 8b5 e94 223  0000 3000 8300 0003 0090 group group portrait
05-baroque              1601-1719 432 322 ec8 a22 742 d94 100  3300 0000 9804 0000 0000 group portrait still
06-rococo               1710-1779 bcd 9a8 fed e9a 9cb ed8 655  4292 0000 5030 0000 0000 group portrait garden garden
07-neoclassicism        1765-1829 aa9 887 edb a32 edd 458 333  0000 0010 6000 0689 0000 group group portrait
08-romanticism          1795-1859 568 433 ec8 633 455 e84 112  4481 0300 4700 0000 0000 sea sea sea land
09-realism              1840-1889 ba9 764 db9 654 564 854 222  4301 0300 5100 0000 0000 field field portrait land still
10-impressionism        1865-1899 bcd 9b7 feb 89c aac ea7 568  9206 0300 0010 0000 0000 land garden sea field
11-post-impressionism   1884-1909 58c ba4 fd7 36a 485 e73 235  9374 0320 0000 0000 0000 land field still garden portrait
12-fauvism              1899-1914 3ac eb3 fa8 d32 384 e71 228  5804 1340 0000 0000 0000 land sea portrait still
13-expressionism        1905-1932 d52 454 dc7 247 824 ea2 111  6753 9590 0000 0000 0000 portrait land group field
14-cubism               1907-1924 a98 775 dc9 555 874 a85 222  2200 0019 0000 0000 0200 still still portrait
15-surrealism           1922-1959 7ac da6 edc a43 478 ec5 323  0000 2000 8020 0000 0000 dream dream dream still
16-modernism            1915-1965 eed ccb fee c32 259 eb2 111  0000 0010 0000 0000 0000 shapes shapes shapes dream
17-dadaism              1916-1926 dca a97 edc b32 455 c95 111  0000 0700 0003 0000 0900 collage collage shapes portrait
18-pop-art              1955-1979 fd2 e48 fdb e22 27d ffe 111  0000 0080 0000 0000 9600 portrait portrait still shapes
"""


PERIODS = {
    name: SimpleNamespace(
        years=tuple(map(int, years.split("-"))),
        motifs=cells[12:],
        colours=np.array([[17.0 * int(digit, 16) for digit in colour] for colour in cells[:7]]),
        habits={
            habit: int(n) / 9
            for habit, n in zip(HABITS, "".join(cells[7:12]), strict=True)
            if n != "0"
        },
    )
    for name, years, *cells in map(str.split, TABLE.strip().splitlines())
}


THINGS = {  # parts: role (own: one a thing, any: one a part), x, y, radii in hundredths of the height, shade, corners
    "figure": "dark 0 89 9 12 1.5; own 0 62 13 14; own 0 32 25 63 1 3; own 0 25 10 50 1.2 3; light 1 48 9 4 .95;"
    "light 0 80 3 6 .8; light 0 89 6.5 9; dark 0 97 7 3 1.5; light -2.7 90 1.4 .7 1.3;"
    "light 2.7 90 1.4 .7 1.3; dark -2.7 90 .6 .6; dark 2.7 90 .6 .6; dark -2.7 92 1.6 .3 1.6;"
    "dark 2.7 92 1.6 .3 1.6; light .5 87 .9 1.8 .85; light 0 84 1.8 .5 .6",
    "tree": "dark 0 30 5 43 1.6 4; second -14 60 18 17 .75; second 15 66 17 17 .85; second 0 78 20 19 .75",
    "flowers": "any 0 0 9 9; any 40 15 9 9; any -35 25 9 9; any 70 -20 9 9; any 20 45 9 9; any -60 -10 9 9",
    "vase": "second 0 20 20 22; second 0 42 8 20; any -20 65 11 11; any 0 60 12 12; any 18 70 11 11; any -8 84 12 12",
    "bottle": "dark 0 25 14 36 1.8 4; dark 0 70 5 40 1.8 4; light 0 30 10 18 .9 4",
    "stack": "accent 0 30 60 50 .95",
    "boat": "light 10 45 45 60 1 3; dark 0 8 50 12 1 4",
    "cone": "dark 90 0 80 6 1.3; own 0 33 35 67 1 3",
    "egg": "dark 40 0 30 4 1.3; own 0 120 25 35",
    "halo": "accent 0 89 18 18 1.15",
    "pole": "dark 0 0 4 900 1 4",
    "square": "own 0 0 50 50 1 4",
    "plank": "own 0 0 90 30 1 4",
    "wedge": "own 0 0 60 60 1 3",
    "sun": "light 0 0 8 8 1.25",
    "disc": "own 0 0 45 45",
    "bar": "dark 0 0 900 4 1 4",
    "fruit": "own 0 15 16 15",
    "floor": "ground 0 -200 400 200 1.2 3; ground 0 -200 250 200 .8 3; ground 0 -200 110 200 1.2 3",
    "columns": "sky -63 50 9 70 1.2 4; sky -21 50 9 70 1.2 4; sky 21 50 9 70 1.2 4; sky 63 50 9 70 1.2 4",
}


SCENES = {  # horizon, roughness, roles of ridges, chance of a sun; things, how many; feet, heights, scatter, tilt
    "group": (
        0.5,
        0.05,
        "second ground",
        0,
        "figure",
        (2, 6),
        (0.9, 1.02),
        (0.5, 0.85),
        0.05,
        0.02,
    ),
    "portrait": (
        0.55,
        0.05,
        "second ground",
        0,
        "figure",
        (1, 2),
        (1.9, 2.3),
        (1.7, 2.2),
        0.05,
        0.02,
    ),
    "still": (
        0.6,
        0.001,
        "ground",
        0,
        "vase bottle fruit fruit fruit",
        (5, 9),
        (0.66, 0.9),
        (0.4, 0.5),
        0.15,
        0,
    ),
    "land": (
        0.5,
        0.06,
        "main second ground ground",
        0.7,
        "tree tree figure",
        (2, 7),
        (0.6, 0.97),
        (0.15, 0.45),
        0.2,
        0.04,
    ),
    "field": (
        0.5,
        0.015,
        "ground ground ground",
        0.4,
        "tree stack figure figure",
        (3, 7),
        (0.6, 0.97),
        (0.15, 0.4),
        0.2,
        0.04,
    ),
    "garden": (
        0.4,
        0.06,
        "main second ground",
        0.4,
        "tree figure flowers flowers",
        (6, 14),
        (0.5, 1),
        (0.15, 0.4),
        0.2,
        0,
    ),
    "sea": (
        0.45,
        0.02,
        "second sky second sky second",
        0.9,
        "boat",
        (2, 7),
        (0.5, 0.97),
        (0.1, 0.35),
        0.2,
        0.1,
    ),
    "dream": (
        0.5,
        0.001,
        "ground",
        0.6,
        "cone egg egg",
        (2, 7),
        (0.55, 0.95),
        (0.15, 0.4),
        0.2,
        0.15,
    ),
    "shapes": (
        2,
        0,
        "",
        0,
        "square plank disc wedge bar pole",
        (8, 16),
        (0, 1),
        (0.2, 0.6),
        0.3,
        0,
    ),
    "collage": (
        2,
        0,
        "",
        0,
        "square plank wedge bar figure",
        (9, 16),
        (0, 1.2),
        (0.2, 0.7),
        0.3,
        0.5,
    ),
}


class Canvas:
    """A scene in the making: flat shapes, and the relief that light will model. Its shorter side is
    one unit long.
    """

    def __init__(self, rng, width: int, height: int, colours, habits: dict):
        self.rng, self.colours, self.h, self.unit = (
            rng,
            colours,
            dict.fromkeys(HABITS, 0) | habits,
            min(width, height),
        )
        self.size, self.right, self.bottom = (width, height), width / self.unit, height / self.unit
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32) / self.unit
        self.image, self.relief = Image.new("RGB", self.size), Image.new("F", self.size)

    def shape(self, points, role, shade=1.0):
        """A polygon through `points` (n x 2, in units)."""
        xy = (np.asarray(points, dtype=float) * self.unit).ravel().tolist()
        rgb = np.clip(
            self.colours[ROLES.index(role)] * shade + self.rng.normal(0, 5, 3), 0, 255
        ).astype(int)
        ImageDraw.Draw(self.image).polygon(xy, tuple(rgb.tolist()))
        ImageDraw.Draw(self.relief).polygon(xy, self.rng.uniform(70, 255))

    def place(self, name, x, y, tall, tilt=0.0):
        """One of `THINGS`, `tall` units high, that stands at (x, y)."""
        turn, slim, own = (
            self.rng.normal(0, tilt),
            1 - 0.3 * self.h["long"],
            self.rng.choice(ROLES[3:6]),
        )
        spin = (
            tall
            / 100
            * np.array([(slim * np.cos(turn), slim * np.sin(turn)), (np.sin(turn), -np.cos(turn))])
        )
        for role, *numbers in map(str.split, THINGS[name].split(";")):
            dx, dy, rx, ry, shade, corners = [*map(float, numbers), *(1, 28)[len(numbers) - 4 :]]
            angle = (np.arange(corners) + 0.5) * 2 * np.pi / corners - np.pi / 2
            wobble = 1 + (0.015 + 0.08 * self.h["ragged"]) * self.rng.normal(0, 1, len(angle))
            outline = np.stack(
                [dx + rx * wobble * np.cos(angle), dy + ry * wobble * np.sin(angle)], 1
            )
            self.shape(
                outline @ spin + (x, y),
                {"own": own, "any": self.rng.choice(ROLES[2:6])}.get(role, role),
                shade,
            )

    def scene(self, horizon, rough, ridges, sun, things, count, feet, heights, scatter, tilt):
        """Sky, ridges, a hall; then things, evenly where symmetry is the habit, the nearer (by
        depth) the larger.
        """
        rng, x, n, loose = (
            self.rng,
            np.linspace(0, self.right, 40),
            self.rng.integers(*count),
            1 - self.h["symmetry"],
        )
        self.shape(
            [(0, 0), (9, 0), (9, 9), (0, 9)], "accent" if rng.random() < self.h["gold"] else "sky"
        )
        if rng.random() < sun:
            self.place("sun", *rng.uniform((0.1, 0.15), (0.9, 0.5)) * (self.right, self.bottom), 1)
        for i, role in enumerate(ridges.split()):
            y = (horizon + 0.1 * i) * self.bottom + np.cumsum(rng.normal(0, rough / 4, 40))
            self.shape([(0, 9), *np.stack([x, y], 1), (self.right, 9)], role, 1.1 - 0.1 * i)
        for name, y, chance in (
            ("floor", horizon, self.h["floor"]),
            ("columns", 0.72, self.h["columns"]),
        ):
            if rng.random() < chance:
                self.place(name, self.right / 2, y * self.bottom, self.bottom)
        side = (np.arange(n) + 0.5) / n - 0.5
        depth = (1 - loose) * (1 - 2 * abs(side)) + loose * rng.random(n)
        for i in np.argsort(depth):
            x, name = (
                self.right * (0.5 + 0.9 * side[i] + loose * rng.normal(0, scatter)),
                rng.choice(things.split()),
            )
            y, tall = (self.bottom * np.interp(depth[i], (0, 1), ends) for ends in (feet, heights))
            if name == "figure" and rng.random() < self.h["halo"]:
                self.place("halo", x, y, tall)
            self.place(name, x, y, tall, tilt)
        for xy in (
            rng.random((rng.integers(1, 5) * (rng.random() < self.h["letters"]), 2))
            * self.size
            * 0.8
        ):
            ink, font = (
                self.colours[rng.choice([3, 6])],
                ImageFont.load_default(self.unit * rng.uniform(0.06, 0.2)),
            )
            ImageDraw.Draw(self.image).text(
                tuple(xy), str(rng.choice(WORDS)), tuple(ink.astype(int).tolist()), font
            )

    def paint(self, motif: str) -> Image.Image:
        """The picture of a motif, one of `SCENES`, as its period paints it: bent, cut up, modelled,
        aged, stroked.
        """
        self.scene(*SCENES[motif])
        self.pixels, self.relief = np.float32(self.image), np.asarray(self.relief)
        for step in (self.warp, self.model, self.age):
            step()
        return self.stroke()

    def smooth(self, field):
        """A small field of floats, stretched over the canvas."""
        return np.asarray(
            Image.fromarray(np.float32(field)).resize(self.size, Image.Resampling.BICUBIC)
        )

    def warp(self):
        """Bend as by a restless hand; cut straight across, with light along each cut and facets
        that slip aside.
        """
        facet, light, force = (
            np.zeros(self.x.shape, np.uint8),
            np.ones(self.x.shape),
            self.h["facets"],
        )
        for k in range(8 * (force > 0.2)):
            (x, y), turn = (
                self.rng.random(2) * (self.right, self.bottom),
                self.rng.uniform(0, np.pi),
            )
            away = (self.x - x) * np.cos(turn) + (self.y - y) * np.sin(turn)
            facet += np.uint8(away > 0) << k
            light += 0.3 * force * np.sign(away) * np.exp(-abs(away) / 0.12)
        slips, bends = (
            self.rng.normal(0, 0.07 * force, (2, 256)),
            self.rng.normal(0, 0.03 * self.h["bend"], (2, 6, 6)),
        )
        at = tuple(
            np.clip((axis + slip[facet] + self.smooth(bend)) * self.unit, 0, end - 1).astype(int)
            for axis, slip, bend, end in zip(
                (self.y, self.x), slips, bends, self.x.shape, strict=True
            )
        )
        self.pixels, self.relief = self.pixels[at] * light[..., None], self.relief[at] + facet * 37

    def model(self):
        """Light from above left on a soft relief, dark round a lit spot (chiaroscuro), then
        contours.
        """
        dy, dx = np.gradient(
            self.smooth(Image.fromarray(self.relief).resize((50, 50), Image.Resampling.BOX))
        )
        away = np.hypot(
            self.x - self.right * self.rng.uniform(0.4, 0.6),
            self.y - self.bottom * self.rng.uniform(0.3, 0.5),
        )
        light = np.clip(1 - self.h["model"] * (dx + dy) * self.unit / 3500, 0.5, 1.4)
        self.pixels *= (light * (1 + self.h["dark"] * (1.1 * np.exp(-(away**2) / 0.18) - 0.85)))[
            ..., None
        ]
        wide = ImageFilter.MaxFilter(1 + 2 * round(self.unit * 0.006 * self.h["contour"]))
        line = np.asarray(
            Image.fromarray(np.uint8(np.hypot(*np.gradient(self.relief)) > 12)).filter(wide)
        )
        self.pixels += (
            min(1, 1.3 * self.h["contour"]) * line[..., None] * (self.colours[-1] - self.pixels)
        )

    def age(self):
        """The dots of cheap print, larger where it is darker; craquelure, varnish, an arched panel;
        grain.
        """
        dots = 115 + 85 * np.cos((self.x + self.y) * 140) * np.cos((self.x - self.y) * 140)
        crack = np.abs(self.smooth(self.rng.normal(0, 1, (60, 60)))) < 0.03 * self.h["age"]
        dim = 1 - 0.35 * crack - 0.6 * self.h["halftone"] * (self.pixels.mean(-1) < dots)
        self.pixels = (
            self.pixels * dim[..., None] * (1 - self.h["age"] * np.array([0.02, 0.08, 0.22]))
        )
        over = np.hypot((self.x / self.right - 0.5) / 0.47, (self.y / self.bottom - 0.42) / 0.4) > 1
        if self.rng.random() < self.h["gold"]:
            self.pixels[over & (self.y < 0.42 * self.bottom)] = self.colours[-1] * 1.4
        self.pixels += self.rng.normal(0, 10) + self.rng.normal(0, 3, self.x.shape)[..., None]

    def stroke(self) -> Image.Image:
        """Strokes of broken colour along a flow; then the softness of sfumato."""
        image = Image.fromarray(np.uint8(self.pixels.clip(0, 255)))
        pen, width = ImageDraw.Draw(image), round(1 + self.unit * (0.004 + 0.016 * self.h["width"]))
        length = width * (2.2 + 4 * self.h["swirl"])
        x, y = self.rng.integers(
            0, image.size, (int(1.3 * self.h["strokes"] * self.x.size / width / length), 2)
        ).T
        flow = self.rng.uniform(0, np.pi) + (0.3 + 1.5 * self.h["swirl"]) * self.smooth(
            self.rng.normal(0, 1, (5, 5))
        )
        dx, dy = np.cos(flow[y, x]) * length / 2, np.sin(flow[y, x]) * length / 2
        rgb = np.clip(
            self.pixels[y, x] + 50 * self.h["jitter"] * self.rng.normal(0, 1, (len(x), 3)), 0, 255
        )
        for *line, r, g, b in np.column_stack([x - dx, y - dy, x + dx, y + dy, rgb]).tolist():
            pen.line(line, (int(r), int(g), int(b)), width)
        return image.filter(ImageFilter.GaussianBlur(self.unit * 0.006 * self.h["soft"]))


def style(period: str, number: int, seed: int):
    """What canvas `number` of a period will be: random generator, motif, colours (7 x 3), habits,
    line of facts.
    """
    names = list(PERIODS)
    if period not in PERIODS:
        raise InputError(f"no period {period!r}: choose from {', '.join(names)}")
    i = names.index(period)
    rng = np.random.default_rng([seed, i, number])
    hand, step = int(rng.integers(HANDS)), int(rng.choice([-2, -1, 1, 2], p=[0.1, 0.4, 0.4, 0.1]))
    own, other = (
        PERIODS[period],
        PERIODS[names[i + step if 0 <= i + step < len(names) else i - step]],
    )
    lean, touch = (
        KIN_REACH * rng.random() * (rng.random() < KIN_SHARE),
        np.random.default_rng([seed, i, hand, 1]),
    )
    motif = str(rng.choice((other if rng.random() < lean else own).motifs))
    colours = np.where(rng.random((len(ROLES), 1)) < lean, other.colours, own.colours)
    colours = (
        colours * touch.normal(1, 0.1) * rng.normal(1, 0.08)
        + touch.normal(0, 7, (7, 3))
        + rng.normal(0, 4, (7, 3))
    )
    levels = [
        (1 - lean) * own.habits.get(name, 0) + lean * other.habits.get(name, 0) for name in HABITS
    ]
    taste = np.exp(touch.normal(0, 0.25, len(HABITS)) + rng.normal(0, 0.2, len(HABITS))) * (
        rng.random(len(HABITS)) > 0.05
    )
    habits = dict(zip(HABITS, np.minimum(1, levels * taste).tolist(), strict=True))
    title, artist = (
        f"{motif} {number:03d} (drawn by code)",
        f"drawn hand {hand + 1:02d} of {period[3:]}",
    )
    return (
        rng,
        motif,
        np.clip(colours, 0, 255),
        habits,
        f"{title},{artist},{rng.integers(*own.years)},CC0",
    )


def canvas(period: str, number: int, size: int = 400, seed: int = 42) -> Image.Image:
    """Canvas `number` of a period, its longer side `size` pixels, always the same for the same
    arguments.
    """
    rng, motif, colours, habits, _ = style(period, number, seed)
    sides = size, round(size * rng.uniform(0.65, 1))
    wide = rng.random() < (0.3 if motif in ("group", "portrait") else 0.7)
    return Canvas(rng, *(sides if wide else sides[::-1]), colours, habits).paint(motif)


def draw(
    folder,
    count: int = 40,
    size: int = 400,
    seed: int = 42,
    workers: int | None = None,
    periods=None,
) -> int:
    """The number of canvases drawn: those of `count` for each period that `folder` doesn't hold
    yet.

    Raises ValueError for sizes that can't be drawn, an unknown period, or a folder that holds
    anything else.
    """
    if count < 1 or size < 64:
        raise InputError("count must be at least 1 and size at least 64")
    folder, source = Path(folder), f"artclf sample; seed {seed}; size {size}"
    jobs = {
        f"{period}/{number:03d}.jpg": (period, number)
        for period in periods or PERIODS
        for number in range(count)
    }
    lines = {f"{file},{style(*job, seed)[-1]},{source}" for file, job in jobs.items()}
    _write_manifest(folder / "manifest.csv", lines, source)
    missing = [
        (folder / file, *job, size, seed)
        for file, job in jobs.items()
        if not (folder / file).exists()
    ]
    workers = min(workers or os.cpu_count() or 1, len(missing) or 1, 32)
    with process_pool(workers) as pool:
        return sum(
            1
            for _ in progress_bar(
                pool.map(_save, missing, chunksize=4), total=len(missing), desc="drawing"
            )
        )


def _save(job):
    path, period, number, size, seed = job
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    canvas(period, number, size, seed).save(part, "JPEG", quality=70 + number * 7 % 26)
    part.replace(path)


def _write_manifest(path: Path, lines: set[str], source: str):
    # It is written before the first canvas, so that a run that was stopped can't go on with another seed or size.
    before = (
        set(path.read_text(encoding="utf-8").splitlines()) - {MANIFEST} if path.exists() else set()
    )
    if not all(line.endswith(f",{source}") for line in before):
        raise InputError(f"{path} isn't of {source!r}: name another folder, or delete this one")
    if lines <= before:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(
        "\n".join([MANIFEST, *sorted(lines | before), ""]), encoding="utf-8", newline="\n"
    )
    part.replace(path)
