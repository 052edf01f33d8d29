"""Zip and tar files of pictures, as people and attackers make them."""

import io
import tarfile
import zipfile

import pytest

from artclf.base.errors import InputError
from artclf.data.archives import as_folder, name_of

FILES = {"a/1.jpg": b"one", "b/2.jpg": b"two"}


def zipped(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def tarred(path, files=FILES, mode="w:gz", links=()):
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE
            member.linkname = target
            file.addfile(member)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("around", ["", "set/", "set/data/"])
def test_an_archive_is_a_folder_while_it_is_read(tmp_path, make, around):
    files = {around + name: content for name, content in FILES.items()}
    archive = make(tmp_path / "pictures.any", {**files, "__MACOSX/._1.jpg": b"", ".DS_Store": b""})
    with as_folder(archive, tmp_path / "data") as folder:
        found = contents(folder)
        assert {name: content for name, content in found.items() if name[0] in "ab"} == FILES
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_single_class_in_an_archive_stays_a_class(tmp_path):
    with as_folder(zipped(tmp_path / "a.zip", {"a/1.jpg": b"one"}), tmp_path / "data") as folder:
        assert contents(folder) == {"a/1.jpg": b"one"}


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/tmp/out.jpg", "..\\out.jpg"])
def test_what_leads_out_is_refused_and_nothing_is_written(tmp_path, make, name):
    archive = make(tmp_path / "evil", {**FILES, name: b"evil"})
    with (
        pytest.raises(InputError, match="leads out of its folder"),
        as_folder(archive, tmp_path / "data"),
    ):
        pass
    assert contents(tmp_path) == {"evil": archive.read_bytes(), "data/.lock": b""}


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../secret"])
def test_links_that_lead_out_are_refused(tmp_path, target):
    archive = tarred(tmp_path / "evil.tar.gz", links=[("a/link.jpg", target)])
    with (
        pytest.raises(InputError, match="can't be unpacked"),
        as_folder(archive, tmp_path / "data"),
    ):
        pass


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, make):
    archive = make(tmp_path / "bomb", {"a/1.jpg": bytes(3_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(InputError, match="more than 0.002 GB.*--max-unpacked"):  # noqa: SIM117
        with as_folder(archive, tmp_path / "data", max_gigabytes=0.002):
            pass
    with as_folder(archive, tmp_path / "data", max_gigabytes=0.003) as folder:
        assert len(contents(folder)["a/1.jpg"]) == 3_000_000


def test_what_is_no_archive_or_broken_is_named(tmp_path):
    (tmp_path / "text").write_text("text")
    broken = zipped(tmp_path / "broken.zip")
    broken.write_bytes(broken.read_bytes().replace(b"a/1.jpg", b"a/9.jpg", 1))
    for path, message in (("text", "neither a folder"), ("broken.zip", "can't be unpacked")):
        with pytest.raises(InputError, match=f"{path} .*{message}|{path} is {message}"):  # noqa: SIM117
            with as_folder(tmp_path / path, tmp_path / "data"):
                pass
    with pytest.raises(FileNotFoundError, match="none is not a folder"):  # noqa: SIM117
        with as_folder(tmp_path / "none", tmp_path / "data"):
            pass


def test_the_name_of_an_archive_has_no_suffix(tmp_path):
    names = ["pics.zip", "pics.tar.gz", "Pics.TGZ", "pics.v2.tar", "pics"]
    assert [name_of(tmp_path / name) for name in names] == [
        "pics",
        "pics",
        "Pics",
        "pics.v2",
        "pics",
    ]
    (tmp_path / "folder.zip").mkdir()
    assert name_of(tmp_path / "folder.zip") == "folder.zip"
