"""Several bodies as one network: each sees pictures as it was trained, and everything that works
with one body works with them.
"""

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import artclf
from artclf import train
from artclf.base.errors import InputError
from artclf.data import splits
from artclf.model import attribution, backbones, exports, features, network, stages, wheels
from artclf.model.explainer import Explainer
from artclf.model.pixels import Pictures

LITE, RESNET = "efficientnet_lite0", "resnet18"
BOTH = f"{LITE}+{RESNET}"
MIXED = f"{RESNET}+test_vit+vit_pe_core_tiny_patch16_384"


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A cache of torchvision's hub with random weights of ResNet18."""
    from torchvision.models import ResNet18_Weights, get_model

    folder = tmp_path_factory.mktemp("torch")
    file = folder / "hub" / "checkpoints" / ResNet18_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.manual_seed(1)
    torch.save(get_model(RESNET).state_dict(), file)
    return folder


@pytest.fixture(autouse=True)
def weights_at_hand(monkeypatch, hub):
    monkeypatch.setenv("TORCH_HOME", str(hub))


def bodies(size: int = 64, pool: str = "style"):
    return network.new_body(backbones.find(BOTH, pretrained=False), pool, size).eval()


def mixed(version: int = stages.VERSION):
    """A network that is cut as ever, a transformer on tokens, and one with its own pooling."""
    return network.new_body(
        backbones.find(MIXED, pretrained=False), size=64, version=version
    ).eval()


def pixels(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def normalised(x: torch.Tensor, backbone) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    return (x - mean) / std


# Names


def test_the_backbone_names_its_networks_and_takes_the_first_ones_pictures():
    both = backbones.find(BOTH)
    lite, resnet = backbones.each(both)
    assert both.name == BOTH and both.library == "several" and both.mean == lite.mean
    assert both.weights == f"{lite.weights} + {resnet.weights}"
    assert (lite, resnet) == (backbones.find(LITE), backbones.find(RESNET))
    assert backbones.each(lite) == [lite]
    untrained = backbones.find(BOTH, pretrained=False)
    assert {part.weights for part in backbones.each(untrained)} == {"random"}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (f"{LITE}+{LITE}", "names efficientnet_lite0 twice"),
        (f"vgg16+{LITE}+vgg16", "names vgg16 twice"),
        (f"auto+{LITE}", "names efficientnet_lite0 twice"),  # what auto is here
        (f"{LITE}+", "no architecture is called ''"),
        (f"{LITE}+resnet", "no architecture is called 'resnet'"),
    ],
)
def test_a_name_twice_or_unknown_is_an_error(name, problem):
    with pytest.raises(InputError, match=problem):
        backbones.find(name)


def test_a_config_that_names_other_networks_inside_is_an_error():
    config = json.loads(json.dumps(asdict(backbones.find(LITE)) | {"bodies": []}))
    inside = {**config, "name": RESNET}
    assert backbones.of_config({**config, "name": BOTH, "bodies": [config, inside]}).bodies
    for name, inner in ((BOTH, [config, config]), (BOTH, []), (LITE, [config])):
        with pytest.raises(InputError, match="described as another network"):
            backbones.of_config({**config, "name": name, "bodies": inner})


# Features


@torch.no_grad()
def test_each_body_sees_pictures_normalised_as_it_was_trained():
    body, x = bodies(), pixels()
    parts = backbones.each(backbones.find(BOTH))
    assert parts[0].mean != parts[1].mean and parts[0].std != parts[1].std
    expected = [one(normalised(x, part)) for one, part in zip(body.bodies, parts, strict=True)]
    found = body(normalised(x, parts[0]))
    torch.testing.assert_close(found, torch.cat(expected, 1), atol=1e-4, rtol=1e-4)
    assert found.shape == (2, body.n_features) and body(found) is found


