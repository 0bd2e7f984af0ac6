"""The commands ``trouble``, ``faults``, ``load``, ``leaks`` and ``ranges``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..harness.options import DATA, OUTPUT

__all__ = ["faults", "leaks", "load", "ranges", "trouble"]


@click.command()
@OUTPUT
@click.option("--kind", "kinds", multiple=True, help="One kind; may be repeated.  [default: all]")
@click.option("--name", "words", default="", help="Only situations whose names hold these words.")
def trouble(output: Path, **options: Any) -> None:
    """Bring about what users reported, and more of each kind: right, refused clearly, or wrong.

    \b
    Example:
      edgeprune bench trouble --kind weights
    """
    from ..field.trouble import run

    run(output, **options)


@click.command()
@OUTPUT
@click.option("--minutes", type=float, default=30.0, show_default=True, help="In all.")
@click.option("--readers", type=click.IntRange(min=1), default=64, show_default=True, help="At once.")
@click.option("--images", type=click.IntRange(min=64), default=1000, show_default=True, help="In the pack.")
@click.option("--patience", type=float, default=300.0, show_default=True, help="Seconds until a run hangs.")
def load(output: Path, **options: Any) -> None:
    """Read one pack by many threads, processes and workers at once, and compare what each has read.

    \b
    Example:
      edgeprune bench load --minutes 1
    """
    from ..field.load import Settings, run

    run(Settings(**options), output)


@click.command()
@OUTPUT
@click.option("--opens", type=click.IntRange(min=1), default=1000, show_default=True, help="Of packs.")
@click.option("--epochs", type=click.IntRange(min=1), default=100, show_default=True, help="Of a loader.")
def leaks(output: Path, **options: Any) -> None:
    """Open packs and go through them again and again: open descriptors and memory before and after.

    \b
    Example:
      edgeprune bench leaks --opens 1000 --epochs 100
    """
    from ..field.leaks import run

    run(output, **options)


@click.command()
@OUTPUT
@click.option("--moments", type=click.IntRange(min=1), default=50, show_default=True, help="Of each fault.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments.")
@click.option("--operation", "operations", multiple=True, help="One; may be repeated.  [default: all]")
@click.option("--fault", "kinds", multiple=True, help="One; may be repeated.  [default: all]")
def faults(output: Path, **options: Any) -> None:
    """Let disks fail and processes die while packs, runs and graphs are written, and look at what is there.

    \b
    Example:
      edgeprune bench faults --moments 5 --operation build
    """
    from ..field.faults import run

    run(output, **options)


@click.command()
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
