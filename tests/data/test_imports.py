"""Folders that have changed since they were imported: the catalogue follows, decisions stay."""

import shutil
from pathlib import Path

import pytest
from made_pictures import encoded, noise

from artclf import clean, download
from artclf.data import archives, imports, review, splits
from artclf.data.catalogue import Catalogue, read_catalogue

NAMES = ("a/0.png", "a/1.png", "b/2.png", "b/3.png", "c/4.png", "c/5.png")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    for seed, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise(seed=seed)))
    return folder


@pytest.fixture
def data(folder, tmp_path):
    data = tmp_path / "data"
    download.import_folder(folder, data)
    clean.clean_all(data, near_duplicates=False)
    return data


def again(folder, data, capsys, **kwargs) -> str:
    """Import and clean again; what was said."""
    capsys.readouterr()
    download.import_folder(folder, data, **kwargs)
    said = capsys.readouterr().out
    clean.clean_all(data, near_duplicates=False)
    return said


def url_of(folder, name) -> str:
    import hashlib

    return f"import:{hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


def used(data) -> dict:
    """The class of every usable picture by its URL; its clean copy is there."""
    table = splits.usable(data)
    assert all((data / file).exists() for file in table.file)
    return dict(zip(table.url, table.period, strict=True))


def classes_of(folder) -> dict:
    files = list(folder.rglob("*.png"))
    return {url_of(folder, file.relative_to(folder)): file.parent.name for file in files}


def test_a_folder_that_did_not_change_says_nothing_of_changes(folder, data, capsys):
    assert again(folder, data, capsys) == ""
    assert used(data) == classes_of(folder)


def test_a_picture_in_another_class_moves_there_with_all_that_is_known_of_it(folder, data, capsys):
    url = url_of(folder, "a/0.png")
    review.decide(data, [url], "keep")
    before = read_catalogue(data).set_index("url").loc[url]
    (folder / "a/0.png").rename(folder / "b/0.png")
    said = again(folder, data, capsys)
    assert said == "1 pictures moved from a to b, such as b/0.png\n"
    after = read_catalogue(data).set_index("url").loc[url]
    assert used(data) == classes_of(folder) and len(read_catalogue(data)) == 6
    assert (after.period, after.review, after.status) == ("b", "keep", "ok")
    assert after.file == before.file.replace("raw/a/", "raw/b/") and (data / after.file).exists()
    assert not (data / before.file).exists()
    assert after.clean_sha256 == before.clean_sha256


def test_a_deleted_picture_is_gone_and_comes_back_with_its_decision(folder, data, capsys, tmp_path):
    url = url_of(folder, "a/0.png")
    review.decide(data, [url], "keep")
    shutil.move(folder / "a/0.png", tmp_path / "away.png")
    said = again(folder, data, capsys)
    assert "1 pictures are no longer in the folder, such as a/0.png" in said
    assert used(data) == classes_of(folder) and url not in used(data)
    row = read_catalogue(data).set_index("url").loc[url]
    assert (row.status, row.review) == ("gone", "keep") and (data / row.file).exists()
    assert again(folder, data, capsys) == ""
    shutil.move(tmp_path / "away.png", folder / "a/0.png")
    assert again(folder, data, capsys) == "1 pictures that were gone are back\n"
    assert used(data)[url] == "a"
    assert read_catalogue(data).set_index("url").review[url] == "keep"


def test_a_renamed_class_has_all_its_pictures_and_decisions_follow(folder, data, capsys):
    moved, dropped = url_of(folder, "a/0.png"), url_of(folder, "c/4.png")
    review.decide(data, [moved], "move:c")
    review.decide(data, [dropped], "drop")
    (folder / "c").rename(folder / "10-new")
    said = again(folder, data, capsys)
    assert "class c is 10-new now" in said and "2 pictures moved from c to 10-new" in said
    expected = {**classes_of(folder), moved: "10-new"}
    del expected[dropped]
    assert used(data) == expected
    table = read_catalogue(data).set_index("url")
    assert (table.review[moved], table.review[dropped]) == ("move:10-new", "drop")
    assert set(table.period) == {"a", "b", "10-new"}
    assert [row["url"] for row in review.undo(data)] == [dropped]  # decisions can be taken back


