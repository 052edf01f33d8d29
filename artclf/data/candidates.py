"""Candidates: the pairs of pictures that are worth comparing, out of all pairs.

Works on what module `matching` describes pictures by: hashes, and descriptors as visual words.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from artclf.data.close_hashes import close_pairs
from artclf.data.matching import mirror_descriptors, root_sift

NEIGHBOURS = 8  # so many pictures are candidates by visual words
HALF_WORDS = 512  # a visual word is a pair of half words, each one of at least so many
WORDS_OF_A_PICTURE = 25  # the vocabulary has at least so many words for each picture
MOST_PICTURES = 1000  # with a word; words that more have tell little, and take most of the time
SIMILARITIES = 1 << 22  # at most so many are in memory for each thread, 32 MB
BLOCK = 1024  # pictures that are looked at together: memory stays flat


class Candidate(NamedTuple):
    """The indices of two pictures, `first` < `second`, one of them maybe `mirrored`."""

    first: int
    second: int
    mirrored: bool


def by_hash(hashes: list[str | None]) -> set[Candidate]:
    """The pairs whose hashes are close, as they are or with one in the mirror."""
    indices, codes = hashes_as_numbers(hashes)
    return {
        Candidate(indices[first], indices[second], bool(mirrored))
        for first, second, mirrored in close_pairs(codes)
    }


def hashes_as_numbers(hashes: list[str | None]) -> tuple[list[int], np.ndarray]:
    """The indices of the pictures that have a hash, and these hashes as uint64."""
    code_of = {index: int(code, 16) for index, code in enumerate(hashes) if code is not None}
    return list(code_of), np.array(list(code_of.values()), np.uint64)


def by_words(number: int, descriptors: Callable[[int], np.ndarray]) -> set[Candidate]:
    """For each of `number` pictures the NEIGHBOURS that share most visual words with it, as they
    are and in the mirror.

    `descriptors(i)` are those of picture i, uint8 of shape (n, 128). Words weigh by rarity (Sivic
    and Zisserman, Video Google, 2003), and those of more than MOST_PICTURES pictures are left out.
    The vocabulary grows with the number of pictures, so the mean number of pictures with a word
    stays the same. Finding the word of a point takes longer, by the square root of that number.
    """
    vocabulary = Vocabulary.drawn_from(number, descriptors)
    if vocabulary is None:
        return set()
    has_word = _has_word(number, descriptors, vocabulary)
    weights = weights_of(number, has_word.sum(axis=0))
    plain = weighted(has_word, weights)
    plain.data = over_lengths(plain, lengths_of(plain))
    by_word = plain.T.tocsr()
    candidates = _most_similar(plain, by_word, mirrored=False)
    del plain  # of many pictures, it takes hundreds of megabytes
    has_word.indices = vocabulary.mirrored(has_word.indices)
    return candidates | _most_similar(weighted(has_word, weights), by_word, mirrored=True)


def weights_of(number: int, pictures_with_word: np.ndarray) -> np.ndarray:
    """The weights of words that so many of `number` pictures have: float32."""
    idf = np.log((1 + number) / (1 + pictures_with_word.astype(np.float32))) + 1
    return np.where(pictures_with_word > MOST_PICTURES, 0, idf**2).astype(np.float32)


def lengths_of(pictures) -> np.ndarray:
    """The length of each row of a sparse array: float64."""
    squares = pictures.astype(np.float64)
    squares.data **= 2
    return np.sqrt(squares.sum(axis=1))


def over_lengths(pictures, lengths: np.ndarray) -> np.ndarray:
    """The values of a sparse array, each over the length of its row: float32."""
    return (pictures.data / np.repeat(lengths, np.diff(pictures.indptr))).astype(np.float32)


def _most_similar(pictures, by_word, mirrored: bool) -> set[Candidate]:
    """The NEIGHBOURS with the highest cosine for each row of the sparse array `pictures`; `by_word`
    has a column for each picture, all equally long.
    """
    candidates = set()
    for picture, others in enumerate(most_similar(pictures, by_word)):
        for other in others.tolist():
            if other != picture:
                first, second = sorted((picture, other))
                candidates.add(Candidate(first, second, mirrored))
    return candidates


def most_similar(pictures, by_word, threads: int | None = None) -> Iterator[np.ndarray]:
    """For each row of the sparse array `pictures` the columns of `by_word` with the highest products,
    NEIGHBOURS and one, because the picture itself may be one of them; in `threads`, by default as
    many as a pool has.
    """
    rows, columns = pictures.shape[0], by_word.shape[1]
    rows_at_once = max(1, min(BLOCK, SIMILARITIES // max(columns, 1)))

    def nearest(start: int) -> list[np.ndarray]:
        similarity = pictures[start : start + rows_at_once] @ by_word
        rows = [slice(*ends) for ends in pairwise(similarity.indptr)]
        highest = [_highest(similarity.data[row], 1 + NEIGHBOURS) for row in rows]
        return [similarity.indices[row][places] for row, places in zip(rows, highest, strict=True)]

    with ThreadPoolExecutor(threads) as pool:
        yield from chain.from_iterable(pool.map(nearest, range(0, rows, rows_at_once)))


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

    words_of_picture = [np.empty(0, vocabulary.dtype)]
    with ThreadPoolExecutor() as pool:
        for start in range(0, number, BLOCK):
            # read here, because what reads them may belong to this thread
            block = [descriptors(i) for i in range(start, min(start + BLOCK, number))]
            words_of_picture += pool.map(vocabulary.different_words, block)
    words = np.concatenate(words_of_picture)
    starts = np.cumsum([len(words) for words in words_of_picture], dtype=np.int32)
    return csr_array((np.ones(len(words), np.float32), words, starts), (number, len(vocabulary)))


def weighted(has_word, weights: np.ndarray):
    """The sparse array `has_word` with the weight of each word; words without weight are left
    out.
    """
    pictures = has_word.copy()
    pictures.data = weights[pictures.indices]
    pictures.eliminate_zeros()
    return pictures


class Vocabulary:
    """Visual words: each is a pair of half words, the closest to the halves of a descriptor.

    The half words are descriptors drawn from the data (Babenko and Lempitsky, The inverted
    multi-index, 2012), and these in the mirror: so the word that a point has in the mirror image is
    the word of its own in the mirror.
    """

    def __init__(self, half_words: np.ndarray):
        self.half_words = half_words

    @classmethod
    def of(cls, descriptors: np.ndarray):
        """The vocabulary whose half words are those of `descriptors`, (n, 128)."""
        return cls(_halves(np.concatenate([descriptors, mirror_descriptors(descriptors)])))

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
        return cls.of(np.stack(drawn)) if drawn else None

    def words(self, descriptors: np.ndarray) -> np.ndarray:
        """The word of each descriptor, (n, 128), as a number: shape (n,)."""
        left, right = (
            _closest(halves, half_words)
            for halves, half_words in zip(_halves(descriptors), self.half_words, strict=True)
        )
        return (left * self.half_words.shape[1] + right).astype(self.dtype)

    def different_words(self, descriptors: np.ndarray) -> np.ndarray:
        """The words of a picture with `descriptors`, each once and in order."""
        return np.unique(self.words(descriptors))

    @property
    def dtype(self):
        """The numbers that words are: above 86 million pictures, 32 bits don't hold them."""
        return np.int32 if len(self) < 1 << 31 else np.int64

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
