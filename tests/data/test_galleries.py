"""Folders of pictures as people make them, with and without a manifest."""

import os

import pytest
from made_pictures import encoded, noise

from artclf.base.errors import InputError
from artclf.commands.options import Layout
from artclf.data.galleries import LAYOUTS, read_gallery


def gallery(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"pixels")
    return folder


def pictures(*args, **kwargs):
    found = read_gallery(*args, **kwargs).pictures
    return [(row["file"].name, row["period"]) for row in found]


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
        "x.jpg/8.tif",
        "a/.ipynb_checkpoints/9.gif",
    )
    assert pictures(tmp_path) == [
        ("2.PNG", "a"),
        ("1.jpg", "b"),
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
    rows = read_gallery(
        tmp_path / "g", *[tmp_path / place] * (place == "elsewhere/facts.csv")
    ).pictures
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
        read_gallery(folder, label_column=label)


def test_pictures_without_labels_are_taken_from_any_folder(tmp_path):
    gallery(tmp_path, "1.jpg", "a/2.jpg", "a/train/b/3.jpg")
    assert pictures(tmp_path, layout="unlabelled") == [
        ("1.jpg", "unlabelled"),
        ("2.jpg", "unlabelled"),
        ("3.jpg", "unlabelled"),
    ]
    assert read_gallery(tmp_path, layout="unlabelled").notes == []
    with pytest.raises(InputError, match="--layout unlabelled says that there are none"):
        read_gallery(tmp_path, layout="unlabelled", label_column="style")
    with pytest.raises(InputError, match="for pictures without labels, say --layout unlabelled"):
        read_gallery(gallery(tmp_path / "flat", "1.jpg"))
    assert [layout.value for layout in Layout] == list(LAYOUTS)


def test_unlabelled_pictures_beside_those_of_classes_are_counted(tmp_path):
    gallery(tmp_path, "a/1.jpg", "unlabelled/2.jpg", "unlabelled/3.jpg")
    [note] = read_gallery(tmp_path).notes
    assert "2 pictures are unlabelled: they wait for a label, and no training" in note


def test_missing_galleries_and_manifests_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        read_gallery(tmp_path / "nowhere")
    gallery(tmp_path, "a/1.jpg")
    with pytest.raises(FileNotFoundError, match="other.csv"):
        read_gallery(tmp_path, tmp_path / "other.csv")


# Folders of parts, and folders in folders


def read(folder, *files, **kwargs):
    """Class and part of each file as `read_gallery` gives them, by its path, and the notes."""
    found = read_gallery(gallery(folder, *files), **kwargs)
    told = {}
    for row in found.pictures:
        told[row["file"].relative_to(folder).as_posix()] = (row["period"], row.get("split"))
    return told, found.notes


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [("train", "valid", "test"), ("Train", "VAL", "Test"), ("training", "validation", "testing")],
)
def test_folders_of_parts_become_the_column_split(tmp_path, train, valid, test):
    told, notes = read(tmp_path, f"{train}/a/1.jpg", f"{valid}/a/2.jpg", f"{test}/b/3.jpg")
    assert told == {
        f"{train}/a/1.jpg": ("a", "train"),
        f"{valid}/a/2.jpg": ("a", "valid"),
        f"{test}/b/3.jpg": ("b", "test"),
    }
    assert any("train 1, valid 1, test 1" in note for note in notes)


