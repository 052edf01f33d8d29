"""A canvas drawn by code: scenes made of flat shapes, and the treatments that turn them into a period's painting.

`Canvas` reads habits from 0 to 1 (the table is in `sample.py`) and gives a picture; NumPy and Pillow only.
"""
from collections import defaultdict
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROLES = ("sky", "ground", "light", "main", "second", "accent", "dark")  # what the seven colours of a palette are for
WORDS = ("POP", "WOW!", "DADA", "ART", "Merz", "No 5", "JOURNAL", "BANG", "da da", "?!")
FACE = ((-.3, 1.12, .15, .07, "light", 1.2), (.3, 1.12, .15, .07, "light", 1.2), (-.3, 1.12, .065, .07, "dark", .8),
        (.3, 1.12, .065, .07, "dark", .8), (-.3, .86, .18, .025, "dark", 1.6), (.3, .86, .18, .025, "dark", 1.6),
        (.06, 1.42, .1, .2, "light", .85), (0, 1.78, .2, .05, "light", .62))  # x, y, radii in heads, role, shade


class Canvas:
    """A scene in the making: flat shapes, and the relief that light will model. Its shorter side is one unit long."""

    def __init__(self, rng, width: int, height: int, colours, habits: dict):
        self.rng, self.pick, self.h, self.colours = rng, rng.choice, defaultdict(float, habits), colours
        self.unit = min(width, height)
        self.right, self.bottom = width / self.unit, height / self.unit
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32) / self.unit
        self.image, self.relief = Image.new("RGB", (width, height)), Image.new("L", (width, height))
        self.pens = ImageDraw.Draw(self.image), ImageDraw.Draw(self.relief)
        self.box(0, 0, 9, 9, "sky")

    def shape(self, points, role, shade=1.0):
        """A polygon through `points` (n x 2, in units)."""
        xy = (np.asarray(points, dtype=float) * self.unit).ravel().tolist()
        rgb = np.clip(self.colours[ROLES.index(role)] * shade + self.rng.normal(0, 5, 3), 0, 255)
        self.pens[0].polygon(xy, fill=tuple(rgb.astype(int).tolist()))
        self.pens[1].polygon(xy, fill=int(self.rng.integers(70, 256)))

    def box(self, x, y, rx, ry, role, shade=1.0):
        self.shape([(x - rx, y - ry), (x + rx, y - ry), (x + rx, y + ry), (x - rx, y + ry)], role, shade)

    def blob(self, x, y, rx, ry, role, shade=1.0, wobble=0.0, turn=0.0, corners=28):
        """An ellipse, or with few `corners` a polygon, whose outline wobbles."""
        angle = (np.arange(corners) + .5) * 2 * np.pi / corners
        rx, ry = np.array([[rx], [ry]]) * (1 + wobble * self.rng.normal(0, 1, corners))
        dx, dy, cos, sin = rx * np.cos(angle), ry * np.sin(angle), np.cos(turn), np.sin(turn)
        self.shape(np.stack([x + dx * cos - dy * sin, y + dx * sin + dy * cos], 1), role, shade)

    def ridge(self, y, rough, role, shade=1.0):
        """All that lies below an uneven horizon at height `y`."""
        x = np.linspace(0, self.right, 40)
        waves = sum(self.rng.normal(0, rough / k) * np.sin(k * 3 * x + self.rng.uniform(0, 6)) for k in (1, 2, 3, 7))
        self.shape([(0, self.bottom), *np.stack([x, y + waves], 1), (self.right, self.bottom)], role, shade)

    def figure(self, x, foot, tall, role):
        """Somebody in a robe, with a halo where that is the habit."""
        top, head, wide = foot - tall, tall * (.09 - .025 * self.h["long"]), tall * (.2 - .06 * self.h["long"])
        lean = x + tall * self.rng.normal(0, .015 + .04 * self.h["long"])
        if self.rng.random() < self.h["halo"]: self.blob(lean, top + head, 2 * head, 2 * head, "accent", 1.15)
        self.blob(lean, top + 1.1 * head, head, 1.4 * head, "dark", 1.5, .04)
        for part, shade in ((1, 1), (.45, 1.2)):
            middle = np.array([(lean, top + 1.8 * head), (lean, top + 2.9 * head), (x, foot - .45 * tall), (x, foot)])
            half = np.array([(.3, 0), (.7, 0), (.7, 0), (1.1, 0)]) * wide * part
            self.shape([*(middle - half), *(middle + half)[::-1]], role, shade)
        self.blob(x, foot - .57 * tall, wide * .45, head * .4, "light", .95, 0, self.rng.normal(0, .4))
        self.blob(lean, top + 2 * head, .3 * head, .6 * head, "light", .8)
        self.blob(lean, top + 1.2 * head, .72 * head, head, "light")
        self.blob(lean, top + .35 * head, .75 * head, .35 * head, "dark", 1.5, .04)
        for dx, dy, rx, ry, tint, shade in FACE:
            self.blob(lean + dx * head, top + dy * head, rx * head, ry * head, tint, shade)

    def people(self, motif):
        """Figures before gold, hills or a hall; a portrait is one of them, seen from near."""
        self.backdrop()
        if motif == "portrait":
            tall, y = self.rng.uniform(1.8, 3), self.bottom * self.rng.uniform(.08, .22)
            return self.figure(self.right * self.rng.uniform(.42, .58), y + tall, tall, "main")
        n, loose = int(self.pick([1, 3, 3, 5])), .1 * (1 - self.h["symmetry"])
        for i in sorted(range(n), key=lambda i: -abs(i - n // 2)):
            side = (i - n // 2) / max(n, 3) + loose * self.rng.normal()
            self.figure(self.right * (.5 + side), self.bottom * self.rng.uniform(.93, 1.02),
                        self.bottom * (.8 - .4 * abs(side)), ("main", "second", "accent")[(i + n) % 3])
        return self.figure(self.right * .53, self.bottom * .78, self.bottom * .25, "accent")

    def backdrop(self):
        middle = self.right * (.5 + .1 * (1 - self.h["symmetry"]) * self.rng.normal())
        horizon, chance = self.bottom * .7, self.rng.random(3)
        if chance[0] < self.h["gold"]: self.box(0, 0, 9, 9, "accent", .95)
        elif chance[0] > .4: self.ridge(horizon * .7, .05, "second", .9), self.ridge(horizon * .87, .04, "ground")
        for i in range(-9, 9) if chance[1] < self.h["floor"] else ():
            far, near = middle + .06 * np.array([i, i + 1]), middle + .42 * np.array([i + 1, i])
            self.shape([*zip(far, [horizon] * 2, strict=True), *zip(near, [self.bottom] * 2, strict=True)],
                       "ground", 1.2 if i % 2 else .8)
        for x in np.linspace(.06, .94, self.rng.integers(2, 7)) * self.right if chance[2] < self.h["columns"] else ():
            for dx, rx, shade in ((0, .035, 1), (-.01, .02, 1.2), (.02, .015, .8)):
                self.box(x + dx, 0, rx, horizon, "sky", shade)
            for y in (.1, horizon): self.box(x, y, .055, .02, "sky", 1.25)

    def outdoors(self, motif):
        """Hills, fields, gardens, seas and deserts, each with what belongs there."""
        rng, horizon = self.rng, self.bottom * self.rng.uniform(.36, .62)
        self.blob(self.right * rng.uniform(.15, .85), horizon * rng.uniform(.4, 1), .08, .08, "light", 1.25)
        rough = {"sea": .02, "dream": .001, "field": .015}.get(motif, .06) * (1 + self.h["storm"])
        roles = {"sea": ("second", "sky") * 3, "dream": ("ground",), "field": ("ground",) * 3}
        for i, role in enumerate(roles.get(motif, ("main", "second", "ground", "ground"))):
            self.ridge(horizon + i * .11 * self.bottom, rough, role, 1.1 - .1 * i)
        for y in np.sort(rng.uniform(horizon + .06, self.bottom * .97, rng.integers(2, 7))):
            self.thing(motif, rng.uniform(.05, .95) * self.right, y, rng.uniform(.05, .12), horizon)
        for x, y in rng.uniform((0, horizon), (self.right, self.bottom), (80 * (motif == "garden"), 2)):
            self.blob(x, y, .015, .015, self.pick(["main", "accent", "light"]), 1.1)

    def thing(self, motif, x, y, r, horizon):
        """A boat, a dreamt object with its long shadow, a tree, a haystack or a person that stands at (x, y)."""
        kind, at = self.rng.random(), np.array((x, y))
        if motif == "sea":
            self.shape(at + r * np.array([(0, -2.5), (1, -.3), (0, -.3)]), "light")
            self.shape(at + r * np.array([(-1, -.2), (1, -.2), (.6, .2), (-.6, .2)]), "dark")
        elif motif == "dream":
            self.shape(at + r * np.array([(-1, 0), (1, 0), (5, .7), (4, .9)]), "dark", 1.3)
            lift, tall, corners = kind * horizon * (kind < .5), r * self.rng.uniform(.7, 2.2), self.pick([28, 28, 4, 3])
            self.blob(x, y - tall - lift, r, tall, self.pick(ROLES[2:]), 1, .03, self.rng.normal(0, .3), corners)
        elif motif == "land" or kind < .35:
            self.box(x, y - r, .014, 1.4 * r, "dark", 1.6)
            for dx, dy in self.rng.normal(0, .7, (6, 2)) * r: self.blob(x + dx, y - 3 * r + dy, r, r, "second", .75, .1)
        elif kind < .55: self.blob(x, y, 1.6 * r, 1.4 * r, "accent", .95, .05)
        else: self.figure(x, y + .05, 3.5 * r + .1, self.pick(["main", "light", "second"]))

    def still(self, _):
        """Flowers in a vase, a bottle and fruit on a table."""
        table, x = self.bottom * self.rng.uniform(.55, .7), self.right * self.rng.uniform(.3, .7)
        self.box(0, table + 9, 9, 9, "ground", 1.1)
        for dx, dy in self.rng.normal(0, .1, (16, 2)):
            self.blob(x + dx, table - .4 + dy, .05, .05, self.pick(["main", "accent", "light"]), 1, .12)
        for y, r in ((.08, .11), (.2, .05)): self.blob(x, table - y, r, .13, "second")
        for y, r in ((.12, .05), (.34, .02)): self.blob(self.right * .85, table - y, r, .2, "dark", 1.8)
        for fruit in self.rng.uniform(.1, .9, self.rng.integers(3, 9)) * self.right:
            self.blob(fruit, table + self.rng.uniform(0, .15), .075, .07, self.pick(["accent", "main", "light"]))

    def abstract(self, motif):
        """Rectangles, discs, bars; in a collage torn, turned, and round a figure."""
        torn, turn = motif == "collage", self.pick([0, 0, .3])
        for x, y in self.rng.random((self.rng.integers(7, 15), 2)) * (self.right, self.bottom):
            size, role, corners = self.rng.uniform(.06, .35, 2), self.pick(ROLES), self.pick([4, 4, 4, 3, 28])
            self.blob(x, y, *size, role, 1, .12 * torn, self.rng.normal(0, .6) if torn else turn, corners)
        for x, y in self.rng.random((self.rng.integers(2, 7), 2)) * (self.right, self.bottom):
            self.blob(x, y, 2, .012, "dark", 1, 0, turn + .6 * torn + self.pick([0, np.pi / 2]), 4)
        if torn: self.figure(self.right * .4, self.bottom * .97, .75 * self.bottom, "second")

    def paint(self, motif: str) -> Image.Image:
        """The picture of a motif, one of `SCENES`, as its period paints it: bent, cut up, modelled, stroked, aged."""
        SCENES[motif](self, motif)
        self.pixels, self.relief = np.asarray(self.image, dtype=np.float32), np.asarray(self.relief)
        for step in (self.bend, self.cut, self.model, self.flatten, self.outline, self.stroke, self.screen, self.age):
            step()
        self.pixels = 128 + (self.pixels - 128) * (1 + .3 * self.h["contrast"] + self.rng.normal(0, .08))
        self.pixels += self.rng.normal(0, 10) + self.rng.normal(0, 3, self.x.shape)[..., None]
        return self.letter(as_image(self.pixels))

    def noise(self, cells):
        """A smooth random field (height x width) of unit variance, `cells` bumps wide."""
        return stretch(self.rng.normal(0, 1, (cells, cells)), self.image.size)

    def slip(self, dx, dy):
        """Let every pixel come from a place (dx, dy) units away."""
        at = [np.clip((axis + shift) * self.unit, 0, end - 1).astype(int)
              for axis, shift, end in zip((self.y, self.x), (dy, dx), self.x.shape, strict=True)]
        self.pixels, self.relief = self.pixels[*at], self.relief[*at]

    def bend(self): self.slip(.03 * self.h["bend"] * self.noise(6), .03 * self.h["bend"] * self.noise(6))

    def cut(self):
        """Cut straight across; light falls off along each cut, and what lies in a facet slips aside (cubism)."""
        if self.h["facets"] < .2: return
        facet, light = np.zeros(self.x.shape, int), np.ones(self.x.shape)
        for k in range(8):
            (x, y), turn = self.rng.random(2) * (self.right, self.bottom), self.rng.uniform(0, np.pi)
            away = (self.x - x) * np.cos(turn) + (self.y - y) * np.sin(turn)
            facet += (away > 0) << k
            light += .3 * self.h["facets"] * np.sign(away) * np.exp(-abs(away) / .12)
        self.slip(*self.rng.normal(0, .07 * self.h["facets"], (2, 256))[:, facet])
        self.pixels, self.relief = self.pixels * light[..., None], self.relief + (facet * 37).astype(np.uint8)

    def model(self):
        """Light from above left on a soft relief, dark round a lit spot (chiaroscuro), clouds in a stormy sky."""
        soft = np.asarray(Image.fromarray(self.relief).filter(ImageFilter.GaussianBlur(self.unit * .02)))
        dy, dx = np.gradient(stretch(stretch(soft, (80, 80), Image.Resampling.BOX), self.image.size))
        light = np.clip(1 - self.h["model"] * (dx + dy) * self.unit / 3500, .5, 1.4)
        x, y = self.rng.uniform(.35, .65) * self.right, self.rng.uniform(.3, .5) * self.bottom
        spot = np.exp(-((self.x - x) ** 2 + (self.y - y) ** 2) / .18)
        self.pixels = self.pixels * (light * (1 + self.h["dark"] * (1.1 * spot - .85)))[..., None]
        self.pixels += (30 * self.h["storm"] * self.noise(7) * (self.y < self.bottom * .6))[..., None]

    def flatten(self):
        """Draw every pixel towards the nearest colour of the palette."""
        if self.h["flat"] < .2: return
        nearest = np.argmin([((self.pixels - colour) ** 2).sum(-1) for colour in self.colours], axis=0)
        self.pixels += self.h["flat"] * (self.colours[nearest] - self.pixels)

    def outline(self):
        edge = as_image(255 * (np.hypot(*np.gradient(self.relief.astype(np.float32))) > 12))
        wide = edge.filter(ImageFilter.MaxFilter(1 + 2 * round(self.unit * .006 * self.h["contour"])))
        line = np.asarray(wide.filter(ImageFilter.GaussianBlur(.8)))[..., None] / 255 * min(1, 1.3 * self.h["contour"])
        self.pixels += line * (self.colours[-1] - self.pixels)

    def stroke(self):
        """Dabs or dots of broken colour along a flow; then the softness of sfumato."""
        image, width = as_image(self.pixels), max(1, round(self.unit * (.006 + .016 * self.h["width"])))
        length, dotted = width * (2.2 + 4 * self.h["swirl"]), self.rng.random() < self.h["dots"]
        count = int(1.3 * self.h["strokes"] * self.x.size / width / length)
        at = (self.rng.random((count, 2)) * image.size).astype(int)
        angle = (self.rng.uniform(0, np.pi) + (.3 + 1.5 * self.h["swirl"]) * self.noise(5))[at[:, 1], at[:, 0]]
        half = np.full(at.shape, width) if dotted else np.stack([np.cos(angle), np.sin(angle)], 1) * length / 2
        rgb = self.pixels[at[:, 1], at[:, 0]] + 50 * self.h["jitter"] * self.rng.normal(0, 1, (count, 3))
        mark = ImageDraw.Draw(image).ellipse if dotted else partial(ImageDraw.Draw(image).line, width=width)
        boxes, fills = np.hstack([at - half, at + half]).tolist(), np.clip(rgb, 0, 255).astype(int).tolist()
        for box, fill in zip(boxes, fills, strict=True): mark(box, fill=tuple(fill))
        soft = image.filter(ImageFilter.GaussianBlur(float(self.unit * .006 * self.h["soft"])))
        self.pixels = np.asarray(soft, dtype=np.float32)

    def screen(self):
        """The dots of cheap print, larger where it is darker."""
        dots, grey = np.cos((self.x + self.y) * 140) * np.cos((self.x - self.y) * 140), self.pixels.mean(-1)
        self.pixels = self.pixels * (1 - .6 * self.h["halftone"] * ((grey < 115 + 85 * dots) & (grey > 40)))[..., None]

    def age(self):
        """An arched panel, craquelure, yellow varnish."""
        over = ((self.x / self.right - .5) / .47) ** 2 + ((self.y / self.bottom - .42) / .4) ** 2 > 1
        if self.rng.random() < self.h["arch"]: self.pixels[over & (self.y < .42 * self.bottom)] = self.colours[-1] * 1.4
        crack = (np.abs(self.noise(60)) < .03 * self.h["age"])[..., None]
        self.pixels = self.pixels * (1 - .35 * crack) * (1 - self.h["age"] * np.array([.02, .08, .22]))

    def letter(self, image):
        for _ in range(self.rng.integers(1, 5) if self.rng.random() < self.h["letters"] else 0):
            font = ImageFont.load_default(self.unit * self.rng.uniform(.06, .2))
            ink = tuple(self.colours[ROLES.index(self.pick(["main", "dark", "dark"]))].astype(int).tolist())
            ImageDraw.Draw(image).text(tuple(self.rng.random(2) * image.size * .8), str(self.pick(WORDS)), ink, font)
        return image


SCENES = {"group": Canvas.people, "portrait": Canvas.people, "still": Canvas.still, "shapes": Canvas.abstract,
          "collage": Canvas.abstract, **dict.fromkeys(("land", "field", "garden", "sea", "dream"), Canvas.outdoors)}


def as_image(pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def stretch(field, size, resample=Image.Resampling.BICUBIC):
    """A field of floats, resized to `size` (width, height)."""
    return np.asarray(Image.fromarray(np.asarray(field, dtype=np.float32)).resize(size, resample))
