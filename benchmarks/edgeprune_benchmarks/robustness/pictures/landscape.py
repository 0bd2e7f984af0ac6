"""The loss around a trained network's weights, and around its images."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..attacks.gradient import cross_entropy, input_gradient

__all__ = [
    "Distortion",
    "distortion",
    "filter_normalized",
    "largest_curvature",
    "loss_along",
    "loss_over",
    "smooth_gradients",
]

Direction = dict[str, torch.Tensor]

_BATCH = 500
_STEPS = 20  # of the attack, and of the power iteration
_NOISE = 0.1  # of SmoothGrad: its standard deviation, in pixels on [0, 1]


def filter_normalized(network: nn.Module, seed: int) -> Direction:
    """Return a random direction in weights, scaled filter by filter to the weights' own norms.

    Li et al. (2018), section 4: each filter of the direction gets the norm of the network's filter, so that
    networks whose weights differ in scale can be compared; biases and parameters of normalization stay.

    Parameters
    ----------
    network : torch.nn.Module
    seed : int
        Of the direction.

    Returns
    -------
    dict of str to torch.Tensor
        For every parameter, of its shape and on its device.
    """
    random = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in network.named_parameters():
        if weight.ndim < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        drawn = torch.randn(weight.shape, generator=random).to(weight)
        norms = weight.detach().flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1).clamp_min(1e-12)
        direction[name] = drawn * norms.view(-1, *[1] * (weight.ndim - 1))
    return direction


def loss_along(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    direction: Direction,
    steps: Sequence[float],
    batch_size: int = _BATCH,
) -> NDArray[np.float64]:
    """Return the mean cross entropy in nats at ``weights + step * direction`` for each step, [len(steps)].

    Statistics of batch normalization stay as they are. `network` is not changed.
    """
    moved = deepcopy(network).eval()
    return np.array(
        [_mean_loss(_moved(moved, network, (direction, a)), images, labels, batch_size) for a in steps]
    )


def loss_over(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    directions: tuple[Direction, Direction],
    steps: Sequence[float],
) -> NDArray[np.float64]:
    """Return the mean cross entropy over a grid of two directions, [len(steps), len(steps)]."""
    moved = deepcopy(network).eval()
    first, second = directions
    return np.array(
        [
            [
                _mean_loss(_moved(moved, network, (first, a), (second, b)), images, labels, _BATCH)
                for b in steps
            ]
            for a in steps
        ]
    )


@torch.no_grad()
def _moved(moved: nn.Module, network: nn.Module, *along: tuple[Direction, float]) -> nn.Module:
    center = dict(network.named_parameters())
    for name, weight in moved.named_parameters():
        weight.copy_(center[name] + sum(step * direction[name] for direction, step in along))
    return moved


@torch.no_grad()
def _mean_loss(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> float:
    parts = zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True)
    return sum(float(cross_entropy(network(x), y).double().sum()) for x, y in parts) / len(labels)


@dataclass(frozen=True)
class Distortion:
    """The expected distortion rate of a network's loss and its parts (paper, App. C.4), means over images.

    Attributes
    ----------
    eps : float
        L2 size of the perturbation, in pixels on [0, 1].
    edr : float
        ``E |L(x + d) - L(x)|`` for the d of an attack.
    random : float
        The same for d of random direction.
    gradient : float
        ``E ||grad L(x)||_2 * eps``, the first term of the bound.
    curvature : float
        ``E beta(x) / 2 * eps^2``, with beta the largest absolute eigenvalue of the Hessian at x.
    """

    eps: float
    edr: float
    random: float
    gradient: float
    curvature: float


def distortion(victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, eps: float) -> Distortion:
    """Measure the expected distortion rate under an L2 attack, and the two terms that bound it (App. C.4).

    The attack is projected ascent along the normalized gradient, and the eigenvalue comes of power iteration.

    Parameters
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits.
    images, labels : float32 [n, C, H, W], int64 [n]
    eps : float
        L2 budget. Perturbed images are not clipped to [0, 1], as the bound does not.
    """
    random = torch.Generator().manual_seed(0)
    gradient, logits = input_gradient(victim, images, labels, cross_entropy)
    before = cross_entropy(logits, labels)
    noise = _unit(torch.randn(images.shape, generator=random).to(images))
    attacked = _ascend(victim, images, labels, eps, noise)
    with torch.no_grad():
        worst = (cross_entropy(victim(attacked), labels) - before).abs()
        chance = (cross_entropy(victim(images + eps * noise), labels) - before).abs()
    norms = gradient.flatten(1).norm(dim=1)
    beta = largest_curvature(victim, images, labels, _STEPS, noise)
    return Distortion(
        eps, *(float(part.double().mean()) for part in (worst, chance, norms * eps, beta / 2 * eps**2))
    )


def largest_curvature(
    victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, iterations: int, start: torch.Tensor
) -> torch.Tensor:
    """Return the largest absolute eigenvalue of the Hessian of the loss in each image, [n].

    Images do not depend on each other, so that one product of the batch's Hessian with a batch of vectors
    is a product for each image.
    """
    moved = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = cross_entropy(victim(moved), labels).sum()
        (gradient,) = torch.autograd.grad(loss, moved, create_graph=True)
    vector, length = _unit(start), torch.zeros(len(images), device=images.device)
    for _ in range(iterations):
        (product,) = torch.autograd.grad(gradient, moved, vector, retain_graph=True)
        length = product.flatten(1).norm(dim=1)
        vector = torch.where(length.view(-1, 1, 1, 1) > 0, _unit(product), vector)
    return length


def _ascend(
    victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, eps: float, start: torch.Tensor
) -> torch.Tensor:
    delta = eps * start
    for _ in range(_STEPS):
        gradient, _ = input_gradient(victim, images + delta, labels, cross_entropy)
        delta = delta + eps / 4 * _unit(gradient)
        norms = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        delta = delta * (eps / norms).clamp(max=1)
    return images + delta


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = vectors.flatten(1).norm(dim=1).clamp_min(1e-12)
    return vectors / lengths.view(-1, 1, 1, 1)


def smooth_gradients(
    victim: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, samples: int = 50
) -> torch.Tensor:
    """Return SmoothGrad maps (Smilkov et al., 2017) by captum: mean absolute gradients under noise.

    Parameters
    ----------
    victim, images, labels
        As in `distortion`.
    samples : int
        Noisy copies of each image.

    Returns
    -------
    float32 [n, H, W]
        Mean over the channels.
    """
    from captum.attr import NoiseTunnel, Saliency

    tunnel: Any = NoiseTunnel(Saliency(victim))
    with torch.enable_grad(), torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.manual_seed(0)
        maps: torch.Tensor = tunnel.attribute(
            images.clone().requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=10,
            stdevs=_NOISE,
            target=labels,
            abs=True,
        )
    return maps.detach().mean(1)
