"""Attribution: which places of a picture a score of a network comes from, by captum; and the
copies of the network that this takes.

Each of `METHODS` takes an `explainer.Explainer`, pictures (images, 3, size, size) and weights of
their logits (images, classes), and returns maps (images, channels, size, size), whose sum over
channels is shown. Needs captum (`pip install artclf[lab]`).
"""

import re
import warnings
from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from artclf.base.errors import InputError
from artclf.base.extras import require

require("lab", "captum")
from captum import attr  # noqa: E402 (after a message that says how to install it)

BATCH = 16
IG_BORDER = 0.03  # integrated gradients take half of their steps up to here, see there
# The names of activations, as modules and as functions.
ACTIVATION = re.compile(
    r"(leaky_?|p|c|s|r)?(relu6?|elu)|(quick)?gelu(tanh)?|silu|(hard)?(swish|mish)", re.IGNORECASE
)


class Unsuited(InputError):
    """A method that can't be used on this network, and why."""


class Score(nn.Module):
    """The score that is explained: the sum of a network's logits, each times its weight; of shape
    (images,).

    `weights` has shape (images, classes): 1 for a class, -1 for one that it is compared with. The
    network is a copy without operations in place, whose parameters don't learn.
    """

    def __init__(self, model: nn.Sequential):
        super().__init__()
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.model[0].autocast_dtype = None
        for layer in self.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False

    def forward(self, x, weights):
        return (self.model(x) * weights).sum(1)


def guided_backpropagation(explainer, x, weights) -> torch.Tensor:
    """How much the score changes with each number of a picture, counting only paths that raise it:
    (images, 3, size, size).

    The absolute value of a gradient of which every ReLU passes back only what is above 0
    (Springenberg et al. 2015), in logits for a standard deviation of the normalised pixels. ReLU6
    passes nothing back where it cuts off. The paper treats ReLUs only: clipping the gradients of
    SiLU, GELU and similar activations, too, is an extension. Raises Unsuited for a network that
    calls its activations as functions, or has none.
    """
    method = attr.GuidedBackprop(explainer.guided)
    x = x.detach().requires_grad_()
    with warnings.catch_warnings():
        # captum removes its hooks again
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        gradient = method.attribute(x, additional_forward_args=(weights,))
    return gradient.detach().abs()


