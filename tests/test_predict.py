"""Step predict: what fastai itself would answer, from anything that is a picture, without running
anybody's code.
"""

import json
import os
import pickle
import pickletools
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.training import GradientClip
from fastai.vision.core import TensorImage
from fastcore.foundation import L
from PIL import Image

import artclf
from artclf import predict, train
from artclf.data import splits
from artclf.data.catalogue import Catalogue
from artclf.data.fetch import Fetcher
from artclf.data.pictures import shrink
from artclf.model import exports

COLUMNS = ["image", "predicted", "probability", "top", "error"]


@pytest.fixture(autouse=True)
def no_workers_here(no_workers):
    pass


@pytest.fixture(scope="module")
def clf(export):
    return artclf.load(export)


@pytest.fixture(scope="module")
def files(drawn):
    return sorted((drawn / "clean").rglob("*.jpg"))


@pytest.fixture
def copy(export, tmp_path) -> Path:
    """An export that a test may spoil."""
    return shutil.copytree(export, tmp_path / "copy", ignore=shutil.ignore_patterns("models"))


def rewrite(out, **changes):
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def chances(found) -> list:
    return [dict(top) for top in found.top]


def assert_equal(found, expected, atol=1e-5):
    assert found.predicted.tolist() == expected.predicted.tolist()
    for a, b in zip(chances(found), chances(expected), strict=True):
        assert a == pytest.approx(b, abs=atol)


def test_a_network_of_another_kind_says_train_again(export, tmp_path):
    shutil.copytree(export, out := tmp_path / "older")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, "pool": "stages"}), encoding="utf-8")
    with pytest.raises(ValueError, match="older holds another network .* train again"):
        artclf.load(out)


def test_an_export_of_before_there_were_versions_of_stages_is_loaded(clf, copy, files):
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    assert config.pop("stages") == 1
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    older = artclf.load(copy)
    assert older.config["stages"] == 1
    assert_equal(older.predict(files[:4]), clf.predict(files[:4]))


def test_answers_are_fastais_own(clf, files):
    learn = clf.learner
    expected = learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))[0].numpy()
    p, errors = clf.probabilities(files)
    np.testing.assert_allclose(p, expected, atol=1e-4)
    assert errors == [""] * len(files) and list(learn.dls.vocab) == clf.vocab
    found = clf.predict(files, k=len(clf.vocab))
    assert found.predicted.tolist() == [clf.vocab[i] for i in expected.argmax(1)]
    assert clf.predict(files[0]).predicted[0] == learn.predict(files[0])[0]


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_answers_are_fastais_own_however_pictures_are_resized(drawn, files, tmp_path, resize):
    learn = train.learner(
        drawn, tmp_path, arch="efficientnet_lite0", size=64, resize=resize, batch_size=8
    )
    predict.export(learn, tmp_path)
    clf, dl = artclf.load(tmp_path), learn.dls.test_dl(files[::4], num_workers=0)
    np.testing.assert_allclose(
        clf.probabilities(files[::4])[0], learn.get_preds(dl=dl)[0], atol=1e-4
    )


def test_a_path_its_text_its_bytes_its_picture_and_its_pixels_are_the_same(clf, files):
    with Image.open(files[3]) as picture:
        picture.load()
    ways = [files[3], str(files[3]), files[3].read_bytes(), picture, np.asarray(picture)]
    found = clf.predict(ways, k=5)
    assert list(found) == COLUMNS and found.error.tolist() == [""] * 5
    assert found.image.tolist() == [str(files[3]), str(files[3]), "image 2", "image 3", "image 4"]
    for row in range(1, 5):
        assert_equal(found.iloc[[row]], found.iloc[[0]])
    for way in ways:
        assert_equal(clf.predict(way, k=5), found.iloc[[0]])


def test_grey_alpha_palette_and_16_bits_are_pictures(clf, files):
    with Image.open(files[3]) as picture:
        grey = picture.convert("L")
    pixels = np.asarray(grey)
    expected = clf.predict(grey.convert("RGB"), k=5)
    transparent = grey.convert("RGBA")
    ways = [
        grey,
        transparent,
        pixels,
        np.dstack([pixels] * 3),
        np.dstack([pixels] * 3 + [np.full_like(pixels, 255)]),
        pixels.astype(np.uint16) * 257,
        Image.fromarray(pixels.astype(np.float32) / 255),
    ]
    assert_equal(clf.predict(ways, k=5), pd.concat([expected] * len(ways)), atol=0.01)
    transparent.putalpha(0)
    assert_equal(
        clf.predict(transparent, k=5), clf.predict(Image.new("RGB", grey.size, "white"), k=5)
    )


