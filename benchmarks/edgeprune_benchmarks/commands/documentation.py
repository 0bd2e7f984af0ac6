"""The commands ``demo`` and ``readme``, which renew what README and docs show."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..harness.options import OUTPUT

__all__ = ["demo", "readme"]


@click.command(short_help="Run `edgeprune demo`, and save its output")
@OUTPUT
def demo(output: Path) -> None:
    """Run `edgeprune demo`; save its output and its picture for the documentation."""
    from ..documentation.demo import run

    run(output, Path("docs/images/demo.png"))


@click.command(short_help="Write the tables of the pages from the JSON results")
@OUTPUT
@click.option("--check", is_flag=True, help="Change nothing; fail if a table is out of date.")
def readme(output: Path, check: bool) -> None:
    """Write the tables of README.md and docs/ from the JSON results."""
    from ..documentation.readme import update

    if not update(Path(), output, write=not check) and check:
        click.echo("a table is out of date; run: python -m edgeprune_benchmarks readme", err=True)
        sys.exit(1)
