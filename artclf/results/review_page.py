"""The review in a notebook: flagged pictures with buttons, or, in a plain run, as a Figure.

Reads the flagged pictures of `DATA`; what a person decides is written by `data.review`. Shown in
`02_clean`.
"""

import textwrap
from importlib.util import find_spec
from pathlib import Path

from artclf.base.extras import require
from artclf.data.review import queue
from artclf.data.suggestions import shown_path
from artclf.results import plots


def show(data, flagged, n: int = 24, file=None):
    """The widget where a person can click; in a plain run the first `n` pictures as a Figure. None
    without pictures.

    `file` is the `review.csv` that the widget exports to (DATA/review.csv).
    """
    if somebody_there():
        if find_spec("ipywidgets"):
            print(
                "Every press is in the catalogue at once. When the notebook was closed, run this cell again."
            )
            return widget(data, flagged, file)
        print('for buttons instead of a picture: pip install -e ".[lab]" in the clone of artclf')
    rows = queue(data, flagged).head(n)
    if rows.empty:
        return print("no picture is flagged")
    files = [Path(data) / shown_path(data, row) for row in rows.to_dict("records")]
    return plots.plot_pictures(files, [_caption(row) for row in rows.itertuples()])


def widget(data, flagged, file=None):
    """The pages of pictures with their buttons, as an ipywidgets box: each press is in the
    catalogue at once.
    """
    require("lab", "ipywidgets")
    from artclf.results.review_widget import Review

    return Review(data, flagged, file or Path(data) / "review.csv")


def _caption(row) -> str:
    lines = (
        row.reasons,
        f"{row.period} → {row.likelier}" if row.likelier else row.period,
        row.review,
    )
    return "\n".join(textwrap.shorten(line, 34, placeholder=" …") for line in lines if line)


def somebody_there() -> bool:
    """Whether a front end with a person runs the cell: it lets the cell ask questions, which
    nbclient does not.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if not hasattr(shell, "get_parent"):  # no kernel
        return False
    return bool(shell.get_parent().get("content", {}).get("allow_stdin"))
