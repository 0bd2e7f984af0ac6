"""``edgeprune verify``: is this pack whole?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeprune.text import count_text, printable

from ..options.fields import PACK

__all__ = ["command"]


@click.command("verify")
@PACK
def command(pack: Path) -> None:
    """Check structure, checksums and content of PACK.

    Every problem is listed.

    \b
    Example:
      edgeprune verify photos.h5
    """
    from edgeprune_formats import open_pack, verify_pack

    problems = verify_pack(pack)
    for problem in problems:
        click.echo(printable(f"{pack}: {problem}"), err=True)
    if problems:
        sys.exit(1)
    header = open_pack(pack).header
    chunks = count_text(header.chunks, "chunk")
    click.echo(f"{pack}: sound, {header.samples:,} images in {chunks}, every checksum matches")
