"""Levelled sources: a data set whose pictures were made alike, whatever source they came from.

Every picture is squashed to one square and recompressed. Reads a data folder or a gallery folder;
writes a data folder of its own and changes nothing else. The command line calls it
`--level-sources`; `experiments/17_leaks` measures what it costs.
"""

from functools import partial
from pathlib import Path
from uuid import uuid4

from PIL import Image

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.base.processes import MapJobs, map_here
from artclf.base.progress import progress_bar
from artclf.data import cleaning, splits
from artclf.data.catalogue import FACTS, Catalogue
from artclf.data.galleries import read_gallery
from artclf.data.intake import CRASHED, Arrival, Intake, take_in
from artclf.data.pictures import MAX_SIZE, Rejected, open_rgb


def level_sources(
    source,
    out,
    size: int = 224,
    quality: int = 75,
    manifest=None,
    label_column: str | None = None,
    workers: int | None = None,
    layout: str | None = None,
    file_names: bool = True,
    map_jobs: MapJobs | None = None,
) -> Path:
    """Write the data folder `out`, in which every picture of `source` is a JPEG of `size` x `size`
    px and `quality`, and clean it; return `out`.

    `source` is a data folder, whose usable images are taken, or a gallery folder (`manifest`,
    `label_column`, `layout` and `file_names` as in `galleries.read_gallery`). URLs, periods, facts
    and duplicate groups stay. A second run does only what is new; what `source` no longer uses is
    dropped by the column `review`, which holds nothing else here. The workers of `map_jobs`, which
    level and clean the pictures, see both folders under the same path. Raises InputError where
    `out` holds anything else, or pictures of another size or quality, and what reading raises.
    """
    settings.check(max_size=size, quality=quality)
    source = Path(source)
    out = Path(out)
    if (source / "catalogue.db").exists():
        pictures = _pictures_of_data(source)
    else:
        pictures = _pictures_of_gallery(source, manifest, label_column, layout, file_names)
    files = {(picture["url"], picture["period"]): picture["file"] for picture in pictures}
    _claim(out, f"{source.resolve().name}, {size} px, quality {quality}")
    intake = Intake(out)
    with intake.writing(), Catalogue(out) as catalogue:
        catalogue.add(pictures)
        reviews = []
        for row in catalogue.select():
            key = (row["url"], row["period"])
            review = None if key in files else "drop"
            reviews.append({"url": row["url"], "period": row["period"], "review": review})
        catalogue.update(reviews)
        pending = catalogue.select("status = 'pending'")
        keys = [(row["url"], row["period"]) for row in pending]
        arrivals = [Arrival(*key, files[key].absolute()) for key in keys if key in files]
        function = partial(_take_in_levelled, out.absolute(), intake.tmp, size, quality)
        with progress_bar(desc="level", total=len(arrivals)) as bar:
            for chunk in (map_jobs or map_here)(function, arrivals):
                for arrival, columns in chunk:
                    intake.record(catalogue, arrival._asdict(), columns or CRASHED)
                    bar.update()
        names = ("url", "period", "dup_group")
        catalogue.update({name: picture.get(name) for name in names} for picture in pictures)
    cleaning.normalise(out, max_size=size, workers=workers, map_jobs=map_jobs)
    return out


def _pictures_of_data(data: Path) -> list[dict]:
    rows = splits.usable(data)
    facts = rows[["url", "period", "dup_group", *FACTS]].astype(object).replace({"": None})
    facts = facts.where(facts.notna(), None)
    pictures = []
    for row, file in zip(facts.to_dict("records"), rows.file, strict=True):
        pictures.append({**row, "file": data / file})
    return pictures


def _pictures_of_gallery(folder: Path, *how_to_read) -> list[dict]:
    pictures = []
    reading = read_gallery(folder, *how_to_read)
    for note in reading.notes:
        print(note)
    for picture in progress_bar(reading.pictures, desc="read"):
        pictures.append({**picture, "url": f"import:{sha256_of(picture['file'])}"})
    return pictures


def _claim(out: Path, wanted: str):
    """Note in the catalogue what the folder holds. Raises InputError where that is something
    else.
    """
    existed = (out / "catalogue.db").exists()
    with Catalogue(out) as catalogue:
        noted = catalogue.setting("level")
        if existed and noted != wanted:
            content = f"pictures of {noted}" if noted else "another data set"
            raise InputError(
                f"{out} holds {content}: name another folder for the levelled pictures"
            )
        catalogue.set_setting("level", wanted)


def _take_in_levelled(data: Path, tmp: str, size: int, quality: int, arrival: Arrival) -> dict:
    """Take in the levelled picture; the file itself where it can't be decoded: the catalogue will
    say why.
    """
    try:
        image = open_rgb(arrival.file, max(MAX_SIZE, size))
    except Rejected:
        return take_in(data, tmp, arrival)
    square = image.resize((size, size), Image.Resampling.BICUBIC)
    levelled = data / tmp / f"{uuid4().hex}.jpg"  # its own for each process
    square.save(levelled, "JPEG", quality=quality)
    columns = take_in(data, tmp, arrival._replace(file=levelled))
    levelled.unlink()
    return columns
