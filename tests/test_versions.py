"""An export means the same with the oldest and the newest versions of the packages. Runs where
`make test-oldest` or `make test-newest` has made the other environment.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oldest", "newest"])
def test_both_environments_load_both_exports_and_answer_alike(name):
    python = Path(os.environ.get(f"ARTCLF_{name.upper()}", ROOT / f".venv-{name}/bin/python"))
    if not python.exists():
        pytest.skip(f"there is no {python}: make test-{name} makes it")
    comparison = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "versions.py", python],
        stdout=subprocess.PIPE,
        check=True,  # a probability that differs by more than 0.0001 is an error
        encoding="utf-8",
    )
    rows = json.loads(comparison.stdout)
    assert [row["exported by"] for row in rows] == ["this", "other"]
    for row in rows:
        assert len(row["difference"]) == 4
        this, other = row["versions"]
        assert this != other
