"""Stages: a network taken apart into modules that are called one after the other, and how the
output of each is laid out.

Convolutional networks, and transformers with stages such as Swin, are a chain of modules as they
are. A transformer of blocks on tokens (ViT, DINOv2, the image towers of CLIP and SigLIP, EVA) is
made one: its embedding, then its blocks in quarters. A network that is neither is a single stage.
"""

from dataclasses import dataclass
from math import isqrt

import torch
from fastai.torch_core import norm_types
from torch import nn

from artclf.base.errors import InputError

VERSION = 2  # exports of another version are built as they were: 1 knew no tokens and no layouts


@dataclass(frozen=True)
class Layout:
    """How the output of a stage is laid out.

    `kind` is `maps` (images, channels, height, width), `channels last` (images, height, width,
    channels), `tokens` (images, prefix + side * side, channels), where the first `prefix` tokens
    stand for no place, or `vector` (images, channels).
    """

    kind: str = "maps"
    prefix: int = 0
    side: int = 0

    def maps(self, output: torch.Tensor) -> torch.Tensor:
        """An output as maps: (images, channels, height, width). A vector stays one."""
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        if self.kind == "tokens":
            places = output[:, self.prefix :].unflatten(1, (self.side, self.side))
            return places.permute(0, 3, 1, 2)
        return output


@dataclass
class Cut:
    """A network in stages.

    `blocks` says which block each stage belongs to: 1 to 4, 0 for the stem. Where there are tokens,
    `summary_tokens` is how many of the first ones stand for the whole picture (the class token;
    registers don't), or `pool` is the network's own pooling by attention of the tokens from
    `pooled_from` on. `version` is the first `VERSION` that cuts the network so.
    """

    parts: list[nn.Module]
    layouts: list[Layout]
    blocks: list[int]
    summary_tokens: int = 0
    pool: nn.Module | None = None
    pooled_from: int = 0
    version: int = VERSION


def cut(net: nn.Module, blank: torch.Tensor, version: int = VERSION) -> Cut:
    """`net` in stages.

    A stage is either a container of layers, such as `layer1` of a ResNet, a run of bare layers that
    ends with a pooling layer or before the next container, or a quarter of the blocks of a
    transformer. `blank` is a batch of pictures to try on whether the stages give what `net` gives.
    Takes transformers apart, so that `net` is of no use afterwards. `version` 1 cuts as artclf did
    before there was a `VERSION`. Raises InputError where `net` can't take pictures of that size.
    """
    expected, widths = _run(net.eval(), blank)
    if version > 1:
        tokens = _of_tokens(getattr(net, "model", net), blank)
        if tokens is not None:
            return tokens
    if version == 1 or _parts(net, widths) == _parts(net, {}):
        widths = {}
    parts = _grouped(_chain(net, blank, expected, widths))
    shapes = _shapes(parts, blank)
    if version > 1 and len(parts) > 1 and any(len(shape) != 4 for shape in shapes):
        parts = [net]
        shapes = shapes[-1:]
    if len(shapes[-1]) != 4:
        return Cut(parts, [Layout("vector")], [4], version=1)
    layouts = _layouts(shapes) if version > 1 else [Layout()] * len(parts)
    is_as_before = not widths and layouts == [Layout()] * len(parts)
    return Cut(parts, layouts, _blocks(shapes), version=1 if is_as_before else version)


