"""Perturbation budgets: the norms they are counted in, and how large a perturbation is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["CURVE", "HEADLINE", "NORMS", "Budget", "perturbation_size"]


def _linf(delta: torch.Tensor) -> torch.Tensor:
    return delta.abs().flatten(1).amax(1)


def _l2(delta: torch.Tensor) -> torch.Tensor:
    return delta.flatten(1).square().sum(1).sqrt()


def _l1(delta: torch.Tensor) -> torch.Tensor:
    return delta.abs().flatten(1).sum(1)


def _l0(delta: torch.Tensor) -> torch.Tensor:
    return (delta != 0).any(1).flatten(1).sum(1).double()


NORMS = {"Linf": _linf, "L2": _l2, "L1": _l1, "L0": _l0}
"""Each maps perturbations, float [n, C, H, W], to sizes, float [n]; L0 counts pixels, all channels as one."""


@dataclass(frozen=True)
class Budget:
    """How large a perturbation may be.

    Attributes
    ----------
    norm : str
        A key of `NORMS`.
    size : float
        For Linf, L2 and L1 on pixels of [0, 1]; for L0 a number of pixels. Infinite for an attack that
        looks for the nearest misclassified image and has none.
    """

    norm: str
    size: float

    def __str__(self) -> str:
        """Return it as people write it, e.g. ``Linf 8/255``."""
        if self.norm == "Linf":
            return f"Linf {255 * self.size:g}/255"
        return f"{self.norm} {self.size:g}" if self.size < float("inf") else f"{self.norm}, no budget"


CURVE = tuple(Budget("Linf", eps / 255) for eps in (0.25, 0.5, 1, 2, 4, 8, 16, 32))
"""The budgets of an eps-curve."""

HEADLINE = Budget("Linf", 8 / 255)
"""The budget that published figures are for."""


def perturbation_size(moved: torch.Tensor, images: torch.Tensor, norm: str) -> torch.Tensor:
    """Return the size of each perturbation, float64 [n], of float32 images [n, C, H, W]."""
    return NORMS[norm](moved.double() - images.double())
