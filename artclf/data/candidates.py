"""Candidates: the pairs of pictures that are worth comparing, out of all pairs.

Works on what module `matching` describes pictures by: hashes, and descriptors as visual words.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from artclf.data.matching import MAX_BITS, MIRROR_BITS, mirror_descriptors, root_sift

NEIGHBOURS = 8  # so many pictures are candidates by visual words
HALF_WORDS = 512  # a visual word is a pair of half words, each one of at least so many
WORDS_OF_A_PICTURE = 25  # the vocabulary has at least so many words for each picture
MOST_PICTURES = 1000  # with a word; words that more have tell little, and take most of the time
SIMILARITIES = 1 << 22  # at most so many are in memory for each thread, 32 MB
BLOCK = 1024  # hashes, or pictures, that are looked at together: memory stays flat


class Candidate(NamedTuple):
    """The indices of two pictures, `first` < `second`, one of them maybe `mirrored`."""

    first: int
    second: int
    mirrored: bool


def by_hash(hashes: list[str | None]) -> set[Candidate]:
    """The pairs whose hashes are close, as they are or with one in the mirror."""
    code_of = {index: int(code, 16) for index, code in enumerate(hashes) if code is not None}
    indices = list(code_of)
    codes = np.array(list(code_of.values()), np.uint64)
    candidates = set()
    for mirrored, others in ((False, codes), (True, codes ^ MIRROR_BITS)):
        for first, second in close_pairs(codes, others):
            candidates.add(Candidate(indices[first], indices[second], mirrored))
    return candidates


def close_pairs(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The indices (i, j), i < j, where `hashes[i]` and `others[j]` differ in at most MAX_BITS bits:
    an array of shape (pairs, 2), in order.

    Both are uint64 and equally long. Of two such hashes at least one quarter, of 16 bits, differs
    in at most one bit; only pairs with such a quarter are compared whole (Norouzi, Punjani and
    Fleet, Multi-index hashing, 2012).
    """
    pairs = [np.empty((0, 2), int)]
    quarters = hashes.view(np.uint16).reshape(len(hashes), 4)
    other_quarters = others.view(np.uint16).reshape(len(others), 4)
    for quarter in range(4):
        for first, second in _pairs_of_16_bits(quarters[:, quarter], other_quarters[:, quarter]):
            differences = hashes[first] ^ others[second]
            bits = np.unpackbits(differences.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
            pairs.append(np.stack([first, second], axis=1)[bits <= MAX_BITS])
    return np.unique(np.concatenate(pairs), axis=0)


def _pairs_of_16_bits(codes: np.ndarray, others: np.ndarray):
    """The indices (i, j), i < j, where codes of 16 bits differ in at most one: two arrays, one
    block at a time.
    """
    from scipy.sparse import csr_array

    number = len(codes)
    shape = (number, 1 << 16)
    flips = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
    similar = (codes[:, None] ^ flips).astype(int)  # the 17 codes that are close enough
    rows = np.arange(number + 1)
    ones = np.ones(similar.size, bool)
    has_similar = csr_array((ones, similar.ravel(), rows * len(flips)), shape)
    has_code = csr_array((ones[:number], others.astype(int), rows), shape)
    with_code = has_code.T.tocsr()
    for start in range(0, number, BLOCK):
        first, second = (has_similar[start : start + BLOCK] @ with_code).nonzero()
        first = first + start
        in_order = first < second
        yield first[in_order], second[in_order]


def by_words(number: int, descriptors: Callable[[int], np.ndarray]) -> set[Candidate]:
    """For each of `number` pictures the NEIGHBOURS that share most visual words with it, as they
    are and in the mirror.

    `descriptors(i)` are those of picture i, uint8 of shape (n, 128). Words weigh by rarity (Sivic
    and Zisserman, Video Google, 2003), and those of more than MOST_PICTURES pictures are left out.
    The vocabulary grows with the number of pictures, so the mean number of pictures with a word
    stays the same. Finding the word of a point takes longer, by the square root of that number.
    """
    from sklearn.preprocessing import normalize

    vocabulary = Vocabulary.drawn_from(number, descriptors)
    if vocabulary is None:
        return set()
    has_word = _has_word(number, descriptors, vocabulary)
    pictures_with_word = has_word.sum(axis=0)
    idf = np.log((1 + number) / (1 + pictures_with_word)) + 1
    weights = np.where(pictures_with_word > MOST_PICTURES, 0, idf**2).astype(np.float32)
    plain = normalize(_weighted(has_word, weights), copy=False)
    by_word = plain.T.tocsr()
    candidates = _most_similar(plain, by_word, mirrored=False)
    del plain  # of many pictures, it takes hundreds of megabytes
    has_word.indices = vocabulary.mirrored(has_word.indices)
    return candidates | _most_similar(_weighted(has_word, weights), by_word, mirrored=True)


def _most_similar(pictures, by_word, mirrored: bool) -> set[Candidate]:
    """The NEIGHBOURS with the highest cosine for each row of the sparse array `pictures`; `by_word`
    has a column for each picture, all equally long.
    """
    number = by_word.shape[1]
    rows_at_once = max(1, min(BLOCK, SIMILARITIES // number))

    def nearest(start: int) -> list[np.ndarray]:
        """For each row of a block the most similar pictures; itself may be one of them."""
        similarity = pictures[start : start + rows_at_once] @ by_word
        rows = [slice(*ends) for ends in pairwise(similarity.indptr)]
        highest = [_highest(similarity.data[row], 1 + NEIGHBOURS) for row in rows]
        return [similarity.indices[row][places] for row, places in zip(rows, highest, strict=True)]

    candidates = set()
    with ThreadPoolExecutor() as pool:
        blocks = pool.map(nearest, range(0, number, rows_at_once))
        for picture, others in enumerate(chain.from_iterable(blocks)):
            for other in others.tolist():
                if other != picture:
                    first, second = sorted((picture, other))
                    candidates.add(Candidate(first, second, mirrored))
    return candidates


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` highest values, or of all where there are fewer, in any order."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(values, len(values) - count)[-count:]


def _has_word(number: int, descriptors: Callable[[int], np.ndarray], vocabulary: "Vocabulary"):
    """Which of `number` pictures has which word of `vocabulary`: a sparse array of ones, (number,
    words).
    """
    from scipy.sparse import csr_array

    def different_words(descriptors_of_one: np.ndarray) -> np.ndarray:
        return np.unique(vocabulary.words(descriptors_of_one))

    words_of_picture = [np.empty(0, np.int32)]
    with ThreadPoolExecutor() as pool:
        for start in range(0, number, BLOCK):
            # read here, because what reads them may belong to this thread
            block = [descriptors(i) for i in range(start, min(start + BLOCK, number))]
            words_of_picture += pool.map(different_words, block)
    words = np.concatenate(words_of_picture)
    starts = np.cumsum([len(words) for words in words_of_picture], dtype=np.int32)
    return csr_array((np.ones(len(words), np.float32), words, starts), (number, len(vocabulary)))


def _weighted(has_word, weights: np.ndarray):
    """The sparse array `has_word` with the weight of each word; words without weight are left
    out.
    """
    weighted = has_word.copy()
    weighted.data = weights[weighted.indices]
    weighted.eliminate_zeros()
    return weighted


class Vocabulary:
    """Visual words: each is a pair of half words, the closest to the halves of a descriptor.

    The half words are descriptors drawn from the data (Babenko and Lempitsky, The inverted
    multi-index, 2012), and these in the mirror: so the word that a point has in the mirror image is
    the word of its own in the mirror.
    """

    def __init__(self, descriptors: np.ndarray):
        self.half_words = _halves(np.concatenate([descriptors, mirror_descriptors(descriptors)]))

    @classmethod
    def drawn_from(cls, number: int, descriptors: Callable[[int], np.ndarray]):
        """A vocabulary from descriptors of some of `number` pictures; None for fewer than two
        pictures, or where no picture has any.
        """
        if number < 2:
            return None
        rng = np.random.default_rng(0)
        half_words = max(HALF_WORDS, round((WORDS_OF_A_PICTURE * number) ** 0.5))
        drawn = []
        for picture in rng.integers(number, size=half_words // 2):
            values = descriptors(picture)
            if len(values):
                drawn.append(values[rng.integers(len(values))])
        return cls(np.stack(drawn)) if drawn else None

    def words(self, descriptors: np.ndarray) -> np.ndarray:
        """The word of each descriptor, (n, 128), as a number: int32 of shape (n,)."""
        left, right = (
            _closest(halves, half_words)
            for halves, half_words in zip(_halves(descriptors), self.half_words, strict=True)
        )
        return (left * self.half_words.shape[1] + right).astype(np.int32)

    def mirrored(self, words: np.ndarray) -> np.ndarray:
        """The words that the same points have in the mirror image."""
        number = self.half_words.shape[1]
        left, right = divmod(words, number)
        half = number // 2  # the second half of the half words mirrors the first
        return (left + half) % number * number + (right + half) % number

    def __len__(self) -> int:
        """The number of words."""
        return self.half_words.shape[1] ** 2


def _halves(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors, (n, 128), as their left and right halves: (2, n, 64)."""
    number = len(descriptors)
    rows_and_columns = root_sift(descriptors).reshape(number, 4, 2, 16)
    return rows_and_columns.transpose(2, 0, 1, 3).reshape(2, number, 64)


def _closest(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The index of the closest of `others`, by Euclidean distance, for each of `vectors`."""
    return (vectors @ others.T - (others * others).sum(axis=1) / 2).argmax(axis=1)
