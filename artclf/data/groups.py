"""Groups: images that belong together because pairs of them do, or because they share a value."""

from collections.abc import Iterable, Sequence

import numpy as np


def joined(images: Sequence[str], columns) -> list[str]:
    """The group of each image, named by one of them: images that share a value in any column are in
    one group.
    """
    parent = {image: image for image in images}

    def root(image):
        while parent[image] != image:
            parent[image] = image = parent[parent[image]]
        return image

    for values in columns:
        first = {}
        for image, value in zip(images, values, strict=True):
            if value:
                low, high = sorted((root(image), root(first.setdefault(value, image))))
                parent[high] = low
    return [root(image) for image in images]


def components(found: Iterable[tuple]) -> dict[str, str]:
    """The least member of each image's group: images that pairs join are in one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not (images := sorted(set().union(*found))):
        return {}
    ends = np.searchsorted(images, list(found)).T
    graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), (len(images), len(images)))
    groups = connected_components(graph, directed=False)[1]
    first = np.unique(groups, return_index=True)[1]  # images are sorted
    return {image: images[first[group]] for image, group in zip(images, groups, strict=True)}
