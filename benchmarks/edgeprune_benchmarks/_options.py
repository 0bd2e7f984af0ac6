"""Options that several benchmarks have."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["DATA", "MINUTES", "OUTPUT"]

DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="EDGEPRUNE_DATA",
    required=True,
    help="Folder with cifar10-lossless-6k.npz, cifar10-jpeg.npz and imagenet-sample.zip.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="benchmarks/results",
    show_default=True,
    help="Folder for the JSON results.",
)
MINUTES = click.option("--minutes", type=float, help="Stop after so long; the same command goes on.")
