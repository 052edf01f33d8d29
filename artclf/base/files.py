"""Files that are written whole or not at all, and their hashes."""

import hashlib
import json
from pathlib import Path


def write_json(file: Path, content: dict):
    replace_whole(
        file, lambda part: part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    )


def replace_whole(file: Path, write):
    """Let `write` fill a file beside `file`, then put it in its place: a reader never sees half of
    it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    write(part)
    part.replace(file)


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
