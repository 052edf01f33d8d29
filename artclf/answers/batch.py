"""Batches: answers for as many pictures as there are, in one file, by a run that may be killed.

Reads pictures; writes `NAME.csv` or `NAME.parquet`, and while it works parts of it in the folder
`NAME.csv.parts/`. Each part is a CSV of `PART_SIZE` rows that is written whole, so that a run that
was killed loses at most one; the next run goes on behind the last. Memory does not grow with the
number of pictures.
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pandas as pd

from artclf.answers import inputs, workers
from artclf.answers.classifier import Predictor
from artclf.answers.inputs import Named
from artclf.base.errors import InputError
from artclf.base.extras import require
from artclf.base.files import read_json, replace_whole, write_csv, write_json
from artclf.base.locks import locked
from artclf.base.processes import MapJobs
from artclf.base.progress import progress_bar
from artclf.data.pictures import Rejected
from artclf.data.places import is_address

# of larger ones a processor computes hardly more a second, in twice the memory
BATCH_SIZE = 16
PART_SIZE = 32 * BATCH_SIZE  # whole batches, so that a later run computes the same ones
PARTS_IN_GROUP = 128  # of a Parquet file's row groups
DIGITS = 6  # of a probability
LISTS = (".txt", ".csv")
COLUMNS_OF_LISTS = ("file", "url")
KINDS = (".csv", ".parquet")
TEXTS = ("image", "predicted", "error", "answer", "artist")  # all other columns are numbers


def pictures_in(images: Iterable[str]) -> Iterator[Named]:
    """The pictures that are meant by paths, folders, packs, URLs and lists, one after the other.

    A list is a text file with a path or URL in each line, or a CSV with the column `file` or `url`;
    a relative path in it starts from the folder of the list. Raises InputError for a list that is
    none, and what opening it raises.
    """
    for place in images:
        if inputs.is_url(place) or Path(place).suffix.lower() not in LISTS:
            entries: Iterator[str | Named] = iter([place])
        else:
            entries = _in_list(Path(place))
        for entry in entries:
            if isinstance(entry, Named):
                yield entry
            else:
                yield from map(Named._make, inputs.stream(entry))


def save(
    classifier: Predictor,
    images: Iterable[str],
    file,
    min_probability: float | None = None,
    map_jobs: MapJobs | None = None,
    load: Callable[[], Predictor] | None = None,
) -> dict:
    """Write what `classifier` answers for each of `images` to `file`, a CSV or Parquet file by its
    name; return the numbers of `pictures` and of `errors` among them, and the `file`.

    `images` is what `pictures_in` takes. A row per picture, in that order: `image, predicted,
    probability, error`, then with `min_probability` `answer`, with artists `artist,
    artist_probability` (see `Predictor.predict`), and `p_<class>` for each class. Probabilities have
    six decimals.

    With `map_jobs`, its workers answer, each with the classifier that `load` gives there, and this
    process writes; see `workers.tables`.

    A run that goes on behind another gives the same file as one that was never killed. It compares
    the names of pictures, not what is in them; from the first name that differs, it predicts again.
    Raises InputError for a file of another kind, parts by another network or with other settings, or
    no pictures at all; StepError where another process writes the same file; ImportError where
    Parquet needs a package that is missing.
    """
    file = Path(file)
    if file.suffix not in KINDS or file.is_dir():
        raise InputError(
            f"{file} can't be written to: name a file that ends in {' or '.join(KINDS)}"
        )
    if file.suffix == ".parquet":
        require("parquet", "pyarrow")
    parts = file.with_name(f"{file.name}.parts")
    with _held(parts), progress_bar(desc=file.name) as bar:
        _claim(parts, classifier, min_probability)
        done, pictures = _done(parts, pictures_in(images))
        bar.update(done.pictures)
        if map_jobs is None or load is None:
            answers = classifier.predict_batches(
                pictures, len(classifier.vocab), BATCH_SIZE, min_probability
            )
        else:
            answers = workers.tables(
                classifier, pictures, BATCH_SIZE, min_probability, map_jobs, load
            )
        for rows in _in_parts(answers, classifier.vocab, bar):
            write_csv(_part(parts, done.parts), rows)
            done.add(rows)
        if done.parts:
            _join([_part(parts, number) for number in range(done.parts)], file)
    if not done.parts:
        raise InputError(f"no picture found in {', '.join(map(str, images))}")
    shutil.rmtree(parts)
    return {"pictures": done.pictures, "errors": done.errors, "file": str(file)}


@contextmanager
def _held(parts: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder `parts` while the `with` block lasts. The folder
    stays only if it has answers.
    """
    with locked(parts):
        try:
            yield
        finally:
            if not _part(parts, 0).exists():
                shutil.rmtree(parts, ignore_errors=True)  # Windows keeps a lock that is held


@dataclass
class _Done:
    """How many parts are written, with how many pictures, and errors among these."""

    parts: int = 0
    pictures: int = 0
    errors: int = 0

    def add(self, rows: pd.DataFrame):
        self.parts += 1
        self.pictures += len(rows)
        self.errors += int((rows.error != "").sum())


