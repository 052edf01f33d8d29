"""Whether a probability of 0.8 is right eight times in ten: temperature, calibration error, and
when to be silent.

Works on the table of predictions (`interpret.read`); reads and writes no files. `predict.export`
fits the temperature on the part valid and keeps it in `config.json`. Shown in `04_interpret`.
"""

import math

import numpy as np

from artclf.results import evaluation

BINS = 15


FEWEST = (
    20  # images of valid: with fewer, a temperature says more about chance than about the network
)


ACCURACIES = (0.8, 0.9, 0.95)


def temper(probabilities, temperature: float) -> np.ndarray:
    """Probabilities of shape (images, classes) with their logits divided by `temperature`; 1 / it
    undoes that.
    """
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-38, None)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def nll(probabilities, given) -> float:
    """The mean negative log-likelihood of `given`, the column of each image's period."""
    own = np.asarray(probabilities, dtype=np.float64)[np.arange(len(given)), given]
    return float(-np.log(own.clip(1e-38)).mean())


def fit(probabilities, given) -> tuple[float, str]:
    """The temperature with the lowest `nll` on these images, and why it is 1.0 where it had to stay
    so (else '').

    Temperature scaling (Guo et al. 2017, On calibration of modern neural networks). The order of
    the classes stays, and with it every answer. `probabilities` are those of the network as
    trained, before any temperature.
    """
    from scipy.optimize import minimize_scalar

    if len(given) < FEWEST:
        return 1.0, f"{len(given)} images of valid are too few to fit it on"
    if (np.argmax(probabilities, axis=1) == given).all():
        return 1.0, "no error in valid says how sure is too sure"
    found = minimize_scalar(
        lambda log: nll(temper(probabilities, np.exp(log)), given),
        bounds=np.log([0.1, 10]),
        method="bounded",
    )
    if found.fun >= nll(probabilities, given):
        return 1.0, "none gives valid a higher likelihood"
    return float(np.exp(found.x)), ""


def bins(rows, n: int = BINS):
    """Images by the probability of their answer: a DataFrame, a row for each of `n` equal widths of
    it.

    Columns `low, high, images`, and the means `confidence` and `accuracy`, nan where there are no
    images. A bin holds its upper end, as in Guo et al.
    """
    import pandas as pd

    edges = np.linspace(0, 1, n + 1)
    place = np.clip(np.searchsorted(edges, rows.probability.to_numpy(), side="left") - 1, 0, n - 1)
    right = (rows.period == rows.predicted).to_numpy().astype(float)
    found = pd.DataFrame({"confidence": rows.probability.to_numpy(), "accuracy": right}).groupby(
        place
    )
    table = found.mean().assign(images=found.size()).reindex(range(n))
    return table.assign(low=edges[:-1], high=edges[1:], images=table.images.fillna(0).astype(int))


def error(rows, n: int = BINS) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy over `bins`,
    each by its images.
    """
    table = bins(rows, n)
    return float(((table.confidence - table.accuracy).abs() * table.images).sum() / len(rows))


def answerable(predictions, part="test", accuracies=ACCURACIES):
    """How many images can be answered at an accuracy: a DataFrame, a row for each of `accuracies`.

    Column `asked` is the accuracy, `threshold` the lowest probability from which on the answers for
    valid reach it; `answered`, `share` and `accuracy` tell of the images of `part` above it. nan
    where no threshold reaches it on valid, or where there is no valid.
    """
    import pandas as pd

    rows = predictions[predictions.part == part]
    return pd.DataFrame(
        [
            _answered(rows, asked, threshold(predictions[predictions.part == "valid"], asked))
            for asked in accuracies
        ]
    )


def threshold(rows, accuracy: float) -> float:
    """The lowest probability from which on the answers for `rows` reach `accuracy`; nan where none
    does.

    It is rounded down to five digits if that lets in no further answer: so it can be told, and
    still holds.
    """
    means = (
        (rows.period == rows.predicted)
        .groupby(rows.probability)
        .agg(["sum", "count"])
        .iloc[::-1]
        .cumsum()
    )
    reached = means.index[means["sum"] >= accuracy * means["count"]]
    if not len(reached):
        return np.nan
    least = float(reached.min())
    short = math.floor(1e5 * least) / 1e5
    return short if not rows.probability.between(short, least, inclusive="left").any() else least


def _answered(rows, asked, least) -> dict:
    sure = rows[rows.probability >= least]
    return {
        "asked": asked,
        "threshold": least,
        "answered": len(sure),
        "share": len(sure) / max(len(rows), 1),
        "accuracy": float((sure.period == sure.predicted).mean()),
    }


def untempered(rows, temperature: float):
    """`rows` with the probabilities that the network gave before it was divided by
    `temperature`.
    """
    scores = rows.filter(regex="^p_")
    before = temper(scores, 1 / temperature)
    return rows.assign(probability=before.max(axis=1), **dict(zip(scores, before.T, strict=True)))


def summary(predictions, temperature: float, why: str = "") -> dict:
    """What `metrics.json` keeps: the temperature, `why` it is 1.0, and for each part but train what
    it changed.

    For a part: `ece` and `nll` with the temperature, `ece_before` and `nll_before` without it.
    """
    found = {"temperature": temperature, "why": why}
    for part in ("valid", "test"):
        rows = predictions[predictions.part == part]
        if rows.empty:
            continue
        before = untempered(rows, temperature)
        found[part] = {
            "images": len(rows),
            "ece_before": error(before),
            "ece": error(rows),
            "nll_before": _nll(before),
            "nll": _nll(rows),
        }
    return found


def _nll(rows) -> float:
    scores = evaluation.scores(rows)
    return nll(scores, scores.columns.get_indexer(rows.period))