def grad_cam(explainer, x, weights, stage: int = -1) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al. 2017) of the maps after one stage of the body: (images, 1, size,
    size).

    The channels, each weighted by its mean gradient, summed and enlarged; what speaks against the
    target stays below 0. It shows what reaches the score through this stage: unless `pool` is
    `last`, the head reads earlier stages, too, and the last stage does not show those; of several
    bodies, it is the last stage of the last one. It is also
    blind to standard deviations and covariances: their gradient has the mean 0 over a map.
    """
    outputs: list[torch.Tensor] = []
    hook = explainer.body.stages[stage].register_forward_hook(
        lambda module, inputs, output: outputs.append(output)
    )
    score = explainer.score(x.detach().requires_grad_(), weights).sum()
    hook.remove()
    [gradient] = torch.autograd.grad(score, outputs)
    layout = explainer.body.layouts[stage]
    weight_of_channel = layout.maps(gradient).mean((2, 3), keepdim=True)
    maps = (weight_of_channel * layout.maps(outputs[0])).sum(1, keepdim=True)
    return _enlarged(maps, x)


def stages_cam(explainer, x, weights) -> torch.Tensor:
    """What the head gets from each place of each stage (`by_stage`), in logits: (images, stages,
    size, size).
    """
    enlarged = []
    for maps in by_stage(explainer, x, weights):
        scale = maps[0].numel() / x[0, 0].numel()  # the sum over a map stays the same
        enlarged.append(_enlarged(maps, x) * scale)
    return torch.cat(enlarged, 1)


def by_stage(explainer, x, weights) -> list[torch.Tensor]:
    """For each stage that the head reads, what it gets from each place, in logits: (images, 1,
    height, width).

    The maps times their gradient, summed over channels (HiResCAM, Draelos and Carin 2020), where
    the gradient flows through what the head reads of this stage and not through later stages.
    Means, standard deviations, maxima and what `network.covariances` gives double where maps
    double. So for a linear head (`depth=0`) the score is the sum of all stages and a constant:
    nothing is left out or counted twice. Only the class token of a transformer is left out, because
    it is at no place.
    """
    body = explainer.direct.model[0]
    read = stages_read(body)
    method = attr.LayerGradientXActivation(explainer.direct, [body.stages[i] for i in read])
    products = method.attribute(x, additional_forward_args=(weights,))
    found = []
    for stage, product in zip(read, products, strict=True):
        found.append(body.layouts[stage].maps(product.detach()).sum(1, keepdim=True))
    return found


def stages_read(body) -> list[int]:
    """The indices of the stages of a `network.Body`, or of several, that the head reads."""
    read = []
    start = 0
    for one in body.bodies:
        pooled = [index for index, is_pooled in enumerate(one.is_pooled) if is_pooled]
        last = len(one.stages) - 1
        read += [start + index for index in pooled or [last]]
        start += len(one.stages)
    return read


def integrated_gradients(explainer, x, weights, steps: int = 48) -> torch.Tensor:
    """What each number of a picture adds to the score on the path from grey to the picture, in
    logits: (images, 3, size, size).

    The mean gradient of pictures between the mean colour and this one, times the difference
    (Sundararajan et al. 2017): with enough steps, the sum is the score of the picture less that of
    grey. Half of the steps are taken within the first thirtieth of the path: there, standard
    deviations rise from 0, and the score jumps.
    """
    method = attr.IntegratedGradients(explainer.score)

    def integrate(start: float, end: float) -> torch.Tensor:
        values = method.attribute(
            x * end,
            x * start,
            additional_forward_args=(weights,),
            n_steps=max(1, steps // 2),
            internal_batch_size=max(BATCH, len(x)),
        )
        return values.detach()

    return integrate(0, IG_BORDER) + integrate(IG_BORDER, 1)


@torch.no_grad()
def occlusion(
    explainer, x, weights, window: int | None = None, stride: int | None = None
) -> torch.Tensor:
    """What the score loses where a grey square lies on the picture, in logits: (images, 1, size,
    size).

    The square has `window` px on a side (a seventh of the size) and moves by `stride` px (half of
    that); a pixel has the mean of all squares over it (Zeiler and Fergus 2014). The network
    predicts about (size / stride)² pictures for each one.
    """
    window = window or max(2, x.shape[-1] // 7)
    stride = stride or window // 2
    method = attr.Occlusion(explainer.score)
    maps = []
    for image, weight in zip(x, weights, strict=True):
        losses = method.attribute(
            image[None],
            sliding_window_shapes=(3, window, window),
            strides=(3, stride, stride),
            baselines=0,
            additional_forward_args=(weight[None],),
            perturbations_per_eval=BATCH,
        )
        maps.append(losses[:, :1])  # the same for all three colours
    return torch.cat(maps)


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
    """`score` with every activation as a module that captum treats as a ReLU.

    `blank` is any picture (1, 3, size, size); it shows which activations the network calls as
    functions. Raises Unsuited where it calls some, or has no activations.
    """
    score = deepcopy(score)
    activations = [
        (parent, name, layer)
        for parent in score.modules()
        for name, layer in parent.named_children()
        if ACTIVATION.fullmatch(type(layer).__name__)
    ]
    # Without its modules, the network calls only the activations that are functions.
    for parent, name, _ in activations:
        setattr(parent, name, nn.Identity())
    with _RecordActivations() as record, torch.no_grad():
        score.model(blank)
    if record.names or not activations:
        problem = f"calls {', '.join(sorted(record.names))}" if record.names else "has none"
        raise Unsuited(
            "guided backpropagation needs activations that are modules, and this network "
            f"{problem}: take another method"
        )
    for parent, name, layer in activations:
        setattr(parent, name, nn.Sequential(_Clone(), _LikeReLU(layer)))
    return score


def direct(score: Score) -> Score:
    """`score`, in which the gradient of a stage comes only from what the head reads of it, not from
    later stages.
    """
    score = deepcopy(score)
    for body in score.model[0].bodies:
        body.stages = nn.ModuleList(_Detached(stage) for stage in body.stages)
    return score


class _LikeReLU(nn.ReLU):
    """An activation of any kind, for which captum passes back the gradients above 0."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation

    def forward(self, x):
        return self.activation(x)


class _Clone(nn.Module):
    """Stands before an activation: captum hooks its input, which a shortcut around the activation
    may share.
    """

    def forward(self, x):
        return x.clone()


class _Detached(nn.Module):
    """A stage through which no gradient reaches the stages before it."""

    def __init__(self, stage: nn.Module):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        return self.stage(x.detach()).requires_grad_()


class _RecordActivations(TorchFunctionMode):
    """Records the names of activations that are called as functions."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "").strip("_")
        if ACTIVATION.fullmatch(name):
            self.names.add(name)
        return func(*args, **(kwargs or {}))
