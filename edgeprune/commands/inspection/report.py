"""``edgeprune report``: one page that shows a pack."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeprune.text import bytes_text, live, say

from ...options.fields import FORCE, PACK, PACK_FILE, QUIET, Command, option, output_option
from ...options.networks import TRUST_MODEL
from ...options.output import file_of, require_spare
from ..training.predict import tell

__all__ = ["command"]

RUN = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("report", cls=Command)
@PACK
@output_option("HTML file to write.")
@option("--source", help="Source of the pack, to show the original images and to compare file formats.")
@option("--scores", type=PACK_FILE, help="Scores file of that source, to show which images were left out.")
@option("--run", type=RUN, help="Folder of a run, to show its curves and where it is wrong.")
@option("--test", help="Pack or source to test the run on.  [default: PACK itself]")
@TRUST_MODEL
@FORCE
@QUIET
def command(
    pack: Path,
    output: Path,
    source: str | None,
    scores: Path | None,
    run: Path | None,
    test: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Write an HTML page about PACK: images, sizes, what was kept, and where a network is wrong.

    The page is one file that downloads nothing, for a browser on a computer or a phone. Large packs are
    sampled.

    \b
    Example:
      edgeprune report photos.h5 -o photos.html
      edgeprune report photos.h5 --source imagefolder:photos --run run --test test.h5 -o photos.html
    """
    from edgeprune.inference.predictors import open_predictor
    from edgeprune.report.page import look_at_run, require_template_engine, write_report
    from edgeprune.report.preview import open_originals
    from edgeprune.scoring.scores_file import read_scores_file
    from edgeprune_formats import ConfigError, open_pack

    require_template_engine()
    if test is not None and run is None:
        raise ConfigError("`test` is for the network of a run; name that with `run`")
    inputs = {"pack": pack, "scores file": scores, "run": run}
    inputs |= {"source": file_of(source), "test set": file_of(test)}
    require_spare(output, force, inputs)
    progress = live if sys.stderr.isatty() and not quiet else None
    with open_pack(pack) as opened:
        originals = None if source is None else open_originals(opened, source)
        records = None if scores is None else read_scores_file(scores)
        training = None
        if run is not None:
            training = look_at_run(opened, run, open_predictor(run, tell), test, progress)
        write_report(opened, output, source=originals, scores=records, training=training, progress=progress)
    if progress is not None:
        progress("")
    if not quiet:
        say(f"{output}: {bytes_text(output.stat().st_size)}")
