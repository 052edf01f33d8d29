"""How many changed copies of paintings `duplicates.mark` finds, how many pairs it finds are wrong,
and what an index of hashes costs.

    python benchmarks/duplicates.py FOLDER [--number 100] [--distractors 1000] [--more FOLDER ...] [--work DIR]
    python benchmarks/duplicates.py --hashes 100000

FOLDER holds FOLDER/<class>/*.jpg. Of every change `--number` copies are made, each of another
picture drawn by seed, and imported with the originals and `--distractors` further pictures, taken
from the folders of `--more` (hard negatives: one painter's series), then from FOLDER. A pair is
right where both files stem from one original. Pairs of unchanged files may be duplicates that the
collection itself has: they are listed by what a `manifest.csv` above FOLDER says of their painters,
drawn side by side into `--sheet` to be looked at, and counted apart. Hard negatives are the
candidates of different originals: what the hash or the visual words take for likest, most of it by
one painter.
"""

import argparse
import hashlib
import resource
import sqlite3
import tempfile
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from artclf import download
from artclf.base.progress import progress_bar
from artclf.data import cleaning, duplicates
from artclf.data.candidates import close_pairs
from artclf.data.catalogue import clean_path, read_catalogue
from artclf.data.galleries import find_manifest
from artclf.data.matching import MAX_BITS, MIRROR_BITS
from artclf.data.names import artist_keys
from artclf.results import plots


def window(im, rng, share: float):
    """A part of `im` of `share` of its width and height, anywhere."""
    w, h = (round(side * share) for side in im.size)
    x, y = rng.integers(im.width - w + 1), rng.integers(im.height - h + 1)
    return im.crop((x, y, x + w, y + h))


def framed(im, rng):
    """A carved frame of gold: three bands a side, with a grain."""
    for share, colour in ((0.02, (60, 40, 20)), (0.05, (170, 130, 60)), (0.02, (90, 60, 25))):
        im = ImageOps.expand(im, round(share * sum(im.size) / 2), colour)
    pixels, edge = np.asarray(im).astype(int), round(0.08 * min(im.size))
    grain = rng.normal(0, 12, (*pixels.shape[:2], 1)).astype(int)
    grain[edge:-edge, edge:-edge] = 0
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def watermarked(im, rng):
    """Half-transparent words across the middle and an address in a corner."""
    layer = Image.new("RGBA", im.size)
    draw = ImageDraw.Draw(layer)
    for x, y, size in ((0.08, rng.uniform(0.3, 0.6), 0.13), (0.6, 0.93, 0.04)):
        draw.text(
            (x * im.width, y * im.height),
            "museum-images",
            (255, 255, 255, 140),
            font_size=size * im.width,
        )
    return Image.alpha_composite(im.convert("RGBA"), layer).convert("RGB")


def rotated(im, rng):
    return im.rotate(
        rng.choice([-3, 3]), Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255)
    )


def cast(im, rng):
    gains = rng.permutation([0.75, 1, 1.25])
    return Image.fromarray((np.asarray(im) * gains).clip(0, 255).astype(np.uint8))


