"""Near-duplicates: which clean images show the same picture, whole or in part.

Reads `DATA/clean/` and the catalogue; writes its columns `phash`, `dup_group`, `clean_status` and `clean_reason`, and
keeps what it saw in `DATA/duplicates.db`, which may be deleted at any time. Notebook: `02_clean`.

Candidates come from a perceptual hash and from visual words. A pair counts when one picture, laid onto the other by
the points that they share, is light and dark in the same places.
"""
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from artclf.catalogue import Catalogue, clean_path, progress, read_catalogue
from artclf.clean import open_rgb

NEAR, FLAGGED = "near-duplicate", "; flagged: "
SIDE, POINTS = 320, 400  # pictures are squashed to a square of so many px; so many of its points are described
RADIUS, NEIGHBOURS, WORDS = 7, 8, 512  # candidates: bits that may differ, the likest by visual words; half words
RATIO, AGREE = 0.85, 6  # a match is nearer than this times the second nearest; so many must agree on a map
ALIKE, TEXTURE, DETAIL = 0.7, 0.03, 0.55  # least correlation, least textured share, a detail's largest share
WAVES = sorted(((v, u) for v in range(11) for u in range(11) if v + u), key=lambda wave: (sum(wave), wave))[:64]
MIRROR = np.uint64(sum(1 << bit for bit, (_, u) in enumerate(WAVES) if u % 2))
FLIPPED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()  # a descriptor in the mirror
IN_PLACE = {False: np.float64([[1, 0, 0], [0, 1, 0]]), True: np.float64([[-1, 0, SIDE - 1], [0, 1, 0]])}


def mark(data):
    """Find near-duplicates, set them aside, and return them: a DataFrame, a row an image set aside.

    Its columns: `dup_group`, `file`, `kind` (same, mirror, detail), `kept` (a file; None in a conflict), `periods`.
    The largest of a group stays; a group under several periods is set aside whole, until a review moves or drops
    images. What no longer holds is taken back; of what was seen before nothing is computed again. Raises
    FileNotFoundError without a catalogue, `clean.Rejected` for a clean copy that is gone.
    """
    import pandas as pd
    table = read_catalogue(data)
    words = ["clean_status", "clean_reason", "review"]
    table[words] = table[words].astype(object).fillna("")
    table["used_as"] = table.review.where(table.review.str.startswith("move:"), "move:" + table.period).str[5:]
    rows = table[~table.clean_status.isin(["", "rejected"]) & table.clean_sha256.notna()].to_dict("records")
    hashes, found = pairs(data, {row["clean_sha256"]: Path(data) / clean_path(row) for row in rows})
    names, groups, judged = _components(found), defaultdict(list), []
    for row in rows: groups[names.get(row["clean_sha256"], row["clean_sha256"])].append(row)
    for group in groups.values():
        name = min(row["sha256"] for row in group)[:16] if len(group) > 1 else None
        judged += [(row, {"phash": hashes[row["clean_sha256"]], "dup_group": name, **verdict}, facts)
                   for row, verdict, facts in _judged(group, found)]
    with Catalogue(data) as cat:
        cat.update({"url": row["url"], "period": row["period"], **changes} for row, changes, _ in judged)
    return pd.DataFrame([{**changes, "file": row["file"], **facts} for row, changes, facts in judged if facts],
                        columns=["dup_group", "file", "kind", "kept", "periods"])


def _judged(group: list[dict], found: dict) -> Iterator[tuple]:
    """The rows of a group, each with its verdict and, if it is set aside, the facts."""
    live = [row for row in group if row["clean_status"] in ("ok", "flagged") or row["clean_reason"].startswith(NEAR)]
    voting = [row for row in group if row["review"] != "drop"]
    periods, several = {row["used_as"] for row in voting}, len({row["clean_sha256"] for row in voting}) > 1
    kept = max((row for row in live if row in voting), default=None,
               key=lambda row: (row["width"] * row["height"], row["bytes"], row["sha256"]))
    yield from ((row, {}, None) for row in group if row not in live)  # step clean has set them aside
    for row in live:
        flag = row["clean_reason"] if row["clean_status"] == "flagged" else row["clean_reason"].partition(FLAGGED)[2]
        others = ", ".join(sorted(periods - {row["used_as"]}))
        if row not in voting or not several or row is kept and not others:
            yield row, {"clean_status": "flagged" if flag else "ok", "clean_reason": flag or None}, None
            continue
        pair = tuple(sorted((row["clean_sha256"], kept["clean_sha256"])))  # others may have joined them
        kind = found.get(pair) or next(said for pair, said in found.items() if row["clean_sha256"] in pair)
        reason = f"{NEAR} under another period ({others})" if others else f"{NEAR} of {kept['file']} ({kind})"
        yield (row, {"clean_status": "conflict" if others else "duplicate",
                     "clean_reason": reason + (FLAGGED + flag if flag else "")},
               {"kind": kind, "kept": None if others else kept["file"], "periods": ", ".join(sorted(periods))})


