"""Make the virtual environment: check what it needs, install the project, skip what is done.

Runs on any Python, so that it can say which one is needed.

    python .ci/setup.py [--dev] [FOLDER] [CONSTRAINTS]

FOLDER is .venv by default. CONSTRAINTS is a file of versions for pip; the default file holds the
versions that the tests ran with, and `newest` stands for no file. With --dev, what tests and checks
need is installed as well.
"""

# ruff: noqa: UP031 (old Pythons have no f-strings)
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
ON_LINUX = sys.platform == "linux"
DOWNLOAD = "2.5 GB" if ON_LINUX else "0.5 GB"  # on Linux, torch brings CUDA
DISK = 9 if ON_LINUX else 3  # GB

TO_RUN = "train,serve,notebooks,search,lab"  # extras in pyproject.toml
TO_TEST = "dev"  # has all of these


def wanted(constraints):
    """What the environment is made of, as one text."""
    files = [ROOT / "pyproject.toml"] + ([constraints] if constraints else [])
    content = b"".join(path.read_bytes() for path in files)
    return "%s %s %d.%d" % (hashlib.sha256(content).hexdigest(), ROOT, *sys.version_info[:2])


def missing(folder):
    """What stands in the way, with what to do about it, or None."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = "%d.%d" % sys.version_info[:2]
        return (
            "this is Python %s, artclf needs 3.11 to 3.13: make setup PYTHON=python3.12" % version
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return (
            "this Python has no venv: install it (Debian, Ubuntu: apt install python3-venv) "
            "or take another PYTHON="
        )
    free = shutil.disk_usage(str(folder.parent)).free / 1e9
    if free < DISK:
        message = "%.1f GB free on the disk of %s, %d GB needed: make room"
        return message % (free, folder.parent, DISK)
    return None


def make_environment(folder):
    """Make a virtual environment in `folder`, an empty one where an earlier run made it."""
    made_by_us = folder / ".made-by-artclf"
    make_venv = [sys.executable, "-m", "venv"]
    if made_by_us.exists() or not folder.exists():
        subprocess.run(make_venv + ["--clear", str(folder)], check=True)
        made_by_us.touch()
    else:  # somebody else's environment: added to, never emptied
        subprocess.run(make_venv + [str(folder)], check=True)


def main(folder, constraints=CONSTRAINTS, extras=TO_RUN):
    stamp = folder / ".artclf"  # a line of what it is made of, and a line of extras
    content = wanted(constraints)
    noted = stamp.read_text() if stamp.exists() else ""
    noted_content, _, noted_extras = noted.partition("\n")
    same_versions = noted_content == content
    has_extras = noted_extras in (extras, TO_TEST)
    if same_versions and has_extras and constraints:
        return  # without constraints, the newest versions are looked for each time
    problem = missing(folder)
    if problem:
        sys.exit("setup: " + problem)
    message = "setup: installing into %s; the first time this downloads about %s"
    print(message % (folder, DOWNLOAD), flush=True)
    if not same_versions:
        make_environment(folder)
        stamp.write_text("begun")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    if constraints:
        install += ["-c", str(constraints)]
    install += ["-e", "%s[%s]" % (ROOT, extras)]
    if subprocess.run(install).returncode:
        sys.exit("setup: pip failed, see above; make setup tries again")
    stamp.write_text("%s\n%s" % (content, extras))


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--dev"]
    asked_extras = TO_TEST if "--dev" in sys.argv else TO_RUN
    environment = Path(arguments[0] if arguments else ROOT / ".venv").resolve()
    versions = CONSTRAINTS
    if len(arguments) > 1:
        versions = None if arguments[1] == "newest" else Path(arguments[1]).resolve()
    main(environment, versions, asked_extras)
