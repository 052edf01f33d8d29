"""Groups: images that belong together because pairs of them do, or because they share a value."""

from collections.abc import Iterable, Sequence

import numpy as np


def components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The group of each image in `pairs`, named by its least member.

    Two images are in one group where a chain of pairs leads from one to the other.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = list(pairs)
    images = sorted({image for pair in pairs for image in pair})
    if not images:
        return {}
    rows, columns = np.searchsorted(images, pairs).T
    shape = (len(images), len(images))
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape)
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)  # images are sorted: the first is the least
    return {image: images[firsts[label]] for image, label in zip(images, labels, strict=True)}


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
