"""``edgeprune keygen``: a key to sign packs with."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import say

from ..options.fields import Command, output_option

__all__ = ["command"]


@click.command("keygen", cls=Command)
@output_option("The private key; the public one is written beside it, with .pub behind the name.")
def command(output: Path) -> None:
    """Make a key to sign packs with (Ed25519).

    Keep the private key to yourself. Give the public key to those who train from your packs, and tell them
    its fingerprint by another way.

    \b
    Example:
      edgeprune keygen -o maker.key
    """
    from edgeprune_runtime.signatures import make_key

    name = make_key(output)
    say(f"{output}: private key, keep it to yourself; {output}.pub: public key {name}")
