"""Explain: attributions held against captum's own and sums by hand, checks that know good maps from
bad ones.
"""

from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from captum import attr
from PIL import Image
from sklearn.metrics import auc
from torch import nn

import artclf
from artclf.data.pictures import Rejected
from artclf.lab import explain, sanity
from artclf.model import attribution, backbones, network
from artclf.model.explainer import Explainer
from artclf.results import evaluation

matplotlib.use("Agg")
ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["1-early", "2-middle", "3-late"]
FAST = {"integrated gradients": {"steps": 4}, "occlusion": {"window": 32}}


@pytest.fixture(scope="module", autouse=True)
def alone(no_workers):
    pass


@pytest.fixture(scope="module")
def explainer(export):
    return Explainer(artclf.load(export))


@pytest.fixture(scope="module")
def files(drawn) -> list[Path]:
    return sorted((drawn / "clean").rglob("*.jpg"))[::9]


@pytest.fixture(scope="module")
def x(explainer, files):
    return explainer.pictures(files)


@pytest.fixture(scope="module")
def targets(explainer, files):
    return [explainer.vocab[i % 5] for i in range(len(files))]


def classifier_of(net: nn.Module, pool: str = "stages", size: int = 32, **config):
    """What `Explainer` needs of a classifier, with `net` as its backbone and a random linear
    head.
    """
    torch.manual_seed(3)
    config = {
        "name": "toy",
        "size": size,
        "temperature": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize": "squish",
        "pool": pool,
        "depth": 0,
        "width": 8,
        "dropout": 0.0,
        "vocab": CLASSES,
        **config,
    }
    body = network.Body(net, pool, size)
    model = nn.Sequential(body, network.new_head(body.n_features, config)).eval()
    nn.init.normal_(model[1][-1].weight, std=body.n_features**-0.5)
    learner = SimpleNamespace(model=model, dls=SimpleNamespace(device=torch.device("cpu")))
    return SimpleNamespace(learner=learner, vocab=CLASSES, config=config)


def convolutions(act=nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), act())
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), act(), nn.MaxPool2d(2), block, nn.Conv2d(12, 6, 3), act()
    )


def noise(n=2, size=32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


# Methods


@pytest.mark.slow
def test_the_network_is_the_classifiers_and_stays_as_it_was(export, files):
    clf = artclf.load(export)
    clf.learner.model.train()
    before = {name: value.clone() for name, value in clf.learner.model.state_dict().items()}
    layers = [
        (layer.training, getattr(layer, "inplace", None), len(layer._forward_hooks))
        for layer in clf.learner.model.modules()
    ]
    wanted = [p.requires_grad for p in clf.learner.model.parameters()]
    own = Explainer(clf)
    x = own.pictures(files)
    assert set(own.all_maps(x[:1], own.vocab[:1], FAST)) == set(attribution.METHODS)
    list(sanity.randomised(own, x))
    assert all(
        torch.equal(value, before[name]) for name, value in clf.learner.model.state_dict().items()
    )
    assert wanted == [p.requires_grad for p in clf.learner.model.parameters()]
    assert layers == [
        (layer.training, getattr(layer, "inplace", None), len(layer._forward_hooks))
        for layer in clf.learner.model.modules()
    ]
    fresh = artclf.load(export)
    np.testing.assert_allclose(own.probabilities(x), fresh.probabilities(files)[0], atol=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_guided_backpropagation_is_captums_where_there_are_relus_alone(inplace):
    clf, x = classifier_of(convolutions(lambda: nn.ReLU(inplace))), noise()
    own = Explainer(clf)
    found = own.maps(x, CLASSES[:2], "guided backpropagation")
    for layer in clf.learner.model.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    with pytest.warns(UserWarning):
        theirs = attr.GuidedBackprop(clf.learner.model).attribute(x, [0, 1])
    np.testing.assert_allclose(found, theirs.detach().abs().sum(1), rtol=1e-4, atol=1e-6)


class Guided(torch.autograd.Function):
    """The paper's rule for an activation `act`: back goes what is above 0 of the gradient that
    would go back.
    """

    @staticmethod
    def forward(ctx, x, act):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = act(ctx.x)
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, gradient):
        return torch.autograd.grad(ctx.y, ctx.x, gradient)[0].clip(min=0), None


class Shortcut(nn.Module):
    """The activation's input goes around it, too, and one activation is used twice."""

    def __init__(self, act, apply=lambda act, x: act(x)):
        super().__init__()
        self.conv, self.act, self.apply_ = nn.Conv2d(3, 3, 3, padding=1), act, apply

    def forward(self, x):
        x = self.conv(x)
        return self.apply_(self.act, x - 0.5 * self.conv(self.apply_(self.act, x)))


@pytest.mark.parametrize("act", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish])
def test_guided_backpropagation_clips_at_every_activation_and_at_nothing_else(act):
    torch.manual_seed(0)
    net, x = Shortcut(act()), 8 * noise()
    own = Explainer(classifier_of(net))
    found = own.maps(x, CLASSES[:2], "guided backpropagation")
    model = own.score.model
    model[0].stages[0].apply_ = lambda act, x: Guided.apply(x, act)
    x.requires_grad_()
    [by_hand] = torch.autograd.grad(model(x)[[0, 1], [0, 1]].sum(), x)
    np.testing.assert_allclose(found, by_hand.abs().sum(1), rtol=1e-3, atol=1e-5)


