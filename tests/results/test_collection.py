"""Collections: any folder of pictures can be searched, what is on disk follows the folder, and an
index is used, grown or built anew, never one of other pictures.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_pictures import encoded, noise
from sklearn.neighbors import NearestNeighbors

from artclf.answers.classifier import Predictor
from artclf.base import extras
from artclf.base.errors import InputError
from artclf.data.catalogue import Catalogue
from artclf.results import collection, embeddings, neighbours
from artclf.results.collection import Collection
from artclf.results.index import Index

CONFIG = {"vocab": ["01-red", "02-blue"], "temperature": 1.0, "size": 8, "resize": "squish"}
PICTURES = 30


class Squares(Predictor):
    """A network without weights: its features are the means of squares of the picture."""

    n_features = 48
    seen = 0

    def _forward(self, pixels):
        self.seen += len(pixels)
        squares = pixels.reshape(len(pixels), 3, 4, 2, 4, 2).mean((3, 5), dtype=np.float32)
        features = squares.reshape(len(pixels), 48)
        return features[:, :2], features


@pytest.fixture
def classifier():
    return Squares(CONFIG)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Pictures of noise in two folders, a file that is none, and a link that leads nowhere."""
    for number in range(PICTURES):
        file = tmp_path / "own" / f"{number % 2}" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(noise(8, 8, seed=number)))
    (tmp_path / "own" / "0" / "bad.jpg").write_text("<html>")
    (tmp_path / "own" / "1" / "gone.jpg").symlink_to("nowhere.jpg")
    return tmp_path / "own"


@pytest.fixture
def out(tmp_path) -> Path:
    """An export whose embeddings were fitted on other noise."""
    pictures = np.stack([noise(8, 8, seed=1000 + place).transpose(2, 0, 1) for place in range(60)])
    _, features = Squares(CONFIG)._forward(pictures)
    projection = embeddings.Projection.fit(features)
    of_style = embeddings.fit_style(features[:, :16], 60)
    style = embeddings.Style(of_style(features[:, :16]), of_style, np.arange(16))
    rest = (projection(features), projection, projection.residuals(features), style)
    embeddings.write(tmp_path / "out" / embeddings.NAME, map(str, range(60)), *rest)
    return tmp_path / "out"


def features_of(*files) -> np.ndarray:
    _, features, errors = Squares(CONFIG).probabilities_and_features(list(files))
    assert not any(errors)
    return features


def names(found) -> list[str]:
    return [one["file"] for one in found]


@pytest.mark.parametrize("by", ["content", "style"])
def test_the_nearest_are_those_of_scikit_learn(folder, out, classifier, by, capsys):
    known = Collection(folder, classifier, out)
    files = sorted(folder.rglob("*.png"))
    features = features_of(*files)
    described = known.describe(features)[by].astype(float)
    expected = NearestNeighbors(metric="cosine").fit(described).kneighbors(described[3:4], 5)
    found = known.nearest(features[3], 5, by=by)
    assert names(found) == [files[row].relative_to(folder).as_posix() for row in expected[1][0]]
    similarities = [one["similarity"] for one in found]
    np.testing.assert_allclose(similarities, 1 - expected[0][0], atol=1e-3)
    assert known.count == PICTURES and set(known.unreadable) == {"0/bad.jpg", "1/gone.jpg"}
    assert "2 can't be read, such as 0/bad.jpg (not an image)" in capsys.readouterr().out


