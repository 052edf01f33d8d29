"""Near-duplicates: which clean images show the same picture, whole or in part.

Reads `DATA/clean/` and the catalogue; writes its columns `phash`, `dup_group`, `clean_status` and
`clean_reason`, and stores descriptions and compared pairs in `DATA/duplicates.db`, which may be
deleted at any time. Notebook: `02_clean`.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid
onto the other by the points that they share, is light and dark in the same places.
"""

import sqlite3
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from artclf.base.progress import progress_bar
from artclf.data.candidates import by_hash, by_words
from artclf.data.catalogue import Catalogue, clean_path, label, read_catalogue
from artclf.data.classes import in_order
from artclf.data.cleaning import NEAR_DUPLICATE
from artclf.data.groups import components
from artclf.data.matching import (
    DESCRIPTION_VERSION,
    VERDICT_VERSION,
    Description,
    candidate_maps,
    describe,
    kind_of_copy,
    read_luminance,
)

# stands between the reason of an image that is set aside and the flag that cleaning gave it before
FLAGGED = "; flagged: "

DESCRIPTIONS_IN_MEMORY = 4000  # of about 50 kB
LUMINANCES_IN_MEMORY = 500  # of 100 kB


@dataclass(frozen=True)
class SetAside:
    """Why an image is set aside: its `kind` (same, mirror, detail), the file that is `kept` in its
    place (None in a conflict), and the `periods` of its group.
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
    sorted, also within: (a, b) with a < b.
    """

    phashes: dict[str, str | None]
    kinds: dict[tuple[str, str], str]


def mark(data):
    """Find near-duplicates, set them aside, and return them: a DataFrame, one row per image.

    Its columns: `dup_group`, `file`, `kind` (same, mirror, detail), `kept` (the file that stays in
    its place; None in a conflict), `periods`. The largest of a group stays; a group under several
    periods is set aside whole, until a review moves or drops images. An image whose duplicate is
    gone is used again.

    No picture is described and no pair is compared twice, but candidates are looked for anew.
    Raises FileNotFoundError without a catalogue or for a clean copy that is gone.
    """
    import pandas as pd

    rows = _clean_rows(read_catalogue(data))
    files = {row["clean_sha256"]: Path(data) / clean_path(row) for row in rows}
    comparison = compare(data, files)
    changes = []
    set_aside = []
    for group in _groups(rows, comparison.kinds):
        name = _group_name(group)
        for row in group:
            phash = comparison.phashes[row["clean_sha256"]]
            changes.append({**_key(row), "phash": phash, "dup_group": name})
        for judgement in judge(group, comparison.kinds):
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


def _groups(rows: list[dict], kinds: dict[tuple[str, str], str]) -> list[list[dict]]:
    """The rows in groups: those in one group have the same clean copy, or pairs join them."""
    group_of = components(kinds)
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


def judge(group: list[dict], kinds: dict[tuple[str, str], str]) -> list[Judgement]:
    """The judgements on the rows of a group, except for those that cleaning has set aside: exact
    duplicates and conflicts.
    """
    judged = [row for row in group if _is_judged(row)]
    may_stay = [row for row in judged if row["review"] != "drop"]
    not_dropped = [row for row in group if row["review"] != "drop"]
    has_copies = len({row["clean_sha256"] for row in not_dropped}) > 1
    if not has_copies or not may_stay:
        return [_stays(row) for row in judged]
    largest = max(may_stay, key=_size)
    periods = {label(row) for row in not_dropped}
    return [_judge_row(row, largest, periods, kinds) for row in judged]


def _is_judged(row: dict) -> bool:
    """Whether a row is used, or was set aside by this module."""
    is_used = row["clean_status"] in ("ok", "flagged")
    return is_used or row["clean_reason"].startswith(NEAR_DUPLICATE)


def _judge_row(
    row: dict, largest: dict, periods: set[str], kinds: dict[tuple[str, str], str]
) -> Judgement:
    other_periods = in_order(periods - {label(row)})
    if row["review"] == "drop" or (row is largest and not other_periods):
        return _stays(row)
    kind = _kind_in_group(row["clean_sha256"], largest["clean_sha256"], kinds)
    if other_periods:
        status = "conflict"
        reason = f"{NEAR_DUPLICATE} under another period ({', '.join(other_periods)})"
        kept = None
    else:
        status = "duplicate"
        reason = f"{NEAR_DUPLICATE} of {largest['file']} ({kind})"
        kept = largest["file"]
    flag = _flag(row)
    if flag:
        reason += FLAGGED + flag
    return Judgement(row, status, reason, SetAside(kind, kept, in_order(periods)))


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
    with_largest = min(sha256, largest), max(sha256, largest)
    if with_largest in kinds:
        return kinds[with_largest]
    return next(kind for pair, kind in kinds.items() if sha256 in pair)


def compare(data, files: dict[str, Path]) -> Comparison:
    """Compare the pictures in `files`, named by the SHA-256 of their bytes.

    Descriptions and compared pairs are stored in `DATA/duplicates.db`.
    """
    from threadpoolctl import threadpool_limits

    names = sorted(files)
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
    return Comparison(phashes, kinds)


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
        return describe(read_luminance(self.files[name]))

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
