"""``python -m edgeprune_benchmarks demo|decode|build|accuracy|readme``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeprune_formats import EdgePruneError

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure EdgePrune on real images; each result is one JSON file."""


@cli.command()
@DATA
@OUTPUT
@click.option("--rounds", type=int, default=15, show_default=True, help="Interleaved repetitions.")
def decode(data: Path, output: Path, rounds: int) -> None:
    """Decode images/s, one and two threads, against simplejpeg and raw pixels."""
    from .decode import run

    run(data, output, rounds)


@cli.command()
@DATA
@OUTPUT
def build(data: Path, output: Path) -> None:
    """Time and peak memory of building packs; size and PSNR at each pruning ratio."""
    from .build import run

    run(data, output)


@cli.command()
@DATA
@OUTPUT
@click.option("--epochs", type=int, default=5, show_default=True)
@click.option("--seeds", type=int, default=1, show_default=True, help="Runs of each network.")
@click.option("--device", default="auto", show_default=True)
@click.option("--runs", type=click.Path(path_type=Path), default="runs/accuracy", show_default=True)
def accuracy(data: Path, output: Path, epochs: int, seeds: int, device: str, runs: Path) -> None:
    """Test accuracy of networks trained from a 50% pack and from the original pixels; resumable."""
    from .accuracy import run

    run(data, output, epochs=epochs, seeds=seeds, device=device, runs=runs)


@cli.command()
@OUTPUT
def demo(output: Path) -> None:
    """Run `edgeprune demo` and keep what it prints, and its picture, for the README."""
    from .demo import run

    run(output, Path("docs/images/demo.png"))


@cli.command()
@OUTPUT
@click.option("--check", is_flag=True, help="Fail if the README is not up to date, change nothing.")
def readme(output: Path, check: bool) -> None:
    """Write the tables of README.md from the JSON results."""
    from .readme import update

    if not update(Path("README.md"), output, write=not check) and check:
        click.echo("README.md is not up to date; run: python -m edgeprune_benchmarks readme", err=True)
        sys.exit(1)


if __name__ == "__main__":
    try:
        cli()
    except EdgePruneError as error:
        click.echo(f"edgeprune_benchmarks: error: {error}", err=True)
        sys.exit(1)
