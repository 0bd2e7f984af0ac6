"""Options that several benchmarks have."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeprune.options.fields import config_options
from edgeprune.options.given import is_given
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
    "PICTURES",
    "PRECISION",
    "SEEDS",
    "budgets",
    "count",
    "missing_packages",
    "number",
    "own_settings",
    "passes",
    "quality",
    "require_packages",
    "result_name",
    "runs",
    "seeds",
    "training_minutes",
]

Decorator = Callable[[Any], Any]

DATA = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="EDGEPRUNE_DATA",
    required=True,
    help="Folder of cifar10-lossless-6k.npz, cifar10-lossless-3k-more.npz, cifar10-jpeg.npz, "
    "imagenet-sample.zip and trashnet.zip; each command needs only some of them.",
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
PRECISION = config_options(TrainConfig, "precision", precision={"default": "float32"})
MINUTES = click.option(
    "--minutes", type=float, help="Stop after this many minutes; run the same command again to go on."
)
PICTURES = click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    default="docs/images",
    show_default=True,
    help="Folder for the pictures.",
)


def number(flag: str, default: float | None, text: str) -> Decorator:
    """Return an option that takes a real number."""
    return click.option(flag, type=float, default=default, show_default=True, help=text)


def count(flag: str, default: int | None, text: str, least: int = 1) -> Decorator:
    """Return an option that takes an integer from `least` on."""
    return click.option(flag, type=click.IntRange(min=least), default=default, show_default=True, help=text)


def seeds(default: int | None, of_none: str = "") -> Decorator:
    """Return the option of how often each row is trained; `of_none` tells what None stands for."""
    text = "Networks to train for each row, each with another seed."
    return count("--seeds", default, f"{text}  [default: {of_none}]" if of_none else text)


SEEDS = seeds(3)


def passes(default: int) -> Decorator:
    """Return the option of how long networks are trained, whatever they are trained from."""
    return count("--passes", default, "Images that a network sees in training, repeats included.")


def quality(default: float) -> Decorator:
    """Return the option of the pack's quality."""
    return number("--quality", default, "Quality of the pack, from 1 to 100.")


def training_minutes(default: float) -> Decorator:
    """Return the option of how long each network is trained."""
    return number("--minutes", default, "Minutes of training for each network.")


def result_name(default: str | None, of_none: str = "") -> Decorator:
    """Return the option of the result's name; `of_none` tells what None stands for."""
    text = "Name of the JSON result."
    text = f"{text}  [default: {of_none}]" if of_none else text
    return click.option("--name", default=default, show_default=True, help=text)


def budgets(*default: float) -> Decorator:
    """Return the option of the bytes that images may take."""
    return click.option(
        "--budget",
        "budgets",
        type=float,
        multiple=True,
        default=default,
        show_default=True,
        help="Megabytes that the images may take; may be repeated, and is measured in this order.",
    )


def own_settings(training: dict[str, Any]) -> dict[str, Any]:
    """Return options of training; those that the user has not given are as the network brings them."""
    own = defaults_of(training["model"])
    return {name: value if is_given(name) else own.get(name, value) for name, value in training.items()}


def require_packages(*names: str) -> None:
    """Raise ModuleNotFoundError at once, not after minutes, for a package that is not installed."""
    for name in missing_packages(names):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def missing_packages(names: tuple[str, ...]) -> list[str]:
    """Return which of some packages are not installed."""
    return [name for name in dict.fromkeys(names) if importlib.util.find_spec(name) is None]


def runs(default: str | None, holds: str = "runs") -> Decorator:
    """Return the option of the folder that is gone on from; None stands for one of the result's name."""
    text = f"Folder of {holds}, from which the command resumes."
    return click.option(
        "--runs",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        help=text if default else f"{text}  [default: runs/ and the name of the result]",
    )
