"""The commands ``trouble``, ``faults``, ``load``, ``leaks`` and ``ranges``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..harness.options import DATA, OUTPUT, count, number

__all__ = ["faults", "leaks", "load", "ranges", "trouble"]


@click.command(short_help="Bring about what users reported, and more of its kind")
@OUTPUT
@click.option(
    "--kind", "kinds", multiple=True, help="One kind of situations; may be repeated.  [default: all]"
)
@click.option("--name", "words", default="", help="Only situations whose names hold these words.")
def trouble(output: Path, **options: Any) -> None:
    """Bring about what users reported, and more of each kind: right, refused clearly, or wrong.

    \b
    Example:
      edgeprune bench trouble --kind weights
    """
    from ..field.trouble import run

    run(output, **options)


@click.command(short_help="Read one pack by many threads and processes at once")
@OUTPUT
@number("--minutes", 30.0, "Minutes that all ways to read take together.")
@count("--readers", 64, "Threads, and processes, that read at once.")
@count("--images", 1000, "Images in the pack that is read.", least=64)
@number("--patience", 300.0, "Seconds after which a run counts as hung.")
def load(output: Path, **options: Any) -> None:
    """Read one pack by many threads, processes and workers at once, and compare what each has read.

    \b
    Example:
      edgeprune bench load --minutes 1
    """
    from ..field.load import Settings, run

    run(Settings(**options), output)


@click.command(short_help="Open files and memory after many passes over packs")
@OUTPUT
@count("--opens", 1000, "How often a pack is opened.")
@count("--epochs", 100, "Epochs that one loader is gone through.")
def leaks(output: Path, **options: Any) -> None:
    """Open packs and go through them again and again: open descriptors and memory before and after.

    \b
    Example:
      edgeprune bench leaks --opens 1000 --epochs 100
    """
    from ..field.leaks import run

    run(output, **options)


@click.command(short_help="Let disks fail and processes die during writing")
@OUTPUT
@count("--moments", 50, "Moments at which each fault strikes.")
@count("--seed", 0, "Seed of the random moments.", least=0)
@click.option(
    "--operation", "operations", multiple=True, help="One command, as build; may be repeated.  [default: all]"
)
@click.option("--fault", "kinds", multiple=True, help="One kind of fault; may be repeated.  [default: all]")
def faults(output: Path, **options: Any) -> None:
    """Let disks fail and processes die while packs, runs and graphs are written, and look at what is there.

    \b
    Example:
      edgeprune bench faults --moments 5 --operation build
    """
    from ..field.faults import run

    run(output, **options)


@click.command(short_help="Bytes of a far pack that commands read")
@DATA
@OUTPUT
def ranges(data: Path, output: Path) -> None:
    """Look into packs as far ones: bytes that `edgeprune info` and `preview` read, and requests.

    \b
    Example:
      edgeprune bench ranges --data FOLDER
    """
    from ..field.ranges import run

    run(data, output)
