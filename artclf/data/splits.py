"""Splits: which images a network learns from, which choose the epoch, which measure it.

Reads the catalogue's clean images, their duplicate groups and painters. A cut follows from its
name, which is that of the split, the shares and the seed, so `items` writes nothing; `record` notes
that of a training in the catalogue's table `cuts`.
"""

import hashlib
import sqlite3
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.data import packs
from artclf.data.aliases import aliases_of
from artclf.data.catalogue import Catalogue, clean_path, label, read_catalogue, require
from artclf.data.classes import UNLABELLED, in_order
from artclf.data.groups import joined
from artclf.data.names import artist_keys

PARTS = ("train", "valid", "test")
# the columns of `usable` by which images are joined: those of one group stay in one part
SPLITS = {
    "random": [],
    "grouped": ["clean_sha256", "dup_group"],
    "artist": ["clean_sha256", "dup_group", "painter"],
    "source": ["clean_sha256", "dup_group", "source"],
}
OWN = "own"  # the parts that the user gave in the column `split`
AUTO = "auto"  # `own` where all images have a part, else `grouped`
CUTS = """
CREATE TABLE IF NOT EXISTS cuts (
    cut TEXT NOT NULL,
    file TEXT NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (cut, file)
) WITHOUT ROWID
"""
USABLE = ("ok", "flagged")  # flagged images stay in until a person decides
COLUMNS = ["file", "period", "part", "sha256", "clean_sha256"]


def items(
    data,
    split: str = "grouped",
    shares: Sequence[float] = (70, 15, 15),
    seed: int = 42,
    exclude: Sequence[str] = (),
):
    """The images to learn from: a DataFrame with `file` (relative to `data`), `period`, `part`,
    `sha256`, `clean_sha256`.

    `shares` are those of train, valid and test; they needn't sum to 1. `random` divides every
    period by chance; `grouped` keeps images of one duplicate group in one part; `artist` also keeps
    those of one painter together, across all periods, `source` those of one source (`cut` says what
    holds for these four). `own`
    takes the parts from the catalogue's column `split`, which comes from folders, a manifest or a
    URL list; where it has no valid, that is cut from its train as in `grouped`. `auto` is what
    `choose` chooses.

    A UserWarning names the periods that lack a part which others have; with `own`, also parts that
    are missing altogether, and copies of one picture in several parts. Raises FileNotFoundError
    without a catalogue, InputError where the images are too few, SettingError where an option makes
    no sense.
    """
    settings.check_choice("--split", split, (*SPLITS, OWN, AUTO))
    settings.check_parts(shares)
    settings.check(seed=seed)
    if split == AUTO:
        split, _ = choose(data, exclude)
    table = usable(data, exclude)
    _check_number_of_classes(table, data)
    if split == OWN:
        table["part"] = _own_parts(table, data)
        _add_valid(table, shares, seed)
        _check_parts(table, split, [])
        _warn_of_missing_test(table)
        _warn_of_copies(table, data)
    else:
        wanted = [part for part, share in zip(PARTS, shares, strict=True) if share > 0]
        _check_number_of_images(table, len(wanted))
        table["part"] = cut(table.period, groups(table, split), shares, seed)
        _check_parts(table, split, wanted)
    return table[COLUMNS].reset_index(drop=True)


def groups(rows, split: str) -> list[str]:
    """The group of each of the `rows` of `usable`: a `split` (of `SPLITS`) keeps it in one part."""
    return joined(rows.sha256, group_columns(rows, split))


def group_columns(rows, split: str) -> list:
    """The columns of `rows` by which a `split` (of `SPLITS`) joins images; '' where nothing is
    known.
    """
    return [rows[column].astype(object).fillna("") for column in SPLITS[split]]


def choose(data, exclude: Sequence[str] = ()) -> tuple[str, str]:
    """The split of `auto`, and a sentence that says why: `own` where every usable image has a part
    in the column `split`, else `grouped`. The sentence is '' where no image has one.
    """
    table = usable(data, exclude)
    has_part = table.split != ""
    if has_part.all():
        return OWN, "The parts are those of the column `split` (--split own)."
    if not has_part.any():
        return "grouped", ""
    return "grouped", (
        f"The column `split` names a part for {has_part.sum()} of {len(table)} images, and none for "
        f"{table.url[~has_part].iloc[0]}: so all are cut anew (--split grouped)."
    )


