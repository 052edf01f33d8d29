"""Splits: which images a network learns from, which choose the epoch, which measure it.

Reads the catalogue's clean images, their duplicate groups and painters; writes its columns
`split_random`, `split_grouped` and `split_artist`.
"""

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

from artclf.base.errors import InputError
from artclf.data.catalogue import Catalogue, clean_path, label, read_catalogue
from artclf.data.groups import joined
from artclf.data.names import artist_keys

PARTS = ("train", "valid", "test")


SPLITS = {
    "random": [],
    "grouped": ["dup_group"],
    "artist": ["dup_group", "painter"],
}  # what joins images


OWN = "own"


USABLE = ("ok", "flagged")  # flagged images stay in until a person decides


def items(
    data,
    split: str = "grouped",
    parts: Sequence[float] = (70, 15, 15),
    seed: int = 42,
    exclude: Sequence[str] = (),
):
    """The images to learn from: `file` (relative to `data`), `period`, `part`, `sha256`,
    `clean_sha256`: a DataFrame.

    `random` cuts every period by chance; `grouped` keeps images of one duplicate group in one part;
    `artist` keeps those of one painter together, too, across all periods. `own` takes the parts
    from the catalogue's column `split`, which comes from a manifest or URL list. What `cut`
    guarantees holds for the first three; where a period lacks a part that others have, a
    UserWarning names it. Raises FileNotFoundError without a catalogue, ValueError where the images
    are too few or the parts make no sense.
    """
    if split not in (*SPLITS, OWN):
        raise InputError(f"--split is {split!r}: take one of {', '.join((*SPLITS, OWN))}")
    if len(parts) != 3 or min(parts) < 0 or not parts[0]:
        raise InputError(
            f"parts are {parts}: give three shares of train, valid and test, such as 70,15,15"
        )
    table = usable(data, exclude)
    if len(classes := set(table.period)) < 2:
        raise InputError(
            f"{data} has the single class {', '.join(classes) or 'left out'}: a classifier needs two"
        )
    if split == OWN:
        table["part"] = _own(table, data)
    else:
        needed, counts = sum(p > 0 for p in parts), table.period.value_counts().sort_index()
        if (few := counts[counts < needed]).any():
            raise InputError(
                f"too few images for {needed} parts in {', '.join(few.index)}: add pictures, "
                "or leave the class out with --exclude"
            )
        groups = joined(
            table.sha256,
            [table[column] for column in SPLITS[split] and ("clean_sha256", *SPLITS[split])],
        )
        table["part"] = cut(table.period, groups, parts, seed)
    _check(
        table,
        split,
        [part for part, share in zip(PARTS, parts, strict=True) if share and split != OWN],
    )
    if split != OWN:
        _record(data, table, f"split_{split}")
    return table[["file", "period", "part", "sha256", "clean_sha256"]].reset_index(drop=True)


def fingerprint(table) -> str:
    """A hash of what `items` returned: it changes with any image, label or part, and with how step
    clean made it.
    """
    rows = table[["file", "period", "part", "sha256", "clean_sha256"]].to_csv(
        index=False, lineterminator="\n"
    )
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def cut(
    periods: Sequence[str], groups: Sequence[str], parts: Sequence[float], seed: int
) -> list[str]:
    """The part of each image, given its period and group: no group crosses, and every period has
    train images.

    Groups go, roughly the largest first, to the part that lacks most of the periods they lie in. Of
    a period whose groups lie in no other, each part gets its share of the images within the size of
    the period's largest group, and at least one group where there are enough of them (a single
    group that a part is given to have one may be larger than its share, and the others then share
    what is missing). Two groups are train and test, a single one is train. The cut depends on the
    seed and on the names of the groups, not on their order, nor on other periods.
    """
    images, total, members = (
        Counter(zip(groups, periods, strict=True)),
        Counter(periods),
        defaultdict(dict),
    )
    for (group, period), n in images.items():
        members[group][period] = n
    lacks = {
        period: {p: share / sum(parts) * n for p, share in zip(PARTS, parts, strict=True) if share}
        for period, n in total.items()
    }
    empty = {period: set(lacking) for period, lacking in lacks.items()}
    left = Counter(period for counts in members.values() for period in counts)
    chosen = {}
    for group in sorted(
        members, key=lambda group: (-sum(members[group].values()) * _chance(seed, group), group)
    ):
        counts = members[group]
        urgent = {
            part
            for period in counts
            if left[period] <= len(empty[period])
            for part in empty[period]
        }
        part = next((part for part in ("train", "test", "valid") if part in urgent), None) or max(
            lacks[next(iter(counts))],
            key=lambda p: sum(n * lacks[q][p] / total[q] ** 2 for q, n in counts.items()),
        )
        for period, n in counts.items():
            lacks[period][part] -= n
            empty[period].discard(part)
            left[period] -= 1
        chosen[group] = part
    return [chosen[group] for group in groups]


