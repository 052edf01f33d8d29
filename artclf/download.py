"""Step download: fetch what the URL lists name, or take in a folder of pictures.

Reads `urls_*.csv`, or a folder or archive of pictures (see `data.galleries`); writes
`DATA/raw/<period>/<16 hex digits of sha1(url)>.<extension>` and the catalogue, a transaction an
image: killed at any moment, it goes on where it was. Notebook: `01_download`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from platform import node
from time import monotonic

from artclf.base import settings
from artclf.base.errors import StepError
from artclf.base.files import sha256_of
from artclf.base.processes import MapJobs, map_here
from artclf.base.progress import progress_bar, show_line
from artclf.data import archives, cleaning, duplicates, gallery, imports, origins, sample
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.classes import NO_CLASS, UNLABELLED
from artclf.data.downloads import Download, run_in_thread
from artclf.data.fetch import Fetcher
from artclf.data.galleries import Reading, read_gallery
from artclf.data.intake import CRASHED, Arrival, Intake, take_in
from artclf.data.levels import level_sources
from artclf.data.lists import check_lists, find_lists, read_list
from artclf.data.splits import PARTS

CANVASES = 40  # for each period
FIRST_LINE = 60  # seconds, before a line says which hosts have most of the URLs
LINE_EVERY = 600  # seconds, from then on
CRASH = OSError(errno.EIO, "ends the worker that reads it")

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
    with gallery.serve(folder, lists, faults=sample.is_drawn(folder)) as server:
        for note in server.notes:
            print(note)


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
    429, Retry-After) gets it with all of its URLs and those that redirect to it, see
    `data.patience.Patience`. `retry_failed` also tries what failed in earlier runs. `options` are the
    fields of `data.fetch.Fetcher`. Where its `allowed_address` is that of a folder served by
    `serve_gallery`, the catalogue follows what has changed there (see `data.imports`). After a
    minute, and every ten from then on, a line on standard error says which hosts have most of the
    URLs that are left. Ctrl-C loses nothing that is done. Warns of lists without a URL. Raises
    FileNotFoundError where there are no lists, InputError for a bad option or lists that can't be
    read or hold nothing, StepError where another process writes to `data`, OSError where it can't be
    written.
    """
    settings.check(tries=tries, backoff=backoff)
    if max_per_period is not None:
        settings.check(max_per_period=max_per_period)
    run = Download(Path(data), max_tries=tries, backoff=backoff)
    found_lists = find_lists(lists)
    open_fetcher = fetcher(**options)
    check_lists(found_lists)
    if UNLABELLED in found_lists:
        print(f"The pictures of {found_lists[UNLABELLED]} are {UNLABELLED}: {NO_CLASS}.")
    address = options.get("allowed_address")
    with run.writing(), progress_bar(desc="download", total=0) as bar:
        if address:
            _follow_gallery(data, address, found_lists)

        def fetch():
            return run.fetch(found_lists, open_fetcher, max_per_period, retry_failed)

        next_line = monotonic() + FIRST_LINE
        has_shown_line = False

        def show():
            nonlocal next_line, has_shown_line
            bar.total = run.total
            bar.set_postfix(ok=run.ok, failed=run.failed, refresh=False)
            bar.update(run.ok + run.failed - bar.n)
            if monotonic() >= next_line:
                next_line = monotonic() + LINE_EVERY
                line = run.pace.describe()
                if line:
                    show_line(line)
                    has_shown_line = True

        run_in_thread(fetch, show)
        end = run.pace.describe_end()
        if has_shown_line and end:
            show_line(end)
        if address:
            with Catalogue(data) as catalogue:
                imports.carry_decisions(catalogue, address)
    return run.summary()


def _follow_gallery(data, address: str, found_lists: dict[str, Path]):
    """Change the catalogue as the folder that is served under `address` has changed, and say what
    vanished.
    """
    listed = set()
    for period, path in found_lists.items():
        listed.update((row["url"], period) for row in read_list(path))
    with Catalogue(data) as catalogue:
        for note in imports.follow_lists(catalogue, address, listed):
            print(note)


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


