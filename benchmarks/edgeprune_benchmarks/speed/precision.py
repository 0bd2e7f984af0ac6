"""A training step in bfloat16 against one in float32, in turn: what ``--precision auto`` should stand for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch

from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training import TrainConfig
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.step import Learner

from ..harness.results import save, spread

__all__ = ["measure", "run"]

# Side of the images, and images a batch.
SIZES = ((32, 128), (32, 16), (224, 16))
MODELS = ("resnet8", "resnet20", "resnet9", "resnet18", "shufflenet_v2", "mobilenet_v2", "efficientnet_b0")
STEPS = 3


def run(data: Path, output: Path, *, rounds: int, device: str, models: Iterable[str] = MODELS) -> None:
    """Measure each network at each size and save the result; `data` is not needed, images are noise."""
    # As edgeprune train does.
    keep_freed_memory()
    rows = [measure(model, *size, rounds, device) for model in models for size in SIZES]
    click.echo(save(output, "time-precision", {"threads": torch.get_num_threads(), "rows": rows}))


def measure(model: str, side: int, batch: int, rounds: int, device: str) -> dict[str, Any]:
    """Time steps of one network in both precisions, round by round in turn.

    Returns
    -------
    dict
        Seconds of a step in each, ratios of bfloat16 to float32 round by round, and what ``"auto"`` is here.
    """
    config = TrainConfig(model=model, batch_size=batch, device=device)
    images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % 10
    learners = {}
    for precision in ("float32", "bfloat16"):
        placement = place(TrainConfig(model=model, batch_size=batch, device=device, precision=precision))
        learners[precision] = placement, Learner(config, placement, 10, side)
        learners[precision][1].train()
    dtypes = {name: _dtype_of(*one, images) for name, one in learners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in learners}
    for number in range(rounds + 1):
        for name in (*learners,) if number % 2 else (*learners,)[::-1]:
            placement, learner = learners[name]
            started = time.perf_counter()
            for step in range(STEPS):
                learner.step(*placement.put(images, labels), 0.01, step)
            if placement.device.type == "cuda":
                torch.cuda.synchronize(placement.device)
            if number:
                seconds[name].append((time.perf_counter() - started) / STEPS)
    pairs = zip(seconds["bfloat16"], seconds["float32"], strict=True)
    ratio = spread([one / other for one, other in pairs])
    auto = place(config)
    click.echo(f"{model}, {side}x{side}: bfloat16 takes {ratio['median']:.2f}x; auto is {auto.precision}")
    return {
        "model": model,
        "size": f"{side}x{side}",
        "batch": batch,
        "device": str(auto.device),
        "auto": auto.precision,
        "dtypes": dtypes,
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "ratio": ratio,
    }


def _dtype_of(placement: Placement, learner: Learner, images: torch.Tensor) -> str:
    """Return the type in which the network gives its outputs."""
    with torch.no_grad(), placement.autocast():
        return str(learner.model(images[:2].to(placement.device)).dtype)
