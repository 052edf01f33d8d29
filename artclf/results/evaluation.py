"""The table of predictions, and its figures: where the classifier errs, and how far in time.

Reads `EXPORT/predictions.csv` and the catalogue of `DATA`; writes nothing, and needs no network.
Everything that is looked at builds on this table. Shown in `04_interpret`.
"""

import math
import re
import warnings
from pathlib import Path

import numpy as np

from artclf.base.errors import InputError
from artclf.base.files import finish_replacing
from artclf.data.aliases import aliases_of
from artclf.data.catalogue import clean_path, read_catalogue
from artclf.data.classes import in_order
from artclf.data.names import artist_keys
from artclf.data.splits import PARTS

COLUMNS = {
    "file": str,
    "part": str,
    "period": str,
    "predicted": str,
    "probability": float,
    "loss": float,
}
FACTS = ["title", "artist", "year", "source", "licence", "dup_group"]


def read(out, data):
    """The predictions of every image of every part, and the facts on it: a DataFrame, one row per
    image.

    Columns as in `predictions.csv` of folder `out`, and `FACTS` of the catalogue in `data` (''
    where unknown), with painters named as the user's table `DATA/artists.csv` says. Warns of
    pictures that are no longer in the catalogue. Raises FileNotFoundError where a step before this
    one is missing, InputError for a file that holds no predictions.
    """
    path = Path(out) / "predictions.csv"
    finish_replacing(path.parent)
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `artclf train` first")
    predictions = read_table(path)
    facts = read_catalogue(data).dropna(subset="file")
    facts["artist"] = facts.artist.replace(aliases_of(data))
    facts["file"] = [clean_path(row) for row in facts.to_dict("records")]
    facts = facts.drop_duplicates("file")
    lost = int((~predictions.file.isin(facts.file)).sum())
    if lost:
        warnings.warn(
            f"{lost} pictures were moved by a review, or left the catalogue, since training: run "
            "`artclf train` again",
            stacklevel=2,
        )
    table = predictions.merge(facts[["file", *FACTS]], how="left", on="file")
    table[FACTS] = table[FACTS].fillna("").astype(str)
    table["year"] = table.year.str.removesuffix(".0")  # tables often hold years as 1889.0
    return table


def read_table(path: Path):
    import pandas as pd

    try:
        predictions = pd.read_csv(
            path,
            dtype=COLUMNS,
            keep_default_na=False,  # there may be a class called NA
            na_values={"loss": ["", "nan"]},
        )
        columns_of_classes = predictions.filter(regex="^p_").columns
        predictions = predictions.astype(dict.fromkeys(columns_of_classes, float))
    except ValueError as error:
        raise InputError(
            f"{path} is not a table of predictions ({error}): run `artclf train` again"
        ) from error
    missing = [name for name in COLUMNS if name not in predictions]
    if missing or predictions.empty or columns_of_classes.empty:
        lacking = ", ".join(missing) or "rows, or columns p_<class>"
        raise InputError(f"{path} lacks {lacking}: run `artclf train` again")
    return predictions


def classes(predictions) -> list[str]:
    """All classes, also those without images, in their order (see `data.classes`)."""
    names = set(scores(predictions)) | set(predictions.period) | set(predictions.predicted)
    return in_order(names)


def positions(names: list[str]) -> np.ndarray:
    """The position of each class in time: its leading number, or, where any class has none, its
    index in `names`.
    """
    numbers = np.array([_number(name) for name in names])
    if np.isfinite(numbers).all():
        return numbers
    return np.arange(len(names), dtype=float)


def _number(name: str) -> float:
    match = re.match(r"(\d{1,9})-", name)
    return float(match[1]) if match else math.inf


def scores(predictions):
    """The probability of each class: a DataFrame, one row per image, one column per class."""
    columns = predictions.filter(regex="^p_")
    return columns.rename(columns=lambda name: name.removeprefix("p_"))


def parts(predictions) -> list[str]:
    """The parts that have images: train, valid and test, then any other."""
    names = predictions.part.unique()
    return sorted(names, key=lambda part: (*PARTS, part).index(part))


