"""The network: a backbone that ends in features, and a head on them, as a fastai `Learner`.

The features are statistics of the channels after every stage: how strong each channel is, how much
it varies over the picture, and which channels vary together. Strokes and colours of the first
stages tell styles as well as the objects of the last ones (Gatys et al. 2016, Image style transfer
using convolutional neural networks, call such statistics the style of a picture). `new_learner`
builds the same network from a `config.json` for training and for loading.
"""

from contextlib import nullcontext
from copy import deepcopy

import torch
from fastai.learner import Learner
from fastai.torch_core import norm_types, params
from fastai.vision.learner import create_head
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from artclf.model import backbones
from artclf.model.several import Bodies

POOLS = ("style", "stages", "last")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MOST_CHANNELS = 128  # a stage with more channels would have too many pairs for covariances
MAX_ROUNDING = 0.05  # of the length of the features, where norms are folded; 0.01 in bfloat16
MOST_STAGES = 10  # in a network with more stages, only the last of each block is pooled


class Body(nn.Module):
    """A backbone in stages: from pictures (images, 3, height, width) to (images, n_features).

    `pool` says what the features are: with `stages`, mean and standard deviation of each channel
    after each stage (in a network of more than `MOST_STAGES`, after the last of each block); with
    `style`, also the covariances of the channels after each stage of at most `MOST_CHANNELS`; with
    `last`, maximum and mean of the last feature maps, as fastai pools. It is `last` where `net` has
    no stages. `precision`, one of `PRECISIONS`, is that of the stages; features are always float32.

    Given features instead of pictures, a body returns them as they are: a frozen one need not
    compute stored features again. `blocks` says which block each stage belongs to (1 to 4 by
    resolution, 0 for the stem), `is_pooled` which stages are pooled, `last_means` where in the
    features the mean of each channel after the last stage is.
    """

    def __init__(
        self, net: nn.Module, pool: str = "style", size: int = 224, precision: str = "float32"
    ):
        super().__init__()
        blank = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        parts = stages(net, blank)
        shapes = _shapes(parts, blank)
        self.stages = nn.ModuleList(parts)
        self.blocks = _blocks(shapes)
        self.has_maps = len(shapes[-1]) == 4
        self.pool = pool if len(parts) > 1 else "last"
        self.autocast_dtype = PRECISIONS[precision]
        self.is_pooled = self._which_are_pooled()
        self.covariance_channels = self._covariance_channels(shapes)
        with torch.no_grad():
            self.n_features = self.eval()(blank).shape[1]
        self.last_means = self._last_means(shapes[-1][1])

    def _which_are_pooled(self) -> list[bool]:
        if self.pool == "last":
            return [False] * len(self.stages)
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
                has_covariances = self.pool == "style" and shape[1] <= MOST_CHANNELS
                found.append(shape[1] if has_covariances else 0)
        return found

    def _last_means(self, channels: int) -> slice:
        """Where in the features the mean of each channel after the last stage is."""
        if self.pool == "last":
            return slice(self.n_features - channels, self.n_features)
        pairs = self.covariance_channels[-1] * (self.covariance_channels[-1] - 1) // 2
        start = self.n_features - pairs - 2 * channels
        return slice(start, start + channels)

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
            for stage, is_pooled in zip(self.stages, self.is_pooled, strict=True):
                x = stage(x)
                if is_pooled:
                    maps.append(x)
        if not maps:
            return _pool_last(x) if self.has_maps else x.float()
        features = []  # in full precision: a covariance is a small difference of large numbers
        for stage_maps, channels in zip(maps, self.covariance_channels, strict=True):
            features.append(statistics(stage_maps))
            if channels:
                features.append(covariances(stage_maps, channels))
        return torch.cat(features, 1)

    def _autocast(self, x):
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.autocast_dtype)


