"""The notebooks, executed: what each wrote, pages that need no network, a second run that does
nothing again.
"""

import ast
import json
import re
import shutil
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from artclf import download, run, train
from artclf.base.errors import InputError, StepError
from artclf.data import catalogue, sample

SMALL = [
    "SIZE=64",
    "EPOCHS=1",
    "UNFROZEN_EPOCHS=1",
    "BATCH_SIZE=8",
    "ARCH=efficientnet_lite0",
    "N=4",
    "CANVASES=6",
]


def book(cell="x = 1", **changes):
    cells = [
        nbformat.v4.new_code_cell(
            "A, B = 0, 0\nNAME = 'a'\nPATH: str = 'p'", metadata={"tags": ["parameters"]}
        ),
        nbformat.v4.new_code_cell("# a comment\nprint(NAME)"),
        nbformat.v4.new_code_cell(cell),
    ]
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "python"}}
    )


def outputs(path, kind) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [
        out
        for cell in cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.output_type == kind
    ]


@pytest.fixture
def quiet_steps(monkeypatch, tmp_path):
    """`run_notebooks` in an empty folder, with notebooks that are noted instead of executed."""
    noted = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        run,
        "execute",
        lambda notebook, copy, parameters: noted.append((notebook, copy, parameters)),
    )
    return noted


def test_steps_get_absolute_paths_in_the_data_sets_own_folders(quiet_steps, tmp_path, drawn):
    shutil.copytree(drawn / "gallery", tmp_path / "mine")
    run.run_notebooks(tmp_path / "mine", assignments=["SIZE=64", "ARCH=resnet18"])
    assert [notebook.stem for notebook, _, _ in quiet_steps] == list(run.STEPS)
    for notebook, copy, parameters in quiet_steps:
        assert notebook.is_file() and copy == run.Path("exports/mine/notebooks", notebook.name)
        assert parameters == {
            "DATA": str(tmp_path / "data/mine"),
            "EXPORT": str(tmp_path / "exports/mine"),
            "LISTS": str(tmp_path / "data/mine/urls"),
            "GALLERY": str(tmp_path / "mine"),
            "CANVASES": None,
            "FIND_LR": False,
            "REVIEW": str(tmp_path / "data/mine/urls/review.csv"),
            "SIZE": 64,
            "ARCH": "resnet18",
        }


def test_a_folder_of_lists_has_no_gallery(quiet_steps, tmp_path):
    run.run_notebooks(lists=run.Path("my_lists"))
    parameters = quiet_steps[0][2]
    assert parameters["LISTS"] == str(tmp_path / "my_lists") and parameters["GALLERY"] is None
    assert parameters["DATA"] == str(tmp_path / "data/my_lists")
    assert not (tmp_path / "data/my_lists/urls").exists()
    run.run_notebooks(lists=run.NOTEBOOKS.parent / "paintings_urls")
    assert quiet_steps[-1][2]["DATA"] == str(tmp_path / "data/paintings")


