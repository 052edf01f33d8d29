"""Packs in steps: what reads takes one where it lies, with the results of its data set; what writes
takes neither a pack nor an address.
"""

import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import artclf
from artclf import clean, cli, download, interpret, train
from artclf.answers import batch
from artclf.base import files, locks
from artclf.base.errors import InputError, SettingError
from artclf.data import lists, packing, packs, splits
from artclf.data.catalogue import read_catalogue
from artclf.model import features
from artclf.model.store import Store

SMALL = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}
MB = 0.05  # of a shard: a few canvases
ADDRESS = "s3://bucket/name"


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """The folder in which steps keep what they compute of packs."""
    monkeypatch.delenv("ARTCLF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "artclf"


@pytest.fixture
def pack(drawn, tmp_path) -> Path:
    """A pack of the clean copies of `drawn`."""
    packing.pack(drawn, tmp_path / "pack", clean=True, shard_size=MB)
    return tmp_path / "pack"


def content(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_rows_and_features_are_those_of_the_data_set(fresh, pack, cache):
    before = content(pack)
    pd.testing.assert_frame_equal(splits.items(pack), splits.items(fresh))
    rows = read_catalogue(pack).query("clean_status == 'ok'")
    found = features.extract(pack, rows, "efficientnet_lite0", 64)
    assert np.array_equal(found, features.extract(fresh, rows, "efficientnet_lite0", 64))
    assert content(pack) == before and (cache / "features.db").exists()


def test_fastai_reads_the_pictures_of_a_pack_in_processes_of_its_own(fresh, s3, tmp_path):
    pack = f"{s3}/{tmp_path.name}"
    packing.pack(fresh, pack, clean=True, shard_size=MB)
    batches = []
    for data in (fresh, pack):
        learn = train.learner(data, tmp_path / "out", cached=False, **SMALL)
        loader = learn.dls.valid.new(num_workers=2)
        batches.append([(x.as_subclass(torch.Tensor), y) for x, y in loader])
    for (x, y), (other_x, other_y) in zip(*batches, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a folder", "an object store"])
def test_training_gives_the_same_network_and_figures(fresh, pack, cache, place, tmp_path, request):
    if place == "an object store":
        pack = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
        packing.pack(fresh, pack, clean=True, shard_size=MB)
    learners, metrics = [], []
    for data, name in ((fresh, "of-folder"), (pack, "of-pack")):
        learners.append(train.fit(data, tmp_path / name, 1, 1, **SMALL))
        metrics.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    expected, found = (learn.model.state_dict() for learn in learners)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in ("metrics", "calibration", "final", "data_hash", "protocol", "recipe"):
        assert metrics[0][name] == metrics[1][name]
    assert artclf.load_learner(tmp_path / "of-pack", trust=True).predict(
        next((fresh / "clean").rglob("*.jpg"))
    )
    assert b"artclf" not in (tmp_path / "of-pack" / "learner.pkl").read_bytes()
    for name in ("predictions.csv", "model.safetensors", "README.md"):
        assert (tmp_path / "of-pack" / name).read_bytes() == (
            tmp_path / "of-folder" / name
        ).read_bytes()
    images = list(splits.items(fresh).clean_sha256)
    for name in ("features.db", "pixels.db"):
        here, there = Store(fresh / name), Store(cache / name)
        assert here.keys() == there.keys()
        for key in list(here.keys()):
            assert here.read(key, images) == there.read(key, images)


def test_the_command_trains_on_a_pack_and_says_where_it_keeps_features(
    pack, cache, tmp_path, command
):
    before = content(pack)
    options = ["--size", 64, "--batch-size", 8, "--epochs", 1, "--unfrozen-epochs", 0, "--no-final"]
    options += ["--arch", "efficientnet_lite0", "--json"]
    code, out, err = command("train", "--data", pack, "--out", tmp_path / "out", *options)
    assert code == 0 and json.loads(out)["images"] > 0, err
    assert f"stored in {cache / 'features.db'}" in err and content(pack) == before
    other = tmp_path / "other"
    code, out, err = command(
        "train", "--data", pack, "--out", tmp_path / "out", "--cache", other, *options
    )
    assert (
        code == 0
        and f"stored in {other / 'features.db'}" in err
        and (other / "features.db").exists()
    )


def test_a_pack_of_raw_pictures_is_not_trained_on(drawn, tmp_path, command):
    packing.pack(drawn, tmp_path / "raw")
    code, _, err = command("train", "--data", tmp_path / "raw", "--out", tmp_path / "out")
    assert code == 1 and "raw pictures" in err and "--clean" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("clean", [False, True])
def test_the_pictures_of_a_pack_get_the_answers_of_those_in_the_folder(
    export, drawn, s3, tmp_path, command, clean
):
    pack = f"{s3}/{tmp_path.name}"
    packing.pack(drawn, pack, clean=clean, shard_size=MB)
    top = drawn / ("clean" if clean else "raw")
    tables = []
    for place, base in ((top, drawn), (pack, pack)):
        code, out, err = command(
            "predict", place, "--out", export, "--save", tmp_path / "answers.csv", "--json"
        )
        assert code == 0 and json.loads(out)["errors"] == 0, err
        table = pd.read_csv(tmp_path / "answers.csv")
        table["image"] = table.image.str.removeprefix(f"{base}/")
        tables.append(table.set_index("image").sort_index())
    assert len(tables[0]) == len(list(top.rglob("*.*")))
    pd.testing.assert_frame_equal(*tables, atol=1e-5)  # batches differ
    (tmp_path / "list.txt").write_text(f"{pack}\n")
    found = batch.pictures_in([str(tmp_path / "list.txt")])
    assert [name for name, _ in found] == [str(picture) for picture in packs.pictures(pack)]


def test_a_place_without_a_pack_is_an_error_beside_the_answers_for_others(
    export, drawn, s3, tmp_path
):
    file = next((drawn / "clean").rglob("*.jpg"))
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "pack.json").write_text("{")
    places = [str(file), f"{s3}/none", "nothing://a/b", str(tmp_path / "pack")]
    found = artclf.load(export).predict(places)
    assert found.image.tolist() == places and found.error[0] == ""
    assert "holds no pack" in found.error[1] and "can't be used" in found.error[2]
    assert "is no index of a pack" in found.error[3]


def paths_of_commands() -> list[tuple]:
    """Function and name of each option and argument that is a folder or file, of every command."""
    found, apps = [], [cli.app]
    for app in apps:
        apps += [group.typer_instance for group in app.registered_groups]
    for command in [command for app in apps for command in app.registered_commands]:
        for name, parameter in inspect.signature(
            command.callback, eval_str=True
        ).parameters.items():
            kinds = getattr(parameter.annotation, "__origin__", parameter.annotation)
            if kinds is Path or Path in getattr(kinds, "__args__", ()):
                found.append(
                    pytest.param(command.callback, name, id=f"{command.callback.__name__}-{name}")
                )
    return found


@pytest.mark.parametrize("function, name", paths_of_commands())
def test_no_option_that_is_a_folder_or_file_takes_an_address_or_a_pack(function, name, tmp_path):
    with pytest.raises(SettingError, match=f"{ADDRESS} is an address.*artclf data unpack"):
        function(**{name: Path(ADDRESS)})
    (tmp_path / packs.INDEX).touch()
    with pytest.raises(InputError, match="is a pack.*artclf data unpack"):
        function(**{name: tmp_path})


WITH_DATA = [
    ["download", "--lists", "lists", "--data"],
    ["import", "gallery", "--data"],
    ["clean", "--data"],
    ["clean", "--engine", "ray", "--data"],
    ["review", "--data"],
    ["measure"],
    ["interpret", "--data"],
    ["report", "run", "--data"],
    ["export", "--onnx", "--data"],
    ["similar", "a.jpg", "--data"],
    ["similar", "a.jpg", "--among"],
    ["serve", "--data"],
    ["serve", "--collect"],
    ["painters", "--data"],
    ["restyle", "a.jpg", "--like", "b.jpg", "--data"],
    ["sample"],
    ["train", "--out"],
    ["train", "--cache"],
    ["predict", "a.jpg", "--save"],
    ["search", "baroque", "--period", "baroque", "--lists"],
    ["run", "--lists"],
    ["run", "--cache"],
    ["data", "pack"],
    ["data", "unpack", "pack"],
]


@pytest.mark.parametrize("words", WITH_DATA, ids=" ".join)
def test_no_command_makes_a_folder_of_an_address(words, tmp_path, monkeypatch, command):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    last = ["target"] if words == ["data", "pack"] else []
    code, _, err = command(*words, ADDRESS, *last)
    assert code == 2 and f"artclf: {ADDRESS} is an address" in err and err.count("\n") == 1
    assert list(Path().iterdir()) == []


WRITING = {
    "report": lambda place, data: interpret.write(data, place),
    "maps": lambda place, data: interpret.write_saliency(data, place),
    "fetch lists": lambda place, data: download.fetch_lists(
        Path(__file__).parents[1] / "paintings_urls", place
    ),
    "import": lambda place, data: download.import_folder(data / "gallery", place),
    "clean": lambda place, data: clean.clean_all(place),
    "doubts": lambda place, data: clean.mark_doubtful(place),
    "checkpoint": lambda place, data: train.learner(data, place, **SMALL).fit_one_cycle(1),
    "search": lambda place, data: lists.append(Path(place) / "urls_a.csv", [{"url": "http://a"}]),
    "recorded parts": lambda place, data: splits.recorded(place),
    "text": lambda place, data: files.write_text(Path(place) / "a.txt", ""),
    "files": lambda place, data: files.replace_together(Path(place)).__enter__(),
    "lock": lambda place, data: locks.hold(place),
    "store": lambda place, data: Store(Path(place) / "features.db"),
}


@pytest.mark.parametrize("place", [ADDRESS, Path(ADDRESS)], ids=["text", "path"])
@pytest.mark.parametrize("writing", WRITING)
def test_no_function_makes_a_folder_of_an_address(writing, place, drawn, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match=rf"{ADDRESS}\S* is (an address|a pack)"):
        WRITING[writing](place, drawn)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("path", ["data", "a:b/c", "c:/data", "C:\\data", "/tmp/x:/y", "x:y"])
def test_paths_are_no_addresses(path):
    files.check_on_this_machine(Path(path))
