"""How a canvas is drawn: a scene of flat shapes, then light, age and strokes over it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from artclf.data.sample_periods import HABITS, ROLES
from artclf.data.sample_scenes import ANY, OWN, SCENES, THINGS, Scene

WORDS = ("POP", "WOW!", "DADA", "ART", "Merz", "No 5", "JOURNAL", "BANG", "da da", "?!")
OWN_ROLES = ("main", "second", "accent")
ANY_ROLES = ("light", "main", "second", "accent")


class Canvas:
    """A canvas in the making: flat shapes, and a relief that light will model.

    Lengths are in units of the shorter side, `right` and `bottom` among them. `colours` are a row
    for each of `ROLES`, floats from 0 to 255; `habits` are strengths from 0 to 1. What is drawn
    depends on the order in which `rng` is asked: a call more or less changes all canvases.
    """

    def __init__(self, rng, width: int, height: int, colours: np.ndarray, habits: dict):
        self.rng = rng
        self.colours = colours
        self.habits = dict.fromkeys(HABITS, 0) | habits
        self.unit = min(width, height)  # px
        self.size = (width, height)  # px
        self.right = width / self.unit
        self.bottom = height / self.unit
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32) / self.unit
        self.image = Image.new("RGB", self.size)
        self.relief_image = Image.new("F", self.size)

    def paint(self, motif: str) -> Image.Image:
        """The picture of a motif, one of `SCENES`, with the habits of its period."""
        self.draw_scene(SCENES[motif])
        self.pixels = np.asarray(self.image, dtype=np.float32)
        self.relief = np.asarray(self.relief_image)
        self.cut_and_bend()
        self.model_with_light()
        self.draw_contours()
        self.age()
        return self.draw_strokes()

    def colour(self, role: str) -> np.ndarray:
        return self.colours[ROLES.index(role)]

    # The scene

    def draw_scene(self, scene: Scene):
        """Sky, sun, ridges and a hall; then the things, the nearest last."""
        number = self.rng.integers(*scene.count)
        self.draw_background(scene)
        for row, depth in self.places(number):
            loose = 1 - self.habits["symmetry"]
            x = self.right * (0.5 + 0.9 * row + loose * self.rng.normal(0, scene.scatter))
            name = self.rng.choice(scene.things)
            y = self.bottom * np.interp(depth, (0, 1), scene.feet)
            height = self.bottom * np.interp(depth, (0, 1), scene.heights)
            if name == "figure" and self.rng.random() < self.habits["halo"]:
                self.draw_thing("halo", x, y, height)
            self.draw_thing(name, x, y, height, scene.tilt)
        self.draw_words()

    def draw_background(self, scene: Scene):
        sky = "accent" if self.rng.random() < self.habits["gold"] else "sky"
        self.draw_polygon([(0, 0), (9, 0), (9, 9), (0, 9)], sky)
        if self.rng.random() < scene.sun:
            x, y = self.rng.uniform((0.1, 0.15), (0.9, 0.5)) * (self.right, self.bottom)
            self.draw_thing("sun", x, y, 1)
        x = np.linspace(0, self.right, 40)
        for i, role in enumerate(scene.ridges):
            profile = np.cumsum(self.rng.normal(0, scene.roughness / 4, 40))
            y = (scene.horizon + 0.1 * i) * self.bottom + profile
            outline = [(0, 9), *np.stack([x, y], axis=1), (self.right, 9)]
            self.draw_polygon(outline, role, shade=1.1 - 0.1 * i)
        if self.rng.random() < self.habits["floor"]:
            self.draw_thing("floor", self.right / 2, scene.horizon * self.bottom, self.bottom)
        if self.rng.random() < self.habits["columns"]:
            self.draw_thing("columns", self.right / 2, 0.72 * self.bottom, self.bottom)

    def places(self, number: int) -> list[tuple[float, float]]:
        """Where things stand, from far to near: in the row (-0.5 left, 0.5 right) and in depth (0
        far, 1 near).

        With symmetry the nearest stands in the middle, without it depths are drawn by chance.
        """
        loose = 1 - self.habits["symmetry"]
        rows = (np.arange(number) + 0.5) / number - 0.5
        depths = (1 - loose) * (1 - 2 * abs(rows)) + loose * self.rng.random(number)
        return [(rows[i], depths[i]) for i in np.argsort(depths)]

    def draw_thing(self, name: str, x: float, y: float, height: float, tilt: float = 0.0):
        """One of `THINGS`, that stands at (x, y) and leans by about `tilt` radians."""
        turn = self.rng.normal(0, tilt)
        width = 1 - 0.3 * self.habits["long"]
        own_role = self.rng.choice(OWN_ROLES)
        across = (width * np.cos(turn), width * np.sin(turn))
        upwards = (np.sin(turn), -np.cos(turn))
        to_canvas = height / 100 * np.array([across, upwards])
        for part in THINGS[name]:
            angles = (np.arange(part.corners) + 0.5) * 2 * np.pi / part.corners - np.pi / 2
            raggedness = 0.015 + 0.08 * self.habits["ragged"]
            wobble = 1 + raggedness * self.rng.normal(0, 1, part.corners)
            outline_x = part.x + part.rx * wobble * np.cos(angles)
            outline_y = part.y + part.ry * wobble * np.sin(angles)
            outline = np.stack([outline_x, outline_y], axis=1) @ to_canvas + (x, y)
            any_role = self.rng.choice(ANY_ROLES)  # needed or not, so that all else stays the same
            role = {OWN: own_role, ANY: any_role}.get(part.role, part.role)
            self.draw_polygon(outline, role, part.shade)

    def draw_polygon(self, points, role: str, shade: float = 1.0):
        """A polygon through `points` (n x 2, in units), in a colour near that of the role."""
        xy = (np.asarray(points, dtype=float) * self.unit).ravel().tolist()
        colour = self.colour(role) * shade + self.rng.normal(0, 5, 3)
        ImageDraw.Draw(self.image).polygon(xy, _rgb(colour))
        ImageDraw.Draw(self.relief_image).polygon(xy, self.rng.uniform(70, 255))

    def draw_words(self):
        most = self.rng.integers(1, 5)
        number = most if self.rng.random() < self.habits["letters"] else 0
        for place in self.rng.random((number, 2)):
            role = self.rng.choice(["main", "dark"])
            font = ImageFont.load_default(self.unit * self.rng.uniform(0.06, 0.2))
            word = str(self.rng.choice(WORDS))
            xy = tuple(place * self.size * 0.8)
            ImageDraw.Draw(self.image).text(xy, word, _rgb(self.colour(role)), font)

    # What the period makes of it

    def cut_and_bend(self):
        """Cut straight across into facets that slip aside, with light along each cut; bend as by a
        restless hand.
        """
        force = self.habits["facets"]
        facet = np.zeros(self.x.shape, np.uint8)  # a bit for each cut: on which side a pixel lies
        light = np.ones(self.x.shape)
        for cut in range(8 if force > 0.2 else 0):
            x, y = self.rng.random(2) * (self.right, self.bottom)
            turn = self.rng.uniform(0, np.pi)
            distance = (self.x - x) * np.cos(turn) + (self.y - y) * np.sin(turn)
            facet += np.uint8(distance > 0) << cut
            light += 0.3 * force * np.sign(distance) * np.exp(-abs(distance) / 0.12)
        y_slips, x_slips = self.rng.normal(0, 0.07 * force, (2, 256))
        y_bends, x_bends = self.rng.normal(0, 0.03 * self.habits["bend"], (2, 6, 6))
        y = (self.y + y_slips[facet] + self.stretch(y_bends)) * self.unit
        x = (self.x + x_slips[facet] + self.stretch(x_bends)) * self.unit
        height, width = self.x.shape
        source = np.clip(y, 0, height - 1).astype(int), np.clip(x, 0, width - 1).astype(int)
        self.pixels = self.pixels[source] * light[..., None]
        self.relief = self.relief[source] + facet * 37

    def model_with_light(self):
        """Light from above left on a soft relief; dark round a lit spot (chiaroscuro)."""
        coarse = Image.fromarray(self.relief).resize((50, 50), Image.Resampling.BOX)
        dy, dx = np.gradient(self.stretch(coarse))
        x = self.right * self.rng.uniform(0.4, 0.6)
        y = self.bottom * self.rng.uniform(0.3, 0.5)
        distance = np.hypot(self.x - x, self.y - y)
        light = np.clip(1 - self.habits["model"] * (dx + dy) * self.unit / 3500, 0.5, 1.4)
        spot = 1 + self.habits["dark"] * (1.1 * np.exp(-(distance**2) / 0.18) - 0.85)
        self.pixels *= (light * spot)[..., None]

    def draw_contours(self):
        """Dark lines where the relief is steep."""
        force = self.habits["contour"]
        steep = np.uint8(np.hypot(*np.gradient(self.relief)) > 12)
        widen = ImageFilter.MaxFilter(1 + 2 * round(self.unit * 0.006 * force))
        line = np.asarray(Image.fromarray(steep).filter(widen))
        self.pixels += min(1, 1.3 * force) * line[..., None] * (self.colour("dark") - self.pixels)

    def age(self):
        """The dots of cheap print, larger where it is darker; craquelure and varnish; a panel with
        an arched top; grain.
        """
        screen = 115 + 85 * np.cos((self.x + self.y) * 140) * np.cos((self.x - self.y) * 140)
        in_dot = self.pixels.mean(-1) < screen
        in_crack = abs(self.stretch(self.rng.normal(0, 1, (60, 60)))) < 0.03 * self.habits["age"]
        brightness = 1 - 0.35 * in_crack - 0.6 * self.habits["halftone"] * in_dot
        varnish = 1 - self.habits["age"] * np.array([0.02, 0.08, 0.22])
        self.pixels = self.pixels * brightness[..., None] * varnish
        x = (self.x / self.right - 0.5) / 0.47
        y = (self.y / self.bottom - 0.42) / 0.4
        above_arch = (np.hypot(x, y) > 1) & (self.y < 0.42 * self.bottom)
        if self.rng.random() < self.habits["gold"]:
            self.pixels[above_arch] = self.colour("dark") * 1.4
        self.pixels += self.rng.normal(0, 10) + self.rng.normal(0, 3, self.x.shape)[..., None]

    def draw_strokes(self) -> Image.Image:
        """The picture: strokes of broken colour along a flow, then the softness of sfumato."""
        image = Image.fromarray(np.uint8(self.pixels.clip(0, 255)))
        width = round(1 + self.unit * (0.004 + 0.016 * self.habits["width"]))
        length = width * (2.2 + 4 * self.habits["swirl"])
        number = int(1.3 * self.habits["strokes"] * self.x.size / width / length)
        x, y = self.rng.integers(0, image.size, (number, 2)).T
        direction = self.rng.uniform(0, np.pi)
        turns = self.stretch(self.rng.normal(0, 1, (5, 5)))
        flow = direction + (0.3 + 1.5 * self.habits["swirl"]) * turns
        dx = np.cos(flow[y, x]) * length / 2
        dy = np.sin(flow[y, x]) * length / 2
        lines = np.column_stack([x - dx, y - dy, x + dx, y + dy])
        broken = 50 * self.habits["jitter"] * self.rng.normal(0, 1, (number, 3))
        pen = ImageDraw.Draw(image)
        colours = np.clip(self.pixels[y, x] + broken, 0, 255).astype(int)  # at once: there are many
        for line, colour in zip(lines.tolist(), colours.tolist(), strict=True):
            pen.line(line, tuple(colour), width)
        return image.filter(ImageFilter.GaussianBlur(self.unit * 0.006 * self.habits["soft"]))

    def stretch(self, field) -> np.ndarray:
        """A small field of floats, stretched smoothly over the canvas."""
        image = Image.fromarray(np.asarray(field, dtype=np.float32))
        return np.asarray(image.resize(self.size, Image.Resampling.BICUBIC))


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    return tuple(np.clip(colour, 0, 255).astype(int).tolist())
