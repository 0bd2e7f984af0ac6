"""``edgeprune train``: train a network from a pack."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.commands._sizes import parse_size
from edgeprune.text import bytes_text, count_text
from edgeprune_formats import ConfigError

if TYPE_CHECKING:
    from edgeprune.training.setup import Setup
    from edgeprune_runtime.training.loop import Report

__all__ = ["MODELS", "choose_threads", "command", "require_torch"]

MODELS = (
    "shufflenet_v2",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet8",
    "resnet20",
)
AUGMENTS = ("none", "crop", "flip", "crop+flip")
_AUTO_BATCH = 128


def _batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Return a number, or None for ``auto``."""
    if value == "auto":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor auto", ctx, param) from None


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ConfigError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command("train")
@click.argument(
    "packs",
    metavar="PACK...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--model", type=click.Choice(MODELS), default="mobilenet_v2", show_default=True)
@click.option("--test", metavar="PACK_OR_SOURCE", help="Test on this after each epoch.")
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option(
    "--batch-size",
    metavar="INTEGER|auto",
    callback=_batch_size,
    default="128",
    show_default=True,
    help="Images in a step; auto is 128 in as few parts as the free memory allows.",
)
@click.option(
    "--accumulate", type=int, default=1, show_default=True, help="Parts that a batch goes through in."
)
@click.option("--lr", type=float, default=0.05, show_default=True, help="Peak learning rate.")
@click.option("--weight-decay", type=float, default=5e-4, show_default=True)
@click.option("--ema", type=float, help="Decay of a moving average of the weights, e.g. 0.999.")
@click.option(
    "--augment",
    type=click.Choice(AUGMENTS),
    default="crop+flip",
    show_default=True,
    help="Random crop after reflect padding, random horizontal flip.",
)
@click.option(
    "--init",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Begin with these weights: a safetensors file of a run, or of torchvision's names.",
)
@click.option("--freeze", is_flag=True, help="Train the last layer alone.")
@click.option(
    "--adversarial",
    metavar="METHOD[:EPS]",
    help="Train on perturbed images: n-fgsm or pgd, within EPS/255 in Linf; 8/255 by default.",
)
@click.option(
    "--teacher",
    metavar="RUN",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Learn the answers of this run's network in place of the labels.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="bfloat16 is autocast; auto uses it where it pays.",
)
@click.option("--threads", type=click.IntRange(1), help="Of the CPU; by default all that there are.")
@click.option(
    "--memory", metavar="SIZE", callback=_size, help="What loaders and caches may hold, e.g. 300MB."
)
@click.option(
    "--checkpoint-minutes",
    type=float,
    default=5.0,
    show_default=True,
    help="Write a checkpoint after so long, besides the one after each epoch.",
)
@click.option("--checkpoint-steps", type=int, help="Write one after so many steps as well.")
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard as well.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder.")
def command(
    packs: tuple[Path, ...],
    output: Path,
    test: str | None,
    batch_size: int | None,
    augment: str,
    init: Path | None,
    teacher: Path | None,
    threads: int | None,
    memory: int | None,
    checkpoint_minutes: float,
    checkpoint_steps: int | None,
    tensorboard: bool,
    resume: bool,
    **options: Any,
) -> None:
    """Train a network from PACK, or from several of one image size and the same classes, mixed.

    The folder receives metrics.jsonl, checkpoints, and model.safetensors. A run that was killed goes on with
    --resume, to the same result. An epoch leaves out a last batch that is not full, other images each time,
    unless the whole pack is smaller than a batch.

    \b
    Example:
      edgeprune train photos.h5 --model mobilenet_v2 --test imagefolder:photos/test -o run
      edgeprune train photos.h5 --model mobilenet_v2 --test imagefolder:photos/test -o run --resume
      edgeprune train photos.h5 --adversarial n-fgsm --test imagefolder:photos/test -o robust
      edgeprune train photos.h5 --init imagenet.safetensors --freeze --memory 300MB --batch-size auto -o run
    """
    require_torch()
    from edgeprune.training.setup import set_up
    from edgeprune_runtime import open_packs
    from edgeprune_runtime.training import Cadence, TrainConfig

    if batch_size is None and options["accumulate"] != 1:
        raise ConfigError("--batch-size auto chooses --accumulate; give one of the two")
    cadence = Cadence(checkpoint_steps, checkpoint_minutes * 60)
    config = TrainConfig(batch_size=_AUTO_BATCH if batch_size is None else batch_size, **options)
    choose_threads(threads)
    setup = set_up(
        open_packs(packs),
        output,
        config,
        augment=augment,
        test=test,
        memory=memory,
        choose_batch=batch_size is None,
        resume=resume,
    )
    with ExitStack() as stack:
        report = _reports(setup, output, tensorboard, stack)
        metrics = setup.train(
            output, init=init, teacher=teacher, resume=resume, cadence=cadence, report=report
        )
    tested = "" if metrics["test_accuracy"] is None else f", test accuracy {metrics['test_accuracy']:.2%}"
    click.echo(
        f"{output / 'model.safetensors'}: {config.model}, {count_text(config.epochs, 'epoch')}{tested}"
    )


def require_torch() -> None:
    """Raise `ConfigError` where torch is not installed, or cannot be loaded."""
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("training needs torch; pip install 'edgeprune[torch]'")
    try:
        importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(f"torch cannot be loaded ({error}); reinstall it, or allow more memory") from error


def choose_threads(threads: int | None) -> None:
    """Set how many threads torch computes with, before it starts them; None is as many as there may be."""
    import torch

    from edgeprune_runtime.system.machine import cpu_quota, save_address_space

    save_address_space()
    # OMP_NUM_THREADS, which torch has read, may ask for fewer; a container's quota is not known to it.
    torch.set_num_threads(threads or min(torch.get_num_threads(), cpu_quota()))


def _setting(setup: Setup) -> str:
    """Return what the run computes with, on one line."""
    import torch

    from edgeprune_runtime.system.machine import keep_freed_memory

    config, placement = setup.config, setup.placement
    kept = setup.is_roomy and keep_freed_memory()
    parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
    facts = [
        str(placement.device),
        count_text(torch.get_num_threads(), "thread"),
        f"{placement.precision}, channels_last",
        f"batches of {config.batch_size}{parts}",
        *([] if config.adversarial is None else [f"perturbed by {config.adversarial}"]),
        f"{bytes_text(setup.memory.limit)} for loaders, {setup.memory.prefetch} batches ahead",
    ]
    return "; ".join(facts) + ("; freed memory is kept" if kept else "")


def _reports(setup: Setup, output: Path, tensorboard: bool, stack: ExitStack) -> Report:
    from edgeprune.training.reports import TensorBoardReport, TerminalReport

    terminal = TerminalReport(setup.config.epochs, _setting(setup))
    if not tensorboard:
        return terminal
    curves = stack.enter_context(TensorBoardReport(output))

    def report(event: dict[str, Any]) -> None:
        curves(event)
        terminal(event)

    return report
