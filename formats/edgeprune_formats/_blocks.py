"""The object that passes between a codec and whoever needs coefficients: a block of sparse spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import ConfigError

__all__ = [
    "Block",
    "QuantizedBlock",
    "SparseBlock",
    "column_bits",
    "pack_positions",
    "position_dtype",
    "unpack_positions",
]


def column_bits(width: int) -> int:
    """Return how many low bits of a packed position hold the column: ``ceil(log2(width))``."""
    return (width - 1).bit_length()


def position_dtype(height: int, width: int) -> np.dtype[Any]:
    """Return uint16 where row and column bits fit 16 bits, else uint32 (paper, App. D: 5+5 and 8+8 bits)."""
    bits = column_bits(height) + column_bits(width)
    return np.dtype("<u2" if bits <= 16 else "<u4")


def pack_positions(flat: NDArray[np.integer[Any]], height: int, width: int) -> NDArray[Any]:
    """Pack row-major positions as ``row << column_bits | column``.

    Parameters
    ----------
    flat : int [...]
        Row-major positions, ``row * width + column``.
    height, width : int
        Size of the spectrum, which is that of the image, in pixels.

    Returns
    -------
    uint16 or uint32 [...]
    """
    row, column = np.divmod(flat, width)
    return ((row << column_bits(width)) | column).astype(position_dtype(height, width))


def unpack_positions(packed: NDArray[Any], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row, column), int64, of packed positions: the inverse of `pack_positions`."""
    wide = packed.astype(np.int64)
    bits = column_bits(width)
    return wide >> bits, wide & ((1 << bits) - 1)


@dataclass(frozen=True)
class SparseBlock:
    """Sparse spectra of n images, K coefficients in each channel.

    Attributes
    ----------
    values : float32 [n, C, K]
        Coefficients of the orthonormal 2-D DCT-II of pixels scaled to [0, 1].
    positions : uint16 or uint32 [n, C, K]
        Their packed positions, strictly ascending along the last axis (see `pack_positions`).
    """

    values: NDArray[np.float32]
    positions: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.shape != self.positions.shape or self.values.ndim != 3:
            raise ConfigError(
                f"values {self.values.shape} and positions {self.positions.shape} must both be [n, C, K]"
            )

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def empty(cls, samples: int, channels: int, components: int, dtype: np.dtype[Any]) -> SparseBlock:
        """Allocate a block to be filled; `dtype` is that of the positions."""
        shape = (samples, channels, components)
        return cls(np.empty(shape, np.float32), np.empty(shape, dtype))

    def empty_like(self, samples: int) -> SparseBlock:
        """Allocate a block of other images of the same shape, to be filled."""
        _, channels, components = self.values.shape
        return SparseBlock.empty(samples, channels, components, self.positions.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by values and positions."""
        return self.values.nbytes + self.positions.nbytes

    def take(self, rows: NDArray[np.intp] | slice) -> SparseBlock:
        """Return the images at `rows`, in that order; a slice gives views, indices give copies."""
        if isinstance(rows, slice):
            return SparseBlock(self.values[rows], self.positions[rows])
        return SparseBlock(self.values.take(rows, axis=0), self.positions.take(rows, axis=0))

    def write(self, start: int, block: SparseBlock) -> None:
        """Copy `block` into the images from `start` on."""
        self.values[start : start + len(block)] = block.values
        self.positions[start : start + len(block)] = block.positions

    def to_dense(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the full spectra, float32 [n, C, height, width], zeros where nothing was kept."""
        n, channels, _ = self.values.shape
        dense = np.zeros((n, channels, height, width), np.float32)
        row, column = unpack_positions(self.positions, width)
        np.put_along_axis(dense.reshape(n, channels, -1), row * width + column, self.values, axis=2)
        return dense


@dataclass(frozen=True)
class QuantizedBlock:
    """Quantised spectra of the tiles of n images.

    Attributes
    ----------
    values : int16 [n, C, tiles, Bh * Bw]
        Coefficients over the pack's quantisation step: planes of the pack's colour space, tiles row by
        row, each in raster order of its frequencies.
    extents : uint16 [n, C, tiles]
        Coefficients whose frequencies (u, v) have ``u + v`` above this are zero.
    """

    values: NDArray[np.int16]
    extents: NDArray[np.uint16]

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[:3] != self.extents.shape:
            raise ConfigError(
                f"values {self.values.shape} and extents {self.extents.shape} must be [n, C, tiles, F] "
                "and [n, C, tiles]"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self.values.nbytes + self.extents.nbytes

    def empty_like(self, samples: int) -> QuantizedBlock:
        """Allocate a block of other images of the same shape, to be filled."""
        shape = (samples, *self.values.shape[1:])
        return QuantizedBlock(np.empty(shape, np.int16), np.empty(shape[:3], np.uint16))

    def take(self, rows: NDArray[np.intp] | slice) -> QuantizedBlock:
        """Return the images at `rows`, in that order; a slice gives views, indices give copies."""
        if isinstance(rows, slice):
            return QuantizedBlock(self.values[rows], self.extents[rows])
        return QuantizedBlock(self.values.take(rows, axis=0), self.extents.take(rows, axis=0))

    def write(self, start: int, block: QuantizedBlock) -> None:
        """Copy `block` into the images from `start` on."""
        self.values[start : start + len(block)] = block.values
        self.extents[start : start + len(block)] = block.extents


Block = SparseBlock | QuantizedBlock
