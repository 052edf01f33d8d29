"""Pages: HTML that stands alone, with its thumbnails and data inside. Reads `templates/` and
pictures.
"""

import base64
import html
import io
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote


def render(template: str, **content) -> str:
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    missing = lambda value: value is None or math.isnan(value)
    pages.filters |= {
        "percent": lambda value: "–" if missing(value) else f"{100 * value:.1f}%",
        "number": lambda value: "–" if missing(value) else f"{value:.2f}",
        "fine": lambda value: "–" if missing(value) else f"{value:.3f}",
        "p": lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}",
    }
    return pages.get_template(template).render(**content)


def cards(rows, data) -> list[tuple]:
    return list(zip(rows.itertuples(), thumbnails(rows.file, data, 224), strict=True))


def svg_url(path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


TEMPLATES = Path(__file__).parent / "templates"


DATA = '<script type="application/json" id="data">'


def picture(path, size: int):
    """The picture at `path` as RGB, its longer side at most `size`; None where it can't be read (it
    may have moved).
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * size, 2 * size))
            image = image.convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    image.thumbnail((size, size))
    return image


def thumbnails(files, data, size=112) -> list[str]:
    """The pictures as JPEG data URLs, in order; '' for one that can't be read."""

    def thumbnail(file):
        image, buffer = picture(Path(data) / file, size), io.BytesIO()
        if image is None:
            return ""
        image.save(buffer, "JPEG", quality=70, optimize=True)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(thumbnail, files))


def filled(template: str, content: dict, **texts) -> str:
    """The page `template` with `texts` in the places of their names and `content` as the JSON that
    its script reads.

    JSON that may stand in HTML; it comes last, for it may hold any text.
    """
    page = (TEMPLATES / template).read_text(encoding="utf-8")
    for name, text in texts.items():
        page = page.replace(name, text)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    return page.replace(DATA, DATA + text)


def relative_address(data, place) -> str:
    """The address of folder `data` relative to a page in folder `place`; '' where there is none
    (another drive).
    """
    data, place = Path(data).resolve(), Path(place).resolve()
    return (
        quote(Path(os.path.relpath(data, place)).as_posix()) + "/"
        if data.drive == place.drive
        else ""
    )


def framed(page: str, name: str, title: str, height: int) -> str:
    """A page of `filled` in a frame: HTML for another page, whose styles and scripts it neither
    sees nor disturbs.

    What it shows stands before the frame: browsers read an attribute of ten megabytes four times as
    slowly.
    """
    head, rest = page.split(DATA)
    content, tail = rest.split("</script>", 1)
    return (
        f'<div><template>{html.escape(content, quote=False)}</template><iframe class="artclf-{name}" '
        f'title="{title}" style="width: 100%; height: {height}px; border: 0" '
        f'srcdoc="{html.escape(f"{head}{DATA}</script>{tail}")}"></iframe></div>'
    )
