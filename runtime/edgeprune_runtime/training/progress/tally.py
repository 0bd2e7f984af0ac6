"""The running sums of an epoch: loss, images and steps so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields

import torch

__all__ = ["Sums", "Tally"]


@dataclass
class Sums:
    """The sums of an epoch up to a step.

    Attributes
    ----------
    loss : float
        Sum of the cross entropy of all images, in nats.
    correct, images, steps : int
        Images classified right, images seen, and steps taken.
    seconds : float
        Time spent in the epoch's steps.
    """

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0

    def running(self) -> Tally:
        """Return a tally that goes on from here."""
        return Tally(**asdict(self))


@dataclass
class Tally(Sums):
    """Sums that go on; steps stay on the device until `drain`, so that none waits for another."""

    _pending: list[tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=list, repr=False)

    def add(self, loss: torch.Tensor, correct: torch.Tensor, images: int) -> None:
        """Note a step's mean loss, count of correct images (both 0-d tensors) and number of images."""
        self._pending.append((loss, correct, images))

    def drain(self) -> float | None:
        """Bring the noted steps into the sums; stop at a loss that is not finite and return it."""
        if not self._pending:
            return None
        losses = torch.stack([loss for loss, _, _ in self._pending]).tolist()
        corrects = torch.stack([correct for _, correct, _ in self._pending]).tolist()
        counts = [images for _, _, images in self._pending]
        self._pending.clear()
        for loss, correct, images in zip(losses, corrects, counts, strict=True):
            self.steps += 1
            if not math.isfinite(loss):
                return float(loss)
            self.loss += loss * images
            self.correct += correct
            self.images += images
        return None

    def sums(self) -> dict[str, float]:
        """Return the sums, named as the constructor's arguments."""
        return {one.name: getattr(self, one.name) for one in fields(Sums)}
