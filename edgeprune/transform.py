"""The forward transform: pixels to spectra."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

__all__ = ["dct2"]


def dct2(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the orthonormal 2-D DCT-II of whole images, pixels scaled to [0, 1] (paper, §3.2).

    Computed in double precision, so that what rounding leaves of coefficients that are equal or zero by
    symmetry does not decide which of them is kept.

    Parameters
    ----------
    images : uint8 [n, C, H, W]

    Returns
    -------
    float32 [n, C, H, W]
        Vertical frequency along the third axis, horizontal along the fourth.
    """
    pixels = images.astype(np.float64)
    pixels /= 255
    spectra: NDArray[Any] = dctn(pixels, axes=(2, 3), norm="ortho", overwrite_x=True, workers=-1)
    return spectra.astype(np.float32)
