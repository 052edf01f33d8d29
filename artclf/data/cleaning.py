"""Cleaning: decode every raw picture whole, judge it, and write a normalised copy.

Reads `DATA/raw/` and the catalogue; writes `DATA/clean/<period>/<stem>.jpg` and the columns
`clean_status` (ok, flagged, rejected, duplicate, conflict), `clean_reason` and `clean_sha256`. Raw
files are never changed or deleted. Step `clean`, notebook `02_clean`.
"""

import hashlib
import json
import warnings
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from artclf.base import settings as ranges
from artclf.base.errors import InputError
from artclf.base.files import replace_whole
from artclf.base.locks import locked
from artclf.base.processes import MapJobs, map_in_processes
from artclf.base.progress import progress_bar
from artclf.data import packs
from artclf.data.catalogue import (
    Catalogue,
    clean_path,
    label_of_copy,
    read_catalogue,
    read_setting,
    require,
)
from artclf.data.classes import in_order, labelled
from artclf.data.pictures import (
    MAX_PIXELS,
    MAX_SIZE,
    MEGAPIXELS,
    MISSING,
    NO_MEMORY,
    UNREADABLE,
    Rejected,
    open_rgb,
)
from artclf.data.places import Place

VERSION = 2  # to be raised when the same raw picture gives another clean copy than before
NEAR_DUPLICATE = "near-duplicate"  # how reasons begin that module `duplicates` gives


@dataclass(frozen=True)
class Settings:
    """What a clean copy is: longer side at most `max_size` px, JPEG `quality`, shorter side of the
    raw picture at least `min_size` px.

    A picture whose channels (0..255) all vary by less than `min_contrast`, at about 32 px, is
    flagged as of one colour.
    """

    max_size: int = MAX_SIZE
    quality: int = 90
    min_size: int = 64
    min_contrast: int = 12


@dataclass(frozen=True)
class Job:
    """A picture to clean: its row of the catalogue, its raw file, and the copy to write."""

    row: dict
    raw: Path
    copy: Path


class Verdict(NamedTuple):
    """What the catalogue says of a picture; both are None for one that is to be decoded again."""

    clean_status: str | None
    clean_reason: str | None


CRASHED = Verdict("rejected", "crashed the decoder")


def normalise(
    data,
    max_size: int = MAX_SIZE,
    quality: int = 90,
    workers: int | None = None,
    map_jobs: MapJobs | None = None,
):
    """Clean what is new, find exact duplicates, and return the counts: a DataFrame, one row per
    period, one column per status.

    A second run decodes only what is new, unless the settings changed, and what was rejected for a
    reason that may have passed: a file that was missing, a moment without memory. Uses `workers`
    processes (all cores), or `map_jobs`, whose workers see `data` under the same path; a picture that
    crashes the decoder gets that as its reason. Raises FileNotFoundError where there is no
    catalogue, SettingError for a size or quality that makes no sense, InputError for other settings
    where only clean copies were unpacked, StepError where another process writes to `data`.
    """
    ranges.check(max_size=max_size, quality=quality)
    data = require(data)
    settings = Settings(max_size, quality)
    with locked(data), Catalogue(data) as cat:
        _forget_verdicts_of_other_settings(cat, settings)
        _judge_again(cat, data)
        _mark_exact_duplicates(cat)
        while rows := _rows_to_clean(cat, data):
            _clean_pictures(cat, data, rows, settings, workers, map_jobs or map_in_processes)
            # A picture that was set aside may have lost its duplicate now: it is decoded again.
            _mark_exact_duplicates(cat)
    return counts(data)


def counts(data):
    """How many images of each period have which `clean_status`: a DataFrame, one row per period."""
    import pandas as pd

    table = read_catalogue(data).dropna(subset="clean_status")
    counted = pd.crosstab(table.period, table.clean_status)
    return counted.loc[in_order(counted.index)]


