"""The review: decisions, their undoing, the file they travel in, the pictures to decide on and the
widget's buttons.
"""

import csv
import re
import shutil

import nbformat
import pandas as pd
import pytest

from artclf.data import catalogue, cleaning, review, splits
from artclf.results import review_page

BAROQUE, EARLY = "05-baroque", "01-early_renaissance"


@pytest.fixture
def data(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "data")


def rows_of(data, period=BAROQUE):
    return catalogue.read_catalogue(data).query("period == @period").to_dict("records")


def decided(data):
    table = catalogue.read_catalogue(data)
    return table[table.review.notna()].set_index("url").review.to_dict()


def copies(data):
    return sorted(path.relative_to(data).as_posix() for path in data.glob("clean/*/*.jpg"))


# Decisions


def test_a_decision_is_in_the_catalogue_at_once_and_can_be_taken_back_after_a_restart(data):
    a, b, c, *_ = rows_of(data)
    assert review.decide(data, [a, b], "drop") == 2 and review.decide(data, [c["url"]], "keep") == 1
    assert (
        review.decide(data, pd.DataFrame([a]), "keep") == 1
        and review.decide(data, [a], "keep") == 0
    )
    assert decided(data) == {a["url"]: "keep", b["url"]: "drop", c["url"]: "keep"}
    expected = [
        ([a["url"]], {a["url"]: "drop", b["url"]: "drop", c["url"]: "keep"}),
        ([c["url"]], {a["url"]: "drop", b["url"]: "drop"}),
        ([a["url"], b["url"]], {}),
        ([], {}),
    ]
    for urls, left in expected:
        assert ([row["url"] for row in review.undo(data)], decided(data)) == (urls, left)


def test_undecided_is_a_decision_that_can_be_undone(data):
    a = rows_of(data)[0]
    review.decide(data, [a], "drop")
    review.decide(data, [a], None)
    assert decided(data) == {}
    [undone] = review.undo(data)
    assert undone["review"] is None and decided(data) == {a["url"]: "drop"}


def test_pictures_that_left_the_catalogue_are_passed_over_by_undo(data):
    a, b, c, *_ = rows_of(data)
    review.decide(data, [a], "keep")
    review.decide(data, [b, c], "drop")
    review.decide(data, [c], "keep")
    with catalogue.Catalogue(data) as cat:
        cat.db.execute("DELETE FROM images WHERE url = ?", (c["url"],))
    assert [[row["url"] for row in review.undo(data)] for _ in range(3)] == [
        [b["url"]],
        [a["url"]],
        [],
    ]
    assert decided(data) == {}


@pytest.mark.parametrize(
    "choice, told",
    [
        ("remove", "'remove' is no decision"),
        ("move", "no decision"),
        ("move:99-nothing", "no class '99-nothing'"),
        ("", "no decision"),
    ],
)
def test_what_is_no_decision_is_refused(data, choice, told):
    with pytest.raises(ValueError, match=told):
        review.decide(data, rows_of(data)[:1], choice)
    assert decided(data) == {} and review.undo(data) == []


def test_all_of_a_decision_is_written_or_nothing(data, tmp_path):
    a = rows_of(data)[0]
    with pytest.raises(ValueError, match="has no picture http://nowhere.test/x"):
        review.decide(data, [a["url"], "http://nowhere.test/x"], "drop")
    assert decided(data) == {} and review.undo(data) == []
    for call in (
        lambda: review.undo(tmp_path / "no"),
        lambda: review.export_csv(tmp_path / "no", tmp_path / "a.csv"),
    ):
        with pytest.raises(FileNotFoundError, match="no catalogue in"):
            call()
    assert not (tmp_path / "no").exists() and not (tmp_path / "a.csv").exists()


def test_a_move_to_the_period_that_a_picture_has_keeps_it(data):
    both = [rows_of(data)[0], rows_of(data, EARLY)[0]]
    review.decide(data, both, f"move:{EARLY}")
    assert list(decided(data).values()) == ["keep", f"move:{EARLY}"]


