"""The pages of the site that do not stand in `docs/`: notebooks, commands, modules, READMEs.

mkdocs calls the functions `on_...` while it builds (`hooks` in mkdocs.yml). Every page comes from a
file of the repository. So a link in a Markdown file that leads to another file of the repository,
and works where the file is read as it is, leads to the page of that file in the site.
"""

import ast
import html
import posixpath
import re
from pathlib import Path

import nbformat
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
EXECUTED = ROOT / "exports/sample/notebooks"  # by `make run`
TEXTS = {
    "README.md": "readme.md",
    "paintings_urls/README.md": "paintings_urls.md",
    "data/README.md": "data_folder.md",
    "exports/README.md": "exports_folder.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
}
KINDS = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
LIST_OF_COMMANDS = re.compile(r"\*\*Commands\*\*:\n\n(\* .*\n)+")
PROGRESS = re.compile(r"[^\n]*\d%\|[^\n]*\|")  # a bar
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal

_page_of: dict[str, str] = {}  # what `pages` found
_outputs: dict[str, list[str]] = {}  # page -> the HTML of each output of its notebook


def pages() -> dict[str, str]:
    """The page of each file that has one: path in the repository -> path in the site's sources."""
    found = {f"docs/{file.name}": file.name for file in (ROOT / "docs").glob("*.md")}
    found |= TEXTS
    for notebook in (ROOT / "notebooks").rglob("*.ipynb"):
        path = notebook.relative_to(ROOT)
        if ".ipynb_checkpoints" not in path.parts:
            found[path.as_posix()] = path.with_suffix(".md").as_posix()
    for module in modules():
        found[f"artclf/{module}.py"] = f"api/{module}.md"
    found["artclf/cli.py"] = "api/cli.md"
    return found


def modules() -> list[str]:
    """The modules that have a page, such as `train` and `data/splits`: those with a public name.

    First the steps, in the order of their notebooks.
    """
    package = ROOT / "artclf"
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    steps = [notebook.stem.partition("_")[2] for notebook in notebooks]
    names = [step for step in steps if (package / f"{step}.py").exists()]
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).with_suffix("").as_posix()
        if file.name == "__init__.py":  # its names have a table in docs/api.md
            continue
        is_listed = name == "cli" or name.startswith("commands/")  # by page Commands
        if not is_listed and name not in names and has_public_name(file):
            names.append(name)
    return names


def has_public_name(module: Path) -> bool:
    """Whether a module has a function or class with a docstring that others may use."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition and not node.name.startswith("_") and ast.get_docstring(node):
            return True
    return False


# What mkdocs calls


def on_config(config):
    """Add notebooks and modules to the navigation."""
    _page_of.clear()
    _page_of.update(pages())
    notebooks = sorted(page for file, page in _page_of.items() if file.endswith(".ipynb"))
    steps = [page for page in notebooks if "experiments" not in page]
    experiments = [page for page in notebooks if "experiments" in page]
    config.nav.append({"Notebooks": [*steps, {"Experiments": experiments}]})
    of_room: dict[str, list] = {}
    for module in modules():
        room, _, name = module.rpartition("/")
        of_room.setdefault(room or "Steps", []).append({name: f"api/{module}.md"})
    rooms = [{room: entries} for room, entries in of_room.items()]
    config.nav.append({"API": ["api.md", {"Commands": "api/cli.md"}, *rooms]})
    return config


def on_files(files, config):
    """Add the pages that do not stand in `docs/`."""
    for path, page in _page_of.items():
        if path.startswith("docs/"):
            continue
        if path.endswith(".ipynb"):
            text = notebook_text(path, page)
        elif path == "artclf/cli.py":
            text = commands_text()
        elif path.endswith(".py"):
            text = "::: " + path.removesuffix(".py").replace("/", ".")
        else:
            text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links to files of the repository lead to the pages of these files."""
    here = page.file.src_uri
    [origin] = [path for path, uri in _page_of.items() if uri == here]

    def lead(link) -> str:
        if "://" in link[1]:
            return link[1]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link[1]))
        picture = target.removeprefix("docs/") if target.startswith("docs/") else None
        target = _page_of.get(target, picture)
        if target is None:
            return link[1]  # a dead link, which mkdocs tells
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(lead, markdown)


def on_page_content(content, page, config, files):
    """Put the outputs of a notebook in their places: Markdown would change them."""
    outputs = _outputs.get(page.file.src_uri, [])
    for number, output in enumerate(outputs):
        block = f'<div class="output">{output}</div>' if output else ""
        content = content.replace(placeholder(number), block)
    return content


# Notebooks


def notebook_text(path: str, page: str) -> str:
    """The Markdown of a notebook, as it was executed where there is such a copy."""
    executed = EXECUTED / Path(path).name
    is_step = "/experiments/" not in path
    file = executed if is_step and executed.exists() else ROOT / path
    outputs = _outputs[page] = []
    blocks = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
        elif cell.cell_type == "code":
            blocks.append(f"```python\n{without_root(cell.source)}\n```")
            for output in cell.outputs:
                blocks.append(placeholder(len(outputs)))
                outputs.append(output_html(output))
    return "\n\n".join(blocks)


def placeholder(number: int) -> str:
    return f'<div data-output="{number}"></div>'


def output_html(output) -> str:
    """An output of a cell as HTML; '' for progress, warnings, and what only a running notebook can
    show.
    """
    if output.output_type == "stream":
        return plain(output.text) if output.name == "stdout" else ""
    if output.output_type == "error":
        return plain("\n".join(output.traceback))
    for kind in KINDS:
        content = output.data.get(kind)
        if content is None:
            continue
        if kind == "text/plain":
            return "" if PROGRESS.match(content) else plain(content)
        if kind.startswith("image/") and kind != "image/svg+xml":
            return f'<img alt="" src="data:{kind};base64,{content.strip()}">'
        return content
    return ""


def plain(text: str) -> str:
    return f"<pre>{html.escape(without_root(COLOURS.sub('', text)))}</pre>"


def without_root(text: str) -> str:
    """`text` with paths as from the notebook's folder, whoever's machine ran it."""
    return text.replace(str(ROOT), "..")


# Commands


def commands_text() -> str:
    """The help of all commands as Markdown, by Typer."""
    from typer import Context
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from artclf.cli import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=Context(command), name="artclf")
    text = text.replace("# `artclf`\n", "# Commands\n", 1)
    text = LIST_OF_COMMANDS.sub("", text)  # with descriptions that are cut off
    return re.sub(r"(`[^`]*`)|<", lambda match: match[1] or "&lt;", text)
