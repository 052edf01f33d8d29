"""A classifier without a network: shared by the tests of the server."""

import numpy as np

VOCAB = ["01-early", "02-high_noon", "10-late"]


class Brightness:
    """A classifier that tells how bright a picture is: dark ones are early, grey ones high noon,
    bright ones late. Its one feature is the mean of the pixels.
    """

    vocab = VOCAB
    artists: list[str] = []
    config = {
        "name": "brightness",
        "size": 8,
        "resize": "squish",
        "max_size": 64,
        "hashes": {"model.safetensors": "0" * 64},
    }

    def answer(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means = pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True) / 255
        logits = -20 * np.abs(means - np.array([[0, 0.5, 1]]))
        powers = np.exp(logits)
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), means
