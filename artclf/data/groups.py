"""Groups: images that belong together because pairs of them do, or because they share a value."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from artclf.base.files import replace_with_array
from artclf.base.processes import Workers, check_result

PAIRS_IN_PART = 1 << 22  # a process joins so many together, in about 300 MB


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each image in `pairs`, named by its least member.

    Two images are in one group where a chain of pairs leads from one to the other.
    """
    pairs = list(pairs)
    images = sorted({image for pair in pairs for image in pair})
    if not images:
        return {}
    groups = groups_of_numbers(np.searchsorted(images, pairs), len(images))
    return {image: images[group] for image, group in zip(images, groups, strict=True)}


def groups_of_numbers(pairs: np.ndarray, number: int) -> np.ndarray:
    """The group of each of `number` images, named by its least member: (number,). `pairs` has the
    numbers of two images each, (n, 2).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), (number, number))
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)  # the first is the least
    return firsts[labels]


def fewer_pairs(pairs: np.ndarray, folder: Path, workers: Workers) -> np.ndarray:
    """Pairs of numbers, (n, 2), that join the same images as `pairs`, and, of many, are fewer.

    Workers join the pairs of each part, of which `with_the_least` remain. These, of several parts,
    are a part of the next round, as long as a round leaves less than half. `folder`, which they see,
    is for a file that this function leaves to the caller.
    """
    while len(pairs) > PAIRS_IN_PART:
        file = folder / f"pairs-{len(pairs)}.npy"
        replace_with_array(file, pairs)
        starts = range(0, len(pairs), PAIRS_IN_PART)
        parts = [slice(start, start + PAIRS_IN_PART) for start in starts]
        remaining = []
        for chunk in workers(partial(_fewer_pairs_in_file, file), parts, 1):
            remaining += [check_result(found, "join pairs to groups") for _, found in chunk]
        number = len(pairs)
        pairs = np.concatenate(remaining)
        if len(pairs) > number // 2:
            break
    return pairs


def _fewer_pairs_in_file(file: Path, part: slice) -> np.ndarray:
    return with_the_least(np.load(file, mmap_mode="r")[part])


def with_the_least(pairs: np.ndarray) -> np.ndarray:
    """Each image of `pairs`, (n, 2), that is not the least of its group, after that one: (m, 2)."""
    images, places = np.unique(pairs, return_inverse=True)
    groups = groups_of_numbers(places.reshape(-1, 2), len(images))
    is_least = groups == np.arange(len(images))
    return np.stack([images[groups], images], axis=1)[~is_least]


def joined(images: Sequence[str], columns: Iterable[Sequence[str]]) -> list[str]:
    """The group of each image, named by its least member: images that share a value in any of
    `columns` are in one group.

    A column has a value for each image; empty values join nothing. An image that stands in
    `images` twice is in one group.
    """
    pairs = [(image, image) for image in images]
    for values in columns:
        first_image: dict[str, str] = {}
        for image, value in zip(images, values, strict=True):
            if value:
                pairs.append((first_image.setdefault(value, image), image))
    groups = components(pairs)
    return [groups[image] for image in images]
