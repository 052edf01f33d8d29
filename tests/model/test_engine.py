"""The engine: what is stored is what the learner's own loaders and body give, and nothing is
computed twice.
"""

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from artclf import train
from artclf.model import engine, features, network
from artclf.model.pixels import Pictures
from artclf.model.store import Store

SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


class Batches(Callback):
    """Collects what the network is given and what it answers."""

    order = 1

    def __init__(self):
        self.given, self.answers = {True: [], False: []}, {True: [], False: []}

    def after_pred(self):
        self.given[self.training].append(torch.as_tensor(self.x).clone())
        self.answers[self.training].append(self.pred.detach().clone())


def learner(data, out, **kwargs):
    learn = train.learner(data, out, **{**SMALL, **kwargs})
    learn.remove_cb(learn.progress)
    learn.add_cb(Batches())
    return learn


def test_the_logits_of_stored_features_are_those_of_the_slow_way(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 2e-3)
    stored = torch.cat(learn.batches.answers[False])
    assert learn.batches.given[False][0].ndim == 2
    learn.remove_cbs([engine.Stored])
    x, _ = zip(*learn.dls.valid, strict=True)
    with torch.no_grad():
        slow = learn.model.eval()(torch.as_tensor(torch.cat(x)))
    torch.testing.assert_close(torch.as_tensor(slow), stored, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_in_bfloat16_they_differ_by_rounding(drawn, tmp_path):
    found = []
    for precision in network.PRECISIONS:
        learn = learner(drawn, tmp_path / precision, pool="stages", precision=precision)
        learn.fit_one_cycle(1, 0.0)
        found.append(torch.cat(learn.batches.given[False]))
    assert (
        not torch.equal(*found)
        and torch.corrcoef(torch.stack([x.flatten() for x in found]))[0, 1] > 0.999
    )
    assert learn.model[0].autocast_dtype is torch.bfloat16  # a setting, in a fit and outside of it


def test_unfrozen_the_network_is_given_what_its_own_loaders_give(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 2e-3)
    learn.unfreeze()
    learn.batches.__init__()
    learn.fit_one_cycle(1, 1e-6)
    x, _ = zip(*learn.dls.valid, strict=True)
    torch.testing.assert_close(
        torch.cat(learn.batches.given[False]), torch.as_tensor(torch.cat(x)), atol=1e-5, rtol=0
    )
    trained = torch.cat(learn.batches.given[True])
    assert trained.shape[1:] == (3, 64, 64) and len(trained) == 24
    pixels = learn.stored.pictures["train"].pixels(range(30)).float() / 127.5 - 1
    assert not any(
        (batch == picture).all() for batch in trained for picture in pixels
    )  # they were augmented
    assert abs(float(trained.mean() - pixels.mean())) < 0.2


def test_no_picture_is_decoded_twice_and_nothing_looked_at_twice(fresh, tmp_path, monkeypatch):
    seen, decode, looked, look = [], Pictures._decode, [], features.view_of
    monkeypatch.setattr(
        Pictures,
        "_decode",
        lambda self, file: seen.append(file.name) or decode(self, file),
    )
    monkeypatch.setattr(
        features, "view_of", lambda pixels, *args: looked.append(len(pixels)) or look(pixels, *args)
    )
    for out in ("one", "two"):
        learn = learner(fresh, tmp_path / out, depth=int(out == "two"))
        learn.fit_one_cycle(2, 2e-3)
        learn.unfreeze()
        learn.fit_one_cycle(1, 1e-5)
    assert len(seen) == len(set(seen)) == 35 and sum(looked) == 30 * 2 + 5


def test_a_linear_head_standardises_by_all_of_train(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(2, 1e-3)
    body, (norm, *_), pictures = learn.model[0], learn.model[1], learn.stored.pictures["train"]
    x = (
        features.body_views(pictures, body, learn.config, [0, 1])
        .reshape(-1, body.n_features)
        .astype(float)
    )
    expected = StandardScaler().fit(x)
    np.testing.assert_allclose(norm.running_mean, expected.mean_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(norm.running_var, expected.var_, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_frozen_the_linear_head_ends_at_the_minimum_that_scikit_learn_finds(drawn, tmp_path):
    learn = learner(drawn, tmp_path, views=1, balance=False)
    learn.remove_cbs([learn.best_epoch, learn.resume, learn.history])
    learn.fit_one_cycle(100, 1e-3)
    head, data = learn.model[1].eval(), learn.stored.feature_loader("train", learn.dls.train)
    assert not learn.stored.loaders  # what a fit has loaded goes with it
    x, y = data.create_batch(list(range(30)))
    z = head[0](x).numpy()
    theirs = LogisticRegression(C=1 / (0.3 * len(z)), tol=1e-8, max_iter=5000).fit(z, y)
    np.testing.assert_allclose(
        head(x).detach().softmax(1).numpy(), theirs.predict_proba(z), atol=0.03
    )


def test_more_views_are_more_batches(drawn, tmp_path):
    learn = learner(drawn, tmp_path, views=4)
    learn.fit_one_cycle(1, 2e-3)
    assert sum(map(len, learn.batches.given[True])) == 30 * 4 // 8 * 8
    assert sum(map(len, learn.batches.given[False])) == 5


def test_the_head_learns_the_same_from_stored_batches_in_whatever_order_they_were_computed(
    drawn, tmp_path
):
    first, again = (learner(drawn, tmp_path / out) for out in ("first", "again"))
    first.fit_one_cycle(1, 2e-3)
    Store(drawn / "features.db").write("another", {"x": b"1"})
    again.fit_one_cycle(1, 2e-3)
    assert all(
        map(torch.equal, first.model.state_dict().values(), again.model.state_dict().values())
    )


@pytest.mark.parametrize(("first", "learning"), [(0, "all"), (4, "block 4"), (3, "blocks 3 and 4")])
def test_only_blocks_from_the_wanted_one_on_learn(drawn, tmp_path, first, learning):
    learn = learner(drawn, tmp_path, unfreeze_from=first)
    learn.fit_one_cycle(1, 2e-3)
    before = {name: value.clone() for name, value in learn.model.named_parameters()}
    learn.best_epoch.f1 = -1.0  # so that the epoch to come is the best
    learn.best_epoch.valid_loss = float("inf")
    learn.unfreeze()
    learn.fit_one_cycle(1, 1e-3)
    blocks = learn.model[0].blocks
    changed = {
        blocks[int(name.split(".")[2])]
        for name, value in learn.model[0].named_parameters("0")
        if not torch.equal(value, before[name])
    }
    assert changed == {block for block in blocks if block >= first}, learning


def test_measuring_settings_changes_nothing():
    body = network.Body(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU()), size=32)
    body.train()
    body.autocast_dtype = torch.bfloat16
    threads = torch.get_num_threads()
    for backward in (False, True):
        table = engine.measure_settings(body, 32, backward, runs=1)
        assert list(table) == ["precision", "threads", "seconds"]
        assert set(table.precision) == {"float32", "bfloat16"}
        assert table.seconds.is_monotonic_increasing and (table.seconds > 0).all()
    assert body.training and body.stages.training and body.autocast_dtype is torch.bfloat16
    assert torch.get_num_threads() == threads and all(p.grad is None for p in body.parameters())


def test_weights_of_periods_are_scikit_learns(drawn):
    from sklearn.utils.class_weight import compute_class_weight

    from artclf.data import splits
    from artclf.model.losses import balanced_weights

    table = splits.items(drawn)
    table = table[~((table.period == "09-realism") & (table.index % 2 == 0))]
    given = table[table.part == "train"].period
    expected = compute_class_weight("balanced", classes=np.array(sorted(set(given))), y=given)
    np.testing.assert_allclose(balanced_weights(train.class_counts(table)), expected, rtol=1e-6)


def test_cleaned_anew_a_picture_is_looked_at_anew(drawn, tmp_path):
    from artclf.data import splits

    table = splits.items(drawn)
    assert set(table.clean_sha256).isdisjoint(table.sha256)
    learn = learner(drawn, tmp_path, split=table)
    assert (
        learn.stored.pictures["valid"].hashes == table[table.part == "valid"].clean_sha256.tolist()
    )


def test_frozen_again_the_head_sees_what_the_changed_body_sees(drawn, tmp_path):
    learn = learner(drawn, tmp_path)
    learn.fit_one_cycle(1, 2e-3)
    learn.unfreeze()
    learn.best_epoch.f1 = -1.0  # so that the epoch to come is the best
    learn.best_epoch.valid_loss = float("inf")
    learn.fit_one_cycle(1, 1e-2)
    learn.freeze()
    learn.batches.__init__()
    learn.fit_one_cycle(1, 0.0)
    x, _ = zip(*learn.dls.valid, strict=True)
    with torch.no_grad():
        expected = learn.model[0].eval()(torch.as_tensor(torch.cat(x)))
    torch.testing.assert_close(
        learn.batches.given[False][0], torch.as_tensor(expected), atol=1e-3, rtol=1e-3
    )


class Parallel(Callback):
    """Wraps the network as fastai's `ParallelTrainer` does, which needs accelerate."""

    run_after = TrainEvalCallback

    def before_fit(self):
        self.learn.model = torch.nn.DataParallel(self.model)

    def after_fit(self):
        self.learn.model = self.model.module


@pytest.mark.slow
def test_in_parallel_the_weights_are_the_same(drawn, tmp_path):
    weights = []
    for name, callbacks in (("alone", []), ("parallel", [Parallel])):
        learn = learner(drawn, tmp_path / name, cbs=callbacks)
        learn.fit_one_cycle(1, 1e-2)
        learn.unfreeze()
        learn.fit_one_cycle(1, 1e-3)
        weights.append(torch.load(tmp_path / name / "models" / "fit-1.pth")["model"])
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], rtol=0, atol=0)
