"""artclf: build a data set of paintings, teach a network their periods, look at what it learned."""
import importlib
import os
import platform
import re
import shutil
import subprocess
import time
import warnings
from pathlib import Path

__version__ = "0.1.0"
__all__ = ["Classifier", "load", "load_learner", "read_catalogue"]

_HOME = {"Classifier": "classifier", "load": "predict", "load_learner": "predict", "read_catalogue": "catalogue"}

# What libraries below say about each other, which a reader of a notebook can do nothing about:
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\b")  # fastai scripts a function on import
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"PIL\.Image\b")  # large: step clean has its limit
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # damaged tags: step clean decodes and judges
warnings.filterwarnings("ignore", category=Warning, module=r"tqdm\.auto\b")  # TqdmWarning, where ipywidgets is missing


def __getattr__(name):
    """Import the module behind a public name when it is first used, so that `import artclf` stays instant."""
    if name not in _HOME: raise AttributeError(f"module 'artclf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"artclf.{_HOME[name]}"), name)


def surroundings(device) -> dict:
    """What figures depend on beside data and settings: a dict of `machine`, `commit` and `date`.

    `machine` names the `processor`, the number of its `cores`, and torch's `device`. `commit` is the git commit of this
    code, with `+changes` where tracked files differ from it, and None where no git checkout is around it. `date` is
    now, in UTC.
    """
    import torch
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"machine": {"processor": processor(), "cores": os.cpu_count(), "device": name},
            "commit": _commit(Path(__file__).parents[1]), "date": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())}


def processor() -> str:
    """The name of this machine's processor."""
    listed = Path("/proc/cpuinfo")  # on Linux, where Python knows the family alone
    name = re.search(r"model name\s*: (.+)", listed.read_text(encoding="utf-8")) if listed.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def _commit(root: Path) -> str | None:
    # only the root's own .git: an environment inside the checkout of something else is not of its commit
    if not (root / ".git").exists() or not shutil.which("git"): return None
    described = subprocess.run(["git", "--no-optional-locks", "-C", root, "describe", "--always", "--abbrev=40",
                                "--exclude=*", "--dirty=+changes"], capture_output=True, text=True)
    return described.stdout.strip() or None
