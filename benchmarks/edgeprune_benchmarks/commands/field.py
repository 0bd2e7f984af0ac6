"""The commands ``trouble``, ``faults``, ``load``, ``leaks`` and ``ranges``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..harness.options import DATA, OUTPUT, count, number

__all__ = ["faults", "leaks", "load", "ranges", "trouble"]


@click.command(short_help="Reproduce problems from the field: odd files, signals")
@OUTPUT
@click.option(
    "--kind", "kinds", multiple=True, help="One kind of situation; may be repeated.  [default: all]"
)
@click.option("--name", "words", default="", help="Only situations whose name contains this text.")
def trouble(output: Path, **options: Any) -> None:
    """Reproduce problems that users reported, and similar ones, and count the outcomes.

    An outcome is right, refused with a clear message, or wrong.

    \b
    Example:
      edgeprune bench trouble --kind weights
    """
    from ..field.trouble import run

    run(output, **options)


@click.command(short_help="Read one pack with many threads and processes at once")
@OUTPUT
@number("--minutes", 30.0, "Minutes for all ways of reading together.")
@count("--readers", 64, "Threads, or processes, that read at once.")
@count("--images", 1000, "Images in the pack that is read.", least=64)
@number("--patience", 300.0, "Seconds after which a run counts as hung.")
def load(output: Path, **options: Any) -> None:
    """Read one pack with many threads, processes and DataLoader workers at once, and check what they read.

    \b
    Example:
      edgeprune bench load --minutes 1
    """
    from ..field.load import Settings, run

    run(Settings(**options), output)


@click.command(short_help="Find leaks of file descriptors and memory")
@OUTPUT
@count("--opens", 1000, "How often a pack is opened.")
@count("--epochs", 100, "Epochs of one loader.")
def leaks(output: Path, **options: Any) -> None:
    """Open and read packs many times, and compare open file descriptors and memory before and after.

    \b
    Example:
      edgeprune bench leaks --opens 1000 --epochs 100
    """
    from ..field.leaks import run

    run(output, **options)


@click.command(short_help="Failing disks and killed processes during writing")
@OUTPUT
@count("--moments", 50, "Random moments at which each fault is tried.")
@count("--seed", 0, "Seed of the random moments.", least=0)
@click.option(
    "--operation",
    "operations",
    multiple=True,
    help="One command, such as build; may be repeated.  [default: all]",
)
@click.option("--fault", "kinds", multiple=True, help="One kind of fault; may be repeated.  [default: all]")
def faults(output: Path, **options: Any) -> None:
    """Let disks fail, and kill processes, while packs, runs and graphs are written; check what is left.

    \b
    Example:
      edgeprune bench faults --moments 5 --operation build
    """
    from ..field.faults import run

    run(output, **options)


@click.command(short_help="Bytes that commands read of a pack at a URL")
@DATA
@OUTPUT
def ranges(data: Path, output: Path) -> None:
    """Count bytes and requests that `edgeprune info` and `edgeprune preview` need for a pack at a URL.

    \b
    Example:
      edgeprune bench ranges --data FOLDER
    """
    from ..field.ranges import run

    run(data, output)
