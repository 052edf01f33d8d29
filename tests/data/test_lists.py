"""URL lists as people make them."""

import os
from pathlib import Path

import pytest

from artclf.base.errors import InputError
from artclf.data.lists import (
    append,
    class_name,
    find_lists,
    list_path,
    new_rows,
    read_list,
    url_key,
)

A, B = "http://a.example/1.jpg?x=%20&y=1", "http://b.example/2.jpg"


def urls(path):
    return [row["url"] for row in read_list(path)]


@pytest.mark.parametrize(
    "text",
    [
        f"{A}\n{B}\n",
        f"{A}\r\n{B}\r\n",
        f"{A}\r{B}",
        f"\ufeff{A}\n{B}\n",
        f'# {A}\n\n{A}\n   \n  # a "quote\n{B}',
        f'"{A}"\n"{B}"\n',
        f'"{A}",\n{B} ;\n',
        f"url;title\n{A};Kiss\n{B}",
        f"Title;URL;artist\nKiss, The;{A};Klimt\n;{B};;\n",
        f"url\ttitle\n{A}\tKiss\n{B}\n",
        f"url|title\n{A}|Kiss\n{B}|\n",
        f"title\turl\n\t{A}\nKiss\t{B}\n",
        f'title;url\n"Kiss; The";"{A}"\nt;{B}',
        f'title,url\nt, "{A}"\nt, "{B}" \n',
        f"sep=;\nurl;title\n{A};Kiss\n{B};",
        f"<{A}>\n< {B} >\n",
        f"url,title\n<{A}>,Kiss\n{B},",
        f"{A.replace('&', '&amp;')}\n{B}\n",
        f"url\n{A.replace('&', '&AMP;')}\n{B}\n",
        f"url,title\n{A.replace('&', '&#38;')},Kiss\n{B}\n",
        f"{A.removeprefix('http:')}\n{B.removeprefix('http://')}\n",
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


@pytest.mark.parametrize("mark_and_encoding", ["\ufeff utf-16-le", "\ufeff utf-16-be"])
@pytest.mark.parametrize("text", [f"url;title\r\n{A};Brücke\r\n{B};Öl\r\n", f"{A}\r{B}"])
def test_what_spreadsheets_save_as_unicode_is_read_and_grows(tmp_path, text, mark_and_encoding):
    mark, encoding = mark_and_encoding.split()
    path = tmp_path / "urls_x.csv"
    path.write_bytes((mark + text).encode(encoding))
    assert urls(path) == [A, B]
    new = {"url": "http://c.example/ö.jpg", "title": "Café", "query": "q", "page": 1}
    assert append(path, [new]) == 1
    assert urls(path) == [A, B, "http://c.example/ö.jpg"]
    assert path.read_bytes().decode(encoding).startswith(mark + text)


COMMAS = "http://host.example/fill/w_303,h_170,al_c/Big.jpg;v=1"


@pytest.mark.parametrize(
    "text",
    [
        f"{COMMAS}\n{A}\n",
        f"{A}\n{COMMAS}\n",
        f"url\n{COMMAS}\n{A}\n",
        f'url\n"{COMMAS}"\n{A}\n',
        f'url,title\n"{COMMAS}",Kiss\n{A},\n',
        f"title\turl\nKiss\t{COMMAS}\n\t{A}\n",
    ],
)
def test_a_url_may_hold_separators(tmp_path, text):
    path = tmp_path / "urls_x.csv"
    path.write_text(text, encoding="utf-8")
    assert set(urls(path)) == {COMMAS, A}
    added = COMMAS.replace("303", "404")
    append(path, [{"url": added, "title": "Kiss; The, 2", "query": "q", "page": 1}])
    assert set(urls(path)) == {COMMAS, A, added}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        (f"id,image_url,title\n1,{A},Kiss\n2,{B},\n", "image_url"),
        (f"id;Link;title\n1;{A};Kiss\n2;{B};none\n", "Link"),
        (f"src,source_page\n{A},http://m.example/1\n{B},http://m.example/2\n", "src"),
        (f"image_url\n{A}\n{B}\n", "image_url"),
        (f"link,note\n{A},\n{B},see http://m.example\nmissing,\n", "link"),
    ],
)
def test_a_single_column_of_urls_is_taken_and_said(tmp_path, text, column):
    path = tmp_path / "urls_x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match=f"urls_x.csv.*from its column '{column}'"):
        rows = list(read_list(path))
    assert [row["url"] for row in rows[:2]] == [A, B]
    assert rows[0].get("title", "Kiss") == "Kiss"
    assert append(path, [{"url": f"{B}?2", "query": "q", "page": 1}]) == 1
    with pytest.warns(UserWarning):
        assert urls(path)[-1] == f"{B}?2"


