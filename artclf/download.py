"""Step download: fetch what the URL lists name, or take in a folder of pictures.

Reads `urls_*.csv` or `FOLDER/<class>/*.jpg`; writes `DATA/raw/<period>/<16 hex digits of sha1(url)>.<extension>` and
the catalogue, a transaction an image: killed at any moment, it goes on where it was. Notebook: `01_download`.
"""
import asyncio
import hashlib
import random
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from urllib.parse import urlsplit

from artclf.catalogue import Catalogue, find_lists, progress, read_gallery, read_list
from artclf.fetch import EXTENSIONS, Failure, Fetched, Fetcher, probe

LONGEST_WAIT = 120  # seconds; a server that asks for more gets no other try in this run
HOSTS = 64          # hosts that are in turn at a time
SPARE = 6           # rows of each host that may await another try, beside those under way


def fetch_lists(lists, data, *, max_per_period: int | None = None, retry_failed: bool = False, tries: int = 3,
                backoff: float = 1.0, fetcher=Fetcher, **options):
    """Fetch the pictures that the URL lists in folder `lists` name into `data`; returns what this run did.

    That is a DataFrame, a row a period: the numbers of images `ok`, `failed` and `skipped` (done before, or beyond the
    first `max_per_period` of the list), and `reasons`, a dict from reason to number of failures. Timeouts, lost
    connections, http 429 and 5xx get `tries` tries, the second after `backoff` seconds, each further one after twice
    the time, or when the server asks for it; `retry_failed` tries what failed in earlier runs again. `options` are the
    fields of `artclf.fetch.Fetcher`. Ctrl-C loses nothing that is done. Raises FileNotFoundError where there are no
    lists, ValueError for a bad option, OSError where `data` can't be written.
    """
    if tries < 1 or (max_per_period or 1) < 1: raise ValueError("tries and max_per_period must be at least 1")
    run, lists, fetcher = Run(Path(data), tries, backoff), find_lists(lists), fetcher(**options)
    with progress(desc="download", total=0) as bar, run.writing():
        def show():
            bar.total = run.total
            bar.set_postfix(ok=run.ok, failed=run.failed, refresh=False)
            bar.update(run.ok + run.failed - bar.n)
        _in_thread(lambda: run.fetch(lists, fetcher, max_per_period, retry_failed), show)
    return run.summary()


def import_folder(folder, data, manifest=None, label_column: str | None = None):
    """Copy the pictures of `FOLDER/<class>/` into `data`; returns what this run did, as `fetch_lists` does.

    The class is the folder or column `label_column` of the manifest (a CSV file; unasked, the `manifest.csv` in the
    folder or above it), whose other columns are facts. A picture's URL is `import:<sha256 of its bytes>`. Raises
    FileNotFoundError, ValueError for a folder without pictures, OSError where a file can't be read or `data` written.
    """
    run = Run(Path(data))
    pictures = [{**picture, "url": f"import:{_sha256(picture['file'])}"}
                for picture in progress(list(read_gallery(folder, manifest, label_column)), desc="read")]
    files = {(picture["url"], picture["period"]): picture["file"] for picture in pictures}
    with run.writing(), Catalogue(data) as cat:
        cat.add(pictures)
        for row in progress(cat.select("status = 'pending' AND url LIKE 'import:%'"), desc="import"):
            if (row["url"], row["period"]) in files: run.take_in(cat, row, files[row["url"], row["period"]])
    return run.summary()


