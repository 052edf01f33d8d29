"""The network: a backbone that ends in features, and a head on them, as a fastai `Learner`.

The features are statistics of the channels after every stage: how strong each channel is, how much
it varies over the picture, and which channels vary together. Strokes and colours of the first
stages tell styles as well as the objects of the last ones (Gatys et al. 2016, Image style transfer
using convolutional neural networks, call such statistics the style of a picture). `new_learner`
builds the same network from a `config.json` for training and for loading.
"""

from contextlib import nullcontext
from copy import copy

import torch
from fastai.learner import Learner
from fastai.torch_core import norm_types, params
from fastai.vision.learner import create_head
from torch import fx, nn

from artclf.model import backbones

POOLS = ("style", "stages", "last")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MOST_CHANNELS = 128  # with covariances: a stage with more channels has too many pairs of them
MOST_STAGES = 10  # of a network with more stages, only the last of each block is pooled


class Body(nn.Module):
    """A backbone in stages, from pictures (images, 3, height, width) to features (images, width).

    `pool` says what the features are: with `stages`, mean and standard deviation of each channel
    after each stage (in a network of more than `MOST_STAGES`, after the last of each block); with
    `style`, also the covariances of the channels after each stage of at most `MOST_CHANNELS`; with
    `last`, maximum and mean of the last feature maps, as fastai pools. It is `last` where `net` has
    no stages. `precision`, one of `PRECISIONS`, is that of the stages; features are always float32.

    Features pass through unchanged, so that a frozen body need not compute stored ones again.
    `blocks` says which block each stage belongs to: 1 to 4 by resolution, 0 for the stem. `taken`
    says which stages are pooled.
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
        self.precision = PRECISIONS[precision]
        self.taken = self._pooled_stages()
        self.pairs_of = []  # the channels of each pooled stage, 0 for one without covariances
        for shape, taken in zip(shapes, self.taken, strict=True):
            if taken:
                with_pairs = self.pool == "style" and shape[1] <= MOST_CHANNELS
                self.pairs_of.append(shape[1] if with_pairs else 0)
        with torch.no_grad():
            self.width = self.eval()(blank).shape[1]

    def _pooled_stages(self) -> list[bool]:
        if self.pool == "last":
            return [False] * len(self.stages)
        if len(self.stages) <= MOST_STAGES:
            return [True] * len(self.stages)
        next_blocks = [*self.blocks[1:], None]
        return [
            block != following for block, following in zip(self.blocks, next_blocks, strict=True)
        ]

    def forward(self, x):
        is_features = x.ndim == 2
        return x if is_features else self.extract(x)

    def extract(self, x):
        """The features of pictures."""
        maps = []
        x = x.contiguous(memory_format=torch.channels_last)
        with self._autocast(x):
            for stage, taken in zip(self.stages, self.taken, strict=True):
                x = stage(x)
                if taken:
                    maps.append(x)
        if not maps:
            return _pool_last(x) if self.has_maps else x.float()
        features = []  # in full precision: a covariance is a small difference of large numbers
        for stage_maps, channels in zip(maps, self.pairs_of, strict=True):
            features.append(statistics(stage_maps))
            if channels:
                features.append(covariances(stage_maps, channels))
        return torch.cat(features, 1)

    def _autocast(self, x):
        if self.precision is None:
            return nullcontext()
        return torch.autocast(x.device.type, self.precision)


def statistics(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel.

    From (images, channels, height, width) to (images, 2 * channels).
    """
    var, mean = torch.var_mean(maps.float(), (2, 3), unbiased=False)
    std = (var + 1e-6).sqrt()  # the root of 0 has no gradient
    return torch.cat([mean, std], 1)


def covariances(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Covariance of each pair of channels: (images, channels, height, width) to (images, pairs).

    The pairs are the channels * (channels - 1) / 2 above the diagonal, row by row. Each is divided
    by the root of the channels' mean variance, so that they double where maps double, as
    `statistics` do.
    """
    maps = maps.float().flatten(2)
    maps = maps - maps.mean(2, keepdim=True)
    matrix = maps @ maps.transpose(1, 2) / maps.shape[2]
    first, second = torch.triu_indices(channels, channels, 1)
    mean_variance = matrix.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    return matrix[:, first, second] / (mean_variance + 1e-6).sqrt()


def _pool_last(maps: torch.Tensor) -> torch.Tensor:
    """Maximum and mean of each channel, as fastai's `AdaptiveConcatPool2d`."""
    maps = maps.float()
    return torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1)


def stages(net: nn.Module, blank: torch.Tensor) -> list[nn.Module]:
    """`net` as modules that follow each other, cut where features can be pooled.

    A stage is a container of layers, such as `layer1` of a ResNet, or bare layers up to the next
    pooling or container. Where a chain of its parts doesn't give what `net` gives (branches,
    transformers), it is `net` alone. `blank` is a picture to try it on.
    """
    found: list[nn.Module] = []
    layers: list[nn.Module] = []
    for part in _chain(net, blank):
        if not _is_layer(part):
            if layers:
                found.append(nn.Sequential(*layers))
                layers = []
            found.append(part)
            continue
        layers.append(part)
        if "Pool" in type(part).__name__:
            found.append(nn.Sequential(*layers))
            layers = []
    if layers:
        found.append(nn.Sequential(*layers))
    return found


