"""Near-duplicates: which clean images show the same picture, whole or in part.

Reads `DATA/clean/` and the catalogue; writes its columns `phash`, `dup_group`, `clean_status` and
`clean_reason`, and stores descriptions and compared pairs in `DATA/duplicates.db`, which may be
deleted at any time. Notebook: `02_clean`.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid
onto the other by the points that they share, is light and dark in the same places. A copy is what
shows the same as the picture that stays: what only a third picture joins to it is none. A picture
that shows several others side by side, a collage, is set aside by itself.
"""

import sqlite3
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artclf.base.progress import progress_bar
from artclf.data.candidates import by_hash, by_words
from artclf.data.catalogue import (
    Catalogue,
    clean_path,
    label,
    label_of_copy,
    read_catalogue,
)
from artclf.data.classes import in_order
from artclf.data.cleaning import NEAR_DUPLICATE
from artclf.data.groups import components
from artclf.data.matching import (
    DESCRIPTION_VERSION,
    VERDICT_VERSION,
    Description,
    candidate_maps,
    describe_file,
    kind_of_copy,
    overlap,
    read_luminance,
    rectangle_of,
    stands_out,
)

# stands between the reason of an image that is set aside and the flag that cleaning gave it before
FLAGGED = "; flagged: "

DESCRIPTIONS_IN_MEMORY = 4000  # of about 50 kB
LUMINANCES_IN_MEMORY = 500  # of 100 kB

COLLAGE = "collage"
MAX_OVERLAP = 0.3  # of the smaller of two pictures that are shown side by side


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


class Comparison(NamedTuple):
    """What `compare` found. Pictures are named by the SHA-256 of their bytes.

    `phashes` has the perceptual hash of every picture, `kinds` the kind of every pair that shows
    the same: same, mirror, or detail (one covers less than about half of the other). Pairs are
    sorted within: (a, b) with a < b. `kept` has the picture that every picture is a copy of, itself
    where it is none; `collages` the pictures that a collage shows.
    """

    phashes: dict[str, str | None]
    kinds: dict[tuple[str, str], str]
    kept: dict[str, str]
    collages: dict[str, list[str]]


def mark(data):
    """Find near-duplicates, set them aside, and return them: a DataFrame, one row per image.

    Its columns: `dup_group`, `file`, `kind` (same, mirror, detail, collage), `kept` (the file that
    stays in its place; None in a conflict), `periods`. The largest of several copies stays; copies
    under several periods are all set aside, until a review moves or drops images. A decision on the
    one that stays holds for its undecided copies of the same period, too. An image whose duplicate
    is gone is used again. `dup_group` joins all that pairs join, whether copies or not, so that a
    split can keep them together.

    No picture is described and no pair is compared twice, but candidates are looked for anew.
    Raises FileNotFoundError without a catalogue or for a clean copy that is gone.
    """
    import pandas as pd

    rows = _clean_rows(read_catalogue(data))
    largest_first = sorted(rows, key=_size, reverse=True)
    files = {row["clean_sha256"]: Path(data) / clean_path(row) for row in largest_first}
    comparison = compare(data, files)
    changes = []
    set_aside = []
    for group in _groups(rows, components(comparison.kinds)):
        name = _group_name(group)
        for row in group:
            phash = comparison.phashes[row["clean_sha256"]]
            changes.append({**_key(row), "phash": phash, "dup_group": name})
        for judgement in _judge_group(group, comparison):
            changes.append(
                {
                    **_key(judgement.row),
                    "clean_status": judgement.status,
                    "clean_reason": judgement.reason,
                }
            )
            facts = judgement.set_aside
            if facts:
                periods = ", ".join(facts.periods)
                set_aside.append([name, judgement.row["file"], facts.kind, facts.kept, periods])
    with Catalogue(data) as cat:
        cat.update(changes)
    return pd.DataFrame(set_aside, columns=["dup_group", "file", "kind", "kept", "periods"])


def _clean_rows(table) -> list[dict]:
    """The rows of a catalogue that have a clean copy, as dicts; texts are '' where missing."""
    texts = ["clean_status", "clean_reason", "review"]
    table[texts] = table[texts].astype(object).fillna("")
    is_clean = ~table.clean_status.isin(["", "rejected"]) & table.clean_sha256.notna()
    return table[is_clean].to_dict("records")


def _key(row: dict) -> dict:
    return {"url": row["url"], "period": row["period"]}


def _groups(rows: list[dict], group_of: dict[str, str]) -> list[list[dict]]:
    """The rows in groups: those in one group have clean copies of one group, or the same one."""
    groups = defaultdict(list)
    for row in rows:
        sha256 = row["clean_sha256"]
        groups[group_of.get(sha256, sha256)].append(row)
    return list(groups.values())


def _group_name(group: list[dict]) -> str | None:
    """The `dup_group` of a group's rows; None for a single one."""
    if len(group) == 1:
        return None
    return min(row["sha256"] for row in group)[:16]


