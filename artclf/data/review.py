"""The review: what a person decides on doubtful pictures, in the catalogue and in a file that
travels with the lists.

Reads the flagged pictures and `review.csv`; writes the catalogue's column `review` (`keep`, `drop`,
`move:<period>` or nothing), its table `decisions`, and `review.csv`. Nothing is deleted: a dropped
picture stays on the disk. Shown in `02_clean`.
"""

import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artclf.base.errors import InputError
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue, require

COLUMNS = ("url", "period", "review", "title", "artist")  # of review.csv


LOG = (
    "CREATE TABLE IF NOT EXISTS decisions (step INTEGER NOT NULL, url TEXT NOT NULL, period TEXT NOT NULL, "
    "old TEXT, new TEXT, undone INTEGER NOT NULL DEFAULT 0, time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
)


def decide(data, pictures, choice: str | None) -> int:
    """Write a decision to the catalogue at once, and return how many pictures it changed.

    `pictures` is a DataFrame or a list of dicts with `url` and `period`, or a list of URLs, which
    stand for all the periods that they are listed under. `choice` is `keep`, `drop`,
    `move:<period>`, or None for undecided; a move to the period that a picture has is `keep`.
    Raises ValueError for another choice and for a picture that isn't there.
    """
    if hasattr(pictures, "to_dict"):
        pictures = pictures.to_dict("records")
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        if choice is not None and (problem := _problem(choice, _periods(cat))):
            raise InputError(problem)
        for picture in pictures:
            for row in _find(cat, picture):
                new = "keep" if choice == f"move:{row['period']}" else choice
                if new != row["review"]:
                    changes.append((row, new))
        step = cat.db.execute("SELECT COALESCE(MAX(step), 0) + 1 FROM decisions").fetchone()[0]
        cat.db.executemany(
            "INSERT INTO decisions (step, url, period, old, new) VALUES (?, ?, ?, ?, ?)",
            [(step, row["url"], row["period"], row["review"], new) for row, new in changes],
        )
    return len(changes)


def undo(data) -> list[dict]:
    """Take back the last decision that was made here, be it before a restart.

    Returns the rows of the catalogue that it was about, `review` still as it was decided; none
    where nothing is left. What was read from a file is not undone: decide otherwise.
    """
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        last = "step = (SELECT MAX(step) FROM decisions WHERE NOT undone)"
        for entry in cat.db.execute(f"SELECT * FROM decisions WHERE {last}").fetchall():
            changes += [(row, entry["old"]) for row in _find(cat, dict(entry))]
        cat.db.execute(f"UPDATE decisions SET undone = 1 WHERE {last}")
    return [row for row, _ in changes]


