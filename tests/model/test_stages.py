"""Stages: every kind of network gives the numbers of timm's and torchvision's own forward pass."""

import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from artclf.base.errors import InputError
from artclf.model import backbones, features, network, stages

# a name of each kind, the size of its pictures, and how many tokens are no places
TRANSFORMERS = [
    ("vit_tiny_patch16_224", 48, 1),
    ("vit_small_patch14_dinov2", 56, 1),
    ("vit_small_patch14_reg4_dinov2", 56, 1 + 4),
    ("vit_xsmall_patch16_clip_224", 48, 1),
    pytest.param("vit_base_patch16_siglip_224", 48, 0, marks=pytest.mark.slow),
    ("eva02_tiny_patch14_224", 56, 1),
    ("vit_pe_core_tiny_patch16_384", 48, 1),
    ("vit_small_patch16_dinov3", 48, 1 + 4),
]
OF_STAGES = [
    ("swin_tiny_patch4_window7_224", 64),
    ("convnext_atto", 64),
    ("swinv2_cr_tiny_224", 64),
]


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


def net_and_model(name: str, size: int) -> tuple[nn.Module, nn.Module]:
    """What `backbones.body` gives, with norms that change something, and a copy of its timm model."""
    torch.manual_seed(0)
    net = backbones.body(backbones.find(name, pretrained=False), size)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net, deepcopy(net.model)


def pictures(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def mean_and_std(maps: torch.Tensor) -> torch.Tensor:
    pixels = maps.flatten(2)
    return torch.cat([pixels.mean(2), (pixels.var(2, correction=0) + 1e-6).sqrt()], 1)


def maps_of_stages(body: network.Body, x: torch.Tensor) -> list[torch.Tensor]:
    found = []
    for stage, layout in zip(body.stages, body.layouts, strict=True):
        x = stage(x)
        found.append(layout.maps(x))
    return found


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "size", "prefix"), TRANSFORMERS)
@torch.no_grad()
def test_features_of_a_transformer_are_those_of_timms_own_pass(name, size, prefix):
    net, model = net_and_model(name, size)
    body, x = network.Body(net, "stages", size).eval(), pictures(size)
    assert body.blocks == [0, 1, 2, 3, 4] and body.has_maps
    last_of_quarters = {12: [2, 5, 8], 10: [1, 4, 6]}
    tokens, maps = model.forward_intermediates(x, indices=last_of_quarters[len(model.blocks)])
    for found, expected in zip(maps_of_stages(body, x)[1:4], maps, strict=True):
        close(found, expected)
    last_maps = tokens[:, prefix:].transpose(1, 2)
    features = [mean_and_std(stage_maps) for stage_maps in [*maps, last_maps]]
    if model.attn_pool is not None:
        features.append(model(x))
    else:
        features.append(tokens[:, 0])
    close(body(x), torch.cat(features, 1))
    close(body(x)[:, body.last_means], last_maps.mean(2))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_pe_core_tiny_patch16_384"])
@torch.no_grad()
def test_the_last_tokens_are_pooled_like_maps_and_the_summary_follows(name):
    net, model = net_and_model(name, 48)
    body, x = network.Body(net, "last", 48).eval(), pictures(48)
    places = model.forward_features(x)[:, model.num_prefix_tokens :]
    close(body(x), torch.cat([places.amax(1), places.mean(1), model(x)], 1))
    close(body(x)[:, body.last_means], places.mean(1))


@pytest.mark.parametrize(("name", "size"), OF_STAGES)
@torch.no_grad()
def test_features_of_stages_are_those_of_timms_own_pass_wherever_the_channels_are(name, size):
    net, model = net_and_model(name, size)
    body, x = network.Body(net, "stages", size).eval(), pictures(size)
    _, maps = model.forward_intermediates(x)
    maps = maps[-4:]  # some have the stem's, too
    for found, stage_maps in zip(maps_of_stages(body, x)[1:5], maps, strict=True):
        close(found, stage_maps)
    expected = torch.cat([mean_and_std(stage_maps) for stage_maps in maps], 1)
    first = body.n_features - expected.shape[1]
    if body.layouts[0].kind == "channels last":  # with a last norm
        first -= 2 * maps[-1].shape[1]
        last = model.forward_features(x).permute(0, 3, 1, 2)
        close(body(x)[:, body.last_means], last.mean((2, 3)))
    close(body(x)[:, first : first + expected.shape[1]], expected)
    assert body.blocks[:5] == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_torchvisions_swin_has_its_channels_last_until_the_end():
    model = get_model("swin_t").eval()
    net = nn.Sequential(*list(model.children())[:3])
    body, x = network.Body(net, "stages", 64).eval(), pictures(64)
    maps = create_feature_extractor(model, ["features.1.1.add_1", "permute"])(x)
    close(body(x)[:, 2 * 96 : 4 * 96], mean_and_std(maps["features.1.1.add_1"].permute(0, 3, 1, 2)))
    close(body(x)[:, body.last_means], maps["permute"].mean((2, 3)))


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


