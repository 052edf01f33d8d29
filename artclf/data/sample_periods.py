"""The 18 periods of the drawn canvases: years, colours, habits and motifs of each.

`sample_canvas` draws by these tables, `sample_scenes` says what a motif shows.
"""

from dataclasses import dataclass

import numpy as np
from PIL import ImageColor

# What the seven colours of a period are for.
ROLES = ("sky", "ground", "light", "main", "second", "accent", "dark")

# What a habit does to a canvas; its strength is from 0 to 1.
HABITS = {
    "strokes": "how densely brush strokes cover the canvas",
    "width": "the width of the strokes",
    "swirl": "how much the direction of the strokes turns, and their length",
    "jitter": "how much the colours of the strokes differ",
    "bend": "how much the whole scene is bent",
    "ragged": "how ragged outlines are",
    "contour": "how wide and dark contours are",
    "facets": "how strongly the scene is cut into facets that slip aside",
    "model": "how strongly light models the shapes",
    "dark": "how dark it is round the lit spot (chiaroscuro)",
    "soft": "how blurred all is (sfumato)",
    "age": "craquelure and yellowed varnish",
    "gold": "the chance of a golden sky, and of a panel with an arched top",
    "symmetry": "how evenly things stand",
    "floor": "the chance of a floor in perspective",
    "columns": "the chance of columns",
    "halftone": "how strongly the dots of cheap print show",
    "letters": "the chance of printed words",
    "long": "how slim all things are",
    "halo": "the chance that a figure has a halo",
}


@dataclass(frozen=True)
class Period:
    """A period: its first and last year, a colour (#rgb) for each of `ROLES`, the strengths of
    `HABITS` from 1 to 9 (0 where missing), and its motifs; one that is listed twice is drawn twice
    as often.
    """

    years: tuple[int, int]
    colours: dict[str, str]
    habits: dict[str, int]
    motifs: tuple[str, ...]

    def palette(self) -> np.ndarray:
        """The colours as floats from 0 to 255, of shape (roles, 3)."""
        return np.array([ImageColor.getrgb(self.colours[role]) for role in ROLES], float)

    def strength(self, habit: str) -> float:
        """The strength of a habit, from 0 to 1."""
        return self.habits.get(habit, 0) / 9


