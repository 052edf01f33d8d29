"""Attribution: from where in a picture a score of a network comes, by captum; and what that needs
of the network.

Each of `METHODS` takes an `explain.Explainer`, pictures (images, 3, size, size) and weights of
their logits (images, classes), and gives maps (images, channels, size, size), of which the sum over
channels is looked at.
"""

import re
import warnings
from copy import deepcopy

import torch
from captum import attr
from torch import nn
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

BATCH = 16


LIKE_RELU = re.compile(
    r"(leaky_?|p|c|s|r)?(relu6?|elu)|(quick)?gelu(tanh)?|silu|(hard)?(swish|mish)", re.IGNORECASE
)


class Unsuited(ValueError):
    """A network that a method can't be used on, and why."""


class Score(nn.Module):
    """What is explained: the sum of a network's logits, each times its weight; of shape (images,).

    `weights` has shape (images, classes): 1 for a class, -1 for one that it is held against. The
    network is a copy that overwrites nothing that is asked for, and has no parameters to learn.
    """

    def __init__(self, model: nn.Sequential):
        super().__init__()
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.model[0].precision = None
        for layer in self.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False

    def forward(self, x, weights):
        return (self.model(x) * weights).sum(1)


def guided_backpropagation(explainer, x, weights) -> torch.Tensor:
    """How far the score moves with each number of a picture, by what excites it alone: (images, 3,
    size, size).

    The absolute value of a gradient of which every ReLU passes back what is above 0 (Springenberg
    et al. 2015), in logits for a standard deviation of the normalised pixels. ReLU6 passes nothing
    back where it cuts off. The paper knows ReLUs alone: to clip the gradients of SiLU, GELU and
    their like, too, is an extension. Raises Unsuited for a network that calls its activations as
    functions, or has none.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Setting backward hooks on ReLU"
        )  # captum removes them
        method = attr.GuidedBackprop(explainer.guided)
        return (
            method.attribute(x.detach().requires_grad_(), additional_forward_args=(weights,))
            .detach()
            .abs()
        )


def grad_cam(explainer, x, weights, stage: int = -1) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of the maps after one stage of the body: (images, 1, size,
    size).

    The channels, each weighted by its mean gradient, summed and enlarged; what speaks against stays
    below 0. It sees what reaches the score through this stage: unless `pool` is `last`, the head
    reads the earlier ones, too, of which the last one says nothing. And it sees no standard
    deviations and covariances: their gradient has the mean 0 over a map.
    """
    method = attr.LayerGradCam(explainer.score, explainer.body.stages[stage])
    return _enlarged(method.attribute(x, additional_forward_args=(weights,)), x)


def stages_cam(explainer, x, weights) -> torch.Tensor:
    """What the head gets from each place of each stage (`by_stage`), in logits: (images, stages,
    size, size).
    """
    maps = by_stage(explainer, x, weights)
    return torch.cat(
        [_enlarged(m, x) * (m[0].numel() / x[0, 0].numel()) for m in maps], 1
    )  # the sums stay


def by_stage(explainer, x, weights) -> list[torch.Tensor]:
    """For each stage that the head reads, what it gets from each place, in logits: (images, 1,
    height, width).

    The maps times their gradient, summed over channels (HiResCAM, Draelos and Carin 2020), where
    the gradient goes through what the head reads off this stage and not through later stages.
    Means, standard deviations, maxima and what `network.covariances` gives double where maps
    double; so for a linear head (`depth=0`) the sums of all stages, and a constant, are the score:
    nothing is left out or counted twice.
    """
    body = explainer.direct.model[0]
    layers = [stage for stage, taken in zip(body.stages, body.taken, strict=True) if taken] or [
        body.stages[-1]
    ]
    method = attr.LayerGradientXActivation(explainer.direct, layers)
    found = method.attribute(x, additional_forward_args=(weights,))
    return [maps.detach().sum(1, keepdim=True) for maps in found]


