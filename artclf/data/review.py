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
from dataclasses import dataclass
from pathlib import Path

from artclf.base.errors import InputError
from artclf.base.files import make_folder, replace_whole
from artclf.data.catalogue import Catalogue, clean_path, read_catalogue, require
from artclf.data.classes import UNLABELLED, in_order
from artclf.data.lists import class_name
from artclf.data.suggestions import PREFIX, follow_decisions

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
LAST_STEP = """
SELECT MAX(step)
FROM decisions JOIN images USING (url, period)
WHERE NOT undone
"""
# in a reason for which a copy is set aside: the file that stays in its place
KEPT_FILE = r"(?:^near-duplicate of |^same picture twice \()(raw/.+?\.\w+)(?= \(|\)|, dropped)"
OUTCOMES = {  # of a line in a file, in words
    "applied": "decisions applied",
    "same": "were there already",
    "overruled": "differ from what was decided or taken back here, which holds",
    "unknown": "are on URLs, or periods of them, that this data set lacks",
}

Change = tuple[dict, str | None]  # a row of the catalogue, and its new `review`


def decide(data, pictures, choice: str | None) -> int:
    """Write a decision to the catalogue at once, and return how many pictures it changed.

    `pictures` is a DataFrame or a list of dicts with `url` and `period`, or a list of URLs, which
    stand for all the periods that they are listed under. `choice` is `keep`, `drop`,
    `move:<period>`, or None for undecided; a move to the period that a picture has is `keep`. A
    picture without a label may move to a period that no other picture has. Raises InputError for
    another choice and for a picture that isn't there.
    """
    if hasattr(pictures, "to_dict"):
        pictures = pictures.to_dict("records")
    with _catalogue(data) as cat:
        periods = cat.periods()
        with cat.transaction() as db:
            changes: list[Change] = []
            for picture in pictures:
                for row in _find(cat, picture):
                    problem = None if choice is None else _problem(choice, row["period"], periods)
                    if problem:
                        raise InputError(problem)
                    new = "keep" if choice == f"move:{row['period']}" else choice
                    if new != row["review"]:
                        changes.append((row, new))
            step = db.execute("SELECT COALESCE(MAX(step), 0) + 1 FROM decisions").fetchone()[0]
            db.executemany(
                "INSERT INTO decisions (step, url, period, old, new) VALUES (?, ?, ?, ?, ?)",
                [(step, row["url"], row["period"], row["review"], new) for row, new in changes],
            )
            _write_reviews(cat, changes)
        _move_copies(cat, data, changes)
    return len(changes)


def undo(data) -> list[dict]:
    """Take back the last decision that was made here, also one from before a restart.

    Returns its rows of the catalogue as they were before, so `review` is the decision; none where
    nothing is left to undo. Pictures that have left the catalogue are passed over. What was read
    from a file is not undone: decide otherwise.
    """
    with _catalogue(data) as cat:
        with cat.transaction() as db:
            [step] = db.execute(LAST_STEP).fetchone()
            changes: list[Change] = []
            for entry in db.execute("SELECT * FROM decisions WHERE step = ?", (step,)).fetchall():
                key = (entry["url"], entry["period"])
                for row in cat.select("url = ? AND period = ?", key):
                    changes.append((row, entry["old"]))
            db.execute("UPDATE decisions SET undone = 1 WHERE step = ?", (step,))
            _write_reviews(cat, changes)
        _move_copies(cat, data, changes)
    return [row for row, _ in changes]


def export_csv(data, file) -> int:
    """Write the decisions of this data set into `file`, and return their number.

    Lines on pictures that aren't here stay, in their order. A line goes where its decision was
    taken back here. The file is replaced whole. Raises InputError, and leaves the file alone, where
    it isn't a list of decisions.
    """
    file = Path(file)
    with _catalogue(data) as cat:
        rows = _rows(cat)
        log = _Log(cat)
    header, lines = _read(file, rows) if file.exists() else ([], {})
    header += [name for name in COLUMNS if name not in header]
    cells_of = {key: line.cells for key, line in lines.items()}
    for key, row in rows.items():
        if row["review"]:
            decision = {name: row[name] or "" for name in COLUMNS}
            cells_of[key] = {**cells_of.get(key, {}), **decision}
        elif key in lines and log.overrules(key, lines[key].review):
            del cells_of[key]

    def write(part: Path):
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, header, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(cells_of.values())

    replace_whole(file, write)
    return sum(row["review"] is not None for row in rows.values())


