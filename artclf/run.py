"""Run the notebooks headless: on drawn canvases, on a gallery folder, or on URL lists.

Reads `notebooks/*.ipynb`; writes executed copies to `EXPORT/notebooks/`, as `.ipynb` and as `.html`
that opens without a network.
"""

import ast
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artclf import download
from artclf.base import settings
from artclf.base.errors import InputError, StepError
from artclf.base.extras import require
from artclf.base.files import make_folder, write_text
from artclf.base.fingerprints import fingerprint

STEPS = ("01_download", "02_clean", "03_train", "04_interpret", "05_predict")
# how long these take with the drawn canvases on two cores
MAKING = {"01_download": "half a minute", "02_clean": "a minute", "03_train": "two minutes"}
# the parameters whose ranges have another name in base.settings
RANGES = {"CANVASES": "count", "SURE": "min_probability"}
MAY_BE_NONE = ("CANVASES", "MAX_PER_PERIOD")
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def run_notebooks(
    folder: Path | None = None,
    lists: Path | None = None,
    assignments: Sequence[str] = (),
    again: bool = False,
):
    """Execute the notebooks of all steps, and print where the results are.

    The pictures come from `folder` (a gallery, which is served on loopback), from the URL lists in
    `lists`, or are drawn. What is there already is not computed again, and where nothing has
    changed since all of them ran, no notebook runs, unless `again` is set. `assignments` are
    `NAME=VALUE` for the cells tagged `parameters`. Raises FileNotFoundError where the notebooks or
    the folder are missing, ImportError without the extra `notebooks`, InputError for a folder and
    lists at once or an unknown parameter, StepError for a cell that failed.
    """
    require("notebooks", "ipykernel", "nbclient", "nbconvert", "nbformat")
    if folder and lists:
        raise InputError("a gallery folder and --lists are two sources: name one, not both")
    if folder:
        folder = folder.expanduser()  # zsh leaves the ~ of GALLERY=~/pictures as it is
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
    parameters = _parse_assignments(assignments)
    if not NOTEBOOKS.is_dir():
        raise FileNotFoundError(
            f"no notebooks in {NOTEBOOKS}: run this in a clone of the repository, "
            "installed with pip install -e ."
        )
    if folder:
        data = download.data_folder(folder, "gallery")
        source = {"GALLERY": str(folder.resolve()), "CANVASES": None}
    elif lists:
        data = download.data_folder(lists, "lists")
        source = {"GALLERY": None, "CANVASES": None}
    else:
        data = Path("data/sample")
        source = {"GALLERY": str((data / "gallery").resolve())}
    out = Path("exports") / data.name
    lists_folder = lists or data / "urls"
    defaults = {
        "DATA": str(data.resolve()),
        "EXPORT": str(out.resolve()),
        "LISTS": str(lists_folder.resolve()),
        "REVIEW": str((lists_folder / "review.csv").resolve()),
        "FIND_LR": False,
        **source,
    }
    parameters = {**defaults, **parameters}
    copies = out / "notebooks"
    sources = [folder.resolve()] if folder else []
    sources += [data.resolve(), lists_folder.resolve(), out.resolve()]

    def state() -> str:
        folders = [NOTEBOOKS, Path(__file__).parent, *sources]
        return fingerprint(parameters, folders, without=copies.resolve())

    done = copies / ".fingerprint"
    if not again and done.exists() and done.read_text(encoding="utf-8") == state():
        print(
            "Nothing has changed since the notebooks ran: artclf run --again runs them once more."
        )
    else:
        for step in STEPS:
            execute(NOTEBOOKS / f"{step}.ipynb", copies / f"{step}.ipynb", parameters)
        write_text(done, state())
    print(f"\nOpen {out / 'notebooks' / '04_interpret.html'}")
    print(f"     {out / 'report.html'}")
    print(f"     {out / 'notebooks'}")
    print("For the real paintings, over the internet:", end=" ")
    print("make paintings (artclf run --lists paintings_urls)")


def enter(notebook: str):
    """Go to the folder of `notebook`, where its paths start, if the kernel started elsewhere.

    `notebook` is a path below `notebooks/`, without `.ipynb`. A copy of the notebook in the current
    folder counts, too. Raises FileNotFoundError outside a clone of the repository.
    """
    file = NOTEBOOKS / f"{notebook}.ipynb"
    if Path(file.name).exists():
        return
    if not file.exists():
        raise FileNotFoundError(f"no {file}: start the kernel in the folder of this notebook")
    os.chdir(file.parent)
    print(f"Paths start in {file.parent}")


