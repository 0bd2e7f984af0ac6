"""Training on perturbed images, and learning from a network that withstands them.

What withstands 8/255 at a test was trained on perturbations: on one step of the gradient's sign, which costs
about as much again as the step of training itself (N-FGSM), or on ten (PGD). A teacher that was trained so
elsewhere, on a larger network, replaces the labels by its own answers (robust distillation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from edgeprune_formats import ConfigError

from ...class_names import same_classes
from ...networks.trained import load_trained
from ...normalization import Normalization
from ..placement import MEMORY_FORMAT, Placement
from ..settings import Adversary
from .losses import TargetLoss, class_loss

__all__ = [
    "Objective",
    "Perturbation",
    "Teacher",
    "ascend_in_ball",
]

Network = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor], torch.Tensor]

# N-FGSM: noise of twice the budget (de Jorge et al., 2022). PGD: ten steps of 2/255 at 8/255 (Madry et al.,
# 2018). RSLAD: five sixths of the loss from perturbed images (Zi et al., 2021).
_NOISE, _STEPS, _STEP, _PERTURBED_SHARE = 2.0, 10, 1 / 4, 5 / 6


class Perturbation:
    """Moves the images of a batch so that a network errs on them.

    Parameters
    ----------
    adversary : Adversary
        The method and its budget.
    normalization : Normalization
        Of the batches: budgets are in pixels, and no pixel leaves [0, 1].
    device : torch.device
        Of the batches.
    """

    def __init__(self, adversary: Adversary, normalization: Normalization, device: torch.device) -> None:
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (normalization.mean, normalization.std)
        )
        self._method = adversary.method
        self._eps = adversary.eps / 255 / std
        self._low, self._high = (0 - mean) / std, (1 - mean) / std

    def __call__(self, network: Network, images: torch.Tensor, loss: Loss) -> torch.Tensor:
        """Return perturbed images, without a gradient.

        The network is asked in the mode it is in, hence batch normalization sees the perturbed images as
        well, as it does in the papers. Noise is drawn from torch's global generator.

        Parameters
        ----------
        network : callable
            Normalized images to logits.
        images : float32 [n, C, H, W]
            Normalized.
        loss : callable
            From logits to the 0-d loss that the perturbation is to raise.
        """
        noise = self._eps * (2 * torch.rand_like(images) - 1)
        if self._method == "n-fgsm":
            moved = self._in_range(images + _NOISE * noise)
            return self._in_range(moved + self._eps * _gradient(network, moved, loss).sign())
        low, high = self._in_range(images - self._eps), self._in_range(images + self._eps)
        moved = self._in_range(images + noise)
        for _ in range(_STEPS):
            moved = ascend_in_ball(moved, _gradient(network, moved, loss), self._eps, low, high)
        return moved

    def _in_range(self, images: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.maximum(images, self._low), self._high)


def ascend_in_ball(
    moved: torch.Tensor,
    gradient: torch.Tensor,
    eps: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
) -> torch.Tensor:
    """Take one step of PGD in Linf (Madry et al., 2018): a quarter of the budget, which is 2/255 at 8/255.

    Parameters
    ----------
    moved, gradient : float32 [n, C, H, W]
        The images where they are, and the gradient of the loss there.
    eps : float32, broadcasts to the images
        The budget.
    low, high : float32 [n, C, H, W]
        The ends of the ball within the range of pixels.
    """
    return torch.minimum(torch.maximum(moved + _STEP * eps * gradient.sign(), low), high)


def _gradient(network: Network, images: torch.Tensor, loss: Loss) -> torch.Tensor:
    moved = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(network(moved)), moved)
    return gradient


class Teacher:
    """The trained network of a run, whose answers are learned in place of labels.

    Parameters
    ----------
    run_dir : Path
        A finished run.
    placement : Placement
        Where the student computes.
    normalization : Normalization
        Of the student's batches; the teacher's own may be another.
    num_classes : int
        Of the student.
    image_shape : sequence of int
        Of the student's images.
    class_names : sequence of str, optional
        Of the student, held against the teacher's where both are known: answers have the teacher's order.

    Raises
    ------
    ConfigError
        The teacher has learned no classes, or others, takes images of another shape, or does not say how it
        takes them.
    TrainingError
        The run is not finished, or its network damaged.
    """

    def __init__(
        self,
        run_dir: Path,
        placement: Placement,
        normalization: Normalization,
        num_classes: int,
        image_shape: Sequence[int],
        class_names: Sequence[str] | None = None,
    ) -> None:
        network = load_trained(run_dir)
        if not network.task.is_ranked:
            raise ConfigError(f"{run_dir}: has learned {network.task}; a teacher answers with classes")
        if (network.num_classes, network.image_shape) != (num_classes, tuple(image_shape)):
            raise ConfigError(
                f"{run_dir}: a teacher of {network.num_classes} classes and images of {network.image_shape} "
                f"cannot teach {num_classes} classes and images of {tuple(image_shape)}"
            )
        known = network.class_names
        if known is not None and class_names is not None and not same_classes(known, class_names):
            raise ConfigError(f"{run_dir}: the teacher's classes have other names, or another order")
        if network.normalization is None:
            raise ConfigError(f"{run_dir}: the teacher does not say how its images are normalized")
        mean, std, own_mean, own_std = (
            torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
            for values in (normalization.mean, normalization.std, network.mean, network.std)
        )
        self._factor = (std / own_std).float().to(placement.device)
        self._offset = ((mean - own_mean) / own_std).float().to(placement.device)
        self._network = (
            network.model.requires_grad_(False).to(placement.device).to(memory_format=MEMORY_FORMAT)
        )
        self._placement = placement

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of the classes, float32 ``[n, num_classes]``."""
        with self._placement.autocast():
            logits: torch.Tensor = self._network(images * self._factor + self._offset)
        return logits.float().softmax(1)


@dataclass(frozen=True)
class Objective:
    """What a step lowers: the loss of the images, or of perturbed ones, against labels or a teacher.

    Attributes
    ----------
    perturbation : Perturbation, optional
        None trains on the images as they are.
    teacher : Teacher, optional
        None trains on the labels.
    loss : callable
        Of the target that is learned.
    """

    perturbation: Perturbation | None = None
    teacher: Teacher | None = None
    loss: TargetLoss = class_loss

    def terms(
        self, network: Network, images: torch.Tensor, labels: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the terms of a batch's mean loss, 0-d, each with its logits ``[n, num_classes]``.

        A term may go backward before the next is asked for, so that only one is held. With a teacher ``T``
        and perturbed images ``x'`` of ``x`` they are ``1/6 KL(T(x) || S(x))`` and ``5/6 KL(T(x) || S(x'))``
        (Zi et al., 2021, eq. 6), and ``x'`` raises the second (eq. 7).
        """
        loss = self._loss(images, labels)
        if self.perturbation is None:
            yield _term(network, images, loss)
            return
        perturbed = self.perturbation(network, images, loss)
        if self.teacher is None:
            yield _term(network, perturbed, loss)
            return
        for some, share in ((images, 1 - _PERTURBED_SHARE), (perturbed, _PERTURBED_SHARE)):
            part, logits = _term(network, some, loss)
            yield share * part, logits

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> Loss:
        if self.teacher is None:
            return lambda logits: self.loss(logits, labels, "mean")
        wanted = self.teacher(images)
        return lambda logits: functional.kl_div(logits.log_softmax(1), wanted, reduction="batchmean")


def _term(network: Network, images: torch.Tensor, loss: Loss) -> tuple[torch.Tensor, torch.Tensor]:
    logits = network(images)
    return loss(logits), logits
