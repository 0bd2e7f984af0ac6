"""The forward transform: pixels to spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

__all__ = ["dct2", "dct2_of_pixels", "idct2_of_tiles"]


def dct2(images: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
    """Return the orthonormal 2-D DCT-II of whole images, pixels scaled to [0, 1] (paper, §3.2).

    Computed in double precision, so that what rounding leaves of coefficients that are equal or zero by
    symmetry does not decide which of them is kept.

    Parameters
    ----------
    images : uint8 or uint16 [n, C, H, W]

    Returns
    -------
    float32 [n, C, H, W]
        Vertical frequency along the third axis, horizontal along the fourth.
    """
    pixels = images.astype(np.float64)
    pixels /= np.iinfo(images.dtype).max
    return dct2_of_pixels(pixels)


def dct2_of_pixels(pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the orthonormal 2-D DCT-II, float32, of pixels float64 [n, C, H, W], overwritten here."""
    spectra: NDArray[Any] = dctn(pixels, axes=(2, 3), norm="ortho", overwrite_x=True)
    return spectra.astype(np.float32)


def idct2_of_tiles(
    coefficients: NDArray[np.floating[Any]], tile: tuple[int, int], grid: tuple[int, int]
) -> NDArray[np.float64]:
    """Return planes float64 [n, C, grid height * tile height, ...] of tiles' orthonormal DCT-II.

    Parameters
    ----------
    coefficients : float [n, C, tiles, tile height * tile width]
    tile, grid : (int, int)
        Height and width of a tile in pixels; tiles down and across.
    """
    n, channels = coefficients.shape[:2]
    tiles = coefficients.astype(np.float64).reshape(n, channels, *grid, *tile)
    pixels: NDArray[Any] = idctn(tiles, axes=(4, 5), norm="ortho", overwrite_x=True)
    whole: NDArray[np.float64] = pixels.swapaxes(3, 4).reshape(
        n, channels, grid[0] * tile[0], grid[1] * tile[1]
    )
    return whole