def make_missing(step: str, data, out=None):
    """Run the steps before `step` whose results are missing in `data` and `out`, with their
    defaults, on the drawn canvases; say what is done.

    Other data sets than `data/sample` are the reader's: FileNotFoundError then names the notebook
    that makes what is missing.
    """
    data = Path(data)
    missing = _missing_steps(step, data, out)
    if missing and data.name != "sample":
        notebooks = ", ".join(f"{name} ({MAKING[name]})" for name in missing)
        raise FileNotFoundError(
            f"{step} needs what {notebooks} makes from {data}: run that first, with the same DATA"
        )
    if "01_download" in missing:
        print(f"Drawing canvases and fetching them into {data} ({MAKING['01_download']}):")
        download.fetch_canvases(data)
    if "02_clean" in missing:
        from artclf import clean

        print(f"Cleaning them ({MAKING['02_clean']}):")
        clean.clean_all(data)
    if "03_train" in missing:
        from artclf import train

        print(f"Training a classifier into {out} ({MAKING['03_train']}):")
        train.fit(data, out)


def _missing_steps(step: str, data: Path, out) -> list[str]:
    """The notebooks before `step` whose results are not there."""
    missing = []
    if not (data / "catalogue.db").exists():
        missing = ["01_download", "02_clean"]
    elif not (data / "clean").exists():
        missing = ["02_clean"]
    if out is not None and not (Path(out) / "predictions.csv").exists():
        missing.append("03_train")
    before = STEPS[: STEPS.index(step)] if step in STEPS else STEPS
    return [name for name in missing if name in before]


def execute(notebook: Path, copy: Path, parameters: dict) -> Path:
    """Run `notebook` with `parameters` set after its cell tagged `parameters`; return `copy`.

    Writes the executed notebook to `copy` and its HTML beside it, and prints a line per code cell.
    Sets only the names that the tagged cell sets. Where a cell fails, the copy is written all the
    same, and StepError says which cell it was.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book = nbformat.read(notebook, as_version=4)
    _insert_parameters(book, parameters)
    report = _CellReport(notebook.stem, [c for c in book.cells if c.cell_type == "code"])
    client = NotebookClient(
        book,
        timeout=None,
        resources={"metadata": {"path": str(notebook.parent)}},
        # below ERROR, the kernel warns that its connection on loopback is not encrypted
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        on_cell_start=report.start,
        on_cell_executed=report.finish,
    )
    make_folder(copy.parent)
    failed = f"{notebook.name} failed, see {copy}"
    try:
        client.execute()
    except CellExecutionError as error:
        raise StepError(f"{failed}: {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise StepError(f"{failed}: its process ended, perhaps out of memory") from error
    finally:
        nbformat.write(book, copy)
    write_text(copy.with_suffix(".html"), _html(book))
    return copy


@dataclass
class _CellReport:
    """Prints a line for every code cell that ran: which one, its seconds, how it begins."""

    name: str
    cells: list
    started: float = 0.0

    def start(self, cell, cell_index):
        self.started = time.time()

    def finish(self, cell, cell_index, execute_reply):
        seconds = time.time() - self.started
        number = self.cells.index(cell) + 1
        code = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
        first_line = code[0][:70] if code else ""
        print(
            f"{self.name} {number:2}/{len(self.cells)} {seconds:6.1f} s  {first_line}", flush=True
        )


def _parse_assignments(assignments: Sequence[str]) -> dict:
    """`NAME=VALUE` texts as a dict; a value that isn't a Python literal is a text. Raises
    InputError for another text or name, SettingError for a number out of its range.
    """
    if not assignments:
        return {}
    names = set()
    for step in STEPS:
        names.update(_parameters_of(NOTEBOOKS / f"{step}.ipynb"))
    parameters = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in names:
            raise InputError(
                f"{assignment!r} is not NAME=VALUE with one of {', '.join(sorted(names))}"
            )
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    _check_numbers(parameters)
    return parameters


def _check_numbers(parameters: dict):
    """Raise SettingError where a parameter makes no sense, before the first notebook runs."""
    for name, value in parameters.items():
        allowed = settings.RANGES.get(RANGES.get(name, name.lower()))
        if allowed and not (value is None and name in MAY_BE_NONE):
            allowed.check(name, value)
    if "PARTS" in parameters:
        settings.check_parts(parameters["PARTS"])


def _parameters_of(notebook: Path) -> list[str]:
    import nbformat

    return _assigned_names(_parameters_cell(nbformat.read(notebook, as_version=4)))


def _parameters_cell(book):
    cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"a notebook has {len(cells)} cells tagged `parameters`: it needs one")
    return cells[0]


def _assigned_names(cell) -> list[str]:
    names = []
    for statement in ast.parse(cell.source).body:
        if isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return names


def _insert_parameters(book, parameters: dict):
    """Put a cell that sets `parameters` after the cell tagged `parameters`."""
    import nbformat

    cell = _parameters_cell(book)
    lines = [
        f"{name} = {parameters[name]!r}" for name in _assigned_names(cell) if name in parameters
    ]
    metadata = {"tags": ["injected-parameters"]}
    new_cell = nbformat.v4.new_code_cell("\n".join(lines), metadata=metadata)
    book.cells.insert(book.cells.index(cell) + 1, new_cell)


def _html(book) -> str:
    """`book` as a page that asks no server for anything."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(require_js_url="", mathjax_url="", mermaid_js_url="")
    page, _ = exporter.from_notebook_node(book)
    return page