def cut_name(split: str, shares: Sequence[float], seed: int, exclude: Sequence[str] = ()) -> str:
    """The name of a cut, `grouped 70,15,15 seed 42`: all that it follows from, besides the
    images.
    """
    name = f"{split} {','.join(f'{share:g}' for share in shares)} seed {seed}"
    return name + (f" without {', '.join(in_order(exclude))}" if exclude else "")


def record(data, table, name: str):
    """Note the parts of a table of `items` in the catalogue, under the `name` of its cut.

    Where the catalogue can't be written, a line says so, since `items` can make the cut again. No
    step writes to a pack.
    """
    if packs.is_pack(data):
        return
    rows = [(name, *row) for row in zip(table.file, table.part, strict=True)]
    try:
        with Catalogue(data) as catalogue, catalogue.transaction() as db:
            db.execute(CUTS)
            db.execute("DELETE FROM cuts WHERE cut = ?", (name,))
            db.executemany("INSERT INTO cuts VALUES (?, ?, ?)", rows)
    except (PermissionError, sqlite3.OperationalError) as error:
        print(f"The parts ({name}) are not noted in the catalogue of {data}: {error}")


def recorded(data):
    """The cuts that trainings noted: a DataFrame, a row for each clean image by its `file`, a column
    for each cut by its name; empty where an image was not in it.
    """
    import pandas as pd

    require(data)
    with Catalogue(data) as catalogue:
        catalogue.db.execute(CUTS)
        rows = pd.read_sql_query("SELECT * FROM cuts", catalogue.db)
    return rows.pivot(index="file", columns="cut", values="part").fillna("")


def of_training(data, config: dict):
    """The images and parts, as `items` gives them, that the network with the settings `config`
    learned from.

    Raises InputError where the images have changed since.
    """
    images = items(data, config["split"], config["parts"], config["seed"], config["exclude"])
    if fingerprint(images) != config["data_hash"]:
        raise InputError(f"the images in {data} have changed since training: train again")
    return images


def fingerprint(table) -> str:
    """A hash of what `items` returned.

    It changes with any image, label or part, and with how step clean made the image.
    """
    rows = table[COLUMNS].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def cut(
    periods: Sequence[str], groups: Sequence[str], shares: Sequence[float], seed: int
) -> list[str]:
    """The part of each image, given its period and group: no group is in two parts, and every
    period has train images.

    Groups are assigned one by one, roughly the largest first, to the part that lacks most of their
    periods' images. So each part gets its share of a period within the size of the period's largest
    group, unless groups join it with other periods. Each part gets at least one group if there are
    enough, even one that is larger than its share; of two groups one is train and one test, a
    single one is train. The result depends on the seed and on the groups' names, not on the order
    of the images, nor on periods that share no group with theirs.
    """
    sizes: dict[str, dict[str, int]] = defaultdict(dict)  # group -> period -> images
    for (group, period), count in Counter(zip(groups, periods, strict=True)).items():
        sizes[group][period] = count

    def size_by_chance(group: str) -> float:
        return sum(sizes[group].values()) * _random_factor(seed, group)

    assignment = _Assignment(sizes, shares)
    for group in sorted(sizes, key=lambda group: (-size_by_chance(group), group)):
        assignment.assign(group)
    return [assignment.part_of[group] for group in groups]