def _grouped(chain: list[nn.Module]) -> list[nn.Module]:
    """A chain with its bare layers put together."""
    found: list[nn.Module] = []
    bare_layers: list[nn.Module] = []

    def close_stage():
        if bare_layers:
            found.append(nn.Sequential(*bare_layers))
            bare_layers.clear()

    for part in chain:
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
def _chain(
    net: nn.Module, x: torch.Tensor, expected: torch.Tensor, widths: dict[nn.Module, int]
) -> list[nn.Module]:
    """The parts of `net` that, called one after the other, give the maps that are expected; `net`
    alone where there are none.
    """
    parts: list[nn.Module] = []
    chain: list[nn.Module] = []
    for part in _parts(net, widths):
        # The maps may be complete before a last norm, which changes nothing until it has learned.
        # It belongs to the chain all the same; a part without weights after the maps doesn't.
        if chain and not part.state_dict():
            break
        try:
            x = part.eval()(x)
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # `net` is no chain
            break
        if not isinstance(x, torch.Tensor):
            break
        parts.append(part)
        is_maps = x.shape == expected.shape and x.ndim == 4
        if is_maps and torch.allclose(x, expected, atol=1e-5):
            chain = list(parts)
        elif chain:
            break
    return chain or [net]


@torch.no_grad()
def _run(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[nn.Module, int]]:
    """The output of `net`, and the width of the maps after each of its modules."""
    widths: dict[nn.Module, int] = {}

    def keep_width(module, inputs, output):
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            widths[module] = output.shape[2]  # a side of the maps, wherever the channels are

    hooks = [module.register_forward_hook(keep_width) for module in net.modules()]
    try:
        output = net(x)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"this network can't take pictures of {x.shape[-1]} px ({error}): take another --size"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return output, widths


def _is_layer(part: nn.Module) -> bool:
    """Whether a part is a bare layer, not a container; timm has norms that contain an activation."""
    return isinstance(part, norm_types) or not list(part.children())


def _parts(net: nn.Module, widths: dict[nn.Module, int]) -> list[nn.Module]:
    """The modules that `net` is made of; a Sequential of bare layers, of Sequentials, or of modules
    whose maps have different `widths` is opened.
    """
    found = []
    for part in getattr(net, "model", net).children():
        if _is_opened(part, widths):
            found += _parts(part, widths)
        else:
            found.append(part)
    return found


def _is_opened(part: nn.Module, widths: dict[nn.Module, int]) -> bool:
    if type(part) is not nn.Sequential:
        return False
    if any(_is_layer(child) or isinstance(child, nn.Sequential) for child in part):
        return True
    return len({widths[child] for child in part if child in widths}) > 1


@torch.no_grad()
def _shapes(parts: list[nn.Module], x: torch.Tensor) -> list[torch.Size]:
    """The shape of the output of each part."""
    shapes = []
    for part in parts:
        x = part.eval()(x)
        shapes.append(x.shape)
    return shapes


def _layouts(shapes: list[torch.Size]) -> list[Layout]:
    """The layout of each stage of a chain, by which two of the last three sides are equal, those of
    square maps.

    Where all three are equal, it is that of the next stage that tells, or `maps` where none does.
    """
    layouts = []
    next_layout = Layout()
    for _, first, second, third in reversed(shapes):
        if first == second != third:
            next_layout = Layout("channels last")
        elif first != second == third:
            next_layout = Layout()
        layouts.append(next_layout)
    return layouts[::-1]


def _blocks(shapes: list[torch.Size]) -> list[int]:
    """The block of each stage: 4 at the lowest resolution, 3 at the next higher one, and so on down
    to 1; the first stage is 0, the stem.
    """
    if len(shapes) == 1:
        return [4]
    widths = [shape[2] for shape in shapes]
    resolutions = sorted(set(widths))
    blocks = [max(1, 4 - resolutions.index(width)) for width in widths]
    return [0, *blocks[1:]]


# Transformers of blocks on tokens


class RopeBlocks(nn.Module):
    """Blocks that are told the places of their tokens by `rope`, as those of EVA are."""

    def __init__(self, blocks: list[nn.Module], norm: nn.Module, rope: torch.Tensor):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.register_buffer("rope", rope, persistent=False)  # it follows from the size

    def forward(self, x):
        for block in self.blocks:
            x = block(x, rope=self.rope)
        return self.norm(x)


