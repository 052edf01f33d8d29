"""Folders of pictures as people make them, with and without a manifest."""

import pytest

from artclf.data.galleries import read_gallery


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
            ["1.jpg"],
            b"file,style\n1.jpg,Pop/Art\n2.jpg, Pop/Art \n3.jpg,Pop:Art\n",
            "style",
            ValueError,
            "manifest.csv: the labels 'Pop/Art' and 'Pop:Art' would be one class, Pop_Art",
        ),
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