def test_a_picture_that_lies_on_its_side_is_turned_upright(clf, files):
    with Image.open(files[3]) as picture:
        turned = picture.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    turned.save(jpeg := BytesIO(), "PNG", exif=exif)
    lazy = Image.open(jpeg)
    found = clf.predict([jpeg.getvalue(), lazy], k=5)
    assert_equal(found, pd.concat([clf.predict(files[3], k=5)] * 2), atol=0.02)
    assert lazy.size == turned.size and lazy.getexif()[0x0112] == 6


def test_the_callers_picture_and_array_stay_as_they_are(clf):
    picture, pixels = Image.new("RGB", (700, 600), "red"), np.zeros((600, 700, 3), np.uint8)
    clf.predict([picture, pixels])
    assert picture.size == (700, 600) and pixels.shape == (600, 700, 3) and not pixels.any()


def test_a_raw_picture_is_seen_at_the_size_of_the_clean_copies(copy, files):
    with Image.open(files[3]) as picture:
        large = picture.convert("RGB").resize((1200, 1000), Image.Resampling.NEAREST)
    for max_size in (90, 800):
        rewrite(copy, max_size=max_size)
        classifier = artclf.load(copy)
        small = shrink(large, max_size)
        assert max(small.size) == max_size
        assert_equal(classifier.predict(large, k=5), classifier.predict(small, k=5))


def test_the_command_takes_urls_as_they_are(export, command):
    code, _, said = command("predict", "http://127.0.0.1:9/a.jpg", "--out", export)
    assert code == 1 and "blocked address" in said


def test_the_command_answers_lists_and_writes_files(export, files, tmp_path, command):
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*files[:3], "none.jpg"])))
    code, told, _ = command("predict", tmp_path / "list.txt", "--out", export, "--json")
    assert code == 0 and [row["image"] for row in json.loads(told).values()][:3] == [
        str(file) for file in files[:3]
    ]
    saved = tmp_path / "answers.csv"
    code, told, _ = command(
        "predict", tmp_path / "list.txt", "--out", export, "--save", saved, "--json"
    )
    assert code == 0 and json.loads(told) == {"pictures": 4, "errors": 1, "file": str(saved)}
    table = pd.read_csv(saved)
    expected = artclf.load(export).predict(files[:3])
    assert table.predicted.tolist()[:3] == expected.predicted.tolist()
    np.testing.assert_allclose(table.probability[:3], expected.probability, atol=2e-6)
    code, _, said = command("predict", "none.jpg", "--out", export, "--save", saved)
    assert code == 1 and f"the column error of {saved} says why" in said