def of_part(predictions, part: str):
    """The rows of one part. Raises InputError where it has none."""
    rows = predictions[predictions.part == part]
    if rows.empty:
        names = ", ".join(parts(predictions))
        raise InputError(f"no image of part {part!r}: the parts are {names}")
    return rows


def confusion(predictions, part="test"):
    """The confusion matrix of a part: a square DataFrame of counts, given periods down, predicted
    ones across.
    """
    import pandas as pd

    rows = of_part(predictions, part)
    names = classes(predictions)
    counts = pd.crosstab(rows.period.rename("given"), rows.predicted)
    return counts.reindex(index=names, columns=names, fill_value=0)


def distances(predictions, part="test"):
    """The errors of a part by period distance: a DataFrame, one row per distance, with the counts
    `errors` and `chance`.

    The distance is the difference between the positions in time of the given and the predicted
    class (`positions`). `chance` is the count expected of random errors: each misclassified image
    keeps its given class i and gets a class j != i with probability n_j / (N - n_i), where n counts
    the images of each given class in this part and N is their sum. In other words, it gets the
    class of an image drawn from the other classes. The expectation is computed, not sampled; it is
    0 where a single class was given.
    """
    import pandas as pd

    matrix = confusion(predictions, part)
    counts = matrix.to_numpy()
    off_diagonal = 1 - np.eye(len(counts))
    errors = counts * off_diagonal
    errors_of_class = errors.sum(axis=1)
    images_of_class = counts.sum(axis=1)
    images_of_others = np.maximum(images_of_class.sum() - images_of_class, 1)
    chance = off_diagonal * images_of_class * (errors_of_class / images_of_others)[:, None]
    position = positions(list(matrix))
    distance = np.abs(position[:, None] - position).astype(int)
    table = pd.DataFrame({"errors": errors.ravel(), "chance": chance.ravel()})
    return table.groupby(distance.ravel()).sum()


def metrics(predictions) -> dict[str, dict]:
    """The figures of each part, `{part: {name: value}}`; scikit-learn computes those it knows.

    `top3_accuracy` counts images whose period is among the three most probable. `baseline_*` are
    those of always answering the class most frequent in train. Distances are in periods (see
    `distances`): `distance` over all images, `error_distance` over the errors, and the same two for
    random errors as `*_chance`; None where there are none.
    """
    train = predictions[predictions.part == "train"]
    learned_from = train if len(train) else predictions
    most_frequent = learned_from.period.mode()[0]
    return {part: _metrics(predictions, part, most_frequent) for part in parts(predictions)}


def _metrics(predictions, part: str, most_frequent: str) -> dict:
    from sklearn.metrics import accuracy_score, f1_score

    rows = of_part(predictions, part)
    given = rows.period
    predicted = rows.predicted
    baseline = np.full(len(rows), most_frequent, dtype=object)
    accuracy = accuracy_score(given, predicted)
    by_distance = distances(predictions, part)
    sums = by_distance.mul(by_distance.index, axis=0).sum()
    return {
        "images": len(rows),
        "accuracy": accuracy,
        "error_rate": 1 - accuracy,
        "macro_f1": f1_score(given, predicted, average="macro"),
        "weighted_f1": f1_score(given, predicted, average="weighted"),
        "top3_accuracy": _top_accuracy(rows, 3),
        "baseline": most_frequent,
        "baseline_accuracy": accuracy_score(given, baseline),
        "baseline_macro_f1": f1_score(given, baseline, average="macro"),
        "distance": float(sums.errors / len(rows)),
        "distance_chance": float(sums.chance / len(rows)),
        "error_distance": _mean_distance(by_distance.errors),
        "error_distance_chance": _mean_distance(by_distance.chance),
    }


def _mean_distance(counts) -> float | None:
    """The mean of the distances in the index, each as often as `counts` says; None for no count."""
    total = counts.sum()
    return float((counts * counts.index).sum() / total) if total else None


def _top_accuracy(rows, k: int) -> float:
    """The share of images whose given class is among the `k` most probable ones."""
    # scikit-learn's top_k_accuracy_score refuses two classes, and classes that the model
    # doesn't know
    table = scores(rows)
    column_of_given = table.columns.get_indexer(rows.period)
    is_known = column_of_given >= 0
    probabilities = table.to_numpy()
    probability_of_given = probabilities[np.arange(len(rows)), column_of_given]
    n_more_probable = (probabilities > probability_of_given[:, None]).sum(axis=1)
    return float((is_known & (n_more_probable < k)).mean())


