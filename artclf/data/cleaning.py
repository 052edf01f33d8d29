"""Step clean: decode every raw image whole and write a normalised copy.

Reads `DATA/raw/` and the catalogue; writes `DATA/clean/<period>/<stem>.jpg` and the columns
`clean_status` (ok, flagged, rejected, duplicate, conflict) and `clean_reason`. Raw files are never
changed or deleted. Notebook: `02_clean`.
"""

import hashlib
import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from artclf.base.processes import map_in_processes
from artclf.base.progress import progress_bar
from artclf.data.catalogue import Catalogue, clean_path, label, read_catalogue, require
from artclf.data.pictures import Rejected, open_rgb

CRASHED = {"clean_status": "rejected", "clean_reason": "crashed the decoder"}


@dataclass(frozen=True)
class Settings:
    """What a clean copy is: longer side at most `max_size` px, JPEG `quality`, shorter side at
    least `min_size` px; and flagged as of one colour where each channel (0..255), at about 32 px,
    varies by less than `min_contrast`.
    """

    max_size: int = 500
    quality: int = 90
    min_size: int = 64
    min_contrast: int = 12


def normalise(data, max_size: int = 500, quality: int = 90, workers: int | None = None):
    """Clean what is new, find exact duplicates, and return the counts: a DataFrame, a row a period,
    a column a status.

    A rerun decodes only what is new, unless the settings changed. Uses `workers` processes (all
    cores); an image that crashes the decoder gets that as its reason. Raises FileNotFoundError
    where there is no catalogue.
    """
    data, settings = require(data), Settings(max_size, quality)
    with Catalogue(data) as cat:
        _forget_if_changed(cat, settings)
        _mark_duplicates(cat)
        while todo := [row for row in cat.select("status = 'ok'") if not _done(data, row)]:
            _decode(cat, data, todo, settings, workers or os.cpu_count())
            _mark_duplicates(
                cat
            )  # may find that what was set aside has no double left: that is decoded anew
    return counts(data)


def _decode(cat: Catalogue, data: Path, todo: list[dict], settings: Settings, workers: int):
    for folder in {(data / clean_path(row)).parent for row in todo}:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = ((row, data / row["file"], data / clean_path(row)) for row in todo)
    with progress_bar(desc="clean", total=len(todo)) as bar:
        for results in map_in_processes(partial(_job, settings), jobs, workers):
            cat.update(
                {"url": row["url"], "period": row["period"], **(new or CRASHED)}
                for (row, *_), new in results
            )
            bar.update(len(results))


def counts(data):
    """How many images of each period have which `clean_status`: a DataFrame, a row a period."""
    import pandas as pd

    table = read_catalogue(data).dropna(subset="clean_status")
    return pd.crosstab(table.period, table.clean_status)


def issues(data):
    """The issues found: a DataFrame with `issue`, the `number` of images, and one of them as
    `example` (a raw file).
    """
    table = read_catalogue(data)
    table = table[table.clean_status.notna() & (table.clean_status != "ok")]
    issue = (
        table.clean_status
        + ": "
        + table.clean_reason.str.replace(r"( of raw/.*)? \(.*", "", regex=True)
    )
    found = table.groupby(issue.rename("issue")).file.agg(number="size", example="first")
    return found.sort_values("number", ascending=False).reset_index()


def _job(settings: Settings, job) -> dict:
    """Clean one image; the columns of the catalogue to set."""
    row, raw, copy = job
    try:
        if min(row["width"], row["height"]) < settings.min_size:
            raise Rejected(f"under {settings.min_size} px")
        im = open_rgb(raw, settings.max_size)
    except Rejected as e:
        return {"clean_status": "rejected", "clean_reason": str(e)}
    small = im.reduce(max(1, min(im.size) // 32)).getextrema()
    flat = max(high - low for low, high in small) < settings.min_contrast
    im.save(jpeg := BytesIO(), "JPEG", quality=settings.quality)
    copy.write_bytes(
        jpeg.getbuffer()
    )  # a copy that was cut short has no verdict in the catalogue: it is made again
    return {
        "clean_status": "flagged" if flat else "ok",
        "clean_reason": "of one colour or nearly so" if flat else None,
        "clean_sha256": hashlib.sha256(jpeg.getbuffer()).hexdigest(),
    }


def _done(data: Path, row: dict) -> bool:
    return (
        row["clean_status"] == "rejected"
        or bool(row["clean_status"])
        and (data / clean_path(row)).exists()
    )


def _forget_if_changed(cat: Catalogue, settings: Settings):
    wanted = json.dumps(asdict(settings))
    if cat.setting("clean") == wanted:
        return
    with cat.transaction() as db:
        db.execute("UPDATE images SET clean_status = NULL, clean_reason = NULL")
    cat.set_setting("clean", wanted)


def _mark_duplicates(cat: Catalogue):
    """Of the images with equal clean copies keep the first in a period; under two periods set them
    all aside.
    """
    groups = defaultdict(list)
    for row in cat.select("clean_sha256 IS NOT NULL AND clean_status != 'rejected'"):
        groups[row["clean_sha256"]].append(row)
    verdicts = ((row, _verdict(row, group)) for group in groups.values() for row in group)
    cat.update(
        {"url": row["url"], "period": row["period"], "clean_status": status, "clean_reason": reason}
        for row, (status, reason) in verdicts
        if (status, reason) != (row["clean_status"], row["clean_reason"])
    )


def _verdict(row, group) -> tuple[str, str | None]:
    used = [other for other in group if other["review"] != "drop"]
    others = sorted({label(other) for other in used} - {label(row)})
    if row in used and others:
        return "conflict", f"same picture under another period ({', '.join(others)})"
    if row in used[1:]:
        return "duplicate", f"same picture twice ({used[0]['file']})"
    near = (row["clean_reason"] or "").startswith(
        "near-duplicate"
    )  # says module duplicates, which takes it back
    if row["clean_status"] in ("duplicate", "conflict") and not near:
        return None, None  # its double is gone
    return row["clean_status"], row["clean_reason"]