def copies(data, files) -> list[Path | packs.PackedPicture]:
    """Where the clean copies `files` of a data set lie: paths in its folder, or pictures in a pack.
    `pictures.open_rgb` takes both.

    Raises FileNotFoundError where a pack lacks one, InputError for a pack of raw pictures.
    """
    files = list(files)
    if not packs.is_pack(data):
        return [Path(data) / file for file in files]
    check_has_copies(data)
    wanted = set(files)
    found = {picture.file: picture for picture in packs.pictures(data) if picture.file in wanted}
    missing = [file for file in files if file not in found]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} clean copies are not in the pack {data}, such as "
            f"{missing[0]}: run `artclf clean` on the data set and pack it again"
        )
    return [found[file] for file in files]


def check_copies(data, files):
    """Raise FileNotFoundError where clean copies, `files` relative to `data`, are gone; their
    features may be stored. Else as `copies`.
    """
    places = copies(data, files)
    missing = [place for place in places if isinstance(place, Path) and not place.exists()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} clean copies are gone, such as {missing[0]}: run "
            f"`artclf clean --data {data}`"
        )


def check_has_copies(data):
    """Raise InputError for a pack of raw pictures: it has no clean copies."""
    if packs.is_pack(data) and packs.require_complete(Place(data)).kind != packs.CLEAN:
        raise InputError(
            f"{data} is a pack of raw pictures, and clean copies are needed: pack these by `artclf "
            f"data pack DATA TARGET --clean`, or unpack this one by `artclf data unpack {data} DATA` "
            "and run `artclf clean --data DATA`"
        )


def max_size_of(data) -> int:
    """The longer side that the clean copies in `data` have at most, in px."""
    if not packs.is_pack(data) and not (Path(data) / "catalogue.db").exists():
        return MAX_SIZE
    settings = json.loads(read_setting(data, "clean") or "{}")
    return settings.get("max_size", MAX_SIZE)


def issues(data):
    """The issues that cleaning found, the most frequent first: a DataFrame with `issue`, the
    `number` of images, and one of them as `example` (a raw file).
    """
    table = read_catalogue(data)
    table = table[table.clean_status.notna() & (table.clean_status != "ok")]
    reason = table.clean_reason.str.replace(r"( of raw/.*)? \(.*", "", regex=True)  # no details
    issue = (table.clean_status + ": " + reason).rename("issue")
    result = table.groupby(issue).file.agg(number="size", example="first")
    return result.sort_values("number", ascending=False).reset_index()


def _forget_verdicts_of_other_settings(cat: Catalogue, settings: Settings):
    current = json.dumps({**asdict(settings), "version": VERSION})
    noted = cat.setting("clean")
    if noted == current:
        return
    data = cat.path.parent
    if noted and (data / "clean").is_dir() and not (data / "raw").is_dir():
        raise InputError(
            f"{data} has only clean copies, made with the settings {noted}: to make others, unpack the "
            "raw pictures"
        )
    with cat.transaction() as db:
        db.execute("UPDATE images SET clean_status = NULL, clean_reason = NULL")
    cat.set_setting("clean", current)


def _judge_again(cat: Catalogue, data: Path):
    """Forget the verdict `rejected` where its reason may have passed."""
    rows = cat.select("status = 'ok' AND clean_status = 'rejected'")
    cat.update(
        {"url": row["url"], "period": row["period"], **Verdict(None, None)._asdict()}
        for row in rows
        if _may_have_passed(row, data)
    )


def _may_have_passed(row: dict, data: Path) -> bool:
    """Whether the reason for which a picture was rejected may no longer hold."""
    reason = row["clean_reason"]
    if reason == MISSING:
        return (data / row["file"]).exists()
    if MEGAPIXELS in reason:
        return row["width"] * row["height"] <= MAX_PIXELS
    # a worker that the system ends for want of memory looks like a decoder that crashed
    return reason.startswith((NO_MEMORY, UNREADABLE, CRASHED.clean_reason))


def _rows_to_clean(cat: Catalogue, data: Path) -> list[dict]:
    return [row for row in cat.select("status = 'ok'") if not _is_clean(data, row)]


def _is_clean(data: Path, row: dict) -> bool:
    if row["clean_status"] is None:
        return False
    return row["clean_status"] == "rejected" or (data / clean_path(row)).exists()


