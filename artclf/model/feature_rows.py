"""Feature rows: what a head learns from, a row for each view of each picture.

They are in memory, or, where they would take too much of it, read from `DATA/features.db` a batch
at a time. A head learns the same from both, but for rounding.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from artclf.base.processes import MapJobs, in_chunks
from artclf.base.settings import from_environment
from artclf.model import ranks
from artclf.model.features import PICTURES_PER_READ, Pictures, body_views, named_bodies, store_keys
from artclf.model.store import Store, store_file

IN_MEMORY = from_environment("ARTCLF_FEATURES_GB", 4) * 1e9  # bytes, at most
BYTES_A_NUMBER = 4


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

    def __getitem__(self, indices: Sequence[int]) -> torch.Tensor:
        """The rows at `indices`: float32 (rows, features)."""
        return self.x[indices]

    def chunks(self) -> Iterator[torch.Tensor]:
        """All rows in their order, some at a time."""
        yield self.x


class StoredRows:
    """The same as `RowsInMemory`, read from the store each time; what found no room there is
    computed each time.
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
        scaler = StandardScaler()
        for array in _arrays(pictures, net, config, views, map_jobs):
            scaler.partial_fit(array.reshape(-1, array.shape[2]))
        self.mean = torch.tensor(scaler.mean_, dtype=torch.float32)
        self.var = torch.tensor(scaler.var_, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.pictures.hashes) * len(self.views)

    def __getitem__(self, indices: Sequence[int]) -> torch.Tensor:
        x = np.empty((len(indices), self.net.n_features), np.float32)
        pictures, columns = np.divmod(np.asarray(indices), len(self.views))
        for column in np.unique(columns):
            places = np.flatnonzero(columns == column)
            x[places] = self._read(self.views[column], pictures[places].tolist())
        return torch.from_numpy(x)

    def chunks(self) -> Iterator[torch.Tensor]:
        for indices in in_chunks(range(len(self)), PICTURES_PER_READ):
            yield self[indices]

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


FeatureRows = RowsInMemory | StoredRows


def rows_of(
    pictures: Pictures,
    net: nn.Module,
    config: dict,
    views: Sequence[int] = (0,),
    map_jobs: MapJobs | None = None,
) -> FeatureRows:
    """The rows of `features.body_views`, in memory where they take no more than `IN_MEMORY` bytes.

    Features that aren't stored are computed before. Several processes of one training share that
    out among them.
    """
    if ranks.are_several():
        own = pictures.at(ranks.own_items(range(len(pictures.hashes))))
        for _ in _arrays(own, net, config, views):
            pass  # they are stored now
        ranks.wait_for_all()
    rows = len(pictures.hashes) * len(views)
    if rows * net.n_features * BYTES_A_NUMBER > IN_MEMORY:
        return StoredRows(pictures, net, config, views, map_jobs)
    return RowsInMemory(body_views(pictures, net, config, views, map_jobs))


def _arrays(
    pictures: Pictures,
    net: nn.Module,
    config: dict,
    views: Sequence[int],
    map_jobs: MapJobs | None = None,
) -> Iterator[np.ndarray]:
    """The arrays of `body_views` for some pictures at a time; what is not stored is computed."""
    for indices in in_chunks(range(len(pictures.hashes)), PICTURES_PER_READ):
        yield body_views(pictures.at(indices), net, config, views, map_jobs)
