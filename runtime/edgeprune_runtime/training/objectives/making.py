"""The loss and the objective that the settings of a run ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edgeprune_formats import ConfigError

from ...normalization import Normalization
from ...task import Task
from ..placement import Placement
from ..settings import Adversary, TrainConfig
from .adversarial import Objective, Perturbation, Teacher
from .distillation import DistillationLoss
from .losses import TargetLoss, balanced_weights, loss_of

__all__ = ["make_loss", "make_objective"]


def make_loss(
    config: TrainConfig,
    task: Task,
    placement: Placement,
    class_counts: Sequence[int] | None,
    num_classes: int,
) -> TargetLoss:
    """Return the loss of a run; the arguments are those of `edgeprune_runtime.training.train`.

    Raises
    ------
    ConfigError
        Classes are to be balanced, and how many images each has is not said.
    """
    weights = None
    if config.class_weights == "balanced":
        weights = _balanced(class_counts, num_classes).to(placement.device)
    if config.distill:
        return DistillationLoss(config.distill, config.distill_temperature, config.label_smoothing, weights)
    return loss_of(task, config.label_smoothing, weights)


def _balanced(class_counts: Sequence[int] | None, num_classes: int) -> torch.Tensor:
    if class_counts is None or len(class_counts) != num_classes or sum(class_counts) < 1:
        raise ConfigError(
            f"`class_weights` needs the images of each of {num_classes} classes; give `class_counts`"
        )
    return balanced_weights(class_counts)


def make_objective(
    config: TrainConfig,
    placement: Placement,
    normalization: Normalization | None,
    teacher: str | Path | None,
    loss: TargetLoss,
    description: Mapping[str, Any],
) -> Objective:
    """Return what a step minimizes: `loss`, of perturbed images or a teacher's answers where asked for.

    Parameters
    ----------
    config, placement, normalization, teacher
        As of `edgeprune_runtime.training.train`.
    loss : callable
        See `make_loss`.
    description : mapping
        What ``config.json`` holds of the run.

    Raises
    ------
    ConfigError
        The normalization is missing, or a teacher does not fit the other settings or the images.
    TrainingError
        The teacher cannot be read.
    """
    if config.adversarial is None and teacher is None:
        return Objective(loss=loss)
    if normalization is None:
        raise ConfigError("adversarial training and a teacher need the normalization of the batches")
    perturbation = None
    if config.adversarial is not None:
        adversary = Adversary.parse(config.adversarial)
        perturbation = Perturbation(adversary, normalization, placement.device)
    if teacher is None:
        return Objective(perturbation, loss=loss)
    if config.class_weights == "balanced" or config.label_smoothing:
        raise ConfigError(
            "a teacher's answers replace the labels; leave `label_smoothing` and `class_weights` out"
        )
    names = description["provenance"].get("class_names")
    shape = description["num_classes"], description["image_shape"], names
    return Objective(perturbation, Teacher(Path(teacher), placement, normalization, *shape))
