"""``edgeprune preview``: see what a pack keeps."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import say

__all__ = ["command"]


@click.command("preview")
@click.argument("pack", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write, or to replace."
)
@click.option("--source", help="What the pack was built from, to show the originals as well.")
@click.option("--images", type=int, default=8, show_default=True, help="How many images to show.")
def command(pack: Path, output: Path, source: str | None, images: int) -> None:
    """Draw images of PACK as they decode, beside what they lost.

    \b
    Example:
      edgeprune preview photos.h5 --source imagefolder:photos -o grid.png
    """
    from edgeprune.packs.preview import draw_preview, open_originals
    from edgeprune_formats import open_pack

    with open_pack(pack) as opened:
        originals = None if source is None else open_originals(opened, source)
        draw_preview(opened, output, count=images, source=originals)
        shown = min(images, len(opened))
    say(f"{output}: {shown} images")