def test_the_flat_test_folder_of_a_contest_has_no_class_and_is_named(tmp_path):
    told, notes = read(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/3.jpg", "test/4.jpg")
    assert told == {"train/a/1.jpg": ("a", "train"), "train/b/2.jpg": ("b", "train")}
    [note] = [note for note in notes if "test/3.jpg and test/4.jpg" in note]
    assert "2 pictures" in note


def test_parts_within_classes_are_parts_too(tmp_path):
    told, _ = read(tmp_path, "a/train/1.jpg", "a/val/2.jpg", "b/train/3.jpg")
    assert told == {
        "a/train/1.jpg": ("a", "train"),
        "a/val/2.jpg": ("a", "valid"),
        "b/train/3.jpg": ("b", "train"),
    }


def test_classes_that_are_called_like_parts_stay_classes(tmp_path):
    told, _ = read(tmp_path, "train/1.jpg", "plane/2.jpg")
    assert told == {"train/1.jpg": ("train", None), "plane/2.jpg": ("plane", None)}
    told, _ = read(tmp_path / "two", "train/a/1.jpg", "test/b/2.jpg", layout="class")
    assert told == {"train/a/1.jpg": ("train", None), "test/b/2.jpg": ("test", None)}


def test_the_class_is_the_first_folder_and_the_note_says_so(tmp_path):
    files = ("a/early/1.jpg", "a/late/2.jpg", "b/early/3.jpg")
    told, notes = read(tmp_path, *files)
    assert [period for period, _ in told.values()] == ["a", "a", "b"]
    assert any("3 pictures lie in folders below" in note for note in notes)
    told, _ = read(tmp_path, layout="nearest")
    assert [period for period, _ in told.values()] == ["early", "late", "early"]


@pytest.mark.parametrize(
    ("files", "readings"),
    [
        (["a/1.jpg", "b/sub/2.jpg"], ["--layout class for the classes a (1), b (1)", "a (1), sub (1)"]),
        (["train/a/1.jpg", "val/a/2.jpg", "more/3.jpg"], ["parts train, val", "classes more, train, val"]),
        (["all/a/1.jpg", "all/b/2.jpg"], ["single folder all", "a (1), b (1)"]),
        (["train/a/1.jpg", "train/b/c/2.jpg"], ["a (1), b (1)"]),
    ],
)  # fmt: skip
def test_a_mixture_is_an_error_that_shows_both_readings(tmp_path, files, readings):
    with pytest.raises(InputError) as error:
        read_gallery(gallery(tmp_path, *files))
    assert [text for text in readings if text not in str(error.value)] == []


def test_a_layout_that_does_not_fit_is_named(tmp_path):
    gallery(tmp_path, "train/a/1.jpg", "more/b/2.jpg")
    with pytest.raises(InputError, match="finds a folder more, which is no part"):
        read_gallery(tmp_path, layout="part-class")
    with pytest.raises(InputError, match="--layout is 'deep'"):
        read_gallery(tmp_path, layout="deep")


# What is left out


def test_what_is_left_out_is_counted_and_named(tmp_path, monkeypatch):
    gallery(tmp_path, "a/1.jpg", "a/notes.txt", "a/2.heic", "b/3.jpg", "closed/4.jpg", "5.jpg")
    (tmp_path / "b/picture").write_bytes(encoded(noise()))
    (tmp_path / "b/no_picture").write_bytes(b"text")
    (tmp_path / "b/broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    look = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = read_gallery(tmp_path)
    names = [row["file"].relative_to(tmp_path).as_posix() for row in found.pictures]
    assert names == ["a/1.jpg", "b/3.jpg", "b/picture"]
    assert found.unreadable == ["closed"]
    said = "\n".join(found.notes)
    assert "1 folders can't be read and are left out, such as closed" in said
    assert "1 links lead nowhere and are left out, such as b/broken.jpg" in said
    assert "1 pictures have no suffix and are taken, such as b/picture" in said
    assert "3 files are left out" in said and ".heic (1)" in said and "none (1)" in said
    assert "1 pictures lie in no folder of a class and are left out, such as 5.jpg" in said


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    gallery(tmp_path / "elsewhere", "1.jpg")
    gallery(tmp_path / "g", "b/2.jpg")
    (tmp_path / "g/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "g/b/circle").symlink_to(tmp_path / "g")
    assert pictures(tmp_path / "g") == [("1.jpg", "a"), ("2.jpg", "b")]


def test_formats_that_the_downloader_takes_are_taken(tmp_path):
    names = ["1.avif", "2.jp2", "3.JFIF", "4.jpe"]
    gallery(tmp_path, *(f"a/{name}" for name in names))
    assert [name for name, _ in pictures(tmp_path)] == names


# Names that tell the artist


WIKIART = (
    "a/vincent-van-gogh_the-night-cafe-1888.jpg",
    "a/rembrandt_self-portrait-1659(1).jpg",
    "b/claude-monet_water-lilies.jpg",
)


def test_names_like_those_of_wikiart_tell_artist_title_and_year(tmp_path):
    found = read_gallery(gallery(tmp_path, *WIKIART))
    facts = [tuple(map(row.get, ("artist", "title", "year"))) for row in found.pictures]
    assert facts == [
        ("Rembrandt", "Self portrait", "1659"),
        ("Vincent van Gogh", "The night cafe", "1888"),
        ("Claude Monet", "Water lilies", None),
    ]
    assert any("3 pictures are read from their names" in note for note in found.notes)
    found = read_gallery(tmp_path, file_names=False)
    assert [row for row in found.pictures if "artist" in row] == [] and found.notes == []


def test_a_manifest_counts_more_than_a_name(tmp_path):
    gallery(tmp_path, *WIKIART)
    lines = ["file,artist", f"{WIKIART[0]},Somebody Else"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    rows = {row["file"].name: row for row in read_gallery(tmp_path).pictures}
    row = rows["vincent-van-gogh_the-night-cafe-1888.jpg"]
    assert (row["artist"], row["title"]) == ("Somebody Else", "The night cafe")


# Manifests of other forms, and those that do not fit


def write(file, text, encoding="utf-8"):
    file.write_text(text, encoding=encoding, newline="")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,label,artist\nx/1.jpg,cubism,A\nx/2.jpg,pop,B\n"),
        ("metadata.csv", "file_name;label;artist\nx/1.jpg;cubism;A\nx/2.jpg;pop;B\n"),
        ("manifest.csv", "path\tLabel\tartist\r\nx\\1.jpg\tcubism\tA\r\nx\\2.jpg\tpop\tB\r\n"),
        (
            "metadata.jsonl",
            '{"file_name": "x/1.jpg", "label": "cubism", "artist": "A", "n": [1]}\n'
            '{"file_name": "x/2.jpg", "label": "pop", "artist": "B"}\n',
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_of_other_names_and_separators_are_read(tmp_path, name, text, encoding):
    gallery(tmp_path, "x/1.jpg", "x/2.jpg")
    write(tmp_path / name, text, encoding)
    found = read_gallery(tmp_path, label_column="label").pictures
    assert [(row["period"], row["artist"]) for row in found] == [("cubism", "A"), ("pop", "B")]
    assert [row["period"] for row in read_gallery(tmp_path).pictures] == ["x", "x"]


@pytest.mark.parametrize("text", ["path,label\nx/1.jpg,10\nx/2.jpg,9\n", "x/1.jpg,10\nx/2.jpg,9\n"])
def test_a_table_of_paths_and_labels_alone_tells_the_classes(tmp_path, text):
    gallery(tmp_path / "g", "x/1.jpg", "x/2.jpg")
    table = write(tmp_path / "style.csv", text)
    found = read_gallery(tmp_path / "g", table)
    assert [row["period"] for row in found.pictures] == ["10", "9"]
    assert any("the class is its column 'label'" in note for note in found.notes)


def test_every_part_may_have_its_own_metadata(tmp_path):
    gallery(tmp_path, "train/1.jpg", "train/2.jpg", "test/1.jpg")
    write(tmp_path / "train/metadata.csv", "file_name,label\n1.jpg,a\n2.jpg,b\n")
    write(tmp_path / "test/metadata.csv", "file_name,label\n1.jpg,b\n")
    told, _ = read(tmp_path)
    assert told == {
        "train/1.jpg": ("a", "train"),
        "train/2.jpg": ("b", "train"),
        "test/1.jpg": ("b", "test"),
    }


def test_a_manifest_that_names_no_picture_is_an_error_that_shows_two_rows(tmp_path):
    gallery(tmp_path, "a/1.jpg")
    write(tmp_path / "manifest.csv", "file,artist\nb/7.jpg,A\nb/8.jpg,B\nb/9.jpg,C\n")
    with pytest.raises(
        InputError, match="3 rows, and none names .* b/7.jpg and b/8.jpg, .* a/1.jpg"
    ):
        read_gallery(tmp_path)


def test_rows_that_match_are_counted_and_two_that_do_not_are_shown(tmp_path):
    gallery(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg")
    write(tmp_path / "manifest.csv", "file,artist\na/1,A\nb/3.jpg,B\nx,C\ny,D\nz,E\n")
    found = read_gallery(tmp_path)
    assert [row.get("artist") for row in found.pictures] == ["A", None, "B"]
    said = "\n".join(found.notes)
    assert "2 of 5 rows name a picture" in said and "3 name none, such as x and y" in said
    assert "1 of them name it without its suffix or folder, such as a/1" in said
    assert "1 pictures have no row, such as a/2.jpg" in said


def test_a_name_that_may_be_two_pictures_is_none(tmp_path):
    gallery(tmp_path, "a/1.jpg", "b/1.jpg", "b/2.jpg")
    write(tmp_path / "manifest.csv", "file,artist\n1.jpg,A\n2.jpg,B\n")
    found = read_gallery(tmp_path)
    assert [row.get("artist") for row in found.pictures] == [None, None, "B"]
    assert "1 name none, such as 1.jpg" in "\n".join(found.notes)


def test_blank_labels_are_counted_and_named(tmp_path):
    gallery(tmp_path, *(f"{i}.jpg" for i in range(4)))
    write(tmp_path / "manifest.csv", "file,style\n0.jpg,a\n1.jpg,\n2.jpg, \n")
    found = read_gallery(tmp_path, label_column="style")
    assert [row["file"].name for row in found.pictures] == ["0.jpg"]
    said = "\n".join(found.notes)
    assert "the column 'style' is blank for 2 pictures, such as 1.jpg and 2.jpg" in said
    assert "1 pictures have no row, such as 3.jpg; they are left out" in said


def test_a_manifest_of_several_folders_is_counted_for_this_one(tmp_path):
    gallery(tmp_path, "one/a/1.jpg", "two/b/2.jpg")
    write(tmp_path / "manifest.csv", "file,artist\none/a/1.jpg,A\ntwo/b/2.jpg,B\none/gone.jpg,C\n")
    found = read_gallery(tmp_path / "one")
    assert [row["artist"] for row in found.pictures] == ["A"]
    assert "1 of 3 rows name a picture" in found.notes[0]
    assert "1 name none, such as one/gone.jpg" in found.notes[0]


def test_a_manifest_above_that_is_of_other_folders_is_no_error(tmp_path):
    gallery(tmp_path, "one/a/1.jpg")
    write(tmp_path / "manifest.csv", "file,artist\ngone/2.jpg,A\n")
    found = read_gallery(tmp_path / "one")
    assert "0 of 1 rows name a picture" in found.notes[0]
