"""Where the classifier errs, and how far in time: tables, plots and a report made from the
predictions.

Reads `EXPORT/predictions.csv` and the catalogue and pictures of `DATA`; writes
`EXPORT/report.html`, `EXPORT/plots/`, `EXPORT/per_class.csv` and `EXPORT/most_confused.csv`. Needs
no network and no model. Shown in `04_interpret`.
"""

import math
import re
import warnings
from pathlib import Path

import numpy as np

from artclf.base.errors import InputError
from artclf.data.catalogue import clean_path, read_catalogue
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


FACTS = ["title", "artist", "year", "source", "dup_group"]


def read(out, data):
    """The predictions of every image of every part, and what is known of it: a DataFrame, a row an
    image.

    Columns as in `predictions.csv` of folder `out`, and `FACTS` of the catalogue in `data` (''
    where unknown). Raises FileNotFoundError where a step before this one is missing, ValueError for
    a table that isn't one of predictions.
    """
    import pandas as pd

    path = Path(out) / "predictions.csv"
    if not path.exists():
        raise FileNotFoundError(f"no {path}: run `artclf train` first")
    try:  # no text counts as missing: there may be a class called NA
        predictions = pd.read_csv(
            path, dtype=COLUMNS, keep_default_na=False, na_values={"loss": ["", "nan"]}
        )
        chances = predictions.filter(regex="^p_").columns
        predictions = predictions.astype(dict.fromkeys(chances, float))
    except ValueError as error:
        raise InputError(
            f"{path} is not a table of predictions ({error}): run `artclf train` again"
        ) from error
    missing = [name for name in COLUMNS if name not in predictions]
    if missing or predictions.empty or chances.empty:
        raise InputError(
            f"{path} lacks {', '.join(missing) or 'rows, or columns p_<class>'}: run `artclf train` again"
        )
    facts = read_catalogue(data).dropna(subset="file")
    facts = facts.assign(
        file=[clean_path(row) for row in facts.to_dict("records")]
    ).drop_duplicates("file")
    if lost := int((~predictions.file.isin(facts.file)).sum()):
        warnings.warn(
            f"{lost} pictures were moved by a review, or left the catalogue, since: run `artclf train` again",
            stacklevel=2,
        )
    joined = predictions.merge(facts[["file", *FACTS]], how="left", on="file")
    joined[FACTS] = joined[FACTS].fillna("").astype(str)
    return joined.assign(
        year=joined.year.str.removesuffix(".0")
    )  # tables often hold years as 1889.0


def classes(predictions) -> list[str]:
    """All classes, those without images too, in time order: by the number of `NN-name`, then by
    name.
    """
    known = set(scores(predictions))
    return sorted(
        known | set(predictions.period) | set(predictions.predicted),
        key=lambda name: (_number(name), name),
    )


def positions(names: list[str]) -> np.ndarray:
    """Each class's place in time: its leading number, or, where any class has none, its rank in
    `names`.
    """
    numbers = np.array([_number(name) for name in names])
    return numbers if np.isfinite(numbers).all() else np.arange(len(names), dtype=float)


def _number(name: str) -> float:
    found = re.match(r"(\d{1,9})-", name)
    return float(found[1]) if found else math.inf


def scores(predictions):
    """The probability of each class, a DataFrame: a row an image, a column a class by its name."""
    return predictions.filter(regex="^p_").rename(columns=lambda name: name.removeprefix("p_"))


def parts(predictions) -> list[str]:
    """The parts that have images: train, valid and test, then any other."""
    return sorted(predictions.part.unique(), key=lambda part: (*PARTS, part).index(part))


def of_part(predictions, part: str):
    """The rows of one part. Raises ValueError where it has none."""
    rows = predictions[predictions.part == part]
    if rows.empty:
        raise InputError(
            f"no image of part {part!r}: the parts are {', '.join(parts(predictions))}"
        )
    return rows


def confusion(predictions, part="test"):
    """The confusion matrix of a part: a square DataFrame of counts, given periods down, predicted
    ones across.
    """
    import pandas as pd

    rows, names = of_part(predictions, part), classes(predictions)
    counts = pd.crosstab(rows.period.rename("given"), rows.predicted)
    return counts.reindex(index=names, columns=names, fill_value=0)


def distances(predictions, part="test"):
    """The errors of a part by period distance: a DataFrame, a row a distance, with counts `errors`
    and `chance`.

    The distance is the difference between the places in time of the given and the predicted class
    (`positions`). `chance` is what is expected of random errors: each misclassified image keeps its
    given class i and gets a class j != i with probability n_j / (N - n_i), where n counts the
    images of each given class in this part and N is their sum: the class of any image of another
    class. It is summed over all pairs, not sampled; 0 where one class was given.
    """
    import pandas as pd

    matrix = confusion(predictions, part)
    counts, place, other = matrix.to_numpy(), positions(list(matrix)), 1 - np.eye(len(matrix))
    given, errors = counts.sum(1), counts * other
    chance = other * errors.sum(1)[:, None] * given / np.maximum(given.sum() - given, 1)[:, None]
    gaps = np.abs(place[:, None] - place).astype(int)
    return (
        pd.DataFrame({"errors": errors.ravel(), "chance": chance.ravel()})
        .groupby(gaps.ravel())
        .sum()
    )


def metrics(predictions) -> dict[str, dict]:
    """The figures of each part: `{part: {name: value}}`, all of scikit-learn's definition where it
    has one.

    `top3_accuracy` counts images whose period is among the three most probable. `baseline_*` are
    those of always answering the class most frequent in train. Distances are in periods (see
    `distances`): `distance` over all images, `error_distance` over the errors, and the same two for
    random errors as `*_chance`; None where there are none.
    """
    train = predictions[predictions.part == "train"]
    frequent = (train if len(train) else predictions).period.mode()[0]
    return {part: _metrics(predictions, part, frequent) for part in parts(predictions)}


