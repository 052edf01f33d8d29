"""Extras: packages that only some steps use, and that `pip install -e ".[EXTRA]"` brings."""

from importlib.util import find_spec

# what the extra `train` brings, by the names of the modules
OF_TRAIN = (
    "aiohttp",
    "cv2",
    "fastai",
    "fastcore",
    "huggingface_hub",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "protego",
    "safetensors",
    "scipy",
    "sklearn",
    "threadpoolctl",
    "timm",
    "torch",
    "torchvision",
    "yarl",
)


def require(extra: str, *packages: str):
    """Raise ImportError, with the command that mends it, where one of `packages` is not installed.

    `extra` is the extra of artclf that brings them.
    """
    missing = [package for package in packages if not find_spec(package)]
    if missing:
        raise ImportError(_advice(extra, missing))


def advice(error: Exception) -> str:
    """The command that brings the package which `error` misses, where the extra `train` has it;
    else what `error` says.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in OF_TRAIN:
            return _advice("train", [package])
    return str(error)


def _advice(extra: str, packages: list[str]) -> str:
    return (
        f"this needs {' and '.join(packages)}: "
        f'run pip install -e ".[{extra}]" in the clone of artclf'
    )