@torch.no_grad()
def test_weights_bring_the_pictures_of_each_body_with_them():
    trained, loaded = bodies(), bodies()
    trained.shift_1.add_(1.0)
    loaded.load_state_dict(trained.state_dict())
    x = pixels()
    torch.testing.assert_close(loaded(x), trained(x))


@torch.no_grad()
def test_stored_features_are_those_of_the_network_and_shared_with_each_body(fresh, monkeypatch):
    table = splits.items(fresh, "grouped").iloc[:5]
    backbone = backbones.find(BOTH)
    settings = {"size": 64, "resize": "squish", "pool": "style", "precision": "float32"}
    config = {**asdict(backbone), **settings}
    net = network.new_body(backbone, size=64).eval()
    found = features.of_images(fresh, table, net, config)[:, 0]
    pictures = Pictures(fresh, table.file, table.clean_sha256, 64)
    x = normalised(pictures.pixels(range(5)).float() / 255, backbone)
    np.testing.assert_allclose(found, net(x), atol=2e-3, rtol=2e-3)
    monkeypatch.setattr(features, "compute", lambda *args: pytest.fail("computed again"))
    for one, part in zip(net.bodies, backbones.each(backbone), strict=True):
        alone = features.of_images(fresh, table, one, {**config, **asdict(part)})[:, 0]
        assert (alone == found[:, : one.n_features]).all()
        found = found[:, one.n_features :]


def test_the_last_maps_of_all_bodies_are_extracted(fresh):
    rows = splits.usable(fresh).iloc[:3]
    found = features.extract(fresh, rows, BOTH, size=64)
    alone = [features.extract(fresh, rows, name, size=64) for name in (LITE, RESNET)]
    assert found.shape == (3, 1280 + 512) and (found == np.concatenate(alone, 1)).all()


def test_tokens_are_extracted_beside_maps(fresh, monkeypatch):
    rows, real = splits.usable(fresh).iloc[:3], backbones.find
    monkeypatch.setattr(backbones, "find", lambda name, pretrained=False: real(name, pretrained))
    # the random weights of one network are the same each time
    random_body = backbones.body

    def same_body(backbone, *args):
        torch.manual_seed(len(backbone.name))
        return random_body(backbone, *args)

    monkeypatch.setattr(backbones, "body", same_body)
    found = features.extract(fresh, rows, f"{RESNET}+test_vit", size=64)
    alone = [features.extract(fresh, rows, name, size=64) for name in (RESNET, "test_vit")]
    assert found.shape == (3, 512 + 64) and (found == np.concatenate(alone, 1)).all()


# How they are cut


@torch.no_grad()
def test_one_version_cuts_all_and_each_keeps_the_features_that_it_had():
    net = mixed()
    resnet, vit, core = net.bodies
    assert (resnet.version, vit.version, core.version) == (1, 2, 2) and net.version == 2
    assert core.own_pool is not None and bodies().version == 1
    config = {**asdict(backbones.find(MIXED, pretrained=False)), "precision": "float32"}
    names = [name for _, _, name in features.named_bodies(net, config)]
    assert names[:2] == [f"{RESNET} style float32", "test_vit style float32 stages 2"]
    assert list(mixed(net.version).state_dict()) == list(net.state_dict())
    before = mixed(version=1)
    assert before.version == 1 and [one.pool for one in before.bodies] == ["style", "last", "last"]
    names = [name for _, _, name in features.named_bodies(before, config)]
    assert names[:2] == [f"{RESNET} style float32", "test_vit last float32"]


def test_a_blocks_parts_are_those_of_all_bodies_own_pooling_included():
    net = mixed()
    parts = net.parts_of_blocks()
    assert list(parts) == [0, 1, 2, 3, 4]
    in_blocks = [id(p) for part in parts.values() for p in part.parameters()]
    assert sorted(in_blocks) == sorted(id(p) for p in net.parameters())
    own_pool = {id(p) for p in net.bodies[2].own_pool.parameters()}
    assert own_pool and own_pool <= {id(p) for p in parts[4].parameters()}


