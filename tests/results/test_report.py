"""The report of a run and the comparison of two: against counting and scipy, with little and with
hostile input.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from artclf import interpret
from artclf.data.catalogue import Catalogue
from artclf.results import calibration, compare, evaluation, plots, report

ATTACK = "<script>window.hacked = 1</script>"


def run(folder, names, pairs, part="test", facts=None, seed=0):
    """A data folder with nothing but a catalogue, and an export of `pairs` of given and predicted
    class.
    """
    data, out, rng, rows = folder / "data", folder / "export", np.random.default_rng(seed), []
    out.mkdir(parents=True)
    with Catalogue(data) as catalogue:
        for i, (given, predicted) in enumerate(pairs):
            key = {"url": f"http://a.example/{i}", "period": given}
            catalogue.add([{**key, "title": ATTACK, **(facts or {})}])
            catalogue.update([{**key, "file": f"raw/{given}/{i:016x}.png"}])
            p = rng.dirichlet(np.ones(len(names)))
            best, place = p.argmax(), names.index(predicted)
            p[best], p[place] = p[place], p[best]
            loss = -np.log(p[names.index(given)]) if given in names else 27.0
            rows.append([f"clean/{given}/{i:016x}.jpg", part, given, predicted, p.max(), loss, *p])
    columns = [
        "file",
        "part",
        "period",
        "predicted",
        "probability",
        "loss",
        *(f"p_{name}" for name in names),
    ]
    pd.DataFrame(rows, columns=columns).to_csv(out / "predictions.csv", index=False)
    return data, out


def cells(html, table):
    """The texts of a table of a page, row by row."""
    body = re.search(f'<table[^>]* id="{table}">(.*?)</table>', html, re.DOTALL)[1]
    return [
        [
            re.sub("<[^>]+>", "", cell).strip()
            for cell in re.findall("<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        for row in re.findall("<tr.*?</tr>", body, re.DOTALL)
    ]


def shown(html, name):
    """The files of the pictures in an element, in order."""
    return re.findall('data-file="(.*?)"', html.split(f'id="{name}"')[1].split("<h2>")[0])


# One run


def test_the_figures_have_their_intervals(predictions, errors_of_a_run, tmp_path):
    data, _ = errors_of_a_run
    html = report.page(predictions, data, tmp_path)
    figures, (found, units) = evaluation.metrics(predictions)["test"], report.intervals(predictions)
    assert units.startswith("60 pictures, as if no two had one painter")  # one painter is no sample
    assert set(found) == {"accuracy", "macro_f1", "distance"}
    for name, (low, high) in found.items():
        assert low < figures[name] < high
    low, high = found["accuracy"]
    assert (
        f"95% interval {100 * low:.1f}% to {100 * high:.1f}%" in html
        and "bootstrap over 60 pictures" in html
    )
    row = next(row for row in cells(html, "figures") if row[0] == "mean period distance")
    assert row[-1] == "{:.3f} to {:.3f}".format(*found["distance"])


def test_pictures_stand_in_the_order_of_what_they_are_called(
    predictions, errors_of_a_run, tmp_path
):
    html, test = (
        report.page(predictions, errors_of_a_run[0], tmp_path, n=5),
        predictions.query("part == 'test'"),
    )
    by = test.sort_values("probability")
    assert shown(html, "sure") == by[by.period != by.predicted].file.tolist()[::-1][:5]
    assert shown(html, "unsure") == by.file.tolist()[:5]
    right = by[by.period == by.predicted].iloc[::-1]
    assert shown(html, "typical") == [
        file
        for name in evaluation.classes(test)
        for file in right[right.period == name].file.tolist()[:4]
    ]


def test_errors_by_painter_join_spellings_and_count(predictions):
    rows = predictions.query("part == 'test'").reset_index(drop=True)
    names = ["Vincent van Gogh", "Gogh, Vincent Willem van", "Claude Monet", "", "unknown"]
    rows["artist"] = [names[i % 5] for i in range(len(rows))]
    table = evaluation.errors_by(rows, "artist")
    gogh, wrong = rows[rows.index % 5 < 2], rows.period != rows.predicted
    assert set(table.index) == {"Claude Monet", "Gogh, Vincent Willem van"}
    own = table.loc["Gogh, Vincent Willem van"]
    assert own.images == len(gogh) == 24 and own.errors == wrong[gogh.index].sum()
    assert own.rate == own.errors / own.images and table.errors.is_monotonic_decreasing
    pairs = gogh[wrong[gogh.index]].groupby(["period", "predicted"]).size()
    assert pairs[own.mostly] == pairs.max()
    assert evaluation.errors_by(rows, "source").empty


def test_the_reliability_plot_shows_the_bins(predictions):
    ax, test = plots.plot_reliability(predictions).axes[0], predictions.query("part == 'test'")
    table = calibration.bins(test).dropna()
    _, line = ax.lines
    np.testing.assert_allclose(line.get_xydata(), table[["confidence", "accuracy"]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"as answered (calibration error {calibration.error(test):.3f})"
    ]
    before = plots.plot_reliability(predictions, temperature=2.0, ax=plots.axes_of_size(4, 4)).axes[
        0
    ]
    untempered = calibration.bins(calibration.untempered(test, 2.0)).dropna()
    np.testing.assert_allclose(before.lines[1].get_xydata(), untempered[["confidence", "accuracy"]])
    sizes = before.collections[0].get_sizes()
    assert np.argmax(sizes) == np.argmax(untempered.images.to_numpy())
    before.figure.canvas.draw()
    assert (
        before.transData.inverted().transform(before.get_legend().get_window_extent())[0, 1] > 1
    )  # over no dot


def test_calibration_stands_in_the_report(predictions, errors_of_a_run, tmp_path):
    data, _ = errors_of_a_run
    kept = {
        "temperature": 1.7,
        "why": "",
        "test": {"images": 60, "ece": 0.0421, "ece_before": 0.1234, "nll": 1.0, "nll_before": 1.5},
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"calibration": kept}), encoding="utf-8")
    html = report.page(predictions, data, tmp_path)
    assert "temperature 1.70" in html and "is 0.042 in test, and was 0.123 before" in html
    table = calibration.answerable(predictions)
    for row, (asked, *rest) in zip(table.itertuples(), cells(html, "answerable")[1:], strict=True):
        assert asked == f"{row.asked:.0%}"
        if row.threshold == row.threshold:
            assert rest == [
                f"{row.threshold}",
                f"{row.answered} ({row.share:.1%})",
                f"{row.accuracy:.1%}",
            ]
    (tmp_path / "metrics.json").write_text(
        json.dumps({"calibration": {"temperature": 1.0, "why": "too few"}}), "utf-8"
    )
    assert "uncorrected: too few" in report.page(predictions, data, tmp_path)


def test_the_report_of_an_export_tells_its_command(export, drawn, command):
    code, out, _ = command("report", export, "--data", drawn)
    html = (export / "report.html").read_text(encoding="utf-8")
    assert code == 0 and f"report: {export / 'report.html'}" in out
    assert "artclf train --data" in html.split('<pre id="command">')[1].split("</pre>")[0]
    assert (
        "efficientnet_lite0" in html
        and "too few to fit it on" in html
        and "so that copies of a picture" in html
    )
    assert command("report", export, "--data", drawn, "--out", "x.html")[0] == 2


# Little and odd input

NAMES = [f"{i:02d}-a_rather_long_name_of_a_style" for i in range(40)]
ODD = {
    "five images": (NAMES[:3], [(NAMES[i % 3], NAMES[0]) for i in range(5)]),
    "one class": (NAMES[:1], [(NAMES[0], NAMES[0])] * 6),
    "40 classes": (NAMES, [(NAMES[i % 40], NAMES[(i * i) % 40]) for i in range(80)]),
    "an unknown class": (NAMES[:2], [("99-unknown", NAMES[0]), (NAMES[1], NAMES[1])]),
    "one image": (NAMES[:2], [(NAMES[1], NAMES[0])]),
}


@pytest.mark.parametrize("case", ODD)
def test_little_and_odd_input_gives_plots_and_a_report(tmp_path, case):
    part = "valid" if case == "one image" else "test"
    data, out = run(tmp_path, *ODD[case], part=part, facts={"artist": ATTACK, "source": ATTACK})
    predictions = evaluation.read(out, data)
    for figure in plots.of_run(predictions, data, out, part).values():
        figure.draw_without_rendering()
    html = re.sub('srcdoc="[^"]*"', "", report.page(predictions, data, out, part))
    assert "<script" not in html and "nan" not in re.sub(r"base64,[^\"]+", "", html)
    assert html.count("no picture") > 0 and "&lt;script&gt;" in html
    assert len(cells(html, "periods")) == 1 + len(evaluation.classes(predictions))


def test_without_painters_and_sources_it_says_so(tmp_path):
    data, out = run(tmp_path, *ODD["five images"])
    html = report.page(evaluation.read(out, data), data, out)
    assert (
        "No painter is known" in html
        and "No source is known" in html
        and 'id="by-artist"' not in html
    )


# Two runs


@pytest.fixture
def two(errors_of_a_run, tmp_path):
    """The run, and one that has every second error right and every fifth right answer wrong,
    without ten pictures.
    """
    data, out = errors_of_a_run
    table = pd.read_csv(out / "predictions.csv")
    wrong, place = table.period != table.predicted, np.arange(len(table))
    table.loc[wrong & (place % 2 == 0), "predicted"] = table.period
    table.loc[~wrong & (place % 5 == 3), "predicted"] = "10-late"
    other = tmp_path / "other"
    other.mkdir()
    table.drop(table.index[table.part == "test"][:10]).to_csv(
        other / "predictions.csv", index=False
    )
    return out, other, data


def aligned(one, other, data):
    a, b = (evaluation.read(out, data).query("part == 'test'") for out in (one, other))
    both = a.merge(b, on="file", suffixes=("_a", "_b"))
    return both.assign(a=both.period_a == both.predicted_a, b=both.period_b == both.predicted_b)


def test_the_comparison_counts_the_pictures_of_both_alone(two):
    one, other, data = two
    found, both = compare.compare_runs(one, other, data), aligned(*two)
    assert found["images"] == len(both) == 50 and found["page"] == str(
        other / f"compare-{one.name}.html"
    )
    only, only_other = (both.a & ~both.b).sum(), (both.b & ~both.a).sum()
    assert (found["only_one"], found["only_other"]) == (only, only_other) and min(
        only, only_other
    ) > 0
    assert found["p"] == pytest.approx(binomtest(int(only), int(only + only_other)).pvalue)
    assert found["accuracy_other"] == accuracy_score(both.period_b, both.predicted_b)
    assert found["macro_f1_difference"] == pytest.approx(
        f1_score(both.period_b, both.predicted_b, average="macro")
        - f1_score(both.period_a, both.predicted_a, average="macro")
    )
    assert found["accuracy_low"] < found["accuracy_difference"] < found["accuracy_high"]
    swapped = compare.compare_runs(other, one, data)
    assert (
        swapped["accuracy_difference"] == -found["accuracy_difference"]
        and swapped["p"] == found["p"]
    )


def test_the_interval_of_a_difference_is_that_of_paired_pictures(two):
    both, found = aligned(*two), compare.compare_runs(*two)
    gaps, rng = both.b.astype(int) - both.a.astype(int), np.random.default_rng(5)
    draws = [gaps.to_numpy()[rng.integers(50, size=50)].mean() for _ in range(4000)]
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(
        np.quantile(draws, [0.025, 0.975]), abs=0.03
    )


def test_the_page_shows_periods_and_the_pictures_that_one_run_alone_has_right(two):
    one, other, data = two
    html, both = (
        Path(compare.compare_runs(one, other, data)["page"]).read_text(encoding="utf-8"),
        aligned(*two),
    )
    rows = {row[0]: row[1:] for row in cells(html, "periods")[1:]}
    for name, own in both.groupby("period_a"):
        assert rows[name][:5] == [
            str(len(own)),
            f"{100 * own.a.mean():.1f}%",
            f"{100 * own.b.mean():.1f}%",
            str((own.a & ~own.b).sum()),
            str((own.b & ~own.a).sum()),
        ]
    assert set(rows) == set(both.period_a)
    first = both[both.a & ~both.b].sort_values("probability_b", ascending=False)
    assert shown(html, "only-1") == first.file.tolist()
    assert set(shown(html, "only-2")) == set(both[both.b & ~both.a].file)
    assert "<script>window.hacked" not in html and "<Painter>" not in html
    assert set(re.findall(r"""\s(?:src|href)=["']?(\w+:)""", html)) == {"data:"}


