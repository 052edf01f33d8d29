"""Errors that a user can mend: their message says what is wrong and what to do.

The command line shows their message alone. Any other ValueError or RuntimeError, such as one out of
torch or numpy, is a bug, and is shown with its traceback.
"""


class InputError(ValueError):
    """Bad input: a file, folder or setting that can't be used as it is."""


class SettingError(InputError):
    """A setting that makes no sense, whatever the data. The command line ends with exit code 2."""


class StepError(RuntimeError):
    """A step that could not do its work, though its input is right: an engine without answers, a
    cell that failed.
    """
