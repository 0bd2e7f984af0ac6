"""Where the time of a step of training goes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from edgeprune_formats import ConfigError

from ..networks.shapes import smallest_batch
from ..task import Task
from .interfaces import TrainLoader
from .objectives.adversarial import Objective
from .objectives.losses import loss_of
from .placement import Placement, place
from .settings import TrainConfig
from .step import Learner

__all__ = ["PHASES", "Operator", "Profile", "profile"]

PHASES = ("wait for the batch", "to the device", "forward", "backward", "optimizer", "average")
"""What a step consists of, in order; the last with a moving average only."""

Batch = tuple[torch.Tensor, torch.Tensor]

_WARM_UP = 3
_RATE = 1e-4


@dataclass(frozen=True)
class Operator:
    """What one of torch's operators takes in a step.

    Attributes
    ----------
    name : str
        E.g. ``aten::native_batch_norm``.
    calls : float
        In a step.
    seconds : float
        In a step, without the operators that it calls; on a CUDA device, of its kernels.
    """

    name: str
    calls: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Mean times of a step, in seconds.

    Attributes
    ----------
    steps : int
        How many were measured.
    images : int
        In a batch.
    phases : dict of str to float
        By the names in `PHASES`.
    ready : float
        Of the step without a loader, on one batch again and again: the least it can be.
    decode : float
        That the loader takes for a batch with nothing beside it.
    operators : tuple of Operator
        Those that take the most, of the step without the loader.
    """

    steps: int
    images: int
    phases: dict[str, float]
    ready: float
    decode: float
    operators: tuple[Operator, ...]

    @property
    def step(self) -> float:
        """The seconds of a step."""
        return sum(self.phases.values())


def profile(
    loader: TrainLoader,
    config: TrainConfig,
    *,
    num_classes: int,
    image_shape: Sequence[int],
    task: Task | None = None,
    steps: int = 20,
    operators: int = 10,
) -> Profile:
    """Train some steps that nobody keeps, and measure them.

    On a CUDA device each phase waits for the one before, so that they add up to more than in training.

    Parameters
    ----------
    loader : TrainLoader
        Yields the training batches; is read for as many epochs as it takes.
    config : TrainConfig
        The settings.
    num_classes : int
        Labels are below this; of other targets, how many numbers the network gives.
    image_shape : sequence of int
        Channels, height and width of an image.
    task : Task, optional
        What is learned, see `edgeprune_runtime.training.train`. By default the class.
    steps : int
        To measure, after some that warm up.
    operators : int
        How many to list.

    Raises
    ------
    ConfigError
        If `steps` or `operators` is too small, the loader yields no batch, or an argument is wrong.
    """
    if steps < 1 or operators < 0:
        raise ConfigError(f"cannot measure {steps} steps and list {operators} operators")
    if not len(loader):
        raise ConfigError("the training set yields no batch; lower `batch_size`")
    least = smallest_batch(config.model, image_shape, config.stem, num_classes)
    batch = next(iter(loader))
    if len(batch[1]) < least:
        raise ConfigError("one image cannot be normalized alone; raise `batch_size`, or give more images")
    placement = place(config)
    task = task or Task()
    objective = Objective(loss=loss_of(task))
    learner = Learner(
        config,
        placement,
        num_classes,
        min(image_shape[1:]),
        objective=objective,
        channels=image_shape[0],
        task=task,
    )
    bench = _Bench(learner, placement)
    images, phases = bench.measure(_endless(loader, least), steps)
    ready = bench.measure(_again(batch), steps)[1]
    return Profile(
        steps=steps,
        images=images,
        phases=phases,
        ready=sum(ready.values()),
        decode=_decode_seconds(loader, steps),
        operators=bench.operators(placement.put(*batch), operators) if operators else (),
    )


class _Bench:
    """A network whose steps are measured, phase by phase."""

    def __init__(self, learner: Learner, placement: Placement) -> None:
        self._learner, self._placement = learner, placement
        self._steps = 0
        learner.train()

    def measure(self, batches: Iterator[Batch], steps: int) -> tuple[int, dict[str, float]]:
        """Return the images of a batch, and the mean seconds of each phase."""
        sums = dict.fromkeys(PHASES, 0.0)
        for _ in range(_WARM_UP):
            self._step(*self._placement.put(*next(batches)))
        self._synchronize()
        self._last = time.perf_counter()

        def lap(name: str) -> None:
            self._synchronize()
            now = time.perf_counter()
            sums[name] += now - self._last
            self._last = now

        self._learner.lap = lap
        try:
            for _ in range(steps):
                images, labels = next(batches)
                lap(PHASES[0])
                images, labels = self._placement.put(images, labels)
                lap(PHASES[1])
                self._step(images, labels)
        finally:
            self._learner.lap = lambda name: None
        return len(labels), {name: seconds / steps for name, seconds in sums.items() if seconds}

    def operators(self, batch: Batch, count: int) -> tuple[Operator, ...]:
        """Return the operators that take most of a step."""
        on_cuda = self._placement.device.type == "cuda"
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if on_cuda:
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as run:
            for _ in range(_WARM_UP):
                self._step(*batch)
            self._synchronize()
        found = [
            Operator(
                event.key,
                event.count / _WARM_UP,
                (event.self_device_time_total if on_cuda else event.self_cpu_time_total) / 1e6 / _WARM_UP,
            )
            for event in run.key_averages()
        ]
        return tuple(sorted(found, key=lambda operator: -operator.seconds)[:count])

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._learner.step(images, labels, _RATE, self._steps)
        self._steps += 1

    def _synchronize(self) -> None:
        if self._placement.device.type == "cuda":
            torch.cuda.synchronize(self._placement.device)


def _endless(loader: TrainLoader, least: int = 1) -> Iterator[Batch]:
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield from (batch for batch in loader if len(batch[1]) >= least)


def _again(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def _decode_seconds(loader: TrainLoader, steps: int) -> float:
    """Return the mean seconds between two batches that nobody uses."""
    batches = _endless(loader)
    next(batches)
    started = time.perf_counter()
    made = sum(1 for _ in itertools.islice(batches, steps))
    return (time.perf_counter() - started) / made