def test_order_and_repeats_are_kept(clf, files):
    order = [files[i] for i in np.random.default_rng(0).permutation(len(files))] + [files[0]] * 3
    found = clf.predict(order, batch_size=7)
    assert found.image.tolist() == [str(file) for file in order]
    by_file = {row.image: row.top for row in clf.predict(files).itertuples()}
    for row in found.itertuples():
        assert dict(row.top) == pytest.approx(dict(by_file[row.image]), abs=1e-5)
    assert list(found.index) == list(range(len(order)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_unreadable_things_get_a_row_with_the_reason(clf, files, tmp_path, batch_size):
    (tmp_path / "cut.jpg").write_bytes(files[0].read_bytes()[:900])
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty.png").touch()
    wrong = [
        tmp_path / "cut.jpg",
        tmp_path / "page.jpg",
        tmp_path / "empty.png",
        tmp_path / "absent.jpg",
        "x" * 5000,
        "a\0b.jpg",
        b"",
        b"no picture",
        None,
        7,
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((2, 6, 4, 5), np.uint8),
        np.full((8, 8, 3), 1.5),
        np.full((8, 8, 3), np.nan),
        np.zeros((3, 40, 300), np.uint8),
        torch.zeros(3, 40, 3),
        torch.randn(3, 40, 40),
        [[[0, 1], [2, 3]], [[4, 5], [6, 7]]],
        "",
        " ",
        pd.NA,
        float("nan"),
        pd.DataFrame({"path": ["a.jpg"]}),
        Path,
        np.zeros((0, 8, 3), np.uint8),
        np.array("text"),
        Image.new("RGB", (0, 4)),
        Image.open(tmp_path / "cut.jpg"),
        {"a": 1},
    ]
    mixed = [thing for one in wrong for thing in (one, files[1])]
    found = clf.predict(mixed, batch_size=batch_size)
    bad, good = found.iloc[::2], found.iloc[1::2]
    assert (bad.error != "").all() and bad.predicted.isna().all() and bad.probability.isna().all()
    assert all(top == [] for top in bad.top) and not any("\n" in error for error in bad.error)
    assert (
        dict(zip(bad.image, bad.error, strict=True))[str(tmp_path / "absent.jpg")]
        == "file is missing"
    )
    assert (good.error == "").all()
    assert_equal(good, pd.concat([clf.predict(files[1])] * len(good)))


def test_a_folder_is_every_picture_in_it(clf, drawn, tmp_path):
    found = clf.predict(drawn / "clean/05-baroque")
    assert found.image.tolist() == [
        str(file) for file in sorted((drawn / "clean/05-baroque").iterdir())
    ]
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "notes.txt").touch()
    assert clf.predict(str(tmp_path)).empty
    assert (
        len(clf.predict([drawn / "clean", drawn / "clean/05-baroque" / Path(found.image[0]).name]))
        == 41
    )


def test_nothing_gives_an_empty_table_with_the_columns(clf):
    no_upload = {}
    nothings = ([], (), pd.Series([], dtype=object), iter([]), np.array([]), no_upload, [[], [()]])
    for nothing in (*nothings, torch.zeros(0, 3, 64, 64)):
        found = clf.predict(nothing)
        assert found.empty and list(found) == COLUMNS
        probabilities, errors = clf.probabilities(nothing)
        assert probabilities.shape == (0, len(clf.vocab)) and errors == []


def test_the_types_of_the_columns_do_not_depend_on_what_is_found(clf, files):
    for options in ({}, {"min_probability": 0.5}, {"min_probability": 1.0}):
        types = clf.predict(files[:3], **options).dtypes
        for images in ([], [""], ["", files[0]], ["", 7, b""], iter([])):
            found = clf.predict(images, **options)
            assert found.dtypes.equals(types)
            assert all(name is None or isinstance(name, str) for name in found.predicted)
            assert all(isinstance(text, str) for text in [*found.image, *found.error])
        assert types.probability == np.dtype(float) and set(types.drop("probability")) == {
            np.dtype(object)
        }


def test_a_picture_is_the_same_in_every_form_that_a_notebook_holds(clf, files, tmp_path):
    content = files[3].read_bytes()
    with Image.open(files[3]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    picture.save(lossless := tmp_path / "a.png")
    forms = {
        "BytesIO": BytesIO(content),
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "upload 8": ({"name": "a.jpg", "type": "image/jpeg", "content": memoryview(content)},),
        "upload 7": {"a.jpg": {"metadata": {"name": "a.jpg"}, "content": content}},
        "floats to 1": pixels / 255,
        "plt.imread": plt.imread(lossless),
        "floats to 255": pixels.astype(np.float32),
        "uint16": pixels.astype(np.uint16) * 257,
        "integers": pixels.astype(int),
        "tensor": tensor,
        "tensor of floats": tensor / 255,
        "tensor with a gradient": (tensor.float() / 255).double().requires_grad_(),
        "TensorImage": TensorImage(tensor),
        "channels last": torch.from_numpy(pixels.copy()),
        "batch of one": tensor[None] / 255,
        "array of paths": np.array([str(files[3])]),
        "array of objects": np.array([files[3]], dtype=object),
        "table": pd.DataFrame({"file": [files[3]]}),
        "values of a table": pd.DataFrame({"file": [str(files[3])]}).file.values,
        "nested": [[(files[3],)]],
        "L": L([files[3]]),
    }
    expected = clf.predict(files[3], k=5)
    for name, form in forms.items():
        found = clf.predict(form, k=5)
        assert len(found) == 1 and found.error[0] == "", (name, found.error.tolist())
        assert_equal(found, expected, atol=1e-4)
    with files[3].open("rb") as opened:
        opened.seek(99)
        found = clf.predict([opened, opened], k=5)
    assert_equal(found, pd.concat([expected] * 2))
    assert found.image[0] == str(files[3])


def test_greys_of_every_form_and_batches(clf, files):
    with Image.open(files[3]) as picture:
        grey = np.asarray(picture.convert("L"))
    expected = clf.predict(grey, k=5)
    forms = (
        grey[..., None],
        grey[None],
        torch.from_numpy(grey[None].copy()),
        torch.from_numpy(grey.copy()) / 255,
    )
    for form in forms:
        assert_equal(clf.predict(form, k=5), expected, atol=1e-4)
    black_and_white = clf.predict(grey > 99, k=5)
    assert_equal(black_and_white, clf.predict((grey > 99).astype(np.uint8) * 255, k=5))
    small = [Image.open(file).convert("RGB").resize((40, 50)) for file in files[:5]]
    batch = np.stack([np.asarray(image) for image in small])
    expected = clf.predict(small, k=5)
    channels_first = batch.transpose(0, 3, 1, 2)
    for form in (batch, channels_first, torch.from_numpy(channels_first.copy()) / 255):
        found = clf.predict(form, k=5)
        assert_equal(found, expected, atol=1e-4)
        assert found.image.tolist() == [f"image {place}" for place in range(5)]


def test_the_range_of_a_batch_is_that_of_all_its_pictures(clf):
    white_and_nearly_black = torch.full((2, 3, 40, 50), 255.0)
    white_and_nearly_black[1] = 1.0
    expected = clf.predict([Image.new("RGB", (50, 40), colour) for colour in ("white", "#010101")])
    assert_equal(clf.predict(white_and_nearly_black), expected)


def test_an_iterator_is_consumed_two_batches_ahead_and_nothing_is_kept(clf, files):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield files[len(taken) % 2]

    batches = clf.predict_batches(endless(), batch_size=4)
    for number in range(1, 4):
        table = next(batches)
        assert len(table) == 4 and len(taken) == 4 * (number + 1)
    batches.close()


def test_a_home_is_found(clf, files, monkeypatch):
    monkeypatch.setenv("HOME", str(files[0].parent))
    monkeypatch.setenv("USERPROFILE", str(files[0].parent))
    found = clf.predict([f"~/{files[0].name}", Path("~") / files[0].name, "~nobody-at-all/x.jpg"])
    assert found.error.tolist() == ["", "", "file is missing"]
    assert found.image[0] == f"~/{files[0].name}"
    assert len(clf.predict("~")) == 8


def test_a_url_is_fetched_by_the_guarded_fetcher(clf, monkeypatch):
    from loopback import Server, answer, picture

    with Server(a=answer(picture(3)), page=answer(b"<html>", Content_Type="text/html")) as server:
        urls = [
            f"{server.url}/a",
            f"{server.url}/page",
            f"{server.url}/none",
            "HTTP://nowhere.test/x",
        ]
        blocked = clf.predict(urls[0])
        assert blocked.error[0] == "blocked address" and server.requests == []
        monkeypatch.setattr("artclf.data.fetch.Fetcher", partial(Fetcher, allow_private=True))
        before = threading.active_count()
        found = clf.predict([*urls[:3], *urls[:1] * 9], k=5)
    assert found.image.tolist()[:3] == urls[:3]
    assert found.error.tolist()[:3] == ["", "not an image: text/html", "http 404"]
    assert_equal(found.iloc[[0, 11]], pd.concat([clf.predict(picture(3), k=5)] * 2))
    assert server.asked("/robots.txt") == 1 and server.most[None] <= 2
    assert threading.active_count() <= before  # the loop's thread has ended


def test_many_may_come_as_any_collection(clf, files):
    from fastai.vision.all import get_image_files

    expected = clf.predict(files[:4])
    for many in (
        tuple(files[:4]),
        pd.Series(files[:4], index=[9, 9, 1, 0]),
        (file for file in files[:4]),
    ):
        pd.testing.assert_frame_equal(clf.predict(many), expected)
    assert len(clf.predict(get_image_files(files[0].parent))) == 8


def test_k_is_how_many_classes_are_told(clf, files):
    for k in (1, 3, 5, 99):
        found = clf.predict(files[:2], k=k)
        for row in found.itertuples():
            assert len(row.top) == min(k, 5) and row.top[0] == (row.predicted, row.probability)
            assert [p for _, p in row.top] == sorted((p for _, p in row.top), reverse=True)
    assert sum(p for _, p in clf.predict(files[0], k=5).top[0]) == pytest.approx(1, abs=1e-5)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k is"):
            clf.predict(files[0], k=k)


def test_threads_get_the_same_answers(clf, files):
    expected, filters = clf.predict(files, batch_size=5), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: clf.predict(files, batch_size=5), range(8)):
            assert_equal(found, expected)
    assert warnings.filters == filters


@pytest.mark.slow
def test_predicting_is_quiet(clf, export, files, tmp_path):
    palette = Image.new("P", (80, 80))
    palette.save(tmp_path / "palette.png", transparency=b"\x00\x10")
    Image.new("RGB", (80, 80)).save(tmp_path / "odd.jpg", exif=b"Exif\0\0broken")
    Image.new("L", (10000, 9500)).save(
        tmp_path / "large.png"
    )  # PIL warns of decompression bombs from 89 megapixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clf.predict(
            [files[0], tmp_path / "palette.png", tmp_path / "odd.jpg", tmp_path / "none.jpg"]
        )
    assert found.error.tolist() == ["", "", "", "file is missing"]
    code = f"import artclf; print(len(artclf.load({str(export)!r}).predict({str(tmp_path)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "3\n" and ran.stderr == ""


