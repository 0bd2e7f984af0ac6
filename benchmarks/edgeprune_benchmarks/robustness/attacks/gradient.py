"""Attacks that follow the gradient within a ball around the image: FGSM, PGD on two losses, C&W in L2.

Own code, because the common collections assume their own normalization, keep what broke no image, or pull
in a framework of their own (decision 0013); all are short, and each is held against the equation it cites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from edgeprune_runtime.training.objectives.adversarial import ascend_in_ball

__all__ = ["Loss", "carlini_wagner", "cross_entropy", "fgsm", "margin", "pgd", "sign_noise"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of each image in nats, [n]."""
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the highest logit of another class less that of the label, [n].

    Positive exactly where the image is misclassified; minus this, without its bound, is the objective f_6 of
    Carlini and Wagner (2017).
    """
    own = functional.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(1)
    return others - logits[own]


def input_gradient(
    victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, loss: Loss
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradient of a loss of each image with regard to it, [n, C, H, W], and the logits."""
    moved = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = victim(moved)
        total = loss(logits, labels).sum()
    if not total.requires_grad:
        # A victim that detaches its input: no gradient attack can move, and the controls say so.
        return torch.zeros_like(images), logits.detach()
    (gradient,) = torch.autograd.grad(total, moved, allow_unused=True)
    return (torch.zeros_like(images) if gradient is None else gradient), logits.detach()


def fgsm(
    victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, eps: float | torch.Tensor
) -> torch.Tensor:
    """Take one step of the sign of the gradient of the cross entropy (Goodfellow et al., 2015, eq. 1).

    Parameters
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits.
    images : float32 [n, C, H, W]
        On [0, 1].
    labels : int64 [n]
    eps : float or float32 [1, C, 1, 1]
        Linf budget in pixels.

    Returns
    -------
    float32 [n, C, H, W]
        On [0, 1].
    """
    gradient, _ = input_gradient(victim, images, labels, cross_entropy)
    return (images + eps * gradient.sign()).clamp(0, 1)


def pgd(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    eps: float | torch.Tensor,
    *,
    steps: int,
    seed: int,
    loss: Loss = cross_entropy,
    stops: bool = True,
) -> torch.Tensor:
    """Ascend a loss by signs of the gradient within an Linf ball, from a random start (Madry et al., 2018).

    The step is a quarter of the budget, which is 2/255 at 8/255. An image counts as broken as soon as any
    iterate is misclassified, and is left there, so more steps from the same seed never break fewer.

    Parameters
    ----------
    victim, images, labels, eps
        As in `fgsm`.
    steps : int
        Gradients taken.
    seed : int
        Of the start, which is uniform in the ball.
    loss : callable
        `cross_entropy`, or `margin` for "PGD on the C&W margin".
    stops : bool
        Whether broken images are left where they broke, which for another network than `victim` is hardly
        an attack; otherwise all steps are taken.

    Returns
    -------
    float32 [n, C, H, W]
        On [0, 1], within `eps` of `images`.
    """
    budget = torch.as_tensor(eps, dtype=images.dtype, device=images.device)
    low, high = (images - budget).clamp(0, 1), (images + budget).clamp(0, 1)
    found = _start(images, budget, seed).clamp(0, 1)
    attacked = torch.arange(len(images), device=images.device)
    moving = found
    for _ in range(steps):
        gradient, logits = input_gradient(victim, moving, labels[attacked], loss)
        if stops:
            resists = logits.argmax(1) == labels[attacked]
            attacked, moving, gradient = attacked[resists], moving[resists], gradient[resists]
            if not len(attacked):
                break
        moving = ascend_in_ball(moving, gradient, budget, low[attacked], high[attacked])
        found = found.index_copy(0, attacked, moving)
    return found


def _start(images: torch.Tensor, budget: torch.Tensor, seed: int) -> torch.Tensor:
    # On the CPU, so that a seed means the same on every device.
    random = torch.Generator().manual_seed(seed)
    return images + budget * (2 * torch.rand(images.shape, generator=random) - 1).to(images.device)


def sign_noise(images: torch.Tensor, eps: float, *, seed: int) -> torch.Tensor:
    """Return images with every value moved by `eps` up or down at random: the contrast to every attack.

    Returns
    -------
    float32 [n, C, H, W]
        On [0, 1].
    """
    random = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(0, 2, images.shape, generator=random).to(images) - 1
    return (images + eps * signs).clamp(0, 1)


def carlini_wagner(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int = 100,
    lr: float = 0.01,
    searches: int = 9,
    constant: float = 0.01,
) -> torch.Tensor:
    """Look for the nearest misclassified image in L2, without a budget (Carlini and Wagner, 2017, sec. V).

    Minimizes ``||x' - x||^2 + c * max(0, -margin(x'))`` by Adam over w with ``x' = (tanh(w) + 1) / 2``, and
    searches c for each image: by tenfold steps up until it succeeds, then by halving the interval.

    Parameters
    ----------
    victim, images, labels
        As in `fgsm`.
    steps, lr : int, float
        Of Adam, for each constant; 100 and 0.01 as the paper that we examine.
    searches : int
        Constants tried.
    constant : float
        The first.

    Returns
    -------
    float32 [n, C, H, W]
        The nearest misclassified image found; the image itself where none was.
    """
    best = images.clone()
    nearest = torch.full((len(images),), torch.inf, device=images.device)
    low, high = torch.zeros_like(nearest), torch.full_like(nearest, torch.inf)
    weight = torch.full_like(nearest, constant)
    for _ in range(searches):
        succeeded = torch.zeros_like(nearest, dtype=torch.bool)
        for moved, distance, wrong in _adam_path(victim, images, labels, weight, steps, lr):
            succeeded |= wrong
            nearer = wrong & (distance < nearest)
            nearest = torch.where(nearer, distance, nearest)
            best[nearer] = moved[nearer]
        high, low = torch.where(succeeded, weight, high), torch.where(succeeded, low, weight)
        weight = torch.where(high.isinf(), 10 * weight, (low + high) / 2)
    return best


def _adam_path(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    steps: int,
    lr: float,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield each iterate, its squared distance and whether it is misclassified."""
    # A pixel of exactly 0 or 1 has no finite w.
    variable = torch.atanh((2 * images - 1) * (1 - 1e-6)).requires_grad_()
    adam = torch.optim.Adam([variable], lr=lr)
    for _ in range(steps):
        with torch.enable_grad():
            moved = (torch.tanh(variable) + 1) / 2
            distance = (moved - images).square().flatten(1).sum(1)
            ahead = margin(victim(moved), labels)
            total = (distance + weight * functional.relu(-ahead)).sum()
        (variable.grad,) = torch.autograd.grad(total, variable)
        yield moved.detach(), distance.detach(), ahead.detach() > 0
        adam.step()
