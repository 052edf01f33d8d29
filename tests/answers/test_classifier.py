"""What every classifier answers, whatever computes it: probabilities, features, tables."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from made_pictures import noise

from artclf.answers.classifier import Predictor


class Means(Predictor):
    """A network without weights: its features are the means of the colours, its logits multiples of
    these.
    """

    n_features = 3

    def _forward(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (3, 8, 8)
        means = pixels.mean((2, 3), dtype=np.float32)
        return means[:, [0, 1, 2, 0, 1]] / 10, means


CONFIG = {
    "vocab": ["01-red", "02-green", "03-blue"],
    "artists": ["A", "B"],
    "temperature": 2.0,
    "size": 8,
    "resize": "squish",
}


def test_probabilities_are_tempered_for_periods_and_plain_for_artists():
    pixels = noise(8, 16).transpose(2, 0, 1).reshape(3, 2, 8, 8).swapaxes(0, 1)
    probabilities, features = Means(CONFIG).answer(pixels)
    logits = torch.from_numpy(pixels).float().mean((2, 3)) / 10
    expected = torch.cat([(logits / 2).softmax(1), logits[:, :2].softmax(1)], 1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(features, logits * 10, rtol=1e-6)
    assert probabilities.dtype == features.dtype == np.float32


def test_large_logits_give_no_nan():
    class Sure(Means):
        def _forward(self, pixels):
            return np.float32([[1e4, 0, -1e4, 0, 500]]), np.zeros((1, 3), np.float32)

    probabilities, _ = Sure(CONFIG).answer(np.zeros((1, 3, 8, 8), np.uint8))
    assert probabilities.tolist() == [[1, 0, 0, 0, 1]]


def test_features_come_with_probabilities_in_the_order_given():
    pictures = [noise(20, 20, seed=1) // 2, b"no picture", noise(20, 20, seed=2)]
    predictor = Means(CONFIG)
    probabilities, features, errors = predictor.probabilities_and_features(pictures, batch_size=2)
    assert errors == ["", "not an image", ""]
    assert np.isnan(features[1]).all() and np.isnan(probabilities[1]).all()
    alone = predictor.probabilities(pictures)
    np.testing.assert_array_equal(probabilities, alone[0])
    assert alone[1] == errors
    # a squashed picture keeps its mean, but for rounding
    np.testing.assert_allclose(features[2], pictures[2].mean((0, 1)), atol=2)
    nothing = predictor.probabilities_and_features([])
    assert nothing[0].shape == (0, 5) and nothing[1].shape == (0, 3) and nothing[2] == []


def test_known_probabilities_give_the_same_table():
    predictor = Means(CONFIG)
    pictures = {"image 0": noise(9, 9), "image 1": b""}
    probabilities, errors = predictor.probabilities(pictures.values())
    table = predictor.table(list(pictures), probabilities, errors, k=2, min_probability=0.9)
    expected = predictor.predict(pictures.values(), k=2, min_probability=0.9)
    assert table.equals(expected) and len(table.top[0]) == 2 and table.artist[0] in ("A", "B")


def test_a_classifier_that_computes_nothing_cannot_be_made():
    with pytest.raises(TypeError, match="_forward"):
        Predictor(CONFIG)


def test_answers_import_no_torch():
    heavy = ("torch", "fastai", "cv2", "scipy", "sklearn", "matplotlib", "aiohttp")
    code = (
        "import sys, artclf.answers.classifier, artclf.answers.exports\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
