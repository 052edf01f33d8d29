"""The gallery server: what it lists is there, what it doesn't list is not, and URLs outlive a
run.
"""

import csv
import http.client
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from artclf.data.gallery import serve
from artclf.data.lists import find_lists, read_list

HARD_NAMES = [
    "a b.jpg",
    "Grün, Öl.jpg",
    "no#1 100%25?.jpg" if os.name != "nt" else "no#1 100%25.jpg",
    "+&=~'.jpg",
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three classes of four pictures each, with hard names, and a manifest with hard titles beside
    them.
    """
    rng, rows = np.random.default_rng(0), []
    for period in ("01-early", "02 mid & late", "03-spät"):
        (tmp_path / "gallery" / period).mkdir(parents=True)
        for name in HARD_NAMES:
            pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "gallery" / period / name)
            rows.append(
                [f"{period}/{name}", f'"{name}", or\n# 1, Tänze', "Änne O'Hara, jr.", "1890"]
            )
    with (tmp_path / "gallery/manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["file", "title", "artist", "year"], *rows])
    (tmp_path / "gallery/01-early/notes.txt").write_text("not a picture")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    return tmp_path / "gallery"


def fetch(url) -> bytes:
    with urlopen(url, timeout=5) as answer:
        return answer.read()


def rows_of(lists) -> list[dict]:
    return [
        {**row, "period": period}
        for period, path in find_lists(lists).items()
        for row in read_list(path)
    ]


def test_every_listed_url_gives_the_bytes_of_its_picture(folder, tmp_path):
    with serve(folder, tmp_path / "lists") as gallery:
        got = sorted(fetch(row["url"]) for row in rows_of(gallery.lists))
        assert list(gallery.requests.values()) == [1] * 12
    assert got == sorted(path.read_bytes() for path in folder.rglob("*.jpg"))


def test_facts_survive_the_lists(folder, tmp_path):
    with serve(folder, tmp_path / "lists"):
        rows = rows_of(tmp_path / "lists")
    assert {row["period"] for row in rows} == {"01-early", "02 mid & late", "03-spät"}
    assert {row["title"] for row in rows} == {f'"{name}", or # 1, Tänze' for name in HARD_NAMES}
    assert {(row["artist"], row["year"]) for row in rows} == {("Änne O'Hara, jr.", "1890")}


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/robots.txt",
        "/manifest.csv",
        "/01-early/notes.txt",
        "/01-early",
        "/01-early/",
        "/../secret.jpg",
        "/%2e%2e/secret.jpg",
        "/01-early/../../secret.jpg",
        "//etc/passwd",
        "/%00",
        "/01-early/a%20b.jpg/",
        "/.faults/page/01-early/a%20b.jpg",
    ],
)
def test_nothing_else_is_served(folder, tmp_path, path):
    with serve(folder, tmp_path / "lists") as gallery:
        connection = http.client.HTTPConnection("127.0.0.1", gallery.port, timeout=5)
        connection.request("GET", path)
        assert connection.getresponse().status == 404
        connection.close()


def test_connections_are_kept(folder, tmp_path):
    with serve(folder, tmp_path / "lists") as gallery:
        connection = http.client.HTTPConnection("127.0.0.1", gallery.port, timeout=5)
        connection.connect()
        first = connection.sock
        for row in rows_of(gallery.lists):
            connection.request("GET", urlsplit(row["url"]).path)
            answer = connection.getresponse()
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert len(answer.read()) == int(answer.headers["Content-Length"])
        assert connection.sock is first
        connection.close()


def test_a_second_run_has_the_same_urls_and_leaves_the_lists_alone(folder, tmp_path):
    with serve(folder, tmp_path / "lists", faults=True):
        pass
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "lists").iterdir()
    }
    with serve(folder, tmp_path / "lists", faults=True):
        pass
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in (tmp_path / "lists").iterdir()
    } == before


def test_lists_follow_the_gallery(folder, tmp_path):
    with serve(folder, tmp_path / "lists"):
        urls = {row["url"] for row in rows_of(tmp_path / "lists")}
    for path in (folder / "01-early").iterdir():
        path.unlink()
    (folder / "03-spät" / HARD_NAMES[0]).unlink()
    with serve(folder, tmp_path / "lists"):
        rest = {row["url"] for row in rows_of(tmp_path / "lists")}
    assert sorted(find_lists(tmp_path / "lists")) == ["02 mid & late", "03-spät"]
    assert rest < urls and len(rest) == 7


def test_a_busy_port_is_named(folder, tmp_path):
    with serve(folder, tmp_path / "lists") as gallery:
        pass
    message = rf"port {gallery.port} .* delete .*lists"
    with (
        socket.create_server(("127.0.0.1", gallery.port)),
        pytest.raises(OSError, match=message),
        serve(folder, tmp_path / "lists"),
    ):
        pass


def test_two_galleries_run_side_by_side_and_a_port_can_be_named(folder, tmp_path):
    with serve(folder, tmp_path / "one") as one, serve(folder, tmp_path / "two") as two:
        assert one.port != two.port
        assert {urlsplit(row["url"]).port for row in rows_of(two.lists)} == {two.port}
    with serve(folder, tmp_path / "one", port=two.port) as moved:
        assert {urlsplit(row["url"]).port for row in rows_of(moved.lists)} == {two.port}


def test_lists_of_ones_own_are_not_overwritten(folder, tmp_path):
    own = tmp_path / "own" / "urls_01-early.csv"
    own.parent.mkdir()
    own.write_text("https://example.org/a.jpg\n")
    with pytest.raises(ValueError, match="no list of a served gallery"), serve(folder, own.parent):
        pass
    assert own.read_text() == "https://example.org/a.jpg\n"


def test_two_folders_of_one_name_are_not_mixed_and_a_data_set_may_move(folder, tmp_path):
    data = tmp_path / "data/gallery"
    with serve(folder, data / "urls"):
        pass
    other = shutil.copytree(folder, tmp_path / "other/gallery")
    before = {path: path.read_bytes() for path in (data / "urls").iterdir()}
    with (
        pytest.raises(ValueError, match=r"lists of .*gallery: rename .*folder\.txt"),
        serve(other, data / "urls"),
    ):
        pass
    assert {path: path.read_bytes() for path in (data / "urls").iterdir()} == before
    shutil.copytree(folder, data / "own")
    with serve(data / "own", data / "lists"):
        pass
    data.rename(tmp_path / "moved")
    with serve(tmp_path / "moved/own", tmp_path / "moved/lists"):
        pass


def test_faults_are_those_of_real_lists(folder, tmp_path):
    with serve(folder, tmp_path / "clean") as gallery:
        whole = len(rows_of(gallery.lists))
    with serve(folder, tmp_path / "lists", faults=True) as gallery:
        urls = [row["url"] for row in rows_of(gallery.lists)]
        faulty = {urlsplit(url).path.split("/")[2]: url for url in urls if "/.faults/" in url}
        assert set(faulty) == {"gone", "page", "short", "cut", "again"}
        assert len(urls) == whole + 6 and len(set(urls)) == whole + 5  # one URL stands there twice
        with pytest.raises(HTTPError, match="404"):
            fetch(faulty["gone"])
        assert fetch(faulty["page"]).startswith(b"<!doctype html>")
        with pytest.raises(http.client.IncompleteRead):
            fetch(faulty["short"])
        sound = {kind: fetch(url.replace(f".faults/{kind}/", "")) for kind, url in faulty.items()}
        assert fetch(faulty["cut"]) == sound["cut"][: len(sound["cut"]) // 2]
        assert fetch(faulty["again"]) == sound["again"]
    text = next((tmp_path / "lists").glob("*.csv")).read_text(encoding="utf-8")
    assert text.startswith("#") and "\n\n" in text


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no pictures"), serve(tmp_path, tmp_path / "lists"):
        pass
    with (
        pytest.raises(FileNotFoundError, match="not a folder"),
        serve(tmp_path / "none", tmp_path / "lists"),
    ):
        pass


def test_in_a_process_of_its_own(folder, tmp_path):
    command = [sys.executable, "-m", "artclf.data.gallery", folder, tmp_path / "lists"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            rows = rows_of(tmp_path / "lists")
            assert all(row["url"].startswith(url) for row in rows) and fetch(rows[0]["url"])
        finally:
            process.kill()
