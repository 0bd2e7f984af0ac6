"""``edgeprune sign``: whose pack this is."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import say

from ...options.fields import PACK, Command, option

__all__ = ["command"]


@click.command("sign", cls=Command)
@PACK
@option(
    "--key", type=click.Path(path_type=Path), required=True, help="Private key, made by edgeprune keygen."
)
@option(
    "--force",
    is_flag=True,
    help="Also replace a signature by another key, or a PACK.sig that is no signature.",
)
def command(pack: Path, key: Path, force: bool) -> None:
    """Sign PACK, so that a device can check that it is yours and unchanged.

    The signature is written to PACK.sig and, if the file system has extended attributes, also to
    user.edgeprune.signature. PACK itself is not changed. A damaged pack is not signed. A signature by another
    key is kept, unless --force replaces it.

    \b
    Example:
      edgeprune sign photos.h5 --key maker.key
    """
    from edgeprune_formats import verify_pack
    from edgeprune_formats.errors import error_for
    from edgeprune_runtime.signatures import require_replaceable, sign_file, signature_path

    if not force:
        # Before the pack is read, which can take long.
        require_replaceable(pack, key)
    for problem in verify_pack(pack):
        raise error_for(pack, problem)
    made, in_attribute = sign_file(pack, key, replace_existing=force)
    places = f"{signature_path(pack)}{' and its extended attribute' if in_attribute else ''}"
    say(f"{pack}: signed by {made.key} in {places}")