def test_without_a_source_the_gallery_is_that_of_the_canvases(quiet_steps, tmp_path):
    run.run_notebooks()
    assert quiet_steps[0][2]["GALLERY"] == str(tmp_path / "data/sample/gallery")
    assert "CANVASES" not in quiet_steps[0][2]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: {"again": True},
        lambda folder: {"assignments": ["SEED=7"]},
        lambda folder: (folder / "data/sample/raw.jpg").write_text("a picture more") and {},
        lambda folder: (folder / "exports/sample/config.json").unlink() or {},
    ],
    ids=["again", "parameter", "new picture", "export deleted"],
)
def test_notebooks_run_again_where_something_has_changed(quiet_steps, tmp_path, change, capsys):
    for folder in ("data/sample", "exports/sample"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    run.run_notebooks()
    assert len(quiet_steps) == 5
    run.run_notebooks()
    assert len(quiet_steps) == 5 and "Nothing has changed" in capsys.readouterr().out
    run.run_notebooks(**change(tmp_path))
    assert len(quiet_steps) == 10


def test_notebooks_that_failed_run_again(quiet_steps, monkeypatch):
    def fail(notebook, copy, parameters):
        raise StepError("a cell failed")

    with monkeypatch.context() as patch, pytest.raises(StepError):
        patch.setattr(run, "execute", fail)
        run.run_notebooks()
    run.run_notebooks()
    assert len(quiet_steps) == 5


def test_two_folders_of_one_name_are_not_one_data_set(quiet_steps, tmp_path, drawn):
    for parent in ("one", "two"):
        shutil.copytree(drawn / "gallery", tmp_path / parent / "pics")
    run.run_notebooks(tmp_path / "one/pics")
    with pytest.raises(InputError, match=r"data/pics holds the pictures of the gallery .*one/pics"):
        run.run_notebooks(tmp_path / "two/pics")
    with pytest.raises(InputError, match="rename .*two/pics, or name another data folder"):
        download.data_folder(tmp_path / "two/pics", "folder")
    run.run_notebooks(tmp_path / "one/pics")


def test_a_notebook_starts_in_its_folder_wherever_the_kernel_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run.enter("experiments/17_leaks")
    assert (
        Path.cwd() == run.NOTEBOOKS / "experiments" and "Paths start in" in capsys.readouterr().out
    )
    run.enter("experiments/17_leaks")
    assert capsys.readouterr().out == ""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "01_download.ipynb").touch()
    run.enter("01_download")  # a copy of one's own
    assert Path.cwd() == tmp_path
    with pytest.raises(FileNotFoundError, match="start the kernel in the folder"):
        run.enter("99_nothing")


def test_what_is_missing_of_another_data_set_is_named_with_its_notebook(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"01_download .*, 02_clean .*, 03_train"):
        run.make_missing("04_interpret", tmp_path / "mine", tmp_path / "out")
    assert not (tmp_path / "mine").exists()


def test_what_is_there_is_not_made_again(drawn, export, monkeypatch):
    monkeypatch.setattr(download, "fetch_canvases", None)
    run.make_missing("05_predict", drawn, export)


@pytest.mark.slow
def test_what_is_missing_of_the_canvases_is_made(tmp_path, monkeypatch, capsys):
    made = []
    few = partial(download.fetch_canvases, canvases=2)
    monkeypatch.setattr(download, "fetch_canvases", few)
    monkeypatch.setattr(train, "fit", lambda data, out: made.append((data, out)))
    data, out = tmp_path / "sample", tmp_path / "out"
    run.make_missing("02_clean", data)
    assert len(catalogue.read_catalogue(data)) > 36 and not (data / "clean").exists()
    run.make_missing("03_train", data, out)
    assert (catalogue.read_catalogue(data).clean_status == "ok").sum() >= 30 and made == []
    run.make_missing("04_interpret", data, out)
    assert made == [(data, out)]
    said = capsys.readouterr().out
    assert said.count("Drawing canvases") == said.count("Cleaning them") == 1


@pytest.mark.parametrize("assignment", ["SIEZ=64", "SIZE", "=3", "size=64", ""])
def test_unknown_parameters_are_errors(quiet_steps, assignment):
    with pytest.raises(ValueError, match=f"^{assignment!r} is not NAME=VALUE"):
        run.run_notebooks(None, None, [assignment])
    assert quiet_steps == []


