"""Which frequency components of an image are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

__all__ = ["Selector", "by_energy", "energy_mask"]


def energy_mask(coefficients: NDArray[np.floating[Any]], count: int) -> NDArray[np.bool_]:
    """Keep the `count` components of highest energy in each channel of each image (paper, §3.2).

    Energy is ``E(i, j) = |X(i, j)|^2``; ties go to the lower (row, column).

    Parameters
    ----------
    coefficients : float [n, C, H, W]
        Spectra.
    count : int
        ``1 .. H * W``.

    Returns
    -------
    bool [n, C, H, W]
        Exactly `count` true in each channel.

    Raises
    ------
    ConfigError
        `count` is out of range.
    """
    planes = np.abs(coefficients).reshape(*coefficients.shape[:2], -1)
    size = planes.shape[-1]
    if not 1 <= count <= size:
        raise ConfigError(f"{count} components cannot be kept of {size}")
    threshold = np.partition(planes, size - count, axis=-1)[..., size - count, None]
    mask: NDArray[np.bool_] = planes > threshold
    tied = planes == threshold
    missing = count - mask.sum(axis=-1, keepdims=True)
    crowded = (tied.sum(axis=-1, keepdims=True) > missing)[..., 0]
    tied[crowded] &= np.cumsum(tied[crowded], axis=-1) <= missing[crowded]
    mask |= tied
    return mask.reshape(coefficients.shape)


Selector = Callable[[NDArray[np.float32]], NDArray[np.bool_]]


def by_energy(components: int) -> Selector:
    """Return the selector that keeps the components of highest energy."""
    return lambda spectra: energy_mask(spectra, components)