def _clean_pictures(
    cat: Catalogue,
    data: Path,
    rows: list[dict],
    settings: Settings,
    workers: int | None,
    map_jobs: MapJobs,
):
    folder = data.absolute()  # a worker may have another folder of its own
    jobs = (Job(row, folder / row["file"], folder / clean_path(row)) for row in rows)
    results = map_jobs(
        partial(_clean_picture, settings), jobs, workers, initializer=_ignore_pillow_warnings
    )
    with progress_bar(desc="clean", total=len(rows)) as bar:
        for chunk in results:
            cat.update(
                {
                    "url": job.row["url"],
                    "period": job.row["period"],
                    **(columns or CRASHED._asdict()),
                }
                for job, columns in chunk
            )
            bar.update(len(chunk))


def _ignore_pillow_warnings():
    """Pillow warns of large pictures and damaged tags; cleaning judges these by itself.

    For the worker processes alone: what a caller's process shows is for its owner to say.
    """
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.Image\b")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _clean_picture(settings: Settings, job: Job) -> dict:
    """Write the clean copy of one picture; the columns of the catalogue to set."""
    try:
        if min(job.row["width"], job.row["height"]) < settings.min_size:
            raise Rejected(f"under {settings.min_size} px")
        im = open_rgb(job.raw, settings.max_size)
    except Rejected as error:
        return Verdict("rejected", str(error))._asdict()
    verdict = Verdict("ok", None)
    if _is_of_one_colour(im, settings.min_contrast):
        verdict = Verdict("flagged", "of one colour or nearly so")
    stream = BytesIO()
    im.save(stream, "JPEG", quality=settings.quality)
    jpeg = stream.getvalue()
    replace_whole(job.copy, lambda part: part.write_bytes(jpeg))
    return {**verdict._asdict(), "clean_sha256": hashlib.sha256(jpeg).hexdigest()}


def _is_of_one_colour(im: Image.Image, min_contrast: int) -> bool:
    small = im.reduce(max(1, min(im.size) // 32))
    ranges = np.ptp(np.asarray(small), axis=(0, 1))  # of each channel
    return bool(ranges.max() < min_contrast)


def _mark_exact_duplicates(cat: Catalogue):
    """Of the images with equal clean copies keep the first in a period; under two periods set them
    all aside.
    """
    groups = defaultdict(list)
    for row in cat.select("clean_sha256 IS NOT NULL AND clean_status != 'rejected'"):
        groups[row["clean_sha256"]].append(row)
    changes = []
    for group in groups.values():
        for row, verdict in zip(group, _verdicts_in_group(group), strict=True):
            if verdict != (row["clean_status"], row["clean_reason"]):
                changes.append({"url": row["url"], "period": row["period"], **verdict._asdict()})
    cat.update(changes)


def _verdicts_in_group(group: list[dict]) -> list[Verdict]:
    """The verdicts on rows with the same clean copy."""
    first_in: dict[str, dict] = {}  # the first row of each period
    for row in group:
        first_in.setdefault(row["period"], row)
    labels = [label_of_copy(row, first_in[row["period"]]) for row in group]
    periods = labelled(label for label in labels if label)
    used = [row for row, period in zip(group, labels, strict=True) if period in periods]
    verdicts = []
    for row, period in zip(group, labels, strict=True):
        # a copy without a label says nothing against the labels of the others
        other_periods = in_order(periods - {period}) if period in periods else []
        if period is None:
            verdicts.append(_verdict_on_dropped(row, first_in[row["period"]]))
        elif other_periods:
            reason = f"same picture under another period ({', '.join(other_periods)})"
            verdicts.append(Verdict("conflict", reason))
        elif row is not used[0]:
            verdicts.append(Verdict("duplicate", f"same picture twice ({used[0]['file']})"))
        else:
            verdicts.append(_verdict_on_single(row))
    return verdicts


def _verdict_on_dropped(row: dict, first: dict) -> Verdict:
    if row["review"] == "drop":
        return _verdict_on_single(row)
    return Verdict("duplicate", f"same picture twice ({first['file']}, dropped by review)")


def _verdict_on_single(row: dict) -> Verdict:
    """The verdict on a row that no other stands in the way of."""
    reason = row["clean_reason"] or ""
    was_set_aside = row["clean_status"] in ("duplicate", "conflict")
    if was_set_aside and not reason.startswith(NEAR_DUPLICATE):
        return Verdict(None, None)  # its duplicate is gone
    return Verdict(row["clean_status"], row["clean_reason"])
