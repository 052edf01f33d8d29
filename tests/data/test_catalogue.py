"""The catalogue and what is read into it: lists and galleries as people make them, and writers that
are killed.
"""

import sqlite3
import subprocess
import sys
import time

import pytest

from artclf.data import catalogue
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.galleries import read_gallery
from artclf.data.lists import find_lists, read_list

A, B = "http://a.example/1.jpg?x=%20&y=1", "http://b.example/2.jpg"


@pytest.mark.parametrize(
    "text",
    [
        f"{A}\n{B}\n",
        f"{A}\r\n{B}\r\n",
        f"{A}\r{B}",
        f"\ufeff{A}\n{B}\n",
        f'# {A}\n\n{A}\n   \n  # a "quote\n{B}',
        f'"{A}"\n"{B}"\n',
        f"{A},Kiss\n{B},\n",
        f"url\n{A}\n{B}",
        f"\ufeffURL , Title\n{A},t\n{B},u\n",
        f"\n# c\ntitle,url\nt,{A}\nu , {B} \n",
        f'title,url\n"Kiss, The",{A}\n"""Me""", {B}\n',
        f"url,url2\n{A},{B}\n\n{B},{A}\n",
        f"title,url\nno address,\n,{A}\nt,{B}",
    ],
)
def test_every_form_of_a_list_gives_its_urls(tmp_path, text):
    (tmp_path / "urls_x.csv").write_bytes(text.encode())
    assert [row["url"] for row in read_list(tmp_path / "urls_x.csv")] == [A, B]


def test_facts_come_by_name_and_unknown_columns_are_passed_over(tmp_path):
    (tmp_path / "urls_x.csv").write_text(
        f'year,title,mood,url,artist\n1908,"Kiss, The",gay,{A},"O\'Hara ""Jo"""\n,,,{B}\n',
        encoding="utf-8",
    )
    assert list(read_list(tmp_path / "urls_x.csv")) == [
        {"url": A, "year": "1908", "title": "Kiss, The", "artist": 'O\'Hara "Jo"'},
        {"url": B},
    ]