class _Assignment:
    """The parts of the groups that were assigned, and what each part still lacks.

    `sizes` are the images of each group in each period.
    """

    def __init__(self, sizes: dict[str, dict[str, int]], shares: Sequence[float]):
        self.sizes = sizes
        self.part_of: dict[str, str] = {}
        share_of = {part: share for part, share in zip(PARTS, shares, strict=True) if share}
        self.parts = list(share_of)
        self.totals = Counter()  # images of each period
        self.groups_left = Counter()  # groups of each period that aren't assigned yet
        for counts in sizes.values():
            self.totals.update(counts)
            self.groups_left.update(counts.keys())
        # period -> the parts that have none of its groups yet
        self.empty = {period: set(self.parts) for period in self.totals}
        # period -> part -> images that the part should still get
        self.lacking: dict[str, dict[str, float]] = {}
        for period, total in self.totals.items():
            self.lacking[period] = {
                part: share / sum(shares) * total for part, share in share_of.items()
            }

    def assign(self, group: str):
        counts = self.sizes[group]
        part = self._urgent_part(counts) or self._part_that_lacks_most(counts)
        self.part_of[group] = part
        for period, count in counts.items():
            self.lacking[period][part] -= count
            self.empty[period].discard(part)
            self.groups_left[period] -= 1

    def _urgent_part(self, counts: dict[str, int]) -> str | None:
        """A part that would stay empty of a period without this group; train comes first."""
        urgent: set[str] = set()
        for period in counts:
            if self.groups_left[period] <= len(self.empty[period]):
                urgent |= self.empty[period]
        for part in ("train", "test", "valid"):
            if part in urgent:
                return part
        return None

    def _part_that_lacks_most(self, counts: dict[str, int]) -> str:
        """The part that lacks most of the periods in which the group lies; of equal ones the first
        of PARTS.
        """

        def lacking(part: str) -> float:
            # the share of a period that the part lacks, weighted by the share that the group holds
            return sum(
                count * self.lacking[period][part] / self.totals[period] ** 2
                for period, count in counts.items()
            )

        return max(self.parts, key=lacking)


def _random_factor(seed: int, group: str) -> float:
    """A number from 0.5 to 1, the same for the same seed and group.

    Multiplied by it, groups of equal size come in random order, and a group may come before one of
    up to twice its size.
    """
    digits = hashlib.sha256(f"{seed} {group}".encode()).hexdigest()[:8]
    return 0.5 + int(digits, 16) / 2**33


def usable(data, exclude: Sequence[str] = ()):
    """The rows of the catalogue to learn from, in an order that only their bytes decide: a
    DataFrame.

    `period` is the class after the review, `listed` the catalogue's own, `file` the clean copy,
    `painter` the key of `artist_keys` or ''. Pictures without a label are left out. Raises
    InputError where none is left.
    """
    table = with_unlabelled(data)
    table = table[table.period != UNLABELLED]
    if table.empty:
        raise InputError(
            f"no picture in {data} has a label: label some with notebook experiments/21_label"
        )
    unknown = set(exclude) - set(table.period)
    if unknown:
        names = ", ".join(in_order(unknown))
        raise InputError(f"--exclude names {names}, but {data} has no such class")
    table = table[~table.period.isin(exclude)]
    if table.empty:
        raise InputError(f"--exclude leaves out all classes of {data}: leave some in")
    return table


def with_unlabelled(data, with_dropped: bool = False):
    """What `usable` gives, and the pictures without a label, whose `period` is `unlabelled`; on
    request also those that a review dropped.
    """
    table = read_catalogue(data)
    texts = ["clean_sha256", "dup_group", "review", "split"]
    table[texts] = table[texts].astype(object).fillna("")
    is_moved = table.review.str.startswith("move:")
    is_kept = table.review == "keep"
    is_clean = table.clean_status.isin(USABLE)
    kept_duplicate = is_kept & (table.clean_status == "duplicate")
    decided_conflict = (is_kept | is_moved) & (table.clean_status == "conflict")
    is_used = is_clean | kept_duplicate | decided_conflict
    if not with_dropped:
        is_used &= table.review != "drop"
    table = table[is_used]
    if table.empty:
        raise InputError(f"no clean images in {data}: run `artclf clean --data {data}` first")
    painters = artist_keys(table.artist.dropna(), aliases_of(data))
    table = table.assign(
        listed=table.period,
        period=table.apply(label, axis=1),
        file=table.apply(clean_path, axis=1),
        painter=table.artist.map(painters).astype(object).fillna(""),
    )
    return table.drop_duplicates("file").sort_values(["sha256", "file"])


def _check_number_of_classes(table, data):
    periods = table.period.unique()
    if len(periods) == 1:
        raise InputError(f"{data} has the single class {periods[0]}: a classifier needs two")


def _own_parts(table, data):
    """The column `split`. Raises InputError where it holds anything but the names of parts."""
    wrong = table[~table.split.isin(PARTS)]
    if wrong.empty:
        return table.split
    values = sorted({repr(value) if value else "nothing" for value in wrong.split})
    raise InputError(
        f"the column `split` says {', '.join(values[:5])} for {len(wrong)} images in {data}, such "
        f"as {wrong.url.iloc[0]}: it may say {', '.join(PARTS)}; correct the manifest or list and "
        "take it in again"
    )


