"""Embeddings: the features of the body in few numbers, and the pictures that are nearest by scipy's
cosine, too.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist

import artclf
from artclf.results import embeddings


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(3, np.arange(1, 41), (90, 40)).astype(np.float32)


def test_an_export_has_the_embedding_of_every_picture(export, drawn):
    predictions = pd.read_csv(export / "predictions.csv")
    clf, train = artclf.load(export), (predictions.part == "train").to_numpy()
    _, errors = clf.probabilities(files := [drawn / file for file in predictions.file])
    learn = clf.learner
    with torch.inference_mode():
        seen = torch.cat(
            [learn.model[0](x) for (x,) in learn.dls.test_dl(files, num_workers=0)]
        ).numpy()
    known = embeddings.read(export, predictions.file)
    assert (
        known.shape == (len(predictions), min(128, train.sum()))
        and known.dtype == np.float32
        and not any(errors)
    )
    scaled = ((seen - seen[train].mean(0)) / np.maximum(seen[train].std(0), 1e-6)).clip(-10, 10)
    centred = scaled - scaled[train].mean(0)  # clipping moves the mean
    axes = np.linalg.svd(centred[train], full_matrices=False)[2]
    np.testing.assert_allclose(np.abs(known[:, :5]), np.abs(centred @ axes.T)[:, :5], atol=0.1)
    with np.load(export / "embeddings.npz") as stored:
        assert (
            stored["embedding"].dtype == np.float16
            and stored["file"].tolist() == predictions.file.tolist()
        )


def test_distances_are_kept_and_train_alone_says_how_they_are_measured(features):
    train = np.arange(90) < 60
    known = embeddings.project(features, train).astype(float)
    scaled = (features - features[train].mean(0)) / features[train].std(0)
    np.testing.assert_allclose(cdist(known, known), cdist(scaled, scaled), atol=0.05)
    other = features + 100 * ~train[:, None]
    again = embeddings.project(other, train)
    np.testing.assert_allclose(again[train], known[train], atol=0.01)
    assert np.abs(again[~train] - known[~train]).max() > 1


def test_a_number_that_is_constant_in_train_drowns_nothing(features):
    features[:60, 0], features[60:, 0] = 0, 1e9
    assert np.abs(embeddings.project(features, np.arange(90) < 60)).max() < 100


@pytest.mark.parametrize("images", [2, 5])
def test_a_handful_of_pictures_is_enough(features, images):
    known = embeddings.project(features[:5], np.arange(5) < images)
    assert known.shape == (5, images) and np.isfinite(known).all()


@pytest.mark.parametrize("whiten", [False, True])
def test_batches_give_the_projection_of_all(whiten):
    rng = np.random.default_rng(3)
    few_numbers = rng.normal(size=(300, 20)) * np.geomspace(10, 1, 20)
    features = few_numbers @ rng.normal(size=(20, 200)) + rng.normal(scale=0.1, size=(300, 200))
    features = features.astype(np.float32)
    features[:9, 0] = 1e4  # is clipped
    whole = embeddings.Projection.fit(features, 12, whiten)
    batches = [features[:130], features[130:131], features[131:]]
    for expected, found in zip(whole, embeddings.Projection.fit(batches, 12, whiten), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_few_pictures_in_batches_have_as_many_numbers(features):
    x = features[:5]
    whole = embeddings.Projection.fit(x)
    found = embeddings.Projection.fit([x[:2], x[2:]])
    assert found.axes.shape == whole.axes.shape == (5, 40)
    np.testing.assert_allclose(cdist(found(x), found(x)), cdist(whole(x), whole(x)), atol=0.1)


def test_the_nearest_are_scipys(features):
    indices, similarities = embeddings.nearest(features[:20], features[20:], 6)
    expected = 1 - cdist(features[:20], features[20:], "cosine")
    assert indices.tolist() == np.argsort(-expected, axis=1)[:, :6].tolist()
    np.testing.assert_allclose(similarities, np.sort(expected, axis=1)[:, :-7:-1], atol=1e-5)
    assert embeddings.nearest(features[:20], features[:3], 6)[0].shape == (20, 3)
    assert embeddings.nearest(features[:20], features[:0], 6)[0].shape == (20, 0)


def test_a_new_picture_is_projected_like_those_of_the_export(export, drawn):
    from artclf.answers import inputs

    known = embeddings.read_all(export)
    clf = artclf.load(export)
    files = [drawn / file for file in known.files[:3]]
    pixels = torch.stack([torch.from_numpy(inputs.pixels(file, clf.config)) for file in files])
    with torch.inference_mode():
        mean, std = (torch.tensor(clf.config[name]).view(3, 1, 1) for name in ("mean", "std"))
        features = clf.learner.model[0]((pixels.float() / 255 - mean) / std).numpy()
    np.testing.assert_allclose(known.projection(features), known.vectors[:3], atol=0.1)
    np.testing.assert_allclose(
        known.projection.residuals(features), known.residuals[:3], rtol=0.02, atol=0.5
    )


def test_what_no_embedding_holds_is_left_over(features):
    plane = features[:, :2] @ np.random.default_rng(1).normal(size=(2, 200)).astype(np.float32)
    projection = embeddings.Projection.fit(plane[:60])
    assert projection.residuals(plane[60:]).max() < 0.2
    away = plane[60:].copy()
    away[:, 0] += 3 * projection.scale[0]
    axes = projection.axes[:, 0]
    expected = 3 * np.sqrt(1 - (axes**2).sum())
    np.testing.assert_allclose(projection.residuals(away), expected, rtol=0.1)


def test_they_come_in_the_order_asked_for(tmp_path, features):
    embeddings.write(tmp_path / "embeddings.npz", "abc", features[:3])
    np.testing.assert_array_equal(embeddings.read(tmp_path, ["c", "a", "c"]), features[[2, 0, 2]])
    assert embeddings.read_all(tmp_path)[2:] == (
        None,
        None,
        None,
    )  # as in exports of earlier versions


def test_what_is_missing_or_broken_is_said(export, tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf train"):
        embeddings.read(tmp_path, [])
    shutil.copy(export / "embeddings.npz", tmp_path)
    with pytest.raises(ValueError, match="lacks 1 pictures, such as clean/new.jpg.*artclf train"):
        embeddings.read(tmp_path, ["clean/new.jpg"])
    for content in (b"", b"PK no archive"):
        (tmp_path / "embeddings.npz").write_bytes(content)
        with pytest.raises(ValueError, match="no embeddings.*artclf train"):
            embeddings.read(tmp_path, [])
    np.savez(tmp_path / "embeddings.npz", embedding=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="no embeddings.*artclf train"):
        embeddings.read(tmp_path, ["a"])
