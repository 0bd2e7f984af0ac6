"""``edgeprune verify``: is this pack whole?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import count_text, say

from ...options.fields import FAR_PACK, Command, option

if TYPE_CHECKING:
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]


@click.command("verify", cls=Command)
@FAR_PACK
@option(
    "--key",
    type=click.Path(path_type=Path),
    help="First check that PACK is signed by the owner of this public key.",
)
@click.option(
    "--isolated", is_flag=True, help="Read PACK in a separate process, which a forged file may crash."
)
def command(pack: Path | RemoteFile, key: Path | None, isolated: bool) -> None:
    """Check structure, checksums and content of PACK.

    Every problem is listed. PACK may be a URL: it is downloaded once, and always read in a separate process.

    \b
    Example:
      edgeprune verify photos.h5
      edgeprune verify photos.h5 --key maker.key.pub
      edgeprune verify from-a-stranger.h5 --isolated
      edgeprune verify 'https://example.org/photos.h5#sha256=DIGEST'
    """
    from edgeprune_formats import open_pack, verify_pack

    if key is not None:
        from edgeprune_runtime.signatures import signed_pack

        made, pack = signed_pack(pack, key)
        say(f"{pack}: signed by {made.key}")
    problems = verify_pack(pack, isolated=isolated or None)
    for problem in problems:
        say(f"{pack}: {problem}", err=True)
    if problems:
        sys.exit(1)
    with open_pack(pack) as opened:
        header, fetched = opened.header, opened.fetched
    chunks = count_text(header.chunks, "chunk")
    say(f"{pack}: sound, {count_text(header.samples, 'image')} in {chunks}, every checksum matches")
    if fetched is not None:
        say(f"  SHA-256 {fetched.sha256}, kept in {fetched.path}")
