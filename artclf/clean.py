"""Step clean: decode every raw image whole and write a normalised copy.

Reads `DATA/raw/` and the catalogue; writes `DATA/clean/<period>/<stem>.jpg` and the columns `clean_status` (ok,
flagged, rejected, duplicate, conflict) and `clean_reason`. Raw files are never changed or deleted.
Notebook: `02_clean`.
"""
import hashlib
import json
import os
import signal
import struct
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps

from artclf.catalogue import Catalogue, clean_path, label, progress, read_catalogue, require

MAX_PIXELS, CRASHED = 100_000_000, {"clean_status": "rejected", "clean_reason": "crashed the decoder"}


@dataclass(frozen=True)
class Settings:
    """What a clean copy is: longer side at most `max_size` px, JPEG `quality`, shorter side at least `min_size` px; and
    flagged as of one colour where each channel (0..255), at about 32 px, varies by less than `min_contrast`."""
    max_size: int = 500
    quality: int = 90
    min_size: int = 64
    min_contrast: int = 12


# whatever the decoders have been seen to raise on damaged files
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, MemoryError,
                  AttributeError, AssertionError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError)


class Rejected(Exception): """An image that can't be used, and why."""


def normalise(data, max_size: int = 500, quality: int = 90, workers: int | None = None):
    """Clean what is new, find exact duplicates, and return the counts: a DataFrame, a row a period, a column a status.

    A rerun decodes only what is new, unless the settings changed. Uses `workers` processes (all cores); an image
    that crashes the decoder gets that as its reason. Raises FileNotFoundError where there is no catalogue.
    """
    data, settings = require(data), Settings(max_size, quality)
    with Catalogue(data) as cat:
        _forget_if_changed(cat, settings)
        _mark_duplicates(cat)
        while todo := [row for row in cat.select("status = 'ok'") if not _done(data, row)]:
            _decode(cat, data, todo, settings, workers or os.cpu_count())
            _mark_duplicates(cat)  # may find that what was set aside has no double left: that is decoded anew
    return counts(data)


def _decode(cat: Catalogue, data: Path, todo: list[dict], settings: Settings, workers: int):
    for folder in {(data / clean_path(row)).parent for row in todo}: folder.mkdir(parents=True, exist_ok=True)
    jobs = ((row, data / row["file"], data / clean_path(row)) for row in todo)
    with progress(desc="clean", total=len(todo)) as bar:
        for results in _in_processes(partial(_job, settings), jobs, workers):
            cat.update({"url": row["url"], "period": row["period"], **(new or CRASHED)} for (row, *_), new in results)
            bar.update(len(results))


def counts(data):
    """How many images of each period have which `clean_status`: a DataFrame, a row a period."""
    import pandas as pd
    table = read_catalogue(data).dropna(subset="clean_status")
    return pd.crosstab(table.period, table.clean_status)


def issues(data):
    """The issues found: a DataFrame with `issue`, the `number` of images, and one of them as `example` (a raw file)."""
    table = read_catalogue(data)
    table = table[table.clean_status.notna() & (table.clean_status != "ok")]
    issue = table.clean_status + ": " + table.clean_reason.str.replace(r"( of raw/.*)? \(.*", "", regex=True)
    found = table.groupby(issue.rename("issue")).file.agg(number="size", example="first")
    return found.sort_values("number", ascending=False).reset_index()


