"""Maps of what spoke for the worst errors, which the explorer lays over the pictures.

Reads an export and the pictures in `DATA`; writes `EXPORT/saliency/`. Takes captum (`pip install
artclf[lab]`); without it there are no maps, and the explorer does without. Shown in `04_interpret`.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from artclf.base.threads import prefetch
from artclf.data.pictures import Rejected, open_rgb
from artclf.model import exports
from artclf.model.features import BATCH
from artclf.results import evaluation, explorer

METHOD = "stages CAM"  # it reads what the head reads, of every stage: see `experiments/14_explain`


def worst(out, data, n: int = 100, longest: int = 56) -> list[Path]:
    """Write what speaks for wrong answers to `<stem of file>.jpg` in
    `explorer.saliency_folder(out)`; the paths.

    The `n` errors of the highest loss in part test, filled up from valid. A map is grey, from black
    for 0 to white for its highest value, and has the shape of the whole picture, `longest` px on
    its longer side. What is there stays. Pictures that can't be read are left out, with a warning.
    Of a network that has no maps, or isn't in `EXPORT`, and without captum, it says so and writes
    none. Raises FileNotFoundError without predictions.
    """
    predictions = evaluation.read(out, data)
    try:
        if not find_spec("captum"):
            raise ImportError('they take captum: pip install "artclf[lab]"')
        from artclf.model.explainer import Explainer

        explainer = Explainer(exports.load(out))
    except (ImportError, FileNotFoundError, ValueError) as error:
        print(f"No maps of the worst errors: {error}")
        return []
    rows, folder = (
        _errors(predictions[predictions.predicted.isin(explainer.vocab)], n),
        explorer.saliency_folder(out),
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{Path(file).stem}.jpg" for file in rows.file]
    todo = [
        (Path(data) / file, predicted, path)
        for file, predicted, path in zip(rows.file, rows.predicted, paths, strict=True)
        if not path.exists()
    ]
    if todo:
        _write_maps(explainer, todo, longest)
    return [path for path in paths if path.exists()]


def _errors(predictions, n: int):
    """The wrong rows with the highest loss: those of part test first, then of valid."""
    rows = predictions[
        (predictions.period != predictions.predicted) & predictions.part.isin(["test", "valid"])
    ]
    return rows.sort_values(["part", "loss"], ascending=[True, False], kind="stable").head(n)


def _write_maps(explainer, todo: list[tuple], longest: int):
    for _, batch in prefetch(lambda job: (_read(explainer, job[0]), *job[1:]), todo, BATCH):
        read = [(*found, predicted, path) for found, predicted, path in batch if found]
        if not read:
            continue
        x, sizes, predicted, paths = zip(*read, strict=True)
        maps = explainer.maps(torch.stack(x).to(explainer.device), predicted, METHOD)
        for values, size, path in zip(maps, sizes, paths, strict=True):
            scaled = (values / max(values.max(), 1e-12)).clip(0, 1)
            image = Image.fromarray((255 * scaled).round().astype(np.uint8))
            image = unresized(image, size, explainer.config["resize"])
            image.thumbnail((longest, longest))
            image.save(part := path.with_suffix(".part"), "JPEG", quality=80)
            part.replace(path)


def _read(explainer, file: Path):
    """The picture in `file` and its width and height; None, with a warning, where it can't be
    read.
    """
    try:
        return explainer._picture(file), open_rgb(file).size
    except Rejected as error:
        warnings.warn(f"{file} can't be read ({error}): it gets no map", stacklevel=2)
        return None


def unresized(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """A square map of what the network saw, laid on the whole picture of `size` (width, height)
    that it was made from.

    What `crop` cut away is black.
    """
    if resize == "squish":
        return image.resize(size)
    side = (min if resize == "crop" else max)(size)
    whole = Image.new("L", size)
    whole.paste(image.resize((side, side)), ((size[0] - side) // 2, (size[1] - side) // 2))
    return whole
