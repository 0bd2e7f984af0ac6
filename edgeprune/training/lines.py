"""What a training run says of itself before and after: a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgeprune_runtime.networks.models import has_small_stem
from edgeprune_runtime.networks.shapes import stem_cost
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training.progress.lines import metrics_text
from edgeprune_runtime.training.settings import TrainConfig

from ..text import bytes_text, count_text

if TYPE_CHECKING:
    from edgeprune_runtime.loading.order.replay import ReplayOrder

    from .setup import Setup

__all__ = ["replay_line", "result_line", "setting_line"]


def replay_line(order: ReplayOrder) -> str:
    """Return how batches mix old and new images, on one line."""
    return (
        f"replay: {order.old_in_batch} of {order.batch_size} images in a batch are of the {order.old:,} old "
        f"ones; an epoch is the {order.new:,} new ones once"
    )


def setting_line(setup: Setup) -> str:
    """Return what the run computes with, on one line."""
    config, placement = setup.config, setup.placement
    shape = setup.loader.pack.header.shape
    cost = stem_cost(config.model, shape)
    stem = "stem imagenet"
    if has_small_stem(config.stem, min(shape[1:])):
        stem = f"stem small, with {cost:.0f} times the multiplications of --stem imagenet"
    kept = setup.is_roomy and keep_freed_memory()
    parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
    ahead = "1 batch" if setup.memory.prefetch == 1 else f"{setup.memory.prefetch:,} batches"
    facts = [
        str(placement.device),
        count_text(torch.get_num_threads(), "thread"),
        f"{placement.precision}, channels_last",
        f"batches of {config.batch_size}{parts}, {count_text(len(setup.loader), 'step')} an epoch",
        *([_sizes_text(config)] if config.resolution_schedule else []),
        *([f"{config.distill:.0%} of the loss from the pack's teacher"] if config.distill else []),
        *([] if config.adversarial is None else [f"perturbed by {config.adversarial}"]),
        *([] if cost == 1 else [stem]),
        f"at most {bytes_text(setup.memory.limit)} for loaders, {ahead} ahead",
    ]
    return "; ".join(facts) + ("; freed memory is kept" if kept else "")


def _sizes_text(config: TrainConfig) -> str:
    rest = "then full" if config.resolutions.epochs < config.epochs else "and no epoch at full size"
    return f"sizes {config.resolutions}, {rest}"


def result_line(config: TrainConfig, metrics: dict[str, Any]) -> str:
    """Return what was trained, and how well, on one line."""
    if config.patience is None:
        trained = count_text(config.epochs, "epoch")
    else:
        trained = f"weights of epoch {metrics['epoch']}, the best"
    found = metrics_text(metrics, "test")
    tested = f", test {found}" if found else ""
    # A run that was finished by an earlier release does not say.
    count = metrics.get("skipped_images", 0)
    left_out = f"; {count_text(count, 'image')} left out as damaged (see edgeprune repair)" if count else ""
    return f"{config.model}, {trained}{tested}{left_out}"
