"""Extras: packages that only some steps use, and that `pip install -e ".[EXTRA]"` brings."""

from importlib.util import find_spec


def require(extra: str, *packages: str):
    """Raise ImportError, with the command that mends it, where one of `packages` is not installed.

    `extra` is the extra of artclf that brings them.
    """
    missing = [package for package in packages if not find_spec(package)]
    if missing:
        raise ImportError(
            f"this needs {' and '.join(missing)}: "
            f'run pip install -e ".[{extra}]" in the clone of artclf'
        )
