"""Index: the pictures most similar to a query among very many, without comparing all of them.

Reads and writes `index-<kind>.faiss` and `index-<kind>.json` in the folder of a collection. The index
is faiss' inverted file: vectors in lists by their nearest centre, of which a query looks into some.
Needs the extra `index`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from artclf.base.errors import InputError
from artclf.base.extras import require
from artclf.base.files import read_json, replace_whole, sha256_of, write_json

VECTORS_A_CENTRE = 40  # to learn the centres from: k-means asks for 39
LISTS_LOOKED_INTO = 1 / 8
CANDIDATES = 1000  # of a kind, whose similarities are then computed from the vectors themselves
GROWTH = 2  # times as many vectors as the centres were learned from, at most
ROWS_AT_ONCE = 100_000  # vectors that are added at once


class Index:
    """An index of `vectors` (n, size), directions of one `kind`, that is kept in the folder `kept`.

    `digest` gives a hash of the first vectors, so many as its argument says, by what they were made
    of. The index on disk is used where it was made of the first of these vectors, and grows by the
    others; it is built anew where it was made of other ones, is damaged, or has more than doubled.
    Raises ImportError without faiss.
    """

    def __init__(self, kept: Path, kind: str, vectors: np.ndarray, digest: Callable[[int], str]):
        require("index", "faiss")
        self.file = kept / f"index-{kind}.faiss"
        self.note = self.file.with_suffix(".json")
        self._vectors = vectors
        self._digest = digest
        noted = self._usable_note()
        if noted is None:
            self.index = self._built()
            self._save(learned_from=len(vectors))
            return
        self.index = self._read()
        if noted["count"] < len(vectors):
            _add(self.index, vectors, noted["count"])
            self._save(noted["learned_from"])

    def candidates(self, query: np.ndarray, wanted: np.ndarray | None, k: int) -> np.ndarray:
        """Rows that are likely to hold the `k` vectors most similar to a `query` (size,), of those
        where `wanted` (n,) is true, or of all.
        """
        import faiss

        selector = None
        if wanted is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(wanted, bitorder="little"))
        lists = max(1, round(self.index.nlist * LISTS_LOOKED_INTO))
        parameters = faiss.SearchParametersIVF(nprobe=lists, sel=selector)
        count = min(max(k, CANDIDATES), self.index.ntotal)
        _, [rows] = self.index.search(query[None], count, params=parameters)
        return rows[rows >= 0]

    def _usable_note(self) -> dict | None:
        """What is noted of the index on disk; None where it can't be used."""
        try:
            noted = read_json(self.note)
        except InputError:
            return None
        if not noted or not self.file.exists():
            return None
        count = noted["count"]
        is_whole = sha256_of(self.file) == noted["sha256"]
        is_of_these = count <= len(self._vectors) and self._digest(count) == noted["made_from"]
        is_large_enough = len(self._vectors) <= GROWTH * noted["learned_from"]
        return noted if is_whole and is_of_these and is_large_enough else None

    def _read(self):
        import faiss

        return faiss.read_index(str(self.file))

    def _built(self):
        import faiss

        count, size = self._vectors.shape
        centres = max(1, min(round(4 * count**0.5), count // VECTORS_A_CENTRE))
        index = faiss.index_factory(size, f"IVF{centres},SQ8", faiss.METRIC_INNER_PRODUCT)
        number = min(count, VECTORS_A_CENTRE * centres)
        rows = np.random.default_rng(0).choice(count, number, replace=False)
        index.train(self._vectors[np.sort(rows)])
        _add(index, self._vectors, 0)
        return index

    def _save(self, learned_from: int):
        import faiss

        self.note.unlink(missing_ok=True)  # a file without its note counts for nothing
        replace_whole(self.file, lambda part: faiss.write_index(self.index, str(part)))
        count = len(self._vectors)
        write_json(
            self.note,
            {
                "count": count,
                "learned_from": learned_from,
                "made_from": self._digest(count),
                "sha256": sha256_of(self.file),
            },
        )


def _add(index, vectors: np.ndarray, start: int):
    """Add the vectors from row `start` on, which become numbers of the same rows."""
    for first in range(start, len(vectors), ROWS_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[first : first + ROWS_AT_ONCE]))