def import_folder(
    folder,
    data,
    manifest=None,
    label_column: str | None = None,
    layout: str | None = None,
    file_names: bool = True,
    max_unpacked: float = archives.MAX_GIGABYTES,
    map_jobs: MapJobs | None = None,
):
    """Copy the pictures of a folder, or of a zip or tar file of one, into `data`; return what this
    run did, as `fetch_lists` does.

    `data.galleries.read_gallery` says how classes, parts and facts are read from folders, manifest
    and names of files; what it left out is printed. An archive may unpack to `max_unpacked` GB. A
    picture's URL is `import:<sha256 of its bytes>`. Where the folder was imported before, the
    catalogue follows what has changed there since (see `data.imports`), and what that is is
    printed. The workers of `map_jobs`, which read and copy the pictures, see both folders under the
    same path. Raises FileNotFoundError, InputError for a folder that can't be read or has no
    pictures, StepError where another process writes to `data`, OSError where it can't be written.
    """
    settings.check(max_unpacked=max_unpacked)
    data = Path(data)
    map_jobs = map_jobs or map_here
    run = Intake(data)
    with archives.as_folder(folder, data, max_unpacked) as place:
        reading = read_gallery(place, manifest, label_column, layout, file_names)
        notes = list(reading.notes)
        pictures = _with_urls(reading, place, notes, map_jobs)
        notes += _choose_parts(pictures)
        keys = {
            picture["file"].relative_to(place).as_posix(): (picture["url"], picture["period"])
            for picture in pictures
        }
        files = {(picture["url"], picture["period"]): picture["file"] for picture in pictures}
        with run.writing(), Catalogue(data) as catalogue:
            source = str(origins.portable(Path(folder), data))
            notes += imports.follow(catalogue, data, source, keys, reading.unreadable)
            catalogue.add(pictures)
            for note in notes:
                print(note)
            pending = catalogue.select("status = 'pending' AND url LIKE 'import:%'")
            keys_of_pending = [(row["url"], row["period"]) for row in pending]
            arrivals = [
                Arrival(*key, files[key].absolute()) for key in keys_of_pending if key in files
            ]
            function = partial(take_in, data.absolute(), run.tmp)
            with progress_bar(desc="import", total=len(arrivals)) as bar:
                for chunk in map_jobs(function, arrivals):
                    for arrival, columns in chunk:
                        run.record(catalogue, arrival._asdict(), columns or CRASHED)
                        bar.update()
    return run.summary()


def _with_urls(reading: Reading, folder: Path, notes: list[str], map_jobs: MapJobs) -> list[dict]:
    """The pictures with their URLs, without those that can't be read, which `notes` then name."""
    files = [picture["file"].absolute() for picture in reading.pictures]
    found: dict[Path, str | OSError] = {}
    with progress_bar(desc="read", total=len(files)) as bar:
        for chunk in map_jobs(partial(_hash_of, folder.absolute()), files):
            found.update((file, result or CRASH) for file, result in chunk)
            bar.update(len(chunk))
    pictures = []
    unreadable = []
    for picture, file in zip(reading.pictures, files, strict=True):
        result = found[file]
        if isinstance(result, str):
            pictures.append({**picture, "url": f"import:{result}"})
        else:
            name = picture["file"].relative_to(folder).as_posix()
            unreadable.append(f"{name} ({result.strerror})")
            reading.unreadable.append(name)
    if unreadable:
        examples = " and ".join(unreadable[:2])
        notes.append(f"{len(unreadable)} files can't be read and are left out, such as {examples}")
    return pictures


def _hash_of(folder: Path, file: Path) -> str | OSError:
    """The SHA-256 of a file in `folder`, or why it can't be read. Raises StepError where the folder
    is not there.
    """
    try:
        return sha256_of(file)
    except OSError as error:
        if not folder.is_dir():
            raise StepError(
                f"{node()} does not see the folder {folder}: all machines of a cluster must share it, "
                "under the same path"
            ) from error
        return error


def _choose_parts(pictures: list[dict]) -> list[str]:
    """Give a picture that lies in several parts, byte for byte, the first of them, so that no
    picture of train is tested on; a note says so.
    """
    parts_of: dict[tuple[str, str], set[str]] = {}
    for picture in pictures:
        if picture.get("split"):
            key = (picture["url"], picture["period"])
            parts_of.setdefault(key, set()).add(picture["split"])
    in_several = []
    for picture in pictures:
        parts = parts_of.get((picture["url"], picture["period"]), set())
        if len(parts) > 1:
            in_several.append(f"{picture['file']} ({picture['split']})")
            picture["split"] = min(parts, key=_rank_of_part)
    if not in_several:
        return []
    return [
        f"{len(in_several)} files are in several parts, byte for byte, such as "
        f"{' and '.join(in_several[:2])}: such a picture is in the first of train, valid and test "
        "alone"
    ]


def _rank_of_part(part: str) -> int:
    return PARTS.index(part) if part in PARTS else len(PARTS)


def data_folder(source, kind: str) -> Path:
    """The folder of the data set that is made of `source`: `data/<name of source>`, without `_urls`
    for lists.

    `kind` says what `source` is (see `data.origins.claim`). Raises InputError where that data set
    holds the pictures of another source of the same name.
    """
    name = archives.name_of(source)
    if kind == "lists":
        name = name.removesuffix("_urls")
    data = Path("data") / name
    if Path(source).exists():  # else reading it says what is wrong
        origins.claim(data, kind, source)
    return data


def import_levelled(source, data, map_jobs: MapJobs | None = None, **options):
    """Make a data set of levelled pictures in `data` (see `level_sources`, to which `options` go),
    and return how many images of each period have which status.

    Near-duplicates are looked for where `source` is a gallery folder; a data folder tells its own.
    """
    level_sources(source, data, map_jobs=map_jobs, **options)
    if not (Path(source) / "catalogue.db").exists():
        duplicates.mark(data, map_jobs)
    return cleaning.counts(data)