def _in_list(file: Path) -> Iterator[str | Named]:
    """The paths and URLs in a list; `Named`, with the reason, for a line of a CSV without one."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        if file.suffix.lower() == ".txt":
            for line in stream:
                if line.strip():
                    yield _from_folder_of(file, line.rstrip("\r\n"))
            return
        reader = csv.DictReader(stream)
        try:
            column = _column(reader.fieldnames or [], file)
            for row in reader:
                if row[column]:
                    yield _from_folder_of(file, row[column])
                else:
                    name = f"{file}, line {reader.line_num}"
                    yield Named(name, Rejected(f"the column {column} is empty"))
        except csv.Error as error:
            raise InputError(f"{file} is no CSV (line {reader.line_num}: {error})") from error


def _column(names: Iterable[str], file: Path) -> str:
    for column in COLUMNS_OF_LISTS:
        if column in names:
            return column
    raise InputError(
        f"{file} has the columns {', '.join(names) or 'none'}: a list of pictures needs the column "
        f"{' or '.join(COLUMNS_OF_LISTS)}"
    )


def _from_folder_of(file: Path, place: str) -> str:
    if is_address(place) or place.startswith("~"):
        return place
    return str(file.parent / place)


def _claim(parts: Path, classifier: Predictor, min_probability: float | None):
    """Note which answers the folder `parts` is for. Raises InputError where it holds others."""
    config = json.dumps(classifier.config, sort_keys=True, default=str)
    settings = {
        "network": hashlib.sha256(config.encode()).hexdigest(),
        "classifier": type(classifier).__name__,
        "min_probability": min_probability,
        "artclf": version("artclf"),
    }
    noted = read_json(parts / "settings.json")
    if noted not in ({}, settings):
        raise InputError(
            f"{parts} holds answers by another network or with other settings: remove that folder to "
            "begin anew, or name another file"
        )
    write_json(parts / "settings.json", settings)


def _done(parts: Path, pictures: Iterator[Named]) -> tuple[_Done, Iterator[Named]]:
    """What an earlier run has written, and the pictures that remain."""
    done = _Done()
    while (file := _part(parts, done.parts)).exists():
        rows = _read_part(file)
        expected = list(islice(pictures, PART_SIZE))
        if rows.image.tolist() != [_written(picture.name) for picture in expected]:
            return done, chain(expected, pictures)
        done.add(rows)
    return done, pictures


def _in_parts(tables: Iterable[pd.DataFrame], vocab: list[str], bar) -> Iterator[pd.DataFrame]:
    """The rows of the file, `PART_SIZE` at a time, from tables of `Predictor.predict_batches`."""
    batches = []
    for table in tables:
        bar.update(len(table))
        if len(table):
            batches.append(_rows(table, vocab))
        if len(batches) * BATCH_SIZE == PART_SIZE:
            yield pd.concat(batches)
            batches = []
    if batches:
        yield pd.concat(batches)


def _rows(table: pd.DataFrame, vocab: list[str]) -> pd.DataFrame:
    """A table of `Predictor.predict`, with all classes in `top`, as rows of the file."""
    chances = [[dict(top).get(name, np.nan) for name in vocab] for top in table.top]
    rows = table.drop(columns="top")
    rows["image"] = rows.image.map(_written)
    rows[[f"p_{name}" for name in vocab]] = np.array(chances, dtype=float).reshape(-1, len(vocab))
    return rows.round(DIGITS)


def _written(name: str) -> str:
    """A name as UTF-8 can hold it: the bytes of a file's name that are none become `\\udc..`."""
    return name.encode("utf-8", "backslashreplace").decode()


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06}.csv"


def _read_part(file: Path) -> pd.DataFrame:
    """The rows of a part; texts are as they were written, numbers are float32."""
    texts = pd.read_csv(file, dtype=str, keep_default_na=False)
    numbers = [name for name in texts if name not in TEXTS]
    filled = texts.replace({name: {"": "nan"} for name in numbers})
    return filled.astype(dict.fromkeys(numbers, np.float32))


def _join(parts: list[Path], file: Path):
    """Write the rows of all parts to `file`, whole or not at all."""
    write = _write_parquet if file.suffix == ".parquet" else _write_csv
    replace_whole(file, lambda unfinished: write(parts, unfinished))


def _write_csv(parts: list[Path], file: Path):
    head = pd.read_csv(parts[0], dtype=str, nrows=0).to_csv(index=False).encode()
    with file.open("wb") as stream:
        stream.write(head)
        for part in parts:
            stream.write(part.read_bytes().removeprefix(head))


def _write_parquet(parts: list[Path], file: Path):
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    names = pd.read_csv(parts[0], dtype=str, nrows=0).columns
    kinds = {name: pa.string() if name in TEXTS else pa.float32() for name in names}
    schema = pa.schema(kinds)
    with ParquetWriter(file, schema) as writer:
        for start in range(0, len(parts), PARTS_IN_GROUP):
            rows = pd.concat(map(_read_part, parts[start : start + PARTS_IN_GROUP]))
            # as everywhere, what has an error has no period
            rows["predicted"] = rows.predicted.where(rows.predicted != "", None)
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
