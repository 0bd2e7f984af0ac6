"""What a run takes its batches from, and whom it tells of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch

__all__ = ["Batches", "OnEvent", "TrainLoader"]

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
OnEvent = Callable[[dict[str, Any]], None]


class TrainLoader(Protocol):
    """What `train` takes its batches from, e.g. `edgeprune_runtime.PackLoader`.

    Iterating yields float32 images ``[n, C, H, W]``, normalized and augmented, and labels: int64 ``[n]``, or
    probabilities float32 ``[n, num_classes]``, of which the largest counts in the accuracy; or another
    target, as `edgeprune_formats.targets.Target` has it. It must not draw from torch's global random
    generator, whose state belongs to the network. What it leaves out because it cannot be read stands in its
    ``skipped``, if it has that attribute: `SkippedChunk` objects.
    """

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of the epoch that are left."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, counted from 0."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last batch yielded, as JSON can hold it.

        After an epoch's last batch it may be that of the next epoch's start.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position, after which the same batches follow as did then."""
        ...