@dataclass
class Run:
    """One run of the step on the data set in folder `data`, and its counts."""
    data: Path
    tries: int = 1
    backoff: float = 0
    total: int = 0
    ok: int = 0
    failed: int = 0
    outcomes: dict = field(default_factory=lambda: defaultdict(Counter))  # period -> reason, None where ok -> number

    async def fetch(self, lists: dict[str, Path], fetcher: Fetcher, max_per_period: int | None, retry_failed: bool):
        """Add the rows of the lists and fetch all that is pending, from all hosts in turn.

        Each host has some lanes, tasks that take its next row one after the other, so that neither a slow host nor
        one whose rows await another try keeps the others waiting, and no more rows than lanes are in memory.
        """
        with Catalogue(self.data) as cat:
            cat.add({"source": _host(row["url"]), **row, "period": period} for period, path in lists.items()
                    for row in islice(read_list(path), max_per_period))
            self._queue(cat, max_per_period, retry_failed)
            lanes = fetcher.per_host + SPARE
            hosts = _walk(cat, "SELECT rowid, host FROM hosts WHERE 1")
            rows = (rows for host in hosts for rows in repeat(_rows(cat, host), lanes))
            try:
                async with fetcher, asyncio.TaskGroup() as group:
                    for _ in range(HOSTS * lanes): group.create_task(self._lane(cat, rows, fetcher))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors

    def _queue(self, cat: Catalogue, max_per_period: int | None, retry_failed: bool):
        """Write down in tables on disk what to fetch, by rank in the lists, and the hosts, the busiest first."""
        cat.db.create_function("host", 1, _host, deterministic=True)
        cat.db.execute("CREATE TEMP TABLE queue (id INTEGER, host TEXT)")
        cat.db.execute(
            "INSERT INTO queue SELECT id, host(url) FROM (SELECT rowid AS id, url, status,"
            " row_number() OVER (PARTITION BY period ORDER BY rowid) AS rank FROM images WHERE url NOT LIKE 'import:%')"
            " WHERE rank <= ? AND status IN ('pending', ?) ORDER BY rank",
            (max_per_period or 1 << 62, "failed" if retry_failed else "pending"))
        cat.db.execute("CREATE INDEX temp.by_host ON queue (host)")
        cat.db.execute("CREATE TEMP TABLE hosts AS SELECT host FROM queue GROUP BY host ORDER BY count(*) DESC")
        self.total = cat.db.execute("SELECT count(*) FROM queue").fetchone()[0]

    async def _lane(self, cat: Catalogue, hosts: Iterator[Iterator[dict]], fetch: Fetcher):
        for rows in hosts:
            for row in rows: self._record(cat, row, await self._outcome(row, fetch))

    async def _outcome(self, row: dict, fetch: Fetcher) -> dict:
        """What there is to say of a row in the end: fetch it, again and again if that makes sense."""
        for tries in range(1, self.tries + 1):
            try:
                picture = await fetch(row["url"])
                return {**self._place(row, picture), "tries": row["tries"] + tries}
            except Failure as error: failure = error
            if not failure.retry or tries == self.tries: break
            if (failure.retry_after or 0) > LONGEST_WAIT:
                failure = Failure(f"{failure.reason}, try again in over {LONGEST_WAIT} s", failure.http_status)
                break
            pause = self.backoff * 2 ** (tries - 1) * random.uniform(0.5, 1.5)
            await asyncio.sleep(max(pause, failure.retry_after or 0))
        return {**_failed(failure), "tries": row["tries"] + tries}

    def take_in(self, cat: Catalogue, row: dict, file: Path):
        """Copy one picture of one's own."""
        body = file.read_bytes()
        try:
            self._record(cat, row, self._place(row, Fetched(body, None, *probe(body))))
        except Failure as failure:
            self._record(cat, row, _failed(failure))

    def _place(self, row: dict, picture: Fetched) -> dict:
        """Put the bytes where they belong, whole or not at all; what the catalogue is to say of them."""
        name = f"{hashlib.sha1(row['url'].encode()).hexdigest()[:16]}.{EXTENSIONS[picture.format]}"
        part, folder = self.data / "tmp" / name, self.data / "raw" / row["period"]
        part.write_bytes(picture.body)
        if not folder.is_dir(): folder.mkdir(parents=True, exist_ok=True)
        part.replace(folder / name)
        return {"status": "ok", "reason": None, "http_status": picture.http_status, "bytes": len(picture.body),
                "sha256": hashlib.sha256(picture.body).hexdigest(), "width": picture.width, "height": picture.height,
                "format": picture.format, "file": f"raw/{row['period']}/{name}"}

    def _record(self, cat: Catalogue, row: dict, outcome: dict):
        cat.update([{"url": row["url"], "period": row["period"], **outcome}])
        self.outcomes[row["period"]][outcome["reason"]] += 1
        if outcome["reason"]: self.failed += 1
        else: self.ok += 1

    @contextmanager
    def writing(self):
        """Without what a killed run left behind; where the disk fails, the error says what to do."""
        tmp = self.data / "tmp"
        try:
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir(parents=True)
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OSError(f"{error}: make sure that there is room in {self.data} and that it may be written, then "
                          "start again; what is done stays done") from error
        finally:
            shutil.rmtree(tmp, ignore_errors=True)

    def summary(self):
        """The DataFrame that `fetch_lists` returns."""
        import pandas as pd
        with Catalogue(self.data) as cat:
            known = cat.db.execute("SELECT period, count(*) FROM images GROUP BY period ORDER BY period").fetchall()
        rows = [{"period": period, "ok": done[None], "failed": done.total() - done[None], "skipped": n - done.total(),
                 "reasons": {reason: number for reason, number in done.most_common() if reason}}
                for period, n in known for done in [self.outcomes[period]]]
        return pd.DataFrame(rows, columns=["period", "ok", "failed", "skipped", "reasons"])


def _failed(failure: Failure) -> dict:
    return {"status": "failed", "reason": failure.reason, "http_status": failure.http_status}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream: return hashlib.file_digest(stream, "sha256").hexdigest()


def _rows(cat: Catalogue, host: str) -> Iterator[dict]:
    """The rows to fetch from a host."""
    for rowid in _walk(cat, "SELECT rowid, id FROM queue WHERE host = ?", host):
        yield cat.select("rowid = ?", (rowid,))[0]


def _walk(cat: Catalogue, query: str, *args) -> Iterator:
    """The second column of a query, row by row; an open cursor would keep SQLite from ever shortening its log."""
    last = 0
    while found := cat.db.execute(f"{query} AND rowid > ? ORDER BY rowid LIMIT 1", (*args, last)).fetchone():
        last, value = found
        yield value


def _host(url: str) -> str:
    """The host that a URL names, or nothing."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _in_thread(main: Callable, show: Callable[[], None]):
    """Run the coroutine `main()` in a thread of its own, a notebook's having a loop that runs, and call `show` now
    and then. Ctrl-C cancels the coroutine and waits for its end."""
    started = Future()

    async def run():
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        await main()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(run()))
        try:
            while wait([running], timeout=0.2).not_done: show()
        except BaseException:
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
            raise
        running.result()
        show()
