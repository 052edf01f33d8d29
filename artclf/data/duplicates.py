"""Near-duplicates: which clean images show the same picture, whole or in part.

Reads `DATA/clean/` and the catalogue; writes its columns `phash`, `dup_group`, `clean_status` and
`clean_reason`, and keeps what it saw in `DATA/duplicates.db`, which may be deleted at any time.
Notebook: `02_clean`.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid
onto the other by the points that they share, is light and dark in the same places.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import numpy as np

from artclf.base.progress import progress_bar
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue
from artclf.data.groups import components
from artclf.data.matching import (
    FLIPPED,
    JUDGING,
    MIRROR,
    RADIUS,
    SEEING,
    describe,
    kind,
    light,
    maps,
    root,
)

NEAR, FLAGGED = "near-duplicate", "; flagged: "


NEIGHBOURS, WORDS = (
    8,
    512,
)  # candidates: the likest by visual words, which are pairs of so many half words


def mark(data):
    """Find near-duplicates, set them aside, and return them: a DataFrame, a row an image set aside.

    Its columns: `dup_group`, `file`, `kind` (same, mirror, detail), `kept` (a file; None in a
    conflict), `periods`. The largest of a group stays; a group under several periods is set aside
    whole, until a review moves or drops images. What no longer holds is taken back. No picture and
    no pair is looked at twice, but candidates are looked for anew. Raises FileNotFoundError without
    a catalogue or for a clean copy that is gone.
    """
    import pandas as pd

    table = read_catalogue(data)
    words = ["clean_status", "clean_reason", "review"]
    table[words] = table[words].astype(object).fillna("")
    table["used_as"] = table.review.where(
        table.review.str.startswith("move:"), "move:" + table.period
    ).str[5:]
    rows = table[~table.clean_status.isin(["", "rejected"]) & table.clean_sha256.notna()].to_dict(
        "records"
    )
    hashes, found = pairs(data, {row["clean_sha256"]: Path(data) / clean_path(row) for row in rows})
    names, groups, judged = components(found), defaultdict(list), []
    for row in rows:
        groups[names.get(row["clean_sha256"], row["clean_sha256"])].append(row)
    for group in groups.values():
        name = min(row["sha256"] for row in group)[:16] if len(group) > 1 else None
        judged += [
            (row, {"phash": hashes[row["clean_sha256"]], "dup_group": name, **verdict}, facts)
            for row, verdict, facts in _judged(group, found)
        ]
    with Catalogue(data) as cat:
        cat.update(
            {"url": row["url"], "period": row["period"], **changes} for row, changes, _ in judged
        )
    return pd.DataFrame(
        [{**changes, "file": row["file"], **facts} for row, changes, facts in judged if facts],
        columns=["dup_group", "file", "kind", "kept", "periods"],
    )


def _judged(group: list[dict], found: dict) -> Iterator[tuple]:
    """The rows of a group, each with its verdict and, if it is set aside, the facts."""
    live = [
        row
        for row in group
        if row["clean_status"] in ("ok", "flagged") or row["clean_reason"].startswith(NEAR)
    ]
    voting = [row for row in group if row["review"] != "drop"]
    periods, several = (
        {row["used_as"] for row in voting},
        len({row["clean_sha256"] for row in voting}) > 1,
    )
    kept = max(
        (row for row in live if row in voting),
        default=None,
        key=lambda row: (row["width"] * row["height"], row["bytes"], row["sha256"]),
    )
    yield from (
        (row, {}, None) for row in group if row not in live
    )  # step clean has set them aside
    for row in live:
        flag = (
            row["clean_reason"]
            if row["clean_status"] == "flagged"
            else row["clean_reason"].partition(FLAGGED)[2]
        )
        others = ", ".join(sorted(periods - {row["used_as"]}))
        if row not in voting or not several or row is kept and not others:
            yield (
                row,
                {"clean_status": "flagged" if flag else "ok", "clean_reason": flag or None},
                None,
            )
            continue
        pair = tuple(
            sorted((row["clean_sha256"], kept["clean_sha256"]))
        )  # others may have joined them
        kind = found.get(pair) or next(
            said for pair, said in found.items() if row["clean_sha256"] in pair
        )
        reason = (
            f"{NEAR} under another period ({others})"
            if others
            else f"{NEAR} of {kept['file']} ({kind})"
        )
        yield (
            row,
            {
                "clean_status": "conflict" if others else "duplicate",
                "clean_reason": reason + (FLAGGED + flag if flag else ""),
            },
            {
                "kind": kind,
                "kept": None if others else kept["file"],
                "periods": ", ".join(sorted(periods)),
            },
        )


def pairs(data, files: dict[str, Path]) -> tuple[dict, dict]:
    """The hashes of the clean pictures `files` (SHA-256: path), and the pairs (a, b), a < b, that
    show one picture.

    Hashes are as `phash` has them. The value of a pair is its kind: same, mirror, or detail, which
    covers less than about half of the other. What was seen of pictures and of pairs is kept in
    `DATA/duplicates.db`.
    """
    from threadpoolctl import threadpool_limits

    with (
        closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db,
        threadpool_limits(1, "blas"),
    ):
        store, found, images = _Store(db, files), {}, sorted(files)
        store.look()
        hashes = {image: store.seen(image)[0] for image in images}
        candidates = by_hash(list(hashes.values())) | by_words(
            len(images), lambda i: store.seen(images[i])[2]
        )
        wanted = sorted(
            {(images[i], images[j], mirrored) for i, j, mirrored in candidates} | store.confirmed()
        )
        for start in progress_bar(range(0, len(wanted), 256), desc="compare"):
            with db:  # a transaction
                for a, b, mirrored in wanted[start : start + 256]:
                    if said := store.verdict(a, b, mirrored):
                        found.setdefault((a, b), said)
    return hashes, found


class _Store:
    """What was seen of pictures, and of pairs of them, in the SQLite file `db`."""

    def __init__(self, db, files: dict[str, Path]):
        self.db, self.files = db, files
        self.seen, self.light = (
            lru_cache(4000)(self._seen),
            lru_cache(500)(lambda image: light(files[image])),
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS seen "
            "(key TEXT, image TEXT, hash TEXT, places BLOB, points BLOB, PRIMARY KEY (key, image))"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS pairs "
            "(key TEXT, a TEXT, b TEXT, mirrored INTEGER, kind TEXT, PRIMARY KEY (key, a, b, mirrored))"
        )

    def look(self):
        """Describe the pictures that are new."""
        known = {
            image for (image,) in self.db.execute("SELECT image FROM seen WHERE key = ?", (SEEING,))
        }
        new = [image for image in self.files if image not in known]
        if gone := [self.files[image] for image in new if not self.files[image].exists()]:
            raise FileNotFoundError(f"{gone[0]} is gone: run `artclf clean` first")
        with ThreadPoolExecutor() as pool:
            for start in progress_bar(range(0, len(new), 64), desc="describe"):
                batch = new[start : start + 64]
                found = zip(
                    batch,
                    pool.map(lambda image: describe(light(self.files[image])), batch),
                    strict=True,
                )
                rows = [
                    (SEEING, image, code, places.tobytes(), points.tobytes())
                    for image, (code, places, points) in found
                ]
                with self.db:
                    self.db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)

    def _seen(self, image: str) -> tuple:
        [(code, places, points)] = self.db.execute(
            "SELECT hash, places, points FROM seen WHERE key = ? AND image = ?", (SEEING, image)
        )
        return (
            code,
            np.frombuffer(places, np.float32).reshape(-1, 2),
            np.frombuffer(points, np.uint8).reshape(-1, 128),
        )

    def confirmed(self) -> set[tuple]:
        """The pairs that were found before: other pictures may have taken their places among the
        likest.
        """
        found = self.db.execute(
            "SELECT a, b, mirrored FROM pairs WHERE key = ? AND kind != ''", (JUDGING,)
        )
        return {
            (a, b, bool(mirrored))
            for a, b, mirrored in found
            if a in self.files and b in self.files
        }

    def verdict(self, a: str, b: str, mirrored: bool) -> str:
        """The kind of a pair, empty where the two don't show one picture; `mirrored` says what to
        look for.
        """
        key = JUDGING, a, b, mirrored
        known = self.db.execute(
            "SELECT kind FROM pairs WHERE (key, a, b, mirrored) = (?, ?, ?, ?)", key
        ).fetchone()
        if known:
            return known[0]
        tried = (
            kind(self.light(a), self.light(b), affine)
            for affine in maps(self.seen(a), self.seen(b), mirrored)
        )
        said = next(filter(None, tried), "")
        self.db.execute("INSERT INTO pairs VALUES (?, ?, ?, ?, ?)", (*key, said))
        return said


def by_hash(hashes: list[str | None]) -> set[tuple]:
    """Candidates (i, j, mirrored): places of hashes that are near as they are, or in the mirror."""
    there = [place for place, code in enumerate(hashes) if code]
    codes = np.array([int(hashes[place], 16) for place in there], np.uint64)
    return {
        (there[i], there[j], mirrored)
        for mirrored, others in ((False, codes), (True, codes ^ MIRROR))
        for i, j in near(codes, others)
    }


def near(hashes, others=None) -> np.ndarray:
    """Places (i, j), i < j, where `hashes[i]` and `others[j]` (`hashes` by default) differ in at
    most RADIUS bits.

    Both are uint64 and equally long; the result has shape (pairs, 2). A quarter of the bits then
    differs in at most one: of each quarter 17 values are looked up (Norouzi, Punjani and Fleet,
    Multi-index hashing, 2012).
    """
    from scipy.sparse import csr_array

    others, number, found = (
        hashes if others is None else others,
        len(hashes),
        [np.empty((0, 2), int)],
    )
    flips = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    for here, there in zip(
        *(codes.view(np.uint16).reshape(-1, 4).T for codes in (hashes, others)), strict=True
    ):
        probes = csr_array(
            (
                np.ones(17 * number, bool),
                (here[:, None] ^ flips).ravel().astype(int),
                np.arange(0, 17 * number + 1, 17),
            ),
            (number, 1 << 16),
        )
        table = csr_array(
            (np.ones(number, bool), there.astype(int), np.arange(number + 1)), probes.shape
        ).T.tocsr()
        for start in range(0, number, 1024):  # in blocks, to keep memory flat
            i, j = (probes[start : start + 1024] @ table).nonzero()
            i, j = (i + start)[i + start < j], j[i + start < j]
            far = np.unpackbits((hashes[i] ^ others[j]).view(np.uint8).reshape(-1, 8), axis=1).sum(
                1
            )
            found.append(np.stack([i, j], 1)[far <= RADIUS])
    return np.unique(np.concatenate(found), axis=0)


def by_words(number: int, points: Callable) -> set[tuple]:
    """Candidates (i, j, mirrored): the pictures of `number` whose visual words are likest, plain or
    in the mirror.

    `points(i)` are the descriptors of picture i. Words weigh by rarity (Sivic and Zisserman, Video
    Google, 2003); each is a pair of half words, the nearest of those drawn from the data (Babenko
    and Lempitsky, The inverted multi-index, 2012). Each picture is compared with all: a sparse
    product, quadratic where `near` is not.
    """
    from sklearn import config_context
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    drawn = [
        p[rng.integers(len(p))]
        for i in rng.integers(number, size=WORDS * (number > 1))
        if len(p := points(i))
    ]
    if not drawn:
        return set()
    known = _halves(np.stack(drawn))

    def words(values):
        left, right = (
            (half @ own.T - (own * own).sum(1) / 2).argmax(1)
            for half, own in zip(_halves(values), known, strict=True)
        )
        return (left * WORDS + right).tolist()

    weigh = TfidfVectorizer(analyzer=words, binary=True, dtype=np.float32).fit(
        points(i) for i in range(number)
    )
    weigh.idf_ = weigh.idf_**2
    plain = weigh.transform(points(i) for i in range(number))
    mirrored = weigh.transform(points(i)[:, FLIPPED] for i in range(number))
    index = NearestNeighbors(n_neighbors=min(1 + NEIGHBOURS, number), metric="cosine").fit(plain)
    with config_context(working_memory=64):  # MB
        likest = [
            index.kneighbors(pictures, return_distance=False) for pictures in (plain, mirrored)
        ]
    return {
        (min(i, j), max(i, j), bool(flipped))
        for flipped, nearest in enumerate(likest)
        for i, others in enumerate(nearest)
        for j in others
        if i != j
    }


def _halves(points) -> np.ndarray:
    return root(points).reshape(-1, 4, 2, 16).transpose(2, 0, 1, 3).reshape(2, -1, 64)
