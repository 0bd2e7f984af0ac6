"""Training from a pack against the same steps on batches that lie ready in memory, epoch by epoch in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from edgeprune import open_source
from edgeprune_formats import Pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training_config import Placement, place
from edgeprune_runtime.training_step import Learner

from ._packs import ImageSet, build
from ._record import save, spread
from .images import lossless

__all__ = ["measure", "run"]

MODELS = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")


def run(
    data: Path,
    output: Path,
    *,
    rounds: int,
    count: int | None,
    batch: int,
    device: str,
    models: Iterable[str] = MODELS,
) -> None:
    """Measure each network and save the result."""
    source = open_source(f"npz:{lossless(data)}")
    rows = np.arange(len(source))[:count]
    images = ImageSet("cifar10", source.read(rows), source.labels[rows])
    with tempfile.TemporaryDirectory() as folder:
        pack = build(images, Path(folder) / "pack.h5", codec="quantized")
        found = [measure(pack, model, rounds, batch, device) for model in models]
    results = {"threads": torch.get_num_threads(), "images": len(pack), "batch": batch, "rows": found}
    click.echo(save(output, "time-epoch", results))


def measure(pack: Pack, model: str, rounds: int, batch: int, device: str) -> dict[str, Any]:
    """Time epochs from the pack and from ready batches in turn; decoding is paid in each epoch.

    Returns
    -------
    dict
        Seconds of both, their ratio round by round, and how long the pack's epoch takes without training.
    """
    config = TrainConfig(model=model, batch_size=batch, device=device)
    placement = place(config)
    loader = _loader(pack, batch, placement)
    learner = Learner(config, placement, len(pack.header.class_names), pack.header.height)
    learner.model.train()
    ready = [(images.clone(), labels.clone()) for images, labels in loader]
    seconds: dict[str, list[float]] = {"pack": [], "ready": [], "decoding": []}
    for number in range(rounds + 1):
        # Which one begins changes, so that what a processor's temperature does falls on both.
        order = ("pack", "ready") if number % 2 else ("ready", "pack")
        for way in order:
            taken = _epoch(learner, loader if way == "pack" else ready, placement)
            if number:
                seconds[way].append(taken)
        decoding = _epoch(None, loader, placement)
        if number:
            seconds["decoding"].append(decoding)
    ratio = [one / other for one, other in zip(seconds["pack"], seconds["ready"], strict=True)]
    row: dict[str, Any] = {
        "model": model,
        "device": str(placement.device),
        "precision": placement.precision,
        "steps": len(ready),
        "seconds": {way: spread(found) for way, found in seconds.items()},
        "ratio_to_ready": spread(ratio),
    }
    click.echo(
        f"{model}: {row['seconds']['pack']['median']:.2f} s from the pack, "
        f"{row['seconds']['ready']['median']:.2f} s from ready ones, {row['ratio_to_ready']['median']:.3f}x"
    )
    return row


def _loader(pack: Pack, batch: int, placement: Placement) -> PackLoader:
    # A quarter of the coefficients fits, so that most chunks are read and decoded again in each epoch.
    return PackLoader(
        pack,
        batch,
        shuffle=True,
        backend="torch",
        device=placement.device,
        normalize=True,
        drop_last=True,
        cache_bytes=pack.header.memory_bytes * len(pack) // 4,
    )


def _epoch(learner: Learner | None, batches: Iterable[Any], placement: Placement) -> float:
    """Return the seconds of one pass, with a step on each batch if there is a learner."""
    started = time.perf_counter()
    for step, (images, labels) in enumerate(batches):
        if learner is not None:
            learner.step(*placement.put(images, labels), 0.01, step)
    if placement.device.type == "cuda":
        torch.cuda.synchronize(placement.device)
    return time.perf_counter() - started