def statistics(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel.

    From (images, channels, height, width) to (images, 2 * channels).
    """
    mean, centred = _centred(maps)
    variance = centred.square().mean(1)
    std = (variance + 1e-6).sqrt()  # the root of 0 has no gradient
    return torch.cat([mean, std], 1)


def covariances(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Covariance of each pair of channels: (images, channels, height, width) to (images, pairs).

    The pairs are the channels * (channels - 1) / 2 above the diagonal, row by row. Each covariance
    is divided by the root of the channels' mean variance, so that it doubles where the maps double,
    as `statistics` do.
    """
    _, centred = _centred(maps)
    matrix = centred.transpose(1, 2) @ centred / centred.shape[1]
    first, second = torch.triu_indices(channels, channels, 1)
    mean_variance = matrix.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return matrix[:, first, second] / (mean_variance + 1e-6).sqrt()


def _centred(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of each channel, (images, channels), and the maps less that: (images, pixels,
    channels).

    Pixels come before channels as in memory with channels last: nothing is copied, and a CPU is ten
    times as fast as with `torch.var_mean` over height and width.
    """
    pixels = maps.float().permute(0, 2, 3, 1).flatten(1, 2)
    mean = pixels.mean(1, keepdim=True)
    return mean[:, 0], pixels - mean


@torch.no_grad()
def fold_norms(body: nn.Module, size: int) -> nn.Module:
    """A copy of `body` for inference, each batch norm folded into the convolution before it.

    It gives the same features but for rounding, in three quarters of the time on a CPU. Returns
    `body` itself where the output of a convolution goes elsewhere, too. `size` is that of the
    pictures, in px.
    """
    body.eval()
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


def stages(net: nn.Module, blank: torch.Tensor) -> list[nn.Module]:
    """`net` as a list of modules, its stages, to be called one after the other.

    A stage is either a container of layers, such as `layer1` of a ResNet, or a run of bare layers
    that ends with a pooling layer or before the next container. A network that is no such chain (it
    has branches, or is a transformer) is a single stage. `blank` is a batch of pictures to try on
    whether the chain gives what `net` gives.
    """
    found: list[nn.Module] = []
    bare_layers: list[nn.Module] = []

    def close_stage():
        if bare_layers:
            found.append(nn.Sequential(*bare_layers))
            bare_layers.clear()

    for part in _chain(net, blank):
        if _is_layer(part):
            bare_layers.append(part)
            if "Pool" in type(part).__name__:
                close_stage()
        else:
            close_stage()
            found.append(part)
    close_stage()
    return found


@torch.no_grad()
def _chain(net: nn.Module, x: torch.Tensor) -> list[nn.Module]:
    """The parts of `net` that, called one after the other, give its feature maps; `net` alone where
    there are none.
    """
    expected = net.eval()(x)
    parts: list[nn.Module] = []
    chain: list[nn.Module] = []
    for part in _parts(net):
        # The maps may be complete before a last norm, which changes nothing until it has learned.
        # It belongs to the chain all the same; a part without weights after the maps doesn't.
        if chain and not part.state_dict():
            break
        try:
            x = part.eval()(x)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # `net` is no chain
            break
        parts.append(part)
        is_maps = x.shape == expected.shape and x.ndim == 4
        if is_maps and torch.allclose(x, expected, atol=1e-5):
            chain = list(parts)
        elif chain:
            break
    return chain or [net]


def _is_layer(part: nn.Module) -> bool:
    """Whether a part is a bare layer, not a container; timm has norms that contain an activation."""
    return isinstance(part, norm_types) or not list(part.children())


def _parts(net: nn.Module) -> list[nn.Module]:
    """The modules that `net` is made of; a Sequential of bare layers or Sequentials is opened."""
    found = []
    for part in getattr(net, "model", net).children():
        if _is_opened(part):
            found += _parts(part)
        else:
            found.append(part)
    return found


def _is_opened(part: nn.Module) -> bool:
    if type(part) is not nn.Sequential:
        return False
    return any(_is_layer(child) or isinstance(child, nn.Sequential) for child in part)


@torch.no_grad()
def _shapes(parts: list[nn.Module], x: torch.Tensor) -> list[torch.Size]:
    """The shape of the maps after each part."""
    shapes = []
    for part in parts:
        x = part.eval()(x)
        shapes.append(x.shape)
    return shapes


def _blocks(shapes: list[torch.Size]) -> list[int]:
    """The block of each stage: 4 at the lowest resolution, 3 at the next higher one, and so on down
    to 1; the first stage is 0, the stem.
    """
    if len(shapes) == 1:
        return [4]
    resolutions = sorted({shape[-1] for shape in shapes})
    blocks = [max(1, 4 - resolutions.index(shape[-1])) for shape in shapes]
    return [0, *blocks[1:]]


def new_body(
    backbone: backbones.Backbone, pool: str = "style", size: int = 224, precision: str = "float32"
) -> Body | Bodies:
    """The body of a backbone, or the bodies of one that is made of several."""
    parts = backbones.each(backbone)
    bodies = [Body(backbones.body(part), pool, size, precision) for part in parts]
    if len(bodies) == 1:
        return bodies[0]
    return Bodies(bodies, [part.mean for part in parts], [part.std for part in parts])


def new_learner(dls, config: dict, **kwargs) -> Learner:
    """A fastai `Learner` of the backbone that `config` names and a new head, the body frozen if it
    is pretrained.

    The head has `depth` hidden layers of `width` units (see `new_head`). Once unfrozen, a
    pretrained body learns from block `unfreeze_from` (1 to 4, 0 for all) on, each block a parameter
    group; the blocks below never learn. The memory format is channels last, which is faster on CPUs
    and GPUs. Further arguments go to `Learner`. Changes `config["pool"]` to `last` where the
    backbone has no stages.
    """
    backbone = backbones.of_config(config)
    precision = config.get("precision", "float32")  # exports of version 0.1 don't name it
    body = new_body(backbone, config["pool"], config["size"], precision)
    config["pool"] = body.pool
    model = nn.Sequential(body, new_head(body.n_features, config))
    model.to(dls.device, memory_format=torch.channels_last)
    pretrained = backbone.weights != "random"
    first_block = config["unfreeze_from"] if pretrained else 0
    for stage, block in zip(body.stages, body.blocks, strict=True):
        if block < first_block:
            stage.requires_grad_(False)

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
    for block in sorted(set(body.blocks)):
        group = []
        for stage, block_of_stage in zip(body.stages, body.blocks, strict=True):
            if block_of_stage == block:
                group += params(stage)
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
    tracer.is_leaf_module = lambda *_: True  # the stages stay modules as they are
    tracer.traced_func_name = "extract"
    plain_body = fx.GraphModule(body, tracer.trace(body))
    if count is not None:
        model = keep_outputs(model, count)
    return nn.Sequential(plain_body, model[1])
