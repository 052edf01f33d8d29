"""Intake: the bytes of a picture into `DATA/raw/`, and what its header says into a row of the
catalogue.

Writes `DATA/raw/<period>/<16 hex digits of sha1(url)>.<extension>` and the catalogue, a transaction
an image.
"""

import hashlib
import io
import shutil
import sqlite3
import warnings
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from artclf.data.catalogue import Catalogue

EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "AVIF": "avif",
    "JPEG2000": "jp2",
}  # the formats that count as pictures


class Failure(Exception):
    """Why a URL gave no picture: `reason`, `http_status` if there was one, whether to `retry`, and
    the seconds after which the server asks to (`retry_after`).
    """

    def __init__(
        self,
        reason: str,
        http_status: int | None = None,
        retry: bool = False,
        retry_after: float | None = None,
    ):
        super().__init__(reason)
        self.reason, self.http_status, self.retry, self.retry_after = (
            reason,
            http_status,
            retry,
            retry_after,
        )


@dataclass(frozen=True)
class Fetched:
    """A picture as it came: `body`, and what its header says of it (sizes in pixels)."""

    body: bytes
    http_status: int | None
    format: str
    width: int
    height: int


def probe(
    body: bytes, content_type: str = "", max_pixels: int = 100_000_000
) -> tuple[str, int, int]:
    """The format (Pillow's name), width and height of a picture, from its header. Raises `Failure`
    if it is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of pictures that are large or damaged: step clean decodes them whole
            image = Image.open(io.BytesIO(body), formats=_formats())
    except Image.DecompressionBombError as error:
        raise Failure("too many pixels") from error
    except Exception as error:  # a plugin may raise anything on bytes made by a stranger
        raise Failure(f"not an image: {_describe(body, content_type)}") from error
    if image.width * image.height > max_pixels:
        raise Failure("too many pixels")
    return image.format, image.width, image.height


def _describe(body: bytes, content_type: str) -> str:
    if not body:
        return "empty"
    if body[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "text/html"
    kind = "".join(filter(str.isprintable, content_type))[:40] or "unknown bytes"
    return f"unreadable {kind}" if kind.startswith("image/") else kind


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in EXTENSIONS if name in Image.OPEN)


@dataclass
class Intake:
    """What one run takes into the data set in folder `data`, and its counts."""

    data: Path
    ok: int = 0
    failed: int = 0
    outcomes: dict = field(
        default_factory=lambda: defaultdict(Counter)
    )  # period -> reason, None where ok -> number

    def take_in(self, cat: Catalogue, row: dict, file: Path):
        """Copy one picture of one's own."""
        body = file.read_bytes()
        try:
            self.record(cat, row, self.place(row, Fetched(body, None, *probe(body))))
        except Failure as failure:
            self.record(cat, row, failed_columns(failure))

    def place(self, row: dict, picture: Fetched) -> dict:
        """Put the bytes where they belong, whole or not at all; what the catalogue is to say of
        them.
        """
        name = f"{hashlib.sha1(row['url'].encode()).hexdigest()[:16]}.{EXTENSIONS[picture.format]}"
        part, folder = self.data / "tmp" / name, self.data / "raw" / row["period"]
        part.write_bytes(picture.body)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        part.replace(folder / name)
        return {
            "status": "ok",
            "reason": None,
            "http_status": picture.http_status,
            "bytes": len(picture.body),
            "sha256": hashlib.sha256(picture.body).hexdigest(),
            "width": picture.width,
            "height": picture.height,
            "format": picture.format,
            "file": f"raw/{row['period']}/{name}",
        }

    def record(self, cat: Catalogue, row: dict, outcome: dict):
        cat.update([{"url": row["url"], "period": row["period"], **outcome}])
        self.outcomes[row["period"]][outcome["reason"]] += 1
        if outcome["reason"]:
            self.failed += 1
        else:
            self.ok += 1

    @contextmanager
    def writing(self):
        """Without what a killed run left behind; where the disk fails, the error says what to
        do.
        """
        tmp = self.data / "tmp"
        try:
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir(parents=True)
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(
                f"{error}: make sure that there is room in {self.data} and that it may be written, then "
                "start again; what is done stays done"
            ) from error
        finally:
            shutil.rmtree(tmp, ignore_errors=True)

    def summary(self):
        """The DataFrame that `fetch_lists` returns."""
        import pandas as pd

        with Catalogue(self.data) as cat:
            known = cat.db.execute(
                "SELECT period, count(*) FROM images GROUP BY period ORDER BY period"
            ).fetchall()
        rows = [
            {
                "period": period,
                "ok": done[None],
                "failed": done.total() - done[None],
                "skipped": n - done.total(),
                "reasons": {reason: number for reason, number in done.most_common() if reason},
            }
            for period, n in known
            for done in [self.outcomes[period]]
        ]
        return pd.DataFrame(rows, columns=["period", "ok", "failed", "skipped", "reasons"])


def failed_columns(failure: Failure) -> dict:
    return {"status": "failed", "reason": failure.reason, "http_status": failure.http_status}
