"""How many small changes to a module its tests notice.

    python benchmarks/mutations.py artclf/split.py tests/test_split.py [more tests ...]
        [--number 60] [--seed 0] [--jobs 1] [--timeout SECONDS] [--list-survivors] [--json FILE]

Run it in the root of the repository. Each small change makes a mutant: `<` becomes `<=`, `+`
becomes `-`, a number grows by one, a condition is negated, a function returns None, and so on
(`changes_of` lists them all). Docstrings, type annotations, imports and `__all__` stay as they are.
For each mutant the tests run with it in place of the module, up to the first test that fails. The
mutant is noticed if one fails, or if they take longer than `--timeout`, and has survived otherwise.
Tests marked slow are left out. `--number` takes that many mutants by chance, else all are run.

What the share says: a survivor is a line that the tests do not pin down, or a change that makes no
difference (an equivalent mutant: `<` for `<=` where both sides are never equal). The script cannot
tell these apart, so 100% is not the aim; read the survivors. A test that fails now and then counts
mutants as noticed that are not.

How it runs: everything that the package and its tests import is imported once. Each mutant then
gets a fork of this process, which imports the package anew and runs pytest. Nothing is written into
the repository: the mutated text is kept in a temporary folder, and an import hook puts it in place
of the file, in processes that the tests start, too. It needs Linux.
"""

import argparse
import ast
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TIMES_AS_LONG = 3  # the default time-out, in times of the tests on the module as it is,
SECONDS_MORE = 20  # and seconds on top, for a machine that has other things to do
MOST_MEMORY = 8 * 2**30  # bytes, of each process: a mutant may collect without end

SWAPPED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}
ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)  # their negation is not their swap
CONDITIONS = ("test", "ifs")  # fields of if, while, ternaries and comprehensions
UNCHANGED = ("annotation", "returns", "format_spec")  # fields: types, and `.2f` in an f-string

# The import hook. Python runs a module of this name when it starts, so that processes that the
# tests start have the mutant, too. The environment says which module, its file, and the new text.
HOOK_FILE = "sitecustomize.py"
HOOK = """
import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path


class MutantLoader(SourceFileLoader):
    def get_code(self, name):
        text = Path(os.environ["MUTANT_TEXT"]).read_text(encoding="utf-8")
        return compile(text, self.path, "exec", dont_inherit=True)


class MutantFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != os.environ.get("MUTANT_MODULE"):
            return None
        file = os.environ["MUTANT_FILE"]
        return spec_from_file_location(name, file, loader=MutantLoader(name, file))


sys.meta_path.insert(0, MutantFinder)
"""


# Making mutants


@dataclass
class Mutant:
    """A module with one small change."""

    line: int
    code: str  # the line before the change
    before: str  # the changed part of it,
    after: str  # and what it has become
    text: str  # the whole module with the change


def mutants_of(text: str) -> list[Mutant]:
    """All mutants of a module's text, in the order of its lines."""
    tree = ast.parse(text)
    lines = text.splitlines()
    mutants = []
    for slot in slots_of(tree, 1):
        node = slot.holder[slot.key]
        changes = list(changes_of(node))
        if slot.is_condition and negation_is_new(node):
            changes.append(ast.UnaryOp(ast.Not(), node))
        for changed in changes:
            slot.holder[slot.key] = changed
            mutants.append(
                Mutant(
                    line=slot.line,
                    code=lines[slot.line - 1].strip(),
                    before=ast.unparse(node),
                    after=ast.unparse(changed),
                    text=ast.unparse(tree),
                )
            )
        slot.holder[slot.key] = node
    return sorted(mutants, key=lambda mutant: mutant.line)


@dataclass
class Slot:
    """A place of the syntax tree that a node can be put into: `holder[key]`, and its line."""

    holder: dict | list
    key: str | int
    line: int
    is_condition: bool


def slots_of(parent: ast.AST, parents_line: int, in_f_string: bool = False) -> Iterator[Slot]:
    """The places of all nodes below `parent` that may be changed."""
    # before Python 3.12, the nodes inside an f-string do not know their lines
    in_f_string = in_f_string or isinstance(parent, ast.JoinedStr)
    for field, value in ast.iter_fields(parent):
        if field in UNCHANGED:
            continue
        in_list = isinstance(value, list)
        for key, child in enumerate(value) if in_list else [(field, value)]:
            if not isinstance(child, ast.AST) or stays(child):
                continue
            line = parents_line if in_f_string else getattr(child, "lineno", parents_line)
            yield Slot(value if in_list else vars(parent), key, line, field in CONDITIONS)
            yield from slots_of(child, line, in_f_string)