def _components(found: Iterable[tuple]) -> dict[str, str]:
    """The least member of each image's group: images that pairs join are in one."""
    members = {}
    for a, b in found:
        both = members.get(a, {a}) | members.get(b, {b})
        members |= dict.fromkeys(both, both)
    return {image: min(group) for image, group in members.items()}


def pairs(data, files: dict[str, Path]) -> tuple[dict, dict]:
    """The hashes of the clean pictures `files` (SHA-256: path), and the pairs (a, b), a < b, that show one picture.

    Hashes are as `phash` has them. The value of a pair is its kind: same, mirror, or detail, which covers less than
    about half of the other. What was seen of pictures and of pairs is kept in `DATA/duplicates.db`.
    """
    from threadpoolctl import threadpool_limits
    with closing(sqlite3.connect(Path(data) / "duplicates.db", timeout=30)) as db, threadpool_limits(1, "blas"):
        store, found, images = _Store(db, files), {}, sorted(files)
        store.look()
        hashes = {image: store.seen(image)[0] for image in images}
        wanted = sorted((images[i], images[j], mirrored) for i, j, mirrored in
                        by_hash(list(hashes.values())) | by_words(len(images), lambda i: store.seen(images[i])[2]))
        for start in progress(range(0, len(wanted), 256), desc="compare"):
            with db:  # a transaction
                for a, b, mirrored in wanted[start:start + 256]:
                    if said := store.verdict(a, b, mirrored): found.setdefault((a, b), said)
    return hashes, found


class _Store:
    """What was seen of pictures, and of pairs of them, in the SQLite file `db`."""
    seeing = f"{SIDE} {POINTS}"
    judging = f"2 {seeing} {RADIUS} {RATIO} {AGREE} {ALIKE} {TEXTURE} {DETAIL}"

    def __init__(self, db, files: dict[str, Path]):
        self.db, self.files = db, files
        self.seen, self.light = lru_cache(4000)(self._seen), lru_cache(500)(lambda image: light(files[image]))
        db.execute("CREATE TABLE IF NOT EXISTS seen "
                   "(key TEXT, image TEXT, hash TEXT, places BLOB, points BLOB, PRIMARY KEY (key, image))")
        db.execute("CREATE TABLE IF NOT EXISTS pairs "
                   "(key TEXT, a TEXT, b TEXT, mirrored INTEGER, kind TEXT, PRIMARY KEY (key, a, b, mirrored))")

    def look(self):
        """Describe the pictures that are new."""
        known = {image for image, in self.db.execute("SELECT image FROM seen WHERE key = ?", (self.seeing,))}
        new = [image for image in self.files if image not in known]
        with ThreadPoolExecutor() as pool:
            for start in progress(range(0, len(new), 64), desc="describe"):
                batch = new[start:start + 64]
                found = zip(batch, pool.map(lambda image: describe(light(self.files[image])), batch), strict=True)
                rows = [(self.seeing, image, code, places.tobytes(), points.tobytes())
                        for image, (code, places, points) in found]
                with self.db: self.db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)

    def _seen(self, image: str) -> tuple:
        [(code, places, points)] = self.db.execute("SELECT hash, places, points FROM seen WHERE key = ? AND image = ?",
                                                   (self.seeing, image))
        return code, np.frombuffer(places, np.float32).reshape(-1, 2), np.frombuffer(points, np.uint8).reshape(-1, 128)

    def verdict(self, a: str, b: str, mirrored: bool) -> str:
        """The kind of a pair, empty where the two don't show one picture; `mirrored` says what to look for."""
        key = self.judging, a, b, mirrored
        known = self.db.execute("SELECT kind FROM pairs WHERE (key, a, b, mirrored) = (?, ?, ?, ?)", key).fetchone()
        if known: return known[0]
        tried = (kind(self.light(a), self.light(b), affine) for affine in maps(self.seen(a), self.seen(b), mirrored))
        said = next(filter(None, tried), "")
        self.db.execute("INSERT INTO pairs VALUES (?, ?, ?, ?, ?)", (*key, said))
        return said


