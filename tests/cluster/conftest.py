"""A cluster on this machine, for all tests of a module: to start Ray takes seconds."""

import os
from pathlib import Path

import pytest

from artclf.cluster import workers

# Ray's processes import jsonschema. Where JupyterLab is installed, that builds the grammar of
# rfc3987_syntax, for seconds in each of them: a module without it spares them.
NO_GRAMMAR = 'raise ImportError("left out by the tests")\n'


@pytest.fixture(scope="module")
def map_jobs(request, tmp_path_factory):
    """Two workers of a cluster on this machine."""
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("path")
    (folder / "rfc3987_syntax.py").write_text(NO_GRAMMAR)
    root = Path(__file__).resolve().parents[2]
    ray.cloudpickle.register_pickle_by_value(request.module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(root)]))
        patch.delenv("RAY_ADDRESS", raising=False)
        with workers.connected(cores=4) as map_jobs:  # two are for callers in other processes
            map_jobs.__self__.size = 2
            yield map_jobs
        assert not ray.is_initialized()
