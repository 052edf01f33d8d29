"""The pages: what README and `docs/` say of commands and files, and the site that `make docs`
builds of them.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

from artclf import run
from artclf.cli import app

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = get_command(app).commands
STEPS = ("search", "download", "clean", "train", "interpret", "predict", "serve")
CODE = re.compile(r"^```(?:\w*)\n(.*?)^```|`([^`\n]+(?:\n[^`\n]+)?)`", re.MULTILINE | re.DOTALL)


def code_of(page: Path) -> list[str]:
    """The lines of code in a page: those of blocks, and pieces within sentences."""
    lines = []
    for block, piece in CODE.findall(page.read_text(encoding="utf-8")):
        lines += block.splitlines() or [piece.replace("\n", " ")]
    return [line.partition(" # ")[0] for line in lines]


def options_of(command) -> set[str]:
    names = {"--help"}
    for parameter in command.params:
        names.update(parameter.opts, parameter.secondary_opts)
    return names


def with_subcommands(command) -> list:
    return [command, *getattr(command, "commands", {}).values()]


ALL_OPTIONS = set().union(
    *(options_of(one) for command in COMMANDS.values() for one in with_subcommands(command))
)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def page(request):
    return request.param


def test_the_commands_of_a_page_exist_with_their_options(page):
    for line in code_of(page):
        for name, arguments in re.findall(r"\bartclf ([a-z]+)\b([^&|]*)", line):
            assert name in COMMANDS, line
            command = COMMANDS[name]
            if hasattr(command, "commands"):
                assert arguments.split()[0] in command.commands, line
                command = command.commands[arguments.split()[0]]
            for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", arguments):
                assert option in options_of(command), line


def test_the_options_that_a_page_names_alone_exist(page):
    for line in code_of(page):
        if line.startswith("--"):
            assert line.split()[0] in ALL_OPTIONS, line


def test_the_parameters_of_notebooks_that_a_page_sets_exist(page):
    names = set()
    for step in run.STEPS:
        names.update(run._parameters_of(run.NOTEBOOKS / f"{step}.ipynb"))
    for line in code_of(page):
        assert set(re.findall(r"-p ([A-Z_]+)=", line)) <= names, line


def test_the_targets_of_make_that_a_page_names_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in code_of(page):
        for target in re.findall(r"(?:^|\s)make ([\w-]+)", line):
            assert target in targets, line


def test_the_files_that_a_page_leads_to_exist(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            target = link.partition("#")[0]
            assert not target or (page.parent / target).is_file(), link


def test_the_readme_fits_on_two_screens():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90
    assert all(len(line) <= 100 for line in lines if not line.startswith("|"))


def test_the_readme_has_a_row_for_each_step():
    rows = re.findall(r"^\| (\w+) \| (\[\d.*)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == list(STEPS)
    for number, (name, row) in enumerate(rows):
        notebook = f"{number:02}_{name}"
        assert row.startswith(f"[{notebook}](notebooks/{notebook}.ipynb) | `artclf {name}`"), row


def test_every_page_of_docs_is_named_in_the_readme_and_on_the_first_page():
    for start in (README, ROOT / "docs/index.md"):
        text = start.read_text(encoding="utf-8")
        for path in PAGES[1:]:
            is_start = path.name == "index.md"
            is_of_the_site = path.name == "api.md" and start == README
            assert is_start or is_of_the_site or f"{path.name})" in text, (start.name, path.name)


# The site


class Page(HTMLParser):
    """`links`, where a page leads to; `loads`, what it needs to be shown; `ids`, its anchors."""

    def __init__(self, file: Path):
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        if tag in ("a", "area"):
            self.links.append(attributes.get("href"))
        else:
            self.loads += [attributes.get(name) for name in ("src", "href", "data", "poster")]
        self.links = [link for link in self.links if link]
        self.loads = [link for link in self.loads if link]


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """A copy of what the site is made of, with an executed notebook whose outputs are of all
    kinds.
    """
    import nbformat

    folder = tmp_path_factory.mktemp("clone")
    names = ("artclf", "docs", "notebooks", "benchmarks", "paintings_urls", ".ci")
    for name in names:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("data", "exports"):
        (folder / name).mkdir()
        shutil.copy(ROOT / name / "README.md", folder / name)
    book = nbformat.read(folder / "notebooks/05_predict.ipynb", as_version=4)
    [parameters, imports, *_] = [c for c in book.cells if c.cell_type == "code"]
    parameters.source = f"DATA = '{folder.resolve() / 'data'}'"
    new = nbformat.v4.new_output
    imports.outputs = [
        new("stream", name="stdout", text="printed <b>\x1b[31mred\x1b[0m</b>"),
        new("stream", name="stderr", text="a warning"),
        new("display_data", {"text/plain": "read: 100%|#####| 3/3 [00:01<00:00]"}),
        new("display_data", {"text/html": "<table><tr><td>\n\n    cell *as it is*\n</table>"}),
        new("display_data", {"text/plain": "x", "image/png": "iVBORw0KGgo="}),
        new("execute_result", {"text/plain": "plain"}, execution_count=1),
        new("display_data", {"application/vnd.widget+json": {}}),
        new("error", ename="E", evalue="e", traceback=["\x1b[31mTraceback\x1b[0m", "last line"]),
    ]
    executed = folder / "exports/sample/notebooks/05_predict.ipynb"
    executed.parent.mkdir(parents=True)
    nbformat.write(book, executed)
    return folder


@pytest.fixture(scope="session")
def site(sources) -> Path:
    """The site, built strictly: a dead link or anchor, or a page that is left out, is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return sources / "site"


