"""Tiles of an image, their color spaces, and the order in which their frequencies are coded."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BANDS",
    "COLOR_SPACES",
    "TILES",
    "Scan",
    "color_matrix",
    "color_shift",
    "color_spaces",
    "dct_basis",
    "from_tiles",
    "scan_order",
    "to_tiles",
]

TILES = ("full", "8", "16", "32")
"""The whole image, or tiles of so many pixels a side."""
COLOR_SPACES = ("rgb", "ycbcr")
"""Those of three channels; see `color_spaces`."""
BANDS = 16
# What coefficients of lower frequency, (rows, columns) below this one, weigh in the context of one.
NEIGHBORS = (
    (0, 1, 4),
    (1, 0, 4),
    (1, 1, 4),
    (0, 2, 3),
    (2, 0, 3),
    (1, 2, 2),
    (2, 1, 2),
    (0, 3, 2),
    (3, 0, 2),
    (2, 2, 2),
    (1, 3, 1),
    (3, 1, 1),
)
# ITU-R BT.601, full range, as in JFIF: R, G, B from Y, Cb, Cr.
_FROM_YCBCR = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def color_spaces(channels: int) -> tuple[str, ...]:
    """Return which color spaces images of so many channels may have."""
    return COLOR_SPACES if channels == 3 else ("gray",) if channels == 1 else ("planes",)


def color_matrix(color_space: str, channels: int = 3) -> NDArray[np.float64]:
    """Return the matrix [C, C] that takes the stored planes of a pixel to its channels.

    Parameters
    ----------
    color_space : str
        ``"ycbcr"`` (ITU-R BT.601 in full range, as in JFIF), or one whose planes are the channels.
    channels : int
        C.
    """
    return np.array(_FROM_YCBCR) if color_space == "ycbcr" else np.eye(channels)


def color_shift(color_space: str, channels: int = 3) -> NDArray[np.float64]:
    """Return what was subtracted, [C], from each stored plane of pixels on [0, 1] before the transform."""
    return np.array((0.5, 0.0, 0.0) if color_space == "ycbcr" else (0.5,) * channels)


@functools.lru_cache(maxsize=16)
def dct_basis(size: int) -> NDArray[np.float64]:
    """Return the matrix of the orthonormal DCT-II, [size, size], frequencies by pixels."""
    frequency, pixel = np.arange(size)[:, None], np.arange(size)[None, :]
    basis = np.cos(np.pi * (2 * pixel + 1) * frequency / (2 * size)) * math.sqrt(2 / size)
    basis[0] = math.sqrt(1 / size)
    return basis


@dataclass(frozen=True, eq=False)
class Scan:
    """The frequencies of a tile of h x w pixels, F = h w, diagonal after diagonal.

    Attributes
    ----------
    raster : int32 [F]
        ``u * w + v`` of the frequencies in coding order: by u + v, then by u.
    starts : int32 [diagonals + 1]
        Where in that order each diagonal begins; its last entry is F.
    neighbors : int32 [F, 12]
        Places in coding order of the neighbors in the context of each frequency; F where there is none.
    weights : int32 [12]
        What each neighbor weighs.
    band_of_diagonal : int32 [diagonals]
        The lowest band that covers the diagonal.
    last_of_band : int32 [16]
        The last diagonal that each band covers.
    """

    raster: NDArray[np.int32]
    starts: NDArray[np.int32]
    neighbors: NDArray[np.int32]
    weights: NDArray[np.int32]
    band_of_diagonal: NDArray[np.int32]
    last_of_band: NDArray[np.int32]

    @property
    def diagonals(self) -> int:
        """Number of diagonals, ``h + w - 1``."""
        return len(self.band_of_diagonal)

    @property
    def band_of_place(self) -> NDArray[np.int32]:
        """The band of each frequency in coding order, int32 [F]."""
        return np.repeat(self.band_of_diagonal, np.diff(self.starts))


@functools.lru_cache(maxsize=8)
def scan_order(height: int, width: int) -> Scan:
    """Return the coding order of a tile of this size, in pixels."""
    row, column = (axis.ravel() for axis in np.mgrid[:height, :width])
    diagonal = row + column
    raster = np.lexsort((row, diagonal))
    place = np.empty((height, width), np.int32)
    place.reshape(-1)[raster] = np.arange(height * width)
    neighbors = np.full((height * width, len(NEIGHBORS)), height * width, np.int32)
    for number, (up, left, _) in enumerate(NEIGHBORS):
        inside = (row[raster] >= up) & (column[raster] >= left)
        at = raster[inside]
        neighbors[inside, number] = place[row[at] - up, column[at] - left]
    last = height + width - 2
    last_of_band = np.array([min(last, max(k, last * k * k // (BANDS - 1) ** 2)) for k in range(BANDS)])
    return Scan(
        raster=raster.astype(np.int32),
        starts=np.searchsorted(diagonal[raster], np.arange(last + 2)).astype(np.int32),
        neighbors=neighbors,
        weights=np.array([weight for _, _, weight in NEIGHBORS], np.int32),
        band_of_diagonal=np.searchsorted(last_of_band, np.arange(last + 1)).astype(np.int32),
        last_of_band=last_of_band.astype(np.int32),
    )


def to_tiles(
    spectra: NDArray[np.floating[Any]], tile: tuple[int, int], grid: tuple[int, int], color_space: str
) -> NDArray[np.float32]:
    """Return the coefficients of tiles in the stored color space, from spectra of whole images.

    Parameters
    ----------
    spectra : float [n, C, H, W]
        Orthonormal DCT-II of whole images on [0, 1].
    tile : (int, int)
        Height and width of a tile in pixels.
    grid : (int, int)
        Tiles down and across; pixels that the image lacks repeat its last row and column.
    color_space : str
        See `color_matrix`.

    Returns
    -------
    float32 [n, C, tiles, tile height * tile width]
        Of planes from which `color_shift` was subtracted.
    """
    n, channels, height, width = spectra.shape
    matrix = np.linalg.inv(color_matrix(color_space, channels)).astype(np.float32)
    planes = np.matmul(matrix, spectra.reshape(n, channels, -1).astype(np.float32, copy=False))
    planes = planes.reshape(spectra.shape)
    shift = color_shift(color_space, channels)
    if (height, width) == tile:
        planes[:, :, 0, 0] -= (shift * math.sqrt(height * width)).astype(np.float32)
        whole: NDArray[np.float32] = planes.reshape(n, channels, 1, -1)
        return whole
    rows, columns = (dct_basis(size).astype(np.float32) for size in (height, width))
    pixels = rows.T @ (planes @ columns) - shift.astype(np.float32)[:, None, None]
    missing = [(0, grid[axis] * tile[axis] - size) for axis, size in enumerate((height, width))]
    pixels = np.pad(pixels, ((0, 0), (0, 0), *missing), mode="edge")
    tiles = pixels.reshape(n, channels, grid[0], tile[0], grid[1], tile[1]).swapaxes(3, 4)
    down, across = (dct_basis(size).astype(np.float32) for size in tile)
    spectra_of_tiles = np.ascontiguousarray(down @ tiles @ across.T, np.float32)
    return spectra_of_tiles.reshape(n, channels, grid[0] * grid[1], -1)


def from_tiles(
    tiles: NDArray[np.floating[Any]],
    tile: tuple[int, int],
    grid: tuple[int, int],
    size: tuple[int, int],
    color_space: str,
) -> NDArray[np.float64]:
    """Return pixels float64 [n, C, H, W], not shifted back, of tiles' coefficients: `to_tiles` undone.

    Parameters
    ----------
    tiles : float [n, C, tiles, tile height * tile width]
    tile, grid, color_space
        As in `to_tiles`.
    size : (int, int)
        Height and width of the image in pixels.
    """
    n, channels = tiles.shape[:2]
    parts = tiles.astype(np.float64).reshape(n, channels, grid[0], grid[1], *tile)
    pixels = dct_basis(tile[0]).T @ parts @ dct_basis(tile[1])
    whole = pixels.swapaxes(3, 4).reshape(n, channels, grid[0] * tile[0], grid[1] * tile[1])
    cropped = np.ascontiguousarray(whole[:, :, : size[0], : size[1]])
    mixed = np.matmul(color_matrix(color_space, channels), cropped.reshape(n, channels, -1))
    return np.asarray(mixed.reshape(cropped.shape))
