"""Inputs: whatever a notebook holds, as a stream of pictures.

Reads folders, packs and files; `stream` is all that `classifier` needs.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from numbers import Number
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from artclf.base.errors import InputError
from artclf.data import packs
from artclf.data.arrays import pictures_in
from artclf.data.formats import IMAGE_SUFFIXES
from artclf.data.pictures import DECODER_ERRORS, MAX_SIZE, Rejected, read, square
from artclf.data.places import Place, is_address
from artclf.data.web import WebPictures

WHAT_IS_TAKEN = "give a path, a URL, the bytes of a file, a PIL image or an array"


class Named(NamedTuple):
    """A picture under a name of its own: what `stream` gives, and takes as it is."""

    name: str
    picture: object


def stream(images) -> Iterator[tuple[str, object]]:
    """A name and a picture for each picture in `images`, one after the other.

    `images` is what `Predictor.predict` takes; iterators are consumed as far as the stream is. The
    name is the path, the URL, the name of an upload, or the picture's place, such as `image 3`. The
    picture is for `pixels`; it is `Rejected`, with the reason, for what is none or may be read in
    two ways.
    """
    for place, (name, picture) in enumerate(_pictures_of(images)):
        yield name or f"image {place}", picture


def pixels(picture, config: dict, web: WebPictures | None = None) -> np.ndarray:
    """A picture as the network of `config` sees it: uint8 of shape (3, size, size).

    `picture` comes from `stream`, or is what `pictures.open_rgb` takes; `web` gets those with a
    URL. Raises Rejected where it can't be read.
    """
    if isinstance(picture, Rejected):
        raise picture
    if web is not None and is_url(picture):
        picture = web.read(picture)
    return square(picture, config["size"], config["resize"], config.get("max_size", MAX_SIZE))


def _pictures_of(images) -> Iterator[tuple[str, object]]:
    """The pictures in `images`, each with a name, or '' where it has none."""
    if isinstance(images, Named):
        yield images
    elif isinstance(images, str | os.PathLike):
        yield from _at(os.fsdecode(images))
    elif isinstance(images, bytes | bytearray | memoryview):
        yield "", bytes(images)
    elif isinstance(images, Image.Image | Rejected):
        yield "", images
    elif hasattr(images, "read"):
        yield _in_stream(images)
    elif hasattr(images, "detach"):  # a tensor; torch is not imported for those who have none
        yield from _in_array(_as_array(images), is_tensor=True)
    elif isinstance(images, np.ndarray):
        yield from _in_array(images)
    elif isinstance(images, pd.DataFrame):
        yield from _in_table(images)
    elif isinstance(images, Mapping):
        yield from _in_upload(images)
    elif isinstance(images, list | tuple) and _is_array_of_lists(images):
        yield "", Rejected("lists of numbers are not a picture: give numpy.array of them")
    elif isinstance(images, Iterable):
        for image in images:
            yield from _pictures_of(image)
    else:
        yield "", Rejected(f"{type(images).__name__} is not a picture: {WHAT_IS_TAKEN}")


def _at(place: str) -> Iterator[tuple[str, object]]:
    """The picture at a path or URL, or the pictures in a folder or pack."""
    if not place.strip():
        yield place, Rejected(f"an empty text is not a picture: {WHAT_IS_TAKEN}")
    elif is_url(place):
        yield place, place
    elif is_address(place):
        yield from _in_pack(place)
    else:
        path = os.path.expanduser(place)  # noqa: PTH111 (Path.expanduser raises without a home)
        if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for some texts)
            yield from _in_pack(path) if packs.is_pack(path) else _in_folder(Path(path))
        else:
            yield place, path


def is_url(picture) -> bool:
    """Whether `picture` is the address of one on the web."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def _in_pack(place: str) -> Iterator[tuple[str, object]]:
    """The pictures in a pack, in the order of its shards. A place without a pack is `Rejected`, with
    the reason.
    """
    try:
        packs.require_complete(Place(place))
    except (FileNotFoundError, ImportError, InputError) as error:
        yield place, Rejected(str(error))
        return
    for picture in packs.pictures(place):
        yield str(picture), picture


