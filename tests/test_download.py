"""Lists and folders in, raw pictures and catalogue rows out, also under kill, interrupts and full
disks.
"""

import asyncio
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from loopback import Server, answer, picture, resolve_tests_to_loopback
from made_pictures import encoded, noise

from artclf import download
from artclf.base.errors import InputError
from artclf.data import downloads, intake, patience
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.fetch import Fetcher
from artclf.data.formats import FORMATS
from artclf.data.intake import Failure, Fetched
from artclf.data.queues import host_of
from artclf.download import (
    data_folder,
    fetch_canvases,
    fetch_lists,
    import_folder,
    prepare_gallery,
    serve_gallery,
)

PICTURE = answer(picture(), Content_Type="image/jpeg")


@pytest.fixture
def server():
    with Server(picture=PICTURE) as server:
        yield server


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def write_lists(folder: Path, **urls) -> Path:
    """A folder of URL lists; names of classes have no dash here."""
    folder.mkdir(exist_ok=True)
    for period, lines in urls.items():
        (folder / f"urls_{period}.csv").write_text(
            "\n".join(["url", *lines]) + "\n", encoding="utf-8"
        )
    return folder


def run(lists, data, **options):
    return fetch_lists(
        lists, data, **{"allow_private": True, "deadline": 5, "backoff": 0.01, **options}
    )


def raw_files(data) -> dict[str, bytes]:
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for path in data.rglob("raw/**/*")
        if path.is_file()
    }


class FakeFetcher(Fetcher):
    """A fetcher without a network: every URL is the same picture, unless `answers` has an answer
    for it.
    """

    async def __call__(self, url, keep, turn):
        host = host_of(url)
        with turn(host) as before:
            before()
            self.asked.append(url)
            for key in (host, None):
                self.under_way[key] += 1
            for key in (host, None):
                self.most[key] = max(self.most[key], self.under_way[key])
            await asyncio.sleep(0)
            for key in (host, None):
                self.under_way[key] -= 1
            given = self.answers.get(url)
            if isinstance(given, list):
                given = given.pop(0) if given else None
            if isinstance(given, Exception):
                raise given
            return keep(Fetched(picture(), 200, "JPEG", 96, 80))


@pytest.fixture
def fake():
    class Fake(FakeFetcher):
        answers, asked, under_way, most = {}, [], Counter(), Counter()

    return Fake


# What is written


def test_every_url_ends_with_a_row(server, data, tmp_path):
    server.routes |= {
        "/page": answer(b"<html>", Content_Type="text/html"),
        "/png.jpg": answer(picture(1, "PNG")),
        "/cut": answer(picture(), length=9999),
        "/drip": lambda connection: time.sleep(1),
    }
    base = server.url
    lists = write_lists(
        tmp_path / "lists",
        one=[f"{base}/picture", f"{base}/none", f"{base}/page", "ftp://h/x"],
        two=[f"{base}/png.jpg", f"{base}/cut", f"{base}/drip"],
    )
    summary = run(lists, data, deadline=0.3, tries=2)
    assert summary.to_dict("records") == [
        {
            "period": "one",
            "ok": 1,
            "failed": 3,
            "skipped": 0,
            "reasons": {"http 404": 1, "not an image: text/html": 1, "unsupported scheme: ftp": 1},
        },
        {
            "period": "two",
            "ok": 1,
            "failed": 2,
            "skipped": 0,
            "reasons": {"truncated": 1, "timed out": 1},
        },
    ]
    rows = read_catalogue(data).set_index("url")
    assert rows.status.tolist() == ["ok", "failed", "failed", "failed", "ok", "failed", "failed"]
    assert rows.tries.tolist() == [1, 1, 1, 1, 1, 2, 2]
    assert rows.source.tolist() == ["127.0.0.1"] * 3 + ["h"] + ["127.0.0.1"] * 3
    assert rows.http_status[f"{base}/none"] == 404
    assert server.asked("/none") == server.asked("/page") == 1
    assert server.asked("/cut") == server.asked("/drip") == 2
    assert set(raw_files(data)) == set(rows.file.dropna())
    assert not (data / "tmp").exists()


