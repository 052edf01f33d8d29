"""How many changed copies of paintings `duplicates.mark` finds, how many of the pairs that it finds
are wrong, and what an index of hashes costs.

    python benchmarks/duplicates.py FOLDER [--number 100] [--distractors 1000]
        [--more FOLDER ...] [--seed 1] [--work DIR] [--sheet FILE]
    python benchmarks/duplicates.py --hashes 10000 100000 1000000 [--every 1]
    python benchmarks/duplicates.py --words 10000 100000 [--work DIR]
    python benchmarks/duplicates.py --scale 10000 100000 [--work DIR]
    python benchmarks/duplicates.py --same 10000 100000 [--work DIR]
    python benchmarks/duplicates.py --memory 100000 1000000 [--work DIR]

FOLDER holds FOLDER/<class>/*.jpg. Of every change `--number` copies are made, each of another
picture drawn by seed, and imported with the originals and `--distractors` further pictures, taken
from the folders of `--more` (hard negatives: one painter's series), then from FOLDER. A pair is
right where both files stem from one original. A quarter of `--number` collages, walls and fades
are made of distractors, four of them each: a collage and a wall should be set aside, a fade should
not tie its two ends together, and the pictures that these are made of should stay.

Pairs of unchanged files may be duplicates that the collection itself has: they are listed with
their painters, as a `manifest.csv` above FOLDER names them, drawn side by side into `--sheet` to be
looked at, and counted apart. Hard negatives are the candidates of different originals: what the
hash or the visual words take for most similar, most of it by one painter.

`--hashes` and `--words` search candidates among so many hashes, and by visual words among so many
pictures: of all that `mark` does, these two are what compares every picture with every other. The
search by words is run as here and as workers do it, with files in `--work`, the jobs one after the
other in this process, and both must find the same. Bytes are those written for workers, and those
that workers read of them. `--every 16` does every 16th job of the search by hash, whose seconds
and pairs times 16 are those of all.

`--scale` draws so many pictures, a tenth of them altered copies of others, and tells how long the
first `mark` of them takes, by the clock and in seconds of all processors, and the memory that it
needs. Each number has a process of its own.

`--same` marks a catalogue of so many pictures twice, as here and by jobs for workers, one after the
other in a process each, and both must write the same rows and groups. All of `mark` runs, but what
is described is drawn (see `Families`), and whether two pictures show the same is read off their
descriptions. The memory of the second run holds that of the job under way.

`--memory` tells what the process of the command holds of so many pictures while workers do the rest:
hashes, candidates by words, 11 a picture, and kinds are drawn instead of their results, so that every
tenth picture has a pair that shows the same. What a picture takes is the difference of two numbers.
"""

import argparse
import hashlib
import resource
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps
from threadpoolctl import threadpool_limits

from artclf import clean, download
from artclf.base.processes import in_chunks
from artclf.base.progress import progress_bar
from artclf.data import (
    comparison,
    descriptions,
    duplicates,
    matcher,
    shared_candidates,
    shared_verdicts,
    verdicts,
)
from artclf.data.candidates import by_words
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue
from artclf.data.close_hashes import close_pairs_in, parts_of
from artclf.data.galleries import find_manifests
from artclf.data.matching import (
    MAX_BITS,
    MIRROR_BITS,
    Description,
    describe,
    mirror_descriptors,
)
from artclf.data.names import artist_keys
from artclf.data.numbered import Pictures, numbers_of, pairs_of
from artclf.results import plots

# The changes: functions of a PIL image and a random generator