@pytest.mark.slow
def test_parameters_reach_the_cells_and_every_cell_has_its_line(tmp_path, capsys):
    nbformat.write(book('assert (A, B, NAME) == (0, 0, "it\'s"), NAME'), tmp_path / "small.ipynb")
    before = (tmp_path / "small.ipynb").read_bytes()
    copy = run.execute(
        tmp_path / "small.ipynb", tmp_path / "out/copy.ipynb", {"NAME": "it's", "OTHER": 1}
    )
    assert outputs(copy, "stream")[0].text == "it's\n" and "<html" in copy.with_suffix(
        ".html"
    ).read_text("utf-8")
    assert (tmp_path / "small.ipynb").read_bytes() == before
    assert [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "A, B = 0, 0",
        'NAME = "it\'s"',
        "print(NAME)",
        'assert (A, B, NAME) == (0, 0, "it\'s"), NAME',
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, reason",
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os._exit(1)", "its process ended"),
    ],
)
def test_a_cell_that_fails_is_named_and_the_copy_is_there(tmp_path, cell, reason):
    nbformat.write(book(cell), tmp_path / "small.ipynb")
    with pytest.raises(RuntimeError, match=rf"^small\.ipynb failed, see .*copy\.ipynb: {reason}"):
        run.execute(tmp_path / "small.ipynb", tmp_path / "out/copy.ipynb", {})
    assert outputs(tmp_path / "out/copy.ipynb", "stream")[0].text == "a\n"
    assert not (tmp_path / "out/copy.html").exists()


