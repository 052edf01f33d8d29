"""Files that are written whole or not at all, and their hashes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path


def replace_whole(file: Path, write: Callable[[Path], object]):
    """Call `write` with the path of a file beside `file`, then put that in the place of `file`.

    A reader never sees half of it, and where `write` fails `file` stays as it was. Makes the folder
    if needed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    write(part)
    part.replace(file)


def write_json(file: Path, content: dict):
    """Write `content` to `file` as JSON in UTF-8, whole or not at all."""
    text = json.dumps(content, indent=1)
    replace_whole(file, lambda part: part.write_text(text, encoding="utf-8"))


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
