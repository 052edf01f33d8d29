"""The network: a backbone that ends in numbers, and a head on them, as a fastai `Learner`.

The numbers say how every channel after every stage varies over the picture, and which of them vary
together: strokes and colours of the first stages tell styles as well as the objects of the last
(Gatys et al. 2016, Image style transfer using convolutional neural networks, call such statistics
the style of a picture). `new_learner` builds the same from a `config.json` for training and for
loading.
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


NARROW = 128  # channels: a stage with more has too many pairs of them


class Body(nn.Module):
    """A backbone in stages, from pictures of shape (images, 3, height, width) to features of
    (images, numbers).

    `pool` is `stages` (mean and standard deviation after each stage; of more than ten, after the
    last of each block), `style` (these, and the covariances of the channels after each stage of at
    most `NARROW` channels) or `last` (maximum and mean of the last feature maps, as fastai pools),
    and `last` where `net` has no stages. Features that were computed before pass as they are: so a
    frozen body costs nothing. `blocks` says of each stage which of the blocks 1 to 4 it belongs to,
    by its resolution; 0 is the stem.
    """

    def __init__(self, net: nn.Module, pool: str = "style", size: int = 224):
        super().__init__()
        blank = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        found = stages(net, blank)
        shapes = _shapes(found, blank)
        self.stages, self.blocks, self.has_maps = (
            nn.ModuleList(found),
            _blocks(shapes),
            len(shapes[-1]) == 4,
        )
        self.pool, self.precision, self.format = (
            pool if len(found) > 1 else "last",
            None,
            torch.contiguous_format,
        )
        ends = [one != other for one, other in zip(self.blocks, [*self.blocks[1:], 5], strict=True)]
        self.taken = [self.pool != "last" and (end or len(found) <= 10) for end in ends]
        self.pairs = [
            shape[1] if self.pool == "style" and shape[1] <= NARROW else 0
            for shape, taken in zip(shapes, self.taken, strict=True)
            if taken
        ]
        with torch.no_grad():
            self.width = self.eval()(blank).shape[1]

    def forward(self, x):
        return x if x.ndim == 2 else self.look(x)

    def look(self, x):
        """The features of pictures."""
        maps, x = [], x.contiguous(memory_format=self.format)
        with torch.autocast(x.device.type, self.precision) if self.precision else nullcontext():
            for stage, taken in zip(self.stages, self.taken, strict=True):
                x = stage(x)
                if taken:
                    maps.append(x)
        found = []  # in full precision: a covariance is a small difference of large numbers
        for m, channels in zip(maps, self.pairs, strict=True):
            found += [statistics(m), *([covariances(m, channels)] if channels else [])]
        return torch.cat(found, 1) if found else _pooled(x) if self.has_maps else x.float()


def statistics(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation of each channel: (images, channels, height, width) to (images, 2
    * channels).
    """
    var, mean = torch.var_mean(maps.float(), (2, 3), unbiased=False)
    return torch.cat([mean, (var + 1e-6).sqrt()], 1)  # the root of 0 has no gradient


