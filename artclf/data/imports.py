"""Imports: which pictures of the catalogue came from which folder, so that the catalogue follows
what has changed there since.

Reads and writes the catalogue's table `imports`, a row for every file that was taken in, and moves
the files of `DATA/raw/` and `DATA/clean/` with their classes. Nothing is deleted: what is no longer
in the folder gets the status `gone`, and comes back with its picture.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from artclf.base.files import make_folder
from artclf.data import review
from artclf.data.catalogue import Catalogue, clean_path

GONE = "gone"  # a value of the column `status`
TABLE = """
CREATE TABLE IF NOT EXISTS imports (
    folder TEXT NOT NULL,
    file TEXT NOT NULL,
    url TEXT NOT NULL,
    period TEXT NOT NULL,
    PRIMARY KEY (folder, file)
)
"""
SHOWN = 2  # examples in a note

Key = tuple[str, str]  # url and period of a row of the catalogue


@dataclass
class Changes:
    """What differs from the last import: rows that `moved` to another class, rows that are `gone`
    or `back`, classes that were `renamed`, and the number of rows that `came`.
    """

    moved: list[tuple[str, str, str]] = field(default_factory=list)  # url, old and new class
    gone: list[Key] = field(default_factory=list)
    back: list[Key] = field(default_factory=list)
    came: int = 0
    renamed: dict[str, str] = field(default_factory=dict)


def follow(
    catalogue: Catalogue,
    data: Path,
    source: str,
    pictures: dict[str, Key],
    unreadable: Iterable[str] = (),
) -> list[str]:
    """Change the catalogue as the folder `source` has changed since it was last imported, and say in
    sentences what moved, vanished and came.

    `pictures` has the URL and class of every file that is there now, by its path in the folder;
    files below `unreadable` paths are taken as they were. A picture that lies in another class now
    moves there with its decision; where all of a class moved to one other, decisions to move
    pictures to the class name the new one. Call it before the pictures are added.
    """
    catalogue.db.execute(TABLE)
    rows = catalogue.db.execute("SELECT * FROM imports").fetchall()
    before = {row["file"]: (row["url"], row["period"]) for row in rows if row["folder"] == source}
    elsewhere = {(row["url"], row["period"]) for row in rows if row["folder"] != source}
    now = dict(pictures)
    hidden = tuple(unreadable)
    for file, key in before.items():
        if file not in now and any(file == path or file.startswith(f"{path}/") for path in hidden):
            now[file] = key
    changes = _compare(catalogue, set(before.values()), set(now.values()), elsewhere)
    notes = _notes(changes, before, now) if before else []
    _apply(catalogue, data, changes, source)
    with catalogue.transaction() as db:
        db.execute("DELETE FROM imports WHERE folder = ?", (source,))
        db.executemany(
            "INSERT INTO imports VALUES (?, ?, ?, ?)",
            [(source, file, url, period) for file, (url, period) in now.items()],
        )
    return notes


def follow_lists(catalogue: Catalogue, address: str, listed: set[Key]) -> list[str]:
    """As `follow`, for a folder that is served on this machine under `address`: rows that its lists
    no longer name are gone. A picture in another class has another URL there, so it is fetched
    again; then call `carry_decisions`.
    """
    rows = catalogue.select("url LIKE ?", (f"http://{address}/%",))
    changes = Changes()
    for row in rows:
        key = (row["url"], row["period"])
        if key not in listed and row["status"] != GONE:
            changes.gone.append(key)
        elif key in listed and row["status"] == GONE:
            changes.back.append(key)
    _apply(catalogue, catalogue.path.parent, changes, "the folder")
    return _notes(changes, {url: (url, period) for url, period in changes.gone}, {})


def carry_decisions(catalogue: Catalogue, address: str):
    """Give pictures without a decision that of the same picture that is gone, byte for byte: it was
    moved to another folder.
    """
    served = catalogue.select("url LIKE ? AND sha256 IS NOT NULL", (f"http://{address}/%",))
    decision_of = {row["sha256"]: row["review"] for row in served if row["status"] == GONE}
    changes = []
    for row in served:
        decision = decision_of.get(row["sha256"])
        if row["status"] == "ok" and not row["review"] and decision:
            decision = "keep" if decision == f"move:{row['period']}" else decision
            changes.append({"url": row["url"], "period": row["period"], "review": decision})
    catalogue.update(changes)


def _compare(catalogue: Catalogue, before: set[Key], now: set[Key], elsewhere: set[Key]) -> Changes:
    changes = Changes()
    gone_before = {(row["url"], row["period"]) for row in catalogue.select("status = ?", (GONE,))}
    leaving = before - now - elsewhere
    left = defaultdict(list)  # url -> classes that it is no longer in
    for url, period in sorted(leaving) + sorted(gone_before - now - leaving):
        left[url].append(period)
    for url, period in sorted(now - before):
        if left[url]:
            changes.moved.append((url, left[url].pop(0), period))
        else:
            changes.came += 1
    for url, periods in left.items():
        changes.gone += [(url, period) for period in periods if (url, period) in leaving]
    changes.back = sorted(gone_before & now)
    changes.renamed = _renamed(changes, now | elsewhere)
    return changes


def _renamed(changes: Changes, now: set[Key]) -> dict[str, str]:
    """The classes that are no more, and whose pictures all moved to one other: old name -> new."""
    targets = defaultdict(set)
    for _, old, new in changes.moved:
        targets[old].add(new)
    remaining = {period for _, period in [*now, *changes.gone]}
    renamed = {}
    for old, names in targets.items():
        if len(names) == 1 and old not in remaining:
            renamed[old] = min(names)
    return renamed


def _notes(changes: Changes, before: dict[str, Key], now: dict[str, Key]) -> list[str]:
    file_of = {key: file for file, key in [*before.items(), *now.items()]}
    notes = []
    for old, new in changes.renamed.items():
        notes.append(f"class {old} is {new} now")
    numbers = Counter((old, new) for _, old, new in changes.moved)
    for (old, new), number in numbers.items():
        files = [file_of[url, new] for url, *classes in changes.moved if classes == [old, new]]
        notes.append(f"{number} pictures moved from {old} to {new}, such as {_examples(files)}")
    if changes.gone:
        files = [file_of[key] for key in changes.gone]
        notes.append(
            f"{len(files)} pictures are no longer in the folder, such as {_examples(files)}: they "
            f"are not used (status {GONE}), and their files and decisions are kept"
        )
    if changes.back:
        notes.append(f"{len(changes.back)} pictures that were gone are back")
    came = changes.came - sum(1 for key in changes.back if key not in set(before.values()))
    if came > 0:
        notes.append(f"{came} pictures are new")
    return notes


def _examples(names: list[str]) -> str:
    return " and ".join(names[:SHOWN])


def _apply(catalogue: Catalogue, data: Path, changes: Changes, source: str):
    """Write the changes to the catalogue, and move the files of raw and clean pictures.

    Raw files come first: a process that is killed in between finds them moved when it runs again.
    """
    moves: list[tuple[dict, dict]] = []  # rows before and after
    gone = list(changes.gone)
    for url, old, new in changes.moved:
        if catalogue.count("url = ? AND period = ?", (url, new)):
            gone.append((url, old))  # the other row is taken up again
            continue
        for row in catalogue.select("url = ? AND period = ?", (url, old)):
            moves.append((row, _moved(data, row, new)))
    with catalogue.transaction() as db:
        for before, after in moves:
            db.execute(
                "UPDATE images SET period = ?, file = ?, status = ? WHERE url = ? AND period = ?",
                (after["period"], after["file"], after["status"], before["url"], before["period"]),
            )
        new_periods = {(row["url"], row["period"]): after["period"] for row, after in moves}
        review.relabel(catalogue, new_periods, changes.renamed)
        db.executemany(
            "UPDATE images SET status = ?, reason = ?, clean_status = NULL, clean_reason = NULL "
            "WHERE url = ? AND period = ?",
            [(GONE, f"no longer in {source}", url, period) for url, period in gone],
        )
        db.executemany(
            "UPDATE images SET status = 'pending', reason = NULL WHERE url = ? AND period = ?",
            changes.back,
        )
    for before, after in moves:
        if not before["file"] or not after["file"]:
            continue
        key = (before["url"], after["period"])
        for row in catalogue.select("url = ? AND period = ?", key):  # with its new review
            review.move_copy(catalogue, data, clean_path(before), clean_path(row), row["url"])


def _moved(data: Path, row: dict, period: str) -> dict:
    """The row under its new period, its raw file moved there; to be taken in again where that is
    gone.
    """
    after = {**row, "period": period}
    if row["status"] == GONE:
        after["status"] = "pending"
    if row["file"] is None:
        return after
    old = data / row["file"]
    new = data / "raw" / period / old.name
    if old.exists():
        make_folder(new.parent)
        old.replace(new)
    if new.exists():
        return {**after, "file": f"raw/{period}/{old.name}"}
    return {**after, "file": None, "status": "pending"}