@torch.no_grad()
def _chain(net: nn.Module, x: torch.Tensor) -> list[nn.Module]:
    """The parts of `net` that, one after the other, give its feature maps; `net` itself where none
    do.

    A last norm that has learned nothing yet changes nothing, and still belongs to them.
    """
    expected = net.eval()(x)
    parts: list[nn.Module] = []
    chain: list[nn.Module] = []
    for part in _parts(net):
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
    return isinstance(part, norm_types) or not list(part.children())


def _parts(net: nn.Module) -> list[nn.Module]:
    """What `net` is made of; a Sequential of bare layers or Sequentials is opened."""
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
    """The block of each stage: 4 at the last resolution, 3 at the one before, ...; the first stage
    is 0, the stem.
    """
    if len(shapes) == 1:
        return [4]
    resolutions = sorted({shape[-1] for shape in shapes})
    blocks = [max(1, 4 - resolutions.index(shape[-1])) for shape in shapes]
    return [0, *blocks[1:]]


def new_learner(dls, config: dict, **kwargs) -> Learner:
    """A fastai `Learner` of the backbone that `config` names and a new head, the body frozen if it
    is pretrained.

    The head has `depth` hidden layers of `width` units (see `new_head`). Unfrozen, the body learns
    from block `unfreeze_from` (1 to 4, 0 for all) on, each block a parameter group; the blocks
    below never learn. The memory format is channels last, which is faster on CPUs and GPUs. Further
    arguments go to `Learner`. `config["pool"]` becomes `last` where the backbone has no stages.
    """
    backbone = backbones.Backbone(
        config["name"], config["library"], config["weights"], config["mean"], config["std"]
    )
    precision = config.get("precision", "float32")  # exports of version 0.1 don't name it
    body = Body(backbones.body(backbone), config["pool"], config["size"], precision)
    config["pool"] = body.pool
    model = nn.Sequential(body, new_head(body.width, config))
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


def new_head(width: int, config: dict) -> nn.Sequential:
    """A head on `width` features: an output for each of `vocab`, then for each of `artists`, where
    there are any.

    Without hidden layers (`depth` 0) it is linear, on standardised features; with some it is
    fastai's.
    """
    outputs = len(config["vocab"]) + len(config.get("artists", ()))
    if config["depth"]:
        hidden = [config["width"]] * config["depth"]
        return create_head(width, outputs, hidden, config["dropout"], pool=False)
    linear = nn.Linear(width, outputs)
    # the loss of a linear head has a single minimum, so it needs no random start
    nn.init.zeros_(linear.weight)
    standardizer = nn.BatchNorm1d(width, affine=False)
    return nn.Sequential(standardizer, nn.Dropout(config["dropout"]), linear)


def standardizer(head: nn.Sequential) -> nn.BatchNorm1d | None:
    """The layer by which a linear head standardises its features; None in fastai's heads."""
    first = head[0]
    is_standardizer = isinstance(first, nn.BatchNorm1d) and not first.affine
    return first if is_standardizer else None


def keep_outputs(model: nn.Sequential, number: int) -> nn.Sequential:
    """`model` with only the first `number` outputs of its head, those of the periods; the tensors
    are shared.
    """
    body, head = model
    *layers, last = head
    if last.out_features == number:
        return model
    with torch.device("meta"):  # without memory: its weights are those of `last`
        first = nn.Linear(last.in_features, number, bias=last.bias is not None)
    first.weight = nn.Parameter(last.weight.detach()[:number])
    if last.bias is not None:
        first.bias = nn.Parameter(last.bias.detach()[:number])
    return nn.Sequential(body, nn.Sequential(*layers, first))


def parameter_groups(model: nn.Sequential, first_block: int = 0) -> list[list[nn.Parameter]]:
    """The parameter groups of a model of `new_learner`: one for each block from `first_block` on,
    then the head.
    """
    body, head = model
    groups = []
    for number in sorted(set(body.blocks)):
        group = []
        for stage, block in zip(body.stages, body.blocks, strict=True):
            if block == number:
                group += params(stage)
        if number >= first_block and group:
            groups.append(group)
    return [*groups, params(head)]


def plain_model(model: nn.Sequential, number: int | None = None) -> nn.Sequential:
    """`model`, or `keep_outputs` of it, for pictures alone and without a class of ours, so that its
    pickle opens anywhere; it computes in float32.
    """
    body = copy(model[0])
    body.precision = None
    tracer = fx.Tracer()
    tracer.is_leaf_module = lambda *_: True
    tracer.traced_func_name = "extract"
    plain_body = fx.GraphModule(body, tracer.trace(body))
    if number is not None:
        model = keep_outputs(model, number)
    return nn.Sequential(plain_body, model[1])