def _judge_group(group: list[dict], comparison: Comparison) -> list[Judgement]:
    """The judgements on rows that pairs join: collages, and each picture with its copies."""
    judgements = []
    others = []
    for row in group:
        if row["clean_sha256"] not in comparison.collages:
            others.append(row)
        elif _is_judged(row):
            judgements.append(_judge_collage(row, group, comparison))
    for copies in _groups(others, comparison.kept):
        judgements += judge(copies, comparison.kinds)
    return judgements


def _judge_collage(row: dict, group: list[dict], comparison: Comparison) -> Judgement:
    if row["review"] == "drop":
        return _stays(row)
    shown = comparison.collages[row["clean_sha256"]]
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
    periods = {period for period in labels if period}
    rows = [(row, period) for row, period in zip(group, labels, strict=True) if _is_judged(row)]
    kept = max((row for row, period in rows if period), key=_size, default=largest)
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
    are those of all of them.
    """
    other_periods = in_order(periods - {period})
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
    with_largest = _pair(sha256, largest)
    if with_largest in kinds:
        return kinds[with_largest]
    return next(kind for pair, kind in kinds.items() if sha256 in pair)


def compare(data, files: dict[str, Path]) -> Comparison:
    """Compare the pictures in `files`, named by the SHA-256 of their bytes, the largest first.

    Descriptions and compared pairs are stored in `DATA/duplicates.db`.
    """
    from threadpoolctl import threadpool_limits

    names = sorted(files)
    rank = {name: number for number, name in enumerate(files)}
    with (
        closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db,
        threadpool_limits(1, "blas"),
    ):
        store = _Store(db, files)
        store.describe_new()
        phashes = {name: store.description(name).hash for name in names}
        candidates = by_hash(list(phashes.values()))
        candidates |= by_words(len(names), lambda i: store.description(names[i]).descriptors)
        pairs = {(names[i], names[j], mirrored) for i, j, mirrored in candidates}
        kinds = store.kinds_of(sorted(pairs | store.pairs_found_before()))
        collages = _collages(kinds, rank, store)
        kept = _kept_pictures(kinds, collages, rank, store)
    return Comparison(phashes, kinds, kept, collages)


def _collages(
    kinds: dict[tuple[str, str], str], rank: dict[str, int], store: "_Store"
) -> dict[str, list[str]]:
    """The pictures that show at least two others side by side, and those that each shows, by
    `rank`.
    """
    neighbours: dict[str, list[str]] = defaultdict(list)
    for a, b in kinds:
        neighbours[a].append(b)
        neighbours[b].append(a)
    collages = {}
    for picture, others in neighbours.items():
        pairs = [_pair(picture, other) for other in others]
        joined = combinations(sorted(others), 2)
        # a picture that others are joined by shows them side by side only if a part of it is one
        if "detail" in {kinds[pair] for pair in pairs} and any(
            pair not in kinds for pair in joined
        ):
            shown = _shown_side_by_side(picture, others, store)
            if len(shown) > 1:
                collages[picture] = sorted(shown, key=rank.__getitem__)
    return collages


def _shown_side_by_side(picture: str, others: list[str], store: "_Store") -> list[str]:
    """Those of `others` that `picture` shows beside another of them."""
    rectangles = {}
    for other in others:
        rectangle = store.rectangle(other, picture)
        if rectangle is not None and stands_out(store.luminance(picture), rectangle):
            rectangles[other] = rectangle
    shown = set()
    for one, other in combinations(rectangles, 2):
        if overlap(rectangles[one], rectangles[other]) < MAX_OVERLAP:
            shown |= {one, other}
    return list(shown)


def _kept_pictures(
    kinds: dict[tuple[str, str], str],
    collages: dict[str, list[str]],
    rank: dict[str, int],
    store: "_Store",
) -> dict[str, str]:
    """The picture that each picture in `kinds`, but no collage, is a copy of: the largest that
    shows the same, or itself.

    Compares each picture that stays with all that pairs join to it, and adds what it finds to
    `kinds`.
    """
    joined = components(pair for pair in kinds if collages.keys().isdisjoint(pair))
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(joined, key=rank.__getitem__):
        members[joined[name]].append(name)
    kept = {}
    groups = list(members.values())
    while groups:
        new = [_pair(first, name) for first, *others in groups for name in others]
        new = [pair for pair in new if pair not in kinds]
        kinds |= store.kinds_of(
            sorted((a, b, mirrored) for a, b in new for mirrored in (False, True))
        )
        remaining = []
        for first, *others in groups:
            kept[first] = first
            copies = [name for name in others if _pair(first, name) in kinds]
            kept.update(dict.fromkeys(copies, first))
            remaining.append([name for name in others if name not in copies])
        groups = [group for group in remaining if group]
    return kept


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


class _Store:
    """Descriptions of pictures, and the kinds of compared pairs (table `verdicts`, '' for a pair
    that shows nothing in common), in the SQLite file `db`.

    Pictures are named as in `files`. The latest descriptions and luminances stay in memory.
    """

    def __init__(self, db: sqlite3.Connection, files: dict[str, Path]):
        self.db = db
        self.files = files
        self.description = lru_cache(DESCRIPTIONS_IN_MEMORY)(self._read_description)
        self.luminance = lru_cache(LUMINANCES_IN_MEMORY)(self._read_luminance)
        db.execute("DROP TABLE IF EXISTS seen")  # an earlier version's descriptions
        db.execute(
            "CREATE TABLE IF NOT EXISTS descriptions (version TEXT, image TEXT, hash TEXT, "
            "points BLOB, descriptors BLOB, PRIMARY KEY (version, image))"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (version TEXT, a TEXT, b TEXT, "
            "mirrored INTEGER, kind TEXT, PRIMARY KEY (version, a, b, mirrored))"
        )

    def describe_new(self):
        """Describe the pictures that have no description yet."""
        described = self.db.execute(
            "SELECT image FROM descriptions WHERE version = ?", (DESCRIPTION_VERSION,)
        )
        new = sorted(self.files.keys() - {name for (name,) in described})
        for name in new:
            if not self.files[name].exists():
                raise FileNotFoundError(f"{self.files[name]} is gone: run `artclf clean` first")
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(new), 64), desc="describe"):
                batch = new[start : start + 64]
                descriptions = pool.map(self._describe, batch)
                with self.db:  # a transaction
                    for name, description in zip(batch, descriptions, strict=True):
                        self._write_description(name, description)

    def _describe(self, name: str) -> Description:
        return describe_file(self.files[name])

    def _write_description(self, name: str, description: Description):
        points = description.points.tobytes()
        descriptors = description.descriptors.tobytes()
        self.db.execute(
            "INSERT OR REPLACE INTO descriptions VALUES (?, ?, ?, ?, ?)",
            (DESCRIPTION_VERSION, name, description.hash, points, descriptors),
        )

    def _read_description(self, name: str) -> Description:
        [(phash, points, descriptors)] = self.db.execute(
            "SELECT hash, points, descriptors FROM descriptions WHERE version = ? AND image = ?",
            (DESCRIPTION_VERSION, name),
        )
        return Description(
            phash,
            np.frombuffer(points, np.float32).reshape(-1, 2),
            np.frombuffer(descriptors, np.uint8).reshape(-1, 128),
        )

    def _read_luminance(self, name: str) -> np.ndarray:
        return read_luminance(self.files[name])

    def pairs_found_before(self) -> set[tuple[str, str, bool]]:
        """The pairs that showed one picture in earlier runs: new pictures may have taken their
        places among the candidates.
        """
        rows = self.db.execute(
            "SELECT a, b, mirrored FROM verdicts WHERE version = ? AND kind != ''",
            (VERDICT_VERSION,),
        )
        return {
            (a, b, bool(mirrored)) for a, b, mirrored in rows if a in self.files and b in self.files
        }

    def kinds_of(self, pairs: list[tuple[str, str, bool]]) -> dict[tuple[str, str], str]:
        """The kind of each pair (a, b, mirrored) that shows one picture, plain before mirrored."""
        kinds: dict[tuple[str, str], str] = {}
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(pairs), 256), desc="compare"):
                batch = pairs[start : start + 256]
                for (a, b, _), kind in zip(batch, self._kinds_of_batch(batch, pool), strict=True):
                    if kind:
                        kinds.setdefault((a, b), kind)
        return kinds

    def _kinds_of_batch(self, batch: list[tuple[str, str, bool]], pool) -> list[str]:
        """The kind of each pair, '' where the two don't show one picture; new ones are compared in
        threads, and stored.
        """
        kinds = {pair: self._stored_kind(pair) for pair in batch}
        new = [pair for pair, kind in kinds.items() if kind is None]
        # descriptions are read here, because SQLite's connection belongs to this thread
        descriptions = [(self.description(a), self.description(b)) for a, b, _ in new]
        kinds.update(zip(new, pool.map(self._compare, new, descriptions), strict=True))
        with self.db:  # a transaction
            rows = [(VERDICT_VERSION, *pair, kinds[pair]) for pair in new]
            self.db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", rows)
        return [kinds[pair] or "" for pair in batch]

    def _stored_kind(self, pair: tuple[str, str, bool]) -> str | None:
        row = self.db.execute(
            "SELECT kind FROM verdicts WHERE (version, a, b, mirrored) = (?, ?, ?, ?)",
            (VERDICT_VERSION, *pair),
        ).fetchone()
        return row[0] if row else None

    def _compare(
        self, pair: tuple[str, str, bool], descriptions: tuple[Description, Description]
    ) -> str:
        a, b, mirrored = pair
        for affine in candidate_maps(*descriptions, mirrored):
            kind = kind_of_copy(self.luminance(a), self.luminance(b), affine)
            if kind:
                return kind
        return ""

    def rectangle(self, inner: str, outer: str) -> np.ndarray | None:
        """Where picture `outer` shows `inner`, a smaller one (see `rectangle_of`); None where it
        doesn't.
        """
        a, b = self.luminance(inner), self.luminance(outer)
        for mirrored in (False, True):
            maps = candidate_maps(self.description(inner), self.description(outer), mirrored)
            for affine in maps:
                is_smaller = abs(np.linalg.det(affine[:, :2])) < 1
                if is_smaller and kind_of_copy(a, b, affine):
                    return rectangle_of(affine)
        return None