def test_a_list_with_a_column_url_is_read_without_a_word(tmp_path, recwarn):
    (tmp_path / "urls_x.csv").write_text(f"link,url\n{B},{A}\n", encoding="utf-8")
    assert urls(tmp_path / "urls_x.csv") == [A]
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"id,image,thumb\n1,{A},{B}\n",
            r"several that hold URLs \(image, thumb\): its columns are id, image, thumb; name",
        ),
        ("id,title\n1,Kiss\n", "none that holds URLs: its columns are id, title; name"),
        ("kiss.jpg\nscream.jpg\n", "none that holds URLs: its columns are kiss.jpg"),
        (f"url,url\n{A},{B}\n", "several columns url"),
        (f"1,{A},Kiss\n2,{B},Scream\n", "several columns and no header"),
        (f"Kiss;{A}\n", "several columns and no header"),
        (f'"{A}","Kiss"\n', "line 1, has several columns, and no header names them"),
        (f'{B}\n{A},"Kiss, The"\n', "line 2, has several columns, and no header names them"),
        (f"{A}\tKiss\n", "line 1, has several columns, and no header names them"),
        (
            "url,title\nhttp://h.example/w_303,h_170,al_c/Big.jpg,Kiss\n",
            "2 columns, and a row of 4 cells, http://h.example/w_303,h_170",
        ),
        (f"{A}\nhttp://h.example/\0x.jpg\n", "a NUL byte in line 2"),
        (f"url,title\n{A},Ki\0ss\n", "a NUL byte in line 2"),
        (f'url,title\n{A},"Ki\n\0ss"\n', "a NUL byte in line 3"),
    ],
)
def test_what_is_no_list_is_an_error_that_says_what_was_found(tmp_path, text, message):
    (tmp_path / "urls_x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"urls_x.csv.*{message}"):
        urls(tmp_path / "urls_x.csv")


@pytest.mark.parametrize("name", ["urls_a_b.csv", "urls_a*b.csv", "urls_.a_b.csv"])
@pytest.mark.skipif(os.name == "nt", reason="no such names on Windows")
def test_two_lists_do_not_become_one_class(tmp_path, name):
    (tmp_path / "urls_a:b.csv").touch()
    (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        find_lists(tmp_path)
    assert "urls_a:b.csv" in str(error.value) and name in str(error.value)


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
        (f"{A}\n".encode("utf-16-le"), "NUL byte in line 1.*save it as UTF-8"),
        (f"\ufeff{A}\n".encode("utf-16-le")[:-1], "not UTF-8"),
        (
            f'title,url\n"Kiss,{A}\nb,{B}\n'.encode(),
            "urls_x.csv is not CSV: it ends inside an open quote",
        ),
        (f'url,title\n{A},"{"x" * 200_000}"\n'.encode(), "urls_x.csv is not CSV: line 2"),
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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("10-impressionism", "10-impressionism"),
        (" Pop Art ", "Pop Art"),
        ("a/b\\c", "a_b_c"),
        ('a:*?"<>|b', "a_b"),
        ("a\x00\n\x1fb c", "a_b c"),
        ("..hidden", "hidden"),
        ("v1.5.", "v1.5."),
        ("../up", "_up"),
        ("...", ""),
        ("", ""),
    ],
)
def test_class_names_can_name_folders(text, name):
    assert class_name(text) == name


def test_the_path_of_a_list(tmp_path):
    assert list_path(str(tmp_path), "x y") == tmp_path / "urls_x y.csv"


@pytest.mark.parametrize("period", ["", ".", "..", "a/b", ".hidden", " x"])
def test_a_period_that_names_no_folder_has_no_list(tmp_path, period):
    with pytest.raises(InputError, match="can't be a period: it names a folder, as 10-imp"):
        list_path(tmp_path, period)


@pytest.mark.parametrize(
    "url",
    [
        "http://museum.example/A/b%20c.jpg?q=1",
        "https://museum.example/A/b%20c.jpg?q=1",
        "https://MUSEUM.example/A/b%20c.jpg?q=1",
        "https://museum.example/A/b+c.jpg?q=1",
        "https://museum.example/A/b c.jpg?q=1#part",
        "https://museum.example/%41/b%20c.jpg?q=%31",
    ],
)
def test_urls_of_one_picture_have_one_key(url):
    assert url_key(url) == "museum.example/A/b c.jpg?q=1"


def test_keys_keep_what_tells_pictures_apart():
    assert url_key("http://a.example") == "a.example"
    assert url_key("http://a.example/x?u=http://b.example/Y") == "a.example/x?u=http://b.example/Y"
    assert url_key("http://a.example/x") != url_key("http://a.example/X")