def test_what_is_on_disk_follows_the_folder(folder, out, classifier):
    Collection(folder, classifier, out)
    assert classifier.seen == PICTURES
    (folder / "0" / "02.png").rename(folder / "renamed.png")
    gone = features_of(folder / "1" / "03.png")[0]
    (folder / "1" / "03.png").unlink()
    shutil.copy(folder / "0" / "04.png", folder / "copy.png")
    (folder / "0" / "06.png").write_bytes(encoded(noise(8, 8, seed=500)))
    (folder / "0" / "08.png").touch()
    (folder / "new.png").write_bytes(encoded(noise(8, 8, seed=501)))
    known = Collection(folder, classifier, out)
    assert classifier.seen == PICTURES + 2 and known.count == PICTURES + 1
    found = known.nearest(features_of(folder / "0" / "04.png")[0], 99)
    assert names(found)[:2] == ["0/04.png", "copy.png"]
    assert known.nearest(features_of(folder / "copy.png")[0], 1) == found[:1]
    assert len(known.nearest(gone, 1)) == 1
    everything = {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
    assert set(names(found)) == everything and len(found) == len(everything)
    for file in ("renamed.png", "0/06.png", "new.png"):
        [first] = known.nearest(features_of(folder / file)[0], 1)
        assert first["file"] == file and first["similarity"] == 1


def test_a_run_that_was_killed_goes_on(folder, out, classifier, monkeypatch):
    monkeypatch.setattr(collection, "PICTURES_AT_ONCE", 8)

    class Killed(Squares):
        def _forward(self, pixels):
            if self.seen > 12:
                raise KeyboardInterrupt
            return super()._forward(pixels)

    with pytest.raises(KeyboardInterrupt):
        Collection(folder, type("Squares", (Killed,), {})(CONFIG), out)
    [kept] = (out / ".collections").glob("own-*")
    with (kept / "content.f32").open("ab") as stream:
        stream.write(b"half of a description")
    known = Collection(folder, classifier, out)
    assert 0 < classifier.seen < PICTURES and known.count == PICTURES
    for file in sorted(folder.rglob("*.png"))[::7]:
        [first] = known.nearest(features_of(file)[0], 1, by=0.5)
        assert first["file"] == file.relative_to(folder).as_posix()


def test_what_could_not_be_read_for_a_while_is_tried_again(folder, out, classifier):
    class Short(Squares):
        def probabilities_and_features(self, images, batch_size=64):
            probabilities, features, errors = super().probabilities_and_features(images)
            return probabilities, features, ["not enough memory", *errors[1:]]

    known = Collection(folder, type("Squares", (Short,), {})(CONFIG), out)
    assert known.count == PICTURES - 1 and "not enough memory" in known.unreadable.values()
    known = Collection(folder, classifier, out)
    assert known.count == PICTURES and classifier.seen == 1
    assert set(known.unreadable) == {"0/bad.jpg", "1/gone.jpg"}


def test_another_network_describes_anew(folder, out, classifier, capsys):
    Collection(folder, classifier, out)
    other = Squares({**CONFIG, "temperature": 2.0})
    Collection(folder, other, out)
    assert other.seen == PICTURES and "described by another network" in capsys.readouterr().out


def test_a_data_set_brings_its_facts_and_narrows_the_choice(tmp_path, out, classifier):
    data = tmp_path / "data"
    rows = []
    for number in range(12):
        period = CONFIG["vocab"][number % 2]
        file = data / "clean" / period / f"{number:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(noise(8, 8, seed=number % 11), "JPEG"))  # the last is the first
        year = "1875-1890" if number == 5 else f"{1870 + number}.0"
        facts = {"artist": f"Painter {number % 3}", "year": year}
        rows.append({"url": f"http://a.example/{number}", "period": period, **facts})
    with Catalogue(data) as catalogue:
        catalogue.add(rows)
        keys = [{name: row[name] for name in ("url", "period")} for row in rows]
        for number, key in enumerate(keys):
            known = {"file": f"raw/{number:02}.png", "clean_status": "ok", "sha256": f"{number:02}"}
            catalogue.update([{**key, **known}])
    known = Collection(data, classifier, out)
    query = features_of(data / "clean" / "01-red" / "04.jpg")[0]
    everything = known.nearest(query, 99)
    assert len(everything) == 12 and everything[0]["artist"] == "Painter 1"
    wanted = {
        ("02-blue", "", ""): {1, 3, 5, 7, 9, 11},
        ("", "painter 2", ""): {2, 5, 8, 11},
        ("", "", "1872-1875"): {2, 3, 4},
        ("01-red", "painter 1", "1870s"): {4},
    }
    for asked, numbers in wanted.items():
        found = names(known.nearest(query, 99, *asked))
        order = [file for file in names(everything) if int(Path(file).stem) in numbers]
        assert found == order and len(order) == len(numbers)
    assert known.has("02-blue") and not known.has("02-blue", "painter 9")


def test_what_can_not_be_asked_is_said(folder, out, classifier, tmp_path):
    query = folder / "0" / "00.png"
    problems = {
        "is no folder": {"among": tmp_path / "absent"},
        "is no data set": {"among": folder, "painter": "monet"},
        "exclude each other": {"among": folder, "data": folder},
        "is of a collection": {"index": True},
    }
    for words, options in problems.items():
        with pytest.raises(InputError, match=words):
            neighbours.similar(classifier, out, query, **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture in .*empty can be searched"):
        Collection(tmp_path / "empty", classifier, out)


# The index


@pytest.fixture
def vectors():
    """Directions around a hundred centres."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, 16))
    around = centres[rng.integers(0, 100, 4000)] + 0.3 * rng.normal(size=(4000, 16))
    return embeddings.directions(around)


def test_an_index_finds_the_nearest_of_those_that_are_wanted(tmp_path, vectors, monkeypatch):
    index = Index(tmp_path, "content", vectors, str)
    wanted = np.arange(4000) % 3 == 1
    recalls = []
    for query in vectors[::200]:
        for those in (None, wanted):
            rows = np.arange(4000) if those is None else np.flatnonzero(those)
            nearest = rows[embeddings.best(vectors[rows] @ query, 10)]
            found = index.candidates(query, those, 10)
            assert those is None or those[found].all()
            recalls.append(len(set(nearest) & set(found)) / 10)
    assert np.mean(recalls) > 0.9 and len(found) < 4000 / 4


def test_an_index_grows_and_one_of_other_pictures_is_built_anew(tmp_path, vectors):
    def digest(count):
        return f"{name} {count}"

    def opened(count):
        index = Index(tmp_path, "style", vectors[:count], digest)
        assert index.index.ntotal == count
        return json.loads((tmp_path / "index-style.json").read_text())

    name = "these"
    assert opened(1000)["learned_from"] == 1000
    assert opened(1500)["learned_from"] == 1000  # it has grown
    grown = Index(tmp_path, "style", vectors[:1500], digest)
    assert 1499 in grown.candidates(vectors[1499], None, 10)
    assert opened(2001)["learned_from"] == 2001  # more than doubled
    name = "others"
    assert opened(2002)["learned_from"] == 2002
    assert opened(1900)["learned_from"] == 1900  # some of its pictures are no more
    file = tmp_path / "index-style.faiss"
    file.write_bytes(file.read_bytes()[:-9])
    assert opened(1950)["learned_from"] == 1950
    (tmp_path / "index-style.json").write_text("[")
    assert opened(1960)["learned_from"] == 1960


def test_a_collection_asks_its_index(folder, out, classifier, monkeypatch):
    monkeypatch.setattr(collection, "FEW", 10)
    (folder / "0" / "10.png").unlink()
    known = Collection(folder, classifier, out)
    shutil.copy(folder / "0" / "12.png", folder / "0" / "10.png")
    gone = features_of(folder / "0" / "14.png")[0]
    (folder / "0" / "14.png").unlink()
    known = Collection(folder, classifier, out)
    for by in ("content", "style", 0.4):
        query = features_of(folder / "0" / "12.png")[0]
        assert known.nearest(query, 9, by=by, index=True) == known.nearest(query, 9, by=by)
    assert len(known.nearest(gone, 3, index=True)) == 3
    assert "0/14.png" not in names(known.nearest(gone, 99, index=True))
    kept = sorted(file.name for file in known.kept.glob("index-*.faiss"))
    assert kept == ["index-content.faiss", "index-style.faiss"]
    before = known._digest(5)
    [first, *_] = known.kept.glob("index-content.json")
    assert json.loads(first.read_text())["made_from"] == known._digest(known._described) != before


def test_without_faiss_the_extra_is_named(tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"faiss.*\[index\]"):
        Index(tmp_path, "content", vectors, str)
