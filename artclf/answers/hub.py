"""Exports on the Hugging Face hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION` for a branch, tag
or commit.

Downloads into the hub's own cache, uploads an export folder; all by huggingface_hub, which knows the
user's token. A downloaded export is a folder as any other, and checked as one.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artclf.answers import onnx
from artclf.answers.exports import WEIGHTS, WEIGHTS_OF_MEASURED, check_hash, read_config
from artclf.base.errors import InputError
from artclf.base.extras import require
from artclf.base.machine import is_offline

CARD = "README.md"
PICKLE = "learner.pkl"
# what others need to load an export and to know what it is; none of it names a picture
PUBLISHED = ("config.json", WEIGHTS, WEIGHTS_OF_MEASURED, "metrics.json", CARD, *onnx.FILES)
FILES = {"torch": WEIGHTS, "onnx": onnx.FLOAT, "onnx-int8": onnx.INT8}  # by backend
CHECKPOINTS = "models"
LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"


def is_address(place) -> bool:
    """Whether `place` is on the hub, also where it went through a Path, which drops a slash."""
    return isinstance(place, str | Path) and re.match(r"hf:[/\\]", str(place)) is not None


def fetch(address, measured: bool = False, backend: str = "torch") -> Path:
    """The folder with the files of the export at `address` that `artclf.load` needs, in the cache of
    the hub.

    With `ARTCLF_OFFLINE=1`, or where the hub doesn't answer, it is what the cache has. Raises
    InputError for an address that is none and a repository that isn't there, isn't yours to read or
    holds no export; ConnectionError where it can't be had now.
    """
    require("hub", "huggingface_hub")
    from huggingface_hub import snapshot_download

    repository, revision = _parts(address)
    files = ["config.json", FILES[backend]]
    if measured and backend == "torch":
        files.append(WEIGHTS_OF_MEASURED)
    with _errors_in_words(address):
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=files, local_files_only=is_offline()
        )
    if not (Path(folder) / "config.json").exists():
        raise InputError(f"{address} holds no export of artclf: it has no config.json")
    return Path(folder)


def push(
    out,
    address: str,
    public: bool = False,
    pickle: bool = False,
    everything: bool = False,
    message: str = "Upload an export of artclf",
) -> dict[str, Any]:
    """Upload the export folder `out` to `address`, in one commit; return its `repository`, `url` and
    `revision`, the `files`, and whether it is `private`.

    Makes the repository where there is none, private unless it is to be `public`; one that is there
    stays as it is. What is uploaded are the files of `PUBLISHED`; with `pickle` fastai's
    `learner.pkl`, too, and with `everything` whatever else is in the folder but checkpoints and
    hidden files: predictions and embeddings, which name your pictures, and the report, which shows
    them. Raises InputError for a folder that holds no whole export, an address that is none, and
    where the hub refuses; ConnectionError where it doesn't answer.
    """
    require("hub", "huggingface_hub")
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    out = Path(out)
    repository, revision = _parts(address)
    if revision:
        raise InputError(f"{address} names a revision: leave out @{revision}, a new one is made")
    files = _files(out, pickle, everything)
    if is_offline():
        raise ConnectionError("ARTCLF_OFFLINE=1 is set: nothing is uploaded")
    if get_token() is None:
        raise InputError(f"the hub takes uploads of its users only: {LOG_IN}")
    sizes = ", ".join(f"{name} ({_size(out / name)})" for name in files)
    print(f"Uploading to {address}: {sizes}")
    api = HfApi()
    with _errors_in_words(address):
        api.create_repo(repository, private=not public, exist_ok=True)
        operations = [CommitOperationAdd(name, str(out / name)) for name in files]
        commit = api.create_commit(repository, operations, commit_message=message)
        is_private = bool(api.model_info(repository).private)
    return {
        "repository": f"hf://{repository}",
        "url": f"{api.endpoint}/{repository}",
        "revision": commit.oid,
        "private": is_private,
        "files": files,
    }


def _parts(address) -> tuple[str, str | None]:
    """The repository, USER/NAME, and the revision of an address."""
    match = re.fullmatch(r"hf:[/\\]+([\w.-]+)[/\\]([\w.-]+?)(?:@(.+))?", str(address))
    if not match:
        raise InputError(f"{address} is no address on the hub: write hf://USER/NAME")
    user, name, revision = match.groups()
    return f"{user}/{name}", revision


def _files(out: Path, pickle: bool, everything: bool) -> list[str]:
    """The names of the files to upload, the settings first, once they are found whole."""
    config = read_config(out)
    if not (out / CARD).exists():
        raise InputError(
            f"{out} has no model card, {CARD}: `artclf interpret --out {out} --data DATA` writes it"
        )
    names = [name for name in PUBLISHED if (out / name).exists()]
    if pickle and (out / PICKLE).exists():
        names.append(PICKLE)
    if everything:
        names += sorted(set(_others(out)) - {*names, PICKLE})
    check_hash(out / WEIGHTS, config)
    for name in (WEIGHTS_OF_MEASURED, *onnx.FILES, PICKLE):
        if name in names:
            check_hash(out / name, config)
    return names


def _others(out: Path) -> Iterator[str]:
    """The names of all files in a folder but checkpoints and hidden ones."""
    for file in out.rglob("*"):
        parts = file.relative_to(out).parts
        is_hidden = any(part.startswith(".") for part in parts)
        if file.is_file() and not is_hidden and CHECKPOINTS not in parts[:-1]:
            yield "/".join(parts)


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"


@contextmanager
def _errors_in_words(address) -> Iterator[None]:
    """Errors of the hub become an InputError, or a ConnectionError, in a line."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        why = "ARTCLF_OFFLINE=1 is set" if is_offline() else f"{constants.ENDPOINT} does not answer"
        raise ConnectionError(f"{address} is not in the cache of the hub, and {why}") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{address} is gated: ask for access on its page, then {LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{address} has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{address} is not there, or not yours to use: {LOG_IN}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{address} is no address on the hub ({error})") from error
    except errors.HfHubHTTPError as error:
        words = " ".join(str(error).split())
        raise InputError(f"the hub refuses {address}: {words}") from error
    except errors.HTTPError as error:
        raise ConnectionError(f"{constants.ENDPOINT} does not answer ({error})") from error
