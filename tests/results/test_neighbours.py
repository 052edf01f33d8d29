"""Neighbours: the nearest training pictures with their facts, what is far from all of training, and
thumbnails that stay in the data set.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from artclf.base.errors import InputError, SettingError
from artclf.data.catalogue import Catalogue
from artclf.results import embeddings, neighbours
from artclf.results.neighbours import Neighbours

IMAGES = 160
TRAIN = 90


@pytest.fixture
def features():
    """Features of pictures that lie near a plane, those of train first."""
    rng = np.random.default_rng(3)
    plane = rng.normal(size=(IMAGES, 4)) @ rng.normal(size=(4, 300))
    return (plane + 0.3 * rng.normal(size=plane.shape)).astype(np.float32)


def name_of(place: int) -> str:
    return f"clean/{place % 3:02}-p/{place:016x}.jpg"


@pytest.fixture
def folders(features, tmp_path):
    """Folders EXPORT and DATA with the embeddings, facts and pictures of these features."""
    out, data = tmp_path / "export", tmp_path / "data"
    files = [name_of(place) for place in range(IMAGES)]
    projection = embeddings.Projection.fit(features[:TRAIN])
    out.mkdir()
    embeddings.write(
        out / embeddings.NAME,
        files,
        projection(features),
        projection,
        projection.residuals(features),
    )
    parts = ["train"] * TRAIN + ["valid"] * 30 + ["test"] * (IMAGES - TRAIN - 30)
    periods = [Path(file).parent.name for file in files]
    pd.DataFrame(
        {"file": files, "part": parts, "period": periods, "predicted": periods}
        | {"probability": 1.0, "loss": 0.0, "p_00-p": 1.0}
    ).sample(frac=1, random_state=0).to_csv(out / "predictions.csv", index=False)
    with Catalogue(data) as catalogue:
        rows = [
            {"url": f"http://a.example/{place}", "period": period}
            | {"title": f"No. {place}", "artist": "A <b>", "year": "1889.0"}
            | {"source_page": f"http://a.example/{place}" if place % 2 else "javascript:alert(1)"}
            for place, period in enumerate(periods)
        ]
        catalogue.add(rows)
        catalogue.update(
            {"url": row["url"], "period": row["period"], "file": f"raw/{Path(file).stem}.png"}
            for row, file in zip(rows, files, strict=True)
        )
    (data / files[0]).parent.mkdir(parents=True)
    Image.new("RGB", (500, 250), "red").save(data / files[0])
    return out, data


def test_the_nearest_come_with_what_is_known_of_them(folders, features):
    out, data = folders
    known = Neighbours(out, data, "/api/thumbnails/v1/")
    first, *others = known.nearest(features[7], 5)
    assert first["id"] == 7 and first["similarity"] == pytest.approx(1, abs=1e-3)
    assert first["title"] == "No. 7" and first["artist"] == "A <b>" and first["year"] == "1889"
    assert first["period"] == "01-p" and first["source_page"] == "http://a.example/7"
    assert first["thumbnail"] == "/api/thumbnails/v1/7"
    vectors = embeddings.read_all(out).vectors
    distances = cdist(vectors[7:8], vectors[:TRAIN], "cosine")[0]
    assert [one["id"] for one in (first, *others)] == distances.argsort(kind="stable")[:5].tolist()
    [even] = known.nearest(features[8], 1)
    assert even["source_page"] == ""  # an address that is no page is not shown


def test_pictures_outside_train_are_no_neighbours(folders, features):
    known = Neighbours(*folders)
    [nearest] = known.nearest(features[TRAIN + 3], 1)
    assert nearest["id"] < TRAIN and nearest["similarity"] < 0.9999


def test_without_the_data_set_files_alone_are_known(folders, features):
    [nearest] = Neighbours(folders[0]).nearest(features[7], 1)
    assert nearest["file"] == name_of(7) and nearest["title"] == nearest["thumbnail"] == ""


def test_a_period_and_a_painter_narrow_the_choice(folders, features):
    known = Neighbours(*folders)
    of_period = known.nearest(features[7], 5, period="02-p")
    assert [one["period"] for one in of_period] == ["02-p"] * 5
    every = [one["id"] for one in known.nearest(features[7], TRAIN)]
    wanted = [place for place in every if place % 3 == 2]
    assert [one["id"] for one in of_period] == wanted[:5]
    assert known.nearest(features[7], 3, painter="a <B>") == known.nearest(features[7], 3)
    assert known.nearest(features[7], 3, painter="nobody") == []
    assert known.has("02-p") and not known.has("02-p", "nobody")


class Answering:
    """A classifier whose features of a picture, given as an array, are those of a number in it."""

    vocab = ["00-p", "01-p", "02-p"]

    def __init__(self, features):
        self.features = features

    def probabilities_and_features(self, images):
        errors = ["no picture" if isinstance(image, str) else "" for image in images]
        rows = [0 if error else image[0, 0, 0] for image, error in zip(images, errors, strict=True)]
        return None, self.features[rows], errors


def test_similar_is_a_table_of_the_nearest_of_each_image(folders, features):
    out, data = folders
    pictures = [np.full((8, 8, 3), number, np.uint8) for number in (7, 12)]
    classifier = Answering(features)
    table = neighbours.similar(classifier, out, [pictures[0], "gone.jpg", pictures[1]], data, k=3)
    assert table.image.tolist() == ["image 0"] * 3 + ["gone.jpg"] + ["image 2"] * 3
    assert table["rank"].fillna(0).tolist() == [1, 2, 3, 0, 1, 2, 3]
    assert table.file[0] == name_of(7) and table.title[4] == "No. 12"
    assert table.error.tolist() == ["", "", "", "no picture", "", "", ""]
    expected = [one["similarity"] for one in Neighbours(out, data).nearest(features[12], 3)]
    assert table.similarity[4:].tolist() == expected
    only = neighbours.similar(classifier, out, pictures[:1], data, 2, "02-p", "a <b>")
    assert only.period.tolist() == ["02-p"] * 2
    with pytest.raises(SettingError, match="k is 0"):
        neighbours.similar(classifier, out, pictures, data, k=0)
    with pytest.raises(InputError, match="no period nothing"):
        neighbours.similar(classifier, out, pictures, data, period="nothing")
    with pytest.raises(InputError, match="--data"):
        neighbours.similar(classifier, out, pictures, painter="a")
    with pytest.raises(InputError, match="01-p and nobody: ask for less"):
        neighbours.similar(classifier, out, pictures, data, period="01-p", painter="nobody")


def test_what_is_unlike_all_of_training_is_far(folders, features):
    known = Neighbours(*folders)
    outside = np.array([known.distance(row) for row in features[TRAIN:]])
    assert (outside > 1).sum() == 1 and outside.max() < 1.5  # 1% of 70
    off_the_plane = features[0] + 5 * np.random.default_rng(0).normal(size=300).astype(np.float32)
    assert known.distance(off_the_plane) > 2


def test_few_pictures_outside_train_set_no_limit(folders, features, monkeypatch):
    monkeypatch.setattr(neighbours, "FEWEST", IMAGES - TRAIN + 1)
    assert Neighbours(*folders).distance(features[0]) is None


def test_an_export_of_an_earlier_version_has_no_neighbours(folders, features):
    out, _ = folders
    known = embeddings.read_all(out)
    embeddings.write(out / embeddings.NAME, known.files, known.vectors)
    with pytest.raises(ValueError, match="earlier version"):
        Neighbours(out)


def test_thumbnails_are_small_and_lie_in_the_data_set(folders):
    out, data = folders
    known = Neighbours(out, data)
    with Image.open(BytesIO(known.thumbnail(0))) as small:
        assert small.size == (240, 120) and small.format == "JPEG"
    assert known.thumbnail(1) is None  # it has moved
    assert known.thumbnail(TRAIN) is None and known.thumbnail(-1) is None
    Image.new("RGB", (9, 9)).save(data.parent / "secret.jpg")
    known.files[2] = "../secret.jpg"
    assert known.thumbnail(2) is None
    assert Neighbours(out).thumbnail(0) is None
