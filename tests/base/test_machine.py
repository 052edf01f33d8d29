"""How a process uses its memory, in processes of their own."""

import platform
import subprocess
import sys

import pytest

CODE = """
import sys, threading
from pathlib import Path
from artclf.base import machine

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 // 2**20

def use():
    blocks = [bytearray(b"x" * 2**20) for _ in range(400)]
    del blocks[::2]
    blocks.clear()

machine.keep_freed_memory()
if sys.argv[1] == "limited":
    machine.limit_freed_memory()
threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")
def test_freed_memory_is_kept_or_given_back():
    kept, limited = (
        int(subprocess.check_output([sys.executable, "-c", CODE, how]))
        for how in ("kept", "limited")
    )
    assert kept > 450 and limited < 400
