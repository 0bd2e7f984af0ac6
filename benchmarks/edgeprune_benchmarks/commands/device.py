"""The commands on training and the networks that come out of it."""

from __future__ import annotations

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
    SEEDS,
    count,
    number,
    quality,
    runs,
    seeds,
    training_minutes,
)

__all__ = [
    "copies",
    "export",
    "growth",
    "int8",
    "latency",
    "minutes",
    "power_loss",
    "recipe",
    "training_memory",
]

MODELS = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")
MANY_MODELS = click.option(
    "--model", "models", multiple=True, help="One network; may be repeated.  [default: three]"
)
RUNS = runs("runs/minutes")


@click.command("training-memory", short_help="Peak memory of training, from packs and from arrays")
@DATA
@OUTPUT
@click.option(
    "--megabytes",
    type=float,
    multiple=True,
    default=(5, 50, 500),
    show_default=True,
    help="Sizes of the packs, in megabytes; may be repeated.",
)
@MODEL
@click.option(
    "--batch-size",
    "batch",
    type=click.IntRange(min=2),
    default=128,
    show_default=True,
    help="Images in one training step.",
)
def training_memory(data: Path, output: Path, **options: Any) -> None:
    """Peak memory of training processes, from packs by size and --memory and from arrays in memory.

    \b
    Example:
      edgeprune bench training-memory --data data --megabytes 5
    """
    from ..device.training_memory import run

    run(data, output, **options)


@click.command("power-loss", short_help="Kill training at random moments, and resume it")
@DATA
@OUTPUT
@MODEL
@count("--kills", 20, "How often the run is killed.")
@config_options(TrainConfig, "epochs", epochs={"type": click.IntRange(min=1)})
def power_loss(data: Path, output: Path, **options: Any) -> None:
    """Kill training at random moments, resume it, and compare the weights to those of a run left alone.

    \b
    Example:
      edgeprune bench power-loss --data data --kills 20
    """
    from ..device.power_loss import Settings, run

    run(Settings(**options), data, output)


@click.command(short_help="Test accuracy after some minutes of training")
@DATA
@OUTPUT
@RUNS
@MANY_MODELS
@training_minutes(30.0)
@seeds(1)
@config_options(TrainConfig, "stem", "batch_size", batch_size={"type": click.IntRange(min=2)})
@LEARNING_RATE
@DEVICE
def minutes(data: Path, output: Path, runs: Path, models: tuple[str, ...], **options: Any) -> None:
    """Test accuracy after some minutes of training, from a 50% pack and from decoded pixels; resumable.

    \b
    Example:
      edgeprune bench minutes --data data --minutes 5 --model shufflenet_v2
      edgeprune bench minutes --data data --minutes 30 --model mobilenet_v2 --stem imagenet
    """
    from ..device.minutes import Settings, run

    run(Settings(models=models or MODELS, **options), data, output, runs)


@click.command(short_help="Test accuracy after minutes of a network's own defaults")
@DATA
@OUTPUT
@runs("runs/recipe")
@config_options(TrainConfig, "model", model={"default": "resnet9"})
@training_minutes(45.0)
@seeds(1)
@quality(90.0)
@DEVICE
@click.option("--measure", is_flag=True, help="Only settle how many steps the minutes allow.")
def recipe(data: Path, output: Path, runs: Path, measure: bool, **options: Any) -> None:
    """Test accuracy after some minutes of a network's own defaults, from a pack; resumable.

    How many steps the minutes allow is measured first, and kept: measure on a quiet machine.

    \b
    Example:
      edgeprune bench recipe --data data --minutes 45 --measure
      edgeprune bench recipe --data data --minutes 45
    """
    from ..device.recipe import Settings, run

    run(Settings(**options), data, output, runs, only_measure=measure)