def test_a_notebook_without_parameters_is_an_error(tmp_path):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "small.ipynb")
    with pytest.raises(ValueError, match="0 cells tagged"):
        run.execute(tmp_path / "small.ipynb", tmp_path / "c.ipynb", {})


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which all notebooks ran on 18 periods of six drawn canvases, and what was
    printed.
    """
    from contextlib import redirect_stdout
    from io import StringIO

    folder, said = tmp_path_factory.mktemp("ran"), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.chdir(folder)
        run.run_notebooks(assignments=SMALL)
    return folder, said.getvalue()


@pytest.mark.slow
def test_every_notebook_is_executed_and_says_so(ran):
    folder, said = ran
    for step in run.STEPS:
        copy = folder / f"exports/sample/notebooks/{step}.ipynb"
        cells = [
            cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"
        ]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert re.findall(rf"^{step} +(\d+)/{len(cells)} ", said, re.M) == [
            str(n + 1) for n in range(len(cells))
        ]
        assert copy.with_suffix(".html").stat().st_size > 10_000
    told = re.search(r"Open (\S+)\n +(\S+)\n +(\S+)\n", said).groups()
    assert all((folder / path).exists() for path in told) and "make paintings" in said


@pytest.mark.slow
def test_no_cell_warns(ran):
    for step in run.STEPS:
        copy = ran[0] / f"exports/sample/notebooks/{step}.ipynb"
        assert [out.text for out in outputs(copy, "stream") if out.name == "stderr"] == []
        assert outputs(copy, "error") == []
        texts = [
            out.get("text", "") or str(out.get("data", {}).get("text/plain", ""))
            for kind in ("stream", "display_data", "execute_result")
            for out in outputs(copy, kind)
        ]
        assert not [text for text in texts if "Warning" in text]


@pytest.mark.slow
def test_download_and_clean_wrote_pictures_and_reasons(ran):
    table = catalogue.read_catalogue(ran[0] / "data/sample")
    assert (table.status == "ok").sum() >= 108 and (table.status != "pending").all()
    assert {"http 404", "not an image: text/html", "truncated"} <= set(table.reason.dropna())
    ok = table[table.status == "ok"]
    assert ok.clean_status.notna().all() and (ok.clean_status == "ok").sum() >= 100
    good = ok[ok.clean_status == "ok"]
    assert all(
        (ran[0] / "data/sample" / catalogue.clean_path(row)).is_file()
        for row in good.to_dict("records")
    )
    assert table.title.notna().all() and table.artist.notna().all()
    assert (
        good.phash.notna().all() and good.doubt.between(0, 1).all() and good.outlier.notna().all()
    )
    assert ((good.likelier != good.period) & good.likelier.notna()).any()
    shown = outputs(ran[0] / "exports/sample/notebooks/02_clean.ipynb", "stream")
    assert any("0 decisions applied" in out.text for out in shown)


@pytest.mark.slow
def test_train_interpret_and_predict_wrote_the_export(ran):
    out, vocab = ran[0] / "exports/sample", list(sample.PERIODS)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (
        config["vocab"] == vocab and config["size"] == 64 and config["name"] == "efficientnet_lite0"
    )
    assert len(pd.read_csv(out / "history.csv")) == 2
    models = {file.stem for file in (out / "models").iterdir()}
    assert {"stage-1", "stage-2", "fit-0", "fit-1", "best-0"} <= models
    assert models <= {"stage-1", "stage-2", "fit-0", "fit-1", "best-0", "best-1"}
    predictions = pd.read_csv(out / "predictions.csv")
    good = (catalogue.read_catalogue(ran[0] / "data/sample").clean_status == "ok").sum()
    assert len(predictions) == good and set(predictions.part) == {"train", "valid", "test"}
    headline = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]
    shown = "".join(
        str(o.data) for o in outputs(out / "notebooks/03_train.ipynb", "execute_result")
    )
    assert f"{headline['accuracy']:.3f}".rstrip("0") in shown
    assert len(list((out / "plots").glob("*.png"))) == len(list((out / "plots").glob("*.svg"))) >= 3
    assert (out / "report.html").stat().st_size > 50_000
    assert len(pd.read_csv(out / "per_class.csv")) == 18 and (out / "most_confused.csv").exists()
    answers = "".join(
        str(o.data) for o in outputs(out / "notebooks/05_predict.ipynb", "execute_result")
    )
    assert "no-such-picture.jpg" in answers and "file is missing" in answers
    said = "".join(o.text for o in outputs(out / "notebooks/03_train.ipynb", "stream"))
    assert "features that are stored in" in said and "the best on valid: macro F1" in said


@pytest.mark.slow
def test_the_export_is_loaded_in_one_line_and_holds_no_path(ran):
    import artclf

    found = artclf.load(ran[0] / "exports/sample").predict(
        ran[0] / "data/sample/gallery/05-baroque"
    )
    assert len(found) == 6 and (found.error == "").all()
    for name in ("config.json", "metrics.json", "predictions.csv", "learner.pkl"):
        assert str(ran[0]).encode() not in (ran[0] / "exports/sample" / name).read_bytes()


@pytest.mark.slow
def test_pages_ask_no_server_for_anything(ran, browser):
    out = ran[0] / "exports/sample"
    for page in (out / "report.html", *sorted((out / "notebooks").glob("*.html"))):
        asked, errors, tab = [], [], browser.new_page()
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        tab.goto(page.as_uri())
        tab.wait_for_timeout(300)
        assert [
            url for url in asked if not url.startswith(("file:", "data:", "blob:"))
        ] == [] and errors == []
        assert tab.locator("h1").count() >= 1 and tab.locator("img, svg").count() >= 1
        tab.close()


@pytest.mark.slow
def test_a_second_run_fetches_and_computes_nothing(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran[0])
    kept = [
        file
        for step in ("gallery", "raw", "clean")
        for file in ran[0].glob(f"data/sample/{step}/*/*")
    ]
    before = {file: file.stat().st_mtime_ns for file in kept}
    weights = (ran[0] / "exports/sample/model.safetensors").read_bytes()
    seconds = pd.read_csv(ran[0] / "exports/sample/history.csv").seconds.tolist()
    capsys.readouterr()
    run.run_notebooks(assignments=SMALL)
    assert "Nothing has changed since the notebooks ran" in capsys.readouterr().out
    run.run_notebooks(assignments=SMALL, again=True)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert (ran[0] / "exports/sample/model.safetensors").read_bytes() == weights
    assert pd.read_csv(ran[0] / "exports/sample/history.csv").seconds.tolist() == seconds
    said = "".join(
        out.text for out in outputs(ran[0] / "exports/sample/notebooks/03_train.ipynb", "stream")
    )
    assert said.count("Going on after epoch 0") == 2


# The exercises at the end of each notebook


def exercises(notebook: str) -> list[str]:
    """The items of the list under "Try this"."""
    book = nbformat.read(run.NOTEBOOKS / f"{notebook}.ipynb", as_version=4)
    [text] = [cell.source for cell in book.cells if "## Try this" in cell.source]
    return re.findall(r"^\* (.+)", text.partition("## Try this")[2], re.MULTILINE)


def settings(exercise: str) -> dict:
    """The settings that an exercise asks for, `NAME = value`; of a name's values, the last."""
    found = re.findall(r"`([A-Z_]+) = ([^`]+)`", exercise)
    return {name: ast.literal_eval(value) for name, value in found}