def covariances(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Covariance of each pair of channels: (images, channels, height, width) to (images, pairs).

    The pairs are the channels * (channels - 1) / 2 above the diagonal, row by row. Each is divided
    by the root of the channels' mean variance, so that they double where maps double, as
    `statistics` do.
    """
    maps = maps.float().flatten(2)
    maps = maps - maps.mean(2, keepdim=True)
    found = maps @ maps.transpose(1, 2) / maps.shape[2]
    first, second = torch.triu_indices(channels, channels, 1)
    return (
        found[:, first, second]
        / (found.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + 1e-6).sqrt()
    )


def _pooled(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x.float().amax((2, 3)), x.float().mean((2, 3))], 1)


def stages(net: nn.Module, blank: torch.Tensor) -> list[nn.Module]:
    """`net` as modules one after the other, each ending where numbers are worth taking.

    A stage is a container of layers, such as `layer1` of a ResNet, or bare layers up to the next
    pooling or container. Where a chain of its parts doesn't give what `net` gives (branches,
    transformers) it is `net` alone.
    """
    found, bare = [], []
    for part in _chain(net, blank):
        if _is_bare(part):
            bare.append(part)
            if "Pool" not in type(part).__name__:
                continue
        if bare:
            found.append(nn.Sequential(*bare))
        if not _is_bare(part):
            found.append(part)
        bare = []
    return found + ([nn.Sequential(*bare)] if bare else [])


@torch.no_grad()
def _chain(net: nn.Module, x: torch.Tensor) -> list[nn.Module]:
    """The parts of `net` that, one after the other, give its feature maps; `net` itself where none
    do.

    A last norm that has learned nothing yet changes nothing, and is one of them all the same.
    """
    expected, parts, chain = net.eval()(x), [], []
    for part in _parts(net):
        if chain and not part.state_dict():
            break
        try:
            x = part.eval()(x)
        except (
            RuntimeError,
            TypeError,
            ValueError,
            NotImplementedError,
        ):  # it doesn't fit: `net` is no chain
            break
        parts.append(part)
        if x.shape == expected.shape and x.ndim == 4 and torch.allclose(x, expected, atol=1e-5):
            chain = list(parts)
        elif chain:
            break
    return chain or [net]


def _is_bare(part: nn.Module) -> bool:
    return isinstance(part, norm_types) or not list(part.children())


def _parts(net: nn.Module) -> list[nn.Module]:
    """What `net` is made of, without containers that hold bare layers or other containers."""
    found = []
    for part in getattr(net, "model", net).children():
        opened = type(part) is nn.Sequential and any(
            _is_bare(c) or isinstance(c, nn.Sequential) for c in part
        )
        found += _parts(part) if opened else [part]
    return found


@torch.no_grad()
def _shapes(parts: list[nn.Module], x: torch.Tensor) -> list[torch.Size]:
    return [(x := part.eval()(x)).shape for part in parts]


def _blocks(shapes: list[torch.Size]) -> list[int]:
    """The block of each stage: 4 at the last resolution, 3 at the one before, ...; the first stage
    is 0, the stem.
    """
    if len(shapes) == 1:
        return [4]
    ranks = sorted({shape[-1] for shape in shapes})
    return [0] + [max(1, 4 - ranks.index(shape[-1])) for shape in shapes[1:]]


def new_learner(dls, config: dict, **kwargs) -> Learner:
    """A fastai `Learner` of the backbone that `config` names and a new head, the body frozen if it
    is pretrained.

    The head has `depth` hidden layers of `width` units (see `new_head`). Unfrozen, the body learns
    from block `unfreeze_from` (1 to 4, 0 for all) on, each block a parameter group; what lies below
    never learns. Further arguments go to `Learner`. `config["pool"]` becomes `last` where the
    backbone has no stages.
    """
    backbone = backbones.Backbone(
        *(config[name] for name in ("name", "library", "weights", "mean", "std"))
    )
    body = Body(backbones.body(backbone), config["pool"], config["size"])
    config["pool"] = body.pool
    head = new_head(body.width, config)
    model, pretrained = nn.Sequential(body, head).to(dls.device), backbone.weights != "random"
    if dls.device.type == "cpu":  # twice as fast there
        model.to(memory_format=torch.channels_last)
        body.format = torch.channels_last
    first = config["unfreeze_from"] if pretrained else 0
    low = [stage for stage, block in zip(body.stages, body.blocks, strict=True) if block < first]
    for stage in low:
        stage.requires_grad_(False)
    learn = Learner(dls, model, splitter=lambda model: groups(model, first), **kwargs)
    learn.arch = backbone.name
    if pretrained:
        learn.freeze()
    return learn


def new_head(width: int, config: dict) -> nn.Sequential:
    """A head on `width` numbers: an output for each of `vocab`, then for each of `artists`, where
    there are any.

    Without hidden layers (`depth` 0) it is linear, on numbers that are standardised; with some it
    is fastai's.
    """
    outputs = len(config["vocab"]) + len(config.get("artists", ()))
    if not config["depth"]:
        linear = nn.Linear(width, outputs)
        nn.init.zeros_(
            linear.weight
        )  # the loss of a linear head has one minimum, so chance has no part in it
        return nn.Sequential(
            nn.BatchNorm1d(width, affine=False), nn.Dropout(config["dropout"]), linear
        )
    return create_head(
        width, outputs, [config["width"]] * config["depth"], config["dropout"], pool=False
    )


def standardising(head: nn.Sequential) -> nn.BatchNorm1d | None:
    """The layer by which a linear head standardises its numbers; None in fastai's heads."""
    first = head[0]
    return first if isinstance(first, nn.BatchNorm1d) and not first.affine else None


def of_periods(model: nn.Sequential, number: int) -> nn.Sequential:
    """`model` with the first `number` outputs of its head alone, those of the periods, on the same
    tensors.
    """
    *layers, last = model[1]
    if last.out_features == number:
        return model
    with torch.device("meta"):
        first = nn.Linear(last.in_features, number, bias=last.bias is not None)
    first.weight = nn.Parameter(last.weight.detach()[:number])
    if last.bias is not None:
        first.bias = nn.Parameter(last.bias.detach()[:number])
    return nn.Sequential(model[0], nn.Sequential(*layers, first))


def groups(model: nn.Sequential, first: int = 0) -> list[list[nn.Parameter]]:
    """The parameter groups of a model of `new_learner`: a block each from block `first` on, then
    the head.
    """
    body, head = model[0], model[1]
    blocks = [
        [
            p
            for stage, of in zip(body.stages, body.blocks, strict=True)
            if of == block
            for p in params(stage)
        ]
        for block in sorted(set(body.blocks))
        if block >= first
    ]
    return [*filter(None, blocks), params(head)]


def plain(model: nn.Sequential, number: int | None = None) -> nn.Sequential:
    """`model`, or `of_periods` of it, for pictures alone, without a class of ours: its pickle opens
    anywhere.
    """
    body, tracer = copy(model[0]), fx.Tracer()
    tracer.is_leaf_module, tracer.traced_func_name = lambda *_: True, "look"
    body.precision, body.format = None, torch.contiguous_format
    return nn.Sequential(
        fx.GraphModule(body, tracer.trace(body)),
        (of_periods(model, number) if number else model)[1],
    )
