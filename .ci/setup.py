"""Make the virtual environment: check what it needs, install the project into it, do nothing if nothing changed.

Runs on any Python, so that it can say which one is needed. Usage: python .ci/setup.py [FOLDER]
"""
# ruff: noqa: UP031 (old Pythons have no f-strings)
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
DOWNLOAD, DISK = ("2.5 GB", 9) if sys.platform == "linux" else ("0.5 GB", 3)  # on Linux, torch brings CUDA


def wanted():
    """What the environment is made of, as one text."""
    files = b"".join(path.read_bytes() for path in (ROOT / "pyproject.toml", CONSTRAINTS))
    return "%s %s %d.%d" % (hashlib.sha256(files).hexdigest(), ROOT, *sys.version_info[:2])


def missing(folder):
    """What stands in the way, with what to do about it, or None."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "this is Python %d.%d, artclf needs 3.11 to 3.13: make setup PYTHON=python3.12" % sys.version_info[:2]
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python has no venv: install it (Debian, Ubuntu: apt install python3-venv) or take another PYTHON="
    free = shutil.disk_usage(str(folder.parent)).free / 1e9
    if free < DISK: return "%.1f GB free on the disk of %s, %d GB needed: make room" % (free, folder.parent, DISK)
    return None


def main(folder):
    stamp, made = folder / ".artclf", folder / ".made-by-artclf"
    if stamp.exists() and stamp.read_text() == wanted(): return
    problem = missing(folder)
    if problem: sys.exit("setup: " + problem)
    print("setup: installing into %s; the first time this downloads about %s" % (folder, DOWNLOAD), flush=True)
    ours = made.exists() or not folder.exists()  # somebody else's environment is added to, never emptied
    subprocess.run([sys.executable, "-m", "venv"] + ["--clear"] * ours + [str(folder)], check=True)
    if ours: made.touch()
    stamp.write_text("begun")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "on"]
    done = subprocess.run([*pip, "-c", str(CONSTRAINTS), "-e", str(ROOT) + "[dev]"])
    if done.returncode: sys.exit("setup: pip failed, see above; make setup tries again")
    stamp.write_text(wanted())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv").resolve())
