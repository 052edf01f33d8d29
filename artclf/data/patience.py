"""Patience: until when hosts asked to be left alone, kept for the next run of step download.

Reads and writes the table `patience` of the catalogue, whose times are seconds since 1970.
"""

from time import time

from artclf.data.catalogue import Catalogue

NAME = "patience"
TABLE = f"CREATE TABLE IF NOT EXISTS {NAME} (host TEXT PRIMARY KEY, open_at REAL NOT NULL)"
LONGEST = 86400  # seconds; a host that asks for more is asked again after a day


def drop_expired(catalogue: Catalogue):
    """Forget what is over, and what a clock that was wrong has noted; makes the table."""
    now = time()
    catalogue.db.execute(TABLE)
    catalogue.db.execute(
        f"DELETE FROM {NAME} WHERE open_at NOT BETWEEN ? AND ?", (now, now + LONGEST)
    )


def keep(catalogue: Catalogue, host: str, seconds: float):
    """Note that `host` asks to be left alone for so many seconds from now on."""
    open_at = time() + min(seconds, LONGEST)
    catalogue.db.execute(f"INSERT OR REPLACE INTO {NAME} VALUES (?, ?)", (host, open_at))


def seconds_left(catalogue: Catalogue, host: str) -> float:
    """For how many seconds `host` is still to be left alone."""
    row = catalogue.db.execute(f"SELECT open_at FROM {NAME} WHERE host = ?", (host,)).fetchone()
    return max(0.0, row["open_at"] - time()) if row else 0.0