def test_equal_runs_do_not_differ(errors_of_a_run, tmp_path):
    data, out = errors_of_a_run
    found = compare.compare_runs(
        out, shutil.copytree(out, tmp_path / out.name), data, tmp_path / "page.html"
    )
    assert (found["only_one"], found["only_other"], found["p"]) == (0, 0, 1.0)
    assert found["accuracy_low"] == found["accuracy_high"] == 0 and found["page"] == str(
        tmp_path / "page.html"
    )
    assert html_of(found).count("None.") == 2 and str(tmp_path) in html_of(
        found
    )  # equal names: told by their paths


def html_of(found):
    return Path(found["page"]).read_text(encoding="utf-8")


def test_runs_that_can_not_be_compared_say_why(errors_of_a_run, tmp_path, command):
    data, out = errors_of_a_run
    table = pd.read_csv(out / "predictions.csv")
    for name, changed in {
        "classes": table.rename(columns={"p_12-empty": "p_13-new"}),
        "parts": table[table.part == "test"]
        .iloc[:0]
        .combine_first(table[table.part == "train"].assign(part="test")),
    }.items():
        (tmp_path / name).mkdir()
        changed.to_csv(tmp_path / name / "predictions.csv", index=False)
    with pytest.raises(ValueError, match="different classes .12-empty, 13-new"):
        compare.compare_runs(out, tmp_path / "classes", data)
    with pytest.raises(ValueError, match="no picture is in the same part of both.*--seed"):
        compare.compare_runs(out, tmp_path / "parts", data)
    with pytest.raises(FileNotFoundError, match="artclf train"):
        compare.compare_runs(out, tmp_path, data)
    code, _, said = command("report", out, tmp_path / "classes", "--data", data)
    assert code == 1 and "different classes" in said


def test_the_command_compares(two, command, tmp_path):
    one, other, data = two
    code, out, _ = command("report", one, other, "--data", data, "--out", tmp_path / "both.html")
    assert code == 0 and "images: 50" in out and (tmp_path / "both.html").exists()


@pytest.mark.slow
def test_pages_are_whole_on_screen_and_paper(browser, two):
    one, other, data = two
    for page in (
        interpret.write(one, data)["report"],
        compare.compare_runs(one, other, data)["page"],
    ):
        tab, failed = browser.new_page(viewport={"width": 1000, "height": 800}), []
        tab.on("pageerror", lambda error, failed=failed: failed.append(str(error)))
        tab.goto(Path(page).as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 1000
        assert tab.evaluate("window.hacked") is None and failed == []
        tab.emulate_media(media="print")
        tab.set_viewport_size({"width": 680, "height": 1000})  # A4 within margins of 15 mm
        assert tab.evaluate("document.documentElement.scrollWidth") <= 680
        assert tab.pdf(format="A4").startswith(b"%PDF")
        tab.close()