@pytest.mark.parametrize(
    "kind, extension",
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("TIFF", "tif"),
        ("BMP", "bmp"),
    ],
)
def test_the_row_describes_the_file(server, data, tmp_path, kind, extension):
    body, url = picture(3, kind), f"{server.url}/x.txt?a=%2F"
    server.routes["/x.txt?a=%2F"] = answer(body)
    run(write_lists(tmp_path / "lists", one=[url]), data)
    row = read_catalogue(data).iloc[0]
    assert row.file == f"raw/one/{hashlib.sha1(url.encode()).hexdigest()[:16]}.{extension}"
    assert (data / row.file).read_bytes() == body
    assert (row.bytes, row.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert (row.width, row.height, row.format, row.http_status, row.reason) == (
        96,
        80,
        kind,
        200,
        None,
    )


def test_facts_and_old_fashioned_lists(server, data, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "urls_01-a.csv").write_bytes(
        b'\xef\xbb\xbf# facts\r\n\r\ntitle,url,source\r\n"A, ""b""",%b,Museum\r\n'
        % f"{server.url}/picture?x=1,2".replace(",", "%2C").encode()
    )
    (lists / "urls_b.csv").write_text(
        f"{server.url}/picture\n\n# no header\n{server.url}/picture\n"
    )
    run(lists, data)
    rows = read_catalogue(data)
    assert rows[["period", "title", "source"]].fillna("").values.tolist() == [
        ["01-a", 'A, "b"', "Museum"],
        ["b", "", "127.0.0.1"],
    ]


def test_a_list_without_labels_is_said_to_be_no_class(server, data, tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "urls_unlabelled.csv").write_text(f"{server.url}/picture\n")
    run(lists, data)
    assert "urls_unlabelled.csv are unlabelled: they wait for a label" in capsys.readouterr().out


def test_what_lists_hold_beside_urls_of_the_web_is_understood_or_counted(
    server, data, tmp_path, monkeypatch
):
    resolve_tests_to_loopback(monkeypatch)
    server.routes["/a,b.jpg?x=1&y=2"] = PICTURE
    lists = write_lists(
        tmp_path / "lists",
        one=[
            f"www.host.test:{server.port}/picture",
            f"//cdn.test:{server.port}/picture",
            f"<{server.url}/picture>",
            f"{server.url}/a,b.jpg?x=1&amp;y=2",
            "data:image/gif;base64,R0lGODlhAQABAAAAACw=",
            "file:///home/me/kiss.jpg",
            "images/kiss.jpg",
            "kiss",
            f"{server.url}/picture {server.url}/picture",
        ],
    )
    [summary] = run(lists, data).to_dict("records")
    assert (summary["ok"], summary["failed"]) == (4, 5)
    assert summary["reasons"] == {
        "several URLs in one line": 1,
        "unsupported scheme: data": 1,
        "unsupported scheme: file": 1,
        "invalid URL": 2,
    }


def test_a_list_that_cannot_be_read_stops_before_anything_is_fetched(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture"])
    (lists / "urls_two.csv").write_text("id,title\n1,Kiss\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"urls_two.csv.*its columns are id, title"):
        run(lists, data)
    assert server.requests == [] and not data.exists()


def test_empty_lists_say_so(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[], two=["# http://a.example/1.jpg"])
    with pytest.raises(InputError, match=r"no URL in .*urls_one.csv, .*urls_two.csv: write one"):
        run(lists, data)
    assert not data.exists()
    write_lists(lists, three=[f"{server.url}/picture"])
    with pytest.warns(UserWarning, match=r"no URL in .*urls_one.csv, .*urls_two.csv: these"):
        assert run(lists, data).ok.sum() == 1


def test_a_url_under_two_periods_is_two_rows(server, data, tmp_path):
    run(
        write_lists(
            tmp_path / "lists", one=[f"{server.url}/picture"], two=[f"{server.url}/picture"]
        ),
        data,
    )
    assert read_catalogue(data).status.tolist() == ["ok", "ok"]
    assert sorted(Path(file).parent.name for file in raw_files(data)) == ["one", "two"]


# Again


def test_the_second_time_nothing_is_asked(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture", f"{server.url}/none"])
    run(lists, data)
    before, files = len(server.requests), raw_files(data)
    assert run(lists, data)[["ok", "failed", "skipped"]].values.tolist() == [[0, 0, 2]]
    assert (len(server.requests), raw_files(data)) == (before, files)


def test_retry_failed(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture", f"{server.url}/late"])
    run(lists, data)
    server.routes["/late"] = answer(picture(5))
    assert run(lists, data, retry_failed=True)[["ok", "failed", "skipped"]].values.tolist() == [
        [1, 0, 1]
    ]
    row = read_catalogue(data).iloc[1]
    assert (row.status, row.reason, row.http_status, row.tries) == ("ok", None, 200, 2)
    assert server.asked("/picture") == 1


def test_max_per_period(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture?{i}" for i in range(5)])
    server.default = PICTURE
    assert run(lists, data, max_per_period=2).ok.tolist() == [2]
    assert read_catalogue(data).url.tolist() == [f"{server.url}/picture?{i}" for i in range(2)]
    assert run(lists, data, max_per_period=2).ok.tolist() == [0]
    assert run(lists, data).ok.tolist() == [3]


def test_max_per_period_holds_for_rows_that_wait_from_an_earlier_run(data, tmp_path, fake):
    urls = [f"http://h.test/{i}" for i in range(5)]
    with Catalogue(data) as cat:
        cat.add({"url": url, "period": "one"} for url in urls)
    assert run(
        write_lists(tmp_path / "lists", one=urls), data, max_per_period=2, fetcher=fake
    ).ok.tolist() == [2]
    assert read_catalogue(data).status.tolist() == ["ok"] * 2 + ["pending"] * 3


# Tries


def test_pauses_grow_and_vary_and_servers_are_heard(data, tmp_path, fake, monkeypatch):
    pauses, sleep = [], asyncio.sleep

    async def remember(seconds):
        if seconds:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", remember)
    busy = [Failure("http 503", 503, retry=True) for _ in range(9)]
    fake.answers = {
        "http://a.test/1": busy,
        "http://a.test/2": [Failure("http 429", 429, True, retry_after=77.0)],
    }
    lists = write_lists(tmp_path / "lists", one=["http://a.test/1", "http://a.test/2"])
    run(lists, data, fetcher=fake, tries=5, backoff=1)
    assert max(pauses) == pytest.approx(77, abs=0.5)
    own = [pause for pause in pauses if pause < 76]
    assert all(0.5 <= pause / 2**i <= 1.5 for i, pause in enumerate(own))
    assert len(set(own)) == 4 and own != [1, 2, 4, 8]
    assert read_catalogue(data)[["status", "tries", "http_status"]].values.tolist() == [
        ["failed", 5, 503],
        ["ok", 2, 200],
    ]


def test_who_asks_for_too_much_patience_gets_none(server, data, tmp_path):
    server.routes["/later"] = answer(status="429 Too Many", Retry_After="86400")
    run(write_lists(tmp_path / "lists", one=[f"{server.url}/later"]), data)
    rows = read_catalogue(data)[["status", "reason", "tries"]].values.tolist()
    assert rows == [["failed", "http 429, try again in over 120 s", 1]]
    server.routes["/robots.txt"] = answer(status="503 Busy", Retry_After="86400")
    other = tmp_path / "other"
    run(write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(3)]), other)
    reason = "robots.txt: http 503, try again in over 120 s"
    assert read_catalogue(other)[["status", "reason"]].values.tolist() == [["failed", reason]] * 3
    assert server.asked("/robots.txt") <= 1 + 2  # those under way when the host said so


def test_what_is_gone_is_gone_whatever_it_asks_for(server, data, tmp_path):
    server.routes["/gone"] = answer(status="410 Gone", Retry_After="86400")
    run(write_lists(tmp_path / "lists", one=[f"{server.url}/gone"]), data)
    assert read_catalogue(data).reason.tolist() == ["http 410"]


def test_errors_that_pass_are_survived(server, data, tmp_path):
    server.routes |= {
        "/503": [answer(status="503 Busy", Retry_After="0"), PICTURE],
        "/lost": [b"", b"", PICTURE],
        "/cut": [answer(picture(), length=9999), PICTURE],
    }
    urls = [server.url + path for path in ("/503", "/lost", "/cut")]
    assert run(write_lists(tmp_path / "lists", one=urls), data).ok.tolist() == [3]
    assert read_catalogue(data).tries.ge(2).all()


# Many at a time


def test_a_slow_host_does_not_keep_the_others_waiting(server, data, tmp_path, monkeypatch):
    resolve_tests_to_loopback(monkeypatch)
    server.default = answer(status="404 None")
    for i in range(12):
        server.routes[f"/slow{i}"] = lambda connection: (time.sleep(0.15), PICTURE)[1]
    slow = [f"http://slow.test:{server.port}/slow{i}" for i in range(12)]
    fast = [f"http://fast.test:{server.port}/picture?{i}" for i in range(12)]
    run(write_lists(tmp_path / "lists", one=slow + fast), data)
    order = [host for host, path in server.requests if path != "/robots.txt"]
    assert "slow.test" in order[:8]
    assert order[:-4].count("fast.test") == 12
    assert server.most["slow.test"] == 2 >= server.most["fast.test"]


def test_waiting_for_another_try_keeps_no_other_host_waiting(data, tmp_path, fake):
    busy = {
        f"http://busy.test/{i}": Failure("http 503", 503, True, retry_after=0.02) for i in range(6)
    }
    fake.answers = busy
    others = [f"http://h{i}.test/" for i in range(40)]
    urls = [*busy, *(f"http://busy.test/well{i}" for i in range(20)), *others]
    run(write_lists(tmp_path / "lists", one=urls), data, fetcher=fake, total=1, tries=2)
    assert set(fake.asked[:42]) == {*others, "http://busy.test/0", "http://busy.test/1"}
    rows = read_catalogue(data)
    assert rows.reason.value_counts().to_dict() == {"http 503": 6}
    assert rows.status.value_counts().to_dict() == {"ok": 60, "failed": 6}


# Hosts that ask for patience


class RateLimit:
    """A route of a host that takes `most` requests in `seconds`, and refuses all others."""

    def __init__(self, most: int, seconds: float, retry_after: str | None):
        self.most, self.seconds = most, seconds
        headers = {"Retry-After": retry_after} if retry_after else {}
        self.refusal = answer(status="429 Too Many", **headers)
        self.taken, self.refused = [], []

    def __call__(self, connection):
        now = time.monotonic()
        if sum(now - before < self.seconds for before in self.taken) < self.most:
            self.taken.append(now)
            return PICTURE
        self.refused.append(now)
        return self.refusal


@pytest.mark.parametrize("most, seconds, retry_after", [(8, 1, "1"), (1, 0.2, None), (3, 0.3, "0")])
def test_a_host_with_a_rate_limit_gives_all_its_pictures(
    server, data, tmp_path, most, seconds, retry_after
):
    server.default = limit = RateLimit(most, seconds, retry_after)
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(20)])
    assert run(lists, data, robots=False, backoff=0.1).ok.tolist() == [20]
    assert len(limit.refused) <= 2 * 20 / most + 2


def test_a_host_that_asks_for_patience_gets_it_with_all_its_urls(server, data, tmp_path):
    asked, opened = [], time.monotonic() + 1.5

    def route(connection):
        asked.append(time.monotonic())
        is_open = asked[-1] > opened
        return PICTURE if is_open else answer(status="503 Busy", Retry_After="1")

    server.default = route
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(40)])
    assert run(lists, data, robots=False, per_host=4).ok.tolist() == [40]
    assert len(asked) <= 4 + 1 + 40
    pauses = [later - earlier for earlier, later in zip(asked, asked[1:], strict=False)]
    assert sorted(pauses)[-2] >= 0.95  # after the four at the beginning, and after the next one
    assert server.most[None] <= 4