@pytest.fixture(scope="session")
def built(site) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


@pytest.mark.slow
def test_the_site_has_pages_notebooks_modules_and_commands(site, built):
    for path in PAGES[1:]:
        assert f"{path.stem}.html" in built
    for notebook in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in notebook.parts:
            name = notebook.relative_to(ROOT).with_suffix(".html").as_posix()
            assert name in built
    for name in (*STEPS, "run", "model/exports", "data/splits", "results/plots", "lab/leaks"):
        assert f"api/{name}.html" in built
    text = (site / "api/model/exports.html").read_text(encoding="utf-8")
    assert "artclf.model.exports.load_learner" in built["api/model/exports.html"].ids
    assert "It is a pickle, and loading one runs whatever code is in it." in text
    assert {f"artclf-{name}" for name in COMMANDS} <= built["api/cli.html"].ids


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(built):
    for name, page in built.items():
        for link in page.loads:
            assert not urlsplit(link).netloc, (name, link)


@pytest.mark.slow
def test_no_link_of_the_site_is_dead(built, site):
    for name, page in built.items():
        if name == "404.html":  # its links begin at the root of a server
            continue
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path))
            target = unquote(target) if parts.path else name
            assert (site / target).is_file(), (name, link)
            if parts.fragment and target in built:
                fragment = unquote(parts.fragment)
                assert fragment in built[target].ids or fragment == "__skip", (name, link)


@pytest.mark.slow
def test_an_executed_notebook_is_shown_with_its_outputs(site):
    text = (site / "notebooks/05_predict.html").read_text(encoding="utf-8")
    outputs = re.findall(r'<div class="output">(.*?)</div>', text, re.DOTALL)
    assert outputs == [
        "<pre>printed &lt;b&gt;red&lt;/b&gt;</pre>",
        "<table><tr><td>\n\n    cell *as it is*\n</table>",
        '<img alt="" src="data:image/png;base64,iVBORw0KGgo=">',
        "<pre>plain</pre>",
        "<pre>Traceback\nlast line</pre>",
    ]
    assert "data-output" not in text and "a warning" not in text
    assert str(site.resolve().parent) not in text and "../data" in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_site_fits_on_wide_and_narrow_screens(site, tab, width):
    tab.set_viewport_size({"width": width, "height": 900})
    for name in ("index", "readme", "figures", "benchmarks", "notebooks/03_train", "api/train"):
        tab.goto((site / f"{name}.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name
        assert tab.evaluate("[...document.images].every(picture => picture.naturalWidth > 0)"), name


@pytest.mark.slow
def test_a_page_that_is_opened_as_a_file_can_be_searched(site, tab):
    tab.goto((site / "index.html").as_uri())
    tab.locator(".md-search__input").click()
    tab.keyboard.type("proxy")
    found = tab.locator(".md-search-result a", has_text="cannot connect").first
    found.wait_for()
    assert "questions.html" in found.get_attribute("href")
