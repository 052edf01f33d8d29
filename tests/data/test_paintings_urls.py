"""The URL lists of the repository: what their README says of them, counted again.

Rows that a search added are left out.
"""

import csv
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from artclf import search
from artclf.data.lists import class_name, find_lists, read_list, url_key

FOLDER = Path(__file__).parents[2] / "paintings_urls"
PERIODS = [
    "01-early_renaissance",
    "02-high_renaissance",
    "03-northern_renaissance",
    "04-mannerism",
    "05-baroque",
    "06-rococo",
    "07-neoclassicism",
    "08-romanticism",
    "09-realism",
    "10-impressionism",
    "11-post-impressionism",
    "12-fauvism",
    "13-expressionism",
    "14-cubism",
    "15-surrealism",
    "16-modernism",
    "17-dadaism",
    "18-pop-art",
]
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def read(period):
    rows = read_list(FOLDER / f"urls_{period}.csv")
    return [row for row in rows if row["licence"] != search.LICENCE]


@pytest.fixture(scope="module")
def rows():
    return {period: read(period) for period in PERIODS}


def test_every_period_has_its_list():
    assert set(PERIODS) <= set(find_lists(FOLDER))
    assert [class_name(period) for period in PERIODS] == PERIODS


@pytest.mark.parametrize("period", PERIODS)
def test_list_is_well_formed(period, rows):
    with (FOLDER / f"urls_{period}.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == [
            "url",
            "title",
            "artist",
            "year",
            "licence",
            "source_page",
        ]
    for row in rows[period]:
        assert re.fullmatch(r"https://[\w.-]+/[!-~]+", row["url"]), row
        assert search._address(row["url"]), row
        assert row["title"] and row["artist"] and row["licence"], row
        assert re.fullmatch(r"1[4-9]\d\d|20[01]\d|", row.get("year", "")), row
        assert row.get("source_page", "https://").startswith("https://"), row
    assert 0 < len(rows[period]) <= 300


def test_no_url_stands_twice(rows):
    keys = [url_key(row["url"]) for period in PERIODS for row in rows[period]]
    assert len(keys) == len(set(keys)) == 5069


def test_no_work_stands_under_two_periods(rows):
    periods = {}
    for period in PERIODS:
        for row in rows[period]:
            periods.setdefault((row["artist"].lower(), row["title"].lower()), set()).add(period)
    assert [work for work, found in periods.items() if len(found) > 1] == []


def test_readme_counts_are_those_of_the_lists(rows):
    def licences(period):
        texts = [row["licence"] for row in rows[period]]
        link = sum("link only" in text for text in texts)
        life = sum("70 years" in text and "link only" not in text for text in texts)
        return [len(texts) - life - link, life, link]

    said = {
        period: list(map(int, numbers.split("|")))
        for period, numbers in re.findall(r"^\| `urls_(.*)\.csv` \| (.*) \|$", README, re.MULTILINE)
    }
    assert list(said) == PERIODS
    for period, (total, observed, derived, *licence) in said.items():
        assert (total, licence) == (len(rows[period]), licences(period))
        assert observed + derived == total
    [total] = re.findall(r"^\| all \| (.*) \|$", README, re.MULTILINE)
    assert list(map(int, total.split("|"))) == [
        sum(column) for column in zip(*said.values(), strict=True)
    ]


def test_works_not_in_the_public_domain_say_so(rows):
    for text in {row["licence"] for period in PERIODS for row in rows[period]}:
        assert text.startswith(("public domain (likely)", "CC0")) or "link only" in text
        if re.search("not in the public|unknown|not openly", text):
            assert re.search(r"link only( \(©.*\))?$", text)


def test_hosts_are_those_of_the_readme(rows):
    hosts = {
        "wikiart.org": 3385,
        "wikimedia.org": 1464 + 158 + 14,
        "tate.org.uk": 38,
        "artic.edu": 10,
    }
    found = [urlsplit(row["url"]).hostname for period in PERIODS for row in rows[period]]
    assert {host: sum(name.endswith("." + host) for name in found) for host in hosts} == hosts
    for count in (3385, 1464, 158, 14, 38, 10):
        assert f"\n| {count} | " in README


def test_commons_urls_follow_from_their_file_names(rows):
    urls = [
        row["url"]
        for period in PERIODS
        for row in rows[period]
        if "upload.wikimedia.org" in row["url"]
    ]
    for url in urls:
        *_, first, second, name, thumbnail = urlsplit(url).path.split("/")
        digest = hashlib.md5(unquote(name).encode(), usedforsecurity=False).hexdigest()
        assert (first, second) == (digest[0], digest[:2]) and thumbnail.endswith(name), url
    assert len(urls) == 1636