def test_activations_that_are_functions_are_refused_by_guided_backpropagation_alone():
    own = Explainer(classifier_of(Shortcut(None, lambda _, x: torch.relu(x))))
    with pytest.raises(ValueError, match="modules, and this network calls relu: take another"):
        own.maps(noise(), CLASSES[:2], "guided backpropagation")
    with pytest.warns(UserWarning, match="guided backpropagation is left out: .* calls relu"):
        assert list(own.all_maps(noise(), CLASSES[:2], FAST)) == list(attribution.METHODS)[1:]
    with pytest.raises(ValueError, match="has none"):
        Explainer(classifier_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))).guided  # noqa: B018


@pytest.mark.parametrize("stage", [-1, 2])
def test_grad_cam_is_captums(explainer, x, targets, stage):
    weights = explainer.weights(targets)
    captums = attr.LayerGradCam(explainer.score, explainer.body.stages[stage])
    cam = captums.attribute(x, additional_forward_args=(weights,)).detach()
    expected = nn.functional.interpolate(cam, (64, 64), mode="bilinear")[:, 0]
    np.testing.assert_allclose(
        explainer.maps(x, targets, "Grad-CAM", stage=stage), expected, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("pool", network.POOLS)
def test_the_stages_make_the_score_together(pool, x, explainer, targets):
    own, x = (
        (explainer, x)
        if pool == "style"
        else (Explainer(classifier_of(convolutions(), pool)), noise(5))
    )
    one = [own.vocab[1]] * len(x)
    table, maps = own.stages(x, one), own.maps(x, one, "stages CAM")
    parts = table.drop(columns=["constant", "score"])
    np.testing.assert_allclose(table.score, own.score(x, own.weights(one)), rtol=1e-4)
    np.testing.assert_allclose(
        table.constant, table.constant[0], rtol=1e-3, atol=1e-3
    )  # the head is linear
    np.testing.assert_allclose(
        maps.sum((1, 2)), parts.sum(axis=1), rtol=0.02, atol=0.01
    )  # 64 px, whole factors
    if pool != "style":
        return
    assert list(parts) == [f"stage {i}" for i in range(9)]
    features = own.body(x).requires_grad_()
    [gradient] = torch.autograd.grad(
        (own.score.model[1](features) * own.weights(one)).sum(), features
    )
    widths, through = [], x
    for stage in own.body.stages:
        n = (through := stage(through)).shape[1]
        widths.append(2 * n + (n * (n - 1) // 2 if n <= 128 else 0))
    by_hand = torch.stack(
        [part.sum(1) for part in (gradient * features.detach()).split(widths, 1)], 1
    )
    np.testing.assert_allclose(
        parts, by_hand, rtol=1e-2, atol=2e-3 * float(by_hand.abs().max())
    )  # 1e-6 under roots
    last = attr.LayerGradientXActivation(own.score, own.body.stages[-1]).attribute(
        x, additional_forward_args=(own.weights(one),)
    )
    torch.testing.assert_close(
        attribution.by_stage(own, x, own.weights(one))[-1], last.sum(1, keepdim=True)
    )


@pytest.mark.slow
def test_integrated_gradients_add_up_to_the_score_less_that_of_grey(explainer, x, targets):
    x, targets, weights = x[:2], targets[:2], explainer.weights(targets[:2])
    with torch.no_grad():
        wanted = explainer.score(x, weights) - explainer.score(0 * x, weights)
    found = explainer.maps(x, targets, "integrated gradients", steps=128).sum((1, 2))
    np.testing.assert_allclose(found, wanted, atol=0.05 * max(1, wanted.abs().max()))
    own = Explainer(classifier_of(convolutions(), "last"))
    direct = attr.IntegratedGradients(own.score.model).attribute(noise(), 0, [0, 2], n_steps=300)
    theirs = direct.sum(1).detach()
    found = own.maps(noise(), [CLASSES[0], CLASSES[2]], "integrated gradients", steps=300)
    np.testing.assert_allclose(found, theirs, atol=0.03 * float(theirs.abs().max()))


@pytest.mark.slow
def test_what_speaks_for_one_and_against_another_is_the_difference(explainer, x):
    a, b = explainer.vocab[1], explainer.vocab[3]
    for method, kwargs in (
        ("integrated gradients", {"steps": 6}),
        ("Grad-CAM", {}),
        ("stages CAM", {}),
        ("occlusion", {"window": 32}),
    ):
        one, other, both = (
            explainer.maps(x, [target] * len(x), method, **kwargs) for target in (a, b, (a, b))
        )
        assert abs(one).max() > 0 and abs(both).max() > 0
        np.testing.assert_allclose(both, one - other, atol=1e-3 * abs(one).max(), err_msg=method)


def test_occlusion_is_what_is_lost_where_grey_lies(explainer, x, targets):
    found = explainer.maps(x[:1], targets[:1], "occlusion", window=32, stride=16)[0]
    lost, times, weights = np.zeros((64, 64)), np.zeros((64, 64)), explainer.weights(targets[:1])
    with torch.no_grad():
        for top in range(0, 48, 16):
            for left in range(0, 48, 16):
                hidden = x[:1].clone()
                hidden[:, :, top : top + 32, left : left + 32] = 0
                lost[top : top + 32, left : left + 32] += float(
                    explainer.score(x[:1], weights) - explainer.score(hidden, weights)
                )
                times[top : top + 32, left : left + 32] += 1
    np.testing.assert_allclose(found, lost / times, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch",
    [
        "resnet18",
        "vgg11",
        "mobilenetv2_050",
        "legacy_xception",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "vit_pe_core_tiny_patch16_384",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_every_method_works_on_any_network_with_maps_or_tokens(arch):
    own = Explainer(classifier_of(backbones.body(backbones.find(arch, pretrained=False), 32)))
    found = own.all_maps(
        noise(2, 32), ["1-early", ("2-middle", "3-late")], {**FAST, "occlusion": {"window": 16}}
    )
    assert list(found) == list(attribution.METHODS)
    for method, maps in found.items():
        assert maps.shape == (2, 32, 32) and maps.dtype == np.float32 and np.isfinite(maps).all(), (
            method
        )
        assert (abs(maps).max((1, 2)) > 0).all(), method


@pytest.mark.parametrize("arch", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_the_stages_of_a_transformer_make_the_score_together_with_its_class_token(arch):
    """Every place of the tokens counts where it is in the picture."""
    own = Explainer(
        classifier_of(backbones.body(backbones.find(arch, pretrained=False), 64), size=64)
    )
    x = noise(4, 64)
    weights = own.weights([CLASSES[0]] * 4)
    maps = attribution.by_stage(own, x, weights)
    sides = [stage_maps.shape[-1] for stage_maps in maps]
    assert sides == ([4] * len(maps) if arch == "test_vit" else [16, 16, 8, 4, 2, 2])
    by_places = sum(stage_maps.sum((1, 2, 3)) for stage_maps in maps)
    with torch.no_grad():
        standardizer, _, linear = own.score.model[1]
        slope = linear.weight[0] / (standardizer.running_var + standardizer.eps).sqrt()
        n_summary = 64 if arch == "test_vit" else 0
        first = own.body.n_features - n_summary
        by_class_token = own.body(x)[:, first:] @ slope[first:]
        constant = own.score(x, weights) - by_places - by_class_token
    np.testing.assert_allclose(constant, constant[0].expand(4), atol=1e-3)
    assert n_summary == 0 or by_class_token.std() > 0.01


def test_grad_cam_of_tokens_is_that_of_the_same_numbers_as_maps():
    own = Explainer(
        classifier_of(backbones.body(backbones.find("test_vit", pretrained=False), 64), size=64)
    )
    x, weights = noise(2, 64), own.weights(CLASSES[:2])
    kept = {}
    last = own.body.stages[-1]
    handle = last.register_forward_hook(lambda _, __, output: kept.update(tokens=output))
    score = own.score(x.clone().requires_grad_(), weights).sum()
    handle.remove()
    [gradient] = torch.autograd.grad(score, kept["tokens"])
    places = kept["tokens"].detach()[:, 1:]
    cam = (places * gradient[:, 1:].mean(1, keepdim=True)).sum(2).view(2, 1, 4, 4)
    expected = nn.functional.interpolate(cam, (64, 64), mode="bilinear")[:, 0]
    np.testing.assert_allclose(own.maps(x, CLASSES[:2], "Grad-CAM"), expected, atol=1e-5)


def test_a_network_without_maps_is_told_so():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(ValueError, match="flat_x gives no maps of places: explain another"):
        Explainer(classifier_of(flat, name="flat_x"))


def test_bad_questions_are_told_what_is_wrong(explainer, x):
    with pytest.raises(ValueError, match="no class of this network; it has 01-early"):
        explainer.weights(["baroque"])
    with pytest.raises(ValueError, match="no method is called 'LIME': take one of guided"):
        explainer.maps(x, explainer.vocab[: len(x)], "LIME")
    with pytest.raises(ValueError, match="5 pictures and 1 targets"):
        explainer.maps(x, explainer.vocab[:1], "Grad-CAM")


# Checks


@pytest.fixture(scope="module")
def corner():
    """An explainer that knows a class by its texture, which is at the top left, and maps that are
    right and wrong.
    """
    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    nn.init.constant_(net[0].weight, 1.0)
    clf = classifier_of(net, "last", 28)

    class Texture(nn.Module):
        def forward(self, features):
            return 10 * features[:, 1:] * torch.tensor([1.0, 0.0, -1.0])

    clf.learner.model[1] = Texture()
    x = torch.zeros(3, 3, 28, 28)
    x[:, :, :8, :8] = 2.0 - 4 * (
        (torch.arange(8)[:, None] + torch.arange(8)) % 2
    )  # grey when blurred
    marks = np.zeros((3, 28, 28), np.float32)
    marks[:, :8, :8] = 1
    return Explainer(clf), x, {"wrong": -marks, "right": marks}


def test_curves_tell_a_map_that_is_right_from_one_that_is_wrong(corner):
    own, x, maps = corner
    table = sanity.curves(own, x, [CLASSES[0]] * 3, maps, steps=7, cells=7)
    found = sanity.summary(table)
    assert list(found.index) == ["right", "random", "wrong"] and (found.images == 3).all()
    assert found.deletion["right"] < found.deletion["random"] < found.deletion["wrong"]
    assert found.insertion["right"] > found.insertion["random"] > found.insertion["wrong"]
    assert found.deletion_beats["right"] == 1 and found.insertion_beats["wrong"] == 0
    assert np.isnan(found.deletion_beats["random"])
    one = table.query("method == 'right' and kind == 'deletion' and image == 1")
    assert list(one.share) == pytest.approx(np.linspace(0, 1, 8))
    assert one.probability.iloc[0] == pytest.approx(float(own.probabilities(x[1:2])[0, 0]))
    areas = (
        sanity.areas(table)
        .query("method == 'right' and kind == 'deletion'")
        .set_index("image")
        .area
    )
    assert areas[1] == pytest.approx(auc(one.share, one.probability))


def test_cells_go_in_the_order_of_the_map():
    picture, values = torch.ones(3, 28, 28), np.zeros((28, 28), np.float32)
    values[4:8, 20:24], values[12:16, :4] = 2, 1
    gone = sanity.change_cells(picture, values, "deletion", [0, 1 / 49, 2 / 49, 1], 7)
    assert [int((step == 0).sum()) for step in gone] == [0, 48, 96, 3 * 28 * 28]
    assert (gone[1, :, 4:8, 20:24] == 0).all() and (gone[2, :, 12:16, :4] == 0).all()
    sharp = sanity.change_cells(noise(1)[0], np.zeros((32, 32)), "insertion", [0, 1], 8)
    assert torch.equal(sharp[1], noise(1)[0]) and sharp[0].std() < 0.3 * sharp[1].std()


@pytest.mark.slow
def test_the_cascade_goes_from_head_to_stem(explainer, x):
    steps = list(sanity.randomised(explainer, x))
    assert [name for name, _ in steps] == [
        "head",
        "block 4",
        "block 3",
        "block 2",
        "block 1",
        "stem",
    ]
    for done, (_, other) in enumerate(steps):
        for stage, own, block in zip(
            other.body.stages, explainer.body.stages, explainer.body.blocks, strict=True
        ):
            same = all(
                torch.equal(a, b)
                for a, b in zip(stage.state_dict().values(), own.state_dict().values(), strict=True)
            )
            assert same == (block < 5 - done), (done, block)
        assert not torch.equal(other.score.model[1][-1].weight, explainer.score.model[1][-1].weight)
        with torch.no_grad():
            assert 1e-3 < other.body(x).abs().max() < 1e3
    again = list(sanity.randomised(explainer, x))[-1][1]
    assert torch.equal(again.score.model[0](x), steps[-1][1].score.model[0](x))


@pytest.mark.slow
def test_a_map_that_knows_nothing_of_the_network_stays_as_it_is(explainer, x, targets, monkeypatch):
    monkeypatch.setitem(attribution.METHODS, "edges", lambda _, x, __: (x - x.roll(1, 2)).abs())
    table = sanity.randomisation(explainer, x, targets, {"edges": {}, "Grad-CAM": {"stage": -1}})
    rows = table[table.randomised != "another picture"]
    assert rows[rows.method == "edges"].correlation.to_numpy() == pytest.approx(1)
    means = sanity.by_step(table)
    assert list(means.index) == [
        "another picture",
        "head",
        "block 4",
        "block 3",
        "block 2",
        "block 1",
        "stem",
    ]
    assert list(means) == [
        ("edges", "mean"),
        ("edges", "sd"),
        ("Grad-CAM", "mean"),
        ("Grad-CAM", "sd"),
    ]
    assert means["Grad-CAM", "mean"]["stem"] < 0.9 and means["edges", "sd"][
        "stem"
    ] == pytest.approx(0)
    first, second = explainer.maps(x, targets, "Grad-CAM")[[0, 1]]
    other = table.query(
        "method == 'Grad-CAM' and randomised == 'another picture' and image == 1"
    ).correlation.item()
    assert other == pytest.approx(
        pd.Series(first.ravel()).corr(pd.Series(second.ravel()), method="spearman")
    )
    assert sanity.spearman(np.zeros((4, 4)), np.ones((4, 4))) == 0


# Plots


def test_plots_have_titles_and_numbers(corner, explainer, x):
    own, pictures, maps = corner
    table = sanity.curves(own, pictures, [CLASSES[0]] * 3, maps, steps=2, cells=7)
    [ax] = sanity.plot_curves(table, "deletion").axes
    assert [text.get_text().split(" (")[0] for text in ax.get_legend().get_texts()] == [
        "wrong",
        "right",
        "random",
    ]
    area = sanity.summary(table).deletion["right"]
    assert f"right ({area:.2f})" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert list(ax.lines[1].get_xdata()) == [0, 0.5, 1]
    assert (ax.get_xlabel(), ax.get_title()) == (
        "share of the picture that is grey",
        "deletion: low is good",
    )
    assert "high is good" in sanity.plot_curves(table, "insertion").axes[0].get_title()
    table = pd.DataFrame(
        [
            ("A", step, 0, value, value)
            for step, value in (("another picture", 0.2), ("head", 0.9), ("stem", 0.1))
        ],
        columns=["method", "randomised", "image", "correlation", "absolute"],
    )
    figure = sanity.plot_randomisation(table)
    assert list(figure.axes[0].lines[0].get_ydata()) == [1, 0.9, 0.1]
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["nothing", "head", "stem", "another\npicture"]
    found = {"A": np.ones((2, 64, 64)), "B": -np.ones((2, 64, 64))}
    figure = explain.plot_maps(explainer.colours(x[:2]), found, ["<b> $x", "two"])
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "<b> $x",
        "two",
        "A",
        "B",
        "orange: for   purple: against",
    ]
    assert len(figure.axes[0].images) == 2 + 2 * 2 * 2
    assert explain.plot_maps(explainer.colours(x[:1]), {}, ["one"], figure.axes[0]) is figure


def test_pictures_are_shown_as_they_are(explainer, files, x):
    shown = explainer.colours(x)[0]
    own = (
        np.array(Image.open(files[0]).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
        / 255
    )
    assert shown.shape == (64, 64, 3) and abs(shown - own).mean() < 0.02


# Which pictures


def test_pictures_are_chosen_among_right_answers(own_run):
    data, out = own_run
    rows = explain.right_answers(out, data, 4, "train")
    assert (
        (rows.period == rows.predicted).all()
        and len(rows) <= 4
        and not rows.file.duplicated().any()
    )
    right = pd.read_csv(out / "predictions.csv").query("part == 'train' and period == predicted")
    assert rows.period.nunique() == min(4, right.period.nunique())


def test_no_right_answer_is_an_error(own_run):
    data, out = own_run
    table = pd.read_csv(out / "predictions.csv")
    table.assign(predicted="?").to_csv(out / "predictions.csv", index=False)
    with pytest.raises(ValueError, match="no picture of part valid has a right answer"):
        explain.right_answers(out, data, 3, "valid")


def test_rivals_are_the_pair_confused_most_or_nearest_to_it():
    rows = pd.DataFrame(
        {
            "part": "test",
            "period": ["a", "a", "a", "b"],
            "predicted": ["c", "a", "c", "b"],
            "p_a": [0.2, 0.8, 0.3, 0.1],
            "p_b": [0.3, 0.1, 0.1, 0.7],
            "p_c": [0.5, 0.1, 0.6, 0.2],
        }
    )
    rows["probability"] = evaluation.scores(rows).max(axis=1)
    pair, found = explain.rivals(rows)
    assert pair == ("a", "c") and list(found.index) == [2, 0, 1]
    pair, found = explain.rivals(rows.loc[[1, 3]])
    assert pair == ("b", "c") and list(found.index) == [3]
    strangers = pd.concat(
        [rows, *[rows.assign(period="0-unknown")] * 3], ignore_index=True
    )  # confused most often
    assert explain.rivals(strangers)[0] == ("a", "c")
    with pytest.raises(ValueError, match="a single period"):
        explain.rivals(rows.drop(columns=["p_b", "p_c"]))


def test_a_picture_that_has_moved_is_named(explainer, tmp_path):
    with pytest.raises(Rejected, match=r"gone\.jpg: .*artclf clean"):
        explainer.pictures([tmp_path / "gone.jpg"])


# What takes long


@pytest.mark.slow
def test_the_notebook_runs_on_canvases(own_run):
    import nbformat

    from artclf import run

    data, out = own_run
    copy = run.execute(
        ROOT / "notebooks/experiments/14_explain.ipynb",
        out / "copy.ipynb",
        {
            "DATA": str(data),
            "EXPORT": str(out),
            "PART": "train",
            "A_PAGE": 2,
            "STEPS": 4,
            "WINDOW": 32,
            "CELLS": 4,
            "CHECKED": 2,
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
    assert "constant" in text and "deletion_beats" in text and "another picture" in text
    folder = out / "explain"
    right = pd.read_csv(out / "predictions.csv").query("part == 'train' and period == predicted")
    assert {path.stem for path in folder.glob("0*.png")} | {
        path.stem for path in folder.glob("1*.png")
    } == set(right.period)
    assert {"one", "contrast", "deletion", "insertion", "randomised"} <= {
        path.stem for path in folder.glob("*.png")
    }
    for path in folder.glob("*.png"):
        with Image.open(path) as im:
            assert min(im.size) > 200
    curves = pd.read_csv(folder / "curves.csv")
    assert (
        set(curves.method) == {*attribution.METHODS, "random"}
        and curves.probability.between(0, 1).all()
    )
    trust = pd.read_csv(folder / "trust.csv", index_col="method")
    for kind in sanity.KINDS:
        areas = sanity.areas(curves).query("kind == @kind").groupby("method").area.mean()
        assert trust[kind].to_dict() == pytest.approx(areas.to_dict())
    steps = pd.read_csv(folder / "randomised.csv")
    assert len(steps) == 2 * 7 * len(attribution.METHODS) and steps.correlation.between(-1, 1).all()
