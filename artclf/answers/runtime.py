"""onnxruntime for browsers: files of the package onnxruntime-web, fetched once from the npm registry.

Reads and writes the user's cache. The package is one archive of a fixed version, whose bytes are
checked before anything in it is opened.
"""

import base64
import hashlib
import os
import tarfile
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

from artclf.base.errors import InputError
from artclf.base.files import replace_whole
from artclf.base.machine import cache_folder

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
BYTES = 33_106_585
# what a page needs to compute on the processor; the first line of the .mjs names the licence, MIT
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SECONDS = 30  # of silence, after which the registry is given up
BY_HAND = f"fetch {URL} elsewhere and name the file with --runtime"


def files(archive: Path | None = None) -> dict[str, bytes]:
    """The contents of `FILES`, by name, from the cache, from the file `archive`, or else from the
    registry, which fills the cache.

    Raises FileNotFoundError without that file, InputError where its bytes are others than those of
    the known archive, ConnectionError where nothing can be fetched, or may be.
    """
    if archive is not None:
        content = archive.read_bytes()
        _check(content, archive)
    elif cache_file().exists():
        content = cache_file().read_bytes()
        _check(content, cache_file())
    else:
        content = _fetch()
        _check(content, URL)
        replace_whole(cache_file(), lambda part: part.write_bytes(content))
    with tarfile.open(fileobj=BytesIO(content)) as package:
        return {name: _member(package, f"package/dist/{name}") for name in FILES}


def cache_file() -> Path:
    """Where the archive is kept: in `ARTCLF_CACHE`, or in the user's folder for caches."""
    return cache_folder() / f"onnxruntime-web-{VERSION}.tgz"


def _check(content: bytes, source):
    """Raise InputError where `content`, of a file or URL `source`, isn't the known archive."""
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise InputError(
            f"{source} is not onnxruntime-web {VERSION} as npm has it: remove it, or {BY_HAND}"
        )


def _fetch() -> bytes:
    if os.environ.get("ARTCLF_OFFLINE") == "1":
        raise ConnectionError(
            f"onnxruntime-web {VERSION} is not in the cache, and ARTCLF_OFFLINE=1 forbids to fetch "
            f"it: {BY_HAND}"
        )
    try:
        with urllib.request.urlopen(URL, timeout=SECONDS) as answer:
            return answer.read(BYTES + 1)  # a longer one isn't the known archive either
    except (urllib.error.URLError, OSError) as error:
        raise ConnectionError(f"{URL} does not answer ({error}): {BY_HAND}") from error


def _member(package: tarfile.TarFile, name: str) -> bytes:
    stream = package.extractfile(name)
    if stream is None:
        raise InputError(f"{name} of onnxruntime-web {VERSION} is no file")
    return stream.read()
