"""Protocols: the recipe's head out of fold, held against scikit-learn, and probabilities that can be
believed.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from artclf.data import levels, splits
from artclf.data.catalogue import Catalogue
from artclf.lab import leaks, protocols
from artclf.model.features import of_images
from artclf.model.folds import cut
from artclf.results.recipe import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"arch": "efficientnet_lite0", "size": 64, "folds": 2, "seeds": (1,), "resamples": 20}


@pytest.fixture(scope="module")
def signed(drawn, tmp_path_factory) -> Path:
    """The data set `drawn` with four painters and three sources in each period."""
    data = shutil.copytree(drawn, tmp_path_factory.mktemp("signed") / "data")
    painters = ["Anna Ancher", "Bo Bartlett", "Carl Larsson", "Dora Maar"]
    with Catalogue(data) as catalogue:
        places: dict[str, int] = {}
        for row in catalogue.select():
            place = places[row["period"]] = places.get(row["period"], -1) + 1
            facts = {"artist": painters[place % 4], "source": f"museum {place % 3}"}
            catalogue.update([{"url": row["url"], "period": row["period"], **facts}])
    return data


def test_every_protocol_is_measured_and_sources_are_named(signed, tmp_path, no_workers):
    levelled = levels.level_sources(signed, tmp_path / "level", 64, workers=1)
    figures, believed = protocols.measure(signed, levelled, **SMALL)
    assert list(figures.index) == ["grouped", "artist", "source", "levelled"]
    assert figures.groups.to_dict() == {"grouped": 40, "artist": 4, "source": 3, "levelled": 4}
    assert (figures.images == 40).all() and (figures.periods == 5).all()
    assert (
        (figures.macro_f1_low <= figures.macro_f1) & (figures.macro_f1 <= figures.macro_f1_high)
    ).all()
    assert list(believed.index) == ["grouped", "artist"]
    said = protocols.text(figures, believed)
    assert "painters it never saw" in said and f"{figures.macro_f1.artist:.3f}" in said


def test_the_figures_are_those_of_scikit_learn(signed, no_workers):
    figures, _ = protocols.measure(signed, **SMALL)
    images = leaks.images(signed, ["artist"], 2)
    body, config = protocols.frozen_body(SMALL["arch"], SMALL["size"])
    x = of_images(signed, images, body, config)[:, 0]
    y = images.period.to_numpy()
    folds = cut(y, images.by_artist.to_numpy(), 2, 1)
    head = LogisticRegression(
        C=1 / (DEFAULTS.ridge * len(folds[0][0])), class_weight="balanced", max_iter=5000, tol=1e-8
    )
    answers = cross_val_predict(head, StandardScaler().fit_transform(x), y, cv=folds)
    assert figures.accuracy.artist == pytest.approx((answers == y).mean(), abs=0.026)  # one picture
    assert figures.macro_f1.artist == pytest.approx(f1_score(y, answers, average="macro"), abs=0.04)


def test_several_bodies_are_measured(signed, no_workers):
    both = "efficientnet_lite0+efficientnet_lite1"
    figures, _ = protocols.measure(signed, **{**SMALL, "arch": both})
    assert figures.macro_f1.between(0, 1).all()
    body, config = protocols.frozen_body(both, 64)
    images = leaks.images(signed, ["artist"], 2)
    x = of_images(signed, images, body, config)
    count = [protocols.frozen_body(name, 64)[0].n_features for name in both.split("+")]
    assert x.shape[-1] == sum(count)


def test_without_two_sources_a_line_says_what_is_not_measured(drawn, capsys, no_workers):
    figures, _ = protocols.measure(drawn, **SMALL)
    assert list(figures.index) == ["grouped", "artist"]
    assert "source" in capsys.readouterr().out


def made_run(certainty: float, seed: int) -> pd.DataFrame:
    """Predictions of 600 pictures in three folds, whose logits are `certainty` times too large."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(600, 3)) * 1.5
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    given = np.array([rng.choice(3, p=row) for row in chances])
    said = np.exp(certainty * logits)
    said /= said.sum(1, keepdims=True)
    table = pd.DataFrame(said, columns=["p_a", "p_b", "p_c"])
    names = np.array(["a", "b", "c"])
    return table.assign(
        image=np.arange(600),
        seed=1,
        fold=np.arange(600) % 3,
        part="test",
        period=names[given],
        predicted=names[said.argmax(1)],
    )


def test_what_is_fitted_on_painters_never_seen_holds_for_them():
    runs = {"grouped": made_run(1.0, 1), "artist": made_run(3.0, 2)}
    table = protocols.calibration_on_unseen(runs)
    assert table.temperature.artist == pytest.approx(3, rel=0.2)
    assert table.temperature.grouped == pytest.approx(1, rel=0.2)
    assert table.ece.artist < 0.05 < 0.15 < table.ece.grouped
    assert table.nll.artist < table.nll.grouped
    for percent in ("80%", "90%"):
        asked = float(percent.rstrip("%")) / 100
        assert table[f"right_{percent}"].artist == pytest.approx(asked, abs=0.05)
        assert table[f"right_{percent}"].grouped < table[f"right_{percent}"].artist
        assert table[f"answered_{percent}"].grouped > table[f"answered_{percent}"].artist


def test_the_command_prints_the_tables(signed, command):
    code, out, _ = command("measure", signed, "--arch", "efficientnet_lite0", "--size", 64)
    assert code == 0 and "macro F1" in out and "source: sources it never saw" in out
    assert code == 0 and "answered_90%" in out


def test_sources_stay_together_in_a_split(signed):
    images = splits.items(signed, "source")
    rows = splits.usable(signed).set_index("file").loc[images.file]
    parts = images.part.groupby(rows.source.to_numpy()).nunique()
    assert (parts == 1).all() and images.part.nunique() == 3


@pytest.mark.slow
def test_the_notebook_runs(signed, tmp_path):
    import nbformat

    from artclf import run

    copy = run.execute(
        ROOT / "notebooks/experiments/19_protocols.ipynb",
        tmp_path / "copy.ipynb",
        {
            "DATA": str(signed),
            "LEVELLED": str(tmp_path / "level"),
            "ARCH": "efficientnet_lite0",
            "IMAGE_SIZE": 64,
            "FOLDS": 2,
            "SEEDS": (1,),
            "RESAMPLES": 20,
        },
    )
    book = nbformat.read(copy, 4)
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    text = " ".join(str(out.get("data", {}).get("text/plain", "")) for out in outputs)
    assert "grouped" in text and "source" in text and "right_90%" in text
    assert any("image/png" in out.get("data", {}) for out in outputs)
