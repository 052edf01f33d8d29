"""Near-duplicates: what becomes of clean images that show the same picture, whole or in part.

Reads `DATA/clean/` and the catalogue; writes its columns `phash`, `dup_group`, `clean_status` and
`clean_reason`. Notebook: `02_clean`.

Module `comparison` finds which pictures show the same. A copy is what shows the same as the picture
that stays: what only a third picture joins to it is none. A picture that shows several others side
by side, a collage, is set aside by itself.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from artclf.base.processes import MapJobs
from artclf.data.catalogue import (
    Catalogue,
    clean_path,
    label,
    label_of_copy,
)
from artclf.data.classes import in_order, labelled
from artclf.data.cleaning import NEAR_DUPLICATE
from artclf.data.comparison import Comparison, Named, compare, pair_of
from artclf.data.numbered import Pictures

# stands between the reason of an image that is set aside and the flag that cleaning gave it before
FLAGGED = "; flagged: "

COLLAGE = "collage"

HAS_COPY = "clean_status NOT IN ('', 'rejected') AND clean_sha256 IS NOT NULL"  # a clean one

# of the catalogue, that judgements need
COLUMNS = [
    "rowid",
    "period",
    "file",
    "bytes",
    "sha256",
    "width",
    "height",
    "clean_status",
    "clean_reason",
    "clean_sha256",
    "review",
]


@dataclass(frozen=True)
class SetAside:
    """Why an image is set aside: its `kind` (same, mirror, detail, collage), the file that is `kept`
    in its place (None in a conflict; those that a collage shows), and the `periods` of its group.
    """

    kind: str
    kept: str | None
    periods: list[str]


@dataclass(frozen=True)
class Judgement:
    """The `status` and `reason` of a catalogue row's image; `set_aside` is None where it stays."""

    row: dict
    status: str
    reason: str | None
    set_aside: SetAside | None = None


def mark(data, map_jobs: MapJobs | None = None):
    """Find near-duplicates, set them aside, and return them: a DataFrame, one row per image.

    Its columns: `dup_group`, `file`, `kind` (same, mirror, detail, collage), `kept` (the file that
    stays in its place; None in a conflict), `periods`. The largest of several copies stays; copies
    under several periods are all set aside, until a review moves or drops images. A decision on the
    one that stays holds for its undecided copies of the same period, too. An image whose duplicate
    is gone is used again. `dup_group` joins all that pairs join, whether copies or not, so that a
    split can keep them together.

    No picture is described and no pair is compared twice, but candidates are looked for anew. The
    workers of `map_jobs`, which see `data` under the same path, find the same as this process.
    Raises FileNotFoundError without a catalogue or for a clean copy that is gone.
    """
    import pandas as pd

    with Catalogue(data, to_read=True) as catalogue:
        pictures = Pictures.of(_largest_first(catalogue))
    comparison = compare(data, pictures, map_jobs)
    set_aside = []
    with Catalogue(data) as catalogue, catalogue.transaction() as db:
        _write_hashes(db, comparison)
        for group in _groups_to_judge(db, comparison):
            name = _group_name(group)
            _write_name(db, group, name)
            for judgement in _judge_group(group, comparison.named(_pictures_of(group, pictures))):
                _write_judgement(db, judgement)
                facts = judgement.set_aside
                if facts:
                    periods = ", ".join(facts.periods)
                    file = judgement.row["file"]
                    set_aside.append([name, file, facts.kind, facts.kept, periods])
    return pd.DataFrame(set_aside, columns=["dup_group", "file", "kind", "kept", "periods"])


