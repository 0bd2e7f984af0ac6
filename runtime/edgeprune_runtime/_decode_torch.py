"""Decoding with torch, on the CPU or a GPU, from the same code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import Block, ConfigError, QuantizedBlock, SparseBlock, column_bits

from ._decode import DecodePlan, inverse_basis, reach
from .augmentation import Augmentation

__all__ = ["TorchDecoder", "resolve_device"]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def resolve_device(device: Any) -> torch.device:
    """Return the torch device for a name; ``"auto"`` is CUDA where there is one, else the CPU.

    A CUDA device comes with its index.

    Raises
    ------
    ConfigError
        No such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"unknown device {device!r}") from error
    if found.type == "cpu":
        return found
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type != "cuda" or (found.index or 0) >= count:
        raise ConfigError(f"device {device} does not exist: this machine has {count} CUDA devices; use cpu")
    return torch.device("cuda", found.index or 0)


class TorchDecoder:
    """Batched inverse DCT in torch tensors; see `edgeprune_runtime._decode.Decoder`."""

    def __init__(self, plan: DecodePlan, *, device: Any, dtype: Any) -> None:
        self.plan = plan
        self._device = resolve_device(device)
        self._dtype = _torch_dtype(dtype)
        header = plan.header
        height, width = header.block_shape
        self._rows = self._put(np.ascontiguousarray(inverse_basis(height, plan.tile[0]).T))
        self._columns = self._put(inverse_basis(width, plan.tile[1]))
        self._matrix, self._level = self._put(plan.matrix), self._put(plan.level).view(-1, 1, 1)
        self._scale = self._put(plan.scale).view(1, -1, 1)
        self._offset = self._put(plan.offset)
        self._scratch: dict[str, torch.Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_scratch": {}}

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        return self._move(torch.from_numpy(array))

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _reused(self, name: str, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """Return working memory that the next batch uses again, in place of fresh pages for each batch."""
        size = math.prod(shape)
        held = self._scratch.get(name)
        if held is None or len(held) < size or held.dtype != dtype:
            held = self._scratch[name] = torch.empty(size, dtype=dtype, device=self._device)
        return held[:size].view(shape)

    @torch.no_grad()
    def images(
        self, block: Block, rows: NDArray[np.int64], augmentation: Augmentation | None = None
    ) -> torch.Tensor:
        """Return images [n, C, h, w] of the decoder's dtype on its device."""
        images = self._tiles(block, rows) if isinstance(block, QuantizedBlock) else self._whole(block, rows)
        if augmentation is not None:
            images = self._augment(images, augmentation)
        return images.to(self._dtype)

    def _tiles(self, block: QuantizedBlock, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return the images of integers, which are uploaded as they are, by two tall products."""
        plan, header = self.plan, self.plan.header
        n, channels = len(rows), header.channels
        (down, across), (height, width) = header.grid, plan.tile
        high, wide = reach(block, rows, plan)
        values = self._select("integers", block.values, rows).view(-1, *header.block_shape)
        real = values[:, :high, :wide].to(torch.float32).reshape(n, channels, -1)
        planes = torch.matmul(self._matrix, real)
        half = (planes.view(-1, wide) @ self._columns[:wide]).view(-1, high, width)
        pixels = torch.bmm(self._rows[:, :high].expand(len(half), -1, -1), half)
        if down * across > 1:
            pixels = pixels.view(n, channels, down, across, height, width).transpose(3, 4)
        images = pixels.reshape(n, channels, down * height, across * width)
        return images[:, :, : plan.height, : plan.width].contiguous().add_(self._level)

    def _whole(self, block: SparseBlock, rows: NDArray[np.int64]) -> torch.Tensor:
        plan, header = self.plan, self.plan.header
        planes = len(rows) * header.channels
        spectra = self._scatter(block, rows)
        across = self._reused("across", torch.float32, planes, plan.height, plan.width)
        if plan.height == header.height:
            tall = spectra.view(planes * header.height, -1)[:, : plan.width]
            torch.mm(tall, self._columns, out=across.view(-1, plan.width))
        else:
            low = spectra[:, : plan.height, : plan.width]
            torch.bmm(low, self._columns.expand(planes, -1, -1), out=across)
        images = torch.bmm(self._rows.expand(planes, -1, -1), across)
        return images.view(len(rows), header.channels, plan.height, plan.width)

    def labels(self, labels: NDArray[np.int64]) -> torch.Tensor:
        """Return the labels on the decoder's device."""
        return self._put(labels)

    def _scatter(self, block: SparseBlock, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return scaled spectra [n * C, H, P]; packed positions address rows of a power of two, P."""
        header = self.plan.header
        planes, stride = len(rows) * header.channels, 1 << column_bits(header.width)
        spectra = self._reused("spectra", torch.float32, planes, header.height, stride).zero_()
        positions, values = self._gather(block, rows, header.height * stride)
        spectra.view(planes, -1).scatter_(1, positions.view(planes, -1), values.view(planes, -1))
        spectra.view(len(rows), header.channels, -1)[:, :, 0] -= self._offset
        return spectra

    def _gather(
        self, block: SparseBlock, rows: NDArray[np.int64], plane: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return int64 positions and scaled values [n, C, K] of the images at `rows`."""
        # Torch gathers and widens signed integers faster than unsigned ones, and gathers only the former.
        signed = block.positions.view(f"i{block.positions.itemsize}")
        positions = self._select("positions", signed, rows)
        if plane > np.iinfo(signed.dtype).max + 1:
            positions = positions.view(torch.uint16)
        wide = self._reused("wide", torch.int64, *positions.shape)
        return wide.copy_(positions), self._select("values", block.values, rows).mul_(self._scale)

    def _select(self, name: str, array: NDArray[Any], rows: NDArray[np.int64]) -> torch.Tensor:
        tensor, index = torch.from_numpy(array), torch.from_numpy(rows)
        if self._device.type == "cpu":
            out = self._reused(name, tensor.dtype, len(rows), *tensor.shape[1:])
            return torch.index_select(tensor, 0, index, out=out)
        return self._move(torch.index_select(tensor, 0, index))

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
