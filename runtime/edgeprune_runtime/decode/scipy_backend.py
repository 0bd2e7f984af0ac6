"""Decoding with numpy and scipy alone, for devices without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.coefficients import (
    Coefficients,
    QuantizedCoefficients,
    SparseCoefficients,
    column_bits,
)

from .augmentation import Augmentation
from .dtypes import require_dtype
from .plan import DecodePlan, basis_fits, batch_shape, full_size, held_sides, inverse_basis

if TYPE_CHECKING:
    from .dtypes import Device, Dtype

__all__ = ["DTYPES", "ScipyDecoder"]

DTYPES = ("float16", "float32", "float64")
# Above this side the fast transform does less work than two matrix products.
LARGEST_PRODUCT = 64


class ScipyDecoder:
    """Batched inverse DCT in numpy arrays; see `edgeprune_runtime.decode.plan.Decoder`."""

    in_background = False

    def __init__(self, plan: DecodePlan, *, device: Device, dtype: Dtype) -> None:
        if str(device) not in ("auto", "cpu"):
            raise ConfigError(f"backend 'scipy' decodes on the cpu, not on {device}")
        self.plan = plan
        self._dtype = np.dtype(require_dtype(dtype, "scipy", DTYPES))
        pixels: dict[type[Coefficients], Callable[..., NDArray[Any]]] = {
            SparseCoefficients: self._of_sparse,
            QuantizedCoefficients: self._of_tiles,
        }
        self._pixels = pixels[plan.layout]
        if basis_fits(plan):
            rows, columns = plan.header.tile_shape
            self._rows = inverse_basis(rows, plan.tile[0])
            self._columns = inverse_basis(columns, plan.tile[1])

    def room(self, count: int) -> NDArray[np.floating[Any]]:
        """Return memory for so many images of the decoder's dtype."""
        return np.empty(batch_shape(self.plan, count), self._dtype)

    def images(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.floating[Any]]:
        """Return images [n, C, h, w] of the decoder's dtype."""
        images = self._pixels(coefficients, rows)
        if augmentation is not None:
            images = _augment(images, augmentation)
        if out is None:
            return images.astype(self._dtype, copy=False)
        np.copyto(out, images, casting="same_kind")
        return out

    def labels(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels as they are."""
        return labels

    def receive(self, images: Any, labels: Any) -> None:
        """Do nothing: arrays are ready."""

    def _of_sparse(self, coefficients: SparseCoefficients, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._transform(self._scatter(coefficients, rows))

    def _of_tiles(self, coefficients: QuantizedCoefficients, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        spectra = self._spectra(coefficients, rows)
        if basis_fits(self.plan):
            return self._join(spectra)
        whole = spectra[:, :, :, 0].transpose(2, 1, 0, 3)
        shape = (*whole.shape[:2], *self.plan.tile)
        padded = np.zeros(shape, np.float32)
        padded[:, :, : whole.shape[2], : whole.shape[3]] = whole
        return self._transform(padded)

    def _spectra(self, coefficients: QuantizedCoefficients, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the channels' spectra [r, C, n, tiles, c], as far as rows and columns hold something."""
        plan, header = self.plan, self.plan.header
        down, across = held_sides(plan, coefficients.extents.take(rows, axis=0))
        sides = coefficients.values.reshape(*coefficients.values.shape[:3], *header.tile_shape)
        stored = sides[..., :down, :across][rows].transpose(3, 1, 0, 2, 4)
        planes = np.multiply(stored, np.float32(header.step), dtype=np.float32, order="C")
        spectra: NDArray[np.float32] = np.matmul(plan.matrix, planes.reshape(down, header.channels, -1))
        spectra = spectra.reshape(planes.shape)
        spectra[0, ..., 0] += plan.constant[:, None, None]
        return spectra

    def _join(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform spectra [r, C, n, tiles, c] by two tall products, and join the tiles to images."""
        plan, (down, channels, n, _, across) = self.plan, spectra.shape
        halfway = spectra.reshape(-1, across) @ self._columns[:across]
        pixels = self._rows[:down].T @ halfway.reshape(down, -1)
        tiles = pixels.reshape(plan.tile[0], channels, n, *plan.header.grid, plan.tile[1])
        images = tiles.transpose(2, 1, 3, 0, 4, 5).reshape(n, channels, *full_size(plan))
        return np.ascontiguousarray(images[:, :, : plan.height, : plan.width])

    def _scatter(self, coefficients: SparseCoefficients, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return scaled, truncated spectra [n, C, h, w]; packed positions address rows of a power of two."""
        plan, header = self.plan, self.plan.header
        n, stride = len(rows), 1 << column_bits(header.width)
        plane = header.height * stride
        values = coefficients.values.take(rows, axis=0)
        values *= plan.scale[:, None]
        start = np.arange(n * header.channels, dtype=np.intp).reshape(n, header.channels, 1) * plane
        dense = np.zeros(n * header.channels * plane, np.float32)
        dense[(coefficients.positions.take(rows, axis=0) + start).reshape(-1)] = values.reshape(-1)
        spectra = dense.reshape(n, header.channels, header.height, stride)
        spectra[:, :, 0, 0] += plan.constant
        return spectra[:, :, : plan.height, : plan.width]

    def _transform(self, spectra: NDArray[np.float32]) -> NDArray[np.float32]:
        plan, header = self.plan, self.plan.header
        if max(plan.height, plan.width) <= LARGEST_PRODUCT:
            product: NDArray[np.float32] = np.matmul(self._rows.T, np.matmul(spectra, self._columns))
            return product
        from scipy.fft import idctn

        brightness = np.sqrt(plan.height * plan.width / (header.height * header.width))
        images: NDArray[np.float32] = idctn(spectra, axes=(2, 3), norm="ortho", workers=-1)
        return images if brightness == 1 else images * np.float32(brightness)


def _augment(images: NDArray[np.float32], augmentation: Augmentation) -> NDArray[np.float32]:
    n, channels, height, width = images.shape
    inside = augmentation.rows[:, :, None] * width + augmentation.columns[:, None, :]
    start = np.arange(n * channels).reshape(n, channels, 1, 1) * (height * width)
    cropped: NDArray[np.float32] = images.reshape(-1).take(inside[:, None] + start)
    return cropped
