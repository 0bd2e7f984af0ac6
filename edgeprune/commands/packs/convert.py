"""``edgeprune convert``: a pack in another codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.text import bytes_text, count_text, say

from ...options.fields import FORCE, PACK, QUIET, Command, config_options, make_config, output_option
from ...options.output import require_spare

__all__ = ["command"]

# Above it two images differ by what float32 rounds, if at all.
EXACT_DB = 120.0
DROP = "Share of the components to drop, from 0 to below 1; with quantized it saves next to nothing."


@click.command("convert", cls=Command)
@PACK
@output_option("Pack file to write.")
@config_options(BuildConfig, "codec", "quality", "freq_prune", freq_prune={"help": DROP})
@config_options(BuildConfig, "tile", "color", "rounding", "compression")
@FORCE
@QUIET
def command(pack: Path, output: Path, force: bool, quiet: bool, **options: Any) -> None:
    """Convert PACK to another codec; the original images are not needed.

    \b
    Example:
      edgeprune convert photos.h5 --codec quantized --quality 80 -o small.h5
    """
    from edgeprune.repack.convert import convert_pack
    from edgeprune.work.progress import progress_bars

    require_spare(output, force, {"pack that it is made from": pack})
    with progress_bars(quiet) as tell:
        header, psnr = convert_pack(
            pack,
            output,
            make_config(BuildConfig, options),
            progress=lambda done, total: tell("converting", done, total),
        )
    if not quiet:
        size = output.stat().st_size
        exact = "the same images" if psnr > EXACT_DB else f"{psnr:.1f} dB of the images of {pack}"
        say(
            f"{output}: {header.codec}, {count_text(header.samples, 'image')}, "
            f"{size / header.samples:,.0f} B each, {bytes_text(size)}, "
            f"was {bytes_text(pack.stat().st_size)}; {exact}"
        )
