"""A network that learned from all parts, in an export whose figures are those of one that did not."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from artclf import predict, train
from artclf.base.errors import InputError
from artclf.base.files import sha256_of
from artclf.data import cleaning, splits
from artclf.data.catalogue import Catalogue
from artclf.model import unseen
from artclf.model.features import of_images
from artclf.results import calibration, evaluation, explorer, report
from artclf.results.recipe import command

SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}


def read(out) -> tuple[dict, dict, pd.DataFrame]:
    config, metrics = (
        json.loads((out / name).read_text(encoding="utf-8"))
        for name in ("config.json", "metrics.json")
    )
    return config, metrics, pd.read_csv(out / "predictions.csv")


def add_onnx(out, config: dict):
    """Files and settings such as `artclf export --onnx --int8` leaves."""
    hashes = dict(config["hashes"])
    for name in ("model.onnx", "model-int8.onnx"):
        (out / name).write_bytes(name.encode())
        hashes[name] = sha256_of(out / name)
    content = {**config, "hashes": hashes, "int8": {"accuracy": 0.7, "accuracy_int8": 0.7}}
    (out / "config.json").write_text(json.dumps(content), encoding="utf-8")


def test_figures_stay_and_the_network_learned_from_all(drawn, tmp_path, no_workers):
    learn = train.fit(drawn, tmp_path, 2, 0, final=False, **SMALL)
    config, metrics, before = read(tmp_path)
    measured = predict.load(tmp_path).learner.model[1][-1].weight.clone()
    add_onnx(tmp_path, config)
    again = train.learn_from_all(learn, tmp_path)
    final_config, final_metrics, after = read(tmp_path)
    assert not list(tmp_path.glob("*.onnx")) and "model.onnx" not in final_config["hashes"]

    images = splits.items(drawn)
    assert len(again.dls.train_ds) == len(images)
    shipped = predict.load(tmp_path).learner.model[1]
    assert torch.equal(shipped[-1].weight, again.model[1][-1].weight)
    assert not torch.equal(shipped[-1].weight, measured)
    classifier = predict.load(tmp_path, measured=True)
    assert torch.equal(classifier.learner.model[1][-1].weight, measured)
    assert classifier.config["learned_from"] == ["train"]
    assert classifier.config["temperature"] == config["temperature"]
    x = of_images(drawn, images, again.model[0], config, (0, 1))
    assert np.allclose(shipped[0].running_mean, x.mean((0, 1)), atol=1e-4)

    is_train = before.part == "train"
    assert after[~is_train].equals(before[~is_train])
    assert not np.allclose(after.loss[is_train], before.loss[is_train])
    for part in ("valid", "test"):
        assert final_metrics["metrics"][part] == metrics["metrics"][part]
    assert predict.headline(tmp_path) == {"part": "test", **metrics["metrics"]["test"]}
    assert final_metrics["metrics"]["train"] == evaluation.metrics(after)["train"]
    assert final_metrics["final"]["learned_from"] == ["train", "valid", "test"]
    assert final_metrics["final"]["images"] == len(images)
    assert final_config == {
        **config,
        "learned_from": ["train", "valid", "test"],
        "measured": {"temperature": config["temperature"], "learned_from": ["train"]},
        "hashes": final_config["hashes"],
        "temperature": final_metrics["final"]["temperature"],
    }
    assert "final" not in command(final_metrics, drawn, tmp_path)
    assert command(metrics, drawn, tmp_path).endswith("--no-final")
    hashes = final_config["hashes"]
    assert hashes["measured.safetensors"] == config["hashes"]["model.safetensors"]
    assert explorer.saliency_folder(tmp_path).name == hashes["measured.safetensors"][:8]

    add_onnx(tmp_path, final_config)
    predict.export(learn, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))
    assert not (tmp_path / "measured.safetensors").exists()
    assert predict.load(tmp_path, measured=True).config == predict.load(tmp_path).config
    assert explorer.saliency_folder(tmp_path).name == hashes["measured.safetensors"][:8]


def test_a_second_network_from_all_keeps_what_was_measured(drawn, tmp_path, no_workers):
    learn = train.fit(drawn, tmp_path, 1, 0, **SMALL)
    measured = (tmp_path / "measured.safetensors").read_bytes()
    config, metrics, before = read(tmp_path)
    train.learn_from_all(learn, tmp_path)
    assert (tmp_path / "measured.safetensors").read_bytes() == measured
    again, metrics_again, after = read(tmp_path)
    assert again["measured"] == config["measured"]
    assert again["hashes"]["measured.safetensors"] == config["hashes"]["measured.safetensors"]
    assert metrics_again == metrics and after.equals(before)


def test_a_period_of_one_painter_does_not_change_the_temperature(drawn, tmp_path, no_workers):
    data = shutil.copytree(drawn, tmp_path / "data")
    single = splits.items(data).period.iloc[0]
    with Catalogue(data) as catalogue:
        for place, row in enumerate(catalogue.select()):
            painter = "Anna Ancher" if row["period"] == single else f"Painter {place}"
            key = {"url": row["url"], "period": row["period"]}
            catalogue.update([{**key, "artist": painter}])
    train.fit(data, tmp_path / "out", 1, 0, **SMALL)
    config, metrics, predictions = read(tmp_path / "out")
    images = splits.items(data)
    probabilities = unseen.probabilities(data, images, config)
    given = pd.Index(config["vocab"]).get_indexer(images.period)
    is_single = (images.period == single).to_numpy()
    assert np.isnan(probabilities[is_single, config["vocab"].index(single)]).all()
    others = ~is_single
    expected, _ = calibration.fit(np.nan_to_num(probabilities[others]), given[others])
    assert metrics["final"]["temperature"] == pytest.approx(expected)
    assert predictions.probability.notna().all()


def test_a_measured_network_that_is_gone_or_damaged_is_refused(drawn, tmp_path, no_workers):
    train.fit(drawn, tmp_path, 1, 0, **SMALL)
    file = tmp_path / "measured.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="measured.safetensors is not the file"):
        predict.load(tmp_path, measured=True)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="measured.safetensors"):
        predict.load(tmp_path, measured=True)
    assert predict.load(tmp_path).config["learned_from"] == ["train", "valid", "test"]


def test_the_head_of_all_images_has_the_least_loss(drawn, tmp_path, no_workers):
    train.fit(drawn, tmp_path, 1, 0, **SMALL)
    config = read(tmp_path)[0]
    images = splits.items(drawn)
    x = of_images(drawn, images, unseen.frozen_body(config), config, (0, 1))
    expected = unseen.LinearHead(0.3, tau=config["tau"]).fit(x, images.period.to_numpy())
    head = predict.load(tmp_path).learner.model[1].eval()
    with torch.inference_mode():
        answers = head(torch.from_numpy(x[:, 0].copy())).softmax(1)
    places = [config["vocab"].index(name) for name in expected.classes_]
    assert np.allclose(answers[:, places], expected.predict_proba(x), atol=1e-4)


@pytest.mark.parametrize("settings", [{"ridge": 0}, {"dropout": 0.5}, {"pretrained": False}])
def test_a_head_without_a_single_minimum_is_trained_again(drawn, tmp_path, no_workers, settings):
    train.fit(drawn, tmp_path, 1, 0, **SMALL, **settings)
    assert (tmp_path / "models" / "all" / "history.csv").exists()


def test_predictions_of_train_are_of_heads_that_did_not_see_it(drawn, tmp_path, no_workers):
    train.fit(drawn, tmp_path, 1, 0, **SMALL)
    config, metrics, predictions = read(tmp_path)
    images = splits.items(drawn)
    expected = unseen.probabilities(drawn, images, config)
    is_train = (images.part == "train").to_numpy()
    places = pd.Index(config["vocab"]).get_indexer(predictions.predicted)
    assert (places == expected.argmax(1))[is_train].all()
    right = expected.argmax(1) == pd.Index(config["vocab"]).get_indexer(images.period)
    assert metrics["final"]["unseen"]["accuracy"] == pytest.approx(right.mean())
    known = splits.usable(drawn).painter != ""
    assert metrics["final"]["painter_known"] == known.sum()
    page = report.page(evaluation.read(tmp_path, drawn), drawn, tmp_path)
    assert f"from the {len(images)} pictures of all three parts" in " ".join(page.split())
    assert f"heads give {right.mean():.1%} of all pictures" in " ".join(page.split())


def test_a_network_that_started_from_a_file_starts_from_it_again(drawn, tmp_path, no_workers):
    torch.manual_seed(1)
    file = tmp_path / "mine.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    settings = {**SMALL, "arch": "test_vit", "weights": file}
    learn = train.fit(drawn, tmp_path / "out", 1, 0, **settings)
    config, _, predictions = read(tmp_path / "out")
    shipped = predict.load(tmp_path / "out").learner.model[0].state_dict()
    frozen = unseen.frozen_body(config, file).state_dict()
    for name, tensor in learn.model[0].state_dict().items():
        assert torch.equal(shipped[name], tensor) and torch.equal(frozen[name], tensor)
    images = splits.items(drawn)
    expected = unseen.probabilities(drawn, images, config, weights=file)
    is_train = (images.part == "train").to_numpy()
    places = pd.Index(config["vocab"]).get_indexer(predictions.predicted)
    assert (places == expected.argmax(1))[is_train].all()
    with pytest.raises(InputError, match="test_vit starts from weights of its own"):
        unseen.probabilities(drawn, images, config)


@pytest.mark.slow
def test_several_bodies_learn_from_all(drawn, tmp_path, no_workers):
    both = "efficientnet_lite0+efficientnet_lite1"
    learn = train.fit(drawn, tmp_path, 1, 0, **{**SMALL, "arch": both})
    config, metrics, predictions = read(tmp_path)
    frozen = unseen.frozen_body(config)
    assert frozen.n_features == learn.model[0].n_features and config["stages"] == frozen.version
    assert metrics["final"]["unseen"]["accuracy"] > 0
    images = splits.items(drawn)
    expected = unseen.probabilities(drawn, images, config)
    is_train = (images.part == "train").to_numpy()
    places = pd.Index(config["vocab"]).get_indexer(predictions.predicted)
    assert (places == expected.argmax(1))[is_train].all()


def test_no_fold_learns_from_the_painter_that_it_answers_for(drawn, tmp_path, monkeypatch):
    data = shutil.copytree(drawn, tmp_path / "data")
    painters = ["Anna Ancher", "Bo Bartlett", "Carl Larsson", "Dora Maar", "Edgar Degas"]
    with Catalogue(data) as catalogue:
        rows = catalogue.select()
        catalogue.update(
            {"url": row["url"], "period": row["period"], "artist": painters[place % 5]}
            for place, row in enumerate(rows)
        )
    images = splits.items(data)
    rows = splits.usable(data).set_index("file").loc[images.file]
    learned = []

    class Spy(unseen.LinearHead):
        def fit(self, x, y):
            learned.append(x)
            return super().fit(x, y)

    monkeypatch.setattr(unseen, "LinearHead", Spy)
    config = train.learner(data, tmp_path, **SMALL).config
    probabilities = unseen.probabilities(data, images, config)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    x = unseen.reduced(of_images(data, images, unseen.frozen_body(config), config)[:, 0])
    assert len(learned) == 5  # as many folds as painters
    for of_fold in learned:
        is_learned = (x[:, None] == of_fold[None]).all(2).any(1)
        inside = set(rows.painter[is_learned])
        assert len(inside) == 4 and inside.isdisjoint(rows.painter[~is_learned])


def test_a_learner_that_was_trained_since_its_export_is_refused(drawn, tmp_path, no_workers):
    learn = train.fit(drawn, tmp_path, 1, 0, final=False, **SMALL)
    before = (tmp_path / "model.safetensors").read_bytes()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-4)
    with pytest.raises(InputError, match="trained since it was exported"):
        train.learn_from_all(learn, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_class_called_NA_stays_one(drawn, tmp_path, no_workers):
    data = shutil.copytree(drawn, tmp_path / "data")
    name = splits.items(data).period.iloc[0]
    with Catalogue(data) as catalogue:
        rows = [row for row in catalogue.select() if row["period"] == name]
        for row in rows:
            key = (row["url"], name)
            catalogue.db.execute(
                "UPDATE images SET review = 'move:NA' WHERE url = ? AND period = ?", key
            )
    cleaning.normalise(data, workers=1)
    train.fit(data, tmp_path / "out", 1, 0, **SMALL)
    predictions = evaluation.read(tmp_path / "out", data)
    assert (predictions.period == "NA").sum() == len(rows)


def test_a_recipe_that_cannot_be_repeated_and_a_strange_export_are_refused(
    drawn, export, tmp_path, no_workers
):
    learn = train.learner(drawn, tmp_path, **SMALL, seed=7)
    with pytest.raises(InputError, match="no export of this learner"):
        train.learn_from_all(learn, export)
    table = splits.items(drawn, "grouped")
    own = train.learner(drawn, tmp_path, **SMALL, split=table)
    out = shutil.copytree(export, tmp_path / "out")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    (out / "metrics.json").write_text(json.dumps({**metrics, "recipe": None}), encoding="utf-8")
    with pytest.raises(InputError, match="can't be repeated"):
        train.learn_from_all(own, out)
    assert (out / "config.json").read_bytes() == (export / "config.json").read_bytes()
