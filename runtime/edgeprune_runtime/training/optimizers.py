"""SGD, and Muon for the convolutions of networks that are trained in few steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .settings import TrainConfig

__all__ = ["Muon", "make_optimizer", "orthogonalized"]

# Of Jordan et al. (2024): the coefficients of the quintic, and how many iterations do.
_QUINTIC = 3.4445, -4.7750, 2.0315
_ITERATIONS = 3
# Of airbench with Muon: its learning rate beside that of SGD, and its momentum.
_RATE, _MOMENTUM = 0.24, 0.6


class Muon(torch.optim.SGD):
    """SGD that takes orthogonal steps with convolutions (Jordan et al., 2024), those of groups with ``muon``.

    The momentum of a kernel ``[K, C, h, w]``, as a matrix ``[K, C h w]`` with singular value decomposition
    ``U S V^T``, becomes about ``U V^T``; the kernel is scaled to a norm of ``sqrt(K)`` before each step,
    which takes the place of weight decay. For networks with batch normalization behind every convolution.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step; the gradients of convolutions are gone after it."""
        for group in self.param_groups:
            if not group["muon"]:
                continue
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self._move(kernel, kernel.grad, group["lr"])
                    # So that SGD passes over it.
                    kernel.grad = None
        return super().step(closure)

    def _move(self, kernel: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
        state = self.state[kernel]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(kernel)
        momentum = state["momentum_buffer"].mul_(_MOMENTUM).add_(gradient)
        ahead = gradient.add(momentum, alpha=_MOMENTUM)
        kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
        kernel.sub_(orthogonalized(ahead.flatten(1)).view_as(kernel), alpha=lr)


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Return about ``U V^T`` of a matrix ``U S V^T``, by iterations of Newton and Schulz.

    Singular values become numbers about 1, between 0.5 and 1.5 or so but for the smallest.
    """
    one, three, five = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    found: torch.Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        squares = found @ found.T
        found = one * found + torch.addmm(three * squares, squares, squares, alpha=five) @ found
    return found if wide is matrix else found.T


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Return the optimizer of a network; weight decay is on the weights of convolutions and linear layers.

    Each group has ``rate``, a factor on the learning rate.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    # Only weights of convolutions and linear layers have more than one dimension.
    weights, others = ([p for p in trained if (p.ndim > 1) == many] for many in (True, False))
    kernels = [p for p in weights if p.ndim == 4 and config.optimizer == "muon"]
    quick = getattr(model, "norm_bias_rate", None)
    norms = {id(m.bias) for m in model.modules() if quick and isinstance(m, nn.BatchNorm2d)}
    groups: list[dict[str, Any]] = [
        {"params": kernels, "muon": True, "rate": _RATE},
        {"params": [p for p in weights if not (p.ndim == 4 and kernels)]},
        {"params": [p for p in others if id(p) in norms], "weight_decay": 0.0, "rate": quick},
        {"params": [p for p in others if id(p) not in norms], "weight_decay": 0.0},
    ]
    return Muon(
        [{"muon": False, "rate": 1.0, **group} for group in groups if group["params"]],
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
    )
