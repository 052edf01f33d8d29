"""Splits: which images a network learns from, which choose the epoch, which measure it.

Reads the catalogue's clean images; writes its column `split_random`.
"""
import hashlib
from collections.abc import Sequence

from artclf.catalogue import Catalogue, clean_path, read_catalogue

PARTS = ("train", "valid", "test")
USABLE = ("ok", "flagged")  # flagged images stay in until a person decides


def items(data, parts: Sequence[float] = (70, 15, 15), seed: int = 42, exclude: Sequence[str] = ()):
    """The images to learn from: a DataFrame with `file` (relative to `data`), `period`, `part`, `sha256`.

    Every period is cut at random into train, valid and test in the proportions `parts`; the same seed gives the same
    cut whatever other periods there are. A period has at least one image in every part that is asked for.
    Raises FileNotFoundError without a catalogue, ValueError where the images are too few or the parts make no sense.
    """
    if len(parts) != 3 or min(parts) < 0 or not parts[0]:
        raise ValueError(f"parts are {parts}: give three shares of train, valid and test, such as 70,15,15")
    table = read_catalogue(data)
    if unknown := set(exclude) - set(table.period):
        raise ValueError(f"--exclude names {', '.join(sorted(unknown))}, but {data} has no such class")
    table = table[table.clean_status.isin(USABLE) & ~table.period.isin(exclude)]
    if table.empty: raise ValueError(f"no clean images in {data}: run `artclf clean --data {data}` first")
    table = table.assign(file=table.apply(clean_path, axis=1)).sort_values("file")
    counts = table.period.value_counts().sort_index()
    if len(counts) < 2: raise ValueError(f"{data} has the single class {counts.index[0]}: a classifier needs two")
    needed = sum(p > 0 for p in parts)
    if (few := counts[counts < needed]).any():
        raise ValueError(f"too few images for {needed} parts in {', '.join(few.index)}: add pictures, "
                         "or leave the class out with --exclude")
    for period, rows in table.groupby("period"):
        table.loc[rows.index, "part"] = _cut(len(rows), parts, f"{seed} {period}")
    _record(data, table)
    return table[["file", "period", "part", "sha256"]].reset_index(drop=True)


def fingerprint(table) -> str:
    """A hash of what `items` returned: it changes with any image, label or part."""
    rows = table[["file", "period", "part", "sha256"]].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _cut(n: int, parts: Sequence[float], seed: str) -> list[str]:
    """`n` names of parts in random order: one for each part asked for, the rest where the most is missing."""
    import numpy as np
    share = np.array(parts, float) / sum(parts)
    counts = (share > 0).astype(int)
    for _ in range(n - counts.sum()): counts[np.argmax(share * n - counts)] += 1
    rng = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:16], 16))
    return list(rng.permutation(np.repeat(PARTS, counts)))


def _record(data, table):
    changed = table[table.part != table.split_random]
    with Catalogue(data) as cat:
        cat.update({"url": row.url, "period": row.period, "split_random": row.part} for row in changed.itertuples())