def half_the_size(im, rng):
    return im.resize((im.width // 2, im.height // 2), Image.Resampling.LANCZOS)


def jpeg_quality_30(im, rng):
    return recompress(im, 30)


def greyscale(im, rng):
    return im.convert("L").convert("RGB")


def ten_percent_off(im, rng):
    return window(im, rng, 0.9)


def ten_percent_off_every_side(im, rng):
    x = round(0.1 * im.width)
    y = round(0.1 * im.height)
    return ImageOps.crop(im, (x, y, x, y))


def detail_of_a_quarter(im, rng):
    return window(im, rng, 0.5)


def framed(im, rng):
    """A carved frame of gold: three bands a side, with a grain."""
    for share, colour in ((0.02, (60, 40, 20)), (0.05, (170, 130, 60)), (0.02, (90, 60, 25))):
        im = ImageOps.expand(im, round(share * sum(im.size) / 2), colour)
    pixels = np.asarray(im).astype(int)
    edge = round(0.08 * min(im.size))
    grain = rng.normal(0, 12, (*pixels.shape[:2], 1)).astype(int)
    grain[edge:-edge, edge:-edge] = 0
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def white_border(im, rng):
    return ImageOps.expand(im, round(0.1 * min(im.size)), (255, 255, 255))


def watermarked(im, rng):
    """Half-transparent words across the middle and an address in a corner."""
    layer = Image.new("RGBA", im.size)
    draw = ImageDraw.Draw(layer)
    white = (255, 255, 255, 140)
    for x, y, size in ((0.08, rng.uniform(0.3, 0.6), 0.13), (0.6, 0.93, 0.04)):
        place = (x * im.width, y * im.height)
        draw.text(place, "museum-images", white, font_size=size * im.width)
    return Image.alpha_composite(im.convert("RGBA"), layer).convert("RGB")


def rotated(im, rng):
    white = (255, 255, 255)
    return im.rotate(rng.choice([-3, 3]), Image.Resampling.BICUBIC, expand=True, fillcolor=white)


def colour_cast(im, rng):
    gains = rng.permutation([0.75, 1, 1.25])
    return Image.fromarray((np.asarray(im) * gains).clip(0, 255).astype(np.uint8))


def squashed(im, rng):
    return im.resize((224, 224), Image.Resampling.BICUBIC)


def mirrored(im, rng):
    return ImageOps.mirror(im)


def several(im, rng):
    """What another site makes of it: another scan, trimmed, smaller, recompressed."""
    scan = colour_cast(window(im, rng, 0.95), rng)
    return recompress(scan.resize((300, round(300 * im.height / im.width))), 60)


def window(im, rng, share: float):
    """A part of `im` of `share` of its width and height, anywhere."""
    width, height = (round(side * share) for side in im.size)
    x = rng.integers(im.width - width + 1)
    y = rng.integers(im.height - height + 1)
    return im.crop((x, y, x + width, y + height))


def recompress(im, quality: int):
    file = BytesIO()
    im.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


CHANGES = {
    "half the size": half_the_size,
    "JPEG quality 30": jpeg_quality_30,
    "greyscale": greyscale,
    "10% off width and height": ten_percent_off,
    "10% off every side": ten_percent_off_every_side,
    "detail of a quarter": detail_of_a_quarter,
    "frame": framed,
    "white border": white_border,
    "watermark": watermarked,
    "rotation 3 degrees": rotated,
    "colour cast": colour_cast,
    "224 x 224": squashed,
    "mirror": mirrored,
    "several": several,
}
KIND = {"detail of a quarter": "detail", "mirror": "mirror"}  # others: same

# What is made of several pictures: functions of four PIL images, which return images


def collage(images):
    return [in_a_grid(images, 2)]


def wall_of_three(images):
    return [in_a_grid(images[:3], 3)]


def wall_of_four(images):
    return [in_a_grid(images, 4)]


def fade(images):
    """Steps from one picture to another, a tenth each, without the two."""
    first, last = (image.resize((200, 200)) for image in images[:2])
    return [Image.blend(first, last, step / 10) for step in range(1, 10)]


def in_a_grid(images, columns: int, side: int = 300):
    """Pictures in rows of `columns`, each scaled and cropped to a square."""
    grid = Image.new("RGB", (columns * side, -(-len(images) // columns) * side))
    for place, image in enumerate(images):
        corner = (place % columns * side, place // columns * side)
        grid.paste(ImageOps.fit(image, (side, side)), corner)
    return grid


COMBINATIONS = {
    "collage of 4": (collage, 4),
    "wall of 3": (wall_of_three, 3),
    "wall of 4": (wall_of_four, 4),
    "fade": (fade, 2),
}


# Finding changed copies


@dataclass
class Gallery:
    """A folder of originals and copies, and what each file is, by the SHA-256 of its bytes: its
    original and the change that was made ('' for none). `combinations` has the originals of what is
    made of several, by the name of its kind.
    """

    folder: Path
    origins: dict[str, str]
    changes: dict[str, str]
    combinations: dict[str, list[list[str]]]


def make_gallery(args, folder: Path) -> Gallery:
    """Fill `folder` with originals, changed copies and distractors."""
    rng = np.random.default_rng(args.seed)
    gallery = Gallery(folder, {}, {}, {})
    first_with = {}  # a collection may have a file twice: the first file with these bytes

    def put(name: str, content: bytes, original: Path, change: str):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        is_file = original.is_file()
        key = original.read_bytes() if is_file else content
        gallery.origins[sha256] = first_with.setdefault(key, str(original))
        gallery.changes[sha256] = change

    files = list(rng.permutation(sorted(args.folder.glob("*/*.jpg"))))
    for number, (change, apply) in enumerate(progress_bar(CHANGES.items(), desc="changed copies")):
        for file in files[number * args.number : (number + 1) * args.number]:
            copy = BytesIO()
            apply(Image.open(file).convert("RGB"), rng).save(copy, "JPEG", quality=88)
            put(f"{file.parent.name}/{file.stem}-changed.jpg", copy.getvalue(), file, change)
    copied = len(CHANGES) * args.number
    more = [file for extra in args.more for file in sorted(extra.glob("*.jpg"))]
    distractors = (more + files[copied:])[: args.distractors]
    for file in files[:copied] + distractors:
        put(f"{file.parent.name}/{file.name}", file.read_bytes(), file, "")
    rest = iter(reversed(distractors))
    for kind, (combine, number) in COMBINATIONS.items():
        gallery.combinations[kind] = []
        for place in range(args.number // 4):
            shown = [next(rest) for _ in range(4)]
            gallery.combinations[kind].append([str(file) for file in shown[:number]])
            images = [Image.open(file).convert("RGB") for file in shown]
            for step, image in enumerate(combine(images)):
                made = BytesIO()
                image.save(made, "JPEG", quality=88)
                name = f"{kind} {place:03}"
                period = shown[0 if step < 5 else 1].parent.name  # a fade has nine steps
                put(f"{period}/{name} {step}.jpg", made.getvalue(), Path(name), kind)
    return gallery


def measure(args):
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        data = work / "data"
        gallery = make_gallery(args, work / "gallery")
        download.import_folder(gallery.folder, data)
        clean.normalise(data)
        started = time.perf_counter()
        marked = clean.mark_duplicates(data)
        first_run = time.perf_counter() - started
        started = time.perf_counter()
        assert clean.mark_duplicates(data).equals(marked)
        second_run = time.perf_counter() - started
        table = read_catalogue(data).dropna(subset="clean_sha256")
        table["origin"] = table.sha256.map(gallery.origins)
        table["change"] = table.sha256.map(gallery.changes)
        rows = table.to_dict("records")
        pictures = Pictures.of((row["clean_sha256"], clean_path(row)) for row in rows)
        kinds = comparison.compare(data, pictures).named(range(len(pictures))).kinds
        print(
            f"{len(table)} pictures with {args.number} copies of each of {len(CHANGES)} kinds; "
            f"{first_run:.0f} s, a second run {second_run:.0f} s\n"
        )
        is_combined = table.change.isin(COMBINATIONS)
        print(combined(table, gallery).to_string(), "\n")
        of_one = table[~is_combined]
        hashes = set(of_one.clean_sha256)
        kinds = {pair: kind for pair, kind in kinds.items() if hashes.issuperset(pair)}
        print(recall(of_one, kinds).to_string(), "\n")
        report_precision(args, of_one, kinds, data)


def combined(table, gallery: Gallery) -> pd.DataFrame:
    """A row for each of `COMBINATIONS`: how many were set aside as showing several pictures, and how
    many of the pictures that they are made of stay.
    """
    set_aside = table.clean_reason.fillna("").str.contains("shows several pictures")
    stays = table.clean_status.isin(["ok", "flagged"])
    rows = []
    for kind, of_each in gallery.combinations.items():
        made = table.change == kind
        originals = {file for files in of_each for file in files}
        are_originals = (table.change == "") & table.origin.isin(originals)
        rows.append(
            {
                "made of several": kind,
                "pictures": made.sum(),
                "set aside": set_aside[made].mean(),
                "of their originals stay": stays[are_originals].mean(),
            }
        )
    return pd.DataFrame(rows).set_index("made of several").round(3)


def recall(table, kinds: dict) -> pd.DataFrame:
    """A row a change: how many copies were found to be their original, how many of these with the
    right kind.
    """
    originals = {row.origin: row for row in table.itertuples() if not row.change}
    rows = []
    for row in table[table.change != ""].itertuples():
        original = originals[row.origin]
        pair = tuple(sorted((row.clean_sha256, original.clean_sha256)))
        # equal clean copies are found by cleaning
        kind = "same" if pair[0] == pair[1] else kinds.get(pair)
        right_kind = kind == KIND.get(row.change, "same") if kind else None
        rows.append(
            {
                "change": row.change,
                "found": kind is not None,
                "right kind": right_kind,
                "in its group": row.dup_group == original.dup_group,
            }
        )
    copies = pd.DataFrame(rows)
    groups = pd.concat([copies, copies.assign(change="ALL")]).groupby("change", sort=False)
    shares = groups[["found", "right kind", "in its group"]].mean().round(3)
    shares.insert(0, "copies", groups.size())
    return shares


def report_precision(args, table, kinds: dict, data: Path):
    """Print how many pairs are of one original, what the others are, and how many candidates stayed
    apart.
    """
    origin = dict(zip(table.clean_sha256, table.origin, strict=True))
    painter = painters(args.folder)
    with sqlite3.connect(data / "duplicates.db") as db:
        candidates = db.execute("SELECT a, b FROM verdicts").fetchall()
    candidates = [pair for pair in candidates if origin.keys() >= set(pair)]
    compared = {tuple(sorted((origin[a], origin[b]))) for a, b in candidates}
    joined = Counter(tuple(sorted((origin[a], origin[b]))) for a, b in kinds)
    rows = []
    for a, b in compared | set(joined):
        if a == b:
            originals = "one"
        elif painter(a) and painter(a) == painter(b):
            originals = "two of one painter"
        else:
            originals = "two of others or unknown"
        apart = (a, b) not in joined
        rows.append({"originals": originals, "apart": apart, "files": joined[a, b]})
    groups = pd.DataFrame(rows).groupby("originals")
    columns = {
        "compared": ("apart", "size"),
        "apart": ("apart", "sum"),
        "pairs_of_files_joined": ("files", "sum"),
    }
    print(groups.agg(**columns), "\n")
    doubles = [pair for pair, _ in joined.most_common() if pair[0] != pair[1]]
    print(
        f"{len(doubles)} pairs of different originals were joined: right where they are one "
        f"painting ({args.sheet})"
    )
    for a, b in doubles:
        print(f"  {joined[a, b]:4}  {painter(a):25.25}  {painter(b):25.25}  {a}  {b}")
    if doubles:
        files = [file for pair in doubles for file in pair]
        captions = [Path(file).stem for file in files]
        plots.plot_pictures(files, captions).savefig(args.sheet, dpi=60)


def painters(folder: Path) -> Callable[[str], str]:
    """A function of a file: its painter, '' where the manifest above `folder` doesn't name one."""
    manifests = find_manifests(folder)
    if not manifests:
        return lambda file: ""
    [manifest] = manifests
    table = pd.read_csv(manifest).dropna(subset="artist")
    keys = artist_keys(table.artist)
    painter_of = {}
    for row in table.itertuples():
        painter_of[(manifest.parent / row.file).resolve()] = keys[row.artist]
    return lambda file: painter_of.get(Path(file).resolve(), "")


# The index of hashes


def measure_index(number: int, every: int):
    """Time and memory of every so many jobs of the search on random hashes, and on hashes in crowds
    of about 50, 12 bits off their centre.
    """
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 1 << 64, number // 50, dtype=np.uint64)
    crowds = rng.choice(centres, number)
    for _ in range(12):
        crowds ^= np.uint64(1) << rng.integers(0, 64, number, dtype=np.uint64)
    random = rng.integers(0, 1 << 64, number, dtype=np.uint64)
    parts = parts_of(number)
    for name, hashes in (("random", random), ("in crowds", crowds)):
        jobs = parts[::every]

        def search(hashes=hashes, jobs=jobs) -> int:
            return sum(len(close_pairs_in(hashes, job)) for job in jobs)

        pairs, cost = with_cost(search)
        print(
            f"{number} hashes, {name}: {pairs} pairs within {MAX_BITS} bits, plain or mirrored, by "
            f"{len(jobs)} of {len(parts)} jobs, which read {8 * len(parts)} bytes a picture, {cost}",
            flush=True,
        )


def with_cost(function: Callable, *args):
    """What `function` returns, and its time and the memory of this process as a text."""
    started = time.perf_counter()
    processor_started = time.process_time()
    found = function(*args)
    seconds = time.perf_counter() - started
    processor_seconds = time.process_time() - processor_started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found, (
        f"{seconds:.1f} s, {processor_seconds:.1f} s of processors, at most {memory:.0f} MB for the "
        "process"
    )


def map_in_chunks(function, jobs, chunk_size=16, workers=None, initializer=None):
    """A `MapJobs` that does one job at a time in this process, and gives results in chunks."""
    for chunk in in_chunks(jobs, chunk_size):
        yield [(job, function(job)) for job in chunk]


class Drawn:
    """Pictures with so many `points` each, each halfway between two points of drawn pictures: so
    many pictures have points of their own.
    """

    def __init__(self, points: int = 400):
        self.points = points
        rng = np.random.default_rng(0)
        pictures = [np.asarray(drawn(rng).convert("L").resize((320, 320))) for _ in range(500)]
        self.pool = np.concatenate([describe(picture).descriptors for picture in pictures])

    def __call__(self, picture: int) -> Description:
        rng = np.random.default_rng(picture)
        one, other = self.pool[rng.integers(len(self.pool), size=(2, self.points))]
        return Description(None, np.empty((self.points, 2)), one // 2 + other // 2)


def measure_words(number: int, work: Path):
    """Time and memory of the candidates by visual words, as here and by jobs for workers."""
    description = Drawn()
    bytes_read = 0
    look_up, words_of_block = shared_candidates.look_up, shared_candidates._words_of_block

    def counted_look_up(*args):
        nonlocal bytes_read
        found = look_up(*args)
        bytes_read += sum(array.nbytes for array in found)
        return found

    def counted_words(*args):
        nonlocal bytes_read
        found = words_of_block(*args)
        bytes_read += sum(array.nbytes for array in found)
        return found

    with threadpool_limits(1, "blas"):
        here, cost = with_cost(by_words, number, lambda i: description(i).descriptors)
        print(f"{number} pictures: {len(here)} candidates by words here, {cost}", flush=True)
        with (
            tempfile.TemporaryDirectory(dir=work) as folder,
            patch.object(shared_candidates, "look_up", counted_look_up),
            patch.object(shared_candidates, "_words_of_block", counted_words),
        ):
            numbers, cost = with_cost(
                shared_candidates.by_words, number, int, description, Path(folder), map_in_chunks
            )
            written = sum(file.stat().st_size for file in Path(folder).rglob("*.npy"))
    pairs = pairs_of(numbers, number).tolist()
    assert sorted([i, j, int(mirrored)] for i, j, mirrored in here) == pairs
    print(
        f"{number} pictures: the same {len(pairs)} by jobs for workers, {cost}; bytes a picture: "
        f"{written / number:.0f} written, {bytes_read / number:.0f} read",
        flush=True,
    )


# Many pictures


def draw_many(folder: Path, number: int):
    """Fill `folder` with drawn pictures in one class, in tens: the last is a copy of the ninth,
    smaller and in other colours.
    """
    (folder / "drawn").mkdir(parents=True, exist_ok=True)
    for first in progress_bar(range(0, number, 10), desc="drawing"):
        rng = np.random.default_rng(first)
        pictures = [drawn(rng) for _ in range(9)]
        pictures.append(colour_cast(half_the_size(pictures[-1], rng), rng))
        for place, picture in enumerate(pictures, first):
            picture.save(folder / "drawn" / f"{place:06}.jpg", "JPEG", quality=85)


def drawn(rng) -> Image.Image:
    """Coarse and fine patches of colour, 320 x 240 px: as many points as a painting has."""
    size = (320, 240)
    coarse, fine = (
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize(size)
        for shape in ((6, 8, 3), (48, 64, 3))
    )
    return Image.blend(coarse, fine, 0.35)


def measure_scale(number: int, work: Path):
    """Print time and memory of the first `mark` of `number` drawn pictures."""
    gallery = work / f"gallery-{number}"
    data = work / f"data-{number}"
    draw_many(gallery, number)
    download.import_folder(gallery, data)
    clean.normalise(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found, cost = with_cost(clean.mark_duplicates, data)
    print(f"{number} pictures, {len(found)} set aside: {cost}, {before:.0f} MB before", flush=True)


# The same with and without workers

LABELS = ("05-baroque", "06-rococo", "09-realism")


class Member(NamedTuple):
    """A picture of a family: the number of the family's first picture, and its own place, from 0."""

    family: int
    place: int


def member(picture: int) -> Member:
    """Of a hundred pictures, 70 are alone, 20 are pairs, and 10 are one family."""
    place = picture % 100
    if place < 70:
        return Member(picture, 0)
    if place < 90:
        return Member(picture - place % 2, place % 2)
    return Member(picture - place + 90, place - 90)


class Families:
    """Descriptions of pictures in families, by the number in the name of a file. Those of a family
    share points and most bits of their hashes; of some, every second one is mirrored; some have no
    hash. `points` says which picture it is, so that `verdict` sees what two of them show.
    """

    def __init__(self):
        self.drawn = Drawn(100)

    def describe(self, file: Path) -> Description:
        family, place = member(int(file.stem))
        descriptors = self.drawn(family).descriptors
        bits = int(np.random.default_rng(family).integers(1 << 63)) ^ 1 << place
        if is_mirrored(family, place):
            descriptors = mirror_descriptors(descriptors)
            bits ^= int(MIRROR_BITS)
        points = np.full((len(descriptors), 2), (family, place), np.float32)
        return Description(f"{bits:016x}" if family % 10 else None, points, descriptors)


def is_mirrored(family: int, place: int) -> bool:
    return family % 7 == 0 and place % 2 == 1


def verdict(one: Description, other: Description, mirrored: bool) -> list[str]:
    """The kind of a pair in a list, which is empty where the two show nothing in common: those of a
    family at most two places apart show the same, so that a chain joins the whole family.
    """
    (family, place), (other_family, other_place) = (
        description.points[0].astype(int).tolist() for description in (one, other)
    )
    is_turned = is_mirrored(family, place) != is_mirrored(other_family, other_place)
    if family != other_family or abs(place - other_place) > 2 or mirrored != is_turned:
        return []
    if mirrored:
        return ["mirror"]
    return ["detail" if (place + other_place) % 3 == 0 else "same"]


def shown(matcher, picture, others: list) -> list:
    """Instead of `Matcher.shown_side_by_side`: every third picture that may be a collage is one."""
    is_collage = int(matcher.description(picture).points[0].sum()) % 3 == 0
    return others if is_collage else []


def write_drawn_catalogue(data: Path, number: int):
    """A catalogue of `number` pictures under three periods, some reviewed or flagged, every fiftieth
    listed twice; their clean copies are empty files.
    """
    rows = []
    for picture in range(number):
        for listed in range(2 if picture % 50 == 0 else 1):
            label = LABELS[(picture // 100 + listed) % 3 if picture % 40 else picture % 3]
            row = {
                "url": f"import:{picture:016}-{listed}",
                "period": label,
                "file": f"raw/{label}/{picture:016}.jpg",
                "sha256": hashlib.sha256(f"{picture}-{listed}".encode()).hexdigest(),
                "clean_sha256": hashlib.sha256(str(picture).encode()).hexdigest(),
                "bytes": 10_000 + picture % 7,
                "width": 300 + picture % 30,
                "height": 200,
                "status": "ok",
                "clean_status": "flagged" if picture % 90 == 0 else "ok",
                "clean_reason": "one colour" if picture % 90 == 0 else None,
                "review": {3: "drop", 5: f"move:{LABELS[0]}"}.get(picture % 300),
            }
            rows.append(row)
            copy = data / clean_path(row)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
    with Catalogue(data) as catalogue:
        catalogue.add({"url": row["url"], "period": row["period"]} for row in rows)
        catalogue.update(rows)


def mark_drawn(data: Path, map_jobs):
    """Mark the pictures of a drawn catalogue; `DATA/found.csv` has what is set aside."""
    families = Families()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (
        patch.object(verdicts, "describe_file", families.describe),
        patch.object(descriptions, "describe_file", families.describe),
        patch.object(verdicts, "read_luminance", lambda file: None),
        patch.object(shared_verdicts, "read_luminance", lambda file: None),
        patch.object(matcher, "candidate_maps", verdict),
        patch.object(matcher, "kind_of_copy", lambda one, other, kind: kind),
        patch.object(matcher.Matcher, "shown_side_by_side", shown),
    ):
        found, cost = with_cost(duplicates.mark, data, map_jobs)
    found.to_csv(data / "found.csv", index=False)
    print(f"{data.name}: {len(found)} set aside, {cost}, {before:.0f} MB before", flush=True)


def measure_same(number: int, work: Path):
    """Mark `number` drawn pictures with and without jobs for workers, and hold the two together."""
    here, by_jobs = work / f"{number}-here", work / f"{number}-by-jobs"
    write_drawn_catalogue(here, number)
    shutil.copytree(here, by_jobs)
    for data, map_jobs in ((here, None), (by_jobs, map_in_chunks)):
        in_a_process(mark_drawn, data, map_jobs)
    table = read_catalogue(here)
    assert read_catalogue(by_jobs).equals(table)
    assert (by_jobs / "found.csv").read_bytes() == (here / "found.csv").read_bytes()
    statuses = ", ".join(
        f"{count} {name}" for name, count in table.clean_status.value_counts().items()
    )
    print(
        f"{number} pictures: the same rows and {table.dup_group.nunique()} groups with and without "
        f"jobs for workers; {statuses}",
        flush=True,
    )


# What the process of the command holds

DRAWN_CANDIDATES = 11  # of a picture
PAIRS_THAT_SHOW_NOTHING = 109  # to one that shows the same


def drawn_candidates(number: int, *_) -> np.ndarray:
    """Instead of `shared_candidates.by_words`: pairs with other pictures, drawn for each."""
    of_blocks = []
    for start in range(0, number, 1024):
        own = np.repeat(np.arange(start, min(start + 1024, number)), DRAWN_CANDIDATES)
        others = np.random.default_rng(start).integers(number, size=len(own))
        pairs = np.stack([np.minimum(own, others), np.maximum(own, others), 0 * own], axis=1)
        of_blocks.append(numbers_of(pairs[own != others], number))
    return shared_candidates._each_once(of_blocks)


def drawn_hashes(shard: descriptions.Shard) -> dict[str, str]:
    return {name: name[:16] for name in shard.files}


def drawn_kind(job) -> str:
    (first, second, _), *_ = job
    return "" if (31 * first + second) % (PAIRS_THAT_SHOW_NOTHING + 1) else "same"


def draw_results(function, jobs, workers=None, chunk_size=16, initializer=None):
    """A `MapJobs` that draws what workers would take long for."""
    drawn = {descriptions.describe_shard: drawn_hashes, shared_verdicts._kind_on_worker: drawn_kind}
    return map_in_chunks(drawn.get(function, function), jobs, chunk_size)


def mark_with_drawn_results(data: Path, number: int):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (
        patch.object(shared_candidates, "by_words", drawn_candidates),
        patch.object(shared_verdicts, "PAIRS_IN_CHUNK", 10_000),  # each is a transaction
    ):
        found, cost = with_cost(duplicates.mark, data, draw_results)
    print(f"{number} pictures, {len(found)} set aside: {cost}, {before:.0f} MB before", flush=True)


def measure_memory(number: int, work: Path):
    """Memory of the process of `mark` for `number` pictures."""
    in_a_process(write_drawn_catalogue, work, number)
    in_a_process(mark_with_drawn_results, work, number)


def in_a_process(function: Callable, *args):
    """Call `function` in a process of its own, whose memory is measured from nothing."""
    process = get_context("spawn").Process(target=function, args=args)
    process.start()
    process.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--distractors", type=int, default=1000)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--sheet", type=Path, default=Path("joined.png"))
    parser.add_argument("--hashes", type=int, nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--words", type=int, nargs="*", default=[])
    parser.add_argument("--scale", type=int, nargs="*", default=[])
    parser.add_argument("--same", type=int, nargs="*", default=[])
    parser.add_argument("--memory", type=int, nargs="*", default=[])
    args = parser.parse_args()
    if args.distractors < 4 * args.number:
        parser.error("--distractors: four times --number at least, for collages, walls and fades")
    kinds = (args.hashes, args.words, args.scale, args.same, args.memory)
    if not (args.folder or any(kinds)):
        parser.error("name a folder of pictures, --hashes, --words, --scale, --same or --memory")
    for number in args.words:
        in_a_process(measure_words, number, args.work)
    for number in args.scale:
        with tempfile.TemporaryDirectory() as temporary:
            in_a_process(measure_scale, number, args.work or Path(temporary))
    for number in args.same:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            measure_same(number, Path(folder))
    for number in args.memory:
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            measure_memory(number, Path(folder))
    for number in args.hashes:
        in_a_process(measure_index, number, args.every)
    if args.folder:
        measure(args)


if __name__ == "__main__":
    main()
