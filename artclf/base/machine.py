"""This machine: what figures depend on beside data and settings, and how its memory is used."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path


def surroundings(device) -> dict:
    """What figures depend on beside data and settings: a dict of `machine`, `commit` and `date`.

    `machine` names the `processor`, the number of its `cores`, and torch's `device`. `commit` is
    the git commit of this code, with `+changes` where tracked files differ from it, and None where
    no git checkout is around it. `date` is now, in UTC.
    """
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "device": name},
        "commit": _commit(Path(__file__).parents[2]),
        "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    }


def processor() -> str:
    """The name of this machine's processor."""
    listed = Path("/proc/cpuinfo")  # on Linux, where Python knows the family alone
    name = (
        re.search(r"model name\s*: (.+)", listed.read_text(encoding="utf-8"))
        if listed.exists()
        else None
    )
    return name[1] if name else platform.processor() or platform.machine()


def _commit(root: Path) -> str | None:
    # only the root's own .git: an environment inside the checkout of something else is not of its commit
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    described = subprocess.run(
        [
            "git",
            "--no-optional-locks",
            "-C",
            root,
            "describe",
            "--always",
            "--abbrev=40",
            "--exclude=*",
            "--dirty=+changes",
        ],
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or None


def keep_freed_memory():
    """Let glibc keep memory that is freed from now on: activations are fetched anew for each batch.

    Of use with glibc alone (mallopt(3)): EfficientNet-Lite0 looks in a fifth less time. What is
    free now is given back.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc, (trim, pad, mmaps) = ctypes.CDLL(None), (-1, -2, -4)
    for option, value in ((mmaps, 0), (trim, 2**31 - 1), (pad, 2**28)):
        libc.mallopt(option, value)
    libc.malloc_trim(0)