def _chance(seed: int, group: str) -> float:
    """A number from 0.5 to 1: groups of up to twice the size may change places, and equal ones come
    by chance.
    """
    return 0.5 + int(hashlib.sha256(f"{seed} {group}".encode()).hexdigest()[:8], 16) / 2**33


def usable(data, exclude: Sequence[str] = ()):
    """The rows of the catalogue to learn from, in an order that only their bytes decide: a
    DataFrame.

    `period` is the class after the review, `listed` the catalogue's own, `file` the clean copy,
    `painter` the key of `artist_keys` or ''. Raises ValueError where none is left.
    """
    table = read_catalogue(data)
    words = ["clean_sha256", "dup_group", "review", "split"]
    table[words] = table[words].astype(object).fillna("")
    moved, kept = table.review.str.startswith("move:"), table.review == "keep"
    asked = kept & (table.clean_status == "duplicate") | (kept | moved) & (
        table.clean_status == "conflict"
    )
    table = table[(table.clean_status.isin(USABLE) | asked) & (table.review != "drop")]
    if table.empty:
        raise InputError(f"no clean images in {data}: run `artclf clean --data {data}` first")
    table = table.assign(
        listed=table.period,
        period=table.apply(label, axis=1),
        file=table.apply(clean_path, axis=1),
        painter=table.artist.map(artist_keys(table.artist.dropna())).astype(object).fillna(""),
    )
    if unknown := set(exclude) - set(table.period):
        raise InputError(
            f"--exclude names {', '.join(sorted(unknown))}, but {data} has no such class"
        )
    return (
        table[~table.period.isin(exclude)].drop_duplicates("file").sort_values(["sha256", "file"])
    )


def _own(table, data):
    wrong = table[~table.split.isin(PARTS)]
    if wrong.empty:
        return table.split
    found = ", ".join(sorted({repr(value) if value else "nothing" for value in wrong.split})[:5])
    raise InputError(
        f"the column `split` says {found} for {len(wrong)} images in {data}, such as {wrong.url.iloc[0]}: "
        f"it may say {', '.join(PARTS)}; mend the manifest or list and take it in again"
    )


def _check(table, split: str, wanted: list[str]):
    """Raise where a part or the train images of a period are missing; warn where a period lacks
    another part.
    """
    found = table.groupby("period").part.agg(set)
    if missing := [part for part in wanted if part not in set(table.part)]:
        raise InputError(
            f"--split {split} leaves no images for {' and '.join(missing)}, because its groups are as "
            "large as whole periods: take another --split"
        )
    if unlearned := [period for period, parts in found.items() if "train" not in parts]:
        raise InputError(
            f"--split {split} has no train images in {', '.join(unlearned)}: add some to the column "
            "`split`, or leave the class out with --exclude"
        )
    for part in sorted(set(table.part), reverse=True):
        if without := [period for period, parts in found.items() if part not in parts]:
            warnings.warn(
                f"--split {split} leaves no {part} images in {', '.join(without)}: all of them are in other "
                f"parts, and figures on {part} say nothing of these periods",
                stacklevel=1,
            )


def _record(data, table, column: str):
    changed = table[table.part != table[column]]
    with Catalogue(data) as cat:
        cat.update(
            {"url": row.url, "period": row.listed, column: row.part} for row in changed.itertuples()
        )
