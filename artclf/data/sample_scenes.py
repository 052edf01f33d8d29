"""What the drawn canvases show: things, made of simple shapes, and scenes, made of things."""

from dataclasses import dataclass

OWN = "own"  # one colour for all parts of a thing that have this role, drawn by chance
ANY = "any"  # a colour for each part that has this role, drawn by chance


@dataclass(frozen=True)
class Part:
    """A shape of a thing: an ellipse, or a polygon with `corners`.

    Its centre is at (`x`, `y`), right of and above the foot of the thing; `rx` and `ry` are its
    radii; all four in hundredths of the thing's height. `role` says which colour of the period it
    has (`ROLES`, `OWN` or `ANY`), `shade` by how much lighter than that it is.
    """

    role: str
    x: float
    y: float
    rx: float
    ry: float
    shade: float = 1.0
    corners: int = 28


@dataclass(frozen=True)
class Scene:
    """What a motif shows. Places and heights are shares of the height of the canvas."""

    horizon: float  # where the first ridge lies; 2 is below the canvas
    roughness: float  # of the ridges
    ridges: tuple[str, ...]  # the roles of their colours, from far to near
    sun: float  # the chance of one
    things: tuple[str, ...]  # one that is listed twice is drawn twice as often
    count: tuple[int, int]  # how many things: from, to (exclusive)
    feet: tuple[float, float]  # where the farthest and the nearest thing stands
    heights: tuple[float, float]  # of the farthest and the nearest thing
    scatter: float  # how far things stand from an even row
    tilt: float  # how far things lean, in radians


THINGS = {
    "figure": [
        Part("dark", 0, 89, 9, 12, shade=1.5),  # hair
        Part(OWN, 0, 62, 13, 14),  # shoulders
        Part(OWN, 0, 32, 25, 63, corners=3),  # robe
        Part(OWN, 0, 25, 10, 50, shade=1.2, corners=3),  # a fold of the robe
        Part("light", 1, 48, 9, 4, shade=0.95),  # hands
        Part("light", 0, 80, 3, 6, shade=0.8),  # neck
        Part("light", 0, 89, 6.5, 9),  # face
        Part("dark", 0, 97, 7, 3, shade=1.5),  # fringe
        Part("light", -2.7, 90, 1.4, 0.7, shade=1.3),  # eyes
        Part("light", 2.7, 90, 1.4, 0.7, shade=1.3),
        Part("dark", -2.7, 90, 0.6, 0.6),  # pupils
        Part("dark", 2.7, 90, 0.6, 0.6),
        Part("dark", -2.7, 92, 1.6, 0.3, shade=1.6),  # eyebrows
        Part("dark", 2.7, 92, 1.6, 0.3, shade=1.6),
        Part("light", 0.5, 87, 0.9, 1.8, shade=0.85),  # nose
        Part("light", 0, 84, 1.8, 0.5, shade=0.6),  # mouth
    ],
    "tree": [
        Part("dark", 0, 30, 5, 43, shade=1.6, corners=4),
        Part("second", -14, 60, 18, 17, shade=0.75),
        Part("second", 15, 66, 17, 17, shade=0.85),
        Part("second", 0, 78, 20, 19, shade=0.75),
    ],
    "flowers": [
        Part(ANY, 0, 0, 9, 9),
        Part(ANY, 40, 15, 9, 9),
        Part(ANY, -35, 25, 9, 9),
        Part(ANY, 70, -20, 9, 9),
        Part(ANY, 20, 45, 9, 9),
        Part(ANY, -60, -10, 9, 9),
    ],
    "vase": [
        Part("second", 0, 20, 20, 22),
        Part("second", 0, 42, 8, 20),
        Part(ANY, -20, 65, 11, 11),
        Part(ANY, 0, 60, 12, 12),
        Part(ANY, 18, 70, 11, 11),
        Part(ANY, -8, 84, 12, 12),
    ],
    "bottle": [
        Part("dark", 0, 25, 14, 36, shade=1.8, corners=4),
        Part("dark", 0, 70, 5, 40, shade=1.8, corners=4),
        Part("light", 0, 30, 10, 18, shade=0.9, corners=4),
    ],
    "stack": [
        Part("accent", 0, 30, 60, 50, shade=0.95),
    ],
    "boat": [
        Part("light", 10, 45, 45, 60, corners=3),  # the sail
        Part("dark", 0, 8, 50, 12, corners=4),
    ],
    "cone": [
        Part("dark", 90, 0, 80, 6, shade=1.3),  # its shadow
        Part(OWN, 0, 33, 35, 67, corners=3),
    ],
    "egg": [
        Part("dark", 40, 0, 30, 4, shade=1.3),  # its shadow
        Part(OWN, 0, 120, 25, 35),
    ],
    "halo": [
        Part("accent", 0, 89, 18, 18, shade=1.15),
    ],
    "pole": [
        Part("dark", 0, 0, 4, 900, corners=4),
    ],
    "square": [
        Part(OWN, 0, 0, 50, 50, corners=4),
    ],
    "plank": [
        Part(OWN, 0, 0, 90, 30, corners=4),
    ],
    "wedge": [
        Part(OWN, 0, 0, 60, 60, corners=3),
    ],
    "sun": [
        Part("light", 0, 0, 8, 8, shade=1.25),
    ],
    "disc": [
        Part(OWN, 0, 0, 45, 45),
    ],
    "bar": [
        Part("dark", 0, 0, 900, 4, corners=4),
    ],
    "fruit": [
        Part(OWN, 0, 15, 16, 15),
    ],
    "floor": [
        Part("ground", 0, -200, 400, 200, shade=1.2, corners=3),
        Part("ground", 0, -200, 250, 200, shade=0.8, corners=3),
        Part("ground", 0, -200, 110, 200, shade=1.2, corners=3),
    ],
    "columns": [
        Part("sky", -63, 50, 9, 70, shade=1.2, corners=4),
        Part("sky", -21, 50, 9, 70, shade=1.2, corners=4),
        Part("sky", 21, 50, 9, 70, shade=1.2, corners=4),
        Part("sky", 63, 50, 9, 70, shade=1.2, corners=4),
    ],
}


