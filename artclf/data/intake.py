"""Intake: the bytes of a picture into `DATA/raw/`, and what its header says into a row of the
catalogue.

Writes `DATA/raw/<period>/<16 hex digits of sha1(url)>.<extension>` and the catalogue, one
transaction per image.
"""

import hashlib
import io
import shutil
import sqlite3
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from PIL import Image

from artclf.base.files import make_folder
from artclf.base.locks import locked
from artclf.data.catalogue import Catalogue
from artclf.data.classes import in_order
from artclf.data.formats import EXTENSIONS, FORMATS
from artclf.data.pictures import MAX_PIXELS


class Failure(Exception):
    """Why a URL gave no picture.

    `reason` in words, `http_status` if there was one, whether another try makes sense (`retry`),
    and the seconds that the server asks to wait before it (`retry_after`).
    """

    def __init__(
        self,
        reason: str,
        http_status: int | None = None,
        retry: bool = False,
        retry_after: float | None = None,
    ):
        super().__init__(reason)
        self.reason = reason
        self.http_status = http_status
        self.retry = retry
        self.retry_after = retry_after

    @property
    def wants_patience(self) -> bool:
        """Whether the server asks to be left alone for a while, by http 429 or Retry-After."""
        return self.retry and (self.http_status == 429 or self.retry_after is not None)


class Arrival(NamedTuple):
    """A picture of a folder of the user, and the row of the catalogue that it has."""

    url: str
    period: str
    file: Path


@dataclass(frozen=True)
class Fetched:
    """A picture as it came: `body`, and what its header says of it (sizes in pixels)."""

    body: bytes
    http_status: int | None
    format: str
    width: int
    height: int


def probe(
    body: bytes, content_type: str = "", max_pixels: int = MAX_PIXELS
) -> tuple[str, int, int]:
    """The format (Pillow's name), width and height of a picture, from its header.

    Raises `Failure` where the bytes are no picture, or one of too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # of pictures that are large or damaged: step clean decodes them whole
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(body), formats=_formats())
    except Image.DecompressionBombError as error:
        raise Failure("too many pixels") from error
    except Exception as error:  # a plugin may raise anything on bytes made by a stranger
        raise Failure(f"not an image: {_describe(body, content_type)}") from error
    if image.width * image.height > max_pixels:
        raise Failure("too many pixels")
    return str(image.format), image.width, image.height


def _describe(body: bytes, content_type: str) -> str:
    """What bytes are that are no picture, in words."""
    if not body:
        return "empty"
    start = body[:200].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    kind = "".join(letter for letter in content_type if letter.isprintable())[:40]
    if kind.startswith("image/"):
        return f"unreadable {kind}"
    return kind or "unknown bytes"


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow opens."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _counts_by_period() -> dict[str, Counter]:
    return defaultdict(Counter)


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """An empty `folder` while the `with` block lasts."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)  # a worker of a killed run may write its last file
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Intake:
    """What one run takes into the data set in folder `data`, and its counts.

    `outcomes` counts the reasons of each period; the reason of a success is None. `tmp` is the
    folder in `data` where files are written before they take their places.
    """

    data: Path
    ok: int = 0
    failed: int = 0
    outcomes: dict[str, Counter] = field(default_factory=_counts_by_period)
    tmp: str = "tmp"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder `tmp`, without what a killed run left there; where the disk fails, the
        error says what to do.

        Raises StepError where another process writes to the data set.
        """
        try:
            with locked(self.data), _new_folder(self.data / self.tmp):
                yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(
                f"{error}: make sure that there is room in {self.data} and that it may be written, "
                "then start again; what is done stays done"
            ) from error

    def write_picture(self, row: dict, picture: Fetched) -> dict:
        """Write the bytes to `DATA/raw/`, whole or not at all; return the columns of the catalogue
        to set.
        """
        return write_picture(self.data, self.tmp, row["url"], row["period"], picture)

    def record(self, catalogue: Catalogue, row: dict, outcome: dict):
        """Write the columns `outcome` of a row to the catalogue, and count it."""
        catalogue.update([{"url": row["url"], "period": row["period"], **outcome}])
        reason = outcome["reason"]
        self.outcomes[row["period"]][reason] += 1
        if reason:
            self.failed += 1
        else:
            self.ok += 1

    def summary(self):
        """What this run did: a DataFrame, one row per period of the catalogue.

        Columns `ok`, `failed`, `skipped` (not touched in this run) and `reasons`, a dict from
        reason to number of failures.
        """
        import pandas as pd

        with Catalogue(self.data) as catalogue:
            numbers = catalogue.db.execute(
                "SELECT period, count(*) FROM images GROUP BY period"
            ).fetchall()
        number_of = dict(numbers)
        rows = []
        for period in in_order(number_of):
            number = number_of[period]
            outcomes = self.outcomes[period]
            done = outcomes.total()
            rows.append(
                {
                    "period": period,
                    "ok": outcomes[None],
                    "failed": done - outcomes[None],
                    "skipped": number - done,
                    "reasons": {
                        reason: count for reason, count in outcomes.most_common() if reason
                    },
                }
            )
        return pd.DataFrame(rows, columns=["period", "ok", "failed", "skipped", "reasons"])


def take_in(data: Path, tmp: str, arrival: Arrival) -> dict:
    """Copy a picture of a folder to `DATA/raw/`; return the columns of the catalogue to set."""
    body = arrival.file.read_bytes()
    try:
        picture = Fetched(body, None, *probe(body))
    except Failure as failure:
        return failed_columns(failure)
    return write_picture(data, tmp, arrival.url, arrival.period, picture)


def write_picture(data: Path, tmp: str, url: str, period: str, picture: Fetched) -> dict:
    """Write the bytes to `DATA/raw/`, whole or not at all, by way of the folder `DATA/<tmp>`; return
    the columns of the catalogue to set.
    """
    stem = hashlib.sha1(url.encode()).hexdigest()[:16]
    name = f"{stem}.{EXTENSIONS[picture.format]}"
    folder = data / "raw" / period
    make_folder(folder)
    part = data / tmp / f"{uuid4().hex}-{name}"  # its own for each process that writes the picture
    part.write_bytes(picture.body)
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
        "file": f"raw/{period}/{name}",
    }


def failed_columns(failure: Failure) -> dict:
    """The columns of the catalogue to set for a URL that gave no picture."""
    return {"status": "failed", "reason": failure.reason, "http_status": failure.http_status}


CRASHED = failed_columns(Failure("crashed the decoder"))
