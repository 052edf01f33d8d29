"""A gallery folder as a web server on this machine, with the URL lists that lead to its pictures.

Reads a folder of pictures as `galleries` does; writes `LISTS/urls_<class>.csv`. In a process
of its own: `python -m artclf.data.gallery FOLDER LISTS`.
"""

import csv
import io
import os
import re
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from mimetypes import guess_type
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import quote, unquote_to_bytes, urlsplit

from artclf.base.errors import InputError
from artclf.base.files import make_folder, replace_whole
from artclf.data.catalogue import FACTS
from artclf.data.classes import in_order
from artclf.data.galleries import read_gallery
from artclf.data.lists import read_list

# what real lists have: a dead link, a web page, truncated files, a repeat; two for a class, in turn
FAULTS = (("gone", "page"), ("short", "cut"), ("twice", "again"))
PAGE = b"<!doctype html><title>Moved</title><p>This picture has moved.</p>"


class Handler(BaseHTTPRequestHandler):
    """Answers GET with the pictures in `server.files` and nothing else."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self):
        path = unquote_to_bytes(self.path.split("?")[0])
        with self.server.lock:
            self.server.requests[os.fsdecode(path)] += 1
        fault, file = self.server.files.get(path, ("gone", None))
        if fault == "gone" or not file.is_file():
            return self.send_error(404)
        data = PAGE if fault == "page" else file.read_bytes()
        kind = "text/html" if fault == "page" else guess_type(file.name)[0]
        length = len(data)
        if fault in ("short", "cut"):
            data = data[: len(data) // 2]
        if fault == "cut":
            length = len(data)
        if fault == "short":  # the length lies, and the connection ends early
            self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        return self.wfile.write(data)

    def log_message(self, *args):
        pass


class Gallery(ThreadingTCPServer):
    """The server: `url`, `address`, `port`, `lists`, `notes` on how the folder was read, and
    `requests`, a count per decoded path.
    """

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = os.name != "nt"  # Windows would let two servers share the port
    allow_reuse_port = False

    def __init__(self, port, lists):
        super().__init__(("127.0.0.1", port), Handler)
        self.port = port
        self.lists = lists
        self.address = f"127.0.0.1:{port}"
        self.url = f"http://{self.address}"
        self.files: dict[bytes, tuple[str, Path]] = {}  # path -> fault ('' for none) and file
        self.notes: list[str] = []
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news; anything else is."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def publish(self, path, file, fault="") -> str:
        """The URL under which `file` is served from now on."""
        if fault:  # no picture has this path, because read_gallery leaves out hidden folders
            path = f".faults/{fault}/{path}"
        self.files[b"/" + os.fsencode(path)] = fault, file
        return f"{self.url}/{quote(os.fsencode(path))}"


@contextmanager
def serve(folder, lists, faults: bool = False, port: int | None = None) -> Iterator[Gallery]:
    """A server of the pictures in `folder` while the `with` block lasts; `lists` gets a
    `urls_<class>.csv` a class.

    The port is the one that the lists already there name, so that URLs stay the same from run to
    run. With `faults` the lists also hold what real ones do: dead links, HTML pages, truncated
    files, repeats, comments, blank lines. Raises FileNotFoundError or InputError for a folder
    without pictures, InputError where `lists` holds lists of another folder or origin, OSError
    where the port is taken.
    """
    folder = Path(folder)
    lists = Path(lists)
    reading = read_gallery(folder)
    by_period: dict[str, list[dict]] = {}
    for picture in reading.pictures:
        by_period.setdefault(picture["period"], []).append(picture)
    with _bind(port or _known_port(lists), folder, lists) as gallery:
        gallery.notes = reading.notes
        texts = {}
        for number, period in enumerate(in_order(by_period)):
            faults_of_list = FAULTS[number % len(FAULTS)] if faults else ()
            texts[period] = _list_text(gallery, folder, by_period[period], faults_of_list)
        _claim(folder, lists)
        _write_lists(texts, lists)
        server = threading.Thread(
            target=gallery.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        server.start()
        try:
            yield gallery
        finally:
            gallery.shutdown()


def _claim(folder: Path, lists: Path):
    """Note which folder the lists are of: two folders of one name would end up in one data set."""
    note = lists / "folder.txt"
    data = lists.resolve().parent
    origin = folder.resolve()
    if origin.is_relative_to(data):  # a clone may move with its canvases
        origin = origin.relative_to(data)
    noted = os.fsdecode(note.read_bytes()) if note.exists() else None
    if noted not in (None, str(origin)):
        raise InputError(
            f"{lists} holds the lists of {noted}: rename {folder}, or delete {note} if it has "
            "moved here"
        )
    make_folder(lists)
    if not noted:
        note.write_bytes(os.fsencode(origin))


def _known_port(lists: Path) -> int | None:
    ports: set[int] = set()
    for path in lists.glob("urls_*.csv"):
        url = urlsplit(next((row["url"] for row in read_list(path)), ""))
        if url.hostname != "127.0.0.1":
            raise InputError(f"{path} is no list of a served gallery: name another folder")
        ports.add(url.port or 80)
    return max(ports, default=None)


def _bind(port: int | None, folder: Path, lists: Path) -> Gallery:
    if port:
        try:
            return Gallery(port, lists)
        except OSError as error:
            raise OSError(
                f"port {port} on 127.0.0.1 can't be used ({error.strerror}): end the program that "
                f"uses it, or delete the urls_*.csv in {lists} to get other URLs and fetch "
                "everything again"
            ) from error
    # Systems take ports for outgoing connections from 32768 on: one below is free on the next run.
    first = 20000 + zlib.crc32(os.fsencode(folder.resolve())) % 12000
    for candidate in range(first, first + 100):
        try:
            return Gallery(candidate, lists)
        except OSError:
            continue
    raise OSError(f"no port from {first} to {first + 99} on 127.0.0.1 is free: name one")


def _list_text(gallery: Gallery, folder: Path, pictures: list[dict], faults) -> str:
    rows = []
    for picture in pictures:
        path = picture["file"].relative_to(folder).as_posix()
        # A row is one line: in a fact of several lines, one with # would be read as a comment.
        facts = [re.sub(r"\s+", " ", picture.get(name, "")) for name in FACTS]
        rows.append([gallery.publish(path, picture["file"]), *facts])
    last_pictures = pictures[-2:] * 2  # a class may have a single picture
    last_rows = rows[-2:] * 2
    for fault, picture, row in zip(faults, last_pictures, last_rows, strict=False):
        if fault != "twice":
            path = picture["file"].relative_to(folder).as_posix()
            row = [gallery.publish(path, picture["file"], fault), *row[1:]]
        rows.append(row)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([["url", *FACTS], *rows])
    text = stream.getvalue()
    return f"# Lists have comments\n\n{text}\n" if faults else text


def _write_lists(texts: dict[str, str], lists: Path):
    """Write the lists that changed, and remove those of classes that are gone."""
    wanted = {lists / f"urls_{period}.csv": text.encode() for period, text in texts.items()}
    make_folder(lists)
    for stale in set(lists.glob("urls_*.csv")) - set(wanted):
        stale.unlink()
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            _write_list(path, content)


def _write_list(path: Path, content: bytes):
    replace_whole(path, lambda part: part.write_bytes(content))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m artclf.data.gallery FOLDER LISTS [--faults]")
    with serve(sys.argv[1], sys.argv[2], faults="--faults" in sys.argv) as served:
        print(served.url, flush=True)
        threading.Event().wait()
