"""Options that several benchmarks have."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

__all__ = ["DATA", "MINUTES", "OUTPUT", "missing_packages", "require_packages"]

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


def require_packages(*names: str) -> None:
    """Raise ModuleNotFoundError at once, not after minutes, for a package that is not installed."""
    for name in missing_packages(names):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def missing_packages(names: tuple[str, ...]) -> list[str]:
    """Return which of some packages are not installed."""
    return [name for name in dict.fromkeys(names) if importlib.util.find_spec(name) is None]
