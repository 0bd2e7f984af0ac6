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


@click.command(short_help="Fuzz the readers of packs, checkpoints and other files")
@OUTPUT
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.05),
    default=60.0,
    show_default=True,
    help="Minutes for all targets together.",
)
@click.option(
    "--target",
    "targets",
    type=click.Choice(NAMES),
    multiple=True,
    help="One reader to fuzz; may be repeated.  [default: all]",
)
@count("--seed", 0, "Seed of the random changes.", least=0)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="How changes are chosen.  [default: atheris if it is installed, else random]",
)
@click.option(
    "--findings",
    type=click.Path(file_okay=False, path_type=Path),
    default="findings",
    show_default=True,
    help="Folder for inputs that went wrong.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Try this saved input again; give its --target, too.",
)
def fuzz(
    output: Path,
    findings: Path,
    replay: Path | None,
    targets: tuple[str, ...],
    engine: str | None,
    **options: Any,
) -> None:
    """Change valid files in many small ways; each must be read correctly, or refused in one line.

    Fuzzed are packs, payloads of codecs (C against numpy), provenance, scores files, checkpoints, networks,
    ONNX graphs and signatures. Checksums are corrected after each change, as a forger would do. The exit
    status is 1 if anything was wrong.

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
