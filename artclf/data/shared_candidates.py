"""Candidates by workers: the same as those of `candidates`, without a list of all words in one place.

All that is large lies in files of a folder that every worker sees. Words are sorted in blocks of
pictures (`WORDS`), then gathered in partitions by word (`INDEX`), where each word has the list of
pictures that have it; then the pictures of a block are compared with those of the lists of their
words. Module `close_hashes` says how hashes are searched.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artclf.base.files import replace_with_array
from artclf.base.processes import Workers, check_result, size_of_jobs
from artclf.base.progress import progress_bar
from artclf.data.candidates import (
    BLOCK,
    Vocabulary,
    lengths_of,
    most_similar,
    over_lengths,
    weighted,
    weights_of,
)
from artclf.data.close_hashes import Part, close_pairs_in, parts_of
from artclf.data.matching import Description
from artclf.data.numbered import Hashes, numbers_of

SMALLEST_BLOCK = 64  # pictures
MOST_BLOCKS = 8192  # so that a partition reads few files
WORDS_IN_PARTITION = 1 << 25  # a worker sorts so many together

SEARCH = "search for candidates"  # what workers do, in messages

HASHES = "hashes.npy"
VOCABULARY = "vocabulary.npy"
LENGTHS = "lengths.npy"
WORDS = "words"
INDEX = "index"


def find(
    hashes: Hashes,
    picture: Callable[[int], Any],
    description: Callable[..., Description],
    folder: Path,
    workers: Workers,
) -> np.ndarray:
    """The candidates by hash and by visual words, as `numbers_of` writes them, in order and each
    once.

    `picture` gives what names one to the workers, and `description` that of what is so named, here
    and on the workers; `folder`, which they see, is for files that this function leaves to the caller.
    """
    number = len(hashes.codes)
    close = by_hash(hashes.codes[hashes.has_hash], folder, workers)
    close[:, :2] = np.flatnonzero(hashes.has_hash)[close[:, :2]]
    parts = [numbers_of(close, number), by_words(number, picture, description, folder, workers)]
    return _each_once(parts)


def _each_once(parts: list[np.ndarray]) -> np.ndarray:
    """The numbers of all parts, in order and each once. Empties the list of parts, and sorts in place:
    `np.unique` would take twice the memory.
    """
    numbers = np.concatenate(parts)
    parts.clear()
    numbers.sort()
    is_first = np.ones(len(numbers), bool)
    np.not_equal(numbers[1:], numbers[:-1], out=is_first[1:])
    return numbers[is_first]


def by_hash(hashes: np.ndarray, folder: Path, workers: Workers) -> np.ndarray:
    """The pairs of close hashes, uint64, as `close_pairs` gives them; `folder` is for files."""
    replace_with_array(folder / HASHES, hashes)
    function = partial(_close_pairs_in_file, folder / HASHES)
    found = [np.empty((0, 3), int)]
    for chunk in workers(function, parts_of(len(hashes)), 1):
        found += [check_result(pairs, f"{SEARCH} (hashes)") for _, pairs in chunk]
    return np.concatenate(found)


def _close_pairs_in_file(file: Path, part: Part) -> np.ndarray:
    return close_pairs_in(np.load(file, mmap_mode="r"), part)


class Layout(NamedTuple):
    """How `number` pictures with a vocabulary of `words` are divided, in files of `folder`: into
    blocks of `rows` pictures, and into partitions of `width` words.
    """

    folder: Path
    number: int
    words: int
    rows: int
    width: int

    @property
    def blocks(self) -> list[range]:
        """The pictures of each block."""
        return [
            range(start, min(start + self.rows, self.number))
            for start in range(0, self.number, self.rows)
        ]

    @property
    def partitions(self) -> range:
        return range(-(-self.words // self.width))

    def slice_of(self, partition: int, words: np.ndarray) -> slice:
        """Where the words of a partition lie among `words`, which are sorted."""
        first = partition * self.width
        end = min(first + self.width, self.words)
        # numbers of another type would make NumPy read all words
        return slice(*np.searchsorted(words, np.array([first, end], words.dtype)))


class Block(NamedTuple):
    """A block of pictures: the first, and how the descriptions of all of them are named."""

    start: int
    pictures: list


def by_words(
    number: int,
    picture: Callable[[int], Any],
    description: Callable[..., Description],
    folder: Path,
    workers: Workers,
) -> np.ndarray:
    """The candidates of `candidates.by_words`, as `numbers_of` writes them, sorted and each once."""
    vocabulary = Vocabulary.drawn_from(number, lambda i: description(picture(i)).descriptors)
    if vocabulary is None:
        return np.empty(0, int)
    replace_with_array(folder / VOCABULARY, vocabulary.half_words)
    rows = max(size_of_jobs(number, SMALLEST_BLOCK, BLOCK), -(-number // MOST_BLOCKS))
    layout = Layout(folder, number, len(vocabulary), rows, len(vocabulary))
    starts = [block.start for block in layout.blocks]
    # one after the other, because the names of all pictures would take much memory
    blocks = (Block(block.start, [picture(i) for i in block]) for block in layout.blocks)
    counts = _map(workers, partial(write_words, layout, description), blocks, len(starts), "words")
    partitions = max(1, -(-sum(counts) // WORDS_IN_PARTITION))
    layout = layout._replace(width=-(-len(vocabulary) // partitions))
    index = partial(write_partition, layout)
    _map(workers, index, layout.partitions, len(layout.partitions), "index")
    lengths = _map(workers, partial(lengths_in_block, layout), starts, len(starts), "lengths")
    replace_with_array(folder / LENGTHS, np.concatenate(lengths))
    search = partial(similar_in_block, layout)
    return _each_once(_map(workers, search, starts, len(starts), "candidates"))


def _map(workers: Workers, function: Callable, jobs: Iterable, number: int, what: str) -> list:
    """The results of `number` jobs, in the order of these."""
    results: list = [None] * number
    with progress_bar(desc=what, total=number) as bar:
        for chunk in workers(partial(_call, function), enumerate(jobs), 1):
            for (place, _), result in chunk:
                results[place] = check_result(result, f"{SEARCH} ({what})")
                bar.update()
    return results


def _call(function: Callable, numbered: tuple):
    return function(numbered[1])


# The jobs


def write_words(layout: Layout, description: Callable[..., Description], block: Block) -> int:
    """Write the words of the pictures in a block, sorted, with their pictures; how many they are."""
    vocabulary = _vocabulary(layout.folder)
    words_of_each = [np.empty(0, vocabulary.dtype)]
    for picture in block.pictures:
        words_of_each.append(vocabulary.different_words(description(picture).descriptors))
    counts = [len(words) for words in words_of_each[1:]]
    numbers = np.arange(block.start, block.start + len(counts), dtype=np.int32)
    words = np.concatenate(words_of_each)
    order = words.argsort(kind="stable")
    folder = layout.folder / WORDS
    replace_with_array(folder / f"{block.start}-words.npy", words[order])
    replace_with_array(folder / f"{block.start}-pictures.npy", np.repeat(numbers, counts)[order])
    return len(words)


@lru_cache(1)
def _vocabulary(folder: Path) -> Vocabulary:
    return Vocabulary(np.load(folder / VOCABULARY))


def write_partition(layout: Layout, partition: int) -> bool:
    """Write the list of pictures with each word of a partition, and the weights of these words."""
    words_of_blocks = []
    pictures_of_blocks = []
    for block in layout.blocks:
        words, pictures = _words_of_block(layout, block.start)
        own = layout.slice_of(partition, words)
        words_of_blocks.append(words[own])
        pictures_of_blocks.append(pictures[own])
    all_words = np.concatenate(words_of_blocks)
    order = all_words.argsort(kind="stable")  # a list has its pictures in order
    words, counts = np.unique(all_words[order], return_counts=True)
    weights = weights_of(layout.number, counts)
    is_listed = weights > 0
    pictures = np.concatenate(pictures_of_blocks)[order][np.repeat(is_listed, counts)]
    starts = np.concatenate([[0], np.where(is_listed, counts, 0).cumsum()])
    folder = layout.folder / INDEX
    for name, array in Index(words, weights, starts, pictures)._asdict().items():
        replace_with_array(folder / f"{partition}-{name}.npy", array)
    return True


def _words_of_block(layout: Layout, start: int) -> tuple[np.ndarray, np.ndarray]:
    words, pictures = (
        np.load(layout.folder / WORDS / f"{start}-{name}.npy", mmap_mode="r")
        for name in ("words", "pictures")
    )
    return words, pictures


class Index(NamedTuple):
    """A partition: its `words` in order, their `weights`, and the `pictures` that have them; those
    of word i are `pictures[starts[i] : starts[i + 1]]`, none where it has no weight.
    """

    words: np.ndarray
    weights: np.ndarray
    starts: np.ndarray
    pictures: np.ndarray


@lru_cache(4096)
def _partition(folder: Path, partition: int) -> Index:
    files = (folder / INDEX / f"{partition}-{name}.npy" for name in Index._fields)
    return Index(*(np.load(file, mmap_mode="r") for file in files))


def look_up(layout: Layout, words: np.ndarray) -> Index:
    """Those of `words`, sorted and each once, that some picture has, as `Index`."""
    found = []
    for partition in layout.partitions:
        own = words[layout.slice_of(partition, words)]
        index = _partition(layout.folder, partition)
        places = np.searchsorted(index.words, own)
        places = places[np.searchsorted(index.words, own, "right") > places]
        starts, counts = index.starts[places], index.starts[places + 1] - index.starts[places]
        ends = counts.cumsum()
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        pictures = index.pictures[np.repeat(starts, counts) + within]
        found.append(Index(index.words[places], index.weights[places], counts, pictures))
    words, weights, counts, pictures = (
        np.concatenate(arrays) for arrays in zip(*found, strict=True)
    )
    return Index(words, weights, np.concatenate([[0], counts.cumsum()]), pictures)


class Rows(NamedTuple):
    """Pictures one after the other: the first, the `words` of all, and where those of each end."""

    start: int
    words: np.ndarray
    ends: np.ndarray


def _rows_of_block(layout: Layout, start: int) -> Iterator[Rows]:
    """The pictures of a block, at most BLOCK at a time."""
    words, pictures = _words_of_block(layout, start)
    order = pictures.argsort(kind="stable")
    words = words[order]
    end = min(start + layout.rows, layout.number)
    ends = np.searchsorted(pictures[order], np.arange(start, end + 1))
    for first in range(0, end - start, BLOCK):
        some = ends[first : first + BLOCK + 1]
        yield Rows(start + first, words[some[0] : some[-1]], some - some[0])


def _with_weights(rows: Rows, index: Index):
    """Pictures as a sparse array of the weights of their words, (pictures, words of `index`)."""
    from scipy.sparse import csr_array

    columns = np.searchsorted(index.words, rows.words).clip(max=len(index.words) - 1)
    has_word = csr_array(
        (np.ones(len(columns), np.float32), columns, rows.ends),
        (len(rows.ends) - 1, len(index.words)),
    )
    # the mirror of a word may be one that no picture has
    has_word.data[index.words[columns] != rows.words] = 0
    has_word.eliminate_zeros()
    return weighted(has_word, index.weights)


def lengths_in_block(layout: Layout, start: int) -> np.ndarray:
    """The length of each picture of a block, as a vector of the weights of its words."""
    lengths = [np.empty(0)]
    for rows in _rows_of_block(layout, start):
        index = look_up(layout, np.unique(rows.words))
        lengths.append(lengths_of(_with_weights(rows, index)))
    return np.concatenate(lengths)


def similar_in_block(layout: Layout, start: int) -> np.ndarray:
    """The candidates of the pictures in a block, as numbers, each once."""
    vocabulary = _vocabulary(layout.folder)
    lengths = np.load(layout.folder / LENGTHS, mmap_mode="r")
    found = [np.empty(0, int)]
    for plain in _rows_of_block(layout, start):
        in_the_mirror = plain._replace(words=vocabulary.mirrored(plain.words))
        for mirrored, rows in enumerate((plain, in_the_mirror)):
            index = look_up(layout, np.unique(rows.words))
            if len(index.pictures):
                pairs = _similar(rows, index, lengths, mirrored)
                found.append(numbers_of(pairs, layout.number))
    return np.unique(np.concatenate(found))


def _similar(rows: Rows, index: Index, lengths: np.ndarray, mirrored: int) -> np.ndarray:
    """The candidates of some pictures by the lists of their words: pairs (first, second, mirrored),
    (n, 3).
    """
    from scipy.sparse import csr_array

    pictures = _with_weights(rows, index)
    if not mirrored:
        pictures.data = over_lengths(pictures, lengths_of(pictures))
    listed, columns = np.unique(index.pictures, return_inverse=True)
    counts = np.diff(index.starts)
    values = np.repeat(index.weights, counts) / lengths[listed][columns]
    shape = (len(index.words), len(listed))
    by_word = csr_array((values.astype(np.float32), columns, index.starts), shape)
    nearest = list(most_similar(pictures, by_word, threads=1))
    numbers = np.arange(rows.start, rows.start + len(nearest))
    own = np.repeat(numbers, [len(others) for others in nearest])
    others = listed[np.concatenate(nearest)].astype(int)
    pairs = np.stack([np.minimum(own, others), np.maximum(own, others)], axis=1)
    return np.insert(pairs[own != others], 2, mirrored, axis=1)
