"""The loss of each kind of target, as the mean of a batch or the sum of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch.nn import functional

from edgeprune_formats import ConfigError

from ...task import Task

__all__ = ["Reduction", "TargetLoss", "balanced_weights", "class_loss", "loss_of"]

Reduction = Literal["mean", "sum"]
TargetLoss = Callable[[torch.Tensor, torch.Tensor, Reduction], torch.Tensor]
"""Takes outputs float32 [n, k], what is wanted, and how to reduce; returns the 0-d loss."""


def class_loss(
    outputs: torch.Tensor,
    wanted: torch.Tensor,
    reduction: Reduction,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the cross entropy, in nats.

    Parameters
    ----------
    outputs : float32 [n, classes]
    wanted : int64 [n], or float32 [n, classes]
        Classes, or the probabilities of images that were mixed.
    reduction : str
    label_smoothing : float
        Share of each label that is spread evenly over all classes.
    class_weights : float32 [classes], optional
        Factors on the losses of images. The mean is over images, not over weights, so that the parts of a
        batch add up to it.
    """
    if class_weights is None:
        return functional.cross_entropy(outputs, wanted, reduction=reduction, label_smoothing=label_smoothing)
    each = functional.cross_entropy(outputs, wanted, reduction="none", label_smoothing=label_smoothing)
    each = each * (class_weights[wanted] if wanted.ndim == 1 else wanted @ class_weights)
    return each.mean() if reduction == "mean" else each.sum()


def balanced_weights(counts: Sequence[int]) -> torch.Tensor:
    """Return ``N / (C * N_c)`` for each of C classes that have images, else 0; float32 [classes]."""
    images = torch.tensor(counts, dtype=torch.float64)
    weights = images.sum() / (images.count_nonzero() * images)
    return torch.where(images > 0, weights, 0.0).float()


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


def loss_of(
    task: Task, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None
) -> TargetLoss:
    """Return the loss of what a network learns; smoothing and weights are those of `class_loss`.

    Raises
    ------
    ConfigError
        There is smoothing or there are weights, and the target is no class.
    """
    if task.kind == "class":
        return partial(class_loss, label_smoothing=label_smoothing, class_weights=class_weights)
    for name, is_given in (
        ("label_smoothing", label_smoothing > 0),
        ("class_weights", class_weights is not None),
    ):
        if is_given:
            raise ConfigError(
                f"{task.target!r} is of kind {task.kind}; leave `{name}` out, it is for classes"
            )
    if task.kind == "value":
        return ValueLoss(task)
    return multilabel_loss if task.kind == "multilabel" else probabilities_loss


def _reduced(each: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Reduce losses [n, k]: the mean of each image's numbers, then the mean or sum of the images."""
    return each.mean() if reduction == "mean" else each.mean(dim=1).sum()
