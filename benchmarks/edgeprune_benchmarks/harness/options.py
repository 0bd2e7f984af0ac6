"""Options that several benchmarks have."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeprune.options.fields import config_options
from edgeprune_runtime.training.defaults import defaults_of
from edgeprune_runtime.training.settings import TrainConfig

__all__ = [
    "BATCH_SIZE",
    "DATA",
    "DEVICE",
    "LEARNING_RATE",
    "MINUTES",
    "MODEL",
    "OUTPUT",
    "SEEDS",
    "missing_packages",
    "own_settings",
    "require_packages",
    "runs",
]

DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="EDGEPRUNE_DATA",
    required=True,
    help="Folder with cifar10-lossless-6k.npz, cifar10-jpeg.npz, imagenet-sample.zip and trashnet.zip.",
)
OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="benchmarks/results",
    show_default=True,
    help="Folder for the JSON results.",
)
MODEL = config_options(TrainConfig, "model", model={"default": "resnet8"})
BATCH_SIZE = config_options(TrainConfig, "batch_size", batch_size={"default": 64})
LEARNING_RATE = config_options(TrainConfig, "lr")
DEVICE = config_options(TrainConfig, "device")
SEEDS = click.option("--seeds", type=int, default=3, show_default=True, help="Networks for each row.")
MINUTES = click.option("--minutes", type=float, help="Stop after so long; the same command goes on.")


def own_settings(training: dict[str, Any]) -> dict[str, Any]:
    """Return options of training; those that the user has not given are as the network brings them."""
    context, own = click.get_current_context(), defaults_of(training["model"])
    default = click.core.ParameterSource.DEFAULT
    return {
        name: own.get(name, value) if context.get_parameter_source(name) is default else value
        for name, value in training.items()
    }


def require_packages(*names: str) -> None:
    """Raise ModuleNotFoundError at once, not after minutes, for a package that is not installed."""
    for name in missing_packages(names):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def missing_packages(names: tuple[str, ...]) -> list[str]:
    """Return which of some packages are not installed."""
    return [name for name in dict.fromkeys(names) if importlib.util.find_spec(name) is None]


def runs(default: str | None, text: str | None = None) -> Callable[[Any], Any]:
    """Return the option of the folder that is gone on from."""
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("--runs", type=kind, default=default, show_default=default is not None, help=text)
