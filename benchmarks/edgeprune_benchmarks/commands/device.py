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
    "--model", "models", multiple=True, help=f"One network; may be repeated.  [default: {', '.join(MODELS)}]"
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
    """Measure peak memory of training from packs, with and without --memory, and from arrays in memory.

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
    """Kill training at random moments, resume it, and compare the weights with an uninterrupted run.

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
    """Compare training for some minutes from a pack with half of the components and from pixels; resumable.

    \b
    Example:
      edgeprune bench minutes --data data --minutes 5 --model shufflenet_v2
      edgeprune bench minutes --data data --minutes 30 --model mobilenet_v2 --stem imagenet
    """
    from ..device.minutes import Settings, run

    run(Settings(models=models or MODELS, **options), data, output, runs)


@click.command(short_help="Test accuracy with a network's own defaults")
@DATA
@OUTPUT
@runs("runs/recipe")
@config_options(TrainConfig, "model", model={"default": "resnet9"})
@training_minutes(45.0)
@seeds(1)
@quality(90.0)
@DEVICE
@click.option("--measure", is_flag=True, help="Only measure how many steps fit in the minutes.")
def recipe(data: Path, output: Path, runs: Path, measure: bool, **options: Any) -> None:
    """Train a network with its own default settings from a pack for some minutes, and test it; resumable.

    The number of steps that fit in the minutes is measured first, and saved. Nothing else should run then.

    \b
    Example:
      edgeprune bench recipe --data data --minutes 45 --measure
      edgeprune bench recipe --data data --minutes 45
    """
    from ..device.recipe import Settings, run

    run(Settings(**options), data, output, runs, only_measure=measure)


@click.command(short_help="Test accuracy from exact pixels and from JPEG copies")
@DATA
@OUTPUT
@runs("runs/copies")
@MINUTES
@config_options(TrainConfig, "model", model={"default": "resnet9"})
@count("--steps", 240, "Training steps of each network.")
@seeds(3)
@quality(90.0)
@DEVICE
def copies(data: Path, output: Path, runs: Path, **options: Any) -> None:
    """Compare test accuracy after training on exact pixels and on JPEG copies of them; resumable.

    Both kinds are read from packs. The trainings have the same random weights, order of images and crops, and
    the network's own default settings. Only the first layer of resnet9 differs: it is computed from images.

    \b
    Example:
      edgeprune bench copies --data data --minutes 60
    """
    from ..device.copies import Settings, run

    run(Settings(**options), data, output, runs)


@click.command(short_help="Latency of inference, with torch and onnxruntime")
@DATA
@OUTPUT
@MANY_MODELS
@click.option("--size", "sizes", multiple=True, help="Size of the images, 32x32 or 224x224.  [default: both]")
@count("--threads", 2, "Threads of each runtime.")
@count("--repeats", 200, "Timed calls of each runtime.", least=20)
@number("--seconds", 60.0, "Maximum seconds for each row.")
def latency(
    data: Path, output: Path, models: tuple[str, ...], sizes: tuple[str, ...], **options: Any
) -> None:
    """Measure the latency (p50 and p99) of torch and of onnxruntime, for 1 and for 32 images.

    onnxruntime runs each network in float32, in int8, and with the decoder of the pack in the graph.

    \b
    Example:
      edgeprune bench latency --data data --size 32x32
    """
    from ..device.latency import SIZES, Settings, run

    run(Settings(models=models or MODELS, sizes=sizes or SIZES, **options), data, output)


@click.command(short_help="Accuracy of exported networks, and difference to torch")
@OUTPUT
@RUNS
def export(output: Path, runs: Path) -> None:
    """Export the networks that `bench minutes` trained; measure accuracy and difference to torch.

    \b
    Example:
      edgeprune bench export --runs runs/minutes
    """
    from ..device.exports import run

    run(output, runs)


@click.command(short_help="Accuracy of int8 for onnxruntime and TensorRT")
@DATA
@OUTPUT
@runs("runs/int8", "the pack, runs and finished measurements")
@click.option("--model", "models", multiple=True, help="One network; may be repeated.  [default: four]")
@count("--images", 8000, "Images that the networks are trained on.")
@count("--chosen", 1000, "Held-out training images, on which int8 is compared with float32.")
@count("--tested", 5000, "Number of test images to measure on.")
@count("--seed", 0, "Seed of the training.", least=0)
@MINUTES
def int8(
    data: Path, output: Path, runs: Path, models: tuple[str, ...], minutes: float | None, **options: Any
) -> None:
    """Train networks, and measure the accuracy of their int8 exports; resumable.

    Training all four networks takes about 40 minutes of one core.

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
@runs("runs/growth", "packs, runs and finished measurements")
@MINUTES
@MODEL
@count("--images", 800, "Images of each class, in the test with new classes.")
@count("--base", 1000, "Images of the first pack, in the test with additions.")
@count("--additions", 10, "How often images are added.")
@count("--added", 200, "Images in each addition.")
@config_options(
    TrainConfig, "epochs", epochs={"default": 12, "help": "Epochs of a network trained from the start."}
)
@BATCH_SIZE
@LEARNING_RATE
@number("--grown-lr", 0.02, "Peak of the learning rate of a network that is trained further.")
@SEEDS
@DEVICE
def growth(data: Path, output: Path, runs: Path, minutes: float | None, seeds: int, **options: Any) -> None:
    """Measure accuracy on old and new classes as images are added, with and without replay; resumable.

    \b
    Example:
      edgeprune bench growth --data data
      edgeprune bench growth --data data --images 50 --base 100 --additions 2 --added 20 --epochs 2 --seeds 1
    """
    from ..device.growth import Settings, run

    run(Settings(**options), data, output, runs, seeds, minutes)