def _largest_first(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """The SHA-256 and the file of each clean copy."""
    rows = catalogue.db.execute(
        f"SELECT clean_sha256, file, period, review FROM images WHERE {HAS_COPY} "
        "ORDER BY width * height DESC, bytes DESC, sha256 DESC, rowid"
    )
    for row in rows:
        yield row["clean_sha256"], clean_path(dict(row))


def _write_hashes(db: sqlite3.Connection, comparison: Comparison):
    """Write the `phash` of all pictures, as if each were in no group."""
    pictures, hashes = comparison.pictures, comparison.hashes
    db.create_function("phash_of", 1, lambda sha256: hashes.text(pictures.number(sha256)))
    db.execute(
        f"UPDATE images SET phash = phash_of(clean_sha256), dup_group = NULL WHERE {HAS_COPY}"
    )


def _groups_to_judge(db: sqlite3.Connection, comparison: Comparison) -> Iterator[list[dict]]:
    """The rows in groups, which have clean copies that pairs join, or the same one; the group whose
    first row is first comes first. Single rows come only where this module has set them aside.

    The number and group of a row are in memory, 16 bytes, and the rows of one group at a time.
    """
    pictures = comparison.pictures
    is_in_group = pictures.is_repeated.copy()
    is_in_group[comparison.kinds.ends] = True
    db.create_function("is_in_group", 1, lambda name: int(is_in_group[pictures.number(name)]))
    db.create_function("group_of", 1, lambda name: int(comparison.groups[pictures.number(name)]))
    found = db.execute(
        f"SELECT rowid, group_of(clean_sha256) FROM images WHERE {HAS_COPY} "
        f"AND (is_in_group(clean_sha256) OR clean_reason LIKE '{NEAR_DUPLICATE}%') ORDER BY rowid"
    )
    rows = np.fromiter(map(tuple, found), [("rowid", int), ("group", int)])
    _, first, place = np.unique(rows["group"], return_index=True, return_inverse=True)
    order = first[place].argsort(kind="stable")
    for _, group in groupby(rows[order].tolist(), key=itemgetter(1)):
        yield [_row(db, rowid) for rowid, _ in group]


def _row(db: sqlite3.Connection, rowid: int) -> dict:
    """The COLUMNS of a row; texts are '' where missing."""
    columns = ", ".join(COLUMNS)
    row = dict(db.execute(f"SELECT {columns} FROM images WHERE rowid = ?", (rowid,)).fetchone())
    return row | {name: row[name] or "" for name in ("clean_reason", "review")}


def _pictures_of(group: list[dict], pictures: Pictures) -> list[int]:
    """The numbers of the pictures of some rows, in order."""
    return sorted(set(pictures.find([row["clean_sha256"] for row in group]).tolist()))


def _write_name(db: sqlite3.Connection, group: list[dict], name: str | None):
    rows = [(name, row["rowid"]) for row in group]
    db.executemany("UPDATE images SET dup_group = ? WHERE rowid = ?", rows)


def _write_judgement(db: sqlite3.Connection, judgement: Judgement):
    db.execute(
        "UPDATE images SET clean_status = ?, clean_reason = ? WHERE rowid = ?",
        (judgement.status, judgement.reason, judgement.row["rowid"]),
    )


def _groups(rows: list[dict], group_of: dict[str, str]) -> list[list[dict]]:
    """The rows in groups: those in one group have clean copies of one group, or the same one."""
    groups = defaultdict(list)
    for row in rows:
        groups[group_of[row["clean_sha256"]]].append(row)
    return list(groups.values())


def _group_name(group: list[dict]) -> str | None:
    """The `dup_group` of a group's rows; None for a single one."""
    if len(group) == 1:
        return None
    return min(row["sha256"] for row in group)[:16]


def _judge_group(group: list[dict], found: Named) -> list[Judgement]:
    """The judgements on rows that pairs join: collages, and each picture with its copies."""
    judgements = []
    others = []
    for row in group:
        if row["clean_sha256"] not in found.collages:
            others.append(row)
        elif _is_judged(row):
            judgements.append(_judge_collage(row, group, found))
    for copies in _groups(others, found.kept):
        judgements += judge(copies, found.kinds)
    return judgements


def _judge_collage(row: dict, group: list[dict], found: Named) -> Judgement:
    if row["review"] == "drop":
        return _stays(row)
    shown = found.collages[row["clean_sha256"]]
    file_of = {other["clean_sha256"]: other["file"] for other in group}
    files = ", ".join(file_of[picture] for picture in shown)
    reason = f"{NEAR_DUPLICATE}: shows several pictures of the collection ({files})"
    return _set_aside(row, "duplicate", reason, SetAside(COLLAGE, files, [label(row)]))


def judge(group: list[dict], kinds: dict[tuple[str, str], str]) -> list[Judgement]:
    """The judgements on the rows of a picture and its copies, except for those that cleaning has
    set aside: exact duplicates and conflicts.
    """
    judged = [row for row in group if _is_judged(row)]
    has_copies = len({row["clean_sha256"] for row in group}) > 1
    if not has_copies or not judged:
        return [_stays(row) for row in judged]
    largest = max(judged, key=_size)
    labels = [label_of_copy(row, largest) for row in group]
    periods = labelled(period for period in labels if period)
    rows = [(row, period) for row, period in zip(group, labels, strict=True) if _is_judged(row)]
    kept = max((row for row, period in rows if period in periods), key=_size, default=largest)
    judgements = []
    for row, period in rows:
        if row["review"] == "drop":
            judgements.append(_stays(row))
        elif period is None:
            judgements.append(_judge_copy_of_dropped(row, largest, kinds))
        else:
            judgements.append(_judge_row(row, kept, period, periods, kinds))
    return judgements


def _is_judged(row: dict) -> bool:
    """Whether a row is used, or was set aside by this module."""
    is_used = row["clean_status"] in ("ok", "flagged")
    return is_used or row["clean_reason"].startswith(NEAR_DUPLICATE)


def _judge_copy_of_dropped(
    row: dict, dropped: dict, kinds: dict[tuple[str, str], str]
) -> Judgement:
    kind = _kind_in_group(row["clean_sha256"], dropped["clean_sha256"], kinds)
    reason = f"{NEAR_DUPLICATE} of {dropped['file']} ({kind}, dropped by review)"
    return _set_aside(row, "duplicate", reason, SetAside(kind, None, [label(row)]))


def _judge_row(
    row: dict, kept: dict, period: str, periods: set[str], kinds: dict[tuple[str, str], str]
) -> Judgement:
    """The judgement on a row of `period`, where `kept` is the largest of its copies, and `periods`
    are those of all of them. A copy without a label says nothing against the labels of the others.
    """
    other_periods = in_order(periods - {period}) if period in periods else []
    if row is kept and not other_periods:
        return _stays(row)
    kind = _kind_in_group(row["clean_sha256"], kept["clean_sha256"], kinds)
    if other_periods:
        reason = f"{NEAR_DUPLICATE} under another period ({', '.join(other_periods)})"
        return _set_aside(row, "conflict", reason, SetAside(kind, None, in_order(periods)))
    reason = f"{NEAR_DUPLICATE} of {kept['file']} ({kind})"
    return _set_aside(row, "duplicate", reason, SetAside(kind, kept["file"], in_order(periods)))


def _set_aside(row: dict, status: str, reason: str, facts: SetAside) -> Judgement:
    """The judgement on a row that is set aside; a flag of cleaning stays in its reason."""
    flag = _flag(row)
    if flag:
        reason += FLAGGED + flag
    return Judgement(row, status, reason, facts)


def _stays(row: dict) -> Judgement:
    flag = _flag(row)
    return Judgement(row, "flagged", flag) if flag else Judgement(row, "ok", None)


def _size(row: dict) -> tuple:
    return row["width"] * row["height"], row["bytes"], row["sha256"]


def _flag(row: dict) -> str:
    """Why cleaning flagged an image, be it set aside since; '' where it did not."""
    if row["clean_status"] == "flagged":
        return row["clean_reason"]
    return row["clean_reason"].partition(FLAGGED)[2]


def _kind_in_group(sha256: str, largest: str, kinds: dict[tuple[str, str], str]) -> str:
    """The kind of an image: against the largest of its group, or, where a third joins them, against
    the first that it is a pair with.
    """
    with_largest = pair_of(sha256, largest)
    if with_largest in kinds:
        return kinds[with_largest]
    return next(kind for pair, kind in kinds.items() if sha256 in pair)
