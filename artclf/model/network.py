"""The network: a backbone that ends in features, and a head on them, as a fastai `Learner`.

The features are statistics of the channels after every stage: how strong each channel is, how much
it varies over the picture, and which channels vary together. Strokes and colours of the first
stages tell styles as well as the objects of the last ones (Gatys et al. 2016, Image style transfer
using convolutional neural networks, call such statistics the style of a picture). `new_learner`
builds the same network from a `config.json` for training and for loading.
"""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import torch
from fastai.learner import Learner
from fastai.torch_core import params
from fastai.vision.learner import create_head
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from artclf.model import backbones, stages
from artclf.model.several import Bodies

POOLS = ("style", "stages", "last")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MOST_CHANNELS = 128  # a stage with more channels would have too many pairs for covariances
MAX_ROUNDING = 0.05  # of the length of the features, where norms are folded; 0.01 in bfloat16
MOST_STAGES = 10  # in a network with more stages, only the last of each block is pooled
LAST_EARLY_BLOCK = 2  # whose statistics tell strokes and colours more than objects


class Body(nn.Module):
    """A backbone in stages: from pictures (images, 3, height, width) to (images, n_features).

    `pool` says what the features are: with `stages`, mean and standard deviation of each channel
    after each stage (in a network of more than `MOST_STAGES`, after the last of each block); with
    `style`, also the covariances of the channels after each stage of at most `MOST_CHANNELS`; with
    `last`, maximum and mean of the last feature maps, as fastai pools. It is `last` where `net` has
    no stages. In a transformer on tokens the places of the picture are what pixels are in maps, its
    embedding is not pooled, and its class token or its own pooling follows as further features.
    `precision`, one of `PRECISIONS`, is that of the stages; features are always float32. `net` is
    taken apart (`stages.cut`, which `version` is for), and tried on a picture of `size` px.

    Given features instead of pictures, a body returns them as they are: a frozen one need not
    compute stored features again. `blocks` says which block each stage belongs to (1 to 4 by
    resolution, or by quarter of a transformer; 0 for the stem), `is_pooled` which stages are
    pooled, `n_early` how many of the features, the first ones, are statistics of the stages of
    blocks 0 to `LAST_EARLY_BLOCK`, `last_means` where in the features the mean of each channel after
    the last stage is, `has_places` whether its maps are those of places of the picture.
    """

    def __init__(
        self,
        net: nn.Module,
        pool: str = "style",
        size: int = 224,
        precision: str = "float32",
        version: int = stages.VERSION,
    ):
        super().__init__()
        blank = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        cut = stages.cut(net, blank, version)
        self.version = cut.version
        self.stages = nn.ModuleList(cut.parts)
        self.layouts = cut.layouts
        self.blocks = cut.blocks
        self.summary_tokens = cut.summary_tokens
        self.own_pool = cut.pool
        self.pooled_from = cut.pooled_from
        self.has_maps = self.layouts[-1].kind != "vector"
        self.pool = pool if len(cut.parts) > 1 else "last"
        self.autocast_dtype = PRECISIONS[precision]
        self.is_pooled = self._which_are_pooled()
        shapes = self._shapes_of_maps(blank)
        # version 1 took maps with their channels last, as some transformers have them, for others
        self.has_places = self.has_maps and shapes[-1][2] == shapes[-1][3]
        self.covariance_channels = self._covariance_channels(shapes)
        with torch.no_grad():
            self.n_features = self.eval()(blank).shape[1]
        self.last_means = self._last_means(shapes[-1][1])
        self.n_early = self._n_early(shapes)

    @torch.no_grad()
    def _shapes_of_maps(self, x) -> list[torch.Size]:
        """The shape of the maps after each stage."""
        shapes = []
        for stage, layout in zip(self.stages, self.layouts, strict=True):
            x = stage.eval()(x)
            shapes.append(layout.maps(x).shape)
        return shapes

    def _which_are_pooled(self) -> list[bool]:
        if self.pool == "last":
            return [False] * len(self.stages)
        if self.layouts[0].kind == "tokens":
            return [block > 0 for block in self.blocks]
        if len(self.stages) <= MOST_STAGES:
            return [True] * len(self.stages)
        next_blocks = [*self.blocks[1:], None]
        return [
            block != following for block, following in zip(self.blocks, next_blocks, strict=True)
        ]

    def _covariance_channels(self, shapes: list[torch.Size]) -> list[int]:
        """The number of channels of each pooled stage, 0 for a stage without covariances."""
        found = []
        for shape, is_pooled in zip(shapes, self.is_pooled, strict=True):
            if is_pooled:
                found.append(shape[1] if self._has_covariances(shape[1]) else 0)
        return found

    def _has_covariances(self, channels: int) -> bool:
        return self.pool == "style" and channels <= MOST_CHANNELS

    def _last_means(self, channels: int) -> slice:
        """Where in the features the mean of each channel after the last stage is."""
        if not self.has_maps:
            return slice(0, self.n_features)
        summaries = 1 if self.own_pool is not None else self.summary_tokens
        end = self.n_features - summaries * channels
        if self.pool == "last":
            return slice(end - channels, end)
        pairs = self.covariance_channels[-1] * (self.covariance_channels[-1] - 1) // 2
        start = end - pairs - 2 * channels
        return slice(start, start + channels)

    def _n_early(self, shapes: list[torch.Size]) -> int:
        """How many of the features come from early stages; 0 where only the last is pooled."""
        count = 0
        for shape, block, is_pooled in zip(shapes, self.blocks, self.is_pooled, strict=True):
            if is_pooled and block <= LAST_EARLY_BLOCK:
                channels = shape[1]
                paired = channels if self._has_covariances(channels) else 0
                count += 2 * channels + paired * (paired - 1) // 2
        return count

    def parts_of_blocks(self) -> dict[int, nn.ModuleList]:
        """The stages of each block, from the lowest block on; the last has the network's own
        pooling, too.
        """
        parts: dict[int, nn.ModuleList] = {
            block: nn.ModuleList() for block in sorted(set(self.blocks))
        }
        for stage, block in zip(self.stages, self.blocks, strict=True):
            parts[block].append(stage)
        if self.own_pool is not None:
            parts[max(parts)].append(self.own_pool)
        return parts

    @property
    def bodies(self) -> list[nn.Module]:
        """The body itself: as if it were one of `several.Bodies`."""
        return [self]

    def forward(self, x):
        is_features = x.ndim == 2
        return x if is_features else self.extract(x)

    def extract(self, x):
        """The features of pictures."""
        maps = []
        x = x.contiguous(memory_format=torch.channels_last)
        with self._autocast(x):
            for stage, layout, is_pooled in zip(
                self.stages, self.layouts, self.is_pooled, strict=True
            ):
                x = stage(x)
                if is_pooled:
                    maps.append(layout.maps(x))
            summary = self._summary(x)
        if not self.has_maps:
            return x.float()
        if not maps:
            return torch.cat([_pool_last(self.layouts[-1].maps(x)), *summary], 1)
        features = []  # in full precision: a covariance is a small difference of large numbers
        for stage_maps, channels in zip(maps, self.covariance_channels, strict=True):
            features.append(statistics(stage_maps))
            if channels:
                features.append(covariances(stage_maps, channels))
        return torch.cat([*features, *summary], 1)

    def _summary(self, tokens) -> list[torch.Tensor]:
        """What a transformer says of the picture as a whole after its last stage: at most one
        tensor (images, numbers), in a list.
        """
        if self.own_pool is not None:
            return [self.own_pool(tokens[:, self.pooled_from :]).float()]
        if self.summary_tokens:
            return [tokens[:, : self.summary_tokens].flatten(1).float()]
        return []

    def _autocast(self, x):
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.autocast_dtype)