def per_class(predictions):
    """Precision, recall, F1 and number of images of each class in train and test: a DataFrame, one
    row per class.

    Columns `precision_train, ..., support_test`; nan where a ratio has nothing to divide by.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    names = classes(predictions)
    columns = {}
    for part in ("train", "test"):
        rows = predictions[predictions.part == part]
        figures = [np.nan, np.nan, np.nan, 0]
        if len(rows):
            figures = precision_recall_fscore_support(
                rows.period, rows.predicted, labels=names, zero_division=np.nan
            )
        for name, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
            columns[f"{name}_{part}"] = values
    return pd.DataFrame(columns, index=pd.Index(names, name="period"))


def most_confused(predictions, n=10, part="test"):
    """The `n` pairs of classes most often confused: a DataFrame with columns `given`, `predicted`,
    `count`, and `rate`, the count divided by the number of images of the given class.
    """
    import pandas as pd

    matrix = confusion(predictions, part)
    counts = matrix.to_numpy()
    names = np.array(list(matrix), dtype=object)
    given, predicted = np.nonzero(counts * (1 - np.eye(len(names))))
    count = counts[given, predicted]
    pairs = pd.DataFrame(
        {
            "given": names[given],
            "predicted": names[predicted],
            "count": count,
            "rate": count / counts.sum(axis=1)[given],
        }
    )
    pairs = pairs.sort_values(["count", "rate"], ascending=False, kind="stable")
    return pairs.head(n).reset_index(drop=True)


def images_of_pair(predictions, pair, part="test"):
    """The images behind one row of `most_confused`, those with the highest probability first."""
    rows = of_part(predictions, part)
    rows = rows[(rows.period == pair.given) & (rows.predicted == pair.predicted)]
    return rows.sort_values("probability", ascending=False, kind="stable")


def errors_by(predictions, fact: str, part="test"):
    """The errors of a part by a fact (`artist`, `source`), most errors first: a DataFrame, one row
    per artist or source.

    Columns `images`, `errors`, `rate`, and `mostly`, the most frequent confusion as a pair of given
    and predicted class. The spellings of one painter (`names.artist_keys`) are one row, under the
    most frequent spelling. Images without the fact, or by nobody (`Anonymous`), are left out.
    """
    import pandas as pd

    rows = of_part(predictions, part)
    rows = rows[rows[fact] != ""]
    keys = rows[fact]
    if fact == "artist":
        keys = rows[fact].map(artist_keys(rows[fact].unique()))
    is_named = keys != ""
    groups = rows[is_named].groupby(keys[is_named])
    records = [_errors_of_group(group, fact) for _, group in groups]
    table = pd.DataFrame(records, columns=["name", "images", "errors", "rate", "mostly"])
    table = table.sort_values(["errors", "rate"], ascending=False, kind="stable")
    return table.set_index("name")


def _errors_of_group(group, fact: str) -> dict:
    is_wrong = group.period != group.predicted
    confusions = group[is_wrong].groupby(["period", "predicted"]).size()
    return {
        "name": group[fact].mode()[0],
        "images": len(group),
        "errors": int(is_wrong.sum()),
        "rate": is_wrong.mean(),
        "mostly": confusions.idxmax() if len(confusions) else None,
    }


def surest(predictions, right: bool, n: int | None = 12, part="test"):
    """The `n` images of a part that are right (or wrong) with the highest probability."""
    rows = of_part(predictions, part)
    rows = rows[(rows.period == rows.predicted) == right]
    return rows.sort_values("probability", ascending=False, kind="stable").head(n)


def least_sure(predictions, n=12, part="test"):
    """The `n` images of a part with the lowest probability, the lowest first."""
    return of_part(predictions, part).sort_values("probability", kind="stable").head(n)


def top_losses(predictions, n=12, part="test"):
    """The `n` images of a part with the highest loss, highest first."""
    return of_part(predictions, part).sort_values("loss", ascending=False, kind="stable").head(n)