PERIODS = {
    "01-early_renaissance": Period(
        years=(1401, 1489),
        colours={
            "sky": "#ca7",
            "ground": "#974",
            "light": "#eca",
            "main": "#348",
            "second": "#a33",
            "accent": "#da4",
            "dark": "#322",
        },
        habits={"contour": 3, "model": 3, "age": 7, "gold": 8, "symmetry": 9, "halo": 9},
        motifs=("group", "group", "portrait"),
    ),
    "02-high_renaissance": Period(
        years=(1490, 1527),
        colours={
            "sky": "#9aa",
            "ground": "#764",
            "light": "#ec9",
            "main": "#843",
            "second": "#457",
            "accent": "#c95",
            "dark": "#321",
        },
        habits={
            "model": 8,
            "dark": 3,
            "soft": 5,
            "age": 5,
            "symmetry": 7,
            "floor": 5,
            "columns": 2,
            "halo": 2,
        },
        motifs=("group", "portrait", "portrait"),
    ),
    "03-northern_renaissance": Period(
        years=(1430, 1570),
        colours={
            "sky": "#565",
            "ground": "#543",
            "light": "#edb",
            "main": "#722",
            "second": "#243",
            "accent": "#edd",
            "dark": "#111",
        },
        habits={"contour": 3, "model": 7, "dark": 3, "age": 3, "floor": 7},
        motifs=("portrait", "portrait", "group", "still"),
    ),
    "04-mannerism": Period(
        years=(1525, 1600),
        colours={
            "sky": "#578",
            "ground": "#665",
            "light": "#edb",
            "main": "#d68",
            "second": "#8b5",
            "accent": "#e94",
            "dark": "#223",
        },
        habits={"bend": 3, "model": 8, "dark": 3, "columns": 3, "long": 9},
        motifs=("group", "group", "portrait"),
    ),
    "05-baroque": Period(
        years=(1601, 1719),
        colours={
            "sky": "#432",
            "ground": "#322",
            "light": "#ec8",
            "main": "#a22",
            "second": "#742",
            "accent": "#d94",
            "dark": "#100",
        },
        habits={"strokes": 3, "width": 3, "model": 9, "dark": 8, "age": 4},
        motifs=("group", "portrait", "still"),
    ),
    "06-rococo": Period(
        years=(1710, 1779),
        colours={
            "sky": "#bcd",
            "ground": "#9a8",
            "light": "#fed",
            "main": "#e9a",
            "second": "#9cb",
            "accent": "#ed8",
            "dark": "#655",
        },
        habits={"strokes": 4, "width": 2, "swirl": 9, "jitter": 2, "model": 5, "soft": 3},
        motifs=("group", "portrait", "garden", "garden"),
    ),
    "07-neoclassicism": Period(
        years=(1765, 1829),
        colours={
            "sky": "#aa9",
            "ground": "#887",
            "light": "#edb",
            "main": "#a32",
            "second": "#edd",
            "accent": "#458",
            "dark": "#333",
        },
        habits={"contour": 1, "model": 6, "symmetry": 6, "floor": 8, "columns": 9},
        motifs=("group", "group", "portrait"),
    ),
    "08-romanticism": Period(
        years=(1795, 1859),
        colours={
            "sky": "#568",
            "ground": "#433",
            "light": "#ec8",
            "main": "#633",
            "second": "#455",
            "accent": "#e84",
            "dark": "#112",
        },
        habits={
            "strokes": 4,
            "width": 4,
            "swirl": 8,
            "jitter": 1,
            "ragged": 3,
            "model": 4,
            "dark": 7,
        },
        motifs=("sea", "sea", "sea", "land"),
    ),
    "09-realism": Period(
        years=(1840, 1889),
        colours={
            "sky": "#ba9",
            "ground": "#764",
            "light": "#db9",
            "main": "#654",
            "second": "#564",
            "accent": "#854",
            "dark": "#222",
        },
        habits={"strokes": 4, "width": 3, "jitter": 1, "ragged": 3, "model": 5, "dark": 1},
        motifs=("field", "field", "portrait", "land", "still"),
    ),
    "10-impressionism": Period(
        years=(1865, 1899),
        colours={
            "sky": "#bcd",
            "ground": "#9b7",
            "light": "#feb",
            "main": "#89c",
            "second": "#aac",
            "accent": "#ea7",
            "dark": "#568",
        },
        habits={"strokes": 9, "width": 2, "jitter": 6, "ragged": 3, "soft": 1},
        motifs=("land", "garden", "sea", "field"),
    ),
    "11-post-impressionism": Period(
        years=(1884, 1909),
        colours={
            "sky": "#58c",
            "ground": "#ba4",
            "light": "#fd7",
            "main": "#36a",
            "second": "#485",
            "accent": "#e73",
            "dark": "#235",
        },
        habits={"strokes": 9, "width": 3, "swirl": 7, "jitter": 4, "ragged": 3, "contour": 2},
        motifs=("land", "field", "still", "garden", "portrait"),
    ),
    "12-fauvism": Period(
        years=(1899, 1914),
        colours={
            "sky": "#3ac",
            "ground": "#eb3",
            "light": "#fa8",
            "main": "#d32",
            "second": "#384",
            "accent": "#e71",
            "dark": "#228",
        },
        habits={"strokes": 5, "width": 8, "jitter": 4, "bend": 1, "ragged": 3, "contour": 4},
        motifs=("land", "sea", "portrait", "still"),
    ),
    "13-expressionism": Period(
        years=(1905, 1932),
        colours={
            "sky": "#d52",
            "ground": "#454",
            "light": "#dc7",
            "main": "#247",
            "second": "#824",
            "accent": "#ea2",
            "dark": "#111",
        },
        habits={
            "strokes": 6,
            "width": 7,
            "swirl": 5,
            "jitter": 3,
            "bend": 9,
            "ragged": 5,
            "contour": 9,
        },
        motifs=("portrait", "land", "group", "field"),
    ),
    "14-cubism": Period(
        years=(1907, 1924),
        colours={
            "sky": "#a98",
            "ground": "#775",
            "light": "#dc9",
            "main": "#555",
            "second": "#874",
            "accent": "#a85",
            "dark": "#222",
        },
        habits={"strokes": 2, "width": 2, "contour": 1, "facets": 9, "letters": 2},
        motifs=("still", "still", "portrait"),
    ),
    "15-surrealism": Period(
        years=(1922, 1959),
        colours={
            "sky": "#7ac",
            "ground": "#da6",
            "light": "#edc",
            "main": "#a43",
            "second": "#478",
            "accent": "#ec5",
            "dark": "#323",
        },
        habits={"bend": 2, "model": 8, "soft": 2},
        motifs=("dream", "dream", "dream", "still"),
    ),
    "16-modernism": Period(
        years=(1915, 1965),
        colours={
            "sky": "#eed",
            "ground": "#ccb",
            "light": "#fee",
            "main": "#c32",
            "second": "#259",
            "accent": "#eb2",
            "dark": "#111",
        },
        habits={"contour": 1},
        motifs=("shapes", "shapes", "shapes", "dream"),
    ),
    "17-dadaism": Period(
        years=(1916, 1926),
        colours={
            "sky": "#dca",
            "ground": "#a97",
            "light": "#edc",
            "main": "#b32",
            "second": "#455",
            "accent": "#c95",
            "dark": "#111",
        },
        habits={"ragged": 7, "age": 3, "letters": 9},
        motifs=("collage", "collage", "shapes", "portrait"),
    ),
    "18-pop-art": Period(
        years=(1955, 1979),
        colours={
            "sky": "#fd2",
            "ground": "#e48",
            "light": "#fdb",
            "main": "#e22",
            "second": "#27d",
            "accent": "#ffe",
            "dark": "#111",
        },
        habits={"contour": 8, "halftone": 9, "letters": 6},
        motifs=("portrait", "portrait", "still", "shapes"),
    ),
}
