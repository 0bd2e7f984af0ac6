"""``edgeprune preview``: see what a pack keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import say

from ..options.fields import FAR_PACK
from .info import look_into, ranges_text

if TYPE_CHECKING:
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]


@click.command("preview")
@FAR_PACK
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write, or to replace."
)
@click.option("--source", help="What the pack was built from, to show the originals as well.")
@click.option("--images", type=int, default=8, show_default=True, help="How many images to show.")
def command(pack: Path | RemoteFile, output: Path, source: str | None, images: int) -> None:
    """Draw images of PACK as they decode, beside what they lost.

    Of a far pack, named by URL, only the parts are read that this needs.

    \b
    Example:
      edgeprune preview photos.h5 --source imagefolder:photos -o grid.png
    """
    from edgeprune.report.preview import draw_preview, open_originals
    from edgeprune_formats import open_pack

    with open_pack(pack) if isinstance(pack, Path) else look_into(pack) as opened:
        originals = None if source is None else open_originals(opened, source)
        draw_preview(opened, output, count=images, source=originals)
        shown, ranges = min(images, len(opened)), getattr(opened, "ranges", None)
        read = (
            "" if ranges is None else f", read {ranges_text(ranges.bytes_read, ranges.requests, ranges.size)}"
        )
    say(f"{output}: {shown} images{read}")
