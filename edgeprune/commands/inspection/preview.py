"""``edgeprune preview``: see what a pack keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import say

from ...options.fields import FAR_PACK
from .info import look_into, ranges_text

if TYPE_CHECKING:
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]


@click.command("preview")
@FAR_PACK
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="PNG file to write; it is replaced if it exists.",
)
@click.option("--source", help="Source of the pack, to show the original images too.")
@click.option("--images", type=int, default=8, show_default=True, help="Number of images to show, up to 64.")
def command(pack: Path | RemoteFile, output: Path, source: str | None, images: int) -> None:
    """Draw the decoded images of PACK, and what they lost against --source.

    PACK may be a URL; only the parts that are needed are read then.

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
