"""Period and artist: losses as others compute them, missing artists that count nothing, an export
that gives both.
"""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.nn import functional

import artclf
from artclf import train
from artclf.data import splits
from artclf.lab import experiment, period_and_artist

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
TINY = {"arch": "efficientnet_lite0", "size": 64, "epochs": 1, "fewest": 2}


@pytest.fixture(scope="module", autouse=True)
def alone(no_workers):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    from artclf import download
    from artclf.data import cleaning, sample

    folder = tmp_path_factory.mktemp("artists")
    sample.draw(folder / "gallery", 24, 112, workers=1, periods=list(sample.PERIODS)[::8])
    download.import_folder(folder / "gallery", folder)
    cleaning.normalise(folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


def test_the_losses_are_those_of_torch_and_missing_artists_count_nothing():
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[0, 1], [2, -100], [1, 3], [0, -100], [2, 0], [1, 2]])
    period = functional.cross_entropy(x[:, :3], y[:, 0])
    artist = functional.cross_entropy(x[[0, 2, 4, 5], 3:], y[[0, 2, 4, 5], 1])
    torch.testing.assert_close(period_and_artist.Both(3, "sum")(x, y), period + artist)
    torch.testing.assert_close(period_and_artist.Both(3, "period alone")(x, y), period)
    torch.testing.assert_close(period_and_artist.Both(3, "artist alone")(x, y), artist)
    loss = period_and_artist.Both(3, "uncertainty")
    torch.testing.assert_close(loss(x, y), period + artist)  # s is 0 at first
    loss.log_vars.data = torch.tensor([0.5, -1.0])
    by_hand = (
        period / np.exp(0.5)
        + artist / np.exp(-1)
        + np.log(np.exp(0.5) ** 0.5)
        + np.log(np.exp(-1) ** 0.5)
    )
    torch.testing.assert_close(loss(x, y).detach(), by_hand.float())
    y[:, 1] = -100
    torch.testing.assert_close(period_and_artist.Both(3, "sum")(x, y), period)


def test_artists_with_few_train_pictures_are_missing(data):
    table = period_and_artist.cut(data, period_and_artist.configuration(**TINY))
    facts = splits.usable(data).set_index("file").artist
    counts = facts[table.file[table.part == "train"]].value_counts()
    known = table[table.artist != ""]
    assert (known.artist == facts[known.file].to_numpy()).all() and (
        counts[known.artist.unique()] >= 2
    ).all()
    assert (counts.reindex(facts[table.file[table.artist == ""]]).fillna(0) < 2).all()
    assert table.drop(columns="artist").equals(splits.items(data))
    with pytest.raises(ValueError, match="fewer than two artists"):
        period_and_artist.cut(data, period_and_artist.configuration(fewest=99))
    with pytest.raises(ValueError, match="method is 'x'"):
        period_and_artist.configuration(method="x")


@pytest.mark.slow
@pytest.mark.parametrize("method", period_and_artist.METHODS)
def test_a_run_is_kept_and_its_figures_are_scikit_learns(data, out, tmp_path, method, monkeypatch):
    config = period_and_artist.configuration(**TINY, method=method)
    run = period_and_artist.fit(data, out, config)
    assert period_and_artist.fit(data, tmp_path, config).predictions.equals(run.predictions)
    test, figures = (
        run.predictions[run.predictions.part == "test"],
        period_and_artist.figures(run.predictions),
    )
    known = test[test.artist != ""]
    for task, answers, rows in (
        ("period", "predicted", test),
        ("artist", "predicted_artist", known),
    ):
        if task not in period_and_artist.METHODS[method]:
            assert np.isnan(figures[f"{task}_accuracy"]) and answers not in test
            continue
        assert figures[f"{task}_accuracy"] == accuracy_score(rows[task], rows[answers])
        assert figures[f"{task}_f1"] == pytest.approx(
            f1_score(rows[task], rows[answers], average="macro")
        )
    assert (run.facts["log_vars"] is not None) == (method == "uncertainty")
    monkeypatch.setattr(train, "learner", lambda *args, **kwargs: pytest.fail("trained again"))
    assert period_and_artist.fit(data, out, config).predictions.equals(run.predictions)