@pytest.mark.parametrize("rules", [b"", b"User-agent: *\nCrawl-delay: 0.3"])
def test_requests_that_wait_for_a_turn_when_a_host_asks_for_patience_wait_longer(
    server, data, tmp_path, rules
):
    """They wait for one of the `total` places, or for the Crawl-delay."""
    asked = []

    def route(connection):
        asked.append(time.monotonic())
        return PICTURE if len(asked) > 1 else answer(status="429 Too Many", Retry_After="1")

    server.default = route
    server.routes["/robots.txt"] = answer(rules)
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(3)])
    assert run(lists, data, total=1).ok.tolist() == [3]
    assert asked[1] - asked[0] >= 0.95
    assert read_catalogue(data).tries.sum() == len(asked) == 4


def test_a_host_that_never_answers_is_given_up_after_few_requests(
    server, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(patience, "LONGEST_WAIT", 1)
    server.default = answer(status="429 Too Many", Retry_After="0")
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(40)])
    summary = run(lists, data, robots=False, backoff=0.1)
    assert summary.reasons.tolist() == [{"http 429 again and again, try later": 40}]
    assert len(server.requests) <= 6  # two at first, then after 0.1, 0.2, 0.3 and 0.4 s
    rows = read_catalogue(data)
    assert rows.tries.sum() == len(server.requests) and (rows.http_status == 429).all()
    server.default = PICTURE
    assert run(lists, data, robots=False, retry_failed=True).ok.tolist() == [40]