@torch.no_grad()
def test_maps_of_equal_sides_are_laid_out_like_those_that_follow():
    class Stage(nn.Module):
        """Halves the maps and doubles their channels, which come last."""

        def __init__(self, channels):
            super().__init__()
            self.convolution = nn.Conv2d(channels, 2 * channels, 2, 2)

        def forward(self, x):
            return self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    last = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 4, 4), ChannelsLast()), Stage(8))
    first = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.MaxPool2d(1), nn.Conv2d(8, 16, 2, 2))
    for net, kind in ((last, "channels last"), (first, "maps")):
        body = network.Body(net, "stages", 32)
        assert [layout.kind for layout in body.layouts] == [kind, kind]
        x = pictures(32)
        maps = body.stages[0](x)
        if kind == "channels last":
            maps = maps.permute(0, 3, 1, 2)
        assert maps.shape == (2, 8, 8, 8)
        close(body(x)[:, :16], mean_and_std(maps))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("xcit_nano_12_p16_224", 64),
        ("deit_tiny_distilled_patch16_224", 64),
        ("crossvit_tiny_240", 240),
    ],
)
@torch.no_grad()
def test_a_network_that_is_no_chain_gives_what_its_own_pooling_gives(name, size):
    net, model = net_and_model(name, size)
    body, x = network.Body(net, size=size).eval(), pictures(size)
    assert body.pool == "last" and not body.has_maps and body.blocks == [4]
    close(body(x), model(x))
    assert body.last_means == slice(0, body.n_features)


def test_every_parameter_of_a_transformer_is_in_the_block_of_its_quarter():
    net, model = net_and_model("vit_tiny_patch16_224", 48)
    names = {id(parameter): name for name, parameter in net.model.named_parameters()}
    body = network.Body(net, size=48)
    *groups, head = network.parameter_groups(nn.Sequential(body, nn.Linear(body.n_features, 2)))
    assert len(groups) == 5 and len(head) == 2
    found = [{names[id(parameter)] for parameter in group} for group in groups]
    assert found[0] == {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }
    for number, quarter in enumerate(found[1:]):
        blocks = {name.split(".")[1] for name in quarter if name.startswith("blocks.")}
        assert blocks == {str(3 * number + place) for place in range(3)}
    assert {"norm.weight", "norm.bias"} <= found[4]
    assert set.union(*found) == set(dict(model.named_parameters()))


def test_the_networks_own_pooling_learns_with_the_last_block():
    net, _ = net_and_model("vit_pe_core_tiny_patch16_384", 48)
    body = network.Body(net, size=48)
    *_, last, _ = network.parameter_groups(nn.Sequential(body, nn.Linear(body.n_features, 2)))
    assert {id(p) for p in body.own_pool.parameters()} < {id(p) for p in last}


@pytest.mark.parametrize(("depth", "blocks"), [(1, [4]), (2, [2, 4]), (6, [1, 2, 2, 3, 4, 4])])
def test_few_blocks_are_in_quarters_that_end_with_the_fourth(depth, blocks):
    quarters = stages._quarters([nn.Linear(1, 1) for _ in range(depth)], nn.Identity(), None)
    found = [number for number, quarter in quarters.items() for _ in range(len(quarter) - 1)]
    assert found == blocks


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 48),
        ("vit_small_patch14_reg4_dinov2", 56),
        ("eva02_tiny_patch14_224", 56),
        ("vit_pe_core_tiny_patch16_384", 48),
        ("mambaout_femto", 64),  # with its channels last
        ("convnext_atto", 64),
    ],
)
@torch.no_grad()
def test_the_plain_model_of_each_kind_opens_without_artclf(name, size):
    body, x = network.Body(net_and_model(name, size)[0], "stages", size), pictures(size)
    model = nn.Sequential(body, nn.Linear(body.n_features, 3)).eval()
    content = pickle.dumps(network.plain_model(model))
    assert b"artclf" not in content
    close(pickle.loads(content).eval()(x), model(x))


def test_a_size_that_cannot_be_divided_into_patches_is_an_error_that_names_sizes_that_can():
    taken = backbones.find("vit_small_patch14_dinov2", pretrained=False)
    with pytest.raises(InputError, match=r"--size 320 is no multiple of 14 px.*take 308 or 322"):
        backbones.body(taken, 320)


def test_a_size_that_a_network_fails_with_is_an_error_in_words():
    net = backbones.body(backbones.find("crossvit_tiny_240", pretrained=False), 64)
    with pytest.raises(
        InputError, match=r"can't take pictures of 64 px \(.*\): take another --size"
    ):
        network.Body(net, size=64)


@pytest.mark.parametrize(
    ("name", "version"),
    [("resnet18", 1), ("densenet121", 1), ("efficientnet_lite0", 1), ("xcit_nano_12_p16_224", 1)]
    + [("convnext_atto", 2), ("vit_tiny_patch16_224", 2), ("mambaout_femto", 2)],
)
def test_a_network_that_is_cut_as_before_says_so_and_keeps_its_stored_features(name, version):
    """Names of parameters and of stored features are those of before."""
    taken = backbones.find(name, pretrained=False)
    before, now = (
        network.Body(backbones.body(taken, 64), "stages", 64, version=number) for number in (1, 2)
    )
    assert before.version == 1 and now.version == version
    same = list(before.state_dict()) == list(now.state_dict())
    assert same == (version == 1)
    assert (features.body_name(taken, now) == f"{name} {now.pool} float32") == (version == 1)


@torch.no_grad()
def test_an_export_of_before_is_built_as_it_was():
    net, model = net_and_model("convnext_atto", 64)
    body, x = network.Body(net, "stages", 64, version=1).eval(), pictures(64)
    assert [name.split(".")[:3] for name in body.state_dict()][-1] == ["stages", "1", "3"]
    stem = model.stem(x)
    close(body(x), torch.cat([mean_and_std(stem), mean_and_std(model.stages(stem))], 1))
    net, model = net_and_model("vit_tiny_patch16_224", 48)
    body = network.Body(net, "style", 48, version=1).eval()
    assert body.pool == "last" and set(body.state_dict()) == {
        f"stages.0.model.{name}" for name in model.state_dict()
    }
    close(body(pictures(48)), model(pictures(48)))