def read_csv(data, file) -> dict[str, int]:
    """Apply the decisions in `file`, print how many were applied, and return the counts.

    A line without a period is about all the periods that its URL is listed under; of two lines on
    one picture the later counts. The counts are of lines: `applied`; `same`, which were decided so
    already; `overruled` by what a person decided or took back here; `unknown`, on pictures that
    aren't here; `wrong`, with an unknown word or period. Only the first are applied, and the file
    is never changed. A file that isn't there has no lines. Raises InputError for one that isn't a
    list of decisions.
    """
    file = Path(file)
    counts = dict.fromkeys((*OUTCOMES, "wrong"), 0)
    problems = []
    changes: list[Change] = []
    with _catalogue(data) as cat:
        with cat.transaction():
            rows = _rows(cat)
            log = _Log(cat)
            periods = cat.periods()
            _, lines = _read(file, rows) if file.exists() else ([], {})
            for key, line in lines.items():
                if line.is_comment:
                    continue
                outcome = _outcome(line, rows.get(key), log, periods)
                counts[outcome] += 1
                if outcome == "applied":
                    changes.append((rows[key], line.review))
                elif outcome == "wrong":
                    problem = _problem(line.review, rows[key]["period"], periods)
                    problems.append(f"line {line.number}: {problem}")
            _write_reviews(cat, changes)
        _move_copies(cat, data, changes)
    _report(file, counts, problems)
    return counts


def _outcome(line: "_Line", row: dict | None, log: "_Log", periods: set[str]) -> str:
    """What becomes of a line on the picture `row`, None for one that isn't here: a key of OUTCOMES,
    or `wrong`.
    """
    if row is None:
        return "unknown"
    if _problem(line.review, row["period"], periods):
        return "wrong"
    if line.review == row["review"]:
        return "same"
    if log.overrules((row["url"], row["period"]), line.review):
        return "overruled"
    return "applied"


def classes(data) -> list[str]:
    """The classes that pictures of the catalogue have, or were moved to, in time order."""
    with Catalogue(data, to_read=True) as cat:
        return in_order(cat.periods() - {UNLABELLED})


def queue(data, flagged):
    """The pictures to decide on: a DataFrame of catalogue rows with `reasons`, `likelier`, `group`,
    `copies` (how many are set aside as copies of this one) and `flagged`.

    They come in the order of `flagged`, a DataFrame with `url`, `period` and where it has them
    `reasons` (text) and `likelier` (a period), with all copies of one picture next to each other,
    also the one that isn't flagged. Pictures without a clean copy are left out, but for those that
    visitors suggested. Raises InputError where `url` or `period` is missing.
    """
    import pandas as pd

    missing = {"url", "period"} - set(flagged)
    if missing:
        raise InputError(f"the flagged pictures have no column {' and '.join(sorted(missing))}")
    facts = flagged.reindex(columns=["url", "period", "reasons", "likelier"])
    facts = facts.drop_duplicates(["url", "period"])
    facts = facts.assign(rank=range(len(facts)))

    table = read_catalogue(data).drop(columns=["reasons", "likelier"], errors="ignore")
    has_copy = table.clean_status.notna() & (table.clean_status != "rejected")
    is_suggested = table.url.str.startswith(PREFIX) & table.clean_status.isna()
    table = table[(has_copy | is_suggested) & table.file.notna()]
    table = table.merge(facts, how="left", on=["url", "period"])
    rank = table.pop("rank")
    table = table.astype(object).where(table.notna(), "")
    table["reasons"] = _first_text(table.reasons, table.clean_reason, "the copy that is used")
    table["group"] = _first_text(table.dup_group, table.clean_sha256, table.url)
    table["copies"] = table.file.map(_kept_files(table).value_counts()).fillna(0).astype(int)
    table["flagged"] = rank.notna()

    ranks = pd.DataFrame({"of_group": rank.groupby(table.group).transform("min"), "own": rank})
    order = ranks.dropna(subset="of_group").sort_values(["of_group", "own"]).index
    return table.loc[order].reset_index(drop=True)


def _kept_files(table):
    """The file that stays in the place of each picture that is set aside as a copy, by its reason."""
    return table.clean_reason.astype(str).str.extract(KEPT_FILE, expand=False).dropna()


def _first_text(texts, *others):
    """The first text of each row that isn't empty; `texts` and `others` are columns or a text."""
    for other in others:
        texts = texts.where(texts != "", other)
    return texts


@contextmanager
def _catalogue(data) -> Iterator[Catalogue]:
    require(data)
    with Catalogue(data) as cat:
        cat.db.execute(DECISIONS)
        yield cat