KILLED = """
import os, sys
from artclf.data import patience
from artclf.download import fetch_lists

keep = patience.keep

def keep_and_die(*arguments):
    keep(*arguments)
    os._exit(9)

patience.keep = keep_and_die
fetch_lists(*sys.argv[1:], allow_private=True, robots=False)
"""


def test_the_next_run_keeps_to_what_a_host_asked_a_killed_one_for(server, data, tmp_path):
    asked = []

    def route(connection):
        asked.append(time.monotonic())
        return PICTURE if len(asked) > 1 else answer(status="429 Too Many", Retry_After="2")

    server.default = route
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/0"])
    killed = subprocess.run([sys.executable, "-c", KILLED, lists, data], env=os.environ)
    assert killed.returncode == 9 and len(asked) == 1
    assert run(lists, data, robots=False).ok.tolist() == [1]
    assert asked[1] - asked[0] >= 1.95


def test_who_asked_for_too_much_patience_is_not_asked_for_a_day(
    server, data, tmp_path, monkeypatch
):
    server.default = answer(status="429 Too Many", Retry_After="9" * 400)
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/0"])
    run(lists, data, robots=False)
    server.default = PICTURE
    summary = run(lists, data, robots=False, retry_failed=True)
    assert summary.reasons.tolist() == [{"asked for patience before, try again in over 120 s": 1}]
    assert len(server.requests) == 1
    tomorrow = time.time() + 86400
    monkeypatch.setattr(patience, "time", lambda: tomorrow)
    assert run(lists, data, robots=False, retry_failed=True).ok.tolist() == [1]
    with Catalogue(data) as catalogue:
        assert not catalogue.db.execute("SELECT count(*) FROM patience").fetchone()[0]


