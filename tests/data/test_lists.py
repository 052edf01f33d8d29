"""URL lists as people make them."""

import pytest

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
