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
from artclf.base.files import replace_whole
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue, require

COLUMNS = ("url", "period", "review", "title", "artist")  # of review.csv
SHOWN_PROBLEMS = 10  # lines of a file that are named
DECISIONS = """
CREATE TABLE IF NOT EXISTS decisions (
    step INTEGER NOT NULL,
    url TEXT NOT NULL,
    period TEXT NOT NULL,
    old TEXT,
    new TEXT,
    undone INTEGER NOT NULL DEFAULT 0,
    time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)
"""
OUTCOMES = {  # of a line in a file, in words
    "applied": "decisions applied",
    "same": "were there already",
    "kept": "differ from what was decided or taken back here, which holds",
    "unknown": "are on URLs, or periods of them, that this data set lacks",
}


def decide(data, pictures, choice: str | None) -> int:
    """Write a decision to the catalogue at once, and return how many pictures it changed.

    `pictures` is a DataFrame or a list of dicts with `url` and `period`, or a list of URLs, which
    stand for all the periods that they are listed under. `choice` is `keep`, `drop`,
    `move:<period>`, or None for undecided; a move to the period that a picture has is `keep`.
    Raises InputError for another choice and for a picture that isn't there.
    """
    if hasattr(pictures, "to_dict"):
        pictures = pictures.to_dict("records")
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        problem = None if choice is None else _problem(choice, _periods(cat))
        if problem:
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
    """Take back the last decision that was made here, also one from before a restart.

    Returns its rows of the catalogue, with `review` as it was decided; none where nothing is left.
    What was read from a file is not undone: decide otherwise.
    """
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        last = "step = (SELECT MAX(step) FROM decisions WHERE NOT undone)"
        for entry in cat.db.execute(f"SELECT * FROM decisions WHERE {last}").fetchall():
            changes += [(row, entry["old"]) for row in _find(cat, dict(entry))]
        cat.db.execute(f"UPDATE decisions SET undone = 1 WHERE {last}")
    return [row for row, _ in changes]


