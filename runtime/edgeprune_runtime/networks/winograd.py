"""Convolutions of 3x3 with a quarter of the multiplications, for training on CPUs.

The minimal filtering algorithm F(4x4, 3x3) of Lavin and Gray (2016, section 4.1) computes 4x4 outputs from
6x6 inputs: ``Y = A^T [(G g G^T) * (B^T d B)] A``, with 36 multiplications in place of 144 for each pair of
channels. So are both gradients computed. All differ from the direct sums by rounding alone. ``_winograd.c``
does it; where it was not compiled, torch convolves as it does everywhere.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from edgeprune_formats.coding.native import load_library

from ..system.threads import pool

__all__ = ["WinogradConv2d", "library"]

_LANES, _PANEL = 8, 16
_FILTER = torch.tensor([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
# Of both directions at once, [36, 9].
_G = torch.kron(_FILTER, _FILTER)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernel; None where it was not built, or for another processor."""
    loaded = load_library(Path(__file__).parent)
    if loaded is None or not loaded.edgeprune_winograd():
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    for function in (loaded.edgeprune_winograd_convolve, loaded.edgeprune_winograd_correlate):
        function.argtypes = (pointer, long, long, long, long, pointer, long, pointer)
    return loaded


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 that keeps the size, without bias; on CPUs in float32 trained as above.

    Parameters
    ----------
    width_in, width : int
        Channels of its inputs and outputs.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map features float32 ``[n, width_in, h, w]`` to ``[n, width, h, w]``."""
        if self.training and self._is_taken(features):
            found: torch.Tensor = _Winograd.apply(features, self.weight)
            return found
        return super().forward(features)

    def _is_taken(self, features: torch.Tensor) -> bool:
        height, width = features.shape[2:]
        return (
            features.device.type == "cpu"
            and features.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not (self.in_channels % _LANES or self.out_channels % _LANES)
            # Tiles of 4x4 that hang over the edges of a small map cost what they save.
            and 16 * -(-height // 4) * -(-width // 4) <= 1.5 * height * width
            and library() is not None
        )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        features = features.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(features, weight)
        return _convolved(features, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        features, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_features = of_weight = None
        if ctx.needs_input_grad[0]:
            # The transposed convolution is one with the filters turned by half a circle.
            of_features = _convolved(gradient, weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            of_weight = _correlated(features, gradient)
        return of_features, of_weight


def _convolved(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return features [n, C, h, w] in channels_last convolved with a weight [K, C, 3, 3], likewise."""
    count, width_in, height, width = features.shape
    outs = len(weight)
    factors = (_G @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, width_in, outs)
    padded = nn.functional.pad(factors, (0, -outs % _PANEL))
    panels = padded.view(36, width_in, -1, _PANEL).transpose(1, 2).contiguous()
    found = features.new_empty(count, height, width, outs)
    sizes = height, width, width_in, panels.data_ptr(), outs
    kernel = _library().edgeprune_winograd_convolve

    def convolve(images: torch.Tensor, out: torch.Tensor) -> int:
        return int(kernel(images.data_ptr(), len(images), *sizes, out.data_ptr()))

    _in_threads(convolve, features.permute(0, 2, 3, 1), found)
    return found.permute(0, 3, 1, 2)


def _correlated(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a weight [K, C, 3, 3], of features [n, C, h, w] and of outputs [n, K, h, w]."""
    _, width_in, height, width = features.shape
    outs = gradient.shape[1]
    kernel = _library().edgeprune_winograd_correlate

    def correlate(images: torch.Tensor, gradients: torch.Tensor, own: torch.Tensor) -> int:
        sizes = len(images), height, width, width_in
        return int(kernel(images.data_ptr(), *sizes, gradients.data_ptr(), outs, own.data_ptr()))

    sums = features.new_zeros(_threads(len(features)), 36, width_in, outs + -outs % _PANEL)
    _in_threads(correlate, features.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), each=sums)
    whole = sums.sum(0)[:, :, :outs].reshape(36, -1)
    return (_G.T @ whole).view(3, 3, width_in, outs).permute(3, 2, 0, 1)


def _library() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None
    return loaded


def _threads(images: int) -> int:
    return max(1, min(torch.get_num_threads(), images))


def _in_threads(work: Callable[..., int], *batches: torch.Tensor, each: torch.Tensor | None = None) -> None:
    """Share the images of batches out to as many threads as torch has, always the same ones to each."""
    threads = _threads(len(batches[0]))
    shares = list(
        zip(
            *(batch.tensor_split(threads) for batch in batches),
            *([] if each is None else [each]),
            strict=True,
        )
    )
    if threads == 1:
        found = [work(*shares[0])]
    else:
        found = list(pool("winograd", threads).map(lambda share: work(*share), shares))
    if any(found):
        raise MemoryError("no memory for the tiles of a convolution; lower `batch_size`")
