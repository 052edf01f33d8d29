"""Style vectors: a vector for each period and one for each painting, learned together with a decoder
that paints from both, as in old tutorials; and why what they paint is beige.

Reads the clean images of DATA; writes nothing. A part of the experiment `style_transfer`. Notebook:
`experiments/16_style_transfer`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import default_device, set_seed
from PIL import Image
from torch import nn
from torch.nn import functional

from artclf.base import settings
from artclf.base.errors import SettingError, StepError
from artclf.base.progress import progress_bar
from artclf.data.classes import in_order
from artclf.data.splits import usable
from artclf.lab import scratch

STYLE_NUMBERS = 16  # of the vector of a period
CONTENT_NUMBERS = 64  # of the vector of a painting
CHANNELS = (48, 32, 16)
RATE = 2e-3  # of the decoder
VECTOR_RATE = 1e-2  # a painting's vector learns from that painting alone
BATCH_SIZE = 32
WHITE = 255


class VectorDecoder(nn.Module):
    """Vectors of periods and of paintings, and a decoder from both to pixels.

    `forward` gets the numbers of periods and of paintings, each (batch,); `paint` the vectors,
    (batch, `STYLE_NUMBERS`) and (batch, `CONTENT_NUMBERS`). Both give (batch, 3, size, size), values
    from 0 to 1. The decoder is a layer, then convolutions with nearest-neighbour enlargements
    (Odena et al. 2016) that double the sides three times.
    """

    def __init__(self, periods: int, paintings: int, size: int):
        super().__init__()
        self.styles = nn.Embedding(periods, STYLE_NUMBERS)
        self.contents = nn.Embedding(paintings, CONTENT_NUMBERS)
        for vectors in (self.styles, self.contents):
            nn.init.normal_(vectors.weight, std=0.1)
        first, second, third = CHANNELS
        side = size // 2 ** len(CHANNELS)
        self.decoder = nn.Sequential(
            nn.Linear(STYLE_NUMBERS + CONTENT_NUMBERS, first * side**2),
            nn.ReLU(),
            nn.Unflatten(1, (first, side, side)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(third, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def paint(self, styles: torch.Tensor, contents: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.cat([styles, contents], dim=1))

    def forward(self, periods: torch.Tensor, paintings: torch.Tensor) -> torch.Tensor:
        return self.paint(self.styles(periods), self.contents(paintings))


def paintings(data, per_period: int = 20, seed: int = 1) -> pd.DataFrame:
    """At most `per_period` random pictures of each period of `data`, the periods in time order:
    `file`, `period`, and `place`, the number of the period.

    Raises InputError where there is no clean picture.
    """
    rows = usable(data).sample(frac=1, random_state=seed).groupby("period").head(per_period)
    vocab = in_order(rows.period.unique())
    rows = rows.assign(place=rows.period.map(vocab.index))
    return rows.sort_values("place", kind="stable", ignore_index=True)


def pixels_of(rows: pd.DataFrame, data, size: int) -> torch.Tensor:
    """The pictures squashed to squares: (pictures, 3, size, size), values from 0 to 1."""
    squares = scratch.pixels(tuple(Path(data) / file for file in rows.file), size)
    return squares.to(default_device()).float() / WHITE


def learn(
    rows: pd.DataFrame, pixels: torch.Tensor, epochs: int = 60, seed: int = 1
) -> tuple[VectorDecoder, list[float]]:
    """A `VectorDecoder` of the paintings in `rows`, with `pixels` as `pixels_of` gives them, and the
    loss of each epoch: the mean squared error of the pixels.

    Raises SettingError for pictures whose sides can't be halved three times, StepError where the
    loss is not finite.
    """
    settings.check(epochs=epochs, seed=seed)
    size = pixels.shape[-1]
    if size % 2 ** len(CHANNELS):
        raise SettingError(f"size is {size}: take a multiple of {2 ** len(CHANNELS)}")
    set_seed(seed, reproducible=True)
    model = VectorDecoder(rows.place.nunique(), len(rows), size).to(pixels.device)
    vectors = [model.styles.weight, model.contents.weight]
    opt = torch.optim.Adam(
        [
            {"params": model.decoder.parameters(), "lr": RATE},
            {"params": vectors, "lr": VECTOR_RATE},
        ]
    )
    periods = torch.tensor(rows.place.to_numpy(), device=pixels.device)
    losses = []
    for _ in progress_bar(range(epochs), desc="style vectors"):
        total = 0.0
        for batch in torch.randperm(len(rows), device=pixels.device).split(BATCH_SIZE):
            loss = functional.mse_loss(model(periods[batch], batch), pixels[batch])
            if not torch.isfinite(loss):
                raise StepError("the loss of the style vectors is not finite: look at the pictures")
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() * len(batch)
        losses.append(total / len(rows))
    return model, losses


@torch.inference_mode()
def painted(model: VectorDecoder, rows: pd.DataFrame, pixels: torch.Tensor) -> dict:
    """What there is to see, as pixels (pictures, 3, size, size), by name.

    For each painting: `paintings`; `painted again`, from its own vectors; `in another style`, from
    its vector and that of the period half of all periods later, and round. For each period: `style
    alone`, from its vector and the mean vector of its paintings; `mean picture`, of its paintings.
    """
    places = torch.tensor(rows.place.to_numpy(), device=pixels.device)
    numbers = torch.arange(len(rows), device=pixels.device)
    contents = model.contents.weight
    return {
        "paintings": pixels,
        "painted again": model(places, numbers),
        "in another style": model(_other(places), numbers),
        "style alone": model.paint(model.styles.weight, _means(contents, places)),
        "mean picture": _means(pixels, places),
    }


def _other(places: torch.Tensor) -> torch.Tensor:
    """The period that lends each painting its style."""
    periods = int(places.max()) + 1
    return (places + max(1, periods // 2)) % periods


def _means(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The mean of the values of each period."""
    return torch.stack([values[places == place].mean(0) for place in range(int(places.max()) + 1)])