def export_csv(data, file) -> int:
    """Write the decisions of this data set into `file`, and return their number.

    Lines on other pictures stay, in their order; a line that was taken back here goes. The file is
    replaced whole. Raises InputError, and leaves the file alone, where it isn't a list of
    decisions.
    """
    file = Path(file)
    with _catalogue(data) as cat:
        rows = _rows(cat)
        log = _Log(cat)
    header, lines = _read(file, rows) if file.exists() else ([], {})
    header += [name for name in COLUMNS if name not in header]
    for key, row in rows.items():
        if row["review"]:
            line = lines.get(key, {})
            lines[key] = {**line, **{name: row[name] or "" for name in COLUMNS}}
        elif key in lines and log.overrules(key, lines[key]["review"].strip()):
            del lines[key]

    def write(part: Path):
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(
                stream, header, restval="", extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(lines.values())

    replace_whole(file, write)
    return sum(row["review"] is not None for row in rows.values())


def read_csv(data, file) -> dict[str, int]:
    """Apply the decisions in `file`, print how many were applied, and return the counts.

    A line without a period is about all the periods that its URL is listed under; of two lines on
    one picture the later counts. What a person decided or took back here overrules the file: these
    lines count as `kept`. Lines on pictures that aren't here (`unknown`), and those with an
    unknown word or period (`wrong`), are not applied; the file is never changed. A file that isn't
    there has no lines. Raises InputError for one that isn't a list of decisions.
    """
    file = Path(file)
    counts = dict.fromkeys((*OUTCOMES, "wrong"), 0)
    problems = []
    with _catalogue(data) as cat, _moving_copies(cat, data) as changes:
        rows = _rows(cat)
        log = _Log(cat)
        periods = _periods(cat)
        _, lines = _read(file, rows) if file.exists() else ([], {})
        for key, line in lines.items():
            if line["url"].startswith("#"):
                continue
            new = line["review"].strip()
            if new == f"move:{line['period']}":
                new = "keep"
            problem = _problem(new, periods)
            if key not in rows:
                counts["unknown"] += 1
            elif problem:
                counts["wrong"] += 1
                problems.append(f"line {line['line']}: {problem}")
            elif new == rows[key]["review"]:
                counts["same"] += 1
            elif log.overrules(key, new):
                counts["kept"] += 1
            else:
                counts["applied"] += 1
                changes.append((rows[key], new))
    _report(file, counts, problems)
    return counts


def queue(data, flagged):
    """The pictures to decide on: a DataFrame of catalogue rows with `reasons`, `likelier`, `group`
    and `flagged`.

    They come in the order of `flagged`, a DataFrame with `url`, `period` and where it has them
    `reasons` (text) and `likelier` (a period), with all copies of one picture next to each other,
    also the one that isn't flagged. Pictures without a clean copy are left out. Raises InputError
    where `url` or `period` is missing.
    """
    import pandas as pd

    missing = {"url", "period"} - set(flagged)
    if missing:
        raise InputError(f"the flagged pictures have no column {' and '.join(sorted(missing))}")
    facts = flagged.reindex(columns=["url", "period", "reasons", "likelier"])
    facts = facts.drop_duplicates(["url", "period"])
    facts = facts.assign(place=range(len(facts)))
    table = read_catalogue(data).drop(columns=["reasons", "likelier"], errors="ignore")
    has_copy = table.clean_status.notna() & (table.clean_status != "rejected")
    table = table[has_copy & table.file.notna()]
    table = table.merge(facts, how="left", on=["url", "period"])
    table = table.astype(object).where(table.notna(), "")
    table["group"] = table.dup_group.where(table.dup_group != "", table.clean_sha256)
    table["group"] = table.group.where(table.group != "", table.url)
    table["flagged"] = table.place != ""
    table["place"] = pd.to_numeric(table.place)
    table["first"] = table.groupby("group").place.transform("min")
    other_reasons = table.clean_reason.where(table.clean_reason != "", "the copy that is used")
    table["reasons"] = table.reasons.where(table.reasons != "", other_reasons)
    table = table[table["first"].notna()]
    return table.sort_values(["first", "place"]).reset_index(drop=True)


@contextmanager
def _catalogue(data) -> Iterator[Catalogue]:
    require(data)
    with Catalogue(data) as cat:
        cat.db.execute(DECISIONS)
        yield cat


@contextmanager
def _moving_copies(cat: Catalogue, data) -> Iterator[list]:
    """A list to put pairs of row and new decision into; afterwards these are written, and then the
    clean copies of moved pictures are moved.

    A process killed in between leaves copies where they were, and `clean` makes those that are
    missing.
    """
    changes: list[tuple[dict, str | None]] = []
    with cat.transaction() as db:
        yield changes
        db.executemany(
            "UPDATE images SET review = ? WHERE url = ? AND period = ?",
            [(new, row["url"], row["period"]) for row, new in changes],
        )
    for row, new in changes:
        if row["file"]:
            after = clean_path({**row, "review": new})
            _move_copy(cat, Path(data), clean_path(row), after, row["url"])


def _move_copy(cat: Catalogue, data: Path, before: str, after: str, url: str):
    if before == after or not (data / before).exists():
        return
    (data / after).parent.mkdir(parents=True, exist_ok=True)
    # rows of one URL share a copy: it stays where another row still uses it
    rows = cat.select("url = ? AND file IS NOT NULL", (url,))
    if before in [clean_path(row) for row in rows]:
        shutil.copyfile(data / before, data / after)
    else:
        (data / before).replace(data / after)


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
    """The rows of a picture: a dict with `url` and `period`, or a URL. Raises InputError for
    none.
    """
    if isinstance(picture, str):
        name = picture
        rows = cat.select("url = ?", (picture,))
    else:
        key = (picture["url"], picture["period"])
        name = " in ".join(key)
        rows = cat.select("url = ? AND period = ?", key)
    if not rows:
        raise InputError(f"{cat.path} has no picture {name}")
    return rows


class _Log:
    """The decisions that a person made here, read from the table `decisions`."""

    def __init__(self, cat: Catalogue):
        entries = cat.db.execute("SELECT * FROM decisions").fetchall()
        self.decided = {(e["url"], e["period"]) for e in entries if not e["undone"]}
        self.made = {(e["url"], e["period"], e["new"]) for e in entries}

    def overrules(self, key: tuple[str, str], choice: str) -> bool:
        """Whether a person decided on this picture here, or took this choice back."""
        return key in self.decided or (*key, choice) in self.made


def _read(file: Path, rows: dict) -> tuple[list[str], dict]:
    """The header of `review.csv` and its lines by `(url, period)`, or by number for a picture that
    isn't in `rows`.
    """
    periods_of: dict[str, list[str]] = {}
    for url, period in rows:
        periods_of.setdefault(url, []).append(period)
    lines: dict = {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="", restkey="more", strict=True)
        try:
            header = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = header
            if not {"url", "review"} <= set(header):
                raise csv.Error("it needs a first line with the columns url, period and review")
            for line in reader:
                if "more" in line:
                    raise csv.Error(f"line {reader.line_num} has more cells than the first line")
                url = line["url"].strip()
                given = line.get("period", "").strip()
                periods = [given] if given else periods_of.get(url, [""])
                for period in periods:
                    key = (url, period) if (url, period) in rows else reader.line_num
                    lines[key] = {**line, "url": url, "period": period, "line": reader.line_num}
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{file} is not a list of decisions, CSV in UTF-8: {error}") from error
    return header, lines


def _report(file: Path, counts: dict[str, int], problems: list[str]):
    """Print what became of the lines of a file."""
    for outcome, words in OUTCOMES.items():
        if counts[outcome] or outcome == "applied":
            print(f"{file}: {counts[outcome]} {words}")
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"{file}, {problem}; not applied")
    if len(problems) > SHOWN_PROBLEMS:
        print(f"{file}: {len(problems) - SHOWN_PROBLEMS} more such lines, not applied")