def light(file) -> np.ndarray:
    """The luminance of the picture in `file`, squashed to a square: bytes of shape (SIDE, SIDE)."""
    return cv2.resize(np.asarray(open_rgb(file).convert("L")), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def describe(square: np.ndarray) -> tuple:
    """The hash of a luminance, and its strongest points: places float32 (n, 2), SIFT descriptors uint8 (n, 128)."""
    points, values = cv2.SIFT_create(POINTS, contrastThreshold=0.01).detectAndCompute(square, None)
    places = np.array([point.pt for point in points[:POINTS]], np.float32).reshape(-1, 2)
    return phash(square), places, (np.empty((0, 128)) if values is None else values[:POINTS]).astype(np.uint8)


def phash(square: np.ndarray) -> str | None:
    """64 bits as 16 hex digits: the signs of the 64 longest waves of a luminance; None for nearly one colour.

    With the bits of MIRROR turned it is the hash of the mirror image. After Zauner, Implementation and benchmarking
    of perceptual image hash functions, 2010.
    """
    small = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < 3: return None
    waves = cv2.dct(small)
    return f"{sum(int(waves[wave] > 0) << bit for bit, wave in enumerate(WAVES)):016x}"


def by_hash(hashes: list[str | None]) -> set[tuple]:
    """Candidates (i, j, mirrored): places of hashes that are near as they are, or in the mirror."""
    there = [place for place, code in enumerate(hashes) if code]
    codes = np.array([int(hashes[place], 16) for place in there], np.uint64)
    return {(there[i], there[j], mirrored) for mirrored, others in ((False, codes), (True, codes ^ MIRROR))
            for i, j in near(codes, others)}


def near(hashes, others=None) -> np.ndarray:
    """Places (i, j), i < j, where `hashes[i]` and `others[j]` (`hashes` by default) differ in at most RADIUS bits.

    Both are uint64 and equally long; the result has shape (pairs, 2). A quarter of the bits then differs in at most
    one: of each quarter 17 values are looked up (Norouzi, Punjani and Fleet, Multi-index hashing, 2012).
    """
    from scipy.sparse import csr_array
    others, number, found = hashes if others is None else others, len(hashes), [np.empty((0, 2), int)]
    flips = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    for here, there in zip(*(codes.view(np.uint16).reshape(-1, 4).T for codes in (hashes, others)), strict=True):
        probes = csr_array((np.ones(17 * number, bool), (here[:, None] ^ flips).ravel().astype(int),
                            np.arange(0, 17 * number + 1, 17)), (number, 1 << 16))
        table = csr_array((np.ones(number, bool), there.astype(int), np.arange(number + 1)), probes.shape).T.tocsr()
        for start in range(0, number, 1024):  # in blocks, to keep memory flat
            i, j = (probes[start:start + 1024] @ table).nonzero()
            i, j = (i + start)[i + start < j], j[i + start < j]
            far = np.unpackbits((hashes[i] ^ others[j]).view(np.uint8).reshape(-1, 8), axis=1).sum(1)
            found.append(np.stack([i, j], 1)[far <= RADIUS])
    return np.unique(np.concatenate(found), axis=0)


def by_words(number: int, points: Callable) -> set[tuple]:
    """Candidates (i, j, mirrored): the pictures of `number` whose visual words are likest, plain or in the mirror.

    `points(i)` are the descriptors of picture i. Words weigh by rarity (Sivic and Zisserman, Video Google, 2003); each
    is a pair of half words, the nearest of those drawn from the data (Babenko and Lempitsky, The inverted multi-index,
    2012).
    """
    from sklearn import config_context
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors
    rng = np.random.default_rng(0)
    drawn = [p[rng.integers(len(p))] for i in rng.integers(number, size=WORDS * (number > 1)) if len(p := points(i))]
    if not drawn: return set()
    halves = _halves(np.stack(drawn))

    def words(values):
        left, right = ((half @ own.T - (own * own).sum(1) / 2).argmax(1)
                       for half, own in zip(_halves(values), halves, strict=True))
        return (left * WORDS + right).tolist()

    weigh = TfidfVectorizer(analyzer=words, binary=True, dtype=np.float32).fit(points(i) for i in range(number))
    weigh.idf_ = weigh.idf_ ** 2
    plain = weigh.transform(points(i) for i in range(number))
    mirrored = weigh.transform(points(i)[:, FLIPPED] for i in range(number))
    index = NearestNeighbors(n_neighbors=min(1 + NEIGHBOURS, number), metric="cosine").fit(plain)
    with config_context(working_memory=64):  # MB
        likest = [index.kneighbors(pictures, return_distance=False) for pictures in (plain, mirrored)]
    return {(min(i, j), max(i, j), bool(flipped)) for flipped, nearest in enumerate(likest)
            for i, others in enumerate(nearest) for j in others if i != j}


def _halves(points) -> np.ndarray: return _root(points).reshape(-1, 4, 2, 16).transpose(2, 0, 1, 3).reshape(2, -1, 64)


def _root(points) -> np.ndarray:
    """Descriptors as unit vectors (Arandjelovic and Zisserman, Three things everyone should know, 2012)."""
    points = np.sqrt(points.astype(np.float32))
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)