def test_a_quoted_title_may_hold_lines_that_look_like_comments(tmp_path):
    (tmp_path / "urls_x.csv").write_text(
        f'title,url\n"Composition\n# 1\n\n# 2",{A}\nlast,{B}\n', encoding="utf-8"
    )
    assert list(read_list(tmp_path / "urls_x.csv")) == [
        {"title": "Composition\n# 1\n\n# 2", "url": A},
        {"title": "last", "url": B},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{A},Br\u00fccke\n".encode("latin-1"), "urls_x.csv is not UTF-8"),
        (f"{A}\n".encode("utf-16"), "not UTF-8"),
        (
            f'title,url\n"Kiss,{A}\nb,{B}\n'.encode(),
            "urls_x.csv is not CSV: it ends inside an open quote",
        ),
        (f'{A},"{"x" * 200_000}"\n'.encode(), "urls_x.csv is not CSV"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "urls_x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_list(tmp_path / "urls_x.csv"))


def test_an_empty_list_has_no_rows(tmp_path):
    (tmp_path / "urls_x.csv").write_text("# nothing yet\n\n", encoding="utf-8")
    assert list(read_list(tmp_path / "urls_x.csv")) == []


def test_only_lists_are_classes(tmp_path):
    for name in (
        "urls_10-late.csv",
        "urls_02-early.csv",
        "urls_none.csv",
        "README.md",
        "manifest.csv",
        ".urls_x.csv",
        "urls_x.csv.bak",
        "urls_.csv",
        "urls_y.txt",
    ):
        (tmp_path / name).touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "urls_z.csv").touch()
    (tmp_path / "urls_folder.csv").mkdir()
    found = find_lists(tmp_path)
    assert list(found) == ["02-early", "10-late", "none"]
    assert found["none"] == tmp_path / "urls_none.csv"


def test_a_list_named_like_a_hidden_folder_makes_none(tmp_path):
    (tmp_path / "urls_.hidden.csv").touch()
    (tmp_path / "urls_...csv").touch()
    assert list(find_lists(tmp_path)) == ["hidden"]


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_a_folder_without_lists_is_an_error_that_names_the_option(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="--lists"):
        find_lists(tmp_path / folder)


def gallery(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"pixels")
    return folder


def pictures(*args, **kwargs):
    return [(row["file"].name, row["period"]) for row in read_gallery(*args, **kwargs)]


def test_a_gallery_has_the_pictures_of_visible_folders(tmp_path):
    gallery(
        tmp_path,
        "b/1.jpg",
        "a/2.PNG",
        "a/notes.txt",
        "a/.thumbs/3.jpg",
        ".cache/x/4.jpg",
        "a/.5.jpg",
        "6.jpg",
        "deep/er/7.webp",
        "x.jpg/8.tif",
        "a/.ipynb_checkpoints/9.gif",
    )
    assert pictures(tmp_path) == [
        ("2.PNG", "a"),
        ("1.jpg", "b"),
        ("7.webp", "er"),
        ("8.tif", "x.jpg"),
    ]


def test_a_gallery_in_a_hidden_place_is_a_gallery(tmp_path):
    assert pictures(gallery(tmp_path / ".mine" / "g", "a/1.jpg")) == [("1.jpg", "a")]


@pytest.mark.parametrize("place", ["g/manifest.csv", "manifest.csv", "elsewhere/facts.csv"])
def test_facts_come_from_the_manifest_in_the_gallery_above_it_or_named(tmp_path, place):
    gallery(tmp_path / "g", "a/1.jpg", "a/2.jpg")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    prefix = {"g/manifest.csv": "", "manifest.csv": "g/", "elsewhere/facts.csv": "../g/"}[place]
    (tmp_path / place).write_text(
        f'title,mood,file,period\r\n"Kiss, The",gay,{prefix}a/1.jpg,z\r\nshort row\r\n',
        encoding="utf-8-sig",
        newline="",
    )
    rows = list(
        read_gallery(tmp_path / "g", *[tmp_path / place] * (place == "elsewhere/facts.csv"))
    )
    assert rows == [
        {"file": tmp_path / "g/a/1.jpg", "period": "a", "title": "Kiss, The"},
        {"file": tmp_path / "g/a/2.jpg", "period": "a"},
    ]


def test_a_label_column_gives_the_classes_as_folder_names(tmp_path):
    gallery(tmp_path, *(f"{i}.jpg" for i in range(7)))
    labels = ["Pop/Art", "..", " Op-Art ", "", ".hidden", "C:\\x"]
    (tmp_path / "manifest.csv").write_text(
        "file,style\n"
        + "".join(f"{i}.jpg,{label}\n" for i, label in enumerate(labels))
        + "6.jpg\n",
        encoding="utf-8",
    )
    assert pictures(tmp_path, label_column="style") == [
        ("0.jpg", "Pop_Art"),
        ("2.jpg", "Op-Art"),
        ("4.jpg", "hidden"),
        ("5.jpg", "C_x"),
    ]


@pytest.mark.parametrize(
    ("files", "manifest", "label", "error", "message"),
    [
        ([], None, None, ValueError, "no pictures"),
        (["1.jpg"], None, None, ValueError, "--label-column"),
        (["a/1.jpg"], None, "style", FileNotFoundError, "--label-column needs a manifest.csv"),
        (
            ["a/1.jpg"],
            b"file,title\na/1.jpg,t\n",
            "style",
            ValueError,
            "manifest.csv has no column 'style'",
        ),
        (
            ["a/1.jpg"],
            b"name,title\na/1.jpg,t\n",
            None,
            ValueError,
            "manifest.csv has no column 'file'",
        ),
        (["a/1.jpg"], b"", None, ValueError, "manifest.csv has no column 'file'"),
        (
            ["a/1.jpg"],
            "file,title\na/1.jpg,Br\u00fccke\n".encode("latin-1"),
            None,
            ValueError,
            "manifest.csv is not CSV in UTF-8",
        ),
    ],
)
def test_a_gallery_that_cannot_be_read_says_what_to_do(
    tmp_path, files, manifest, label, error, message
):
    folder = gallery(tmp_path / "g", *files)
    folder.mkdir(exist_ok=True)
    if manifest is not None:
        (folder / "manifest.csv").write_bytes(manifest)
    with pytest.raises(error, match=message):
        list(read_gallery(folder, label_column=label))


def test_missing_galleries_and_manifests_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        list(read_gallery(tmp_path / "nowhere"))
    gallery(tmp_path, "a/1.jpg")
    with pytest.raises(FileNotFoundError, match="other.csv"):
        list(read_gallery(tmp_path, tmp_path / "other.csv"))


def test_the_key_is_url_and_period_and_known_rows_only_gain_what_they_lack(tmp_path):
    with Catalogue(tmp_path) as cat:
        assert (
            cat.add([{"url": A, "period": "x", "title": "first"}, {"url": A, "period": "y"}]) == 2
        )
        assert (
            cat.add(
                [
                    {"url": A, "period": "x", "title": "second", "artist": "me", "file": "no fact"},
                    {"url": A, "period": "y", "title": ""},
                    {"url": B, "period": "x"},
                ]
            )
            == 1
        )
        rows = cat.select()
    assert [(row["url"], row["period"], row["title"], row["artist"]) for row in rows] == [
        (A, "x", "first", "me"),
        (A, "y", None, None),
        (B, "x", None, None),
    ]
    assert {(row["status"], row["tries"], row["file"]) for row in rows} == {("pending", 0, None)}


def test_a_new_split_of_ones_own_replaces_the_old_one_and_none_leaves_it(tmp_path):
    with Catalogue(tmp_path) as cat:
        for part in ("train", "test", "", None):
            cat.add([{"url": A, "period": "x", "split": part}])
        assert cat.select()[0]["split"] == "test"


def test_an_error_undoes_its_transaction_whole(tmp_path):
    def broken():
        yield {"url": B, "period": "x"}
        raise RuntimeError("the list ended")

    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x"}])
        with pytest.raises(RuntimeError, match="the list ended"):
            cat.add(broken())
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            cat.update(
                [
                    {"url": A, "period": "x", "reason": "set"},
                    {"url": A, "period": "x", "nonsense": 1},
                ]
            )
        assert [(row["url"], row["reason"]) for row in cat.select()] == [(A, None)]
        cat.update([{"url": A, "period": "x", "reason": "the next one works"}])
        assert cat.count("reason = ?", ["the next one works"]) == 1


def test_values_are_never_sql(tmp_path):
    evil = "x'); DROP TABLE images; --"
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": evil, "period": evil, "title": evil}])
        cat.update([{"url": evil, "period": evil, "reason": evil}])
        [row] = cat.select()
    assert [row[name] for name in ("url", "period", "title", "reason")] == [evil] * 4


def test_settings_are_kept_per_step(tmp_path):
    with Catalogue(tmp_path) as cat:
        assert cat.setting("clean") is None
        for value in ("a", "b"):
            cat.set_setting("clean", value)
    with Catalogue(tmp_path) as cat:
        assert cat.setting("clean") == "b" and cat.setting("train") is None


WRITER = """
import sys
from artclf.data.catalogue import Catalogue
with Catalogue(sys.argv[1]) as cat:
    for batch in range(10 ** 6):
        cat.add({"url": f"{batch}/{i}", "period": "x"} for i in range(100))
        print(batch, flush=True)
"""


@pytest.mark.parametrize("after", [0, 3])
def test_a_writer_that_is_killed_leaves_whole_transactions(tmp_path, after):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    for _ in range(after + 1):
        last = int(writer.stdout.readline())
    time.sleep(0.01)
    writer.kill()
    rest = [int(line) for line in writer.communicate()[0].split()]
    with Catalogue(tmp_path) as cat:
        written = cat.count()
        assert cat.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert cat.add([{"url": "after", "period": "x"}]) == 1
    assert written % 100 == 0
    assert written >= 100 * (max([last, *rest]) + 1)


def test_one_may_read_while_another_writes(tmp_path):
    with Catalogue(tmp_path) as cat:
        cat.add([{"url": A, "period": "x"}])
        with cat.transaction() as db:
            db.execute("DELETE FROM images")
            assert len(read_catalogue(tmp_path)) == 1
    assert len(read_catalogue(tmp_path)) == 0


def test_the_data_frame_has_every_column_in_the_order_of_rows(tmp_path):
    with Catalogue(tmp_path) as cat:
        cat.add({"url": f"{i}", "period": "x", "year": "1900"} for i in range(12))
    table = read_catalogue(tmp_path)
    assert list(table.columns) == list(catalogue.COLUMNS)
    assert table.url.tolist() == [f"{i}" for i in range(12)] and set(table.year) == {"1900"}


def test_no_catalogue_is_an_error_and_makes_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf download"):
        read_catalogue(tmp_path / "new")
    assert not (tmp_path / "new").exists()
