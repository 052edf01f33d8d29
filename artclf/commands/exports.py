"""Commands that write what a run shows, and its network in other forms."""

from pathlib import Path
from typing import Annotated

import typer

from artclf.commands.calls import call, print_summary
from artclf.commands.options import DATA, EXPORT, App, Data, Json, Out, Part

app = App()


@app.command()
def interpret(data: Data = DATA, out: Out = EXPORT, part: Part = Part.test):
    """Write report.html, plots and tables from the predictions, and saliency of the worst
    errors.
    """
    from artclf.interpret import write, write_saliency

    call(write_saliency, out, data)
    print_summary(call(write, out, data, part.value), False)


@app.command()
def report(
    one: Path,
    other: Annotated[Path | None, typer.Argument()] = None,
    data: Data = DATA,
    part: Part = Part.test,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report, by default ONE; of a comparison its page, by default "
            "OTHER/compare-<name of ONE>.html."
        ),
    ] = None,
):
    """Write the report of the run in folder ONE, or what differs between it and that in folder
    OTHER.
    """
    from artclf import interpret

    if out and out.suffix == ".html" and not other:
        raise typer.BadParameter("it names the page of a comparison: for one run, name a folder")
    if other:
        summary = call(interpret.compare_runs, one, other, data, out, part=part.value)
    else:
        summary = call(interpret.write, one, data, part=part.value, folder=out)
    print_summary(summary, False)


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="Folder of the export.")
    ] = EXPORT,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write model.onnx, which answers without torch.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Also write model-int8.onnx, a third as long, and measure on part test of DATA what "
            "that costs.",
        ),
    ] = False,
    data: Data = DATA,
    web: Annotated[
        Path | None,
        typer.Option(help="Write a page that answers in the browser to this folder."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(help="The archive of onnxruntime-web for it; by default from npm, once."),
    ] = None,
    as_json: Json = False,
):
    """Write the network of an export in other forms."""
    if not onnx and web is None:
        raise typer.BadParameter("say which form: --onnx, with --int8 if you like, or --web FOLDER")
    if int8 and not onnx:
        raise typer.BadParameter("it comes with --onnx", param_hint="--int8")
    summary = {}
    if onnx:
        from artclf.model import onnx_export

        summary |= call(onnx_export.write, folder, int8, data)
    if web is not None:
        from artclf.answers.web import write

        summary |= call(write, folder, web, runtime)
    print_summary(summary, as_json)
