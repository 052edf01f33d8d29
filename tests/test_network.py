"""The network: stages are what the backbone computes on the way, statistics what torch says they are."""
import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from artclf import backbones, network


@pytest.fixture(autouse=True)
def no_workers_here(no_workers): pass


def body_of(name: str, **kwargs):
    return network.Body(backbones.body(backbones.find(name, pretrained=False)), size=96, **kwargs).eval()


@torch.no_grad()
def test_statistics_are_those_of_torchvisions_feature_extractor():
    model, x = get_model("resnet18").eval(), torch.randn(2, 3, 96, 96)
    body = body_of("resnet18")
    ours = backbones.body(backbones.find("resnet18", pretrained=False))
    [*map(lambda pair: pair[0].data.copy_(pair[1]), zip(body.state_dict().values(),
                                                        list(model.state_dict().values())[:-2], strict=True))]
    nodes = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    maps = create_feature_extractor(model, nodes)(x)
    expected = torch.cat([torch.cat([maps[n].mean((2, 3)), maps[n].flatten(2).std(2, correction=0)], 1) for n in nodes], 1)
    assert len(list(ours.parameters())) == len(list(body.parameters()))
    torch.testing.assert_close(body(x), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("name", "blocks"), [
    ("resnet18", [0, 1, 2, 3, 4]), ("vgg11", [0, 1, 2, 3, 4]), ("efficientnet_lite0", [0, 1, 1, 2, 3, 3, 4, 4, 4]),
    ("mobilenetv2_035", [0, 1, 1, 2, 3, 3, 4, 4, 4]), ("densenet121", [0, 1, 2, 2, 3, 3, 4, 4])])
@torch.no_grad()
def test_stages_in_a_row_are_the_backbone(name, blocks):
    body, x = body_of(name), torch.randn(2, 3, 96, 96)
    assert body.blocks == blocks and body(x).shape == (2, body.width)
    through = x
    for stage in body.stages: through = stage(through)
    last = network._pooled(through)
    whole = body_of(name, pool="last")
    whole.load_state_dict(body.state_dict())
    torch.testing.assert_close(whole(x), last)


@torch.no_grad()
def test_a_body_without_stages_ends_as_fastai_pools():
    body = network.Body(backbones.body(backbones.find("test_vit", pretrained=False)), size=160)
    assert (body.pool, body.blocks, body.width) == ("last", [4], 64)


@torch.no_grad()
def test_of_many_stages_the_last_of_each_block_is_taken():
    body = body_of("legacy_xception")
    assert len(body.stages) > 10 and sum(body.taken) == 5 and body.width < 10_000


def test_features_pass_as_they_are_and_constant_maps_have_a_gradient():
    body = body_of("resnet18")
    assert (body(torch.arange(6.).view(2, 3)) == torch.arange(6.).view(2, 3)).all()
    maps = torch.ones(1, 2, 4, 4, requires_grad=True)
    network.statistics(maps).sum().backward()
    assert maps.grad.isfinite().all()


def test_groups_are_blocks_from_the_wanted_one_on_then_the_head():
    body = body_of("resnet18")
    model = nn.Sequential(body, nn.Linear(body.width, 3))
    found = network.groups(model)
    assert [len(group) for group in found] == [
        *(len(list(stage.parameters())) for stage in body.stages), 2]
    later = network.groups(model, 3)
    assert len(later) == 3 and [id(p) for p in later[0]] == [id(p) for p in body.stages[3].parameters()]
