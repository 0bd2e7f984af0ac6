"""Decoding with torch, on the CPU or a GPU, from the same code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, SparseBlock, column_bits

from ._augment import Augmentation
from ._decode import DecodePlan, inverse_basis

__all__ = ["TorchDecoder", "resolve_device"]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def resolve_device(device: Any) -> torch.device:
    """Return the torch device for a name; ``"auto"`` is CUDA where there is one, else the CPU.

    Raises
    ------
    ConfigError
        No such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"unknown device {device!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use device='cpu' or 'auto'")
    return found


class TorchDecoder:
    """Batched inverse DCT in torch tensors; see `edgeprune_runtime._decode.Decoder`."""

    def __init__(self, plan: DecodePlan, *, device: Any, dtype: Any) -> None:
        self.plan = plan
        self._device = resolve_device(device)
        self._dtype = _torch_dtype(dtype)
        header = plan.header
        self._rows = self._put(np.ascontiguousarray(inverse_basis(header.height, plan.height).T))
        self._columns = self._put(inverse_basis(header.width, plan.width))
        self._scale = self._put(plan.scale).view(1, -1, 1)
        self._offset = self._put(plan.offset)
        self._scratch: dict[str, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_scratch": {}}

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _reused(self, name: str, *shape: int) -> torch.Tensor:
        """Return working memory that the next batch uses again; fresh pages cost as much as the decoding."""
        size = int(np.prod(shape))
        if name not in self._scratch or len(self._scratch[name]) < size:
            self._scratch[name] = torch.empty(size, dtype=torch.float32, device=self._device)
        return self._scratch[name][:size].view(shape)

    @torch.no_grad()
    def images(self, block: SparseBlock, augmentation: Augmentation | None = None) -> torch.Tensor:
        """Return images [n, C, h, w] of the decoder's dtype on its device."""
        plan, header = self.plan, self.plan.header
        planes = len(block) * header.channels
        spectra = self._scatter(block)
        across = self._reused("across", planes, plan.height, plan.width)
        if plan.height == header.height:
            tall = spectra.view(planes * header.height, -1)[:, : plan.width]
            torch.mm(tall, self._columns, out=across.view(-1, plan.width))
        else:
            low = spectra[:, : plan.height, : plan.width]
            torch.bmm(low, self._columns.expand(planes, -1, -1), out=across)
        images = torch.bmm(self._rows.expand(planes, -1, -1), across)
        images = images.view(len(block), header.channels, plan.height, plan.width)
        if augmentation is not None:
            images = self._augment(images, augmentation)
        return images.to(self._dtype)

    def labels(self, labels: NDArray[np.int64]) -> torch.Tensor:
        """Return the labels on the decoder's device."""
        return self._put(labels)

    def _scatter(self, block: SparseBlock) -> torch.Tensor:
        """Return scaled spectra [n * C, H, P]; packed positions address rows of a power of two, P."""
        header = self.plan.header
        planes, stride = len(block) * header.channels, 1 << column_bits(header.width)
        spectra = self._reused("spectra", planes, header.height, stride).zero_()
        positions = self._put(block.positions).to(torch.int64).view(planes, -1)
        values = self._put(block.values) * self._scale
        spectra.view(planes, -1).scatter_(1, positions, values.view(planes, -1))
        spectra.view(len(block), header.channels, -1)[:, :, 0] -= self._offset
        return spectra

    def _augment(self, images: torch.Tensor, augmentation: Augmentation) -> torch.Tensor:
        n, channels, _, width = images.shape
        flat = augmentation.rows[:, :, None] * width + augmentation.columns[:, None, :]
        index = self._put(flat).view(n, 1, -1).expand(-1, channels, -1)
        return torch.gather(images.view(n, channels, -1), 2, index).view_as(images)


def _torch_dtype(dtype: Any) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    name = np.dtype(dtype).name if isinstance(dtype, type) else str(dtype)
    if name not in DTYPES:
        raise ConfigError(f"backend 'torch' gives {', '.join(DTYPES)}, not {name}")
    return DTYPES[name]
