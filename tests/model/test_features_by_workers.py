"""Features by workers: one that would give others than this machine is refused."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from artclf.base.errors import StepError
from artclf.base.processes import map_here
from artclf.data.catalogue import clean_path, read_catalogue
from artclf.model import backbones, features, network
from artclf.model.pixels import Pictures


def with_other_weights(function, jobs, **options):
    tensors = load_file(function.weights)
    tensors[next(iter(tensors))] += 1
    save_file(tensors, function.weights)
    return map_here(function, jobs)


def with_another_torch(function, jobs, **options):
    made_by = function.made_by.replace(torch.__version__, "2.0.0")
    return map_here(replace(function, made_by=made_by), jobs)


@pytest.mark.parametrize("workers", [with_other_weights, with_another_torch])
def test_a_worker_that_would_give_other_features_is_refused(fresh, workers, no_workers):
    rows = read_catalogue(fresh).query("clean_status == 'ok'").iloc[:2]
    files = [clean_path(row) for row in rows.to_dict("records")]
    pictures = Pictures(fresh, files, rows.clean_sha256, 64)
    backbone = backbones.find("efficientnet_lite0")
    body = network.new_body(backbone, size=64)
    with pytest.raises(StepError, match="install the same versions on all machines"):
        features.store_views(pictures, body, backbone, "net", [0], workers)
    features.store_views(pictures, body, backbone, "net", [0], map_here)  # nothing was stored
    assert features.feature_views(pictures, body, backbone, "net", [0]).shape[:2] == (2, 1)
