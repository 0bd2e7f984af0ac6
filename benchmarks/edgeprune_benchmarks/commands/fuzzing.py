"""The command ``fuzz``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import click

from ..fuzzing.targets import NAMES
from ..harness.options import OUTPUT, count

__all__ = ["fuzz"]

ENGINES = ("random", "atheris")


@click.command(short_help="Read files that were changed in many small ways")
@OUTPUT
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.05),
    default=60.0,
    show_default=True,
    help="Minutes that all targets take together.",
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(NAMES),
    multiple=True,
    help="What is fuzzed; may be repeated.  [default: all]",
)
@count("--seed", 0, "Seed of the random changes.", least=0)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="How changes are chosen.  [default: atheris where it is installed, else random]",
)
@click.option(
    "--findings",
    type=click.Path(file_okay=False, path_type=Path),
    default="findings",
    show_default=True,
    help="Folder for inputs that something went wrong with.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Try again an input of the folder of findings.",
)
def fuzz(
    output: Path,
    findings: Path,
    replay: Path | None,
    targets: tuple[str, ...],
    engine: str | None,
    **options: Any,
) -> None:
    """Change sound files in many small ways: each must be read as what it is, or refused in one line.

    Packs, payloads of codecs in C against numpy, provenance, scores files, checkpoints, networks, graphs
    and signatures. Checksums are repaired, as a forger does. Ends with status 1 if anything was wrong.

    \b
    Example:
      edgeprune bench fuzz --minutes 5 --target quantized
      edgeprune bench fuzz --replay findings/quantized-0123456789ab --target quantized
    """
    from ..fuzzing import run

    if replay is not None:
        sys.exit(not run.replay(replay, targets))
    chosen = engine or ENGINES[importlib.util.find_spec("atheris") is not None]
    sys.exit(not run.run(output, findings, targets=targets, engine=chosen, **options))
