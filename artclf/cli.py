"""The command line: one command a step, each a call of the function that its notebook calls."""

import os
import sqlite3
import sys
import warnings

from artclf.base import extras
from artclf.base.errors import InputError, SettingError, StepError
from artclf.base.machine import keep_freed_memory
from artclf.commands import answering, data_set, experiments, exports, notebooks, training
from artclf.commands.options import App

app = App(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Build a data set of paintings, teach a network their periods, look at what it learned.",
)
for commands in (data_set, training, exports, answering, experiments, notebooks):
    app.add_typer(commands.app)  # without a name: its commands are commands of `artclf`

# Bad input and bad surroundings end with one line and exit code 1. Any other exception, such as a
# ValueError out of numpy or a RuntimeError out of torch, is a bug: Python shows its traceback.
EXPECTED = (InputError, StepError, OSError, ImportError, sqlite3.Error)
CTRL_C = 130  # the exit code that Typer gives


def main():
    """Run the command line; an expected error is one line on standard error and exit code 1, a
    setting that makes no sense exit code 2.
    """
    keep_freed_memory()
    try:
        with warnings.catch_warnings():
            _ignore_warnings_of_pillow()
            app()
    except EXPECTED as error:
        if os.environ.get("ARTCLF_TRACEBACK"):
            raise
        print(f"artclf: {extras.advice(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingError) else 1)
    except SystemExit as end:
        if end.code == CTRL_C:
            print("artclf: interrupted; the same command goes on from here", file=sys.stderr)
        raise


def _ignore_warnings_of_pillow():
    """It warns of large pictures and damaged tags; step clean judges these itself."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.Image\b")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


if __name__ == "__main__":
    main()