def integrated_gradients(explainer, x, weights, steps: int = 48) -> torch.Tensor:
    """What each number of a picture adds to the score on the way from grey, in logits: (images, 3,
    size, size).

    The mean gradient of pictures between the mean colour and this one, times the difference
    (Sundararajan et al. 2017): with enough steps, the sum is the score of the picture less that of
    grey. Half of the steps are taken within the first thirtieth of the way: there, standard
    deviations rise from 0, and the score jumps.
    """
    method, arguments = (
        attr.IntegratedGradients(explainer.score),
        {"additional_forward_args": (weights,)},
    )
    arguments |= {"n_steps": max(1, steps // 2), "internal_batch_size": max(BATCH, len(x))}
    return sum(
        method.attribute(x * end, x * start, **arguments).detach()
        for start, end in ((0, 0.03), (0.03, 1))
    )


@torch.no_grad()
def occlusion(
    explainer, x, weights, window: int | None = None, stride: int | None = None
) -> torch.Tensor:
    """What the score loses where a grey square lies on the picture, in logits: (images, 1, size,
    size).

    The square has `window` px (a seventh of the size) and moves by `stride` px (half of that); a
    pixel has the mean of all squares over it (Zeiler and Fergus 2014). A picture takes about (size
    / stride)² looks.
    """
    window = window or max(2, x.shape[-1] // 7)
    shape, strides = (3, window, window), (3, *[stride or window // 2] * 2)
    method = attr.Occlusion(explainer.score)
    return torch.cat(
        [
            method.attribute(
                image[None],
                shape,
                strides,
                0,
                additional_forward_args=(weight[None],),
                perturbations_per_eval=BATCH,
            )[:, :1]
            for image, weight in zip(x, weights, strict=True)
        ]
    )


METHODS = {
    "guided backpropagation": guided_backpropagation,
    "Grad-CAM": grad_cam,
    "stages CAM": stages_cam,
    "integrated gradients": integrated_gradients,
    "occlusion": occlusion,
}


def _enlarged(maps: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return interpolate(maps.detach(), x.shape[2:], mode="bilinear")


def guided(score: Score, blank: torch.Tensor) -> Score:
    """`score` with every activation as a module that captum takes for a ReLU; `blank` is a picture
    to look at.
    """
    score = deepcopy(score)
    found = [
        (parent, name, layer)
        for parent in score.modules()
        for name, layer in parent.named_children()
        if LIKE_RELU.fullmatch(type(layer).__name__)
    ]
    for parent, name, _ in found:
        setattr(parent, name, nn.Identity())
    with _Calls() as calls, torch.no_grad():
        score.model(blank)
    if calls.names or not found:
        has = f"calls {', '.join(sorted(calls.names))}" if calls.names else "has none"
        raise Unsuited(
            f"guided backpropagation needs activations that are modules, and this network {has}: take "
            "another method"
        )
    for parent, name, layer in found:
        setattr(parent, name, nn.Sequential(_Clone(), _LikeReLU(layer)))
    return score


def direct(score: Score) -> Score:
    """`score`, in which a stage is known by what the head reads off it alone, not by what later
    stages make of it.
    """
    score = deepcopy(score)
    body = score.model[0]
    body.stages = nn.ModuleList(_Cut(stage) for stage in body.stages)
    return score


class _LikeReLU(nn.ReLU):
    """An activation of any kind, of which captum keeps the gradients above 0."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.activation(x)


class _Clone(nn.Module):
    """Comes before an activation: captum hooks the tensor that goes in, which a shortcut around it
    may share.
    """

    def forward(self, x):
        return x.clone()


class _Cut(nn.Module):
    def __init__(self, stage: nn.Module):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        return self.stage(x.detach()).requires_grad_()


class _Calls(TorchFunctionMode):
    """Notes which activations are called as functions."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "").strip("_")
        if LIKE_RELU.fullmatch(name):
            self.names.add(name)
        return func(*args, **(kwargs or {}))
