"""Close hashes: the search finds what a comparison of all pairs finds."""

import numpy as np
import pytest

from artclf.data import close_hashes
from artclf.data.close_hashes import close_pairs
from artclf.data.matching import MAX_BITS, MIRROR_BITS


def hashes_in_crowds(number: int) -> np.ndarray:
    """Random hashes, of which each of the second half is up to 9 bits off one of the first half, or
    off its mirror image.
    """
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 1 << 64, number, dtype=np.uint64)
    near_by = hashes[number // 2 :]
    near_by[:] = hashes[: len(near_by)]
    near_by[::2] ^= MIRROR_BITS
    for _ in range(9):
        near_by ^= np.uint64(1) << rng.integers(0, 64, len(near_by), dtype=np.uint64)
    hashes[5] = hashes[6] = hashes[7]  # equal ones share all words
    return hashes


def differing_bits(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    bits = np.unpackbits((hashes[:, None] ^ others).view(np.uint8), axis=1)
    return bits.reshape(len(hashes), len(hashes), 64).sum(2)


@pytest.mark.parametrize(("blocks", "parts"), [(4, 1), (6, 3), (8, 1), (10, 3)])
def test_the_search_finds_what_a_comparison_of_all_finds(monkeypatch, blocks, parts):
    hashes = hashes_in_crowds(800)
    monkeypatch.setattr(close_hashes, "HASHES_OF_BLOCKS", ((800, blocks),))
    monkeypatch.setattr(close_hashes, "HASHES_AT_A_TIME", 800 // parts)
    wanted = []
    for mirrored, others in enumerate((hashes, hashes ^ MIRROR_BITS)):
        is_close = np.triu(differing_bits(hashes, others) <= MAX_BITS, 1)
        wanted += [(i, j, mirrored) for i, j in np.argwhere(is_close).tolist()]
    found = [tuple(pair) for pair in close_pairs(hashes).tolist()]
    assert sorted(found) == sorted(wanted)
    assert sum(mirrored for _, _, mirrored in found) > 50 and len(found) > 150


def test_words_grow_with_the_hashes_and_each_hash_is_in_one_part(monkeypatch):
    lengths = [int(close_hashes.words_of(n)[0]).bit_count() for n in (1, 1 << 18, 1 << 24, 1 << 25)]
    assert lengths == [16, 16, 20, 22]
    hashes = hashes_in_crowds(1000)
    monkeypatch.setattr(close_hashes, "HASHES_AT_A_TIME", 300)
    of_first_word = [part for part in close_hashes.parts_of(1000) if part.word == 0]
    assert len(of_first_word) == 4
    mask = close_hashes.words_of(1000)[0]
    sizes = []
    for part in of_first_word:
        indices, keys = close_hashes._sorted_by_word(hashes, mask, part)
        assert (np.diff(keys.astype(float)) >= 0).all()
        sizes.append(len(indices))
    assert sum(sizes) == 1000 and min(sizes) > 150


def test_no_hash_and_one_hash_make_no_pair():
    assert close_pairs(np.empty(0, np.uint64)).shape == (0, 3)
    assert close_pairs(np.array([7], np.uint64)).shape == (0, 3)


def test_bits_are_counted_alike_with_every_numpy():
    hashes = hashes_in_crowds(100)
    counts = [int(value).bit_count() for value in hashes]
    for count in (close_hashes.count_bits, close_hashes._count_by_unpacking):
        assert count(hashes).tolist() == counts
