"""Pictures of noise, and their files: shared by several tests."""

from io import BytesIO

import numpy as np
from PIL import Image


def noise(width=96, height=80, seed=0, channels=3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(picture, form="PNG", **options) -> bytes:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(stream := BytesIO(), form, **options)
    return stream.getvalue()