def maps(a: tuple, b: tuple, mirrored: bool) -> Iterator[np.ndarray]:
    """Affine maps (2, 3) that may lay picture `a` (hash, places, descriptors) onto `b`.

    In place if the hashes are near; then that on which most matches agree (RANSAC): points that are clearly nearer
    than the second nearest (Lowe, Distinctive image features from scale-invariant keypoints, 2004).
    """
    if a[0] and b[0] and (int(a[0], 16) ^ int(b[0], 16) ^ int(MIRROR) * mirrored).bit_count() <= RADIUS:
        yield IN_PLACE[mirrored]
    if min(len(a[2]), len(b[2])) < AGREE: return
    values = _root(a[2][:, FLIPPED] if mirrored else a[2]), _root(b[2])
    matches = [best for best, second in cv2.BFMatcher().knnMatch(*values, 2) if best.distance < RATIO * second.distance]
    if len(matches) < AGREE: return
    places = a[1][[match.queryIdx for match in matches]], b[1][[match.trainIdx for match in matches]]
    affine, agree = cv2.estimateAffine2D(*places, ransacReprojThreshold=4)
    if affine is not None and agree.sum() >= AGREE: yield affine


def kind(a: np.ndarray, b: np.ndarray, affine: np.ndarray) -> str:
    """What luminance `a`, laid by `affine`, is to `b`: same, mirror, detail, or nothing (empty)."""
    size = np.linalg.det(affine[:, :2])
    (wide, lean), (slope, tall) = affine[:, :2]
    askew = max(abs(lean), abs(slope)) > 0.4 * min(abs(wide), tall)  # or upside down
    if askew or not 0.1 < abs(size) < 10: return ""
    if abs(size) > 1: return kind(b, a, cv2.invertAffineTransform(affine))  # the smaller is laid onto the larger
    lay = lambda image, border: cv2.warpAffine(image, affine, (SIDE, SIDE), borderMode=border)
    inside = cv2.erode(lay(np.ones_like(a), cv2.BORDER_CONSTANT), np.ones((5, 5))) > 0
    if inside.mean() < abs(size) / 2: return ""
    x, y = (_even(image, inside) for image in (lay(a, cv2.BORDER_REFLECT_101), b))
    if (np.minimum(x[1], y[1]) > 5).sum() < TEXTURE * inside.sum(): return ""
    if (x[0] @ y[0]) < ALIKE * np.sqrt((x[0] @ x[0]) * (y[0] @ y[0])): return ""
    return "mirror" if size < 0 else "detail" if inside.mean() < DETAIL else "same"


def _even(image, inside, window: int = 21) -> np.ndarray:
    """The blurred pixels `inside`, less their mean nearby, over their deviation nearby; and that, in grey levels."""
    image = cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32)
    near_by = lambda values: cv2.blur(values * inside, (window, window))[inside] / weight
    weight = cv2.blur(inside.astype(np.float32), (window, window))[inside]
    mean = near_by(image)
    spread = np.sqrt(np.maximum(0, near_by(image * image) - mean * mean))
    return np.stack([(image[inside] - mean) / (spread + 3), spread])