def _metrics(predictions, part, frequent):
    from sklearn.metrics import accuracy_score, f1_score

    rows, gaps = of_part(predictions, part), distances(predictions, part)
    given, always = rows.period, np.full(len(rows), frequent, dtype=object)
    accuracy, sums = accuracy_score(given, rows.predicted), gaps.mul(gaps.index, axis=0).sum()
    error, chance = (
        float(sums[name] / gaps[name].sum()) if gaps[name].sum() else None for name in gaps
    )
    return {
        "images": len(rows),
        "accuracy": accuracy,
        "error_rate": 1 - accuracy,
        "macro_f1": f1_score(given, rows.predicted, average="macro"),
        "weighted_f1": f1_score(given, rows.predicted, average="weighted"),
        "top3_accuracy": _top_accuracy(rows, 3),
        "baseline": frequent,
        "baseline_accuracy": accuracy_score(given, always),
        "baseline_macro_f1": f1_score(given, always, average="macro"),
        "distance": float(sums.errors / len(rows)),
        "distance_chance": float(sums.chance / len(rows)),
        "error_distance": error,
        "error_distance_chance": chance,
    }


def _top_accuracy(rows, k: int) -> float:
    # scikit-learn's top_k_accuracy_score refuses two classes, and classes that the model doesn't know
    known = scores(rows)
    column = known.columns.get_indexer(rows.period)
    own = np.where(column >= 0, known.to_numpy()[np.arange(len(rows)), column], math.inf)
    return float(((known.to_numpy() > own[:, None]).sum(1) < k)[column >= 0].sum() / len(rows))


def per_class(predictions):
    """Precision, recall, F1 and number of images of each class in train and test: a DataFrame, a
    row a class.

    Columns `precision_train, ..., support_test`; nan where a ratio has nothing to divide by.
    """
    import pandas as pd
    from sklearn.metrics import precision_recall_fscore_support

    names, table = classes(predictions), {}
    for part in ("train", "test"):
        rows = predictions[predictions.part == part]
        figures = [np.nan] * 3 + [0]
        if len(rows):
            figures = precision_recall_fscore_support(
                rows.period, rows.predicted, labels=names, zero_division=np.nan
            )
        table |= {
            f"{name}_{part}": column
            for name, column in zip(("precision", "recall", "f1", "support"), figures, strict=True)
        }
    return pd.DataFrame(table, index=pd.Index(names, name="period"))


def most_confused(predictions, n=10, part="test"):
    """The `n` pairs of classes most often confused: `given, predicted, count`, and `rate` among the
    images given so.
    """
    import pandas as pd

    matrix = confusion(predictions, part)
    counts, names = matrix.to_numpy(), np.array(list(matrix), dtype=object)
    given, predicted = np.nonzero(counts * (1 - np.eye(len(names))))
    pairs = pd.DataFrame(
        {
            "given": names[given],
            "predicted": names[predicted],
            "count": counts[given, predicted],
            "rate": counts[given, predicted] / counts.sum(1)[given],
        }
    )
    return (
        pairs.sort_values(["count", "rate"], ascending=False, kind="stable")
        .head(n)
        .reset_index(drop=True)
    )


def behind(predictions, pair, part="test"):
    """The images behind one row of `most_confused`, those that the network was surest of first."""
    rows = of_part(predictions, part)
    rows = rows[(rows.period == pair.given) & (rows.predicted == pair.predicted)]
    return rows.sort_values("probability", ascending=False, kind="stable")


def errors_by(predictions, fact: str, part="test"):
    """The errors of a part by a fact (`artist`, `source`), most errors first: a DataFrame, a row a
    name.

    Columns `images`, `errors`, `rate`, and `mostly`, the commonest confusion as a pair. Spellings
    of one painter (`split.artist_keys`) stand under the commonest; images without the fact, or by
    nobody (`Anonymous`), are left out.
    """
    import pandas as pd

    rows = of_part(predictions, part)
    rows = rows[rows[fact] != ""].assign(wrong=lambda table: table.period != table.predicted)
    keys = rows[fact].map(artist_keys(rows[fact].unique())) if fact == "artist" else rows[fact]
    found = [_errors(group, fact) for _, group in rows[keys != ""].groupby(keys[keys != ""])]
    table = pd.DataFrame(found, columns=["name", "images", "errors", "rate", "mostly"])
    return table.sort_values(["errors", "rate"], ascending=False, kind="stable").set_index("name")


def _errors(group, fact):
    pairs = group[group.wrong].groupby(["period", "predicted"]).size()
    return (
        group[fact].mode()[0],
        len(group),
        int(group.wrong.sum()),
        group.wrong.mean(),
        pairs.idxmax() if len(pairs) else None,
    )


def surest(predictions, right: bool, n=12, part="test"):
    """The `n` images of a part that it has right (or wrong), those that the network was surest of
    first.
    """
    rows = of_part(predictions, part)
    rows = rows[(rows.period == rows.predicted) == right]
    return rows.sort_values("probability", ascending=False, kind="stable").head(n)


def least_sure(predictions, n=12, part="test"):
    """The `n` images of a part that the network was least sure of, the least sure first."""
    return of_part(predictions, part).sort_values("probability", kind="stable").head(n)


def top_losses(predictions, n=12, part="test"):
    """The `n` images of a part with the highest loss, highest first."""
    return of_part(predictions, part).sort_values("loss", ascending=False, kind="stable").head(n)