def measure(shown: dict[str, torch.Tensor], rows: pd.DataFrame) -> pd.DataFrame:
    """How near the pictures of `painted` are to a mean: a row for each kind.

    `distance` is how far they are from the mean picture of the period whose style they have: the
    root of the mean squared difference of the pixels, in levels of 0 to 255. `variance` is that of
    the pixels over a picture, as a share of that of the paintings. Both are means over the pictures
    of a period, then over periods.
    """
    places = torch.tensor(rows.place.to_numpy(), device=shown["paintings"].device)
    each_once = torch.arange(len(shown["mean picture"]), device=places.device)
    table = {}
    for kind, pictures in shown.items():
        of = each_once if len(pictures) == len(each_once) else places
        if kind == "in another style":
            of = _other(of)
        distances = (pictures - shown["mean picture"][of]).square().mean((1, 2, 3)).sqrt() * WHITE
        variances = pictures.var((2, 3), correction=0).mean(1)
        table[kind] = {
            "distance": float(_means(distances, of).mean()),
            "variance": float(_means(variances, of).mean()),
        }
    figures = pd.DataFrame.from_dict(table, orient="index")
    figures["variance"] /= max(figures.variance["paintings"], 1e-12)
    return figures


def rows_of_pictures(
    shown: dict[str, torch.Tensor], rows: pd.DataFrame, number: int = 6
) -> dict[str, list[Image.Image]]:
    """Pictures of `painted` for `style_transfer.plot_rows`: of at most `number` periods, evenly over
    time, the first painting in each row.
    """
    periods = len(shown["mean picture"])
    chosen = np.unique(np.linspace(0, periods - 1, min(number, periods)).round().astype(int))
    first = [int(rows.index[rows.place == place][0]) for place in chosen]
    found = {}
    for kind, pictures in shown.items():
        places = chosen if kind in ("style alone", "mean picture") else first
        levels = (pictures[list(places)] * WHITE).round().byte().permute(0, 2, 3, 1)
        found[kind] = [Image.fromarray(array) for array in levels.cpu().numpy()]
    return found
