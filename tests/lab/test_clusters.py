"""Clusters: figures that agree with scikit-learn's, autoencoders that learn, and the notebook."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from artclf.base.errors import InputError, SettingError
from artclf.lab import autoencoder, clusters

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
PERIODS = ["01-early", "02-high", "05-baroque"]


@pytest.fixture
def rows():
    """Sixty pictures of three periods in turn; every period has two painters, one picture none."""
    table = pd.DataFrame({"period": PERIODS * 20})
    table["painter"] = table.period.str[3:] + [f" {number % 2}" for number in range(60)]
    table.loc[0, "painter"] = ""
    table["predicted"] = table.period
    for name in PERIODS:
        table[f"p_{name}"] = (table.period == name).astype(float)
    return table


def clouds(rows, labels, apart):
    """Points of twelve numbers around a middle for each label."""
    rng = np.random.default_rng(3)
    middles = {name: rng.normal(size=12) * apart for name in sorted(set(labels))}
    return np.array([middles[name] for name in labels]) + rng.normal(size=(len(rows), 12))


def test_clusters_that_are_the_periods_have_all_of_them_and_noise_has_what_chance_has(rows):
    descriptions = {"periods": clouds(rows, rows.period, 30), "noise": clouds(rows, rows.period, 0)}
    table = clusters.measure(descriptions, rows, seeds=(1, 2))
    assert table.loc["periods", ["ari", "nmi", "purity", "same_period"]].tolist() == [1, 1, 1, 1]
    assert table.silhouette["periods"] > 0.8 > 0.3 > table.silhouette["noise"]
    assert abs(table.ari["noise"]) < 0.1 and abs(table.ari["chance"]) < 0.1
    assert table.same_period["chance"] == pytest.approx(19 / 59)
    assert table.purity["noise"] == pytest.approx(table.purity["chance"], abs=0.15)
    assert "±" in clusters.readable(table).loc["noise", "purity"]
    assert not clusters.readable(table).loc["chance"].str.contains("nan|±").any()


def test_figures_are_those_of_scikit_learn(rows):
    description = clouds(rows, rows.period, 1.0)
    table = clusters.measure({"some": description}, rows, seeds=(4,)).loc["some"]
    points = clusters.standardised(description)
    found = clusters.cluster(points, 3, 4)
    assert table.ari == pytest.approx(adjusted_rand_score(rows.period, found))
    matrix = contingency_matrix(rows.period, found)
    assert table.purity == pytest.approx(matrix.max(axis=0).sum() / matrix.sum())
    for labels, figure in ((rows.period, table.same_period), (rows.painter, table.same_painter)):
        nearest = cross_val_predict(KNeighborsClassifier(1), points, labels, cv=LeaveOneOut())
        counted = labels != ""
        assert figure == pytest.approx((nearest == labels)[counted].mean())


def test_painters_with_a_single_picture_do_not_count(rows):
    rows["painter"] = [f"painter {number}" for number in range(60)]
    table = clusters.measure({"some": clouds(rows, rows.period, 1)}, rows, seeds=(1,))
    assert table.same_painter.isna().all()
    assert clusters.readable(table)["nearest has the same painter"].tolist() == ["", ""]


def test_clusters_are_numbered_in_time_and_pairs_of_periods_share_them(rows):
    given = rows.period.map({"01-early": 7, "02-high": 7, "05-baroque": 2}).to_numpy()
    found = clusters.in_time_order(given, rows)
    assert sorted(set(zip(rows.period, found, strict=True))) == [
        ("01-early", 1),
        ("02-high", 1),
        ("05-baroque", 2),
    ]
    assert clusters.composition(found, rows).to_numpy().tolist() == [[20, 20, 0], [0, 0, 20]]
    pairs = clusters.together(found, rows)
    assert pairs.iloc[0, :3].tolist() == ["01-early", "02-high", 1.0]
    assert pairs.share.tolist() == [1, 0, 0] and pairs.times_chance[0] == pytest.approx(3)
    assert clusters.together(found, rows, least=21).empty


def test_the_most_central_pictures_are_those_nearest_to_the_mean(rows):
    points = np.arange(60, dtype=float)[:, None]
    found = np.where(np.arange(60) < 20, 1, 2)
    middle = clusters.central(points, found, 3)
    assert sorted(middle[1]) in ([8, 9, 10], [9, 10, 11]) and 9 in middle[1][:2]
    assert sorted(middle[2][:2]) == [39, 40]


def test_plots_name_every_period_and_show_every_picture(rows):
    points = clouds(rows, rows.period, 5)
    figure = clusters.plot_pca(points, rows)
    assert len(figure.axes[0].collections[0].get_offsets()) == 60
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == PERIODS
    found = clusters.in_time_order(clusters.cluster(points, 3), rows)
    shown = clusters.plot_composition(found, rows).axes[0]
    assert [text.get_text() for text in shown.get_xticklabels()] == PERIODS
    assert [text.get_text() for text in shown.texts] == ["100"] * 3


def squares(number=40, size=16):
    """Pictures of one colour each, with a darker half."""
    rng = np.random.default_rng(0)
    colours = torch.from_numpy(rng.integers(60, 256, (number, 3, 1, 1), dtype=np.uint8))
    pictures = colours.repeat(1, 1, size, size)
    pictures[:, :, : size // 2] //= 2
    return pictures


@pytest.mark.parametrize(("kind", "numbers"), [("3-9-3", 3 * 8 * 8), ("deep", 16 * 2 * 2)])
def test_an_autoencoder_learns_to_give_pictures_back(kind, numbers):
    pixels = squares()
    learn = autoencoder.learner(pixels, kind, seed=1)
    before = np.square(autoencoder.reconstructions(learn, pixels) - pixels.numpy().astype(float))
    with learn.no_bar(), learn.no_logging():
        learn.fit(15, 1e-2)
    made = autoencoder.reconstructions(learn, pixels)
    assert made.shape == pixels.shape and made.dtype == np.uint8
    assert np.square(made - pixels.numpy().astype(float)).mean() < 0.7 * before.mean()
    codes = autoencoder.codes(learn, pixels, batch_size=7)
    assert codes.shape == (40, numbers)
    one_by_one = np.concatenate([autoencoder.codes(learn, picture[None]) for picture in pixels])
    assert codes == pytest.approx(one_by_one, abs=1e-5)
    figure = clusters.plot_reconstructions(pixels, {kind: learn}, number=4)
    assert figure.axes[0].images[0].get_array().shape[:2] == (32, 64)


def test_a_wrong_kind_or_size_is_named():
    with pytest.raises(SettingError, match="kind"):
        autoencoder.learner(squares(), "huge")
    with pytest.raises(SettingError, match="multiple of 8"):
        autoencoder.learner(squares(size=20), "deep")


def test_one_period_leaves_nothing_to_part(own_run):
    data, out = own_run
    table = pd.read_csv(out / "predictions.csv")
    table[table.period == table.period[0]].to_csv(out / "predictions.csv", index=False)
    with pytest.raises(InputError, match="fewer than two periods"):
        clusters.paintings(data, out)


@pytest.mark.slow
def test_the_notebook_runs(own_run, tmp_path):
    import nbformat

    from artclf import run

    data, out = own_run
    copy = run.execute(
        ROOT / "notebooks/experiments/15_clusters.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(data),
            "EXPORT": str(out),
            "PIXELS": 16,
            "EPOCHS": 1,
            "SEEDS": (1,),
            "ARCH": "efficientnet_lite0",
            "SIZE": 64,
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [item for cell in book.cells if cell.cell_type == "code" for item in cell.outputs]
    texts = " ".join(str(item.get("data", {}).get("text/plain", "")) for item in outputs)
    for name in ("pixels", "autoencoder deep", "Gram matrices", "answers of the export", "chance"):
        assert name in texts
    assert sum("image/png" in item.get("data", {}) for item in outputs) == 4
    assert not any(item.get("name") == "stderr" for item in outputs)
    page = (out / "clusters.html").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"Cluster \d+: (\d+) picture", page)]
    assert sum(numbers) == len(clusters.paintings(data, out))
    assert "data:image/jpeg" in page
