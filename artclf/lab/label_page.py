"""The page on which a person labels pictures, or, in a plain run, as a Figure.

Reads the pictures of `DATA` that have no label; what a person decides is written by `data.review`.
Notebook: `experiments/21_label`.
"""

from collections.abc import Sequence

from artclf.base.extras import require
from artclf.lab import labelling
from artclf.results import plots, review_page


def show(data, periods: Sequence[str] = (), **options):
    """The page where a person can press keys; in a plain run the pictures of the next page as a
    Figure, None where none is left.

    `periods` and `options` are those of `labelling.Labelling`.
    """
    task = labelling.Labelling(data, periods, **options)
    if review_page.somebody_there():
        return widget(task)
    print(", ".join(f"{number} {name}" for name, number in task.counts().items()))
    places = task.next_page()
    if not len(places):
        return None
    files = [task.data / file for file in task.files(places)]
    return plots.plot_pictures(files, [""] * len(files))


def widget(task: labelling.Labelling):
    """The page of a `Labelling` as an anywidget: each decision is in the catalogue at once."""
    require("lab", "anywidget")
    from artclf.lab.label_widget import LabelPage

    return LabelPage(task)
