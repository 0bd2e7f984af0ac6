"""``edgeprune merge``: several packs joined to one."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import bytes_text, say

from ...options.fields import FORCE, PACKS, QUIET, Command, option, output_option
from ...options.output import require_spare

__all__ = ["command"]


@click.command("merge", cls=Command)
@PACKS
@output_option("Pack file to write.")
@option("--seed", type=int, default=0, show_default=True, help="Seed of the order of the images.")
@option("--allow-duplicates", is_flag=True, help="Allow images that are in several of the packs.")
@FORCE
@QUIET
def command(
    packs: tuple[Path, ...], output: Path, seed: int, allow_duplicates: bool, force: bool, quiet: bool
) -> None:
    """Join several PACKs into one, in random order.

    Images are copied as they are stored. The packs must have the same shape of images, codec, components and
    quantization; classes are matched by name.

    \b
    Example:
      edgeprune merge fleet/*.h5 -o photos.h5
    """
    from edgeprune.repack.merge import merge_packs
    from edgeprune.work.progress import progress_bars

    require_spare(output, force)
    with progress_bars(quiet) as tell:
        report = merge_packs(
            packs,
            output,
            seed=seed,
            allow_duplicates=allow_duplicates,
            progress=lambda done, total: tell("merging", done, total),
        )
    if quiet:
        return
    whole = f", all of {report.whole}" if report.whole else ""
    twice = f", {report.duplicates:,} of them in several" if report.duplicates else ""
    scores = "; the scores differ in kind or lack, and are left out" if report.lost_scores else ""
    size = bytes_text(output.stat().st_size)
    line = f"{output}: {report.header.samples:,} images of {len(packs)} packs{whole}{twice}, {size}"
    say(line + scores)