def jpeg(im, quality: int):
    im.save(file := BytesIO(), "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def several(im, rng):
    """What another site makes of it: another scan, trimmed, smaller, recompressed."""
    return jpeg(
        cast(window(im, rng, 0.95), rng).resize((300, round(300 * im.height / im.width))), 60
    )


CHANGES = {
    "half the size": lambda im, rng: im.resize(
        (im.width // 2, im.height // 2), Image.Resampling.LANCZOS
    ),
    "JPEG quality 30": lambda im, rng: jpeg(im, 30),
    "greyscale": lambda im, rng: im.convert("L").convert("RGB"),
    "10% off width and height": lambda im, rng: window(im, rng, 0.9),
    "10% off every side": lambda im, rng: ImageOps.crop(
        im, tuple(round(0.1 * side) for side in im.size * 2)
    ),
    "detail of a quarter": lambda im, rng: window(im, rng, 0.5),
    "frame": framed,
    "white border": lambda im, rng: ImageOps.expand(im, round(0.1 * min(im.size)), (255, 255, 255)),
    "watermark": watermarked,
    "rotation 3 degrees": rotated,
    "colour cast": cast,
    "224 x 224": lambda im, rng: im.resize((224, 224), Image.Resampling.BICUBIC),
    "mirror": lambda im, rng: ImageOps.mirror(im),
    "several": several,
}
KIND = {"detail of a quarter": "detail", "mirror": "mirror"}  # others: same


def make(args, gallery: Path) -> dict[str, tuple[str, str]]:
    """Fill `gallery`; the original and the change of every file in it, by the SHA-256 of its
    bytes.
    """
    rng, known, first = np.random.default_rng(args.seed), {}, {}
    files = rng.permutation(sorted(args.folder.glob("*/*.jpg")))
    more = [file for folder in args.more for file in sorted(folder.glob("*.jpg"))]

    def put(name, content: bytes, file, change):
        origin = first.setdefault(
            file.read_bytes(), str(file)
        )  # a collection may have a file twice
        (gallery / name).parent.mkdir(parents=True, exist_ok=True)
        (gallery / name).write_bytes(content)
        known[hashlib.sha256(content).hexdigest()] = origin, change

    for number, (change, apply) in enumerate(progress_bar(CHANGES.items(), desc="changed copies")):
        for file in files[number * args.number : (number + 1) * args.number]:
            apply(Image.open(file).convert("RGB"), rng).save(copy := BytesIO(), "JPEG", quality=88)
            put(f"{file.parent.name}/{file.stem}-changed.jpg", copy.getvalue(), file, change)
    copied = len(CHANGES) * args.number
    for file in [*files[:copied], *(more + [*files[copied:]])[: args.distractors]]:
        put(f"{file.parent.name}/{file.name}", file.read_bytes(), file, "")
    return known


def measure(args):
    with tempfile.TemporaryDirectory() as work:
        work = args.work or Path(work)
        known, data = make(args, work / "gallery"), work / "data"
        download.import_folder(work / "gallery", data)
        cleaning.normalise(data)
        started = time.perf_counter()
        marked = duplicates.mark(data)
        first, started = time.perf_counter() - started, time.perf_counter()
        assert duplicates.mark(data).equals(marked)
        again = time.perf_counter() - started
        table = read_catalogue(data).dropna(subset="clean_sha256")
        table[["origin", "change"]] = [known[sha256] for sha256 in table.sha256]
        files = {row["clean_sha256"]: data / clean_path(row) for row in table.to_dict("records")}
        found = duplicates.compare(data, files).kinds
    print(
        f"{len(table)} pictures with {args.number} copies of each of {len(CHANGES)} kinds; "
        f"{first:.0f} s, a rerun {again:.0f} s\n"
    )
    print(recall(table, found).to_string(), "\n")
    precision(args, table, found, data)


def recall(table, found: dict) -> pd.DataFrame:
    """A row a change: how many copies were found to be their original, how many of these with the
    right kind.
    """
    originals = {row.origin: row for row in table.itertuples() if not row.change}
    rows = []
    for row in table[table.change != ""].itertuples():
        original = originals[row.origin]
        pair = tuple(sorted((row.clean_sha256, original.clean_sha256)))
        kind = (
            "same" if pair[0] == pair[1] else found.get(pair)
        )  # equal clean copies are step clean's to find
        rows.append(
            {
                "change": row.change,
                "found": kind is not None,
                "right kind": kind == KIND.get(row.change, "same") if kind else None,
                "in its group": row.dup_group == original.dup_group,
            }
        )
    copies = pd.DataFrame(rows)
    groups = pd.concat([copies, copies.assign(change="ALL")]).groupby("change", sort=False)
    return groups.agg(
        copies=("found", "size"), **{name: (name, "mean") for name in copies.columns[1:]}
    ).round(3)


def precision(args, table, found: dict, data: Path):
    """Say how many pairs are of one original, what the others are, and how many candidates stayed
    apart.
    """
    origin = dict(zip(table.clean_sha256, table.origin, strict=True))
    painter = painters(args.folder)
    with sqlite3.connect(data / "duplicates.db") as db:
        compared = {
            tuple(sorted((origin[a], origin[b]))) for a, b in db.execute("SELECT a, b FROM verdicts")
        }
    joined = Counter(tuple(sorted((origin[a], origin[b]))) for a, b in found)
    rows = [
        {
            "originals": "one"
            if a == b
            else "two of one painter"
            if painter(a) and painter(a) == painter(b)
            else "two of others or unknown",
            "apart": (a, b) not in joined,
            "files": joined[a, b],
        }
        for a, b in compared | set(joined)
    ]
    groups = pd.DataFrame(rows).groupby("originals")
    print(
        groups.agg(
            compared=("apart", "size"),
            apart=("apart", "sum"),
            pairs_of_files_joined=("files", "sum"),
        ),
        "\n",
    )
    doubles = [pair for pair, _ in joined.most_common() if pair[0] != pair[1]]
    print(
        f"{len(doubles)} pairs of different originals were joined: right where they are one painting ({args.sheet})"
    )
    for a, b in doubles:
        print(f"  {joined[a, b]:4}  {painter(a):25.25}  {painter(b):25.25}  {a}  {b}")
    if doubles:
        files, captions = (
            [file for pair in doubles for file in pair],
            [Path(f).stem for pair in doubles for f in pair],
        )
        plots.plot_pictures(files, captions).savefig(args.sheet, dpi=60)


def painters(folder: Path):
    """A function of a file: its painter, '' where the manifest above `folder` doesn't tell."""
    if not (manifest := find_manifest(folder)):
        return lambda file: ""
    table = pd.read_csv(manifest).dropna(subset="artist")
    keys = artist_keys(table.artist)
    known = {(manifest.parent / row.file).resolve(): keys[row.artist] for row in table.itertuples()}
    return lambda file: known.get(Path(file).resolve(), "")


def index(number: int):
    """Time and memory of the index on random hashes, and on hashes in crowds of about 50, 12 bits
    off their centre.
    """
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 1 << 64, number // 50, dtype=np.uint64)
    crowds = rng.choice(centres, number)
    for _ in range(12):
        crowds ^= np.uint64(1) << rng.integers(0, 64, number, dtype=np.uint64)
    for name, hashes in (
        ("random", rng.integers(0, 1 << 64, number, dtype=np.uint64)),
        ("in crowds", crowds),
    ):
        started = time.perf_counter()
        plain = close_pairs(hashes, hashes)
        mirrored = close_pairs(hashes, hashes ^ MIRROR_BITS)
        found = len(plain) + len(mirrored)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{number} hashes, {name}: {found} pairs within {MAX_BITS} bits, plain or mirrored, "
            f"in {time.perf_counter() - started:.1f} s, at most {memory:.0f} MB for the process"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--distractors", type=int, default=1000)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--sheet", type=Path, default=Path("joined.png"))
    parser.add_argument("--hashes", type=int)
    args = parser.parse_args()
    if not (args.folder or args.hashes):
        parser.error("name a folder of pictures, or --hashes")
    if args.hashes:
        index(args.hashes)
    if args.folder:
        measure(args)


if __name__ == "__main__":
    main()
