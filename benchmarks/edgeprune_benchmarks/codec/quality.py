"""How far decoded images are from the originals: PSNR over all pixels, and SSIM."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from edgeprune.psnr import psnr_db

__all__ = ["psnr", "ssim"]

_PART = 256  # images, so that working arrays stay small


def psnr(images: NDArray[np.uint8], originals: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB, peak 255, from the mean squared error over all pixels.

    Parameters
    ----------
    images, originals : uint8 [N, 3, H, W]

    Returns
    -------
    float
        Infinite where they are the same.
    """
    _require_same_shape(images, originals)
    total = 0
    for start in range(0, len(images), _PART):
        part = slice(start, start + _PART)
        error = images[part].astype(np.int32) - originals[part]
        total += int(np.square(error).sum(dtype=np.int64))
    found = psnr_db(total, 255**2 * images.size)
    return math.inf if found is None else found


def ssim(images: NDArray[np.uint8], originals: NDArray[np.uint8]) -> float:
    """Return the mean structural similarity over images, channels and positions.

    Wang, Bovik, Sheikh and Simoncelli, IEEE Trans. Image Processing 13(4), 2004, equation 13: Gaussian
    window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, range 255, only where the window fits the image.

    Parameters
    ----------
    images, originals : uint8 [N, 3, H, W]
        Sides of at least 11 pixels.
    """
    _require_same_shape(images, originals)
    if min(images.shape[2:]) < 11:
        raise ValueError(f"SSIM needs sides of 11 pixels or more, not {images.shape[2:]}")
    total = 0.0
    for start in range(0, len(images), _PART):
        part = slice(start, start + _PART)
        similar = _similarity(images[part].astype(np.float64), originals[part].astype(np.float64))
        total += float(similar.mean(axis=(1, 2, 3)).sum())
    return total / len(images)


def _similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    mean_one, mean_other = _windowed(one), _windowed(other)
    variances = _windowed(one**2) - mean_one**2 + _windowed(other**2) - mean_other**2
    covariance = _windowed(one * other) - mean_one * mean_other
    light, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_one * mean_other + light) * (2 * covariance + contrast)
    below = (mean_one**2 + mean_other**2 + light) * (variances + contrast)
    similar: NDArray[np.float64] = above / below
    return similar


def _windowed(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Gaussian means, [n, 3, H - 10, W - 10]."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    blurred: NDArray[np.float64] = correlate1d(correlate1d(planes, window, axis=2), window, axis=3)
    return blurred[:, :, 5:-5, 5:-5]


def _require_same_shape(images: NDArray[np.uint8], originals: NDArray[np.uint8]) -> None:
    if images.shape != originals.shape or images.dtype != np.uint8 or originals.dtype != np.uint8:
        raise ValueError(
            f"{images.dtype}{images.shape} and {originals.dtype}{originals.shape}: not uint8 of one shape"
        )
