"""The page on which a person labels pictures in a notebook: the next twenty, one key each, and the
curve of the accuracy so far.

An anywidget: its script catches the keys, which JupyterLab would take for commands (`a` adds a cell,
`x` cuts it), and this class stores what they mean. Each decision is in the catalogue before the page
says so. Made by `label_page.widget`.
"""

import io
import sqlite3
from html import escape
from pathlib import Path

import anywidget
import traitlets

from artclf.base.errors import InputError
from artclf.lab import labelling
from artclf.results import pages

STATIC = Path(__file__).parent / "static"
PICTURE = 380  # px of the longer side
DPI = 100


class LabelPage(anywidget.AnyWidget):
    """The pages of a `labelling.Labelling`, one after the other.

    The script sends `{'act': 'decide', 'place': ..., 'choice': ...}` or `{'act': 'undo'}`, and gets
    its `act` back once the attributes say what is stored.
    """

    _esm = STATIC / "label_page.js"
    _css = STATIC / "label_page.css"
    choices = traitlets.List().tag(sync=True)
    page = traitlets.List().tag(sync=True)  # dicts: place, picture, title, facts
    decisions = traitlets.List().tag(sync=True)  # of each picture of the page, '' for none
    current = traitlets.Int(0).tag(sync=True)  # where a new page, or an undo, leads to
    counts = traitlets.Unicode().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    estimate = traitlets.Unicode().tag(sync=True)
    curve = traitlets.Unicode().tag(sync=True)  # a data URL, '' before the first estimate

    def __init__(self, task: labelling.Labelling):
        self.task = task
        self.places: list[int] = []
        super().__init__(choices=labelling.keys(task.classes))
        self._turn()
        self.on_msg(self._answer)

    def _repr_mimebundle_(self, **kwargs):
        """The page, and a line that a notebook without its kernel shows in its place."""
        line = f"Labels of {self.task.data}: run this cell in JupyterLab or VS Code to go on."
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/plain": line, "text/html": f"<p>{escape(line)}</p>"}, metadata

    def _answer(self, widget, message: dict, buffers):
        """Do what a key asks, and tell the script when it is done.

        What a person can mend is told on the page; a bug is raised.
        """
        try:
            if message["act"] == "undo":
                self._undo()
            else:
                self.said = ""
                self.task.decide(message["place"], message["choice"])
        except (InputError, OSError, sqlite3.Error) as error:
            self.said = f"not done: {error}"
        finally:
            self._show()
            if self.places and all(self.decisions):
                self._turn()
            self.send({"act": message["act"]})

    def _undo(self):
        taken_back = self.task.undo()
        self.said = "taken back" if taken_back else "nothing to undo"
        for place in taken_back:
            if place not in self.places and place in self.task.undecided:
                self._put([place, *self.places])
            if place in self.places:
                self.current = self.places.index(place)

    def _turn(self):
        """Learn from what is labelled, and show the next pictures and the curve.

        Where nothing is left, the page is empty.
        """
        table = self.task.record()
        self.estimate = labelling.describe(table)
        self.curve = "" if table.empty else _png(labelling.plot_curve(table))
        self._put(self.task.next_page())
        self._show()

    def _put(self, places):
        """Show the pictures at `places`."""
        self.places = [int(place) for place in places]
        self.current = 0
        rows = self.task.rows.loc[self.places]
        texts = rows[["title", "artist", "year"]].astype(object).fillna("")
        pictures = pages.thumbnails(self.task.files(self.places), self.task.data, PICTURE)
        self.page = [
            {
                "place": place,
                "picture": picture,
                "title": str(facts.title),
                "facts": ", ".join(filter(None, (facts.artist, facts.year.removesuffix(".0")))),
            }
            for place, picture, facts in zip(self.places, pictures, texts.itertuples(), strict=True)
        ]

    def _show(self):
        """Show what is stored."""
        self.decisions = [self.task.decision(place) for place in self.places]
        counts = self.task.counts()
        self.counts = " · ".join(f"{number} {name}" for name, number in counts.items())


def _png(figure) -> str:
    """A Figure as a data URL."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, bbox_inches="tight")
    return pages.data_url(stream.getvalue(), "image/png")