def open_rgb(file, max_size: int = 500) -> Image.Image:
    """The picture in `file` (a path or a binary stream) decoded whole: upright, RGB, longer side at most `max_size`.

    Alpha is laid on white, 16 bits are scaled to 8. Raises `Rejected` with the reason, in words, where that fails.
    """
    try:
        im = Image.open(BytesIO(data := file.read() if hasattr(file, "read") else Path(file).read_bytes()))
        if im.width * im.height > MAX_PIXELS: raise Rejected("over 100 megapixels")
        if getattr(im, "n_frames", 1) > 1 and im.format != "MPO": raise Rejected("animated or of several pages")
        parts = 2 ** min(3, max(0, (max(im.size) // max_size).bit_length() - 1))  # JPEGs shrink fast by 2, 4 or 8
        least = [max(1, side // parts) for side in im.size]
        if im.format == "JPEG" and (plain := _decode_jpeg(im, data, least, max_size)): return plain
        im.draft("RGB", least)
        im.load()
        ImageOps.exif_transpose(im, in_place=True)
        return shrink(to_rgb(im), max_size)
    except DECODER_ERRORS as e:
        raise Rejected(_reason(e)) from e


def _decode_jpeg(im: Image.Image, data: bytes, least: list[int], max_size: int) -> Image.Image | None:
    """What Pillow makes of a JPEG, pixel for pixel, in less time; None where there is anything for Pillow to judge."""
    if im.mode != "RGB" or im.getexif().get(ExifTags.Base.Orientation, 1) != 1: return None
    try:
        pixels = simplejpeg.decode_jpeg(data, min_width=least[0], min_height=least[1], min_factor=1)
        return Image.fromarray(_shrunk(pixels, max_size))
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError): return "over 100 megapixels"
    if isinstance(error, Image.UnidentifiedImageError): return "not an image"
    if isinstance(error, FileNotFoundError): return "file is missing"
    return "truncated" if "truncated" in str(error) else f"cannot be decoded ({str(error) or type(error).__name__})"


def to_rgb(im: Image.Image) -> Image.Image:
    """`im` in mode RGB: alpha on white, 16-bit and floating-point greys scaled to 0..255."""
    if im.mode == "RGB" and not im.has_transparency_data: return im
    if im.mode.startswith("I") or im.mode == "F":
        pixels = np.nan_to_num(np.asarray(im, dtype=float))
        top = 1 if im.mode == "F" and pixels.max() <= 1 else 65535 if "16" in im.mode or pixels.max() > 255 else 255
        im = Image.fromarray((pixels.clip(0, top) * (255 / top)).astype("uint8"))
    if im.has_transparency_data:
        im = im.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", im.size, "white"), im).convert("RGB")
    return im.convert("RGB")


def shrink(im: Image.Image, max_size: int) -> Image.Image:
    """`im` with its longer side at most `max_size` px, its shape kept; never enlarged."""
    return im if max(im.size) <= max_size else Image.fromarray(_shrunk(np.asarray(im), max_size))


def _shrunk(pixels: np.ndarray, max_size: int) -> np.ndarray:
    if (scale := max_size / max(pixels.shape[:2])) >= 1: return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR if scale > .5 else cv2.INTER_AREA)


def _job(settings: Settings, job) -> dict:
    """Clean one image; the columns of the catalogue to set."""
    row, raw, copy = job
    try:
        if min(row["width"], row["height"]) < settings.min_size: raise Rejected(f"under {settings.min_size} px")
        im = open_rgb(raw, settings.max_size)
    except Rejected as e:
        return {"clean_status": "rejected", "clean_reason": str(e)}
    small = im.reduce(max(1, min(im.size) // 32)).getextrema()
    flat = max(high - low for low, high in small) < settings.min_contrast
    im.save(jpeg := BytesIO(), "JPEG", quality=settings.quality)
    copy.write_bytes(jpeg.getbuffer())  # a copy that was cut short has no verdict in the catalogue: it is made again
    return {"clean_status": "flagged" if flat else "ok", "clean_reason": "of one colour or nearly so" if flat else None,
            "clean_sha256": hashlib.sha256(jpeg.getbuffer()).hexdigest()}


def _done(data: Path, row: dict) -> bool:
    return row["clean_status"] == "rejected" or bool(row["clean_status"]) and (data / clean_path(row)).exists()


def _forget_if_changed(cat: Catalogue, settings: Settings):
    wanted = json.dumps(asdict(settings))
    if cat.setting("clean") == wanted: return
    with cat.transaction() as db: db.execute("UPDATE images SET clean_status = NULL, clean_reason = NULL")
    cat.set_setting("clean", wanted)


def _mark_duplicates(cat: Catalogue):
    """Of the images with equal clean copies keep the first in a period; under two periods set them all aside."""
    groups = defaultdict(list)
    for row in cat.select("clean_sha256 IS NOT NULL AND clean_status != 'rejected'"):
        groups[row["clean_sha256"]].append(row)
    verdicts = ((row, _verdict(row, group)) for group in groups.values() for row in group)
    cat.update({"url": row["url"], "period": row["period"], "clean_status": status, "clean_reason": reason}
               for row, (status, reason) in verdicts if (status, reason) != (row["clean_status"], row["clean_reason"]))


def _verdict(row, group) -> tuple[str, str | None]:
    used = [other for other in group if other["review"] != "drop"]
    others = sorted({label(other) for other in used} - {label(row)})
    if row in used and others: return "conflict", f"same picture under another period ({', '.join(others)})"
    if row in used[1:]: return "duplicate", f"same picture twice ({used[0]['file']})"
    near = (row["clean_reason"] or "").startswith("near-duplicate")  # says module duplicates, which takes it back
    if row["clean_status"] in ("duplicate", "conflict") and not near: return None, None  # its double is gone
    return row["clean_status"], row["clean_reason"]


def _in_processes(fn: Callable, jobs: Iterable, workers: int, size: int = 16) -> Iterator[list]:
    """Lists of up to `size` pairs of job and `fn(job)`, in any order, computed by `workers` processes.

    When a process dies, the jobs under way are done again in processes of their own; the result of a job that kills
    its own is None. Raises RuntimeError where no process starts at all.
    """
    jobs = iter(jobs)
    chunks, under_way, pool = iter(lambda: list(islice(jobs, size)), []), {}, process_pool(workers)
    try:
        while True:
            under_way |= {pool.submit(_map, fn, chunk): chunk for chunk in islice(chunks, 2 * workers - len(under_way))}
            if not under_way: return
            ready = next(iter(wait(under_way, return_when=FIRST_COMPLETED).done))
            try:
                results = ready.result()
            except BrokenProcessPool:
                pool = process_pool(workers)
                for chunk in under_way.values(): yield list(zip(chunk, _alone(fn, chunk), strict=True))
                under_way = {}
            else:
                yield list(zip(under_way.pop(ready), results, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that leave Ctrl-C to their parent and end with it; spawned, for a fork of torch's threads may hang."""
    return ProcessPoolExecutor(min(workers, 61), get_context("spawn"), _follow_parent)  # Windows waits for 61


def _follow_parent():  # a worker would wait forever for a parent that was killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _map(fn: Callable, jobs: list) -> list: return [fn(job) for job in jobs]


def _alone(fn: Callable, jobs: list) -> list:
    with process_pool(1) as pool:
        try:
            pool.submit(int).result()
        except BrokenProcessPool as e:
            raise RuntimeError("no process starts: a script calls this under `if __name__ == '__main__':`") from e
        try:
            return pool.submit(_map, fn, jobs).result()
        except BrokenProcessPool:
            middle = len(jobs) // 2
    return [*_alone(fn, jobs[:middle]), *_alone(fn, jobs[middle:])] if middle else [None]