def _add_valid(table, shares: Sequence[float], seed: int):
    """Where the user's parts lack valid, cut it from train, as it chooses the epoch."""
    train = table[table.part == "train"]
    if train.empty or (table.part == "valid").any():
        return
    share_of_valid = shares[1] or shares[0] / 4
    parts = cut(train.period, groups(train, "grouped"), (shares[0], share_of_valid, 0), seed)
    table.loc[train.index, "part"] = parts
    warnings.warn(
        f"--split own has no valid images, which choose the epoch: {parts.count('valid')} of its "
        f"{len(train)} train images are valid now, chosen by the seed",
        stacklevel=3,
    )


def _warn_of_missing_test(table):
    if not (table.part == "test").any():
        warnings.warn(
            "--split own has no test images: figures are measured on valid, which also chooses the "
            "epoch, and are somewhat too good",
            stacklevel=3,
        )


def _warn_of_copies(table, data):
    """Warn of copies of one picture in several of the user's parts: those that are used, and those
    that cleaning has set aside, so that a part has fewer images than the user gave it.
    """
    rows = read_catalogue(data)
    texts = ["clean_sha256", "dup_group", "split"]
    rows[texts] = rows[texts].astype(object).fillna("")
    rows = rows[rows.clean_status.isin((*USABLE, "duplicate"))].reset_index(drop=True)
    part_of = dict(zip(zip(table.url, table.listed, strict=True), table.part, strict=True))
    keys = list(zip(rows.url, rows.period, strict=True))
    rows["used_as"] = [part_of.get(key, "") for key in keys]
    rows["part"] = rows.used_as.where(rows.used_as != "", rows.split)
    rows["group"] = groups(rows, "grouped")
    rows = rows[rows.part.isin(PARTS)]
    used = rows[rows.used_as != ""]
    leaking = used[used.groupby("group").part.transform("nunique") > 1]
    if len(leaking):
        warnings.warn(
            f"--split own has {leaking.group.nunique()} pictures whose copies are in several parts, "
            f"such as {_copies_of_first(leaking)}: what was learned from one is measured on the "
            "other, and figures are too good. Give copies one part, or drop some in the review",
            stacklevel=3,
        )
    across = rows[rows.groupby("group").part.transform("nunique") > 1]
    set_aside = across[across.used_as == ""]
    if len(set_aside):
        example = across[across.group == set_aside.group.iloc[0]]
        warnings.warn(
            f"--split own: {len(set_aside)} images are copies of images in another part and not "
            f"used, since cleaning set them aside, such as {_copies_of_first(example)}",
            stacklevel=3,
        )


def _copies_of_first(rows) -> str:
    """Two copies of the first picture in different parts, with these parts."""
    group = rows[rows.group == rows.group.iloc[0]].drop_duplicates("part")
    pairs = zip(group.file[:2], group.part[:2], strict=True)
    return " and ".join(f"{file} ({part})" for file, part in pairs)


def _check_number_of_images(table, number_of_parts: int):
    counts = table.period.value_counts()
    too_few = in_order(counts.index[counts < number_of_parts])
    if too_few:
        raise InputError(
            f"too few images for {number_of_parts} parts in {', '.join(too_few)}: add pictures, "
            "or leave the class out with --exclude"
        )


def _check_parts(table, split: str, wanted: list[str]):
    """Raise where a wanted part, or the train images of a period, are missing; warn where a period
    lacks another part.
    """
    missing = [part for part in wanted if part not in set(table.part)]
    if missing:
        raise InputError(
            f"--split {split} leaves no images for {' and '.join(missing)}, because its groups are "
            "as large as whole periods: take another --split"
        )
    not_learned = _periods_without("train", table)
    if not_learned:
        raise InputError(
            f"--split {split} has no train images in {', '.join(not_learned)}: add some to the "
            "column `split`, or leave the class out with --exclude"
        )
    for part in ("valid", "test"):
        without = _periods_without(part, table)
        if without and part in set(table.part):
            warnings.warn(
                f"--split {split} leaves no {part} images in {', '.join(without)}: all of them are "
                f"in other parts, and figures on {part} say nothing of these periods",
                stacklevel=3,
            )


def _periods_without(part: str, table) -> list[str]:
    has_part = table.part.eq(part).groupby(table.period).any()
    return in_order(has_part.index[~has_part])
