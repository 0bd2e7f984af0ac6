"""Training one epoch from images that lie in memory as they are, in a process of its own.

``python -m edgeprune_benchmarks.device.array_training NPZ COUNT float32|uint8 MODEL BATCH RUN``: the images
of an npz file, again and again up to COUNT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune import open_source
from edgeprune_runtime.training import TrainConfig, train

__all__ = ["ArrayLoader"]


class ArrayLoader:
    """A `TrainLoader` over a tensor of images, float32 as they are or uint8 on [0, 255], shuffled."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> None:
        self._images, self._labels, self._batch_size = images, labels, batch_size
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return len(self._labels) // self._batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.from_numpy(np.random.default_rng(self._epoch).permutation(len(self._labels)))
        while self._batch < len(self):
            rows = order[self._batch * self._batch_size : (self._batch + 1) * self._batch_size]
            self._batch += 1
            images = self._images[rows]
            yield (images if images.is_floating_point() else images.float() / 255), self._labels[rows]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch, self._batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        self._epoch, self._batch = state["epoch"], state["batch"]


def main(file: str, count: str, kind: str, model: str, batch: str, run: str) -> None:
    """Fill the array and train."""
    source = open_source(f"npz:{file}")
    some = torch.from_numpy(source.read(np.arange(len(source))))
    images = torch.empty((int(count), *source.shape), dtype=getattr(torch, kind))
    for start in range(0, len(images), len(some)):
        part = some[: len(images) - start]
        images[start : start + len(part)] = part / 255 if kind == "float32" else part
    labels = torch.from_numpy(np.resize(source.labels, len(images)))
    config = TrainConfig(model=model, epochs=1, batch_size=int(batch), device="cpu")
    loader = ArrayLoader(images, labels, config.batch_size)
    train(loader, config, Path(run), num_classes=len(source.class_names), image_shape=source.shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
