"""``edgeprune verify``: is this pack whole?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeprune.text import count_text, say

from ..options.fields import PACK, Command, option

__all__ = ["command"]


@click.command("verify", cls=Command)
@PACK
@option(
    "--key",
    type=click.Path(path_type=Path),
    help="Check first that the owner of this public key has signed it.",
)
@click.option(
    "--isolated", is_flag=True, help="Read PACK in a process of its own, which a forged file may crash."
)
def command(pack: Path, key: Path | None, isolated: bool) -> None:
    """Check structure, checksums and content of PACK.

    Every problem is listed.

    \b
    Example:
      edgeprune verify photos.h5
      edgeprune verify photos.h5 --key maker.key.pub
      edgeprune verify from-a-stranger.h5 --isolated
    """
    from edgeprune_formats import open_pack, verify_pack

    if key is not None:
        from edgeprune_runtime.signatures import check_signature

        say(f"{pack}: signed by {check_signature(pack, key).key}")
    problems = verify_pack(pack, isolated=isolated or None)
    for problem in problems:
        say(f"{pack}: {problem}", err=True)
    if problems:
        sys.exit(1)
    header = open_pack(pack).header
    chunks = count_text(header.chunks, "chunk")
    say(f"{pack}: sound, {header.samples:,} images in {chunks}, every checksum matches")