SCENES = {
    "group": Scene(
        horizon=0.5,
        roughness=0.05,
        ridges=("second", "ground"),
        sun=0,
        things=("figure",),
        count=(2, 6),
        feet=(0.9, 1.02),
        heights=(0.5, 0.85),
        scatter=0.05,
        tilt=0.02,
    ),
    "portrait": Scene(
        horizon=0.55,
        roughness=0.05,
        ridges=("second", "ground"),
        sun=0,
        things=("figure",),
        count=(1, 2),
        feet=(1.9, 2.3),
        heights=(1.7, 2.2),
        scatter=0.05,
        tilt=0.02,
    ),
    "still": Scene(
        horizon=0.6,
        roughness=0.001,
        ridges=("ground",),
        sun=0,
        things=("vase", "bottle", "fruit", "fruit", "fruit"),
        count=(5, 9),
        feet=(0.66, 0.9),
        heights=(0.4, 0.5),
        scatter=0.15,
        tilt=0,
    ),
    "land": Scene(
        horizon=0.5,
        roughness=0.06,
        ridges=("main", "second", "ground", "ground"),
        sun=0.7,
        things=("tree", "tree", "figure"),
        count=(2, 7),
        feet=(0.6, 0.97),
        heights=(0.15, 0.45),
        scatter=0.2,
        tilt=0.04,
    ),
    "field": Scene(
        horizon=0.5,
        roughness=0.015,
        ridges=("ground", "ground", "ground"),
        sun=0.4,
        things=("tree", "stack", "figure", "figure"),
        count=(3, 7),
        feet=(0.6, 0.97),
        heights=(0.15, 0.4),
        scatter=0.2,
        tilt=0.04,
    ),
    "garden": Scene(
        horizon=0.4,
        roughness=0.06,
        ridges=("main", "second", "ground"),
        sun=0.4,
        things=("tree", "figure", "flowers", "flowers"),
        count=(6, 14),
        feet=(0.5, 1),
        heights=(0.15, 0.4),
        scatter=0.2,
        tilt=0,
    ),
    "sea": Scene(
        horizon=0.45,
        roughness=0.02,
        ridges=("second", "sky", "second", "sky", "second"),
        sun=0.9,
        things=("boat",),
        count=(2, 7),
        feet=(0.5, 0.97),
        heights=(0.1, 0.35),
        scatter=0.2,
        tilt=0.1,
    ),
    "dream": Scene(
        horizon=0.5,
        roughness=0.001,
        ridges=("ground",),
        sun=0.6,
        things=("cone", "egg", "egg"),
        count=(2, 7),
        feet=(0.55, 0.95),
        heights=(0.15, 0.4),
        scatter=0.2,
        tilt=0.15,
    ),
    "shapes": Scene(
        horizon=2,
        roughness=0,
        ridges=(),
        sun=0,
        things=("square", "plank", "disc", "wedge", "bar", "pole"),
        count=(8, 16),
        feet=(0, 1),
        heights=(0.2, 0.6),
        scatter=0.3,
        tilt=0,
    ),
    "collage": Scene(
        horizon=2,
        roughness=0,
        ridges=(),
        sun=0,
        things=("square", "plank", "wedge", "bar", "figure"),
        count=(9, 16),
        feet=(0, 1.2),
        heights=(0.2, 0.7),
        scatter=0.3,
        tilt=0.5,
    ),
}
