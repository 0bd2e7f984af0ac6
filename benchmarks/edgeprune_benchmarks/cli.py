"""The commands of ``edgeprune bench``, which are also those of ``python -m edgeprune_benchmarks``."""

from __future__ import annotations

from typing import Any

import click

from edgeprune_formats import ConfigError

from .commands.codec import accuracy_per_byte, fleet, install, plots, storage, time
from .commands.device import (
    copies,
    export,
    growth,
    int8,
    latency,
    minutes,
    power_loss,
    recipe,
    training_memory,
)
from .commands.distillation import distill
from .commands.documentation import demo, readme
from .commands.field import faults, leaks, load, ranges, trouble
from .commands.fuzzing import fuzz
from .commands.photographs import photographs
from .commands.robustness import attack, landscape, robustness
from .commands.selection import accuracy, build, coresets, issues, learning, masks
from .harness.deadline import OutOfTimeError

__all__ = ["command"]


class _Benchmarks(click.Group):
    """Says in one line which package is not installed, or that the minutes are over and how to continue."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package.startswith("edgeprune"):
                raise  # a module of ours that is missing is a fault
            raise ConfigError(f"this benchmark needs {package}; pip install 'edgeprune[bench]'") from None
        except OutOfTimeError as error:
            click.echo(f"{str(error) or 'the minutes are over'}; run the same command again to go on")
            return None


@click.command("bench", cls=_Benchmarks, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure storage, time and accuracy against other codecs and loaders, on real images.

    Each command writes its result as a JSON file. Images are read from the folder that --data or
    $EDGEPRUNE_DATA names. A command whose help says "resumable" continues where it stopped when it is run
    again with the same options.

    \b
    Example:
      edgeprune bench storage --data data --only 32x32
      edgeprune bench time --data data --only decode
    """


for _command in (
    *(storage, time, accuracy_per_byte, distill, install, fleet, plots),
    *(training_memory, power_loss, minutes, recipe, copies, photographs, growth, latency, export, int8),
    *(trouble, faults, load, leaks, ranges, fuzz),
    *(robustness, landscape, attack),
    *(build, accuracy, coresets, issues, masks, learning),
    *(demo, readme),
):
    command.add_command(_command)
