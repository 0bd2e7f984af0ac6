"""``edgeprune convert``: a pack in another codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeprune.packs.config import BuildConfig
from edgeprune.text import bytes_text
from edgeprune_formats import ConfigError
from edgeprune_formats.chunks import COMPRESSIONS
from edgeprune_formats.codecs import codec_names
from edgeprune_formats.rounding import ROUNDINGS
from edgeprune_formats.tiles import COLOR_SPACES, TILES

from . import FORMER_NAMES

__all__ = ["command"]

# Above it two images differ by what float32 rounds, if at all.
EXACT_DB = 120.0


@click.command("convert", context_settings=FORMER_NAMES)
@click.argument("pack", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The pack to write.")
@click.option("--codec", type=click.Choice(codec_names()), default="quantized", show_default=True)
@click.option("--freq-prune", type=float, help="Keep the components of highest energy, without this share.")
@click.option("--compression", type=click.Choice(COMPRESSIONS), default="none", show_default=True)
@click.option("--quality", type=float, help="Of codec quantized, 1 to 100.  [default: 75]")
@click.option("--color", type=click.Choice(COLOR_SPACES), help="Of quantized.  [default: ycbcr]")
@click.option("--tile", type=click.Choice(TILES), help="Tiles of quantized, in pixels.")
@click.option("--rounding", type=click.Choice(ROUNDINGS), help="Of quantized.  [default: rdo]")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(pack: Path, output: Path, force: bool, quiet: bool, **options: Any) -> None:
    """Write PACK in another codec, without the images it was built from.

    \b
    Example:
      edgeprune convert photos.h5 --codec quantized --quality 80 -o small.h5
    """
    from edgeprune.packs.convert import convert_pack
    from edgeprune.work.progress import progress_bars

    if output.exists() and not force and not output.is_dir():
        raise ConfigError(f"{output} exists; pass --force to replace it")
    with progress_bars(quiet) as tell:
        header, psnr = convert_pack(
            pack,
            output,
            BuildConfig(**options),
            progress=lambda done, total: tell("converting", done, total),
        )
    if not quiet:
        size = output.stat().st_size
        exact = "the same images" if psnr > EXACT_DB else f"{psnr:.1f} dB of the images of {pack}"
        click.echo(
            f"{output}: {header.codec}, {header.samples:,} images, {size / header.samples:,.0f} B each, "
            f"{bytes_text(size)}, was {bytes_text(pack.stat().st_size)}; {exact}"
        )
