"""A small data set with everything that a catalogue can hold, for the tests of packs."""

import hashlib
from contextlib import closing
from pathlib import Path

import numpy as np

from artclf.data import imports, review, splits
from artclf.data.catalogue import Catalogue, clean_path

PERIODS = ["05-baroque", "06-rokoko & älter", "10"]


def make(data: Path, pictures: int = 12, seed: int = 0) -> Path:
    """A data set of random bytes in the places of pictures, of 900 to 2,000 bytes each, in `data`."""
    rng = np.random.default_rng(seed)
    rows = [_row(rng, number) for number in range(pictures)]
    rows.insert(2, {"url": "http://a.test/gone.jpg", "period": "10", "status": "failed"})
    rows[2] |= {"reason": "http 404", "http_status": 404, "tries": 1, "title": 'I\'m "gone"\n;--'}
    with Catalogue(data) as catalogue:
        catalogue.add({"url": row["url"], "period": row["period"]} for row in rows)
        catalogue.update(rows)
        catalogue.set_setting("clean", '{"max_size": 500}')
        catalogue.set_setting("origin", "lists /somewhere")
        for table in (imports.TABLE, review.DECISIONS, splits.CUTS):
            catalogue.db.execute(table)
        cuts = [("grouped seed 42", row["file"], "train") for row in rows if "file" in row]
        catalogue.db.executemany("INSERT OR REPLACE INTO cuts VALUES (?, ?, ?)", reversed(cuts))
        decision = (1, rows[3]["url"], rows[3]["period"], None, "drop", 0, "2026-01-01 00:00:00")
        catalogue.db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)", decision)
        catalogue.db.execute(
            "INSERT OR REPLACE INTO imports VALUES ('/f', 'a/b.jpg', 'import:1', '10')"
        )
    for row in rows:
        if "file" in row:
            for name in (row["file"], clean_path({"review": None, **row})):
                (data / name).parent.mkdir(parents=True, exist_ok=True)
                (data / name).write_bytes(_bytes_of(name))
    (data / "artists.csv").write_text("alias,artist\nTitian,Tiziano\n", encoding="utf-8")
    return data


def files(folder: Path) -> dict[str, bytes]:
    """The content of all files in a folder, by their paths; locks are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def tables(data: Path) -> dict[str, list[tuple]]:
    """All rows of all tables of a catalogue, in the order of `SELECT *`."""
    with Catalogue(data, to_read=True) as catalogue, closing(catalogue.db.cursor()) as cursor:
        cursor.row_factory = None
        found = cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: cursor.execute(f"SELECT * FROM {name}").fetchall() for (name,) in found}


def _row(rng, number: int) -> dict:
    """A row; every column is known in some rows and unknown in others, but for `licence`."""
    period = PERIODS[number % 3]
    url = f"http://a.test/{number}?é'\""
    file = f"raw/{period}/{hashlib.sha1(url.encode()).hexdigest()[:16]}.jpg"
    row = {"url": url, "period": period, "file": file, "status": "ok", "tries": 1}
    row["review"] = [None, "keep", None, "drop", "move:10"][number % 5]
    copy = clean_path(row)
    content = _bytes_of(file)
    row |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    row |= {"clean_status": "ok", "clean_sha256": hashlib.sha256(_bytes_of(copy)).hexdigest()}
    if number % 2:
        row |= {"width": 600 + number, "height": 2**40 + number, "format": "JPEG"}
        row |= {"doubt": float(rng.random()), "outlier": 1e-300, "likelier": "10"}
        row |= {"title": "", "artist": f"Ma\u0308ler {number % 4}", "year": "1650", "phash": "00ff"}
        row |= {"dup_group": "a" * 16, "split": "valid", "source": "\U0001f5bc", "source_page": "x"}
        row |= {"reason": "r", "http_status": 200, "clean_reason": "c", "likelier_probability": 0.1}
    return row


def _bytes_of(name: str) -> bytes:
    rng = np.random.default_rng(list(name.encode()))
    return rng.bytes(int(rng.integers(900, 2000)))
