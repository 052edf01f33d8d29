"""Origins: what the pictures of a data set come from, so that two sources of one name are not mixed.

Reads and writes the setting `origin` of the catalogue.
"""

from pathlib import Path

from artclf.base.errors import InputError
from artclf.data.catalogue import Catalogue

# kind of the source -> the beginning of the URLs of its pictures
URLS = {"folder": "import:%", "gallery": "http://127.0.0.1:%", "lists": "http%"}


def claim(data, kind: str, source):
    """Note that the pictures in `data` come from `source`: a `folder` that is imported, a `gallery`
    that is served on this machine, or a folder of URL `lists`.

    Raises InputError, which says what to do, where `data` holds pictures of another source.
    """
    data = Path(data)
    wanted = f"{kind} {portable(Path(source), data)}"
    with Catalogue(data) as catalogue:
        noted = catalogue.setting("origin") or _kind_of_rows(catalogue)
        if noted not in (None, kind, wanted):
            raise InputError(
                f"{data} holds the pictures of the {noted}: rename {source}, or name another data "
                "folder with --data"
            )
        catalogue.set_setting("origin", wanted)


def portable(source: Path, data: Path) -> Path:
    """The absolute path of `source`; relative to `data` if it is in it, because a clone may move."""
    source = source.resolve()
    if source.is_relative_to(data.resolve()):
        return source.relative_to(data.resolve())
    return source


def _kind_of_rows(catalogue: Catalogue) -> str | None:
    """The kind of source of the rows that are there; None for an empty catalogue."""
    for kind, beginning in URLS.items():
        if catalogue.count("url LIKE ?", (beginning,)):
            return kind
    return None
