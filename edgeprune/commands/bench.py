"""``edgeprune bench``: the measurements of the package edgeprune_benchmarks, where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

import click

from edgeprune_formats import ConfigError

__all__ = ["command"]


class _Benchmarks(click.Group):
    """Finds the commands of edgeprune_benchmarks when they are asked for; edgeprune never needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _group().list_commands(ctx)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _group().get_command(ctx, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _missing(error) from None


def _group() -> click.Group:
    try:
        group: click.Group = importlib.import_module("edgeprune_benchmarks.__main__").cli
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    return group


def _missing(error: ModuleNotFoundError) -> Exception:
    """Return what tells a user of a package that is not installed; one of ours would be a fault."""
    package = (error.name or "").partition(".")[0]
    if package.startswith("edgeprune") and package != "edgeprune_benchmarks":
        return error
    return ConfigError(f"this benchmark needs {package}; pip install 'edgeprune[bench]'")


@click.command("bench", cls=_Benchmarks)
def command() -> None:
    """Measure storage, time and accuracy against other codecs and loaders, on real images.

    Each result is one JSON file. The images are those that $EDGEPRUNE_DATA or --data names.

    \b
    Example:
      edgeprune bench storage --data data --only 32x32
      edgeprune bench time --data data --only decode
    """