def stays(node: ast.AST) -> bool:
    """Whether nothing in a node is changed: an import, a bare constant (docstring), `__all__`."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
    return False


def changes_of(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that take the place of `node`, one for each mutant."""
    match node:
        case ast.Compare(ops=operators):
            for place, operator in enumerate(operators):
                swapped = SWAPPED[type(operator)]()
                yield altered(node, ops=[*operators[:place], swapped, *operators[place + 1 :]])
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp():
            if type(node.op) in SWAPPED:
                yield altered(node, op=SWAPPED[type(node.op)]())
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=str()):
            if node.value:
                yield ast.Constant(f"XX{node.value}XX")
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.Return(value=ast.Constant(value=None)):
            pass
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Break() | ast.Continue():
            yield SWAPPED[type(node)]()


def altered(node: ast.AST, **fields) -> ast.AST:
    """A copy of a node with other values in some of its fields."""
    return type(node)(**{**dict(ast.iter_fields(node)), **fields})


def negation_is_new(condition: ast.AST) -> bool:
    """Whether no other change does the same to a condition as its negation."""
    match condition:
        case ast.Compare(ops=[operator]):
            return isinstance(operator, ORDERINGS)
        case ast.UnaryOp(op=ast.Not()) | ast.Constant(value=bool()):
            return False
    return True


# Running the tests


@dataclass
class Target:
    """What is measured: a module, the tests, and the root of the repository that both lie in."""

    root: Path
    file: Path
    module: str
    tests: list[Path]

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def find_target(file: Path, tests: list[Path]) -> Target:
    """The module that a file is. Refuses where Python would import its package from elsewhere."""
    for path in [file, *tests]:
        if not path.is_file():
            raise SystemExit(f"{path} is no file")
    file = file.resolve()
    root = file.parent
    while (root / "__init__.py").exists():
        root = root.parent
    parts = file.relative_to(root).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    target = Target(root, file, ".".join(parts), [test.resolve() for test in tests])
    sys.path[0] = str(root)  # it was the folder of this script
    found = importlib.util.find_spec(target.package)
    if found is None or not Path(found.origin).is_relative_to(root):
        raise SystemExit(f"{target.package} is not imported from {root}: {found and found.origin}")
    return target


def import_libraries(target: Target):
    """Import what the package and its tests import of other packages, so that forks have it."""
    package = target.root / target.package
    sources = [*package.rglob("*.py"), *target.tests, *target.tests[0].parent.glob("conftest.py")]
    own = {target.package, *(file.stem for file in target.tests[0].parent.glob("*.py"))}
    names = {"pytest"}
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(names):
            if name.partition(".")[0] not in own:
                # it may be a function, a library of another platform, or an optional one
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
    if target.package in sys.modules:
        raise SystemExit(f"a library has imported {target.package}: no fork would import it anew")
    gc.collect()
    gc.freeze()  # forks share this memory, and need not search it for garbage


@dataclass
class Run:
    """The tests in a process of their own, which leads a process group."""

    process: int
    folder: Path
    started: float
    mutant: Mutant | None = None


def start(target: Target, folder: Path, mutant: Mutant | None = None) -> Run:
    """Start the tests with a mutant, or with the module as it is. They write below `folder`."""
    folder.mkdir()
    if mutant:
        (folder / "mutant.py").write_text(mutant.text, encoding="utf-8")
    process = os.fork()
    if process == 0:
        code = 3
        try:
            code = run_tests(target, folder, mutant)
        finally:
            sys.stdout.flush()
            os._exit(code)
    return Run(process, folder, time.monotonic(), mutant)


