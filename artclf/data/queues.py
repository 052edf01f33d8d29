"""Queues: the rows of the catalogue that wait to be fetched, in a queue for each host.

They are temporary tables beside the catalogue, so that few rows are in memory however long the lists
are. The next run makes them anew.
"""

from urllib.parse import urlsplit

from artclf.data.catalogue import Catalogue

NO_LIMIT = 1 << 62  # rows


class Queues:
    """The queues of the pending rows, and of those that failed where `retry_failed`, but of the
    first `max_per_period` of each list only. `total` is their number.

    A queue has the rows with fewest tries first, else by their rank in the lists. Hosts come one
    after the other, those with most rows first.
    """

    def __init__(self, catalogue: Catalogue, max_per_period: int | None, retry_failed: bool):
        self.catalogue = catalogue
        db = catalogue.db
        db.create_function("host", 1, host_of, deterministic=True)
        db.execute(
            """
            CREATE TEMP TABLE queue (
                id INTEGER, host TEXT, failures INTEGER DEFAULT 0, moves INTEGER DEFAULT 0
            )
            """
        )
        db.execute(
            """
            INSERT INTO queue (id, host)
            SELECT id, host(url)
            FROM (
                SELECT rowid AS id, url, status, tries,
                    row_number() OVER (PARTITION BY period ORDER BY rowid) AS rank
                FROM images
                WHERE url NOT LIKE 'import:%' AND url NOT LIKE 'upload:%'
            )
            WHERE rank <= ? AND (status = 'pending' OR (status = 'failed' AND ?))
            ORDER BY tries, rank
            """,
            (max_per_period or NO_LIMIT, retry_failed),
        )
        db.execute("CREATE INDEX temp.by_host ON queue (host)")
        db.execute(
            """
            CREATE TEMP TABLE hosts AS
            SELECT host, count(*) AS number FROM queue GROUP BY host ORDER BY number DESC
            """
        )
        db.execute("CREATE INDEX temp.by_name ON hosts (host)")
        self.total = db.execute("SELECT count(*) FROM queue").fetchone()[0]

    def next_host(self) -> tuple[str, int] | None:
        """The name of the next host, and the number of its rows; None at the end."""
        # row by row: an open cursor would keep SQLite from ever shortening its log
        row = self.catalogue.db.execute(
            "SELECT rowid, host, number FROM hosts ORDER BY rowid LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        self.catalogue.db.execute("DELETE FROM hosts WHERE rowid = ?", (row["rowid"],))
        return row["host"], row["number"]

    def take(self, host: str) -> dict | None:
        """The next row of the catalogue for `host`, which leaves the queue; None at the end.

        `moves` is how often it moved from one queue to another, and `failures` are those before.
        """
        entry = self.catalogue.db.execute(
            "SELECT rowid, * FROM queue WHERE host = ? ORDER BY rowid LIMIT 1", (host,)
        ).fetchone()
        if entry is None:
            return None
        self.catalogue.db.execute("DELETE FROM queue WHERE rowid = ?", (entry["rowid"],))
        [row] = self.catalogue.select("rowid = ?", (entry["id"],))
        return {**row, **{name: entry[name] for name in ("id", "failures", "moves")}}

    def move(self, row: dict, host: str):
        """Put a row that was taken at the end of the queue of `host`."""
        tries = {"url": row["url"], "period": row["period"], "tries": row["tries"]}
        self.catalogue.update([tries])
        self.catalogue.db.execute(
            "INSERT INTO queue VALUES (?, ?, ?, ?)",
            (row["id"], host, row["failures"], row["moves"] + 1),
        )

    def add_host(self, host: str):
        """Let `host`, to whose queue a row has moved, come after all others, unless it is among
        those that come.
        """
        changed = self.catalogue.db.execute(
            "UPDATE hosts SET number = number + 1 WHERE host = ?", (host,)
        )
        if not changed.rowcount:
            self.catalogue.db.execute("INSERT INTO hosts VALUES (?, 1)", (host,))


def host_of(url: str) -> str:
    """The host that a URL names, or ''."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
