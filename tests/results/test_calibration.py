"""Temperature and calibration error, against torchmetrics and torch; and what an export and its
classifier make of it.
"""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

import artclf
from artclf import predict, train
from artclf.results import calibration, evaluation

VOCAB = ["01-a", "02-b", "03-c", "04-d", "05-e"]


def answers(images=600, scale=3.0, seed=0):
    """Logits of shape (images, 5) and classes: drawn from softmax(logits), the logits then `scale`
    times too large.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (images, 5))
    given = [rng.choice(5, p=p) for p in torch.tensor(logits).softmax(1).numpy()]
    return torch.tensor(scale * logits), np.array(given)


def table(p, given, part="test"):
    p = np.asarray(p)
    rows = pd.DataFrame(
        {
            "file": [f"{i}.jpg" for i in range(len(p))],
            "part": part,
            "period": np.array(VOCAB)[given],
            "predicted": np.array(VOCAB)[p.argmax(1)],
            "probability": p.max(1),
            "loss": -np.log(p[np.arange(len(p)), given]),
        }
    )
    return rows.join(pd.DataFrame(p, columns=[f"p_{name}" for name in VOCAB]))


def test_tempering_probabilities_is_dividing_logits_and_can_be_undone():
    logits, _ = answers()
    for temperature in (0.4, 1, 2.5):
        expected = (logits / temperature).softmax(1).numpy()
        found = calibration.temper(logits.softmax(1).numpy(), temperature)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose(
            calibration.temper(found, 1 / temperature), logits.softmax(1), atol=1e-9
        )
    assert calibration.temper([[1, 0, 0]], 2).sum() == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.5, 1.8, 3])
def test_the_temperature_is_that_of_torchs_optimiser_and_finds_what_logits_were_multiplied_by(
    scale,
):
    logits, given = answers(scale=scale)
    log = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log], lr=0.1, max_iter=200)

    def closure():
        optimiser.zero_grad()
        loss = functional.cross_entropy(logits / log.exp(), torch.tensor(given))
        loss.backward()
        return loss

    optimiser.step(closure)
    temperature, why = calibration.fit(logits.softmax(1).numpy(), given)
    assert temperature == pytest.approx(
        log.exp().item(), rel=1e-3
    ) and temperature == pytest.approx(scale, rel=0.15)
    assert why == ""


def test_it_stays_1_where_valid_can_not_tell():
    logits, given = answers()
    p = logits.softmax(1).numpy()
    assert calibration.fit(p[:19], given[:19]) == (
        1.0,
        "19 images of valid are too few to fit it on",
    )
    assert calibration.fit(p[:0], given[:0])[0] == 1.0
    temperature, why = calibration.fit(p, p.argmax(1))
    assert temperature == 1.0 and "valid has no error" in why
    best, _ = calibration.fit(p, given)
    temperature, why = calibration.fit(calibration.temper(p, best), given)
    assert temperature == pytest.approx(1, abs=1e-3)
    alike = np.full((40, 5), 0.2)
    assert calibration.fit(alike, np.arange(40) % 5) == (
        1.0,
        "none gives valid a higher likelihood",
    )


@pytest.mark.parametrize("scale, images", [(1, 600), (3, 600), (3, 7), (30, 600)])
def test_the_calibration_error_agrees_with_torchmetrics(scale, images):
    logits, given = answers(images, scale)
    p = logits.softmax(1).clamp(max=1 - 1e-9)  # torchmetrics gives 1.0 a bin of its own
    expected = multiclass_calibration_error(
        p, torch.tensor(given), num_classes=5, n_bins=15, norm="l1"
    ).item()
    assert calibration.error(table(p, given)) == pytest.approx(expected, abs=1e-6)
    bins = calibration.bins(table(p, given))
    assert (
        bins.images.sum() == images
        and len(bins) == 15
        and (bins.high - bins.low).round(9).nunique() == 1
    )
    held = bins[bins.images > 0]
    assert (held.confidence > held.low).all() and (held.confidence <= held.high).all()


def test_what_can_be_answered_is_counted_above_a_threshold_of_valid():
    logits, given = answers(900)
    p = logits.softmax(1).numpy()
    rows = pd.concat(
        [table(p[:400], given[:400], "valid"), table(p[400:], given[400:])], ignore_index=True
    )
    for row in calibration.answerable(rows).itertuples():
        valid, test = rows[rows.part == "valid"], rows[rows.part == "test"]
        lower = [t for t in valid.probability if t < row.threshold]

        def of(part, t):
            return (part.period == part.predicted)[part.probability >= t].mean()

        assert of(valid, row.threshold) >= row.asked and all(
            of(valid, t) < row.asked for t in lower
        )
        sure = test[test.probability >= row.threshold]
        assert row.answered == len(sure) and row.share == len(sure) / 500
        assert (
            row.accuracy
            == (sure.period == sure.predicted).mean()
            == pytest.approx(row.asked, abs=0.08)
        )
    assert calibration.answerable(rows).share.is_monotonic_decreasing


def test_where_valid_never_reaches_an_accuracy_nothing_is_answered():
    p = np.tile([0.6, 0.1, 0.1, 0.1, 0.1], (30, 1))
    wrong = table(p, np.full(30, 1), "valid")
    for rows in (pd.concat([wrong, table(p, np.zeros(30, int))]), table(p, np.zeros(30, int))):
        found = calibration.answerable(rows)
        assert (
            found.threshold.isna().all()
            and (found.answered == 0).all()
            and found.accuracy.isna().all()
        )


def test_the_summary_is_strict_json_and_tells_before_from_after():
    logits, given = answers(scale=3)
    p = logits.softmax(1).numpy()
    after = table(calibration.temper(p, 3), given)
    found = json.loads(json.dumps(calibration.summary(after, 3.0), allow_nan=False))
    assert set(found) == {"temperature", "why", "test"} and found["test"]["images"] == 600
    assert found["test"]["nll_before"] == pytest.approx(
        functional.cross_entropy(logits, torch.tensor(given)).item()
    )
    assert found["test"]["ece_before"] == pytest.approx(
        calibration.error(table(p, given)), abs=1e-6
    )
    assert found["test"]["nll"] == pytest.approx(after.loss.mean()) and found["test"]["ece"] < 0.05
    assert found["test"]["ece_before"] > 0.1


# An export and its classifier


@pytest.fixture(scope="module")
def tempered(drawn, export, tmp_path_factory, no_workers):
    """An export of a head that is too sure, with 15 valid images, which are enough here; and its
    learner.
    """
    fewest, calibration.FEWEST = calibration.FEWEST, 5
    out = tmp_path_factory.mktemp("tempered")
    learn = train.learner(
        drawn, out, arch="efficientnet_lite0", size=64, batch_size=8, parts=(40, 40, 20)
    )
    with torch.no_grad():
        learn.model[1][-1].weight *= 8  # very sure, and often wrong
    predict.export(learn, out)
    yield out, learn
    calibration.FEWEST = fewest


def settings(out, name="config.json"):
    return json.loads((out / name).read_text(encoding="utf-8"))


def test_an_export_keeps_the_temperature_and_its_predictions_are_tempered(tempered, drawn):
    out, learn = tempered
    temperature, predictions = settings(out)["temperature"], evaluation.read(out, drawn)
    assert temperature > 1.5 and learn.config["temperature"] == 1.0
    clf, files = artclf.load(out), [drawn / file for file in predictions.file]
    logits = torch.cat(
        [clf.learner.model.eval()(x) for x, *_ in clf.learner.dls.test_dl(files, num_workers=0)]
    )
    scores = predictions.filter(regex="^p_").to_numpy()
    np.testing.assert_allclose(scores, (logits / temperature).softmax(1).detach(), atol=1e-3)
    np.testing.assert_allclose(scores, clf.probabilities(files)[0], atol=1e-5)
    plain = clf.learner.get_preds(dl=clf.learner.dls.test_dl(files, num_workers=0))[0]
    assert (plain.argmax(1).numpy() == scores.argmax(1)).all() and plain.max(1)[
        0
    ].mean() > scores.max(1).mean()
    np.testing.assert_allclose(
        calibration.untempered(predictions, temperature).probability, plain.max(1)[0], atol=1e-3
    )


def test_metrics_tell_what_the_temperature_changed_and_valid_is_never_worse(tempered):
    found = settings(tempered[0], "metrics.json")["calibration"]
    assert found["temperature"] == settings(tempered[0])["temperature"] and found["why"] == ""
    assert found["valid"]["nll"] < found["valid"]["nll_before"] and found["valid"]["images"] == 15
    assert set(found["test"]) == {"images", "ece", "ece_before", "nll", "nll_before"}


def test_exporting_again_gives_the_same(tempered):
    out, learn = tempered
    kept = {name: (out / name).read_bytes() for name in ("config.json", "predictions.csv")}
    metrics = settings(out, "metrics.json")
    predict.export(learn, out)
    assert settings(out)["temperature"] == json.loads(kept["config.json"])["temperature"]
    assert (out / "predictions.csv").read_bytes() == kept["predictions.csv"]
    assert settings(out, "metrics.json")["calibration"] == metrics["calibration"]


def test_with_few_valid_images_it_stays_1_and_that_is_said(export):
    found = settings(export, "metrics.json")["calibration"]
    assert (
        settings(export)["temperature"] == found["temperature"] == 1.0 and "too few" in found["why"]
    )
    assert found["test"]["ece"] == pytest.approx(found["test"]["ece_before"])


def test_the_temperature_of_the_periods_leaves_the_artists_alone(export, drawn, tmp_path):
    out = shutil.copytree(export, tmp_path / "copy", ignore=shutil.ignore_patterns("models"))
    files = sorted((drawn / "clean").rglob("*.jpg"))[:4]

    def load(temperature):  # the five classes as three periods and two artists
        clf = artclf.load(out)
        config = {
            **clf.config,
            "vocab": clf.vocab[:3],
            "artists": clf.vocab[3:],
            "temperature": temperature,
        }
        model = clf.model
        clf = artclf.Classifier(clf.learner, config)
        clf.model = model
        return clf.probabilities(files)[0]

    plain, warm = load(1.0), load(4.0)
    np.testing.assert_allclose(warm[:, :3], calibration.temper(plain[:, :3], 4), atol=1e-5)
    np.testing.assert_array_equal(warm[:, 3:], plain[:, 3:])


# Abstention


def test_below_a_probability_the_classifier_does_not_answer(export, drawn):
    clf, files = artclf.load(export), sorted((drawn / "clean").rglob("*.jpg"))
    usual = clf.predict([*files, "none.jpg"])
    least = float(usual.probability.median())
    found = clf.predict([*files, "none.jpg"], min_probability=least)
    assert list(found) == [*usual, "answer"]
    pd.testing.assert_frame_equal(
        found[["image", "probability", "top", "error"]],
        usual[["image", "probability", "top", "error"]],
    )

    def plain(name):
        return name.split("-", 1)[1].replace("_", " ")

    for row, before in zip(found[:-1].itertuples(), usual.itertuples(), strict=False):
        if row.probability >= least:
            assert (row.predicted, row.answer) == (before.predicted, plain(row.predicted))
        else:
            assert pd.isna(row.predicted)
            assert (
                row.answer == f"not sure, between {plain(row.top[0][0])} and {plain(row.top[1][0])}"
            )
    assert 0 < found.predicted.isna().sum() - 1 < len(files)
    assert found.answer.iloc[-1] == "" and found.error.iloc[-1] == "file is missing"


def test_the_ends_of_the_range_answer_all_or_nothing(export, drawn):
    clf, files = artclf.load(export), sorted((drawn / "clean").rglob("*.jpg"))[:5]
    assert clf.predict(files, min_probability=0).predicted.notna().all()
    assert clf.predict(files, k=1, min_probability=1.0).answer.str.contains(" and ").all()
    assert clf.predict([], min_probability=0.5).empty
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="min_probability is"):
            clf.predict(files, min_probability=wrong)


def test_the_command_says_that_it_is_not_sure(export, drawn, command):
    file = next((drawn / "clean/05-baroque").iterdir())
    code, out, _ = command("predict", file, "--out", export, "--min-probability", "1", "--json")
    row = json.loads(out)["0"]
    assert code == 0 and row["predicted"] is None and row["answer"].startswith("not sure, between ")
    assert "answer" not in json.loads(command("predict", file, "--out", export, "--json")[1])["0"]
    assert command("predict", file, "--out", export, "--min-probability", "1.5")[0] == 2
    assert command("predict", "none.jpg", "--out", export, "--min-probability", ".5")[0] == 1