def _write_reviews(cat: Catalogue, changes: list[Change]):
    """Write new decisions into the column `review`, and what follows from them for suggestions."""
    cat.db.executemany(
        "UPDATE images SET review = ? WHERE url = ? AND period = ?",
        [(new, row["url"], row["period"]) for row, new in changes],
    )
    follow_decisions(cat, changes)


def _move_copies(cat: Catalogue, data, changes: list[Change]):
    """Move the clean copies of pictures whose period was changed, after the decisions are written.

    A process killed in between leaves copies where they were, and `clean` makes those that are
    missing.
    """
    for row, new in changes:
        if row["file"]:
            after = clean_path({**row, "review": new})
            move_copy(cat, Path(data), clean_path(row), after, row["url"])


def move_copy(cat: Catalogue, data: Path, before: str, after: str, url: str):
    """Move the clean copy of a picture, paths relative to `data`, or copy it where another row of
    its URL still uses it; nothing where there is none.
    """
    if before == after or not (data / before).exists():
        return
    make_folder((data / after).parent)
    # rows of one URL share a copy: it stays where another row still uses it
    rows = cat.select("url = ? AND file IS NOT NULL", (url,))
    if before in [clean_path(row) for row in rows]:
        shutil.copyfile(data / before, data / after)
    else:
        (data / before).replace(data / after)


def relabel(cat: Catalogue, new_periods: dict[tuple[str, str], str], renamed: dict[str, str]):
    """Carry decisions along, inside a transaction, after rows got another period.

    `new_periods` gives it by URL and old period; `renamed` are classes with another name now, which
    decisions to move a picture there mean from now on. A picture that lies now where a person moved
    it to is kept there.
    """
    db = cat.db
    db.execute(DECISIONS)
    db.executemany(
        "UPDATE decisions SET period = ? WHERE url = ? AND period = ?",
        [(new, url, old) for (url, old), new in new_periods.items()],
    )
    moves = [(f"move:{new}", f"move:{old}") for old, new in renamed.items()]
    for table, column in (("images", "review"), ("decisions", "old"), ("decisions", "new")):
        db.executemany(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", moves)
        db.execute(f"UPDATE {table} SET {column} = 'keep' WHERE {column} = 'move:' || period")


def _rows(cat: Catalogue) -> dict[tuple, dict]:
    return {(row["url"], row["period"]): row for row in cat.select()}


def _problem(choice: str, listed: str, periods: set[str]) -> str | None:
    """What is wrong with a decision on a picture of the period `listed`, in words."""
    word, _, period = choice.partition(":")
    if word == "move" and period and period not in periods:
        if listed != UNLABELLED:
            return f"there is no class {period!r} to move a picture to"
        if class_name(period) != period:
            return f"{period!r} can't be a class: it names a folder, as 10-impressionism does"
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
        self.ever_made = {(e["url"], e["period"], e["new"]) for e in entries}

    def overrules(self, key: tuple[str, str], choice: str) -> bool:
        """Whether a choice in a file doesn't count: a person decided on this picture here, or took
        this very choice back.
        """
        return key in self.decided or (*key, choice) in self.ever_made


@dataclass
class _Line:
    """A line of `review.csv`: its number, its `cells` by the header's names, and its decision."""

    number: int
    cells: dict[str, str]

    @property
    def review(self) -> str:
        choice = self.cells["review"].strip()
        return "keep" if choice == f"move:{self.cells['period']}" else choice

    @property
    def is_comment(self) -> bool:
        return self.cells["url"].startswith("#")


def _read(file: Path, rows: dict) -> tuple[list[str], dict]:
    """The header of `review.csv`, and its lines, `_Line`, by `(url, period)`, or by number for a
    picture that isn't in `rows`.
    """
    periods_of: dict[str, list[str]] = {}
    for url, period in rows:
        periods_of.setdefault(url, []).append(period)
    lines = {}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restval="", strict=True)
        try:
            header = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = header
            if not {"url", "review"} <= set(header):
                raise csv.Error("it needs a first line with the columns url, period and review")
            for cells in reader:
                number = reader.line_num
                if None in cells:  # DictReader's key for cells beyond the header
                    raise csv.Error(f"line {number} has more cells than the first line")
                url = cells["url"].strip()
                given = cells.get("period", "").strip()
                periods = [given] if given else periods_of.get(url, [""])
                for period in periods:
                    key = (url, period) if (url, period) in rows else number
                    lines[key] = _Line(number, {**cells, "url": url, "period": period})
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
