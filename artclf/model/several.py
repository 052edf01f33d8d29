"""Several bodies as one: the features of all of them, one after the other.

Each body sees the pictures as it was trained on them. They come normalised by the mean and standard
deviation of the first one, which loaders and predictions know; for the others that is changed by
constants, which an export holds with the weights. `network.new_body` makes it of the bodies that
`backbones.find('a+b')` names.
"""

from collections.abc import Sequence

import torch
from torch import nn

from artclf.model.stages import Layout


class Bodies(nn.Module):
    """Bodies of `network.Body` side by side: from pictures (images, 3, height, width) to (images,
    n_features).

    `means` and `stds` are those of each body's pictures, per channel. `stages`, `layouts` and
    `blocks` are those of all bodies, in their order: block 4 is block 4 of each. `version` is the
    first version of `stages` that cuts all of them so: the highest that one of them needs, as a
    later version cuts the others as before. Given features instead of pictures, they are returned
    as they are.
    """

    def __init__(
        self,
        bodies: Sequence[nn.Module],
        means: Sequence[Sequence[float]],
        stds: Sequence[Sequence[float]],
    ):
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.blocks = [block for body in bodies for block in body.blocks]
        self.n_features = sum(body.n_features for body in bodies)
        self.version = max(body.version for body in bodies)
        pools = [body.pool for body in bodies]
        # a body without stages has `last`, whatever it was asked for
        self.pool = next((pool for pool in pools if pool != "last"), "last")
        for number in range(1, len(bodies)):
            mean, std = torch.tensor(means[number]), torch.tensor(stds[number])
            factor = torch.tensor(stds[0]) / std
            shift = (torch.tensor(means[0]) - mean) / std
            self.register_buffer(f"factor_{number}", factor.view(3, 1, 1))
            self.register_buffer(f"shift_{number}", shift.view(3, 1, 1))

    @property
    def stages(self) -> list[nn.Module]:
        return [stage for body in self.bodies for stage in body.stages]

    @property
    def layouts(self) -> list[Layout]:
        return [layout for body in self.bodies for layout in body.layouts]

    def parts_of_blocks(self) -> dict[int, nn.ModuleList]:
        """The parts of each block of all bodies, from the lowest block on."""
        parts: dict[int, nn.ModuleList] = {}
        for body in self.bodies:
            for block, of_body in body.parts_of_blocks().items():
                parts.setdefault(block, nn.ModuleList()).extend(of_body)
        return dict(sorted(parts.items()))

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        return self.bodies[0].autocast_dtype

    @autocast_dtype.setter
    def autocast_dtype(self, dtype: torch.dtype | None):
        for body in self.bodies:
            body.autocast_dtype = dtype

    def forward(self, x):
        is_features = x.ndim == 2
        return x if is_features else self.extract(x)

    def extract(self, x):
        """The features of pictures."""
        features = []
        for number, body in enumerate(self.bodies):
            features.append(body.extract(self._normalised_for(number, x)))
        return torch.cat(features, 1)

    def _normalised_for(self, number: int, x):
        """Pictures as body `number` knows them, from pictures as the first one knows them."""
        if number == 0:
            return x
        return x * getattr(self, f"factor_{number}") + getattr(self, f"shift_{number}")
