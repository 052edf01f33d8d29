"""The command that runs the notebooks of the steps."""

from pathlib import Path
from typing import Annotated

import typer

from artclf.commands.calls import use_cache
from artclf.commands.options import App, Cache

app = App()


@app.command()
def run(
    gallery: Annotated[
        Path | None, typer.Argument(help="A folder of your own, GALLERY/<class>/*.jpg.")
    ] = None,
    lists: Annotated[
        Path | None, typer.Option(help="A folder of URL lists to fetch over the internet.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE for them.")
    ] = None,
    cache: Cache = None,
    again: Annotated[
        bool, typer.Option("--again", help="Run them even if nothing has changed since they ran.")
    ] = False,
):
    """Run the notebooks 01 to 05 top to bottom: on drawn canvases, on a folder of your own, or on
    URL lists.
    """
    from artclf.run import run_notebooks

    use_cache(cache)
    run_notebooks(gallery, lists, parameter or [], again)