def _in_folder(folder: Path) -> Iterator[tuple[str, object]]:
    """The pictures in a folder and in those below it, by name; links to folders are not followed.

    A folder that can't be read is `Rejected`, with the reason.
    """
    # a table in a temporary file sorts the names: a folder may hold a million
    with closing(sqlite3.connect("", check_same_thread=False)) as names:
        names.execute("CREATE TABLE names (name BLOB PRIMARY KEY, is_folder) WITHOUT ROWID")
        try:
            with os.scandir(folder) as entries:
                names.executemany("INSERT INTO names VALUES (?, ?)", _names_in(entries))
        except OSError as error:
            yield str(folder), Rejected(f"the folder can't be read ({error.strerror})")
            return
        for name, is_folder in names.execute("SELECT * FROM names ORDER BY name"):
            place = folder / os.fsdecode(name)
            if is_folder:
                yield from _in_folder(place)
            else:
                yield str(place), place


def _names_in(entries: Iterable[os.DirEntry]) -> Iterator[tuple[bytes, bool]]:
    """Name, and whether it is a folder, of the folders and pictures among `entries`; links that
    lead nowhere are pictures, too, so that they get an error.
    """
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        is_picture = Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _may_be_read(entry.path)
        if is_folder or is_picture:
            yield os.fsencode(entry.name), is_folder


def _may_be_read(path: str) -> bool:
    """Whether there is a file, or nothing, at `path`: not a folder, pipe or device."""
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 (Path's raise)


def _in_stream(file) -> tuple[str, object]:
    """The picture in an open file, which is read here: threads would disturb one another."""
    name = getattr(file, "name", "")
    if not isinstance(name, str):  # the number of a file without a name
        name = ""
    try:
        return name, read(file)
    except Rejected as error:
        return name, error
    except DECODER_ERRORS as error:  # a closed file, a text that is no UTF-8...
        return name, Rejected(f"the file can't be read ({error}): open it in mode 'rb'")


def _as_array(tensor) -> np.ndarray:
    plain = tensor.detach().cpu()
    if plain.is_floating_point():
        plain = plain.float()  # numpy has no bfloat16
    return plain.numpy()


def _in_array(array: np.ndarray, is_tensor: bool = False) -> Iterator[tuple[str, object]]:
    """The pictures in an array of numbers, or at the paths in an array of texts or objects."""
    if array.ndim == 0:
        yield from _pictures_of(array.item())
    elif array.dtype.kind in "OUT":  # objects, texts, texts of any length
        yield from _pictures_of(array.ravel().tolist())
    elif array.shape != (0,):
        try:
            for picture in pictures_in(array, is_tensor):
                yield "", picture
        except InputError as error:
            yield "", Rejected(f"{'tensor' if is_tensor else 'array'} is not a picture: {error}")


def _in_table(table: pd.DataFrame) -> Iterator[tuple[str, object]]:
    if "file" in table.columns:
        yield from _pictures_of(table["file"])
    else:
        names = ", ".join(map(str, table.columns)) or "none"
        yield "", Rejected(f"a table needs the column file, this one has {names}")


def _in_upload(value: Mapping) -> Iterator[tuple[str, object]]:
    """The pictures in the value of ipywidgets' FileUpload: a dict for each file in version 8, which
    names its content, and a dict of them by name in version 7.
    """
    files: Mapping = {value.get("name", ""): value} if "content" in value else value
    for name, file in files.items():
        if not isinstance(file, Mapping) or "content" not in file:
            yield "", Rejected(f"a dict with the key {name!r} is not a picture: {WHAT_IS_TAKEN}")
            return
        for _, picture in _pictures_of(file["content"]):
            yield str(name), picture


def _is_array_of_lists(values: list | tuple) -> bool:
    """Whether `values` are lists of numbers, as `numpy.ndarray.tolist` gives them."""
    return bool(values) and all(_is_list_of_numbers(row) for row in values)


def _is_list_of_numbers(row) -> bool:
    if not isinstance(row, list | tuple) or not row:
        return False
    return all(isinstance(value, Number) for value in row) or _is_array_of_lists(row)
