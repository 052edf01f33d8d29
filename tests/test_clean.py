"""Step clean: the rooms in order, for the notebook and the command line."""

import subprocess
import sys
from io import BytesIO

import pandas as pd
import pytest
from made_pictures import encoded, noise
from PIL import Image

from artclf import clean, download
from artclf.data.catalogue import read_catalogue


@pytest.fixture
def data(tmp_path):
    """Two periods: a drawn pattern with a smaller copy, and noise."""
    pattern = Image.fromarray(noise(12, 9)).resize((300, 225), Image.Resampling.BICUBIC)
    gallery = tmp_path / "gallery"
    for period in ("a", "b"):
        (gallery / period).mkdir(parents=True)
    pattern.save(gallery / "a" / "large.png")
    pattern.resize((150, 112)).save(gallery / "a" / "small.png")
    (gallery / "b" / "noise.png").write_bytes(encoded(noise()))
    download.import_folder(gallery, tmp_path / "data")
    return tmp_path / "data"


def test_all_of_the_step_in_one_call(data, tmp_path):
    counts = clean.clean_all(data, near_duplicates=False)
    assert counts.to_dict("index") == {"a": {"ok": 2}, "b": {"ok": 1}}
    counts = clean.clean_all(data, max_size=200, quality=80)
    assert counts.to_dict("index") == {
        "a": {"duplicate": 1, "ok": 1},
        "b": {"duplicate": 0, "ok": 1},
    }
    assert counts.equals(clean.counts(data))
    table = read_catalogue(data)
    [large] = table[(table.clean_status == "ok") & (table.period == "a")].file
    copy = Image.open(data / large.replace("raw/", "clean/").replace(".png", ".jpg"))
    assert copy.size == (200, 150)
    quality_80 = Image.open(BytesIO(encoded(noise(), "JPEG", quality=80)))
    assert copy.quantization == quality_80.quantization


def test_decisions_are_applied_first(data, tmp_path):
    clean.clean_all(data)
    table = read_catalogue(data)
    [row] = table[table.period == "b"].to_dict("records")
    decisions = tmp_path / "review.csv"
    pd.DataFrame([{"url": row["url"], "period": "b", "review": "move:a"}]).to_csv(
        decisions, index=False
    )
    clean.clean_all(data, decisions=decisions)
    assert clean.usable(data).period.tolist() == ["a", "a"]
    assert len(list((data / "clean" / "a").iterdir())) == 3
    assert clean.export_decisions(data, tmp_path / "exported.csv") == 1


def test_a_file_of_decisions_that_is_not_there_is_an_error(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="--review"):
        clean.clean_all(data, decisions=tmp_path / "none.csv")
    assert read_catalogue(data).clean_status.isna().all()


def test_what_a_person_should_look_at(data):
    clean.clean_all(data)
    table = clean.list_flagged(data, find_doubtful=False)
    assert table.columns.tolist() == ["period", "file", "likelier", "review", "reasons"]
    assert table.reasons.str.fullmatch(r"near-duplicate of raw/a/\w+\.png \(same\)").tolist() == [
        True
    ]
    assert clean.flagged(data).file.tolist() == table.file.tolist()


def test_doubtful_labels_are_looked_for_first(data, monkeypatch):
    from artclf.model import doubts

    calls = []
    monkeypatch.setattr(doubts, "mark", lambda *args: calls.append(args))
    clean.clean_all(data)
    clean.list_flagged(data)
    clean.mark_doubtful(data, seed=1, arch="efficientnet_lite0")
    assert calls == [(data, 42, "auto"), (data, 1, "efficientnet_lite0")]


def test_without_a_person_the_review_is_a_figure(data):
    clean.clean_all(data)
    figure = clean.show_review(data, clean.flagged(data), n=1)
    [caption] = [text.get_text() for text in figure.axes[0].texts]
    assert caption.startswith("near-duplicate of")


def test_the_step_is_imported_without_torch_pandas_and_matplotlib():
    code = (
        "import sys; from artclf import clean; "
        "print({'torch', 'pandas', 'matplotlib', 'fastai'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
