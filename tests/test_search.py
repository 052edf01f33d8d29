"""Image search: paging, patience, and lists that only ever grow. No test goes to the internet."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from artclf import search
from artclf.base import extras
from artclf.data.lists import LIST_COLUMNS, read_list

ROOT = Path(__file__).parents[1]
PERIOD = "10-impressionism"
# the shape of a result as ddgs 9 gives it
RECORDED = {
    "title": "Claude Monet - Impression, soleil levant",
    "image": "https://example.org/monet/1872.jpg",
    "thumbnail": "https://tse1.example.net/th?id=OIP.x&pid=Api",
    "url": "https://example.org/monet",
    "height": 1200,
    "width": 1600,
    "source": "Bing",
}


def results(*numbers):
    return [
        {
            "url": f"https://example.org/{n}.jpg",
            "title": f"Picture {n}",
            "source_page": "https://example.org/",
        }
        for n in numbers
    ]


class Fake:
    """An engine that plays back pages: lists of results, or exceptions to raise; empty pages follow
    the last.
    """

    def __init__(self, *pages):
        self.pages, self.asked = list(pages), []

    def __call__(self, query, page):
        self.asked.append((query, page))
        answer = self.pages.pop(0) if self.pages else []
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def sleeps(monkeypatch):
    taken = []
    monkeypatch.setattr(search.time, "sleep", taken.append)
    return taken


def collect(tmp_path, engine, max_images=300, **kwargs):
    return search.collect("impressionism painting", PERIOD, tmp_path, max_images, engine, **kwargs)


def urls(path):
    return [row["url"] for row in read_list(path)]


def test_pages_are_joined_without_repeats(tmp_path, sleeps):
    engine = Fake(results(1, 2, 2), results(2, 3))
    summary = collect(tmp_path, engine)
    assert urls(summary.path) == [f"https://example.org/{n}.jpg" for n in (1, 2, 3)]
    assert (summary.found, summary.new, summary.repeats, summary.pages, summary.gave_up) == (
        3,
        3,
        0,
        3,
        False,
    )
    assert engine.asked == [("impressionism painting", page) for page in (1, 2, 3)]
    assert "no further results on page 3" in str(summary)
    assert summary.path == tmp_path / "urls_10-impressionism.csv"


def test_new_list_records_title_query_and_page(tmp_path, sleeps):
    path = collect(tmp_path, Fake(results(1), results(2))).path
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == LIST_COLUMNS
    assert rows[1] == {
        "url": "https://example.org/2.jpg",
        "title": "Picture 2",
        "artist": "",
        "year": "",
        "licence": search.LICENCE,
        "source_page": "https://example.org/",
        "query": "impressionism painting",
        "page": "2",
    }


def test_second_search_finds_the_same_and_adds_nothing(tmp_path, sleeps):
    path = collect(tmp_path, Fake(results(1, 2), results(3))).path
    before = path.read_bytes()
    again = collect(tmp_path, Fake(results(1, 2), results(3)))
    assert (again.found, again.new, again.repeats, again.pages) == (3, 0, 3, 3)
    assert path.read_bytes() == before


def test_engine_that_repeats_its_last_page_comes_to_an_end(tmp_path, sleeps):
    engine = Fake(*[results(1, 2)] * 50)
    summary = collect(tmp_path, engine)
    assert len(engine.asked) == 2 and summary.stopped == "no further results on page 2"


def test_stops_at_max_images(tmp_path, sleeps):
    engine = Fake(results(*range(10)), results(*range(5, 20)), results(99))
    summary = collect(tmp_path, engine, max_images=12)
    assert len(urls(summary.path)) == summary.found == 12
    assert len(engine.asked) == 2 and summary.stopped == "stopped at 12 results"


def test_waits_longer_after_every_refusal(tmp_path, sleeps):
    refusal = search.NoAnswer("429")
    summary = collect(tmp_path, Fake(refusal, refusal, refusal, results(1)), wait=8)
    assert summary.new == 1 and not summary.gave_up
    for taken, (low, high) in zip(sleeps[:3], [(4, 12), (8, 24), (16, 48)], strict=True):
        assert low <= taken <= high


def test_keeps_what_it_has_and_says_that_it_gave_up(tmp_path, sleeps):
    engine = Fake(results(1, 2), *[search.NoAnswer("429 Too Many Requests")] * 3, results(3))
    summary = collect(tmp_path, engine, tries=3)
    assert (
        summary.gave_up
        and summary.stopped == "gave up on page 2 after 3 tries: 429 Too Many Requests"
    )
    assert (summary.new, summary.pages) == (2, 1) and len(urls(summary.path)) == 2
    assert [page for _, page in engine.asked] == [1, 2, 2, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug in the engine")])
def test_an_interrupted_search_keeps_what_it_has(tmp_path, sleeps, error):
    with pytest.raises(type(error)):
        collect(tmp_path, Fake(results(1, 2), error))
    assert len(urls(tmp_path / "urls_10-impressionism.csv")) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["urls_10-impressionism.csv"]


def test_nothing_found_writes_no_list(tmp_path, sleeps):
    summary = collect(tmp_path, Fake(*[search.NoAnswer("refused")] * 5))
    assert summary.gave_up and summary.found == 0 and list(tmp_path.iterdir()) == []


def test_hostile_results(tmp_path, sleeps):
    bad = [
        None,
        "",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "ftp://example.org/a.jpg",
        "https:///a.jpg",
        "http://[broken/a.jpg",
        "http://user:word@example.org/a.jpg",
        "https://exa mple.org/a.jpg",
        7,
        "https://example.org/" + "a" * 200_000,
    ]
    good = {
        "url": " https://example.org/a b\u00e9\ud83d.jpg?q=x%20y&z=1,2#part ",
        "artist": None,
        "year": 1872,
        "title": '=1+1\n# not a comment\x00 "quoted", \ud83d' + "x" * 200_000,
        "source_page": "javascript:alert(1)",
    }
    summary = collect(tmp_path, Fake([{"url": url, "title": "x"} for url in bad] + [{}, good]))
    [row] = read_list(summary.path)
    assert summary.found == 1
    assert row["url"] == "https://example.org/a%20b%C3%A9%3F.jpg?q=x%20y&z=1,2"
    assert (
        row["title"].startswith('=1+1 # not a comment "quoted", ?x')
        and len(row["title"]) == search.LONGEST_TEXT
    )
    assert row["year"] == "1872" and "source_page" not in row


@pytest.mark.parametrize("period", ["", ".", "..", "../x", "a/b", "a\\b", " x", ".hidden", "a\nb"])
def test_bad_periods_are_refused_before_any_search(tmp_path, period):
    engine = Fake()
    with pytest.raises(ValueError, match="can't be a period"):
        search.collect("q", period, tmp_path, engine=engine)
    assert engine.asked == []


@pytest.mark.parametrize(
    ("query", "kwargs", "message"),
    [
        (" \n", {}, "the search query is empty"),
        ("q", {"max_images": 0}, "max_images is 0: take a whole number from 1"),
        ("q", {"tries": 0}, "tries is 0: take a whole number from 1"),
        ("q", {"wait": float("nan")}, "wait is nan: take a number from 0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, query, kwargs, message):
    with pytest.raises(ValueError, match=message):
        search.collect(query, PERIOD, tmp_path, engine=Fake(), **kwargs)


@pytest.mark.parametrize("name", ["google", "", "json:", "json:nothing", "no_such_module:f", ":"])
def test_unknown_engines_are_named(name):
    with pytest.raises(ValueError, match="no search engine.*ddgs"):
        search.find_engine(name)


def test_engines_by_name():
    assert search.find_engine("json:loads") is json.loads
    assert search.find_engine(json.loads) is json.loads


def test_a_missing_ddgs_says_what_to_install(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs ddgs: run pip install -e "\.\[search\]"'):
        search.find_engine("ddgs")


@pytest.fixture
def duckduckgo(monkeypatch):
    """The real ddgs, with its answers from the network replaced: a list of texts, the request's
    parameters kept.
    """
    ddg = pytest.importorskip("ddgs.engines.duckduckgo_images").DuckduckgoImages
    answers, asked = [], []

    def request(self, *args, params, **kwargs):
        asked.append(params)
        return answers.pop(0) if answers else None

    monkeypatch.setattr(ddg, "_get_vqd", lambda self, query: "4-1")
    monkeypatch.setattr(ddg, "request", request)
    return answers, asked


def test_ddgs_results_become_rows(tmp_path, sleeps, duckduckgo):
    answers, asked = duckduckgo
    more = [{**RECORDED, "image": f"https://example.org/{n}.jpg"} for n in range(40)]
    answers += [json.dumps({"results": [RECORDED, *more]}), json.dumps({"results": [RECORDED]})]
    summary = collect(tmp_path, "ddgs")
    rows = list(read_list(summary.path))
    assert summary.found == 41
    assert rows[0] == {
        "url": RECORDED["image"],
        "title": RECORDED["title"],
        "licence": search.LICENCE,
        "source_page": RECORDED["url"],
    }
    assert [params.get("s") for params in asked] == [None, "100"] and asked[0][
        "q"
    ] == "impressionism painting"


@pytest.mark.parametrize(
    "answer", [None, "<html>unusual traffic</html>", json.dumps({"results": []})]
)
def test_ddgs_without_an_answer_is_tried_again(tmp_path, sleeps, duckduckgo, answer):
    answers, asked = duckduckgo
    answers += [answer, json.dumps({"results": [RECORDED]})]
    summary = collect(tmp_path, "ddgs", tries=2)
    assert summary.new == 1 and summary.gave_up and len(asked) == 4
    assert summary.stopped == (
        "gave up on page 2 after 2 tries: No results found. "
        "(the end of the results, or a rate limit)"
    )


@pytest.mark.parametrize("name", ["RatelimitException", "TimeoutException", "DDGSException"])
def test_every_exception_of_ddgs_is_waited_for(tmp_path, sleeps, monkeypatch, name):
    exceptions = pytest.importorskip("ddgs.exceptions")
    from ddgs.ddgs import DDGS

    def images(self, query, **kwargs):
        raise getattr(exceptions, name)("202\nRatelimit")

    monkeypatch.setattr(DDGS, "images", images)
    summary = collect(tmp_path, "ddgs", tries=2)
    assert (
        summary.gave_up
        and summary.stopped == "gave up on page 1 after 2 tries: 202 Ratelimit"
        and len(sleeps) == 1
    )


def test_importing_is_silent_and_light():
    code = "import sys, artclf.search; print([m for m in ('ddgs', 'torch', 'pandas', 'fastai') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


@pytest.mark.slow
def test_notebook_searches_and_writes_the_list(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    (tmp_path / "fake_engine.py").write_text(
        textwrap.dedent("""
        def ask(query, page):
            return [{"url": f"https://host{n % 3}.org/{page}/{n}.jpg", "title": f"{query} {n}"} for n in range(20)]
    """),
        encoding="utf-8",
    )
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "urls_10-impressionism.csv").write_text(
        "https://host0.org/1/0.jpg\n", encoding="utf-8"
    )
    (lists / "urls_05-baroque.csv").write_text("https://host9.org/1.jpg\n", encoding="utf-8")
    notebook = nbformat.read(ROOT / "notebooks" / "00_search.ipynb", as_version=4)
    [parameters] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    injected = (
        f"QUERY, PERIOD, LISTS = 'sunrise', {PERIOD!r}, {str(lists)!r}\n"
        "MAX_IMAGES, ENGINE = 30, 'fake_engine:ask'"
    )
    notebook.cells.insert(notebook.cells.index(parameters) + 1, nbformat.v4.new_code_cell(injected))
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute(
        env={**os.environ, "PYTHONPATH": path}
    )
    found = urls(lists / "urls_10-impressionism.csv")
    assert len(found) == len(set(found)) == 30 and found[0] == "https://host0.org/1/0.jpg"
    assert found[-1] == "https://host0.org/2/9.jpg"
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 2
    assert not "".join(
        out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"
    ).strip()
