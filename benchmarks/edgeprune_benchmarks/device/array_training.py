"""Training one epoch from images that lie in memory as they are, in a process of its own.

``python -m edgeprune_benchmarks.device.array_training NPZ COUNT float32|uint8 MODEL BATCH RUN``: the images
of an npz file, again and again up to COUNT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune_runtime.training import TrainConfig, train

from ..harness.pixel_loader import PixelLoader


class _Array:
    """Images in one tensor, float32 on [0, 1] or uint8."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._images, self.labels = images, labels
        self.shape: tuple[int, int, int] = tuple(images.shape[1:])  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batches: Iterable[tuple[NDArray[np.int64], Any]]) -> Iterator[torch.Tensor]:
        for rows, _ in batches:
            yield self._images[torch.from_numpy(rows)]


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
    loader = PixelLoader(_Array(images, labels), config.batch_size, None, seed=0, augment="none")
    train(loader, config, Path(run), num_classes=len(source.class_names), image_shape=source.shape)


if __name__ == "__main__":
    main(*sys.argv[1:])
