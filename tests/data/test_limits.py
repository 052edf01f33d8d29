"""The limits of hosts, however many there are and whoever redirects to them."""

import asyncio
from types import SimpleNamespace

import pytest
from made_hosts import JPEG, NOT_FOUND, Hosts

from artclf.data import fetch
from artclf.data.downloads import HOSTS, SPARE_WORKERS
from artclf.data.fetch import MOST_HOSTS, REMEMBERED_HOSTS, Fetcher
from artclf.data.intake import Failure
from artclf.data.patience import Closed
from artclf.download import fetch_lists

DELAY = 0.1
SCHEMES = ("http", "https")


def rules(delay: float) -> bytes:
    return f"User-agent: *\nCrawl-delay: {delay}\n".encode()


def with_delay(host: str, path: str) -> bytes:
    """What every host replies."""
    return rules(DELAY) if path == "/robots.txt" else JPEG


def fetch_all(hosts: Hosts, *groups: list[str], **options):
    """Fetch the URLs of each group one after the other, all groups at the same time; return the
    fetcher.
    """

    async def one_by_one(fetcher, urls):
        return [await fetcher(url) for url in urls]

    async def main():
        async with Fetcher(engine=hosts.engine, **options) as fetcher:
            await asyncio.gather(*(one_by_one(fetcher, urls) for urls in groups))
            return fetcher

    return asyncio.run(main())


def test_a_crawl_delay_is_kept_while_many_other_hosts_come(monkeypatch):
    monkeypatch.setattr(fetch, "REMEMBERED_HOSTS", 3)
    hosts = Hosts(with_delay)
    big = [f"http://big.example/{i}" for i in range(6)]
    small = [f"http://s{i}.example/" for i in range(60)]
    fetcher = fetch_all(hosts, big[:3], big[3:], small)
    assert min(hosts.pauses("big.example")) >= DELAY - 0.002
    assert hosts.most["big.example"] == 1
    assert len(hosts.of("big.example", "/robots.txt")) == 1  # somebody always waits for a turn
    assert len(fetcher._origins) <= 3


def test_a_crawl_delay_is_kept_between_requests_with_nobody_waiting(monkeypatch):
    monkeypatch.setattr(fetch, "REMEMBERED_HOSTS", 1)
    hosts = Hosts(with_delay)
    urls = ["http://big.example/1", "http://s.example/", "http://big.example/2"]
    fetch_all(hosts, urls)
    assert min(hosts.pauses("big.example")) >= DELAY - 0.002


def test_limits_are_forgotten_when_nothing_is_left_of_them(monkeypatch):
    monkeypatch.setattr(fetch, "REMEMBERED_HOSTS", 3)
    hosts = Hosts(lambda host, path: NOT_FOUND if path == "/robots.txt" else JPEG)
    fetcher = fetch_all(hosts, [f"http://s{i}.example/" for i in range(20)])
    assert len(fetcher._limits) == len(fetcher._origins) == 3


def test_the_rules_of_all_hosts_that_a_download_asks_at_a_time_are_remembered(tmp_path):
    """Each is asked by several workers, which are not always under way."""
    assert REMEMBERED_HOSTS >= MOST_HOSTS
    number = HOSTS * 2
    hosts = Hosts(lambda host, path: NOT_FOUND if path == "/robots.txt" else JPEG)
    hosts.size = 2
    lists = tmp_path / "lists"
    lists.mkdir()
    urls = [f"http://s{k}.example/{i}" for i in range(SPARE_WORKERS) for k in range(number)]
    (lists / "urls_one.csv").write_text("\n".join(["url", *urls]))
    assert fetch_lists(lists, tmp_path / "data", engine=hosts.engine).ok.sum() == len(urls)
    assert len(hosts.asked) == len(urls) + number


def test_the_longest_crawl_delay_holds_for_all_ports_and_schemes_of_a_host():
    delays = [DELAY, 0]

    def reply(host, path):
        return rules(delays.pop(0)) if path == "/robots.txt" else JPEG

    hosts = Hosts(reply)
    with_a_delay, without = ([f"{scheme}://a.example/{i}" for i in range(3)] for scheme in SCHEMES)
    fetch_all(hosts, [with_a_delay[0], *without, *with_a_delay[1:]])
    assert min(hosts.pauses("a.example")) >= DELAY - 0.002


@pytest.mark.parametrize("known_first", [True, False])
def test_a_robots_txt_that_redirects_keeps_the_crawl_delay_of_where_it_leads(known_first):
    def reply(host, path):
        if path == "/robots.txt" and host != "t.example":
            return f"http://t.example/rules-of-{host}"
        return rules(DELAY) if path == "/robots.txt" else b"" if "rules" in path else JPEG

    hosts = Hosts(reply)
    others = [[f"http://o{i}.example/"] for i in range(4)]
    target = ["http://t.example/1", "http://t.example/2"]
    if known_first:
        fetch_all(hosts, target + [url for [url] in others])
        assert min(hosts.pauses("t.example")) >= DELAY - 0.002
    else:
        fetch_all(hosts, target, *others)
        assert hosts.most["t.example"] <= 2


def test_redirects_keep_to_the_number_of_requests_of_their_host():
    def reply(host, path):
        if path == "/robots.txt":
            return NOT_FOUND if host == "t.example" else "http://t.example/robots.txt"
        return JPEG if host == "t.example" else "http://t.example/"

    hosts = Hosts(reply)
    fetch_all(hosts, *[[f"http://o{i}.example/"] for i in range(12)])
    assert hosts.most["t.example"] == 2


def test_a_request_says_how_long_its_host_wants_to_be_left_alone_after_it():
    """A worker's death ends a request, so who asks again waits that long."""
    hosts = Hosts(with_delay)
    fetch_all(hosts, ["http://a.example/1"])
    assert [question.pause for question in hosts.questions] == [0, DELAY]


@pytest.mark.parametrize(
    "error", [Closed(SimpleNamespace(host="a.example")), Failure("http 404", 404)]
)
def test_only_a_request_that_was_sent_costs_a_pause(error):
    limits = fetch.Limits(2)
    limits.crawl_delay = 5

    async def main():
        with pytest.raises(type(error)):
            async with limits.place():
                raise error

    asyncio.run(main())
    assert limits.is_pausing() == isinstance(error, Failure)
