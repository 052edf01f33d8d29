"""Close hashes: the pairs, out of all pairs, of 64-bit hashes that differ in at most MAX_BITS bits,
as they are or with one in the mirror.

Two such hashes have a half, 32 bits, in which they differ in at most SPARE bits. Cut into blocks,
that half has all but SPARE of its blocks in common, whichever these are: each choice of blocks makes
a word, and close hashes share one of the words. So hashes are sorted by each word in turn, and those
with an equal one are compared whole (after Manku, Jain and Das Sarma, Detecting near-duplicates for
web crawling, 2007). Longer words, of which there must be more, keep the number of comparisons of a
hash the same as hashes become many.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from artclf.data.matching import MAX_BITS, MIRROR_BITS

SPARE = MAX_BITS // 2  # bits in which one of the halves of close hashes differs at most
HASHES_AT_A_TIME = 1 << 22  # so many are sorted together, in about 150 MB
HASHES_OF_BLOCKS = ((1 << 18, 6), (1 << 24, 8))  # up to so many hashes, halves have so many blocks
MOST_BLOCKS = 10
SCATTER = np.uint64(0x9E3779B97F4A7C15)  # odd: a product with it spreads words over the parts


class Part(NamedTuple):
    """The hashes, of `number`, whose word `word` falls into `part` of `parts`."""

    number: int
    word: int
    part: int
    parts: int


def parts_of(number: int) -> list[Part]:
    """The parts in which the close pairs of `number` hashes are searched."""
    parts = -(-number // HASHES_AT_A_TIME)
    return [
        Part(number, word, part, parts)
        for word in range(len(words_of(number)))
        for part in range(parts)
    ]


def words_of(number: int) -> list[np.uint64]:
    """The words by which `number` hashes are sorted, as masks of their bits."""
    blocks = next((count for most, count in HASHES_OF_BLOCKS if number <= most), MOST_BLOCKS)
    ends = [32 * block // blocks for block in range(blocks + 1)]
    masks = [(1 << end) - (1 << start) for start, end in zip(ends, ends[1:], strict=False)]
    in_half = [sum(chosen) for chosen in combinations(masks, blocks - SPARE)]
    return [np.uint64(mask << half) for half in (0, 32) for mask in in_half]


def close_pairs(hashes: np.ndarray) -> np.ndarray:
    """The pairs (i, j, mirrored) of close hashes, i < j: an array of shape (pairs, 3), in any order
    and each once.

    `hashes` is uint64. `mirrored` is 1 where hash i and the mirror image of hash j are close.
    """
    found = [close_pairs_in(hashes, part) for part in parts_of(len(hashes))]
    return np.concatenate([np.empty((0, 3), int), *found])


def close_pairs_in(hashes: np.ndarray, part: Part) -> np.ndarray:
    """The pairs that `part` adds to those of the words before."""
    words = words_of(part.number)
    mask = words[part.word]
    indices, keys = _sorted_by_word(hashes, mask, part)
    sorted_hashes = hashes[indices]
    found = [np.empty((0, 3), int)]
    for first, second in _pairs_with_one_key(keys):
        differences = sorted_hashes[first] ^ sorted_hashes[second]
        for mirrored in (0, 1):
            bits = differences ^ MIRROR_BITS if mirrored else differences
            places = np.flatnonzero(count_bits(bits) <= MAX_BITS)
            places = places[bits[places] & mask == 0]
            for earlier in words[: part.word]:  # a pair counts where it is found first
                places = places[bits[places] & earlier != 0]
            pairs = np.stack([indices[first[places]], indices[second[places]]], axis=1)
            found.append(np.insert(np.sort(pairs, axis=1), 2, mirrored, axis=1))
    return np.concatenate(found)


def _sorted_by_word(
    hashes: np.ndarray, mask: np.uint64, part: Part
) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the hashes in a part, sorted by key, and their keys: a key is the word of a
    hash or that of its mirror image, whichever is less.
    """
    indices = []
    keys = []
    for start in range(0, len(hashes), HASHES_AT_A_TIME):
        words = hashes[start : start + HASHES_AT_A_TIME] & mask
        own_keys = np.minimum(words, words ^ (MIRROR_BITS & mask))
        scattered = (own_keys * SCATTER) >> np.uint64(32)
        part_of_each = (scattered * np.uint64(part.parts)) >> np.uint64(32)
        chosen = np.flatnonzero(part_of_each == part.part)
        indices.append(chosen + start)
        keys.append(own_keys[chosen])
    all_keys = np.concatenate(keys)
    order = all_keys.argsort()
    return np.concatenate(indices)[order], all_keys[order]


def _pairs_with_one_key(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of places in the sorted `keys` with equal ones: arrays, one for each distance."""
    first = np.arange(len(keys))
    distance = 1
    while len(first):
        first = first[: np.searchsorted(first, len(keys) - distance)]
        first = first[keys[first] == keys[first + distance]]
        yield first, first + distance
        distance += 1


def _count_by_unpacking(values: np.ndarray) -> np.ndarray:
    return np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)


# NumPy 1 has no `bitwise_count`
count_bits: Callable[[np.ndarray], np.ndarray] = getattr(np, "bitwise_count", _count_by_unpacking)
