"""A data set whose pictures were made alike: squashed to one square and recompressed, whatever
source they came from.

Reads a data folder or a gallery folder; writes a data folder of its own and changes nothing else.
The command line calls it `--level-sources`; `experiments/17_leaks` measures what it costs.
"""

import hashlib
from pathlib import Path

from PIL import Image

from artclf.base.errors import InputError
from artclf.base.progress import progress_bar
from artclf.data import cleaning, splits
from artclf.data.catalogue import FACTS, Catalogue
from artclf.data.galleries import read_gallery
from artclf.data.intake import Intake
from artclf.data.pictures import Rejected, open_rgb


def level_sources(
    source,
    out,
    size: int = 224,
    quality: int = 75,
    manifest=None,
    label_column: str | None = None,
    workers: int | None = None,
) -> Path:
    """Data folder `out`, in which every picture of `source` is a JPEG of `size` x `size` px and
    `quality`, and clean.

    `source` is a data folder, whose usable images are taken, or a gallery folder (`manifest` and
    `label_column` as in `download.import_folder`). URLs, periods, facts and duplicate groups stay.
    A second run does only what is new; what `source` no longer uses is dropped by the column
    `review`, which holds nothing else here. Raises ValueError where `out` holds anything else, or
    pictures of another size or quality, and what reading raises.
    """
    pictures = (
        _of_data(source)
        if (Path(source) / "catalogue.db").exists()
        else _of_gallery(source, manifest, label_column)
    )
    files = {(picture["url"], picture["period"]): picture["file"] for picture in pictures}
    _claim(out, f"{Path(source).resolve().name}, {size} px, quality {quality}")
    run = Intake(Path(out))
    with run.writing(), Catalogue(out) as cat:
        cat.add(pictures)
        cat.update(
            {
                **{name: row[name] for name in ("url", "period")},
                "review": None if (row["url"], row["period"]) in files else "drop",
            }
            for row in cat.select()
        )
        for row in progress_bar(cat.select("status = 'pending'"), desc="level"):
            if file := files.get((row["url"], row["period"])):
                run.take_in(cat, row, _squash(file, run.data / "tmp" / "level.jpg", size, quality))
        cat.update(
            {name: picture.get(name) for name in ("url", "period", "dup_group")}
            for picture in pictures
        )
    cleaning.normalise(out, max_size=size, workers=workers)
    return Path(out)


def _of_data(data) -> list[dict]:
    rows = splits.usable(data)
    known = rows[["url", "period", "dup_group", *FACTS]].astype(object).replace({"": None})
    known = known.where(known.notna(), None)
    return [
        {**row, "file": Path(data) / file}
        for row, file in zip(known.to_dict("records"), rows.file, strict=True)
    ]


def _of_gallery(folder, manifest, label_column) -> list[dict]:
    return [
        {**picture, "url": f"import:{hashlib.sha256(picture['file'].read_bytes()).hexdigest()}"}
        for picture in progress_bar(list(read_gallery(folder, manifest, label_column)), desc="read")
    ]


def _claim(out, wanted: str):
    """Note what the folder holds. Raises ValueError where that is something else."""
    known = (Path(out) / "catalogue.db").exists()
    with Catalogue(out) as cat:
        found = cat.setting("level")
        if known and found != wanted:
            raise InputError(
                f"{out} holds {f'pictures of {found}' if found else 'another data set'}: name another "
                "folder for the levelled pictures"
            )
        cat.set_setting("level", wanted)


def _squash(file: Path, copy: Path, size: int, quality: int) -> Path:
    """`copy`, the levelled picture; the file itself where it can't be decoded: the catalogue will
    say why.
    """
    try:
        image = open_rgb(file)
    except Rejected:
        return file
    image.resize((size, size), Image.Resampling.BICUBIC).save(copy, "JPEG", quality=quality)
    return copy
