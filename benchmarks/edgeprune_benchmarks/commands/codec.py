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
    *("decode", "buffers", "encode", "loaders", "epoch", "precision", "start", "memory", "transform"),
    *("safety", "reading"),
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
    "precision": ("torch",),
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
    "precision": ("rounds", "device"),
    "start": ("rounds",),
    "memory": ("megabytes", "cache_mb", "backend"),
    "transform": ("rounds", "count"),
    "safety": ("rounds",),
    "reading": ("rounds", "count"),
}


EPOCHS = {"type": click.IntRange(min=1), "default": 5, "help": "Epochs of each device in a round."}


def _require(*parts: str, packages: tuple[str, ...] = ()) -> None:
    require_packages(*packages, *(name for part in parts for name in NEEDS[part]))


@click.command(short_help="Bytes and PSNR of our codecs and of others")
@DATA
@OUTPUT
@click.option("--only", type=click.Choice(SIZES), multiple=True, help="One size; may be repeated.")
@click.option(
    "--count",
    type=click.IntRange(min=2),
    help="Number of images, drawn with seed 0.  [default: 1000 at 32x32, all 250 at 224x224]",
)
def storage(data: Path, output: Path, only: tuple[str, ...], count: int | None) -> None:
    """Measure bytes, PSNR and SSIM of our codecs, JPEG, WebP, AVIF and JPEG XL, and bytes at equal PSNR.

    \b
    Example:
      edgeprune bench storage --data data
      edgeprune bench storage --data data --only 32x32 --count 100 -o quick
    """
    _require("storage")
    from ..codec.storage import run

    run(data, output, sizes=only or SIZES, images=count)


@click.command("time", short_help="Speed of encoding, decoding and loading; start, memory")
@DATA
@OUTPUT
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="One part; may be repeated.")
@count("--rounds", 9, "Repetitions; in each of them everything is timed once.")
@count("--count", None, "Maximum number of images of each size.", least=2)
@count("--batch", 256, "Batch size of the loaders.", least=2)
@DEVICE
@click.option(
    "--megabytes",
    type=float,
    multiple=True,
    default=(5, 50, 500),
    show_default=True,
    help="Sizes of the packs in the part memory; may be repeated.",
)
@number("--cache-mb", 64, "Bound on coefficients in memory (cache_bytes) in the part memory, in megabytes.")
@click.option(
    "--memory-backend",
    "backend",
    default="scipy",
    show_default=True,
    help="Decoding backend in the part memory.",
)
def time(data: Path, output: Path, only: tuple[str, ...], **options: Any) -> None:
    """Measure the speed of encoding, decoding, loading and training, start, memory, and the cost of checks.

    \b
    Parts:
      decode     from packs and JPEG files to normalized batches
      buffers    batches in fresh and in reused memory
      encode     from pixels to packs, WebP and AVIF
      loaders    PackLoader and other data loaders
      epoch      training from packs, ready batches and JPEG files
      precision  training steps in float32 and in bfloat16
      start      import, and time to the first batch
      memory     peak memory of loading, by size of the pack
      transform  DCT of whole data sets
      safety     checks of structure, checksums and signatures
      reading    photographs for scoring, decoded each time or once

    Parts whose packages are not installed are left out, with a message. Without torch, the parts decode,
    encode, start, memory and safety still run, with the backends that do not need it. If --only names a part
    that cannot run, that is an error.

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
            click.echo(
                f"{part}: left out, because it needs {', '.join(packages)}; pip install 'edgeprune[bench]'"
            )
    return [part for part, packages in missing.items() if not packages]


@click.command("accuracy-per-byte", short_help="Test accuracy from equally many bytes, by codec")
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
    help="PSNR of the qualities to choose from, in dB; may be repeated.",
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
@click.option("--copies", is_flag=True, help="Train on JPEG copies of quality 75 in place of exact pixels.")
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
    """Train a network on as many images as fit a number of bytes, for each codec; resumable.

    For each codec and budget, the quality that gives the best accuracy on held-out training images is chosen.
    resnet9 has its own defaults for training options that are not given.

    \b
    Example:
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --minutes 60
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --copies
      edgeprune bench accuracy-per-byte --data data --budget 0.5 --model resnet9 --passes 60000 \\
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


@click.command(short_help="Disk space and import time of each way to install")
@OUTPUT
@click.option(
    "--extra",
    "extras",
    multiple=True,
    help="Also install with this extra; may be repeated. a,b installs both at once.",
)
@count("--repeats", 5, "Timed imports; the median is reported.")
def install(output: Path, extras: tuple[str, ...], repeats: int) -> None:
    """Install the checkout into new environments; measure disk space and import time, and try commands.

    Packages come from the index that pip is configured for. Imports are timed with the files of the packages
    in the page cache, and after removing them from it, as after a start of the machine.

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
@click.option(
    "--python", default=sys.executable, help="Python interpreter with edgeprune[torch], flwr and ray."
)
@count("--rounds", 10, "Rounds of training and averaging.")
@config_options(TrainConfig, "epochs", epochs=EPOCHS)
@count("--devices", 4, "Simulated devices; the images are divided among them.")
def fleet(data: Path, output: Path, **options: Any) -> None:
    """Compare training in one place to federated averaging over simulated devices, by Flower.

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
