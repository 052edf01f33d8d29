"""Progress bars: silent, on a terminal, in a notebook."""

import os
import subprocess
import sys

import pytest

from artclf.base.progress import progress_bar


def test_progress_off_a_terminal_is_silent(capfd):
    assert list(progress_bar([1, 2], desc="work")) == [1, 2]
    with progress_bar(desc="work", total=2) as bar:
        bar.update(2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_progress_of_long_work_goes_to_standard_error_of_a_terminal():
    import pty
    import termios

    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    code = (
        "import time\nfrom artclf.base.progress import SHORT, progress_bar\n"
        "for _ in progress_bar(range(3), desc='quick'): pass\n"
        "with progress_bar(desc='nothing to do', total=0): pass\n"
        "for _ in progress_bar(range(3), desc='working'): time.sleep(SHORT / 2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=terminal, stdout=subprocess.PIPE, check=True
    )
    os.close(terminal)
    shown = os.read(main, 10_000).decode()
    os.close(main)
    assert "working: 100%" in shown and "3/3" in shown and done.stdout == b""
    assert "quick" not in shown and "nothing to do" not in shown


class ZMQInteractiveShell:
    """Named as the shell of a notebook."""


def test_progress_in_a_notebook_is_one_output_updated_in_place(monkeypatch, capfd):
    import IPython.display

    shown = []

    class Handle:
        def update(self, line, raw):
            shown.append(("update", line, raw))

    def display(line, raw, display_id):
        shown.append(("display", line, raw))
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", ZMQInteractiveShell)
    monkeypatch.setattr(IPython.display, "display", display)
    with progress_bar(desc="work", total=3) as bar:
        for _ in range(3):
            bar.update()
        bar.set_postfix(ok=3)
    assert [list(line) for _, line, _ in shown] == [["text/plain"]] * len(shown) and all(
        raw for *_, raw in shown
    )
    assert [call for call, *_ in shown].count("display") == 1 and shown[0][0] == "display"
    assert "3/3" in shown[-1][1]["text/plain"] and "ok=3" in shown[-1][1]["text/plain"]
    assert capfd.readouterr() == ("", "")