# Weights and licences


def test_a_file_of_weights_is_of_one_network(tmp_path):
    with pytest.raises(InputError, match=r"one network.*names 2: name one architecture"):
        backbones.find(BOTH, weights=tmp_path / "mine.safetensors")


def test_the_licence_of_each_is_said(monkeypatch, capsys):
    backbones._say.cache_clear()
    monkeypatch.setattr(backbones, "has_weights", lambda name: True)
    backbones.find(f"{RESNET}+convnextv2_atto+vit_small_patch16_dinov3")
    first, second = capsys.readouterr().out.splitlines()
    assert "convnextv2_atto are under cc-by-nc-4.0" in first
    assert "vit_small_patch16_dinov3 are under dinov3-license" in second


# What is made of them


def model_of(body) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(body, nn.Linear(body.n_features, 3)).eval()


def test_a_group_holds_a_block_of_all_bodies():
    model = model_of(bodies())
    groups = network.parameter_groups(model, 3)
    lite, resnet = (
        network.parameter_groups(nn.Sequential(one, model[1]), 3) for one in model[0].bodies
    )
    assert [len(group) for group in groups] == [
        len(lite[0]) + len(resnet[0]),
        len(lite[1]) + len(resnet[1]),
        2,
    ]


@torch.no_grad()
@pytest.mark.parametrize("make", [bodies, mixed])
def test_the_plain_model_gives_the_same_and_pickles_without_a_class_of_ours(make):
    model, x = model_of(make()), pixels()
    model[0].autocast_dtype = torch.bfloat16
    plain = network.plain_model(model)
    assert model[0].autocast_dtype is torch.bfloat16 and b"artclf" not in pickle.dumps(plain)
    model[0].autocast_dtype = None
    torch.testing.assert_close(
        pickle.loads(pickle.dumps(plain)).eval()(x), model(x), atol=1e-4, rtol=1e-4
    )


