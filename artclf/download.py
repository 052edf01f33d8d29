"""Step download: fetch what the URL lists name, or take in a folder of pictures.

Reads `urls_*.csv` or `FOLDER/<class>/*.jpg`; writes `DATA/raw/<period>/<16 hex digits of
sha1(url)>.<extension>` and the catalogue, a transaction an image: killed at any moment, it goes on
where it was. Notebook: `01_download`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artclf.base import settings
from artclf.base.files import sha256_of
from artclf.base.progress import progress_bar
from artclf.data import cleaning, duplicates, gallery, origins, sample
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.downloads import Download, run_in_thread
from artclf.data.fetch import Fetcher
from artclf.data.galleries import read_gallery
from artclf.data.intake import Intake
from artclf.data.levels import level_sources
from artclf.data.lists import check_lists, find_lists, read_list

CANVASES = 40  # for each period

__all__ = [
    "data_folder",
    "fetch_canvases",
    "fetch_lists",
    "find_lists",
    "import_folder",
    "import_levelled",
    "level_sources",
    "prepare_gallery",
    "read_catalogue",
    "read_list",
    "serve_gallery",
]


def prepare_gallery(folder, lists, canvases: int | None = None):
    """Write the URL lists of the pictures in `folder` to the folder `lists`; `serve_gallery` answers
    their URLs.

    With `canvases`, so many canvases for each period are drawn into `folder` first; those that are
    there are not drawn again. Without a `folder`, `lists` lead to other servers, and nothing is
    done. Raises FileNotFoundError for a folder that is missing, InputError for one that can't hold
    canvases or has no pictures, and where `lists` are those of another folder.
    """
    if folder is None:
        return
    if canvases:
        sample.draw(folder, canvases)
    with serve_gallery(folder, lists):
        pass


@contextmanager
def serve_gallery(folder, lists) -> Iterator[str | None]:
    """Serve the pictures in `folder` on this machine, under the URLs of `lists`, while the `with`
    block lasts.

    Gives the address, such as `127.0.0.1:8000`, for `fetch_lists(..., allowed_address=...)`. The
    gallery of drawn canvases also has the faults of real lists: dead links, web pages, truncated
    files. Without a `folder` nothing is served, and the address is None. Raises as
    `data.gallery.serve` does.
    """
    if folder is None:
        yield None
        return
    with gallery.serve(folder, lists, faults=sample.is_drawn(folder)) as server:
        yield server.address


def fetch_lists(
    lists,
    data,
    *,
    max_per_period: int | None = None,
    retry_failed: bool = False,
    tries: int = 3,
    backoff: float = 1.0,
    fetcher=Fetcher,
    **options,
):
    """Fetch the pictures that the URL lists in folder `lists` name into `data`; return what this
    run did.

    That is a DataFrame, a row a period: the numbers of images `ok`, `failed` and `skipped` (done
    before, or beyond the first `max_per_period` of the list), and `reasons`, a dict from reason to
    number of failures. Time-outs, lost connections and http 5xx get `tries` tries, the second after
    `backoff` seconds, each further one after twice the time. A host that asks for patience (http
    429, Retry-After) gets it with all of its URLs, see `data.downloads.Host`. `retry_failed` also
    tries what failed in earlier runs. `options` are the fields of
    `data.fetch.Fetcher`. Ctrl-C loses nothing that is done. Warns of lists
    without a URL. Raises FileNotFoundError where there are no lists, InputError for a bad option or
    lists that can't be read or hold nothing, OSError where `data` can't be written.
    """
    settings.check(tries=tries, backoff=backoff)
    if max_per_period is not None:
        settings.check(max_per_period=max_per_period)
    run = Download(Path(data), max_tries=tries, backoff=backoff)
    found_lists = find_lists(lists)
    open_fetcher = fetcher(**options)
    check_lists(found_lists)
    with progress_bar(desc="download", total=0) as bar, run.writing():

        def fetch():
            return run.fetch(found_lists, open_fetcher, max_per_period, retry_failed)

        def show():
            bar.total = run.total
            bar.set_postfix(ok=run.ok, failed=run.failed, refresh=False)
            bar.update(run.ok + run.failed - bar.n)

        run_in_thread(fetch, show)
    return run.summary()


def fetch_canvases(data, canvases: int = CANVASES, **options):
    """Draw `canvases` canvases for each period, serve them on this machine, and fetch them into
    `data`; return what this run did, as `fetch_lists` does, which takes the `options`.

    The canvases are in `DATA/gallery`, their lists in `DATA/urls`.
    """
    folder = Path(data) / "gallery"
    lists = Path(data) / "urls"
    prepare_gallery(folder, lists, canvases)
    with serve_gallery(folder, lists) as address:
        return fetch_lists(lists, data, allowed_address=address, **options)


def import_folder(folder, data, manifest=None, label_column: str | None = None):
    """Copy the pictures of `FOLDER/<class>/` into `data`; return what this run did, as
    `fetch_lists` does.

    The class is the folder, or the column `label_column` of the manifest (a CSV file; if not named,
    the `manifest.csv` in the folder or above it). The manifest's other columns are facts. A
    picture's URL is `import:<sha256 of its bytes>`. Raises FileNotFoundError, InputError for a
    folder without pictures, OSError where a file can't be read or `data` can't be written.
    """
    run = Intake(Path(data))
    pictures = []
    for picture in progress_bar(list(read_gallery(folder, manifest, label_column)), desc="read"):
        pictures.append({**picture, "url": f"import:{sha256_of(picture['file'])}"})
    files = {(picture["url"], picture["period"]): picture["file"] for picture in pictures}
    with run.writing(), Catalogue(data) as catalogue:
        catalogue.add(pictures)
        pending = catalogue.select("status = 'pending' AND url LIKE 'import:%'")
        for row in progress_bar(pending, desc="import"):
            file = files.get((row["url"], row["period"]))
            if file is not None:
                run.take_in(catalogue, row, file)
    return run.summary()


def data_folder(source, kind: str) -> Path:
    """The folder of the data set that is made of `source`: `data/<name of source>`, without `_urls`
    for lists.

    `kind` says what `source` is (see `data.origins.claim`). Raises InputError where that data set
    holds the pictures of another source of the same name.
    """
    name = Path(source).resolve().name
    if kind == "lists":
        name = name.removesuffix("_urls")
    data = Path("data") / name
    if Path(source).is_dir():  # else reading it says what is wrong
        origins.claim(data, kind, source)
    return data


def import_levelled(source, data, manifest=None, label_column: str | None = None):
    """Make a data set of levelled pictures in `data` (see `level_sources`), and return how many
    images of each period have which status.

    Near-duplicates are looked for where `source` is a gallery folder; a data folder tells its own.
    """
    level_sources(source, data, manifest=manifest, label_column=label_column)
    if not (Path(source) / "catalogue.db").exists():
        duplicates.mark(data)
    return cleaning.counts(data)
