"""The loss of each kind of target, as the mean of a batch or the sum of its images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

from ..task import Task

__all__ = ["Reduction", "TargetLoss", "loss_of"]

Reduction = Literal["mean", "sum"]
TargetLoss = Callable[[torch.Tensor, torch.Tensor, Reduction], torch.Tensor]
"""Takes outputs float32 [n, k], what is wanted, and how to reduce; returns the 0-d loss."""


def class_loss(outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Return the cross entropy, in nats, of classes int64 [n]."""
    return functional.cross_entropy(outputs, wanted, reduction=reduction)


def multilabel_loss(outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Return the binary cross entropy, in nats, the mean of all classes; `wanted` is bool [n, k]."""
    each = functional.binary_cross_entropy_with_logits(outputs, wanted.float(), reduction="none")
    return _reduced(each, reduction)


def probabilities_loss(outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Return the cross entropy, in nats, to probabilities float32 [n, k]."""
    return functional.cross_entropy(outputs, wanted, reduction=reduction)


class ValueLoss:
    """The Huber loss (1964) of standardized values, the mean of all numbers: square within one deviation.

    Parameters
    ----------
    task : Task
        Of kind value.
    """

    def __init__(self, task: Task) -> None:
        self._mean, self._std = torch.tensor(task.mean), torch.tensor(task.std)

    def __call__(self, outputs: torch.Tensor, wanted: torch.Tensor, reduction: Reduction) -> torch.Tensor:
        """Return the loss; `wanted` is float32 [n, k] in the unit of the data."""
        mean, std = (values.to(outputs.device) for values in (self._mean, self._std))
        return _reduced(functional.huber_loss(outputs, (wanted - mean) / std, reduction="none"), reduction)


def loss_of(task: Task) -> TargetLoss:
    """Return the loss of what a network learns."""
    if task.kind == "value":
        return ValueLoss(task)
    return {"class": class_loss, "multilabel": multilabel_loss, "probabilities": probabilities_loss}[
        task.kind
    ]


def _reduced(each: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Reduce losses [n, k]: the mean of each image's numbers, then the mean or sum of the images."""
    return each.mean() if reduction == "mean" else each.mean(dim=1).sum()