def test_what_a_clock_that_was_wrong_has_noted_keeps_no_host_closed(server, data, tmp_path):
    with Catalogue(data) as catalogue:
        patience.drop_expired(catalogue)
        catalogue.db.execute("INSERT INTO patience VALUES ('127.0.0.1', 1e12)")
    assert run(
        write_lists(tmp_path / "lists", one=[f"{server.url}/picture"]), data
    ).ok.tolist() == [1]


def test_a_single_page_that_always_refuses_takes_no_other_with_it(server, data, tmp_path):
    server.default = PICTURE
    server.routes["/0"] = answer(status="503 Busy", Retry_After="0")
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/{i}" for i in range(20)])
    [summary] = run(lists, data, robots=False).to_dict("records")
    assert (summary["ok"], summary["reasons"]) == (19, {"http 503": 1})


def test_the_crawl_delay_of_a_host_is_kept_and_others_do_not_wait(
    server, data, tmp_path, monkeypatch
):
    resolve_tests_to_loopback(monkeypatch)
    asked = {"slow.test": [], "fast.test": []}

    def route(host):
        return lambda connection: asked[host].append(time.monotonic()) or PICTURE

    rules = {"slow.test": b"User-agent: *\nCrawl-delay: 0.3", "fast.test": b""}
    server.routes["/robots.txt"] = lambda connection: answer(rules[server.requests[-1][0]])
    urls = []
    for host in asked:
        for i in range(4):
            server.routes[f"/{host}/{i}"] = route(host)
            urls.append(f"http://{host}:{server.port}/{host}/{i}")
    started = time.monotonic()
    assert run(write_lists(tmp_path / "lists", one=urls), data).ok.tolist() == [8]
    slow = asked["slow.test"]
    assert min(later - earlier for earlier, later in zip(slow, slow[1:], strict=False)) >= 0.29
    assert max(asked["fast.test"]) < slow[1]
    assert time.monotonic() - started < 5


def test_who_wants_hours_between_two_pictures_gives_none(server, data, tmp_path):
    server.routes["/robots.txt"] = answer(b"User-agent: artclf\nCrawl-delay: 3600")
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture"])
    assert run(lists, data).reasons.tolist() == [{"robots.txt: Crawl-delay over 120 s": 1}]
    assert server.asked("/picture") == 0
    assert run(lists, data, retry_failed=True, robots=False).ok.tolist() == [1]


@pytest.mark.parametrize("hosts, most", [(1, 8), (2000, 512)])
def test_the_rows_in_memory_are_few_however_long_the_lists(data, tmp_path, fake, hosts, most):
    urls = [f"http://h{i % hosts}.test/{i}" for i in range(2000)]
    fake.answers = {url: Failure("http 404", 404) for url in urls}
    assert run(write_lists(tmp_path / "lists", one=urls), data, fetcher=fake).failed.tolist() == [
        2000
    ]
    assert fake.most[None] <= most


def test_the_log_of_the_catalogue_stays_short(data, tmp_path, fake):
    sizes = []

    class Looking(fake):
        async def __call__(self, url, keep, turn):
            sizes.append((data / "catalogue.db-wal").stat().st_size)
            raise Failure("http 404", 404)

    lists = write_lists(
        tmp_path / "lists", one=[f"http://h{i % 200}.test/{i}" for i in range(2000)]
    )
    run(lists, data, fetcher=Looking)
    assert max(sizes) < 6_000_000  # SQLite shortens it at 4 MB, unless a cursor is open


def test_it_works_where_a_loop_is_running(server, data, tmp_path):
    lists = write_lists(tmp_path / "lists", one=[f"{server.url}/picture"])

    async def notebook():
        return run(lists, data)

    assert asyncio.run(notebook()).ok.tolist() == [1]


# Killed, interrupted, full


def slow_run(server, lists, data) -> subprocess.Popen:
    """A download in a process of its own, from a server that takes its time."""
    server.default = lambda connection: (time.sleep(0.02), connection.sendall(answer(picture())))
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have it ignored
        "from artclf.download import fetch_lists\n"
        f"fetch_lists({str(lists)!r}, {str(data)!r}, allow_private=True)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def wait_for(data, number):
    for _ in range(1000):
        time.sleep(0.01)
        try:
            if read_catalogue(data).status.eq("ok").sum() >= number:
                return
        except (FileNotFoundError, sqlite3.OperationalError):
            continue  # it is being made
    raise AssertionError("the download did not start")


