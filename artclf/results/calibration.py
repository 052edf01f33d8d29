"""Calibration: whether a probability of 0.8 is right eight times in ten.

The temperature, the calibration error, and how many images can be answered at an accuracy. Works on
the table of predictions (`evaluation.read`); reads and writes no files. `predict.export` fits the
temperature on the part valid and writes it to `config.json`. Shown in `04_interpret`.
"""

import math

import numpy as np

from artclf.results import evaluation

BINS = 15
FEWEST = 20  # images of valid: with fewer, the temperature depends more on chance
ACCURACIES = (0.8, 0.9, 0.95)
SMALLEST = 1e-38  # probability: the logarithm of 0 is no number


def temper(probabilities, temperature: float) -> np.ndarray:
    """Probabilities of shape (images, classes) with their logits divided by `temperature`.

    `temper(..., 1 / temperature)` undoes it.
    """
    from scipy.special import softmax

    probabilities = np.asarray(probabilities, dtype=np.float64)
    logits = np.log(np.clip(probabilities, SMALLEST, None))
    return softmax(logits / temperature, axis=1)


def nll(probabilities, given) -> float:
    """The mean negative log-likelihood of `given`, the column of each image's period."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    of_given = probabilities[np.arange(len(given)), given]
    return float(-np.log(of_given.clip(SMALLEST)).mean())


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
        return 1.0, "valid has no error, which fitting it needs"

    def nll_at(log_temperature: float) -> float:
        return nll(temper(probabilities, np.exp(log_temperature)), given)

    best = minimize_scalar(nll_at, bounds=np.log([0.1, 10]), method="bounded")
    if best.fun >= nll(probabilities, given):
        return 1.0, "none gives valid a higher likelihood"
    return float(np.exp(best.x)), ""


def bins(rows, n: int = BINS):
    """Images by the probability of their answer: a DataFrame, a row for each of `n` equal widths of
    it.

    Columns `low, high, images`, and the means `confidence` and `accuracy`, nan where there are no
    images. A bin includes its upper end, as in Guo et al.
    """
    import pandas as pd

    edges = np.linspace(0, 1, n + 1)
    confidence = rows.probability.to_numpy()
    is_right = (rows.period == rows.predicted).to_numpy().astype(float)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n - 1)
    groups = pd.DataFrame({"confidence": confidence, "accuracy": is_right}).groupby(place)
    table = groups.mean().assign(images=groups.size()).reindex(range(n))
    table["images"] = table.images.fillna(0).astype(int)
    return table.assign(low=edges[:-1], high=edges[1:])


def error(rows, n: int = BINS) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy over `bins`,
    weighted by their images.
    """
    table = bins(rows, n)
    gaps = (table.confidence - table.accuracy).abs()
    return float((gaps * table.images).sum() / len(rows))


def answerable(predictions, part="test", accuracies=ACCURACIES):
    """How many images can be answered at an accuracy: a DataFrame, a row for each of `accuracies`.

    Column `asked` is the accuracy, `threshold` the lowest probability above which the answers for
    valid reach it; `answered`, `share` and `accuracy` describe the images of `part` above it. nan
    where no threshold reaches it on valid, or where there is no valid.
    """
    import pandas as pd

    valid = predictions[predictions.part == "valid"]
    rows = predictions[predictions.part == part]
    table = []
    for asked in accuracies:
        least = threshold(valid, asked)
        answered = rows[rows.probability >= least]
        table.append(
            {
                "asked": asked,
                "threshold": least,
                "answered": len(answered),
                "share": len(answered) / max(len(rows), 1),
                "accuracy": float((answered.period == answered.predicted).mean()),
            }
        )
    return pd.DataFrame(table)


def threshold(rows, accuracy: float) -> float:
    """The lowest probability from which on the answers for `rows` reach `accuracy`; nan where none
    does.

    It is rounded down to five digits where that adds no answer, so that it is short and still
    holds.
    """
    is_right = rows.period == rows.predicted
    by_probability = is_right.groupby(rows.probability).agg(["sum", "count"])
    from_the_top = by_probability.iloc[::-1].cumsum()
    reached = from_the_top.index[from_the_top["sum"] >= accuracy * from_the_top["count"]]
    if not len(reached):
        return np.nan
    least = float(reached.min())
    rounded = math.floor(1e5 * least) / 1e5
    adds_answers = rows.probability.between(rounded, least, inclusive="left").any()
    return least if adds_answers else rounded


def untempered(rows, temperature: float):
    """`rows` with the probabilities that the network gave before it was divided by
    `temperature`.
    """
    columns = rows.filter(regex="^p_")
    before = temper(columns, 1 / temperature)
    by_column = dict(zip(columns, before.T, strict=True))
    return rows.assign(probability=before.max(axis=1), **by_column)


def summary(predictions, temperature: float, why: str = "") -> dict:
    """What `metrics.json` holds: the temperature, `why` it is 1.0, and for each part but train what
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
            "nll_before": _nll_of_rows(before),
            "nll": _nll_of_rows(rows),
        }
    return found


def _nll_of_rows(rows) -> float:
    probabilities = evaluation.scores(rows)
    return nll(probabilities, probabilities.columns.get_indexer(rows.period))
