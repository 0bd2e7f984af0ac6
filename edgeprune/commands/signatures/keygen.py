"""``edgeprune keygen``: a key to sign packs with."""

from __future__ import annotations

from pathlib import Path

import click

from edgeprune.text import say

from ...options.fields import Command, output_option

__all__ = ["command"]


@click.command("keygen", cls=Command)
@output_option("File of the private key; the public key is written beside it as PATH.pub.")
def command(output: Path) -> None:
    """Make a key pair to sign packs with (Ed25519).

    Keep the private key secret. Give the public key to those who train from your packs, and tell them its
    fingerprint on another channel.

    \b
    Example:
      edgeprune keygen -o maker.key
    """
    from edgeprune_runtime.signatures import make_key

    name = make_key(output)
    say(f"{output}: private key, keep it to yourself; {output}.pub: public key {name}")