def test_a_picture_that_lies_where_a_review_moved_it_is_kept_there(folder, data, capsys):
    url = url_of(folder, "a/0.png")
    review.decide(data, [url], "move:b")
    (folder / "a/0.png").rename(folder / "b/0.png")
    again(folder, data, capsys)
    assert used(data) == classes_of(folder)
    assert read_catalogue(data).set_index("url").review[url] == "keep"


def test_a_picture_in_two_classes_is_a_conflict_until_it_leaves_one(folder, data, capsys):
    url = url_of(folder, "a/0.png")
    shutil.copy(folder / "a/0.png", folder / "b/copy.png")
    assert again(folder, data, capsys) == "1 pictures are new\n"
    assert url not in used(data)
    (folder / "a/0.png").unlink()
    assert "no longer in the folder, such as a/0.png" in again(folder, data, capsys)
    assert used(data) == classes_of(folder) and used(data)[url] == "b"


def test_what_another_folder_still_holds_is_not_gone(folder, data, capsys, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    download.import_folder(other, data)
    (folder / "a/0.png").unlink()
    assert again(folder, data, capsys) == ""
    (other / "a/0.png").unlink()
    assert "1 pictures are no longer in the folder" in again(other, data, capsys)


def test_what_can_not_be_looked_into_is_taken_as_it_was(folder, data):
    with Catalogue(data) as catalogue:
        keys = {}
        for row in catalogue.db.execute("SELECT * FROM imports").fetchall():
            keys[row["file"]] = (row["url"], row["period"])
        [source] = {row[0] for row in catalogue.db.execute("SELECT folder FROM imports")}
        visible = {file: key for file, key in keys.items() if not file.startswith("a/")}
        assert imports.follow(catalogue, data, source, visible, ["a"]) == []
        assert catalogue.count("status = 'gone'") == 0
        assert len(imports.follow(catalogue, data, source, visible)) == 1
        assert catalogue.count("status = 'gone'") == 2


def test_an_import_that_was_killed_between_files_and_catalogue_goes_on(
    folder, data, capsys, monkeypatch
):
    url = url_of(folder, "a/0.png")
    (folder / "a/0.png").rename(folder / "b/0.png")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(review, "relabel", killed)
        download.import_folder(folder, data)
    assert read_catalogue(data).set_index("url").period[url] == "a"
    assert "1 pictures moved from a to b" in again(folder, data, capsys)
    assert used(data) == classes_of(folder)


def test_other_classes_by_a_manifest_move_the_pictures(folder, data, capsys):
    lines = [f"{name},{'x' if i % 2 else 'y'}" for i, name in enumerate(NAMES)]
    (folder / "manifest.csv").write_text("\n".join(["file,style", *lines]), encoding="utf-8")
    again(folder, data, capsys, label_column="style")
    assert set(used(data).values()) == {"x", "y"} and len(used(data)) == 6


def test_an_archive_that_changed_is_followed_like_a_folder(folder, tmp_path, capsys):
    data = tmp_path / "data"
    archive = shutil.make_archive(tmp_path / "pictures", "zip", folder)
    download.import_folder(archive, data)
    clean.clean_all(data, near_duplicates=False)
    assert used(data) == classes_of(folder) and archives.name_of(archive) == "pictures"
    (folder / "a/0.png").rename(folder / "b/0.png")
    shutil.make_archive(tmp_path / "pictures", "zip", folder)
    assert "1 pictures moved from a to b, such as b/0.png" in again(archive, data, capsys)
    assert used(data) == classes_of(folder)
    assert not (data / "unpacked").exists()


def test_a_picture_in_several_parts_is_in_the_first_alone(tmp_path, capsys):
    folder, data = tmp_path / "folder", tmp_path / "data"
    for name, seed in (("test/a/x", 0), ("train/a/y", 0), ("train/b/z", 1)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(encoded(noise(seed=seed)))
    download.import_folder(folder, data)
    assert read_catalogue(data).split.tolist() == ["train", "train"]
    said = capsys.readouterr().out
    assert "2 files are in several parts, byte for byte" in said and "x.png (test)" in said


def test_a_picture_that_was_gone_and_comes_back_in_another_class_has_moved(
    folder, data, capsys, tmp_path
):
    url = url_of(folder, "a/0.png")
    review.decide(data, [url], "keep")
    shutil.move(folder / "a/0.png", tmp_path / "away.png")
    again(folder, data, capsys)
    shutil.move(tmp_path / "away.png", folder / "b/0.png")
    assert "1 pictures moved from a to b" in again(folder, data, capsys)
    assert used(data) == classes_of(folder) and len(read_catalogue(data)) == 6
    assert read_catalogue(data).set_index("url").review[url] == "keep"


def fetch_served(folder, tmp_path, capsys) -> str:
    """Serve, fetch and clean the folder, as `artclf run FOLDER` does; what was said."""
    lists, data = tmp_path / "data" / "urls", tmp_path / "data"
    download.prepare_gallery(folder, lists)
    capsys.readouterr()
    with download.serve_gallery(folder, lists) as address:
        download.fetch_lists(lists, data, allowed_address=address)
    said = capsys.readouterr().out
    clean.clean_all(data, near_duplicates=False)
    return said


def used_files(data) -> dict:
    table = splits.usable(data)
    return {f"import:{sha256}": period for sha256, period in zip(table.sha256, table.period)}  # noqa: B905


def test_a_served_folder_is_followed_too(folder, tmp_path, capsys):
    data = tmp_path / "data"
    assert fetch_served(folder, tmp_path, capsys) == ""
    assert used_files(data) == classes_of(folder)
    table = read_catalogue(data)
    moved = table[table.url.str.endswith("/a/0.png")].url.iloc[0]
    review.decide(data, [moved], "keep")
    (folder / "a/0.png").rename(folder / "b/0.png")
    (folder / "c/4.png").unlink()
    said = fetch_served(folder, tmp_path, capsys)
    assert "2 pictures are no longer in the folder" in said
    assert used_files(data) == classes_of(folder)
    table = read_catalogue(data).set_index("url")
    assert table.review[moved.replace("/a/", "/b/")] == "keep"
    (folder / "b/0.png").rename(folder / "a/0.png")
    assert "1 pictures that were gone are back" in fetch_served(folder, tmp_path, capsys)
    assert used_files(data) == classes_of(folder)


def test_the_parts_of_a_served_folder_are_known(tmp_path, capsys):
    folder = tmp_path / "folder"
    for seed, name in enumerate(("train/a/1.png", "valid/a/2.png", "train/b/3.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(noise(seed=seed)))
    fetch_served(folder, tmp_path, capsys)
    table = read_catalogue(tmp_path / "data")
    assert sorted(zip(table.period, table.split, strict=True)) == [
        ("a", "train"),
        ("a", "valid"),
        ("b", "train"),
    ]


def test_files_that_end_workers_are_told(folder, data, capsys):
    """Of one the hash can't be computed, and of another the header can't be read."""

    def map_jobs(function, jobs, workers=None, chunk_size=16, initializer=None):
        for job in jobs:
            file = job if isinstance(job, Path) else job.file
            bad = "0.png" if isinstance(job, Path) else "1.png"
            yield [(job, None if file.name == bad else function(job))]

    other = data.parent / "other"
    summary = download.import_folder(folder, other, map_jobs=map_jobs)
    assert (
        "1 files can't be read and are left out, such as a/0.png (ends" in capsys.readouterr().out
    )
    assert summary.ok.tolist() == [0, 2, 2] and summary.failed.tolist() == [1, 0, 0]
    [row] = read_catalogue(other).query("status == 'failed'").to_dict("records")
    assert row["reason"] == "crashed the decoder" and row["url"] == url_of(folder, "a/1.png")
    assert (download.import_folder(folder, other).ok == [1, 0, 0]).all()


@pytest.mark.parametrize("options", [[], ["--level-sources"]])
def test_a_folder_that_is_missing_is_named_before_ray_starts(command, tmp_path, options):
    missing, data = tmp_path / "none", tmp_path / "data"
    code, _, errors = command("import", missing, "--data", data, "--engine", "ray", *options)
    assert code == 1 and f"{missing} is not a folder, nor a zip or tar file" in errors
    assert not data.exists()
