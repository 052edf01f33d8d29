"""Run the notebooks headless: on drawn canvases, on a gallery folder, or on URL lists.

Reads `notebooks/*.ipynb`; writes executed copies, as `.ipynb` and as `.html` that opens without a
network, to `EXPORT/notebooks/`.
"""

import ast
import time
from contextlib import nullcontext
from pathlib import Path

from artclf.base.errors import InputError, StepError
from artclf.data import gallery, sample

STEPS = ("01_download", "02_clean", "03_train", "04_interpret", "05_predict")


NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def run_notebooks(
    folder: Path | None = None, lists: Path | None = None, assignments: list[str] = ()
):
    """Execute the notebooks of all steps, and say where to look.

    The pictures come from `folder` (a gallery, served on loopback), from the URL lists in `lists`,
    or are drawn. What is there already is not computed again. `assignments` are `NAME=VALUE` for
    the cells tagged `parameters`. Raises FileNotFoundError where the notebooks or the folder aren't
    there, ValueError for a folder and lists at once, RuntimeError for a cell that failed.
    """
    if folder and lists:
        raise InputError("a gallery folder and --lists are two sources: name one, not both")
    folder = folder and folder.expanduser()  # zsh leaves the ~ of GALLERY=~/pictures as it is
    if folder and not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    parameters = _parsed(assignments)
    if not NOTEBOOKS.is_dir():
        raise FileNotFoundError(
            f"no notebooks in {NOTEBOOKS}: run this in a clone of the repository, "
            "installed with pip install -e ."
        )
    drawn = not (folder or lists)
    name = (
        "sample"
        if drawn
        else folder.resolve().name
        if folder
        else lists.resolve().name.removesuffix("_urls")
    )
    data, out = Path("data") / name, Path("exports") / name
    if drawn:
        sample.draw(folder := data / "gallery")
    server = gallery.serve(folder, data / "urls", faults=drawn) if folder else nullcontext()
    paths = {
        "DATA": data,
        "EXPORT": out,
        "LISTS": lists or data / "urls",
        "REVIEW": (lists or data / "urls") / "review.csv",
    }
    parameters = {
        **{k: str(path.resolve()) for k, path in paths.items()},
        "ALLOW_PRIVATE": bool(folder),
        "FIND_LR": False,
        **parameters,
    }
    with server:
        for step in STEPS:
            execute(NOTEBOOKS / f"{step}.ipynb", out / "notebooks" / f"{step}.ipynb", parameters)
    print(
        f"\nOpen {out / 'notebooks' / '04_interpret.html'}\n     {out / 'report.html'}\n     {out / 'notebooks'}\n"
        "For the real paintings, over the internet: make paintings (artclf run --lists paintings_urls)"
    )


def execute(notebook: Path, copy: Path, parameters: dict) -> Path:
    """Run `notebook` with `parameters` set after its cell tagged `parameters`, and write `copy` and
    its HTML.

    Prints a line per code cell. Only names that the tagged cell sets are set. The copy is written
    when a cell fails, too; then RuntimeError says which.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book = nbformat.read(notebook, as_version=4)
    _inject(book, parameters)
    cells, started = [cell for cell in book.cells if cell.cell_type == "code"], {}
    client = NotebookClient(
        book,
        timeout=None,
        resources={"metadata": {"path": str(notebook.parent)}},
        extra_arguments=[
            "--IPKernelApp.log_level=ERROR"
        ],  # it warns that loopback is not encrypted
        on_cell_start=lambda cell, cell_index: started.update({cell_index: time.time()}),
        on_cell_executed=lambda cell, cell_index, execute_reply: _say(
            notebook, cells.index(cell) + 1, cells, started[cell_index]
        ),
    )
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.execute()
    except CellExecutionError as error:
        raise StepError(
            f"{notebook.name} failed, see {copy}: {error.ename}: {error.evalue}"
        ) from error
    except DeadKernelError as error:
        raise StepError(
            f"{notebook.name} failed, see {copy}: its process ended, perhaps out of memory"
        ) from error
    finally:
        nbformat.write(book, copy)
    copy.with_suffix(".html").write_text(_html(book), encoding="utf-8")
    return copy


def _parsed(assignments: list[str]) -> dict:
    """`NAME=VALUE` strings as a dict; a value that isn't a Python literal is a string."""
    known = (
        {name for step in STEPS for name in _names(NOTEBOOKS / f"{step}.ipynb")}
        if assignments
        else set()
    )
    parsed = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in known:
            raise InputError(
                f"{assignment!r} is not NAME=VALUE with one of {', '.join(sorted(known))}"
            )
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed


def _names(notebook: Path) -> list[str]:
    import nbformat

    return _assigned(_tagged(nbformat.read(notebook, as_version=4)))


def _tagged(book):
    cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"a notebook has {len(cells)} cells tagged `parameters`: it needs one")
    return cells[0]


def _assigned(cell) -> list[str]:
    return [
        target.id
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def _inject(book, parameters: dict):
    import nbformat

    cell = _tagged(book)
    lines = [f"{name} = {parameters[name]!r}" for name in _assigned(cell) if name in parameters]
    injected = nbformat.v4.new_code_cell(
        "\n".join(lines), metadata={"tags": ["injected-parameters"]}
    )
    book.cells.insert(book.cells.index(cell) + 1, injected)


def _html(book) -> str:
    """`book` as a page that asks no server for anything."""
    from nbconvert import HTMLExporter

    return HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="").from_notebook_node(
        book
    )[0]


def _say(notebook: Path, place: int, cells: list, started: float):
    """One line for a cell that ran: which, how long it took, how it begins."""
    line = next(
        (
            line
            for line in cells[place - 1].source.splitlines()
            if line and not line.startswith("#")
        ),
        "",
    )
    print(
        f"{notebook.stem} {place:2}/{len(cells)} {time.time() - started:6.1f} s  {line[:70]}",
        flush=True,
    )
