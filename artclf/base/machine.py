"""This machine: what figures depend on beside data and settings, and how its memory is used."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the checkout, where there is one
CPU_INFO = Path("/proc/cpuinfo")  # on Linux, where Python knows only the processor's family

# options of mallopt(3) in glibc
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8


def surroundings(device) -> dict:
    """What figures depend on beside data and settings: a dict of `machine`, `commit` and `date`.

    `machine` names the `processor`, the number of its `cores`, and torch's `device`. `commit` is
    the git commit of this code, with `+changes` where tracked files differ from it, and None where
    no git checkout is around it. `date` is now, in UTC.
    """
    import torch

    on_cuda = device.type == "cuda"
    return {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if on_cuda else device.type,
        },
        "commit": commit_of(ROOT),
        "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    }


def is_offline() -> bool:
    """Whether the user wants nothing to be fetched."""
    return os.environ.get("ARTCLF_OFFLINE") == "1"


def cache_folder() -> Path:
    """The folder for what can be had or computed again: `ARTCLF_CACHE`, or in the user's folder for
    caches.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    folder = os.environ.get("ARTCLF_CACHE") or Path(usual or Path.home() / ".cache") / "artclf"
    return Path(folder)


def processor() -> str:
    """The name of this machine's processor."""
    if CPU_INFO.exists():
        name = re.search(r"model name\s*: (.+)", CPU_INFO.read_text(encoding="utf-8"))
        if name:
            return name[1]
    return platform.processor() or platform.machine()


def commit_of(root: Path) -> str | None:
    """The git commit of the checkout in folder `root`, with `+changes` where files differ from it.

    None without git, and where `root` is not itself a checkout: an environment inside the checkout
    of something else is not of its commit.
    """
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe"]
    command += ["--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    described = subprocess.run(command, capture_output=True, text=True)
    return described.stdout.strip() or None


def keep_freed_memory():
    """Let glibc keep the memory that this process frees from now on, instead of giving it back.

    Activations of a network are then not fetched anew for each batch, which saves up to a fifth of
    the time on a CPU. What is free now is given back. The command line calls it; a notebook may.
    Does nothing where the C library isn't glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(TOP_PAD, 2**28)
    libc.malloc_trim(0)


def limit_freed_memory(kept: int = 2**28):
    """Let glibc give back what this process frees from now on beyond `kept` bytes, and take memory
    from one heap for all threads.

    For a process that runs for long and now and then needs much, such as a server. It undoes
    `keep_freed_memory` in part. Does nothing where the C library isn't glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(ARENA_MAX, 1)
    libc.mallopt(TRIM_THRESHOLD, kept)
    libc.mallopt(TOP_PAD, kept // 4)
    libc.malloc_trim(0)
