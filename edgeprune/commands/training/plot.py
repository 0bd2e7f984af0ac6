"""``edgeprune plot``: the curves of training runs."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import say
from edgeprune_formats import ConfigError

__all__ = ["command"]


@click.command("plot")
@click.argument(
    "runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, .png, .svg or .pdf.  [default: curves.png in the folder of the run]",
)
def command(runs: tuple[Path, ...], output: Path | None) -> None:
    """Draw the loss and accuracy of each RUN over the epochs.

    \b
    Example:
      edgeprune plot run
      edgeprune plot run-50 run-100 -o both.svg
    """
    from edgeprune.pictures import require_matplotlib

    require_matplotlib("plot")
    from edgeprune.training.curves import draw, read_metrics

    if output is None:
        if len(runs) > 1:
            raise ConfigError("several runs need a file to draw them in; give --output")
        output = runs[0] / "curves.png"
    draw({str(run): read_metrics(run) for run in runs}, output)
    say(output)