def early_features(body: nn.Module) -> np.ndarray:
    """Where in the features of a body, or of several, the statistics of early stages are: indices,
    none where it has no stages.
    """
    places = []
    start = 0
    for one in body.bodies:
        places.append(np.arange(start, start + one.n_early))
        start += one.n_features
    return np.concatenate(places)


def statistics(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel.

    From (images, channels, height, width) to (images, 2 * channels).
    """
    mean, centred, pixels = _centred(maps)
    variance = centred.square().mean(pixels)
    std = (variance + 1e-6).sqrt()  # the root of 0 has no gradient
    return torch.cat([mean, std], 1)


def covariances(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Covariance of each pair of channels: (images, channels, height, width) to (images, pairs).

    The pairs are the channels * (channels - 1) / 2 above the diagonal, row by row. Each covariance
    is divided by the root of the channels' mean variance, so that it doubles where the maps double,
    as `statistics` do.
    """
    _, centred, pixels = _centred(maps)
    channels_first = centred if pixels == 2 else centred.transpose(1, 2)
    matrix = channels_first @ channels_first.transpose(1, 2) / centred.shape[pixels]
    first, second = torch.triu_indices(channels, channels, 1)
    mean_variance = matrix.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return matrix[:, first, second] / (mean_variance + 1e-6).sqrt()


def _centred(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The mean of each channel, (images, channels); the maps less that, (images, pixels, channels);
    the axis of the pixels, 1.

    Pixels come before channels as in memory with channels last: nothing is copied, and a CPU is ten
    times as fast as with `torch.var_mean` over height and width. onnxruntime has channels first in
    memory: in an exported network they come first here, too, and the axis of the pixels is 2.
    """
    if torch.compiler.is_exporting():
        pixels = maps.float().flatten(2)
        mean = pixels.mean(2, keepdim=True)
        return mean[:, :, 0], pixels - mean, 2
    pixels = maps.float().permute(0, 2, 3, 1).flatten(1, 2)
    mean = pixels.mean(1, keepdim=True)
    return mean[:, 0], pixels - mean, 1


@torch.no_grad()
def fold_norms(body: nn.Module, size: int) -> nn.Module:
    """A copy of `body` for inference, each batch norm folded into the convolution before it.

    It gives the same features but for rounding, in three quarters of the time on a CPU. Returns
    `body` itself where the output of a convolution goes elsewhere, too, or where there is no batch
    norm. `size` is that of the pictures, in px.
    """
    body.eval()
    if not any(isinstance(module, nn.BatchNorm2d) for module in body.modules()):
        return body
    folded = deepcopy(body)
    device = next(body.parameters()).device
    blank = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    names = {module: name for name, module in folded.named_modules()}
    for norm, convolution in _convolutions_before_norms(folded, blank).items():
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        # timm's norms contain an activation
        folded.set_submodule(names[norm], getattr(norm, "act", nn.Identity()))
    expected = body(blank)
    difference = (folded(blank) - expected).norm() / expected.norm()
    return folded if difference < MAX_ROUNDING else body


def _convolutions_before_norms(body: nn.Module, blank: torch.Tensor) -> dict[nn.Module, nn.Module]:
    """Each batch norm that takes the output of a convolution, and that convolution."""
    outputs: list[tuple[torch.Tensor, nn.Module]] = []
    found = {}

    def after_convolution(convolution, inputs, output):
        outputs.append((output, convolution))

    def before_norm(norm, inputs):
        for output, convolution in outputs:
            if output is inputs[0]:
                found[norm] = convolution

    hooks = []
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_convolution))
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
    body(blank)
    for hook in hooks:
        hook.remove()
    return found


def _pool_last(maps: torch.Tensor) -> torch.Tensor:
    """Maximum and mean of each channel, as fastai's `AdaptiveConcatPool2d`."""
    maps = maps.float()
    return torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1)


def new_body(
    backbone: backbones.Backbone,
    pool: str = "style",
    size: int = 224,
    precision: str = "float32",
    version: int = stages.VERSION,
    weights=None,
) -> Body | Bodies:
    """The body of a backbone, or the bodies of one that is made of several.

    `weights` is the file that `backbones.find` got, for the others see `Body`.
    """
    parts = backbones.each(backbone)
    bodies = []
    for part in parts:
        tried = backbones.size_to_try(part, size)
        net = backbones.body(part, size, weights)
        bodies.append(Body(net, pool, tried, precision, version))
    if len(bodies) == 1:
        return bodies[0]
    return Bodies(bodies, [part.mean for part in parts], [part.std for part in parts])


def new_learner(dls, config: dict, weights=None, **kwargs) -> Learner:
    """A fastai `Learner` of the backbone that `config` names and a new head, the body frozen if it
    is pretrained.

    The head has `depth` hidden layers of `width` units (see `new_head`). Once unfrozen, a
    pretrained body learns from block `unfreeze_from` (1 to 4, 0 for all) on, each block a parameter
    group; the blocks below never learn. The memory format is channels last, which is faster on CPUs
    and GPUs. `weights` is a file of weights to start from (see `backbones.find`). Further arguments
    go to `Learner`. Changes `config["pool"]` to `last` where the backbone has no stages, and notes
    in `config["stages"]` the first version of `stages` that cuts the network so.
    """
    backbone = backbones.of_config(config)
    size = config["size"]
    precision = config.get("precision", "float32")  # exports of version 0.1 don't name it
    version = config.get("stages", stages.VERSION)
    body = new_body(backbone, config["pool"], size, precision, version, weights)
    config["pool"] = body.pool
    config["stages"] = body.version
    model = nn.Sequential(body, new_head(body.n_features, config))
    model.to(dls.device, memory_format=torch.channels_last)
    pretrained = backbone.weights != "random"
    first_block = config["unfreeze_from"] if pretrained else 0
    for block, parts in body.parts_of_blocks().items():
        if block < first_block:
            parts.requires_grad_(False)

    def splitter(model):
        return parameter_groups(model, first_block)

    learn = Learner(dls, model, splitter=splitter, **kwargs)
    learn.arch = backbone.name
    if pretrained:
        learn.freeze()
    return learn


def new_head(n_features: int, config: dict) -> nn.Sequential:
    """A head on `n_features` features: an output for each of `vocab`, then for each of `artists`,
    where there are any.

    With `depth` 0 it is linear, on standardised features; else it is fastai's, with `depth` hidden
    layers of `width` units.
    """
    outputs = len(config["vocab"]) + len(config.get("artists", ()))
    if config["depth"]:
        hidden = [config["width"]] * config["depth"]
        return create_head(n_features, outputs, hidden, config["dropout"], pool=False)
    linear = nn.Linear(n_features, outputs)
    # the loss of a linear head has a single minimum, so it needs no random start
    nn.init.zeros_(linear.weight)
    standardizer = nn.BatchNorm1d(n_features, affine=False)
    return nn.Sequential(standardizer, nn.Dropout(config["dropout"]), linear)


def standardizer(head: nn.Sequential) -> nn.BatchNorm1d | None:
    """The layer by which a linear head standardises its features; None in fastai's heads."""
    first = head[0]
    is_standardizer = isinstance(first, nn.BatchNorm1d) and not first.affine
    return first if is_standardizer else None


def keep_outputs(model: nn.Sequential, count: int) -> nn.Sequential:
    """`model` with only the first `count` outputs of its head, those of the periods; the tensors
    are shared.
    """
    body, head = model
    *layers, last = head
    if last.out_features == count:
        return model
    with torch.device("meta"):  # without memory: its weights are those of `last`
        shortened = nn.Linear(last.in_features, count, bias=last.bias is not None)
    shortened.weight = nn.Parameter(last.weight.detach()[:count])
    if last.bias is not None:
        shortened.bias = nn.Parameter(last.bias.detach()[:count])
    return nn.Sequential(body, nn.Sequential(*layers, shortened))


def only_head_learns(opt) -> bool:
    """Whether all parameter groups of an optimizer but the last, the head's, are frozen."""
    return 0 < opt.frozen_idx == len(opt.param_lists) - 1


def parameter_groups(model: nn.Sequential, first_block: int = 0) -> list[list[nn.Parameter]]:
    """The parameter groups of a model of `new_learner`: one for each block from `first_block` on,
    then the head.
    """
    body, head = model
    groups = []
    for block, parts in body.parts_of_blocks().items():
        group = params(parts)
        if block >= first_block and group:
            groups.append(group)
    return [*groups, params(head)]


def plain_model(model: nn.Sequential, count: int | None = None) -> nn.Sequential:
    """`model` without a class of ours, so that its pickle opens anywhere, with only the first
    `count` outputs if given.

    It takes pictures alone, not features, and computes in float32.
    """
    body = deepcopy(model[0])
    body.autocast_dtype = None
    tracer = fx.Tracer()
    # modules stay as they are, but for those of ours, whose steps are written down
    tracer.is_leaf_module = lambda module, _: not type(module).__module__.startswith("artclf")
    tracer.traced_func_name = "extract"
    plain_body = fx.GraphModule(body, tracer.trace(body))
    if count is not None:
        model = keep_outputs(model, count)
    return nn.Sequential(plain_body, model[1])