@pytest.fixture
def forty(server, tmp_path):
    return write_lists(
        tmp_path / "lists",
        one=[f"{server.url}/{i}.jpg" for i in range(20)],
        two=[f"{server.url}/{i}.jpg" for i in range(20, 40)],
    )


def test_killed_it_goes_on_where_it_was(server, data, forty):
    for number in (5, 20):
        process = slow_run(server, forty, data)
        wait_for(data, number)
        process.kill()
        process.wait()
        rows = read_catalogue(data)
        assert number <= rows.status.eq("ok").sum() < 40
        assert set(rows.file.dropna()) <= set(raw_files(data))
        assert set(raw_files(data).values()) == {picture()}
    (data / "tmp").mkdir(exist_ok=True)
    (data / "tmp" / "half.jpg").write_bytes(b"half")
    run(forty, data)
    assert read_catalogue(data).status.tolist() == ["ok"] * 40
    assert set(raw_files(data)) == set(read_catalogue(data).file)
    assert not (data / "tmp").exists()
    assert sum(path != "/robots.txt" for _, path in server.requests) <= 40 + 2 * 2


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a single process on Windows")
def test_interrupted_it_stops_at_once_and_goes_on_later(server, data, forty):
    process = slow_run(server, forty, data)
    wait_for(data, 5)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=5)[1]
    assert read_catalogue(data).status.value_counts()["pending"] > 10
    assert not (data / "tmp").exists()
    run(forty, data)
    assert read_catalogue(data).status.tolist() == ["ok"] * 40


@pytest.mark.parametrize("is_done", [True, False])
def test_an_interrupt_while_progress_is_shown_is_seen_also_when_all_is_done(is_done):
    ended = []

    async def main():
        try:
            await asyncio.sleep(0.25 if is_done else 60)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    def show():
        if is_done:
            time.sleep(0.5)  # the thread's loop is closed meanwhile
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.run_in_thread(main, show)
    assert ended == ["done" if is_done else "cancelled"]


def test_a_full_disk_stops_it_and_nothing_is_lost(server, data, forty, monkeypatch):
    server.default = PICTURE
    write, written = Path.write_bytes, []

    def full(path, body):
        if len(written) >= 7:
            write(path, body[:9])
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return write(path, body)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            OSError, match="No space left on device.* make sure that there is room in"
        ):
            run(forty, data)
    assert read_catalogue(data).status.value_counts().to_dict() == {"ok": 7, "pending": 33}
    assert len(raw_files(data)) == 7
    assert run(forty, data).ok.sum() == 33


def test_a_folder_that_cannot_be_written(server, data, tmp_path):
    (data / "raw").mkdir(parents=True)
    (data / "raw" / "one").write_text("in the way")
    with pytest.raises(OSError, match="raw.one.*make sure"):
        run(write_lists(tmp_path / "lists", one=[f"{server.url}/picture"]), data)
    assert read_catalogue(data).status.tolist() == ["pending"]


@pytest.mark.parametrize(
    "options",
    [
        {"tries": 0},
        {"max_per_period": -1},
        {"per_host": 0},
        {"total": 0},
        {"deadline": 0},
        {"deadline": float("nan")},
        {"backoff": -1},
        {"max_bytes": 0},
        {"max_pixels": 0.5},
        {"contact": "a\nb"},
    ],
)
def test_bad_options(data, tmp_path, options):
    with pytest.raises(InputError, match=f"{next(iter(options))}.*(: take a |must be)"):
        run(write_lists(tmp_path / "lists", one=[]), data, **options)
    assert not data.exists()


def test_no_lists(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="urls_"):
        run(tmp_path, data)
    assert not data.exists()


