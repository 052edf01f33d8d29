"""Imbalance: losses and sampler as others compute them, cuts thinned as asked, runs that are
kept.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from torch.utils.data import WeightedRandomSampler
from torchvision.ops import sigmoid_focal_loss

from artclf import train
from artclf.data import splits
from artclf.lab import balance, experiment, imbalance
from artclf.model.losses import AdjustedLoss

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
TINY = {"arch": "efficientnet_lite0", "size": 64, "epochs": 1, "tail": 4}
LABELS = np.repeat([0, 1, 2], [60, 30, 10])
COUNTS = torch.tensor([60.0, 30.0, 10.0])


@pytest.fixture(scope="module", autouse=True)
def alone(no_workers):
    pass


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def run(drawn, out):
    return imbalance.fit(drawn, out, imbalance.configuration(**TINY))


@pytest.fixture
def logits():
    return torch.randn(100, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)


@pytest.fixture
def targets():
    return torch.tensor(LABELS)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


# Losses and the sampler


def test_weights_are_scikit_learns_and_multiples_of_each_other():
    own = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(balance.WEIGHTS["N/(n_c K)"](COUNTS), own, rtol=1e-6)
    np.testing.assert_allclose(balance.WEIGHTS["N/n_c"](COUNTS), 3 * own, rtol=1e-6)
    np.testing.assert_allclose(balance.WEIGHTS["1/n_c"](COUNTS), 3 * own / 100, rtol=1e-6)


def test_the_weighted_loss_is_a_mean_over_images_and_torchs_one_is_divided_by_the_weights(
    logits, targets
):
    own = -torch.log_softmax(logits, 1)[range(100), LABELS]
    for name, weights in balance.WEIGHTS.items():
        expected = (weights(COUNTS)[targets] * own).sum() / 100
        torch.testing.assert_close(
            balance.METHODS[f"weights {name}"](COUNTS)(logits, targets), expected
        )
    theirs = [
        gradient(functional.cross_entropy(logits, targets, weight=weights(COUNTS)), logits)
        for weights in balance.WEIGHTS.values()
    ]
    for other in theirs[1:]:
        torch.testing.assert_close(other, theirs[0])
    ours = [
        gradient(balance.Weighted(weights(COUNTS))(logits, targets), logits)
        for weights in balance.WEIGHTS.values()
    ]
    torch.testing.assert_close(ours[1], 3 * ours[0])
    torch.testing.assert_close(
        balance.METHODS["weights, torch's mean"](COUNTS)(logits, targets),
        functional.cross_entropy(logits, targets, weight=balance.WEIGHTS["1/n_c"](COUNTS)),
    )


def test_logit_adjustment_is_the_formula_of_menon_and_others(logits, targets):
    shares, by_hand = COUNTS / 100, []
    for row, y in zip(
        logits, LABELS, strict=True
    ):  # log(1 + sum over others of prior ratio times exp of the margin)
        others = [shares[c] / shares[y] * (row[c] - row[y]).exp() for c in range(3) if c != y]
        by_hand.append((1 + sum(others)).log())
    torch.testing.assert_close(AdjustedLoss(COUNTS)(logits, targets), torch.stack(by_hand).mean())
    even = AdjustedLoss(torch.ones(3))(logits, targets)
    torch.testing.assert_close(even, functional.cross_entropy(logits, targets))


def test_focal_loss_is_torchvisions():
    x, y = torch.linspace(-4, 4, 20), torch.arange(20) % 2
    expected = sigmoid_focal_loss(x, y.float(), alpha=-1, gamma=2, reduction="mean")
    two = torch.stack([torch.zeros(20), x], 1)  # the softmax of 0 and x is the sigmoid of x
    torch.testing.assert_close(balance.METHODS["focal"](COUNTS)(two, y), expected)


@pytest.mark.slow
def test_the_sampler_draws_what_torchs_would_expect_and_whole_batches_again_by_seed(drawn):
    config = imbalance.configuration(**TINY)
    table, counts = (
        imbalance.cut(drawn, config),
        imbalance.train_counts(imbalance.cut(drawn, config)),
    )
    weights, rng = balance.Sampler(table).weights.tolist(), torch.Generator().manual_seed(0)
    theirs = WeightedRandomSampler(weights, 20_000, generator=rng)
    periods = table[table.part == "train"].period.to_numpy()
    assert pd.Series(periods[list(theirs)]).value_counts(
        normalize=True
    ).to_numpy() == pytest.approx(1 / 5, abs=0.02)
    plain = imbalance.batches(drawn, config)
    drawn_even = pd.concat(
        [
            imbalance.batches(drawn, {**config, "method": "sampler", "seed": seed})
            for seed in range(8)
        ]
    )
    assert (
        plain.sum().le(2 * counts).all() and plain.sum().sum() > 2 * counts.sum() - 32
    )  # two views, whole batches
    shares = drawn_even.sum() / drawn_even.sum().sum()
    assert (
        shares.to_numpy() == pytest.approx(1 / 5, abs=0.08) and (counts / counts.sum()).max() > 0.3
    )
    again = imbalance.batches(drawn, {**config, "method": "sampler"})
    assert again.equals(imbalance.batches(drawn, {**config, "method": "sampler"}))


# Cuts


def test_a_cut_is_thinned_in_train_alone_by_its_shares(drawn):
    table = splits.items(drawn, seed=42)
    first, second, *others = sorted(set(table.period))
    thinned = imbalance.thin(table, {first: 0.5, second: 0.01}, seed=1)
    before, after = imbalance.train_counts(table), imbalance.train_counts(thinned)
    assert (after[first], after[second]) == (round(before[first] / 2), 2) and after[others].equals(
        before[others]
    )
    rest = [rows[rows.part != "train"].reset_index(drop=True) for rows in (table, thinned)]
    assert rest[0].equals(rest[1]) and set(thinned.file) < set(table.file)
    assert imbalance.thin(table, {first: 0.5}, seed=1).equals(
        imbalance.thin(table, {first: 0.5}, seed=1)
    )
    assert not imbalance.thin(table, {first: 0.5}, seed=1).equals(
        imbalance.thin(table, {first: 0.5}, seed=2)
    )
    assert imbalance.thin(table, {}).equals(table)


def test_a_long_tail_falls_in_equal_ratios_and_leaves_uneven_data_whole():
    table = pd.DataFrame(
        [(f"{i}", p, "train", f"{i}") for p in "abcd" for i in range(54)],
        columns=["file", "period", "part", "sha256"],
    )
    shares = imbalance.long_tail(table, 27)
    assert sorted(shares.values()) == pytest.approx([1 / 27, 1 / 9, 1 / 3, 1]) and set(
        shares
    ) == set("abcd")
    counts = imbalance.train_counts(thin := imbalance.thin(table, shares))
    assert sorted(counts) == [2, 6, 18, 54]
    assert set(imbalance.long_tail(thin, 27).values()) == {1} and set(
        imbalance.long_tail(table, 1).values()
    ) == {1}
    assert imbalance.rare(thin) == [counts.idxmin()]
    with pytest.raises(ValueError, match="tail is 0.5"):
        imbalance.long_tail(table, 0.5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"method": "magic"}, "method is 'magic': take one of plain"),
        ({"epochs": 0}, "epochs is 0: take a whole number from 1"),
        ({"optimizer": "x"}, "optimizer is 'x': take one of adam, sgd"),
        ({"brush": 1}, "no setting brush: there are"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        imbalance.configuration(**changes)


def test_a_table_of_configurations_has_every_method_and_seed():
    configs = imbalance.configurations(seeds=(1, 2), epochs=3)
    assert [(c["method"], c["seed"]) for c in configs] == [
        (m, s) for m in balance.METHODS for s in (1, 2)
    ]
    assert imbalance.label(configs[0]) == "plain"
    assert imbalance.label({**configs[0], "optimizer": "sgd"}) == "plain, sgd"


# Runs


def test_a_run_answers_for_every_picture_of_its_cut_as_the_learner_does(drawn, run, tmp_path):
    table = imbalance.cut(drawn, run.config)
    assert run.predictions[["file", "part", "period"]].equals(table[["file", "part", "period"]])
    learn = imbalance.learner(drawn, tmp_path, run.config, table)
    with experiment.quiet(learn):
        learn.fit_one_cycle(1, run.config["lr"])
    dl = learn.dls.test_dl([drawn / file for file in table.file], num_workers=0)
    with learn.no_bar():
        expected = learn.get_preds(dl=dl, act=torch.nn.Softmax(1))[0].numpy()
    p = run.predictions.filter(regex="^p_").to_numpy()
    np.testing.assert_allclose(p, expected, atol=1e-3)
    assert p.sum(1) == pytest.approx(1) and (run.predictions.probability == p.max(1)).all()


def test_the_plain_loss_is_that_of_the_pipeline_without_balance(drawn, run, tmp_path):
    learn = train.learner(
        drawn,
        tmp_path,
        arch=TINY["arch"],
        size=64,
        split=imbalance.cut(drawn, run.config),
        ridge=0,
        balance=False,
        tau=0,
    )
    with experiment.quiet(learn):
        learn.fit_one_cycle(1, run.config["lr"])
    own = torch.softmax(
        experiment.outputs(learn, drawn, imbalance.cut(drawn, run.config)), 1
    ).numpy()
    np.testing.assert_allclose(run.predictions.filter(regex="^p_"), own, atol=1e-5)


@pytest.mark.slow
def test_one_seed_gives_one_run_and_what_is_kept_is_not_computed_again(
    drawn, out, run, tmp_path, monkeypatch
):
    assert imbalance.fit(drawn, tmp_path, run.config).predictions.equals(run.predictions)
    other = imbalance.fit(drawn, tmp_path, {**run.config, "seed": 7})
    assert not other.predictions.part.equals(run.predictions.part)

    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "learner", refuse)
    assert imbalance.fit(drawn, out, run.config).predictions.equals(run.predictions)
    with pytest.raises(AssertionError, match="again"):
        imbalance.fit(drawn, out, {**run.config, "method": "focal"})
    with pytest.raises(AssertionError, match="again"):
        imbalance.fit(drawn, out, {**run.config, "tail": 3})


@pytest.mark.slow
def test_results_are_scikit_learns_figures_on_the_predictions(drawn, tmp_path):
    configs = imbalance.configurations(("plain", "logit adjustment"), (1, 2), **TINY)
    table = imbalance.compare(drawn, tmp_path, configs)
    assert list(table.label) == [imbalance.FREQUENT] * 2 + ["plain"] * 2 + ["logit adjustment"] * 2
    for row, config in zip(table[2:].itertuples(), configs, strict=True):
        predictions = imbalance.fit(drawn, tmp_path, config).predictions
        test, train_rows = (predictions[predictions.part == part] for part in ("test", "train"))
        few = train_rows.period.value_counts().sort_index().sort_values(kind="stable").index[:1]
        assert row.accuracy == accuracy_score(test.period, test.predicted)
        assert row.macro_f1 == pytest.approx(f1_score(test.period, test.predicted, average="macro"))
        assert row.rare_recall == pytest.approx(
            recall_score(test.period, test.predicted, labels=few, average="macro")
        )
        always = table[(table.label == imbalance.FREQUENT) & (table.seed == config["seed"])].iloc[0]
        assert (
            always.accuracy == (test.period == train_rows.period.mode()[0]).mean()
            and always.rare_recall == 0
        )
    means = imbalance.summary(table)
    assert list(means.runs) == [2, 2, 2] and means.macro_f1.iloc[1] == pytest.approx(
        table.macro_f1[2:4].mean()
    )
    assert means.f1_range.iloc[1] == pytest.approx(abs(table.macro_f1[2] - table.macro_f1[3]))
    assert pd.read_csv(tmp_path / "results.csv").rare_recall.to_list() == pytest.approx(
        table.rare_recall.to_list()
    )


# Plots


def test_results_are_dots_with_a_ring_for_each_run():
    table = pd.DataFrame(
        {
            "label": ["a", "a", "b"],
            "accuracy": 0.5,
            "macro_f1": [0.2, 0.4, 0.5],
            "rare_recall": [0, 0.1, 0.6],
            "other_recall": [0.9, 0.7, 0.5],
        }
    )
    [ax] = imbalance.plot_results(table).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert list(lines["macro F1"].get_xdata()) == pytest.approx([0.3, 0.5])
    assert list(lines["recall, rare third"].get_xdata()) == pytest.approx([0.05, 0.6])
    assert (
        list(ax.lines[1].get_xdata()) == [0.2, 0.4, 0.5]
        and imbalance.plot_results(table, ax) is ax.figure
    )


def test_recalls_are_means_by_period_and_the_plot_shows_them():
    rows = [
        (part, p, q)
        for p, n, answers in (("a", 6, "aab"), ("b", 2, "ba"))
        for part, q in [("train", p)] * n + [("test", q) for q in answers]
    ]
    predictions = pd.DataFrame(rows, columns=["part", "period", "predicted"])
    runs = [
        experiment.Run(imbalance.configuration(seed=seed), predictions, {}, 1.0) for seed in (1, 2)
    ]
    better = predictions.assign(predicted=predictions.period)
    table = imbalance.recalls(
        [*runs, experiment.Run(imbalance.configuration(method="focal"), better, {}, 1.0)]
    )
    assert list(table.index) == ["a", "b"] and list(table.images) == [6, 2]
    assert list(table.plain) == pytest.approx([2 / 3, 1 / 2]) and list(table.focal) == [1, 1]
    [ax] = imbalance.plot_recalls(table).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a (6)", "b (2)"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain", "focal"]
    assert list(ax.lines[0].get_xdata()) == pytest.approx([2 / 3, 1 / 2])
    assert imbalance.plot_recalls(table, ax) is ax.figure


def test_batches_are_bars_the_most_frequent_period_first():
    one, two = pd.DataFrame({"x": [1, 3], "y": [7, 5]}), pd.DataFrame({"x": [4, 4], "y": [4, 4]})
    [ax] = imbalance.plot_batches({"plain": one, "sampler": two}).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == [
        "y",
        "x",
    ] and ax.get_ylabel() == "pictures a batch"
    assert [bar.get_height() for bar in ax.patches] == [6, 2, 4, 4]
    assert imbalance.plot_batches({"plain": one}, ax) is ax.figure


# What takes long


@pytest.mark.slow
def test_the_notebook_runs_on_canvases(drawn, tmp_path):
    import nbformat

    from artclf import run

    notebook, out = ROOT / "notebooks/experiments/11_imbalance.ipynb", tmp_path / "out"
    copy = run.execute(
        notebook,
        tmp_path / "copy.ipynb",
        {
            "DATA": str(drawn),
            "OUT": str(out),
            "ARCH": "efficientnet_lite0",
            "SIZE": 64,
            "EPOCHS": 1,
            "SEEDS": (1, 2),
            "TAIL": 4,
        },
    )
    outputs = [
        out
        for cell in nbformat.read(copy, 4).cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    text = " ".join(
        str(out.get("data", {}).get("text/plain", "")) + out.get("text", "") for out in outputs
    )
    assert "f1_range" in text and imbalance.FREQUENT in text and "logit adjustment" in text
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 3
    results = pd.read_csv(out / "results.csv")
    assert results.label.value_counts().to_dict() == dict.fromkeys(
        [imbalance.FREQUENT, *balance.METHODS], 2
    )
    assert results[list(imbalance.FIGURES)].notna().all(axis=None)
    assert len(pd.read_csv(out / "sgd/results.csv")) == 2 * 5
