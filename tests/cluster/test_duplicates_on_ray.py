"""Import and near-duplicates on the workers of Ray: the same rows, bytes and groups as here."""

import hashlib
import shutil
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from artclf import download
from artclf.base.errors import StepError
from artclf.data import cleaning, duplicates, groups, sample, shared_candidates, shared_verdicts
from artclf.data.catalogue import read_catalogue

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

FIRST, SECOND = list(sample.PERIODS)[4], list(sample.PERIODS)[9]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory) -> Path:
    """Canvases of two periods with a smaller copy, a mirror image, a detail and a wall of them, one
    file in both periods, and a file that is no picture.
    """
    folder = tmp_path_factory.mktemp("gallery")
    canvases = [sample.canvas(FIRST, number, 240) for number in range(6)]
    width, height = canvases[2].size
    wall = Image.new("RGB", (480, 480))
    for place, canvas in enumerate(canvases[:4]):
        wall.paste(canvas.resize((240, 240)), (place % 2 * 240, place // 2 * 240))
    pictures = {f"{FIRST}/{number}.png": canvas for number, canvas in enumerate(canvases)}
    pictures |= {
        f"{FIRST}/smaller.jpg": canvases[0].resize((150, 140)),
        f"{FIRST}/detail.png": canvases[2].crop((0, 0, width * 5 // 8, height * 5 // 8)),
        f"{SECOND}/mirror.png": ImageOps.mirror(canvases[1]).resize((170, 160)),
        f"{SECOND}/wall.png": wall,
        f"{SECOND}/own.png": sample.canvas(SECOND, 1, 200),
    }
    for name, image in pictures.items():
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name)
    shutil.copyfile(folder / FIRST / "5.png", folder / SECOND / "5.png")
    (folder / SECOND / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (folder / FIRST / "nowhere.png").symlink_to(folder / "none.png")
    return folder


def hashes(folder: Path) -> dict:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_import_gives_the_same_rows_bytes_and_lines(map_jobs, gallery, tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    summary = download.import_folder(gallery, here)
    said = capsys.readouterr().out
    for _ in range(2):
        assert read_catalogue(here).status.tolist().count("ok") == 12
        found = download.import_folder(gallery, there, map_jobs=map_jobs)
        assert capsys.readouterr().out == said and "1 links lead nowhere" in said
        assert found.equals(summary)
        assert read_catalogue(there).equals(read_catalogue(here))
        assert hashes(there / "raw") == hashes(here / "raw") and not (there / "tmp").exists()
        summary = download.import_folder(gallery, here)
        said = capsys.readouterr().out


def test_a_folder_that_a_worker_does_not_see_is_an_error(map_jobs, tmp_path):
    function = partial(download._hash_of, tmp_path / "none")
    with pytest.raises(
        StepError, match=f"does not see the folder {tmp_path / 'none'}: all machines"
    ):
        list(map_jobs(function, [tmp_path / "none/a.png"]))


def test_near_duplicates_are_the_same(map_jobs, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_verdicts, "SMALLEST_SHARD", 4)
    monkeypatch.setattr(shared_verdicts, "PAIRS_IN_CHUNK", 8)
    monkeypatch.setattr(shared_candidates, "SMALLEST_BLOCK", 5)
    monkeypatch.setattr(shared_candidates, "WORDS_IN_PARTITION", 1500)
    monkeypatch.setattr(groups, "PAIRS_IN_PART", 3)
    here, there = tmp_path / "here", tmp_path / "there"
    download.import_folder(gallery, here)
    cleaning.normalise(here, workers=1)
    shutil.copytree(here, there)
    found = duplicates.mark(here)
    assert {"same", "mirror", "detail", "collage"} <= set(found.kind)
    assert duplicates.mark(there, map_jobs).equals(found)
    assert read_catalogue(there).equals(read_catalogue(here))
    assert not list(there.glob("for-workers-*"))
