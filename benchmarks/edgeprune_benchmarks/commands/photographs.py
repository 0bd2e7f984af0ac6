"""The command ``photographs``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeprune.options.fields import config_options
from edgeprune_runtime.decode.augmentation import LOADER_AUGMENTS
from edgeprune_runtime.training.settings import TrainConfig

from ..harness.options import (
    DATA,
    LEARNING_RATE,
    MINUTES,
    OUTPUT,
    SEEDS,
    count,
    number,
    quality,
    require_packages,
    result_name,
    runs,
)
from ..photographs.tables import FOLDER, PACK, PRETRAINED, SCRATCH, SHORT

__all__ = ["photographs"]

_MODELS, _STARTS, _SIDES = ("shufflenet_v2", "mobilenet_v2"), (SCRATCH, PRETRAINED), (FOLDER, PACK, SHORT)

_SCHEDULE = {
    "help": "Also train from the pack with this schedule of smaller images.",
    "show_default": False,
}
_SIDE_HELP = (
    "What to train from: folder (the JPEG files), pack, or short (the pack, a third of the epochs); may be "
    "repeated."
)


def _some(flag: str, name: str, choices: tuple[str, ...], help_text: str) -> Callable[[Any], Any]:
    kind = click.Choice(choices)
    return click.option(
        flag, name, type=kind, multiple=True, default=choices, show_default=True, help=help_text
    )


@click.command(short_help="Minutes to reach an accuracy, from JPEG and from packs")
@DATA
@OUTPUT
@runs("runs/photographs", "images, packs, first weights and finished measurements")
@MINUTES
@_some("--model", "models", _MODELS, "A network to train; may be repeated.")
@_some("--start", "starts", _STARTS, "Initial weights: random, or trained on CIFAR-10; may be repeated.")
@_some("--side", "sides", _SIDES, _SIDE_HELP)
@config_options(TrainConfig, "resolution_schedule", resolution_schedule=_SCHEDULE)
@count("--schedule-epochs", None, "Epochs of the run with a schedule.  [default: half of --epochs]")
@number("--schedule-lr", None, "Learning rate of the run with a schedule.  [default: --lr]")
@number("--schedule-ema", None, "Decay of averaged weights, with a schedule.  [default: --ema]")
@SEEDS
@count("--size", 96, "Side of the images in pixels.", least=64)
@count(
    "--epochs", None, "Epochs; --side short has a third.  [default: about a quarter of an hour of one core]"
)
@config_options(TrainConfig, "batch_size", batch_size={"default": 32})
@count("--threads", 1, "Threads, and cores, of each training process.")
@quality(75.0)
@click.option(
    "--augment",
    type=click.Choice(LOADER_AUGMENTS),
    default="crop+flip",
    show_default=True,
    help="How images of the pack are augmented.",
)
@LEARNING_RATE
@config_options(
    TrainConfig,
    "ema",
    "label_smoothing",
    ema={"default": 0.99, "show_default": True, "help": "Decay of a moving average of the weights."},
    label_smoothing={"default": 0.1},
)
@click.option(
    "--peer-lr",
    "peer_lrs",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=(1.0,),
    show_default=True,
    help="Multiplies the learning rate of torchvision's recipe; may be repeated, for a run each.",
)
@count("--pretrain-steps", 1000, "Training steps on CIFAR-10, with --start pretrained.")
@click.option("--held-out", is_flag=True, help="Test on a fifth of the training images, to choose settings.")
@result_name("photographs")
def photographs(
    data: Path,
    output: Path,
    runs: Path,
    minutes: float | None,
    models: tuple[str, ...],
    starts: tuple[str, ...],
    sides: tuple[str, ...],
    peer_lrs: tuple[float, ...],
    resolution_schedule: str | None,
    schedule_epochs: int | None,
    schedule_lr: float | None,
    schedule_ema: float | None,
    seeds: int,
    name: str,
    **options: Any,
) -> None:
    """Measure the minutes of training to the accuracy of torchvision's recipe on JPEG files; resumable.

    Networks are trained from JPEG files by this recipe, and from a pack. A network whose training was stopped
    starts again from the beginning, because its minutes must be those of one process. The result is written
    after each network.

    \b
    Example:
      edgeprune bench photographs --data data --resolution-schedule 48:4,72:2 --minutes 110
      edgeprune bench photographs --data data --resolution-schedule 48:10,72:6 --schedule-epochs 18
      edgeprune bench photographs --data data --held-out --name held-out --model shufflenet_v2 --seeds 1
    """
    require_packages("torchvision")
    from ..photographs.run import Settings, Wanted, run

    if resolution_schedule is None and any((schedule_epochs, schedule_lr, schedule_ema)):
        raise click.UsageError(
            "--schedule-epochs, --schedule-lr and --schedule-ema need --resolution-schedule",
            click.get_current_context(),
        )
    own = {"epochs": schedule_epochs, "lr": schedule_lr, "ema": schedule_ema}
    wanted = Wanted(models, starts, sides, peer_lrs, resolution_schedule, own, seeds)
    run(Settings(**options), wanted, data, output, runs, name, minutes)
