"""Suggestions of visitors: kept whole or not at all, within limits, and taken only when a person has
decided so.
"""

import shutil
import sqlite3

import pytest
from filelock import FileLock
from made_pictures import encoded, noise
from PIL import Image

from artclf import clean, download
from artclf.base.errors import InputError
from artclf.data import cleaning, review, splits
from artclf.data.catalogue import Catalogue, read_catalogue
from artclf.data.intake import Failure, Intake
from artclf.data.pictures import thumbnail
from artclf.data.suggestions import TMP, Full, Occupied, Suggestions, shown_path
from artclf.model.doubts import flagged
from artclf.results import review_page

LISTED = encoded(noise(seed=0))
GIVEN, OTHER, THIRD = (encoded(noise(seed=seed)) for seed in (10, 11, 12))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a gallery, two periods of two pictures, and the data set of it, cleaned."""
    made = tmp_path_factory.mktemp("made")
    for seed in range(4):
        folder = made / "gallery" / "ab"[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.png").write_bytes(encoded(noise(seed=seed)))
    download.import_folder(made / "gallery", made / "data")
    clean.clean_all(made / "data")
    return made


@pytest.fixture
def data(made, tmp_path, monkeypatch):
    def map_here(function, jobs, workers, initializer=None):
        return [[(job, function(job)) for job in jobs]]

    monkeypatch.setattr("artclf.data.cleaning.map_in_processes", map_here)  # starts none
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "data"


@pytest.fixture
def suggestions(data):
    return Suggestions(data, most=3, most_bytes=10**6)


def row_of(data, receipt) -> dict:
    table = read_catalogue(data)
    found = table[table.url.str.startswith(f"upload:{receipt.number}")]
    [row] = found.astype(object).where(found.notna(), None).to_dict("records")
    return row


def used(data) -> dict:
    """The label of each usable picture by its URL."""
    rows = splits.usable(data)
    return dict(zip(rows.url, rows.period, strict=True))


def files(data) -> set[str]:
    return {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}


def test_a_suggestion_is_the_bytes_as_they_came_and_what_was_said(data, suggestions):
    receipt = suggestions.add(GIVEN, "a", "b", 0.75)
    row = row_of(data, receipt)
    assert receipt.is_new and receipt.period == row["period"] == "a"
    assert (data / row["file"]).read_bytes() == GIVEN
    assert (row["status"], row["source"], row["likelier"]) == ("suggested", "upload", "b")
    assert (row["width"], row["format"], row["bytes"]) == (96, "PNG", len(GIVEN))
    unknown = row_of(data, suggestions.add(OTHER, None, "b", 0.75))
    assert unknown["period"] == "b" and unknown["likelier"] is None
    reasons = flagged(data).set_index("url").reasons
    assert reasons[row["url"]] == "suggested by a visitor (the classifier: b 75%)"
    assert reasons[unknown["url"]].startswith("given by a visitor who doesn't know the period (")


def test_only_what_a_person_accepts_is_cleaned_and_used(data, suggestions):
    before, copies = used(data), files(data / "clean")
    row = row_of(data, suggestions.add(GIVEN, "a", "b", 0.75))
    url = row["url"]
    clean.clean_all(data)
    assert used(data) == before and files(data / "clean") == copies

    review.decide(data, [row], "keep")
    clean.clean_all(data)
    assert used(data) == {**before, url: "a"} and len(files(data / "clean") - copies) == 1
    review.undo(data)
    assert used(data) == before  # at once
    cleaning.normalise(data)
    assert used(data) == before
    again = row_of(data, suggestions.add(GIVEN, "a", "b", 0.75))
    assert (again["status"], again["reason"], again["review"]) == (
        "suggested",
        "suggested by a visitor",
        None,
    )
    review.decide(data, [row], "move:b")
    cleaning.normalise(data)
    assert used(data) == {**before, url: "b"}


def test_what_a_person_rejects_stays_out_and_is_not_taken_again(data, suggestions):
    before, copies = used(data), files(data / "clean")
    row = row_of(data, suggestions.add(GIVEN, "a", "b", 0.75))
    review.decide(data, [row], "drop")
    assert not suggestions.add(GIVEN, "b", "b", 0.75).is_new
    cleaning.normalise(data)
    assert used(data) == before and files(data / "clean") == copies
    assert flagged(data).query("url == @row['url']").review.tolist() == ["drop"]


def test_a_decision_of_a_file_accepts_a_suggestion_too(data, suggestions, tmp_path):
    row = row_of(data, suggestions.add(GIVEN, "a", "b", 0.75))
    file = tmp_path / "review.csv"
    file.write_text(f"url,period,review\n{row['url']},a,keep\n")
    review.read_csv(data, file)
    cleaning.normalise(data)
    assert used(data)[row["url"]] == "a"


def test_the_review_shows_a_suggestion_before_it_has_a_clean_copy(data, suggestions):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    content = encoded(noise(96, 80, 10), "JPEG", exif=turned)
    row = row_of(data, suggestions.add(content, "a", "b", 0.75))
    table = review.queue(data, flagged(data))
    [shown] = table[table.url == row["url"]].to_dict("records")
    assert shown_path(data, shown) == row["file"] and shown["likelier"] == "b"
    listed = read_catalogue(data).iloc[0].to_dict()
    (data / shown_path(data, listed)).unlink()  # of a picture that nobody gave
    assert shown_path(data, listed).startswith("clean")
    widget = review_page.widget(data, flagged(data))
    [card] = [card for card in widget.cards if card.row.get("url") == row["url"]]
    assert card.thumbnail.startswith("data:image/jpeg")
    assert thumbnail(data / row["file"], 90).size == (75, 90)
    card.keep.click()
    cleaning.normalise(data)
    assert shown_path(data, row_of(data, suggestions.add(content, "a", "b", 1))).startswith("clean")


def test_bytes_that_are_there_are_not_written_twice(data, suggestions):
    before = files(data)
    assert not suggestions.add(LISTED, "b", "b", 0.9).is_new
    assert files(data) == before
    assert suggestions.add(GIVEN, "a", "b", 0.75).is_new
    once = files(data)
    again = suggestions.add(GIVEN, "b", "b", 0.75)
    assert not again.is_new and again.period == "a" and files(data) == once


def test_an_own_import_of_a_suggested_picture_needs_no_decision(data, suggestions, tmp_path):
    suggestions.add(GIVEN, "a", "b", 0.75)
    (tmp_path / "gallery" / "a" / "own.png").write_bytes(GIVEN)
    download.import_folder(tmp_path / "gallery", data)
    cleaning.normalise(data)
    assert len(used(data)) == 5 and all(url.startswith("import:") for url in used(data))


@pytest.mark.parametrize("moment", ["write_bytes", "replace", "insert"])
def test_killed_at_any_moment_it_leaves_no_row_and_can_be_sent_again(
    data, suggestions, monkeypatch, moment
):
    def killed(*args):
        raise KeyboardInterrupt

    place = "artclf.data.suggestions.Catalogue" if moment == "insert" else "pathlib.Path"
    (data / TMP).mkdir()
    (data / TMP / "half.png").write_bytes(GIVEN[:50])  # of a process that is no more
    before = read_catalogue(data)
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            suggestions.add(GIVEN, "a", "b", 0.75)
    assert read_catalogue(data).equals(before) and not (data / TMP).exists()
    receipt = suggestions.add(GIVEN, "a", "b", 0.75)
    assert receipt.is_new and (data / row_of(data, receipt)["file"]).read_bytes() == GIVEN


def test_a_full_list_takes_no_more_until_a_person_decides(data):
    suggestions = Suggestions(data, most=2, most_bytes=10**6)
    first = row_of(data, suggestions.add(GIVEN, "a", "b", 0.75))
    suggestions.add(OTHER, "a", "b", 0.75)
    before = files(data)
    with pytest.raises(Full, match="2 pictures wait for a decision"):
        suggestions.add(THIRD, "a", "b", 0.75)
    assert files(data) == before
    assert not suggestions.add(OTHER, "a", "b", 0.75).is_new
    review.decide(data, [first], "drop")
    assert suggestions.add(THIRD, "a", "b", 0.75).is_new
    small = Suggestions(data, most=9, most_bytes=len(OTHER) + len(THIRD) + 5)
    with pytest.raises(Full, match="MB"):
        small.add(encoded(noise(9, 9)), "a", "b", 0.75)


def test_it_does_not_write_beside_another_run(data, suggestions, monkeypatch):
    before = files(data)
    other = FileLock(data.resolve() / ".lock", is_singleton=False)
    with other, pytest.raises(Occupied, match="another run"):
        suggestions.add(GIVEN, "a", "b", 0.75)
    assert files(data) == before
    connect = sqlite3.connect

    def impatient(*args, **options):
        return connect(*args, **{**options, "timeout": 0.1})

    with Catalogue(data) as catalogue, catalogue.transaction():
        monkeypatch.setattr("artclf.data.catalogue.sqlite3.connect", impatient)
        with pytest.raises(Occupied, match="locked"):
            suggestions.add(GIVEN, "a", "b", 0.75)
    assert suggestions.add(GIVEN, "a", "b", 0.75).is_new


def test_it_leaves_alone_what_a_notebook_of_the_same_process_writes(data, suggestions):
    with Intake(data).writing():
        (data / "tmp" / "half.png").write_bytes(b"half")
        assert suggestions.add(GIVEN, "a", "b", 0.75).is_new
        assert (data / "tmp" / "half.png").exists()


def test_what_cannot_be_kept_is_refused(data, suggestions, tmp_path):
    before = files(data)
    with pytest.raises(Failure, match="not an image"):
        suggestions.add(b"no picture", "a", "b", 0.75)
    with pytest.raises(InputError, match="no class c"):
        suggestions.add(GIVEN, "c", "b", 0.75)
    suggestions.check_classes(["a", "b"])
    with pytest.raises(InputError, match="no class c"):
        suggestions.check_classes(["a", "c"])
    assert files(data) == before
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        Suggestions(tmp_path / "gallery", 3, 10**6)
    assert not (tmp_path / "gallery/catalogue.db").exists()


def test_suggestions_take_no_place_of_the_lists(data, suggestions):
    """--max-per-period counts the pictures of lists, whatever visitors gave before."""
    suggestions.add(GIVEN, "a", "b", 0.75)
    lists = data.parent / "lists"
    lists.mkdir()
    (lists / "urls_a.csv").write_text("http://127.0.0.1:1/x.jpg\n")
    summary = download.fetch_lists(lists, data, max_per_period=1, tries=1)
    assert summary.set_index("period").failed["a"] == 1