def expressions(exercise: str) -> list[str]:
    """The calls that an exercise shows, without those of pictures that a reader brings."""
    codes = re.findall(r"`([^`]+)`", exercise)
    return [code for code in codes if re.fullmatch(r"[a-z]\w*[.\[].*[)\]]", code)]


ALL_NOTEBOOKS = sorted(
    path.relative_to(run.NOTEBOOKS).with_suffix("").as_posix()
    for path in run.NOTEBOOKS.rglob("[0-9]*.ipynb")
)


@pytest.mark.parametrize("notebook", ALL_NOTEBOOKS)
def test_exercises_name_parameters_of_their_notebook(notebook):
    names = set(run._parameters_of(run.NOTEBOOKS / f"{notebook}.ipynb"))
    asked = [settings(exercise) for exercise in exercises(notebook)]
    assert len(asked) >= 3 and any(asked)
    for changes in asked:
        assert set(changes) <= names


SETTINGS = [
    (notebook, exercise)
    for notebook in run.STEPS
    for exercise in exercises(notebook)
    if settings(exercise)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook, exercise", SETTINGS, ids=[f"{n} {settings(e)}" for n, e in SETTINGS]
)
def test_an_exercise_runs_as_it_is_written(notebook, exercise, ran, tmp_path):
    for place in ("data", "exports"):
        shutil.copytree(ran[0] / place, tmp_path / place)
    paths = {
        "DATA": "../data/sample",
        "EXPORT": "../exports/sample",
        "LISTS": "../data/sample/urls",
        "GALLERY": "../data/sample/gallery",
        "REVIEW": "../data/sample/urls/review.csv",
    }
    # the network of all pictures is that of `ran`
    small = run._parse_assignments([*SMALL, "FINAL=False"])
    parameters = {**paths, **small, **settings(exercise)}
    for name, value in parameters.items():
        if isinstance(value, str) and value.startswith("../"):
            parameters[name] = str(tmp_path / value.removeprefix("../"))
    copy = run.execute(run.NOTEBOOKS / f"{notebook}.ipynb", tmp_path / "copy.ipynb", parameters)
    assert outputs(copy, "error") == []
    warned = [out.text for out in outputs(copy, "stream") if "Warning" in out.text]
    assert warned == []


@pytest.mark.slow
def test_the_code_that_exercises_show_runs(ran, tmp_path):
    for notebook in ("02_clean", "04_interpret"):
        copy = ran[0] / f"exports/sample/notebooks/{notebook}.ipynb"
        book = nbformat.read(copy, as_version=4)
        shown = [code for exercise in exercises(notebook) for code in expressions(exercise)]
        assert shown, notebook
        cells = [cell for cell in book.cells if cell.cell_type == "code"]
        cells += [nbformat.v4.new_code_cell(code) for code in shown]
        book.cells = cells
        nbformat.write(book, tmp_path / f"{notebook}.ipynb")
        done = run.execute(tmp_path / f"{notebook}.ipynb", tmp_path / "done.ipynb", {})
        assert outputs(done, "error") == []
