"""A gallery folder as a web server on this machine, with the URL lists that lead to its pictures.

Reads `FOLDER/<class>/*.jpg` (and its `manifest.csv`); writes `LISTS/urls_<class>.csv`. In a process
of its own: `python -m artclf.lab.gallery FOLDER LISTS`.
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
from itertools import groupby
from mimetypes import guess_type
from pathlib import Path
from socketserver import ThreadingTCPServer
from urllib.parse import quote, unquote_to_bytes, urlsplit

from artclf.base.errors import InputError
from artclf.data.catalogue import FACTS
from artclf.data.galleries import read_gallery
from artclf.data.lists import read_list

FAULTS = (("gone", "page"), ("short", "cut"), ("twice", "again"))  # a row a class, in turn


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
        data, kind = (
            (PAGE, "text/html")
            if fault == "page"
            else (file.read_bytes(), guess_type(file.name)[0])
        )
        body = data[: len(data) // 2] if fault in ("short", "cut") else data
        if fault == "short":
            self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(len(data if fault == "short" else body)))
        self.end_headers()
        return self.wfile.write(body)

    def log_message(self, *args):
        pass


class Gallery(ThreadingTCPServer):
    """The server: `url`, `port`, `lists`, and `requests`, a count per decoded path."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = os.name != "nt"  # Windows would let two servers share the port
    allow_reuse_port = False

    def __init__(self, port, lists):
        super().__init__(("127.0.0.1", port), Handler)
        self.port, self.lists, self.url = port, lists, f"http://127.0.0.1:{port}"
        self.files, self.requests, self.lock = {}, Counter(), threading.Lock()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news; anything else is."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def publish(self, path, file, fault="") -> str:
        """The URL under which `file` is served from now on."""
        if fault:
            path = f".faults/{fault}/{path}"  # read_gallery passes hidden folders over: no picture has this path
        self.files[b"/" + os.fsencode(path)] = fault, file
        return f"{self.url}/{quote(os.fsencode(path))}"


@contextmanager
def serve(folder, lists, faults: bool = False, port: int | None = None) -> Iterator[Gallery]:
    """A server of the pictures in `folder` while the `with` block lasts; `lists` gets a
    `urls_<class>.csv` a class.

    The port is the one that the lists already there name, so that URLs stay the same from run to
    run. With `faults` the lists also hold what real ones do: dead links, HTML pages, truncated
    files, repeats, comments, blank lines. Raises FileNotFoundError or ValueError for a folder
    without pictures, ValueError where `lists` holds lists of another folder or origin, OSError
    where the port is taken.
    """
    folder, lists = Path(folder), Path(lists)
    pictures = sorted(read_gallery(folder), key=lambda picture: picture["period"])
    with _bind(port or _known_port(lists), folder, lists) as gallery:
        texts = {
            period: _list_text(
                gallery, folder, list(group), FAULTS[i % len(FAULTS)] if faults else ()
            )
            for i, (period, group) in enumerate(
                groupby(pictures, key=lambda picture: picture["period"])
            )
        }
        _claim(folder, lists)
        _write_lists(texts, lists)
        threading.Thread(
            target=gallery.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        try:
            yield gallery
        finally:
            gallery.shutdown()


def _claim(folder: Path, lists: Path):
    """Note of which folder the lists are: two folders of one name would end up in one data set."""
    note, own, place = lists / "folder.txt", lists.resolve().parent, folder.resolve()
    origin = str(
        place.relative_to(own) if place.is_relative_to(own) else place
    )  # a clone may move with its canvases
    before = os.fsdecode(note.read_bytes()) if note.exists() else None
    if before not in (None, origin):
        raise InputError(
            f"{lists} holds the lists of {before}: rename {folder}, or delete {note} if it has moved here"
        )
    lists.mkdir(parents=True, exist_ok=True)
    if not before:
        note.write_bytes(os.fsencode(origin))


def _known_port(lists: Path) -> int | None:
    ports = set()
    for path in lists.glob("urls_*.csv"):
        url = urlsplit(next((row["url"] for row in read_list(path)), ""))
        if url.hostname != "127.0.0.1":
            raise InputError(f"{path} is no list of a served gallery: name another folder")
        ports.add(url.port)
    return max(ports, default=None)


def _bind(port: int | None, folder: Path, lists: Path) -> Gallery:
    # Below 32768 no system takes ports for outgoing connections, so that the port is still free on the next run.
    first = 20000 + zlib.crc32(os.fsencode(folder.resolve())) % 12000
    for candidate in [port] if port else range(first, first + 100):
        try:
            return Gallery(candidate, lists)
        except OSError as error:
            reason = error
    if not port:
        raise OSError(
            f"no port from {first} to {candidate} on 127.0.0.1 is free: name one"
        ) from reason
    raise OSError(
        f"port {port} on 127.0.0.1 can't be had ({reason.strerror}): end the program that uses it, or delete "
        f"the urls_*.csv in {lists} to have other URLs and fetch everything again"
    ) from reason


def _list_text(gallery: Gallery, folder: Path, pictures: list[dict], faults) -> str:
    rows = []
    for picture in pictures:
        path = picture["file"].relative_to(folder).as_posix()
        # A row is one line: in a fact of several lines one that starts with # would be read as a comment.
        facts = [re.sub(r"\s+", " ", picture.get(name, "")) for name in FACTS]
        rows.append([gallery.publish(path, picture["file"]), *facts])
    for fault, picture, row in zip(faults, pictures[-2:] * 2, rows[-2:] * 2, strict=False):
        path = picture["file"].relative_to(folder).as_posix()
        rows.append(
            row if fault == "twice" else [gallery.publish(path, picture["file"], fault), *row[1:]]
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["url", *FACTS], *rows])
    return "# Lists have comments\n\n" + text.getvalue() + "\n" if faults else text.getvalue()


def _write_lists(texts: dict[str, str], lists: Path):
    wanted = {lists / f"urls_{period}.csv": text for period, text in texts.items()}
    lists.mkdir(parents=True, exist_ok=True)
    for stale in set(lists.glob("urls_*.csv")) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m artclf.lab.gallery FOLDER LISTS [--faults]")
    with serve(sys.argv[1], sys.argv[2], faults="--faults" in sys.argv) as served:
        print(served.url, flush=True)
        threading.Event().wait()
