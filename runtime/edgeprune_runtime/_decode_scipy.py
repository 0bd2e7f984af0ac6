"""Decoding with numpy and scipy alone, for devices without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Block, ConfigError, QuantizedBlock, SparseBlock, column_bits

from ._decode import DecodePlan, inverse_basis, reach
from .augmentation import Augmentation

__all__ = ["ScipyDecoder"]

DTYPES = ("float16", "float32", "float64")
# Above this side the fast transform does less work than two matrix products.
LARGEST_PRODUCT = 64


class ScipyDecoder:
    """Batched inverse DCT in numpy arrays; see `edgeprune_runtime._decode.Decoder`."""

    def __init__(self, plan: DecodePlan, *, device: Any, dtype: Any) -> None:
        if str(device) not in ("auto", "cpu"):
            raise ConfigError(f"backend 'scipy' decodes on the cpu, not on {device}")
        self.plan = plan
        self._dtype = _numpy_dtype(dtype)
        header = plan.header
        height, width = header.block_shape
        self._rows = inverse_basis(height, plan.tile[0])
        self._columns = inverse_basis(width, plan.tile[1])

    def images(
        self, block: Block, rows: NDArray[np.int64], augmentation: Augmentation | None = None
    ) -> NDArray[np.floating[Any]]:
        """Return images [n, C, h, w] of the decoder's dtype."""
        images: NDArray[Any]
        if isinstance(block, QuantizedBlock):
            images = self._tiles(block, rows)
        else:
            images = self._transform(self._scatter(block, rows))
        if augmentation is not None:
            images = _augment(images, augmentation)
        return images.astype(self._dtype, copy=False)

    def labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels as they are."""
        return labels

    def _scatter(self, block: SparseBlock, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return scaled, truncated spectra [n, C, h, w]; packed positions address rows of a power of two."""
        plan, header = self.plan, self.plan.header
        n, stride = len(rows), 1 << column_bits(header.width)
        plane = header.height * stride
        values = block.values.take(rows, axis=0)
        values *= plan.scale[:, None]
        start = np.arange(n * header.channels, dtype=np.intp).reshape(n, header.channels, 1) * plane
        dense = np.zeros(n * header.channels * plane, np.float32)
        dense[(block.positions.take(rows, axis=0) + start).reshape(-1)] = values.reshape(-1)
        spectra = dense.reshape(n, header.channels, header.height, stride)
        spectra[:, :, 0, 0] -= plan.offset
        return spectra[:, :, : plan.height, : plan.width]

    def _tiles(self, block: QuantizedBlock, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        plan, header = self.plan, self.plan.header
        n, channels = len(rows), header.channels
        (down, across), (height, width) = header.grid, plan.tile
        high, wide = reach(block, rows, plan)
        spectra = block.values.take(rows, axis=0).reshape(-1, *header.block_shape)[:, :high, :wide]
        planes = np.matmul(plan.matrix, spectra.astype(np.float32).reshape(n, channels, -1))
        pixels = np.matmul(
            self._rows[:high].T, np.matmul(planes.reshape(-1, high, wide), self._columns[:wide])
        )
        grid = pixels.reshape(n, channels, down, across, height, width).swapaxes(3, 4)
        images = grid.reshape(n, channels, down * height, across * width)[:, :, : plan.height, : plan.width]
        return np.asarray(images + plan.level[:, None, None])

    def _transform(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        plan, header = self.plan, self.plan.header
        if max(plan.height, plan.width) <= LARGEST_PRODUCT:
            product: NDArray[np.float32] = np.matmul(self._rows.T, np.matmul(spectra, self._columns))
            return product
        from scipy.fft import idctn

        brightness = np.sqrt(plan.height * plan.width / (header.height * header.width))
        images: NDArray[np.float32] = idctn(spectra, axes=(2, 3), norm="ortho", workers=-1)
        return images if brightness == 1 else images * np.float32(brightness)


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else np.dtype(dtype).name
    if name not in DTYPES:
        raise ConfigError(f"backend 'scipy' gives {', '.join(DTYPES)}, not {name}")
    return np.dtype(name)


def _augment(images: NDArray[np.float32], augmentation: Augmentation) -> NDArray[np.float32]:
    n, channels, height, width = images.shape
    inside = augmentation.rows[:, :, None] * width + augmentation.columns[:, None, :]
    start = np.arange(n * channels).reshape(n, channels, 1, 1) * (height * width)
    cropped: NDArray[np.float32] = images.reshape(-1).take(inside[:, None] + start)
    return cropped
