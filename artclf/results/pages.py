"""Pages: HTML that stands alone, with its thumbnails and data inside. Reads `templates/` and
pictures.
"""

import base64
import html
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from artclf.base import figures
from artclf.data.pictures import thumbnail

TEMPLATES = Path(__file__).parent / "templates"
DATA = '<script type="application/json" id="data">'  # the place of a page's content
CARD_SIZE = 224  # px, of the pictures in a report


def render(template: str, **content) -> str:
    """The template of jinja2 with `content`; texts are escaped."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=figures.percent, figure=figures.figure, p=figures.p_value)
    return environment.get_template(template).render(**content)


def cards(rows, data) -> list[tuple]:
    """Pairs of a row of predictions and its thumbnail, for the template `cards.html`."""
    return list(zip(rows.itertuples(), thumbnails(rows.file, data, CARD_SIZE), strict=True))


def thumbnails(files, data, size=112) -> list[str]:
    """The pictures as JPEG data URLs, in order; '' for one that can't be read (it may have
    moved).
    """

    def encode(file) -> str:
        picture = thumbnail(Path(data) / file, size)
        if picture is None:
            return ""
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=70, optimize=True)
        return data_url(stream.getvalue(), "image/jpeg")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(encode, files))


def data_url(content: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64," + base64.b64encode(content).decode()


def filled(template: str, content: dict, **texts) -> str:
    """The page `template` with `texts` in the places of their names and `content` as the JSON that
    its script reads.

    The JSON may stand in HTML. It comes last, because it may hold any text.
    """
    page = (TEMPLATES / template).read_text(encoding="utf-8")
    for name, text in texts.items():
        page = page.replace(name, text)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return page.replace(DATA, DATA + text.replace("<", "\\u003c"))


def framed(page: str, name: str, title: str, height: int) -> str:
    """A page of `filled` in a frame: HTML for another page, whose styles and scripts it neither
    sees nor disturbs.

    The content stands before the frame: browsers read an attribute of ten megabytes four times as
    slowly.
    """
    head, rest = page.split(DATA)
    content, tail = rest.split("</script>", 1)
    frame = html.escape(f"{head}{DATA}</script>{tail}")
    return (
        f"<div><template>{html.escape(content, quote=False)}</template>"
        f'<iframe class="artclf-{name}" title="{title}" '
        f'style="width: 100%; height: {height}px; border: 0" srcdoc="{frame}"></iframe></div>'
    )


def relative_address(data, place) -> str:
    """The address of folder `data` relative to a page in folder `place`; '' where there is none
    (another drive).
    """
    data = Path(data).resolve()
    place = Path(place).resolve()
    if data.drive != place.drive:
        return ""
    return quote(Path(os.path.relpath(data, place)).as_posix()) + "/"