def test_the_clean_copy_of_a_moved_picture_follows_it_there_and_back(data):
    a, before = rows_of(data)[0], copies(data)
    old, new = f"clean/{BAROQUE}/", f"clean/{EARLY}/"
    stem = catalogue.clean_path(a).removeprefix(old)
    review.decide(data, [a], f"move:{EARLY}")
    assert set(before) ^ set(copies(data)) == {old + stem, new + stem}
    assert catalogue.clean_path(rows_of(data)[0]) == new + stem
    table = splits.items(data)
    assert table.set_index("file").period[new + stem] == EARLY and old + stem not in set(table.file)
    review.decide(data, [a], "drop")
    assert copies(data) == before and old + stem not in set(splits.items(data).file)
    for _ in range(2):
        review.undo(data)
    assert copies(data) == before and decided(data) == {}


def test_a_move_that_was_killed_before_the_copy_followed_loses_nothing(data, monkeypatch):
    a = rows_of(data)[0]

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(review, "move_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        review.decide(data, [a], f"move:{EARLY}")
    assert decided(data) == {a["url"]: f"move:{EARLY}"}
    cleaning.normalise(data, workers=1)
    assert catalogue.clean_path(rows_of(data)[0]) in copies(data)


def test_a_picture_moves_to_a_class_without_pictures(data):
    a = rows_of(data)[0]
    with catalogue.Catalogue(data) as cat:
        cat.db.execute("UPDATE images SET status = 'failed' WHERE period = ?", (EARLY,))
    shutil.rmtree(data / "clean" / EARLY)
    review.decide(data, [a], f"move:{EARLY}")
    [copy] = (data / "clean" / EARLY).iterdir()
    shutil.rmtree(data / "clean" / EARLY)
    cleaning.normalise(data, workers=1)
    assert (
        copy.exists()
        and catalogue.clean_path(rows_of(data)[0]) == copy.relative_to(data).as_posix()
    )


def test_one_url_under_two_periods_shares_a_copy_where_one_moves_to_the_other(data):
    a = rows_of(data)[0]
    with catalogue.Catalogue(data) as cat:
        cat.add([{"url": a["url"], "period": EARLY}])
        stem = catalogue.clean_path(a).rpartition("/")[2]
        cat.update(
            [
                {
                    "url": a["url"],
                    "period": EARLY,
                    "file": a["file"].replace(BAROQUE, EARLY),
                    "status": "ok",
                    "clean_status": "conflict",
                }
            ]
        )
    shutil.copy(data / catalogue.clean_path(a), data / "clean" / EARLY / stem)
    before = copies(data)
    review.decide(data, [a], f"move:{EARLY}")
    assert len(copies(data)) == len(before) - 1
    review.undo(data)
    assert copies(data) == before
    review.decide(data, [a["url"]], "drop")
    assert list(catalogue.read_catalogue(data).query("url == @a['url']").review) == ["drop", "drop"]


# review.csv


@pytest.fixture
def file(tmp_path):
    return tmp_path / "lists" / "review.csv"


def written(file, *lines, head="url,period,review", end="\n", encoding="utf-8"):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes("".join(line + end for line in (head, *lines)).encode(encoding))
    return file.read_bytes()


def lines_of(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_decisions_travel_to_another_data_set(data, drawn, tmp_path, file):
    a, b, c, *_ = rows_of(data)
    review.decide(data, [a], "keep")
    review.decide(data, [b], "drop")
    review.decide(data, [c], f"move:{EARLY}")
    with catalogue.Catalogue(data) as cat:
        cat.update(
            [{"url": a["url"], "period": BAROQUE, "title": 'a "b", \n<c>; Ölberg', "artist": None}]
        )
    assert review.export_csv(data, file) == 3
    assert list(lines_of(file)[0].values()) == [
        a["url"],
        BAROQUE,
        "keep",
        'a "b", \n<c>; Ölberg',
        "",
    ]
    other = shutil.copytree(drawn, tmp_path / "other")
    assert review.read_csv(other, file) == {
        "applied": 3,
        "same": 0,
        "overruled": 0,
        "unknown": 0,
        "wrong": 0,
    }
    assert decided(other) == decided(data) and copies(other) == copies(data)
    assert review.read_csv(other, file)["same"] == 3 and review.undo(other) == []
    before = file.read_bytes()
    assert review.export_csv(other, file) == 3 and [line["review"] for line in lines_of(file)] == [
        "keep",
        "drop",
        f"move:{EARLY}",
    ]
    assert review.export_csv(data, file) == 3 and file.read_bytes() == before


def test_a_file_saved_by_excel_is_read(data, file, capsys):
    a, b, *_ = rows_of(data)
    written(
        file,
        f'"{a["url"]}",{BAROQUE},drop,x',
        "",
        f"{b['url']},{BAROQUE}, keep ,",
        head="URL,Period,Review,note",
        end="\r\n",
        encoding="utf-8-sig",
    )
    assert review.read_csv(data, file)["applied"] == 2
    assert decided(data) == {a["url"]: "drop", b["url"]: "keep"}
    assert capsys.readouterr().out == f"{file}: 2 decisions applied\n"
    review.export_csv(data, file)
    assert [line["note"] for line in lines_of(file)] == ["x", ""]


def test_a_move_in_a_file_to_the_period_that_a_picture_has_keeps_it(data, file):
    a = rows_of(data)[0]
    written(file, f"{a['url']},{BAROQUE}, move:{BAROQUE}")
    assert review.read_csv(data, file)["applied"] == 1
    assert decided(data) == {a["url"]: "keep"}
    written(file, f"{a['url']},move:{BAROQUE}", head="url,review")
    assert review.read_csv(data, file)["same"] == 1


@pytest.mark.parametrize("number, more", [(10, ""), (11, "1 more such lines")])
def test_ten_problems_of_a_file_are_told(data, file, capsys, number, more):
    rows = [*rows_of(data), *rows_of(data, EARLY)][:number]
    written(file, *(f"{row['url']},{row['period']},?" for row in rows))
    review.read_csv(data, file)
    told = capsys.readouterr().out
    assert told.count("is no decision") == 10 and ("more such lines" in told) == bool(more)
    assert more in told


def test_a_file_may_have_columns_of_any_name(data, file):
    a, b, *_ = rows_of(data)
    head = "url,period,review,line,more,cells"
    written(
        file,
        f"{a['url']},{BAROQUE},drop,1,2,3",
        f"{b['url']},{BAROQUE},delete,4,5,6",
        "http://nowhere.test/a,05-baroque,drop,7,8,9",
        head=head,
    )
    counts = review.read_csv(data, file)
    assert (counts["applied"], counts["wrong"], counts["unknown"]) == (1, 1, 1)
    review.export_csv(data, file)
    kept = [[line[name] for name in ("line", "more", "cells")] for line in lines_of(file)]
    assert kept == [["1", "2", "3"], ["4", "5", "6"], ["7", "8", "9"]]
    written(file, f"{a['url']},{BAROQUE},drop,1,2,3,too many", head=head)
    with pytest.raises(ValueError, match="line 2 has more cells than the first line"):
        review.read_csv(data, file)


def test_what_is_unknown_here_is_told_and_stays_in_the_file(data, file, capsys):
    a, b, *_ = rows_of(data)
    stranger = [
        "http://nowhere.test/a,05-baroque,drop",
        f"{b['url']},04-elsewhere,drop",
        "# by hand,,",
    ]
    wrong = [
        f"{b['url']},{BAROQUE},delete",
        f"{b['url']},{BAROQUE},move:99-nothing",
        f"{a['url']},{BAROQUE},dr",
    ]
    before = written(file, stranger[0], *wrong[1:], *stranger[1:])
    assert review.read_csv(data, file) == {
        "applied": 0,
        "same": 0,
        "overruled": 0,
        "unknown": 2,
        "wrong": 2,
    }
    assert file.read_bytes() == before and decided(data) == {}
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: 0 decisions applied",
        f"{file}: 2 are on URLs, or periods of them, that this data set lacks",
        f"{file}, line 3: there is no class '99-nothing' to move a picture to; not applied",
        f"{file}, line 4: 'dr' is no decision: it is keep, drop or move:<period>; not applied",
    ]
    review.decide(data, [a], "keep")
    assert review.export_csv(data, file) == 1
    assert [(line["url"], line["review"]) for line in lines_of(file)] == [
        ("http://nowhere.test/a", "drop"),
        (b["url"], "move:99-nothing"),
        (a["url"], "keep"),
        (b["url"], "drop"),
        ("# by hand", ""),
    ]
    written(file, *wrong[:1] * 30)
    assert review.read_csv(data, file)["wrong"] == 1, "they are about one picture"
    written(
        file,
        *(f"{row['url']},{BAROQUE},?" for row in rows_of(data)),
        *(f"{row['url']},{EARLY},?" for row in rows_of(data, EARLY)),
    )
    assert review.read_csv(data, file)["wrong"] == 16
    assert capsys.readouterr().out.endswith(f"{file}: 6 more such lines, not applied\n")


def test_a_line_without_a_period_is_about_the_url_and_the_later_of_two_lines_holds(data, file):
    a, b, *_ = rows_of(data)
    written(file, f"{a['url']},keep", f"{b['url']},drop", f"{a['url']},drop", head="url,review")
    assert review.read_csv(data, file)["applied"] == 2 and set(decided(data).values()) == {"drop"}
    review.export_csv(data, file)
    assert [(line["url"], line["period"]) for line in lines_of(file)] == [
        (a["url"], BAROQUE),
        (b["url"], BAROQUE),
    ]


def test_what_a_person_decided_here_holds_against_the_file(data, file, capsys):
    a, b, c, d, *_ = rows_of(data)
    review.decide(data, [a], "keep")
    review.decide(data, [b], None)
    review.decide(data, [b], "drop")
    review.decide(data, [b], None)
    written(file, *(f"{row['url']},{BAROQUE},drop" for row in (a, b, c)))
    assert review.read_csv(data, file)["overruled"] == 2 and decided(data) == {
        a["url"]: "keep",
        c["url"]: "drop",
    }
    assert "2 differ from what was decided or taken back here" in capsys.readouterr().out
    written(file, f"{c['url']},{BAROQUE},keep", f"{d['url']},{BAROQUE},drop")
    assert review.read_csv(data, file)["applied"] == 2 and decided(data)[c["url"]] == "keep", (
        "the newer file holds"
    )


def test_what_was_exported_and_taken_back_does_not_return(data, file):
    a, b, *_ = rows_of(data)
    review.decide(data, [a], "drop")
    review.export_csv(data, file)
    review.undo(data)
    assert review.read_csv(data, file)["overruled"] == 1 and decided(data) == {}
    assert review.export_csv(data, file) == 0 and lines_of(file) == []
    written(file, f"{a['url']},{BAROQUE},keep", f"{b['url']},{BAROQUE},keep")
    review.export_csv(data, file)
    assert len(lines_of(file)) == 2, "what others decided and was never read stays"


@pytest.mark.parametrize(
    "text, told",
    [
        (b"", "it needs a first line"),
        (b"http://a.test/\n", "needs a first line"),
        (b"url;period;review\n", "first line"),
        (b"url,period,review\nhttp://a.test/x,y,05,keep\n", "line 2 has more cells"),
        (b'url,period,review\n"http://a.test/x,05', "unexpected end"),
        ("url,review,ö\n".encode("latin-1"), "in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_decisions_is_refused_and_left_alone(data, file, text, told):
    file.parent.mkdir()
    file.write_bytes(text)
    review.decide(data, rows_of(data)[:1], "drop")
    for call in (review.read_csv, review.export_csv):
        with pytest.raises(ValueError, match=f"{file} is not a list of decisions.*{told}"):
            call(data, file)
    assert file.read_bytes() == text and len(decided(data)) == 1


def test_an_export_that_was_killed_leaves_the_file_whole(data, file, monkeypatch):
    before = written(file, "http://nowhere.test/a,05-baroque,drop")
    review.decide(data, rows_of(data), "drop")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", killed)
        with pytest.raises(KeyboardInterrupt):
            review.export_csv(data, file)
    assert file.read_bytes() == before
    assert (
        review.export_csv(data, file) == 8
        and len(lines_of(file)) == 9
        and len(list(file.parent.iterdir())) == 1
    )


def test_a_file_that_is_not_there_has_no_lines(data, file):
    assert set(review.read_csv(data, file).values()) == {0} and not file.exists()


# The pictures to decide on


@pytest.fixture
def flagged(data):
    """Two doubtful labels, a pair of copies of which the second is set aside, and a rejected
    picture.
    """
    a, b, c, d, e, *_ = rows_of(data)
    other = rows_of(data, EARLY)[0]
    aside = f"near-duplicate of {b['file']} (detail)"
    with catalogue.Catalogue(data) as cat:
        cat.update(
            [
                {"url": b["url"], "period": BAROQUE, "dup_group": "1"},
                {
                    "url": d["url"],
                    "period": BAROQUE,
                    "dup_group": "1",
                    "clean_status": "duplicate",
                    "clean_reason": aside,
                },
                {
                    "url": e["url"],
                    "period": BAROQUE,
                    "clean_status": "rejected",
                    "clean_reason": "truncated",
                },
                {
                    "url": a["url"],
                    "period": BAROQUE,
                    "title": "<script>window.hacked = 1</script>",
                    "artist": "A. & B. <img src=x>",
                    "year": "1650.0",
                },
            ]
        )
    reasons = [
        "doubtful label (0.93); unlike the others: far <off>",
        aside,
        "doubtful label (0.7)",
        "truncated",
    ]
    return pd.DataFrame(
        {
            "url": [row["url"] for row in (a, d, other, e)],
            "period": [BAROQUE, BAROQUE, EARLY, BAROQUE],
            "reasons": reasons,
            "likelier": [EARLY, None, float("nan"), None],
        }
    )


def test_copies_of_a_picture_come_together_and_rejected_ones_do_not(data, flagged):
    a, b, c, d, *_ = rows_of(data)
    queue = review.queue(data, flagged)
    assert list(queue.url) == [a["url"], d["url"], b["url"], flagged.url[2]]
    assert list(queue.index) == [0, 1, 2, 3]
    assert (
        list(queue.flagged) == [True, True, False, True]
        and queue.reasons[2] == "the copy that is used"
    )
    assert list(queue.likelier) == [EARLY, "", "", ""] and list(queue.review) == [""] * 4
    assert list(queue.copies) == [0, 0, 1, 0]


def test_columns_that_are_missing_are_done_without(data, flagged):
    bare = review.queue(data, flagged[["url", "period"]])
    assert bare.reasons[1] == flagged.reasons[1] and set(bare.likelier) == {""} and len(bare) == 4
    assert review.queue(data, flagged.head(0)).empty
    with pytest.raises(ValueError, match="no column period"):
        review.queue(data, flagged[["url"]])


def test_without_a_person_the_pages_are_pictures(data, flagged, capsys):
    review.decide(data, [flagged.url[0]], "drop")
    figure = review_page.show(data, flagged, n=3)
    captions = [text.get_text() for text in figure.axes[0].texts]
    assert captions[0] == f"doubtful label (0.93); unlike …\n{BAROQUE} → {EARLY}\ndrop"
    assert len(captions) == len(figure.axes[0].images) == 3
    assert (
        review_page.show(data, flagged.head(0)) is None
        and capsys.readouterr().out == "no picture is flagged\n"
    )


def test_without_ipywidgets_a_person_is_told_what_is_missing(data, flagged, monkeypatch, capsys):
    monkeypatch.setattr(review_page, "somebody_there", lambda: True)
    monkeypatch.setattr(review_page, "find_spec", lambda name: None)
    assert len(review_page.show(data, flagged).axes[0].images) == 4
    assert 'pip install -e ".[lab]"' in capsys.readouterr().out


# The widget


@pytest.fixture
def widget(data, flagged, file):
    pytest.importorskip("ipywidgets")
    return review_page.widget(data, flagged, file)


def shown(widget):
    return [card.row["url"] for card in widget.cards if card.box.layout.display != "none"]


def test_buttons_decide_at_once_and_say_so(data, widget, flagged):
    first, second, _, last = widget.cards[:4]
    assert "0 of 3 decided" in widget.counter.value and len(shown(widget)) == 4
    assert first.move.description == f"move to {EARLY}" and last.move.disabled
    first.move.click()
    assert (
        decided(data) == {first.row["url"]: f"move:{EARLY}"}
        and first.move.description == f"✓ move to {EARLY}"
    )
    assert "artclf-move" in first.box._dom_classes and f"move to {EARLY}</span>" in first.text.value
    first.drop.click()
    first.drop.click()
    second.keep.click()
    assert decided(data) == {first.row["url"]: "drop", second.row["url"]: "keep"}
    assert (
        first.box._dom_classes == ("artclf-card", "artclf-drop")
        and first.drop.style.text_color == "white"
    )
    assert first.move.description == f"move to {EARLY}" and first.move.style.button_color is None
    assert "2 of 3 decided" in widget.counter.value
    again = review_page.widget(data, flagged)
    assert again.cards[0].drop.description == "✓ drop" and "2 of 3 decided" in again.counter.value
    for taken in ("keep", "drop", f"move to {EARLY}"):
        again.undo.click()
        assert f"taken back: {taken} of" in again.status.value
    again.undo.click()
    assert "nothing to undo" in again.status.value and decided(data) == {}


def test_a_part_of_a_periods_name_is_enough_to_move_there(data, widget):
    last = widget.cards[3]
    for typed, to in (
        ("ba", BAROQUE),
        ("0", ""),
        (BAROQUE.upper(), BAROQUE),
        ("?", ""),
        (" realis ", "09-realism"),
    ):
        last.period.value = typed
        assert last.target() == to and last.move.disabled == (to == ""), typed
    last.move.click()
    assert (
        decided(data) == {last.row["url"]: "move:09-realism"} and EARLY not in last.period.options
    )


@pytest.mark.parametrize(
    "reasons, found",
    [
        (
            "near-duplicate of raw/05-baroque/ab.jpg (detail); flagged: of one colour",
            ["near-duplicate", "flagged"],
        ),
        ("near-duplicate of raw/a.jpg (mirror); flagged: small", ["near-duplicate", "flagged"]),
        ("near-duplicate of raw/a (b) c/ab.jpg (same)", ["near-duplicate"]),
        ("near-duplicate of raw/St. B (c); d/ab.jpg (same); e (f)", ["near-duplicate", "e"]),
        (
            "of one colour; near-duplicate of raw/a/b.c.jpg (same)",
            ["of one colour", "near-duplicate"],
        ),
        ("same picture twice (raw/05-baroque/ab.jpg)", ["same picture twice"]),
        ("near-duplicate under another period (a, b)", ["near-duplicate under another period"]),
        (
            "doubtful label (06-rococo 93%, given 2%); outlier (distance 0.31, mostly 0.12)",
            ["doubtful label", "outlier"],
        ),
        ("of one colour or nearly so", ["of one colour or nearly so"]),
        ("", []),
    ],
)
def test_kinds_of_reasons(reasons, found):
    pytest.importorskip("ipywidgets")
    from artclf.results.review_widget import kinds

    assert kinds(reasons) == found


def test_filters_and_pages(data, flagged, widget):
    from artclf.results.review_widget import Review

    assert [text for text, _ in widget.reason.options] == [
        "all",
        "doubtful label (2)",
        "unlike the others (1)",
        "near-duplicate (1)",
    ]
    queue = list(review.queue(data, flagged).url)
    widget.reason.value = "near-duplicate"
    assert shown(widget) == queue[1:3], "with the copy that is used"
    assert ["goes along" in card.text.value for card in widget.cards[:2]] == [False, True]
    widget.reason.value = "doubtful label"
    widget.cards[0].keep.click()
    assert shown(widget) == [queue[0], queue[3]], (
        "what was decided stays until the page is made anew"
    )
    widget.undecided.value = True
    assert shown(widget) == [queue[3]]
    widget.reason.value = "unlike the others"
    assert shown(widget) == [] and "no picture to show" in widget.counter.value
    small = Review(data, flagged, "review.csv", size=2)
    assert shown(small) == queue[:1] and small.previous.disabled, "a pair is not torn"
    for _ in range(2):
        small.next.click()
    assert (
        shown(small) == queue[3:] and small.next.disabled and "page 3 of 3" in small.counter.value
    )
    small.undo.click()
    assert shown(small) == queue[:1] and "taken back: keep" in small.status.value
    one = Review(data, flagged, "review.csv", size=1)
    for _ in range(3):
        one.next.click()
    assert shown(one) == queue[3:]


def test_the_button_exports_and_tells_what_went_wrong(data, widget, file):
    widget.cards[0].keep.click()
    widget.export.click()
    assert len(lines_of(file)) == 1 and f"1 decisions are in {file}" in widget.status.value
    file.write_text("<b>no list</b>")
    widget.export.click()
    assert "not done: " in widget.status.value and "first line" in widget.status.value
    (data / "catalogue.db").rename(data / "elsewhere.db")
    with pytest.raises(FileNotFoundError):
        review.decide(data, [], "keep")


def test_what_a_person_cannot_mend_is_raised(widget):
    def mistake():
        raise ValueError("operands could not be broadcast together")

    with pytest.raises(ValueError, match="broadcast"):
        widget._try(mistake)
    assert "not done" not in widget.status.value


def test_an_undo_without_the_picture_turns_no_page(data, flagged, widget):
    other = rows_of(data, "09-realism")[0]
    review.decide(data, [other, rows_of(data, "09-realism")[1]], "keep")
    widget.undo.click()
    title = other["title"] or other["url"]
    assert f"taken back: keep of {title} and 1 more<" in widget.status.value
    assert "page 1 of 1" in widget.counter.value and decided(data) == {}


def test_text_of_strangers_is_text(widget):
    text = widget.cards[0].text.value
    assert "&lt;script&gt;window.hacked" in text and "A. &amp; B. &lt;img src=x&gt;, 1650<" in text
    assert "&lt;off&gt;" in text
    assert len(re.findall("<img", text)) == 1 and "<script" not in text
    widget.cards[0].drop.click()
    widget.undo.click()
    assert "&lt;script&gt;" in widget.status.value and "<script" not in widget.status.value


def test_every_button_has_a_tooltip(widget):
    buttons = [widget.previous, widget.next, widget.undo, widget.export, widget.undecided]
    for card in widget.cards[:4]:
        buttons += [card.keep, card.drop, card.move, card.period]
    assert all(button.tooltip for button in buttons) and len(widget.reason.tooltips) == len(
        widget.reason.options
    )


def test_a_saved_notebook_shows_a_line_in_place_of_the_widget(widget):
    from nbconvert import HTMLExporter

    bundle = widget._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("w", outputs=[nbformat.v4.new_output("display_data", bundle)])
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(
        nbformat.v4.new_notebook(cells=[cell])
    )
    assert (
        "The review, 0 of 3 decided: run this cell" in page
        and "VBox(" not in page
        and "widget-view" not in page
    )