def test_loading_runs_no_pickled_code(copy, files, monkeypatch, tmp_path):
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "attacked",)

    (copy / "learner.pkl").write_bytes(pickle.dumps(Attack()))

    def refuse(*a, **k):
        return pytest.fail("a pickle was opened")

    for module, name in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
    ):
        monkeypatch.setattr(module, name, refuse)
    assert artclf.load(copy).predict(files[0]).error[0] == ""
    assert not (tmp_path / "attacked").exists()


def test_a_pickle_is_refused_unless_one_vouches_for_it(export):
    for path in (export, export / "learner.pkl"):
        with pytest.raises(ValueError, match="trust=True"):
            artclf.load_learner(path)
    learn = artclf.load_learner(export, trust=True)
    assert list(learn.dls.vocab) == artclf.load(export).vocab


def test_other_weights_than_those_described_are_refused(copy):
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file"):
        artclf.load(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        artclf.load(copy)


def test_other_versions_are_named(copy, export):
    then = json.loads((copy / "config.json").read_text(encoding="utf-8"))["versions"]
    rewrite(copy, versions={**then, "torch": "1.13.0", "timm": "0.6.1"})
    with pytest.warns(
        UserWarning, match=r"torch .*trained with 1\.13\.0.*timm .*trained with 0\.6\.1"
    ) as found:
        artclf.load(copy)
    assert (
        len(found) == 1 and "fastai" not in str(found[0].message) and found[0].filename == __file__
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        artclf.load(export)


HOSTILE = [
    *({"name": name} for name in ("hf-hub:x/y", "../x", "local-dir:/tmp", "", None, 3)),
    *({"vocab": [name, *"bcde"]} for name in ("../../evil", "/evil", "..", 1)),
    {"vocab": None},
    {"versions": None},
    {"versions": {}},
    {"hashes": {}},
    {"hashes": None},
    *({"size": size} for size in (None, 0, "64")),
    {"resize": "stretch"},
    *({"temperature": temperature} for temperature in (None, 0, -1, "1")),
    {"library": "torchvision"},
    {"bodies": 1},
    {"bodies": ["resnet18"]},
    {"bodies": [{"name": "resnet18"}]},
]


@pytest.mark.parametrize("changes", HOSTILE, ids=str)
def test_hostile_settings_are_refused(copy, changes, monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("it went to the network"))
    before = set(copy.parent.rglob("*"))
    rewrite(copy, **changes)
    with pytest.raises(ValueError):
        artclf.load(copy)
    assert set(copy.parent.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1', "\xff"])
def test_a_broken_config_is_named(copy, text):
    (copy / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json is not"):
        artclf.load(copy)


def test_no_export_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="artclf train"):
        artclf.load(tmp_path)


FRESH = """
import sys
class Refuse:
    def find_spec(self, name, *args):
        if name.split(".")[0] == "artclf": raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from fastai.vision.all import load_learner
learn = load_learner("learner.pkl")
print(list(learn.dls.vocab), *learn.predict(sys.argv[1])[2].tolist(), sep="|")
print(learn.cbs.map(lambda cb: type(cb).__module__))
"""


@pytest.mark.slow
def test_the_pickle_opens_with_plain_fastai_anywhere(export, clf, files, tmp_path):
    shutil.copy(export / "learner.pkl", tmp_path)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, files[0]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    told = next(
        line for line in ran.stdout.splitlines() if line.startswith("[") and "|" in line
    ).split("|")
    assert told[0] == str(clf.vocab)
    np.testing.assert_allclose(
        [float(p) for p in told[1:]], clf.probabilities([files[0]])[0][0], atol=1e-4
    )
    assert "artclf" not in ran.stdout.replace(str(files[0]), "")


def test_the_pickle_tells_nothing_of_this_machine(export, drawn):
    import zipfile

    with zipfile.ZipFile(export / "learner.pkl") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        content = archive.read(name)
    ops = [(op.name, arg) for op, arg, _ in pickletools.genops(content) if "PUT" not in op.name]
    for (_, name), (following, _) in zip(
        ops, ops[1:], strict=False
    ):  # the class may be named, but no path made
        if name in ("pathlib PosixPath", "pathlib WindowsPath"):
            assert following not in ("BINUNICODE", "MARK")
    own = [
        arg for _, arg in ops if isinstance(arg, str) and "site-packages" not in arg
    ]  # cloudpickle names fastai's
    words = " ".join(own)
    assert not any(
        secret in words for secret in ("artclf", str(drawn), str(export), str(Path.cwd()))
    )


def test_the_learner_goes_on_as_it_was_after_the_export(drawn, tmp_path):
    options = {"arch": "efficientnet_lite0", "size": 64, "batch_size": 8}
    learn = train.learner(drawn, tmp_path, cbs=[GradientClip(1.0)], **options)
    paths, callbacks = (learn.path, learn.dls.path), list(learn.cbs)
    predict.export(learn)
    assert (learn.path, learn.dls.path) == paths == (tmp_path, drawn)
    assert list(learn.cbs) == callbacks
    assert all(callback.learn is learn for callback in learn.cbs)
    assert len(learn.validate()) == 4


def test_predictions_hold_every_image_of_every_part(export, drawn):
    table = pd.read_csv(export / "predictions.csv")
    vocab = json.loads((export / "config.json").read_text(encoding="utf-8"))["vocab"]
    assert list(table) == [
        "file",
        "period",
        "part",
        "predicted",
        "probability",
        "loss",
        *(f"p_{n}" for n in vocab),
    ]
    pd.testing.assert_frame_equal(
        table[["file", "period", "part"]],
        splits.items(drawn)[["file", "period", "part"]],
        check_dtype=False,
    )
    p = table.filter(like="p_").to_numpy()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(table.probability, p.max(1), atol=1e-6)
    assert table.predicted.tolist() == [vocab[i] for i in p.argmax(1)]
    np.testing.assert_allclose(
        table.loss, [-np.log(row[f"p_{row.period}"]) for _, row in table.iterrows()], atol=1e-4
    )
    assert all(
        (drawn / file).is_file() and not Path(file).is_absolute() and "\\" not in file
        for file in table.file
    )


def test_metrics_are_strict_json_and_give_the_headline(export):
    from sklearn.metrics import accuracy_score, f1_score

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    figures = json.loads(
        (export / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse
    )
    test = pd.read_csv(export / "predictions.csv").query("part == 'test'")
    told = predict.headline(export)
    assert told == {"part": "test", **figures["metrics"]["test"]}
    assert told["accuracy"] == pytest.approx(accuracy_score(test.period, test.predicted))
    assert told["macro_f1"] == pytest.approx(
        f1_score(test.period, test.predicted, average="macro", zero_division=0)
    )
    assert set(figures["metrics"]) == {"train", "valid", "test"}
    assert (
        figures["data_hash"]
        == json.loads((export / "config.json").read_text(encoding="utf-8"))["data_hash"]
    )


def test_without_a_part_test_the_headline_is_that_of_valid(drawn, tmp_path):
    learn = train.learner(
        drawn, tmp_path, arch="efficientnet_lite0", size=64, batch_size=8, parts=(80, 20, 0)
    )
    predict.export(learn, tmp_path)
    assert predict.headline(tmp_path)["part"] == "valid"


def test_exporting_after_the_data_changed_is_refused(drawn, tmp_path):
    shutil.copytree(drawn, data := tmp_path / "data")
    learn = train.learner(data, tmp_path / "out", arch="efficientnet_lite0", size=64, batch_size=8)
    with Catalogue(data) as cat:
        row = cat.select("period = '05-baroque'")[0]
        cat.update([{"url": row["url"], "period": row["period"], "clean_status": "rejected"}])
    predict_before = content(tmp_path / "out")
    with pytest.raises(ValueError, match="changed since training: train again"):
        predict.export(learn)
    assert content(tmp_path / "out") == predict_before


def content(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def answers_of(out: Path) -> tuple:
    """What the network in `out` answers, and what the files beside it say, which must be the same."""
    classifier = artclf.load(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    table = pd.read_csv(out / "predictions.csv")
    assert metrics["calibration"]["temperature"] == config["temperature"]
    test = table[table.part == "test"]
    accuracy = (test.period == test.predicted).mean()
    assert metrics["metrics"]["test"]["accuracy"] == pytest.approx(accuracy)
    return classifier, table


@pytest.mark.slow
def test_an_export_is_replaced_as_a_whole_or_not_at_all(drawn, tmp_path, monkeypatch):
    out = tmp_path / "out"
    learn = train.learner(drawn, out, arch="efficientnet_lite0", size=64, batch_size=8)
    predict.export(learn)
    files = sorted(path.name for path in out.iterdir() if path.is_file())
    assert len(files) == 7
    vocab = learn.dls.vocab
    move = Path.replace

    class Killed(BaseException):
        pass

    def answer_always(place: int):
        with torch.no_grad():
            learn.model[1][-1].bias.zero_()[place] = 99.0

    answer_always(0)
    predict.export(learn)
    # eight files are written whole, then seven take their places
    for moves_until_then in (0, 3, 7, 8, 9, 11, 14):
        always = 1 + moves_until_then % 2
        answer_always(always)
        before = content(out)
        moved = []

        def move_or_die(self, target, moved=moved, most=moves_until_then):
            if len(moved) == most:
                raise Killed
            moved.append(target)
            return move(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", move_or_die)
            with pytest.raises(Killed):
                predict.export(learn)
        if not (out / ".new").exists():
            assert content(out) == before
        classifier, table = answers_of(out)
        [predicted] = set(table.predicted)
        assert not (out / ".new").exists()
        assert predicted == classifier.predict(drawn / table.file[0]).predicted[0]
        predict.export(learn)
        assert set(answers_of(out)[1].predicted) == {vocab[always]}
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == files


def test_a_clean_image_that_went_missing_is_named(drawn, tmp_path):
    shutil.copytree(drawn, data := tmp_path / "data")
    learn = train.learner(data, tmp_path / "out", arch="efficientnet_lite0", size=64, batch_size=8)
    gone = next((data / "clean/05-baroque").iterdir())
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=f"{gone.name}.*artclf clean"):
        predict.export(learn)
    assert content(tmp_path / "out") == {}


EXPORT = """
import sys
from artclf import predict, train
import torch
learn = train.learner(*sys.argv[1:], arch="efficientnet_lite0", size=64, batch_size=8)
number = 0
while True:
    with torch.no_grad():
        learn.model[1][-1].bias.zero_()[number % 5] = 99.0
    predict.export(learn)
    number += 1
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_export_leaves_whole_files(drawn, tmp_path):
    for pause in (0.02, 0.05, 0.1, 0.2, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", EXPORT, drawn, tmp_path],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and not (tmp_path / "metrics.json").exists():
            time.sleep(0.01)
        time.sleep(pause)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        classifier, table = answers_of(tmp_path)
        assert len(classifier.vocab) == 5 and len(table) == 40
        [predicted] = set(table.predicted)
        assert classifier.predict(drawn / table.file[0]).predicted[0] == predicted
        assert predict.headline(tmp_path)["images"]
        exports.load_learner(tmp_path, trust=True)
        (tmp_path / "metrics.json").unlink()
