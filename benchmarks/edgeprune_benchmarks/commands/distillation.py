"""The command ``distill``."""

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
    PRECISION,
    SEEDS,
    budgets,
    count,
    number,
    passes,
    require_packages,
    result_name,
    runs,
)

__all__ = ["distill"]


@click.command(short_help="Test accuracy with a teacher's probabilities in the pack")
@DATA
@OUTPUT
@runs("runs/distill")
@MINUTES
@budgets(0.5, 0.25, 1.0)
@number("--psnr", 30, "PSNR of the packs, in dB.")
@config_options(TrainConfig, "distill", distill={"default": 0.7})
@MODEL
@passes(100_000)
@click.option("--teacher-model", default="resnet20", show_default=True, help="Network of the teacher.")
@count("--teacher-passes", 200_000, "Images that the teacher sees in training, repeats included.")
@BATCH_SIZE
@LEARNING_RATE
@SEEDS
@DEVICE
@PRECISION
@result_name("distill")
def distill(
    data: Path,
    output: Path,
    runs: Path,
    minutes: float | None,
    budgets: tuple[float, ...],
    psnr: float,
    distill: float,
    model: str,
    passes: int,
    teacher_model: str,
    teacher_passes: int,
    batch_size: int,
    seeds: int,
    name: str,
    **training: Any,
) -> None:
    """Compare labels, smoothed labels, a teacher's probabilities, and more images in a pack; resumable.

    All four ways of learning have the same budget of bytes. If the minutes are over, the result holds what
    is measured so far.

    \b
    Example:
      edgeprune bench distill --data data --minutes 25
      edgeprune bench distill --data data --budget 0.5 --seeds 1 --passes 50000
    """
    require_packages("torch")
    from ..codec.distillation import Settings, run
    from ..harness.images import all_lossless
    from ..selection.fixed_budget import Recipe

    source = f"npz:{all_lossless(data, runs / 'cifar10-lossless-8k.npz')}"

    def recipe(network: str, images: int) -> Recipe:
        return Recipe(network, max(1, images // batch_size), batch_size, **training)

    networks = recipe(model, passes), recipe(teacher_model, teacher_passes)
    run(Settings(source, *networks, psnr, distill, budgets, seeds, minutes), output, runs, name)