def export_csv(data, file) -> int:
    """Bring the decisions of this data set into `file`, and return their number.

    Lines on other pictures stay, in their order; a line that was taken back here goes. The file is
    replaced whole. Raises ValueError, and leaves the file alone, where it isn't a list of
    decisions.
    """
    file = Path(file)
    with _catalogue(data) as cat:
        rows, taken_back = _rows(cat), _by_hand(cat)
    header, lines = _read(file, rows) if file.exists() else ([], {})
    header += [name for name in COLUMNS if name not in header]
    for key, row in rows.items():
        if row["review"]:
            lines[key] = lines.get(key, {}) | {name: row[name] or "" for name in COLUMNS}
        elif key in lines and taken_back(key, lines[key]["review"].strip()):
            del lines[key]
    part = file.with_name(f".{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(
            stream, header, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(lines.values())
    part.replace(file)
    return sum(row["review"] is not None for row in rows.values())


def read_csv(data, file) -> dict[str, int]:
    """Apply the decisions in `file`, say what became of them, and return the counts.

    A line without a period is about all the periods that its URL is listed under; of two lines on
    one picture the later holds. What a person decided or took back here holds against the file:
    these lines count as `kept`. Lines on pictures that aren't here (`unknown`), and those with an
    unknown word or period (`wrong`), are not applied; the file is never changed. A file that isn't
    there has no lines. Raises ValueError for one that isn't a list of decisions.
    """
    file, counts, wrong = (
        Path(file),
        dict.fromkeys(("applied", "same", "kept", "unknown", "wrong"), 0),
        [],
    )
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        rows, by_hand, periods = _rows(cat), _by_hand(cat), _periods(cat)
        for key, line in (_read(file, rows)[1] if file.exists() else {}).items():
            new = line["review"].strip()
            if line["url"].startswith("#"):
                continue
            if new == f"move:{line['period']}":
                new = "keep"
            if key not in rows:
                outcome = "unknown"
            elif problem := _problem(new, periods):
                outcome = "wrong"
                wrong.append(f"line {line['line']}: {problem}")
            elif new == rows[key]["review"]:
                outcome = "same"
            else:
                outcome = "kept" if by_hand(key, new) else "applied"
            counts[outcome] += 1
            if outcome == "applied":
                changes.append((rows[key], new))
    _tell(file, counts, wrong)
    return counts


def queue(data, flagged):
    """The pictures to decide on: a DataFrame of catalogue rows with `reasons`, `likelier`, `group`
    and `flagged`.

    They come in the order of `flagged`, a DataFrame with `url`, `period` and where it has them
    `reasons` (text) and `likelier` (a period), with all copies of one picture next to each other,
    also the one that isn't flagged. Pictures without a clean copy are left out. Raises ValueError
    where `url` or `period` is missing.
    """
    import pandas as pd

    if missing := {"url", "period"} - set(flagged):
        raise InputError(f"the flagged pictures have no column {' and '.join(sorted(missing))}")
    facts = flagged.reindex(columns=["url", "period", "reasons", "likelier"]).drop_duplicates(
        ["url", "period"]
    )
    table = read_catalogue(data).drop(columns=["reasons", "likelier"], errors="ignore")
    table = table[
        table.clean_status.notna() & (table.clean_status != "rejected") & table.file.notna()
    ]
    table = table.merge(facts.assign(place=range(len(facts))), how="left", on=["url", "period"])
    table = table.astype(object).where(table.notna(), "")
    table["group"] = [
        group or sha or url
        for group, sha, url in table[["dup_group", "clean_sha256", "url"]].values
    ]
    table["flagged"], table["place"] = table.place != "", pd.to_numeric(table.place)
    first = table.groupby("group").place.transform("min")
    without = table.reasons == ""
    table.loc[without, "reasons"] = table.clean_reason.where(
        table.clean_reason != "", "the copy that is used"
    )[without]
    return (
        table.assign(first=first)[first.notna()]
        .sort_values(["first", "place"])
        .reset_index(drop=True)
    )


@contextmanager
def _catalogue(data) -> Iterator[Catalogue]:
    require(data)
    with Catalogue(data) as cat:
        cat.db.execute(LOG)
        yield cat


@contextmanager
def _moving_copies(cat: Catalogue, data) -> Iterator[list]:
    """Write the pairs of row and new decision that are put into the list; then the clean copies
    follow the moves.

    A process killed in between leaves copies where they were, and `clean` makes those that are
    missing.
    """
    changes = []
    with cat.transaction() as db:
        yield changes
        db.executemany(
            "UPDATE images SET review = ? WHERE url = ? AND period = ?",
            [(new, row["url"], row["period"]) for row, new in changes],
        )
    for row, new in changes:
        if row["file"]:
            _move_copy(
                cat, Path(data), clean_path(row), clean_path({**row, "review": new}), row["url"]
            )


def _move_copy(cat: Catalogue, data: Path, before: str, after: str, url: str):
    if before == after or not (data / before).exists():
        return
    (data / after).parent.mkdir(parents=True, exist_ok=True)
    others = cat.select("url = ? AND file IS NOT NULL", (url,))  # its copies bear one name
    take = shutil.copyfile if before in map(clean_path, others) else Path.replace
    take(data / before, data / after)


def _rows(cat: Catalogue) -> dict[tuple, dict]:
    return {(row["url"], row["period"]): row for row in cat.select()}


def _periods(cat: Catalogue) -> set[str]:
    return {p for (p,) in cat.db.execute("SELECT DISTINCT period FROM images")}


def _problem(choice: str, periods: set[str]) -> str | None:
    """What is wrong with a decision, in words."""
    word, _, period = choice.partition(":")
    if word == "move" and period and period not in periods:
        return f"there is no class {period!r} to move a picture to"
    if choice in ("keep", "drop") or (word == "move" and period):
        return None
    return f"{choice!r} is no decision: it is keep, drop or move:<period>"


def _find(cat: Catalogue, picture) -> list[dict]:
    key = (picture,) if isinstance(picture, str) else (picture["url"], picture["period"])
    found = cat.select("url = ?" + " AND period = ?" * (len(key) - 1), key)
    if not found:
        raise InputError(f"{cat.path} has no picture {' in '.join(key)}")
    return found


def _by_hand(cat: Catalogue):
    """A function of a picture's key and a decision: whether a person decided otherwise here, or
    took it back.
    """
    log = cat.db.execute("SELECT * FROM decisions").fetchall()
    decided = {(entry["url"], entry["period"]) for entry in log if not entry["undone"]}
    said = {(entry["url"], entry["period"], entry["new"]) for entry in log}
    return lambda key, choice: key in decided or (*key, choice) in said


def _read(file: Path, rows: dict) -> tuple[list[str], dict]:
    """The header of `review.csv` and its lines by `(url, period)`, or by number for a picture that
    isn't in `rows`.
    """
    listed, lines = {}, {}
    for url, period in rows:
        listed.setdefault(url, []).append(period)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="", restkey="more", strict=True)
        try:
            reader.fieldnames = header = [name.strip().lower() for name in reader.fieldnames or []]
            if not {"url", "review"} <= set(header):
                raise csv.Error("it needs a first line with the columns url, period and review")
            for line in reader:
                if "more" in line:
                    raise csv.Error(f"line {reader.line_num} has more cells than the first line")
                url, period = line["url"].strip(), line.get("period", "").strip()
                for place in [period] if period or url not in listed else listed[url]:
                    key = (url, place) if (url, place) in rows else reader.line_num
                    lines[key] = {**line, "url": url, "period": place, "line": reader.line_num}
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{file} is not a list of decisions, CSV in UTF-8: {error}") from error
    return header, lines


def _tell(file: Path, counts: dict, wrong: list[str]):
    told = {
        "applied": "decisions applied",
        "same": "were there already",
        "kept": "differ from what was decided or taken back here, which holds",
        "unknown": "are on URLs, or periods of them, that this data set lacks",
    }
    for outcome, words in told.items():
        if counts[outcome] or outcome == "applied":
            print(f"{file}: {counts[outcome]} {words}")
    for line in wrong[:10]:
        print(f"{file}, {line}; not applied")
    if len(wrong) > 10:
        print(f"{file}: {len(wrong) - 10} more such lines, not applied")