@pytest.mark.slow
@torch.no_grad()
def test_the_plain_model_can_be_exported_as_one_graph():
    model, x = model_of(bodies()), pixels()
    program = torch.export.export(network.plain_model(model).eval(), (x,))
    torch.testing.assert_close(program.module()(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_training_ends_in_one_export_that_predicts_without_any_cache(drawn, tmp_path, monkeypatch):
    out = tmp_path / "export"
    learn = train.fit(drawn, out, 1, 1, arch=BOTH, size=64, batch_size=8, final=False)
    body = learn.model[0]
    assert len(learn.opt.param_lists) == 2  # block 4 of both bodies, the head
    for one in body.bodies:
        learns = [any(p.requires_grad for p in stage.parameters()) for stage in one.stages]
        blocks = np.array(one.blocks)
        assert not any(np.array(learns)[blocks < 4]) and any(np.array(learns)[blocks == 4])
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["name"] == BOTH and [one["name"] for one in config["bodies"]] == [LITE, RESNET]
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(wheels, "weights_of", lambda name: pytest.fail("asked for weights"))
    clf = artclf.load(out)
    files = sorted((drawn / "clean").rglob("*.jpg"))[:6]
    found = clf.predict(files)
    assert (found.error == "").all()
    x = torch.stack([learn.dls.test_dl([file]).one_batch()[0][0] for file in files])
    with torch.no_grad():
        logits = learn.model.eval()(torch.as_tensor(x)) / config["temperature"]
    np.testing.assert_allclose(found.probability, logits.softmax(1).amax(1), atol=1e-3)
    plain = exports.load_learner(out, trust=True)
    with torch.no_grad():
        again = plain.model.eval()(torch.as_tensor(x)) / config["temperature"]
    torch.testing.assert_close(again, torch.as_tensor(logits), atol=1e-3, rtol=1e-3)


# Where it looks


@pytest.fixture
def explainer() -> Explainer:
    body = bodies()
    vocab = ["a", "b", "c"]
    config = {**asdict(backbones.find(BOTH)), "size": 64, "temperature": 1.0, "pool": "style"}
    config["stages"] = body.version
    learner = SimpleNamespace(model=model_of(body), dls=SimpleNamespace(device="cpu"))
    return Explainer(SimpleNamespace(learner=learner, vocab=vocab, config=config))


def test_the_stages_of_all_bodies_explain_the_score(explainer):
    x = normalised(pixels(3), backbones.find(BOTH))
    table = explainer.stages(x, ["a"] * 3)
    count = [len(attribution.stages_read(one)) for one in explainer.body.bodies]
    assert min(count) > 1 and len(table.columns) == sum(count) + 2
    assert table.constant.std() < 1e-3 * table.score.abs().max() + 1e-3
    assert table.iloc[:, : count[0]].abs().sum(axis=None) > 0
    assert table.iloc[:, count[0] : sum(count)].abs().sum(axis=None) > 0


def test_there_are_maps_of_bodies_of_all_kinds_unless_one_has_none(explainer):
    x = normalised(pixels(1), backbones.find(BOTH))
    maps = explainer.maps(x, ["b"], "stages CAM")
    assert maps.shape == (1, 64, 64) and np.isfinite(maps).all() and maps.std() > 0
    own = Explainer(explainer.classifier, model_of(mixed()))
    for method in ("stages CAM", "Grad-CAM", "guided backpropagation", "integrated gradients"):
        maps = own.maps(x, ["b"], method)
        assert maps.shape == (1, 64, 64) and np.isfinite(maps).all() and maps.std() > 0, method
    names = f"{RESNET}+test_vit"
    taken = backbones.find(names, pretrained=False)
    with pytest.raises(InputError, match="no maps of places"):  # version 1 knew no tokens
        Explainer(explainer.classifier, model_of(network.new_body(taken, size=64, version=1)))


@pytest.mark.slow
def test_every_block_of_all_bodies_is_randomised(explainer):
    from artclf.lab import sanity

    x = normalised(pixels(2), backbones.find(BOTH))
    steps = dict(sanity.randomised(explainer, x))
    assert list(steps) == ["head", "block 4", "block 3", "block 2", "block 1", "stem"]
    last = steps["stem"].body
    for before, after in zip(explainer.body.bodies, last.bodies, strict=True):
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        assert all(not torch.equal(old, new) for old, new in pairs if old.ndim == 4)


@pytest.mark.slow
def test_every_block_of_a_transformer_among_them_is_randomised(explainer):
    from artclf.lab import sanity

    net = mixed()
    taken = backbones.find(MIXED, pretrained=False)
    config = {**explainer.config, **asdict(taken), "stages": net.version}
    config["bodies"] = [{**one, "bodies": []} for one in config["bodies"]]
    classifier = SimpleNamespace(**{**vars(explainer.classifier), "config": config})
    own = Explainer(classifier, model_of(net))
    last = dict(sanity.randomised(own, normalised(pixels(2), taken)))["stem"].body
    pairs = zip(own.body.parameters(), last.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs if old.ndim >= 2)


@pytest.mark.slow
def test_a_transformer_among_them_is_trained_on_all_pictures_exported_and_loaded(drawn, tmp_path):
    settings = {"size": 64, "batch_size": 8, "pretrained": False}
    train.fit(drawn, tmp_path, 1, 1, arch=f"{RESNET}+test_vit", **settings)
    clf = artclf.load(tmp_path)
    assert clf.config["stages"] == 2 and clf.learner.model[0].version == 2
    table = pd.read_csv(tmp_path / "predictions.csv").iloc[::9]
    assert (clf.predict([drawn / name for name in table.file]).error == "").all()
    opened = exports.load_learner(tmp_path, trust=True).model.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(opened(x), clf.learner.model(x), atol=1e-3, rtol=1e-3)
