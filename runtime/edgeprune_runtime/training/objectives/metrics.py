"""What is measured of a network on a test set, by the kind of its target."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from ...task import Task
from .average_precision import average_precision

__all__ = ["Meter", "hits", "make_meter"]

# More classes are told one by one by `edgeprune evaluate`, not after each epoch.
_MANY_CLASSES = 100


class Meter(Protocol):
    """Takes a test set batch by batch."""

    def add(self, outputs: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take outputs float32 [n, k] and what was wanted of them."""

    def result(self) -> dict[str, Any]:
        """Return what was measured, ready for JSON."""


def hits(task: Task, outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return how many images were put in their likeliest class, 0-d; 0 where the target has none."""
    if not task.is_ranked:
        return torch.zeros((), dtype=torch.int64, device=outputs.device)
    return (outputs.argmax(1) == _likeliest(wanted, outputs.shape[1])).sum()


def _likeliest(wanted: torch.Tensor, classes: int) -> torch.Tensor:
    # Behind the labels there may be what a teacher says.
    return wanted if wanted.ndim == 1 else wanted[:, :classes].argmax(1)


class ClassMeter:
    """Accuracy: of all images, the mean of the classes that there are, and of each class."""

    def __init__(self) -> None:
        self._right: torch.Tensor | None = None
        self._count: torch.Tensor | None = None

    def add(self, outputs: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take a batch; see `Meter`."""
        classes = outputs.shape[1]
        wanted = _likeliest(wanted, classes)
        right = wanted[outputs.argmax(1) == wanted].bincount(minlength=classes)
        count = wanted.bincount(minlength=classes)
        self._right = right if self._right is None else self._right + right
        self._count = count if self._count is None else self._count + count

    def result(self) -> dict[str, Any]:
        """Return ``accuracy``, ``mean_class_accuracy`` and, of few classes, ``class_accuracy``."""
        assert self._right is not None
        assert self._count is not None
        right, count = self._right.tolist(), self._count.tolist()
        each = [r / n if n else None for r, n in zip(right, count, strict=True)]
        known = [share for share in each if share is not None]
        found: dict[str, Any] = {"accuracy": sum(right) / sum(count)}
        found["mean_class_accuracy"] = sum(known) / len(known)
        return found | ({"class_accuracy": each} if len(each) <= _MANY_CLASSES else {})


class MultilabelMeter:
    """Mean average precision: of each class over its images ranked by score, then the mean of the classes."""

    def __init__(self) -> None:
        self._outputs: list[torch.Tensor] = []
        self._wanted: list[torch.Tensor] = []

    def add(self, outputs: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take a batch; see `Meter`."""
        self._outputs.append(outputs.float().cpu())
        self._wanted.append(wanted.cpu())

    def result(self) -> dict[str, Any]:
        """Return ``map`` and, of few classes, ``class_ap``; None for what no image has."""
        outputs, wanted = torch.cat(self._outputs).numpy(), torch.cat(self._wanted).numpy()
        each = [average_precision(*one) for one in zip(outputs.T, wanted.T, strict=True)]
        known = [precision for precision in each if precision is not None]
        found: dict[str, Any] = {"map": sum(known) / len(known) if known else None}
        return found | ({"class_ap": each} if len(each) <= _MANY_CLASSES else {})


class ValueMeter:
    """Mean absolute error in the unit of the data, and R2, ``1 - sum (y - p)^2 / sum (y - mean y)^2``.

    Parameters
    ----------
    task : Task
        Of kind value.
    """

    def __init__(self, task: Task) -> None:
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float64) for values in (task.mean, task.std)
        )
        self._sums = torch.zeros(4, len(task.mean), dtype=torch.float64)
        self._count = 0

    def add(self, outputs: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take a batch; see `Meter`."""
        # On the scale that was learned, where sums of squares keep their digits.
        scaled = (wanted.double().cpu() - self._mean) / self._std
        error = outputs.double().cpu() - scaled
        self._sums += torch.stack([error.abs().sum(0), (error**2).sum(0), scaled.sum(0), (scaled**2).sum(0)])
        self._count += len(outputs)

    def result(self) -> dict[str, Any]:
        """Return ``mae`` and ``r2``, each a list; of a value that is the same everywhere R2 is None."""
        absolute, square, total, total_square = self._sums
        spread = total_square - total**2 / self._count
        constant = spread <= 1e-12 * total_square.clamp(min=1e-300)
        r2 = (1 - square / spread).tolist()
        mae = (absolute / self._count * self._std).tolist()
        return {
            "mae": mae,
            "r2": [None if same else one for same, one in zip(constant.tolist(), r2, strict=True)],
        }


def make_meter(task: Task) -> Meter:
    """Return what measures what a network has learned."""
    if task.kind == "value":
        return ValueMeter(task)
    return MultilabelMeter() if task.kind == "multilabel" else ClassMeter()
