"""Weights to begin with: of a network trained on CIFAR-10, enlarged to the size of the photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from edgeprune import open_source
from edgeprune.training.reports import TerminalReport
from edgeprune.work.image_store import ImageStore
from edgeprune_runtime.training import TrainConfig, TrainLoader

from ..harness.cells import train_steps
from ..harness.deadline import Deadline
from ..harness.images import decoded_cifar10
from ..harness.pixel_loader import PixelLoader

__all__ = ["pretrain"]

BATCH_SIZE, CLASSES = 64, 10
# Of the images in CIFAR-10's training set.
_STATISTICS = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)


class _Enlarged:
    """Batches of a `TrainLoader`, bilinearly scaled to another side."""

    def __init__(self, loader: TrainLoader, size: int) -> None:
        self._loader, self._size = loader, size
        self.set_epoch, self.state_dict = loader.set_epoch, loader.state_dict
        self.load_state_dict = loader.load_state_dict

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in self._loader:
            yield interpolate(images, size=(self._size, self._size), mode="bilinear"), labels


def pretrain(model: str, size: int, steps: int, data: Path, runs: Path, deadline: Deadline) -> Path:
    """Train so many steps, or go on with that, and return the folder of the run; all seeds begin with it.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    folder = runs / f"cifar10-{model}-{size}-{steps}"
    if (folder / "model.safetensors").exists():
        return folder
    source = open_source(f"npz:{decoded_cifar10(data, runs / 'cifar10-jpeg.npz')}")
    store = ImageStore(source, np.arange(len(source)), torch.device("cpu"))
    loader = _Enlarged(PixelLoader(store, BATCH_SIZE, _STATISTICS, seed=0), size)
    config = TrainConfig(model=model, epochs=1, batch_size=BATCH_SIZE, device="cpu")
    told = TerminalReport(1, f"{model} on CIFAR-10 at {size} pixels, {steps:,} steps")
    facts: dict[str, Any] = {"mean": _STATISTICS[0], "std": _STATISTICS[1]}
    with deadline.stopping():
        train_steps(
            loader,
            steps,
            config,
            folder,
            num_classes=CLASSES,
            image_shape=(3, size, size),
            provenance=facts,
            on_event=deadline.watched(told),
        )
    return folder
