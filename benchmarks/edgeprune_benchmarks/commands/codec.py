"""The commands ``storage``, ``time``, ``accuracy-per-byte``, ``install``, ``fleet`` and ``plots``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from edgeprune.options.fields import config_options
from edgeprune_runtime.training.settings import TrainConfig

from ..harness.options import (
    BATCH_SIZE,
    DATA,
    DEVICE,
    LEARNING_RATE,
    MINUTES,
    MODEL,
    OUTPUT,
    PICTURES,
    PRECISION,
    SEEDS,
    budgets,
    count,
    missing_packages,
    number,
    own_settings,
    passes,
    require_packages,
    result_name,
    runs,
)

__all__ = ["accuracy_per_byte", "fleet", "install", "plots", "storage", "time"]

SIZES = ("32x32", "224x224")
PARTS = (
    *("decode", "buffers", "encode", "loaders", "epoch", "start", "memory", "transform", "safety", "reading"),
)
# What each part needs beside what EdgePrune itself does. Decoding, starting and memory leave out what
# needs more.
NEEDS: dict[str, tuple[str, ...]] = {
    "storage": ("imagecodecs", "zstandard"),
    "decode": (),
    "buffers": ("torch",),
    "encode": (),
    "loaders": ("torch", "torchvision", "imagecodecs"),
    "epoch": ("torch",),
    "start": (),
    "memory": (),
    "transform": ("torch",),
    "safety": (),
    "reading": ("torch",),
    "accuracy-per-byte": ("torch", "imagecodecs"),
    "plots": ("matplotlib",),
}
# The options of ``time`` that its parts take.
TAKES = {
    "decode": ("rounds", "count"),
    "buffers": ("rounds", "count"),
    "encode": ("rounds", "count"),
    "loaders": ("rounds", "count", "batch"),
    "epoch": ("rounds", "count", "device"),
    "start": ("rounds",),
    "memory": ("megabytes", "cache_mb", "backend"),
    "transform": ("rounds", "count"),
    "safety": ("rounds",),
    "reading": ("rounds", "count"),
}


EPOCHS = {"type": click.IntRange(min=1), "default": 5, "help": "Epochs of each device in a round."}


def _require(*parts: str, packages: tuple[str, ...] = ()) -> None:
    require_packages(*packages, *(name for part in parts for name in NEEDS[part]))


@click.command(short_help="Bytes and PSNR of every codec, ours and others")
@DATA
@OUTPUT
@click.option("--only", type=click.Choice(SIZES), multiple=True, help="One size; may be repeated.")
@click.option(
    "--count",
    type=click.IntRange(min=2),
    help="Images, drawn from seed 0.  [default: 1000 at 32x32, all 250 at 224x224]",
)
def storage(data: Path, output: Path, only: tuple[str, ...], count: int | None) -> None:
    """Bytes, PSNR and SSIM of every codec, ours and the peers', and bytes at equal PSNR.

    \b
    Example:
      edgeprune bench storage --data data
      edgeprune bench storage --data data --only 32x32 --count 100 -o quick
    """
    _require("storage")
    from ..codec.storage import run

    run(data, output, sizes=only or SIZES, images=count)


@click.command("time", short_help="Images/s of coding, loading and reading; time to start")
@DATA
@OUTPUT
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="One part; may be repeated.")
@count("--rounds", 9, "Repetitions, in which all take turns.")
@count("--count", None, "Largest number of images of each size.", least=2)
@count("--batch", 256, "Images in a batch of the loaders.", least=2)
@DEVICE
@click.option(
    "--megabytes",
    type=float,
    multiple=True,
    default=(5, 50, 500),
    show_default=True,
    help="Sizes of packs whose peak memory is measured.",
)
@number("--cache-mb", 64, "Megabytes of `cache_bytes` where peak memory is measured.")
@click.option(
    "--memory-backend",
    "backend",
    default="scipy",
    show_default=True,
    help="Backend that decodes where peak memory is measured.",
)
def time(data: Path, output: Path, only: tuple[str, ...], **options: Any) -> None:
    """Images/s of coding, loading and reading, epochs, start, memory, transforms, and what safety costs.

    What needs a package that is not installed is left out, and named: decode, encode, start, memory and
    safety run without torch, of our own backends. A part that is asked for by --only and cannot run is an
    error.

    \b
    Example:
      edgeprune bench time --data data --only decode
      edgeprune bench time --data data --only start --only memory
    """
    needed = ("torch",) if options["backend"] == "torch" and (not only or "memory" in only) else ()
    _require(*only, packages=needed)
    for part in only or _parts_that_can_run():
        # Each part is a module, because some need packages that others do not.
        benchmark = importlib.import_module(f"..speed.{part}", __package__)
        benchmark.run(data, output, **{name: options[name] for name in TAKES[part]})


def _parts_that_can_run() -> list[str]:
    missing = {part: missing_packages(NEEDS[part]) for part in PARTS}
    for part, packages in missing.items():
        if packages:
            click.echo(f"{part}: left out, needs {', '.join(packages)}; pip install 'edgeprune[bench]'")
    return [part for part, packages in missing.items() if not packages]


@click.command("accuracy-per-byte", short_help="Test accuracy of what fits a budget, by codec")
@DATA
@OUTPUT
@runs("runs/accuracy-bytes")
@MINUTES
@click.option("--codec", "codecs", multiple=True, help="One codec; may be repeated.  [default: all]")
@click.option(
    "--psnr",
    "psnrs",
    type=float,
    multiple=True,
    default=(22, 25, 28, 31, 34, 37, 40),
    show_default=True,
    help="Qualities to choose from, in dB.",
)
@budgets(0.5, 0.125, 0.25, 1, 2)
@MODEL
@passes(250_000)
@BATCH_SIZE
@LEARNING_RATE
@config_options(TrainConfig, "weight_decay", "label_smoothing")
@SEEDS
@DEVICE
@PRECISION
@click.option("--copies", is_flag=True, help="Learn from JPEG copies of the images, of quality 75.")
@result_name(None, "accuracy-bytes, or accuracy-bytes-copies")
def accuracy_per_byte(
    data: Path,
    output: Path,
    runs: Path,
    name: str | None,
    codecs: tuple[str, ...],
    psnrs: tuple[float, ...],
    budgets: tuple[float, ...],
    seeds: int,
    passes: int,
    copies: bool,
    minutes: float | None,
    **recipe: Any,
) -> None:
    """Test accuracy of one network from the images that fit a budget, by codec; resumable.

    Each codec has the quality that is best for the budget, on training images held out. Settings that resnet9
    brings with it hold where no others are given.

    \b
    Example:
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --minutes 60
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --copies
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --model resnet9 --passes 60000 \
        --name accuracy-bytes-resnet9
    """
    _require("accuracy-per-byte")
    from ..codec.accuracy_bytes import Settings, run
    from ..codec.budgets import CODECS
    from ..harness.images import all_lossless
    from ..selection.fixed_budget import Recipe

    source = f"npz:{all_lossless(data, runs / 'cifar10-lossless-8k.npz')}"
    own = own_settings(recipe)
    trained = Recipe(iterations=passes // own["batch_size"], brought=True, **own)
    settings = Settings(
        source, trained, codecs or CODECS, tuple(sorted(psnrs)), budgets, seeds, copies, minutes
    )
    name = name or ("accuracy-bytes-copies" if copies else "accuracy-bytes")
    runs = runs / "copies" if copies else runs
    run(settings, output, runs, name)


@click.command(short_help="Bytes and seconds that each way of installing takes")
@OUTPUT
@click.option(
    "--extra", "extras", multiple=True, help="Install with it as well; may be repeated, and a,b is both."
)
@count("--repeats", 5, "Imports whose median is taken.")
def install(output: Path, extras: tuple[str, ...], repeats: int) -> None:
    """Install the checkout into new environments: bytes on disk, seconds to import, what works.

    Packages come from where pip takes them. With the files evicted from memory, imports are timed as after
    the start of the machine, but for Python's own files.

    \b
    Example:
      edgeprune bench install
      edgeprune bench install --extra torch --extra device,fast
    """
    from ..device.install import run

    run(output, extras=extras, repeats=repeats, checkout=Path())


@click.command(short_help="Federated averaging over simulated devices")
@DATA
@OUTPUT
@click.option("--python", default=sys.executable, help="A Python with edgeprune[torch], flwr and ray.")
@count("--rounds", 10, "Rounds of training and averaging.")
@config_options(TrainConfig, "epochs", epochs=EPOCHS)
@count("--devices", 4, "Simulated devices, which share the images.")
def fleet(data: Path, output: Path, **options: Any) -> None:
    """Federated averaging over simulated devices, by Flower's engine, against training in one place.

    \b
    Example:
      edgeprune bench fleet --data data --python flower/bin/python
    """
    from ..device.fleet import run

    run(data, output, **options)


@click.command(short_help="Draw the pictures of docs/images from the JSON results")
@OUTPUT
@PICTURES
def plots(output: Path, pictures: Path) -> None:
    """Draw the pictures of docs/images from the JSON results."""
    _require("plots")
    from ..documentation.plots import draw

    for path in draw(output, pictures):
        click.echo(path)
