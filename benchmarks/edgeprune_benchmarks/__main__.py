"""``python -m edgeprune_benchmarks NAME``, which is also ``edgeprune bench NAME``."""

from __future__ import annotations

import sys

import click

from edgeprune_formats import ConfigError, EdgePruneError

from .cli import command

if __name__ == "__main__":
    try:
        command(prog_name="python -m edgeprune_benchmarks")
    except EdgePruneError as error:
        click.echo(f"edgeprune_benchmarks: error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
