"""A network trained from a pack, by the settings that the pages recommend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.training.evaluation import TestBatches, open_test
from edgeprune.training.setup import set_up
from edgeprune_formats import open_pack
from edgeprune_runtime.system.machine import keep_freed_memory
from edgeprune_runtime.training import TrainConfig

from .clock import Clock

__all__ = ["train_from_pack"]

Row = dict[str, Any]


class _Untimed(TestBatches):
    """Batches to test on, from the first to the last of which no time is counted."""

    def __init__(self, batches: TestBatches, clock: Clock) -> None:
        self._batches, self._clock = batches, clock

    def __iter__(self) -> Iterator[Any]:
        with self._clock.stopped():
            yield from self._batches


def train_from_pack(task: Row, clock: Clock) -> Row:
    """Train as `task` says, and return what `edgeprune_benchmarks.photographs.cell` lists."""
    pack, folder = open_pack(task["pack"]), Path(task["folder"])
    config = TrainConfig(
        model=task["model"],
        epochs=task["epochs"],
        batch_size=task["batch_size"],
        seed=task["seed"],
        device="cpu",
        **task["training"],
    )
    setup = set_up(pack, folder, config, augment=task["augment"])
    if setup.is_roomy:  # as the command train
        keep_freed_memory()
    with clock.stopped():
        test = _Untimed(open_test(f"imagefolder:{task['images']}", pack.header), clock)
    curve: list[list[float]] = []
    startup: list[float] = []

    def watch(event: Row) -> None:
        if event["event"] == "start":
            startup.append(clock.minutes)
        elif event["event"] == "epoch":
            curve.append([clock.minutes, event["test_accuracy"]])

    init = None if task["init"] is None else Path(task["init"])
    replace(setup, test=test).train(folder, init=init, report=watch)
    steps = task["epochs"] * len(setup.loader)
    return {
        "curve": curve,
        "steps": steps,
        "images_seen": steps * task["batch_size"],
        "startup_minutes": startup[0],
        "precision": setup.placement.precision,
    }
