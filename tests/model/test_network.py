"""The network: stages are what the backbone computes on the way, statistics what torch says they
are.
"""

import pickle

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from artclf.model import backbones, network


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


def body_of(name: str, **kwargs):
    return network.Body(
        backbones.body(backbones.find(name, pretrained=False)), size=96, **kwargs
    ).eval()


@torch.no_grad()
def test_statistics_are_those_of_torchvisions_feature_extractor():
    model, x, body = get_model("resnet18").eval(), torch.randn(2, 3, 96, 96), body_of("resnet18")
    for ours, theirs in zip(body.state_dict().values(), model.state_dict().values(), strict=False):
        ours.copy_(theirs)
    nodes = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    maps = create_feature_extractor(model, nodes)(x).values()
    expected = []
    for m in maps:
        expected += [
            m.mean((2, 3)),
            m.flatten(2).std(2, correction=0),
            *([pairs(m)] if m.shape[1] <= 128 else []),
        ]
    torch.testing.assert_close(body(x), torch.cat(expected, 1), atol=1e-3, rtol=1e-3)
    widths = [2 * 1024 + 64 * 63 + 128 * 127 // 2, 2 * 1024, 1024]  # 64, 64, 128, 256, 512 channels
    assert [body_of("resnet18", pool=pool).n_features for pool in network.POOLS] == widths


def with_learned_norms(net: nn.Module) -> nn.Module:
    """`net` with norms that change their input, as those of a pretrained one do."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return net


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
@torch.no_grad()
def test_folded_norms_give_the_same_features(name):
    body, x = with_learned_norms(body_of(name)), torch.randn(9, 3, 96, 96)
    folded = network.fold_norms(body, 96)
    kinds = {type(module).__name__ for module in folded.modules()}
    assert not any("BatchNorm" in kind for kind in kinds)
    expected = body(x)
    error = (folded(x) - expected).abs().max() / expected.abs().max()
    assert error < 1e-4


@torch.no_grad()
def test_a_norm_is_not_folded_where_the_convolution_is_used_without_it_too():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            maps = self.convolution(x)
            return (maps + self.norm(maps)).mean((2, 3))

    net, x = with_learned_norms(Branch()).eval(), torch.randn(2, 3, 8, 8)
    assert (network.fold_norms(net, 8)(x) == net(x)).all()


def pairs(maps: torch.Tensor) -> torch.Tensor:
    """torch's own covariances of the channels, those above the diagonal, over the root of the mean
    variance.
    """
    found = [torch.cov(m.flatten(1), correction=0) for m in maps]
    above = torch.ones_like(found[0]).triu(1).bool()
    return torch.stack([c[above] / c.trace().div(len(c)).sqrt() for c in found])


@torch.no_grad()
def test_statistics_and_covariances_double_where_maps_double():
    maps = torch.randn(2, 5, 7, 7)
    for numbers in (network.statistics, lambda m: network.covariances(m, 5)):
        torch.testing.assert_close(numbers(2 * maps), 2 * numbers(maps), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", [0, 1, 2, 3, 4]),
        ("vgg11", [0, 1, 2, 3, 4]),
        ("efficientnet_lite0", [0, 1, 1, 2, 3, 3, 4, 4, 4]),
        ("mobilenetv2_035", [0, 1, 1, 2, 3, 3, 4, 4, 4]),
        ("densenet121", [0, 1, 2, 2, 3, 3, 4, 4, 4]),
    ],
)
@torch.no_grad()
def test_stages_in_a_row_are_the_backbone(name, blocks):
    body, x = body_of(name), torch.randn(2, 3, 96, 96)
    assert body.blocks == blocks and body(x).shape == (2, body.n_features)
    through = x.contiguous(memory_format=torch.channels_last)
    for stage in body.stages:
        through = stage(through)
    last = network._pool_last(through)
    whole = body_of(name, pool="last")
    whole.load_state_dict(body.state_dict())
    torch.testing.assert_close(whole(x), last)


@torch.no_grad()
def test_early_features_are_those_of_the_stages_before_block_3():
    first, second = body_of("efficientnet_lite0"), body_of("resnet18")
    x = torch.randn(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    expected = []
    maps = x
    for stage, block in zip(first.stages, first.blocks, strict=True):
        maps = stage(maps)
        if block < 3:
            channels = maps.shape[1]
            expected += [network.statistics(maps), network.covariances(maps, channels)]
    places = network.early_features(first)
    torch.testing.assert_close(first(x)[:, places], torch.cat(expected, 1))
    both = network.Bodies([first, second], [[0.5] * 3] * 2, [[0.5] * 3] * 2)
    later = network.early_features(second) + first.n_features
    assert network.early_features(both).tolist() == [*places, *later] and len(later)
    last = body_of("mobilenetv2_035", pool="last")
    assert len(network.early_features(last)) == 0 < second.n_early < second.n_features


@torch.no_grad()
def test_a_last_norm_belongs_to_the_network_whether_it_has_learned_or_not():
    net = backbones.body(backbones.find("densenet121", pretrained=False))
    list(net.modules())[-1].running_var.fill_(3.0)
    trained, loaded = network.Body(net, size=96).eval(), body_of("densenet121")
    loaded.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loaded(x), trained(x))
    torch.testing.assert_close(
        network._pool_last(net.eval()(x))[:, 1024:], trained(x)[:, -2048:-1024]
    )


@torch.no_grad()
def test_of_many_stages_the_last_of_each_block_is_taken():
    body = body_of("legacy_xception")
    assert len(body.stages) > 10 and sum(body.is_pooled) == 5 and body.n_features < 20_000


def test_features_pass_as_they_are_and_constant_maps_have_a_gradient():
    body = body_of("resnet18")
    assert (body(torch.arange(6.0).view(2, 3)) == torch.arange(6.0).view(2, 3)).all()
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    (network.statistics(maps).sum() + network.covariances(maps, 2).sum()).backward()
    assert maps.grad.isfinite().all()


def test_groups_are_blocks_from_the_wanted_one_on_then_the_head():
    body = body_of("resnet18")
    model = nn.Sequential(body, nn.Linear(body.n_features, 3))
    found = network.parameter_groups(model)
    assert [len(group) for group in found] == [
        *(len(list(stage.parameters())) for stage in body.stages),
        2,
    ]
    later = network.parameter_groups(model, 3)
    assert len(later) == 3 and [id(p) for p in later[0]] == [
        id(p) for p in body.stages[3].parameters()
    ]


@pytest.mark.parametrize(
    ("name", "pool"), [("resnet18", "style"), ("efficientnet_lite0", "stages"), ("vgg11", "last")]
)
@torch.no_grad()
def test_the_plain_model_gives_the_same_and_pickles_without_a_class_of_ours(name, pool):
    body, x = body_of(name, pool=pool), torch.randn(2, 3, 96, 96)
    model = nn.Sequential(body, nn.Linear(body.n_features, 3)).eval()
    body.autocast_dtype = torch.bfloat16
    found = network.plain_model(model)
    assert body.autocast_dtype is torch.bfloat16 and b"artclf" not in pickle.dumps(found)
    body.autocast_dtype = None
    torch.testing.assert_close(pickle.loads(pickle.dumps(found)).eval()(x), model(x))
