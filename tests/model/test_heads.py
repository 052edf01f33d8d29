"""The linear head at the minimum of its loss, held against scikit-learn and fastai."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from artclf import train
from artclf.data import splits
from artclf.model import network
from artclf.model.features import of_images
from artclf.model.heads import LinearHead, reduced
from artclf.model.losses import AdjustedLoss, balanced_weights


def classes_apart(images: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales, and classes of unlike sizes that they tell something of."""
    rng = np.random.default_rng(0)
    y = np.array(list("aaaaabbbcd"))[rng.integers(10, size=images)]
    x = rng.normal(size=(images, features)) * rng.uniform(0.1, 5, features) + 3
    x[:, :3] += np.searchsorted(np.unique(y), y)[:, None]
    return x.astype(np.float32), y


@pytest.mark.parametrize("features", [20, 500, 1500])  # fewer than images, more, many more
@pytest.mark.parametrize("balance", [True, False])
def test_the_minimum_is_that_of_scikit_learn(features, balance):
    x, y = classes_apart(200, features)
    head = LinearHead(0.2, balance).fit(x, y)
    scaled = StandardScaler().fit_transform(x)
    other = LogisticRegression(
        C=1 / (0.2 * len(y)),
        class_weight="balanced" if balance else None,
        max_iter=10_000,
        tol=1e-8,
    ).fit(scaled, y)
    assert np.allclose(head.predict_proba(x), other.predict_proba(scaled), atol=1e-3)
    assert (head.predict(x) == other.predict(scaled)).all() and list(head.classes_) == list("abcd")


@pytest.mark.parametrize("features", [20, 1500])
def test_a_network_answers_as_the_head_that_is_put_into_it(features):
    x, y = classes_apart(100, features)
    head = LinearHead().fit(x, np.searchsorted(list("abcd"), y))
    layers = network.new_head(features, {"depth": 0, "dropout": 0.0, "vocab": list("abcd")}).eval()
    head.put_into(layers)
    answers = layers(torch.from_numpy(x)).softmax(1).detach()
    assert np.allclose(answers, head.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("balance", [True, False])
def test_an_advantage_in_the_loss_moves_the_bias_as_a_solver_with_it_does(balance):
    x, y = classes_apart(200, 20)
    scaled = torch.from_numpy(StandardScaler().fit_transform(x))
    targets = torch.from_numpy(np.searchsorted(list("abcd"), y))
    counts = torch.bincount(targets)
    loss = AdjustedLoss(counts, 0.7, balanced_weights(counts) if balance else None)
    layer = torch.nn.Linear(20, 4)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(layer(scaled), targets) + 0.2 / 2 * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    expected = layer(scaled).softmax(1).detach()
    head = LinearHead(0.2, balance, 0.7).fit(x, y)
    assert np.allclose(head.predict_proba(x), expected, atol=1e-3)
    without = LinearHead(0.2, balance).fit(x, y)
    rare = head.predict_proba(x)[:, 3] / without.predict_proba(x)[:, 3]
    assert (rare > 1).all()


def test_every_view_teaches_and_the_first_is_asked():
    x, y = classes_apart(100, 10)
    views = np.stack([x, x + 1], axis=1)
    head = LinearHead().fit(views, y)
    both = LinearHead().fit(np.concatenate([x, x + 1]), np.concatenate([y, y]))
    assert np.allclose(head.predict_proba(views), both.predict_proba(x), atol=1e-3)


@pytest.mark.parametrize("features", [20, 500])
def test_reduced_features_teach_the_same(features):
    x, y = classes_apart(100, features)
    scaled = StandardScaler().fit_transform(x)
    columns = reduced(x)
    assert columns.shape == (100, min(features, 100))
    learned = slice(0, 70)
    answers = [
        LinearHead(standardise=False).fit(inputs[learned], y[learned]).predict_proba(inputs)
        for inputs in (scaled, columns)
    ]
    assert np.allclose(*answers, atol=1e-3)


def test_a_fit_of_fastai_comes_close_to_the_minimum(drawn, tmp_path, no_workers):
    learn = train.learner(
        drawn, tmp_path, arch="efficientnet_lite0", size=64, batch_size=8, ridge=3.0
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(20, 2e-4)
    rows = splits.items(drawn)
    rows = rows[rows.part == "train"]
    body, head = learn.model.eval()
    x = of_images(drawn, rows, body, learn.config, (0, 1))
    y = rows.period.to_numpy()
    solved = LinearHead(3.0, tau=learn.config["tau"]).fit(x, y)
    with torch.no_grad():
        fitted = head(torch.from_numpy(x[:, 0])).softmax(1).numpy()
    untrained = network.new_head(x.shape[2], learn.config).eval()
    with torch.no_grad():
        before = untrained(torch.from_numpy(x[:, 0])).softmax(1).numpy()
    expected = solved.predict_proba(x)
    far = np.abs(before - expected).mean()
    assert np.abs(fitted - expected).mean() < 0.1 * far
