"""Feature rows: what a head learns from and an export is made of, a row for each view of each
picture.

They are in memory, or, where they would take too much of it, read from `DATA/features.db` a batch
at a time. A head learns the same from both, but for rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from artclf.base.processes import MapJobs, in_chunks
from artclf.base.settings import from_environment
from artclf.model import ranks
from artclf.model.features import (
    PICTURES_PER_READ,
    body_views,
    named_bodies,
    store_keys,
    store_views,
)
from artclf.model.pixels import Pictures
from artclf.model.store import Store, store_file

IN_MEMORY = from_environment("ARTCLF_FEATURES_GB", 4) * 1e9  # bytes, at most
BYTES_A_NUMBER = 4

Places = Sequence[int] | np.ndarray  # of rows


class RowsInMemory:
    """Rows of an array of features, (pictures, features) or (pictures, views, features).

    View v of picture p is row p * views + v. `mean` and `var` are those of each feature over all
    rows: (features,).
    """

    def __init__(self, array: np.ndarray):
        x = torch.as_tensor(array, dtype=torch.float32)
        self.x = x.flatten(0, -2)

    @cached_property
    def mean(self) -> torch.Tensor:
        return self.x.mean(0)

    @cached_property
    def var(self) -> torch.Tensor:
        return self.x.var(0, correction=0)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, indices: Places) -> torch.Tensor:
        """The rows at `indices`: float32 (rows, features)."""
        return self.x[indices]

    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in their order, some at a time."""
        yield self.x

    def at(self, places: Places) -> "RowsInMemory":
        """The rows at `places` alone."""
        return RowsInMemory(self.x[places])

    def arrays(self, columns=slice(None)) -> np.ndarray:
        """The features at `columns` of all rows: float32 (rows, columns)."""
        return self.x.numpy()[:, columns]


class Batches:
    """The `chunks` of rows, each as `change` makes it; every loop reads them anew."""

    def __init__(self, chunks: Callable[[], Iterator[torch.Tensor]], change: Callable):
        self.chunks = chunks
        self.change = change

    def __iter__(self) -> Iterator:
        return map(self.change, self.chunks())


class _ReadRows:
    """What rows that are not in memory have in common: the same as `RowsInMemory`, but for `arrays`,
    which gives these in batches.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, indices: Places) -> torch.Tensor:
        raise NotImplementedError

    @property
    def mean(self) -> torch.Tensor:
        return torch.tensor(self._scaler.mean_, dtype=torch.float32)

    @property
    def var(self) -> torch.Tensor:
        return torch.tensor(self._scaler.var_, dtype=torch.float32)

    @cached_property
    def _scaler(self) -> StandardScaler:
        scaler = StandardScaler()
        for rows in self.chunks():
            scaler.partial_fit(rows.numpy())
        return scaler

    def chunks(self) -> Iterator[torch.Tensor]:
        for indices in in_chunks(range(len(self)), PICTURES_PER_READ):
            yield self[indices]

    def at(self, places: Places) -> "SelectedRows":
        return SelectedRows(self, places)

    def arrays(self, columns=slice(None)) -> Batches:
        return Batches(self.chunks, lambda rows: rows.numpy()[:, columns])


class StoredRows(_ReadRows):
    """Rows that are read from the store each time; what found no room there is computed each
    time.
    """

    def __init__(
        self,
        pictures: Pictures,
        net: nn.Module,
        config: dict,
        views: Sequence[int],
        map_jobs: MapJobs | None = None,
    ):
        self.pictures = pictures
        self.net = net
        self.config = config
        self.views = list(views)
        self.map_jobs = map_jobs
        self.store = Store(store_file(pictures.data, "features.db"))
        self.keys = []
        for _, body, name in named_bodies(net, config):
            self.keys.append(store_keys(pictures, body, name, views))

    def __len__(self) -> int:
        return len(self.pictures.hashes) * len(self.views)

    def __getitem__(self, indices: Places) -> torch.Tensor:
        x = np.empty((len(indices), self.net.n_features), np.float32)
        pictures, columns = np.divmod(np.asarray(indices), len(self.views))
        for column in np.unique(columns):
            places = np.flatnonzero(columns == column)
            x[places] = self._read(self.views[column], pictures[places].tolist())
        return torch.from_numpy(x)

    def _read(self, view: int, indices: Sequence[int]) -> np.ndarray:
        """The features of a view of the pictures at `indices`: float32 (pictures, features)."""
        hashes = [self.pictures.hashes[index] for index in indices]
        arrays = []
        for keys in self.keys:
            stored = self.store.read(keys[view], hashes)
            if any(sha256 not in stored for sha256 in hashes):
                some = self.pictures.at(indices)
                return body_views(some, self.net, self.config, [view], self.map_jobs)[:, 0]
            content = b"".join(stored[sha256] for sha256 in hashes)
            arrays.append(np.frombuffer(content, np.float32).reshape(len(hashes), -1))
        return np.concatenate(arrays, axis=1)


class SelectedRows(_ReadRows):
    """The rows at `places` of other `rows`, each batch as `change` makes it."""

    def __init__(
        self,
        rows: _ReadRows,
        places: Places,
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        self.rows = rows
        self.places = np.asarray(places)
        self.change = change

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: Places) -> torch.Tensor:
        found = self.rows[self.places[indices]]
        return self.change(found) if self.change else found


FeatureRows = RowsInMemory | StoredRows | SelectedRows


def of_each(rows: FeatureRows, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `function` makes of the features of some rows at a time, for all `rows`: (rows, ...)."""
    found = np.empty(0)
    start = 0
    for chunk in rows.chunks():
        some = function(chunk.numpy())
        if start == 0:
            # at once, because small arrays among large ones would keep the process from using
            # freed memory again
            found = np.empty((len(rows), *some.shape[1:]), some.dtype)
        found[start : start + len(some)] = some
        start += len(some)
    return found


def store_in_shares(pictures: Pictures, net: nn.Module, config: dict, views: Sequence[int]):
    """Store the features that aren't, of which each process of a training computes a share."""
    if ranks.are_several():
        own = pictures.at(ranks.own_items(range(len(pictures.hashes))))
        _store(own, net, config, views)
        ranks.wait_for_all()


def rows_of(
    pictures: Pictures,
    net: nn.Module,
    config: dict,
    views: Sequence[int] = (0,),
    map_jobs: MapJobs | None = None,
) -> FeatureRows:
    """The rows of `features.body_views`, in memory where they take no more than `IN_MEMORY` bytes.

    Features that aren't stored are computed before.
    """
    rows = len(pictures.hashes) * len(views)
    if rows * net.n_features * BYTES_A_NUMBER > IN_MEMORY:
        _store(pictures, net, config, views, map_jobs)
        return StoredRows(pictures, net, config, views, map_jobs)
    return RowsInMemory(body_views(pictures, net, config, views, map_jobs))


def _store(
    pictures: Pictures,
    net: nn.Module,
    config: dict,
    views: Sequence[int],
    map_jobs: MapJobs | None = None,
):
    """Compute the features that are not stored, and store them: each body's in one go."""
    for backbone, body, name in named_bodies(net, config):
        store_views(pictures, body, backbone, name, views, map_jobs)
