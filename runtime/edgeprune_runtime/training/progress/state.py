"""What the checkpoint of a run says of where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .tally import Sums

__all__ = ["METRICS", "TrainState"]

METRICS = {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "seconds"}
"""What the history has of every epoch, among the rest."""
# Without a test set the others are None; only targets with a likeliest class have an accuracy.
_MEASURED = METRICS - {"test_loss", "test_accuracy"}
_UNRANKED = _MEASURED - {"train_accuracy"}


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint holds beside tensors; the attributes are those of `TrainRun`."""

    step: int
    tally: Sums
    history: list[dict[str, int | float | list[float | None] | None]]
    loader: dict[str, Any]
    best: dict[str, str] = field(default_factory=dict)

    def check(self, epochs: int, steps: int, *, is_ranked: bool = True) -> None:
        """Raise ValueError unless a run of so many epochs, of so many steps each, can stand there."""
        if len(self.history) > epochs:
            raise ValueError(f"{len(self.history)} epochs are complete, of {epochs}")
        measured = _MEASURED if is_ranked else _UNRANKED
        for number, epoch in enumerate(self.history, 1):
            missing = METRICS - epoch.keys() or {name for name in measured if epoch[name] is None}
            missing |= {name for name in METRICS if isinstance(epoch.get(name), list)}
            if missing or epoch["epoch"] != number:
                raise ValueError(f"history[{number - 1}] is not the metrics of epoch {number}")
        if not all(epoch.isdecimal() for epoch in self.best):
            raise ValueError("best is not the digests of epochs")
        tally = self.tally
        if not 0 <= tally.steps <= (steps if len(self.history) < epochs else 0):
            raise ValueError(f"tally.steps is {tally.steps}, of {steps} steps in an epoch")
        if not tally.steps <= tally.images or not tally.correct >= 0 or tally.seconds < 0:
            raise ValueError("the tally is not one of images that were seen")
        if self.step != len(self.history) * steps + tally.steps:
            raise ValueError(f"step is {self.step} after {len(self.history)} epochs and {tally.steps} steps")
