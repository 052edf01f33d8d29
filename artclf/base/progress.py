"""Progress: a bar for whoever waits."""

import io
import sys


def progress_bar(items=None, total: int | None = None, desc: str = ""):
    """A tqdm bar over `items` on standard error; in a notebook one line that is updated in place,
    elsewhere silent.
    """
    from tqdm import tqdm

    try:
        in_notebook = get_ipython().__class__.__name__ == "ZMQInteractiveShell"
    except NameError:
        in_notebook = False
    if not in_notebook:
        return tqdm(items, total=total, desc=desc, file=sys.stderr, disable=None)
    from IPython.display import display

    class NotebookBar(tqdm):
        """tqdm, drawn as plain text into one output of the cell."""

        handle = None

        def display(self, msg=None, pos=None):
            line = {"text/plain": msg if msg is not None else str(self)}
            if self.handle:
                self.handle.update(line, raw=True)
            elif line["text/plain"]:
                self.handle = display(line, raw=True, display_id=True)

    return NotebookBar(items, total=total, desc=desc, file=io.StringIO(), ncols=80, mininterval=0.5)