@click.command(short_help="What JPEG copies of the images cost a network, same start")
@DATA
@OUTPUT
@runs("runs/copies")
@MINUTES
@config_options(TrainConfig, "model", model={"default": "resnet9"})
@count("--steps", 240, "Batches that each network is trained on.")
@seeds(3)
@quality(90.0)
@DEVICE
def copies(data: Path, output: Path, runs: Path, **options: Any) -> None:
    """Test accuracy from images in their exact pixels and from JPEG copies of them; resumable.

    Both from packs, with the same random weights, order of images and crops, and the network's own settings.
    The first layer of resnet9 is computed from the images, so it differs.

    \b
    Example:
      edgeprune bench copies --data data --minutes 60
    """
    from ..device.copies import Settings, run

    run(Settings(**options), data, output, runs)


@click.command(short_help="Milliseconds of inference, by torch and onnxruntime")
@DATA
@OUTPUT
@MANY_MODELS
@click.option("--size", "sizes", multiple=True, help="Size of the images, 32x32 or 224x224.  [default: both]")
@count("--threads", 2, "Threads of each runtime.")
@count("--repeats", 200, "Calls of each runtime, of which p50 and p99 are taken.", least=20)
@number("--seconds", 60.0, "Seconds that a row takes at most.")
def latency(
    data: Path, output: Path, models: tuple[str, ...], sizes: tuple[str, ...], **options: Any
) -> None:
    """p50 and p99 of inference: torch, onnxruntime, int8, and from coefficients; one image and 32.

    \b
    Example:
      edgeprune bench latency --data data --size 32x32
    """
    from ..device.latency import SIZES, Settings, run

    run(Settings(models=models or MODELS, sizes=sizes or SIZES, **options), data, output)


@click.command(short_help="What exported networks differ by from torch")
@OUTPUT
@RUNS
def export(output: Path, runs: Path) -> None:
    """Differences to torch and accuracy, in float32 and int8, of the networks that ``minutes`` trained.

    \b
    Example:
      edgeprune bench export --runs runs/minutes
    """
    from ..device.exports import run

    run(output, runs)


@click.command(short_help="Accuracy of int8 for onnxruntime and TensorRT")
@DATA
@OUTPUT
@runs("runs/int8", "the pack, runs and finished cells")
@click.option("--model", "models", multiple=True, help="One network; may be repeated.  [default: four]")
@count("--images", 8000, "Images that the networks are trained on.")
@count("--chosen", 1000, "Other training images, by which it is chosen what stays in float.")
@count("--tested", 5000, "Test images that accuracy is measured on.")
@count("--seed", 0, "Seed of the networks that are trained.", least=0)
@MINUTES
def int8(
    data: Path, output: Path, runs: Path, models: tuple[str, ...], minutes: float | None, **options: Any
) -> None:
    """Accuracy of int8 for onnxruntime and TensorRT, of networks that it trains first; resumable.

    Training takes about a quarter of an hour of one core.

    \b
    Example:
      edgeprune bench int8 --data data --model efficientnet_b0
      edgeprune bench int8 --data data --minutes 20
    """
    from ..device.int8 import RECIPES, Settings, run

    run(Settings(**options), models or tuple(RECIPES), data, output, runs, minutes)


@click.command(short_help="Accuracy on old and new classes as images are added")
@DATA
@OUTPUT
@runs("runs/growth", "packs, runs and finished cells")
@MINUTES
@MODEL
@count("--images", 800, "Images of each class, where classes are added.")
@count("--base", 1000, "Images that additions begin with.")
@count("--additions", 10, "How often images are added.")
@count("--added", 200, "Images in each addition.")
@config_options(
    TrainConfig, "epochs", epochs={"default": 12, "help": "Epochs of a network trained from the start."}
)
@BATCH_SIZE
@LEARNING_RATE
@number("--grown-lr", 0.02, "Peak of the learning rate of a network that goes on.")
@SEEDS
@DEVICE
def growth(data: Path, output: Path, runs: Path, minutes: float | None, seeds: int, **options: Any) -> None:
    """Accuracy on old and new classes as images are added, with replay and without; resumable.

    \b
    Example:
      edgeprune bench growth --data data
      edgeprune bench growth --data data --images 50 --base 100 --additions 2 --added 20 --epochs 2 --seeds 1
    """
    from ..device.growth import Settings, run

    run(Settings(**options), data, output, runs, seeds, minutes)
