"""Progress bars on standard error and in notebooks."""

import io
import sys

from tqdm import tqdm

SHORT = 0.5  # seconds: such work is done before a bar is read


def progress_bar(items=None, total: int | None = None, desc: str = "") -> tqdm:
    """A tqdm bar over `items`: on standard error if that is a terminal and the work takes longer than
    `SHORT` seconds, in a notebook in one line below the cell, elsewhere silent.
    """
    if not _in_notebook():
        return tqdm(items, total=total, desc=desc, file=sys.stderr, disable=None, delay=SHORT)
    return NotebookBar(items, total=total, desc=desc, file=io.StringIO(), ncols=80, mininterval=0.5)


class NotebookBar(tqdm):
    """A bar of plain text that is updated in place; tqdm's own takes ipywidgets."""

    handle = None  # of the output below the cell, once there is one

    def display(self, msg=None, pos=None):
        from IPython.display import display

        text = str(self) if msg is None else msg
        output = {"text/plain": text}
        if self.handle:
            self.handle.update(output, raw=True)
        elif text:
            self.handle = display(output, raw=True, display_id=True)


def show_line(text: str):
    """Print `text` in a line of its own on standard error, above the bars."""
    tqdm.write(text, file=sys.stderr)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"
