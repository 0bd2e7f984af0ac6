"""``edgeprune repair``: what can be saved of a damaged pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import count_text, printable, say

from ...options.fields import FORCE, PACK, QUIET, Command, output_option
from ...options.output import require_spare

if TYPE_CHECKING:
    from edgeprune.repack.repair import LostChunk, RepairReport

__all__ = ["command"]

# Rows of lost images that are listed for each chunk.
_LISTED = 20


@click.command("repair", cls=Command)
@PACK
@output_option("Pack file to write.")
@FORCE
@QUIET
def command(pack: Path, output: Path, force: bool, quiet: bool) -> None:
    """Save the intact images of a damaged PACK in a new pack.

    Each chunk is checked against its checksum. The lost chunks are listed, with rows of the source and images
    of each class. If you have another copy of PACK that is intact, use that first: it loses nothing.

    \b
    Example:
      edgeprune repair photos.h5 -o saved.h5
    """
    from edgeprune.repack.repair import repair_pack
    from edgeprune.work.progress import progress_bars

    require_spare(output, force, {"pack that is repaired": pack})
    with progress_bars(quiet) as tell:
        report = repair_pack(pack, output, progress=tell)
    if not quiet:
        for line in _lines(pack, output, report):
            say(line)


def _lines(pack: Path, output: Path, report: RepairReport) -> list[str]:
    lines = [_chunk_line(one) for one in report.lost]
    lines += [f"lost of {name}: {count_text(count, 'image')}" for name, count in report.lost_by_class.items()]
    if report.lost_scores is not None:
        lines.append(f"lost: all scores ({report.lost_scores})")
    lines += [f"lost: target {printable(name)} ({why})" for name, why in report.lost_targets.items()]
    left = count_text(report.header.samples, "image")
    total = f"{report.header.samples + report.lost_images:,}"
    lost = f", {count_text(report.lost_images, 'image')} in {count_text(len(report.lost), 'chunk')} lost"
    sound = "" if report.lost_scores or report.lost_targets else f"; {pack} is sound, and nothing is lost"
    return [*lines, f"{output}: {left} saved of {total}{lost if report.lost else sound}"]


def _chunk_line(one: LostChunk) -> str:
    rows = ", ".join(map(str, one.rows[:_LISTED]))
    others = f" and {len(one.rows) - _LISTED:,} others" if len(one.rows) > _LISTED else ""
    return (
        f"lost: chunk {one.chunk}, {count_text(len(one.rows), 'image')}, "
        f"rows of the source {rows}{others} ({one.reason})"
    )