@torch.no_grad()
def _of_tokens(model: nn.Module, blank: torch.Tensor) -> Cut | None:
    """A timm transformer as its embedding and its blocks in quarters, the last with the last norm;
    None for any other network, which stays as it is.

    The embedding is `model` itself, without what it does to the tokens afterwards. It is block 0.
    """
    names = ("patch_embed", "blocks", "norm", "global_pool", "forward_features")
    if not all(hasattr(model, name) for name in names):
        return None
    expected = model.forward_features(blank)
    if not isinstance(expected, torch.Tensor) or expected.ndim != 3:
        return None
    prefix = getattr(model, "num_prefix_tokens", 0)
    side = isqrt(max(0, expected.shape[1] - prefix))
    if prefix + side * side != expected.shape[1]:
        return None
    rope = getattr(model, "rope", None)
    places = None if rope is None else rope.get_embed(shape=[side, side])
    quarters = _quarters(list(model.blocks), model.norm, places)
    pool, pooled_from = _own_pool(model, expected)
    parts = [model, *quarters.values()]
    kept = _strip(model)
    if not _gives(parts, blank, expected):
        for name, value in kept.items():
            setattr(model, name, value)
        return None
    register = getattr(model, "reg_token", None)
    registers = 0 if register is None else register.shape[1]
    summary_tokens = 0 if pool is not None else prefix - registers
    layouts = [Layout("tokens", prefix, side)] * len(parts)
    return Cut(parts, layouts, [0, *quarters], summary_tokens, pool, pooled_from)


def _strip(model: nn.Module) -> dict:
    """Take all that comes after the embedding off a transformer, so that it gives the tokens that
    go into its blocks; returns what was there.
    """
    replacements = {
        "blocks": type(model.blocks)(),
        "norm": nn.Identity(),
        "fc_norm": nn.Identity(),
        "head": nn.Identity(),
        "attn_pool": None,
        "global_pool": "",
    }
    kept = {}
    for name, replacement in replacements.items():
        if hasattr(model, name):
            kept[name] = getattr(model, name)
            setattr(model, name, replacement)
    return kept


def _own_pool(model: nn.Module, tokens: torch.Tensor) -> tuple[nn.Module | None, int]:
    """The pooling by attention of a transformer, such as SigLIP's, and the first token that it
    sees; None and 0 where there is none.
    """
    pool = getattr(model, "attn_pool", None)
    if pool is None:
        return None, 0
    expected = model.pool(tokens)
    for first in (0, getattr(model, "num_prefix_tokens", 0)):
        found = pool(tokens[:, first:])
        has_the_channels = found.shape == (len(tokens), tokens.shape[2])
        if has_the_channels and torch.allclose(found, expected, atol=1e-4):
            return pool, first
    return None, 0


def _quarters(blocks: list[nn.Module], norm, rope: torch.Tensor | None) -> dict[int, nn.Module]:
    """The blocks in up to four parts as equal as can be, by the number of the part; the last is
    always 4.
    """
    by_number: dict[int, list[nn.Module]] = {}
    for place, block in enumerate(blocks):
        number = 4 - 4 * (len(blocks) - 1 - place) // len(blocks)
        by_number.setdefault(number, []).append(block)
    quarters: dict[int, nn.Module] = {}
    for number, part in by_number.items():
        own_norm = norm if number == 4 else nn.Identity()
        if rope is None:
            quarters[number] = nn.Sequential(*part, own_norm)
        else:
            quarters[number] = RopeBlocks(part, own_norm, rope)
    return quarters


def _gives(parts: list[nn.Module], x: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether the parts, called one after the other, give what is expected, all of the same shape."""
    try:
        for part in parts:
            x = part(x)
            if x.shape != expected.shape:
                return False
    except (RuntimeError, TypeError, ValueError, AttributeError):  # these blocks need more
        return False
    return torch.allclose(x, expected, atol=1e-4)