@pytest.mark.slow
def test_an_export_gives_period_and_artist(data, tmp_path):
    config = period_and_artist.configuration(**TINY, method="uncertainty")
    period_and_artist.export(data, tmp_path, config)
    clf, files = artclf.load(tmp_path), sorted((data / "clean").rglob("*.jpg"))[:6]
    found = clf.predict([*files, b"no picture"])
    assert list(found) == [
        "image",
        "predicted",
        "probability",
        "top",
        "error",
        "artist",
        "artist_probability",
    ]
    assert (
        set(found.artist[:6]) <= set(clf.artists)
        and found.artist_probability[:6].between(0, 1).all()
    )
    assert (
        found[["predicted", "artist", "artist_probability"]].iloc[6].isna().all() and found.error[6]
    )
    p = clf.probabilities(files)[0]
    assert p[:, :3].sum(1) == pytest.approx(1, abs=1e-5) and p[:, 3:].sum(1) == pytest.approx(
        1, abs=1e-5
    )
    learn = artclf.load_learner(tmp_path, trust=True)
    for one in (clf.learner, learn):
        own = one.get_preds(dl=one.dls.test_dl(files, num_workers=0))[0]
        np.testing.assert_allclose(own, p[:, :3], atol=1e-4)
    assert set(pd.read_csv(tmp_path / "predictions.csv").predicted) <= set(clf.vocab)
    assert json.loads((tmp_path / "config.json").read_text())["artists"] == clf.artists
    with pytest.raises(ValueError, match="has one head"):
        period_and_artist.export(data, tmp_path, {**config, "method": "artist alone"})


def test_results_are_means_with_a_ring_for_each_run():
    table = pd.DataFrame(
        {"label": ["sum", "sum"], **dict.fromkeys(period_and_artist.FIGURES, [0.2, 0.4])}
    )
    means = period_and_artist.summary(table)
    assert means.period_f1.item() == pytest.approx(
        0.3
    ) and means.artist_range.item() == pytest.approx(0.2)
    [ax] = period_and_artist.plot_results(table).axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["sum"]
    assert list(ax.lines[0].get_xdata()) == pytest.approx([0.3]) and list(
        ax.lines[1].get_xdata()
    ) == [0.2, 0.4]
    assert experiment.plot_means(table, period_and_artist.FIGURES, ax) is ax.figure


# What takes long


@pytest.mark.slow
def test_the_notebook_runs_on_canvases(data, tmp_path):
    import nbformat

    from artclf import run

    notebook, out = ROOT / "notebooks/experiments/12_period_and_artist.ipynb", tmp_path / "out"
    copy = run.execute(
        notebook,
        tmp_path / "copy.ipynb",
        {
            "DATA": str(data),
            "OUT": str(out),
            "ARCH": "efficientnet_lite0",
            "SIZE": 64,
            "EPOCHS": 1,
            "SEEDS": (1, 2),
            "FEWEST": 2,
            "N": 4,
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
    assert (
        "artist_range" in text
        and period_and_artist.FREQUENT in text
        and "artist_probability" in text
    )
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 2
    results = pd.read_csv(out / "results.csv")
    assert results.label.value_counts().to_dict() == dict.fromkeys(
        [period_and_artist.FREQUENT, *period_and_artist.METHODS], 2
    )
    for figure in period_and_artist.FIGURES:
        learned = [
            label
            for label, tasks in period_and_artist.METHODS.items()
            if figure.split("_")[0] in tasks
        ]
        assert set(results.label[results[figure].notna()]) == {period_and_artist.FREQUENT, *learned}
    config = json.loads((out / "export/config.json").read_text())
    assert len(config["vocab"]) == 3 and len(config["artists"]) >= 2
    assert f"({len(config['vocab'])}, {len(config['artists'])})" in text