def run_tests(target: Target, folder: Path, mutant: Mutant | None) -> int:
    """Run the tests in this fork: pytest's exit code, 0 where all passed."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    nothing = os.open(os.devnull, os.O_RDWR)
    output = nothing if mutant else os.open(folder / "output.txt", os.O_CREAT | os.O_WRONLY)
    for stream, file in enumerate([nothing, output, output]):
        os.dup2(file, stream)
    temporary = folder / "tmp"
    temporary.mkdir()
    os.chdir(temporary)  # what a mutant writes to a relative path lands here
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    # no bytecode beside the sources; processes that the tests start find the package and the hook
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    paths = [str(folder), str(target.root), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if mutant:
        (folder / HOOK_FILE).write_text(HOOK, encoding="utf-8")
        os.environ["MUTANT_MODULE"] = target.module
        os.environ["MUTANT_FILE"] = str(target.file)
        os.environ["MUTANT_TEXT"] = str(folder / "mutant.py")
        exec(HOOK, {"__name__": "mutant_hook"})

    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--rootdir", target.root]
    return pytest.main([*map(str, options), *map(str, target.tests)])


def wait(runs: list[Run], timeout: float) -> tuple[Run, bool]:
    """The first of the runs that ends or takes too long, and whether all its tests passed."""
    while True:
        for run in runs:
            # it is not reaped before `stop`, so that its number still names its group
            ended = os.waitid(os.P_PID, run.process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended or time.monotonic() - run.started > timeout:
                return run, bool(ended) and ended.si_code == os.CLD_EXITED and not ended.si_status
        time.sleep(0.02)


def stop(run: Run):
    """End whatever is left of a run: its process, those that it started, its folder."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process, signal.SIGKILL)
    os.waitpid(run.process, 0)
    shutil.rmtree(run.folder, ignore_errors=True)


def seconds_unmutated(target: Target, folder: Path) -> float:
    """How long the tests take on the module as it is. Exits with what they print if they fail."""
    run = start(target, folder)
    try:
        _, passed = wait([run], float("inf"))
        if not passed:
            said = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{said}\nthe tests must pass on the module as it is")
        return time.monotonic() - run.started
    finally:
        stop(run)


def results_of(
    mutants: list[Mutant], target: Target, folder: Path, timeout: float, jobs: int
) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant when its tests have ended, and whether it survived; `jobs` run at a time."""
    waiting = list(enumerate(mutants))[::-1]
    running = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, mutant = waiting.pop()
                running.append(start(target, folder / str(number), mutant))
            run, survived = wait(running, timeout)
            running.remove(run)
            stop(run)
            yield run.mutant, survived
    finally:
        for run in running:
            stop(run)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", type=Path, help="the file of the module")
    parser.add_argument("tests", type=Path, nargs="+", help="the files of its tests, in order")
    parser.add_argument("--number", type=int, help="mutants drawn by chance (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument(
        "--timeout",
        type=float,
        help="seconds for the tests of a mutant "
        f"(default: {TIMES_AS_LONG} times those without a mutant, plus {SECONDS_MORE})",
    )
    parser.add_argument("--list-survivors", action="store_true", help="print each survivor")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and survivors")
    return parser.parse_args()


def main():
    args = parse_args()
    target = find_target(args.module, args.tests)
    mutants = mutants_of(target.file.read_text(encoding="utf-8"))
    possible = len(mutants)
    if args.number is not None and args.number < possible:
        mutants = random.Random(args.seed).sample(mutants, args.number)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the fork of a process with threads may hang
    import_libraries(target)

    survivors = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no test is left running
    with tempfile.TemporaryDirectory(prefix="mutations-") as name:
        folder = Path(name)
        seconds = seconds_unmutated(target, folder / "unmutated")
        timeout = args.timeout or TIMES_AS_LONG * seconds + SECONDS_MORE
        results = results_of(mutants, target, folder, timeout, args.jobs)
        for done, (mutant, survived) in enumerate(results, 1):
            if survived:
                survivors.append(mutant)
            if sys.stderr.isatty():
                print(f"{done} of {len(mutants)}", end="\r", file=sys.stderr)
    survivors.sort(key=lambda mutant: mutant.line)

    noticed = len(mutants) - len(survivors)
    percent = round(100 * noticed / len(mutants), 1) if mutants else None
    if args.list_survivors:
        for mutant in survivors:
            change = f"`{mutant.before}` -> `{mutant.after}`"
            print(f"{args.module}:{mutant.line}: {change} in: {mutant.code}")
    print(f"{args.module}: {len(mutants)} of {possible} mutants, {noticed} noticed, {percent}%")
    if args.json:
        figures = {
            "module": str(args.module),
            "tests": list(map(str, args.tests)),
            "possible": possible,
            "mutants": len(mutants),
            "seed": args.seed,
            "noticed": noticed,
            "percent": percent,
            "seconds unmutated": round(seconds, 1),
            "survivors": [
                {"line": m.line, "code": m.code, "before": m.before, "after": m.after}
                for m in survivors
            ],
        }
        args.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
