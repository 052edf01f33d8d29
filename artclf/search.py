"""Search: collect picture URLs by image search, a list a period, added to what is there.

Reads an image search (an `Engine`); writes `paintings_urls/urls_NN-period.csv`. Notebook:
00_search.
"""

import itertools
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import quote, urlsplit

from artclf.base import settings
from artclf.base.errors import InputError
from artclf.base.extras import require
from artclf.base.progress import progress_bar
from artclf.data.catalogue import FACTS
from artclf.data.lists import append, find_lists, list_path, new_rows, read_list, url_key

__all__ = [
    "FACTS",
    "Engine",
    "NoAnswer",
    "Summary",
    "collect",
    "find_engine",
    "find_lists",
    "read_list",
]

LICENCE = "unknown: found by image search"
BACKENDS = {"ddgs": "duckduckgo", "ddgs-bing": "bing"}  # of the package ddgs
LONGEST_URL = 4000  # characters
LONGEST_TEXT = 300
URL_CHARACTERS = "%/:@!$&'()*+,;=~[]"  # that stay as they are

# engine(query, page) gives the results of a page (the first is 1), an empty list after the last. A
# result is a dict with `url` (the picture's) and any of `title, artist, year, licence, source_page`.
Engine = Callable[[str, int], list[dict]]


class NoAnswer(RuntimeError):
    """Raised by an engine that got no page: rate-limited, timed out, out of reach. `collect` waits
    and asks again.
    """


@dataclass
class Summary:
    """What a search brought: `found` different URLs, of which `new` were added and `repeats` were
    in the list.
    """

    query: str
    path: Path
    pages: int = 0
    found: int = 0
    new: int = 0
    stopped: str = ""
    gave_up: bool = False

    @property
    def repeats(self) -> int:
        return self.found - self.new

    def __str__(self):
        return (
            f"{self.query!r}: {self.new} new URLs in {self.path}, {self.repeats} were there already; "
            f"{self.pages} pages, {self.stopped}"
        )


def collect(
    query: str,
    period: str,
    lists="paintings_urls",
    max_images: int = 300,
    engine: str | Engine = "ddgs",
    tries: int = 5,
    wait: float = 2.0,
) -> Summary:
    """Search for `query`, and add the URLs to the period's list in the folder `lists`; return a
    `Summary`.

    Looks at the first `max_images` different results, page by page, and writes the list after each,
    so that nothing found is lost. A page without an answer is asked for `tries` times, after waits
    of about `wait`, 2 `wait`, 4 `wait`... seconds; then the search gives up and says so in the
    summary. `engine` is a name (see `find_engine`) or a callable. Raises InputError for a period
    that can't name a folder, an empty query or a list that can't be added to, ImportError where
    ddgs is missing.
    """
    query = _text(query)
    path = list_path(lists, period)
    if not query:
        raise InputError("the search query is empty: give the words to search for")
    settings.check(max_images=max_images, tries=tries, wait=wait)
    summary = Summary(query, path)
    keys: set[str] = set()
    bar = progress_bar(total=max_images, desc=period)
    try:
        for page, results in _pages(find_engine(engine), query, tries, wait, bar):
            rows = new_rows(_rows(results, query, page), keys)
            rows = rows[: max_images - len(keys)]
            keys.update(url_key(row["url"]) for row in rows)
            summary.pages = page
            summary.found = len(keys)
            summary.new += append(path, rows)
            bar.update(len(rows))
            if not rows:
                summary.stopped = f"no further results on page {page}"
            elif len(keys) == max_images:
                summary.stopped = f"stopped at {max_images} results"
            if summary.stopped:
                break
    except NoAnswer as error:
        summary.gave_up = True
        summary.stopped = f"gave up on page {summary.pages + 1} after {tries} tries: {error}"
    finally:
        bar.close()
    return summary


def _pages(
    engine: Engine, query: str, tries: int, wait: float, bar
) -> Iterator[tuple[int, list[dict]]]:
    """Each page's number and results, until the caller stops. Raises NoAnswer after so many
    tries.
    """
    for page in itertools.count(1):
        for attempt in range(1, tries + 1):
            bar.set_postfix(page=page, attempt=attempt)
            try:
                results = engine(query, page)
                break
            except NoAnswer:
                if attempt == tries:
                    raise
            time.sleep(wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        yield page, results
        time.sleep(wait * random.uniform(0.25, 0.75))


def _rows(results: list[dict], query: str, page: int) -> Iterator[dict]:
    """The results that have a usable URL, as rows of a list."""
    for result in results:
        url = _address(result.get("url"))
        if url is None:
            continue
        yield {
            "url": url,
            "title": _text(result.get("title")),
            "artist": _text(result.get("artist")),
            "year": _text(result.get("year")),
            "licence": _text(result.get("licence")) or LICENCE,
            "source_page": _address(result.get("source_page")) or "",
            "query": query,
            "page": page,
        }


def _text(value) -> str:
    """`value` on one line, without control characters."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", str(value or ""))
    return " ".join(text.split())[:LONGEST_TEXT]


def _address(url) -> str | None:
    """`url` in ASCII and without its fragment; None where it is no http or https URL, or too
    long.
    """
    try:
        parts = urlsplit(str(url or "").strip())
    except ValueError:  # an unclosed bracket, say
        return None
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:\[\]-]+", parts.netloc):
        return None
    path = quote(parts.path, safe=URL_CHARACTERS, errors="replace")
    query = quote(parts.query, safe=URL_CHARACTERS, errors="replace")
    url = parts._replace(path=path, query=query, fragment="").geturl()
    return url if len(url) <= LONGEST_URL else None


def find_engine(name: str | Engine) -> Engine:
    """The engine of that name: `ddgs` (DuckDuckGo's results), `ddgs-bing` (Bing's), or
    `module:function` of your own.

    A callable is given back. Raises InputError for an unknown name, ImportError where ddgs is
    missing.
    """
    if callable(name):
        return name
    if name in BACKENDS:
        return ddgs_engine(BACKENDS[name])
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"no search engine {name!r} ({error}): take ddgs, ddgs-bing or module:function"
        ) from error


def ddgs_engine(backend: str) -> Engine:
    """An engine that asks one backend of ddgs (https://pypi.org/project/ddgs).

    With the backend left to ddgs, it draws one at random for every page, and the pages don't join.
    """
    require("search", "ddgs")
    from ddgs import DDGS
    from ddgs.exceptions import DDGSException

    client = DDGS(timeout=10)

    def ask(query: str, page: int) -> list[dict]:
        try:
            results = client.images(query, page=page, max_results=None, backend=backend)
        except DDGSException as error:
            # ddgs 9 has this one message for the end of the results, a refusal and a timeout
            hint = (
                " (the end of the results, or a rate limit)" if "No results" in str(error) else ""
            )
            raise NoAnswer(_text(error) + hint) from error
        return [{"url": r["image"], "title": r["title"], "source_page": r["url"]} for r in results]

    return ask