def test_progress_counts_to_the_end(server, data, forty, monkeypatch):
    server.default = PICTURE
    bars, known = [], download.progress_bar
    monkeypatch.setattr(
        download,
        "progress_bar",
        lambda *args, **kwargs: bars.append(known(*args, **kwargs)) or bars[-1],
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(forty, data)
    assert (bars[0].n, bars[0].total, bars[0].postfix) == (40, 40, "failed=0, ok=40")


def test_lines_say_which_hosts_the_others_wait_for(server, data, tmp_path, monkeypatch, capsys):
    resolve_tests_to_loopback(monkeypatch)
    server.default = lambda connection: (time.sleep(0.15), PICTURE)[1]
    urls = [f"http://slow.test:{server.port}/{i}" for i in range(10)]
    lists = write_lists(tmp_path / "lists", one=[*urls, f"{server.url}/picture"])
    run(lists, data, max_per_period=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(download, "FIRST_LINE", 0.5)
    run(lists, data)
    said, end = capsys.readouterr().err.splitlines()
    assert re.match(r"\d URLs left, most of them of slow.test \(\d, \S+ a second\): done in", said)
    assert re.match(r"Done after \d s, last with slow.test: 9 URLs, \S+ a second", end)


# Import


@pytest.fixture
def gallery(tmp_path) -> Path:
    folder = tmp_path / "gallery"
    for period in ("a", "b"):
        (folder / period).mkdir(parents=True)
        for i in range(3):
            (folder / period / f"{i}.jpg").write_bytes(picture(ord(period) + i, "PNG"))
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "manifest.csv").write_text(
        "file,title,artist,year,licence,source_page,school\n"
        "a/0.jpg,Spring,Änne,1890,CC0,http://m.test/1,French\n",
        encoding="utf-8",
    )
    return folder


def test_import_copies_and_tells_the_same_story(gallery, data):
    before = {path: path.stat().st_mtime_ns for path in gallery.rglob("*")}
    assert import_folder(gallery, data).to_dict("records") == [
        {"period": "a", "ok": 3, "failed": 0, "skipped": 0, "reasons": {}},
        {
            "period": "b",
            "ok": 3,
            "failed": 1,
            "skipped": 0,
            "reasons": {"not an image: unknown bytes": 1},
        },
    ]
    assert before == {path: path.stat().st_mtime_ns for path in gallery.rglob("*")}
    rows = read_catalogue(data)
    row, body = rows.iloc[0], picture(ord("a"), "PNG")
    assert row.url == f"import:{hashlib.sha256(body).hexdigest()}"
    assert row.file == f"raw/a/{hashlib.sha1(row.url.encode()).hexdigest()[:16]}.png"
    assert (row.sha256, row.bytes, row.width, row.format) == (row.url[7:], len(body), 96, "PNG")
    assert (row.title, row.artist, row.year, row.licence, row.source_page) == (
        "Spring",
        "Änne",
        "1890",
        "CC0",
        "http://m.test/1",
    )
    assert sorted(raw_files(data).values()) == sorted(
        p.read_bytes() for p in gallery.rglob("?.jpg")
    )
    assert rows.status.tolist() == ["ok"] * 6 + ["failed"]


def test_folders_and_servers_give_pictures_of_the_same_formats(server, data, tmp_path):
    folder = tmp_path / "mine" / "a"
    folder.mkdir(parents=True)
    routes = []
    for name, suffixes in FORMATS.items():
        for suffix in suffixes:
            body = picture(len(routes), "JPEG" if name == "MPO" else name)
            (folder / f"{len(routes)}{suffix.upper()}").write_bytes(body)
            server.routes[f"/{len(routes)}"] = answer(body)
            routes.append(f"{server.url}/{len(routes)}")
    fetched = tmp_path / "fetched"
    assert run(write_lists(tmp_path / "lists", a=routes), fetched).ok.tolist() == [len(routes)]
    assert import_folder(folder.parent, data).ok.tolist() == [len(routes)]
    columns = ["sha256", "format", "width", "height"]
    of_servers, of_folder = (
        read_catalogue(place)[columns].sort_values("sha256").values.tolist()
        for place in (fetched, data)
    )
    assert of_servers == of_folder
    assert {row[1] for row in of_folder} == set(FORMATS) - {"MPO"}


def test_import_twice_does_nothing(gallery, data):
    import_folder(gallery, data)
    files = {path: path.stat().st_mtime_ns for path in data.rglob("raw/*/*")}
    assert import_folder(gallery, data)[["ok", "failed", "skipped"]].values.tolist() == [
        [0, 0, 3],
        [0, 0, 4],
    ]
    assert files == {path: path.stat().st_mtime_ns for path in data.rglob("raw/*/*")}


def test_import_goes_on_where_it_was(gallery, data, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        write_picture, done = intake.write_picture, []

        def killed(*args):
            if len(done) == 2:
                raise KeyboardInterrupt
            return done.append(args) or write_picture(*args)

        patch.setattr(intake, "write_picture", killed)
        import_folder(gallery, data)
    assert read_catalogue(data).status.value_counts().to_dict() == {"ok": 2, "pending": 5}
    assert import_folder(gallery, data).ok.sum() == 4


def test_downloads_leave_imports_alone_and_the_other_way_round(server, gallery, data, tmp_path):
    with Catalogue(data) as cat:
        cat.add([{"url": "import:0", "period": "a"}, {"url": "http://h.test/", "period": "a"}])
    assert import_folder(gallery, data).ok.sum() == 6
    with Catalogue(data) as cat:
        cat.update([{"url": "http://h.test/", "period": "a", "status": "ok"}])
    assert run(write_lists(tmp_path / "lists", c=[f"{server.url}/picture"]), data).ok.tolist() == [
        0,
        0,
        1,
    ]
    assert read_catalogue(data).set_index("url").status["import:0"] == "pending"


def test_import_takes_its_classes_from_the_manifest(gallery, data):
    shutil.copy(gallery / "manifest.csv", gallery.parent / "facts.csv")
    text = (
        (gallery / "manifest.csv").read_text(encoding="utf-8").replace("a/0.jpg", "gallery/a/0.jpg")
    )
    (gallery.parent / "facts.csv").write_text(text, encoding="utf-8")
    import_folder(gallery, data, manifest=gallery.parent / "facts.csv", label_column="school")
    assert read_catalogue(data)[["period", "title"]].values.tolist() == [["French", "Spring"]]


def test_import_of_what_is_not_there(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a folder"):
        import_folder(tmp_path / "none", data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures"):
        import_folder(tmp_path / "empty", data)
    assert not data.exists()


# The gallery on this machine


def test_canvases_are_drawn_once_served_with_faults_and_fetched(tmp_path):
    summary = fetch_canvases(tmp_path, canvases=2)
    assert summary.ok.sum() >= 36 and summary.failed.sum() > 0
    reasons = set(read_catalogue(tmp_path).reason.dropna())
    assert {"http 404", "not an image: text/html", "truncated"} <= reasons
    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob("gallery/*/*.jpg")}
    again = fetch_canvases(tmp_path, canvases=2)
    assert len(files) == 36 and again.ok.sum() == again.failed.sum() == 0
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_a_folder_of_ones_own_is_served_as_it_is_and_nothing_is_drawn_into_it(tmp_path):
    noisy = tmp_path / "mine/a/1.png"
    noisy.parent.mkdir(parents=True)
    noisy.write_bytes(encoded(noise()))
    lists = tmp_path / "lists"
    prepare_gallery(tmp_path / "mine", lists)
    assert [path.name for path in lists.glob("*.csv")] == ["urls_a.csv"]
    with serve_gallery(tmp_path / "mine", lists) as address:
        summary = fetch_lists(lists, tmp_path / "data", allowed_address=address)
    assert summary.ok.tolist() == [1] and summary.failed.tolist() == [0]
    with pytest.raises(InputError):
        prepare_gallery(tmp_path / "mine", lists, canvases=1)
    assert [path.name for path in (tmp_path / "mine").rglob("*.*")] == ["1.png"]


def test_without_a_gallery_nothing_is_served(tmp_path):
    prepare_gallery(None, tmp_path / "lists", canvases=3)
    with serve_gallery(None, tmp_path / "lists") as address:
        assert address is None
    assert list(tmp_path.iterdir()) == []


def test_no_other_address_is_allowed_than_the_gallerys(tmp_path):
    noisy = tmp_path / "mine/a/1.png"
    noisy.parent.mkdir(parents=True)
    noisy.write_bytes(encoded(noise()))
    prepare_gallery(tmp_path / "mine", tmp_path / "lists")
    with serve_gallery(tmp_path / "mine", tmp_path / "lists") as address:
        for other in (None, "127.0.0.1:9", address.replace("127.0.0.1", "127.0.0.2"), ""):
            summary = fetch_lists(
                tmp_path / "lists", tmp_path / "data", allowed_address=other, retry_failed=True
            )
            assert summary.reasons.tolist() == [{"blocked address": 1}]


# Where an imported folder goes


def test_a_folder_does_not_go_to_the_data_of_another_one_or_of_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in ("one", "two"):
        (tmp_path / parent / "pics/a").mkdir(parents=True)
        (tmp_path / parent / "pics/a/1.png").write_bytes(encoded(noise(seed=len(parent))))
    data = data_folder("one/pics", "folder")
    import_folder("one/pics", data)
    assert data == Path("data/pics") == data_folder("one/pics", "folder")
    with pytest.raises(InputError) as error:
        data_folder("two/pics", "folder")
    assert str(error.value) == (
        f"data/pics holds the pictures of the folder {tmp_path / 'one/pics'}: rename two/pics, or "
        "name another data folder with --data"
    )
    with pytest.raises(InputError, match="holds the pictures of the folder"):
        data_folder("two/pics", "lists")
    assert len(read_catalogue(data)) == 1


@pytest.mark.parametrize(
    "url, kind",
    [("https://a.example/1.jpg", "lists"), ("http://127.0.0.1:8000/1.jpg", "gallery")],
)
def test_a_data_set_without_a_note_of_its_origin_is_known_by_its_urls(
    url, kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("pics").mkdir()
    with Catalogue("data/pics") as catalogue:
        catalogue.add([{"url": url, "period": "a"}])
    with pytest.raises(InputError, match=f"holds the pictures of the {kind}: rename pics"):
        data_folder("pics", "folder")
    assert data_folder("pics", kind) == Path("data/pics")


def test_lists_go_to_the_data_of_their_name_without_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paintings_urls").mkdir()
    assert data_folder("paintings_urls", "lists") == Path("data/paintings")
    assert data_folder("nothing", "folder") == Path("data/nothing")
    assert not Path("data/nothing").exists()
