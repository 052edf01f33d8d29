"""Suggestions: pictures that visitors of the server gave to a data set, until a person decides on
them.

Writes `DATA/raw/` and rows of the catalogue with the status `suggested`. Cleaning, duplicates,
splits and training take pictures of the status `ok` alone, which a suggestion gets when a person
keeps or moves it in the review (see `data.review`), and loses when that is taken back.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from artclf.base.errors import InputError, StepError
from artclf.base.files import can_not_be_written
from artclf.data.catalogue import Catalogue, clean_path, require
from artclf.data.intake import Fetched, Intake, probe

SUGGESTED = "suggested"  # a value of the column `status`
PREFIX = "upload:"  # of the URL; the SHA-256 of the bytes follows
SOURCE = "upload"  # a value of the column `source`
WITH_PERIOD = "suggested by a visitor"
WITHOUT_PERIOD = "given by a visitor who doesn't know the period"
TMP = "tmp-uploads"  # a folder of its own: a notebook that serves may import at the same time
WAITING = "status = ? AND review IS NULL"


class Full(Exception):
    """As many suggestions wait for a decision as may."""


class Occupied(Exception):
    """Another run is writing to the data set: the suggestion can be sent again later."""


@dataclass(frozen=True)
class Receipt:
    """What became of a suggestion: its `number`, by which it can be found again, its `period`, and
    whether it `is_new`, or was in the data set already, whatever was decided on it.
    """

    number: str
    period: str
    is_new: bool


class Suggestions:
    """The suggestions for the data set in folder `data`, of which at most `most` pictures with
    `most_bytes` bytes in all may wait for a decision.

    Raises FileNotFoundError where there is no data set, PermissionError where it can't be written.
    """

    def __init__(self, data, most: int, most_bytes: int):
        self.data = require(data)
        self.most = most
        self.most_bytes = most_bytes
        self._intake = Intake(self.data, tmp=TMP)
        self._adding = threading.Lock()
        self._check_writable()

    def check_classes(self, periods: Iterable[str]):
        """Raise InputError where the data set lacks one of the classes that visitors choose from."""
        with Catalogue(self.data, to_read=True) as catalogue:
            known = catalogue.periods()
        missing = sorted(set(periods) - known)
        if missing:
            raise InputError(
                f"{self.data} has no class {', '.join(missing)}: collect into the data set that the "
                "network learned from"
            )

    def add(
        self, body: bytes, suggested: str | None, likeliest: str, probability: float
    ) -> Receipt:
        """Keep a picture under the period that is `suggested`, or else under the classifier's
        answer, `likeliest` with `probability`; nothing is written where its bytes are in the data
        set already.

        The file is written first, whole or not at all, then the row; killed in between, the next
        upload of the picture writes the file again. Raises Failure for what is no picture, Full,
        Occupied, InputError for a period that the data set lacks, OSError where the disk fails.
        """
        picture = Fetched(body, None, *probe(body))
        sha256 = hashlib.sha256(body).hexdigest()
        period = suggested or likeliest
        with self._writing() as catalogue:
            for row in catalogue.select("sha256 = ?", (sha256,)):
                return Receipt(_number(sha256), row["period"], is_new=False)
            if period not in catalogue.periods():
                raise InputError(f"the data set has no class {period}")
            self._check_room(catalogue, len(body))
            row = {"url": PREFIX + sha256, "period": period}
            columns = self._intake.write_picture(row, picture)
            catalogue.insert(
                {
                    **row,
                    **columns,
                    "status": SUGGESTED,
                    "reason": WITH_PERIOD if suggested else WITHOUT_PERIOD,
                    "source": SOURCE,
                    "likelier": likeliest if likeliest != period else None,
                    "likelier_probability": probability,
                }
            )
        return Receipt(_number(sha256), period, is_new=True)

    def _check_writable(self):
        try:
            with Catalogue(self.data):  # which adds the columns of this version
                (self.data / "raw").mkdir(exist_ok=True)
                TemporaryFile(dir=self.data / "raw").close()
        except OSError as error:
            if not isinstance(error, PermissionError) and not can_not_be_written(error):
                raise
            raise PermissionError(
                f"{self.data} can't be written, so nothing can be collected there: {error}"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[Catalogue]:
        """The catalogue, while no other run writes to the data set. Raises Occupied where one does."""
        try:
            with self._adding, self._intake.writing(), Catalogue(self.data) as catalogue:
                yield catalogue
        except StepError as error:
            raise Occupied(str(error)) from error
        except OSError as error:
            cause = error.__cause__
            code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise Occupied(str(cause)) from error
            raise

    def _check_room(self, catalogue: Catalogue, size: int):
        waiting, held = catalogue.db.execute(
            f"SELECT count(*), COALESCE(SUM(bytes), 0) FROM images WHERE {WAITING}", (SUGGESTED,)
        ).fetchone()
        if waiting >= self.most:
            raise Full(f"{waiting} pictures wait for a decision, no more are taken now")
        if held + size > self.most_bytes:
            raise Full(
                f"pictures of {held / 2**20:.0f} MB wait for a decision, no more than "
                f"{self.most_bytes / 2**20:.0f} MB are taken now"
            )


def follow_decisions(catalogue: Catalogue, changes: Iterable[tuple[dict, str | None]]):
    """Give suggestions the status that follows from new decisions, inside a transaction; `changes`
    are rows with their new `review`. Other rows stay as they are.

    One that was accepted and no longer is leaves the clean pictures, too.
    """
    for row, choice in changes:
        if not is_suggestion(row):
            continue
        status = SUGGESTED if choice in (None, "drop") else "ok"
        if status != row["status"]:
            catalogue.db.execute(
                "UPDATE images SET status = ?, clean_status = NULL, clean_reason = NULL, "
                "doubt = NULL, outlier = NULL WHERE url = ? AND period = ?",
                (status, row["url"], row["period"]),
            )


def is_suggestion(row: dict) -> bool:
    """Whether a row of the catalogue came from a visitor, whatever was decided on it since."""
    return row["url"].startswith(PREFIX)


def shown_path(data, row: dict) -> str:
    """The path of the picture of a row to show to a person, relative to `data`: its clean copy, or
    the file as it came where a suggestion has none yet.
    """
    path = clean_path(row)
    if is_suggestion(row) and not (Path(data) / path).exists():
        return row["file"]
    return path


def _number(sha256: str) -> str:
    return sha256[:12]
