"""Fixtures that several test files share."""
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def paintings() -> Path:
    """The folder of real paintings beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "paintings"
    if not (folder / "manifest.csv").exists(): pytest.skip("no ../shared/paintings beside the checkout")
    return folder