def test_new_rows_are_those_without_a_known_key_each_once():
    rows = [
        {"url": "http://a.example/1", "title": "first"},
        {"url": "https://a.example/1", "title": "again"},
        {"url": "http://a.example/2"},
        {"url": "http://a.example/3"},
    ]
    assert new_rows(rows, {"a.example/2"}) == [rows[0], rows[3]]
    assert new_rows([], set()) == []


def test_a_new_list_has_a_header_and_a_row_for_each_url(tmp_path):
    path = tmp_path / "new" / "urls_x.csv"
    rows = [
        {"url": A, "title": "Kiss, The", "artist": "Klimt", "query": "kiss", "page": 1},
        {"url": B, "year": "1908", "query": "kiss", "page": 2},
    ]
    assert append(path, rows) == 2
    assert path.read_bytes().decode() == (
        "url,title,artist,year,licence,source_page,query,page\n"
        f'{A},"Kiss, The",Klimt,,,,kiss,1\n'
        f"{B},,,1908,,,kiss,2\n"
    )
    assert append(path, rows) == 0
    assert [file.name for file in path.parent.iterdir()] == ["urls_x.csv"]


@pytest.mark.parametrize(
    ("old", "added"),
    [
        (b"https://example.org/1.jpg\r\n", b"# q, page 4\r\nhttps://example.org/2.jpg\r\n"),
        (b"https://example.org/1.jpg", b"\n# q, page 4\nhttps://example.org/2.jpg\n"),
        (b"https://example.org/1.jpg\r", b"# q, page 4\rhttps://example.org/2.jpg\r"),
        (
            b'\xef\xbb\xbf# mine\n\n  https://example.org/0.jpg\n"https://example.org/1.jpg" ,\n',
            b"# q, page 4\nhttps://example.org/2.jpg\n",
        ),
        (
            b'Title, URL ,mine\n"One, ""1""",https://example.org/1.jpg,7\n',
            b'# q, page 4\n"Two, 2",https://example.org/2.jpg,\n',
        ),
        (
            b"Title;URL;mine\nOne, 1;https://example.org/1.jpg;7\n",
            b"# q, page 4\nTwo, 2;https://example.org/2.jpg;\n",
        ),
        (
            b"# page and query\r\npage,url,query\r\n,https://example.org/1.jpg,\r\n",
            b"4,https://example.org/2.jpg,q\r\n",
        ),
        (
            b"# empty so far",
            b"\nurl,title,artist,year,licence,source_page,query,page\n"
            b'https://example.org/2.jpg,"Two, 2",,,,,q,4\n',
        ),
    ],
)
def test_lists_grow_in_their_own_form(tmp_path, old, added):
    path = tmp_path / "urls_x.csv"
    path.write_bytes(old)
    known = urls(path)
    row = {"url": "https://example.org/2.jpg", "title": "Two, 2", "query": "q", "page": 4}
    repeat = {**row, "url": "http://EXAMPLE.org/1.jpg#top"}
    assert append(path, [repeat, row] if b"1.jpg" in old else [row]) == 1
    assert path.read_bytes() == old + added
    assert urls(path) == [*known, "https://example.org/2.jpg"]


def test_percent_encoding_makes_no_new_url(tmp_path):
    path = tmp_path / "urls_x.csv"
    path.write_text(
        "https://example.org/caf%C3%A9%20one.jpg?w=1\nhttp://[broken\n", encoding="utf-8"
    )
    rows = [
        {"url": url, "query": "q", "page": 1}
        for url in (
            "https://example.org/café+one.jpg?w=1",
            "https://example.org/caf%C3%A9%20one.jpg?w=2",
        )
    ]
    assert append(path, rows) == 1
    assert urls(path)[-1].endswith("?w=2")


def test_a_list_that_ends_inside_a_quote_is_left_alone(tmp_path):
    path = tmp_path / "urls_x.csv"
    path.write_text('url,title\nhttps://example.org/1.jpg,"The Kiss\n', encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="open quote"):
        append(path, [{"url": "https://example.org/2.jpg", "query": "q", "page": 1}])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["urls_x.csv"]


def test_a_failed_write_leaves_the_list_whole(tmp_path, monkeypatch):
    path = tmp_path / "urls_x.csv"
    path.write_text("https://example.org/1.jpg\n", encoding="utf-8")

    def refuse(*args):
        raise PermissionError("open elsewhere")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        append(path, [{"url": "https://example.org/2.jpg", "query": "q", "page": 1}])
    assert path.read_text(encoding="utf-8") == "https://example.org/1.jpg\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_permissions_stay(tmp_path):
    path, link = tmp_path / "mine.csv", tmp_path / "urls_x.csv"
    path.write_text("https://example.org/1.jpg\n", encoding="utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    append(link, [{"url": "https://example.org/2.jpg", "query": "q", "page": 1}])
    assert link.is_symlink() and len(urls(path)) == 2 and path.stat().st_mode & 0o777 == 0o640
