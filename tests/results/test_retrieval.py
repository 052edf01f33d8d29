"""Retrieval: the nearest by style, by content and by both are scikit-learn's, ties keep their order,
and what can't be asked is said.
"""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from artclf.base.errors import InputError, SettingError
from artclf.results import embeddings, retrieval

PICTURES = 70


@pytest.fixture
def features():
    return np.random.default_rng(5).normal(2, 3, (PICTURES, 30)).astype(np.float32)


@pytest.fixture
def known(features):
    train = np.arange(PICTURES) < 60
    projection = embeddings.Projection.fit(features[train])
    of_style = embeddings.fit_style(features[train, 4:12], train.sum())
    style = embeddings.Style(of_style(features[:, 4:12]), of_style, np.arange(4, 12))
    vectors = projection(features).astype(np.float32)
    residuals = projection.residuals(features)
    return embeddings.Embeddings([], vectors, projection, residuals, style)


def query_of(describe, row):
    return {kind: vectors[0] for kind, vectors in describe(row[None]).items()}


@pytest.mark.parametrize("by", ["content", "style"])
def test_the_nearest_of_a_kind_are_those_of_scikit_learn(known, features, by):
    among = retrieval.known_descriptions(known)
    vectors = known.vectors if by == "content" else known.style.vectors
    model = NearestNeighbors(metric="cosine").fit(vectors.astype(float))
    query = query_of(retrieval.Describer(known, "out"), features[7])
    rows, similarities = retrieval.nearest(query, among, retrieval.style_share(by), 6)
    distances, expected = model.kneighbors(vectors[7:8].astype(float), 6)
    assert rows.tolist() == expected[0].tolist()
    np.testing.assert_allclose(similarities, 1 - distances[0], atol=2e-3)


@pytest.mark.parametrize("rows", [None, np.arange(0, PICTURES, 3)])
def test_a_mixture_is_the_weighted_mean_of_both_cosines(known, features, rows, monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS_AT_ONCE", 5)
    among = retrieval.known_descriptions(known)
    query = query_of(retrieval.Describer(known, "out"), features[61])
    content = cosine_similarity(known.vectors[61:62], known.vectors)[0]
    style = cosine_similarity(known.style.vectors[61:62], known.style.vectors)[0]
    expected = 0.3 * style + 0.7 * content
    chosen = np.arange(PICTURES) if rows is None else rows
    order = chosen[np.argsort(-expected[chosen])][:8]
    found, similarities = retrieval.nearest(query, among, 0.3, 8, rows)
    assert found.tolist() == order.tolist()
    np.testing.assert_allclose(similarities, expected[order], atol=2e-3)


def test_the_style_is_of_its_features_alone_and_whitened(known, features):
    describe = retrieval.Describer(known, "out")
    other = features.copy()
    other[:, 12:] += 50
    same, moved = describe(features), describe(other)
    np.testing.assert_array_equal(same["style"], moved["style"])
    assert np.abs(same["content"] - moved["content"]).max() > 0.1
    spread = known.style.vectors[:60].astype(float)
    assert known.style.vectors.shape[1] == 6  # a tenth of the pictures of train
    np.testing.assert_allclose(np.cov(spread.T), np.eye(6), atol=0.02)


def test_what_is_written_is_read(known, tmp_path):
    file = tmp_path / embeddings.NAME
    rest = (known.vectors, known.projection, known.residuals, known.style)
    embeddings.write(file, map(str, range(PICTURES)), *rest)
    again = embeddings.read_all(tmp_path)
    np.testing.assert_array_equal(again.style.vectors, known.style.vectors)
    np.testing.assert_array_equal(again.style.places, known.style.places)
    for one, other in zip(again.style.projection, known.style.projection, strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_ones_keep_their_order():
    similarities = np.array([0.5, 0.7, 0.5 + 1e-7, 0.7 + 1e-7, 0.9, 0.5], np.float32)
    assert embeddings.best(similarities, 5).tolist() == [4, 1, 3, 0, 2]
    assert embeddings.best(similarities, 4).tolist() == [4, 1, 3, 0]
    assert embeddings.best(similarities, 2).tolist() == [4, 1]
    assert embeddings.best(similarities, 99).tolist() == [4, 1, 3, 0, 2, 5]
    assert embeddings.best(similarities[:0], 3).tolist() == []


@pytest.mark.parametrize("by", ["2", -0.1, "nan", "colour", None])
def test_what_is_compared_is_style_content_or_a_share(by):
    assert [retrieval.style_share(one) for one in ("style", "content", "0.25", 1)] == [
        1,
        0,
        0.25,
        1,
    ]
    with pytest.raises(SettingError, match="take style, content"):
        retrieval.style_share(by)


def test_an_export_without_styles_says_so(known, features):
    describe = retrieval.Describer(known._replace(style=None), "exports/old")
    describe.check(0)
    with pytest.raises(InputError, match="exports/old knows nothing of styles.*--by content"):
        describe.check(0.1)
    assert describe(features)["style"].shape == (PICTURES, 0)
    with pytest.raises(InputError, match="earlier version"):
        retrieval.Describer(known._replace(projection=None), "exports/old")
